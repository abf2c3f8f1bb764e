package storetest

import (
	"errors"
	"net/netip"
	"time"

	"postrider/internal/relay"
	"postrider/internal/store"
)

var settleTests = []test{
	{"delivered", func(f *fixture) {
		s := f.message("a@example.net")
		f.put(f.lease, s)
		o := outcome(s.Deliveries[0], relay.EventDelivered)
		o.Diagnosis = relay.Diagnosis{Category: "delivered", Text: "The receiver took it."}
		o.Provider, o.Attempt.Source = "Gmail", netip.MustParseAddr("192.0.2.25")
		o.Attempt.TLS = &relay.TLS{Version: "TLS1.3", Cipher: "X", Problem: "expired"}
		o.Attempt.Hosts = []relay.HostTry{{Name: "mx1", Error: "refused"}, {Name: "mx2"}}
		o.Attempt.Dialogue = []relay.Exchange{{Command: "DATA", Reply: relay.Reply{Code: 354, Text: "go"}}}
		f.settle(f.lease, o)
		got := f.story(s.Message.ID)
		want := *s.Deliveries[0]
		want.State, want.Attempts, want.Updated, want.Due = relay.Delivered, 1, o.At, o.At
		want.Reply, want.Diagnosis, want.Host, want.Provider, want.Source = o.Reply, o.Diagnosis, o.Host, "Gmail", "192.0.2.25"
		f.equal("delivery", got.Deliveries[0], &want)
		f.equal("event", got.Events[1], &relay.Event{ID: got.Events[1].ID, At: o.At, Account: f.me, Delivery: want.ID,
			Kind: relay.EventDelivered, Reply: o.Reply, Diagnosis: o.Diagnosis, Attempt: o.Attempt, Provider: "Gmail",
			Sender: s.Message.Envelope.Sender, Subject: s.Message.Subject, HeaderID: s.Message.HeaderID, Recipient: want.Recipient.Address})
		if f.content(s.Message.ID) != nil || got.Content {
			f.Error("the content is still there")
		}
	}},
	{"twice", func(f *fixture) {
		for _, kind := range []relay.Kind{relay.EventDelivered, relay.EventDeferred, relay.EventBounced, relay.EventExpired, relay.EventCancelled, relay.EventHeld} {
			s := f.message("a@example.net")
			f.put(f.lease, s)
			o := outcome(s.Deliveries[0], kind)
			f.settle(f.lease, o)
			before := f.story(s.Message.ID)
			for _, lease := range []int64{f.lease, 0} {
				if err := f.db.Settle(f.Context(), lease, []relay.Outcome{o})[0]; !errors.Is(err, store.ErrSettled) {
					f.Errorf("%s again with lease %d: %v", kind, lease, err)
				}
			}
			f.equal("story after "+kind.String()+" twice", f.story(s.Message.ID), before)
		}
		// Both in one batch.
		s := f.message("a@example.net")
		f.put(f.lease, s)
		o := outcome(s.Deliveries[0], relay.EventDeferred)
		errs := f.db.Settle(f.Context(), f.lease, []relay.Outcome{o, o})
		if errs[0] != nil || !errors.Is(errs[1], store.ErrSettled) {
			f.Errorf("two in one batch: %v", errs)
		}
		if got := f.story(s.Message.ID); got.Deliveries[0].Attempts != 1 || len(got.Events) != 2 {
			f.Errorf("two in one batch: %d attempts, %d events", got.Deliveries[0].Attempts, len(got.Events))
		}
	}},
	{"final is final", func(f *fixture) {
		for _, last := range []relay.Kind{relay.EventDelivered, relay.EventBounced, relay.EventExpired, relay.EventCancelled} {
			s := f.message("a@example.net")
			f.put(f.lease, s)
			f.settle(f.lease, outcome(s.Deliveries[0], last))
			for kind := relay.EventDelivered; kind <= relay.EventCancelled; kind++ {
				o := outcome(s.Deliveries[0], kind)
				o.At = o.At.Add(time.Hour)
				for _, lease := range []int64{f.lease, 0} {
					if err := f.db.Settle(f.Context(), lease, []relay.Outcome{o})[0]; !errors.Is(err, store.ErrSettled) {
						f.Errorf("%s after %s: %v", kind, last, err)
					}
				}
			}
			f.equal("state", f.story(s.Message.ID).Deliveries[0].State, last.State())
		}
	}},
	{"foreign lease", func(f *fixture) {
		s := f.message("a@example.net")
		f.put(f.lease, s)
		for _, lease := range []int64{f.lease + 1, 0} {
			if err := f.db.Settle(f.Context(), lease, []relay.Outcome{outcome(s.Deliveries[0], relay.EventDelivered)})[0]; !errors.Is(err, store.ErrSettled) {
				f.Errorf("lease %d of another: %v", lease, err)
			}
		}
		f.equal("events", kinds(f.story(s.Message.ID)), []relay.Kind{relay.EventAccepted})
		// In nobody's hand: whoever tried it may say what came of it.
		if err := f.db.Release(f.Context(), f.lease, []relay.DeliveryID{s.Deliveries[0].ID}); err != nil {
			f.Fatal(err)
		}
		f.settle(f.lease+1, outcome(s.Deliveries[0], relay.EventDelivered))
	}},
	{"bad ones harm no others", func(f *fixture) {
		s := f.message("a@x.test", "b@x.test", "c@x.test", "d@x.test")
		f.put(f.lease, s)
		var batch []relay.Outcome
		for _, d := range s.Deliveries {
			batch = append(batch, outcome(d, relay.EventDelivered))
		}
		batch[0].Delivery.N = 9
		batch[1].Account = NewID(noon)
		batch[2].Kind = relay.EventAccepted
		errs := f.db.Settle(f.Context(), f.lease, batch)
		if relay.CodeOf(errs[0]) != relay.NotFound || relay.CodeOf(errs[1]) != relay.NotFound || relay.CodeOf(errs[2]) != relay.Invalid || errs[3] != nil {
			f.Errorf("errors are %v", errs)
		}
		var states []relay.State
		for _, d := range f.story(s.Message.ID).Deliveries {
			states = append(states, d.State)
		}
		f.equal("states", states, []relay.State{relay.Queued, relay.Queued, relay.Queued, relay.Delivered})
	}},
	{"attempts", func(f *fixture) {
		s := f.message("a@example.net")
		f.put(f.lease, s)
		d := s.Deliveries[0]
		at := noon
		step := func(kind relay.Kind, tried bool) *relay.Delivery {
			at = at.Add(time.Minute)
			o := outcome(d, kind)
			if o.At = at; !tried {
				o.Attempt = nil
			}
			f.settle(f.lease, o)
			return f.story(s.Message.ID).Deliveries[0]
		}
		f.equal("after an attempt", step(relay.EventDeferred, true).Attempts, 1)
		f.equal("after a hold", step(relay.EventHeld, false).Attempts, 1)
		f.equal("after a release", step(relay.EventReleased, false).Attempts, 1)
		f.equal("after another attempt", step(relay.EventDeferred, true).Attempts, 2)
		f.equal("kinds", kinds(f.story(s.Message.ID)), []relay.Kind{relay.EventAccepted, relay.EventDeferred, relay.EventHeld, relay.EventReleased, relay.EventDeferred})
	}},
	{"rescheduled", rescheduled},
	{"orders keep the last reply", func(f *fixture) {
		s := f.message("a@example.net")
		f.put(f.lease, s)
		d := s.Deliveries[0]
		o := outcome(d, relay.EventDeferred)
		f.settle(f.lease, o)
		f.settle(0, order(d, relay.EventHeld, noon.Add(2*time.Minute)))
		got := f.story(s.Message.ID).Deliveries[0]
		f.equal("state", got.State, relay.Held)
		f.equal("reply", got.Reply, o.Reply)
		f.equal("diagnosis", got.Diagnosis, o.Diagnosis)
		f.equal("host", got.Host, o.Host)

		released := order(d, relay.EventReleased, noon.Add(3*time.Minute))
		released.Due = noon.Add(time.Hour)
		f.settle(0, released)
		got = f.story(s.Message.ID).Deliveries[0]
		f.equal("state", got.State, relay.Queued)
		f.equal("due", got.Due, released.Due)

		expired := order(d, relay.EventExpired, noon.Add(4*time.Minute))
		expired.Diagnosis = relay.Diagnosis{Category: "expired", Text: "Its time is over."}
		f.settle(0, expired)
		got = f.story(s.Message.ID).Deliveries[0]
		f.equal("diagnosis", got.Diagnosis, expired.Diagnosis)
		f.equal("reply", got.Reply, o.Reply)
	}},
	{"content goes with the last", func(f *fixture) {
		s := f.message("a@x.test", "b@x.test", "c@x.test")
		f.put(f.lease, s)
		for i, kind := range []relay.Kind{relay.EventDelivered, relay.EventBounced, relay.EventCancelled} {
			if f.content(s.Message.ID) == nil {
				f.Fatalf("the content went before delivery %d was final", i+1)
			}
			f.settle(f.lease, outcome(s.Deliveries[i], kind))
		}
		if f.content(s.Message.ID) != nil {
			f.Error("the content stays")
		}
		// All in one batch, and other states between.
		s = f.message("a@x.test", "b@x.test")
		f.put(f.lease, s)
		f.settle(f.lease, outcome(s.Deliveries[0], relay.EventDelivered), outcome(s.Deliveries[1], relay.EventDeferred))
		if f.content(s.Message.ID) == nil {
			f.Error("the content went while one was deferred")
		}
		f.settle(f.lease, order(s.Deliveries[1], relay.EventHeld, noon.Add(2*time.Minute)))
		if f.content(s.Message.ID) == nil {
			f.Error("the content went while one was held")
		}
		f.settle(f.lease, order(s.Deliveries[1], relay.EventCancelled, noon.Add(3*time.Minute)))
		if f.content(s.Message.ID) != nil {
			f.Error("the content stays after one was cancelled")
		}
	}},
	{"content goes though the last two are settled at once", func(f *fixture) {
		at := noon.Add(time.Minute)
		both := func(s *relay.Submission, one, other func() error) {
			f.Helper()
			errs := make(chan error)
			for _, do := range []func() error{one, other} {
				go func() { errs <- do() }()
			}
			if err := errors.Join(<-errs, <-errs); err != nil {
				f.Error(err)
			}
			if f.content(s.Message.ID) != nil {
				f.Error("the content stays")
			}
		}
		settle := func(o relay.Outcome) func() error {
			return func() error { return f.db.Settle(f.Context(), f.lease, []relay.Outcome{o})[0] }
		}
		for range 40 {
			s := f.message("a@x.test", "b@x.test")
			f.put(f.lease, s)
			both(s, settle(outcome(s.Deliveries[0], relay.EventDelivered)), settle(outcome(s.Deliveries[1], relay.EventDelivered)))

			// The last delivery and the last notice.
			s = f.message("a@x.test")
			f.put(f.lease, s)
			delayed := outcome(s.Deliveries[0], relay.EventDeferred)
			delayed.Notice = relay.NotifyDelay
			f.settle(f.lease, delayed)
			delivered := outcome(s.Deliveries[0], relay.EventDelivered)
			delivered.At = at.Add(time.Minute)
			both(s, settle(delivered), func() error {
				return f.db.EndNotice(f.Context(), relay.Notice{Message: s.Message.ID, Kind: relay.NotifyDelay, Deliveries: []int{1}})
			})
		}
	}},
	{"one delivery many times in a batch", func(f *fixture) {
		s := f.message("a@x.test", "b@x.test")
		f.put(f.lease, s)
		a, b := s.Deliveries[0], s.Deliveries[1]
		at := func(o relay.Outcome, minutes int) relay.Outcome {
			o.At = noon.Add(time.Duration(minutes) * time.Minute)
			return o
		}
		errs := f.db.Settle(f.Context(), f.lease, []relay.Outcome{
			at(outcome(a, relay.EventDeferred), 1), at(outcome(b, relay.EventDelivered), 1), at(outcome(a, relay.EventDeferred), 2),
			at(outcome(a, relay.EventDelivered), 3), at(outcome(b, relay.EventBounced), 4), at(outcome(a, relay.EventBounced), 4)})
		for i, err := range errs {
			if errors.Is(err, store.ErrSettled) != (i > 3) || i <= 3 && err != nil {
				f.Errorf("outcome %d: %v", i, err)
			}
		}
		got := f.story(s.Message.ID)
		f.equal("attempts", got.Deliveries[0].Attempts, 3)
		f.equal("states", []relay.State{got.Deliveries[0].State, got.Deliveries[1].State}, []relay.State{relay.Delivered, relay.Delivered})
		var of []relay.Kind
		for _, e := range got.Events {
			if e.Delivery == a.ID {
				of = append(of, e.Kind)
			}
		}
		f.equal("kinds", of, []relay.Kind{relay.EventAccepted, relay.EventDeferred, relay.EventDeferred, relay.EventDelivered})
		if got.Content {
			f.Error("the content stays")
		}
	}},
	{"times", func(f *fixture) {
		for _, at := range []time.Time{noon, noon.Add(time.Microsecond), time.Date(1999, 12, 31, 23, 59, 59, 999999000, time.UTC),
			time.Date(2200, 1, 1, 0, 0, 0, 1000, time.FixedZone("", 3600))} {
			s := Submission(f.me, at, []byte("x"), "a@example.net")
			s.Deliveries[0].Expires = at.Add(time.Microsecond)
			f.put(f.lease, s)
			o := outcome(s.Deliveries[0], relay.EventDeferred)
			o.At, o.Due = at.Add(2*time.Microsecond), at.Add(3*time.Microsecond)
			f.settle(f.lease, o)
			got := f.story(s.Message.ID)
			d := got.Deliveries[0]
			f.equal("times", []time.Time{got.Message.Received, d.Expires, d.Updated, d.Due, got.Events[1].At},
				[]time.Time{at.UTC(), at.Add(time.Microsecond).UTC(), o.At.UTC(), o.Due.UTC(), o.At.UTC()})
		}
	}},
}

