package deliver

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"postrider/internal/dns"
	"postrider/internal/relay"
	"postrider/internal/sink"
	"postrider/internal/smtpclient"
)

func TestFindRoute(t *testing.T) {
	routes := Routes{
		{Domain: ".example.com", Host: "sub"},
		{Domain: "*", Host: "star"},
		{Domain: "example.com", Host: "exact"},
		{Domain: ".deep.example.com", Host: "longer"},
		{Domain: "exact.example.com", Host: "below"},
	}
	for domain, want := range map[string]string{
		"example.com":          "exact",
		"a.example.com":        "sub",
		"a.b.example.com":      "sub",
		"deep.example.com":     "sub",
		"a.deep.example.com":   "longer",
		"exact.example.com":    "below",
		"x.exact.example.com":  "sub",
		"anexample.com":        "star",
		"example.com.evil.org": "star",
		"com":                  "star",
	} {
		if got := routes.find(domain, 25).Host; got != want {
			t.Errorf("%s goes by route %q, want %q", domain, got, want)
		}
	}
	r := Routes{{Domain: "example.com"}}.find("other.test", 25)
	if r.Host != "" || r.Port != 25 || r.TLS != smtpclient.Opportunistic || r.Auth != nil || r.Private != nil {
		t.Errorf("without a route: %+v, want the MX by opportunistic TLS", r)
	}
}

func TestPublic(t *testing.T) {
	for a, want := range map[string]bool{
		"8.8.8.8": true, "1.1.1.1": true, "192.0.1.1": true, "172.15.0.1": true, "172.32.0.1": true,
		"2607:f8b0::1": true, "2a00:1450::1b": true, "2001:4860:4860::8888": true, "::ffff:8.8.8.8": true, "64:ff9b::808:808": true,

		"0.0.0.0": false, "0.1.2.3": false, "10.0.0.1": false, "100.64.0.1": false, "127.0.0.1": false, "127.255.255.254": false,
		"169.254.169.254": false, "172.16.0.1": false, "172.31.255.255": false, "192.0.0.8": false, "192.0.2.1": false, "192.168.0.1": false,
		"192.88.99.1": false, "198.18.0.1": false, "198.51.100.1": false, "203.0.113.1": false, "224.0.0.1": false, "240.0.0.1": false, "255.255.255.255": false,
		"::": false, "::1": false, "::10.0.0.1": false, "::ffff:10.0.0.1": false, "::ffff:127.0.0.1": false, "::ffff:0:1.1.1.1": false,
		"64:ff9b::a00:1": false, "64:ff9b::7f00:1": false, "64:ff9b:1::1": false, "100::1": false,
		"2001::1": false, "2001:10::1": false, "2001:db8::1": false, "2002:a00:1::1": false, "3fff::1": false, "5f00::1": false,
		"fc00::1": false, "fd12::1": false, "fe80::1": false, "fe80::1%eth0": false, "fec0::1": false, "ff02::1": false, "4000::1": false,
	} {
		if got := Public(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: public %v, want %v", a, got, want)
		}
	}
}

