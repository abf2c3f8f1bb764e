// Package limit holds submission to its limits: so many messages and recipients
// in a second, an hour, a day or a month (UTC), of a credential, an account and
// its plan. All nodes take from the same counters in the store, and fetch a
// little in advance, so that few messages wait for one: what they accept together
// is never more than the limit.
package limit

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"postrider/internal/ratelimit"
	"postrider/internal/relay"
)

// Store keeps what is used up.
type Store interface {
	TakeUsage(ctx context.Context, takes []relay.Take) ([]relay.Taken, error)
	Usage(ctx context.Context, account relay.ID, now time.Time) ([]*relay.Usage, error)
	Note(ctx context.Context, c *relay.Change) error
	Now() time.Time // by the clock of the store
}

const (
	// horizon is for how long a node fetches in advance, and soon that of limits
	// per second.
	horizon = 2 * time.Second
	soon    = 100 * time.Millisecond
	// part is which part of what is left may be fetched in advance.
	part = 96
	// stale is when what was fetched of a limit per second is too old to be used:
	// used late, it would come on top of what has filled up since.
	stale = 250 * time.Millisecond
	// debt is for how long a bucket may owe what went beyond its burst; more comes
	// of a clock that went back.
	debt = time.Minute
	// again is how long a limit that is used up is taken to be: others may give
	// back.
	again = time.Second
	// unused is when a node gives back what nobody uses, and forgotten when it
	// keeps nothing of an account any more.
	unused    = 2 * time.Second
	forgotten = 10 * time.Minute
	// rounds is how often a message looks again, after others took what it waited
	// for.
	rounds = 20
)

// Limiter takes what messages use. It may be used by many goroutines.
type Limiter struct {
	store  Store
	shared bool // other nodes may be in the store
	log    *slog.Logger

	mu      sync.Mutex
	tenants map[relay.ID]*tenant
	news    []warning // to be written by Run
}

// New makes a Limiter. Where nobody shares the store, limits per second are kept
// in memory.
func New(store Store, shared bool, log *slog.Logger) *Limiter {
	return &Limiter{store: store, shared: shared, log: log, tenants: map[relay.ID]*tenant{}}
}

// tenant is what this node knows of the limits of one account.
type tenant struct {
	mu       sync.Mutex
	counters map[key]*counter
	fetching chan struct{} // closed when the fetch under way has ended; nil: none is
	gone     bool          // it is not in the table any more
	late     []relay.Take  // to be given back of periods that come again
}

// key names a counter of an account.
type key struct {
	credential relay.ID // zero: of the account
	sandbox    bool
	recipients bool // not messages
	per        byte // the first letter of the period, to be looked up fast
}

// subject is the line's key as it is stored.
func (n *line) subject() string {
	k, s := n.key, n.limit.Of+"/"+string(n.limit.Per)
	switch {
	case k.sandbox:
		return "sandbox " + s
	case !k.credential.IsZero():
		return "credential " + k.credential.String() + " " + s
	}
	return s
}

// counter is this node's share of one limit.
type counter struct {
	ratelimit.Share
	subject string
	per     relay.Period
	start   time.Time // of the period
	waiting int64     // what others than the one who fetches wait for
	used    int64     // of a limit per second that is kept in memory
}

// window is the span of time that a counter of the period is kept for at t. Those
// per second hang on one number for a day.
func window(p relay.Period, t time.Time) (start, end time.Time) {
	if p == relay.PerSecond {
		p = relay.PerDay
	}
	return p.Start(t), p.End(t)
}

// Take takes what a message uses of every limit that the order is held to, or
// nothing: then the error is a relay.Error, RateLimited with the time to come back
// where it helps to do so. undo gives all back, of a message that came to nothing.
func (l *Limiter) Take(ctx context.Context, o Order) (undo func(), err error) {
	own, err := l.take(ctx, &o)
	if err != nil || o.Manager == nil {
		return own, err
	}
	above, err := l.take(ctx, o.Manager)
	if err != nil {
		own()
		return nil, err
	}
	return func() { above(); own() }, nil
}

// take does so for one account.
func (l *Limiter) take(ctx context.Context, o *Order) (undo func(), err error) {
	lines := o.lines()
	if len(lines) == 0 {
		return func() {}, nil
	}
	t := l.tenant(o.Account.ID)
	defer t.mu.Unlock()
	for range rounds {
		now := l.store.Now()
		short := false
		for i := range lines {
			n := &lines[i]
			if err := n.never(); err != nil {
				return nil, err
			}
			n.counter = t.counter(n, now)
			n.start = n.counter.start
			if n.limit.Per == relay.PerSecond && n.counter.Have() > 0 && l.shared {
				if _, at := n.counter.Left(); now.Sub(at) > stale || now.Before(at) {
					n.counter.Drop()
				}
			}
			if n.counter.Have() < n.need {
				short = true
				if err := n.spent(now); err != nil {
					return nil, err
				}
			}
		}
		if !short {
			for i := range lines {
				lines[i].counter.Use(now, lines[i].need)
			}
			return func() { t.undo(lines) }, nil
		}
		if err := l.fetch(ctx, t, lines, now); err != nil {
			return nil, err
		}
	}
	return nil, &relay.Error{Code: relay.RateLimited, Text: "So much mail comes in at once that its limits can't be looked at.", Advice: "Try again, more slowly.",
		Retry: l.store.Now().Add(again)}
}

