package acme

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"postrider/internal/lab/postgres"
	"postrider/internal/relay"
	"postrider/internal/store"
	pg "postrider/internal/store/postgres"
	"postrider/internal/submit"
)

// owns makes a verified domain whose tracking host is in order, and a record that
// leads there.
func (a *authority) owns(name string) *relay.Domain {
	a.Helper()
	account, err := a.db.EnsureAccount(a.Context(), "shop")
	if err != nil {
		a.Fatal(err)
	}
	id, err := submit.NewID()
	if err != nil {
		a.Fatal(err)
	}
	now := time.Now()
	d := &relay.Domain{ID: id, Account: account, Name: name, Tracking: "links", Verified: now, Created: now, Due: now.Add(time.Hour),
		Findings: []relay.Finding{{Check: relay.CheckTracking, Status: relay.Good}}}
	if err := a.db.AddDomain(a.Context(), relay.Actor{Name: "test"}, d); err != nil {
		a.Fatal(err)
	}
	return d
}

// leads has a tracking host lead to the relay.
func (a *authority) leads(name string) {
	a.Helper()
	if err := a.zone.Add("links." + name + ". 60 IN A 127.0.0.1"); err != nil {
		a.Fatal(err)
	}
}

// hosts is what a test asks for them with.
func (a *authority) hosts() *HostsConfig {
	return &HostsConfig{Domains: a.db, PerHour: 100, Every: 10 * time.Millisecond, Waits: []time.Duration{time.Hour}}
}

func (a *authority) hostHas(m *Manager, host string) *tls.Certificate {
	a.Helper()
	var got *tls.Certificate
	a.eventually("a certificate for "+host, func() bool {
		m.served.forget(host)
		got = m.HostCertificate(a.Context(), host)
		return got != nil
	})
	a.holds(got, host)
	return got
}

func (a *authority) host(m *Manager, name string) Host {
	a.Helper()
	h, err := m.Host(a.Context(), name)
	if err != nil {
		a.Fatal(err)
	}
	if h == nil {
		return Host{}
	}
	return *h
}

// TestHosts: the tracking host of a domain gets a certificate by either way, which
// is served without one word to the authority; so does one that comes later. Names
// that nobody knows have it asked for nothing.
func TestHosts(t *testing.T) {
	for _, way := range []string{"HTTP", "TLS"} {
		t.Run(way, func(t *testing.T) {
			a := newAuthority(t, 24*time.Hour)
			a.owns("shop.test")
			a.leads("shop.test")
			c := Config{HTTP: a.http, Hosts: a.hosts()}
			if way == "TLS" {
				c.HTTP, c.TLS = nil, a.tls
			}
			m, _ := a.run(c)
			a.holds(a.has(m, name), name)
			first := a.hostHas(m, "links.shop.test")
			a.eventually("its state", func() bool { return a.host(m, "links.shop.test").Expires.Equal(first.Leaf.NotAfter) })
			if h := a.host(m, "links.shop.test"); h.Failures != 0 || h.Error != "" || !h.Renew.After(time.Now()) || h.Account.IsZero() {
				t.Errorf("%+v", h)
			}
			if c := m.HostCertificate(t.Context(), "LINKS.shop.test."); c == nil || !bytes.Equal(c.Certificate[0], first.Certificate[0]) {
				t.Error("names in other letters are others")
			}
			if c := m.Certificate("links.shop.test"); c.Leaf.VerifyHostname(name) != nil {
				t.Error("a host is one of the relay's own names")
			}
			a.owns("late.test")
			a.leads("late.test")
			a.hostHas(m, "links.late.test")
			for _, unknown := range []string{"links.other.test", "", "nodot", "../../x.y", strings.Repeat("a.", 200)} {
				if c := m.HostCertificate(t.Context(), unknown); c != nil {
					t.Errorf("%q has a certificate for %v", unknown, c.Leaf.DNSNames)
				}
			}
			if n := a.orders.Load(); n != 3 {
				t.Errorf("%d orders for three names", n)
			}
		})
	}
}

