package badday

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"postrider/internal/lab/process"
)

// binary is the program under test, built once.
var binary string

// The tests mount file systems, so they run in a mount namespace of their own:
// nobody else sees them, and they are gone with the tests. Who is not root is
// root in a user namespace of its own, which may mount a tmpfs too.
func TestMain(m *testing.M) {
	const inside = "POSTRIDER_BADDAY_INSIDE"
	if os.Getenv(inside) != "" {
		os.Exit(process.Main(context.Background(), m.Run, &binary))
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(max(exit.ExitCode(), 1))
	case err != nil:
		fmt.Fprintln(os.Stderr, "these tests mount file systems; run them as root, or where users may have namespaces:", err)
		os.Exit(1)
	}
}

// mount mounts a file system on a folder until the test ends.
func mount(t *testing.T, kind, source, folder string, flags uintptr, options string) {
	t.Helper()
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(source, folder, kind, flags, options); err != nil {
		t.Fatalf("mount %s on %s: %v", kind, folder, err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(folder, syscall.MNT_DETACH) })
}
