package interop

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"

	"postrider/internal/config"
	"postrider/internal/daemon"
)

// startRelay starts a relay with a listener of each mode. Mail for each domain
// of routes goes to the address beside it.
func startRelay(t *testing.T, routes map[string]string) relay {
	t.Helper()
	c := config.Default()
	c.Hostname = "relay.example"
	c.Data = t.TempDir()
	c.Listen = nil
	for _, mode := range []string{"starttls", "tls", "plain"} {
		c.Listen = append(c.Listen, config.Listener{Name: mode, Address: "127.0.0.1:0", Mode: mode, MinTLS: "1.2"})
	}
	for domain, to := range routes {
		c.Route = append(c.Route, config.Route{Domain: domain, To: to, TLS: "opportunistic"})
	}
	if err := c.Resolve(); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	d, err := daemon.Open(t.Context(), c, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("relay: %v", err)
		}
	})
	r := relay{listeners: map[string]string{}, user: d.First.User, password: d.First.Password,
		ca: filepath.Join(c.Data, daemon.CertName)}
	for _, mode := range []string{"starttls", "tls", "plain"} {
		r.listeners[mode] = d.Addr(mode)
	}
	return r
}
