//go:build !linux && !darwin && !freebsd

package metrics

import "errors"

func space(string) (free, total float64, err error) { return 0, 0, errors.ErrUnsupported }
