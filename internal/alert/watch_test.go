package alert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	standard "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"postrider/internal/limit"
	"postrider/internal/relay"
	"postrider/internal/seal"
	"postrider/internal/store"
	"postrider/internal/store/sqlite"
	"postrider/internal/store/storetest"
	"postrider/internal/webhook"
)

// rig is a store with an account, and what works on it.
type rig struct {
	*testing.T
	db      *store.DB
	lease   int64
	account relay.ID
	log     *slog.Logger
	post    *webhook.Poster
	box     *seal.Box
	manager *Manager
	sender  *Sender
	mail    *letters
	config  Config
}

// letters is a queue for mail of ours.
type letters struct {
	mu   sync.Mutex
	fail bool
	all  map[string]string // by key: whom, and the text
}

func (l *letters) Alert(_ context.Context, _ relay.ID, to string, content relay.Content, key string) (relay.ID, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail {
		return relay.ID{}, errors.New("the queue is full")
	}
	r, err := content.Open()
	if err != nil {
		return relay.ID{}, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	l.all[key] = to + "\n" + string(b)
	return relay.ID{}, err
}

func (l *letters) taken() (all []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, text := range l.all {
		all = append(all, text)
	}
	slices.Sort(all)
	return all
}

var somebody = relay.Actor{Name: "test"}

func newRig(t *testing.T) *rig {
	r := &rig{T: t, log: slog.New(slog.NewTextHandler(t.Output(), nil)), mail: &letters{all: map[string]string{}}}
	var err error
	must := func() {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	r.db, err = sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "db"), r.log)
	must()
	t.Cleanup(func() {
		if err := r.db.Close(); err != nil {
			t.Error(err)
		}
	})
	r.account, err = r.db.EnsureAccount(t.Context(), "shop")
	must()
	r.lease, err = r.db.Join(t.Context(), "node")
	must()
	r.box, err = seal.New(bytes.Repeat([]byte{7}, seal.KeySize))
	must()
	r.post = webhook.NewPoster(webhook.Config{Addrs: func(_ context.Context, host string) ([]netip.Addr, error) {
		a, err := netip.ParseAddr(host)
		return []netip.Addr{a}, err
	}, Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Timeout: time.Minute})
	operators := Operators{To: []string{"root@relay.example"}}
	r.sender = NewSender(SendConfig{Node: "node", Hostname: "relay.example", From: "alerts@relay.example", Home: r.account, Operators: operators, Log: r.log}, r.db, r.post, r.mail, r.box)
	newID := func() (relay.ID, error) { return storetest.NewID(time.Now()), nil }
	r.manager = NewManager(ours(), true, r.db, r.sender, newID)
	r.config = Config{Node: "node", Every: time.Minute, Keep: time.Hour, Times: Times{Quiet: time.Minute, Remind: time.Hour}, Rules: ours(), Expiry: [2]time.Duration{21 * 24 * time.Hour, 7 * 24 * time.Hour},
		Operators: operators, NewID: newID, Lists: time.Hour, Log: r.log}
	return r
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// settle lets messages of the account end so.
func (r *rig) settle(count int, k relay.Kind, category string, null bool) {
	r.Helper()
	for range count {
		s := storetest.Submission(r.account, time.Now(), []byte("x"), "a@x.test")
		r.must(r.db.Put(r.Context(), r.lease, []*relay.Submission{s})[0])
		r.must(r.db.Settle(r.Context(), r.lease, []relay.Outcome{{Delivery: s.Deliveries[0].ID, Account: r.account, Kind: k, At: time.Now(), Provider: "Gmail", Null: null, Attempt: &relay.Attempt{},
			Reply: relay.Reply{Code: 550, Enhanced: "5.7.1", Text: "Rejected as spam"}, Diagnosis: relay.Diagnosis{Category: category, Text: "It looks like spam.", Advice: "Change it."}}})[0])
	}
}

func (r *rig) open() []*relay.Alert {
	r.Helper()
	all, err := r.db.OpenAlerts(r.Context())
	r.must(err)
	return all
}

// tell sends all that is due. What fails is not due again within one call, however
// long that takes.
func (r *rig) tell() {
	r.Helper()
	now := time.Now()
	r.sender.now = func() time.Time { return now }
	for range 5 {
		r.must(r.sender.Round(r.Context()))
		r.sender.wg.Wait()
	}
}

// hook is a receiver of one kind.
type hook struct {
	*httptest.Server
	mu     sync.Mutex
	status int
	bodies [][]byte
	heads  []http.Header
}

func newHook(t *testing.T, status int) *hook {
	h := &hook{status: status}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.bodies, h.heads = append(h.bodies, body), append(h.heads, r.Header)
		w.WriteHeader(h.status)
	}))
	t.Cleanup(h.Close)
	return h
}

