package dns_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"postrider/internal/dns"
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

func resolver(t *testing.T, timeout time.Duration, servers ...string) *dns.Resolver {
	t.Helper()
	r, err := dns.New(servers, timeout)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// describe is a result in one line; equal preferences are put in order.
func describe(m *dns.MailHosts) string {
	var b strings.Builder
	hosts := slices.Clone(m.Hosts)
	slices.SortStableFunc(hosts, func(a, b dns.Host) int {
		if a.Pref != b.Pref {
			return 0
		}
		return strings.Compare(a.Name, b.Name)
	})
	for _, h := range hosts {
		addrs := slices.Clone(h.Addrs)
		slices.SortFunc(addrs, netip.Addr.Compare)
		fmt.Fprintf(&b, "%d %s %v; ", h.Pref, h.Name, addrs)
	}
	for _, s := range m.Skipped {
		e, _ := errors.AsType[*dns.Error](s.Err)
		fmt.Fprintf(&b, "skip %d %s %v; ", s.Pref, s.Name, e.Kind)
	}
	if m.Implicit {
		b.WriteString("implicit; ")
	}
	return b.String() + "site " + m.Site
}

var zone = []string{
	"example.test. 60 IN MX 20 mx2.example.test.",
	"example.test. 60 IN MX 10 mx1.example.test.",
	"example.test. 60 IN A 192.0.2.99",
	"mx1.example.test. 60 IN A 192.0.2.1",
	"mx1.example.test. 60 IN AAAA 2001:db8::1",
	"mx2.example.test. 60 IN A 192.0.2.2",

	"bare.test. 60 IN A 192.0.2.3",
	"six.test. 60 IN AAAA 2001:db8::3",
	"alias.test. 60 IN CNAME alias2.test.",
	"alias2.test. 60 IN CNAME example.test.",
	"barealias.test. 60 IN CNAME bare.test.",
	"dangling.test. 60 IN CNAME nowhere.test.",
	"loop.test. 60 IN CNAME loop2.test.",
	"loop2.test. 60 IN CNAME loop.test.",

	"null.test. 60 IN MX 0 .",
	"null.test. 60 IN A 192.0.2.99",
	"nullamong.test. 60 IN MX 0 .",
	"nullamong.test. 60 IN MX 10 mx1.example.test.",
	"text.test. 60 IN TXT \"no host here\"",

	"cnamemx.test. 60 IN MX 10 mxalias.test.",
	"mxalias.test. 60 IN CNAME mx1.example.test.",
	"literal.test. 60 IN MX 10 192.0.2.7.",
	"literal.test. 60 IN MX 20 mx2.example.test.",
	"odd.test. 60 IN MX 10 a\\032b.test.",
	"odd.test. 60 IN MX 20 mx2.example.test.",
	"allliteral.test. 60 IN MX 10 192.0.2.7.",
	"allliteral.test. 60 IN A 192.0.2.99",
	"partly.test. 60 IN MX 10 nowhere.test.",
	"partly.test. 60 IN MX 15 text.test.",
	"partly.test. 60 IN MX 20 mx2.example.test.",
	"lost.test. 60 IN MX 10 nowhere.test.",
	"lost.test. 60 IN MX 20 text.test.",
	"twice.test. 60 IN MX 20 MX2.example.test.",
	"twice.test. 60 IN MX 10 mx2.EXAMPLE.test.",
	"mapped.test. 60 IN AAAA ::ffff:127.0.0.1",
	"sick.test. 60 IN MX 10 sickhost.test.",
	"halfsick.test. 60 IN MX 10 sickhost.test.",
	"halfsick.test. 60 IN MX 20 mx2.example.test.",
	"sickhost.test. 60 IN A 192.0.2.8",
}

func TestMail(t *testing.T) {
	s := start(t, zone...)
	s.Fail("sickhost.test", mdns.RcodeServerFailure)
	long := chain(t, s, "eight", 8)
	r := resolver(t, 0, s.Addr())
	tests := []struct{ domain, want string }{
		{"example.test", "10 mx1.example.test [192.0.2.1 2001:db8::1]; 20 mx2.example.test [192.0.2.2]; site example.test"},
		{"Example.TEST.", "10 mx1.example.test [192.0.2.1 2001:db8::1]; 20 mx2.example.test [192.0.2.2]; site example.test"},
		{"bare.test", "0 bare.test [192.0.2.3]; implicit; site bare.test"},
		{"six.test", "0 six.test [2001:db8::3]; implicit; site six.test"},
		{"alias.test", "10 mx1.example.test [192.0.2.1 2001:db8::1]; 20 mx2.example.test [192.0.2.2]; site example.test"},
		{"barealias.test", "0 bare.test [192.0.2.3]; implicit; site bare.test"},
		{long, "10 mx1.example.test [192.0.2.1 2001:db8::1]; 20 mx2.example.test [192.0.2.2]; site example.test"},
		{"nullamong.test", "10 mx1.example.test [192.0.2.1 2001:db8::1]; skip 0 . not-found; site example.test"},
		{"cnamemx.test", "10 mxalias.test [192.0.2.1 2001:db8::1]; site mxalias.test"},
		{"literal.test", "20 mx2.example.test [192.0.2.2]; skip 10 192.0.2.7 not-found; site example.test"},
		{"odd.test", `20 mx2.example.test [192.0.2.2]; skip 10 a\ b.test not-found; site example.test`},
		{"partly.test", "20 mx2.example.test [192.0.2.2]; skip 10 nowhere.test not-found; skip 15 text.test no-address; site nowhere.test"},
		{"twice.test", "10 mx2.example.test [192.0.2.2]; site example.test"},
		{"mapped.test", "0 mapped.test [127.0.0.1]; implicit; site mapped.test"},
		{"halfsick.test", "20 mx2.example.test [192.0.2.2]; skip 10 sickhost.test temporary; site sickhost.test"},
	}
	for _, tt := range tests {
		m, err := r.Mail(t.Context(), tt.domain)
		if err != nil {
			t.Errorf("Mail(%q): %v", tt.domain, err)
			continue
		}
		if got := describe(m); got != tt.want {
			t.Errorf("Mail(%q):\n got %s\nwant %s", tt.domain, got, tt.want)
		}
		if want := strings.ToLower(strings.TrimSuffix(tt.domain, ".")); m.Domain != want {
			t.Errorf("Mail(%q): Domain %q, want %q", tt.domain, m.Domain, want)
		}
	}
	// The address of a domain that has MX records is never asked for.
	for _, name := range []string{"example.test", "null.test", "allliteral.test"} {
		if n := s.Queries(name, mdns.TypeA); n != 0 {
			t.Errorf("%s A was asked for %d times", name, n)
		}
	}
}

// chain adds a chain of n aliases that ends at example.test.
func chain(t *testing.T, s *fakedns.Server, name string, n int) string {
	t.Helper()
	for i := range n {
		to := fmt.Sprintf("%s%d.test.", name, i+1)
		if i == n-1 {
			to = "example.test."
		}
		if err := s.Add(fmt.Sprintf("%s%d.test. 60 IN CNAME %s", name, i, to)); err != nil {
			t.Fatal(err)
		}
	}
	return name + "0.test"
}

func TestMailErrors(t *testing.T) {
	s := start(t, zone...)
	s.Fail("broken.test", mdns.RcodeServerFailure)
	s.Fail("refused.test", mdns.RcodeRefused)
	s.Fail("sickhost.test", mdns.RcodeServerFailure)
	s.Silence("silent.test")
	long := chain(t, s, "nine", 9)
	patient, hasty := resolver(t, 0, s.Addr()), resolver(t, 50*time.Millisecond, s.Addr())
	from := s.Addr()
	tests := []struct {
		domain string
		kind   dns.Kind
		text   string
	}{
		{"unknown.test", dns.NotFound, "The domain unknown.test does not exist (NXDOMAIN from " + from + ")."},
		{"dangling.test", dns.NotFound, "The domain dangling.test is an alias (CNAME) of nowhere.test, which does not exist (NXDOMAIN from " + from + ")."},
		{"null.test", dns.NullMX, "The domain null.test takes no mail: it has a null MX record (from " + from + ")."},
		{"text.test", dns.NoAddress, "The domain text.test has neither mail servers (MX) nor an address (says " + from + ")."},
		{"allliteral.test", dns.NoAddress, `None of the mail servers of allliteral.test can be found. "192.0.2.7" is not the name of a host or domain.`},
		{"lost.test", dns.NoAddress, "None of the mail servers of lost.test can be found. " +
			"The host nowhere.test does not exist (NXDOMAIN from " + from + "). The host text.test has no address (says " + from + ")."},
		{"sick.test", dns.Temporary, "None of the mail servers of sick.test can be found. " +
			"The addresses of sickhost.test could not be looked up (SERVFAIL from " + from + ")."},
		{"broken.test", dns.Temporary, "The mail servers of broken.test could not be looked up (SERVFAIL from " + from + ")."},
		{"refused.test", dns.Temporary, "The mail servers of refused.test could not be looked up (REFUSED from " + from + ")."},
		{"silent.test", dns.Temporary, "The mail servers of silent.test could not be looked up (no answer within 50ms from " + from + ")."},
		{"loop.test", dns.Temporary, "The mail servers of loop.test could not be looked up (the chain of aliases (CNAME) loops or is too long from " + from + ")."},
		{long, dns.Temporary, "The mail servers of nine0.test could not be looked up (the chain of aliases (CNAME) loops or is too long from " + from + ")."},
		{"", dns.NotFound, `"" is not the name of a host or domain.`},
		{".", dns.NotFound, `"." is not the name of a host or domain.`},
		{"a..test", dns.NotFound, `"a..test" is not the name of a host or domain.`},
		{"a b.test", dns.NotFound, `"a b.test" is not the name of a host or domain.`},
		{"bücher.test", dns.NotFound, `"bücher.test" is not the name of a host or domain.`},
		{"192.0.2.1", dns.NotFound, `"192.0.2.1" is not the name of a host or domain.`},
		{"[192.0.2.1]", dns.NotFound, `"[192.0.2.1]" is not the name of a host or domain.`},
		{strings.Repeat("a", 64) + ".test", dns.NotFound, `"` + strings.Repeat("a", 64) + `.test" is not the name of a host or domain.`},
		{strings.Repeat("a.", 125) + "test", dns.NotFound, `"` + strings.Repeat("a.", 125) + `test" is not the name of a host or domain.`},
	}
	for _, tt := range tests {
		r := patient
		if tt.domain == "silent.test" {
			r = hasty
		}
		m, err := r.Mail(t.Context(), tt.domain)
		e, ok := errors.AsType[*dns.Error](err)
		if !ok {
			t.Errorf("Mail(%q): %v, %v, want a *dns.Error", tt.domain, m, err)
			continue
		}
		if e.Kind != tt.kind || e.Text != tt.text {
			t.Errorf("Mail(%q):\n got %v: %s\nwant %v: %s", tt.domain, e.Kind, e.Text, tt.kind, tt.text)
		}
		if e.Name != strings.TrimSuffix(tt.domain, ".") && tt.domain != "." {
			t.Errorf("Mail(%q): Name %q", tt.domain, e.Name)
		}
	}
}

func TestAddrs(t *testing.T) {
	s := start(t,
		"both.test. 60 IN A 192.0.2.1",
		"both.test. 60 IN A 192.0.2.2",
		"both.test. 60 IN A 192.0.2.3",
		"both.test. 60 IN AAAA 2001:db8::1",
		"alias.test. 60 IN CNAME four.test.",
		"four.test. 60 IN A 192.0.2.4",
	)
	r := resolver(t, 0, s.Addr())
	first := make(map[netip.Addr]bool)
	for range 100 {
		got, err := r.Addrs(t.Context(), "both.test")
		if err != nil {
			t.Fatal(err)
		}
		var families string
		for _, a := range got {
			if a.Is4() {
				families += "4"
			} else {
				families += "6"
			}
		}
		if families != "6444" {
			t.Fatalf("order of families: %s, want 6444", families)
		}
		first[got[1]] = true
	}
	if len(first) != 3 {
		t.Errorf("the first IPv4 address is always one of %v", first)
	}
	for host, want := range map[string]string{
		"alias.test":       "[192.0.2.4]",
		"192.0.2.7":        "[192.0.2.7]",
		"2001:db8::7":      "[2001:db8::7]",
		"::ffff:192.0.2.7": "[192.0.2.7]",
	} {
		got, err := r.Addrs(t.Context(), host)
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("Addrs(%q): %v, %v, want %s", host, got, err, want)
		}
	}
	_, err := r.Addrs(t.Context(), "unknown.test")
	if e, ok := errors.AsType[*dns.Error](err); !ok || e.Kind != dns.NotFound {
		t.Errorf("Addrs of an unknown host: %v", err)
	}
}

