package track

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"postrider/internal/link"
	"postrider/internal/relay"
	"postrider/internal/seal"
)

var (
	mine   = relay.ID{1, 15: 1}
	theirs = relay.ID{1, 15: 2}
	silent = slog.New(slog.DiscardHandler)
)

// book is a directory with the domains of all accounts.
type book struct {
	mu      sync.Mutex
	domains []*relay.Domain
	err     error
}

func (b *book) DomainByName(_ context.Context, account relay.ID, name string) (*relay.Domain, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return nil, b.err
	}
	for _, d := range b.domains {
		if d.Name == name && (account == relay.Everyone || account == d.Account) {
			return d, nil
		}
	}
	return nil, &relay.Error{Code: relay.NotFound}
}

func (b *book) Domain(ctx context.Context, account relay.ID, name string) (*relay.Domain, error) {
	d, err := b.DomainByName(ctx, account, name)
	if relay.CodeOf(err) == relay.NotFound {
		return nil, nil
	}
	return d, err
}

// domain is a verified one, with a tracking host that is in order or not.
func domain(account relay.ID, name string, status relay.Verdict) *relay.Domain {
	return &relay.Domain{Account: account, Name: name, Tracking: "track", Verified: time.Now(),
		Findings: []relay.Finding{{Check: "dkim", Status: relay.Good}, {Check: relay.CheckTracking, Status: status}}}
}

// deeds is a Recorder.
type deeds struct {
	mu  sync.Mutex
	all []Deed
}

func (d *deeds) Record(one Deed) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = append(d.all, one)
}

func (d *deeds) take() []Deed {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := d.all
	d.all = nil
	return all
}

// rig is a server with all that it needs.
type rig struct {
	*Server
	book  *book
	deeds *deeds
	id    relay.DeliveryID
}

func newRig(t testing.TB) *rig {
	t.Helper()
	box, err := seal.New([]byte(strings.Repeat("k", seal.KeySize)))
	if err != nil {
		t.Fatal(err)
	}
	links, err := link.New(box)
	if err != nil {
		t.Fatal(err)
	}
	unproved := domain(mine, "unproved.test", relay.Good)
	unproved.Verified = time.Time{}
	b := &book{domains: []*relay.Domain{domain(mine, "mine.test", relay.Good), domain(theirs, "theirs.test", relay.Good), domain(mine, "proxied.test", relay.Warning), unproved}}
	hosts, err := NewHosts(HostsConfig{URL: "https://Track.Relay.test", Own: true}, b, b)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{book: b, deeds: &deeds{}, id: relay.DeliveryID{Message: relay.FirstIDAt(time.Now()), N: 2}}
	r.Server = New(Config{Life: 24 * time.Hour, DoNotTrack: DoNotTrackAnonymous}, links, hosts, r.deeds, silent)
	return r
}

func (r *rig) ask(method, url string, change ...func(*http.Request)) *http.Response {
	q := httptest.NewRequest(method, url, nil)
	for _, c := range change {
		c(q)
	}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, q)
	return w.Result()
}

const shop = "https://shop.test/a?b=c&d=%20#e"

