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
		other := f.message("b@x.test")
		f.put(0, other)
		later := f.message("later@example.net")
		later.Deliveries[0].Due = noon.Add(time.Microsecond)
		f.put(0, later)
		net, test := waits[0].Deliveries[0].Class(), other.Deliveries[0].Class()
		nobody := relay.Class{Stream: relay.Broadcast, Account: f.me, Domain: "example.net"}
		var got []relay.DeliveryID
		take := func(now time.Time, wants []relay.Want, wantLeft ...relay.Waiting) {
			f.Helper()
			claimed, left, err := f.db.Claim(f.Context(), f.lease, now, wants)
			if err != nil {
				f.Fatal(err)
			}
			for _, c := range claimed {
				got = append(got, c.Delivery.ID)
			}
			f.equal("left", left, wantLeft)
		}
		take(noon, []relay.Want{{Class: nobody, Limit: 5}, {Class: net, Limit: 4}, {Class: test}},
			relay.Waiting{Class: net, Due: noon.Add(-2 * time.Second)}, relay.Waiting{Class: test, Due: noon})
		take(noon, []relay.Want{{Class: test, Limit: 5}, {Class: net, Limit: 5}}, relay.Waiting{Class: net, Due: noon.Add(time.Microsecond)})
		take(noon.Add(time.Microsecond), []relay.Want{{Class: net, Limit: 5}})
		var want []relay.DeliveryID
		for _, s := range []*relay.Submission{waits[5], waits[4], waits[3], waits[2], other, waits[1], waits[0], later} {
			want = append(want, s.Deliveries[0].ID)
		}
		f.equal("claimed", got, want)
	}},
	{"expired near the head", func(f *fixture) {
		waits := f.waiting(6)
		class := waits[0].Deliveries[0].Class()
		far := f.message("far@example.net")
		far.Deliveries[0].Expires = noon.Add(-time.Hour)
		var batch []*relay.Submission
		for range 498 { // between the six and this one
			s := f.message("b@example.net")
			s.Deliveries[0].Due = noon.Add(-500 * time.Millisecond)
			batch = append(batch, s)
		}
		f.put(0, append(batch, far)...)
		for _, i := range []int{0, 2, 4} {
			f.exec("update delivery set expires = 1 where message = ?", waits[i].Message.ID[:])
		}
		var got []relay.DeliveryID
		for _, want := range []relay.Want{{Class: class, Limit: 1, Expired: 1}, {Class: class, Expired: 5}, {Class: class, Expired: 5}} {
			claimed, _, err := f.db.Claim(f.Context(), f.lease, noon, []relay.Want{want})
			if err != nil {
				f.Fatal(err)
			}
			for _, c := range claimed {
				got = append(got, c.Delivery.ID)
			}
		}
		id := func(i int) relay.DeliveryID { return waits[i].Deliveries[0].ID }
		// Then 501 are before the last one, and 500 are looked at.
		f.equal("claimed", got, []relay.DeliveryID{id(5), id(4), id(2), id(0)})
		f.claimAs(class, 1)
		claimed, _, err := f.db.Claim(f.Context(), f.lease, noon, []relay.Want{{Class: class, Expired: 5}})
		if err != nil || len(claimed) != 1 || claimed[0].Delivery.ID != far.Deliveries[0].ID {
			f.Errorf("claimed %d, %v; want the one that has come near", len(claimed), err)
		}
	}},
	{"waiting", func(f *fixture) {
		other, err := f.db.EnsureAccount(f.Context(), "other")
		if err != nil {
			f.Fatal(err)
		}
		want := map[relay.Class]time.Time{}
		for _, account := range []relay.ID{f.me, other} {
			for i, domain := range []string{"a.test", "b.test", "c.test"} {
				for _, stream := range []relay.Stream{relay.Transactional, relay.Broadcast} {
					for n := range 3 {
						s := Submission(account, noon, []byte("x"), "x@"+domain)
						s.Message.Stream, s.Deliveries[0].Stream = stream, stream
						s.Deliveries[0].Due = noon.Add(time.Duration(3*i-n) * time.Hour)
						f.put(0, s)
					}
					want[relay.Class{Stream: stream, Account: account, Domain: domain}] = noon.Add(time.Duration(3*i-2) * time.Hour)
				}
			}
		}
		s := f.message("leased@x.test", "held@x.test")
		s.Deliveries[1].State = relay.Held
		f.put(f.lease, s)
		last := relay.Class{Stream: relay.Transactional, Account: other, Domain: "c.test"}
		f.claimAs(last, 3)
		delete(want, last)
		for _, page := range []int{1, 3, 11, 100} {
			got := map[relay.Class]time.Time{}
			var after relay.Class
			for {
				classes, err := f.db.Waiting(f.Context(), after, page)
				if err != nil {
					f.Fatal(err)
				}
				for _, w := range classes {
					if _, twice := got[w.Class]; twice || w.Stream < after.Stream {
						f.Errorf("page of %d: %v comes twice or out of order", page, w.Class)
					}
					got[w.Class], after = w.Due, w.Class
				}
				if len(classes) > page {
					f.Errorf("page of %d has %d", page, len(classes))
				}
				if len(classes) < page {
					break
				}
			}
			f.equal("waiting", got, want)
		}
	}},
	{"held", func(f *fixture) {
		s := f.message("a@x.test", "b@x.test", "held@x.test", "d@x.test")
		s.Deliveries[2].State = relay.Held
		f.put(f.lease, s)
		f.put(0, f.message("waits@x.test"))
		f.put(f.another(), f.message("another@x.test"))
		f.settle(f.lease, outcome(s.Deliveries[0], relay.EventDelivered), outcome(s.Deliveries[1], relay.EventDeferred))
		got, err := f.db.Held(f.Context(), f.lease)
		if err != nil {
			f.Fatal(err)
		}
		f.equal("held", got, []relay.DeliveryID{s.Deliveries[3].ID})
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
		class := f.waiting(total)[0].Deliveries[0].Class()
		var mu sync.Mutex
		seen := map[relay.DeliveryID]int{}
		var group sync.WaitGroup
		for range workers {
			lease := f.another()
			group.Go(func() {
				for {
					got, _, err := f.db.Claim(f.Context(), lease, noon, []relay.Want{{Class: class, Limit: 7}})
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
	{"needs a lease", func(f *fixture) {
		f.waiting(1)
		if _, _, err := f.db.Claim(f.Context(), 0, noon, nil); err == nil {
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
		if _, err := f.beat(old); !errors.Is(err, store.ErrLeaseLost) {
			f.Errorf("the dead one beats: %v", err)
		}
		if _, err := f.beat(f.lease); err != nil {
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
		if _, err := f.beat(f.lease); !errors.Is(err, store.ErrLeaseLost) {
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
		f.lease = f.another()
		if got := f.claim(time.Now().Add(time.Hour), 1); len(got) != 1 {
			f.Error("not due after its node left")
		}
	}},
}
