package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"postrider/internal/config"
	"postrider/internal/relay"
	"postrider/internal/store"
	"postrider/internal/store/postgres"
	"postrider/internal/store/sqlite"
)

// StoreName is SQLite's file in the data folder.
const StoreName = "postrider.db"

// openStore opens the store that the configuration names. A server that does
// not answer is waited for as long as store_wait says: a service manager that
// starts everything at once need not know what needs what.
func openStore(ctx context.Context, c config.Config, log *slog.Logger) (*store.DB, error) {
	if !c.Store.Shared() {
		return sqlite.Open(ctx, filepath.Join(c.Data, StoreName), log)
	}
	const every, tell = time.Second, 10 * time.Second
	var told time.Time
	began := time.Now()
	for {
		db, err := postgres.Open(ctx, c.Store.DSN(), log)
		if err == nil {
			if !told.IsZero() {
				log.Info("the store answers", "waited", time.Since(began).Round(time.Second))
			}
			return db, nil
		}
		if relay.CodeOf(err) != relay.Unavailable || time.Since(began)+every > time.Duration(c.Patience) || ctx.Err() != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		if time.Since(told) >= tell {
			told = time.Now()
			log.Warn("the store does not answer; trying on", "store", c.Store.String(), "for", (time.Duration(c.Patience) - time.Since(began)).Round(time.Second), "err", err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(every):
		}
	}
}
