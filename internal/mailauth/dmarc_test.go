package mailauth_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"postrider/internal/mailauth"
)

func TestParseDMARC(t *testing.T) {
	type record = mailauth.DMARCRecord
	for txt, want := range map[string]record{
		"v=DMARC1; p=none":          {Policy: "none", Subdomains: "none", Percent: 100},
		"v=DMARC1;p=Reject;sp=none": {Policy: "reject", Subdomains: "none", Percent: 100},
		"v=DMARC1; p=quarantine; adkim=s; aspf=S; pct=20; rua=mailto:a@example.com, mailto:b@example.com!10m; ruf=mailto:c@example.com; fo=1;": {
			Policy: "quarantine", Subdomains: "quarantine", StrictDKIM: true, StrictSPF: true, Percent: 20,
			Aggregate: []string{"mailto:a@example.com", "mailto:b@example.com!10m"}, Failures: []string{"mailto:c@example.com"}},
		"v=DMARC1; p=nonsense; rua=mailto:a@example.com": {Policy: "none", Subdomains: "none", Percent: 100, Aggregate: []string{"mailto:a@example.com"}},
		"v=DMARC1; p=none; sp=maybe; pct=200; adkim=x":   {Policy: "none", Subdomains: "none", Percent: 100},
		" v = DMARC1 ; p = none ; new=tag":               {Policy: "none", Subdomains: "none", Percent: 100},
	} {
		got, err := mailauth.ParseDMARC(txt)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v", txt, got, err)
		}
	}
	for txt, want := range map[string]string{
		"":                         "nothing",
		"v=DMARC1":                 "p= is missing",
		"v=DMARC1; p=maybe":        "none, quarantine or reject",
		"p=none; v=DMARC1":         "begins with v=DMARC1",
		"v=DMARC2; p=none":         "begins with v=DMARC1",
		"v=dmarc1; p=none":         "begins with v=DMARC1",
		"v=DMARC1, p=none":         "begins with v=DMARC1",
		"v=DMARC1; none":           "name=value",
		"v=DMARC1; p=none; p=none": "twice",
	} {
		if _, err := mailauth.ParseDMARC(txt); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", txt, err, want)
		}
	}
}

func TestAligned(t *testing.T) {
	for _, tt := range []struct {
		from, proved    string
		relaxed, strict bool
	}{
		{"example.com", "example.com", true, true},
		{"Example.COM.", "example.com", true, true},
		{"news.example.com", "example.com", true, false},
		{"example.com", "bounce.example.com", true, false},
		{"a.example.com", "b.example.com", true, false},
		{"example.com", "example.org", false, false},
		{"example.com", "notexample.com", false, false},
		{"a.co.uk", "b.co.uk", false, false},
		{"x.a.co.uk", "a.co.uk", true, false},
		{"co.uk", "co.uk", true, true},
		{"co.uk", "a.co.uk", false, false},
		{"a.github.io", "b.github.io", false, false},
		{"xn--bcher-kva.example", "mail.xn--bcher-kva.example", true, false},
		{"example.com", "", false, false},
		{"", "", false, false},
	} {
		if got := mailauth.Aligned(tt.from, tt.proved, false); got != tt.relaxed {
			t.Errorf("relaxed %s, %s: %t", tt.from, tt.proved, got)
		}
		if got := mailauth.Aligned(tt.from, tt.proved, true); got != tt.strict {
			t.Errorf("strict %s, %s: %t", tt.from, tt.proved, got)
		}
	}
}

