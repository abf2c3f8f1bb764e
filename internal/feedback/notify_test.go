package feedback

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postrider/internal/dsn"
	"postrider/internal/policy"
	"postrider/internal/queue"
	"postrider/internal/relay"
	"postrider/internal/store"
	"postrider/internal/store/sqlite"
	"postrider/internal/store/storetest"
	"postrider/internal/submit"
)

// bench is a store with a queue and an entrance, and a notifier on top.
type bench struct {
	*testing.T
	store    *store.DB
	account  relay.ID
	lease    int64
	queue    *queue.Queue
	notifier *Notifier
}

func newBench(t *testing.T) *bench {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "db"), log)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{T: t, store: db}
	if b.account, err = db.EnsureAccount(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if b.lease, err = db.Join(t.Context(), "n"); err != nil {
		t.Fatal(err)
	}
	q := queue.New(db, b.lease, queue.Config{Window: 10, WindowBytes: 1 << 20, Batch: 8, BatchBytes: 1 << 20}, log)
	b.queue = q
	writing, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- q.Write(writing) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-ended, db.Close()); err != nil {
			t.Error(err)
		}
	})
	e := submit.New(submit.Config{Hostname: "relay.test", Expire: time.Hour, Limits: policy.Limits{MessageSize: 1 << 20, Recipients: 10, Hops: 10}}, q, nil, nil)
	b.notifier = NewNotifier(NotifierConfig{Hostname: "relay.test", From: "MAILER-DAEMON@relay.test"}, db, e, log)
	return b
}

// put puts a message whose deliveries wait in the store.
func (b *bench) put(change func(*relay.Message), recipients ...string) *relay.Submission {
	b.Helper()
	s := storetest.Submission(b.account, time.Now().Add(-time.Minute).Truncate(time.Microsecond), []byte("Subject: Hello\r\nX-Mine: yes\r\n\r\nThe body\r\n"), recipients...)
	s.InHand = false
	if change != nil {
		change(s.Message)
	}
	if err := b.store.Put(b.Context(), b.lease, []*relay.Submission{s})[0]; err != nil {
		b.Fatal(err)
	}
	return s
}

func (b *bench) settle(d *relay.Delivery, kind relay.Kind, notice relay.Notify, due time.Time, text string) {
	b.Helper()
	o := relay.Outcome{Delivery: d.ID, Account: d.Account, Kind: kind, At: time.Now().Truncate(time.Microsecond), Due: time.Now().Add(time.Hour), Host: "mx.test",
		Reply: relay.Reply{Code: 550, Enhanced: "5.1.1", Text: text}, Diagnosis: relay.Diagnosis{Text: "It does not exist.", Advice: "Check it."},
		Attempt: &relay.Attempt{}, Notice: notice, NoticeDue: due}
	if kind == relay.EventDelivered {
		o.Reply = relay.Reply{Code: 250, Enhanced: "2.0.0", Text: text}
	}
	if err := b.store.Settle(b.Context(), b.lease, []relay.Outcome{o})[0]; err != nil {
		b.Fatal(err)
	}
}

// round lets the notifier write once, and gives the DSNs that it made, parsed,
// with their text.
func (b *bench) round(now time.Time) (reports []dsn.Report, texts []string) {
	b.Helper()
	if _, err := b.notifier.round(b.Context(), now); err != nil {
		b.Fatal(err)
	}
	found, err := b.store.Deliveries(b.Context(), b.account, relay.DeliveryFilter{Live: true})
	if err != nil {
		b.Fatal(err)
	}
	for _, l := range found {
		if l.Message.Source.Protocol != "DSN" {
			continue
		}
		if l.Message.Envelope.Sender != "" {
			b.Errorf("a DSN from <%s>", l.Message.Envelope.Sender)
		}
		text := b.content(l.ID.Message)
		r, err := dsn.Parse(strings.NewReader(text))
		if err != nil {
			b.Fatalf("%v\n%s", err, text)
		}
		reports, texts = append(reports, r), append(texts, text)
	}
	return reports, texts
}

