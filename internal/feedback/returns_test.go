package feedback

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postrider/internal/bounce"
	"postrider/internal/classify"
	"postrider/internal/message"
	"postrider/internal/relay"
	"postrider/internal/store/storetest"
	"postrider/internal/submit"
	"postrider/internal/suppression"
)

// paths are return paths with the code "good".
type paths struct{}

func (paths) Parse(address string) (relay.DeliveryID, error) {
	local, _, _ := strings.Cut(address, "@")
	text, ok := strings.CutSuffix(strings.TrimPrefix(local, "b+"), ".good")
	if !ok {
		return relay.DeliveryID{}, errors.New("forged")
	}
	return relay.ParseDeliveryID(text)
}

func (paths) ParseUnsubscribe(address string) (relay.DeliveryID, error) {
	rest, ok := strings.CutPrefix(address, "u+")
	if !ok {
		return relay.DeliveryID{}, errors.New("forged")
	}
	return paths{}.Parse("b+" + rest)
}

func (paths) ParseLoop(address string) (string, error) {
	local, _, _ := strings.Cut(address, "@")
	name, ok := strings.CutSuffix(strings.TrimPrefix(local, "f+"), ".good")
	if !ok || !strings.HasPrefix(local, "f+") {
		return "", errors.New("forged")
	}
	return name, nil
}

var marks = regexp.MustCompile(`mark:([0-9a-z]{26})|(b\+\S+\.good)`)

func (paths) Find(text []byte) (id relay.DeliveryID, ok bool) {
	found := marks.FindSubmatch(text)
	if found == nil {
		return id, false
	}
	if len(found[2]) > 0 {
		id, err := paths{}.Parse(string(found[2]))
		return id, err == nil
	}
	m, err := relay.ParseID(string(found[1]))
	return relay.DeliveryID{Message: m}, err == nil
}

// oneDomain is that of one account.
type oneDomain struct {
	account relay.ID
	domain  *relay.Domain
}

func (d oneDomain) Domain(_ context.Context, account relay.ID, name string) (*relay.Domain, error) {
	if account == d.account && strings.HasSuffix(name, d.domain.Name) {
		return d.domain, nil
	}
	return nil, nil
}

// told is what an observer was told, by number.
type told struct {
	mu sync.Mutex
	n  map[string]int
}

func (o *told) add(what string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.n == nil {
		o.n = map[string]int{}
	}
	o.n[what]++
}

func (o *told) FeedbackTaken()             { o.add("taken") }
func (o *told) FeedbackRefused(why string) { o.add(why) }
func (o *told) FeedbackSettled(became, provider string) {
	o.add(strings.TrimSpace(became + " " + provider))
}

// returnsBench is a bench with an inbox and what empties it.
type returnsBench struct {
	*bench
	inbox   *Inbox
	returns *Returns
	told    *told
}

func newReturns(t *testing.T) *returnsBench {
	t.Helper()
	b := newBench(t)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	rules, err := OpenRules("", log)
	if err != nil {
		t.Fatal(err)
	}
	own := oneDomain{b.account, &relay.Domain{Name: "shop.test", ReturnPath: "bounce", Aligned: time.Now()}}
	o := &told{}
	return &returnsBench{b, NewInbox([]string{"back.relay.test"}, paths{}, b.store, own, o, log),
		NewReturns(ReturnsConfig{Node: "n", Suppress: suppression.Rule{Hard: true}, Observer: o}, b.store, b.queue, rules, log), o}
}

// sent is a delivered message of now, or of another time, from an envelope sender.
func (b *returnsBench) sent(at time.Time, sender string, notify relay.Notify) *relay.Delivery {
	b.Helper()
	s := storetest.Submission(b.account, at, []byte("Subject: Hello\r\n\r\nHello.\r\n"), "Ann@Dead.test")
	s.Message.Envelope.Sender, s.Deliveries[0].Recipient.Notify = sender, notify
	d := s.Deliveries[0]
	if err := errors.Join(b.store.Put(b.Context(), b.lease, []*relay.Submission{s})...); err != nil {
		b.Fatal(err)
	}
	o := relay.Outcome{Delivery: d.ID, Account: b.account, Kind: relay.EventDelivered, At: at.Add(time.Second), Reply: relay.Reply{Code: 250, Text: "Ok"}}
	if err := errors.Join(b.store.Settle(b.Context(), b.lease, []relay.Outcome{o})...); err != nil {
		b.Fatal(err)
	}
	return d
}

