package dns_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	mdns "github.com/miekg/dns"

	"postrider/internal/dns"
	"postrider/internal/lab/fakedns"
)

// waitFor waits for a fact that needs no clock: packets on loopback.
func waitFor(t *testing.T, fact func() bool) {
	t.Helper()
	for began := time.Now(); !fact(); runtime.Gosched() {
		if time.Since(began) > time.Minute {
			t.Fatal("waited for a minute in vain")
		}
	}
}

func record(t *testing.T, line string) mdns.RR {
	rr, err := mdns.NewRR(line)
	if err != nil {
		t.Error(err)
	}
	return rr
}

// rawServer sends over UDP whatever reply makes of a question, one message
// after the other; a nil one is sent as two bytes of nonsense.
func rawServer(t *testing.T, reply func(*mdns.Msg) []*mdns.Msg) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { pc.Close(); wg.Wait() })
	wg.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			req := new(mdns.Msg)
			if err := req.Unpack(buf[:n]); err != nil {
				t.Error(err)
				return
			}
			for _, m := range reply(req) {
				b := []byte("??")
				if m != nil {
					if b, err = m.Pack(); err != nil {
						t.Error(err)
					}
				}
				if _, err := pc.WriteTo(b, from); err != nil {
					return
				}
			}
		}
	})
	return pc.LocalAddr().String()
}

