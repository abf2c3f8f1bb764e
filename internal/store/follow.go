package store

import (
	"bytes"
	"context"
	"time"

	"postrider/internal/relay"
)

// lookBack is how much later than one with a greater id an event may be
// committed: by as long as a transaction may take, and some difference between
// the clocks of nodes.
const lookBack = 20 * time.Second

// Follower gives the events of an account as they come, each once. It is used by
// one goroutine at a time.
type Follower struct {
	db      *DB
	account relay.ID
	after   relay.ID // whoever follows knows all up to here from elsewhere
	last    relay.ID // the greatest that was given
	// given are those since lookBack before last; nil where ids are in the
	// order of commits.
	given map[relay.ID]struct{}
}

// Follow gives a follower of the events after the one of that id; the zero id
// stands for all.
func (db *DB) Follow(account, after relay.ID) *Follower {
	f := &Follower{db: db, account: account, after: after, last: after}
	if !db.dialect.Single {
		f.given = map[relay.ID]struct{}{}
	}
	return f
}

// Next gives up to limit events, or none where there are no more as yet. They are
// in the order of ids but for some that were committed late.
func (f *Follower) Next(ctx context.Context, limit int) ([]*relay.Event, error) {
	for from := f.from(); ; {
		found, err := f.db.Events(ctx, f.account, from, limit)
		if err != nil || len(found) == 0 {
			return nil, err
		}
		from = found[len(found)-1].ID
		fresh := found[:0]
		for _, e := range found {
			if _, known := f.given[e.ID]; !known {
				fresh = append(fresh, e)
			}
		}
		if len(fresh) > 0 {
			f.give(fresh)
			return fresh, nil
		}
	}
}

// from is the id to ask from.
func (f *Follower) from() relay.ID {
	from := f.last
	if f.given != nil {
		from = idAt(f.last.Time().Add(-lookBack))
	}
	if bytes.Compare(from[:], f.after[:]) < 0 {
		return f.after
	}
	return from
}

// give notes what is being given, and forgets what is not asked for again.
func (f *Follower) give(events []*relay.Event) {
	if newest := events[len(events)-1].ID; bytes.Compare(newest[:], f.last[:]) > 0 {
		f.last = newest
	}
	if f.given == nil {
		return
	}
	for _, e := range events {
		f.given[e.ID] = struct{}{}
	}
	from := f.from()
	for id := range f.given {
		if bytes.Compare(id[:], from[:]) <= 0 {
			delete(f.given, id)
		}
	}
}
