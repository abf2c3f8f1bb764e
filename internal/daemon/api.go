package daemon

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"postrider/internal/account"
	"postrider/internal/api"
	"postrider/internal/config"
	"postrider/internal/relay"
	"postrider/internal/submit"
	"postrider/internal/trace"
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

// wireAPI makes the API of what there is.
func (d *Daemon) wireAPI(home relay.ID, entrance *submit.Entrance, credentials *account.Manager) {
	c := d.Config
	changed := d.accounts.Refresh
	listeners := d.addrs()
	if at := d.TrackingAddr(); at != "" {
		listeners["tracking"] = at
	}
	d.api = api.New(api.Config{Log: d.log, NewID: submit.NewID, Home: home, Keys: d.accounts, Tenants: d.directory, URL: c.API.URL, Proxies: prefixes(c.API.Proxy),
		Mail: d.store, Entrance: entrance, MessageSize: int64(c.Limits.MessageSize), Queue: d.queue, Backup: d.store, Nodes: d.store, Condition: d.Condition,
		Credentials: credentials, Audit: d.store, Limits: d.limiter, Book: d.directory, Suppressions: &account.Suppressions{Store: d.store}, Loops: d.loops,
		Untracked: &account.Untracked{Store: d.store}, Groups: &account.Groups{Store: d.store, Changed: d.accounts.Refresh},
		Accounts: &account.Tenants{Store: d.store, NewID: submit.NewID, Changed: changed},
		People:   &account.People{Store: d.store, NewID: submit.NewID, Changed: changed},
		Domains:  d.domains, Certificates: d.certs, Senders: d.senders, Webhooks: d.hooks, Alerts: d.alerts.manager, Doctor: d.doctor, Live: d.live, Traces: d.traces,
		Reports: d.reports(), Scores: d.scores(),
		Info: api.Info{Version: Version, Hostname: c.Hostname, Node: c.Node, Started: time.Now(), Listeners: listeners}})
	if d.web != nil {
		d.web = netutil.LimitListener(d.web, mostRequests)
	}
	if d.web != nil && c.API.Secure() {
		d.web = tls.NewListener(d.web, d.certs.tls("http/1.1"))
	}
}

// mostRequests is how many connections the API has at once: others wait, and mail
// does not lack the files.
const mostRequests = 1000

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

// Traces are the steps of tests that this node keeps.
func (d *Daemon) Traces() *trace.Book { return d.traces }