// TestBadHost: one whose name leads nowhere fails alone, is told why, and is asked
// for again when its time has come; the others and the relay's own have theirs.
func TestBadHost(t *testing.T) {
	a := newAuthority(t, 24*time.Hour)
	for i := range 3 {
		a.owns(fmt.Sprintf("bad%d.test", i)) // there is no such name
	}
	hosts := a.hosts()
	hosts.Waits = []time.Duration{20 * time.Millisecond}
	hosts.PerHour = 8
	m, _ := a.run(Config{HTTP: a.http, Hosts: hosts})
	a.eventually("failures", func() bool {
		return a.host(m, "links.bad0.test").Failures > 0 && a.host(m, "links.bad2.test").Failures > 0
	})
	a.has(m, name)
	a.owns("good.test")
	a.leads("good.test")
	a.hostHas(m, "links.good.test")
	bad := a.host(m, "links.bad0.test")
	if bad.Error == "" || strings.Contains(bad.Error, "ca=") || strings.Contains(bad.Error, "urn:") || bad.Tried.IsZero() || bad.Again.Before(bad.Tried) || !bad.Expires.IsZero() {
		t.Errorf("%+v", bad)
	}
	a.eventually("the counts", func() bool { c := m.HostCounts(); return c["failing"] == 3 && c["there"] == 1 && c["waiting"] == 0 })
	a.eventually("trouble", func() bool { // of who gets no certificate, after some failures
		all, err := m.Trouble(t.Context())
		return err == nil && len(all) > 0 && all[0].Failures >= fewestFailures && all[0].Expires.IsZero() && all[0].Error != ""
	})
	total := 0
	for i := range 3 {
		total += a.host(m, fmt.Sprintf("links.bad%d.test", i)).Failures
	}
	if total > 3+4 {
		t.Errorf("hosts that failed were asked for %d times; 4 times again is what they may", total)
	}
}

// TestMendedHost: one that failed is asked for again.
func TestMendedHost(t *testing.T) {
	a := newAuthority(t, 24*time.Hour)
	a.owns("mended.test")
	hosts := a.hosts()
	hosts.Waits = []time.Duration{20 * time.Millisecond}
	m, _ := a.run(Config{HTTP: a.http, Hosts: hosts})
	a.eventually("failures", func() bool { return a.host(m, "links.mended.test").Failures > 1 })
	a.leads("mended.test")
	a.hostHas(m, "links.mended.test")
	a.eventually("its state", func() bool { h := a.host(m, "links.mended.test"); return h.Failures == 0 && !h.Expires.IsZero() })
}

// TestHostRenewal: a certificate of a short life is renewed in time. While that
// fails the old one stays, and who watches is told.
func TestHostRenewal(t *testing.T) {
	a := newAuthority(t, 6*time.Second)
	a.owns("renew.test")
	a.leads("renew.test")
	hosts := a.hosts()
	hosts.Waits = []time.Duration{50 * time.Millisecond}
	hosts.PerHour = 1000
	m, _ := a.run(Config{HTTP: a.http, Hosts: hosts})
	first := a.hostHas(m, "links.renew.test").Leaf.SerialNumber
	a.eventually("a renewed one", func() bool {
		c := m.HostCertificate(t.Context(), "links.renew.test")
		return c != nil && c.Leaf.SerialNumber.Cmp(first) != 0
	})
	var refused atomic.Bool
	a.lie(func(w http.ResponseWriter, r *http.Request, honest http.Handler) {
		if strings.HasPrefix(r.URL.Path, "/order-plz") {
			refused.Store(true)
			http.Error(w, `{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many certificates"}`, http.StatusTooManyRequests)
			return
		}
		honest.ServeHTTP(w, r)
	})
	a.eventually("word of it", func() bool {
		all, err := m.Trouble(t.Context())
		return err == nil && len(all) == 1 && all[0].Name == "links.renew.test" && all[0].Failures > 0
	})
	if c := m.HostCertificate(t.Context(), "links.renew.test"); c == nil || !refused.Load() {
		t.Error("the old one does not serve any more")
	}
	a.lie(nil)
	a.eventually("all well", func() bool {
		all, err := m.Trouble(t.Context())
		return err == nil && len(all) == 0
	})
}

