package tlspolicy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"postrider/internal/dns"
	"postrider/internal/lab/fakedns"
)

const patience = time.Minute

// shelf is storage in memory.
type shelf struct {
	mu     sync.Mutex
	kept   map[string][]byte
	broken bool
}

func newShelf() *shelf { return &shelf{kept: map[string][]byte{}} }

func (s *shelf) Load(_ context.Context, name string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken {
		return nil, errors.New("the store is away")
	}
	return s.kept[name], nil
}

func (s *shelf) Save(_ context.Context, name string, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken {
		return errors.New("the store is away")
	}
	s.kept[name] = data
	return nil
}

// world is a domain, example.test, with its DNS and its web server.
type world struct {
	*testing.T
	dns     *fakedns.Server
	fetcher *Fetcher
	ca      *pair

	mu      sync.Mutex
	handler http.HandlerFunc
	fetches int
}

// newWorld starts the web server with a certificate for names; none: the right
// one.
func newWorld(t *testing.T, change func(*x509.Certificate), names ...string) *world {
	t.Helper()
	server, err := fakedns.Start("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	w := &world{T: t, dns: server, ca: certify(t, "authority", nil, "ecdsa", nil)}
	if len(names) == 0 {
		names = []string{"mta-sts.example.test"}
	}
	leaf := certify(t, "leaf", w.ca, "ecdsa", change, names...)
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.fetches++
		h := w.handler
		w.mu.Unlock()
		h(rw, r)
	}))
	web.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.cert.Raw}, PrivateKey: leaf.key}}}
	web.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	web.StartTLS()
	t.Cleanup(web.Close)
	w.serve(policy("enforce", "a"))
	w.record("1")
	w.add("mta-sts.example.test. 5 IN A 127.0.0.1")
	roots := x509.NewCertPool()
	roots.AddCert(w.ca.cert)
	w.fetcher = &Fetcher{Addrs: w.resolver().Addrs, Roots: roots, Port: web.Listener.Addr().(*net.TCPAddr).Port, Timeout: patience}
	return w
}

func policy(mode, host string) string {
	return fmt.Sprintf("version: STSv1\nmode: %s\nmx: %s.test\nmax_age: 1000000\n", mode, host)
}

// resolver is one without anything in its cache.
func (w *world) resolver() *dns.Resolver {
	w.Helper()
	r, err := dns.New([]string{w.dns.Addr()}, patience)
	if err != nil {
		w.Fatal(err)
	}
	return r
}

// fresh is a DNS without a memory.
type fresh struct{ w *world }

func (f fresh) TXT(ctx context.Context, name string) ([]string, error) {
	return f.w.resolver().TXT(ctx, name)
}

func (w *world) cache(s Storage) *Cache {
	return NewCache(fresh{w}, w.fetcher, s, slog.New(slog.DiscardHandler))
}

func (w *world) add(lines ...string) {
	w.Helper()
	if err := w.dns.Add(lines...); err != nil {
		w.Fatal(err)
	}
}

func (w *world) record(id string) {
	w.dns.Remove("_mta-sts.example.test")
	if id != "" {
		w.add(`_mta-sts.example.test. 5 IN TXT "v=STSv1; id=` + id + `;"`)
	}
}

func (w *world) respond(h http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handler = h
}

func (w *world) serve(text string) {
	w.respond(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/.well-known/mta-sts.txt" || r.Host != "mta-sts.example.test" || r.Method != http.MethodGet {
			w.Errorf("asked for %s %s%s", r.Method, r.Host, r.URL.Path)
		}
		rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
		io.WriteString(rw, text)
	})
}

func (w *world) down() {
	w.respond(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusServiceUnavailable) })
}

func (w *world) fetched() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fetches
}

// find gives what the cache finds in a line: mode and hosts of the policy, and
// the trouble.
func (w *world) find(c *Cache) string {
	w.Helper()
	f, err := c.Find(w.Context(), "example.test")
	if err != nil {
		w.Fatal(err)
	}
	s := "none"
	if f.Policy != nil {
		s = string(f.Policy.Mode) + " " + strings.Join(f.Policy.MX, " ")
	}
	if f.Trouble != nil {
		s += ", " + f.Trouble.Result
	}
	return s
}

// later makes what the cache knows older.
func (w *world) later(c *Cache, d time.Duration) {
	e := c.entry("example.test")
	e.busy <- struct{}{}
	e.checked, e.failed = e.checked.Add(-d), e.failed.Add(-d)
	if e.found.Policy != nil {
		p := *e.found.Policy
		p.Fetched = p.Fetched.Add(-d)
		e.found.Policy = &p
	}
	<-e.busy
}

func (w *world) expect(what, got, want string) {
	w.Helper()
	if got != want {
		w.Errorf("%s: %s; want %s", what, got, want)
	}
}

