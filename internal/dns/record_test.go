package dns_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"

	"postrider/internal/dns"
)

func TestRecords(t *testing.T) {
	s := start(t,
		`example.test. 60 IN TXT "v=spf1 -all"`,
		`example.test. 60 IN TXT "one " "two; \"three\" \\ \200"`,
		`example.test. 60 IN NS B.ns.test.`,
		`example.test. 60 IN NS a.ns.test.`,
		`example.test. 60 IN MX 20 mx2.test.`,
		`example.test. 60 IN MX 10 MX1.test.`,
		`null.test. 60 IN MX 0 .`,
		`pr._domainkey.example.test. 60 IN CNAME PR.keys.test.`,
		`pr.keys.test. 60 IN CNAME end.keys.test.`,
		`end.keys.test. 60 IN TXT "v=DKIM1; p="`,
		`gone.test. 60 IN CNAME nowhere.test.`,
		`1.2.0.192.in-addr.arpa. 60 IN PTR Mail.example.test.`,
		`1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. 60 IN PTR six.example.test.`,
		`a\@b.test. 60 IN TXT "at"`,
	)
	r := resolver(t, 0, s.Addr())
	ctx := t.Context()
	txt := func(name string) func() (any, error) {
		return func() (any, error) { v, err := r.TXT(ctx, name); slices.Sort(v); return v, err }
	}
	ptr := func(addr string) func() (any, error) {
		return func() (any, error) { v, err := r.PTR(ctx, netip.MustParseAddr(addr)); return v, err }
	}
	for name, tt := range map[string]struct {
		ask  func() (any, error)
		want string // the records, or the kind of the error
	}{
		"texts":         {txt("Example.test."), fmt.Sprint([]string{"one two; \"three\" \\ \xc8", "v=spf1 -all"})},
		"through alias": {txt("pr._domainkey.example.test"), "[v=DKIM1; p=]"},
		"none":          {txt("pr2.keys.example.test"), "not-found"},
		"no text":       {txt("_domainkey.example.test"), "[]"},
		"odd name":      {txt("a@b.test"), "[at]"},
		"no name":       {txt("a..test"), "not-found"},
		"long label":    {txt(strings.Repeat("a", 64) + ".test"), "not-found"},
		"alias of none": {txt("gone.test"), "not-found"},
		"alias":         {func() (any, error) { return r.CNAME(ctx, "pr._domainkey.example.test") }, "pr.keys.test"},
		"alias anyway":  {func() (any, error) { return r.CNAME(ctx, "gone.test") }, "nowhere.test"},
		"no alias":      {func() (any, error) { return r.CNAME(ctx, "example.test") }, ""},
		"zone":          {func() (any, error) { return r.NS(ctx, "example.test") }, "[a.ns.test b.ns.test]"},
		"no zone":       {func() (any, error) { return r.NS(ctx, "end.keys.test") }, "[]"},
		"address":       {ptr("192.0.2.1"), "[mail.example.test]"},
		"mapped":        {ptr("::ffff:192.0.2.1"), "[mail.example.test]"},
		"six":           {ptr("2001:db8::1"), "[six.example.test]"},
		"nobody's":      {ptr("192.0.2.2"), "not-found"},
		"mail":          {func() (any, error) { return r.MX(ctx, "example.test") }, "[{10 mx1.test} {20 mx2.test}]"},
		"no mail":       {func() (any, error) { return r.MX(ctx, "null.test") }, "[{0 }]"},
	} {
		got, err := tt.ask()
		text := fmt.Sprint(got)
		if err != nil {
			e, ok := errors.AsType[*dns.Error](err)
			if !ok {
				t.Errorf("%s: %v, no *dns.Error", name, err)
				continue
			}
			text = e.Kind.String()
		}
		if text != tt.want {
			t.Errorf("%s: %s (%v), want %s", name, text, err, tt.want)
		}
	}
}

func TestRecordsTemporary(t *testing.T) {
	s := start(t)
	s.Fail("example.test", mdns.RcodeServerFailure)
	_, err := resolver(t, 0, s.Addr()).TXT(t.Context(), "example.test")
	if e, ok := errors.AsType[*dns.Error](err); !ok || e.Kind != dns.Temporary || !strings.Contains(e.Text, "TXT") {
		t.Errorf("TXT: %v", err)
	}
}

// A thousand records come over TCP and are cut to what is reasonable.
func TestThousandRecords(t *testing.T) {
	s := start(t)
	for i := range 1000 {
		if err := s.Add(fmt.Sprintf(`many.test. 60 IN TXT "record %d"`, i)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := resolver(t, 0, s.Addr()).TXT(t.Context(), "many.test")
	if err != nil || len(got) != 256 {
		t.Errorf("%d records, %v", len(got), err)
	}
}

func TestForget(t *testing.T) {
	s := start(t, `alias.test. 600 IN CNAME end.test.`, `end.test. 600 IN TXT "old"`)
	r := resolver(t, 0, s.Addr())
	ask := func(name string) string {
		got, _ := r.TXT(t.Context(), name)
		return fmt.Sprint(got)
	}
	first := ask("alias.test") + ask("end.test") + ask("none.test")
	s.Remove("end.test")
	if err := s.Add(`end.test. 600 IN TXT "new"`, `none.test. 600 IN TXT "new"`); err != nil {
		t.Fatal(err)
	}
	if kept := ask("alias.test") + ask("end.test") + ask("none.test"); kept != first {
		t.Errorf("not remembered: %s, then %s", first, kept)
	}
	r.Forget("Alias.test.")
	r.Forget("none.test")
	r.Forget("unheard-of.test")
	if got := ask("alias.test") + ask("end.test") + ask("none.test"); got != "[new][new][new]" {
		t.Errorf("after Forget: %s", got)
	}
}
