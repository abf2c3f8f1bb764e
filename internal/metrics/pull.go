package metrics

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"postrider/internal/deliver"
	"postrider/internal/queue"
	"postrider/internal/relay"
	"postrider/internal/webhook"
)

// Store is asked, now and then, what all nodes together have.
type Store interface {
	// Tally counts the deliveries that are not final.
	Tally(ctx context.Context, each func(stream relay.Stream, state relay.State, domain string, n int64)) error
	// Nodes gives the nodes that take part.
	Nodes(ctx context.Context) ([]relay.Node, error)
	// OpenAlerts gives incidents that have not ended.
	OpenAlerts(ctx context.Context) ([]*relay.Alert, error)
}

// Sources are asked at each scrape.
type Sources struct {
	Queue       func() queue.Stats
	Window      int   // deliveries that Queue may have in memory
	WindowBytes int64 // and content
	Connections func() deliver.Stats
	Site        func(domain string) string // as far as it is known; empty else
	Throttled   func() uint64              // logins that had to wait
	Health      *Health
	Data        string // folder
	Store       Store
	Node        string               // this one's name
	Webhooks    func() webhook.Stats // nil: there are none
	// WebhookStates counts all webhooks by their status, now and then.
	WebhookStates func(ctx context.Context) (map[relay.WebhookStatus]int, error)
	// OldestFeedback is when the mail came back that has waited longest to be dealt
	// with; the zero time where none waits.
	OldestFeedback func(ctx context.Context) (time.Time, error)
	// Suppressed counts suppressions that this node added, by reason.
	Suppressed func() map[string]int64
	// CertExpires is when the certificate that is served runs out.
	CertExpires func() time.Time
	// TrackingHosts counts tracking hosts by where their certificates stand; nil, or
	// nothing: another node orders those.
	TrackingHosts func() map[string]int
}

// Watch registers what is pulled. What is asked of the store keeps the values of
// ctx, and has time limits of its own.
func (m *Metrics) Watch(ctx context.Context, reg *prometheus.Registry, s Sources) {
	reg.MustRegister(&puller{ctx: ctx, Sources: s, look: looked{again: lookAgain}})
}

var (
	windowDesc    = desc("postrider_window_deliveries", "Deliveries that this node has in memory.")
	windowMost    = desc("postrider_window_limit_deliveries", "Deliveries that this node may have in memory (queue.window).")
	bytesDesc     = desc("postrider_window_bytes", "Content that this node has in memory for its deliveries.")
	bytesMost     = desc("postrider_window_limit_bytes", "Content that this node may have in memory (queue.window_bytes).")
	flightDesc    = desc("postrider_attempts_in_flight", "Attempts under way: the most that a crash at this moment could repeat.")
	peakDesc      = desc("postrider_attempts_in_flight_peak", "The most attempts that were under way at once since the start.")
	connDesc      = desc("postrider_delivery_connections", "Connections to receivers: active (in use, or being opened) and idle (kept for the next message).", "state")
	sitesDesc     = desc("postrider_sites_remembered", "Receiving services whose pace this node remembers.")
	throttledDesc = desc("postrider_logins_throttled_total", "Logins that were made to wait because of failed ones before.")
	hookReqDesc   = desc("postrider_webhook_requests_total", "Requests to webhooks: taken (answered 2xx), or refused (anything else, or no answer).", "result")
	hookSentDesc  = desc("postrider_webhook_events_total", "Events that webhooks took from this node, those sent again too.")
	hookDesc      = desc("postrider_webhooks", "Webhooks by status, of all nodes that share the store: active, paused (by people), disabled (by the relay). Counted now and then.", "status")
	hookOwnDesc   = desc("postrider_webhook_served", "Webhooks that this node sends to, by how the last request went: ok, failing.", "state")
	hookAsideDesc = desc("postrider_webhook_aside_messages", "Messages whose events a webhook refuses while it takes those of others; each is tried by itself.")
	hookLagDesc   = desc("postrider_webhook_lag_seconds", "Age of the oldest event that this node has to send; 0: none waits.")
	backLagDesc   = desc("postrider_feedback_oldest_seconds", "Age of the oldest mail that came back and is not dealt with, of all nodes that share the store; 0: none waits. Asked now and then.")
	suppDesc      = desc("postrider_suppressions_added_total", "Suppressions that this node added, by reason.", "reason")
	readyDesc     = desc("postrider_ready", "1 if /readyz says so: mail may be sent here.")
	freeDesc      = desc("postrider_data_free_bytes", "Free space on the disk of the data folder, for the relay's user.")
	totalDesc     = desc("postrider_data_size_bytes", "Size of the disk of the data folder.")
	certDesc      = desc("postrider_certificate_expiry_timestamp_seconds", "When the certificate that this node serves runs out.")
	trackingDesc  = desc("postrider_tracking_hosts", "Tracking hosts of domains whose certificates the relay asks for: with one (there), without one yet (waiting), or whose last order failed (failing). Told by the node that orders.", "state")
	queueDesc     = desc("postrider_queue_deliveries", "Deliveries that are not final, of all nodes that share the store: each node tells the same. Counted now and then.", "state", "stream", "site")
	nodesDesc     = desc("postrider_nodes", "Nodes that share the store, as this one sees them: alive, draining, or dead (their lease is over, and nobody has ended it yet).", "state")
	heldDesc      = desc("postrider_leased_deliveries", "Deliveries that nodes have leased, as the store has it: this node's, and the others'.", "holder")
	lookedDesc    = desc("postrider_queue_counted_timestamp_seconds", "When the store was last asked for postrider_queue_deliveries and postrider_nodes.")
	tookDesc      = desc("postrider_queue_count_duration_seconds", "How long that took.")
)

