package daemon

import (
	"context"
	"log/slog"
	"net"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"postrider/internal/config"
	"postrider/internal/metrics"
	"postrider/internal/relay"
)

// watch is how the relay is seen from outside: its metrics and its health. It
// begins to answer before the relay works, and ends when all else has ended.
type watch struct {
	ln       net.Listener // nil: nobody looks
	log      *slog.Logger
	registry *prometheus.Registry
	metrics  *metrics.Metrics
	health   *metrics.Health
	phase    atomic.Pointer[string] // why the relay takes no mail yet, or any more; empty: it does
}

func openWatch(ctx context.Context, c config.Config, log *slog.Logger) (*watch, error) {
	w := &watch{log: log, registry: prometheus.NewRegistry()}
	w.metrics = metrics.New(w.registry, Version)
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
	return w, nil
}

// enter notes why no mail is taken; empty: it is.
func (w *watch) enter(phase string) { w.phase.Store(&phase) }

// join ties in what is asked at each look.
func (w *watch) join(ctx context.Context, d *Daemon) {
	c := d.Config
	waits := func() string {
		if c := d.Condition(); *w.phase.Load() == "" && c != relay.Working {
			return c.String()
		}
		return *w.phase.Load()
	}
	w.health = &metrics.Health{Waits: waits,
		Store: func(ctx context.Context) error {
			_, err := d.store.CredentialsChanged(ctx)
			return err
		}}
	for _, p := range d.ports {
		w.metrics.Listeners(p.config.Name)
	}
	w.metrics.Watch(ctx, w.registry, metrics.Sources{Queue: d.queue.Stats, Window: c.Queue.Window, WindowBytes: int64(c.Queue.WindowBytes),
		Connections: d.dispatcher.Stats, Site: d.dispatcher.Site, Throttled: d.accounts.Throttled, Health: w.health, Data: c.Data,
		Store: d.store, Node: c.Node})
}

// serve answers until the function it gives is called. That it can't does not
// stop the mail.
func (w *watch) serve(ctx context.Context) (stop func()) {
	if w.ln == nil {
		return func() {}
	}
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx)) // drain: it tells of the end, too
	ended := make(chan struct{})
	w.log.Info("listening", "name", "http", "address", w.ln.Addr().String())
	go func() {
		defer close(ended)
		if err := metrics.Serve(serving, w.ln, metrics.Handler(w.registry, w.health, w.log), w.log); err != nil {
			w.log.Error("metrics and health are served no more", "err", err)
		}
	}()
	return func() { cancel(); <-ended }
}

func (w *watch) close() {
	if w.ln != nil {
		w.ln.Close()
	}
}

// WatchAddr is where metrics and health are served; empty where they are not.
func (d *Daemon) WatchAddr() string {
	if d.watch.ln == nil {
		return ""
	}
	return d.watch.ln.Addr().String()
}
