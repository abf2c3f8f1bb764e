package deliver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"postrider/internal/dns"
	"postrider/internal/relay"
	"postrider/internal/smtpclient"
	"postrider/internal/tlspolicy"
)

// PolicyUse says what a route does with the TLS policies that receivers publish.
type PolicyUse uint8

const (
	Published PolicyUse = iota // they hold
	Ignored                    // they do not
	OnlyDANE                   // they hold, and nothing goes where there is no DANE
)

// Sessions counts sessions with receivers, for reports to them (RFC 8460). Its
// method is called from many goroutines and does not wait.
type Sessions interface {
	Session(s tlspolicy.Session)
}

// need is what a message by itself asks of TLS.
type need uint8

const (
	usualTLS  need = iota
	strictTLS      // REQUIRETLS (RFC 8689)
	// anyTLS is for our reports on TLS: they must reach a receiver whose TLS is
	// broken (RFC 8460 section 3).
	anyTLS
)

func needOf(m *relay.Message) need {
	switch {
	case m.Envelope.RequireTLS:
		return strictTLS
	case m.Source.Protocol == relay.TLSReport:
		return anyTLS
	}
	return usualTLS
}

// rules is what a destination's hosts ask of TLS.
type rules struct {
	of      map[string]*tlspolicy.Rule // by the host's name; a host without one asks for nothing
	trouble *tlspolicy.Failure         // with the domain's policy
	failing tlspolicy.Applied          // that policy
	expires time.Time                  // of the whole destination
}

// policies decides what holds on a route; nil: receivers are not asked.
func (d *Dispatcher) policies(r *Route) *tlspolicy.Policies {
	switch {
	case r.Policy == Ignored || r.TLS == smtpclient.Never:
		return nil
	case d.config.Policies == nil && r.Policy == OnlyDANE:
		return &tlspolicy.Policies{}
	}
	return d.config.Policies
}

// mailHosts finds the hosts of a domain, and what they ask of TLS.
func (d *Dispatcher) mailHosts(ctx context.Context, domain string, r *Route) (*dns.MailHosts, rules, error) {
	p := d.policies(r)
	if p == nil {
		m, err := d.resolver.Mail(ctx, domain)
		if err != nil {
			return nil, rules{}, err
		}
		return m, rules{expires: m.Expires}, nil
	}
	finding, stop := context.WithCancel(ctx)
	defer stop()
	var found tlspolicy.Found
	var unfound error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if p.STS != nil {
			found, unfound = p.STS.Find(finding, domain)
		}
	}()
	m, err := d.resolver.Mail(ctx, domain)
	if err != nil {
		stop()
	}
	<-ended
	if err == nil {
		err = unfound
	}
	if err != nil {
		return nil, rules{}, err
	}
	decision, err := p.Decide(ctx, m, found, r.Port)
	if err != nil {
		return nil, rules{}, err
	}
	rs := rules{of: map[string]*tlspolicy.Rule{}, trouble: decision.Trouble, failing: decision.Failing, expires: decision.Expires}
	for i := range decision.Rules {
		rs.of[m.Hosts[i].Name] = r.narrow(m.Hosts[i].Name, &decision.Rules[i])
	}
	return m, rs, nil
}

// fixedHost finds a route's own host, and what it asks of TLS.
func (d *Dispatcher) fixedHost(ctx context.Context, r *Route) (dns.Host, rules, error) {
	rs := rules{expires: time.Now().Add(fixedTTL)}
	if a, err := netip.ParseAddr(r.Host); err == nil {
		h := dns.Host{Name: r.Host, Addrs: []netip.Addr{a}}
		if r.Policy == OnlyDANE {
			rs.of = map[string]*tlspolicy.Rule{h.Name: r.narrow(h.Name, &tlspolicy.Rule{})}
		}
		return h, rs, nil
	}
	h, err := d.resolver.Host(ctx, r.Host)
	if err != nil {
		return h, rs, err
	}
	h.Name = r.Host
	if p := d.policies(r); p != nil {
		rule, expires, err := p.DecideHost(ctx, h, r.Port)
		if err != nil {
			return h, rs, err
		}
		rs.of = map[string]*tlspolicy.Rule{h.Name: r.narrow(h.Name, &rule)}
		if expires.Before(rs.expires) {
			rs.expires = expires
		}
	}
	return h, rs, nil
}

// narrow makes a rule stricter where the route is.
func (r *Route) narrow(host string, rule *tlspolicy.Rule) *tlspolicy.Rule {
	if r.Policy == OnlyDANE && rule.Level != tlspolicy.DANE && rule.Level != tlspolicy.Refused {
		rule.Level = tlspolicy.Refused
		rule.Reason = &tlspolicy.Failure{Result: tlspolicy.DANERequired,
			Text: fmt.Sprintf("the route of %s asks for DANE, and %s publishes nothing that can be used (or dns.trusted is not set)", r.Domain, host)}
	}
	return rule
}

