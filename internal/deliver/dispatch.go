// Package deliver makes the attempts: it sorts deliveries by the site that
// receives them, keeps connections open within each site's pace, tries each
// delivery, and turns what happened into an outcome.
package deliver

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"postrider/internal/queue"
	"postrider/internal/relay"
	"postrider/internal/schedule"
	"postrider/internal/smtpclient"
	"postrider/internal/store"
)

// Queue is where items come from and outcomes go.
type Queue interface {
	Begin(it *queue.Item) bool
	Settle(ctx context.Context, o relay.Outcome) error
}

// Contents opens the content of a message that is not in memory.
type Contents interface {
	Content(ctx context.Context, message relay.ID) (relay.Content, error)
}

// Config is how mail leaves.
type Config struct {
	Hostname    string
	Port        int          // of receivers found by MX
	Source      []netip.Addr // local addresses, at most one per family; empty: the system chooses
	Connections int          // at once
	PerSite     int
	PerConn     int           // messages over one connection
	Idle        time.Duration // that a connection is kept for the next message
	Connect     time.Duration // per address
	Timeouts    smtpclient.Timeouts
	Drain       time.Duration // for attempts under way at the end
	Retry       schedule.Retry
	Gather      time.Duration // that a notice waits for further failures
	Delay       time.Duration // after which the sender is told of a delay; 0: never
	Spool       string        // folder for temporary files
}

// Dispatcher delivers what it is offered.
type Dispatcher struct {
	config   Config
	queue    Queue
	contents Contents
	resolver Resolver
	routes   Routes
	log      *slog.Logger
	lookups  chan struct{} // bounds look-ups at once
	dead     deadHosts

	mu      sync.Mutex
	domains map[string]*domain
	sites   map[string]*site
	conns   int           // workers
	early   []*queue.Item // offered before Run
	phase   phase
	ctx     context.Context // of attempts: ends when the time to drain is over
	workers sync.WaitGroup
}

// phase is where a dispatcher is in its life.
type phase uint8

const (
	fresh   phase = iota // Run has not begun: what is offered waits
	working              // attempts may start
	ended                // they may not; what is offered stays with the queue
)

// domain is what is known of a recipients' domain.
type domain struct {
	dest      *destination
	resolving bool
	waiting   []*queue.Item // for the look-up
}

// site is a receiving service.
type site struct {
	pace  schedule.Pace
	open  int // workers
	lanes map[laneKey]*lane
}

// laneKey names what may share connections: (egress, hosts, need of TLS). There
// is one egress yet.
type laneKey struct {
	hosts  string
	strict bool // REQUIRETLS
}

// lane is what waits for one set of hosts.
type lane struct {
	site    *site
	key     laneKey
	dest    *destination
	line    schedule.Line[*queue.Item]
	workers int
	coming  int // workers that will take an item soon: connecting, or just called
	serving int // workers with a connection
	idle    []*worker
}

// maxLookups bounds look-ups at once.
const maxLookups = 100

// New makes a dispatcher.
func New(c Config, q Queue, contents Contents, r Resolver, routes Routes, log *slog.Logger) *Dispatcher {
	return &Dispatcher{config: c, queue: q, contents: contents, resolver: r, routes: routes, log: log,
		lookups: make(chan struct{}, maxLookups), dead: deadHosts{until: map[netip.AddrPort]time.Time{}},
		domains: map[string]*domain{}, sites: map[string]*site{}}
}

// Run delivers until ctx ends. Then no attempt starts any more, those under way
// may take the time to drain, and idle connections are closed.
func (d *Dispatcher) Run(ctx context.Context) error {
	attempts, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	d.mu.Lock()
	d.ctx, d.phase = attempts, working
	for _, it := range d.early {
		d.admit(it)
	}
	d.early = nil
	d.mu.Unlock()
	<-ctx.Done()
	d.mu.Lock()
	d.phase = ended
	for _, s := range d.sites {
		for _, l := range s.lanes {
			for _, w := range l.idle {
				w.call()
			}
			l.idle = nil
		}
	}
	d.mu.Unlock()
	drained := time.AfterFunc(d.config.Drain, func() { cut(errShutdown) })
	defer drained.Stop()
	d.workers.Wait()
	return nil
}

var errShutdown = errors.New("the relay was shut down during the attempt")

// Offer takes an item to deliver. It does not wait.
func (d *Dispatcher) Offer(it *queue.Item) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch d.phase {
	case fresh:
		d.early = append(d.early, it)
	case working:
		d.admit(it)
	}
}

// admit sorts an item to where it goes. d.mu is held.
func (d *Dispatcher) admit(it *queue.Item) {
	name := it.Delivery.Domain
	dom := d.domains[name]
	if dom == nil {
		dom = &domain{}
		d.domains[name] = dom
	}
	if dom.dest != nil && time.Now().Before(dom.dest.expires) {
		d.enqueue(dom.dest, it)
		return
	}
	dom.waiting = append(dom.waiting, it)
	if !dom.resolving {
		dom.resolving = true
		d.workers.Go(func() { d.lookUp(d.ctx, name, dom) })
	}
}

