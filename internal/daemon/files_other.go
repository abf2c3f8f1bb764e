//go:build !linux && !darwin && !freebsd

package daemon

func fileLimit() int { return 0 }