// TestFetch has the rules of RFC 8461 section 3.3, over real HTTPS.
func TestFetch(t *testing.T) {
	plain := func(text string) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "text/plain")
			io.WriteString(rw, text)
		}
	}
	never := make(chan struct{})
	defer close(never)
	for _, tt := range []struct {
		name    string
		change  func(*x509.Certificate)
		names   []string
		handler http.HandlerFunc
		addr    string
		private bool
		want    string // result; empty: a policy
		words   string
	}{
		{name: "good"},
		{name: "wildcard certificate", names: []string{"*.example.test"}},
		{name: "certificate for the domain", names: []string{"example.test"}, want: STSWebUntrusted, words: "mta-sts.example.test"},
		{name: "certificate by common name", names: []string{"other.test"}, change: func(c *x509.Certificate) { c.Subject.CommonName = "mta-sts.example.test" }, want: STSWebUntrusted},
		{name: "certificate expired", change: func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, want: STSWebUntrusted},
		{name: "redirect", handler: func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "https://mta-sts.example.test/other", http.StatusMovedPermanently)
		}, want: STSFetchError, words: "301"},
		{name: "404", handler: http.NotFound, want: STSFetchError, words: "404"},
		{name: "204", handler: func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(204) }, want: STSFetchError, words: "204"},
		{name: "a page", handler: func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "text/html")
			io.WriteString(rw, policy("enforce", "a"))
		}, want: STSFetchError, words: "not text/plain"},
		{name: "no type", handler: func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header()["Content-Type"] = nil
			io.WriteString(rw, policy("enforce", "a"))
		}, want: STSFetchError, words: "not text/plain"},
		{name: "unreadable", handler: plain("hello"), want: STSInvalid},
		{name: "endless", handler: func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Type", "text/plain")
			for r.Context().Err() == nil {
				if _, err := io.WriteString(rw, strings.Repeat("x: y\n", 1000)); err != nil {
					return
				}
			}
		}, want: STSInvalid, words: "longer than"},
		{name: "half a body", handler: func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "text/plain")
			rw.Header().Set("Content-Length", "1000")
			io.WriteString(rw, policy("enforce", "a"))
		}, want: STSFetchError},
		{name: "silence", handler: func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-never:
			case <-r.Context().Done():
			}
		}, want: STSFetchError, words: "no answer in time"},
		{name: "private address", private: true, want: STSFetchError, words: "private"},
		{name: "no address", addr: "none", want: STSFetchError, words: "mta-sts.example.test"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, tt.change, tt.names...)
			if tt.handler != nil {
				w.respond(tt.handler)
			}
			if tt.addr != "" {
				w.dns.Remove("mta-sts.example.test")
			}
			w.fetcher.Addrs = w.resolver().Addrs
			w.fetcher.Allowed = func(netip.Addr) bool { return !tt.private }
			if tt.name == "silence" {
				w.fetcher.Timeout = 200 * time.Millisecond
			}
			p, err := w.fetcher.Fetch(t.Context(), "example.test")
			if tt.want == "" {
				if err != nil || p.Mode != Enforce || p.Fetched.IsZero() {
					t.Errorf("%+v, %v", p, err)
				}
				return
			}
			var f *Failure
			if !errors.As(err, &f) || f.Result != tt.want || !strings.Contains(f.Text, tt.words) {
				t.Errorf("got %+v, %v; want %s with %q", p, err, tt.want, tt.words)
			}
			if tt.name == "redirect" && w.fetched() != 1 {
				t.Errorf("%d requests: the redirect was followed", w.fetched())
			}
		})
	}
}

// TestHeld has RFC 8461 section 5.1: a policy that was seen holds, whatever
// becomes of record and server, until it expires; and newer ones replace it.
func TestHeld(t *testing.T) {
	w := newWorld(t, nil)
	c := w.cache(newShelf())
	w.expect("first", w.find(c), "enforce a.test")
	w.serve(policy("testing", "b"))
	w.expect("at once", w.find(c), "enforce a.test")
	w.later(c, recheck)
	w.expect("same id", w.find(c), "enforce a.test")
	if w.fetched() != 1 {
		t.Errorf("%d fetches, want 1", w.fetched())
	}

	w.record("2")
	w.down()
	w.later(c, recheck)
	w.expect("new id, server down", w.find(c), "enforce a.test, "+STSFetchError)
	w.later(c, recheck)
	w.expect("again at once", w.find(c), "enforce a.test, "+STSFetchError)
	if w.fetched() != 2 {
		t.Errorf("%d fetches, want 2: it was not five minutes", w.fetched())
	}
	w.serve(policy("testing", "b"))
	w.later(c, fetchAgain)
	w.expect("new id, server up", w.find(c), "testing b.test")

	w.record("3")
	w.serve("hello")
	w.later(c, recheck)
	w.expect("invalid", w.find(c), "testing b.test, "+STSInvalid)
	w.record("")
	w.later(c, recheck)
	w.expect("record gone", w.find(c), "testing b.test")
	w.dns.Fail("_mta-sts.example.test", mdns.RcodeServerFailure)
	w.later(c, recheck)
	w.expect("look-up fails", w.find(c), "testing b.test")
	w.later(c, 1_000_000*time.Second)
	w.expect("expired", w.find(c), "none")
}