func address(d *relay.Delivery) string { return "b+" + d.ID.String() + ".good@bounce.shop.test" }

// back sends a mail back.
func (b *returnsBench) back(to, mail string) error {
	mail = strings.ReplaceAll(mail, "\n", "\r\n")
	_, err := b.inbox.Submit(b.Context(), submit.Draft{Envelope: relay.Envelope{Recipients: []relay.Recipient{{Address: to}}}, Content: message.Bytes([]byte(mail))})
	return err
}

// round deals with what came, and gives the story.
func (b *returnsBench) round(d *relay.Delivery) *relay.Story {
	b.Helper()
	if err := b.returns.Round(b.Context()); err != nil {
		b.Fatal(err)
	}
	if left, err := b.store.Returned(b.Context(), relay.Everyone, relay.ID{}, 1); err != nil || len(left) != 0 {
		b.Errorf("left: %v, %v", left, err)
	}
	s, err := b.store.Story(b.Context(), b.account, d.ID.Message)
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// report is a DSN (RFC 3464).
func report(action, status, to, words string) string {
	return fmt.Sprintf(`From: MAILER-DAEMON@mx.dead.test
To: b+x@bounce.shop.test
Subject: Undelivered Mail
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b
Content-Type: text/plain

It did not arrive.

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.dead.test

Final-Recipient: rfc822; %s
Action: %s
Status: %s
Diagnostic-Code: smtp; %s

--b--
`, to, action, status, words)
}

const complaint = `From: fbl@provider.test
To: b+x@bounce.shop.test
Subject: complaint
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary=b

--b
Content-Type: text/plain

This is an abuse report.

--b
Content-Type: message/feedback-report

Feedback-Type: abuse
User-Agent: Provider/1
Version: 1

--b
Content-Type: text/rfc822-headers

From: app@shop.test
Subject: Hello

--b--
`

const vacation = `From: ann@dead.test
To: b+x@bounce.shop.test
Subject: Out of office
Auto-Submitted: auto-replied

I am away until Monday.
`

func TestReturned(t *testing.T) {
	for name, tt := range map[string]struct {
		mail     string
		state    relay.State
		kind     relay.Kind
		category string
		suppress string // the reason
		words    string // in the event
		notice   bool
	}{
		"hard":      {report("failed", "5.1.1", "ann@dead.test", "550 5.1.1 <ann@dead.test>: no such user here"), relay.Bounced, relay.EventBounced, "hard/no-such-mailbox", "bounce", "<ann@dead.test>: no such user here", true},
		"full":      {report("failed", "5.2.2", "ann@dead.test", "552 5.2.2 mailbox full"), relay.Bounced, relay.EventBounced, "soft/mailbox-full", "", "mailbox full", true},
		"delayed":   {report("delayed", "4.4.1", "ann@dead.test", "451 4.4.1 no answer from host"), relay.Delivered, relay.EventFeedback, "", "", "no answer", false},
		"arrived":   {report("delivered", "2.0.0", "ann@dead.test", "250 2.0.0 Ok"), relay.Delivered, relay.EventFeedback, "", "", "", false},
		"another":   {report("failed", "5.1.1", "member@else.test", "550 5.1.1 no such user"), relay.Delivered, relay.EventFeedback, "hard/no-such-mailbox", "", "no such user", false},
		"complaint": {complaint, relay.Delivered, relay.EventComplained, "", "complaint", "", false},
		"not spam":  {strings.Replace(complaint, "Type: abuse", "Type: not-spam", 1), relay.Delivered, relay.EventFeedback, "", "", "", false},
		"vacation":  {vacation, relay.Delivered, relay.EventFeedback, "", "", "away until Monday", false},
		"nonsense":  {"\xff\x00", relay.Delivered, relay.EventFeedback, "", "", "", false},
		"nothing":   {"", relay.Delivered, relay.EventFeedback, "", "", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newReturns(t)
			d := b.sent(time.Now(), "app@shop.test", 0)
			if err := b.back(address(d), tt.mail); err != nil {
				t.Fatal(err)
			}
			s := b.round(d)
			last := s.Events[len(s.Events)-1]
			if s.Deliveries[0].State != tt.state || last.Kind != tt.kind || len(s.Events) != 3 {
				t.Errorf("state %v, %d events, last %v", s.Deliveries[0].State, len(s.Events), last.Kind)
			}
			if tt.kind != relay.EventBounced && strings.Contains(last.Diagnosis.Advice, "again") && name != "delayed" {
				t.Errorf("advice %q", last.Diagnosis.Advice)
			}
			if strings.HasPrefix(last.Reply.Text, "5") {
				t.Errorf("codes twice: %q", last.Reply.Text)
			}
			if tt.category != "" && last.Diagnosis.Category != tt.category || !strings.Contains(last.Reply.Text, tt.words) || last.Diagnosis.Text == "" {
				t.Errorf("event %+v %+v", last.Reply, last.Diagnosis)
			}
			found, err := b.store.Suppressed(t.Context(), b.account, 0, []string{"ann@dead.test"})
			if err != nil || (len(found) > 0) != (tt.suppress != "") || len(found) > 0 && (found[0].Reason != tt.suppress || found[0].Event != last.ID) {
				t.Errorf("suppressed %+v, %v", found, err)
			}
			notices, err := b.store.Notices(t.Context(), time.Now().Add(time.Hour), 10)
			if err != nil || (len(notices) > 0) != tt.notice {
				t.Errorf("notices %v, %v", notices, err)
			}
			// The same again is told of, and nothing more.
			if err := b.back(address(d), tt.mail); err != nil {
				t.Fatal(err)
			}
			if s = b.round(d); s.Deliveries[0].State != tt.state || len(s.Events) != 4 {
				t.Errorf("again: %v, %d events", s.Deliveries[0].State, len(s.Events))
			}
			if again, err := b.store.Notices(t.Context(), time.Now().Add(time.Hour), 10); err != nil || len(again) != len(notices) {
				t.Errorf("notices again: %v, %v", again, err)
			}
		})
	}
}

