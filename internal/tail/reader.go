package tail

import (
	"context"
	"time"

	"postrider/internal/relay"
)

// Store is where events are read.
type Store interface {
	Source
	Heads(ctx context.Context, account, after relay.ID, limit int) ([]*relay.EventHead, error)
	ScanEvents(ctx context.Context, account, after, to relay.ID, rows int) (found []relay.EventHead, end relay.ID, err error)
	EventsByID(ctx context.Context, account relay.ID, ids []relay.ID) ([]*relay.WebhookEvent, error)
}

// lateMost is by how much an event may come after one with a greater id: longer
// than any transaction takes.
const lateMost = time.Minute

// reader gives the heads of an account's events, each once, from a cursor on: from
// the store as far as they are older than the tail, then from the tail.
type reader struct {
	tail    *Tail
	store   Store
	account relay.ID

	live  bool // it has come to the tail
	place int  // in the tail
	read  relay.ID
	whole bool // events come in their order
	queue []relay.EventHead
	bound relay.ID              // what read becomes when the queue is empty
	done  relay.ID              // the cursor's
	until relay.ID              // the greatest that was read beyond done
	seen  map[relay.ID]struct{} // read beyond done
	sums  map[int64]Sum         // of them, by tick
}

// newReader makes a reader that begins with what comes from now on: with what the
// tail, which must have a feed of the account, does not have yet.
func newReader(t *Tail, s Store, account relay.ID) *reader {
	r := &reader{tail: t, store: s, account: account, live: true, seen: map[relay.ID]struct{}{}, sums: map[int64]Sum{}}
	_, r.whole = s.Horizon()
	g, _ := t.Since(account, -1)
	r.place, r.bound, r.read, r.done = g.Place, g.Bound, g.Bound, g.Bound
	if !r.whole { // what is there already, and lies beyond the bound, has been read
		r.mark(g.Heads)
	}
	return r
}

// resume makes a reader that begins after a cursor. What was read beyond its Done
// is passed over where it is known again: where nothing came between meanwhile.
// Else it is read once more.
func resume(ctx context.Context, t *Tail, s Store, account relay.ID, c Cursor) (*reader, error) {
	_, whole := s.Horizon()
	if !whole && !c.Loose {
		// The id of an event that somebody knows: what has a lesser one may have come
		// after it.
		c = Cursor{Done: relay.FirstIDAt(c.Done.Time().Add(-lateMost)), Loose: true}
	}
	r := &reader{tail: t, store: s, account: account, place: -1, whole: whole, read: c.Done, done: c.Done, seen: map[relay.ID]struct{}{}, sums: map[int64]Sum{}}
	const most = 100_000 // more is never beyond Done, unless somebody made it up
	if n := c.Sums[0].N + c.Sums[1].N + c.Sums[2].N + c.Sums[3].N; n == 0 || n > most {
		return r, nil
	}
	var found [ages][]relay.EventHead
	for after, n := c.Done, 0; after != c.Until; {
		heads, end, err := s.ScanEvents(ctx, account, after, c.Until, pageMost)
		if err != nil {
			return nil, err
		}
		if n += len(heads); n > most {
			return r, nil
		}
		for _, h := range heads {
			age := ageOf(tickOf(h.ID), tickOf(c.Until))
			found[age] = append(found[age], h)
		}
		after = end
	}
	for age, heads := range found {
		var again Sum
		for _, h := range heads {
			again.add(h.ID)
		}
		if again == c.Sums[age] {
			r.mark(heads)
		}
	}
	return r, nil
}

func (r *reader) mark(heads []relay.EventHead) {
	for _, h := range heads {
		if h.ID.Compare(r.read) > 0 {
			r.note(h.ID)
		}
	}
}

// note notes that an event was read.
func (r *reader) note(id relay.ID) {
	if r.whole {
		r.done = id
		return
	}
	r.seen[id] = struct{}{}
	r.count(id)
}

func (r *reader) count(id relay.ID) {
	tick := tickOf(id)
	sum := r.sums[tick]
	sum.add(id)
	r.sums[tick] = sum
	if r.until.Compare(id) < 0 {
		r.until = id
	}
}

// cursor is how far it has read.
func (r *reader) cursor() Cursor {
	c := Cursor{Done: r.done, Until: r.until, Loose: !r.whole}
	last := tickOf(r.until)
	for tick, sum := range r.sums {
		s := &c.Sums[ageOf(tick, last)]
		s.N += sum.N
		s.X ^= sum.X
	}
	return c
}

// look fills the queue where it is empty. The channel is closed when there may be
// more; it is nil where there is something to read, or to look for, at once. late
// says that the reader is so far behind that it has lost its place.
func (r *reader) look(ctx context.Context) (news <-chan struct{}, late bool, err error) {
	if len(r.queue) > 0 {
		return nil, false, nil
	}
	r.advance()
	g, news := r.tail.Since(r.account, r.place)
	switch {
	case g == nil:
		return news, false, nil
	case g.Lost:
		r.live, r.place = false, -1
		return nil, true, nil
	case !r.live && r.read.Compare(g.Start) < 0:
		found, end, err := r.store.ScanEvents(ctx, r.account, r.read, g.Start, pageMost)
		if err != nil {
			return nil, false, err
		}
		r.take(found, end)
		return nil, false, nil
	}
	r.take(g.Heads, g.Bound)
	r.live, r.place = true, g.Place
	if len(r.queue) == 0 {
		r.advance()
		return news, false, nil
	}
	return nil, false, nil
}

// take queues what was not read yet.
func (r *reader) take(heads []relay.EventHead, bound relay.ID) {
	for _, h := range heads {
		if _, known := r.seen[h.ID]; !known && h.ID.Compare(r.read) > 0 {
			r.queue = append(r.queue, h)
		}
	}
	r.bound = bound
}

// advance moves the cursor up to what the queue was complete to.
func (r *reader) advance() {
	if r.bound.Compare(r.read) <= 0 {
		return
	}
	r.read, r.done = r.bound, r.bound
	clear(r.sums)
	for id := range r.seen {
		if id.Compare(r.read) <= 0 {
			delete(r.seen, id)
		} else {
			r.count(id)
		}
	}
}