// Two nodes look at once: one incident comes of it, each channel is told once that
// it begins and once that it ends, and a broken channel harms none of the others.
func TestOneIncident(t *testing.T) {
	r := newRig(t)
	signed, chat, broken := newHook(t, 204), newHook(t, 200), newHook(t, 500)
	var secret string
	for kind, to := range map[relay.ChannelKind]string{relay.ChannelWebhook: signed.URL, relay.ChannelSlack: chat.URL, relay.ChannelMail: "ops@shop.example"} {
		_, s, err := r.manager.Add(t.Context(), somebody, r.account, Wish{Kind: kind, To: to})
		r.must(err)
		if kind == relay.ChannelWebhook {
			secret = s
		}
	}
	bad, _, err := r.manager.Add(t.Context(), somebody, r.account, Wish{Kind: relay.ChannelSlack, To: broken.URL})
	r.must(err)
	r.settle(9, relay.EventBounced, "block/content-or-spam", false)
	r.settle(5, relay.EventBounced, "block/content-or-spam", true) // of alerts: no account is judged by them
	one := NewWatch(r.config, r.db)
	r.must(one.Round(t.Context()))
	if len(r.open()) != 0 {
		t.Fatalf("too few: %+v", r.open())
	}
	r.settle(3, relay.EventBounced, "block/content-or-spam", false)
	other := r.config
	other.Node = "other"
	two := NewWatch(other, r.db)
	var g sync.WaitGroup
	for _, w := range []*Watch{one, two} {
		for range 3 {
			g.Go(func() { w.turnOf(t, r) })
		}
	}
	g.Wait()
	open := r.open()
	if len(open) != 1 || open[0].Kind != relay.AlertBlock || open[0].Severity != relay.SeverityCritical || !strings.Contains(open[0].Text, "12 of 12") || !strings.Contains(open[0].Text, "Rejected as spam") {
		t.Fatalf("open: %+v", open)
	}
	r.tell()
	check := func(n int, news string) {
		t.Helper()
		key, err := standard.NewWebhook(secret)
		r.must(err)
		var e Event
		if len(signed.bodies) != n || key.Verify(signed.bodies[n-1], signed.heads[n-1]) != nil || json.Unmarshal(signed.bodies[n-1], &e) != nil || e.Type != "alert."+news || e.Data.Kind != relay.AlertBlock || e.Data.Subject != "Gmail" {
			t.Errorf("webhook %d: %q", n, signed.bodies)
		}
		var m struct {
			Text        string
			Attachments []struct{ Title, Text string }
		}
		if len(chat.bodies) != n || json.Unmarshal(chat.bodies[n-1], &m) != nil || !strings.Contains(m.Text, "Gmail refuses mail (account shop)") || len(m.Attachments) != 1 || chat.heads[n-1].Get("Webhook-Signature") != "" {
			t.Errorf("chat %d: %q", n, chat.bodies)
		}
		if all := r.mail.taken(); len(all) != n {
			t.Errorf("mail: %q", all)
		}
	}
	check(1, "opened")
	if text := r.mail.taken()[0]; !strings.HasPrefix(text, "ops@shop.example\n") || !strings.Contains(text, "Subject: Critical: Gmail refuses mail (account shop)\r\n") || !strings.Contains(text, "Auto-Submitted: auto-generated\r\n") || !strings.Contains(text, "What to do: Change it.") {
		t.Errorf("mail %s", text)
	}
	if len(broken.bodies) != 1 {
		t.Errorf("the broken one was asked %d times; it must wait between tries", len(broken.bodies))
	}
	c, err := r.db.AlertChannel(t.Context(), r.account, bad.ID)
	r.must(err)
	if c.State.Failing.IsZero() || !strings.Contains(c.State.Error, "500") {
		t.Errorf("the broken channel: %+v", c.State)
	}
	// It gets well.
	r.settle(200, relay.EventDelivered, "", false)
	one.config.Times.Quiet, two.config.Times.Quiet = 0, 0
	r.must(one.Round(t.Context()))
	r.must(two.Round(t.Context()))
	r.tell()
	check(2, "ended")
	if len(r.open()) != 0 {
		t.Errorf("open: %+v", r.open())
	}
	told, err := r.db.AlertSends(t.Context(), r.account, open[0].ID)
	r.must(err)
	if len(told) != 8 {
		t.Errorf("%d things to tell; want two for each of four channels", len(told))
	}
}

