package deliver

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	mdns "github.com/miekg/dns"

	"postrider/internal/dns"
	"postrider/internal/feedback"
	"postrider/internal/queue"
	"postrider/internal/relay"
	"postrider/internal/sink"
	"postrider/internal/smtpclient"
	"postrider/internal/tlspolicy"
)

// ledger keeps the sessions that are told of.
type ledger struct {
	mu   sync.Mutex
	seen []string
}

func (l *ledger) Session(s tlspolicy.Session) {
	result := "good"
	if s.Failure != nil {
		result = s.Failure.Result
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, fmt.Sprintf("%s %s %s %s", s.Domain, s.Policy.Kind, s.Host, result))
}

func (l *ledger) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.Sort(l.seen)
	return strings.Join(l.seen, "; ")
}

// secure makes the rig ask for policies by a resolver that it trusts, and gives
// the authority of all certificates and what is told of sessions.
func (r *rig) secure() (*sink.Authority, *ledger) {
	r.t.Helper()
	ca, err := sink.NewAuthority()
	if err != nil {
		r.t.Fatal(err)
	}
	resolver, err := dns.New([]string{r.dns.Addr()}, patience)
	if err != nil {
		r.t.Fatal(err)
	}
	resolver.Trust()
	told := new(ledger)
	r.config.Sessions = told
	r.routes[0].Roots = ca.Pool()
	r.resolver = resolver
	fetcher := &tlspolicy.Fetcher{Addrs: resolver.Addrs, Roots: ca.Pool(), Port: r.port + 1, Timeout: patience}
	r.config.Policies = &tlspolicy.Policies{TLSA: resolver, STS: tlspolicy.NewCache(resolver, fetcher, nil, slog.New(slog.DiscardHandler))}
	return ca, told
}

// publish serves an MTA-STS policy for a domain.
func (r *rig) publish(ca *sink.Authority, domain, policy string) {
	r.t.Helper()
	cert := issue(r.t, ca, sink.Good, "mta-sts."+domain)
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.9.9:%d", r.port+1))
	if err != nil {
		r.t.Fatal(err)
	}
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, policy)
	}))
	web.Listener.Close()
	web.Listener, web.TLS = ln, &tls.Config{Certificates: []tls.Certificate{cert}}
	web.StartTLS()
	r.t.Cleanup(web.Close)
	r.zone("_mta-sts."+domain+`. 60 IN TXT "v=STSv1; id=1"`, "mta-sts."+domain+". 60 IN A 127.0.9.9")
}

