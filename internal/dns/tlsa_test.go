package dns_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"postrider/internal/dns"
)

// TestTLSA has the cases of RFC 7672 sections 2.1.2, 2.2.1 and 2.2.2: which names
// are asked for, and what of it counts.
func TestTLSA(t *testing.T) {
	const digest = "5c1502a6549c423be0a0aa9d9a16904de5ef0f5c98c735fcca79f09230aa7141"
	rr := func(host string) string { return "_25._tcp." + host + ". 60 IN TLSA 3 1 1 " + digest }
	for _, tt := range []struct {
		name      string
		lines     []string
		signed    []string
		untrusted bool
		secure    bool     // of the host
		want      string   // base, or "" where nothing counts
		asked     []string // hosts whose TLSA records are asked for
		fail      string   // name that gives SERVFAIL
		err       bool
	}{
		{name: "plain", lines: []string{"mx.test. 60 IN A 192.0.2.1", rr("mx.test")}, signed: []string{"test"}, secure: true, want: "mx.test", asked: []string{"mx.test"}},
		{name: "no record", lines: []string{"mx.test. 60 IN A 192.0.2.1"}, signed: []string{"test"}, secure: true, asked: []string{"mx.test"}},
		{name: "not signed: not even asked", lines: []string{"mx.test. 60 IN A 192.0.2.1", rr("mx.test")}},
		{name: "resolver not trusted", lines: []string{"mx.test. 60 IN A 192.0.2.1", rr("mx.test")}, signed: []string{"test"}, untrusted: true},
		{name: "records not signed", lines: []string{"mx.test. 60 IN A 192.0.2.1", "_25._tcp.mx.test. 60 IN CNAME dane.other.", "dane.other. 60 IN TLSA 3 1 1 " + digest},
			signed: []string{"test"}, secure: true, asked: []string{"mx.test"}},
		{name: "records by an alias", lines: []string{"mx.test. 60 IN A 192.0.2.1", "_25._tcp.mx.test. 60 IN CNAME dane.other.", "dane.other. 60 IN TLSA 3 1 1 " + digest},
			signed: []string{"test", "other"}, secure: true, want: "mx.test", asked: []string{"mx.test"}},
		{name: "alias, records at its end", lines: []string{"mx.test. 60 IN CNAME end.other.", "end.other. 60 IN A 192.0.2.1", rr("end.other"), rr("mx.test")},
			signed: []string{"test", "other"}, secure: true, want: "end.other", asked: []string{"end.other"}},
		{name: "alias, records at its beginning", lines: []string{"mx.test. 60 IN CNAME end.other.", "end.other. 60 IN A 192.0.2.1", rr("mx.test")},
			signed: []string{"test", "other"}, secure: true, want: "mx.test", asked: []string{"end.other", "mx.test"}},
		{name: "alias out of the signed", lines: []string{"mx.test. 60 IN CNAME end.other.", "end.other. 60 IN A 192.0.2.1", rr("mx.test"), rr("end.other")},
			signed: []string{"test"}, want: "mx.test", asked: []string{"mx.test"}},
		{name: "alias from outside", lines: []string{"mx.test. 60 IN CNAME end.other.", "end.other. 60 IN A 192.0.2.1", rr("mx.test"), rr("end.other")},
			signed: []string{"other"}},
		{name: "SERVFAIL", lines: []string{"mx.test. 60 IN A 192.0.2.1"}, signed: []string{"test"}, secure: true, asked: []string{"mx.test"}, fail: "_25._tcp.mx.test", err: true},
		{name: "SERVFAIL at the alias' end", lines: []string{"mx.test. 60 IN CNAME end.other.", "end.other. 60 IN A 192.0.2.1", rr("mx.test")},
			signed: []string{"test", "other"}, secure: true, asked: []string{"end.other"}, fail: "_25._tcp.end.other", err: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := start(t, tt.lines...)
			s.Sign(tt.signed...)
			if tt.fail != "" {
				s.Fail(tt.fail, mdns.RcodeServerFailure)
			}
			r := resolver(t, time.Second, s.Addr())
			if !tt.untrusted {
				r.Trust()
			}
			h, err := r.Host(t.Context(), "mx.test")
			if err != nil || h.Secure != tt.secure {
				t.Fatalf("host %+v, %v; want secure %v", h, err, tt.secure)
			}
			set, err := r.TLSA(t.Context(), h, 25)
			if (err != nil) != tt.err || set.Base != tt.want || (len(set.Records) > 0) != (tt.want != "") {
				t.Errorf("got %+v, %v; want base %q", set, err, tt.want)
			}
			if len(set.Records) > 0 && set.Records[0].String() != "3 1 1 "+digest {
				t.Errorf("record %s", set.Records[0])
			}
			var asked []string
			for _, host := range []string{"end.other", "mx.test"} {
				if s.Queries("_25._tcp."+host, mdns.TypeTLSA) > 0 {
					asked = append(asked, host)
				}
			}
			if fmt.Sprint(asked) != fmt.Sprint(tt.asked) {
				t.Errorf("asked for %v, want %v", asked, tt.asked)
			}
		})
	}
}

