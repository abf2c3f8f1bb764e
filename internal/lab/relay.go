package lab

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"net/url"
	"path/filepath"
	"time"

	"postrider/internal/api"
	"postrider/internal/config"
	"postrider/internal/daemon"
	"postrider/internal/lab/fakedns"
)

// Relay is a daemon that runs on loopback, with a DNS server of its own. It has
// the listeners "starttls", "tls" and "plain".
type Relay struct {
	*daemon.Daemon
	User, Password string // the first credential
	CAFile         string // to trust the relay's certificate by
	Dir            string // data folder
	DNS            *fakedns.Server
	API            *api.Client

	cancel context.CancelFunc
	ended  chan error
}

// Start starts a relay with its data in dir. mutate, where not nil, changes the
// configuration before. The relay delivers to loopback addresses and has short
// waits, all by configuration.
func Start(ctx context.Context, dir string, log *slog.Logger, mutate func(*config.Config)) (*Relay, error) {
	dns, err := fakedns.Start("")
	if err != nil {
		return nil, fmt.Errorf("start DNS server: %w", err)
	}
	c := Config(dir, dns.Addr())
	if mutate != nil {
		mutate(&c)
	}
	if err := c.Resolve(); err != nil {
		dns.Close()
		return nil, err
	}
	if err := c.Validate(); err != nil {
		dns.Close()
		return nil, err
	}
	r, err := run(ctx, c, log)
	if err != nil {
		dns.Close()
		return nil, err
	}
	r.DNS = dns
	return r, nil
}

// Config is what a relay in the lab is set to.
func Config(dir, dns string) config.Config {
	c := config.Default()
	c.Hostname, c.Data, c.Node = "relay.test", dir, "lab"
	c.Listen = []config.Listener{
		{Name: "starttls", Address: "127.0.0.1:0", Mode: "starttls"},
		{Name: "tls", Address: "127.0.0.1:0", Mode: "tls"},
		{Name: "plain", Address: "127.0.0.1:0", Mode: "plain"},
	}
	c.Policy.Senders = "any"
	c.DNS.Servers = []string{dns}
	c.DNS.Timeout = config.Duration(5 * time.Second)
	c.Queue.Retry = []config.Duration{config.Duration(time.Second), config.Duration(2 * time.Second)}
	c.Queue.Drain = config.Duration(5 * time.Second)
	c.Delivery.Connect = config.Duration(10 * time.Second)
	c.Delivery.Idle = config.Duration(time.Second)
	c.Notices.Gather = config.Duration(time.Second)
	c.Route = []config.Route{{Domain: "*", To: "mx", Private: []config.Prefix{config.Prefix(netip.MustParsePrefix("127.0.0.0/8"))}}}
	return c
}

func run(ctx context.Context, c config.Config, log *slog.Logger) (*Relay, error) {
	d, err := daemon.Open(ctx, c, log)
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(ctx)
	r := &Relay{Daemon: d, CAFile: filepath.Join(c.Data, daemon.CertName), Dir: c.Data, API: api.NewClient(c.Data),
		cancel: cancel, ended: make(chan error, 1)}
	if d.First != nil {
		r.User, r.Password = d.First.User, d.First.Password
	}
	go func() { r.ended <- d.Run(running) }()
	return r, nil
}

// Stop ends the relay and waits for it.
func (r *Relay) Stop() error {
	r.cancel()
	err := <-r.ended
	if r.DNS != nil {
		r.DNS.Close()
	}
	return err
}

// Deliveries finds deliveries by the API's filters, newest first, all of them.
func (r *Relay) Deliveries(ctx context.Context, filter url.Values) ([]api.Delivery, error) {
	q := url.Values{"limit": {"1000"}}
	maps.Copy(q, filter)
	var all []api.Delivery
	err := api.All(ctx, r.API, "/v1/deliveries", q, func(d api.Delivery) error { all = append(all, d); return nil })
	return all, err
}

// WaitFinal waits until n deliveries, or more, are final and none waits, and
// gives all.
func (r *Relay) WaitFinal(ctx context.Context, n int) ([]api.Delivery, error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		all, err := r.Deliveries(ctx, nil)
		if err != nil {
			return nil, err
		}
		final := 0
		for _, d := range all {
			if final++; d.Due != nil || d.State == "held" {
				final--
			}
		}
		if final >= n && final == len(all) {
			return all, nil
		}
		select {
		case <-ctx.Done():
			return all, fmt.Errorf("%d of %d deliveries are final, %d are wanted: %w", final, len(all), n, ctx.Err())
		case <-tick.C:
		}
	}
}

// T is what StartRelay needs of a test.
type T interface {
	Helper()
	TempDir() string
	Cleanup(func())
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
	Context() context.Context
	Output() io.Writer
}

// StartRelay starts a relay for the time of a test.
func StartRelay(t T, mutate func(*config.Config)) *Relay {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	r, err := Start(context.WithoutCancel(t.Context()), t.TempDir(), log, mutate)
	if err != nil {
		t.Fatalf("start relay: %v", err)
	}
	t.Cleanup(func() {
		if err := r.Stop(); err != nil {
			t.Errorf("stop relay: %v", err)
		}
	})
	return r
}
