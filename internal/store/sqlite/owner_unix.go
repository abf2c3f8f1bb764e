//go:build unix

package sqlite

import (
	"os"
	"syscall"
)

// inherit gives the file the owner of the folder, where we may.
func inherit(f *os.File, folder string) error {
	i, err := os.Stat(folder)
	if err != nil {
		return err
	}
	if s, ok := i.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		return f.Chown(int(s.Uid), int(s.Gid))
	}
	return nil
}
