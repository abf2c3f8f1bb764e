package webhook

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"postrider/internal/relay"
	"postrider/internal/tail"
)

// How often the service looks, and how much it sends at once. A webhook that was
// slow the last time competes with other slow ones only.
const (
	keepEvery = 2 * time.Second
	saveEvery = time.Second
	pollEvery = 500 * time.Millisecond
	quickMost = 256
	slowMost  = 128
)

// Service sends the events of the webhooks that this node serves. Each node has
// one; a webhook is served by one of them.
type Service struct {
	config Config
	store  Store
	box    Box
	lease  func() int64 // of this node
	idle   func() bool  // this node does nothing at the moment
	poster *poster
	tail   *tail.Tail
	quick  chan struct{}
	slow   chan struct{}
	now    func() time.Time
	waits  []time.Duration // between tries

	workers map[relay.ID]*worker // keep's alone, but for looking under mu
	served  int64                // the lease that they work by; keep's alone
	mu      sync.Mutex           // held while workers changes

	taken, refused, events atomic.Int64
}

// NewService makes a service. Lease is the node's at any time, idle tells that
// the node does not work.
func NewService(c Config, s Store, box Box, lease func() int64, idle func() bool) *Service {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{config: c, store: s, box: box, lease: lease, idle: idle, poster: newPoster(c), tail: tail.New(s), now: func() time.Time { return time.Now().UTC() }, waits: waits(),
		quick: make(chan struct{}, quickMost), slow: make(chan struct{}, slowMost), workers: map[relay.ID]*worker{}}
}

// count counts a request.
func (s *Service) count(a Answer) {
	if a.Error == "" {
		s.taken.Add(1)
	} else {
		s.refused.Add(1)
	}
}

// Stats are counts for the operator: of this node.
type Stats struct {
	Taken, Refused int64         // requests since the start, by whether receivers took them
	Events         int64         // that they took since the start
	Served         int           // webhooks
	Failing        int           // of them, whose last request was refused
	Aside          int           // messages whose events stand aside
	Lag            time.Duration // how old the oldest event is that waits to be sent
}

// Stats counts.
func (s *Service) Stats() Stats {
	out := Stats{Taken: s.taken.Load(), Refused: s.refused.Load(), Events: s.events.Load()}
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.workers {
		oldest, failing, aside := w.waits()
		out.Served++
		out.Aside += aside
		if failing {
			out.Failing++
		}
		if !oldest.IsZero() {
			out.Lag = max(out.Lag, now.Sub(oldest))
		}
	}
	return out
}

// waits tells since when the oldest event waits, which is zero where none does, and
// whether requests fail.
func (w *worker) waits() (oldest time.Time, failing bool, aside int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	note := func(id relay.ID) {
		if at := id.Time(); oldest.IsZero() || at.Before(oldest) {
			oldest = at
		}
	}
	if len(w.ready) > 0 {
		note(w.ready[0].ID)
	} else if len(w.queue) > 0 {
		note(w.queue[0].ID)
	}
	for _, a := range w.p.Aside {
		note(a.From)
	}
	return oldest, w.p.Failures > 0, len(w.p.Aside)
}

// Run sends until ctx ends. Then it waits a moment for answers, notes how far it
// came, and gives back what it served.
func (s *Service) Run(ctx context.Context) error {
	keep, save, poll := time.NewTicker(keepEvery), time.NewTicker(saveEvery), time.NewTicker(pollEvery)
	defer keep.Stop()
	defer save.Stop()
	defer poll.Stop()
	failing := ""
	tell := func(what string, err error) {
		if err != nil && failing == "" && ctx.Err() == nil {
			failing = what
			s.config.Log.Error("webhooks: "+what+"; trying on", "err", err)
		} else if err == nil && failing == what {
			failing = ""
		}
	}
	for {
		tell("it can't be told which of them are this node's", s.keep(ctx))
		for again := true; again; {
			select {
			case <-ctx.Done():
				closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*drainFor) // drain: how far they came
				defer cancel()
				return s.end(closing)
			case <-keep.C:
				again = false
			case <-save.C:
				tell("it can't be noted how far they came", s.save(ctx))
			case <-poll.C:
				tell("events can't be read", s.poll(ctx))
			}
		}
	}
}

// poll looks for events.
func (s *Service) poll(ctx context.Context) error {
	accounts := map[relay.ID]bool{}
	for _, w := range s.workers {
		accounts[w.hook.Account] = true
	}
	return s.tail.Poll(ctx, func(ctx context.Context, after relay.ID, limit int) ([]*relay.EventHead, error) {
		return s.store.Tail(ctx, s.served, after, limit)
	}, accounts)
}