func issue(t *testing.T, ca *sink.Authority, kind sink.CertKind, hosts ...string) tls.Certificate {
	t.Helper()
	cert, err := ca.Issue(kind, hosts...)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// keyDigest is a TLSA record's data for a certificate's key, by SHA-256.
func keyDigest(t *testing.T, cert tls.Certificate) string {
	t.Helper()
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

func policyText(mode string, mx ...string) string {
	return "version: STSv1\nmode: " + mode + "\nmx: " + strings.Join(mx, "\nmx: ") + "\nmax_age: 86400\n"
}

func withCert(cert tls.Certificate) sink.Config {
	return sink.Config{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}}
}

// TestPolicies: what receivers publish decides over real sessions, and what is
// told of them. The receiver is mx.receiver.test.
func TestPolicies(t *testing.T) {
	const host = "mx.receiver.test"
	bad, none := strings.Repeat("ab", 32), ""
	for _, tt := range []struct {
		name     string
		cert     sink.CertKind // of the receiver; empty: no TLS at all
		sts      string
		tlsa     string // data of the record; "key": the right one
		usage    string
		fail     bool // TLSA look-ups fail
		unsigned bool
		signed   string // the only zone that is; empty: all
		use      PolicyUse
		mode     smtpclient.TLSMode
		kind     relay.Kind
		enhanced string
		policy   string
		verified bool
		told     string
		words    string
	}{
		{name: "nothing published", cert: sink.SelfSigned, kind: relay.EventDelivered, told: "no-policy-found mx good"},
		{name: "nothing published, no TLS", kind: relay.EventDelivered, told: "no-policy-found mx starttls-not-supported"},

		{name: "DANE", cert: sink.SelfSigned, tlsa: "key", kind: relay.EventDelivered, policy: "DANE", verified: true, told: "tlsa mx good"},
		{name: "DANE-EE looks at no date", cert: sink.Expired, tlsa: "key", kind: relay.EventDelivered, policy: "DANE", verified: true, told: "tlsa mx good"},
		{name: "DANE-EE looks at no name", cert: sink.WrongName, tlsa: "key", kind: relay.EventDelivered, policy: "DANE", verified: true, told: "tlsa mx good"},
		{name: "DANE, another key", cert: sink.Good, tlsa: bad, kind: relay.EventDeferred, enhanced: "4.7.5", policy: "DANE", told: "tlsa mx validation-failure", words: "TLSA records (DANE)"},
		{name: "DANE, no TLS", tlsa: bad, kind: relay.EventDeferred, enhanced: "4.7.4", policy: "DANE", told: "tlsa mx starttls-not-supported", words: "does not offer STARTTLS"},
		{name: "DANE, records of no use", cert: sink.SelfSigned, usage: "1", tlsa: "key", kind: relay.EventDelivered, policy: "DANE", told: "tlsa mx good"},
		{name: "DANE, records of no use, no TLS", usage: "1", tlsa: bad, kind: relay.EventDeferred, enhanced: "4.7.4", policy: "DANE", told: "tlsa mx starttls-not-supported"},
		{name: "DANE, look-up fails", cert: sink.Good, fail: true, kind: relay.EventDeferred, enhanced: "4.7.5", policy: "DANE", told: "tlsa mx dnssec-invalid", words: "can't be had for sure"},
		{name: "DANE, not signed", cert: sink.SelfSigned, unsigned: true, tlsa: bad, kind: relay.EventDelivered, told: "no-policy-found mx good"},
		{name: "DANE, MX not signed", cert: sink.SelfSigned, signed: host, tlsa: bad, kind: relay.EventDelivered, told: "no-policy-found mx good"},
		{name: "DANE, look-up fails, not signed", cert: sink.SelfSigned, unsigned: true, fail: true, kind: relay.EventDelivered, told: "no-policy-found mx good"},

		{name: "STS enforced", cert: sink.Good, sts: policyText("enforce", host), kind: relay.EventDelivered, policy: "MTA-STS", verified: true, told: "sts mx good"},
		{name: "STS enforced, wildcard", cert: sink.Good, sts: policyText("enforce", "*.receiver.test"), kind: relay.EventDelivered, policy: "MTA-STS", verified: true, told: "sts mx good"},
		{name: "STS enforced, self-signed", cert: sink.SelfSigned, sts: policyText("enforce", host), kind: relay.EventDeferred, enhanced: "4.7.5", policy: "MTA-STS", told: "sts mx certificate-not-trusted", words: "policy (MTA-STS) asks for it"},
		{name: "STS enforced, expired", cert: sink.Expired, sts: policyText("enforce", host), kind: relay.EventDeferred, enhanced: "4.7.5", policy: "MTA-STS", told: "sts mx certificate-expired"},
		{name: "STS enforced, wrong name", cert: sink.WrongName, sts: policyText("enforce", host), kind: relay.EventDeferred, enhanced: "4.7.5", policy: "MTA-STS", told: "sts mx certificate-host-mismatch"},
		{name: "STS enforced, no TLS", sts: policyText("enforce", host), kind: relay.EventDeferred, enhanced: "4.7.4", policy: "MTA-STS", told: "sts mx starttls-not-supported"},
		{name: "STS enforced, host not named", cert: sink.Good, sts: policyText("enforce", "other.test"), kind: relay.EventDeferred, enhanced: "4.7.5", policy: "MTA-STS", told: "sts mx validation-failure", words: "not a mail server that the MTA-STS policy of receiver.test names (other.test)"},
		{name: "STS testing, self-signed", cert: sink.SelfSigned, sts: policyText("testing", host), kind: relay.EventDelivered, policy: "MTA-STS (testing)", told: "sts mx certificate-not-trusted"},
		{name: "STS testing, good", cert: sink.Good, sts: policyText("testing", host), kind: relay.EventDelivered, policy: "MTA-STS (testing)", verified: true, told: "sts mx good"},
		{name: "STS testing, host not named", cert: sink.Good, sts: policyText("testing", "other.test"), kind: relay.EventDelivered, policy: "MTA-STS (testing)", verified: true, told: "sts mx validation-failure"},
		{name: "STS testing, no TLS", sts: policyText("testing", host), kind: relay.EventDelivered, policy: "MTA-STS (testing)", told: "sts mx starttls-not-supported"},
		{name: "STS none", cert: sink.SelfSigned, sts: policyText("none", host), kind: relay.EventDelivered, told: "no-policy-found mx good"},
		{name: "STS unreadable", cert: sink.SelfSigned, sts: "hello", kind: relay.EventDelivered, told: "no-policy-found mx good; receiver.test sts  sts-policy-invalid"},

		{name: "DANE before STS", cert: sink.SelfSigned, tlsa: "key", sts: policyText("enforce", host), kind: relay.EventDelivered, policy: "DANE", verified: true, told: "tlsa mx good"},
		{name: "failing DANE, good STS", cert: sink.Good, tlsa: bad, sts: policyText("enforce", host), kind: relay.EventDeferred, enhanced: "4.7.5", policy: "DANE", told: "tlsa mx validation-failure"},
		{name: "unusable DANE, STS enforced", cert: sink.SelfSigned, usage: "1", tlsa: bad, sts: policyText("enforce", host), kind: relay.EventDeferred, enhanced: "4.7.5", policy: "MTA-STS", told: "sts mx certificate-not-trusted"},

		{name: "route ignores", cert: sink.SelfSigned, tlsa: bad, sts: policyText("enforce", "other.test"), use: Ignored, kind: relay.EventDelivered},
		{name: "route without TLS", cert: sink.SelfSigned, tlsa: bad, mode: smtpclient.Never, kind: relay.EventDelivered},
		{name: "route by DANE only", cert: sink.Good, use: OnlyDANE, kind: relay.EventDeferred, enhanced: "4.7.5", told: "no-policy-found mx dane-required", words: "the route of * asks for DANE"},
		{name: "route by DANE only, DANE", cert: sink.SelfSigned, tlsa: "key", use: OnlyDANE, kind: relay.EventDelivered, policy: "DANE", verified: true, told: "tlsa mx good"},
		{name: "route requires TLS", cert: sink.SelfSigned, mode: smtpclient.Required, kind: relay.EventDeferred, enhanced: "4.7.5", told: "no-policy-found mx certificate-not-trusted"},
		{name: "route requires TLS, DANE", cert: sink.SelfSigned, mode: smtpclient.Required, tlsa: "key", kind: relay.EventDelivered, policy: "DANE", verified: true, told: "tlsa mx good"},
		{name: "route requires TLS, unusable DANE", cert: sink.SelfSigned, mode: smtpclient.Required, usage: "1", tlsa: bad, kind: relay.EventDeferred, enhanced: "4.7.5", policy: "DANE", told: "tlsa mx certificate-not-trusted"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t).mx("receiver.test", "127.0.1.1")
			ca, told := r.secure()
			if !tt.unsigned {
				r.dns.Sign(cmp.Or(tt.signed, "receiver.test"))
			}
			r.routes[0].Policy, r.routes[0].TLS = tt.use, tt.mode
			c := sink.Config{Without: sink.StartTLS}
			if tt.cert != "" {
				cert := issue(t, ca, tt.cert, host)
				c = withCert(cert)
				if tt.tlsa == "key" {
					tt.tlsa = keyDigest(t, cert)
				}
			}
			owner := fmt.Sprintf("_%d._tcp.%s", r.port, host)
			if tt.tlsa != none {
				r.zone(owner + ". 60 IN TLSA " + strings.ReplaceAll("U 1 1 ", "U", map[bool]string{true: "3", false: tt.usage}[tt.usage == ""]) + tt.tlsa)
			}
			if tt.fail {
				r.dns.Fail(owner, mdns.RcodeServerFailure)
			}
			if tt.sts != "" {
				r.publish(ca, "receiver.test", tt.sts)
			}
			s := r.sink("127.0.1.1", c)
			r.run()
			o := r.try(r.item("b@receiver.test", plain))
			if o.Kind != tt.kind || tt.enhanced != "" && (o.Reply.Enhanced != tt.enhanced || o.Diagnosis.Category != feedback.TLSProblem) || !strings.Contains(o.Reply.Text, tt.words) {
				t.Errorf("%s %s (%s); want %s %s with %q", o.Kind, o.Reply, o.Diagnosis.Category, tt.kind, tt.enhanced, tt.words)
			}
			a := o.Attempt
			if a.Policy != tt.policy || tt.kind == relay.EventDelivered && (a.TLS != nil && a.TLS.Verified) != tt.verified {
				t.Errorf("attempt under %q, TLS %+v; want %q, verified %v", a.Policy, a.TLS, tt.policy, tt.verified)
			}
			if want := map[bool]int64{true: 1}[tt.kind == relay.EventDelivered]; s.Stats().Messages != want {
				t.Errorf("%d messages arrived, want %d", s.Stats().Messages, want)
			}
			want := tt.told
			if want != "" {
				want = "receiver.test " + strings.Replace(want, " mx ", " "+host+" ", 1)
			}
			if got := told.all(); got != want {
				t.Errorf("told of %q, want %q", got, want)
			}
		})
	}
}

