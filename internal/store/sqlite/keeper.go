package sqlite

import (
	"context"
	"database/sql"
	"log/slog"
	"time"

	"postrider/internal/store"
)

// keeper moves what was committed from the write-ahead log into the file
// (https://sqlite.org/wal.html#ckpt), on a connection and in a goroutine of its
// own, so that no commit has to wait for it. It touches no durability: a commit
// is on disk once it is in the log.
//
// SQLite begins the log anew only when a writer finds all of it moved, which
// never happens while commits keep coming. So when the log has grown, the
// keeper moves most of it beside the writers, and the small rest while they
// wait. When the disk is nearly full it does so in any case, and gives the log's
// room back.
type keeper struct {
	db        *sql.DB
	log       *slog.Logger
	exclusive store.Exclusive
	low       func(context.Context) bool // there is little room on the disk
	source    *source                    // of backups; nil: there are none
}

const (
	keepEvery = 500 * time.Millisecond
	logPages  = 8 << 10 // when to begin the log anew: 64 MiB
	restPages = 512     // small enough to move while writers wait
)

func (k *keeper) run(ctx context.Context) {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := k.keep(ctx); err != nil && ctx.Err() == nil {
			k.log.Warn("the store's log could not be moved into its file; this will be tried again", "err", err)
		}
	}
}

func (k *keeper) keep(ctx context.Context) error {
	pages, moved, err := k.checkpoint(ctx, "noop")
	low := err == nil && pages > 0 && k.low(ctx)
	if err != nil || pages < logPages && !low {
		return err
	}
	for range 3 {
		if pages-moved < restPages {
			break
		}
		if _, moved, err = k.checkpoint(ctx, "passive"); err != nil {
			return err
		}
		if pages, _, err = k.checkpoint(ctx, "noop"); err != nil {
			return err
		}
	}
	return k.exclusive(ctx, func(ctx context.Context) error {
		// Waits for those who still read the old log, as long as busy_timeout
		// says; then all begin anew.
		mode := "restart"
		if low && (k.source == nil || k.source.copy == nil) { // a copy would begin anew
			mode = "truncate"
		}
		_, _, err := k.checkpoint(ctx, mode)
		return err
	})
}

// checkpoint gives the number of pages in the log and how many of them are in
// the file.
func (k *keeper) checkpoint(ctx context.Context, mode string) (pages, moved int, err error) {
	var busy int
	err = k.db.QueryRowContext(ctx, "pragma wal_checkpoint("+mode+")").Scan(&busy, &pages, &moved)
	return pages, moved, err
}
