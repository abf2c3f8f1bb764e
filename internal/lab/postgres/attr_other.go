//go:build !linux

package postgres

import "syscall"

// account is the user that servers run as; elsewhere than on Linux our own.
type account struct{}

func unprivileged() (*account, error) { return nil, nil }

func (a *account) own(string) error { return nil }

func (a *account) attributes() *syscall.SysProcAttr { return nil }

// childrenOf lists none: PostgreSQL's end by themselves when it is gone.
func childrenOf(int) []int { return nil }

func alive(int) bool { return false }