// One family is enough, be it that the question for the other fails.
func TestOneFamilyFails(t *testing.T) {
	srv := rawServer(t, func(req *mdns.Msg) []*mdns.Msg {
		m := new(mdns.Msg).SetReply(req)
		if req.Question[0].Qtype == mdns.TypeA {
			m.Answer = []mdns.RR{record(t, "host.test. 3600 IN A 192.0.2.1")}
		} else {
			m.Rcode = mdns.RcodeServerFailure
		}
		return []*mdns.Msg{m}
	})
	got, err := resolver(t, 0, srv).Addrs(t.Context(), "host.test")
	if err != nil || len(got) != 1 {
		t.Errorf("Addrs: %v, %v", got, err)
	}
}

func TestShuffle(t *testing.T) {
	s := start(t,
		"example.test. 60 IN MX 10 a.example.test.",
		"example.test. 60 IN MX 10 b.example.test.",
		"example.test. 60 IN MX 10 c.example.test.",
		"example.test. 60 IN MX 5 z.example.test.",
		"example.test. 60 IN MX 20 d.example.test.",
		"*.example.test. 60 IN A 192.0.2.1",
	)
	r := resolver(t, 0, s.Addr())
	orders := make(map[string]int)
	for range 300 {
		m, err := r.Mail(t.Context(), "example.test")
		if err != nil {
			t.Fatal(err)
		}
		var order string
		for _, h := range m.Hosts {
			order += h.Name[:1]
		}
		orders[order]++
	}
	for _, want := range []string{"zabcd", "zacbd", "zbacd", "zbcad", "zcabd", "zcbad"} {
		if orders[want] == 0 {
			t.Errorf("order %s never came up in %v", want, orders)
		}
	}
	if len(orders) != 6 {
		t.Errorf("orders: %v", orders)
	}
	if n := s.Queries("example.test", mdns.TypeMX); n != 1 {
		t.Errorf("asked %d times for the MX set", n)
	}
}