func (b *bench) content(id relay.ID) string {
	b.Helper()
	c, err := b.store.Content(b.Context(), id)
	if err != nil {
		b.Fatal(err)
	}
	r, err := c.Open()
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		b.Fatal(err)
	}
	return string(text)
}

// Failures of one message that come until the notice is due share one DSN; when
// it is written the original's content goes.
func TestOneNoticeForSeveralFailures(t *testing.T) {
	b := newBench(t)
	s := b.put(func(m *relay.Message) { m.Envelope.EnvID = "QQ314159" }, "a@x.test", "b@x.test", "c@x.test")
	due := time.Now().Add(time.Minute)
	b.settle(s.Deliveries[0], relay.EventBounced, relay.NotifyFailure, due, "no a here")
	b.settle(s.Deliveries[1], relay.EventDelivered, 0, time.Time{}, "ok")
	b.settle(s.Deliveries[2], relay.EventBounced, relay.NotifyFailure, due.Add(time.Minute), "no c here")
	if got, _ := b.round(due.Add(-time.Second)); len(got) != 0 {
		t.Fatalf("%d DSNs before they are due", len(got))
	}
	got, texts := b.round(due)
	if len(got) != 1 || len(got[0].Recipients) != 2 {
		t.Fatalf("%d DSNs: %+v; want one about two", len(got), got)
	}
	r := got[0]
	if r.Kind != dsn.Failed || r.To != "app@example.com" || r.EnvID != "QQ314159" || r.Recipients[0].Final != "a@x.test" || r.Recipients[1].Final != "c@x.test" ||
		r.Recipients[0].Status != "5.1.1" || r.Recipients[0].RemoteMTA != "mx.test" {
		t.Errorf("%+v", r)
	}
	for _, want := range []string{"550 5.1.1 no a here", "It does not exist.", "Check it.", "X-Mine: yes", "The body"} {
		if !strings.Contains(texts[0], want) {
			t.Errorf("the DSN lacks %q:\n%s", want, texts[0])
		}
	}
	if _, err := b.store.Content(t.Context(), s.Message.ID); relay.CodeOf(err) != relay.NotFound {
		t.Errorf("the original's content is kept: %v", err)
	}
	if got, _ := b.round(due.Add(time.Hour)); len(got) != 1 {
		t.Errorf("%d DSNs after another look, want no second one", len(got))
	}
}

func TestRetDecidesWhatComesBack(t *testing.T) {
	for ret, whole := range map[string]bool{"": true, "FULL": true, "HDRS": false} {
		b := newBench(t)
		s := b.put(func(m *relay.Message) { m.Envelope.Ret = ret }, "a@x.test")
		b.settle(s.Deliveries[0], relay.EventBounced, relay.NotifyFailure, time.Now(), "no")
		_, texts := b.round(time.Now().Add(time.Second))
		if len(texts) != 1 || strings.Contains(texts[0], "The body") != whole || !strings.Contains(texts[0], "X-Mine: yes") {
			t.Errorf("RET=%q: %d DSNs, whole %v wanted:\n%s", ret, len(texts), whole, texts)
		}
	}
}

func TestExpiredAndRelayed(t *testing.T) {
	b := newBench(t)
	s := b.put(nil, "late@x.test", "there@x.test")
	b.settle(s.Deliveries[0], relay.EventExpired, relay.NotifyFailure, time.Now(), "busy")
	b.settle(s.Deliveries[1], relay.EventDelivered, relay.NotifySuccess, time.Now(), "ok")
	got, _ := b.round(time.Now().Add(time.Second))
	byAction := map[dsn.Action]dsn.Recipient{}
	for _, r := range got {
		for _, rc := range r.Recipients {
			byAction[rc.Action] = rc
		}
	}
	if rc := byAction[dsn.ActionFailed]; rc.Final != "late@x.test" || rc.Status != "4.4.7" {
		t.Errorf("expired: %+v", rc)
	}
	if rc := byAction[dsn.ActionRelayed]; rc.Final != "there@x.test" || rc.Status[0] != '2' {
		t.Errorf("relayed: %+v", rc)
	}
}