// TestRoutesByOutcome has one receiver at 127.0.1.1, and asks which of its
// addresses mail reaches by which route.
func TestRoutesByOutcome(t *testing.T) {
	for _, tt := range []struct {
		name, domain string
		zone         string
		routes       func(port int) Routes
		kind         relay.Kind
		enhanced     string
	}{
		{name: "fixed address", domain: "nowhere.test", kind: relay.EventDelivered,
			routes: func(p int) Routes { return Routes{{Domain: "*", Host: "127.0.1.1", Port: p}} }},
		{name: "fixed host", domain: "nowhere.test", zone: "host.test. 60 IN A 127.0.1.1", kind: relay.EventDelivered,
			routes: func(p int) Routes { return Routes{{Domain: "*", Host: "host.test", Port: p, Private: loopback}} }},
		{name: "fixed host, private by mistake", domain: "nowhere.test", zone: "host.test. 60 IN A 127.0.1.1", kind: relay.EventDeferred, enhanced: "4.4.4",
			routes: func(p int) Routes { return Routes{{Domain: "*", Host: "host.test", Port: p}} }},
		{name: "fixed host unknown", domain: "nowhere.test", kind: relay.EventDeferred, enhanced: "4.4.4",
			routes: func(p int) Routes { return Routes{{Domain: "*", Host: "host.test", Port: p, Private: loopback}} }},
		{name: "private without leave", domain: "receiver.test", zone: "receiver.test. 60 IN MX 10 mx.receiver.test.\nmx.receiver.test. 60 IN A 127.0.1.1",
			kind: relay.EventBounced, enhanced: "5.4.4", routes: func(p int) Routes { return Routes{{Domain: "*", Port: p}} }},
		{name: "private, and no route at all", domain: "receiver.test", zone: "receiver.test. 60 IN A 127.0.1.1",
			kind: relay.EventBounced, enhanced: "5.4.4", routes: func(int) Routes { return nil }},
		{name: "private by another route only", domain: "receiver.test", zone: "receiver.test. 60 IN A 127.0.1.1",
			kind: relay.EventBounced, enhanced: "5.4.4", routes: func(p int) Routes { return Routes{{Domain: "other.test", Port: p, Private: loopback}} }},
		{name: "suffix", domain: "a.receiver.test", zone: "a.receiver.test. 60 IN A 127.0.1.1", kind: relay.EventDelivered,
			routes: func(p int) Routes { return Routes{{Domain: ".receiver.test", Port: p, Private: loopback}} }},
		{name: "no MX", domain: "receiver.test", zone: "receiver.test. 60 IN A 127.0.1.1", kind: relay.EventDelivered,
			routes: func(p int) Routes { return Routes{{Domain: "*", Port: p, Private: loopback}} }},
		{name: "null MX", domain: "receiver.test", zone: "receiver.test. 60 IN MX 0 .", kind: relay.EventBounced, enhanced: "5.1.10",
			routes: func(p int) Routes { return Routes{{Domain: "*", Port: p, Private: loopback}} }},
		{name: "NXDOMAIN", domain: "nowhere.test", kind: relay.EventBounced, enhanced: "5.1.2",
			routes: func(p int) Routes { return Routes{{Domain: "*", Port: p, Private: loopback}} }},
		{name: "no address", domain: "receiver.test", zone: "receiver.test. 60 IN TXT hello", kind: relay.EventBounced, enhanced: "5.4.4",
			routes: func(p int) Routes { return Routes{{Domain: "*", Port: p, Private: loopback}} }},
		{name: "MX without address", domain: "receiver.test", zone: "receiver.test. 60 IN MX 10 mx.receiver.test.", kind: relay.EventBounced, enhanced: "5.4.4",
			routes: func(p int) Routes { return Routes{{Domain: "*", Port: p, Private: loopback}} }},
		{name: "SERVFAIL", domain: "broken.test", zone: "broken.test. 60 IN A 127.0.1.1", kind: relay.EventDeferred, enhanced: "4.4.3",
			routes: func(p int) Routes { return Routes{{Domain: "*", Port: p, Private: loopback}} }},
		{name: "nobody listens", domain: "receiver.test", zone: "receiver.test. 60 IN A 127.0.1.2", kind: relay.EventDeferred, enhanced: "4.4.1",
			routes: func(p int) Routes { return Routes{{Domain: "*", Port: p, Private: loopback}} }},
		{name: "some private, some not allowed", domain: "receiver.test", kind: relay.EventDelivered,
			zone: "receiver.test. 60 IN MX 10 a.test.\nreceiver.test. 60 IN MX 20 b.test.\na.test. 60 IN A 127.0.9.9\nb.test. 60 IN A 127.0.1.1",
			routes: func(p int) Routes {
				return Routes{{Domain: "*", Port: p, Private: []netip.Prefix{netip.MustParsePrefix("127.0.1.0/24")}}}
			}},
		{name: "implicit TLS", domain: "nowhere.test", kind: relay.EventDeferred, // the receiver speaks plain text
			routes: func(p int) Routes { return Routes{{Domain: "*", Host: "127.0.1.1", Port: p, TLS: smtpclient.Implicit}} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			if tt.zone != "" {
				r.zone(strings.Split(tt.zone, "\n")...)
			}
			r.dns.Fail("broken.test", mdns.RcodeServerFailure)
			r.routes = tt.routes(r.port)
			r.run()
			s := r.sink("127.0.1.1", sink.Config{})
			o := r.try(r.item("b@"+tt.domain, plain))
			if o.Kind != tt.kind || tt.enhanced != "" && o.Reply.Enhanced != tt.enhanced {
				t.Errorf("%s %s, want %s %s", o.Kind, o.Reply, tt.kind, tt.enhanced)
			}
			if o.Attempt == nil || o.Kind != relay.EventDelivered && o.Reply.Text == "" {
				t.Errorf("outcome %+v: want an attempt and words", o)
			}
			if want := map[bool]int64{true: 1}[tt.kind == relay.EventDelivered]; s.Stats().Messages != want {
				t.Errorf("%d messages arrived, want %d", s.Stats().Messages, want)
			}
		})
	}
}