func TestSite(t *testing.T) {
	s := start(t,
		"gmail.test. 60 IN MX 5 gmail-smtp-in.l.google.com.",
		"gmail.test. 60 IN MX 10 alt1.gmail-smtp-in.l.google.com.",
		"workspace.test. 60 IN MX 1 aspmx.l.google.com.",
		"workspace.test. 60 IN MX 5 alt1.aspmx.l.google.com.",
		"workspace.test. 60 IN MX 10 aspmx2.googlemail.com.",
		"contoso.test. 60 IN MX 0 contoso-test.mail.protection.outlook.com.",
		"british.test. 60 IN MX 0 mx.example.co.uk.",
		"pair.test. 60 IN MX 10 mx.two.example.",
		"pair.test. 60 IN MX 10 mx.one.example.",
		"pair.test. 60 IN MX 10 mx2.one.example.",
		"tenant.test. 60 IN MX 10 ec2-192-0-2-1.compute-1.amazonaws.com.",
		"suffix.test. 60 IN MX 10 mailhost.",
		"partly.test. 60 IN MX 10 192.0.2.1.",
		"partly.test. 60 IN MX 20 mx.one.example.",
		"*.google.com. 60 IN A 192.0.2.1", "*.googlemail.com. 60 IN A 192.0.2.1",
		"*.outlook.com. 60 IN A 192.0.2.1", "*.co.uk. 60 IN A 192.0.2.1",
		"*.example. 60 IN A 192.0.2.1", "*.amazonaws.com. 60 IN A 192.0.2.1",
		"mailhost. 60 IN A 192.0.2.1",
	)
	r := resolver(t, 0, s.Addr())
	for domain, want := range map[string]string{
		"gmail.test":     "google.com",
		"workspace.test": "google.com",
		"contoso.test":   "outlook.com",
		"british.test":   "example.co.uk",
		"pair.test":      "one.example+two.example",
		"tenant.test":    "ec2-192-0-2-1.compute-1.amazonaws.com",
		"suffix.test":    "mailhost",
		"partly.test":    "one.example",
	} {
		m, err := r.Mail(t.Context(), domain)
		if err != nil || m.Site != want {
			t.Errorf("%s: %+v, %v, want site %s", domain, m, err, want)
		}
	}
}

