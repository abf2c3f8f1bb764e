package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"postrider/internal/queue"
	"postrider/internal/relay"
	"postrider/internal/store"
)

// How a node keeps its lease. An attempt that begins just before the fence has
// LeaseTime less the fence, five seconds, before anybody else can begin one at
// the same delivery; all waits are of this process's own monotonic clock, or of
// the store's.
const (
	beatEvery = 5 * time.Second
	lookEvery = time.Second      // for orders to drain; to try again when the store is away
	reapEvery = 2 * time.Second  // for dead nodes
	fence     = 10 * time.Second // since the last beat that was stored began: then the work stops
	patience  = 5 * time.Second  // for one answer of the store
)

// members is where nodes are registered.
type members interface {
	Join(ctx context.Context, node string) (lease int64, err error)
	Beat(ctx context.Context, n relay.Node) (ahead time.Duration, err error)
	News(ctx context.Context, lease int64) (relay.News, error)
	Drain(ctx context.Context, node string, drain bool) error
}

// work is what a node does by its lease.
type work interface {
	// Suspend begins no attempt any more and forgets what is in hand.
	Suspend(ctx context.Context)
	// Drain begins no attempt any more and gives back what is in hand.
	Drain(ctx context.Context) error
	// Resume works on, by that lease.
	Resume(lease int64)
	// Look looks what there is to do.
	Look()
	Stats() queue.Stats
}

// node keeps this node's lease while the store answers, stops its work before
// the lease may be over, and joins anew. It obeys the order to drain.
type node struct {
	members members
	work    work
	name    string
	shared  bool // others may be in the store
	log     *slog.Logger
	fence   *time.Timer

	tried time.Time     // the last beat, stored or not; run's alone
	told  time.Duration // how far the clock is off, as it was logged last; run's alone
	given bool          // what was in hand when the order to drain came is given back; run's alone
	known relay.News    // run's alone

	change sync.Mutex // held while the work is stopped or begun

	mu        sync.Mutex
	lease     int64
	sure      time.Time // when the last beat that was stored began
	draining  bool
	away      bool // the store did not answer the last time
	suspended bool
}

// newNode takes over a lease that was got by a Join that began at sure.
func newNode(m members, w work, name string, shared bool, lease int64, sure time.Time, log *slog.Logger) *node {
	return &node{members: m, work: w, name: name, shared: shared, lease: lease, sure: sure, log: log}
}

// condition is whether the node works.
func (n *node) condition() relay.Condition {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.suspended:
		return relay.Suspended
	case n.draining:
		return relay.Draining
	case n.away:
		return relay.Away
	}
	return relay.Working
}

// current is the lease that the node has, or had last.
func (n *node) current() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lease
}

