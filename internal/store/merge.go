package store

import (
	"context"
	"fmt"
	"time"

	"postrider/internal/relay"
)

// mergeRows is how many counts one transaction merges or drops: others are to
// write in between.
const mergeRows = 500

const dayOfMicros = int64(24 * time.Hour / time.Microsecond)

// MergeCounts makes one count of those that differ in their hour only, for each
// whole day that ended before. Two nodes that do it at once do not harm each other.
func (db *DB) MergeCounts(ctx context.Context, before time.Time) error {
	end := dayMicros(before)
	for {
		day, err := db.nextMerge(ctx, end)
		if err != nil || day == 0 || day >= end {
			return err
		}
		err = db.eachAccount(ctx, func(account relay.ID) (int, error) { return db.mergeSome(ctx, account, day) })
		if err != nil {
			return err
		}
		err = db.write(ctx, "merge counts", func(ctx context.Context, w *writer) error {
			_, err := w.exec(ctx, "update counter set value = ? where name = 'rollup' and value < ?", day+dayOfMicros, day+dayOfMicros)
			return err
		})
		if err != nil {
			return err
		}
	}
}

// nextMerge is the day whose hours are merged next; 0: there is none before end.
func (db *DB) nextMerge(ctx context.Context, end int64) (day int64, err error) {
	err = db.read(ctx, "select value from counter where name = 'rollup'", func(row scanner) error { return row.Scan(&day) })
	if err == nil && day == 0 { // none were merged so far
		err = db.read(ctx, "select coalesce(min(at), 0) from rollup", func(row scanner) error { return row.Scan(&day) })
		day -= day % dayOfMicros
	}
	if err != nil {
		return 0, db.fail("merge counts", err)
	}
	if day >= end {
		return 0, nil
	}
	return day, nil
}

// DropCounts drops those of days that ended before.
func (db *DB) DropCounts(ctx context.Context, before time.Time) error {
	end := dayMicros(before)
	return db.eachAccount(ctx, func(account relay.ID) (n int, err error) {
		err = db.write(ctx, "drop counts", func(ctx context.Context, w *writer) error {
			gone, err := w.exec(ctx, "delete from rollup where account = ? and (at, digest, part) in (select at, digest, part from rollup where account = ? and at < ? order by at, digest, part limit ?)",
				account[:], account[:], end, mergeRows)
			n = int(gone)
			return err
		})
		return n, err
	})
}

// eachAccount calls f for each account that was ever made, again and again while it
// does as much as it may at once.
func (db *DB) eachAccount(ctx context.Context, f func(account relay.ID) (int, error)) error {
	accounts, err := collect(ctx, db, "read accounts", func(row scanner) (*relay.ID, error) {
		var id []byte
		err := row.Scan(&id)
		a := toID(id)
		return &a, err
	}, "select id from account order by id")
	if err != nil {
		return err
	}
	for _, a := range accounts {
		for {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			n, err := f(*a)
			if err != nil {
				return err
			}
			if n < mergeRows {
				break
			}
		}
	}
	return nil
}

// merged are the columns of a count that stay when hours become a day.
const merged = "digest, stream, kind, mark, latency, credential, category, provider, sending, source, tag"

// mergeSome puts some counts of the day's hours, and of its parts, into the day's,
// and says how many.
func (db *DB) mergeSome(ctx context.Context, account relay.ID, day int64) (n int, err error) {
	err = db.write(ctx, "merge counts", func(ctx context.Context, w *writer) error {
		type hour struct {
			digest string
			row    []any
		}
		sums := map[string]*hour{}
		var order []*hour
		n = 0
		// The day's own counts are in part 0 of its first hour: where they come from
		// matters no more.
		err := w.query(ctx, "delete from rollup where account = ? and (at, digest, part) in (select at, digest, part from rollup where account = ? and at >= ? and at < ?"+
			" and (at > ? or part > 0) order by at, digest, part limit ?) returning count, message, n, "+merged, func(row scanner) error {
			var count, last, stream, kind, mark, latency int64
			var message, digest, credential []byte
			var category, provider, sending, source, tag string
			if err := row.Scan(&count, &message, &last, &digest, &stream, &kind, &mark, &latency, &credential, &category, &provider, &sending, &source, &tag); err != nil {
				return err
			}
			n++
			if h := sums[string(digest)]; h != nil {
				h.row[14] = h.row[14].(int64) + count
				return nil
			}
			h := &hour{string(digest), []any{account[:], day, digest, int64(0), stream, kind, mark, latency, credential, category, provider, sending, source, tag, count, message, last}}
			sums[h.digest], order = h, append(order, h)
			return nil
		}, account[:], account[:], day, day+dayOfMicros, day, mergeRows)
		if err != nil {
			return fmt.Errorf("take the hours: %w", err)
		}
		rows := make([][]any, len(order))
		for i, h := range order {
			rows[i] = h.row
		}
		return w.insert(ctx, rollupTable, rows...)
	})
	return n, err
}