// A domain with very many MX records costs a bounded number of questions, a
// host with very many addresses a bounded number of tries.
func TestManyHosts(t *testing.T) {
	s := start(t, "*.many.test. 60 IN A 192.0.2.1")
	for i := range 200 {
		if err := s.Add(fmt.Sprintf("many.test. 60 IN MX %d mx%d.many.test.", 200-i, 200-i)); err != nil {
			t.Fatal(err)
		}
	}
	m, err := resolver(t, 0, s.Addr()).Mail(t.Context(), "many.test")
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Hosts) != 20 || m.Hosts[0].Name != "mx1.many.test" || m.Hosts[19].Name != "mx20.many.test" {
		t.Errorf("%d hosts: %v", len(m.Hosts), m.Hosts)
	}
	if n := s.Queries("mx21.many.test", mdns.TypeA); n != 0 {
		t.Errorf("the 21st host was looked up")
	}
	for i := range 50 {
		if err := s.Add(fmt.Sprintf("wide.test. 60 IN A 192.0.2.%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if addrs, err := resolver(t, 0, s.Addr()).Addrs(t.Context(), "wide.test"); err != nil || len(addrs) != 16 {
		t.Errorf("Addrs: %v, %v, want 16", addrs, err)
	}
}

// A context that ends is seen at once, and known by its error.
func TestContext(t *testing.T) {
	s := start(t)
	s.Silence("silent.test")
	r := resolver(t, time.Minute, s.Addr())
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan error)
	go func() {
		_, err := r.Mail(ctx, "silent.test")
		asked <- err
	}()
	waitFor(t, func() bool { return s.Queries("silent.test", mdns.TypeMX) == 1 })
	cancel()
	err := <-asked
	e, ok := errors.AsType[*dns.Error](err)
	if !ok || e.Kind != dns.Temporary || !errors.Is(err, context.Canceled) {
		t.Errorf("Mail: %v", err)
	}
}