// No bounce is ever answered by mail where nobody waits for it, and what we answer
// cannot come back: it has the null sender, and so no return path.
func TestReturnedMakesNoLoop(t *testing.T) {
	b := newReturns(t)
	hard := report("failed", "5.1.1", "ann@dead.test", "550 5.1.1 no such user")
	for _, d := range []*relay.Delivery{b.sent(time.Now(), "", 0), b.sent(time.Now(), "app@shop.test", relay.NotifyNever)} {
		if err := b.back(address(d), hard); err != nil {
			t.Fatal(err)
		}
		if s := b.round(d); s.Deliveries[0].State != relay.Bounced {
			t.Errorf("state %v", s.Deliveries[0].State)
		}
	}
	if notices, err := b.store.Notices(t.Context(), time.Now().Add(time.Hour), 10); len(notices) != 0 || err != nil {
		t.Errorf("notices %v, %v", notices, err)
	}
	d := b.sent(time.Now(), "app@shop.test", 0)
	if err := b.back(address(d), hard); err != nil {
		t.Fatal(err)
	}
	b.round(d)
	if n, err := b.notifier.round(t.Context(), time.Now().Add(time.Hour)); n != 1 || err != nil {
		t.Fatalf("%d reports, %v", n, err)
	}
	all, err := b.store.Deliveries(t.Context(), b.account, relay.DeliveryFilter{Sender: relay.NullSender, Recipient: "app@shop.test"})
	if err != nil || len(all) != 1 || all[0].Message.About != d.ID.Message {
		t.Errorf("reports %+v, %v", all, err)
	}
}

