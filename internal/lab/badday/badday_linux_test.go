package badday

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// The disk of the store becomes full in mid-load, first of mail, then so that
// nothing can be written any more. Submissions get 452, what was accepted is
// delivered when there is room again, and acceptance resumes, all by itself.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	d := newDay(t, dir, binary, "")
	mount(t, "tmpfs", "none", d.Data, 0, "size=48m")
	d.start()

	n := 0
	next := func(size int) error { n++; return d.send(fmt.Sprintf("m%d", n), size) }
	var full error
	d.within(patience, "the disk is full", func() bool { full = next(100 << 10); return code(full) != 0 })
	if code(full) != 452 {
		t.Fatalf("full: %v", full)
	}
	if len(d.accepted) < 50 {
		t.Errorf("only %d messages had room", len(d.accepted))
	}
	// Of those that are spooled to a file. There may be room for one yet: what is in
	// the store's log takes none of its own any more when it has moved into the file.
	d.within(patience, "there is no room for a large one", func() bool { full = next(2 << 20); return code(full) != 0 })
	if code(full) != 452 {
		t.Errorf("a large one: %v", full)
	}

	// Somebody else takes the rest, and what the log gives back when it has moved: not
	// even outcomes have room.
	ballast := filepath.Join(d.Data, "ballast")
	refused := func() bool {
		for range 5 { // the log may move between the two steps
			fill(t, ballast)
			if code(next(1<<10))/100 == 4 {
				return true
			}
		}
		return false
	}
	refused()
	d.receive()
	d.stays(3*time.Second, "a submission is refused for now", refused)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	d.within(patience, "mail is accepted again", func() bool { return next(100<<10) == nil })
	d.allCame()
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
	t.Logf("%d messages accepted of %d", len(d.accepted), n)
}

// fill takes all the room that a file system has, besides what the file has.
func fill(t *testing.T, file string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err = f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill the disk: %v", err)
	}
}

