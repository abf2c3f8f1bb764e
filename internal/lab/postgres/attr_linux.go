package postgres

import (
	"bytes"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the user that servers run as; nil stands for our own.
type account struct{ uid, gid uint32 }

// unprivileged finds a user for servers: neither PostgreSQL nor PgBouncer runs
// as root.
func unprivileged() (*account, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return nil, fmt.Errorf("find a user to run PostgreSQL: %w", err)
		}
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err1 != nil || err2 != nil {
		return nil, fmt.Errorf("find a user to run PostgreSQL: %s has the ids %s and %s", u.Username, u.Uid, u.Gid)
	}
	return &account{uint32(uid), uint32(gid)}, nil
}

// own gives a file or folder to the account.
func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Chown(path, int(a.uid), int(a.gid))
}

// attributes make a process run as the account, apart from the terminal's
// signals, and end it when this process is gone. SIGQUIT is PostgreSQL's
// immediate shutdown, which takes its children along.
func (a *account) attributes() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGQUIT}
	if a != nil {
		attr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
	return attr
}

// childrenOf lists the processes that pid began.
func childrenOf(pid int) (children []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		state := stat(name)
		if len(state) > 1 && string(state[1]) == strconv.Itoa(pid) {
			if child, err := strconv.Atoi(filepath.Base(filepath.Dir(name))); err == nil {
				children = append(children, child)
			}
		}
	}
	return children
}

// alive tells whether a process is there and more than a zombie.
func alive(pid int) bool {
	state := stat(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return len(state) > 0 && string(state[0]) != "Z" && string(state[0]) != "X"
}

// stat gives the fields of a process behind its name: state, parent, …
func stat(name string) [][]byte {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil // gone
	}
	return bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
}
