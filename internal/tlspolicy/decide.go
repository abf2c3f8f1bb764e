package tlspolicy

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"postrider/internal/dns"
)

// Level is what a session with a host must have.
type Level uint8

const (
	Free      Level = iota // whatever the host offers (RFC 7435)
	Encrypted              // TLS, whatever the certificate
	Verified               // TLS, and a certificate for the host from a known authority
	DANE                   // TLS, and a certificate that the TLSA records name
	Refused                // no session at all: see Rule.Reason
)

// Kinds of policies, as reports name them (RFC 8460 section 4.4).
const (
	KindTLSA = "tlsa"
	KindSTS  = "sts"
	KindNone = "no-policy-found"
)

// Applied is the policy that held for a session, as reports tell of it.
type Applied struct {
	Kind   string
	Domain string   // of the recipients
	Lines  []string // the policy as it was published
	MX     []string // patterns of an MTA-STS policy
}

// Rule is what holds for sessions with one host.
type Rule struct {
	Level   Level
	Policy  Applied
	Reason  *Failure // with Refused
	Testing *STS     // a policy that is only watched, not enforced
	dane    dane
	base    string
}

// ServerName is what to call the host in the TLS handshake, where that is not
// its own name (RFC 7672 section 8.1).
func (r *Rule) ServerName() string { return r.base }

// Verify judges a certificate by the TLSA records. It is for the level DANE. The
// error is a *Failure.
func (r *Rule) Verify(cs tls.ConnectionState) error { return r.dane.verify(cs, time.Now()) }

// Name tells people in a word or two which policy it is; empty: none.
func (r *Rule) Name() string {
	switch {
	case r.Policy.Kind == KindTLSA:
		return "DANE"
	case r.Policy.Kind == KindSTS && r.Testing != nil:
		return "MTA-STS (testing)"
	case r.Policy.Kind == KindSTS:
		return "MTA-STS"
	}
	return ""
}

