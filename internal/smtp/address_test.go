package smtp

import (
	"errors"
	"strings"
	"testing"
)

func TestParsePath(t *testing.T) {
	long := strings.Repeat("x", 64)
	label := strings.Repeat("d", 63)
	for _, tt := range []struct {
		in   string
		utf8 bool
		want string // Address.String, or "!" and part of the error
		rest string
	}{
		{in: "<joe@example.com>", want: "joe@example.com"},
		{in: "<joe@example.com> SIZE=1 BODY=7BIT", want: "joe@example.com", rest: "SIZE=1 BODY=7BIT"},
		{in: "<>", want: ""},
		{in: "<> RET=HDRS", want: "", rest: "RET=HDRS"},
		{in: " <joe@example.com>", want: "joe@example.com"},
		{in: "< joe@example.com >", want: "joe@example.com"},
		{in: "joe@example.com", want: "joe@example.com"},
		{in: "joe@example.com SIZE=2", want: "joe@example.com", rest: "SIZE=2"},
		{in: "<@a.example,@b.example:joe@c.example>", want: "joe@c.example"},
		{in: "<joe%c.example@b.example>", want: "joe%c.example@b.example"},
		{in: "<c.example!joe@b.example>", want: "c.example!joe@b.example"},
		{in: `<"joe"@example.com>`, want: "joe@example.com"},
		{in: `<"joe doe"@example.com>`, want: `"joe doe"@example.com`},
		{in: `<"j\o\"e\\"@example.com>`, want: `"jo\"e\\"@example.com`},
		{in: `<"joe@c.example"@b.example>`, want: `"joe@c.example"@b.example`},
		{in: `<"a>b"@example.com>`, want: "!angle bracket"},
		{in: `<""@example.com>`, want: `""@example.com`},
		{in: "<joe@[192.0.2.1]>", want: "joe@[192.0.2.1]"},
		{in: "<joe@[IPv6:2001:db8::1]>", want: "joe@[IPv6:2001:db8::1]"},
		{in: "<scan@my_host.example>", want: "scan@my_host.example"},
		{in: "<" + long + "@example.com>", want: long + "@example.com"},
		{in: "<jürgen@bücher.example>", utf8: true, want: "jürgen@bücher.example"},
		{in: "<jürgen@example.com>", want: "!SMTPUTF8"},
		{in: "<j\xff@example.com>", utf8: true, want: "!UTF-8"},
		{in: "<x" + long + "@example.com>", want: "!64"},
		{in: "<joe@" + label + "d.example>", want: "!over-long"},
		{in: "<joe@" + strings.Repeat(label+".", 4) + "example>", want: "!255"},
		{in: "", want: "!wanted"},
		{in: "<joe>", want: "!no domain"},
		{in: "postmaster", want: "!no domain"},
		{in: "<joe@>", want: "!no domain"},
		{in: "<@example.com>", want: "!source route"},
		{in: "<@a.example:>", want: "!no domain"},
		{in: "<joe@example.com", want: "!closing"},
		{in: "<joe@example.com>x", want: "!unexpected"},
		{in: "<joe@example.com>SIZE=1", want: "!unexpected"},
		{in: "<joe@example..com>", want: "!empty"},
		{in: "<joe@example.com.>", want: "!empty"},
		{in: "<joe@-a.example>", want: "!hyphen"},
		{in: "<.joe@example.com>", want: "!dot"},
		{in: "<j..e@example.com>", want: "!dot"},
		{in: "<joe.@example.com>", want: "!dot"},
		{in: "<joe doe@example.com>", want: "!no domain"},
		{in: "<joe@a@b.example>", want: "!closing"},
		{in: "<joe@192.0.2.1>", want: "!number"},
		{in: "<joe@[192.0.2.999]>", want: "!literal"},
		{in: "<joe@[2001:db8::1]>", want: "!literal"},
		{in: "<joe@[192.0.2.1>", want: "!bracket"},
		{in: "<\"joe\r\nRCPT TO:\"@example.com>", want: "!control"},
		{in: `<"joe@example.com>`, want: "!quote"},
		{in: "<joe\x00@example.com>", want: "!quot"},
		{in: `<"joe> SIZE=1"@example.com>`, want: "!angle bracket"},
		{in: "<joe\u0085Bcc@example.com>", utf8: true, want: "!control"},
		{in: "<\"joe\u2028Bcc\"@example.com>", utf8: true, want: "!control"},
		{in: "<joe\u009b31m@example.com>", utf8: true, want: "!control"},
	} {
		a, rest, err := ParsePath(tt.in, tt.utf8)
		if msg, bad := strings.CutPrefix(tt.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), msg) {
				t.Errorf("ParsePath(%q) = %q, error %v, want error with %q", tt.in, a, err, msg)
			}
			continue
		}
		if err != nil || a.String() != tt.want || rest != tt.rest {
			t.Errorf("ParsePath(%q) = %q, %q, %v; want %q, %q", tt.in, a, rest, err, tt.want, tt.rest)
		}
	}
	if _, _, err := ParsePath("<ü@example.com>", false); !errors.Is(err, ErrNonASCII) {
		t.Errorf("got %v, want ErrNonASCII", err)
	}
}

func TestASCIIDomain(t *testing.T) {
	for in, want := range map[string]string{
		"Example.COM":              "example.com",
		"BÜCHER.example":           "xn--bcher-kva.example",
		"xn--bcher-kva.example":    "xn--bcher-kva.example",
		"XN--BCHER-KVA.example":    "xn--bcher-kva.example",
		"my_host.example":          "my_host.example",
		"例え。テスト":                   "xn--r8jz45g.xn--zckzah",
		"[192.0.2.1]":              "",
		"xn--a.example":            "",
		"１２７.０.０.１":                "", // full-width digits map to 127.0.0.1
		strings.Repeat("ü", 70):    "",
		"a.b" + "\u200d" + ".test": "",
	} {
		got, err := ASCIIDomain(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("ASCIIDomain(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestASCIIDomainOf(t *testing.T) {
	for in, want := range map[string]string{"Joe@BÜCHER.example": "xn--bcher-kva.example", "joe@example.com": "example.com", "joe": "", "": "", "joe@[192.0.2.1]": ""} {
		if got := ASCIIDomainOf(in); got != want {
			t.Errorf("ASCIIDomainOf(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{"<joe@example.com> SIZE=1", "<>", `<"a\"b"@x.y>`, "<@a,@b:c@d.e>", "j@[IPv6:::1]", "<ü@ü.de>"} {
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, s string, utf8 bool) {
		a, _, err := ParsePath(s, utf8)
		if err != nil || a.IsZero() {
			return
		}
		out := a.String()
		if len(out) > maxPath || strings.ContainsAny(out, "\r\n\x00") {
			t.Fatalf("%q came out of %q", out, s)
		}
		b, err := ParseAddress(out, utf8)
		if err != nil || a != b {
			t.Fatalf("%q read as %v, and again as %v: %v", s, a, b, err)
		}
		if a.IsLiteral() {
			return
		}
		d, err := a.ASCIIDomain()
		if err != nil && ascii(a.Domain) && !strings.Contains(strings.ToLower(a.Domain), "xn--") {
			t.Fatalf("%v has no domain: %v", a, err)
		}
		if err == nil {
			if again, err := ASCIIDomain(d); err != nil || again != d {
				t.Fatalf("ASCIIDomain(%q) = %q, then %q: %v", a.Domain, d, again, err)
			}
		}
	})
}