// TestHostsOfTwoNodes: one orders, both serve; when it ends the other goes on.
func TestHostsOfTwoNodes(t *testing.T) {
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) {
			a := newAuthority(t, 24*time.Hour)
			other := a.db
			if engine == "postgres" {
				server := postgres.Run(t, postgres.Options{Unsynced: true})
				a.db, other = a.postgres(server), a.postgres(server)
			}
			a.owns("one.test")
			a.leads("one.test")
			// Each can answer the authority.
			x, endX := a.run(Config{HTTP: a.http, Hosts: a.hosts()})
			a.db = other
			y, _ := a.run(Config{TLS: a.tls, Hosts: a.hosts()})
			if one, two := a.hostHas(x, "links.one.test"), a.hostHas(y, "links.one.test"); !bytes.Equal(one.Certificate[0], two.Certificate[0]) {
				t.Error("they have two certificates")
			}
			a.has(x, name)
			a.has(y, name)
			endX()
			a.owns("two.test")
			a.leads("two.test")
			a.hostHas(y, "links.two.test")
			if n := a.orders.Load(); n != 3 {
				t.Errorf("%d orders for three names", n)
			}
		})
	}
}

// postgres opens the store of another node.
func (a *authority) postgres(server *postgres.Server) *store.DB {
	a.Helper()
	db, err := pg.Open(a.Context(), server.URL(), slog.New(slog.DiscardHandler))
	if err != nil {
		a.Fatal(err)
	}
	a.Cleanup(func() { db.Close() })
	return db
}

// TestRemovedHost: when the domain goes its certificate does, after a time; when
// the domain comes back before, it is there.
func TestRemovedHost(t *testing.T) {
	a := newAuthority(t, 24*time.Hour)
	d := a.owns("gone.test")
	a.leads("gone.test")
	hosts := a.hosts()
	m, end := a.run(Config{HTTP: a.http, Hosts: hosts})
	a.has(m, name)
	first := a.hostHas(m, "links.gone.test")
	a.eventually("its state", func() bool { return !a.host(m, "links.gone.test").Expires.IsZero() })
	remove := func() {
		t.Helper()
		if err := a.db.RemoveDomain(t.Context(), relay.Actor{Name: "test"}, d.Account, d.ID); err != nil {
			t.Fatal(err)
		}
		a.eventually("its going", func() bool {
			h, err := m.Host(t.Context(), "links.gone.test")
			return err == nil && (h == nil || !h.Gone.IsZero())
		})
	}
	remove()
	d = a.owns("gone.test")
	a.eventually("its coming back", func() bool { return a.host(m, "links.gone.test").Gone.IsZero() })
	if got := a.hostHas(m, "links.gone.test"); !bytes.Equal(got.Certificate[0], first.Certificate[0]) {
		t.Error("it has another certificate")
	}
	end()
	hosts.Gone = time.Microsecond
	m, _ = a.run(Config{HTTP: a.http, Hosts: hosts})
	remove()
	a.eventually("nothing left", func() bool {
		files, err := a.db.Files(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if strings.Contains(f.Name, "links.gone.test") {
				return false
			}
		}
		return true
	})
	m.served.forget("links.gone.test")
	if m.HostCertificate(t.Context(), "links.gone.test") != nil || a.orders.Load() != 2 {
		t.Errorf("%d orders, or it is served still", a.orders.Load())
	}
}

// away is a store that fails.
type away struct{ *store.DB }

func (away) File(context.Context, string) (*store.File, error) {
	return nil, errors.New("the store is away")
}

// TestServedWithoutStore: what was served goes on being served.
func TestServedWithoutStore(t *testing.T) {
	a := newAuthority(t, 24*time.Hour)
	a.owns("shop.test")
	a.leads("shop.test")
	m, _ := a.run(Config{HTTP: a.http, Hosts: a.hosts()})
	first := a.hostHas(m, "links.shop.test")
	n := New(Config{Names: []string{name}, Directory: a.directory, Box: a.box, Hosts: a.hosts()}, away{a.db}, slog.New(slog.DiscardHandler))
	defer n.Close()
	if n.HostCertificate(t.Context(), "links.shop.test") != nil {
		t.Error("a certificate from nowhere")
	}
	n.served.put("links.shop.test", first, time.Now().Add(-time.Hour))
	if n.HostCertificate(t.Context(), "links.shop.test") != first {
		t.Error("it is not served any more")
	}
}