func TestCheckDMARC(t *testing.T) {
	r := serve(t, map[string][][]string{
		"_dmarc.example.com":     {{"TXT", "v=DMARC1; p=reject; sp=quarantine"}, {"TXT", "other text"}},
		"_dmarc.own.example.com": {{"TXT", "v=DMARC1; p=none"}},
		"_dmarc.strict.test":     {{"TXT", "v=DMARC1; p=reject; adkim=s; aspf=s"}},
		"_dmarc.twice.test":      {{"TXT", "v=DMARC1; p=reject"}, {"TXT", "v=DMARC1; p=none"}},
		"_dmarc.broken.test":     {{"TXT", "v=DMARC1; p=maybe"}},
		"_dmarc.slow.test":       {{"TIMEOUT"}},
		"_dmarc.noise.test":      {{"TXT", "v=spf1 -all"}},
		"_dmarc.co.uk":           {{"TXT", "v=DMARC1; p=reject"}},
	})
	dkim := func(domain string, result mailauth.Result) []mailauth.Signature {
		return []mailauth.Signature{{Domain: "other.test", Result: mailauth.Pass}, {Domain: domain, Result: result}}
	}
	spf := func(domain string, result mailauth.Result) mailauth.SPF {
		return mailauth.SPF{Domain: domain, Result: result}
	}
	none := spf("example.net", mailauth.Fail)
	for name, tt := range map[string]struct {
		from string
		dkim []mailauth.Signature
		spf  mailauth.SPF
		want string // result, policy, at, what is aligned
	}{
		"both":            {"example.com", dkim("example.com", "pass"), spf("bounce.example.com", "pass"), "pass reject example.com dkim spf"},
		"signature":       {"example.com", dkim("example.com", "pass"), none, "pass reject example.com dkim"},
		"spf":             {"example.com", nil, spf("bounce.example.com", "pass"), "pass reject example.com spf"},
		"subdomain":       {"news.example.com", dkim("example.com", "pass"), none, "pass quarantine example.com dkim"},
		"its own":         {"own.example.com", dkim("example.com", "fail"), none, "fail none own.example.com"},
		"not aligned":     {"example.com", nil, spf("example.org", "pass"), "fail reject example.com"},
		"not passed":      {"example.com", dkim("example.com", "fail"), spf("example.com", "softfail"), "fail reject example.com"},
		"strict":          {"strict.test", dkim("mail.strict.test", "pass"), spf("b.strict.test", "pass"), "fail reject strict.test"},
		"strict and same": {"strict.test", dkim("strict.test", "pass"), none, "pass reject strict.test dkim"},
		"no answer yet":   {"example.com", dkim("example.com", "temperror"), none, "temperror reject example.com"},
		"no policy":       {"other.test", dkim("other.test", "pass"), none, "none   dkim"},
		"noise":           {"noise.test", nil, none, "none  "},
		"not of a suffix": {"a.co.uk", nil, none, "none  "},
		"two records":     {"twice.test", dkim("twice.test", "pass"), none, "permerror  twice.test dkim"},
		"malformed":       {"broken.test", nil, none, "permerror  broken.test"},
		"time-out":        {"slow.test", dkim("slow.test", "pass"), none, "temperror   dkim"},
		"no author":       {"", dkim("example.com", "pass"), none, "none  "},
	} {
		d := mailauth.CheckDMARC(t.Context(), r, tt.from, tt.dkim, tt.spf)
		got := fmt.Sprintf("%s %s %s", d.Result, d.Policy, d.At)
		if d.DKIM {
			got += " dkim"
		}
		if d.SPF {
			got += " spf"
		}
		if got != tt.want {
			t.Errorf("%s: %q (%s), want %q", name, got, d.Problem, tt.want)
		}
		if (d.Problem == "") != (d.Result == mailauth.Pass) {
			t.Errorf("%s: %s with the problem %q", name, d.Result, d.Problem)
		}
	}
}

func FuzzTags(f *testing.F) {
	f.Add("v=DMARC1; p=none; rua=mailto:a@example.com")
	f.Add("v=DKIM1; k=rsa; p=abc")
	f.Fuzz(func(t *testing.T, s string) {
		_, _ = mailauth.ParseDMARC(s)
		_, _ = mailauth.ParseRecord(s)
	})
}