func TestRouteToImplicitTLS(t *testing.T) {
	ca, err := sink.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(sink.Good, "127.0.1.1")
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	r.routes = Routes{{Domain: "*", Host: "127.0.1.1", Port: r.port, TLS: smtpclient.Implicit, Roots: ca.Pool()}}
	r.run()
	r.peer("127.0.1.1", func(s *talk) {
		if s.wrap(cert) {
			s.serve()
		}
	})
	if o := r.try(r.item("b@nowhere.test", plain)); o.Kind != relay.EventDelivered || o.Attempt.TLS == nil || !o.Attempt.TLS.Verified {
		t.Errorf("%s %s, TLS %+v", o.Kind, o.Reply, o.Attempt.TLS)
	}
}

// TestNextHost: a host that is down is passed over, and not tried first by the
// next connection.
func TestNextHost(t *testing.T) {
	for _, tt := range []struct {
		name       string
		zone       []string
		bad        func(*talk) // nil: nobody listens at 127.0.1.1
		remembered bool
	}{
		{name: "nobody listens", remembered: true, zone: []string{
			"receiver.test. 60 IN MX 10 first.test.", "receiver.test. 60 IN MX 20 second.test.",
			"first.test. 60 IN A 127.0.1.1", "second.test. 60 IN A 127.0.1.2"}},
		{name: "v6, then v4", remembered: true, zone: []string{"receiver.test. 60 IN MX 10 mx.test.", "mx.test. 60 IN AAAA ::1", "mx.test. 60 IN A 127.0.1.2"}},
		{name: "closed before the greeting", remembered: true, bad: func(*talk) {}, zone: []string{
			"receiver.test. 60 IN MX 10 first.test.", "receiver.test. 60 IN MX 20 second.test.",
			"first.test. 60 IN A 127.0.1.1", "second.test. 60 IN A 127.0.1.2"}},
		{name: "554 in the greeting", bad: func(s *talk) { s.say("554 5.3.2 no service"); s.hear() }, zone: []string{
			"receiver.test. 60 IN MX 10 first.test.", "receiver.test. 60 IN MX 20 second.test.",
			"first.test. 60 IN A 127.0.1.1", "second.test. 60 IN A 127.0.1.2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t).zone(tt.zone...)
			r.config.PerConn = 1
			r.run()
			if tt.bad != nil {
				r.peer("127.0.1.1", tt.bad)
			}
			r.sink("127.0.1.2", sink.Config{})
			o := r.try(r.item("b@receiver.test", plain))
			hosts := o.Attempt.Hosts
			if o.Kind != relay.EventDelivered || len(hosts) != 2 || hosts[0].Error == "" || hosts[1].Error != "" || hosts[1].Addr.Addr().String() != "127.0.1.2" {
				t.Fatalf("%s %s, hosts %+v; want it delivered to the second", o.Kind, o.Reply, hosts)
			}
			o = r.try(r.item("b@receiver.test", plain))
			if want := map[bool]int{true: 1, false: 2}[tt.remembered]; o.Kind != relay.EventDelivered || o.Attempt.Reused || len(o.Attempt.Hosts) != want {
				t.Errorf("the next connection: %s %s, hosts %+v; want %d", o.Kind, o.Reply, o.Attempt.Hosts, want)
			}
		})
	}
}