var noticeTests = []test{
	{"gathered and ended", func(f *fixture) {
		s := f.message("a@x.test", "b@x.test", "c@x.test", "d@x.test", "e@x.test")
		f.put(f.lease, s)
		bounce := func(n int, kind relay.Notify, after time.Duration) {
			o := outcome(s.Deliveries[n-1], relay.EventBounced)
			o.Notice, o.NoticeDue = kind, noon.Add(after)
			f.settle(f.lease, o)
		}
		bounce(2, relay.NotifyFailure, 2*time.Minute)
		bounce(1, relay.NotifyFailure, time.Minute)
		delayed := outcome(s.Deliveries[2], relay.EventDeferred)
		delayed.Notice, delayed.NoticeDue = relay.NotifyDelay, noon.Add(3*time.Minute)
		f.settle(f.lease, delayed)

		failure := relay.Notice{Message: s.Message.ID, Kind: relay.NotifyFailure, Due: noon.Add(time.Minute), Deliveries: []int{1, 2}}
		delay := relay.Notice{Message: s.Message.ID, Kind: relay.NotifyDelay, Due: noon.Add(3 * time.Minute), Deliveries: []int{3}}
		f.notices(noon.Add(time.Minute-time.Microsecond), 10)
		f.notices(noon.Add(time.Minute), 10, failure)
		f.notices(noon.Add(time.Hour), 10, failure, delay)
		f.notices(noon.Add(time.Hour), 1, failure)

		// One more comes while the DSN is being written: it waits for the next.
		bounce(4, relay.NotifyFailure, 5*time.Minute)
		dsn := f.message("app@example.com")
		dsn.Answers, dsn.Message.About = &failure, s.Message.ID
		f.put(f.lease, dsn)
		f.equal("about", f.story(dsn.Message.ID).Message.About, s.Message.ID)
		var reported []int
		for _, e := range f.story(s.Message.ID).Events {
			if e.Kind == relay.EventReported && e.Reply.Text == dsn.Message.ID.String() {
				reported = append(reported, e.Delivery.N)
			}
		}
		f.equal("reported", reported, []int{1, 2})
		rest := relay.Notice{Message: s.Message.ID, Kind: relay.NotifyFailure, Due: noon.Add(5 * time.Minute), Deliveries: []int{4}}
		f.notices(noon.Add(time.Hour), 10, delay, rest)

		// The same DSN again, from a node that read the same notice.
		again, other := f.message("app@example.com"), f.message("z@x.test")
		again.Answers = &failure
		errs := f.db.Put(f.Context(), f.lease, []*relay.Submission{again, other})
		if !errors.Is(errs[0], store.ErrSettled) || errs[1] != nil {
			f.Errorf("answered twice: %v", errs)
		}
		if _, err := f.db.Story(f.Context(), f.me, again.Message.ID); relay.CodeOf(err) != relay.NotFound {
			f.Errorf("the second DSN: %v", err)
		}
		f.story(other.Message.ID)
		if got := f.story(s.Message.ID).Deliveries; !got[2].Delayed || got[1].Delayed {
			f.Error("the sender was told of the delay of the third, and of no other")
		}
		if err := f.db.EndNotice(f.Context(), delay); err != nil {
			f.Errorf("end: %v", err)
		}
		if err := f.db.EndNotice(f.Context(), delay); !errors.Is(err, store.ErrSettled) {
			f.Errorf("end twice: %v", err)
		}
		f.notices(noon.Add(time.Hour), 10, rest)
	}},
	{"keep the content", func(f *fixture) {
		for _, end := range []string{"put", "end"} {
			s := f.message("a@x.test", "b@x.test")
			f.put(f.lease, s)
			for _, d := range s.Deliveries {
				o := outcome(d, relay.EventBounced)
				o.Notice, o.NoticeDue = relay.NotifyFailure, noon
				f.settle(f.lease, o)
			}
			if f.content(s.Message.ID) == nil {
				f.Fatal("the content went before the DSN was written")
			}
			n := relay.Notice{Message: s.Message.ID, Kind: relay.NotifyFailure, Deliveries: []int{1, 2}}
			if end == "put" {
				dsn := f.message("app@example.com")
				dsn.Answers = &n
				f.put(f.lease, dsn)
			} else if err := f.db.EndNotice(f.Context(), n); err != nil {
				f.Fatal(err)
			}
			if f.content(s.Message.ID) != nil {
				f.Errorf("%s: the content stays", end)
			}
		}
		// The last delivery needs no DSN, one before it does.
		s := f.message("a@x.test", "b@x.test")
		f.put(f.lease, s)
		bounced := outcome(s.Deliveries[0], relay.EventBounced)
		bounced.Notice, bounced.NoticeDue = relay.NotifyFailure, noon
		f.settle(f.lease, bounced)
		f.settle(f.lease, outcome(s.Deliveries[1], relay.EventDelivered))
		if f.content(s.Message.ID) == nil {
			f.Error("the content went though a DSN is to be written")
		}
		// The notice ends first, the delivery goes on.
		s = f.message("a@x.test")
		f.put(f.lease, s)
		o := outcome(s.Deliveries[0], relay.EventDeferred)
		o.Notice = relay.NotifyDelay
		f.settle(f.lease, o)
		if err := f.db.EndNotice(f.Context(), relay.Notice{Message: s.Message.ID, Kind: relay.NotifyDelay, Deliveries: []int{1}}); err != nil {
			f.Fatal(err)
		}
		if f.content(s.Message.ID) == nil {
			f.Error("the content went with the notice of a delay")
		}
	}},
}

// notices expects just these to be due.
func (f *fixture) notices(now time.Time, limit int, want ...relay.Notice) {
	f.Helper()
	got, err := f.db.Notices(f.Context(), now, limit)
	if err != nil {
		f.Fatalf("notices: %v", err)
	}
	f.equal("notices", got, want)
}