var alertsDesc = desc("postrider_alerts_open", "Incidents that have not ended, of all accounts and of the relay: each node tells the same. Asked now and then.", "kind", "severity")

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// puller is what Prometheus calls at each scrape.
type puller struct {
	Sources
	ctx  context.Context
	look looked
}

func (p *puller) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{windowDesc, windowMost, bytesDesc, bytesMost, flightDesc, peakDesc, connDesc, sitesDesc,
		throttledDesc, hookReqDesc, hookSentDesc, hookDesc, hookOwnDesc, hookAsideDesc, hookLagDesc, backLagDesc, suppDesc, readyDesc, freeDesc, totalDesc, certDesc, trackingDesc, queueDesc, nodesDesc, heldDesc, alertsDesc, lookedDesc, tookDesc} {
		ch <- d
	}
}

func (p *puller) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	q, c := p.Queue(), p.Connections()
	gauge(windowDesc, float64(q.InHand))
	gauge(windowMost, float64(p.Window))
	gauge(bytesDesc, float64(q.Bytes))
	gauge(bytesMost, float64(p.WindowBytes))
	gauge(flightDesc, float64(q.InFlight))
	gauge(peakDesc, float64(q.Peak))
	gauge(connDesc, float64(c.Connections-c.Idle), "active")
	gauge(connDesc, float64(c.Idle), "idle")
	gauge(sitesDesc, float64(c.Sites))
	ch <- prometheus.MustNewConstMetric(throttledDesc, prometheus.CounterValue, float64(p.Throttled()))
	if p.Webhooks != nil {
		w := p.Webhooks()
		ch <- prometheus.MustNewConstMetric(hookReqDesc, prometheus.CounterValue, float64(w.Taken), "taken")
		ch <- prometheus.MustNewConstMetric(hookReqDesc, prometheus.CounterValue, float64(w.Refused), "refused")
		ch <- prometheus.MustNewConstMetric(hookSentDesc, prometheus.CounterValue, float64(w.Events))
		gauge(hookOwnDesc, float64(w.Served-w.Failing), "ok")
		gauge(hookOwnDesc, float64(w.Failing), "failing")
		gauge(hookAsideDesc, float64(w.Aside))
		gauge(hookLagDesc, max(w.Lag, 0).Seconds())
	}
	if p.Suppressed != nil {
		for reason, n := range p.Suppressed() {
			ch <- prometheus.MustNewConstMetric(suppDesc, prometheus.CounterValue, float64(n), reason)
		}
	}
	gauge(readyDesc, bit(p.Health.Ready(p.ctx) == ""))
	if free, total, err := space(p.Data); err == nil {
		gauge(freeDesc, free)
		gauge(totalDesc, total)
	}
	if p.CertExpires != nil {
		gauge(certDesc, float64(p.CertExpires().Unix()))
	}
	if p.TrackingHosts != nil {
		for state, n := range p.TrackingHosts() {
			gauge(trackingDesc, float64(n), state)
		}
	}
	p.look.mu.Lock()
	defer p.look.mu.Unlock()
	p.look.refresh(p.ctx, &p.Sources)
	for k, n := range p.look.stock {
		gauge(queueDesc, n, k.state.String(), k.stream.String(), k.site)
	}
	for state, n := range p.look.nodes {
		gauge(nodesDesc, n, state)
	}
	for holder, n := range p.look.held {
		gauge(heldDesc, n, holder)
	}
	for status, n := range p.look.hooks {
		gauge(hookDesc, float64(n), string(status))
	}
	for k, n := range p.look.alerts {
		gauge(alertsDesc, n, k[0], k[1])
	}
	if !p.look.waits.IsZero() {
		gauge(backLagDesc, since(p.look.waits, time.Now()))
	} else {
		gauge(backLagDesc, 0)
	}
	gauge(lookedDesc, float64(p.look.at.UnixMilli())/1000)
	gauge(tookDesc, p.look.took.Seconds())
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

