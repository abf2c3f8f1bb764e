package webhook

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"postrider/internal/relay"
	"postrider/internal/store/storetest"
)

// What is accepted and settled is told, once each, in order, with what the
// account may know.
func TestSend(t *testing.T) {
	r, to := newRig(t), newReceiver(t)
	r.add(to, Settings{})
	ids := r.mail(20)
	r.release() // before it runs: another lease in mid-stream makes it send again what was under way
	r.run()
	for _, id := range ids {
		r.settle(id, relay.EventDeferred)
		r.settle(id, relay.EventBounced)
	}
	within(t, patience, "60 events are there", func() bool { return to.distinct() == 60 })
	if n := len(to.took()); n != 60 {
		t.Errorf("%d events came, each should once", n)
	}
	to.inOrder()
	i := slices.IndexFunc(to.took(), func(e Event) bool { return e.Type == "delivery.bounced" })
	e := to.took()[i]
	d := e.Data
	if d.State != "bounced" || d.Recipient != "rcpt0@example.net" || d.Sender != "app@example.com" || d.Subject != "Hello" || d.Metadata["order"] != "1001" || !slices.Equal(d.Tags, []string{"order"}) ||
		d.Reply.Enhanced != "5.1.1" || d.Diagnosis.Category != "hard/no-mailbox" || d.Attempt.Host != "mx.example.net" || d.Message != ids[0].String() || d.Account != r.account.String() || to.ids[i] != e.ID {
		t.Errorf("event %+v", e)
	}
	if body := string(to.bodies[i]); strings.Contains(body, "secret.inside") {
		t.Errorf("the dialogue is told: %s", body)
	}
}

// Only what is wanted is sent.
func TestFilter(t *testing.T) {
	r, to, other := newRig(t), newReceiver(t), newReceiver(t)
	r.add(to, Settings{Events: &[]string{"delivery.bounced", "delivered"}})
	r.add(other, Settings{Tags: &[]string{"none of it"}})
	ids := r.mail(3)
	r.release()
	r.run()
	r.settle(ids[1], relay.EventBounced)
	r.settle(ids[2], relay.EventDelivered)
	within(t, patience, "both are there", func() bool { return to.distinct() == 2 })
	if len(to.took()) != 2 || len(other.took()) != 0 {
		t.Errorf("got %+v, %+v", to.took(), other.took())
	}
}

// Events come in arrays, up to so many.
func TestBatch(t *testing.T) {
	r, to := newRig(t), newReceiver(t)
	batch, wait := 7, 0.3
	r.add(to, Settings{Batch: &batch, Wait: &wait})
	r.run()
	r.mail(15)
	within(t, patience, "15 events are there", func() bool { return to.distinct() == 15 })
	if len(to.bodies) != 3 || to.bodies[0][0] != '[' || !strings.HasPrefix(to.ids[0], "batch_") || to.ids[0] == to.ids[1] {
		t.Errorf("%d requests, %q", len(to.bodies), to.ids)
	}
}

// What fails is tried again, first of all by itself, and is listed; the others
// wait for it.
func TestRetry(t *testing.T) {
	r, to := newRig(t), newReceiver(t)
	batch := 10
	h := r.add(to, Settings{Batch: &batch})
	tries := 0
	to.answers(func(events []Event, w http.ResponseWriter, _ *http.Request) {
		if tries++; tries <= 3 {
			http.Error(w, "not\x1b[31m today", http.StatusServiceUnavailable)
		}
	})
	r.run()
	r.mail(5)
	within(t, patience, "5 events are there", func() bool { return to.distinct() == 5 })
	within(t, patience, "it is noted", func() bool { return r.progress(h).Sent == 5 })
	failures, err := r.db.WebhookFailures(t.Context(), r.account, h.ID, relay.ID{}, 0)
	if err != nil || len(failures) != 3 || failures[0].Status != 503 || failures[0].Answer != "not[31m today" || failures[2].Try != 1 || failures[2].Events != 5 || failures[0].Events != 1 {
		t.Errorf("failures %+v, %v", failures, err)
	}
	if p := r.progress(h); !p.Failing.IsZero() || p.Failures != 0 || p.Delivered.IsZero() {
		t.Errorf("progress %+v", p)
	}
}

