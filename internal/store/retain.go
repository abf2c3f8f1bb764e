package store

import (
	"context"
	"errors"
	"slices"

	"postrider/internal/relay"
)

const (
	dropLook = 1000 // messages that are looked at at once
	dropMost = 25   // that are dropped in one transaction
)

// DropLog drops messages of which the log is kept no longer, with their deliveries,
// events and content: those after one id that are older than ends says of their
// account. It looks at some of them, drops a few, and tells where to go on; the
// zero id says that it has seen all up to until. What is not final stays, and what
// a DSN is still to be written about.
func (db *DB) DropLog(ctx context.Context, after, until relay.ID, ends func(account relay.ID) relay.ID) (dropped int, next relay.ID, err error) {
	old, next, err := db.pastOf(ctx, "select id, account from message where id > ? and id < ? order by id limit ?", after, until, ends)
	if err != nil || len(old) == 0 {
		return 0, next, err
	}
	segments, err := db.segments(ctx)
	if err != nil {
		return 0, next, db.fail("read index of the log", err)
	}
	var gone []relay.ID
	err = db.write(ctx, "drop log", func(ctx context.Context, w *writer) error {
		gone = nil
		deliveries := int64(0)
		where, args := w.among("id", old)
		err := w.query(ctx, "select id from message where "+where+" and not exists (select 1 from delivery d where d.message = message.id and d.state < 10)"+
			" and not exists (select 1 from notice where notice.message = message.id)", func(row scanner) error {
			var id []byte
			err := row.Scan(&id)
			gone = append(gone, toID(id))
			return err
		}, args...)
		if err != nil || len(gone) == 0 {
			return err
		}
		where, args = w.among("message", gone)
		for _, table := range []string{"content", "event", "delivery"} {
			if deliveries, err = w.exec(ctx, "delete from "+table+" where "+where, args...); err != nil {
				return err
			}
		}
		where, args = w.among("id", gone)
		if _, err = w.exec(ctx, "delete from message where "+where, args...); err != nil {
			return err
		}
		return w.countGone(ctx, segments, gone, deliveries)
	})
	if err != nil {
		return 0, next, err
	}
	return len(gone), next, nil
}

// DropContent drops content that was archived longer ago than ends says of its
// account, as DropLog does.
func (db *DB) DropContent(ctx context.Context, after, until relay.ID, ends func(account relay.ID) relay.ID) (dropped int, next relay.ID, err error) {
	old, next, err := db.pastOf(ctx, "select id, account from message where archive <> 0 and id > ? and id < ? order by id limit ?", after, until, ends)
	if err != nil || len(old) == 0 {
		return 0, next, err
	}
	err = db.write(ctx, "drop content", func(ctx context.Context, w *writer) error {
		where, args := w.among("id", old)
		if _, err := w.exec(ctx, "update message set archive = 0 where "+where, args...); err != nil {
			return err
		}
		return w.dropContent(ctx, lockAll, old...) // of what is not final yet it goes later
	})
	return len(old), next, err
}

// pastOf finds a few messages that are past their end.
func (db *DB) pastOf(ctx context.Context, query string, after, until relay.ID, ends func(relay.ID) relay.ID) (old []relay.ID, next relay.ID, err error) {
	n := 0
	err = db.read(ctx, query, func(row scanner) error {
		var b, account []byte
		if err := row.Scan(&b, &account); err != nil {
			return err
		}
		n++
		next = toID(b)
		if next.Compare(ends(toID(account))) < 0 {
			if old = append(old, next); len(old) == dropMost {
				return errEnough
			}
		}
		return nil
	}, after[:], until[:], dropLook)
	switch {
	case errors.Is(err, errEnough):
	case err != nil:
		return nil, next, db.fail("find what is old", err)
	case n < dropLook:
		next = relay.ID{} // that was all
	}
	return old, next, nil
}

// among is the condition that a column is one of these ids.
func (w *writer) among(column string, ids []relay.ID) (string, []any) {
	if w.dialect.Arrays {
		list := make([][]byte, len(ids))
		for i := range ids {
			list[i] = ids[i][:]
		}
		return column + " = any(cast(? as bytea[]))", []any{list}
	}
	// Always as many, so that there are few statements.
	args := make([]any, max(len(ids), dropMost))
	for i := range args {
		args[i] = ids[min(i, len(ids)-1)][:]
	}
	return column + " in (?" + repeatMark(len(args)-1) + ")", args
}

// countGone tells the segments of the index how many of their deliveries are gone,
// at most: when it is half of them, they are written anew.
func (w *writer) countGone(ctx context.Context, segments []*segment, gone []relay.ID, deliveries int64) error {
	for _, s := range segments {
		n := 0
		for _, id := range gone {
			if s.docs > 0 && s.oldest.Compare(id) <= 0 && id.Compare(s.newest) <= 0 {
				n++
			}
		}
		if n == 0 {
			continue
		}
		count := max(deliveries*int64(n)/int64(len(gone)), 1)
		if _, err := w.exec(ctx, "update log_segment set gone = gone + ? where id = ?", count, s.id); err != nil {
			return err
		}
	}
	return nil
}

// Keeps gives how long logs and archived content of accounts are to be kept, where
// the account or its plan says so.
func (db *DB) Keeps(ctx context.Context) (map[relay.ID]relay.Keep, error) {
	plans, err := db.Plans(ctx)
	if err != nil {
		return nil, err
	}
	keeps := map[relay.ID]relay.Keep{}
	for after := (relay.ID{}); ; {
		const page = 500
		some, err := db.Accounts(ctx, relay.Everyone, after, page)
		if err != nil {
			return nil, err
		}
		for _, a := range some {
			k := a.Keep
			if i := slices.IndexFunc(plans, func(p *relay.Plan) bool { return p.Name == a.Plan }); i >= 0 {
				k = k.Or(plans[i].Keep)
			}
			if k != (relay.Keep{}) {
				keeps[a.ID] = k
			}
			after = a.ID
		}
		if len(some) < page {
			return keeps, nil
		}
	}
}