const (
	// lookAgain is how old what the store said may be at least. A count that
	// took long may be older, so that counting never takes more than a
	// twentieth of the time.
	lookAgain = 15 * time.Second
	lookShare = 20
	lookTime  = 5 * time.Second // how long one may take
)

// looked is what the store said, and when.
type looked struct {
	again time.Duration

	mu    sync.Mutex
	tried time.Time
	at    time.Time // of what follows
	took  time.Duration
	stock map[stock]float64
	nodes map[string]float64
	held  map[string]float64
	hooks map[relay.WebhookStatus]int
	waits time.Time // since when feedback waits
	// alerts by kind and severity
	alerts map[[2]string]float64
}

type stock struct {
	state  relay.State
	stream relay.Stream
	site   string
}

// refresh asks the store anew where that is due. Where it does not answer what
// it said before stays, and its time tells.
func (l *looked) refresh(ctx context.Context, s *Sources) {
	if time.Since(l.tried) < max(l.again, lookShare*l.took) {
		return
	}
	l.tried = time.Now()
	// drain: a relay that goes down is looked at too.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTime)
	defer cancel()
	counted := map[stock]float64{}
	for _, state := range []relay.State{relay.Queued, relay.Deferred, relay.Held} {
		for _, stream := range streams {
			for _, class := range siteClasses {
				counted[stock{state, stream, class}] = 0
			}
		}
	}
	err := s.Store.Tally(ctx, func(stream relay.Stream, state relay.State, domain string, n int64) {
		site := s.Site(domain)
		if site == "" {
			site = domain
		}
		counted[stock{state, stream, SiteClass(site)}] += float64(n)
	})
	l.took = time.Since(l.tried)
	if err != nil {
		return
	}
	nodes, err := s.Store.Nodes(ctx)
	if err != nil {
		return
	}
	if s.WebhookStates != nil {
		if l.hooks, err = s.WebhookStates(ctx); err != nil {
			return
		}
	}
	if s.OldestFeedback != nil {
		if l.waits, err = s.OldestFeedback(ctx); err != nil {
			return
		}
	}
	open, err := s.Store.OpenAlerts(ctx)
	if err != nil {
		return
	}
	l.at, l.stock = l.tried, counted
	l.alerts = map[[2]string]float64{}
	for _, kind := range relay.AlertKinds() {
		l.alerts[[2]string{string(kind), string(relay.SeverityWarning)}] = 0
		l.alerts[[2]string{string(kind), string(relay.SeverityCritical)}] = 0
	}
	for _, a := range open {
		l.alerts[[2]string{string(a.Kind), string(a.Severity)}]++
	}
	l.nodes, l.held = countNodes(nodes, s.Node)
}

func countNodes(nodes []relay.Node, own string) (states, held map[string]float64) {
	states = map[string]float64{"alive": 0, "draining": 0, "dead": 0}
	held = map[string]float64{"this": 0, "others": 0}
	for i := range nodes {
		n := &nodes[i]
		state, holder := "alive", "others"
		switch {
		case n.Dead():
			state = "dead"
		case n.Draining:
			state = "draining"
		}
		if n.Name == own {
			holder = "this"
		}
		states[state]++
		held[holder] += float64(n.InHand)
	}
	return states, held
}
