package submit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postrider/internal/account"
	"postrider/internal/limit"
	"postrider/internal/message"
	"postrider/internal/policy"
	"postrider/internal/relay"
	"postrider/internal/store"
	"postrider/internal/store/sqlite"
)

// fixture is an entrance whose queue writes to a real store at once.
type fixture struct {
	*testing.T
	db        *store.DB
	directory *account.Directory
	entrance  *Entrance
	identity  *account.Identity
	last      *relay.Submission
}

var noon = time.Date(2030, 1, 2, 12, 0, 0, 123456789, time.FixedZone("", 3600))

func newFixture(t *testing.T) *fixture {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "mail.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	f := &fixture{T: t, db: db}
	owner, err := db.EnsureAccount(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	f.identity = &account.Identity{Account: owner, Credential: relay.ID{7}, User: "app", Stream: relay.Broadcast}
	f.directory = account.NewDirectory(db)
	f.entrance = New(Config{Hostname: "relay.example.com", Expire: 48 * time.Hour, Rules: policy.Rules{Senders: relay.SendersAny, Sandbox: 10},
		Limits: policy.Limits{MessageSize: 1 << 20, Recipients: 5, Hops: 3}}, f, f.directory, limit.New(db, false, slog.New(slog.DiscardHandler)))
	f.entrance.now = func() time.Time { return noon }
	return f
}

func (f *fixture) Put(ctx context.Context, s *relay.Submission) error {
	f.last = s
	return f.db.Put(ctx, 0, []*relay.Submission{s})[0]
}

func (f *fixture) draft(content, sender string, recipients ...string) Draft {
	d := Draft{Identity: f.identity, Content: message.Bytes([]byte(content)),
		Envelope: relay.Envelope{Sender: sender},
		Source: relay.Source{Client: netip.MustParseAddrPort("192.0.2.1:1234"), Helo: "laptop.local", Protocol: "ESMTPSA",
			Listener: ":587", TLS: "TLS1.3 TLS_AES_128_GCM_SHA256", User: "app"}}
	for _, r := range recipients {
		d.Envelope.Recipients = append(d.Envelope.Recipients, relay.Recipient{Address: r})
	}
	return d
}

// submit takes the draft in and gives what is kept of it.
func (f *fixture) submit(d Draft) (story *relay.Story, content string) {
	f.Helper()
	f.last = nil
	id, err := f.entrance.Submit(f.Context(), d)
	if err != nil {
		f.Fatalf("submit: %v", err)
	}
	return f.kept(id)
}

func (f *fixture) kept(id relay.ID) (story *relay.Story, content string) {
	f.Helper()
	story, err := f.db.Story(f.Context(), f.identity.Account, id)
	if err != nil {
		f.Fatal(err)
	}
	c, err := f.db.Content(f.Context(), id)
	if err != nil {
		f.Fatal(err)
	}
	r, err := c.Open()
	if err != nil {
		f.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		f.Fatal(err)
	}
	if story.Message.Size != int64(len(b)) {
		f.Errorf("size %d is kept, %d bytes are", story.Message.Size, len(b))
	}
	return story, string(b)
}

const complete = "From: Ann <ann@example.com>\r\nDate: Mon, 1 Jan 2001 00:00:00 +0000\r\nMessage-ID: <one@example.com>\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n"

func TestSubmitKeeps(t *testing.T) {
	f := newFixture(t)
	d := f.draft(complete+"\r\nGr\xc3\xbc\xc3\x9fe\r\n", "ann@example.com", "bob@Example.NET")
	d.Envelope.Ret, d.Envelope.EnvID, d.Envelope.RequireTLS, d.Envelope.Priority = "HDRS", "env", true, 3
	d.Envelope.Recipients[0].Notify, d.Envelope.Recipients[0].ORcpt = relay.NotifySuccess, "rfc822;bob@example.org"
	story, content := f.submit(d)
	m := story.Message
	if m.Account != f.identity.Account || m.Credential != f.identity.Credential || m.Stream != relay.Broadcast ||
		!m.Received.Equal(noon.Truncate(time.Microsecond)) || m.Subject != "Grüße" || m.From != "ann@example.com" ||
		m.HeaderID != "<one@example.com>" || !m.EightBit || m.UTF8Header || m.Source != d.Source ||
		m.Envelope.EnvID != "env" || m.Envelope.Ret != "HDRS" || !m.Envelope.RequireTLS || m.Envelope.Priority != 3 {
		t.Errorf("message %+v", m)
	}
	v := story.Deliveries[0]
	if v.ID != (relay.DeliveryID{Message: m.ID, N: 1}) || v.Account != m.Account || v.Stream != m.Stream || v.State != relay.Queued ||
		v.Recipient != d.Envelope.Recipients[0] || v.Domain != "example.net" || !v.Due.Equal(m.Received) ||
		!v.Expires.Equal(m.Received.Add(48*time.Hour)) || v.Attempts != 0 {
		t.Errorf("delivery %+v", v)
	}
	want := "Received: from laptop.local ([192.0.2.1])\r\n" +
		"\tby relay.example.com with ESMTPSA (TLS1.3 TLS_AES_128_GCM_SHA256)\r\n" +
		"\tid " + m.ID.String() + "\r\n\tfor <bob@Example.NET>;\r\n\tWed, 02 Jan 2030 12:00:00 +0100\r\n"
	if content != want+complete+"\r\nGr\xc3\xbc\xc3\x9fe\r\n" {
		t.Errorf("content\n%s\nwant it to begin with\n%s", content, want)
	}
}

// What the client left out is added, nothing else, and its bytes stay as they
// are.
func TestSubmitCompletes(t *testing.T) {
	f := newFixture(t)
	const date, id, from = "Date: Wed, 02 Jan 2030 12:00:00 +0100\r\n", "Message-ID: <%s@relay.example.com>\r\n", "From: <ann@example.com>\r\n"
	for _, tt := range []struct{ name, content, added string }{
		{"nothing is missing", complete + "\r\nx\r\n", ""},
		{"no Date", "From: a@b.test\r\nMessage-ID: <1@b.test>\r\n\r\nx\r\n", date},
		{"no Message-ID", "From: a@b.test\r\nDate: x\r\n\r\nx\r\n", id},
		{"no From", "Date: x\r\nMessage-ID: <1@b.test>\r\n\r\nx\r\n", from},
		{"only a subject", "Subject: x\r\n\r\nx\r\n", date + id + from},
		{"names in any case", "FROM: a@b.test\r\ndate : x\r\nmessage-Id:\t<1@b.test>\r\n\r\nx\r\n", ""},
		{"empty Message-ID", "From: a@b.test\r\nDate: x\r\nMessage-ID:\r\n\r\nx\r\n", ""},
		{"no header", "just text\r\n", date + id + from + "\r\n"},
		{"blank line first", "\r\nFrom: a@b.test\r\n", date + id + from},
		{"fields in the body do not count", "Subject: x\r\n\r\nFrom: a@b.test\r\nDate: x\r\n", date + id + from},
		{"odd bytes", complete + "\r\n\x00\xff.\r\n..\r\n\tend without a line end", ""},
		{"twice To", complete + "To: b@b.test\r\nTo: c@b.test\r\n\r\nx\r\n", ""},
		{"large", complete + "\r\n" + strings.Repeat("0123456789\r\n", 50_000), ""},
	} {
		story, content := f.submit(f.draft(tt.content, "ann@example.com", "bob@example.net"))
		i := strings.Index(content, "+0100\r\n") + len("+0100\r\n") // the end of Received
		added, found := strings.CutSuffix(content[i:], tt.content)
		want := strings.ReplaceAll(tt.added, "%s", story.Message.ID.String())
		if !found || added != want || !strings.HasPrefix(content, "Received: from laptop.local") {
			t.Errorf("%s: added %.200q; want %q", tt.name, content[:len(content)-len(tt.content)], want)
		}
		if strings.Contains(tt.added, "Message-ID") != (story.Message.HeaderID == "<"+story.Message.ID.String()+"@relay.example.com>") {
			t.Errorf("%s: Message-ID %s is kept", tt.name, story.Message.HeaderID)
		}
		if strings.Contains(tt.added, "From") && story.Message.From != "ann@example.com" {
			t.Errorf("%s: From %s is kept", tt.name, story.Message.From)
		}
	}
	// An mbox line is no part of a message.
	_, content := f.submit(f.draft("From ann Mon Jan  1 00:00:00 2001\r\n"+complete+"\r\nx\r\n", "ann@example.com", "bob@example.net"))
	if !strings.HasSuffix(content, "+0100\r\n"+complete+"\r\nx\r\n") || strings.Contains(content, "From ann") {
		t.Errorf("an mbox line: %q", content)
	}
}

// Content that is not in memory is read from where it lies.
func TestSubmitLargeContent(t *testing.T) {
	f := newFixture(t)
	b := message.NewBuffer(t.TempDir(), 1000)
	defer b.Close()
	body := complete + "\r\n" + strings.Repeat("0123456789\r\n", 20_000)
	if _, err := io.WriteString(b, body); err != nil {
		t.Fatal(err)
	}
	d := f.draft("", "ann@example.com", "bob@example.net")
	d.Content = b.Content()
	if _, content := f.submit(d); !strings.HasSuffix(content, "\r\n"+body) {
		t.Error("the content is not what was submitted")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.entrance.Submit(t.Context(), d); err == nil {
		t.Error("content that can't be read was taken in")
	}
}

func TestSubmitSeveralRecipients(t *testing.T) {
	f := newFixture(t)
	story, content := f.submit(f.draft(complete+"\r\nx\r\n", "ann@example.com", "to@example.net", "secret@example.org", `"q u"@EXAMPLE.net`))
	if strings.Contains(content, "secret") || strings.Contains(content, "to@") || strings.Contains(content, "for <") {
		t.Errorf("the header tells recipients of each other:\n%s", content)
	}
	var got []string
	for i, d := range story.Deliveries {
		if d.ID.N != i+1 {
			t.Errorf("delivery %d is number %d", i, d.ID.N)
		}
		got = append(got, d.Recipient.Address+" "+d.Domain)
	}
	if want := []string{"to@example.net example.net", "secret@example.org example.org", `"q u"@EXAMPLE.net example.net`}; !slices.Equal(got, want) {
		t.Errorf("deliveries %q; want %q", got, want)
	}
}

func TestSubmitBeyondASCII(t *testing.T) {
	f := newFixture(t)
	d := f.draft("Subject: x\r\n\r\nx\r\n", "jürgen@bücher.example", "andré@BÜCHER.example", "bob@xn--bcher-kva.example", "c@faß.example")
	d.Envelope.UTF8 = true
	story, content := f.submit(d)
	for i, want := range []string{"xn--bcher-kva.example", "xn--bcher-kva.example", "xn--fa-hia.example"} {
		if got := story.Deliveries[i]; got.Domain != want || got.Recipient.Address != d.Envelope.Recipients[i].Address {
			t.Errorf("delivery %d: %s at %s; want %s", i+1, got.Recipient.Address, got.Domain, want)
		}
	}
	if !strings.Contains(content, "From: <jürgen@bücher.example>\r\n") || !story.Message.UTF8Header {
		t.Errorf("UTF8Header %v for a header that we made so:\n%s", story.Message.UTF8Header, content)
	}
	story, _ = f.submit(f.draft("Subject: x\r\n\r\nx\r\n", "a@example.com", "b@example.net"))
	if story.Message.UTF8Header {
		t.Error("UTF8Header for an ASCII header")
	}
}

// FUTURERELEASE (RFC 4865): the time to deliver begins with the release.
func TestSubmitFutureRelease(t *testing.T) {
	f := newFixture(t)
	for _, tt := range []struct{ release, due time.Time }{
		{time.Time{}, noon},
		{noon.Add(-time.Hour), noon},
		{noon.Add(10 * time.Hour), noon.Add(10 * time.Hour)},
	} {
		d := f.draft(complete+"\r\nx\r\n", "ann@example.com", "bob@example.net")
		d.Envelope.Release = tt.release
		story, _ := f.submit(d)
		due := tt.due.Truncate(time.Microsecond)
		if v := story.Deliveries[0]; !v.Due.Equal(due) || !v.Expires.Equal(due.Add(48*time.Hour)) || v.State != relay.Queued {
			t.Errorf("release %v: due %v, expires %v", tt.release, v.Due, v.Expires)
		}
	}
}

func TestSubmitRefuses(t *testing.T) {
	f := newFixture(t)
	hop := "Received: from a by b; Mon, 1 Jan 2001 00:00:00 +0000\r\n"
	with := func(change func(*Draft)) Draft {
		d := f.draft(complete+"\r\nx\r\n", "ann@example.com", "bob@example.net")
		change(&d)
		return d
	}
	for _, tt := range []struct {
		name string
		d    Draft
		code relay.Code
	}{
		{"nobody", with(func(d *Draft) { d.Identity = nil }), relay.Unauthenticated},
		{"loop", with(func(d *Draft) { d.Content = message.Bytes([]byte(strings.Repeat(hop, 4) + complete + "\r\nx\r\n")) }), relay.Loop},
		{"too large", with(func(d *Draft) { d.Content = message.Bytes(bytes.Repeat([]byte("x"), 1<<20+1)) }), relay.TooLarge},
		{"empty", with(func(d *Draft) { d.Content = message.Bytes(nil) }), relay.BadContent},
		{"from nobody", with(func(d *Draft) { d.Content = message.Bytes([]byte("Subject: x\r\n\r\n")); d.Envelope.Sender = "" }), relay.BadContent},
		{"another's sender", with(func(d *Draft) {
			bound := *f.identity
			bound.Senders = []string{"example.org"}
			d.Identity = &bound
		}), relay.Forbidden},
		{"no recipient", f.draft(complete+"\r\nx\r\n", "ann@example.com"), relay.Invalid},
		{"too many recipients", f.draft(complete+"\r\nx\r\n", "ann@example.com", "1@a.test", "2@a.test", "3@a.test", "4@a.test", "5@a.test", "6@a.test"), relay.TooMany},
		{"recipient without a domain", f.draft(complete+"\r\nx\r\n", "ann@example.com", "bob"), relay.BadAddress},
		{"one bad recipient of two", f.draft(complete+"\r\nx\r\n", "ann@example.com", "bob@example.net", "bob@-.test"), relay.BadAddress},
		{"recipient at an IP address", f.draft(complete+"\r\nx\r\n", "ann@example.com", "bob@[192.0.2.1]"), relay.BadAddress},
		{"recipient with a second command", f.draft(complete+"\r\nx\r\n", "ann@example.com", "bob@example.net>\r\nRCPT TO:<eve@example.net"), relay.BadAddress},
		{"domain that is no IDN", f.draft(complete+"\r\nx\r\n", "ann@example.com", "bob@xn--a.test"), relay.BadAddress},
		{"sender with a header field", f.draft("Subject: x\r\n\r\n", "ann@example.com>\r\nBcc: <eve@example.net", "bob@example.net"), relay.BadAddress},
		{"sender without a domain", f.draft(complete+"\r\nx\r\n", "ann", "bob@example.net"), relay.BadAddress},
	} {
		f.last = nil
		id, err := f.entrance.Submit(t.Context(), tt.d)
		var e *relay.Error
		if !errors.As(err, &e) || e.Code != tt.code || e.Text == "" || e.Advice == "" {
			t.Errorf("%s: %v; want a relay.Error %s", tt.name, err, tt.code)
		}
		if !id.IsZero() {
			t.Errorf("%s: id %s", tt.name, id)
		}
		if strings.ContainsAny(fmt.Sprint(err), "\r\n") {
			t.Errorf("%s: the error has line ends: %q", tt.name, err)
		}
		if f.last != nil {
			t.Errorf("%s: it was put into the queue all the same", tt.name)
		}
	}
	if _, err := New(f.entrance.config, failing{}, f.directory, f.entrance.limiter).Submit(t.Context(), f.draft(complete+"\r\nx\r\n", "ann@example.com", "bob@example.net")); !errors.Is(err, errFull) {
		t.Errorf("the queue's error came out as %v", err)
	}
}

var errFull = errors.New("full")

type failing struct{}

func (failing) Put(context.Context, *relay.Submission) error { return errFull }

func TestReport(t *testing.T) {
	f := newFixture(t)
	story, _ := f.submit(f.draft(complete+"\r\nx\r\n", "ann@example.com", "bob@example.net"))
	o := relay.Outcome{Delivery: story.Deliveries[0].ID, Account: f.identity.Account, Kind: relay.EventBounced, At: noon,
		Notice: relay.NotifyFailure, NoticeDue: noon}
	if err := f.db.Settle(t.Context(), 0, []relay.Outcome{o})[0]; err != nil {
		t.Fatal(err)
	}
	notices, err := f.db.Notices(t.Context(), noon.Add(time.Second), 10)
	if err != nil || len(notices) != 1 {
		t.Fatalf("notices %+v, %v", notices, err)
	}
	report := "From: MAILER-DAEMON@relay.example.com\r\nTo: ann@example.com\r\nDate: x\r\nMessage-ID: <r@relay.example.com>\r\nAuto-Submitted: auto-replied\r\n\r\nIt failed.\r\n"
	id, err := f.entrance.Report(t.Context(), f.identity.Account, "ann@example.com", true, message.Bytes([]byte(report)), &notices[0])
	if err != nil {
		t.Fatal(err)
	}
	dsn, content := f.kept(id)
	m, d := dsn.Message, dsn.Deliveries[0]
	if m.Envelope.Sender != "" || !m.Envelope.UTF8 || !m.Credential.IsZero() || m.Stream != relay.Transactional || m.Source.Protocol != "DSN" {
		t.Errorf("message %+v", m)
	}
	if len(dsn.Deliveries) != 1 || d.Recipient.Address != "ann@example.com" || d.Recipient.Notify != relay.NotifyNever || d.Domain != "example.com" ||
		!d.Due.Equal(m.Received) {
		t.Errorf("delivery %+v", d)
	}
	if content != report {
		t.Errorf("content %q; want just what was composed", content)
	}
	if left, err := f.db.Notices(t.Context(), noon.Add(time.Second), 10); err != nil || len(left) != 0 {
		t.Errorf("notices left: %+v, %v", left, err)
	}
	again, err := f.entrance.Report(t.Context(), f.identity.Account, "ann@example.com", true, message.Bytes([]byte(report)), &notices[0])
	if !errors.Is(err, store.ErrSettled) {
		t.Errorf("a second report about the same: %v, %v; want ErrSettled", again, err)
	}
	_, err = f.entrance.Report(t.Context(), f.identity.Account, "ann", false, message.Bytes([]byte(report)), nil)
	if relay.CodeOf(err) != relay.BadAddress {
		t.Errorf("report to an address that is none: %v", err)
	}
}
