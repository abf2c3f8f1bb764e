package dns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	mdns "github.com/miekg/dns"
)

// partialTTL bounds the life of a result in which something is missing for
// now: a host or a family of addresses.
const partialTTL = time.Minute

// MailHosts is where a domain's mail goes.
type MailHosts struct {
	Domain string // that was asked for, lower case
	// Hosts have at least one address each. The most preferred come first,
	// equal ones in a new order for each call (RFC 5321 section 5.1). There
	// is at least one.
	Hosts []Host
	// Skipped are the MX records that are of no use, and why.
	Skipped []Skipped
	// Implicit: there is no MX record, so the domain itself is the host.
	Implicit bool
	// Site names the receiving service: the registrable domains of the most
	// preferred MX hosts, as in "google.com" or, for two services side by
	// side, "one.example+two.example"; for an implicit MX the host itself.
	// Hosts of less preference have no say: a backup elsewhere does not make
	// another service of the first one. What of it resolves just now has none
	// either, so the name stays.
	//
	// Site may be used to queue, to count and limit connections and
	// messages, and to show. It proves nothing: the owner of any domain can
	// name any hosts. Connections may be shared by host only, never by site;
	// no trust (TLS, MTA-STS, DANE) follows from it; and that a host cannot
	// be reached says something of that host, not of its site.
	Site string
	// Secure: a trusted server has validated the MX records, or their absence.
	Secure bool
	// Expires is when to ask anew.
	Expires time.Time
}

// Host is a server that takes mail.
type Host struct {
	Name  string // lower case, without the last dot
	Pref  uint16
	Addrs []netip.Addr // ordered as by Addrs
	// Secure: a trusted server has validated the addresses, and each alias on the
	// way to them.
	Secure bool
	Alias  string // what Name leads to by aliases (CNAME) in the end; empty: it is none
}

// Skipped is a host that cannot be tried. Err is always an *Error.
type Skipped struct {
	Name string
	Pref uint16
	Err  error
}

// Mail finds the hosts that take mail for domain. An error is an *Error.
func (r *Resolver) Mail(ctx context.Context, domain string) (*MailHosts, error) {
	name, ok := canonical(domain)
	if !ok {
		return nil, notAName(domain)
	}
	res := r.resolve(ctx, question{name, mdns.TypeMX})
	switch {
	case res.err != nil:
		return nil, temporary(name, "The mail servers of "+plain(name), res.err)
	case res.missing:
		return nil, notFound("domain", name, res.answer)
	case len(res.mx) == 0:
		return r.implicit(ctx, name, res.answer)
	case isNull(res.mx):
		return nil, &Error{Kind: NullMX, Name: plain(name), Text: fmt.Sprintf(
			"The domain %s takes no mail: it has a null MX record (from %s).", plain(name), res.server)}
	}
	return r.explicit(ctx, name, res.answer)
}

// implicit is the host of a domain without MX records: the domain itself, or
// what it is an alias of (RFC 5321 section 5.1).
func (r *Resolver) implicit(ctx context.Context, name string, mx *answer) (*MailHosts, error) {
	found, err := gather(mx.name, r.resolveAll(ctx, addrQuestions(mx.name)))
	if e, ok := errors.AsType[*Error](err); ok {
		e.Name = plain(name)
		if e.Kind == NoAddress {
			e.Text = fmt.Sprintf("The domain %s has neither mail servers (MX) nor an address (says %s).", plain(name), mx.server)
		}
		return nil, e
	}
	host := plain(mx.name)
	return &MailHosts{
		Domain:   plain(name),
		Hosts:    []Host{found.host(mx.name, 0)},
		Secure:   mx.secure,
		Implicit: true,
		Site:     host,
		Expires:  earliest(mx.expires, found.expires),
	}, nil
}

// explicit looks up the hosts of an MX set. When none of them is of use the
// domain's own address must not be tried instead (RFC 5321 section 5.1).
func (r *Resolver) explicit(ctx context.Context, name string, mx *answer) (*MailHosts, error) {
	m := &MailHosts{Domain: plain(name), Site: site(mx.mx), Secure: mx.secure, Expires: mx.expires}
	var usable []exchange
	var qs []question
	for _, x := range mx.mx {
		host, ok := canonical(x.host)
		if !ok {
			m.Skipped = append(m.Skipped, Skipped{plain(x.host), x.pref, notAName(plain(x.host))})
			continue
		}
		usable = append(usable, exchange{x.pref, host})
		qs = append(qs, addrQuestions(host)...)
	}
	answers := r.resolveAll(ctx, qs)
	for i, x := range usable {
		found, err := gather(x.host, answers[2*i:2*i+2])
		if err != nil {
			m.Skipped = append(m.Skipped, Skipped{plain(x.host), x.pref, err})
			if isTemporary(err) {
				m.Expires = earliest(m.Expires, time.Now().Add(partialTTL))
			}
			continue
		}
		m.Hosts = append(m.Hosts, found.host(x.host, x.pref))
		m.Expires = earliest(m.Expires, found.expires)
	}
	if len(m.Hosts) == 0 {
		return nil, noneOfUse(m)
	}
	rand.Shuffle(len(m.Hosts), func(i, j int) { m.Hosts[i], m.Hosts[j] = m.Hosts[j], m.Hosts[i] })
	slices.SortStableFunc(m.Hosts, func(a, b Host) int { return cmp.Compare(a.Pref, b.Pref) })
	return m, nil
}