func TestServe(t *testing.T) {
	r := newRig(t)
	click := r.links.Path(link.Click, mine, r.id, shop)
	open := r.links.Path(link.Open, mine, r.id, "")
	bad := func(target string) string { return r.links.Path(link.Click, mine, r.id, target) }
	for name, tt := range map[string]struct {
		method, url string
		status      int
		to          string // where it leads
		recorded    bool
	}{
		"click":                       {"GET", "https://track.relay.test" + click, 302, shop, true},
		"click, head":                 {"HEAD", "https://track.relay.test" + click, 302, shop, true},
		"click with something behind": {"GET", "https://track.relay.test" + click + "?utm=x", 302, shop, true},
		"with a port":                 {"GET", "https://track.relay.test:8443" + click, 302, shop, true},
		"own host":                    {"GET", "https://track.mine.test" + click, 302, shop, true},
		"own host, in capitals":       {"GET", "https://TRACK.Mine.Test." + click, 302, shop, true},
		"own host, behind a proxy":    {"GET", "https://track.proxied.test" + click, 302, shop, true},
		"host of another account":     {"GET", "https://track.theirs.test" + click, 404, "", false},
		"host that is not proved":     {"GET", "https://track.unproved.test" + click, 404, "", false},
		"another label":               {"GET", "https://www.mine.test" + click, 404, "", false},
		"a stranger's host":           {"GET", "https://evil.test" + click, 404, "", false},
		"an address":                  {"GET", "https://192.0.2.1" + click, 404, "", false},
		"open":                        {"GET", "https://track.mine.test" + open, 200, "", true},
		"open of another's":           {"GET", "https://track.theirs.test" + open, 404, "", false},
		"changed":                     {"GET", "https://track.relay.test" + click[:len(click)-1] + "A", 404, "", false},
		"cut off":                     {"GET", "https://track.relay.test" + click[:len(click)-5], 404, "", false},
		"written in another way":      {"GET", "https://track.relay.test" + strings.Replace(click, "/c/", "/%63/", 1), 404, "", false},
		"post":                        {"POST", "https://track.relay.test" + click, 405, "", false},
		"nothing":                     {"GET", "https://track.relay.test/", 404, "", false},
		"elsewhere":                   {"GET", "https://track.relay.test/wp-login.php", 404, "", false},
		"robots":                      {"GET", "https://anything.test/robots.txt", 200, "", false},
		"pages that are not there":    {"GET", "https://track.relay.test" + r.links.Path(link.Unsubscribe, mine, r.id, ""), 404, "", false},
		"script":                      {"GET", "https://track.relay.test" + bad("javascript:alert(1)"), 404, "", false},
		"another scheme":              {"GET", "https://track.relay.test" + bad("ftp://x.test/"), 404, "", false},
		"no host":                     {"GET", "https://track.relay.test" + bad("https:///x"), 404, "", false},
		"no scheme":                   {"GET", "https://track.relay.test" + bad("//evil.test/"), 404, "", false},
		"line end":                    {"GET", "https://track.relay.test" + bad("https://x.test/\r\nSet-Cookie: a=b"), 404, "", false},
		"beyond ASCII":                {"GET", "https://track.relay.test" + bad("https://x.test/\u00fc"), 404, "", false},
	} {
		a := r.ask(tt.method, tt.url)
		body, _ := io.ReadAll(a.Body)
		if a.StatusCode != tt.status || a.Header.Get("Location") != tt.to {
			t.Errorf("%s: %d to %q\n%s", name, a.StatusCode, a.Header.Get("Location"), body)
		}
		if got := r.deeds.take(); len(got) == 1 != tt.recorded {
			t.Errorf("%s: recorded %+v", name, got)
		}
		h := a.Header
		if h.Get("Referrer-Policy") != "no-referrer" || !strings.Contains(h.Get("Cache-Control"), "no-store") || !strings.Contains(h.Get("X-Robots-Tag"), "noindex") ||
			h.Get("Strict-Transport-Security") != "" || len(h.Values("Set-Cookie")) > 0 {
			t.Errorf("%s: header %v", name, h)
		}
		if strings.HasPrefix(name, "open") && a.StatusCode == 200 && (h.Get("Content-Type") != "image/gif" || string(body) != pixel) {
			t.Errorf("%s: %s, %d bytes", name, h.Get("Content-Type"), len(body))
		}
	}
}

func TestRecorded(t *testing.T) {
	r := newRig(t)
	r.config.Proxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	path := "https://track.relay.test" + r.links.Path(link.Click, mine, r.id, shop)
	from := func(addr string) func(*http.Request) { return func(q *http.Request) { q.RemoteAddr = addr } }
	with := func(name, value string) func(*http.Request) {
		return func(q *http.Request) { q.Header.Add(name, value) }
	}
	for name, tt := range map[string]struct {
		change []func(*http.Request)
		want   Deed
	}{
		"as it is":       {[]func(*http.Request){from("192.0.2.7:1"), with("User-Agent", "Mozilla/5.0 x")}, Deed{UserAgent: "Mozilla/5.0 x"}},
		"proxy":          {[]func(*http.Request){from("10.1.1.1:1"), with("X-Forwarded-For", "203.0.113.9, 192.0.2.7")}, Deed{}},
		"a false proxy":  {[]func(*http.Request){from("192.0.2.7:1"), with("X-Forwarded-For", "203.0.113.9")}, Deed{}},
		"long":           {[]func(*http.Request){from("[::ffff:192.0.2.7]:1"), with("User-Agent", strings.Repeat("\u00fc", 500))}, Deed{UserAgent: strings.Repeat("\u00fc", 400)}},
		"not for humans": {[]func(*http.Request){from("192.0.2.7:1"), with("User-Agent", "a\x01\xffb")}, Deed{UserAgent: "a?b"}},
		"prefetch":       {[]func(*http.Request){from("192.0.2.7:1"), with("Sec-Purpose", "prefetch;prerender")}, Deed{Ahead: true}},
		"dnt":            {[]func(*http.Request){from("192.0.2.7:1"), with("DNT", "1")}, Deed{Anonymous: true}},
		"dnt: 0":         {[]func(*http.Request){from("192.0.2.7:1"), with("DNT", "0")}, Deed{}},
		"gpc":            {[]func(*http.Request){from("192.0.2.7:1"), with("Sec-GPC", "1")}, Deed{Anonymous: true}},
	} {
		r.ask("GET", path, tt.change...)
		got := r.deeds.take()
		if len(got) != 1 {
			t.Fatalf("%s: %d deeds", name, len(got))
		}
		d := got[0]
		if d.Link.Delivery != r.id || d.Link.Target != shop || d.Client != netip.MustParseAddr("192.0.2.7") || d.UserAgent != tt.want.UserAgent || d.Ahead != tt.want.Ahead || d.Anonymous != tt.want.Anonymous {
			t.Errorf("%s: %+v", name, d)
		}
	}
	for rule, want := range map[string]int{DoNotTrackIgnore: 0, DoNotTrackRecord: 1} {
		r.config.DoNotTrack = rule
		if a := r.ask("GET", path, with("DNT", "1")); a.StatusCode != 302 {
			t.Errorf("%s: %d", rule, a.StatusCode)
		}
		if got := r.deeds.take(); len(got) != want || want == 1 && got[0].Anonymous {
			t.Errorf("%s: %+v", rule, got)
		}
	}
	// An old link leads on.
	r.now = func() time.Time { return time.Now().Add(25 * time.Hour) }
	if a := r.ask("GET", path); a.StatusCode != 302 || len(r.deeds.take()) != 0 {
		t.Errorf("an old link: %d", a.StatusCode)
	}
}

