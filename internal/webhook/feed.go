package webhook

import (
	"context"
	"sync"

	"postrider/internal/relay"
)

// How much is kept of what has come.
const (
	tailPage = 5000   // heads in one query
	feedMost = 10_000 // heads of one account, beyond those that late ones may still come between
)

// feed is what has come of an account's events since the node began to look, in
// the order of coming.
type feed struct {
	start relay.ID // what is after it is here
	base  int      // how many were dropped at the beginning
	heads []relay.EventHead
	bound relay.ID // up to it nothing more can come
}

// tail follows the events of the accounts whose webhooks the node serves. All of
// those webhooks read from it, so that however many they are the store is asked
// once.
//
// Where several transactions write at once, an event may become visible after
// one with a greater id: each look begins at the bound, up to which all was
// visible at the look before, and passes over what it has seen.
type tail struct {
	store Events

	mu    sync.Mutex
	feeds map[relay.ID]*feed
	news  chan struct{} // closed when something has come, or a feed was added

	// The poller's own.
	begun bool
	bound relay.ID
	seen  map[relay.ID]struct{} // beyond the bound
}

func newTail(s Events) *tail {
	return &tail{store: s, feeds: map[relay.ID]*feed{}, news: make(chan struct{}), seen: map[relay.ID]struct{}{}}
}

// poll looks for what has come of these accounts' events.
func (t *tail) poll(ctx context.Context, lease int64, accounts map[relay.ID]bool) error {
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
	var fresh []relay.EventHead
	for after := from; ; {
		heads, err := t.store.Tail(ctx, lease, after, tailPage)
		if err != nil {
			// Nothing of it counts: the next look begins where this one did.
			return err
		}
		for _, h := range heads {
			after = h.ID
			if _, known := t.seen[h.ID]; !known && accounts[h.Account] {
				fresh = append(fresh, *h)
			}
		}
		if len(heads) < tailPage {
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

// horizon is the id up to which all events are visible.
func (t *tail) horizon(ctx context.Context) (horizon relay.ID, whole bool, err error) {
	if horizon, whole = t.store.Horizon(); whole {
		horizon, err = t.store.LastEvent(ctx)
	}
	return horizon, whole, err
}

// put gives what has come to the feeds, and has no others than those of these
// accounts.
func (t *tail) put(from relay.ID, fresh []relay.EventHead, accounts map[relay.ID]bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id := range t.feeds {
		if !accounts[id] {
			delete(t.feeds, id)
		}
	}
	added := false
	for id := range accounts {
		if t.feeds[id] == nil {
			t.feeds[id] = &feed{start: from}
			added = true
		}
	}
	for _, h := range fresh {
		f := t.feeds[h.Account]
		f.heads = append(f.heads, h)
	}
	for _, f := range t.feeds {
		f.bound = t.bound
		f.trim()
	}
	if added || len(fresh) > 0 {
		close(t.news)
		t.news = make(chan struct{})
	}
}

// trim drops the oldest. What late ones may still come between stays: whoever is
// behind finds the rest in the store, complete.
func (f *feed) trim() {
	n := 0
	for n < len(f.heads)-feedMost && f.heads[n].ID.Compare(f.bound) <= 0 {
		if f.start.Compare(f.heads[n].ID) < 0 {
			f.start = f.heads[n].ID
		}
		n++
	}
	if n > feedMost/10 {
		f.heads, f.base = append([]relay.EventHead(nil), f.heads[n:]...), f.base+n
	}
}

// glance is what a reader sees of a feed.
type glance struct {
	start, bound relay.ID
	heads        []relay.EventHead // since the place that was asked for
	place        int               // to ask for next
	lost         bool              // what came since that place is not all here any more
}

// since gives what has come of an account since a place, which is -1 for the
// beginning; nil where there is no feed yet. The channel is closed when there may
// be more.
func (t *tail) since(account relay.ID, place int) (*glance, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.feeds[account]
	if f == nil {
		return nil, t.news
	}
	g := &glance{start: f.start, bound: f.bound, place: f.base + len(f.heads)}
	switch {
	case place < 0:
		g.heads = f.heads
	case place < f.base || place > g.place:
		g.lost = true
	default:
		g.heads = f.heads[place-f.base:]
	}
	return g, t.news
}