// TestNone: a domain without a policy costs a look-up a minute, and no fetch.
func TestNone(t *testing.T) {
	w := newWorld(t, nil)
	w.record("")
	c := w.cache(newShelf())
	for range 3 {
		w.expect("none", w.find(c), "none")
	}
	if n := w.dns.Queries("_mta-sts.example.test", mdns.TypeTXT); n != 1 || w.fetched() != 0 {
		t.Errorf("%d look-ups, %d fetches; want 1 and 0", n, w.fetched())
	}
	w.record("1")
	w.later(c, recheck)
	w.expect("published", w.find(c), "enforce a.test")
	w.record("x y")
	w.later(c, recheck)
	w.expect("bad record", w.find(c), "enforce a.test, "+STSInvalid)
}

// TestRestart: a policy outlives the process, and serves all nodes.
func TestRestart(t *testing.T) {
	w := newWorld(t, nil)
	s := newShelf()
	one := w.cache(s)
	w.expect("first", w.find(one), "enforce a.test")
	w.down()
	w.record("")
	two := w.cache(s)
	w.expect("after a restart, record and server gone", w.find(two), "enforce a.test")

	w.record("2")
	w.serve(policy("testing", "b"))
	w.later(one, recheck)
	w.expect("one node", w.find(one), "testing b.test")
	w.down()
	w.later(two, recheck)
	w.expect("the other node, from the store", w.find(two), "testing b.test")

	// A store that is away for a moment must not make anybody forget.
	s.broken = true
	three := w.cache(s)
	w.expect("store away", w.find(three), "none, "+STSFetchError)
	s.mu.Lock()
	s.broken = false
	s.mu.Unlock()
	w.later(three, recheck)
	w.expect("store back", w.find(three), "testing b.test")

	w.record("")
	s.broken = true
	four := w.cache(s)
	w.expect("store away, no record", w.find(four), "none")
	s.broken = false
	w.later(four, recheck)
	w.expect("store back, no record", w.find(four), "testing b.test")

	w.record("2")
	s.kept[key("example.test")] = []byte("{")
	w.expect("spoilt", w.find(w.cache(s)), "none, "+STSFetchError)
}

// TestRenewal: a policy in use is fetched anew before it gets old, without
// anybody waiting for it; and also when the clock was set back.
func TestRenewal(t *testing.T) {
	for _, jump := range []time.Duration{renew + time.Minute, -3 * time.Hour} {
		w := newWorld(t, nil)
		c := w.cache(newShelf())
		w.find(c)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { c.Run(ctx) })
		w.serve(policy("testing", "b"))
		w.later(c, jump)
		if got := w.find(c); got != "enforce a.test" {
			t.Errorf("waited for: %s", got)
		}
		deadline := time.After(patience)
		for w.find(c) != "testing b.test" {
			select {
			case <-deadline:
				t.Fatalf("jump %v: never renewed: %s", jump, w.find(c))
			case <-time.After(time.Millisecond):
			}
		}
		cancel()
		wg.Wait()
	}
}

// TestOneFetch: many who ask at once cost one fetch; who gives up waits no
// longer.
func TestOneFetch(t *testing.T) {
	w := newWorld(t, nil)
	c := w.cache(nil)
	began, release := make(chan struct{}), make(chan struct{})
	w.respond(func(rw http.ResponseWriter, _ *http.Request) {
		close(began)
		<-release
		rw.Header().Set("Content-Type", "text/plain")
		io.WriteString(rw, policy("enforce", "a"))
	})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { w.expect("shared", w.find(c), "enforce a.test") })
	}
	<-began
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Find(ctx, "example.test"); !errors.Is(err, context.Canceled) {
		t.Errorf("who gave up: %v", err)
	}
	close(release)
	wg.Wait()
	if w.fetched() != 1 {
		t.Errorf("%d fetches", w.fetched())
	}
}

// TestManyDomains: the memory is bounded.
func TestManyDomains(t *testing.T) {
	c := NewCache(nil, nil, nil, slog.New(slog.DiscardHandler))
	for i := range 3 * maxEntries {
		c.entry(fmt.Sprint(i))
	}
	if len(c.entries) > maxEntries {
		t.Errorf("%d entries", len(c.entries))
	}
}

// BenchmarkFind is what a look-up costs that is in memory, as for each domain
// once a minute.
func BenchmarkFind(b *testing.B) {
	c := NewCache(nil, nil, nil, slog.New(slog.DiscardHandler))
	p := &STS{ID: "1", Mode: Enforce, MX: []string{"*.example.test"}, MaxAge: time.Hour * 1000, Fetched: time.Now()}
	e := c.entry("example.test")
	e.checked, e.found.Policy = time.Now().Add(time.Minute/2), p
	policies := &Policies{}
	hosts := &dns.MailHosts{Domain: "example.test", Hosts: []dns.Host{{Name: "a.example.test"}, {Name: "b.example.test"}}}
	for b.Loop() {
		e.checked = time.Now()
		found, err := c.Find(b.Context(), "example.test")
		if err != nil {
			b.Fatal(err)
		}
		if d, err := policies.Decide(b.Context(), hosts, found, 25); err != nil || d.Rules[1].Level != Verified {
			b.Fatal(d, err)
		}
	}
}
