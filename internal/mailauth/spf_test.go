package mailauth_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"

	"postrider/internal/dns"
	"postrider/internal/lab/fakedns"
	"postrider/internal/mailauth"
)

// suite is a part of the openspf.org test suite; see testdata/rfc7208.
type suite struct {
	Description string
	Tests       map[string]struct {
		Helo, Host, MailFrom string
		Result               []string
	}
	Zone map[string][][]string
}

// differs are the tests of which our result is another one, and why.
var differs = map[string]string{
	"spftimeout":                "its time-out is for records of the type SPF, which nobody asks for any more; here it is the name's",
	"mx-limit":                  "its eleven MX records are all the same one, and a record is there once (RFC 2181 section 5)",
	"a-colon-domain":            "the library takes a slash, which no host name has, for that of a prefix",
	"a-colon-domain-ip4mapped":  "the library takes a slash, which no host name has, for that of a prefix",
	"mx-colon-domain":           "the library takes a slash, which no host name has, for that of a prefix",
	"mx-colon-domain-ip4mapped": "the library takes a slash, which no host name has, for that of a prefix",
	"macro-mania-in-domain":     "the library takes a slash, which no host name has, for that of a prefix",
	"p-macro-multiple":          "the library does not evaluate %{p}, which RFC 7208 section 7.2 says not to use",
}

func TestSuite(t *testing.T) {
	b, err := os.ReadFile("testdata/rfc7208/tests.json")
	if err != nil {
		t.Fatal(err)
	}
	var suites []suite
	if err := json.Unmarshal(b, &suites); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, s := range suites {
		r := serve(t, s.Zone)
		for name, tt := range s.Tests {
			n++
			got := mailauth.CheckSPF(t.Context(), r, netip.MustParseAddr(tt.Host), tt.Helo, tt.MailFrom)
			right := slices.Contains(tt.Result, string(got.Result))
			switch why, known := differs[name]; {
			case !right && !known:
				t.Errorf("%s, %s: %s (%s), want %s", s.Description, name, got.Result, got.Problem, strings.Join(tt.Result, " or "))
			case right && known:
				t.Errorf("%s is right, though %s", name, why)
			}
		}
	}
	if n != 203 {
		t.Errorf("ran %d tests", n)
	}
}

// serve starts a DNS server with a zone of the suite.
func serve(t *testing.T, zone map[string][][]string) *dns.Resolver {
	t.Helper()
	s, err := fakedns.Start("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	for name, records := range zone {
		own := slices.ContainsFunc(records, func(r []string) bool { return r[0] == "TXT" })
		for _, r := range records {
			line := ""
			switch kind := r[0]; kind {
			case "TIMEOUT", "SERVFAIL", "CNAMELOOP":
				s.Fail(name, mdns.RcodeServerFailure)
				continue
			case "SPF", "TXT":
				if kind == "SPF" && own || slices.Equal(r[1:], []string{"NONE"}) {
					continue
				}
				line = "TXT"
				for _, text := range r[1:] {
					line += " " + quote(text)
				}
			case "MX":
				line = "MX " + r[1] + " " + absolute(r[2])
			case "A", "AAAA":
				line = kind + " " + r[1]
			default:
				line = kind + " " + absolute(r[1])
			}
			if err := s.Add(absolute(name) + " 60 IN " + line); err != nil {
				t.Fatal(err)
			}
		}
	}
	r, err := dns.New([]string{s.Addr()}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func absolute(name string) string {
	if name == "" {
		return "."
	}
	return strings.ReplaceAll(strings.TrimSuffix(name, "."), " ", `\032`) + "."
}

// quote writes a string as zone files have it.
func quote(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == ';' {
			fmt.Fprintf(&b, `\%03d`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return `"` + b.String() + `"`
}

func TestCheckSPF(t *testing.T) {
	r := serve(t, map[string][][]string{
		"example.com":             {{"TXT", "v=spf1 ip4:192.0.2.0/24 -all"}, {"TXT", "something else"}},
		"helo.example.com":        {{"TXT", "v=spf1 ip6:2001:db8::/32 ~all"}},
		"local.test":              {{"TXT", "v=spf1 exists:%{l}.%{o}.users.test -all"}},
		"a.local.test.users.test": {{"A", "127.0.0.2"}},
	})
	for name, tt := range map[string]struct {
		client, helo, sender string
		want                 string
	}{
		"pass":        {"192.0.2.1", "x.test", "a@Example.com", "pass example.com"},
		"mapped":      {"::ffff:192.0.2.1", "x.test", "a@example.com", "pass example.com"},
		"fail":        {"198.51.100.1", "x.test", "a@example.com", "fail example.com"},
		"null sender": {"2001:db8::1", "helo.example.com", "", "pass helo.example.com helo"},
		"null fails":  {"192.0.2.1", "helo.example.com", "", "softfail helo.example.com helo"},
		"no domain":   {"192.0.2.1", "localhost", "", "none localhost helo"},
		"literal":     {"192.0.2.1", "[192.0.2.1]", "", "none [192.0.2.1] helo"},
		"no record":   {"192.0.2.1", "x.test", "a@other.test", "none other.test"},
		"local part":  {"192.0.2.1", "x.test", "a@local.test", "pass local.test"},
		"quoted":      {"192.0.2.1", "x.test", `"b@c"@local.test`, "fail local.test"},
	} {
		s := mailauth.CheckSPF(t.Context(), r, netip.MustParseAddr(tt.client), tt.helo, tt.sender)
		got := string(s.Result) + " " + s.Domain
		if s.Helo {
			got += " helo"
		}
		if got != tt.want {
			t.Errorf("%s: %s (%s), want %s", name, got, s.Problem, tt.want)
		}
	}
}