func TestTruncated(t *testing.T) {
	s := start(t, "example.test. 60 IN MX 10 mx.example.test.", "mx.example.test. 60 IN A 192.0.2.1")
	for i := range 60 { // more than fits into 1232 bytes
		if err := s.Add(fmt.Sprintf("big.test. 60 IN MX 10 a-rather-long-name-of-a-host-%d.big.test.", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Add("*.big.test. 60 IN A 192.0.2.1"); err != nil {
		t.Fatal(err)
	}
	s.Truncate("example.test")
	r := resolver(t, 0, s.Addr())
	for domain, want := range map[string]int{"example.test": 1, "big.test": 20} {
		m, err := r.Mail(t.Context(), domain)
		if err != nil || len(m.Hosts) != want {
			t.Errorf("Mail(%s): %v, %v", domain, m, err)
		}
		if n := s.Queries(domain, mdns.TypeMX); n != 2 {
			t.Errorf("%s: asked %d times, want once over UDP and once over TCP", domain, n)
		}
	}
}

// A server whose TCP port is shut serves no truncated answers.
func TestTruncatedWithoutTCP(t *testing.T) {
	srv := rawServer(t, func(req *mdns.Msg) []*mdns.Msg {
		m := new(mdns.Msg).SetReply(req)
		m.Truncated = true
		m.Answer = []mdns.RR{record(t, "example.test. 60 IN MX 10 mx.example.test.")}
		return []*mdns.Msg{m}
	})
	_, err := resolver(t, time.Second, srv).Mail(t.Context(), "example.test")
	if e, ok := errors.AsType[*dns.Error](err); !ok || e.Kind != dns.Temporary || !strings.Contains(e.Text, "connection refused") {
		t.Errorf("Mail: %v", err)
	}
}

// What does not answer the question is passed over: the true answer follows.
func TestForged(t *testing.T) {
	forge := func(change func(*mdns.Msg)) func(*mdns.Msg) *mdns.Msg {
		return func(req *mdns.Msg) *mdns.Msg {
			m := new(mdns.Msg).SetReply(req)
			m.Answer = []mdns.RR{record(t, "example.test. 60 IN A 192.0.2.66"), record(t, "other.test. 60 IN A 192.0.2.66")}
			change(m)
			return m
		}
	}
	forgeries := map[string]func(*mdns.Msg) *mdns.Msg{
		"id":           forge(func(m *mdns.Msg) { m.Id++ }),
		"name":         forge(func(m *mdns.Msg) { m.Question[0].Name = "other.test." }),
		"type":         forge(func(m *mdns.Msg) { m.Question[0].Qtype = mdns.TypeTXT }),
		"class":        forge(func(m *mdns.Msg) { m.Question[0].Qclass = mdns.ClassCHAOS }),
		"question":     forge(func(m *mdns.Msg) { m.Response = false }),
		"opcode":       forge(func(m *mdns.Msg) { m.Opcode = mdns.OpcodeNotify }),
		"no question":  forge(func(m *mdns.Msg) { m.Question = nil }),
		"cut, id":      forge(func(m *mdns.Msg) { m.Id++; m.Truncated = true }),
		"nonsense":     func(*mdns.Msg) *mdns.Msg { return nil },
		"other record": forge(func(m *mdns.Msg) { m.Id++; m.Answer = nil }),
	}
	for name, f := range forgeries {
		t.Run(name, func(t *testing.T) {
			srv := rawServer(t, func(req *mdns.Msg) []*mdns.Msg {
				m := new(mdns.Msg).SetReply(req)
				if req.Question[0].Qtype == mdns.TypeA {
					// Records of other names are none of our business.
					m.Answer = []mdns.RR{record(t, "other.test. 60 IN A 192.0.2.66"), record(t, "EXAMPLE.test. 60 IN A 192.0.2.1")}
				}
				return []*mdns.Msg{f(req), m}
			})
			got, err := resolver(t, 0, srv).Addrs(t.Context(), "example.test")
			if err != nil || fmt.Sprint(got) != "[192.0.2.1]" {
				t.Errorf("Addrs: %v, %v", got, err)
			}
		})
	}
}

func TestOddServers(t *testing.T) {
	answer := func(line string) func(*mdns.Msg) {
		return func(m *mdns.Msg) {
			rr := record(t, line)
			if m.Question[0].Name == rr.Header().Name && m.Question[0].Qtype == rr.Header().Rrtype {
				m.Answer = append(m.Answer, rr)
			}
		}
	}
	tests := []struct {
		name  string
		reply func(req, m *mdns.Msg)
		want  string // addresses of example.test, or a part of the error
	}{
		{"no EDNS", func(req, m *mdns.Msg) {
			if req.IsEdns0() != nil {
				m.Rcode, m.Question = mdns.RcodeFormatError, nil
				return
			}
			answer("example.test. 60 IN A 192.0.2.1")(m)
		}, "[192.0.2.1]"},
		{"chain link by link", func(req, m *mdns.Msg) {
			switch req.Question[0].Name {
			case "example.test.":
				m.Answer = []mdns.RR{record(t, "example.test. 60 IN CNAME b.test.")}
			case "b.test.":
				m.Answer = []mdns.RR{record(t, "b.test. 60 IN CNAME c.test.")}
			default:
				answer("c.test. 60 IN A 192.0.2.1")(m)
			}
		}, "[192.0.2.1]"},
		{"endless chain link by link", func(req, m *mdns.Msg) {
			name := req.Question[0].Name
			m.Answer = []mdns.RR{record(t, name+" 60 IN CNAME x"+name)}
		}, "too long"},
		{"referral", func(_, m *mdns.Msg) {
			m.Ns = []mdns.RR{record(t, "test. 60 IN NS ns.test.")}
		}, "a referral instead of an answer"},
		{"NODATA without SOA", func(_, _ *mdns.Msg) {}, "has no address"},
		{"NXDOMAIN for AAAA", func(req, m *mdns.Msg) {
			if answer("example.test. 60 IN A 192.0.2.1")(m); len(m.Answer) == 0 {
				m.Rcode = mdns.RcodeNameError
			}
		}, "[192.0.2.1]"},
		{"NXDOMAIN for AAAA, NODATA for A", func(req, m *mdns.Msg) {
			if req.Question[0].Qtype == mdns.TypeAAAA {
				m.Rcode = mdns.RcodeNameError
			}
		}, "has no address"},
		{"unknown rcode", func(_, m *mdns.Msg) { m.Rcode = 12 }, "RCODE 12"},
		{"failure without question", func(_, m *mdns.Msg) {
			m.Rcode, m.Question = mdns.RcodeServerFailure, nil
		}, "SERVFAIL"},
		{"wrong class", func(_, m *mdns.Msg) {
			m.Answer = []mdns.RR{record(t, "example.test. 60 CH A 192.0.2.66")}
		}, "has no address"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := rawServer(t, func(req *mdns.Msg) []*mdns.Msg {
				m := new(mdns.Msg).SetReply(req)
				tt.reply(req, m)
				return []*mdns.Msg{m}
			})
			got, err := resolver(t, 0, srv).Addrs(t.Context(), "example.test")
			if s := fmt.Sprint(got, err); !strings.Contains(s, tt.want) {
				t.Errorf("Addrs: %s, want %s", s, tt.want)
			}
		})
	}
}

// What a server does not say is not believed for long; what it says in pieces,
// as long as the shortest piece.
func TestExpiryOddServers(t *testing.T) {
	tests := map[string]struct {
		lines map[string]string // by question
		want  time.Duration
	}{
		"no SOA": {map[string]string{
			"d.test. A": "d.test. 3600 IN A 192.0.2.1",
		}, 5 * time.Second},
		"chain link by link, last link shortest": {map[string]string{
			"d.test. A":     "d.test. 3600 IN A 192.0.2.1",
			"d.test. MX":    "d.test. 3600 IN MX 10 d.test.",
			"d.test. AAAA":  "d.test. 3600 IN CNAME d2.test.",
			"d2.test. AAAA": "d2.test. 20 IN AAAA 2001:db8::1",
		}, 20 * time.Second},
		"chain link by link, first link shortest": {map[string]string{
			"d.test. MX":     "d.test. 20 IN CNAME e.test.",
			"e.test. MX":     "e.test. 3600 IN MX 10 mx.test.",
			"mx.test. A":     "mx.test. 3600 IN A 192.0.2.1",
			"mx.test. AAAA":  "mx.test. 3600 IN CNAME mx2.test.",
			"mx2.test. AAAA": "mx2.test. 3600 IN AAAA 2001:db8::1",
		}, 20 * time.Second},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			srv := rawServer(t, func(req *mdns.Msg) []*mdns.Msg {
				m := new(mdns.Msg).SetReply(req)
				q := req.Question[0]
				if line, ok := tt.lines[q.Name+" "+mdns.TypeToString[q.Qtype]]; ok {
					m.Answer = []mdns.RR{record(t, line)}
				}
				return []*mdns.Msg{m}
			})
			before := time.Now()
			m, err := resolver(t, 0, srv).Mail(t.Context(), "d.test")
			if err != nil || m.Expires.Before(before.Add(tt.want)) || m.Expires.After(time.Now().Add(tt.want)) {
				t.Errorf("Mail: %+v, %v, want to expire after %v", m, err, tt.want)
			}
		})
	}
}

