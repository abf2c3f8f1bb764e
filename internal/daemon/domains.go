package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postrider/internal/config"
	"postrider/internal/dns"
	"postrider/internal/doctor"
	"postrider/internal/domain"
	"postrider/internal/relay"
	"postrider/internal/signing"
	"postrider/internal/submit"
)

// serviceOf is the relay's own place in the DNS.
func serviceOf(c config.Config) domain.Service {
	return domain.Service{Hostname: strings.ToLower(c.Hostname), DKIMZone: c.Service.DKIMZone, ReturnHost: c.Service.ReturnHost,
		TrackHost: c.Service.TrackHost, SPFInclude: c.Service.SPF, Addrs: publicAddrs(c)}
}

// publicAddrs are those that mail leaves from, as far as the configuration says.
func publicAddrs(c config.Config) []netip.Addr {
	var out []netip.Addr
	for _, a := range c.Service.Addresses {
		out = append(out, netip.Addr(a))
	}
	if len(out) > 0 {
		return out
	}
	for _, a := range c.Delivery.Source {
		if a := netip.Addr(a); a.IsGlobalUnicast() && !a.IsPrivate() {
			out = append(out, a)
		}
	}
	return out
}

// wireDomains makes what looks after sending domains and senders.
func (d *Daemon) wireDomains(ctx context.Context, resolver *dns.Resolver, entrance *submit.Entrance) error {
	c := d.Config
	place := serviceOf(c)
	if c.Service.Selector != "" {
		own, err := signing.Service(ctx, d.store, d.box, c.Service.Domain, c.Service.Selector)
		if err != nil {
			return err
		}
		for _, s := range own {
			place.Keys = append(place.Keys, domain.Record{Purpose: domain.DKIM, Name: s.Selector + "._domainkey." + s.Domain, Type: "TXT", Value: s.Key.Record()})
		}
	}
	d.domains = domain.NewManager(domain.Config{Service: place, Rhythm: domain.Rhythm{Every: time.Duration(c.Domains.Every), Grace: time.Duration(c.Domains.Grace)},
		NewKey: func(of *relay.Domain, selector, algorithm string, now time.Time) (relay.DKIMKey, error) {
			return signing.NewKey(d.box, of, selector, algorithm, now)
		}, NewID: submit.NewID, Log: d.log}, d.store, domain.DNS{Resolver: resolver})
	link := ""
	if c.API.URL != "" {
		link = c.API.URL + "/verify/"
	}
	d.senders = domain.NewSenders(domain.SenderConfig{Hostname: c.Hostname, From: c.Notices.From, Link: link, NewID: submit.NewID}, d.store, entrance)
	about, loopback := doctorConfig(c), netip.MustParseAddr("127.0.0.1")
	for _, p := range d.ports {
		about.Listeners = append(about.Listeners, doctor.Listener{Name: p.config.Name, Address: p.Addr().String(), TLS: p.config.Mode == "tls",
			// Only from networks that send a PROXY header is one wanted.
			Mute: slices.ContainsFunc(p.config.Proxy, func(n netip.Prefix) bool { return n.Contains(loopback) })})
	}
	d.doctor = doctor.New(about, resolver, d.store, d.domains)
	return nil
}

// watchDomains checks domains that are due, until ctx ends.
func (d *Daemon) watchDomains(ctx context.Context) error {
	idle := func() bool { return d.Condition() != relay.Working }
	return domain.NewWatch(d.domains, d.store, idle).Run(ctx)
}

// doctorConfig is what can be looked at without a server.
func doctorConfig(c config.Config) doctor.Config {
	out := doctor.Config{Hostname: strings.ToLower(c.Hostname), Addrs: publicAddrs(c), Data: c.Data, Blocklists: c.Doctor.Blocklists, TimeServer: c.Doctor.Time, StoreName: "sqlite"}
	if c.Store.Shared() {
		out.StoreName = "postgres"
	}
	for _, a := range c.Delivery.Source {
		out.Source = append(out.Source, netip.Addr(a))
	}
	for _, p := range c.Doctor.Probe {
		out.Probes = append(out.Probes, doctor.Probe{Address: p})
	}
	for _, r := range c.Route {
		if r.Domain == "*" && r.To != "mx" {
			out.Smarthost, out.Probes = true, []doctor.Probe{{Address: r.To, Mute: r.TLS == "implicit"}}
		}
	}
	return out
}

// Diagnose looks at the machine and its names where no server runs.
func Diagnose(ctx context.Context, c config.Config) ([]relay.Finding, error) {
	resolver, err := dns.New(c.DNS.Servers, time.Duration(c.DNS.Timeout))
	if err != nil {
		return nil, fmt.Errorf("dns.servers: %w", err)
	}
	return doctor.New(doctorConfig(c), resolver, nil, nil).Examine(ctx), nil
}
