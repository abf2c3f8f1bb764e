//go:build unix

package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"postrider/internal/relay"
)

// lock holds the file for this process until unlock is called or the process
// ends, however it ends.
func lock(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission) {
		return nil, &relay.Error{Code: relay.Unavailable, Text: fmt.Sprintf("The folder %s can't be written to.", filepath.Dir(path)),
			Advice: "Make it writable for the relay's user, or choose another one.", Err: errors.Unwrap(err)}
	}
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = &relay.Error{Code: relay.Conflict, Text: "Another Postrider has this store open.",
				Advice: "Stop it first, or give this one a data folder of its own.", Err: err}
		}
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f.Close, nil
}
