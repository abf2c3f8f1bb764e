package daemon

import (
	"context"

	"postrider/internal/account"
	"postrider/internal/relay"
	"postrider/internal/suppression"
)

// filtered is the store, but that most addresses are known not to be suppressed
// without asking it.
type filtered struct {
	account.DirectoryStore
	filter *suppression.Filter
}

// Suppressed gives what the store would.
func (s filtered) Suppressed(ctx context.Context, account relay.ID, stream relay.Stream, addresses []string) ([]*relay.Suppression, error) {
	return s.filter.Suppressed(ctx, account, stream, addresses)
}

// withFilter makes the filter, and gives the store behind it.
func (d *Daemon) withFilter() account.DirectoryStore {
	d.filter = suppression.NewFilter(d.store, int64(d.Config.Suppress.Filter), d.log)
	return filtered{d.store, d.filter}
}