// run keeps the lease until ctx ends. It ends with an error where another
// process has the node's name.
func (n *node) run(ctx context.Context) error {
	if n.shared {
		lapsing := context.WithoutCancel(ctx) // drain: what is in hand is forgotten in any case
		n.fence = time.AfterFunc(fence-time.Since(n.sure), func() { n.lapse(lapsing) })
		defer n.fence.Stop()
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if err := n.round(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (n *node) round(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	n.mu.Lock()
	lease, suspended, away := n.lease, n.suspended, n.away
	n.mu.Unlock()
	if suspended {
		n.rejoin(asking)
		return nil
	}
	var err error
	if began := time.Now(); away || began.Sub(n.tried) >= beatEvery {
		n.tried = began
		var ahead time.Duration
		if ahead, err = n.members.Beat(asking, relay.Node{Name: n.name, Lease: lease, Version: Version}); err == nil {
			n.stored(began, ahead)
		}
	}
	var news relay.News
	if err == nil {
		news, err = n.members.News(asking, lease)
	}
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, store.ErrLeaseLost):
		return n.lost(asking, err)
	case err != nil:
		n.failed(err)
	default:
		n.obey(asking, news)
	}
	return nil
}

// stored notes a beat.
func (n *node) stored(began time.Time, ahead time.Duration) {
	n.mu.Lock()
	was := n.away
	n.away, n.sure = false, began
	n.mu.Unlock()
	if n.shared {
		n.fence.Reset(fence - time.Since(began))
	}
	if was {
		n.log.Info("the store answers again")
	}
	const much = 2 * time.Second
	if off := ahead.Round(time.Second); (off-n.told).Abs() >= much && time.Since(began) < much {
		n.told = off
		n.log.Warn("this machine's clock is not that of the store: mail is tried at the right time all the same, but dates in it are off; set it by NTP", "ahead", off)
	}
}

func (n *node) failed(err error) {
	n.mu.Lock()
	was := n.away
	n.away = true
	n.mu.Unlock()
	if !was {
		n.log.Error("the store does not answer; trying on", "err", err)
	}
}

// lapse stops the work when the lease may be over soon. It runs by itself, not
// after a question to the store that may never be answered.
func (n *node) lapse(ctx context.Context) {
	n.change.Lock()
	defer n.change.Unlock()
	n.mu.Lock()
	silent := time.Since(n.sure)
	over := !n.suspended && silent >= fence
	n.suspended = n.suspended || over
	n.mu.Unlock()
	if !over {
		return // a beat came at the last moment, and has set the fence anew
	}
	n.stop(ctx, "the store has not answered for too long: until it does, no attempt begins and no mail is taken", "silent", silent.Round(100*time.Millisecond))
}

// stop suspends the work. What was in hand stays in the store, for this node
// when it has joined anew, or for the others. change must be held.
func (n *node) stop(ctx context.Context, why string, more ...any) {
	s := n.work.Stats()
	n.work.Suspend(ctx)
	n.log.Error(why, append(more, "lease", n.current(), "in_hand", s.InHand, "in_flight", s.InFlight)...)
}

// lost finds that the lease was ended: by others, who took this node for dead,
// or by one that has its name.
func (n *node) lost(ctx context.Context, err error) error {
	n.change.Lock()
	n.mu.Lock()
	was, joined := n.suspended, n.lease
	n.suspended = true
	n.mu.Unlock()
	if !was {
		n.stop(ctx, "the lease of this node was ended: what it held is anybody's now")
	}
	n.change.Unlock()
	if !errors.Is(err, store.ErrNameTaken) {
		// What News found, a beat can tell more about.
		_, err = n.members.Beat(ctx, relay.Node{Name: n.name, Lease: joined, Version: Version})
	}
	if errors.Is(err, store.ErrNameTaken) {
		return fmt.Errorf("another process joined the store as node %q: give each a name of its own (node)", n.name)
	}
	n.rejoin(ctx)
	return nil
}

// rejoin takes part again under a new lease, which ends the old one.
func (n *node) rejoin(ctx context.Context) {
	began := time.Now()
	lease, err := n.members.Join(ctx, n.name)
	n.mu.Lock()
	draining := n.draining
	n.mu.Unlock()
	if err == nil && draining {
		err = n.members.Drain(ctx, n.name, true) // the order was to this process
	}
	if err != nil {
		n.failed(err)
		return
	}
	n.change.Lock()
	defer n.change.Unlock()
	if n.shared && time.Since(began) >= fence {
		return // too late to rely on it
	}
	n.mu.Lock()
	n.lease, n.sure, n.away, n.suspended = lease, began, false, false
	n.mu.Unlock()
	n.tried = time.Time{} // tell the version soon
	if n.shared {
		n.fence.Reset(fence - time.Since(began))
	}
	n.log.Warn("joined the store anew", "lease", lease)
	if !draining {
		n.work.Resume(lease)
	}
}

// obey drains, or works again, or looks for what others have given back.
func (n *node) obey(ctx context.Context, news relay.News) {
	n.change.Lock()
	defer n.change.Unlock()
	n.mu.Lock()
	was := n.draining
	n.draining = news.Draining
	lease, suspended := n.lease, n.suspended
	n.mu.Unlock()
	more := news.Released > n.known.Released
	n.known = news
	switch {
	case suspended: // meanwhile; rejoin will see to it
	case news.Draining && !(was && n.given):
		s := n.work.Stats()
		err := n.work.Drain(ctx)
		if n.given = err == nil; n.given || !was {
			n.log.Info("draining: no mail is taken, no attempt begins", "given_back", s.InHand-s.InFlight, "in_flight", s.InFlight, "err", err)
		}
	case news.Draining:
	case was:
		n.log.Info("draining no more: working again")
		n.work.Resume(lease)
	case more:
		n.work.Look()
	}
}

// undertaker ends the leases of dead nodes.
type undertaker interface {
	Reap(ctx context.Context, silent time.Duration) ([]store.Dead, error)
}

// reap looks for dead nodes until ctx ends. What they held is news to all nodes,
// this one too.
func (n *node) reap(ctx context.Context, u undertaker) error {
	tick := time.NewTicker(reapEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if c := n.condition(); c != relay.Working && c != relay.Draining {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, patience)
		dead, err := u.Reap(asking, relay.LeaseTime)
		cancel()
		if err != nil && ctx.Err() == nil {
			n.log.Warn("dead nodes can't be looked for; trying on", "err", err)
		}
		for _, d := range dead {
			n.log.Warn("a node has not been heard of for too long: its lease is ended, and what it held is due now", "node", d.Name, "deliveries", d.Released)
		}
	}
}

// keep runs both until ctx ends.
func (n *node) keep(ctx context.Context, u undertaker) error {
	g, running := errgroup.WithContext(ctx)
	g.Go(func() error { return n.run(running) })
	g.Go(func() error { return n.reap(running, u) })
	return g.Wait()
}
