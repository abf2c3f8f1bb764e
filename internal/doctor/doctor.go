// Package doctor looks whether a relay is fit to deliver: its names, addresses,
// ports, certificate, clock, disk, store, reputation and domains. Each look ends
// with what was found, what was expected, and how to mend it.
package doctor

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"postrider/internal/relay"
)

// Resolver answers from the DNS. What it remembers is forgotten by Forget.
type Resolver interface {
	Addrs(ctx context.Context, host string) ([]netip.Addr, error)
	PTR(ctx context.Context, addr netip.Addr) ([]string, error)
	TXT(ctx context.Context, name string) ([]string, error)
	Forget(name string)
}

// Store tells that it answers, and how far this machine's clock is ahead of its.
type Store interface {
	Ahead(ctx context.Context) (time.Duration, error)
}

// Domains looks at sending domains.
type Domains interface {
	List(ctx context.Context, account, after relay.ID, limit int) ([]*relay.Domain, error)
	Look(ctx context.Context, d *relay.Domain) []relay.Finding
	Service(ctx context.Context) []relay.Finding
}

// Listener is a port that mail comes in by.
type Listener struct {
	Name    string
	Address string // host:port; an unspecified host stands for this machine
	TLS     bool   // from the first byte
	Mute    bool   // waits for a PROXY header first: only the connection is tried
}

// Probe is a server that mail could go out to.
type Probe struct {
	Address string
	Mute    bool // speaks TLS first: only the connection is tried
}

// Config is what the doctor must know. What is empty is not looked at, and said
// to be so where somebody might wonder.
type Config struct {
	Hostname   string
	Addrs      []netip.Addr // public ones that mail leaves from; empty: those of Hostname
	Source     []netip.Addr // local ones that connections are made from
	Listeners  []Listener
	Data       string // folder
	Probes     []Probe
	Smarthost  bool // all mail leaves by the probes: no receiver sees our address
	Blocklists []string
	TimeServer string // host:port
	// StoreName is for people: "sqlite", "postgres".
	StoreName string
}

// Doctor examines.
type Doctor struct {
	config  Config
	dns     Resolver
	store   Store   // nil: no server runs
	domains Domains // nil: no server runs
	now     func() time.Time
}

// New makes a doctor. store and domains are nil where no server runs.
func New(c Config, dns Resolver, store Store, domains Domains) *Doctor {
	return &Doctor{config: c, dns: dns, store: store, domains: domains, now: time.Now}
}

// Bounds of an examination.
const (
	eachTime  = 15 * time.Second // for one look; those at domains have their own
	wholeTime = 90 * time.Second
	freshMost = 50 // domains that are looked at anew; of others the last check counts
	atOnce    = 4
)

// Examine looks at everything, most things at once, and within a minute and a
// half. It changes nothing.
func (d *Doctor) Examine(ctx context.Context) []relay.Finding {
	ctx, cancel := context.WithTimeout(ctx, wholeTime)
	defer cancel()
	looks := []func(context.Context) []relay.Finding{
		d.hostname, d.reverse, d.port25, d.listeners, d.clock, d.disk, d.storage, d.blocklists,
	}
	found := make([][]relay.Finding, len(looks)+1)
	var wg sync.WaitGroup
	for i, look := range looks {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, eachTime)
			defer cancel()
			found[i] = look(ctx)
		})
	}
	wg.Go(func() { found[len(looks)] = d.sending(ctx) })
	wg.Wait()
	return slices.Concat(found...)
}

// Worst is the verdict of a whole examination: bad if anything is, else warning,
// else good. What is unknown is none of them.
func Worst(findings []relay.Finding) relay.Verdict {
	worst := relay.Good
	for _, f := range findings {
		switch {
		case f.Status == relay.Bad:
			return relay.Bad
		case f.Status == relay.Warning:
			worst = relay.Warning
		}
	}
	return worst
}

// addrs are the addresses that receivers see; known is false where nobody could
// say.
func (d *Doctor) addrs(ctx context.Context) (found []netip.Addr, known bool) {
	if len(d.config.Addrs) > 0 {
		return d.config.Addrs, true
	}
	d.dns.Forget(d.config.Hostname)
	all, err := d.dns.Addrs(ctx, d.config.Hostname)
	for _, a := range all {
		if public(a) {
			found = append(found, a)
		}
	}
	slices.SortFunc(found, netip.Addr.Compare)
	return found, err == nil && len(found) > 0
}

// public tells whether an address may be seen on the internet.
func public(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsPrivate() && !carrierNAT.Contains(a)
}

// carrierNAT is the address space that providers share (RFC 6598).
var carrierNAT = netip.MustParsePrefix("100.64.0.0/10")

// sending looks at the relay's own names and at the domains.
func (d *Doctor) sending(ctx context.Context) []relay.Finding {
	if d.domains == nil {
		return nil
	}
	out := d.domains.Service(ctx)
	var all []*relay.Domain
	for after := (relay.ID{}); ; {
		const page = 200
		found, err := d.domains.List(ctx, relay.Everyone, after, page)
		if err != nil {
			return append(out, relay.Finding{Check: "domains", Status: relay.Unknown, Text: "The domains could not be read: " + err.Error() + "."})
		}
		all = append(all, found...)
		if len(found) < page {
			break
		}
		after = found[len(found)-1].ID
	}
	results := make([][]relay.Finding, len(all))
	free := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, one := range all {
		if i >= freshMost {
			results[i] = summary(one, one.Findings)
			continue
		}
		wg.Go(func() {
			free <- struct{}{}
			defer func() { <-free }()
			results[i] = summary(one, d.domains.Look(ctx, one))
		})
	}
	wg.Wait()
	return append(out, slices.Concat(results...)...)
}

// summary is what is wrong with a domain, or that nothing is.
func summary(d *relay.Domain, found []relay.Finding) []relay.Finding {
	if d.Verified.IsZero() && d.Failing.IsZero() { // it is being set up: nothing works badly yet
		return []relay.Finding{{Check: "domain", Name: d.Name, Status: relay.Warning, Text: "It is not verified: nothing can be sent in its name yet.",
			Advice: "\"postrider domain check " + d.Name + "\" tells what is missing."}}
	}
	var out []relay.Finding
	for _, f := range found {
		if f.Status != relay.Good {
			out = append(out, f)
		}
	}
	if len(out) == 0 {
		f := relay.Finding{Check: "domain", Name: d.Name, Status: relay.Good, Text: "Its records are as they should be."}
		if len(found) == 0 {
			f.Status, f.Text = relay.Unknown, "It has not been checked yet."
		}
		out = append(out, f)
	}
	return out
}