// keep makes the workers those of the webhooks that are this node's.
func (s *Service) keep(ctx context.Context) error {
	lease := s.lease()
	if s.idle() {
		if len(s.workers) == 0 {
			return nil
		}
		return s.release(ctx, s.all())
	}
	if lease != s.served {
		s.halt(s.all()) // what they did by the lease before is another's affair now
		s.served = lease
	}
	served, err := s.store.ServeWebhooks(ctx, lease)
	if err != nil {
		return err
	}
	wanted := map[relay.ID]int{}
	for i, h := range served.Webhooks {
		wanted[h.ID] = i
	}
	var ended, excess []*worker
	for id, w := range s.workers {
		i, mine := wanted[id]
		if mine && i < served.Share && served.Webhooks[i].Version == w.hook.Version && served.Epochs[i] == w.ofEpoch() && !w.over() {
			continue
		}
		// Whoever waits for an answer keeps nobody waiting: it is seen to when it
		// has ended.
		if w.stop(); !w.over() {
			continue
		}
		if ended = append(ended, w); mine && i >= served.Share {
			excess = append(excess, w)
		}
	}
	if err := s.finish(ctx, ended); err != nil {
		return err
	}
	if err := s.yield(ctx, excess); err != nil {
		return err
	}
	for i, h := range served.Webhooks[:min(len(served.Webhooks), served.Share)] {
		if s.workers[h.ID] == nil && !slices.ContainsFunc(ended, func(w *worker) bool { return w.hook.ID == h.ID && w.verdict != "" }) {
			s.begin(ctx, h, served.Epochs[i])
		}
	}
	return nil
}

func (s *Service) all() (all []*worker) {
	for _, w := range s.workers {
		all = append(all, w)
	}
	return all
}

// begin starts a worker. What the tail has of the account is dropped: while the
// webhook was paused, or was not there, looks may have been given none of it.
func (s *Service) begin(ctx context.Context, h *relay.Webhook, epoch int64) {
	s.tail.Forget(h.Account)
	working, stop := context.WithCancel(ctx)
	w := &worker{s: s, hook: h, epoch: epoch, stop: stop, ended: make(chan struct{}), place: -1, done: map[relay.ID]struct{}{}}
	s.mu.Lock()
	s.workers[h.ID] = w
	s.mu.Unlock()
	go w.run(working) // halt waits for it
}

// over tells whether the worker has ended by itself.
func (w *worker) over() bool {
	select {
	case <-w.ended:
		return true
	default:
		return false
	}
}

func (w *worker) ofEpoch() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.epoch
}

// halt stops workers and waits for them.
func (s *Service) halt(workers []*worker) {
	for _, w := range workers {
		w.stop()
	}
	for _, w := range workers {
		<-w.ended
		s.mu.Lock()
		delete(s.workers, w.hook.ID)
		s.mu.Unlock()
	}
}

// finish stops workers, notes how far they came, and disables the webhooks of
// those that say so.
func (s *Service) finish(ctx context.Context, workers []*worker) error {
	s.halt(workers)
	if err := s.note(ctx, workers); err != nil {
		return err
	}
	for _, w := range workers {
		if w.verdict != "" {
			if err := s.disable(ctx, w); err != nil {
				return err
			}
		}
	}
	return nil
}

// release finishes workers, and lets other nodes have their webhooks.
func (s *Service) release(ctx context.Context, workers []*worker) error {
	if len(workers) == 0 {
		return nil
	}
	if err := s.finish(ctx, workers); err != nil {
		return err
	}
	return s.yield(ctx, workers)
}

func (s *Service) yield(ctx context.Context, workers []*worker) error {
	if len(workers) == 0 {
		return nil
	}
	ids := make([]relay.ID, len(workers))
	for i, w := range workers {
		ids[i] = w.hook.ID
	}
	return s.store.YieldWebhooks(ctx, s.served, ids)
}

// end stops all.
func (s *Service) end(ctx context.Context) error {
	if err := s.release(ctx, s.all()); err != nil {
		// What was sent since it was noted last is sent again.
		s.config.Log.Warn("webhooks: it can't be noted how far they came", "err", err)
	}
	return nil
}

// save notes how far all came.
func (s *Service) save(ctx context.Context) error { return s.note(ctx, s.all()) }

func (s *Service) note(ctx context.Context, workers []*worker) error {
	var states []relay.WebhookState
	var of []*worker
	for _, w := range workers {
		if state := w.snapshot(); state != nil {
			states, of = append(states, *state), append(of, w)
		}
	}
	if len(states) == 0 {
		return nil
	}
	err := s.store.SaveWebhooks(ctx, s.served, states)
	if err != nil {
		for i, w := range of {
			w.again(&states[i])
		}
	}
	return err
}

// disable ends a webhook whose worker came to that verdict, unless somebody has
// changed it since.
func (s *Service) disable(ctx context.Context, w *worker) error {
	for {
		h, err := s.store.Webhook(ctx, w.hook.Account, w.hook.ID)
		if err == nil && (h.Status != relay.WebhookActive || h.Version != w.hook.Version) {
			return nil
		}
		if err == nil {
			h.Status, h.Reason = relay.WebhookDisabled, w.verdict
			err = s.store.SetWebhook(ctx, relay.Actor{Name: "postrider"}, h.Account, h)
		}
		switch {
		case err == nil:
			s.config.Log.Warn("a webhook is disabled", "webhook", h.ID, "account", h.Account, "reason", w.verdict)
			return nil
		case relay.CodeOf(err) == relay.NotFound:
			return nil
		case relay.CodeOf(err) != relay.Conflict:
			return err
		}
	}
}
