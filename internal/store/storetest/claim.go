package storetest

import (
	"errors"
	"sync"
	"time"

	"postrider/internal/relay"
	"postrider/internal/store"
)

var claimTests = []test{
	{"order and limit", func(f *fixture) {
		waits := f.waiting(6) // the last one waits longest
		for _, i := range []int{1, 5} {
			s := f.message("b@x.test")
			s.Deliveries[0].Stream = relay.Broadcast
			s.Deliveries[0].Due = noon.Add(-time.Duration(i) * time.Hour)
			f.put(0, s)
			waits = append(waits, s)
		}
		later := f.message("later@x.test")
		later.Deliveries[0].Due = noon.Add(time.Microsecond)
		f.put(0, later)
		var got []relay.DeliveryID
		for _, n := range []int{4, 3, 5} {
			for _, c := range f.claim(noon, n) {
				got = append(got, c.Delivery.ID)
			}
		}
		var want []relay.DeliveryID
		for _, i := range []int{5, 4, 3, 2, 1, 0, 7, 6} {
			want = append(want, waits[i].Deliveries[0].ID)
		}
		f.equal("claimed", got, want)
		if got := f.claim(noon.Add(time.Microsecond), 5); len(got) != 1 || got[0].Delivery.ID != later.Deliveries[0].ID {
			f.Errorf("claimed %d when the last one was due", len(got))
		}
	}},
	{"whole", func(f *fixture) {
		s := full(f.me)
		s.Deliveries[1].State = relay.Queued
		f.put(0, s)
		got := f.claim(noon.Add(time.Second), 10)
		if len(got) != 2 || got[0].Message != got[1].Message {
			f.Fatalf("claimed %d, want two that share the message", len(got))
		}
		message := *s.Message
		message.Envelope.Recipients = nil
		f.equal("message", got[0].Message, &message)
		f.equal("deliveries", []*relay.Delivery{got[0].Delivery, got[1].Delivery}, s.Deliveries)
	}},
	{"held and final are left", func(f *fixture) {
		s := f.message("held@x.test", "done@x.test", "again@x.test")
		s.Deliveries[0].State = relay.Held
		f.put(f.lease, s)
		f.settle(f.lease, outcome(s.Deliveries[1], relay.EventDelivered), outcome(s.Deliveries[2], relay.EventDeferred))
		if got := f.claim(noon.Add(10*time.Minute-time.Microsecond), 10); len(got) != 0 {
			f.Errorf("claimed %v before its time", got[0].Delivery.ID)
		}
		got := f.claim(noon.Add(10*time.Minute), 10)
		if len(got) != 1 || got[0].Delivery.ID.N != 3 || got[0].Delivery.Attempts != 1 {
			f.Errorf("claimed %d, want the deferred one", len(got))
		}
		f.settle(0, order(s.Deliveries[0], relay.EventReleased, noon.Add(11*time.Minute)))
		if got := f.claim(noon.Add(11*time.Minute), 10); len(got) != 1 || got[0].Delivery.ID.N != 1 {
			f.Errorf("claimed %d, want the released one", len(got))
		}
	}},
	{"never overlaps", func(f *fixture) {
		const total, workers = 500, 16
		f.waiting(total)
		var mu sync.Mutex
		seen := map[relay.DeliveryID]int{}
		var group sync.WaitGroup
		for i := range workers {
			group.Go(func() {
				lease := f.lease + int64(i)
				for {
					got, err := f.db.Claim(f.Context(), lease, noon, 7)
					if err != nil {
						f.Errorf("claim: %v", err)
					}
					if len(got) == 0 {
						return
					}
					mu.Lock()
					for _, c := range got {
						seen[c.Delivery.ID]++
					}
					mu.Unlock()
					for i, c := range got {
						o := outcome(c.Delivery, relay.EventDelivered)
						if i%3 == 0 { // some come back for others to claim
							o = order(c.Delivery, relay.EventReleased, noon.Add(time.Duration(c.Delivery.Attempts)*time.Second))
							o.Kind, o.Attempt, o.Due = relay.EventDeferred, &relay.Attempt{}, noon.Add(time.Hour)
						}
						if err := f.db.Settle(f.Context(), lease, []relay.Outcome{o})[0]; err != nil {
							f.Errorf("settle: %v", err)
						}
					}
				}
			})
		}
		group.Wait()
		for id, n := range seen {
			if n != 1 {
				f.Errorf("%s was claimed %d times", id, n)
			}
		}
		if len(seen) != total {
			f.Errorf("%d were claimed, want %d", len(seen), total)
		}
	}},
	{"release", func(f *fixture) {
		s := f.message("a@x.test", "b@x.test", "c@x.test")
		f.put(f.lease, s)
		ids := []relay.DeliveryID{s.Deliveries[0].ID, s.Deliveries[2].ID, {Message: s.Message.ID, N: 7}}
		if err := f.db.Release(f.Context(), f.lease+1, ids); err != nil {
			f.Errorf("release what another has: %v", err)
		}
		if got := f.claim(noon, 10); len(got) != 0 {
			f.Errorf("claimed %d that another had", len(got))
		}
		if err := f.db.Release(f.Context(), f.lease, ids); err != nil {
			f.Errorf("release: %v", err)
		}
		got := f.claim(noon, 10)
		if len(got) != 2 || got[0].Delivery.ID.N != 1 || got[1].Delivery.ID.N != 3 {
			f.Errorf("claimed %d after the release", len(got))
		}
		story := f.story(s.Message.ID)
		if len(story.Events) != 3 || story.Deliveries[0].Attempts != 0 {
			f.Error("a release is no attempt and no event")
		}
	}},
	{"next due", func(f *fixture) {
		check := func(want time.Time) {
			f.Helper()
			got, found, err := f.db.NextDue(f.Context())
			if err != nil || found == want.IsZero() || !got.Equal(want) {
				f.Errorf("next due %v %v %v, want %v", got, found, err, want)
			}
		}
		check(time.Time{})
		s := f.message("leased@x.test", "held@x.test", "later@x.test", "sooner@x.test")
		s.Deliveries[1].State, s.Deliveries[1].Due = relay.Held, noon.Add(time.Second)
		s.Deliveries[2].Due = noon.Add(2 * time.Minute)
		s.Deliveries[3].Due, s.Deliveries[3].Stream = noon.Add(time.Minute+time.Microsecond), relay.Broadcast
		f.put(f.lease, s)
		check(noon.Add(time.Minute + time.Microsecond))
		f.settle(0, order(s.Deliveries[3], relay.EventCancelled, noon))
		check(noon.Add(2 * time.Minute))
		f.settle(f.lease, outcome(s.Deliveries[0], relay.EventDelivered), order(s.Deliveries[2], relay.EventCancelled, noon))
		check(time.Time{})
	}},
	{"needs a lease", func(f *fixture) {
		f.waiting(1)
		if _, err := f.db.Claim(f.Context(), 0, noon, 1); err == nil {
			f.Error("claimed without a lease")
		}
		if err := f.db.Release(f.Context(), 0, nil); err == nil {
			f.Error("released without a lease")
		}
	}},
}