func TestTwoServers(t *testing.T) {
	lines := []string{"example.test. 60 IN A 192.0.2.1", "two.test. 60 IN A 192.0.2.2"}
	dead, err := fakedns.Start("")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	silent := start(t)
	silent.Silence("example.test")
	silent.Silence("two.test")
	failing := start(t)
	failing.Fail("example.test", mdns.RcodeServerFailure)
	failing.Fail("two.test", mdns.RcodeRefused)

	for name, first := range map[string]string{"dead": dead.Addr(), "silent": silent.Addr(), "failing": failing.Addr()} {
		t.Run(name, func(t *testing.T) {
			good := start(t, lines...)
			r := resolver(t, time.Second, first, good.Addr())
			for _, host := range []string{"example.test", "two.test"} {
				if _, err := r.Addrs(t.Context(), host); err != nil {
					t.Errorf("Addrs(%s): %v", host, err)
				}
			}
		})
	}
	// The one that was of use is asked first from then on.
	for name, s := range map[string]*fakedns.Server{"silent": silent, "failing": failing} {
		if n := s.Queries("two.test", mdns.TypeA); n != 0 {
			t.Errorf("the %s server was asked %d times again", name, n)
		}
	}

	t.Run("none", func(t *testing.T) {
		r := resolver(t, time.Second, dead.Addr(), failing.Addr(), silent.Addr())
		_, err := r.Mail(t.Context(), "example.test")
		e, ok := errors.AsType[*dns.Error](err)
		if !ok || e.Kind != dns.Temporary {
			t.Fatalf("Mail: %v", err)
		}
		for _, want := range []string{"SERVFAIL from " + failing.Addr(), "connection refused from " + dead.Addr(), "no answer within 1s from " + silent.Addr()} {
			if !strings.Contains(e.Text, want) {
				t.Errorf("%q is not in %q", want, e.Text)
			}
		}
		// What was said is final, what was not may have been lost.
		if n := failing.Queries("example.test", mdns.TypeMX); n != 1 {
			t.Errorf("the failing server was asked %d times", n)
		}
		if n := silent.Queries("example.test", mdns.TypeMX); n != 2 {
			t.Errorf("the silent server was asked %d times", n)
		}
	})
}

