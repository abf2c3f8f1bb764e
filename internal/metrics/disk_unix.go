//go:build linux || darwin || freebsd

package metrics

import "syscall"

// space gives the bytes that the disk of path has, and those that are free.
func space(path string) (free, total float64, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil {
		return 0, 0, err
	}
	return float64(s.Bavail) * float64(s.Bsize), float64(s.Blocks) * float64(s.Bsize), nil
}