// Key is the same for rules that ask the same of a session.
func (r *Rule) Key() string {
	switch r.Level {
	case DANE:
	case Refused: // its reason names the domain
		return fmt.Sprint(r.Level, r.Policy.Domain)
	default:
		return fmt.Sprint(r.Level)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s", r.Level, r.base)
	lines := make([]string, 0, len(r.dane.records))
	for _, t := range r.dane.records {
		lines = append(lines, t.String())
	}
	slices.Sort(lines)
	for _, l := range lines {
		b.WriteString("; " + l)
	}
	if slices.ContainsFunc(r.dane.records, func(t dns.TLSA) bool { return t.Usage == usageTA }) {
		b.WriteString("; " + strings.Join(r.dane.names, " ")) // they matter to these alone
	}
	return b.String()
}

// Resolver finds TLSA records; dns.Resolver does.
type Resolver interface {
	TLSA(ctx context.Context, h dns.Host, port int) (dns.TLSASet, error)
}

// Policies decides what holds for sessions.
type Policies struct {
	STS  *Cache   // nil: MTA-STS is not asked for
	TLSA Resolver // nil: DANE is not asked for
}

// Decision is what holds for the hosts of a domain.
type Decision struct {
	Rules   []Rule    // one for each host, in the order of the hosts
	Trouble *Failure  // with the domain's MTA-STS policy, which could not be had or renewed; for reports
	Failing Applied   // the policy that is in trouble
	Expires time.Time // when to ask anew
}

// Decide says what holds for each of the mail hosts of a domain. DANE comes
// before MTA-STS, and that before nothing (RFC 8461 section 2). found is what
// STS.Find gave for the domain. The error is that of ctx.
func (p *Policies) Decide(ctx context.Context, m *dns.MailHosts, found Found, port int) (Decision, error) {
	d := Decision{Rules: make([]Rule, len(m.Hosts)), Trouble: found.Trouble, Expires: m.Expires}
	if p.STS != nil {
		d.Expires = earlier(d.Expires, time.Now().Add(recheck))
	}
	if d.Trouble != nil {
		d.Failing = Applied{Kind: KindSTS, Domain: m.Domain}
		if found.Policy != nil {
			d.Failing = found.Policy.applied(m.Domain)
		}
	}
	for i, h := range m.Hosts {
		d.Rules[i] = stsRule(m.Domain, h.Name, found.Policy)
	}
	if p.TLSA == nil || !m.Secure {
		return d, nil
	}
	var wg sync.WaitGroup
	expires := make([]time.Time, len(m.Hosts))
	for i, h := range m.Hosts {
		wg.Go(func() {
			names := []string{m.Domain}
			expires[i] = p.dane(ctx, &d.Rules[i], m.Domain, h, names, port)
		})
	}
	wg.Wait()
	for _, t := range expires {
		d.Expires = earlier(d.Expires, t)
	}
	return d, ctx.Err()
}

// DecideHost is Decide for a host that the operator names, whose own DANE policy
// may hold alone.
func (p *Policies) DecideHost(ctx context.Context, h dns.Host, port int) (Rule, time.Time, error) {
	rule := Rule{Policy: Applied{Kind: KindNone, Domain: h.Name}}
	expires := time.Now().Add(recheck)
	if p.TLSA != nil {
		expires = earlier(expires, p.dane(ctx, &rule, h.Name, h, nil, port))
	}
	return rule, expires, ctx.Err()
}

// failedTTL is how long a look-up that failed is not repeated.
const failedTTL = 30 * time.Second

// dane makes the rule that of DANE, where the host has usable TLSA records.
func (p *Policies) dane(ctx context.Context, rule *Rule, domain string, h dns.Host, names []string, port int) (expires time.Time) {
	set, err := p.TLSA.TLSA(ctx, h, port)
	if err != nil {
		// RFC 7672 section 2.1.1: whoever can make this look-up fail must not be
		// able to make us do without DANE.
		*rule = Rule{Level: Refused, Policy: Applied{Kind: KindTLSA, Domain: domain},
			Reason: failure(DNSSECInvalid, "the TLSA records (DANE) of %s can't be had for sure: %v", h.Name, err)}
		return time.Now().Add(failedTTL)
	}
	if len(set.Records) == 0 {
		return set.Expires
	}
	applied := Applied{Kind: KindTLSA, Domain: domain}
	for _, r := range set.Records {
		applied.Lines = append(applied.Lines, r.String())
	}
	records := usable(set.Records)
	if len(records) == 0 {
		// RFC 7672 section 2.2: TLS all the same. What MTA-STS asks for is more
		// than that.
		if rule.Level < Encrypted {
			*rule = Rule{Level: Encrypted, Policy: applied}
		}
		return set.Expires
	}
	names = append([]string{set.Base}, names...)
	if h.Name != set.Base {
		names = append(names, h.Name)
	}
	*rule = Rule{Level: DANE, Policy: applied, base: set.Base, dane: dane{records, names}}
	return set.Expires
}

func (p *STS) applied(domain string) Applied {
	return Applied{Kind: KindSTS, Domain: domain, Lines: p.Lines, MX: p.MX}
}

// stsRule is what a domain's MTA-STS policy makes of one of its hosts (RFC 8461
// section 5).
func stsRule(domain, host string, p *STS) Rule {
	if p == nil || p.Mode == None {
		return Rule{Policy: Applied{Kind: KindNone, Domain: domain}}
	}
	rule := Rule{Policy: p.applied(domain)}
	switch {
	case p.Mode == Testing:
		rule.Testing = p
	case !p.Names(host):
		rule.Level, rule.Reason = Refused, p.unnamed(domain, host)
	default:
		rule.Level = Verified
	}
	return rule
}

func (p *STS) unnamed(domain, host string) *Failure {
	return failure(Invalid, "%s is not a mail server that the MTA-STS policy of %s names (%s)", host, domain, list(p.MX))
}

// Watch judges a session under a policy that is only watched: offered tells
// whether there was TLS, and cert what was wrong with the certificate. Nil: it
// keeps to the policy.
func (r *Rule) Watch(host string, encrypted bool, cert error) *Failure {
	switch {
	case r.Testing == nil:
		return nil
	case !r.Testing.Names(host):
		return r.Testing.unnamed(r.Policy.Domain, host)
	case !encrypted:
		return failure(NoSTARTTLS, "%s offers no TLS", host)
	case cert != nil:
		return certFailure(cert)
	}
	return nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
