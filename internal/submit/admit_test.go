package submit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postrider/internal/account"
	"postrider/internal/limit"
	"postrider/internal/message"
	"postrider/internal/policy"
	"postrider/internal/relay"
	"postrider/internal/store/sqlite"
)

var operator = relay.Actor{Name: "test"}

// strictly makes the fixture's relay take verified names only, and its account
// have example.com and the sender ann@mail.test.
func strictly(t *testing.T) *fixture {
	f := newFixture(t)
	f.entrance.config.Rules = policy.Rules{Senders: relay.SendersVerified, DNS: relay.DNSWarn, Sandbox: 3}
	f.addDomain(f.identity.Account, "example.com", func(*relay.Domain) {})
	f.must(f.db.AddSender(t.Context(), operator, &relay.Sender{ID: f.id(), Account: f.identity.Account, Address: "ann@mail.test", Token: []byte{1}, Asked: noon, Verified: noon}))
	f.directory.Forget()
	return f
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) id() relay.ID {
	f.Helper()
	id, err := NewID()
	f.must(err)
	return id
}

func (f *fixture) addDomain(account relay.ID, name string, change func(*relay.Domain)) {
	f.Helper()
	d := &relay.Domain{ID: f.id(), Account: account, Name: name, Proof: "p", Verified: noon, Created: noon, Due: noon}
	change(d)
	f.must(f.db.AddDomain(f.Context(), operator, d))
	f.directory.Forget()
}

// change changes the fixture's account.
func (f *fixture) change(to func(*relay.Account)) {
	f.Helper()
	a, err := f.db.Account(f.Context(), relay.Everyone, f.identity.Account)
	f.must(err)
	to(a)
	f.must(f.db.SetAccount(f.Context(), operator, relay.Everyone, a))
	f.directory.Forget()
}

func (f *fixture) suppress(addresses ...string) {
	f.Helper()
	var all []relay.Suppression
	for _, a := range addresses {
		all = append(all, relay.Suppression{Account: f.identity.Account, Address: a, Reason: "manual", Created: noon})
	}
	_, err := f.db.Suppress(f.Context(), operator, f.identity.Account, all)
	f.must(err)
	f.directory.Forget()
}

// from is a draft with that envelope sender and From.
func (f *fixture) from(sender, from string, recipients ...string) Draft {
	return f.draft("From: "+from+"\r\nDate: x\r\nMessage-ID: <1@x>\r\nSubject: s\r\n\r\nx\r\n", sender, recipients...)
}

