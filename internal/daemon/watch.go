package daemon

import (
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"postrider/internal/config"
	"postrider/internal/metrics"
	"postrider/internal/relay"
	"postrider/internal/store"
)

// watch is how the relay is seen from outside: its metrics and its health. It
// begins to answer before the relay works, and ends when all else has ended.
type watch struct {
	ln       net.Listener // nil: nobody looks
	registry *prometheus.Registry
	metrics  *metrics.Metrics
	health   *metrics.Health
	close    func() // ends the answers, and waits for that

	phase     atomic.Pointer[string] // why the relay takes no mail yet, or any more; empty: it does
	condition func() relay.Condition // asked when phase is empty
}

// openWatch begins to answer, so that who looks sees the start too.
func openWatch(ctx context.Context, c config.Config, log *slog.Logger) (*watch, error) {
	w := &watch{registry: prometheus.NewRegistry(), close: func() {}}
	w.metrics = metrics.New(w.registry, Version)
	w.health = &metrics.Health{Waits: w.waits}
	w.enter("starting")
	if c.HTTP.Listen == "" {
		return w, nil
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", c.HTTP.Listen)
	if err != nil {
		return nil, bindError("http.listen", c.HTTP.Listen, err)
	}
	w.ln = ln
	log.Info("listening", "name", "http", "address", ln.Addr().String())
	serving, stop := context.WithCancel(context.WithoutCancel(ctx)) // drain: it tells of the end, too
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// Without it mail goes on, so this is no reason to stop.
		if err := metrics.Serve(serving, ln, metrics.Handler(w.registry, w.health, log), log); err != nil {
			log.Error("metrics and health are served no more", "err", err)
		}
	}()
	w.close = func() { stop(); <-ended }
	return w, nil
}

// enter notes why no mail is taken; empty: it is.
func (w *watch) enter(phase string) { w.phase.Store(&phase) }

func (w *watch) waits() string {
	phase := *w.phase.Load()
	if phase != "" {
		return phase
	}
	if c := w.condition(); c != relay.Working {
		return c.String()
	}
	return ""
}

// join ties in what is asked at each look. It comes before the phase that needs
// it.
func (w *watch) join(ctx context.Context, d *Daemon) {
	c := d.Config
	w.condition = d.Condition
	w.health.Store = func(ctx context.Context) error {
		_, err := d.store.DirectoryChanged(ctx)
		return err
	}
	for _, p := range d.ports {
		w.metrics.Listeners(p.config.Name)
	}
	w.metrics.Watch(ctx, w.registry, metrics.Sources{Queue: d.queue.Stats, Window: c.Queue.Window, WindowBytes: int64(c.Queue.WindowBytes),
		Connections: d.dispatcher.Stats, Site: d.dispatcher.Site, Throttled: d.accounts.Throttled, Health: w.health, Data: c.Data,
		Store: d.store, Node: c.Node, Webhooks: d.webhooks.Stats, WebhookStates: d.hooks.Count, OldestFeedback: d.store.OldestReturned, Suppressed: d.store.SuppressionsAdded, CertExpires: d.certs.expires, TrackingHosts: d.certs.hosts})
}

// countReaps counts what an undertaker finds.
func (w *watch) countReaps(u undertaker) undertaker { return &counted{u, w.metrics} }

type counted struct {
	undertaker
	metrics *metrics.Metrics
}

func (c *counted) Reap(ctx context.Context, silent time.Duration) ([]store.Dead, error) {
	dead, err := c.undertaker.Reap(ctx, silent)
	for _, d := range dead {
		c.metrics.TookOver(d.Released)
	}
	return dead, err
}

// WatchAddr is where metrics and health are served; empty where they are not.
func (d *Daemon) WatchAddr() string {
	if d.watch.ln == nil {
		return ""
	}
	return d.watch.ln.Addr().String()
}