// In the bubble time.Sleep moves only the resolver's clock; the server and its
// sockets are outside.
func TestExpiry(t *testing.T) {
	tests := []struct {
		name   string
		lines  []string
		fail   bool
		keep   time.Duration // is in the cache until then
		expiry time.Duration // MailHosts.Expires; 0: an error
	}{
		{"MX", []string{"d.test. 60 IN MX 10 mx.test.", "mx.test. 90 IN A 192.0.2.1", "mx.test. 90 IN AAAA 2001:db8::1"}, false, time.Minute, time.Minute},
		{"address before MX", []string{"d.test. 60 IN MX 10 mx.test.", "mx.test. 30 IN A 192.0.2.1", "mx.test. 90 IN AAAA 2001:db8::1"}, false, time.Minute, 30 * time.Second},
		{"alias", []string{"d.test. 20 IN CNAME e.test.", "e.test. 60 IN MX 10 mx.test.", "mx.test. 90 IN A 192.0.2.1", "mx.test. 90 IN AAAA 2001:db8::1"}, false, 20 * time.Second, 20 * time.Second},
		{"negative AAAA", []string{"d.test. 60 IN MX 10 mx.test.", "mx.test. 90 IN A 192.0.2.1", "test. 40 IN SOA a. b. 1 2 3 4 50"}, false, time.Minute, 40 * time.Second},
		{"implicit", []string{"d.test. 60 IN A 192.0.2.1", "test. 50 IN SOA a. b. 1 2 3 4 30"}, false, 30 * time.Second, 30 * time.Second},
		{"implicit, address before MX", []string{"d.test. 10 IN A 192.0.2.1", "test. 50 IN SOA a. b. 1 2 3 4 30"}, false, 30 * time.Second, 10 * time.Second},
		{"floor", []string{"d.test. 0 IN MX 10 mx.test.", "mx.test. 90 IN A 192.0.2.1", "mx.test. 90 IN AAAA 2001:db8::1"}, false, 5 * time.Second, 5 * time.Second},
		{"cap", []string{"d.test. 1000000 IN MX 10 mx.test.", "mx.test. 1000000 IN A 192.0.2.1", "mx.test. 1000000 IN AAAA 2001:db8::1"}, false, 24 * time.Hour, 24 * time.Hour},
		{"top bit", []string{"d.test. 4294967295 IN MX 10 mx.test.", "mx.test. 90 IN A 192.0.2.1", "mx.test. 90 IN AAAA 2001:db8::1"}, false, 5 * time.Second, 5 * time.Second},
		{"host unknown for now", []string{"d.test. 3600 IN MX 10 mx.test.", "d.test. 3600 IN MX 10 sick.test.", "mx.test. 3600 IN A 192.0.2.1", "mx.test. 3600 IN AAAA 2001:db8::1"}, false, time.Hour, time.Minute},
		{"NXDOMAIN", []string{"test. 90 IN SOA a. b. 1 2 3 4 80"}, false, 80 * time.Second, 0},
		{"NXDOMAIN, cap", []string{"test. 90000 IN SOA a. b. 1 2 3 4 90000"}, false, time.Hour, 0},
		{"failure", nil, true, time.Second, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := start(t, tt.lines...)
			s.Fail("sick.test", mdns.RcodeServerFailure)
			if tt.fail {
				s.Fail("d.test", mdns.RcodeServerFailure)
			}
			addr := s.Addr()
			synctest.Test(t, func(t *testing.T) {
				r := resolver(t, 0, addr)
				ask := func(want int) *dns.MailHosts {
					t.Helper()
					m, _ := r.Mail(t.Context(), "d.test")
					if n := s.Queries("d.test", mdns.TypeMX); n != want {
						t.Errorf("asked %d times, want %d", n, want)
					}
					return m
				}
				m := ask(1)
				if tt.expiry == 0 && m != nil {
					t.Errorf("Mail: %v", m)
				} else if tt.expiry != 0 && (m == nil || !m.Expires.Equal(time.Now().Add(tt.expiry))) {
					t.Errorf("Mail: %v, want to expire %v from now", m, tt.expiry)
				}
				time.Sleep(tt.keep - time.Nanosecond)
				ask(1)
				time.Sleep(time.Nanosecond)
				ask(2)
			})
		})
	}
}