// terms is what TLS one session must have.
type terms struct {
	mode    smtpclient.TLSMode
	lax     bool // any certificate, though TLS is a must
	verify  func(tls.ConnectionState) error
	name    string             // to be said in the handshake; empty: that of the host
	refused *tlspolicy.Failure // no session
	policy  string             // by which policy; empty: none
}

// terms puts together what the route, the message and the host ask for.
func (dest *destination) terms(host string, n need) terms {
	t := terms{mode: dest.route.TLS}
	rule := dest.rules.of[host]
	if n == strictTLS && t.mode == smtpclient.Opportunistic {
		t.mode = smtpclient.Required
	}
	if rule == nil || n == anyTLS && t.mode == smtpclient.Opportunistic {
		return t
	}
	t.policy = rule.Name()
	usual := t.mode == smtpclient.Opportunistic
	if usual && rule.Level != tlspolicy.Free {
		t.mode = smtpclient.Required
	}
	switch rule.Level {
	case tlspolicy.Refused:
		t.refused = rule.Reason
	case tlspolicy.Encrypted:
		t.lax = usual
	case tlspolicy.DANE:
		t.verify, t.name = rule.Verify, rule.ServerName()
	}
	return t
}

// explain adds to an error of TLS who asked for so much.
func (t terms) explain(err error) error {
	var e *smtpclient.Error
	if t.policy == "" || t.mode == smtpclient.Opportunistic || !errors.As(err, &e) || e.Stage != smtpclient.StageTLS || e.Reply != nil {
		return err
	}
	e.Err = fmt.Errorf("%w: the receiver's policy (%s) asks for it, and the mail waits", e.Err, t.policy)
	return e
}

// tlsCode is the enhanced code of a session that failed without a reply.
func tlsCode(e *smtpclient.Error) string {
	var ours *tlspolicy.Failure
	switch {
	case e.Stage != smtpclient.StageTLS:
		return "4.4.2"
	case errors.Is(e.Err, smtpclient.ErrNoTLS):
		return "4.7.4" // security features not supported
	case errors.As(e.Err, &ours), smtpclient.Distrusted(e.Err):
		return "4.7.5" // cryptographic failure
	}
	return "4.4.2"
}

// tlsTry is one session as far as TLS goes.
type tlsTry struct {
	host string
	addr netip.Addr
	err  error                // it ended with TLS
	tls  *smtpclient.TLSState // nil, and no err: it goes on in the clear
}

// noteTLS notes a session that came to TLS or, for its policy, did not begin.
func (l *link) noteTLS(c candidate, conn *smtpclient.Conn, err error) {
	try := tlsTry{host: c.name, addr: c.addr.Addr()}
	if err == nil {
		try.tls = conn.TLS()
	} else {
		var e *smtpclient.Error
		if !errors.As(err, &e) || e.Stage != smtpclient.StageTLS {
			return
		}
		try.err = e
	}
	l.tries = append(l.tries, try)
}

// tell counts the sessions of a connection for a domain, once.
func (w *worker) tell(l link, domain string) {
	d := w.d
	if d.config.Sessions == nil || w.told[domain] || w.lane.key.need == anyTLS {
		return
	}
	if w.told == nil {
		w.told = map[string]bool{}
	}
	w.told[domain] = true
	d.mu.Lock()
	var dest *destination
	if dom := d.domains[domain]; dom != nil {
		dest = dom.dest
	}
	d.mu.Unlock()
	if dest == nil || dest.rules.of == nil || dest.route.Host != "" {
		return
	}
	for _, t := range l.tries {
		rule := dest.rules.of[t.host]
		if rule == nil {
			continue // its records have just changed
		}
		d.config.Sessions.Session(tlspolicy.Session{Domain: domain, Policy: rule.Policy, Host: t.host, Addr: t.addr, Source: l.source, Failure: t.failure(rule)})
	}
	if dest.rules.trouble != nil {
		d.config.Sessions.Session(tlspolicy.Session{Domain: domain, Policy: dest.rules.failing, Failure: dest.rules.trouble})
	}
}

// failure is what a report says of the session; nil: nothing was wrong.
func (t tlsTry) failure(rule *tlspolicy.Rule) *tlspolicy.Failure {
	var e *smtpclient.Error
	switch {
	case errors.As(t.err, &e) && (e.Reply != nil || errors.Is(e.Err, smtpclient.ErrNoTLS)), t.err == nil && t.tls == nil:
		return &tlspolicy.Failure{Result: tlspolicy.NoSTARTTLS, Text: t.host + " offers no TLS"}
	case t.err != nil:
		return &tlspolicy.Failure{Result: tlspolicy.Classify(e.Err), Text: e.Err.Error()}
	}
	return rule.Watch(t.host, true, t.tls.Err)
}
