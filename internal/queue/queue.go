// Package queue is the durable core: it makes messages and outcomes durable in
// batches, holds what this node has leased in a window of bounded memory, and
// claims from the store what has become due, fairly.
package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"postrider/internal/relay"
	"postrider/internal/schedule"
	"postrider/internal/store"
)

// Store is where messages, deliveries and events are kept.
type Store interface {
	// Commit writes messages with their deliveries, and outcomes, in one
	// transaction; one error for each. Deliveries in hand are leased to this
	// node. store.ErrSettled says of an outcome that the delivery was final
	// already, or is another node's.
	Commit(ctx context.Context, lease int64, puts []*relay.Submission, ends []relay.Outcome) (ofPuts, ofEnds []error)
	// Settle writes outcomes alone.
	Settle(ctx context.Context, lease int64, batch []relay.Outcome) []error
	Line
}

// Line is what waits in the store, and who has it in hand.
type Line interface {
	// Claim leases deliveries that are due, and tells what is left of the
	// classes that were asked for.
	Claim(ctx context.Context, lease int64, now time.Time, wants []relay.Want) ([]relay.Claimed, []relay.Waiting, error)
	// Release gives leases back without an attempt.
	Release(ctx context.Context, lease int64, ids []relay.DeliveryID) error
	// Waiting gives the next classes after one, of which deliveries wait.
	Waiting(ctx context.Context, after relay.Class, limit int) ([]relay.Waiting, error)
	// Held gives what is leased.
	Held(ctx context.Context, lease int64) ([]relay.DeliveryID, error)
	// Class gives the class of a delivery.
	Class(ctx context.Context, id relay.DeliveryID) (relay.Class, error)
}

// Observer is told of commits, to count them.
type Observer interface {
	// Committed tells of a batch (of "put" or "settle") that the store has
	// written, or has not: how long that took, and one error for each part.
	Committed(kind string, took time.Duration, errs []error)
}

// Config bounds the queue.
type Config struct {
	Window      int   // deliveries in memory
	WindowBytes int64 // content in memory
	Batch       int   // submissions or outcomes in one commit
	BatchBytes  int64 // content in one commit
	// Site, where not nil, tells the site of a domain, as far as it is known;
	// empty says that it is not. It is asked often, and must not wait.
	Site     func(domain string) string
	Observer Observer // nil: nobody counts
}

// Queue is the durable core of one node.
type Queue struct {
	kept   Store
	config Config
	log    *slog.Logger
	puts   *intake[*relay.Submission]
	ends   *intake[relay.Outcome]
	ready  func(*Item) // takes what is to be delivered; set by Run
	poke   chan struct{}

	mu      sync.Mutex
	lease   int64
	asleep  bool // Suspend or Drain: nothing is begun, put or claimed
	dead    bool // Suspend: the lease is over, or may be
	hand    map[relay.DeliveryID]*Item
	room    *schedule.Room // for deliveries in hand
	memory  *schedule.Room // for their content, in bytes
	waiting *schedule.Directory
	flight  int       // items of hand that an attempt is under way for
	peak    int       // the most there were at once
	ended   time.Time // when Run ended
	claimer claimer
}

// mostClasses bounds what the directory remembers; a class takes 160 bytes, and
// 310 while it is due. What is beyond waits until it is seen by a later walk.
const mostClasses = 400_000

// New makes the queue of the node that holds the given lease.
func New(kept Store, lease int64, c Config, log *slog.Logger) *Queue {
	if c.Site == nil {
		c.Site = func(string) string { return "" }
	}
	q := &Queue{kept: kept, lease: lease, config: c, log: log, poke: make(chan struct{}, 1), hand: map[relay.DeliveryID]*Item{},
		room: schedule.NewRoom(int64(c.Window)), memory: schedule.NewRoom(c.WindowBytes), waiting: schedule.NewDirectory(mostClasses)}
	q.puts = newIntake[*relay.Submission](c.Batch, c.BatchBytes)
	q.ends = newIntake[relay.Outcome](c.Batch, c.BatchBytes)
	return q
}

// Run claims deliveries and hands them, and those that Put takes in hand, to
// ready, until ctx ends. Then it claims no more; Put and Settle work on until
// Drain.
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

// Write writes what Put and Settle hand over until ctx ends; what was handed over
// by then is written. It outlives Run, so that the last attempts can be settled.
func (q *Queue) Write(ctx context.Context) error {
	commit(ctx, q.puts, q.ends, q.write)
	return nil
}