func TestSubmitNames(t *testing.T) {
	f := strictly(t)
	other, err := f.db.EnsureAccount(t.Context(), "other")
	f.must(err)
	f.addDomain(other, "other.example", func(*relay.Domain) {})
	f.addDomain(f.identity.Account, "new.example", func(d *relay.Domain) { d.Verified = time.Time{} })
	for _, tt := range []struct {
		sender, from, to string
		want             relay.Code
	}{
		{"a@example.com", "a@example.com", "bob@example.net", ""},
		{"b@x.example.com", "Ann <ann@mail.test>", "bob@example.net", ""},
		{"", "A <Ann@Mail.Test>", "bob@example.net", ""},
		{"a@example.com", "x@other.example", "bob@example.net", relay.Unverified},
		{"x@other.example", "a@example.com", "bob@example.net", relay.Unverified},
		{"a@new.example", "a@new.example", "bob@example.net", relay.Unverified},
		{"eve@mail.test", "eve@mail.test", "bob@example.net", relay.Unverified},
		{"", "x@bank.test", "bob@example.net", relay.Unverified},
		{"a@example.com", "a@example.com, b@example.com", "bob@example.net", relay.BadContent},
		// The sandbox.
		{"a@new.example", "a@new.example", "ann@mail.test", ""},
		{"a@new.example", "a@new.example", "Ann@Mail.test", ""},
		{"a@new.example", "a@new.example", "Boss@Example.com", relay.Unverified}, // a domain of ours, who would take it for true
		{"a@new.example", "a@new.example", "x@new.example", relay.Unverified},
		{"a@new.example", "a@new.example", "eve@mail.test", relay.Unverified},
	} {
		_, err := f.entrance.Submit(t.Context(), f.from(tt.sender, tt.from, tt.to))
		if (err == nil) != (tt.want == "") || err != nil && relay.CodeOf(err) != tt.want {
			t.Errorf("%s, %s to %s: %v, want %q", tt.sender, tt.from, tt.to, err, tt.want)
		}
	}
	// One recipient who is not the account's, among others.
	if _, err := f.entrance.Submit(t.Context(), f.from("a@new.example", "a@new.example", "ann@mail.test", "bob@example.net")); relay.CodeOf(err) != relay.Unverified {
		t.Errorf("a stranger among own addresses: %v", err)
	}
	// Two have gone; the sandbox takes three.
	if _, err := f.entrance.Submit(t.Context(), f.from("", "a@new.example", "ann@mail.test")); err != nil {
		t.Error(err)
	}
	_, err = f.entrance.Submit(t.Context(), f.from("", "a@new.example", "ann@mail.test"))
	if relay.CodeOf(err) != relay.RateLimited || !strings.Contains(err.Error(), "not verified is used up: 3 recipients/day") {
		t.Errorf("the sandbox is full: %v", err)
	}
	if _, err := f.entrance.Submit(t.Context(), f.from("", "a@example.com", "ann@mail.test")); err != nil {
		t.Errorf("in a verified name: %v", err)
	}
	f.change(func(a *relay.Account) { a.Senders = relay.SendersAny })
	f.submit(f.from("x@bank.test", "y@bank.test", "bob@example.net"))
}

func TestSubmitAccountStatus(t *testing.T) {
	f := strictly(t)
	d := f.from("a@example.com", "a@example.com", "bob@example.net")
	for _, tt := range []struct {
		change func(*relay.Account)
		want   relay.Code
	}{
		{func(a *relay.Account) { a.Status, a.Reason = relay.Blocked, "unpaid" }, relay.Forbidden},
		{func(a *relay.Account) { a.Status, a.Reason = relay.Sandbox, "new" }, relay.Unverified},
		{func(a *relay.Account) { a.Status, a.Closed = relay.Active, noon }, relay.Forbidden},
	} {
		f.change(tt.change)
		if _, err := f.entrance.Submit(t.Context(), d); relay.CodeOf(err) != tt.want {
			t.Errorf("%v, want %s", err, tt.want)
		}
		if err := f.entrance.Sender(t.Context(), f.identity, "a@example.com"); tt.want == relay.Forbidden && relay.CodeOf(err) != relay.Forbidden || tt.want != relay.Forbidden && err != nil {
			t.Errorf("before the content: %v", err)
		}
		if err := f.entrance.Recipient(t.Context(), f.identity, "a@example.com", "bob@example.net"); tt.want == relay.Unverified && relay.CodeOf(err) != tt.want {
			t.Errorf("recipient: %v", err)
		}
	}
	// In a verified name the account writes to all at its own domains.
	f.change(func(a *relay.Account) { a.Status, a.Closed = relay.Sandbox, time.Time{} })
	f.submit(f.from("a@example.com", "a@example.com", "boss@example.com"))
}

// A credential in the sandbox is, whatever its account is.
func TestSubmitCredentialInSandbox(t *testing.T) {
	f := strictly(t)
	d := f.from("a@example.com", "a@example.com", "bob@example.net")
	f.identity.Status = relay.Sandbox
	for range 2 {
		if _, err := f.entrance.Submit(t.Context(), d); relay.CodeOf(err) != relay.Unverified || !strings.Contains(err.Error(), "credential") {
			t.Errorf("%v", err)
		}
	}
	f.identity.Status = relay.Active
	f.submit(d)
}

