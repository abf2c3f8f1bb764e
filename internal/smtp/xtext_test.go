package smtp

import (
	"strings"
	"testing"
)

func TestXtext(t *testing.T) {
	for in, want := range map[string]string{
		"":            "",
		"abc":         "abc",
		"a+b=c d":     "a+2Bb+3Dc+20d",
		"é\r\n":       "+C3+A9+0D+0A",
		"joe@ex.com~": "joe@ex.com~",
	} {
		got := string(AppendXtext(nil, in))
		if got != want {
			t.Errorf("AppendXtext(%q) = %q, want %q", in, got, want)
		}
		if back, err := DecodeXtext(got); back != in || err != nil {
			t.Errorf("DecodeXtext(%q) = %q, %v", got, back, err)
		}
	}
	if got, err := DecodeXtext("a+2bb"); got != "a+b" || err != nil {
		t.Errorf("lower case digits: %q, %v", got, err)
	}
	for _, bad := range []string{"+", "+2", "a+", "+2G", "+-1", "a=b", "a b", "é", "a\n"} {
		if got, err := DecodeXtext(bad); err == nil {
			t.Errorf("DecodeXtext(%q) = %q, want an error", bad, got)
		}
	}
}

func TestORcpt(t *testing.T) {
	for in, want := range map[string]string{
		"rfc822;joe+x@example.com":    "rfc822;joe+2Bx@example.com",
		"x400;/S=a b":                 "x400;/S+3Da+20b",
		"utf-8;jörg+a@exämple.de":     `utf-8;j\x{F6}rg\x{2B}a@ex\x{E4}mple.de`,
		`utf-8;a\b@example.com`:       `utf-8;a\x{5C}b@example.com`,
		"utf-8;\U0001F600@example.de": `utf-8;\x{1F600}@example.de`,
	} {
		got := string(AppendORcpt(nil, in))
		if got != want {
			t.Errorf("AppendORcpt(%q) = %q, want %q", in, got, want)
		}
		if back, err := DecodeORcpt(got); back != in || err != nil {
			t.Errorf("DecodeORcpt(%q) = %q, %v", got, back, err)
		}
	}
	if got, want := string(AppendORcpt(nil, "rfc822;jörg@a.de")), `utf-8;j\x{F6}rg@a.de`; got != want {
		t.Errorf("8-bit with type rfc822: got %q, want %q", got, want)
	}
	if got, want := string(AppendORcpt(nil, "joe@a.de")), "rfc822;joe@a.de"; got != want {
		t.Errorf("without type: got %q, want %q", got, want)
	}
	if got, err := DecodeORcpt("utf-8;jörg@a.de"); got != "utf-8;jörg@a.de" || err != nil {
		t.Errorf("utf-8-address: %q, %v", got, err)
	}
	for _, bad := range []string{"", "joe@a.de", ";a", "rfc822;", "rfc822;a+0D+0Ab", `utf-8;a\x{A}`, `utf-8;a\x{0A}`,
		`utf-8;\x{41`, `utf-8;\x{D800}`, `utf-8;\x{1234567}`, "utf-8;\xff", "rfc822;a=b"} {
		if got, err := DecodeORcpt(bad); err == nil {
			t.Errorf("DecodeORcpt(%q) = %q, want an error", bad, got)
		}
	}
}

func FuzzXtext(f *testing.F) {
	f.Add("a+b=c")
	f.Add("rfc822;joe+2Bx@example.com")
	f.Add(`utf-8;j\x{F6}rg@example.com`)
	f.Fuzz(func(t *testing.T, in string) {
		enc := string(AppendXtext(nil, in))
		if strings.ContainsFunc(enc, func(r rune) bool { return r <= ' ' || r > '~' || r == '=' }) {
			t.Fatalf("%q is not xtext", enc)
		}
		if got, err := DecodeXtext(enc); got != in || err != nil {
			t.Fatalf("%q came back as %q, %v", in, got, err)
		}
		if got, err := DecodeXtext(in); err == nil && len(got) > len(in) {
			t.Fatalf("%q grew to %q", in, got)
		}
		orcpt, err := DecodeORcpt(in)
		if err != nil {
			return
		}
		wire := string(AppendORcpt(nil, orcpt))
		if strings.ContainsFunc(wire, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Fatalf("%q is no value of a parameter", wire)
		}
		if got, err := DecodeORcpt(wire); err != nil || addressOf(got) != addressOf(orcpt) {
			t.Fatalf("%q came back as %q, %v", orcpt, got, err)
		}
	})
}

func addressOf(orcpt string) string {
	_, addr, _ := strings.Cut(orcpt, ";")
	return addr
}