func TestSingleFlight(t *testing.T) {
	s := start(t, "example.test. 60 IN MX 10 mx.example.test.", "mx.example.test. 60 IN A 192.0.2.1")
	s.Delay("example.test", 50*time.Millisecond)
	r := resolver(t, 0, s.Addr())
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := r.Mail(t.Context(), "example.test"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := s.Queries("example.test", mdns.TypeMX); n != 1 {
		t.Errorf("asked %d times for the MX set", n)
	}
	if n := s.Queries("mx.example.test", mdns.TypeA); n != 1 {
		t.Errorf("asked %d times for the address", n)
	}
}

// The one who asks for all gives up: another takes its place.
func TestSingleFlightCancelled(t *testing.T) {
	s := start(t, "example.test. 60 IN MX 10 mx.example.test.", "mx.example.test. 60 IN A 192.0.2.1")
	s.Silence("example.test")
	r := resolver(t, time.Minute, s.Addr())
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := r.Mail(ctx, "example.test"); !errors.Is(err, context.Canceled) {
			t.Errorf("the cancelled one: %v", err)
		}
	})
	waitFor(t, func() bool { return s.Queries("example.test", mdns.TypeMX) == 1 })
	for range 20 {
		wg.Go(func() {
			if _, err := r.Mail(t.Context(), "example.test"); err != nil {
				t.Errorf("another one: %v", err)
			}
		})
	}
	s.Restore("example.test")
	cancel()
	wg.Wait()
	if n := s.Queries("example.test", mdns.TypeMX); n != 2 {
		t.Errorf("asked %d times, want twice", n)
	}
}

func TestNew(t *testing.T) {
	for _, s := range []string{"127.0.0.1", "127.0.0.1:5353", "::1", "[::1]:53", "fe80::1%lo"} {
		if _, err := dns.New([]string{s}, 0); err != nil {
			t.Errorf("New(%q): %v", s, err)
		}
	}
	for _, s := range []string{"", "localhost", "localhost:53", "127.0.0.1:", "127.0.0.1:dns", "[::1]", "127.0.0.1:70000"} {
		if _, err := dns.New([]string{s}, 0); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", s)) {
			t.Errorf("New(%q): %v", s, err)
		}
	}
}