// TestServedWhileRenewed: while the parts of a new certificate are being written the
// old one serves.
func TestServedWhileRenewed(t *testing.T) {
	db, box := newFiles(t)
	m := New(Config{Names: []string{name}, Directory: "https://acme.test/dir", Box: box, Hosts: &HostsConfig{Domains: db}}, db, slog.New(slog.DiscardHandler))
	defer m.Close()
	const host = "links.shop.test"
	keys := certmagic.StorageKeys
	issuer := m.issuer.IssuerKey()
	cert, key := forged(t, host)
	next, nextKey := forged(t, host)
	for _, step := range []struct {
		at    string
		b     []byte
		there bool
	}{{keys.SiteCert(issuer, host), cert, false}, {keys.SitePrivateKey(issuer, host), key, true}, {keys.SiteCert(issuer, host), next, true}, {keys.SitePrivateKey(issuer, host), nextKey, true}} {
		if err := m.files.Store(t.Context(), step.at, step.b); err != nil {
			t.Fatal(err)
		}
		before, _ := m.served.get(host, time.Now())
		if m.served.forget(host); before != nil {
			m.served.put(host, before, time.Now().Add(-2*servedFor))
		}
		if got := m.HostCertificate(t.Context(), host); (got != nil) != step.there {
			t.Errorf("%s written: served: %v", step.at, got != nil)
		}
	}
}

// TestServedForItself: what stands in the store for a host and is not for it, or is
// no certificate, is not served.
func TestServedForItself(t *testing.T) {
	db, box := newFiles(t)
	m := New(Config{Names: []string{name}, Directory: "https://acme.test/dir", Box: box, Hosts: &HostsConfig{Domains: db}}, db, slog.New(slog.DiscardHandler))
	defer m.Close()
	for host, of := range map[string]string{"links.right.test": "links.right.test", "links.wrong.test": "links.right.test"} {
		cert, key := forged(t, of)
		for at, b := range map[string][]byte{certmagic.StorageKeys.SiteCert(m.issuer.IssuerKey(), host): cert, certmagic.StorageKeys.SitePrivateKey(m.issuer.IssuerKey(), host): key} {
			if err := m.files.Store(t.Context(), at, b); err != nil {
				t.Fatal(err)
			}
		}
		if got := m.HostCertificate(t.Context(), host) != nil; got != (host == of) {
			t.Errorf("%s: served: %v", host, got)
		}
	}
}

// TestServedIsBounded: neither many hosts nor names that somebody makes up fill the
// memory.
func TestServedIsBounded(t *testing.T) {
	s := newServed()
	for i := range maxServed + 100 {
		s.put(fmt.Sprint(i, ".test"), &tls.Certificate{}, time.Now())
	}
	for i := range maxUnknown + 100 {
		s.put(fmt.Sprint(i, ".unknown"), nil, time.Now())
	}
	if len(s.certs) != maxServed || len(s.unknown) > maxUnknown {
		t.Errorf("%d certificates, %d names", len(s.certs), len(s.unknown))
	}
	if c, fresh := s.get(fmt.Sprint(maxServed+99, ".test"), time.Now()); c == nil || !fresh {
		t.Error("the last one was put out")
	}
}

// TestNext: which hosts are asked for, when not all can be.
func TestNext(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	many := func(n int, f func(i int) Host) (all []Host) {
		for i := range n {
			all = append(all, f(i))
		}
		return all
	}
	fresh := func(i int) Host {
		return Host{Name: fmt.Sprintf("f%02d", i), Again: ago(time.Minute), registered: fmt.Sprint(i)}
	}
	failed := func(i int) Host {
		return Host{Name: fmt.Sprintf("x%02d", i), Again: ago(time.Hour), Failures: 1, registered: fmt.Sprint(i)}
	}
	for _, tt := range []struct {
		name    string
		hosts   []Host
		orders  []order
		perHour int
		want    string
	}{
		{"not so many at once", many(9, fresh), nil, 100, "f00 f01 f02 f03"},
		{"not so many an hour", many(9, fresh), []order{{ago(time.Minute), false}, {ago(59 * time.Minute), false}, {ago(61 * time.Minute), false}}, 3, "f00"},
		{"none", many(9, fresh), []order{{ago(time.Minute), false}}, 1, ""},
		{"failed ones last", append(many(2, failed), many(1, fresh)...), nil, 100, "f00 x00 x01"},
		{"failed ones have half", many(4, failed), []order{{ago(time.Minute), true}}, 4, "x00"},
		{"and leave the rest to others", append(many(4, failed), many(9, fresh)...), []order{{ago(time.Minute), true}, {ago(time.Minute), true}}, 4, "f00 f01"},
		{"not before its time", []Host{{Name: "a", Again: now.Add(time.Second)}, {Name: "b", Again: ago(time.Hour), Renew: now.Add(time.Hour), Expires: now.Add(2 * time.Hour)}}, nil, 100, ""},
		{"renewals", []Host{{Name: "b", Renew: ago(time.Second), Expires: now.Add(time.Hour), Again: ago(time.Hour)}}, nil, 100, "b"},
		{"one that is gone", []Host{{Name: "a", Again: ago(time.Hour), Gone: ago(time.Minute)}}, nil, 100, ""},
		{"so many of one registered domain in a week", append(many(3, func(i int) Host {
			return Host{Name: fmt.Sprint("h", i), registered: "one", First: ago(24 * time.Hour), Renew: now.Add(time.Hour), Expires: now.Add(2 * time.Hour)}
		}), Host{Name: "more", registered: "one", Again: ago(time.Minute)}, Host{Name: "other", registered: "two", Again: ago(time.Minute)}), nil, 100, "other"},
		{"and its renewals", many(5, func(i int) Host {
			return Host{Name: fmt.Sprint("h", i), registered: "one", First: ago(24 * time.Hour), Renew: ago(time.Duration(9-i) * time.Hour), Expires: now.Add(2 * time.Hour)}
		}), nil, 100, "h0 h1 h2 h3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := &hosts{HostsConfig: HostsConfig{PerHour: tt.perHour, Weekly: 3}.filled(), now: func() time.Time { return now },
				known: map[string]*Host{}, running: map[string]bool{}, orders: tt.orders}
			for i := range tt.hosts {
				h.known[tt.hosts[i].Name] = &tt.hosts[i]
			}
			var got []string
			for _, c := range h.next() {
				got = append(got, c.Name)
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("%v; want %s", got, tt.want)
			}
		})
	}
}