// A check that finds records mended, and nothing else, opens the way at once.
func TestSubmitAfterCheck(t *testing.T) {
	f := strictly(t)
	f.change(func(a *relay.Account) { a.DNS = relay.DNSRefuse })
	f.addDomain(f.identity.Account, "broken.example", func(d *relay.Domain) { d.Findings = []relay.Finding{{Check: "spf", Status: relay.Bad}} })
	d := f.from("a@broken.example", "a@broken.example", "bob@example.net")
	if _, err := f.entrance.Submit(t.Context(), d); relay.CodeOf(err) != relay.Forbidden {
		t.Fatalf("refused: %v", err)
	}
	before, err := f.db.DirectoryChanged(t.Context())
	f.must(err)
	domain, err := f.db.DomainByName(t.Context(), f.identity.Account, "broken.example")
	f.must(err)
	domain.Findings[0].Status, domain.Checked = relay.Good, noon
	f.must(f.db.CheckedDomain(t.Context(), operator, f.identity.Account, domain))
	if after, err := f.db.DirectoryChanged(t.Context()); err != nil || after == before {
		t.Errorf("nobody is told to look anew: %v", err)
	}
	f.directory.Forget()
	f.submit(d)
}

// What goes in spite of something is told of with its first event.
func TestSubmitWarns(t *testing.T) {
	f := strictly(t)
	f.addDomain(f.identity.Account, "broken.example", func(d *relay.Domain) {
		d.Failing, d.Findings = noon, []relay.Finding{{Check: "dkim", Status: relay.Bad}}
	})
	d := f.from("a@broken.example", "a@broken.example", "bob@example.net")
	d.Content = message.Bytes([]byte("From: a@broken.example\r\nTo: a\r\nTo: b\r\n\r\nx\r\n"))
	story, _ := f.submit(d)
	e := story.Events[0]
	if e.Kind != relay.EventAccepted || e.Diagnosis.Category != "warning/header" || !strings.Contains(e.Diagnosis.Text, "more than one field To") ||
		!strings.Contains(e.Diagnosis.Text, "broken.example are missing or wrong: dkim") || !strings.Contains(e.Diagnosis.Advice, "domain check broken.example") {
		t.Errorf("%+v", e)
	}
	f.change(func(a *relay.Account) { a.DNS = relay.DNSRefuse })
	if _, err := f.entrance.Submit(t.Context(), d); relay.CodeOf(err) != relay.Forbidden {
		t.Errorf("refused: %v", err)
	}
	story, _ = f.submit(f.from("a@example.com", "a@example.com", "bob@example.net"))
	if story.Events[0].Diagnosis != (relay.Diagnosis{}) {
		t.Errorf("%+v", story.Events[0])
	}
}

