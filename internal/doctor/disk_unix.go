//go:build linux || darwin

package doctor

import "syscall"

// space is what is free for us on the disk of a folder, and how large it is, in
// bytes.
func space(folder string) (free, whole uint64, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(folder, &s); err != nil {
		return 0, 0, err
	}
	return s.Bavail * uint64(s.Bsize), s.Blocks * uint64(s.Bsize), nil
}