// On a read-only data folder the relay does not start, and says why. When the
// file system turns read-only under it, as kernels do when a disk fails, it
// refuses mail for now; when the disk is mended and it is started again,
// everything accepted is delivered.
func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	d := newDay(t, dir, binary, "")
	disk := filepath.Join(dir, "disk")
	failing := mountDisk(t, disk, d.Data)
	d.start()
	for i := range 20 {
		if err := d.send(fmt.Sprintf("m%d", i), 10<<10); err != nil {
			t.Fatal(err)
		}
	}
	if failing {
		// ext4's way to test what it does after an error.
		if err := syscall.Mount("none", d.Data, "ext4", syscall.MS_REMOUNT, "abort"); err != nil {
			t.Fatal(err)
		}
		d.receive() // deliveries are under way
		d.stays(3*time.Second, "a submission is refused for now", func() bool { err := d.send("x", 10<<10); return code(err)/100 == 4 })
		if err := d.send("x", 2<<20); code(err)/100 != 4 {
			t.Errorf("a large one: %v", err)
		}
	} else {
		d.receive()
	}
	d.Kill()

	if err := syscall.Mount("none", d.Data, "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	out, err := d.Run(t.Context(), "serve")
	if err == nil || strings.Count(out, "\n") != 1 || !strings.Contains(out, "read-only") || !strings.Contains(out, d.Data) {
		t.Errorf("start on a read-only folder: %v\n%s", err, out)
	}
	if failing {
		unmount(t, d.Data)
		attach(t, disk, d.Data) // the kernel mends it from its journal
	} else if err := syscall.Mount("none", d.Data, "", syscall.MS_REMOUNT|syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	d.start()
	d.within(patience, "everything accepted has come", func() bool { n, _ := d.missing(); return n == 0 })
	if err := d.send("last", 1<<10); err != nil {
		t.Error(err)
	}
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
}

// mountDisk mounts a small ext4 in a file, and tells whether that could be done.
// It wants a loop device; where there is none a tmpfs is mounted instead, which
// can be made read-only but cannot fail in use.
func mountDisk(t *testing.T, file, folder string) bool {
	t.Helper()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := os.Truncate(file, 64<<20)
	if err == nil {
		err = exec.Command("mkfs.ext4", "-q", "-F", file).Run()
	}
	if err == nil {
		err = os.MkdirAll(folder, 0o700)
	}
	if err == nil {
		err = exec.Command("mount", "-o", "loop", file, folder).Run()
	}
	if err != nil {
		t.Logf("no disk of our own can be had here (%v): that one fails in use is not shown", err)
		mount(t, "tmpfs", "none", folder, 0, "size=48m")
		return false
	}
	t.Cleanup(func() { _ = syscall.Unmount(folder, syscall.MNT_DETACH) })
	return true
}

func attach(t *testing.T, file, folder string) {
	t.Helper()
	if out, err := exec.Command("mount", "-o", "loop", file, folder).CombinedOutput(); err != nil {
		t.Fatalf("mount again: %v\n%s", err, out)
	}
}

func unmount(t *testing.T, folder string) {
	t.Helper()
	if err := syscall.Unmount(folder, 0); err != nil {
		t.Fatal(err)
	}
}

// With few files to open, more clients come than there are files for, and then
// there are none at all for a while. Nothing is lost, the relay does not spin,
// and all goes on when there are files again.
func TestTooManyFiles(t *testing.T) {
	dir := t.TempDir()
	few := filepath.Join(dir, "few")
	if err := os.WriteFile(few, []byte("#!/bin/sh\nulimit -n 96\nexec "+binary+" \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	d := newDay(t, dir, few, "")
	d.start()
	d.receive()
	crowd := make([]net.Conn, 0, 300)
	defer func() {
		for _, c := range crowd {
			c.Close()
		}
	}()
	accepted, refused := 0, 0
	for i := range 300 {
		c, err := net.DialTimeout("tcp", d.Addr, patience)
		if err != nil {
			t.Fatal(err)
		}
		crowd = append(crowd, c)
		if i%10 != 0 {
			continue
		}
		if err := d.send(fmt.Sprintf("m%d", i), 2<<20); err == nil { // with a file for its content
			accepted++
		} else if refused++; code(err) != 0 && code(err)/100 != 4 {
			t.Errorf("refused for ever: %v", err)
		}
	}
	d.quiet("with a crowd")
	for _, c := range crowd {
		c.Close()
	}
	crowd = crowd[:0]
	n := 0
	again := func() bool { n++; return d.send(fmt.Sprintf("again%d", n), 2<<20) == nil }
	d.within(patience, "mail is accepted when the crowd has gone", again)

	// Now none at all: the limit is below what is open.
	old := limitFiles(t, d.PID(), 8)
	for range 5 { // some wait to be accepted
		c, err := net.DialTimeout("tcp", d.Addr, patience)
		if err != nil {
			t.Fatal(err)
		}
		crowd = append(crowd, c)
	}
	d.quiet("without files")
	limitFiles(t, d.PID(), old)
	d.within(patience, "mail is accepted when there are files again", again)
	d.allCame()
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
	t.Logf("%d accepted and %d refused in the crowd", accepted, refused)
}

// quiet waits until the relay uses little time, since it can do nothing: one that
// spins never does.
func (d *day) quiet(when string) {
	d.t.Helper()
	const long = 3 * time.Second
	d.within(patience, when+" the relay uses little processor time", func() bool {
		before := d.busy()
		<-time.After(long)
		return d.busy()-before <= long/5
	})
}

// limitFiles sets how many files a process may have open, and gives what it was.
func limitFiles(t *testing.T, pid int, n uint64) (old uint64) {
	t.Helper()
	limit := syscall.Rlimit{Cur: n, Max: 96}
	var was syscall.Rlimit
	_, _, e := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(pid), syscall.RLIMIT_NOFILE,
		uintptr(unsafe.Pointer(&limit)), uintptr(unsafe.Pointer(&was)), 0, 0)
	if e != 0 {
		t.Fatalf("limit files: %v", e)
	}
	return was.Cur
}
