// Package queue is the durable core: it makes messages and outcomes durable in
// batches, holds what this node has leased in a window of bounded memory, and
// claims from the store what has become due.
package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"postrider/internal/relay"
	"postrider/internal/store"
)

// Store is where messages, deliveries and events are kept.
type Store interface {
	// Put writes messages with their deliveries in one transaction; error i is
	// about submission i. Deliveries in hand are leased to this node.
	Put(ctx context.Context, lease int64, batch []*relay.Submission) []error
	// Settle writes outcomes in one transaction. store.ErrSettled says that the
	// delivery was final already, or is another node's.
	Settle(ctx context.Context, lease int64, batch []relay.Outcome) []error
	// Claim leases deliveries that are due, and tells what is left of the
	// classes that were asked for.
	Claim(ctx context.Context, lease int64, now time.Time, wants []relay.Want) ([]relay.Claimed, []relay.Waiting, error)
	// Release gives leases back without an attempt.
	Release(ctx context.Context, lease int64, ids []relay.DeliveryID) error
	// Waiting gives the next classes after one, of which deliveries wait.
	Waiting(ctx context.Context, after relay.Class, limit int) ([]relay.Waiting, error)
}

// Config bounds the queue.
type Config struct {
	Window      int   // deliveries in memory
	WindowBytes int64 // content in memory
	Batch       int   // submissions or outcomes in one commit
	BatchBytes  int64 // content in one commit
}

// Queue is the durable core of one node.
type Queue struct {
	kept   Store
	lease  int64
	config Config
	log    *slog.Logger
	puts   *committer[*relay.Submission]
	ends   *committer[relay.Outcome]
	ready  func(*Item) // takes what is to be delivered; set by Run
	poke   chan struct{}

	mu      sync.Mutex
	hand    map[relay.DeliveryID]*Item
	bytes   int64     // content in memory
	flight  int       // items of hand that an attempt is under way for
	peak    int       // the most there were at once
	nextDue time.Time // when the claimer looks next
	starved bool      // the claimer waits for room
	ended   time.Time // when Run ended
	closed  bool      // nothing new is taken in hand
}

// New makes the queue of the node that holds the given lease.
func New(kept Store, lease int64, c Config, log *slog.Logger) *Queue {
	q := &Queue{kept: kept, lease: lease, config: c, log: log, poke: make(chan struct{}, 1), hand: map[relay.DeliveryID]*Item{}}
	q.puts = newCommitter(func(ctx context.Context, b []*relay.Submission) []error { return kept.Put(ctx, lease, b) }, c.Batch, c.BatchBytes)
	q.ends = newCommitter(func(ctx context.Context, b []relay.Outcome) []error { return kept.Settle(ctx, lease, b) }, c.Batch, c.BatchBytes)
	return q
}

// Run claims deliveries and hands them, and those that Put takes in hand, to
// ready, until ctx ends. Then it claims no more; Put and Settle work on until
// Close.
func (q *Queue) Run(ctx context.Context, ready func(*Item)) error {
	q.mu.Lock()
	q.ready = ready
	q.mu.Unlock()
	q.claim(ctx)
	q.mu.Lock()
	q.ended = time.Now()
	q.mu.Unlock()
	return nil
}

// Write runs the committers until ctx ends; what was handed over by then is
// written. It outlives Run, so that the last attempts can be settled.
func (q *Queue) Write(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { q.puts.run(ctx); return nil })
	g.Go(func() error { q.ends.run(ctx); return nil })
	return g.Wait()
}

// Put makes a message durable: when it returns nil, the message survives any
// crash. Errors are relay.Errors. Put returns soon, whatever becomes of ctx, but
// not before it is certain what became of the message.
func (q *Queue) Put(ctx context.Context, s *relay.Submission) error {
	if ctx.Err() != nil {
		return &relay.Error{Code: relay.Unavailable, Text: "The client has gone.", Advice: "Send the message again.", Err: ctx.Err()}
	}
	items := q.reserve(s)
	err := q.puts.offer(s, s.Content.Size())
	if err == nil {
		for _, it := range items {
			q.ready(it)
		}
		if len(items) == 0 {
			q.wake(s.Deliveries[0].Due)
		}
		return nil
	}
	q.mu.Lock()
	for _, it := range items {
		q.dropLocked(it)
	}
	room := q.starved && q.roomyLocked()
	q.mu.Unlock()
	if room {
		q.wake(time.Time{})
	}
	var known *relay.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, errFull):
		return &relay.Error{Code: relay.Busy, Text: "More mail comes in than can be stored at the moment.", Advice: "Try again later."}
	default:
		return &relay.Error{Code: relay.Unavailable, Text: "The message can't be stored at the moment.", Advice: "Try again later.", Err: err}
	}
}