// lookUp resolves a domain and moves on what waits for it.
func (d *Dispatcher) lookUp(ctx context.Context, name string, dom *domain) {
	d.lookups <- struct{}{}
	dest, err := d.resolve(ctx, name)
	<-d.lookups
	d.mu.Lock()
	items := dom.waiting
	dom.waiting, dom.resolving, dom.dest = nil, false, dest
	if err == nil {
		for _, it := range items {
			d.enqueue(dest, it)
		}
	}
	d.forgetDomains()
	d.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		var p *problem
		if !errors.As(err, &p) {
			p = &problem{enhanced: "4.4.3", text: err.Error()}
		}
		now := time.Now()
		d.settleAll(items, func(it *queue.Item) relay.Outcome { return d.routeFailed(it, p, now) })
	}
}

// maxDomains bounds what is remembered; more is looked up anew, mostly from the
// resolver's cache.
const maxDomains = 20_000

func (d *Dispatcher) forgetDomains() {
	if len(d.domains) < maxDomains {
		return
	}
	now := time.Now()
	for name, dom := range d.domains {
		if !dom.resolving && (dom.dest == nil || now.After(dom.dest.expires) || len(d.domains) > maxDomains/2) {
			delete(d.domains, name)
		}
	}
}

// enqueue puts an item into its lane and sees that somebody works there. d.mu
// is held.
func (d *Dispatcher) enqueue(dest *destination, it *queue.Item) {
	s := d.sites[dest.site]
	if s == nil {
		d.forgetSites()
		s = &site{pace: schedule.NewPace(d.config.PerSite), lanes: map[laneKey]*lane{}}
		d.sites[dest.site] = s
	}
	key := laneKey{dest.lane, it.Message.Envelope.RequireTLS}
	l := s.lanes[key]
	if l == nil {
		l = &lane{site: s, key: key}
		s.lanes[key] = l
	}
	l.dest = dest
	l.line.Push(it.Delivery.Stream, it.Delivery.Account, it)
	d.staff(l)
}

// maxSites bounds for how many sites the pace is remembered.
const maxSites = 20_000

func (d *Dispatcher) forgetSites() {
	if len(d.sites) < maxSites {
		return
	}
	for name, s := range d.sites {
		if len(s.lanes) == 0 {
			delete(d.sites, name)
		}
	}
}

// staff sees that a lane has a worker for each item that waits: an idle one, or
// a new one where the site's pace and the total allow it. d.mu is held.
func (d *Dispatcher) staff(l *lane) {
	for d.phase == working && l.line.Len() > l.coming {
		if n := len(l.idle); n > 0 {
			w := l.idle[n-1]
			l.idle = l.idle[:n-1]
			w.call()
			continue
		}
		if l.site.open >= l.site.pace.Limit() {
			d.evict(l.site)
			return
		}
		if d.conns >= d.config.Connections {
			d.evictAny()
			return
		}
		l.workers++
		l.site.open++
		d.conns++
		l.coming++
		w := &worker{d: d, lane: l, coming: true}
		d.workers.Go(func() { w.run(d.ctx) })
	}
}

// evict sends an idle connection of a site away, so that another lane of it can
// have its place as soon as it has said QUIT.
func (d *Dispatcher) evict(s *site) bool {
	for _, l := range s.lanes {
		if len(l.idle) > 0 {
			w := l.idle[0]
			l.idle = l.idle[1:]
			w.dismissed = true
			w.call()
			return true
		}
	}
	return false
}

func (d *Dispatcher) evictAny() {
	for _, s := range d.sites {
		if d.evict(s) {
			return
		}
	}
}

// leave ends a worker and gives its place to others. d.mu is held.
func (d *Dispatcher) leave(w *worker) {
	l, s := w.lane, w.lane.site
	w.arrive()
	l.workers--
	s.open--
	d.conns--
	if l.workers == 0 && l.line.Len() == 0 {
		delete(s.lanes, l.key)
	}
	for _, urgent := range []bool{true, false} {
		for _, other := range s.lanes {
			if other.line.Urgent() == urgent {
				d.staff(other)
			}
		}
	}
	if d.conns < d.config.Connections-1 {
		return
	}
	for _, s := range d.sites { // the total was what others waited for
		for _, other := range s.lanes {
			d.staff(other)
		}
	}
}

// settle makes an outcome durable. The error is logged here: whoever delivers
// can do nothing about it, and the store's lease brings the delivery back.
func (d *Dispatcher) settle(o relay.Outcome) {
	err := d.queue.Settle(context.WithoutCancel(d.ctx), o)
	if err != nil && !errors.Is(err, store.ErrSettled) {
		d.log.Error("an outcome is not stored; the delivery will be tried again", "delivery", o.Delivery, "outcome", o.Kind, "err", err)
		return
	}
	d.log.Info("delivery", "id", o.Delivery, "outcome", o.Kind, "host", o.Host, "reply", o.Reply.String())
}

// settleAll settles many items that share a fate.
func (d *Dispatcher) settleAll(items []*queue.Item, outcome func(*queue.Item) relay.Outcome) {
	var g errgroup.Group
	g.SetLimit(256) // enough to fill a commit
	for _, it := range items {
		if d.queue.Begin(it) {
			g.Go(func() error { d.settle(outcome(it)); return nil })
		}
	}
	g.Wait()
}