func TestInboxTakesOnlyItsOwn(t *testing.T) {
	b := newReturns(t)
	d, old := b.sent(time.Now(), "app@shop.test", 0), b.sent(time.Now().Add(-returnFor-time.Hour), "app@shop.test", 0)
	local, _, _ := strings.Cut(address(d), "@")
	for _, to := range []string{address(d), local + "@BOUNCE.shop.test", local + "@back.relay.test"} {
		if err := b.inbox.Recipient(t.Context(), nil, "", to); err != nil {
			t.Errorf("%s: %v", to, err)
		}
	}
	unknown := relay.Delivery{ID: relay.DeliveryID{Message: storetest.NewID(time.Now()), N: 1}}
	for name, to := range map[string]string{"forged": strings.Replace(address(d), "good", "bad", 1), "another host": local + "@shop.test", "below": local + "@x.bounce.shop.test",
		"a stranger's host": local + "@bounce.other.test", "of no message": address(&unknown), "somebody": "postmaster@bounce.shop.test", "too old": address(old)} {
		err := b.inbox.Recipient(t.Context(), nil, "", to)
		var e *relay.Error
		if !errors.As(err, &e) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if code, enhanced := e.Reply(); code != 550 || enhanced != "5.1.1" {
			t.Errorf("%s: %d %s", name, code, enhanced)
		}
		if err := b.back(to, vacation); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	want := map[string]int{"forged": 1, "host": 3, "unknown": 2, "expired": 1}
	if !maps.Equal(b.told.n, want) {
		t.Errorf("counted %v, want %v", b.told.n, want)
	}
	// That mail came too late is told once, however often it comes.
	if err := b.inbox.Recipient(t.Context(), nil, "", address(old)); err == nil {
		t.Error("too old: taken")
	}
	if left, err := b.store.Returned(t.Context(), relay.Everyone, relay.ID{}, 10); err != nil || len(left) != 1 || !left[0].Expired || left[0].Delivery != old.ID {
		t.Errorf("kept: %v, %v", left, err)
	}
	s := b.round(old)
	if last := s.Events[len(s.Events)-1]; last.Kind != relay.EventFeedback || !strings.Contains(last.Diagnosis.Text, "30 days") || s.Deliveries[0].State != relay.Delivered {
		t.Errorf("event %+v", last)
	}
	b.inbox.since = b.inbox.since.Add(-expiredFor)
	if !b.inbox.news(old.ID) || b.inbox.news(old.ID) {
		t.Error("a day later it is told once more")
	}
	for n := range maxExpired + 5 {
		if b.inbox.news(relay.DeliveryID{N: n}) && n > maxExpired {
			t.Fatal("remembered without an end")
		}
	}
}

// A bounce that comes before its delivery is known to be delivered waits for that; if
// it is not in a minute it is told of, and no more.
func TestBounceOvertakes(t *testing.T) {
	b := newReturns(t)
	for _, delivered := range []bool{true, false} {
		s := storetest.Submission(b.account, time.Now(), []byte("Subject: Hello\r\n\r\nHello.\r\n"), "ann@dead.test")
		d := s.Deliveries[0]
		if err := errors.Join(b.store.Put(t.Context(), b.lease, []*relay.Submission{s})...); err != nil {
			t.Fatal(err)
		}
		if err := b.back(address(d), report("failed", "5.2.2", "ann@dead.test", "552 5.2.2 mailbox full")); err != nil {
			t.Fatal(err)
		}
		if err := b.returns.Round(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left, err := b.store.Returned(t.Context(), b.account, relay.ID{}, 10); err != nil || len(left) != 1 {
			t.Fatalf("left: %v, %v", left, err)
		}
		want, state := relay.EventFeedback, relay.Queued
		if delivered {
			want, state = relay.EventBounced, relay.Bounced
			o := relay.Outcome{Delivery: d.ID, Account: b.account, Kind: relay.EventDelivered, At: time.Now(), Reply: relay.Reply{Code: 250, Text: "Ok"}}
			if err := errors.Join(b.store.Settle(t.Context(), b.lease, []relay.Outcome{o})...); err != nil {
				t.Fatal(err)
			}
		} else {
			b.returns.now = func() time.Time { return time.Now().Add(returnWait) }
		}
		story := b.round(d)
		if last := story.Events[len(story.Events)-1]; last.Kind != want || story.Deliveries[0].State != state {
			t.Errorf("event %s, state %s", last.Kind, story.Deliveries[0].State)
		}
	}
}

// However much comes back for one account, another one's is dealt with by turns.
func TestReturnsTakesTurns(t *testing.T) {
	b := newReturns(t)
	other, err := b.store.EnsureAccount(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	storm := b.sent(time.Now(), "app@shop.test", 0)
	me := b.account
	b.account = other
	quiet := b.sent(time.Now(), "app@shop.test", 0)
	b.account = me
	for range 3 * returnBatch {
		if err := b.back(address(storm), vacation); err != nil {
			t.Fatal(err)
		}
	}
	// The other's comes last.
	if err := b.back(strings.Replace(address(quiet), "bounce.shop.test", "back.relay.test", 1), vacation); err != nil {
		t.Fatal(err)
	}
	var order []relay.ID
	b.returns.queue = settles(func(o *relay.Outcome) { order = append(order, o.Account) })
	if err := b.returns.Round(t.Context()); err != nil {
		t.Fatal(err)
	}
	if place := slices.Index(order, other); len(order) != 3*returnBatch+1 || place < 0 || place >= returnBatch {
		t.Errorf("the other account's is number %d of %d", place, len(order))
	}
}

// settles is a queue that only looks, at one outcome after the other.
func settles(look func(*relay.Outcome)) Settler { return &looking{look: look} }

type looking struct {
	mu   sync.Mutex
	look func(*relay.Outcome)
	fail error
}

func (l *looking) Settle(_ context.Context, o relay.Outcome) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.look(&o)
	return l.fail
}

// What can't be settled keeps nothing else waiting, and comes again.
func TestReturnsGoesOn(t *testing.T) {
	b := newReturns(t)
	d := b.sent(time.Now(), "app@shop.test", 0)
	for range returnBatch + 1 {
		if err := b.back(address(d), vacation); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	q := b.returns.queue
	b.returns.queue = &looking{look: func(*relay.Outcome) { n++ }, fail: errors.New("no")}
	if err := b.returns.Round(t.Context()); err == nil || n != returnBatch+1 {
		t.Errorf("%d were tried, %v", n, err)
	}
	b.returns.queue = q
	if s := b.round(d); len(s.Events) != 2+returnBatch+1 {
		t.Errorf("%d events", len(s.Events))
	}
}

func TestBareReply(t *testing.T) {
	for _, tt := range []struct {
		text     string
		code     int
		enhanced string
		want     string
	}{
		{"550 5.1.1 No such user", 550, "5.1.1", "No such user"},
		{"550-5.1.1 No such user", 550, "5.1.1", "No such user"},
		{"550 No such user", 550, "5.1.1", "No such user"},
		{"5.1.1 No such user", 0, "5.1.1", "No such user"},
		{"5501 users", 550, "", "5501 users"},
		{"554 5.1.1 No such user", 550, "5.1.1", "554 5.1.1 No such user"},
		{"550 5.1.1", 550, "5.1.1", "550 5.1.1"},
		{"", 0, "", ""},
	} {
		if got := bare(tt.text, tt.code, tt.enhanced); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.text, got, tt.want)
		}
	}
}

// A mail may name a thousand recipients. Only the one that it came to is judged.
func TestVerdictOfMany(t *testing.T) {
	m := bounce.Mail{Kind: bounce.Report, Standard: true, Text: strings.Repeat("some words of a report ", 1000)}
	for i := range 1000 {
		m.Recipients = append(m.Recipients, bounce.Recipient{Address: fmt.Sprintf("u%d@corp.example", i), Action: "failed", Reply: "what"})
	}
	m.Recipients[500].Reply = "550 5.1.1 user unknown"
	c := classify.Builtin()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	v, own := verdict(m, c, relay.Recipient{Address: "U500@corp.example"})
	runtime.ReadMemStats(&after)
	if !own || v.Recipient.Address != "u500@corp.example" || v.Category != "no-such-mailbox" {
		t.Errorf("own %v, %+v", own, v)
	}
	if n := (after.TotalAlloc - before.TotalAlloc) >> 20; n > 20 {
		t.Errorf("one recipient of 1000 takes %d MB", n)
	}
	if v, own := verdict(m, c, relay.Recipient{Address: "other@corp.example"}); own || v.Recipient.Address != "u0@corp.example" {
		t.Errorf("of another: own %v, %+v", own, v)
	}
	if len(m.Recipients) != 1000 {
		t.Error("the mail was changed")
	}
}

// Of a large mail the beginning is kept, and that is enough.
func TestInboxKeepsTheBeginning(t *testing.T) {
	b := newReturns(t)
	d := b.sent(time.Now(), "app@shop.test", 0)
	mail := strings.TrimSuffix(report("failed", "5.1.1", "ann@dead.test", "550 5.1.1 no such user"), "--b--\n") + "--b\nContent-Type: message/rfc822\n\nSubject: x\n\n" +
		strings.Repeat("0123456789\n", 100_000) + "--b--\n"
	if err := b.back(address(d), mail); err != nil {
		t.Fatal(err)
	}
	left, err := b.store.Returned(t.Context(), relay.Everyone, relay.ID{}, 10)
	if err != nil || len(left) != 1 || len(left[0].Content) != maxKept || left[0].Size <= maxKept {
		t.Fatalf("kept %d, %v", len(left), err)
	}
	if s := b.round(d); s.Deliveries[0].State != relay.Bounced {
		t.Errorf("state %v", s.Deliveries[0].State)
	}
}

// complaintOf is one (RFC 5965) whose recipient is blacked out, as providers send it
// to the address that was registered with them.
func complaintOf(field string) string {
	return `From: feedback@provider.test
To: f+provider.good@back.relay.test
Subject: complaint
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary=b

--b
Content-Type: message/feedback-report

Feedback-Type: abuse
User-Agent: Provider/1
Version: 1

--b
Content-Type: message/rfc822

` + field + `
From: app@shop.test
To: redacted
Subject: Hello

Hello.
--b--
`
}

func TestComplaintsOfProviders(t *testing.T) {
	b := newReturns(t)
	const to = "f+provider.good@back.relay.test"
	for name, field := range map[string]func(*relay.Delivery) string{
		"by our mark":    func(d *relay.Delivery) string { return "X-Postrider-ID: mark:" + d.ID.Message.String() },
		"by return path": func(d *relay.Delivery) string { return "Return-Path: <" + address(d) + ">" },
		"broken line": func(d *relay.Delivery) string {
			return "X-Postrider-ID: mark:" + d.ID.Message.String()[:9] + "=\n" + d.ID.Message.String()[9:]
		},
	} {
		d := b.sent(time.Now(), "app@shop.test", 0)
		if err := b.inbox.Recipient(t.Context(), nil, "", to); err != nil {
			t.Fatal(err)
		}
		if err := b.back(to, complaintOf(field(d))); err != nil {
			t.Fatal(err)
		}
		s := b.round(d)
		if last := s.Events[len(s.Events)-1]; last.Kind != relay.EventComplained || last.Provider != "provider" {
			t.Errorf("%s: %s by %q", name, last.Kind, last.Provider)
		}
	}
	found, err := b.store.Suppressed(t.Context(), b.account, 0, []string{"ann@dead.test"})
	if err != nil || len(found) != 1 || found[0].Reason != relay.ReasonComplaint || found[0].Event.IsZero() {
		t.Errorf("suppressed %v, %v", found, err)
	}
	// One that names nothing of ours is taken, and of no effect; elsewhere the address
	// is none.
	if err := b.back(to, complaintOf("X-Postrider-ID: mark:"+storetest.NewID(time.Now()).String())); err != nil {
		t.Error(err)
	}
	if left, err := b.store.Returned(t.Context(), relay.Everyone, relay.ID{}, 1); err != nil || len(left) != 0 {
		t.Errorf("kept %v, %v", left, err)
	}
	if b.told.n["complained provider"] != 3 || b.told.n["unmatched"] != 1 || b.told.n["taken"] != 4 {
		t.Errorf("counted %v", b.told.n)
	}
	for _, bad := range []string{"f+provider.good@bounce.shop.test", "f+provider.bad@back.relay.test"} {
		if err := b.inbox.Recipient(t.Context(), nil, "", bad); err == nil {
			t.Errorf("%s: taken", bad)
		}
	}
}

// Which of several recipients complained is known only where the report says so.
func TestComplaintOfOneOfMany(t *testing.T) {
	b := newReturns(t)
	s := storetest.Submission(b.account, time.Now(), []byte("Subject: Hello\r\n\r\nHello.\r\n"), "ann@dead.test", "ben@dead.test", "joann@dead.test")
	if err := errors.Join(b.store.Put(t.Context(), b.lease, []*relay.Submission{s})...); err != nil {
		t.Fatal(err)
	}
	mark := "X-Postrider-ID: mark:" + s.Message.ID.String()
	for extra, want := range map[string]int{"": 0, "\nX-For: BEN@dead.test": 2, "\nX-For: ben@dead.test, ann@dead.test": 0,
		"\nX-For: joann@dead.test.": 3, "\nX-For: <ann@dead.test>": 1, "\nX-For: ann@dead.test.example, x-ann@dead.test": 0, "\nCc: ben@dead.test": 2,
		"\nReceived: by x for <ben@dead.test>\nTo: ann@dead.test,\n ben@dead.test\nCC: joann@dead.test": 2,
		"\nTo: ann@dead.test,\n ben@dead.test":                                                          0} {
		p, found, err := b.inbox.complaint(t.Context(), []byte(complaintOf(mark+extra)))
		if err != nil || found != (want > 0) || want > 0 && p.delivery.N != want {
			t.Errorf("%q: %v, %t, %v", extra, p.delivery, found, err)
		}
	}
}

func TestUnsubscribeByMail(t *testing.T) {
	b := newReturns(t)
	d := b.sent(time.Now(), "app@shop.test", 0)
	to := strings.Replace(address(d), "b+", "u+", 1)
	ask := func(sender, field string) relay.Kind {
		t.Helper()
		_, err := b.inbox.Submit(t.Context(), submit.Draft{Envelope: relay.Envelope{Sender: sender, Recipients: []relay.Recipient{{Address: to}}}, Content: message.Bytes([]byte("From: ann@dead.test\r\nSubject: unsubscribe\r\n" + field + "\r\nunsubscribe\r\n"))})
		if err != nil {
			t.Fatal(err)
		}
		s := b.round(d)
		return s.Events[len(s.Events)-1].Kind
	}
	if kind := ask("", ""); kind != relay.EventFeedback {
		t.Errorf("by a machine: %s", kind)
	}
	if kind := ask("ann@dead.test", "Auto-Submitted: auto-replied\r\n"); kind != relay.EventFeedback {
		t.Errorf("by an automatic reply: %s", kind)
	}
	if kind := ask("ann@dead.test", ""); kind != relay.EventUnsubscribed {
		t.Errorf("by a person: %s", kind)
	}
	found, err := b.store.Suppressed(t.Context(), b.account, d.Stream, []string{"ann@dead.test"})
	if err != nil || len(found) != 1 || found[0].Reason != relay.ReasonUnsubscribe || found[0].Stream != d.Stream {
		t.Errorf("suppressed %v, %v", found, err)
	}
}
