package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// program is a process whose use of the machine is measured: alone, or as the
// master of the processes that it starts.
type program struct {
	name  string
	pid   int
	group bool // with its children
}

// ticks a second: the unit of the times in /proc/PID/stat, the same on every
// machine that Go knows (proc_pid_stat(5), sysconf(_SC_CLK_TCK)).
const ticks = 100

// stat is what /proc/PID/stat says of a process.
type stat struct {
	pid, parent int
	own         int64 // ticks in user mode and in the kernel
	ended       int64 // the same, of children that have ended
}

func readStat(pid string) (*stat, error) {
	text, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return nil, fmt.Errorf("read processor time: %w", err)
	}
	// The second field is the name in brackets, which may hold anything.
	f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(f) < 15 {
		return nil, fmt.Errorf("read processor time: %q", text)
	}
	var n [15]int64
	for i := 1; i < len(n); i++ {
		n[i], _ = strconv.ParseInt(f[i], 10, 64) // the kernel writes numbers
	}
	id, _ := strconv.Atoi(pid)
	return &stat{pid: id, parent: int(n[1]), own: n[11] + n[12], ended: n[13] + n[14]}, nil
}

// children finds the processes that a process has started and that still are.
func children(pid int) (found []*stat, err error) {
	folders, err := filepath.Glob("/proc/[1-9]*")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	for _, f := range folders {
		// One that ended in between is in its parent's sum.
		if s, err := readStat(filepath.Base(f)); err == nil && s.parent == pid {
			found = append(found, s)
		}
	}
	return found, nil
}

// cpu is the processor time that a program has used, in seconds.
func (p program) cpu() (float64, error) {
	s, err := readStat(strconv.Itoa(p.pid))
	if err != nil {
		return 0, err
	}
	sum := s.own
	if p.group {
		all, err := children(p.pid)
		if err != nil {
			return 0, err
		}
		sum += s.ended
		for _, c := range all {
			sum += c.own + c.ended
		}
	}
	return float64(sum) / ticks, nil
}

// line reads a number of kB from a file of the kernel's, in bytes.
func line(pid int, file, name string) (int64, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), file))
	if err != nil {
		return 0, fmt.Errorf("read memory: %w", err)
	}
	for l := range strings.Lines(string(text)) {
		if f := strings.Fields(l); len(f) == 3 && f[0] == name {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read memory: %w", err)
			}
			return n << 10, nil
		}
	}
	return 0, fmt.Errorf("read memory: no %s in %s", name, file)
}

// memory of a program, in bytes: alone, the most that was resident since forget
// (VmHWM); with children, what all have resident just now, shared pages shared
// out among those that share them (Pss).
func (p program) memory() (int64, error) {
	if !p.group {
		return line(p.pid, "status", "VmHWM:")
	}
	sum, err := line(p.pid, "smaps_rollup", "Pss:")
	if err != nil {
		return 0, err
	}
	all, err := children(p.pid)
	if err != nil {
		return 0, err
	}
	for _, c := range all {
		n, err := line(c.pid, "smaps_rollup", "Pss:")
		if err == nil { // it may have ended
			sum += n
		}
	}
	return sum, nil
}

// forget sets VmHWM back to what is resident now (proc_pid_clear_refs(5)).
func (p program) forget() error {
	if err := os.WriteFile(filepath.Join("/proc", strconv.Itoa(p.pid), "clear_refs"), []byte("5"), 0); err != nil {
		return fmt.Errorf("reset peak memory: %w", err)
	}
	return nil
}

// usage is what programs use while it watches them.
type usage struct {
	programs []program
	before   map[string]float64
	most     map[string]int64
	next     time.Time // of the next look at memory
}

// pace is how often the memory of groups is looked at: it costs time.
const pace = 2 * time.Second

func watch(programs []program) (*usage, error) {
	u := &usage{programs: programs, before: map[string]float64{}, most: map[string]int64{}, next: time.Now().Add(pace / 4)}
	for _, p := range programs {
		cpu, err := p.cpu()
		if err != nil {
			return nil, err
		}
		u.before[p.name] = cpu
		if p.group {
			continue
		}
		if err := p.forget(); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// sample looks at the memory of groups when it is time.
func (u *usage) sample() error {
	if time.Now().Before(u.next) {
		return nil
	}
	u.next = time.Now().Add(pace)
	for _, p := range u.programs {
		if p.group {
			if err := u.look(p); err != nil {
				return err
			}
		}
	}
	return nil
}

func (u *usage) look(p program) error {
	n, err := p.memory()
	u.most[p.name] = max(u.most[p.name], n)
	return err
}

// end gives the seconds of processor time and the most bytes of each program.
func (u *usage) end() (cpu map[string]float64, memory map[string]int64, err error) {
	cpu = map[string]float64{}
	for _, p := range u.programs {
		after, e := p.cpu()
		err = errors.Join(err, e, u.look(p))
		cpu[p.name] = after - u.before[p.name]
	}
	return cpu, u.most, err
}