// sometimes is a store that takes no files while it is away.
type sometimes struct {
	*store.DB
	away atomic.Bool
}

func (s *sometimes) PutFile(ctx context.Context, name string, content []byte) error {
	if s.away.Load() {
		return errors.New("the store is away")
	}
	return s.DB.PutFile(ctx, name, content)
}

// TestKeptLater: what the store does not take is kept when it does again.
func TestKeptLater(t *testing.T) {
	db, box := newFiles(t)
	files := &sometimes{DB: db}
	m := New(Config{Names: []string{name}, Directory: "https://acme.test/dir", Box: box, Hosts: &HostsConfig{Domains: db}}, files, slog.New(slog.DiscardHandler))
	defer m.Close()
	if mine, err := m.hosts.lock(t.Context()); err != nil || !mine {
		t.Fatal(mine, err)
	}
	files.away.Store(true)
	if err := m.hosts.settle(t.Context(), Host{Name: "links.a.test", Failures: 1, Again: time.Now().Add(time.Hour)}); err == nil {
		t.Fatal("kept nowhere, and no word of it")
	}
	files.away.Store(false)
	var wg sync.WaitGroup
	if err := m.hosts.round(t.Context(), &wg); err != nil {
		t.Fatal(err)
	}
	if h, err := m.Host(t.Context(), "links.a.test"); err != nil || h == nil || h.Failures != 1 {
		t.Errorf("%+v, %v", h, err)
	}
}

// TestNextNode: what was ordered counts for the node that orders next.
func TestNextNode(t *testing.T) {
	db, box := newFiles(t)
	c := Config{Names: []string{name}, Directory: "https://acme.test/dir", Box: box, Hosts: &HostsConfig{Domains: db, PerHour: 3}}
	one := New(c, db, slog.New(slog.DiscardHandler))
	defer one.Close()
	now := time.Now()
	for i, host := range []Host{{Tried: now.Add(-time.Minute), Failures: 2}, {Tried: now.Add(-2 * time.Minute)}, {Tried: now.Add(-2 * time.Hour)}} {
		host.Name = fmt.Sprint("links.s", i, ".test")
		if err := one.hosts.keep(t.Context(), host); err != nil {
			t.Fatal(err)
		}
	}
	two := New(c, db, slog.New(slog.DiscardHandler))
	defer two.Close()
	if mine, err := two.hosts.lock(t.Context()); err != nil || !mine {
		t.Fatal(mine, err)
	}
	if len(two.hosts.known) != 3 || len(two.hosts.orders) != 2 {
		t.Errorf("%d hosts, %d orders", len(two.hosts.known), len(two.hosts.orders))
	}
	if mine, err := one.hosts.lock(t.Context()); err != nil || mine {
		t.Error("two nodes order", err)
	}
}