// pages is a Pages.
type pages struct{ asked []link.Link }

func (p *pages) ServeLink(w http.ResponseWriter, r *http.Request, l link.Link) {
	p.asked = append(p.asked, l)
	if _, err := io.ReadAll(r.Body); err != nil {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	}
}

func TestPages(t *testing.T) {
	r := newRig(t)
	p := &pages{}
	r.config.Pages = p
	path := r.links.Path(link.Unsubscribe, mine, r.id, "news")
	if a := r.ask("POST", "https://track.mine.test"+path); a.StatusCode != 200 || len(p.asked) != 1 || p.asked[0].Target != "news" || p.asked[0].Delivery != r.id {
		t.Errorf("%d, %+v", a.StatusCode, p.asked)
	}
	if a := r.ask("POST", "https://track.theirs.test"+path); a.StatusCode != 404 || len(p.asked) != 1 {
		t.Errorf("on the host of another: %d", a.StatusCode)
	}
	a := r.ask("POST", "https://track.mine.test"+path, func(q *http.Request) { q.Body = io.NopCloser(strings.NewReader(strings.Repeat("x", 1<<20))) })
	if a.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a long body: %d", a.StatusCode)
	}
}

func TestBase(t *testing.T) {
	r := newRig(t)
	h := r.hosts
	base := func(from string) string {
		t.Helper()
		got, _, err := h.Base(t.Context(), &relay.Message{Account: mine, From: from})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	for from, want := range map[string]string{"a@mine.test": "https://track.mine.test", "a@proxied.test": "https://track.relay.test", "a@unproved.test": "https://track.relay.test",
		"a@theirs.test": "https://track.relay.test", "a@nowhere.test": "https://track.relay.test", "": "https://track.relay.test", "a@MINE.test": "https://track.mine.test"} {
		if got := base(from); got != want {
			t.Errorf("from %s: %s; want %s", from, got, want)
		}
	}
	h.config.Ready = func(_ context.Context, host string) bool { return host != "track.mine.test" }
	if got := base("a@mine.test"); got != "https://track.relay.test" {
		t.Errorf("without a certificate: %s", got)
	}
	h.config.Ready, h.base.Host = nil, "track.relay.test:8443"
	if got := base("a@mine.test"); got != "https://track.mine.test:8443" {
		t.Errorf("with a port: %s", got)
	}
	h.config.Own = false
	if got := base("a@mine.test"); got != "https://track.relay.test:8443" {
		t.Errorf("not on own hosts: %s", got)
	}
	h.base = nil
	if got := base("a@mine.test"); got != "" {
		t.Errorf("without links: %s", got)
	}
}

// Whoever follows a link does not suffer from a store that is away, and an answer
// is asked for anew after a while.
func TestStoreAway(t *testing.T) {
	r := newRig(t)
	now := time.Now()
	r.hosts.now = func() time.Time { return now }
	path := r.links.Path(link.Click, mine, r.id, shop)
	status := func(host string) int { return r.ask("GET", "https://"+host+path).StatusCode }
	if got := status("track.theirs.test"); got != 404 {
		t.Fatal(got)
	}
	r.book.mu.Lock()
	r.book.err = errors.New("away")
	r.book.mu.Unlock()
	now = now.Add(time.Hour)
	for host, want := range map[string]int{"track.mine.test": 302, "track.relay.test": 302, "track.theirs.test": 404} {
		if got := status(host); got != want {
			t.Errorf("%s: %d", host, got)
		}
	}
	r.book.mu.Lock()
	r.book.err = nil
	r.book.domains[0].Account = theirs
	r.book.mu.Unlock()
	if got := status("track.mine.test"); got != 404 {
		t.Errorf("of another now: %d", got)
	}
}
