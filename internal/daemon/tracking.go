package daemon

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/net/netutil"

	"postrider/internal/config"
	"postrider/internal/httpd"
	"postrider/internal/link"
	"postrider/internal/track"
	"postrider/internal/unsubscribe"
)

// tracking is what makes the links of mail, serves them, and records what is done
// with them.
type tracking struct {
	ln       net.Listener // nil: there are no links
	links    *link.Links
	hosts    *track.Hosts
	renderer *track.Renderer
	record   *track.Log
	server   *track.Server
}

// bindTracking opens the port that links lead to, where there is to be one.
func bindTracking(ctx context.Context, c config.Config) (net.Listener, error) {
	if c.Tracking.Listen == "" {
		return nil, nil
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", c.Tracking.Listen)
	if err != nil {
		return nil, bindError("tracking.listen", c.Tracking.Listen, err)
	}
	return netutil.LimitListener(ln, mostFollowers), nil
}

// mostFollowers is how many connections are open at once to the port that links
// lead to: others wait, and mail does not lack the files.
const mostFollowers = 2000

// wireTracking makes the parts of d.track. The parts that mail waits for come
// first, see wireRenderer.
func (d *Daemon) wireTracking() error {
	c := d.Config.Tracking
	t := &d.track
	rules, err := track.OpenRules()
	if err != nil {
		return err
	}
	t.record = track.NewLog(track.LogConfig{Early: time.Duration(c.Early), Rules: rules, Observer: d.watch.metrics}, d.store, d.queue, d.log)
	pages := unsubscribe.NewPages(t.links, d.store, d.directory, d.queue, func(r *http.Request) netip.Addr { return httpd.Client(r, prefixes(c.Proxy)) }, d.log)
	config := track.Config{Pages: pages, Proxies: prefixes(c.Proxy), Life: time.Duration(c.Life), DoNotTrack: c.Private}
	if d.Config.SharedPort() {
		config.Front = d.certs.acme.Answer
	}
	t.server = track.New(config, t.links, t.hosts, t.record, d.log)
	if t.ln != nil && c.Secure() {
		t.ln = tls.NewListener(t.ln, d.certs.tlsOfLinks("http/1.1"))
	}
	return nil
}

// wireRenderer makes what mail needs to have links.
func (d *Daemon) wireRenderer() (err error) {
	c := d.Config.Tracking
	t := &d.track
	if t.links, err = link.New(d.box); err != nil {
		return err
	}
	where := track.HostsConfig{Own: c.Domains}
	if t.ln != nil {
		where.URL = cmp.Or(c.URL, "http://"+t.ln.Addr().String()) // the port was the system's choice
	}
	if c.Secure() {
		where.Ready = d.certs.ready
	}
	if t.hosts, err = track.NewHosts(where, d.directory, d.store); err != nil {
		return fmt.Errorf("tracking.url: %w", err)
	}
	fields, err := d.unsubscribeFields()
	if err != nil {
		return err
	}
	t.renderer = track.NewRenderer(t.links, t.hosts, d.directory, fields)
	return nil
}

// TrackingAddr is where links are served; empty where there are none.
func (d *Daemon) TrackingAddr() string {
	if d.track.ln == nil {
		return ""
	}
	return d.track.ln.Addr().String()
}

// serveTracking serves links until ctx ends, and records what was done with them.
func (d *Daemon) serveTracking(ctx context.Context) error {
	if d.track.ln == nil {
		return nil
	}
	d.log.Info("listening", "name", "tracking", "address", d.TrackingAddr(), "tls", d.Config.Tracking.Secure())
	recording, stop := context.WithCancel(context.WithoutCancel(ctx)) // drain: what the last requests did
	ended := make(chan error, 1)
	go func() { ended <- d.track.record.Run(recording) }()
	err := d.track.server.Serve(ctx, d.track.ln, time.Second)
	stop()
	if failed := <-ended; err == nil {
		err = failed
	}
	return err
}
