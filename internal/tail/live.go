package tail

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"postrider/internal/relay"
)

const (
	pollEvery = 250 * time.Millisecond
	readMost  = 100  // events that are read at once
	keepMost  = 4000 // events that are kept for others who listen
)

// Limits bound who listens.
type Limits struct {
	All     int // at once on this node
	Account int // of them, for one account
}

// Live gives the events of accounts as they come to whoever listens. A node has
// one; while nobody listens it asks the store nothing.
type Live struct {
	store  Store
	limits Limits
	log    *slog.Logger
	tail   *Tail
	kept   kept
	ended  chan struct{} // closed when Run has ended

	polling sync.Mutex // held while the store is asked for news

	mu       sync.Mutex
	all      int
	accounts map[relay.ID]int // streams that are open, by account
	feeds    map[relay.ID]int // who listens, by account
}

// NewLive makes a service.
func NewLive(s Store, l Limits, log *slog.Logger) *Live {
	return &Live{store: s, limits: l, log: log, tail: New(s), ended: make(chan struct{}), accounts: map[relay.ID]int{}, feeds: map[relay.ID]int{}, kept: kept{events: map[relay.ID]*relay.WebhookEvent{}}}
}

// Run looks for news until ctx ends. Then whoever listens is told that it ends.
func (l *Live) Run(ctx context.Context) error {
	defer close(l.ended)
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := l.poll(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			l.log.Error("live events: the store can't be asked; trying on", "err", err)
		}
		failing = err != nil
	}
}

func (l *Live) poll(ctx context.Context) error {
	l.polling.Lock()
	defer l.polling.Unlock()
	l.mu.Lock()
	accounts := make(map[relay.ID]bool, len(l.feeds))
	for id := range l.feeds {
		accounts[id] = true
	}
	l.mu.Unlock()
	return l.tail.Poll(ctx, func(ctx context.Context, after relay.ID, limit int) ([]*relay.EventHead, error) {
		return l.store.Heads(ctx, relay.Everyone, after, limit)
	}, accounts)
}

// Count is how many listen.
func (l *Live) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all
}

// Take takes one of the places that there are for streams, of an account, whatever
// it streams; the error is a relay.Error RateLimited. give gives it back.
func (l *Live) Take(account relay.ID) (give func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	busy := &relay.Error{Code: relay.RateLimited, Advice: "Close one, or try again later.", Retry: time.Now().Add(10 * time.Second)}
	switch {
	case l.all >= l.limits.All:
		busy.Text = fmt.Sprintf("This server has %d live streams open, and no more at once.", l.all)
		return nil, busy
	case account != relay.Everyone && l.accounts[account] >= l.limits.Account: // an operator is bounded by the server only
		busy.Text = fmt.Sprintf("This account has %d live streams open, and no more at once.", l.accounts[account])
		return nil, busy
	}
	l.all++
	l.accounts[account]++
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.all--
		less(l.accounts, account)
	}), nil
}

func less(count map[relay.ID]int, id relay.ID) {
	if count[id]--; count[id] == 0 {
		delete(count, id)
	}
}

// join has the tail keep a feed of the account until leave is called.
func (l *Live) join(account relay.ID) (leave func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.feeds[account]++
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		less(l.feeds, account)
	})
}

// Item is an event, and the cursor of who has it.
type Item struct {
	*relay.WebhookEvent
	Cursor Cursor
}

// Listener gives what one client wants. It is used by one goroutine.
type Listener struct {
	live   *Live
	reader *reader
	wanted *wanted
	give   func()
}

// Listen begins to listen: after the cursor, or, where that is nil, to what is
// committed from now on. Close ends it.
func (l *Live) Listen(ctx context.Context, account relay.ID, f relay.EventFilter, from *Cursor) (_ *Listener, err error) {
	place, err := l.Take(account)
	if err != nil {
		return nil, err
	}
	leave := l.join(account)
	give := func() { leave(); place() }
	defer func() {
		if err != nil {
			give()
		}
	}()
	if err = l.poll(ctx); err != nil { // so that there is a feed, and "now" is known
		return nil, err
	}
	n := &Listener{live: l, wanted: newWanted(f), give: give}
	if from == nil {
		n.reader = newReader(l.tail, l.store, account)
		return n, nil
	}
	n.reader, err = resume(ctx, l.tail, l.store, account, *from)
	return n, err
}

// Close gives the place to others.
func (n *Listener) Close() { n.give() }

// Cursor is how far the client has read.
func (n *Listener) Cursor() Cursor { return n.reader.cursor() }

// Why a stream ends.
var (
	// ErrSlow: the client is so far behind that it is to come back later.
	ErrSlow = errors.New("the client reads too slowly")
	// ErrEnded: the relay is being stopped.
	ErrEnded = errors.New("the relay is being stopped")
)

// Next waits for events that are wanted, until ctx ends or up to quiet: then there
// may be none. What was passed over shows in Cursor.
func (n *Listener) Next(ctx context.Context, quiet time.Duration) ([]Item, error) {
	wait := time.NewTimer(quiet)
	defer wait.Stop()
	for {
		news, late, err := n.reader.look(ctx)
		if err != nil {
			return nil, err
		}
		if late {
			return nil, ErrSlow
		}
		if len(n.reader.queue) > 0 {
			found, err := n.open(ctx)
			if err != nil || len(found) > 0 {
				return found, err
			}
		}
		if news == nil { // there is more to look at
			select {
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			case <-n.live.ended:
				return nil, ErrEnded
			case <-wait.C:
				return nil, nil
			default:
				continue
			}
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-n.live.ended:
			return nil, ErrEnded
		case <-wait.C:
			return nil, nil
		case <-news:
		}
	}
}

// open reads the first of what is queued.
func (n *Listener) open(ctx context.Context) ([]Item, error) {
	r := n.reader
	heads := r.queue[:min(len(r.queue), readMost)]
	var ids []relay.ID
	for _, h := range heads {
		if n.wanted.WantsKind(h.Kind) {
			ids = append(ids, h.ID)
		}
	}
	events, err := n.live.kept.read(ctx, n.live.store, r.account, ids)
	if err != nil {
		return nil, err
	}
	var found []Item
	for _, h := range heads {
		r.note(h.ID)
		e := events[h.ID]
		if e != nil && n.wanted.wants(e) {
			found = append(found, Item{e, r.cursor()})
		}
	}
	r.queue = r.queue[len(heads):]
	return found, nil
}

// kept has the events that were read last, for others who listen.
type kept struct {
	mu     sync.Mutex // held while events are read: who comes meanwhile finds them
	events map[relay.ID]*relay.WebhookEvent
	order  []relay.ID
}

func (k *kept) read(ctx context.Context, s Store, account relay.ID, ids []relay.ID) (map[relay.ID]*relay.WebhookEvent, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	found := make(map[relay.ID]*relay.WebhookEvent, len(ids))
	var missing []relay.ID
	for _, id := range ids {
		if e := k.events[id]; e != nil && (account == relay.Everyone || e.Account == account) {
			found[id] = e
		} else {
			missing = append(missing, id)
		}
	}
	events, err := s.EventsByID(ctx, account, missing)
	if err != nil {
		return nil, err
	}
	for _, e := range events {
		found[e.ID] = e
		if k.events[e.ID] == nil {
			k.events[e.ID] = e
			k.order = append(k.order, e.ID)
		}
	}
	for len(k.order) > keepMost {
		delete(k.events, k.order[0])
		k.order = k.order[1:]
	}
	return found, nil
}