var nodeTests = []test{
	{"join takes over", func(f *fixture) {
		s := f.message("a@x.test", "b@x.test", "held@x.test", "later@x.test")
		s.Deliveries[2].State = relay.Held
		s.Deliveries[3].Due = noon.Add(24 * time.Hour)
		f.put(f.lease, s)
		f.settle(f.lease, outcome(s.Deliveries[1], relay.EventDelivered))
		old := f.lease
		f.reopen()
		var err error
		if f.lease, err = f.db.Join(f.Context(), "node"); err != nil || f.lease <= old {
			f.Fatalf("lease %d after %d: %v", f.lease, old, err)
		}
		if got := f.claim(noon, 10); len(got) != 1 || got[0].Delivery.ID.N != 1 {
			f.Errorf("claimed %d, want what the dead incarnation had", len(got))
		}
		o := outcome(s.Deliveries[0], relay.EventDelivered)
		if err := f.db.Settle(f.Context(), old, []relay.Outcome{o})[0]; !errors.Is(err, store.ErrSettled) {
			f.Errorf("the dead one settles: %v", err)
		}
		if _, err := f.db.Beat(f.Context(), old, "1"); !errors.Is(err, store.ErrLeaseLost) {
			f.Errorf("the dead one beats: %v", err)
		}
		if _, err := f.db.Beat(f.Context(), f.lease, "1"); err != nil {
			f.Errorf("beat: %v", err)
		}
		f.settle(f.lease, o)
	}},
	{"leave", func(f *fixture) {
		s := f.message("a@x.test")
		f.put(f.lease, s)
		for range 2 {
			if err := f.db.Leave(f.Context(), f.lease); err != nil {
				f.Fatalf("leave: %v", err)
			}
		}
		if _, err := f.db.Beat(f.Context(), f.lease, "1"); !errors.Is(err, store.ErrLeaseLost) {
			f.Errorf("beat after leaving: %v", err)
		}
		var err error
		if f.lease, err = f.db.Join(f.Context(), "other"); err != nil {
			f.Fatal(err)
		}
		if got := f.claim(noon, 10); len(got) != 1 {
			f.Errorf("claimed %d after the other left", len(got))
		}
	}},
	{"join of a node that is not on the list", func(f *fixture) {
		f.put(f.lease, f.message("a@x.test"))
		if err := f.engine.Exec(f.Context(), f.place, "update node set name = 'node', lease = lease + 1000"); err != nil {
			f.Fatal(err)
		}
		f.reopen()
		var err error
		if f.lease, err = f.db.Join(f.Context(), "node"); err != nil {
			f.Fatal(err)
		}
		if f.engine.Single && len(f.claim(noon, 10)) != 1 {
			f.Error("what a forgotten node held stays in its hand")
		}
	}},
	{"due is brought forward", func(f *fixture) {
		// What was in hand is due at once even if it was put with a clock that
		// runs ahead.
		s := Submission(f.me, time.Now().Add(10*time.Hour), []byte("x"), "a@x.test")
		f.put(f.lease, s)
		if err := f.db.Leave(f.Context(), f.lease); err != nil {
			f.Fatal(err)
		}
		if got := f.claim(time.Now().Add(time.Hour), 1); len(got) != 1 {
			f.Error("not due after its node left")
		}
	}},
}