// isNull tells whether an MX set says "no mail": a target of "." and no other
// (RFC 7505 section 3). Beside others it says nothing and is skipped.
func isNull(set []exchange) bool {
	return len(set) == 1 && set[0].host == "."
}

// addrSet is what is known of a host's addresses.
type addrSet struct {
	v6, v4  []netip.Addr
	expires time.Time
	secure  bool
	end     string // of the chain of aliases, canonical
}

func addrQuestions(name string) []question {
	return []question{{name, mdns.TypeAAAA}, {name, mdns.TypeA}}
}

// gather puts together the results of addrQuestions(name). One family is
// enough, whatever became of the question for the other.
func gather(name string, results []result) (addrSet, error) {
	v6, v4 := results[0], results[1]
	set := addrSet{secure: true, end: name}
	for _, res := range results {
		expires := time.Now().Add(partialTTL)
		if res.err == nil {
			expires = res.expires
			set.secure, set.end = set.secure && res.secure, res.name
		}
		if set.expires.IsZero() || expires.Before(set.expires) {
			set.expires = expires
		}
	}
	if v6.err == nil {
		set.v6 = v6.addrs
	}
	if v4.err == nil {
		set.v4 = v4.addrs
	}
	switch {
	case len(set.v6)+len(set.v4) > 0:
		return set, nil
	case v6.err != nil || v4.err != nil:
		return set, temporary(name, "The addresses of "+plain(name), cmp.Or(v4.err, v6.err))
	case v6.missing && v4.missing:
		return set, notFound("host", name, v4.answer)
	}
	return set, &Error{Kind: NoAddress, Name: plain(name), Text: fmt.Sprintf(
		"The host %s has no address (says %s).", plain(name), v4.server)}
}

// host is the host of that name, with the addresses.
func (s addrSet) host(name string, pref uint16) Host {
	h := Host{Name: plain(name), Pref: pref, Addrs: s.shuffled(), Secure: s.secure}
	if s.end != name {
		h.Alias = plain(s.end)
	}
	return h
}

func (s addrSet) shuffled() []netip.Addr {
	v6, v4 := slices.Clone(s.v6), slices.Clone(s.v4)
	for _, list := range [][]netip.Addr{v6, v4} {
		rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	}
	all := make([]netip.Addr, 0, len(v6)+len(v4))
	for i := range max(len(v6), len(v4)) {
		if i < len(v6) {
			all = append(all, v6[i])
		}
		if i < len(v4) {
			all = append(all, v4[i])
		}
	}
	return all
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func isTemporary(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Kind == Temporary
}

func temporary(name, what string, err error) *Error {
	return &Error{Kind: Temporary, Name: plain(name), Err: err,
		Text: fmt.Sprintf("%s could not be looked up (%s).", what, strings.ReplaceAll(err.Error(), "\n", "; "))}
}

func notFound(what, name string, a *answer) *Error {
	text := fmt.Sprintf("The %s %s does not exist (NXDOMAIN from %s).", what, plain(name), a.server)
	if a.links > 0 {
		text = fmt.Sprintf("The %s %s is an alias (CNAME) of %s, which does not exist (NXDOMAIN from %s).",
			what, plain(name), plain(a.name), a.server)
	}
	return &Error{Kind: NotFound, Name: plain(name), Text: text}
}

// notAName is the error for what no host or domain can be called.
func notAName(name string) *Error {
	return &Error{Kind: NotFound, Name: name, Text: fmt.Sprintf("%.300q is not the name of a host or domain.", name)}
}

// noneOfUse is the error for an MX set without one host to connect to: it may
// get better only if one of them could.
func noneOfUse(m *MailHosts) *Error {
	const shown = 3
	e := &Error{Kind: NoAddress, Name: m.Domain}
	e.Text = fmt.Sprintf("None of the mail servers of %s can be found.", m.Domain)
	for i, s := range m.Skipped {
		if i < shown {
			e.Text += " " + s.Err.Error()
		}
		if isTemporary(s.Err) {
			e.Kind = Temporary
			e.Err = s.Err
		}
	}
	if more := len(m.Skipped) - shown; more > 0 {
		e.Text += fmt.Sprintf(" And %d more.", more)
	}
	return e
}