// A warning about a delay is of no use once the delivery has ended.
func TestDelayThatIsOverIsNotReported(t *testing.T) {
	b := newBench(t)
	s := b.put(nil, "slow@x.test", "slower@x.test")
	due := time.Now().Add(time.Minute)
	b.settle(s.Deliveries[0], relay.EventDeferred, relay.NotifyDelay, due, "busy")
	b.settle(s.Deliveries[1], relay.EventDeferred, relay.NotifyDelay, due, "busy")
	b.settle(s.Deliveries[0], relay.EventDelivered, 0, time.Time{}, "ok")
	got, _ := b.round(due)
	if len(got) != 1 || len(got[0].Recipients) != 1 || got[0].Recipients[0].Final != "slower@x.test" || got[0].Kind != dsn.Delayed || got[0].Recipients[0].WillRetry.IsZero() {
		t.Errorf("%+v; want one warning about the one that waits", got)
	}
	b.settle(s.Deliveries[1], relay.EventDelivered, 0, time.Time{}, "ok")
	if left, err := b.store.Notices(t.Context(), due.Add(time.Hour), 10); err != nil || len(left) != 0 {
		t.Errorf("notices left: %v, %v", left, err)
	}
}

// refusing is an entrance that fails for some messages.
type refusing struct {
	Entrance
	fails bool
}

func (r *refusing) Report(ctx context.Context, account relay.ID, to string, utf8 bool, content relay.Content, answers *relay.Notice) (relay.ID, error) {
	if r.fails {
		return relay.ID{}, errors.New("no")
	}
	return r.Entrance.Report(ctx, account, to, utf8, content, answers)
}

// A notice that can't be sent is tried again later, and keeps nobody waiting.
func TestFailedNoticeIsTriedAgain(t *testing.T) {
	b := newBench(t)
	e := &refusing{Entrance: b.notifier.entrance, fails: true}
	b.notifier.entrance = e
	s := b.put(nil, "a@x.test")
	b.settle(s.Deliveries[0], relay.EventBounced, relay.NotifyFailure, time.Now(), "no")
	now := time.Now().Add(time.Second)
	b.round(now)
	e.fails = false
	if got, _ := b.round(now.Add(time.Second)); len(got) != 0 {
		t.Error("it is tried again at once")
	}
	other := b.put(nil, "b@x.test")
	b.settle(other.Deliveries[0], relay.EventBounced, relay.NotifyFailure, time.Now(), "no")
	if got, _ := b.round(now.Add(2 * time.Second)); len(got) != 1 || got[0].Recipients[0].Final != "b@x.test" {
		t.Errorf("the one behind it: %+v", got)
	}
	if got, _ := b.round(now.Add(noticeRetry + time.Second)); len(got) != 2 {
		t.Errorf("after the wait: %+v, want both", got)
	}
}

// A sender that can't be told is not tried for ever.
func TestNoticeToNobodyEnds(t *testing.T) {
	b := newBench(t)
	s := b.put(func(m *relay.Message) { m.Envelope.Sender = "no address" }, "a@x.test")
	b.settle(s.Deliveries[0], relay.EventBounced, relay.NotifyFailure, time.Now(), "no")
	if got, _ := b.round(time.Now().Add(time.Second)); len(got) != 0 {
		t.Errorf("%+v", got)
	}
	if left, err := b.store.Notices(t.Context(), time.Now().Add(time.Hour), 10); err != nil || len(left) != 0 {
		t.Errorf("notices left: %v, %v", left, err)
	}
}