// tenant gives the account's tenant, locked.
func (l *Limiter) tenant(id relay.ID) *tenant {
	for {
		l.mu.Lock()
		t := l.tenants[id]
		if t == nil {
			t = &tenant{counters: map[key]*counter{}}
			l.tenants[id] = t
		}
		l.mu.Unlock()
		t.mu.Lock()
		if !t.gone {
			return t
		}
		t.mu.Unlock()
	}
}

// counter gives the line's counter for the window that now lies in. When the
// clock has gone into another, whichever, that one's begins.
func (t *tenant) counter(n *line, now time.Time) *counter {
	c := t.counters[n.key]
	start, _ := window(n.limit.Per, now)
	if c == nil {
		c = &counter{subject: n.subject(), per: n.limit.Per, start: start}
		t.counters[n.key] = c
	}
	if !c.start.Equal(start) {
		if had := c.Drop(); had > 0 && c.start.After(start) {
			_, end := window(c.per, c.start)
			t.late = append(t.late, relay.Take{Subject: c.subject, Start: c.start, End: end, Want: -had})
		}
		c.Share, c.start, c.used = ratelimit.Share{}, start, 0
	}
	return c
}

// undo puts back what was taken, where its window still is.
func (t *tenant) undo(taken []line) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range taken {
		n := &taken[i]
		if n.counter == t.counters[n.key] && n.counter.start.Equal(n.start) {
			n.counter.Return(n.need)
		}
	}
}

// fetch fetches what the lines lack, or waits for the fetch that is under way. The
// tenant is locked before and after, and free while the store is asked.
func (l *Limiter) fetch(ctx context.Context, t *tenant, lines []line, now time.Time) error {
	if t.fetching != nil {
		return t.wait(ctx, lines)
	}
	var takes []relay.Take
	var asked []*line
	for i := range lines {
		n := &lines[i]
		if n.counter.Have() >= n.need {
			continue
		}
		k := n.take(now)
		if n.limit.Per == relay.PerSecond && !l.shared {
			n.fetched(now, k, n.counter.memory(k))
			continue
		}
		asked, takes = append(asked, n), append(takes, k)
	}
	if len(takes) == 0 {
		return nil
	}
	done := make(chan struct{})
	t.fetching = done
	t.mu.Unlock()
	// What is taken is taken, whether or not its message is still there.
	got, err := l.store.TakeUsage(context.WithoutCancel(ctx), takes)
	t.mu.Lock()
	t.fetching = nil
	close(done)
	if err != nil {
		return err
	}
	now = l.store.Now()
	for i, n := range asked {
		n.fetched(now, takes[i], got[i])
		l.notice(n, takes[i], got[i], now)
	}
	return nil
}

// fetched notes what came of a fetch, unless its window has ended meanwhile.
func (n *line) fetched(now time.Time, k relay.Take, got relay.Taken) {
	if n.counter.start.Equal(n.start) {
		n.counter.Fetched(now, k.Want, got.Got, k.Most-got.Before-got.Got)
	}
}

// memory is TakeUsage for a limit per second that nobody shares.
func (c *counter) memory(k relay.Take) relay.Taken {
	before := max(min(c.used, k.Top), k.Least)
	got := max(0, min(k.Want, k.Most-before))
	c.used = before + got
	return relay.Taken{Before: before, Got: got}
}

// wait waits for the fetch that is under way; the next one fetches for all who
// wait.
func (t *tenant) wait(ctx context.Context, lines []line) error {
	done := t.fetching
	for i := range lines {
		if n := &lines[i]; n.counter.Have() < n.need {
			n.waits = n.need
			n.counter.waiting += n.waits
		}
	}
	t.mu.Unlock()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	t.mu.Lock()
	for i := range lines {
		lines[i].counter.waiting -= lines[i].waits
		lines[i].waits = 0
	}
	return err
}

// Known gives the refusal of a message of that order, as far as it is known
// without asking the store: before its content comes.
func (l *Limiter) Known(o Order) error {
	if err := l.known(&o); err != nil || o.Manager == nil {
		return err
	}
	return l.known(o.Manager)
}

func (l *Limiter) known(o *Order) error {
	lines := o.lines()
	if len(lines) == 0 {
		return nil
	}
	t := l.tenant(o.Account.ID)
	defer t.mu.Unlock()
	now := l.store.Now()
	for i := range lines {
		n := &lines[i]
		if n.counter = t.counter(n, now); n.counter.Have() >= n.need {
			continue
		}
		if err := cmp.Or(n.never(), n.spent(now)); err != nil {
			return err
		}
	}
	return nil
}
