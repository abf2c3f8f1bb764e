package fakedns_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"postrider/internal/lab/fakedns"
)

func start(t *testing.T, lines ...string) *fakedns.Server {
	t.Helper()
	s, err := fakedns.Start("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if err := s.Add(lines...); err != nil {
		t.Fatal(err)
	}
	return s
}

func ask(t *testing.T, s *fakedns.Server, network, name string, qtype uint16) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	c := dns.Client{Net: network, Timeout: time.Minute}
	r, _, err := c.ExchangeContext(t.Context(), m, s.Addr())
	if err != nil {
		t.Fatalf("%s %s: %v", name, dns.TypeToString[qtype], err)
	}
	return r
}

// brief is an answer in one line: rcode, answers, types in the authority
// section.
func brief(m *dns.Msg) string {
	words := []string{dns.RcodeToString[m.Rcode]}
	for _, rr := range m.Answer {
		words = append(words, strings.Join(strings.Fields(rr.String())[3:], " "))
	}
	for _, rr := range m.Ns {
		words = append(words, fmt.Sprintf("(%s %d)", dns.TypeToString[rr.Header().Rrtype], rr.Header().Ttl))
	}
	return strings.Join(words, "; ")
}

func TestAnswers(t *testing.T) {
	s := start(t,
		"example.test. 60 IN MX 10 mx1.example.test.",
		"mx1.example.test. 60 IN A 192.0.2.1",
		"alias.test. 60 IN CNAME Example.test.",
		"dangling.test. 60 IN CNAME nowhere.test.",
		"a.loop.test. 60 IN CNAME b.loop.test.",
		"b.loop.test. 60 IN CNAME a.loop.test.",
		"*.many.test. 60 IN MX 5 mx.many.test.",
		"soa.test. 30 IN SOA ns.soa.test. root.soa.test. 1 2 3 4 30",
	)
	tests := []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"example.test", dns.TypeMX, "NOERROR; MX 10 mx1.example.test."},
		{"EXAMPLE.test", dns.TypeMX, "NOERROR; MX 10 mx1.example.test."},
		{"example.test", dns.TypeA, "NOERROR; (SOA 5)"},
		{"unknown.test", dns.TypeA, "NXDOMAIN; (SOA 5)"},
		{"test", dns.TypeA, "NOERROR; (SOA 5)"},
		{"alias.test", dns.TypeMX, "NOERROR; CNAME Example.test.; MX 10 mx1.example.test."},
		{"dangling.test", dns.TypeMX, "NXDOMAIN; CNAME nowhere.test.; (SOA 5)"},
		{"a.loop.test", dns.TypeMX, "NOERROR; CNAME b.loop.test.; CNAME a.loop.test."},
		{"c1.many.test", dns.TypeMX, "NOERROR; MX 5 mx.many.test."},
		{"x.y.many.test", dns.TypeMX, "NOERROR; MX 5 mx.many.test."},
		{"x.soa.test", dns.TypeMX, "NXDOMAIN; (SOA 30)"},
	}
	for _, tt := range tests {
		for _, network := range []string{"udp", "tcp"} {
			if got := brief(ask(t, s, network, tt.name, tt.qtype)); got != tt.want {
				t.Errorf("%s %s %s: %s, want %s", network, tt.name, dns.TypeToString[tt.qtype], got, tt.want)
			}
		}
	}
	if n := s.Queries("Example.test.", dns.TypeMX); n != 4 {
		t.Errorf("Queries: %d, want 4", n)
	}
}

func TestChanges(t *testing.T) {
	s := start(t, "example.test. 60 IN MX 10 mx1.example.test.", "example.test. 60 IN A 192.0.2.1")
	steps := []struct {
		what string
		do   func()
		want string
	}{
		{"remove", func() { s.Remove("example.test", dns.TypeMX) }, "NOERROR; (SOA 5)"},
		{"remove all", func() { s.Remove("Example.test.") }, "NXDOMAIN; (SOA 5)"},
		{"add", func() { _ = s.Add("example.test. 60 IN MX 5 mx.test.") }, "NOERROR; MX 5 mx.test."},
		{"fail", func() { s.Fail("example.test", dns.RcodeServerFailure) }, "SERVFAIL"},
		{"restore", func() { s.Restore("example.test") }, "NOERROR; MX 5 mx.test."},
	}
	for _, step := range steps {
		step.do()
		if got := brief(ask(t, s, "udp", "example.test", dns.TypeMX)); got != step.want {
			t.Errorf("after %s: %s, want %s", step.what, got, step.want)
		}
	}
	for _, line := range []string{"nonsense", "", "a.test. 60 IN MX mx.test."} {
		if err := s.Add(line); err == nil {
			t.Errorf("Add(%q): no error", line)
		}
	}
}

func TestTruncate(t *testing.T) {
	s := start(t, "small.test. 60 IN MX 10 mx.test.")
	for i := range 40 {
		if err := s.Add(fmt.Sprintf("big.test. 60 IN MX 10 a-rather-long-name-%d.big.test.", i)); err != nil {
			t.Fatal(err)
		}
	}
	s.Truncate("small.test")
	for name, want := range map[string]int{"small.test": 1, "big.test": 40} {
		if m := ask(t, s, "udp", name, dns.TypeMX); !m.Truncated || len(m.Answer) >= want {
			t.Errorf("%s over UDP: truncated %t with %d answers", name, m.Truncated, len(m.Answer))
		}
		if m := ask(t, s, "tcp", name, dns.TypeMX); m.Truncated || len(m.Answer) != want {
			t.Errorf("%s over TCP: truncated %t with %d answers", name, m.Truncated, len(m.Answer))
		}
	}
}

func TestSilenceAndDelay(t *testing.T) {
	s := start(t, "example.test. 60 IN A 192.0.2.1")
	s.Silence("example.test")
	m := new(dns.Msg).SetQuestion("example.test.", dns.TypeA)
	c := dns.Client{Timeout: 50 * time.Millisecond}
	if r, _, err := c.ExchangeContext(t.Context(), m, s.Addr()); err == nil {
		t.Errorf("answered while silenced: %v", r)
	}
	s.Restore("example.test")
	s.Delay("example.test", 50*time.Millisecond)
	before := time.Now()
	ask(t, s, "udp", "example.test", dns.TypeA)
	if d := time.Since(before); d < 50*time.Millisecond {
		t.Errorf("answered after %v", d)
	}
}

// Close ends a held-back answer and frees the port.
func TestClose(t *testing.T) {
	s := start(t, "example.test. 60 IN A 192.0.2.1")
	s.Delay("example.test", time.Hour)
	conn, err := net.Dial("udp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b, err := new(dns.Msg).SetQuestion("example.test.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
	for s.Queries("example.test", dns.TypeA) == 0 {
		// UDP on loopback: the question is on its way.
	}
	s.Close()
	s.Close()
	again, err := fakedns.Start(s.Addr())
	if err != nil {
		t.Fatalf("start on the same port: %v", err)
	}
	again.Close()
}
