package domain

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"postrider/internal/dns"
	"postrider/internal/lab/fakedns"
	"postrider/internal/relay"
)

// memory is a Store as the real one is: versions, one holder of a name.
type memory struct {
	mu      sync.Mutex
	domains map[relay.ID]relay.Domain
	writes  int
	// before, where not nil, runs once ahead of the next write: somebody else.
	before func()
}

func newMemory() *memory { return &memory{domains: map[relay.ID]relay.Domain{}} }

func notFound() error { return &relay.Error{Code: relay.NotFound, Text: "There is no such domain."} }

func (m *memory) find(account relay.ID, want func(relay.Domain) bool) []*relay.Domain {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.locked(account, want)
}

// locked finds for who holds the lock.
func (m *memory) locked(account relay.ID, want func(relay.Domain) bool) []*relay.Domain {
	var out []*relay.Domain
	for _, d := range m.domains {
		if (account == relay.Everyone || d.Account == account) && want(d) {
			d.Keys = slices.Clone(d.Keys)
			out = append(out, &d)
		}
	}
	slices.SortFunc(out, func(a, b *relay.Domain) int { return a.ID.Compare(b.ID) })
	return out
}

func (m *memory) Domain(_ context.Context, account, id relay.ID) (*relay.Domain, error) {
	if found := m.find(account, func(d relay.Domain) bool { return d.ID == id }); len(found) > 0 {
		return found[0], nil
	}
	return nil, notFound()
}

func (m *memory) DomainByName(_ context.Context, account relay.ID, name string) (*relay.Domain, error) {
	if found := m.find(account, func(d relay.Domain) bool { return d.Name == name }); len(found) > 0 {
		return slices.MaxFunc(found, func(a, b *relay.Domain) int { return a.Verified.Compare(b.Verified) }), nil
	}
	return nil, notFound()
}

func (m *memory) Domains(_ context.Context, account, after relay.ID, limit int) ([]*relay.Domain, error) {
	found := m.find(account, func(d relay.Domain) bool { return d.ID.Compare(after) > 0 })
	return found[:min(limit, len(found))], nil
}

func (m *memory) DueDomains(_ context.Context, now, until time.Time, limit int) ([]*relay.Domain, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	due := m.locked(relay.Everyone, func(d relay.Domain) bool { return !d.Due.After(now) })
	due = due[:min(limit, len(due))]
	for _, d := range due {
		kept := m.domains[d.ID]
		kept.Due, d.Due = until, until
		m.domains[d.ID] = kept
	}
	return due, nil
}

func (m *memory) put(d *relay.Domain, version int64) error {
	m.mu.Lock()
	before := m.before
	m.before = nil
	m.mu.Unlock()
	if before != nil {
		before()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writes++
	for _, o := range m.domains {
		if o.ID != d.ID && o.Name == d.Name && (o.Account == d.Account || !o.Verified.IsZero() && !d.Verified.IsZero()) {
			return &relay.Error{Code: relay.Conflict, Text: "The domain is in use already."}
		}
	}
	if m.domains[d.ID].Version != version {
		return &relay.Error{Code: relay.Conflict, Text: "Somebody else has changed it."}
	}
	d.Version = version + 1
	m.domains[d.ID] = *d
	return nil
}

func (m *memory) AddDomain(_ context.Context, _ relay.Actor, d *relay.Domain) error {
	return m.put(d, 0)
}

func (m *memory) SetDomain(_ context.Context, _ relay.Actor, account relay.ID, d *relay.Domain) error {
	return m.put(d, d.Version)
}

func (m *memory) CheckedDomain(ctx context.Context, by relay.Actor, account relay.ID, d *relay.Domain) error {
	return m.SetDomain(ctx, by, account, d)
}

func (m *memory) RemoveDomain(_ context.Context, _ relay.Actor, account, id relay.ID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.domains, id)
	return nil
}

// bench is a manager beside a DNS server.
type bench struct {
	*Manager
	store *memory
	zone  *fakedns.Server
	clock time.Time
}