// TestForbiddenHosts: hosts that the policy does not name are passed over,
// however many and however preferred they are.
func TestForbiddenHosts(t *testing.T) {
	r := newRig(t)
	ca, _ := r.secure()
	for n := range 9 {
		r.zone(fmt.Sprintf("receiver.test. 60 IN MX 10 bad%d.test.", n), fmt.Sprintf("bad%d.test. 60 IN A 127.0.2.%d", n, n+1))
	}
	r.zone("receiver.test. 60 IN MX 20 good.test.", "good.test. 60 IN A 127.0.1.1")
	r.publish(ca, "receiver.test", policyText("enforce", "good.test"))
	r.sink("127.0.1.1", withCert(issue(t, ca, sink.Good, "good.test")))
	r.run()
	if o := r.try(r.item("b@receiver.test", plain)); o.Kind != relay.EventDelivered || o.Host != "good.test" {
		t.Errorf("%s %s by %s", o.Kind, o.Reply, o.Host)
	}
}

// TestPolicyLanes: two domains with the same host and another policy share no
// connection, those with the same policy do.
func TestPolicyLanes(t *testing.T) {
	r := newRig(t)
	ca, told := r.secure()
	for _, d := range []string{"a.test", "b.test", "c.test"} {
		r.zone(d+". 60 IN MX 10 mx.host.test.", "mx.host.test. 60 IN A 127.0.1.1")
	}
	r.publish(ca, "c.test", policyText("enforce", "mx.host.test"))
	r.sink("127.0.1.1", withCert(issue(t, ca, sink.Good, "mx.host.test")))
	r.run()
	reused := map[string]bool{}
	r.try(r.item("c@a.test", plain))
	for _, d := range []string{"b.test", "c.test", "a.test"} {
		reused[d] = r.try(r.item("b@"+d, plain)).Attempt.Reused
	}
	if !reused["a.test"] || !reused["b.test"] || reused["c.test"] {
		t.Errorf("reused: %v", reused)
	}
	want := "a.test no-policy-found mx.host.test good; b.test no-policy-found mx.host.test good; c.test sts mx.host.test good"
	if got := told.all(); got != want {
		t.Errorf("told of %q, want %q", got, want)
	}
}