// reserve takes the deliveries of a submission in hand if they are due now and
// there is room; else they wait in the store.
func (q *Queue) reserve(s *relay.Submission) []*Item {
	q.mu.Lock()
	defer q.mu.Unlock()
	s.InHand = false
	if q.closed || q.ready == nil || len(q.hand)+len(s.Deliveries) > q.config.Window {
		return nil
	}
	for _, d := range s.Deliveries {
		if d.State != relay.Queued || d.Due.After(s.Message.Received) {
			return nil
		}
	}
	s.InHand = true
	c := &content{refs: len(s.Deliveries)}
	if b, ok := s.Content.(interface{ Bytes() []byte }); ok && b.Bytes() != nil && q.bytes+s.Content.Size() <= q.config.WindowBytes {
		c.data = s.Content
		q.bytes += s.Content.Size()
	}
	items := make([]*Item, len(s.Deliveries))
	for i, d := range s.Deliveries {
		items[i] = &Item{Delivery: d, Message: s.Message, content: c}
		q.hand[d.ID] = items[i]
	}
	return items
}

// Settle makes an outcome durable. The item, if there is one, leaves this
// node's hand. While the store is away Settle keeps trying: what is known must
// not be forgotten. Only when Run has ended does it give up at some time; what
// the outcome is of is tried again then, when the node is back.
func (q *Queue) Settle(ctx context.Context, o relay.Outcome) error {
	q.mu.Lock()
	it := q.hand[o.Delivery]
	q.mu.Unlock()
	err := q.settle(ctx, o)
	q.mu.Lock()
	if it != nil { // not whatever has that name now: it may have been claimed anew
		q.dropLocked(it)
	}
	room := q.starved && q.roomyLocked()
	q.mu.Unlock()
	if err == nil && (o.Kind == relay.EventDeferred || o.Kind == relay.EventReleased) {
		q.wake(o.Due)
	} else if room {
		q.wake(time.Time{})
	}
	return err
}

// roomyLocked tells whether there is enough room to make a claim worth it.
func (q *Queue) roomyLocked() bool { return len(q.hand) <= q.config.Window*3/4 }

// lastTries is how long outcomes are tried to be stored after Run has ended.
const lastTries = 10 * time.Second

func (q *Queue) givesUp() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return !q.ended.IsZero() && time.Since(q.ended) >= lastTries
}