func TestSubmitSuppressed(t *testing.T) {
	f := strictly(t)
	f.suppress("bob@example.net", "@shut.test", "x@xn--bcher-kva.example")
	d := f.from("a@example.com", "a@example.com", "Bob@Example.NET", "carl@example.net", "any@shut.test", "x@bücher.example", "any@sub.shut.test")
	d.Envelope.UTF8 = true
	story, _ := f.submit(d)
	var got []string
	for _, v := range story.Deliveries {
		got = append(got, v.State.String())
		if v.State == relay.Cancelled && (v.Diagnosis.Category != "suppressed" || !strings.Contains(v.Diagnosis.Text, v.Recipient.Address) || v.Diagnosis.Advice == "") {
			t.Errorf("%+v", v.Diagnosis)
		}
	}
	if want := "[cancelled queued cancelled cancelled queued]"; fmt.Sprint(got) != want {
		t.Errorf("deliveries are %v, want %s", got, want)
	}
	if err := f.entrance.Recipient(t.Context(), f.identity, "a@example.com", "bob@example.net"); err != nil {
		t.Errorf("dropped later, but refused now: %v", err)
	}
	f.change(func(a *relay.Account) { a.Muted = relay.SuppressRefuse })
	f.last = nil
	_, err := f.entrance.Submit(t.Context(), f.from("a@example.com", "a@example.com", "carl@example.net", "bob@example.net"))
	var e *relay.Error
	if !errors.As(err, &e) || e.Code != relay.Suppressed || !strings.Contains(e.Text, "<bob@example.net>") || e.Advice == "" || f.last != nil {
		t.Errorf("refused: %v", err)
	}
	for address, want := range map[string]relay.Code{"bob@example.net": relay.Suppressed, "x@shut.test": relay.Suppressed, "carl@example.net": ""} {
		err := f.entrance.Recipient(t.Context(), f.identity, "a@example.com", address)
		if want == "" && err != nil || want != "" && relay.CodeOf(err) != want {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// What is known before the content comes is refused then.
func TestEarly(t *testing.T) {
	f := strictly(t)
	f.addDomain(f.identity.Account, "new.example", func(d *relay.Domain) { d.Verified = time.Time{} })
	bound := *f.identity
	bound.Senders = []string{"example.com"}
	for _, tt := range []struct {
		id         *account.Identity
		sender, to string
		want       relay.Code
		at         string
	}{
		{f.identity, "a@example.com", "bob@example.net", "", ""},
		{f.identity, "", "bob@example.net", "", ""},
		{f.identity, "x@bank.test", "bob@example.net", relay.Unverified, "recipient"},
		{f.identity, "x@bank.test", "ann@mail.test", "", ""},
		{f.identity, "x@bank.test", "not an address", relay.Unverified, "recipient"},
		{&bound, "ann@mail.test", "bob@example.net", relay.Forbidden, "sender"},
	} {
		at, err := "sender", f.entrance.Sender(t.Context(), tt.id, tt.sender)
		if err == nil {
			at, err = "recipient", f.entrance.Recipient(t.Context(), tt.id, tt.sender, tt.to)
		}
		if err == nil {
			at = ""
		}
		if at != tt.at || err != nil && relay.CodeOf(err) != tt.want {
			t.Errorf("%s to %s: at %q %v, want %s at %q", tt.sender, tt.to, at, err, tt.want, tt.at)
		}
	}
	f.entrance.config.Rules.Sandbox = 0
	if err := f.entrance.Sender(t.Context(), f.identity, "x@bank.test"); relay.CodeOf(err) != relay.Unverified || strings.Contains(err.Error(), "Until then") {
		t.Errorf("without a sandbox: %v", err)
	}
}

// Limits hold, and give back what came to nothing.
func TestSubmitLimits(t *testing.T) {
	f := strictly(t)
	var monthly relay.Limit
	f.must(monthly.UnmarshalText([]byte("2 messages/month")))
	f.identity.Limits = []relay.Limit{monthly}
	good := f.from("a@example.com", "a@example.com", "bob@example.net")
	full := New(f.entrance.config, failing{}, f.directory, f.entrance.limiter)
	for range 5 {
		if _, err := full.Submit(t.Context(), good); !errors.Is(err, errFull) {
			t.Fatalf("%v", err)
		}
	}
	f.submit(good)
	f.submit(good)
	f.last = nil
	_, err := f.entrance.Submit(t.Context(), good)
	var e *relay.Error
	if !errors.As(err, &e) || e.Code != relay.RateLimited || e.Retry.IsZero() || f.last != nil {
		t.Errorf("the third: %v", err)
	}
	if err := f.entrance.Sender(t.Context(), f.identity, "a@example.com"); relay.CodeOf(err) != relay.RateLimited {
		t.Errorf("before the content of the fourth: %v", err)
	}
}

func TestSubmitOnce(t *testing.T) {
	f := strictly(t)
	keyed := func(key, subject, date string, to ...string) Draft {
		return f.draft("From: a@example.com\r\nIdempotency-Key: "+key+"\r\nSubject: "+subject+"\r\nDate: "+date+"\r\n\r\nx\r\n", "a@example.com", to...)
	}
	var two relay.Limit
	f.must(two.UnmarshalText([]byte("2 messages/month")))
	f.identity.Limits = []relay.Limit{two}
	first, content := f.submit(keyed("k1", "s", "1", "bob@example.net"))
	if strings.Contains(content, "Idempotency") || !strings.Contains(content, "From: a@example.com\r\nSubject: s\r\n") {
		t.Errorf("content %q", content)
	}
	for range 3 { // comes to the same, however often, and uses up nothing
		again, err := f.entrance.Submit(t.Context(), keyed("k1", "s", "2", "Bob@example.net"))
		if err != nil || again != first.Message.ID {
			t.Errorf("again: %v, %v; want %v", again, err, first.Message.ID)
		}
	}
	for _, d := range []Draft{keyed("k1", "other", "1", "bob@example.net"), keyed("k1", "s", "1", "carl@example.net")} {
		if id, err := f.entrance.Submit(t.Context(), d); relay.CodeOf(err) != relay.Conflict || !id.IsZero() {
			t.Errorf("another request under the key: %v, %v", id, err)
		}
	}
	second, _ := f.submit(keyed("k2", "s", "1", "bob@example.net"))
	if second.Message.ID == first.Message.ID {
		t.Error("another key gave the first message")
	}
	d := keyed("ignored", "s", "1", "bob@example.net")
	d.Once = &relay.Once{Key: "k2", Digest: [32]byte{1}}
	if _, err := f.entrance.Submit(t.Context(), d); relay.CodeOf(err) != relay.RateLimited && relay.CodeOf(err) != relay.Conflict {
		t.Errorf("the request's key counts before the header's: %v", err)
	}
}

func TestSubmitOrigin(t *testing.T) {
	f := strictly(t)
	f.identity.Archive = true
	d := f.from("a@example.com", "a@example.com", "bob@example.net")
	d.Content = message.Bytes([]byte("From: a@example.com\r\nX-PHP-Originating-Script: 1000:mailer.php\r\n\r\nx\r\n"))
	d.Tags, d.Metadata = []string{"a", "b"}, map[string]string{"order": "7"}
	story, _ := f.submit(d)
	m := story.Message
	if m.Script != "1000:mailer.php" || m.Credential != f.identity.Credential || m.Source != d.Source || !m.Archive ||
		fmt.Sprint(m.Tags) != "[a b]" || m.Metadata["order"] != "7" {
		t.Errorf("%+v", m)
	}
}

// nowhere is a queue that takes all and keeps nothing.
type nowhere struct{}

func (nowhere) Put(context.Context, *relay.Submission) error { return nil }

// What judging costs on the way of a message of 10 kB: anybody's name, a verified
// name, and that with four limits and a list of suppressions.
func BenchmarkSubmit(b *testing.B) {
	db, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "mail.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	owner, err := db.EnsureAccount(b.Context(), "bench")
	if err != nil {
		b.Fatal(err)
	}
	if err := db.AddDomain(b.Context(), operator, &relay.Domain{ID: relay.ID{1}, Account: owner, Name: "example.com", Verified: noon, Created: noon, Due: noon}); err != nil {
		b.Fatal(err)
	}
	directory := account.NewDirectory(db)
	body := complete + "\r\n" + strings.Repeat("0123456789 0123456789 0123456789 0123456789\r\n", 220)
	run := func(name string, rule relay.SenderRule, limits ...string) {
		b.Run(name, func(b *testing.B) {
			id := &account.Identity{Account: owner, Credential: relay.ID{2}, Stream: relay.Transactional}
			for _, text := range limits {
				var l relay.Limit
				if err := l.UnmarshalText([]byte(text)); err != nil {
					b.Fatal(err)
				}
				id.Limits = append(id.Limits, l)
			}
			e := New(Config{Hostname: "relay.example.com", Expire: time.Hour, Rules: policy.Rules{Senders: rule, Sandbox: 10},
				Limits: policy.Limits{MessageSize: 1 << 20, Recipients: 5, Hops: 3}}, nowhere{}, directory, limit.New(db, true, slog.New(slog.DiscardHandler)))
			d := Draft{Identity: id, Envelope: relay.Envelope{Sender: "ann@example.com", Recipients: []relay.Recipient{{Address: "bob@example.net"}}},
				Content: message.Bytes([]byte(body)), Source: relay.Source{Helo: "laptop.local", Protocol: "ESMTPSA"}}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := e.Submit(b.Context(), d); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	run("any", relay.SendersAny)
	run("verified", relay.SendersVerified)
	run("limits", relay.SendersVerified, "100000000 messages/hour", "100000000 recipients/day", "1000000000 recipients/month", "100000000 messages/day")
	if _, err := db.Suppress(b.Context(), operator, owner, []relay.Suppression{{Account: owner, Address: "x@example.net", Reason: "manual", Created: noon}}); err != nil {
		b.Fatal(err)
	}
	directory.Forget()
	run("suppressions", relay.SendersVerified)
}

// A sub-account's mail counts against its parent's limits, and is in the sandbox
// with its parent.
func TestSubmitBelow(t *testing.T) {
	f := strictly(t)
	f.change(func(a *relay.Account) {
		a.Limits = []relay.Limit{{Most: 2, Of: "messages", Per: relay.PerHour}}
	})
	parent := f.identity.Account
	f.identity.Account = f.id()
	f.must(f.db.AddAccount(t.Context(), operator, &relay.Account{ID: f.identity.Account, Parent: parent, Name: "child", Status: relay.Active}))
	f.addDomain(f.identity.Account, "child.example", func(*relay.Domain) {})
	d := f.from("a@child.example", "a@child.example", "bob@example.net")
	f.submit(d)
	f.submit(d)
	if _, err := f.entrance.Submit(t.Context(), d); relay.CodeOf(err) != relay.RateLimited || !strings.Contains(err.Error(), "manages this one") {
		t.Errorf("a third message: %v", err)
	}
	child := f.identity.Account
	f.identity.Account = parent
	f.change(func(a *relay.Account) { a.Status, a.Limits = relay.Sandbox, nil })
	f.identity.Account = child
	if _, err := f.entrance.Submit(t.Context(), d); relay.CodeOf(err) != relay.Unverified {
		t.Errorf("from below the sandbox: %v", err)
	}
}

// A key sends over SMTP only what it may send over HTTP: with the scope, and as
// far as its owner's rights go.
func TestSubmitScopes(t *testing.T) {
	f := strictly(t)
	people := &account.People{Store: f.db, NewID: NewID, Changed: func(context.Context) error { f.directory.Forget(); return nil }}
	member := func(email string, role relay.Role) relay.ID {
		m, err := people.SetMember(t.Context(), account.Operator(operator).In(f.identity.Account), email, role)
		f.must(err)
		return m.User
	}
	viewer, developer := member("v@example.com", relay.Viewer), member("d@example.com", relay.Developer)
	send, read := []relay.Scope{relay.ScopeSend}, []relay.Scope{relay.ScopeRead, relay.ScopeManage}
	for _, tt := range []struct {
		name   string
		scopes []relay.Scope
		owner  relay.ID
		may    bool
	}{
		{"nobody's", nil, relay.ID{}, true},
		{"nobody's, to send", send, relay.ID{}, true},
		{"nobody's, to read", read, relay.ID{}, false},
		{"a developer's", nil, developer, true},
		{"a developer's, to read", read, developer, false},
		{"a viewer's", send, viewer, false},
		{"a stranger's", send, f.id(), false},
	} {
		f.identity.Kind, f.identity.Scopes, f.identity.Owner = account.KindKey, tt.scopes, tt.owner
		_, err := f.entrance.Submit(t.Context(), f.from("a@example.com", "a@example.com", "bob@example.net"))
		early := f.entrance.Sender(t.Context(), f.identity, "a@example.com")
		want := relay.Code("")
		if !tt.may {
			want = relay.Forbidden
		}
		for _, err := range []error{err, early} {
			if (err == nil) != tt.may || err != nil && relay.CodeOf(err) != want {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
	}
}