// TestRequireTLSByDANE: a certificate that DANE names is enough for REQUIRETLS,
// and trouble with DANE bounces nothing.
func TestRequireTLSByDANE(t *testing.T) {
	for _, good := range []bool{true, false} {
		r := newRig(t).mx("receiver.test", "127.0.1.1")
		ca, _ := r.secure()
		r.dns.Sign("receiver.test")
		cert := issue(t, ca, sink.SelfSigned, "mx.receiver.test")
		data := keyDigest(t, cert)
		if !good {
			data = strings.Repeat("00", 32)
		}
		r.zone(fmt.Sprintf("_%d._tcp.mx.receiver.test. 60 IN TLSA 3 1 1 %s", r.port, data))
		r.sink("127.0.1.1", withCert(cert))
		r.run()
		o := r.try(r.item("b@receiver.test", plain, func(it *queue.Item) { it.Message.Envelope.RequireTLS = true }))
		if want := map[bool]relay.Kind{true: relay.EventDelivered, false: relay.EventDeferred}[good]; o.Kind != want {
			t.Errorf("good %v: %s %s", good, o.Kind, o.Reply)
		}
	}
}

// TestTLSReportsPass: our reports on TLS go where other mail waits, and are not
// reported on.
func TestTLSReportsPass(t *testing.T) {
	r := newRig(t).mx("receiver.test", "127.0.1.1")
	ca, told := r.secure()
	r.publish(ca, "receiver.test", policyText("enforce", "other.test"))
	r.sink("127.0.1.1", withCert(issue(t, ca, sink.SelfSigned, "mx.receiver.test")))
	r.run()
	o := r.try(r.item("b@receiver.test", plain, func(it *queue.Item) { it.Message.Source.Protocol = relay.TLSReport }))
	if o.Kind != relay.EventDelivered || told.all() != "" {
		t.Errorf("%s %s; told of %q", o.Kind, o.Reply, told.all())
	}
}

