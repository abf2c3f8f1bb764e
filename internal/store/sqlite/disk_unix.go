//go:build linux || darwin || freebsd

package sqlite

import "syscall"

// space gives the bytes that the disk of path has, and those that are free.
func space(path string) (free, total int64, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil {
		return 0, 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), int64(s.Blocks) * int64(s.Bsize), nil
}
