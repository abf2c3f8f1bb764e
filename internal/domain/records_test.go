package domain

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"postrider/internal/relay"
)

var (
	epoch   = time.Date(2026, 11, 3, 12, 0, 0, 0, time.UTC)
	service = Service{Hostname: "relay.test.net", DKIMZone: "dkim.relay.test.net", ReturnHost: "bounce.relay.test.net",
		TrackHost: "track.relay.test.net", SPFInclude: "spf.relay.test.net", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.25")}}
)

// aDomain has a pair of keys that wait.
func aDomain(name string) *relay.Domain {
	return &relay.Domain{ID: relay.ID{1}, Account: relay.ID{2}, Name: name, Proof: "abc", Publish: PublishTXT, ReturnPath: "bounce",
		Tracking: "track", Broken: relay.BrokenSandbox, Created: epoch, Keys: []relay.DKIMKey{
			{Selector: "pr2611r", Algorithm: "rsa", Public: "v=DKIM1; k=rsa; p=TUlJQklqQU5CZw==", State: relay.KeyWaiting, Since: epoch},
			{Selector: "pr2611e", Algorithm: "ed25519", Public: "v=DKIM1; k=ed25519; p=RWQyNTUxOQ==", State: relay.KeyWaiting, Since: epoch},
		}}
}

func TestName(t *testing.T) {
	for in, want := range map[string]string{
		"Example.COM.":                       "example.com",
		"news.example.co.uk":                 "news.example.co.uk",
		"bücher.example":                     "xn--bcher-kva.example",
		"BÜCHER.example":                     "xn--bcher-kva.example",
		"пример.рф":                          "xn--e1afmkfd.xn--p1ai",
		"co.uk":                              "!public suffix",
		"рф":                                 "!top-level",
		"com":                                "!top-level",
		"localhost":                          "!top-level",
		"ann@example.com":                    "!address",
		"_dmarc.example.com":                 "!record",
		"[192.0.2.1]":                        "!can't be",
		"192.0.2.1":                          "!can't be",
		"a..b":                               "!can't be",
		"":                                   "!can't be",
		"exa mple.com":                       "!can't be",
		"xn--\xff.example":                   "!can't be",
		strings.Repeat("a.", 120) + "test":   "!too long",
		strings.Repeat("a", 64) + ".test":    "!can't be",
		strings.Repeat("ab.", 70) + "cd.net": strings.Repeat("ab.", 70) + "cd.net",
	} {
		got, err := Name(in)
		if text, bad := strings.CutPrefix(want, "!"); bad {
			if relay.CodeOf(err) != relay.Invalid || err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("Name(%.40q) = %q, %v; want an error with %q", in, got, err, text)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("Name(%.40q) = %q, %v; want %q", in, got, err, want)
		}
	}
	if got := Organisational("a.b.example.co.uk"); got != "example.co.uk" {
		t.Errorf("organisational domain %q", got)
	}
}

// brief is what matters of records.
func brief(rs []Record) []string {
	var out []string
	for _, r := range rs {
		s := r.Purpose + " " + r.Host + " " + r.Type + " " + r.Value
		if r.Required {
			s += " !"
		}
		out = append(out, s)
	}
	return out
}

func TestRecords(t *testing.T) {
	d := aDomain("news.example.com")
	want := []string{
		"ownership _postrider.news TXT postrider-verify=abc !",
		"dkim pr2611r._domainkey.news TXT v=DKIM1; k=rsa; p=TUlJQklqQU5CZw== !",
		"dkim pr2611e._domainkey.news TXT v=DKIM1; k=ed25519; p=RWQyNTUxOQ==",
		"return-path bounce.news CNAME bounce.relay.test.net",
		"spf news TXT v=spf1 include:spf.relay.test.net ~all",
		"dmarc _dmarc.news TXT v=DMARC1; p=none; rua=mailto:postmaster@news.example.com",
		"tracking track.news CNAME track.relay.test.net",
	}
	if diff := cmp.Diff(want, brief(Records(d, service, "", nil))); diff != "" {
		t.Error(diff)
	}
	d.Publish, d.ReturnPath, d.Tracking = PublishCNAME, "", ""
	d.Keys[0].Selector, d.Keys[1].Selector = "pr1r", "pr1e"
	id := d.ID.String()
	want = []string{
		"ownership _postrider TXT postrider-verify=abc !",
		"dkim pr1r._domainkey CNAME pr1r." + id + ".dkim.relay.test.net !",
		"dkim pr1e._domainkey CNAME pr1e." + id + ".dkim.relay.test.net",
		"dkim pr2r._domainkey CNAME pr2r." + id + ".dkim.relay.test.net",
		"dkim pr2e._domainkey CNAME pr2e." + id + ".dkim.relay.test.net",
		"spf @ TXT v=spf1 include:spf.relay.test.net mx -all",
	}
	answers := Answers{
		{"news.example.com", "TXT"}:        {Values: []string{"v=spf1 mx -all"}},
		{"_dmarc.example.com", "TXT"}:      {Values: []string{"v=DMARC1; p=reject"}}, // of the organisation: none is needed
		{"_dmarc.news.example.com", "TXT"}: {},
	}
	if diff := cmp.Diff(want, brief(Records(d, service, "news.example.com", answers))); diff != "" {
		t.Error(diff)
	}
	// The relay's own domain is no alias of itself.
	own := aDomain("relay.test.net")
	for _, r := range Records(own, service, "", nil) {
		if r.Name == r.Value {
			t.Errorf("%s is an alias of itself", r.Name)
		}
	}
}

func TestSelectors(t *testing.T) {
	d := aDomain("example.com")
	if r, e, err := selectors(&relay.Domain{}, epoch); r != "pr2611r" || e != "pr2611e" || err != nil {
		t.Errorf("%s %s %v", r, e, err)
	}
	if r, e, err := selectors(d, epoch); r != "pr2611ar" || e != "pr2611ae" || err != nil {
		t.Errorf("the second of a month: %s %s %v", r, e, err)
	}
	d.Publish = PublishCNAME
	if r, _, err := selectors(d, epoch); r != "pr1r" || err != nil {
		t.Errorf("%s %v", r, err)
	}
	d.Keys[0].Selector, d.Keys[1].Selector = "pr1r", "pr1e"
	if r, _, err := selectors(d, epoch); r != "pr2r" || err != nil {
		t.Errorf("%s %v", r, err)
	}
	d.Keys = append(d.Keys, relay.DKIMKey{Selector: "pr2e"})
	if r, _, err := selectors(d, epoch); relay.CodeOf(err) != relay.Conflict || err == nil {
		t.Errorf("both pairs are in use: %s %v", r, err)
	}
}

func TestZone(t *testing.T) {
	d, txt := aDomain("example.com"), aDomain("example.org")
	d.Publish = PublishCNAME
	d.Keys = d.Keys[:1]
	d.Keys[0].Public = "v=DKIM1; p=" + strings.Repeat("A", 300)
	signs := service
	signs.Keys = []Record{{Name: "own._domainkey.relay.test.net", Value: "v=DKIM1; p=QUJD"}}
	got := Zone(signs, []*relay.Domain{txt, d})
	id := d.ID.String()
	want := `; the addresses that mail leaves from
spf.relay.test.net. 3600 IN TXT "v=spf1 ip4:192.0.2.25 ~all"
; bounces come back here
bounce.relay.test.net. 3600 IN MX 10 relay.test.net.
bounce.relay.test.net. 3600 IN TXT "v=spf1 ip4:192.0.2.25 -all"
; opens and clicks
track.relay.test.net. 3600 IN CNAME relay.test.net.
; keys that sign in the relay's own name
own._domainkey.relay.test.net. 3600 IN TXT "v=DKIM1; p=QUJD"
; DKIM keys of example.com
pr2611r.` + id + `.dkim.relay.test.net. 3600 IN TXT "v=DKIM1; p=` + strings.Repeat("A", 244) + `" "` + strings.Repeat("A", 56) + `"
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPanels(t *testing.T) {
	if n := len(panels()); n < 12 {
		t.Errorf("%d providers only", n)
	}
	for server, want := range map[string]string{
		"ada.ns.cloudflare.com":      "Cloudflare",
		"NS-123.awsdns-45.co.uk.":    "Amazon Route 53",
		"ns01.domaincontrol.com":     "GoDaddy",
		"dns1.registrar-servers.com": "Namecheap",
		"ns1045.ui-dns.de":           "IONOS",
		"dns10.ovh.net":              "OVHcloud",
		"hydrogen.ns.hetzner.com":    "Hetzner",
		"ns-12-a.gandi.net":          "Gandi",
		"ns1.digitalocean.com":       "DigitalOcean",
		"ns1-03.azure-dns.com":       "Azure DNS",
		"ns1.example.net":            "",
		"notcloudflare.com":          "",
		"evilgandi.net":              "",
	} {
		if got := PanelOf([]string{server}).Provider; got != want {
			t.Errorf("%s: %q, want %q", server, got, want)
		}
	}
	seen := map[string]bool{}
	for _, p := range panels() {
		if seen[p.Provider] || p.Where == "" || p.Name == "" || p.Value == "" || p.CNAME == "" || p.TXT == "" {
			t.Errorf("%+v is there twice, or lacks words", p)
		}
		seen[p.Provider] = true
	}
	how := PanelOf([]string{"ada.ns.cloudflare.com"}).How(Record{Name: "bounce.example.com", Type: "CNAME"}, "example.com")
	for _, word := range []string{"Cloudflare", `"bounce"`, "as Content", "DNS only"} {
		if !strings.Contains(how, word) {
			t.Errorf("%s lacks %s", how, word)
		}
	}
	if how := PanelOf([]string{"x.awsdns-1.com"}).How(Record{Name: "example.com", Type: "TXT"}, "example.com"); !strings.Contains(how, "leave Record name empty") {
		t.Error(how)
	}
}

func TestShown(t *testing.T) {
	got := shown(append(slices.Repeat([]string{"x"}, 1000), "y"))
	if len(got) != shownValues+1 || got[shownValues] != "… and 996 more" {
		t.Errorf("%q", got)
	}
	if got := shown([]string{"a\x1b[2Jb\xff" + strings.Repeat("z", 5000)})[0]; strings.Contains(got, "\x1b") || !utf8.ValidString(got) || len(got) > shownLength+5 {
		t.Errorf("%q", got)
	}
}