// write writes a batch. Submissions that came before Suspend and still wait have
// waited for long enough: the store does not answer.
func (q *Queue) write(ctx context.Context, puts []*relay.Submission, ends []relay.Outcome) (ofPuts, ofEnds []error) {
	q.mu.Lock()
	lease, dead := q.lease, q.dead
	q.mu.Unlock()
	start := time.Now()
	if !dead {
		ofPuts, ofEnds = q.kept.Commit(ctx, lease, puts, ends)
		q.committed("put", start, ofPuts)
	} else {
		if len(ends) > 0 {
			ofEnds = q.kept.Settle(ctx, lease, ends)
		}
		ofPuts = make([]error, len(puts))
		for i := range ofPuts {
			ofPuts[i] = takesNone()
		}
	}
	q.committed("settle", start, ofEnds)
	// Who waited for a store that does not answer has waited for long enough.
	for _, errs := range [][]error{ofPuts, ofEnds} {
		if len(errs) > 0 && relay.CodeOf(errs[0]) == relay.Unavailable && time.Since(start) >= longWait {
			q.puts.refuse(takesNone())
		}
	}
	return ofPuts, ofEnds
}

// longWait is how long a client waits at least, behind a commit that fails,
// before its own message is refused for that.
const longWait = 2 * time.Second

func takesNone() error {
	return &relay.Error{Code: relay.Unavailable, Text: "This node takes no mail at the moment.", Advice: "Try again later."}
}

func (q *Queue) committed(kind string, start time.Time, errs []error) {
	if q.config.Observer != nil && len(errs) > 0 {
		q.config.Observer.Committed(kind, time.Since(start), errs)
	}
}

