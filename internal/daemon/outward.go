package daemon

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"

	"postrider/internal/deliver"
	"postrider/internal/dns"
	"postrider/internal/relay"
	"postrider/internal/store"
	"postrider/internal/submit"
	"postrider/internal/tlspolicy"
	"postrider/internal/tlsreport"
)

// outward is what concerns TLS on the way out, besides the deliveries.
type outward struct {
	policies *tlspolicy.Policies
	fetcher  *tlspolicy.Fetcher
	counter  *tlsreport.Counter // nil: no reports
	sender   *tlsreport.Sender
}

// newOutward makes what finds the policies of receivers and counts sessions with
// them.
func (d *Daemon) newOutward(resolver *dns.Resolver) (*outward, error) {
	c := d.Config
	var trusted *x509.CertPool
	if c.Asked.CA != "" {
		var err error
		if trusted, err = roots(c.Asked.CA); err != nil {
			return nil, fmt.Errorf("tls_policy.ca: %w", err)
		}
	}
	private := prefixes(c.Asked.Private)
	allowed := func(a netip.Addr) bool {
		return deliver.Public(a) || slices.ContainsFunc(private, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
	}
	o := &outward{policies: &tlspolicy.Policies{}, fetcher: &tlspolicy.Fetcher{Addrs: resolver.Addrs, Allowed: allowed, Roots: trusted}}
	if c.DNS.Trusted {
		resolver.Trust()
		if c.Asked.DANE {
			o.policies.TLSA = resolver
		}
	}
	if c.Asked.STS {
		o.policies.STS = tlspolicy.NewCache(resolver, o.fetcher, shelf{d.store}, d.log)
	}
	if c.Reports.Send && c.Service.Domain != "" && c.Reports.From != "" {
		o.counter = tlsreport.NewCounter(d.store, resolver, d.log)
	}
	return o, nil
}

// into lets deliveries keep to the policies, and tell of sessions.
func (o *outward) into(c *deliver.Config) {
	c.Policies = o.policies
	if o.counter != nil {
		c.Sessions = o.counter
	}
}

// reportBy makes the sender of reports.
func (o *outward) reportBy(d *Daemon, resolver *dns.Resolver, entrance *submit.Entrance, home relay.ID) {
	if o.counter == nil {
		return
	}
	c := d.Config
	o.sender = tlsreport.NewSender(tlsreport.Config{Domain: c.Service.Domain, Organization: c.Reports.Organization, Contact: c.Reports.Contact,
		From: c.Reports.From, Account: home, Node: c.Node, Client: o.fetcher.Client()}, d.store, resolver, entrance, d.log)
}

// start begins what goes on beside the deliveries.
func (o *outward) start(ctx context.Context, begin func(func() error)) {
	if o.policies.STS != nil {
		begin(func() error { return o.policies.STS.Run(ctx) })
	}
	if o.counter != nil {
		begin(func() error { return o.counter.Run(ctx) })
		begin(func() error { return o.sender.Run(ctx) })
	}
}

// shelf keeps policies in the store.
type shelf struct{ store *store.DB }

func (s shelf) Load(ctx context.Context, name string) ([]byte, error) {
	f, err := s.store.File(ctx, name)
	if relay.CodeOf(err) == relay.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return f.Bytes, nil
}

func (s shelf) Save(ctx context.Context, name string, data []byte) error {
	return s.store.PutFile(ctx, name, data)
}