// turnOf is a round whose lock may be the other's: without the lock, the store
// itself must keep a second incident away.
func (w *Watch) turnOf(t *testing.T, r *rig) bool {
	seen, err := NewWatch(w.config, r.db).look(t.Context(), r.db.Now())
	if err == nil {
		var open []*relay.Alert
		if open, err = r.db.OpenAlerts(t.Context()); err == nil {
			err = w.turn(t.Context(), open, seen, func(*relay.Alert) bool { return true }, r.db.Now())
		}
	}
	if err != nil {
		t.Error(err)
	}
	return err == nil
}

// Limits, domains, webhooks, certificates and lists each raise their own kind, for
// whom it concerns.
func TestSources(t *testing.T) {
	r := newRig(t)
	now := time.Now()
	warning, err := json.Marshal(limit.Warning{Limit: relay.Limit{Most: 100, Of: "recipients", Per: relay.PerHour}, Whose: "the account", Percent: 90, Used: 91, Until: now.Add(time.Hour)})
	r.must(err)
	r.must(r.db.Note(t.Context(), &relay.Change{At: now, Account: r.account, Action: "limit.warning", Object: "recipients/hour", After: warning}))
	d := &relay.Domain{ID: storetest.NewID(now), Account: r.account, Name: "shop.example", Proof: "x", Broken: relay.BrokenSandbox, Verified: now, Due: now, Created: now}
	r.must(r.db.AddDomain(t.Context(), somebody, d))
	well := &relay.Domain{ID: storetest.NewID(now), Account: r.account, Name: "well.example", Proof: "y", Broken: relay.BrokenSandbox, Due: now, Created: now}
	r.must(r.db.AddDomain(t.Context(), somebody, well))
	well.Verified = now
	d.Failing, d.Findings = now, []relay.Finding{{Check: "dkim", Name: "k._domainkey.shop.example", Type: "TXT", Status: relay.Bad, Text: "The key is missing."}}
	for _, checked := range []*relay.Domain{d, well} {
		r.must(r.db.CheckedDomain(t.Context(), somebody, r.account, checked))
	}
	h := &relay.Webhook{ID: storetest.NewID(now), Account: r.account, URL: "https://h.example/secret", Status: relay.WebhookDisabled, Created: now, Secrets: []relay.WebhookSecret{{Sealed: []byte{1}}}}
	r.must(r.db.AddWebhook(t.Context(), somebody, h, 10))
	c := r.config
	ends := now.Add(3 * 24 * time.Hour)
	c.Certificates = func() []Certificate {
		return []Certificate{{Name: "relay.example", From: now.Add(-80 * 24 * time.Hour), Expires: ends}}
	}
	status := relay.Bad
	c.Blocklists = func(context.Context) []relay.Finding {
		return []relay.Finding{{Check: "blocklist", Name: "bl.example", Status: status, Text: "192.0.2.1 is listed.", Found: []string{"127.0.0.2"}}, {Check: "blocklist", Name: "other.example", Status: relay.Good}}
	}
	c.Times.Quiet = 0
	w := NewWatch(c, r.db)
	r.must(w.Round(t.Context()))
	got := map[relay.AlertKind]*relay.Alert{}
	for _, a := range r.open() {
		got[a.Kind] = a
	}
	for kind, want := range map[relay.AlertKind]struct {
		account  relay.ID
		severity relay.Severity
		text     string
	}{
		relay.AlertQuota:       {r.account, relay.SeverityWarning, "about 91 are used up"},
		relay.AlertDomain:      {r.account, relay.SeverityWarning, "The key is missing."},
		relay.AlertWebhook:     {r.account, relay.SeverityCritical, "no more events are sent"},
		relay.AlertCertificate: {relay.Everyone, relay.SeverityCritical, "node node serves ends"},
		relay.AlertBlocklist:   {relay.Everyone, relay.SeverityCritical, "127.0.0.2"},
	} {
		a := got[kind]
		if a == nil || a.Account != want.account || a.Severity != want.severity || !strings.Contains(a.Text, want.text) || a.Advice == "" || strings.Contains(a.Text+a.Title, "/secret") {
			t.Errorf("%s: %+v", kind, a)
		}
	}
	if len(got) != 5 {
		t.Errorf("%d kinds", len(got))
	}
	// Nobody belongs to the account: the operators hear of all.
	r.tell()
	if all := r.mail.taken(); len(all) != 5 || !strings.HasPrefix(all[0], "root@relay.example\n") {
		t.Errorf("told %d: %.200q", len(all), all)
	}
	// All gets well but the limit; the list does not answer, which says nothing.
	d.Failing = time.Time{}
	r.must(r.db.SetDomain(t.Context(), somebody, r.account, d))
	h.Status = relay.WebhookActive
	r.must(r.db.SetWebhook(t.Context(), somebody, r.account, h))
	ends, status = now.Add(60*24*time.Hour), relay.Unknown
	w.listed = time.Time{}
	r.must(w.Round(t.Context()))
	var left []string
	for _, a := range r.open() {
		left = append(left, string(a.Kind))
	}
	slices.Sort(left)
	if !slices.Equal(left, []string{"blocklisted", "quota"}) {
		t.Errorf("left: %q", left)
	}
	// With owners, they are told and not the operators.
	u := &relay.User{ID: storetest.NewID(now), Email: "ann@shop.example", Created: now}
	r.must(r.db.AddUser(t.Context(), somebody, u))
	r.must(r.db.SetMember(t.Context(), somebody, relay.Member{Account: r.account, User: u.ID, Role: relay.Owner, Since: now}))
	to, err := w.receivers(t.Context(), r.account)
	r.must(err)
	if len(to) != 1 || to[0].Target != u.Email {
		t.Errorf("told: %+v", to)
	}
}

