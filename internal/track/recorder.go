package track

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"postrider/internal/link"
	"postrider/internal/relay"
	"postrider/internal/store"
)

// Deliveries finds what links are about.
type Deliveries interface {
	// Linked gives those of these deliveries that are there; of whichever account,
	// since a link of ours has proved that it may be asked for.
	Linked(ctx context.Context, ids []relay.DeliveryID) ([]*relay.Delivery, error)
}

// Queue settles outcomes.
type Queue interface {
	Settle(ctx context.Context, o relay.Outcome) error
}

// Observer counts what became of deeds.
type Observer interface {
	// Tracked tells of one that is recorded.
	Tracked(kind relay.Kind, machine bool)
	// Untracked tells of one that is not: why is "repeated", "full", "gone" or
	// "store".
	Untracked(why string)
}

// unobserved is for a Log without an Observer.
type unobserved struct{}

func (unobserved) Tracked(relay.Kind, bool) {}
func (unobserved) Untracked(string)         {}

// LogConfig is how deeds are recorded.
type LogConfig struct {
	// Early is how soon after a delivery a deed is taken for a machine's; 0: none is.
	Early    time.Duration
	Rules    *Rules
	Observer Observer // nil: nobody counts
}

// Log records deeds as events. Who hands one over does not wait: they are written
// in batches, a moment later, when it can be seen what else was done with the same
// message.
type Log struct {
	config LogConfig
	store  Deliveries
	queue  Queue
	log    *slog.Logger
	in     chan Deed
	look   time.Duration // that a deed waits for what comes beside it
	full   atomic.Bool   // the log says so once

	// Of Run alone.
	recent map[relay.DeliveryID]*history
	swept  time.Time
}

const (
	maxWaiting  = 20_000 // deeds; some 10 MB
	maxBatch    = 500    // deeds that are settled together
	lookAround  = 2 * time.Second
	same        = 10 * time.Second // in which one that is repeated is not recorded again
	maxHistory  = 100              // deeds of one delivery that are remembered
	forgetAfter = 2 * time.Minute
	maxRecent   = 50_000 // deliveries of which something is remembered
	maxSettling = 64
)

// NewLog makes a log.
func NewLog(c LogConfig, s Deliveries, q Queue, log *slog.Logger) *Log {
	if c.Observer == nil {
		c.Observer = unobserved{}
	}
	return &Log{config: c, store: s, queue: q, log: log, in: make(chan Deed, maxWaiting), look: lookAround, recent: map[relay.DeliveryID]*history{}}
}

// Record takes a deed, or counts it as lost where there is no room.
func (l *Log) Record(d Deed) {
	select {
	case l.in <- d:
	default:
		l.config.Observer.Untracked("full")
		if !l.full.Swap(true) {
			l.log.Warn("opens and clicks come faster than they can be recorded; some are lost")
		}
	}
}

// history is what was done of late with one delivery.
type history struct {
	last  time.Time
	deeds []Deed
}

// Run records until ctx ends, and then what was handed over by then.
func (l *Log) Run(ctx context.Context) error {
	writing := context.WithoutCancel(ctx) // drain: what was done is known to nobody else
	var batch []Deed
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		batch = batch[:0]
		select {
		case d := <-l.in:
			batch = append(batch, d)
		case <-ctx.Done():
			for len(l.in) > 0 {
				l.write(writing, ctx, l.gather(nil, nil, nil))
			}
			return nil
		}
		timer.Reset(l.look)
		l.write(writing, ctx, l.gather(batch, timer.C, ctx.Done()))
		l.full.Store(false)
	}
}

// gather takes what comes until then, or what is there.
func (l *Log) gather(batch []Deed, until <-chan time.Time, done <-chan struct{}) []Deed {
	for len(batch) < maxBatch {
		if until == nil {
			select {
			case d := <-l.in:
				batch = append(batch, d)
				continue
			default:
				return batch
			}
		}
		select {
		case d := <-l.in:
			batch = append(batch, d)
		case <-until:
			return batch
		case <-done:
			return batch
		}
	}
	return batch
}

