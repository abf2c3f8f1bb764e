// Package tail follows the events of accounts as they come, for whoever sends
// them on: one look at the store serves all that read on a node, and what becomes
// visible out of its order is not missed.
package tail

import (
	"context"
	"sync"

	"postrider/internal/relay"
)

// How much is kept of what has come.
const (
	pageMost = 5000   // heads in one query
	feedMost = 10_000 // heads of one account, beyond those that late ones may still come between
)

// Source is where events are.
type Source interface {
	LastEvent(ctx context.Context) (relay.ID, error)
	// Horizon is the id before which nothing can come any more; whole says that
	// nothing ever comes before what is there.
	Horizon() (horizon relay.ID, whole bool)
}

// Next gives heads of events after an id, in the order of ids.
type Next func(ctx context.Context, after relay.ID, limit int) ([]*relay.EventHead, error)

// feed is what has come of an account's events since the node began to look, in
// the order of coming.
type feed struct {
	start relay.ID // what is after it is here
	base  int      // how many were dropped at the beginning
	heads []relay.EventHead
	bound relay.ID // up to it nothing more can come
}

// Tail follows the events of some accounts; relay.Everyone among them stands for
// the events of all. Whoever reads them reads from it, so that however many they
// are the store is asked once.
//
// Where several transactions write at once, an event may become visible after
// one with a greater id: each look begins at the bound, up to which all was
// visible at the look before, and passes over what it has seen.
type Tail struct {
	source Source
	most   int // heads of one feed

	mu    sync.Mutex
	feeds map[relay.ID]*feed
	news  chan struct{} // closed when something has come, or a feed was added
	base  int           // of a feed that is added: beyond each place in one that there was

	// The poller's own.
	begun bool
	bound relay.ID
	seen  map[relay.ID]struct{} // beyond the bound
}

// New makes a tail that knows of no account yet.
func New(s Source) *Tail {
	return &Tail{source: s, most: feedMost, feeds: map[relay.ID]*feed{}, news: make(chan struct{}), seen: map[relay.ID]struct{}{}}
}

// Poll looks for what has come of these accounts' events, which next gives, maybe
// with those of others. It is called by one goroutine at a time.
func (t *Tail) Poll(ctx context.Context, next Next, accounts map[relay.ID]bool) error {
	if len(accounts) == 0 {
		t.begun = false
		t.put(relay.ID{}, nil, accounts)
		return nil
	}
	horizon, whole, err := t.horizon(ctx) // before the look: what it names is complete then
	if err != nil {
		return err
	}
	if !t.begun {
		t.bound, t.begun = horizon, true
		clear(t.seen)
	}
	from := t.bound
	joining := t.joining(accounts)
	var fresh []come
	for after := from; ; {
		heads, err := next(ctx, after, pageMost)
		if err != nil {
			// Nothing of it counts: the next look begins where this one did.
			return err
		}
		for _, h := range heads {
			after = h.ID
			_, known := t.seen[h.ID]
			if (!known || len(joining) > 0) && (accounts[h.Account] || accounts[relay.Everyone]) {
				fresh = append(fresh, come{*h, known})
			}
		}
		if len(heads) < pageMost {
			if whole && horizon.Compare(after) < 0 {
				horizon = after
			}
			break
		}
	}
	if horizon.Compare(t.bound) > 0 {
		t.bound = horizon
	}
	if !whole {
		for _, h := range fresh {
			t.seen[h.ID] = struct{}{}
		}
		for id := range t.seen {
			if id.Compare(t.bound) <= 0 {
				delete(t.seen, id)
			}
		}
	}
	t.put(from, fresh, accounts)
	return nil
}

// come is what a look has found. What is known was found by one before: it is news
// for feeds only that were not there then.
type come struct {
	relay.EventHead
	known bool
}

// joining are those of the accounts that have no feed yet.
func (t *Tail) joining(accounts map[relay.ID]bool) (all []relay.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id := range accounts {
		if t.feeds[id] == nil {
			all = append(all, id)
		}
	}
	return all
}

// Forget drops the feed of an account: what the next look finds begins another,
// and who reads is told that its place is lost. It is for who can't be sure that
// each look was given all of the account's events. The poller calls it.
func (t *Tail) Forget(account relay.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(account)
}

// drop takes a feed out; mu is held.
func (t *Tail) drop(account relay.ID) {
	if f := t.feeds[account]; f != nil {
		t.base = max(t.base, f.base+len(f.heads)+1)
		delete(t.feeds, account)
	}
}

// horizon is the id up to which all events are visible.
func (t *Tail) horizon(ctx context.Context) (horizon relay.ID, whole bool, err error) {
	if horizon, whole = t.source.Horizon(); whole {
		horizon, err = t.source.LastEvent(ctx)
	}
	return horizon, whole, err
}

// put gives what has come to the feeds, and has no others than those of these
// accounts.
func (t *Tail) put(from relay.ID, fresh []come, accounts map[relay.ID]bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id := range t.feeds {
		if !accounts[id] {
			t.drop(id)
		}
	}
	added := map[*feed]bool{}
	for id := range accounts {
		if t.feeds[id] == nil {
			f := &feed{start: from, base: t.base}
			t.feeds[id], added[f] = f, true
		}
	}
	news := len(added) > 0
	for _, h := range fresh {
		for _, f := range []*feed{t.feeds[h.Account], t.feeds[relay.Everyone]} {
			if f != nil && (!h.known || added[f]) {
				f.heads = append(f.heads, h.EventHead)
				news = true
			}
		}
	}
	for _, f := range t.feeds {
		f.bound = t.bound
		f.trim(t.most)
	}
	if news {
		close(t.news)
		t.news = make(chan struct{})
	}
}

// trim drops the oldest. What late ones may still come between stays: whoever is
// behind finds the rest in the store, complete.
func (f *feed) trim(most int) {
	n := 0
	for n < len(f.heads)-most && f.heads[n].ID.Compare(f.bound) <= 0 {
		if f.start.Compare(f.heads[n].ID) < 0 {
			f.start = f.heads[n].ID
		}
		n++
	}
	if n > most/10 {
		f.heads, f.base = append([]relay.EventHead(nil), f.heads[n:]...), f.base+n
	}
}

// Glance is what a reader sees of what has come of an account.
type Glance struct {
	Start relay.ID          // what is after it is here; the store has what is before, complete
	Bound relay.ID          // up to it nothing more can come
	Heads []relay.EventHead // since the place that was asked for, in the order of coming
	Place int               // to ask for next
	Lost  bool              // what came since that place is not all here any more
}

// Since gives what has come of an account since a place, which is -1 for the
// beginning; nil where there is no feed yet. The channel is closed when there may
// be more.
func (t *Tail) Since(account relay.ID, place int) (*Glance, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.feeds[account]
	if f == nil {
		return nil, t.news
	}
	g := &Glance{Start: f.start, Bound: f.bound, Place: f.base + len(f.heads)}
	switch {
	case place < 0:
		g.Heads = f.heads
	case place < f.base || place > g.Place:
		g.Lost = true
	default:
		g.Heads = f.heads[place-f.base:]
	}
	return g, t.news
}