// One event that the receiver can't stand keeps those of its message waiting, and
// no others.
func TestAside(t *testing.T) {
	r, to := newRig(t), newReceiver(t)
	h := r.add(to, Settings{})
	ids := r.mail(10)
	bad := ids[4].String()
	healed := false
	to.answers(func(events []Event, w http.ResponseWriter, _ *http.Request) {
		if events[0].Data.Message == bad && events[0].Type == "delivery.accepted" && !healed {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	r.release()
	for i, id := range ids {
		if i != 4 {
			r.settle(id, relay.EventDelivered)
		}
	}
	r.run()
	within(t, patience, "the others are there", func() bool { return to.distinct() == 18 })
	r.mail(3)
	within(t, patience, "later ones are there", func() bool { return to.distinct() == 21 })
	within(t, patience, "it is noted", func() bool { p := r.progress(h); return len(p.Aside) == 1 && p.Aside[0].Message == ids[4] })
	r.settle(ids[4], relay.EventDelivered) // which waits for the other
	r.stop()                               // it is known after a restart
	r.run()
	r.mail(1)
	within(t, patience, "later ones are there", func() bool { return to.distinct() == 22 })
	to.mu.Lock()
	healed = true
	to.mu.Unlock()
	within(t, patience, "those that stood aside are there", func() bool { return to.distinct() == 24 })
	within(t, patience, "none stands aside", func() bool { return len(r.progress(h).Aside) == 0 })
	to.inOrder()
	if n := len(to.took()); n != 24 {
		t.Errorf("%d events came, each should once", n)
	}
}

// An event that becomes visible late, of a message that stands aside and has gone
// beyond it, is not passed over.
func TestAsideLate(t *testing.T) {
	r, to := newRig(t), newReceiver(t)
	h := r.add(to, Settings{})
	id := r.mail(1)[0]
	events := must(r.db.EventsOf(t.Context(), r.account, id, relay.ID{}, 10))
	first := events[0]
	s := NewService(r.config, r.db, r.box, func() int64 { return r.lease }, func() bool { return false })
	w := &worker{s: s, hook: h, done: map[relay.ID]struct{}{}, queue: []relay.EventHead{{ID: first.ID, Account: r.account, Kind: first.Kind}}}
	w.p.Aside = []relay.Aside{{Message: relay.ID{1}, From: after(first.ID)}, {Message: id, From: after(after(first.ID)), Since: time.Now()}}
	if err := w.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.p.Aside[1].From != first.ID || w.p.Aside[0].From != after(first.ID) || len(w.ready) != 0 {
		t.Fatalf("aside %+v, %d are ready", w.p.Aside, len(w.ready))
	}
	if err := w.sendAside(t.Context(), w.p.Aside[1]); err != nil || to.distinct() != 1 {
		t.Errorf("%d came: %v", to.distinct(), err)
	}
}

// However much that is not wanted lies between, what is wanted of a message that
// stands aside is sent.
func TestAsideFar(t *testing.T) {
	r, to := newRig(t), newReceiver(t)
	h := r.add(to, Settings{Events: &[]string{"bounced"}})
	rcpts := make([]string, readMost+20)
	for i := range rcpts {
		rcpts[i] = fmt.Sprintf("rcpt%d@example.net", i)
	}
	m := storetest.Submission(r.account, time.Now(), []byte("x"), rcpts...)
	if err := r.db.Put(t.Context(), r.lease, []*relay.Submission{m})[0]; err != nil {
		t.Fatal(err)
	}
	r.release()
	r.settle(m.Message.ID, relay.EventBounced)
	s := NewService(r.config, r.db, r.box, func() int64 { return r.lease }, func() bool { return false })
	w := &worker{s: s, hook: h, done: map[relay.ID]struct{}{}}
	w.p.Aside = []relay.Aside{{Message: m.Message.ID, Since: time.Now()}}
	for range 2 {
		if len(w.p.Aside) != 1 {
			break
		}
		if err := w.sendAside(t.Context(), w.p.Aside[0]); err != nil {
			t.Fatal(err)
		}
	}
	if to.distinct() != 1 || len(w.p.Aside) != 0 {
		t.Errorf("%d came, aside are %+v", to.distinct(), w.p.Aside)
	}
}

// A webhook that somebody has changed since its worker gave up is not disabled.
func TestDisableChanged(t *testing.T) {
	r, to := newRig(t), newReceiver(t)
	h := r.add(to, Settings{})
	s := NewService(r.config, r.db, r.box, func() int64 { return r.lease }, func() bool { return false })
	note := "mended"
	if _, err := r.manager.Change(t.Context(), relay.Actor{}, r.account, h.ID, Settings{Description: &note}); err != nil {
		t.Fatal(err)
	}
	if err := s.disable(t.Context(), &worker{s: s, hook: h, verdict: "It failed."}); err != nil {
		t.Fatal(err)
	}
	if now := must(r.db.Webhook(t.Context(), r.account, h.ID)); now.Status != relay.WebhookActive {
		t.Errorf("it is %v: %s", now.Status, now.Reason)
	}
}

// A webhook that fails for too long is disabled, with an entry in the audit log,
// and goes on where it ended when somebody says so.
func TestDisable(t *testing.T) {
	for name, status := range map[string]int{"too long": 500, "gone": 410} {
		t.Run(name, func(t *testing.T) {
			r, to := newRig(t), newReceiver(t)
			r.config.GiveUp = 300 * time.Millisecond
			h := r.add(to, Settings{})
			to.answers(func(_ []Event, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
			r.run()
			r.mail(2)
			within(t, patience, "it is disabled", func() bool {
				h = must(r.db.Webhook(t.Context(), r.account, h.ID))
				return h.Status == relay.WebhookDisabled
			})
			if !strings.Contains(h.Reason, "answers") {
				t.Errorf("reason %q", h.Reason)
			}
			changes := must(r.db.Changes(t.Context(), r.account, relay.ChangeFilter{Action: "webhook.disable"}))
			if len(changes) != 1 || changes[0].Actor.Name != "postrider" || strings.Contains(string(changes[0].After), "sealed") {
				t.Errorf("audit log %+v", changes)
			}
			to.answers(nil)
			paused := false
			if _, err := r.manager.Change(t.Context(), relay.Actor{}, r.account, h.ID, Settings{Paused: &paused}); err != nil {
				t.Fatal(err)
			}
			within(t, patience, "the events are there", func() bool { return to.distinct() == 2 })
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// What was sent is sent again from a time on.
func TestReplay(t *testing.T) {
	r, to := newRig(t), newReceiver(t)
	h := r.add(to, Settings{})
	r.run()
	began := time.Now()
	r.mail(5)
	within(t, patience, "5 events are there", func() bool { return len(to.took()) == 5 })
	if err := r.manager.Replay(t.Context(), relay.Actor{}, r.account, h.ID, began); err != nil {
		t.Fatal(err)
	}
	within(t, patience, "they are there again", func() bool { return len(to.took()) == 10 })
	if to.distinct() != 5 {
		t.Errorf("%d different events", to.distinct())
	}
}

// Both secrets are good for a while after a rotation.
func TestRotate(t *testing.T) {
	r, to := newRig(t), newReceiver(t)
	h := r.add(to, Settings{})
	r.run()
	h, secret, err := r.manager.Rotate(t.Context(), relay.Actor{}, r.account, h.ID, time.Hour)
	if err != nil || len(h.Secrets) != 2 {
		t.Fatalf("%+v, %v", h, err)
	}
	within(t, patience, "both sign", func() bool { // who knows the old one is content
		r.mail(1)
		to.mu.Lock()
		defer to.mu.Unlock()
		return strings.Count(to.signed, "v1,") == 2
	})
	to.mu.Lock()
	to.secrets = []string{secret}
	before := len(to.events)
	to.mu.Unlock()
	r.mail(1) // and who knows the new one
	within(t, patience, "it is there", func() bool { return to.distinct() > before })
	if all := must(good(r.box, h, time.Now().Add(2*time.Hour))); len(all) != 1 || all[0] != secret {
		t.Errorf("good for ever: %d", len(all))
	}
}

// The receiver goes and comes, and the service too: each event arrives.
func TestRestarts(t *testing.T) {
	r := newRig(t)
	to := &receiver{t: t}
	stop := startReceiver(t, to, "127.0.0.1:0")
	addr := strings.TrimSuffix(strings.TrimPrefix(to.url, "http://"), "/hook")
	h := r.add(to, Settings{})
	r.run()
	for round := range 4 {
		r.mail(10)
		within(t, patience, "some are there", func() bool { return to.distinct() > round*20 })
		stop()
		r.mail(10)
		if round%2 == 1 {
			r.stop()
			r.run()
		}
		stop = startReceiver(t, to, addr)
		within(t, patience, "all are there", func() bool { return to.distinct() == (round+1)*20 })
	}
	stop()
	to.inOrder()
	within(t, patience, "it is noted", func() bool { return r.progress(h).Sent >= 80 })
}

// What happens while a webhook is paused comes when it goes on, also where that is
// so soon that its worker has not ended yet; and a webhook that takes the place of
// another misses nothing.
func TestPauseShortly(t *testing.T) {
	r, to := newRig(t), newReceiver(t)
	h := r.add(to, Settings{})
	s := NewService(r.config, r.db, r.box, func() int64 { return r.lease }, func() bool { return false })
	ctx, cancel := context.WithCancel(t.Context())
	step := func(f func(context.Context) error) {
		t.Helper()
		if err := f(ctx); err != nil {
			t.Fatal(err)
		}
	}
	defer func() { cancel(); s.halt(s.all()) }()
	change := func(paused bool) {
		t.Helper()
		if _, err := r.manager.Change(ctx, relay.Actor{}, r.account, h.ID, Settings{Paused: &paused}); err != nil {
			t.Fatal(err)
		}
	}
	comes := func(n int) {
		t.Helper()
		within(t, patience, "all are there", func() bool { step(s.keep); step(s.poll); return to.distinct() == n })
	}
	step(s.keep)
	step(s.poll)
	r.mail(1)
	comes(1)
	change(true)
	r.mail(1)
	step(s.poll) // which is given nothing of a paused webhook's account
	change(false)
	comes(2)
	if _, err := r.manager.Remove(ctx, relay.Actor{}, r.account, h.ID); err != nil {
		t.Fatal(err)
	}
	h = r.add(to, Settings{})
	r.mail(1)
	step(s.poll)
	comes(3)
}
