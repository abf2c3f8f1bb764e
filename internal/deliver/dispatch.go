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

	"postrider/internal/feedback"
	"postrider/internal/queue"
	"postrider/internal/relay"
	"postrider/internal/schedule"
	"postrider/internal/smtpclient"
	"postrider/internal/store"
	"postrider/internal/suppression"
	"postrider/internal/tlspolicy"
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

// Observer is told what becomes of attempts, to count it. Its methods are called
// from many goroutines and do not wait.
type Observer interface {
	// Settled tells of an attempt whose outcome is stored. site names the
	// receiving service; it is empty where none was found.
	Settled(it *queue.Item, site string, o *relay.Outcome)
	// TLSFailed tells of a host of the site whose TLS did not come about, be it
	// that the mail then went in the clear or that it waits.
	TLSFailed(site string)
}

// unobserved is for a Config without an Observer.
type unobserved struct{}

func (unobserved) Settled(*queue.Item, string, *relay.Outcome) {}
func (unobserved) TLSFailed(string)                            {}

// Signer signs what is sent, and says by which return path.
type Signer interface {
	// Sign gives the fields that go before the content of m, as it is about to be
	// sent; none where nobody signs for it. rendering names what the content is,
	// the same for the same bytes of a message, and is empty where nobody else gets
	// them. An error defers the delivery: nothing goes
	// unsigned.
	Sign(ctx context.Context, m *relay.Message, content relay.Content, rendering string) (fields []byte, err error)
	// ReturnPath is the envelope sender of one delivery; ours says that its bounces
	// come to the relay, and not to the sender.
	ReturnPath(ctx context.Context, m *relay.Message, id relay.DeliveryID) (address string, ours bool, err error)
}

// unsigning is for a Config without a Signer.
type unsigning struct{}

func (unsigning) Sign(context.Context, *relay.Message, relay.Content, string) ([]byte, error) {
	return nil, nil
}

func (unsigning) ReturnPath(_ context.Context, m *relay.Message, _ relay.DeliveryID) (string, bool, error) {
	return m.Envelope.Sender, false, nil
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
	Observer    Observer      // nil: nobody counts
	Signer      Signer        // nil: nobody signs
	Watcher     Watcher       // nil: nobody watches
	Renderer    Renderer      // nil: everybody gets what was accepted
	// Unwanted says that its recipient has come to want no such mail since the message
	// was accepted, and why; nil: nobody does.
	Unwanted func(ctx context.Context, m *relay.Message, d *relay.Delivery) (relay.Diagnosis, bool)
	// Diagnose puts a failure into plain words; nil: feedback.Diagnose.
	Diagnose func(stage string, r relay.Reply, host, to string) relay.Diagnosis
	// Suppress says which failures keep an address from further mail.
	Suppress suppression.Rule
	// Provider gives the public name of a receiving service, by the recipient's domain
	// and the host that answered; nil: nobody knows any.
	Provider func(domain, host string) string
	// Policies says what TLS receivers ask for; nil: they are not asked.
	Policies *tlspolicy.Policies
	Sessions Sessions // nil: no reports are made
}

// Dispatcher delivers what it is offered.
type Dispatcher struct {
	config   Config
	queue    Queue
	contents Contents
	resolver Resolver
	routes   Routes
	log      *slog.Logger
	fates    chan struct{} // bounds outcomes that many items share and that are being settled
	dead     deadHosts
	long     time.Duration // an attempt that takes longer is stuck

	// Set by Run before anything else starts:
	running  context.Context // ends when no attempt may start any more
	attempts context.Context // ends when the time to drain is over
	settling context.Context // ends when the last outcomes must be stored

	mu         sync.Mutex
	phase      phase
	early      []*queue.Item // offered before Run
	domains    map[string]*domain
	maxDomains int // when to forget some
	lookups    lookups
	sites      map[string]*site
	maxSites   int                   // when to forget some
	waiting    schedule.Turns[*site] // whose pace allows more than the total does
	conns      int                   // workers
	idle       int                   // of them
	leaving    int                   // of them, dismissed
	workers    sync.WaitGroup        // and look-ups
}

// phase is where a dispatcher is in its life.
type phase uint8

const (
	fresh   phase = iota // Run has not begun: what is offered waits
	working              // attempts may start
	ended                // they may not; what is offered stays with the queue
)

// maxFates is how many outcomes of deliveries that share a fate are settled at
// once: enough to fill a commit, and no more, so that those of others get their
// turn soon.
const maxFates = 256

// New makes a dispatcher.
func New(c Config, q Queue, contents Contents, r Resolver, routes Routes, log *slog.Logger) *Dispatcher {
	if c.Observer == nil {
		c.Observer = unobserved{}
	}
	if c.Diagnose == nil {
		c.Diagnose = feedback.Diagnose
	}
	if c.Provider == nil {
		c.Provider = func(string, string) string { return "" }
	}
	if c.Watcher == nil {
		c.Watcher = unwatched{}
	}
	if c.Signer == nil {
		c.Signer = unsigning{}
	}
	return &Dispatcher{config: c, queue: q, contents: contents, resolver: r, routes: routes, log: log,
		fates: make(chan struct{}, maxFates), dead: deadHosts{until: map[netip.AddrPort]time.Time{}}, long: longAttempt,
		domains: map[string]*domain{}, maxDomains: minRemembered, lookups: newLookups(), sites: map[string]*site{}, maxSites: minRemembered}
}