// write settles a batch; running is the context of Run.
func (l *Log) write(ctx, running context.Context, batch []Deed) {
	fresh := l.remember(batch)
	ids := make([]relay.DeliveryID, 0, len(fresh))
	known := map[relay.DeliveryID]*relay.Delivery{}
	for _, d := range fresh {
		if _, asked := known[d.Link.Delivery]; !asked {
			known[d.Link.Delivery] = nil
			ids = append(ids, d.Link.Delivery)
		}
	}
	if len(ids) == 0 {
		return
	}
	found, err := l.find(ctx, running, ids)
	if err != nil {
		l.log.Error("opens and clicks can't be recorded, and are lost", "count", len(fresh), "err", err)
		for range fresh {
			l.config.Observer.Untracked("store")
		}
		return
	}
	for _, d := range found {
		known[d.ID] = d
	}
	var g sync.WaitGroup
	room := make(chan struct{}, maxSettling)
	for _, d := range fresh {
		of := known[d.Link.Delivery]
		if of == nil { // removed since
			l.config.Observer.Untracked("gone")
			continue
		}
		o := l.outcome(d, of)
		room <- struct{}{}
		g.Go(func() {
			defer func() { <-room }()
			l.settle(ctx, o)
		})
	}
	g.Wait()
}

const (
	askAgain = 250 * time.Millisecond
	// lastTries is how often the store is asked after the end of Run.
	lastTries = 6
)

// find asks until the store answers: deeds wait, as long as there is room. After
// the end of running it gives up at some time.
func (l *Log) find(ctx, running context.Context, ids []relay.DeliveryID) (found []*relay.Delivery, err error) {
	for tries := 1; ; {
		if found, err = l.store.Linked(ctx, ids); err == nil || tries == lastTries {
			return found, err
		}
		if running.Err() != nil {
			tries++
		}
		time.Sleep(askAgain)
	}
}

func (l *Log) settle(ctx context.Context, o relay.Outcome) {
	err := l.queue.Settle(ctx, o)
	switch {
	case err == nil:
		l.config.Observer.Tracked(o.Kind, o.Engagement.Machine != "")
	case errors.Is(err, store.ErrSettled) || relay.CodeOf(err) == relay.NotFound:
		l.config.Observer.Untracked("gone")
	default:
		l.config.Observer.Untracked("store")
		l.log.Error("what was done with a message is not recorded", "delivery", o.Delivery, "outcome", o.Kind, "err", err)
	}
}

// remember notes what was done, and gives what is to be recorded: the same thing
// by the same client within seconds is one.
func (l *Log) remember(batch []Deed) (fresh []Deed) {
	for _, d := range batch {
		h := l.recent[d.Link.Delivery]
		if h == nil {
			h = &history{}
			l.recent[d.Link.Delivery] = h
		}
		if h.last = d.At; h.repeats(d) || len(h.deeds) >= maxHistory {
			l.config.Observer.Untracked("repeated")
			continue
		}
		h.deeds = append(h.deeds, d)
		fresh = append(fresh, d)
	}
	if len(batch) > 0 {
		l.forget(batch[len(batch)-1].At)
	}
	return fresh
}

func (h *history) repeats(d Deed) bool {
	for _, o := range h.deeds {
		if o.Link.Kind == d.Link.Kind && o.Link.Target == d.Link.Target && o.Client == d.Client && o.UserAgent == d.UserAgent && o.Head == d.Head &&
			d.At.Sub(o.At).Abs() < same {
			return true
		}
	}
	return false
}

// forget drops what is too old to matter, and all where it is too much.
func (l *Log) forget(now time.Time) {
	if now.Sub(l.swept) < forgetAfter/4 && len(l.recent) < maxRecent {
		return
	}
	l.swept = now
	for id, h := range l.recent {
		if now.Sub(h.last) > forgetAfter {
			delete(l.recent, id)
		}
	}
	if len(l.recent) >= maxRecent {
		clear(l.recent)
	}
}

// outcome is what a deed comes to.
func (l *Log) outcome(d Deed, of *relay.Delivery) relay.Outcome {
	e := &relay.Engagement{Client: d.Client, UserAgent: d.UserAgent}
	o := relay.Outcome{Delivery: of.ID, Account: of.Account, Kind: relay.EventOpened, At: d.At, Provider: of.Provider, Engagement: e}
	if d.Link.Kind == link.Click {
		o.Kind, e.URL = relay.EventClicked, d.Link.Target
	}
	var near []Deed
	if h := l.recent[of.ID]; h != nil {
		near = h.deeds
	}
	var delivered time.Time // not yet: the first attempt is under way
	if of.State != relay.Queued {
		delivered = of.Updated
	}
	e.Machine, e.Proxy = l.config.Rules.Judge(d, delivered, near, l.config.Early)
	if d.Anonymous {
		e.Client, e.UserAgent = netip.Addr{}, ""
	}
	return o
}