// TestTriesAreBounded: neither very many addresses nor very many unwilling hosts
// are all tried for one connection.
func TestTriesAreBounded(t *testing.T) {
	dead, unwilling := newRig(t), newRig(t)
	for _, n := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "9"} {
		dead.zone("mx.test. 60 IN A 127.0.2." + n)
		unwilling.zone("mx.test. 60 IN A 127.0.2." + n)
	}
	dead.run()
	if o := dead.try(dead.item("b@mx.test", plain)); o.Kind != relay.EventDeferred || len(o.Attempt.Hosts) != maxTries {
		t.Errorf("dead addresses: %s, %d tried; want %d", o.Kind, len(o.Attempt.Hosts), maxTries)
	}
	for _, n := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "9"} {
		unwilling.peer("127.0.2."+n, func(s *talk) { s.say("421 4.3.2 not now") })
	}
	unwilling.run()
	if o := unwilling.try(unwilling.item("b@mx.test", plain)); o.Kind != relay.EventDeferred || o.Reply.Code != 421 || len(o.Attempt.Hosts) != maxSessions {
		t.Errorf("unwilling hosts: %s %s, %d tried; want %d", o.Kind, o.Reply, len(o.Attempt.Hosts), maxSessions)
	}
}

func TestSourceAddress(t *testing.T) {
	r := newRig(t).mx("receiver.test", "127.0.1.1")
	r.config.Source = []netip.Addr{netip.MustParseAddr("::1"), netip.MustParseAddr("127.0.3.3")}
	r.run()
	s := r.sink("127.0.1.1", sink.Config{})
	o := r.try(r.item("b@receiver.test", plain))
	if client := s.Messages()[0].Client; o.Attempt.Source.String() != "127.0.3.3" || !strings.HasPrefix(client, "127.0.3.3:") {
		t.Errorf("from %s, recorded %s; want 127.0.3.3", client, o.Attempt.Source)
	}
}

// TestAnswersAreKeptUntilTheyExpire, and no longer.
func TestAnswersAreKeptUntilTheyExpire(t *testing.T) {
	r := newRig(t).mx("receiver.test", "127.0.1.1").run()
	r.sink("127.0.1.1", sink.Config{})
	known := func() *destination {
		r.try(r.item("b@receiver.test", plain))
		r.d.mu.Lock()
		defer r.d.mu.Unlock()
		return r.d.domains["receiver.test"].dest
	}
	first := known()
	if known() != first {
		t.Error("the domain was resolved anew before its answer expired")
	}
	r.d.mu.Lock()
	first.expires = time.Now()
	r.d.mu.Unlock()
	if known() == first {
		t.Error("the domain was not resolved anew after its answer expired")
	}
	if n := r.dns.Queries("receiver.test", mdns.TypeMX); n != 1 {
		t.Errorf("%d questions for MX, want 1", n)
	}
}

func TestLaneName(t *testing.T) {
	a, b := dns.Host{Name: "a", Pref: 10}, dns.Host{Name: "b", Pref: 10}
	last := dns.Host{Name: "b", Pref: 20}
	r := &Route{Domain: "*"}
	if laneName(r, []dns.Host{a, b}, rules{}) != laneName(r, []dns.Host{b, a}, rules{}) {
		t.Error("the order of equals makes another lane")
	}
	if laneName(r, []dns.Host{a, b}, rules{}) == laneName(r, []dns.Host{a, last}, rules{}) {
		t.Error("another preference is the same lane")
	}
	if laneName(r, []dns.Host{a}, rules{}) == laneName(&Route{Domain: "x.test"}, []dns.Host{a}, rules{}) {
		t.Error("another route is the same lane")
	}
}