// TestFixedHostDANE: a smart host with signed TLSA records is held to them.
func TestFixedHostDANE(t *testing.T) {
	for _, tt := range []struct {
		name string
		use  PolicyUse
		tlsa bool
		good bool
		kind relay.Kind
	}{
		{"matches", Published, true, true, relay.EventDelivered},
		{"does not match", Published, true, false, relay.EventDeferred},
		{"only DANE, none", OnlyDANE, false, false, relay.EventDeferred},
		{"ignored", Ignored, true, false, relay.EventDelivered},
	} {
		r := newRig(t).zone("smart.test. 60 IN A 127.0.1.1")
		ca, told := r.secure()
		r.dns.Sign("smart.test")
		cert := issue(t, ca, sink.SelfSigned, "smart.test")
		if tt.tlsa {
			data := strings.Repeat("00", 32)
			if tt.good {
				data = keyDigest(t, cert)
			}
			r.zone(fmt.Sprintf("_%d._tcp.smart.test. 60 IN TLSA 3 1 1 %s", r.port, data))
		}
		r.routes = Routes{{Domain: "*", Host: "smart.test", Port: r.port, Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Policy: tt.use}}
		r.sink("127.0.1.1", withCert(cert))
		r.run()
		if o := r.try(r.item("b@receiver.test", plain)); o.Kind != tt.kind || told.all() != "" {
			t.Errorf("%s: %s %s, told of %q", tt.name, o.Kind, o.Reply, told.all())
		}
	}
}
