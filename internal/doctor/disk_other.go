//go:build !linux && !darwin

package doctor

import "errors"

func space(string) (free, whole uint64, err error) {
	return 0, 0, errors.New("not on this system")
}
