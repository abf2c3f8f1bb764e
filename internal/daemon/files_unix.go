//go:build linux || darwin || freebsd

package daemon

import "syscall"

// fileLimit is how many files and connections this process may have open at
// once; 0 where that is not known.
func fileLimit() int {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) != nil {
		return 0
	}
	return int(min(uint64(l.Cur), 1<<30))
}