// certificates makes a watch that tells of certificates at once.
func (r *rig) certificates(c Config) *Watch {
	c.Times.Quiet = 0
	c.Rules = c.Rules.For(nil)
	c.Rules[relay.AlertCertificate] = relay.AlertRule{}
	return NewWatch(c, r.db)
}

// The certificate of a tracking host concerns its account, which can do without; it
// is well again when it is renewed, or wanted no more.
func TestHostCertificates(t *testing.T) {
	r := newRig(t)
	now := time.Now()
	hosts := []Certificate{{Name: "links.shop.example", Account: r.account, From: now.Add(-70 * 24 * time.Hour), Expires: now.Add(20 * 24 * time.Hour), Renewed: true, Error: "caa: no."},
		{Name: "links.later.example", Account: r.account, From: now.Add(-62 * 24 * time.Hour), Expires: now.Add(28 * 24 * time.Hour), Renewed: true, Error: "caa: no."}}
	c := r.config
	c.Hosts = func(context.Context) ([]Certificate, error) { return hosts, nil }
	w := r.certificates(c)
	r.must(w.Round(t.Context()))
	open := r.open()
	if len(open) != 1 {
		t.Fatalf("%d incidents", len(open))
	}
	if a := open[0]; a.Kind != relay.AlertCertificate || a.Account != r.account || a.Subject != "links.shop.example" || a.Severity != relay.SeverityWarning || !strings.Contains(a.Text, "caa: no.") || a.Advice == "" {
		t.Errorf("%+v", a)
	}
	hosts[0].Expires = now.Add(24 * time.Hour)
	r.must(w.Round(t.Context()))
	if open = r.open(); len(open) != 1 || open[0].Severity != relay.SeverityCritical {
		t.Errorf("%+v", open)
	}
	hosts = nil
	r.must(w.Round(t.Context()))
	if open = r.open(); len(open) != 0 {
		t.Errorf("left: %+v", open[0])
	}
	_, err := r.manager.SetRules(t.Context(), somebody, r.account, map[relay.AlertKind]*relay.AlertRule{relay.AlertCertificate: {Off: true}})
	r.must(err)
	hosts = []Certificate{{Name: "links.shop.example", Account: r.account, From: now.Add(-89 * 24 * time.Hour), Expires: now.Add(time.Hour), Error: "caa: no."}}
	r.must(w.Round(t.Context()))
	if open = r.open(); len(open) != 0 {
		t.Errorf("told although the account wants none: %+v", open[0])
	}
}