var us, them = relay.ID{2}, relay.ID{3}

func newBench(t *testing.T) *bench {
	t.Helper()
	zone, err := fakedns.Start("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(zone.Close)
	resolver, err := dns.New([]string{zone.Addr()}, 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{store: newMemory(), zone: zone, clock: epoch}
	var last byte
	b.Manager = NewManager(Config{Service: service, Rhythm: Rhythm{Every: 12 * time.Hour, Grace: 72 * time.Hour},
		NewKey: func(_ *relay.Domain, selector, algorithm string, now time.Time) (relay.DKIMKey, error) {
			return relay.DKIMKey{Selector: selector, Algorithm: algorithm, Public: "v=DKIM1; k=" + algorithm + "; p=" + strings.Repeat("QUJD", 100),
				Sealed: []byte(selector), State: relay.KeyWaiting, Since: now}, nil
		},
		NewID: func() (relay.ID, error) { last++; return relay.ID{9, last}, nil }}, b.store, DNS{resolver})
	b.now = func() time.Time { return b.clock }
	b.add(t, strings.Split(strings.TrimSpace(Zone(service, nil)), "\n")...)
	return b
}

func (b *bench) add(t *testing.T, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if strings.HasPrefix(l, ";") {
			continue
		}
		if err := b.zone.Add(l); err != nil {
			t.Fatal(err)
		}
	}
}

// publish puts a domain's records into the DNS.
func (b *bench) publish(t *testing.T, d *relay.Domain, purposes ...string) {
	t.Helper()
	for _, r := range Records(d, service, "", nil) {
		if len(purposes) > 0 && !slices.Contains(purposes, r.Purpose) {
			continue
		}
		value := Quote(r.Value)
		if r.Type == "CNAME" {
			value = r.Value + "."
		}
		b.zone.Remove(r.Name)
		b.add(t, fmt.Sprintf("%s. 60 IN %s %s", r.Name, r.Type, value))
	}
}

func (b *bench) verdicts(d *relay.Domain) string {
	worst := map[string]relay.Verdict{}
	for _, f := range d.Findings {
		if f.Status != relay.Good || worst[f.Check] == "" {
			worst[f.Check] = f.Status
		}
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(worst)) {
		out = append(out, k+"="+string(worst[k]))
	}
	return strings.Join(out, " ")
}

func TestDomainComesAndGoes(t *testing.T) {
	for _, how := range []string{PublishTXT, PublishCNAME} {
		t.Run(how, func(t *testing.T) {
			b, ctx, by := newBench(t), t.Context(), relay.Actor{Name: "ann"}
			d, err := b.Add(ctx, by, us, "Bücher.Example", Settings{Publish: &how})
			if err != nil || d.Name != "xn--bcher-kva.example" || len(d.Keys) != 2 || len(d.Proof) < 20 {
				t.Fatalf("%+v, %v", d, err)
			}
			if _, err := b.Add(ctx, by, us, "xn--bcher-kva.example", Settings{}); relay.CodeOf(err) != relay.Conflict {
				t.Errorf("the same again: %v", err)
			}
			d, err = b.Check(ctx, by, us, "bücher.example")
			if err != nil {
				t.Fatal(err)
			}
			if got, want := b.verdicts(d), "dkim=warning dmarc=warning ownership=bad return-path=warning spf=warning tracking=warning"; got != want {
				t.Errorf("before: %s, want %s", got, want)
			}
			b.publish(t, d)
			all, err := b.List(ctx, us, relay.ID{}, 10)
			if err != nil || len(all) != 1 {
				t.Fatal(all, err)
			}
			zone, err := b.Zone(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for l := range strings.Lines(zone) {
				if strings.Contains(l, ".dkim.") {
					b.add(t, strings.TrimSpace(l))
				}
			}
			if d, err = b.Check(ctx, by, us, d.ID.String()); err != nil {
				t.Fatal(err)
			}
			if got, want := b.verdicts(d), "dkim=good dmarc=good ownership=good return-path=good spf=good tracking=good"; got != want {
				t.Errorf("published: %s\n%+v", got, d.Findings)
			}
			if d.Verified.IsZero() || d.Aligned.IsZero() || d.Keys[0].State != relay.KeySigning || d.Keys[1].State != relay.KeySigning {
				t.Errorf("%+v", d)
			}
			if d, err = b.Rotate(ctx, by, us, d.Name); err != nil || len(d.Keys) != 4 {
				t.Fatal(d, err)
			}
			if _, err := b.Rotate(ctx, by, us, d.Name); relay.CodeOf(err) != relay.Conflict {
				t.Errorf("a second rotation: %v", err)
			}
			if _, err := b.Remove(ctx, by, us, d.Name); err != nil {
				t.Error(err)
			}
			if _, err := b.Find(ctx, us, d.Name); relay.CodeOf(err) != relay.NotFound {
				t.Errorf("after it was removed: %v", err)
			}
		})
	}
}

// What was published a moment after a check is seen by the next one: the
// resolver's memory does not count.
func TestFreshLook(t *testing.T) {
	b, ctx := newBench(t), t.Context()
	b.add(t, "example.test. 3600 IN SOA ns.test. root.test. 1 3600 600 86400 3600")
	d, err := b.Add(ctx, relay.Actor{}, us, "example.test", Settings{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if d, err = b.Check(ctx, relay.Actor{}, us, d.Name); err != nil || !d.Verified.IsZero() {
			t.Fatal(d, err)
		}
	}
	b.publish(t, d, Ownership, ReturnPath)
	if d, err = b.Check(ctx, relay.Actor{}, us, d.Name); err != nil || d.Verified.IsZero() || d.Aligned.IsZero() {
		t.Error(d, err)
	}
}

// One account has a domain. The other hears so, without a name, and has it when
// the first lets go of it.
func TestTwoAccounts(t *testing.T) {
	b, ctx := newBench(t), t.Context()
	mine, err := b.Add(ctx, relay.Actor{}, us, "example.test", Settings{})
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := b.Add(ctx, relay.Actor{}, them, "example.test", Settings{})
	if err != nil {
		t.Fatalf("many may ask for a domain: %v", err)
	}
	for _, d := range []*relay.Domain{mine, theirs} {
		b.add(t, "_postrider.example.test. 60 IN TXT "+Quote(proofTag+d.Proof))
	}
	if mine, err = b.Check(ctx, relay.Actor{}, us, "example.test"); err != nil || mine.Verified.IsZero() {
		t.Fatal(mine, err)
	}
	if theirs, err = b.Check(ctx, relay.Actor{}, them, "example.test"); err != nil || !theirs.Verified.IsZero() {
		t.Fatalf("two have it: %+v, %v", theirs, err)
	}
	f := theirs.Findings[0]
	if f.Check != Ownership || f.Status != relay.Bad || !strings.Contains(f.Text, "another account") || strings.Contains(f.Text+f.Advice, us.String()) {
		t.Errorf("%+v", f)
	}
	for _, id := range []string{mine.ID.String(), theirs.ID.String()} {
		if _, err := b.Find(ctx, relay.ID{7}, id); relay.CodeOf(err) != relay.NotFound {
			t.Errorf("a stranger finds %s: %v", id, err)
		}
	}
	if _, err := b.Remove(ctx, relay.Actor{}, us, "example.test"); err != nil {
		t.Fatal(err)
	}
	if theirs, err = b.Check(ctx, relay.Actor{}, them, "example.test"); err != nil || theirs.Verified.IsZero() {
		t.Errorf("%+v, %v", theirs, err)
	}
}

// Who has lost the proof for longer than the grace period loses the domain to who
// has it, even where the settings say that nothing follows.
func TestDomainChangesHands(t *testing.T) {
	b, ctx, warn := newBench(t), t.Context(), relay.BrokenWarn
	old, err := b.Add(ctx, relay.Actor{}, us, "example.test", Settings{Broken: &warn})
	if err != nil {
		t.Fatal(err)
	}
	b.publish(t, old, Ownership)
	if old, err = b.Check(ctx, relay.Actor{}, us, "example.test"); err != nil || old.Verified.IsZero() {
		t.Fatal(old, err)
	}
	heir, err := b.Add(ctx, relay.Actor{}, them, "example.test", Settings{})
	if err != nil {
		t.Fatal(err)
	}
	b.publish(t, heir, Ownership) // in place of the other
	check := func(what string, account relay.ID, verified bool) {
		t.Helper()
		d, err := b.Check(ctx, relay.Actor{}, account, "example.test")
		if err != nil || d.Verified.IsZero() == verified {
			t.Errorf("%s: verified %v, %v", what, d.Verified, err)
		}
	}
	check("before anybody noticed", them, false)
	check("the proof is gone", us, true)
	b.clock = b.clock.Add(71 * time.Hour)
	check("within the grace period", them, false)
	b.clock = b.clock.Add(2 * time.Hour)
	check("after it", us, true)
	check("it changes hands", them, true)
	check("and is gone", us, false)

	// Who still has the proof keeps the domain, whatever else is missing.
	if heir, err = b.Change(ctx, relay.Actor{}, them, "example.test", Settings{Broken: &warn}); err != nil {
		t.Fatal(err)
	}
	b.publish(t, heir, Ownership, DKIM)
	check("with keys", them, true)
	for _, k := range heir.Keys {
		b.zone.Remove(keyName(k.Selector, heir.Name))
	}
	check("keys gone", them, true)
	b.clock = b.clock.Add(100 * time.Hour)
	check("keys gone for long", them, true)
	b.add(t, "_postrider.example.test. 60 IN TXT "+Quote(proofTag+old.Proof))
	check("another proof beside it", us, false)
	check("it stays", them, true)
}

// Two nodes that check at once: one stores, the other gives what that one found.
func TestChecksAtOnce(t *testing.T) {
	b, ctx := newBench(t), t.Context()
	d, err := b.Add(ctx, relay.Actor{}, us, "example.test", Settings{})
	if err != nil {
		t.Fatal(err)
	}
	b.publish(t, d)
	var first *relay.Domain
	b.store.before = func() {
		if first, err = b.check(ctx, relay.Actor{}, d); err != nil {
			t.Error(err)
		}
	}
	second, err := b.check(ctx, relay.Actor{}, d)
	if err != nil || first == nil || second.Version != first.Version || second.Verified.IsZero() {
		t.Errorf("%+v, %v", second, err)
	}
	// A person's change is made to what a check has just stored.
	b.store.before = func() {
		if _, err := b.Check(ctx, relay.Actor{}, us, "example.test"); err != nil {
			t.Error(err)
		}
	}
	label := "mail"
	changed, err := b.Change(ctx, relay.Actor{}, us, "example.test", Settings{ReturnPath: &label})
	if err != nil || changed.ReturnPath != "mail" || changed.Verified.IsZero() || !changed.Aligned.IsZero() {
		t.Errorf("%+v, %v", changed, err)
	}
	if _, err := b.Change(ctx, relay.Actor{}, us, "example.test", Settings{ReturnPath: &label, Version: 1}); relay.CodeOf(err) != relay.Conflict {
		t.Errorf("a change to an old version: %v", err)
	}
}

func TestSettingsRefused(t *testing.T) {
	b := newBench(t)
	word := func(s string) *string { return &s }
	rule := relay.BrokenRule("explode")
	for _, s := range []Settings{{Publish: word("fax")}, {ReturnPath: word("a.b")}, {Tracking: word("-x")}, {Tracking: word("bounce")}, {Broken: &rule}} {
		if _, err := b.Add(t.Context(), relay.Actor{}, us, "example.test", s); relay.CodeOf(err) != relay.Invalid {
			t.Errorf("%+v: %v", s, err)
		}
	}
	if _, err := b.Add(t.Context(), relay.Actor{}, us, "co.uk", Settings{}); relay.CodeOf(err) != relay.Invalid {
		t.Errorf("a public suffix: %v", err)
	}
}

// DNS that times out, fails, lies or floods changes nothing that was known, and
// is said.
func TestBadDNS(t *testing.T) {
	b, ctx := newBench(t), t.Context()
	d, err := b.Add(ctx, relay.Actor{}, us, "example.test", Settings{})
	if err != nil {
		t.Fatal(err)
	}
	b.publish(t, d)
	check := func(what, want string) {
		t.Helper()
		b.clock = b.clock.Add(1000 * time.Hour)
		if d, err = b.Check(ctx, relay.Actor{}, us, "example.test"); err != nil || d.Verified.IsZero() {
			t.Errorf("%s: %+v, %v", what, d, err)
		}
		if got := b.verdicts(d); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	check("all is well", "ownership=good")
	b.zone.Silence("_postrider.example.test")
	check("silence", "ownership=unknown")
	b.zone.Restore("_postrider.example.test")
	b.zone.Fail("_postrider.example.test", mdns.RcodeServerFailure)
	check("SERVFAIL", "ownership=unknown")
	b.zone.Restore("_postrider.example.test")
	for i := range 1000 {
		b.add(t, fmt.Sprintf(`_dmarc.example.test. 60 IN TXT "noise %d"`, i))
	}
	check("a thousand records", "ownership=good")
	for _, f := range d.Findings {
		if len(f.Found) > shownValues+1 {
			t.Errorf("%s shows %d records", f.Check, len(f.Found))
		}
	}
	b.zone.Remove("_postrider.example.test")
	check("NXDOMAIN for a name that is there: a lie, or not", "ownership=bad")
	if d.Failing.IsZero() {
		t.Error("nothing is noted of it")
	}
}

// counter answers every question with a record that leads on, and counts.
type counter struct {
	mu    sync.Mutex
	asked int
}

func (c *counter) Ask(_ context.Context, q Question) Answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	var b strings.Builder
	b.WriteString("v=spf1")
	for i := range 20 {
		fmt.Fprintf(&b, " include:i%d.%s", i, q.Name)
	}
	return Answer{Values: []string{b.String()}}
}

// Whatever the DNS answers, a look ends.
func TestLookBounded(t *testing.T) {
	d, c := aDomain("example.test"), &counter{}
	for i := range 200 {
		d.Keys = append(d.Keys, relay.DKIMKey{Selector: fmt.Sprint("k", i), State: relay.KeyRetired})
	}
	Look(t.Context(), c, d, service)
	if c.asked > lookAtMost {
		t.Errorf("%d questions, want %d at most", c.asked, lookAtMost)
	}
}

// gate lets questions through when it opens, and counts domains that are asked
// about at once by their ownership records.
type gate struct {
	open chan struct{}
	mu   sync.Mutex
	most int
	now  int
}

func (g *gate) Ask(ctx context.Context, q Question) Answer {
	if !strings.HasPrefix(q.Name, proofLabel) || strings.Count(q.Name, "test") > 1 {
		return Answer{}
	}
	g.mu.Lock()
	g.now++
	g.most = max(g.most, g.now)
	g.mu.Unlock()
	select {
	case <-g.open:
	case <-ctx.Done():
	}
	g.mu.Lock()
	g.now--
	g.mu.Unlock()
	return Answer{}
}

// However many ask for checks, a bounded number runs, and who does not want to
// wait need not.
func TestLooksAtOnce(t *testing.T) {
	b, g := newBench(t), &gate{open: make(chan struct{})}
	b.dns = g
	d, err := b.Add(t.Context(), relay.Actor{}, us, "example.test", Settings{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range maxLooks + 5 {
		wg.Go(func() { b.Look(t.Context(), d) })
	}
	for began := time.Now(); ; runtime.Gosched() {
		if g.mu.Lock(); g.now == maxLooks {
			g.mu.Unlock()
			break
		}
		g.mu.Unlock()
		if time.Since(began) > time.Minute {
			t.Fatal("not as many at once as there may be")
		}
	}
	hurried, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Check(hurried, relay.Actor{}, us, "example.test"); err == nil {
		t.Error("who has gone is waited for")
	}
	close(g.open)
	wg.Wait()
	if g.most > maxLooks {
		t.Errorf("%d at once", g.most)
	}
}

func TestWatch(t *testing.T) {
	b, ctx := newBench(t), t.Context()
	names := []string{}
	for i := range 7 {
		names = append(names, fmt.Sprintf("d%d.test", i))
		d, err := b.Add(ctx, relay.Actor{}, us, names[i], Settings{})
		if err != nil {
			t.Fatal(err)
		}
		b.publish(t, d, Ownership)
	}
	// Two nodes look at once: each domain is checked by one of them.
	b.store.writes = 0
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if _, err := NewWatch(b.Manager, b.store, nil).round(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if b.store.writes != len(names) {
		t.Errorf("%d checks of %d domains", b.store.writes, len(names))
	}
	for _, name := range names {
		d, err := b.Find(ctx, us, name)
		if err != nil || d.Verified.IsZero() || !d.Due.After(b.clock) {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
	if n, err := NewWatch(b.Manager, b.store, nil).round(ctx); n != 0 || err != nil {
		t.Errorf("nothing is due: %d, %v", n, err)
	}
}

// Run checks what is due, and ends with its context.
func TestWatchRun(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	d, err := b.Add(ctx, relay.Actor{}, us, "example.test", Settings{})
	if err != nil {
		t.Fatal(err)
	}
	b.publish(t, d, Ownership)
	done := make(chan error)
	go func() { done <- NewWatch(b.Manager, b.store, nil).Run(ctx) }()
	for began := time.Now(); ; runtime.Gosched() {
		d, err := b.Find(ctx, us, "example.test")
		if err == nil && !d.Verified.IsZero() {
			break
		}
		if time.Since(began) > time.Minute {
			t.Fatal("not checked within a minute")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestPlan(t *testing.T) {
	b, ctx := newBench(t), t.Context()
	if _, err := b.Add(ctx, relay.Actor{}, us, "news.example.test", Settings{}); err != nil {
		t.Fatal(err)
	}
	b.add(t, "example.test. 60 IN NS ada.ns.cloudflare.com.", `news.example.test. 60 IN TXT "v=spf1 mx -all"`)
	p, err := b.Records(ctx, us, "news.example.test")
	if err != nil || p.Zone != "example.test" || p.Panel == nil || p.Panel.Provider != "Cloudflare" {
		t.Fatalf("%+v, %v", p, err)
	}
	found := ""
	for _, r := range p.Records {
		if r.Purpose == SPF {
			found = r.Host + " " + r.Value
		}
	}
	if found != "news v=spf1 include:spf.relay.test.net mx -all" {
		t.Error(cmp.Or(found, "no SPF record"))
	}
}

// Nobody has the relay make keys without end for domains that they do not prove.
func TestOpenDomains(t *testing.T) {
	b, ctx, by := newBench(t), t.Context(), relay.Actor{Name: "ann"}
	for i := range byte(mostOpen) {
		b.store.domains[relay.ID{1, i}] = relay.Domain{ID: relay.ID{1, i}, Account: us, Name: fmt.Sprintf("d%d.example", i)}
	}
	if _, err := b.Add(ctx, by, us, "more.example", Settings{}); relay.CodeOf(err) != relay.Conflict {
		t.Errorf("one more: %v", err)
	}
	if _, err := b.Add(ctx, by, them, "more.example", Settings{}); err != nil {
		t.Errorf("of another account: %v", err)
	}
	proven := b.store.domains[relay.ID{1, 5}]
	proven.Verified = epoch
	b.store.domains[proven.ID] = proven
	if _, err := b.Add(ctx, by, us, "more.example", Settings{}); err != nil {
		t.Errorf("after one is proven: %v", err)
	}
}