// TestSecure: MX records are validated only where the whole way to them is.
func TestSecure(t *testing.T) {
	lines := []string{"d.test. 60 IN MX 10 mx.other.", "e.test. 60 IN CNAME f.other.", "f.other. 60 IN MX 10 mx.other.", "i.test. 60 IN A 192.0.2.2",
		"mx.other. 60 IN A 192.0.2.1", "mx.other. 60 IN AAAA 2001:db8::1"}
	for _, tt := range []struct {
		signed, domain string
		trusted        bool
		want           string
	}{
		{"test other", "d.test", true, "MX true, host true"},
		{"test other", "d.test", false, "MX false, host false"},
		{"test", "d.test", true, "MX true, host false"},
		{"other", "d.test", true, "MX false, host true"},
		{"test", "e.test", true, "MX false, host false"},
		{"test other", "e.test", true, "MX true, host true"},
		{"test", "i.test", true, "MX true, host true"},
		{"", "i.test", true, "MX false, host false"},
	} {
		s := start(t, lines...)
		s.Sign(strings.Fields(tt.signed)...)
		r := resolver(t, time.Second, s.Addr())
		if tt.trusted {
			r.Trust()
		}
		for range 2 { // the second time from the cache
			m, err := r.Mail(t.Context(), tt.domain)
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprintf("MX %v, host %v", m.Secure, m.Hosts[0].Secure); got != tt.want {
				t.Errorf("%s with %q signed, trusted %v: %s; want %s", tt.domain, tt.signed, tt.trusted, got, tt.want)
			}
		}
	}
}

// TestSecureInPieces: an alias in one response, what it leads to in another.
func TestSecureInPieces(t *testing.T) {
	for first := range 2 {
		for second := range 2 {
			addr := rawServer(t, func(req *mdns.Msg) []*mdns.Msg {
				m := new(mdns.Msg).SetReply(req)
				if req.Question[0].Name == "a.test." {
					m.AuthenticatedData = first == 1
					m.Answer = []mdns.RR{record(t, "a.test. 60 IN CNAME b.test.")}
					m.Ns = []mdns.RR{record(t, "test. 60 IN NS ns.test.")}
				} else {
					m.AuthenticatedData = second == 1
					m.Answer = []mdns.RR{record(t, "b.test. 60 IN A 192.0.2.1")}
				}
				if req.Question[0].Qtype == mdns.TypeAAAA && req.Question[0].Name == "b.test." {
					m.Answer, m.Ns = nil, []mdns.RR{record(t, "test. 60 IN SOA a. b. 1 2 3 4 5")}
				}
				return []*mdns.Msg{m}
			})
			r := resolver(t, time.Second, addr)
			r.Trust()
			h, err := r.Host(t.Context(), "a.test")
			if want := first == 1 && second == 1; err != nil || h.Secure != want || h.Alias != "b.test" {
				t.Errorf("secure %d and %d: %+v, %v; want secure %v", first, second, h, err, want)
			}
		}
	}
}

// TestManyTLSA: a thousand records cost no more than some.
func TestManyTLSA(t *testing.T) {
	s := start(t, "mx.test. 60 IN A 192.0.2.1")
	for i := range 1000 {
		if err := s.Add(fmt.Sprintf("_25._tcp.mx.test. 60 IN TLSA 3 1 1 %064x", i)); err != nil {
			t.Fatal(err)
		}
	}
	s.Sign("test")
	r := resolver(t, time.Second, s.Addr())
	r.Trust()
	set, err := r.TLSA(t.Context(), dns.Host{Name: "mx.test", Secure: true}, 25)
	if err != nil || len(set.Records) != 64 {
		t.Errorf("%d records, %v", len(set.Records), err)
	}
}

// TestUnaskedAD: a server that is not trusted may claim what it likes, also
// without being asked.
func TestUnaskedAD(t *testing.T) {
	for _, trusted := range []bool{false, true} {
		addr := rawServer(t, func(req *mdns.Msg) []*mdns.Msg {
			if opt := req.IsEdns0(); req.AuthenticatedData != trusted || opt == nil || opt.Do() != trusted {
				t.Errorf("trusted %v: asked with AD %v, %v", trusted, req.AuthenticatedData, opt)
			}
			m := new(mdns.Msg).SetReply(req)
			m.AuthenticatedData = true
			m.Ns = []mdns.RR{record(t, "test. 60 IN SOA a. b. 1 2 3 4 5")}
			if req.Question[0].Qtype == mdns.TypeA {
				m.Answer, m.Ns = []mdns.RR{record(t, "mx.test. 60 IN A 192.0.2.1")}, nil
			}
			return []*mdns.Msg{m}
		})
		r := resolver(t, time.Second, addr)
		if trusted {
			r.Trust()
		}
		if h, err := r.Host(t.Context(), "mx.test"); err != nil || h.Secure != trusted {
			t.Errorf("trusted %v: %+v, %v", trusted, h, err)
		}
	}
}
