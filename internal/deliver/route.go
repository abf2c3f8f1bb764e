package deliver

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"postrider/internal/dns"
	"postrider/internal/smtpclient"
)

// Route says where mail for a domain goes.
type Route struct {
	Domain  string // "example.com", ".example.com" for its subdomains, "*" for all
	Host    string // empty: the domain's MX; else a host name or a literal address
	Port    int
	TLS     smtpclient.TLSMode
	Policy  PolicyUse
	Auth    *smtpclient.Auth // nil: none
	Roots   *x509.CertPool   // nil: those of the system
	Private []netip.Prefix   // private networks that the route may deliver to
}

// site names the receiving service of a route with a fixed host.
func (r *Route) site() string { return net.JoinHostPort(r.Host, strconv.Itoa(r.Port)) }

// Routes is the table of routes.
type Routes []Route

// find gives the route for a domain: the domain itself before the longest
// matching suffix before "*". Mail that no route names goes to the MX.
func (rs Routes) find(domain string, port int) *Route {
	var best *Route
	for i := range rs {
		r := &rs[i]
		switch {
		case r.Domain == domain:
			return r
		case r.Domain == "*", strings.HasPrefix(r.Domain, ".") && strings.HasSuffix(domain, r.Domain):
			if best == nil || len(r.Domain) > len(best.Domain) {
				best = r
			}
		}
	}
	if best != nil {
		return best
	}
	return &Route{Domain: "*", Port: port, TLS: smtpclient.Opportunistic}
}

// Resolver finds receivers.
type Resolver interface {
	Mail(ctx context.Context, domain string) (*dns.MailHosts, error)
	Host(ctx context.Context, host string) (dns.Host, error)
}

// destination is where the mail for a domain goes for the time being.
type destination struct {
	route   *Route
	site    string // the receiving service: limits are kept by it
	lane    string // the exact set of hosts, and what TLS each must have: connections are shared within it
	hosts   []dns.Host
	rules   rules
	expires time.Time
}

// fixedTTL is how long the address of a fixed host is used before it is looked
// up anew.
const fixedTTL = time.Minute

// resolve finds the hosts for a domain. The error is a *problem.
func (d *Dispatcher) resolve(ctx context.Context, domain string) (*destination, error) {
	r := d.routes.find(domain, d.config.Port)
	var dest *destination
	if r.Host == "" {
		m, rules, err := d.mailHosts(ctx, domain, r)
		if err != nil {
			return nil, dnsProblem(err)
		}
		dest = &destination{route: r, site: m.Site, hosts: m.Hosts, rules: rules, expires: rules.expires}
	} else {
		h, rules, err := d.fixedHost(ctx, r)
		if err != nil {
			// The route is the operator's word: a mistake in it must not
			// bounce mail.
			p := dnsProblem(err)
			p.permanent, p.enhanced = false, "4.4.4"
			return nil, p
		}
		dest = &destination{route: r, site: r.site(), hosts: []dns.Host{h}, rules: rules, expires: rules.expires}
	}
	if err := dest.keepAllowed(domain); err != nil {
		return nil, err
	}
	dest.lane = laneName(r, dest.hosts, dest.rules)
	return dest, nil
}

// keepAllowed drops the addresses that mail must not be sent to: private,
// loopback and other special ones that the route does not name. Without this,
// anybody's MX record could make the relay talk to the inside of its network.
func (dest *destination) keepAllowed(domain string) error {
	literal, _ := netip.ParseAddr(dest.route.Host)
	var refused []string
	kept := make([]dns.Host, 0, len(dest.hosts))
	for _, h := range dest.hosts {
		allowed := make([]netip.Addr, 0, len(h.Addrs))
		for _, a := range h.Addrs {
			if a == literal || Public(a) || contains(dest.route.Private, a) {
				allowed = append(allowed, a)
			} else {
				refused = append(refused, a.String())
			}
		}
		h.Addrs = allowed
		kept = append(kept, h)
	}
	dest.hosts = kept
	for _, h := range kept {
		if len(h.Addrs) > 0 {
			return nil
		}
	}
	switch {
	case len(refused) == 0:
		return &problem{enhanced: "4.4.4", text: fmt.Sprintf("None of the mail servers of %s has an address.", domain)}
	case dest.route.Host != "": // the operator's mistake, which must not bounce mail
		return &problem{enhanced: "4.4.4", text: fmt.Sprintf("The route leads to %s, which has private addresses only (%s), and does not allow them.",
			dest.route.Host, strings.Join(refused, ", "))}
	default:
		return &problem{permanent: true, enhanced: "5.4.4", text: fmt.Sprintf(
			"The mail servers of %s have private addresses only (%s), which mail is not sent to.", domain, strings.Join(refused, ", "))}
	}
}

func contains(ps []netip.Prefix, a netip.Addr) bool {
	for _, p := range ps {
		if p.Contains(a.Unmap()) {
			return true
		}
	}
	return false
}

// special are the networks of the IANA special-purpose registries (RFC 6890)
// that netip has no word for.
var special = [...]netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("2001::/23"), // Teredo and other protocols
	netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("2002::/16"), // 6to4: an IPv4 address of any kind inside
	netip.MustParsePrefix("3fff::/20"),
}

var (
	// global6 is all that IANA has given out of IPv6 for hosts.
	global6 = netip.MustParsePrefix("2000::/3")
	// nat64 leads to the IPv4 address in its last four bytes (RFC 6052).
	nat64 = netip.MustParsePrefix("64:ff9b::/96")
)

// Public tells whether an address may be one of the public internet's: none that
// is private, loopback or special in another way.
func Public(a netip.Addr) bool {
	a = a.Unmap()
	if nat64.Contains(a) {
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	return a.IsGlobalUnicast() && !a.IsPrivate() && (a.Is4() || global6.Contains(a)) && !contains(special[:], a)
}

// problem is why nothing could be tried.
type problem struct {
	permanent bool
	enhanced  string
	text      string
}

func (p *problem) Error() string { return p.enhanced + " " + p.text }

// dnsProblem translates the resolver's error: what the DNS says for sure is
// final, what it could not say is tried again.
func dnsProblem(err error) *problem {
	var e *dns.Error
	if !errors.As(err, &e) {
		return &problem{enhanced: "4.4.3", text: err.Error()}
	}
	switch e.Kind {
	case dns.NotFound:
		return &problem{permanent: true, enhanced: "5.1.2", text: e.Text}
	case dns.NullMX: // RFC 7505 section 4.1
		return &problem{permanent: true, enhanced: "5.1.10", text: e.Text}
	case dns.NoAddress:
		return &problem{permanent: true, enhanced: "5.4.4", text: e.Text}
	default:
		return &problem{enhanced: "4.4.3", text: e.Text}
	}
}
