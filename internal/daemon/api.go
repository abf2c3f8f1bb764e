package daemon

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"postrider/internal/api"
	"postrider/internal/config"
	"postrider/internal/relay"
)

// bindAPI opens the port of the HTTP API, where there is to be one.
func bindAPI(ctx context.Context, c config.Config) (net.Listener, error) {
	if c.API.Listen == "" {
		return nil, nil
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", c.API.Listen)
	if err != nil {
		return nil, bindError("api.listen", c.API.Listen, err)
	}
	return ln, nil
}

// APIAddr is where the HTTP API is served over TCP; empty where it is not.
func (d *Daemon) APIAddr() string {
	if d.web == nil {
		return ""
	}
	return d.web.Addr().String()
}

// serveAPI serves the control socket, and TCP where that is asked for, until ctx
// ends.
func (d *Daemon) serveAPI(ctx context.Context) error {
	g, running := errgroup.WithContext(ctx)
	g.Go(func() error { return api.Serve(running, d.control, d.api.Control(), time.Second, d.log) })
	if d.web != nil {
		d.log.Info("listening", "name", "api", "address", d.APIAddr(), "tls", d.Config.API.Secure())
		g.Go(func() error {
			return api.Serve(running, d.web, d.api.Public(), time.Duration(d.Config.Queue.Drain), d.log)
		})
	}
	return g.Wait()
}

func prefixes(list []config.Prefix) (out []netip.Prefix) {
	for _, p := range list {
		out = append(out, netip.Prefix(p))
	}
	return out
}

// tenants finds accounts for the API.
type tenants struct{}

func (tenants) Find(_ context.Context, within relay.ID, which string) (relay.ID, error) {
	if id, err := relay.ParseID(which); err == nil && (within == relay.Everyone || within == id) {
		return id, nil
	}
	return relay.ID{}, &relay.Error{Code: relay.NotFound, Text: fmt.Sprintf("There is no account %q.", which)}
}