// A first certificate that does not come is told of: the relay's own after a while,
// which a node that was started anew does not end.
func TestMissingCertificates(t *testing.T) {
	r := newRig(t)
	now := time.Now()
	own := []Certificate{{Name: "relay.example", Renewed: true, Missing: now.Add(-30 * time.Minute)}}
	hosts := []Certificate{{Name: "links.shop.example", Account: r.account, Missing: now, Renewed: true, Error: "caa: no."}}
	c := r.config
	c.Certificates = func() []Certificate { return own }
	c.Hosts = func(context.Context) ([]Certificate, error) { return hosts, nil }
	w := r.certificates(c)
	r.must(w.Round(t.Context()))
	open := r.open()
	if len(open) != 1 || open[0].Account != r.account || open[0].Subject != "links.shop.example" || !strings.Contains(open[0].Text, "caa: no.") || strings.Contains(open[0].Text, "0001") {
		t.Fatalf("%+v", open)
	}
	own[0].Missing, hosts = now.Add(-2*time.Hour), nil
	r.must(w.Round(t.Context()))
	if open = r.open(); len(open) != 1 || open[0].Account != relay.Everyone || open[0].Subject != "relay.example" || open[0].Severity != relay.SeverityWarning {
		t.Fatalf("%+v", open)
	}
	own[0].Missing = now // a new start
	r.must(w.Round(t.Context()))
	if len(r.open()) != 1 {
		t.Error("a new start ends it")
	}
	own[0] = Certificate{Name: "relay.example", Renewed: true, From: now, Expires: now.Add(90 * 24 * time.Hour)}
	r.must(w.Round(t.Context()))
	if open = r.open(); len(open) != 0 {
		t.Errorf("left: %+v", open[0])
	}
}

// A node whose disk gets full tells of it, once, and of nothing else's.
func TestDisk(t *testing.T) {
	r := newRig(t)
	status := relay.Warning
	c := r.config
	c.Disk = func(context.Context) relay.Finding {
		return relay.Finding{Check: "disk", Name: "/data", Status: status, Text: "The disk gets full.", Advice: "Make room.", Found: []string{"1 GB free of 9 GB"}}
	}
	c.Times.Quiet = 0
	other := c
	other.Node, other.Disk = "other", func(context.Context) relay.Finding { return relay.Finding{Status: relay.Good} }
	one, two := NewWatch(c, r.db), NewWatch(other, r.db)
	expect := func(severity relay.Severity) {
		t.Helper()
		for range 2 {
			r.must(one.Round(t.Context()))
			r.must(two.Round(t.Context()))
		}
		open := r.open()
		if severity == "" && len(open) > 0 || severity != "" && (len(open) != 1 || open[0].Kind != relay.AlertDisk || open[0].Account != relay.Everyone || open[0].Subject != c.Node || open[0].Severity != severity || !strings.Contains(open[0].Text, "1 GB free")) {
			t.Fatalf("open: %+v", open)
		}
	}
	expect(relay.SeverityWarning)
	status = relay.Bad
	expect(relay.SeverityCritical)
	status = relay.Unknown // which says nothing of its end
	expect(relay.SeverityCritical)
	status = relay.Good
	expect("")
}

// A sample goes by every kind of channel.
func TestSample(t *testing.T) {
	r := newRig(t)
	chat := newHook(t, 200)
	for kind, to := range map[relay.ChannelKind]string{relay.ChannelSlack: chat.URL, relay.ChannelMail: "ops@shop.example"} {
		c, _, err := r.manager.Add(t.Context(), somebody, r.account, Wish{Kind: kind, To: to})
		r.must(err)
		if a, err := r.manager.Test(t.Context(), r.account, c.ID); err != nil || a.Error != "" {
			t.Errorf("%s: %+v, %v", kind, a, err)
		}
		if _, err := r.manager.Test(t.Context(), relay.ID{9}, c.ID); relay.CodeOf(err) != relay.NotFound {
			t.Errorf("of another account: %v", err)
		}
	}
	if len(chat.bodies) != 1 || len(r.mail.taken()) != 1 {
		t.Errorf("%q, %q", chat.bodies, r.mail.taken())
	}
	r.mail.fail = true
	c, _, err := r.manager.Add(t.Context(), somebody, r.account, Wish{Kind: relay.ChannelMail, To: "ops@shop.example"})
	r.must(err)
	if a, err := r.manager.Test(t.Context(), r.account, c.ID); err != nil || !strings.Contains(a.Error, "the queue is full") {
		t.Errorf("a full queue: %+v, %v", a, err)
	}
}