// lastWrite is how long, after the time to drain, the last outcomes may take to
// be stored. What is not stored by then is tried again by whoever gets it next.
const lastWrite = 5 * time.Second

// Run delivers until ctx ends. Then nothing new starts any more, attempts under
// way may take the time to drain, and idle connections are closed.
func (d *Dispatcher) Run(ctx context.Context) error {
	base := context.WithoutCancel(ctx)
	attempts, cut := context.WithCancelCause(base)
	defer cut(nil)
	settling, giveUp := context.WithCancel(base)
	defer giveUp()
	d.mu.Lock()
	d.running, d.attempts, d.settling, d.phase = ctx, attempts, settling, working
	for _, it := range d.early {
		d.admit(it)
	}
	d.early = nil
	d.mu.Unlock()

	<-ctx.Done()
	d.mu.Lock()
	d.phase = ended
	for _, s := range d.sites {
		for d.evict(s) {
		}
	}
	d.mu.Unlock()
	drained := time.AfterFunc(d.config.Drain, func() { cut(errShutdown) })
	defer drained.Stop()
	late := time.AfterFunc(d.config.Drain+lastWrite, giveUp)
	defer late.Stop()
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

// Site tells the site that a domain's mail goes to, as far as it is known; empty
// says that it is not.
func (d *Dispatcher) Site(name string) string {
	if r := d.routes.find(name, d.config.Port); r.Host != "" {
		return r.site()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if dom := d.domains[name]; dom != nil && dom.dest != nil {
		return dom.dest.site
	}
	return ""
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
	d.await(name, dom, it)
}

// minRemembered is for how many domains and sites something is remembered at
// least. A domain that was forgotten is looked up anew, mostly from the
// resolver's cache; a site's pace starts anew.
const minRemembered = 20_000

// forgetDomains keeps the memory for domains in proportion to those in use.
func (d *Dispatcher) forgetDomains() {
	if len(d.domains) < d.maxDomains {
		return
	}
	now := time.Now()
	for name, dom := range d.domains {
		if len(dom.waiting) == 0 && (dom.dest == nil || now.After(dom.dest.expires) || len(d.domains) > d.maxDomains/2) {
			delete(d.domains, name)
		}
	}
	d.maxDomains = max(minRemembered, 2*len(d.domains))
}

// forgetSites does the same for sites where nothing waits or is connected.
func (d *Dispatcher) forgetSites() {
	if len(d.sites) < d.maxSites {
		return
	}
	for name, s := range d.sites {
		if len(s.lanes) == 0 {
			delete(d.sites, name)
		}
	}
	d.maxSites = max(minRemembered, 2*len(d.sites))
}

// Stats are counts for the operator.
type Stats struct {
	Connections int `json:"connections"` // open, or being opened
	Idle        int `json:"idle"`        // of them, kept for the next message
	Sites       int `json:"sites"`       // remembered
}

// Stats counts connections.
func (d *Dispatcher) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return Stats{Connections: d.conns, Idle: d.idle, Sites: len(d.sites)}
}

// settle makes an outcome durable. The error is logged here: whoever delivers
// can do nothing about it, and the store's lease brings the delivery back.
func (d *Dispatcher) settle(it *queue.Item, site string, o relay.Outcome) {
	o.Provider, o.Message = d.config.Provider(it.Delivery.Domain, o.Host), it.Message
	o.Null = it.Message.Envelope.Sender == ""
	err := d.queue.Settle(d.settling, o)
	if err != nil && !errors.Is(err, store.ErrSettled) {
		d.log.Error("an outcome is not stored; the delivery will be tried again", "delivery", o.Delivery, "outcome", o.Kind, "err", err)
		return
	}
	if err == nil {
		d.config.Observer.Settled(it, site, &o)
	}
	d.log.Info("delivery", "delivery", o.Delivery, "sender", it.Message.Envelope.Sender, "recipient", it.Delivery.Recipient.Address,
		"outcome", o.Kind, "host", o.Host, "reply", o.Reply.String())
}

// settleAll settles many items that share a fate. Those that it does not come to
// before the end stay with the queue.
func (d *Dispatcher) settleAll(items []*queue.Item, site string, outcome func(*queue.Item) relay.Outcome) {
	var g sync.WaitGroup
	for _, it := range items {
		d.fates <- struct{}{}
		if d.running.Err() != nil || !d.queue.Begin(it) {
			<-d.fates
			continue
		}
		g.Go(func() {
			d.settle(it, site, outcome(it))
			<-d.fates
		})
	}
	g.Wait()
}