func (q *Queue) settle(ctx context.Context, o relay.Outcome) error {
	for wait, told := 50*time.Millisecond, false; ; wait = min(2*wait, 5*time.Second) {
		err := q.ends.push(ctx, o, 0)
		if err == nil || errors.Is(err, store.ErrSettled) || relay.CodeOf(err) == relay.NotFound || relay.CodeOf(err) == relay.Invalid ||
			ctx.Err() != nil || errors.Is(err, errStopped) || q.givesUp() {
			if told && err == nil {
				q.log.Info("outcomes can be stored again", "delivery", o.Delivery)
			}
			return err
		}
		if !told {
			q.log.Error("an outcome can't be stored; trying on", "delivery", o.Delivery, "err", err)
			told = true
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

// claim takes what is due from the store, as long as there is room.
func (q *Queue) claim(ctx context.Context) {
	const most = 500 // at a time: other writers wait meanwhile
	failing := false
	for ctx.Err() == nil {
		room := q.look()
		n, err := 0, error(nil)
		if room > 0 {
			n, err = q.claimSome(ctx, min(room, most))
		}
		if err == nil && n == most {
			continue
		}
		var next time.Time
		if err == nil {
			next, err = q.lookAhead(ctx, room > n)
		}
		if err != nil {
			if !failing && ctx.Err() == nil {
				q.log.Error("due deliveries can't be claimed; trying on", "err", err)
			}
			next = time.Now().Add(time.Second)
		}
		failing = err != nil
		q.sleep(ctx, next, err == nil && n == room)
	}
}

func (q *Queue) claimSome(ctx context.Context, limit int) (int, error) {
	now := time.Now()
	var wants []relay.Want
	for after := (relay.Class{}); len(wants) < limit; {
		page, err := q.kept.Waiting(ctx, after, 500)
		if err != nil {
			return 0, fmt.Errorf("look what waits: %w", err)
		}
		for _, w := range page {
			if after = w.Class; !w.Due.After(now) {
				wants = append(wants, relay.Want{Class: w.Class})
			}
		}
		if len(page) < 500 {
			break
		}
	}
	for i := range wants {
		wants[i].Limit = (limit + len(wants) - 1 - i) / len(wants)
	}
	claimed, _, err := q.kept.Claim(ctx, q.lease, now, wants)
	if err != nil {
		return 0, fmt.Errorf("claim deliveries: %w", err)
	}
	items := make([]*Item, 0, len(claimed))
	q.mu.Lock()
	for _, c := range claimed {
		it := &Item{Delivery: c.Delivery, Message: c.Message, content: &content{refs: 1}}
		q.hand[c.Delivery.ID] = it
		items = append(items, it)
	}
	q.mu.Unlock()
	for _, it := range items {
		q.ready(it)
	}
	return len(claimed), nil
}

// lookAhead says when to look again: when the next delivery is due, or, where
// there is no room, when some comes free.
func (q *Queue) lookAhead(ctx context.Context, room bool) (time.Time, error) {
	const longest = time.Minute // other nodes may have put something
	next := time.Now().Add(longest)
	if !room {
		return next, nil
	}
	for after := (relay.Class{}); ; {
		page, err := q.kept.Waiting(ctx, after, 500)
		if err != nil {
			return next, fmt.Errorf("look for the next due delivery: %w", err)
		}
		for _, w := range page {
			if after = w.Class; w.Due.Before(next) {
				next = w.Due
			}
		}
		if len(page) < 500 {
			return next, nil
		}
	}
}

// sleep waits until next, or until wake finds a reason to look earlier. full
// says that there was no room for more: then room is such a reason.
func (q *Queue) sleep(ctx context.Context, next time.Time, full bool) {
	q.mu.Lock()
	if full && q.roomyLocked() { // made since the claimer looked
		q.mu.Unlock()
		return
	}
	q.nextDue, q.starved = next, full
	q.mu.Unlock()
	t := time.NewTimer(max(time.Until(next), 5*time.Millisecond))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-q.poke:
	}
}

// wake lets the claimer look at the given time at the latest.
func (q *Queue) wake(at time.Time) {
	q.mu.Lock()
	sooner := q.nextDue.IsZero() || at.Before(q.nextDue)
	if sooner {
		q.nextDue = at
	}
	q.mu.Unlock()
	if sooner {
		select {
		case q.poke <- struct{}{}:
		default:
		}
	}
}

// look says how much room there is, and makes wake note whatever comes from now
// on: it may come too late for what the claimer is about to see.
func (q *Queue) look() (room int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.nextDue, q.starved = time.Time{}, false
	return max(0, q.config.Window-len(q.hand))
}

// Close gives back what is in hand and has not been tried. Run must have ended,
// and so must every Put.
func (q *Queue) Close(ctx context.Context) error {
	q.mu.Lock()
	q.closed = true
	var ids []relay.DeliveryID
	for id, it := range q.hand {
		if !it.flight {
			ids = append(ids, id)
			q.dropLocked(it)
		}
	}
	q.mu.Unlock()
	if len(ids) == 0 {
		return nil
	}
	if err := q.kept.Release(ctx, q.lease, ids); err != nil {
		return fmt.Errorf("give back %d deliveries: %w", len(ids), err)
	}
	return nil
}

// Stats are counts for the operator.
type Stats struct {
	InHand   int   `json:"in_hand"`   // deliveries in memory
	InFlight int   `json:"in_flight"` // of them with an attempt under way: what a crash may repeat
	Peak     int   `json:"peak"`      // the most in flight since the start
	Bytes    int64 `json:"bytes"`     // content in memory
}

// Stats counts what is in hand.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	return Stats{InHand: len(q.hand), InFlight: q.flight, Peak: q.peak, Bytes: q.bytes}
}