// Put makes a message durable: when it returns nil, the message survives any
// crash. Errors are relay.Errors. Put returns soon, whatever becomes of ctx, but
// not before it is certain what became of the message.
func (q *Queue) Put(ctx context.Context, s *relay.Submission) error {
	if ctx.Err() != nil {
		return &relay.Error{Code: relay.Unavailable, Text: "The client has gone.", Advice: "Send the message again.", Err: ctx.Err()}
	}
	items, err := q.reserve(s)
	if err != nil {
		return err
	}
	err = q.puts.offer(s, s.Content.Size())
	if err == nil {
		q.accepted(s, items)
		return nil
	}
	q.mu.Lock()
	for _, it := range items {
		q.dropLocked(it)
	}
	if len(items) > 0 && doubtful(err) {
		q.doubtLocked()
	}
	q.mu.Unlock()
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

// accepted moves a message on that is durable: its items to ready, or what waits
// in the store to the directory.
func (q *Queue) accepted(s *relay.Submission, items []*Item) {
	q.mu.Lock()
	for _, it := range items {
		if it.gone { // by Suspend or Drain, while it was written
			q.doubtLocked()
			break
		}
	}
	if len(items) == 0 {
		var last relay.Class
		for _, d := range s.Deliveries {
			if c := d.Class(); c != last && d.State == relay.Queued {
				q.noteLocked(c, d.Due)
				last = c
			}
		}
	}
	q.mu.Unlock()
	for _, it := range items {
		q.ready(it)
	}
}

// reserve takes the deliveries of a submission in hand if they are due now and
// each has room; else they wait in the store.
func (q *Queue) reserve(s *relay.Submission) ([]*Item, error) {
	now := s.Message.Received
	fit := true
	for _, d := range s.Deliveries {
		fit = fit && d.State == relay.Queued && !d.Due.After(now)
	}
	var parts []schedule.Part // of each delivery
	if fit {
		parts = make([]schedule.Part, len(s.Deliveries))
		for i, d := range s.Deliveries {
			if i > 0 && d.Domain == s.Deliveries[i-1].Domain {
				parts[i] = parts[i-1]
			} else {
				parts[i] = schedule.PartOf(d.Class(), q.config.Site)
			}
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.asleep {
		return nil, takesNone()
	}
	if s.InHand = fit && q.ready != nil && q.takeLocked(parts); !s.InHand {
		return nil, nil
	}
	c := &content{refs: len(s.Deliveries), part: parts[0]}
	if b, ok := s.Content.(interface{ Bytes() []byte }); ok && b.Bytes() != nil && s.Content.Size() <= q.memory.Quota(c.part, schedule.Whole) {
		c.data = s.Content
		q.memory.Take(c.part, s.Content.Size())
	}
	items := make([]*Item, len(s.Deliveries))
	for i, d := range s.Deliveries {
		items[i] = &Item{Delivery: d, Message: s.Message, content: c, part: parts[i], lease: q.lease, version: version{updated: now.UnixMicro()}}
		q.hand[d.ID] = items[i]
	}
	return items, nil
}

// takeLocked takes room for deliveries of these parts, all or none. New mail gets
// half of what its part may have: where more waits in the store, that is older
// and has the other half.
func (q *Queue) takeLocked(parts []schedule.Part) bool {
	for i, p := range parts {
		if q.room.Quota(p, schedule.Half) == 0 {
			for _, taken := range parts[:i] {
				q.room.Take(taken, -1)
			}
			return false
		}
		q.room.Take(p, 1)
	}
	return true
}

// Settle makes an outcome durable. The item, if there is one, leaves this
// node's hand. While the store is away Settle keeps trying: what is known must
// not be forgotten. Only when Run has ended does it give up at some time; what
// the outcome is of is tried again then, when the node is back.
func (q *Queue) Settle(ctx context.Context, o relay.Outcome) error {
	if o.Late() { // it leaves the delivery where it is
		return q.settle(ctx, o)
	}
	q.mu.Lock()
	it := q.hand[o.Delivery]
	q.mu.Unlock()
	err := q.settle(ctx, o)
	if it == nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dropLocked(it) // not whatever has that name now: it may have been claimed anew
	if err != nil {
		return err
	}
	if it.lease != q.lease && q.claimer.late != nil {
		q.claimer.late[o.Delivery] = it.version
	}
	q.learnLocked(it.Delivery.Class(), &o)
	return nil
}

// learnLocked tells the directory what an outcome says of its class.
func (q *Queue) learnLocked(c relay.Class, o *relay.Outcome) {
	if o.Kind == relay.EventDeferred {
		q.noteLocked(c, o.Due)
	}
	switch a := o.Attempt; {
	case o.Kind == relay.EventDelivered, o.Kind == relay.EventBounced && a != nil && answered(a):
		if q.waiting.Worked(c) {
			q.stirLocked()
		}
	case o.Kind != relay.EventBounced && a != nil && a.Stage != "": // deferred or expired, and not by our own end
		q.waiting.Failed(c, o.At, answered(a))
	}
}

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

// Drain gives back what is in hand and has not been tried, and takes no more:
// Begin is false from now on, and Put refuses. Attempts under way go on and may
// settle. It is for the end of a node, after Run, and for one that is to be idle
// until Resume.
func (q *Queue) Drain(ctx context.Context) error {
	q.mu.Lock()
	q.asleep = true
	ids := q.forgetLocked()
	lease := q.lease
	q.mu.Unlock()
	if len(ids) == 0 {
		return nil
	}
	if err := q.kept.Release(ctx, lease, ids); err != nil {
		q.mu.Lock()
		q.doubtLocked()
		q.mu.Unlock()
		return fmt.Errorf("give back %d deliveries: %w", len(ids), err)
	}
	return nil
}

// Suspend is for a node whose lease may be over: from now on Begin is false and
// Put refuses. What is in hand without an attempt is forgotten: it is whoever's
// the store says. Attempts under way go on; their outcomes are settled when the
// store can be reached. It does not wait.
func (q *Queue) Suspend(context.Context) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.asleep, q.dead = true, true
	q.forgetLocked()
}

// Resume takes up work again, after Suspend or Drain, with the lease that the
// node holds now. An attempt that is still under way since before is not made a
// second time.
func (q *Queue) Resume(lease int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lease, q.asleep, q.dead = lease, false, false
	q.claimer.rewalk = true
	q.doubtLocked()
}

// Look makes the node look soon at all that waits in the store: others may have
// left it something.
func (q *Queue) Look() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.claimer.rewalk = true
	q.stirLocked()
}

// forgetLocked takes out of hand what no attempt is under way for.
func (q *Queue) forgetLocked() (ids []relay.DeliveryID) {
	for id, it := range q.hand {
		if !it.flight {
			ids = append(ids, id)
			q.dropLocked(it)
		}
	}
	return ids
}

// Stats are counts for the operator.
type Stats struct {
	InHand   int   `json:"in_hand"`   // deliveries in memory
	InFlight int   `json:"in_flight"` // of them with an attempt under way: what a crash may repeat
	Peak     int   `json:"peak"`      // the most in flight since the start
	Bytes    int64 `json:"bytes"`     // content in memory
	Classes  int   `json:"classes"`   // known to wait in the store: one for each account, domain and stream
}

// Stats counts what is in hand.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	return Stats{InHand: len(q.hand), InFlight: q.flight, Peak: q.peak, Bytes: q.memory.Used(), Classes: q.waiting.Len()}
}
