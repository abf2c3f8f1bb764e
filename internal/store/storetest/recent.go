package storetest

import (
	"fmt"
	"time"

	"postrider/internal/relay"
)

// lately counts what was recent, by account, kind, provider and category.
func (f *fixture) lately(account relay.ID, since time.Time) map[string]int64 {
	f.Helper()
	all, err := f.db.Recent(f.Context(), account, since)
	f.must(err)
	got := map[string]int64{}
	for _, n := range all {
		got[fmt.Sprintf("%s %s %s", n.Kind, n.Provider, n.Category)] += n.N
	}
	return got
}

// ended puts a message and settles it at a time.
func (f *fixture) ended(account relay.ID, k relay.Kind, at time.Time, provider string) *relay.Submission {
	f.Helper()
	s := Submission(account, at, []byte("x"), "a@x.test")
	f.put(f.lease, s)
	o := outcome(s.Deliveries[0], k)
	o.At, o.Provider = at, provider
	f.settle(f.lease, o)
	return s
}

var recentTests = []test{
	{"by kind, provider and category", func(f *fixture) {
		other := f.account("other", relay.ID{})
		f.ended(f.me, relay.EventDelivered, noon, "Gmail")
		f.ended(f.me, relay.EventDelivered, noon.Add(time.Minute), "Gmail")
		f.ended(f.me, relay.EventDeferred, noon.Add(time.Minute), "Yahoo")
		f.ended(f.me, relay.EventHeld, noon, "Gmail") // nothing that anybody is judged by
		f.ended(f.me, relay.EventBounced, noon.Add(-time.Hour), "")
		f.ended(other.ID, relay.EventBounced, noon, "Gmail")
		none := Submission(f.me, noon, []byte("x"), "a@x.test")
		f.put(f.lease, none)
		o := outcome(none.Deliveries[0], relay.EventBounced)
		o.Null = true
		f.settle(f.lease, o)
		f.settle(f.lease, f.late(relay.EventComplained))
		f.equal("mine", f.lately(f.me, noon), map[string]int64{"delivered Gmail ": 2, "deferred Yahoo greylisted": 1, "complained Yahoo soft/x": 1, "delivered  ": 1})
		f.equal("for longer", f.lately(f.me, noon.Add(-time.Hour))["bounced  "], int64(1))
		f.equal("another's", f.lately(other.ID, noon), map[string]int64{"bounced Gmail ": 1})
		f.equal("everybody's", f.lately(relay.Everyone, noon)["bounced Gmail "], int64(1))
		f.equal("later", f.lately(f.me, noon.Add(time.Hour)), map[string]int64{})
	}},
	{"becomes hours, and goes", func(f *fixture) {
		now := time.Now()
		for _, back := range []time.Duration{time.Minute, 4 * time.Hour, 4*time.Hour + time.Minute, 30 * time.Hour} {
			f.ended(f.me, relay.EventDelivered, now.Add(-back), "Gmail")
		}
		f.equal("before", f.lately(f.me, now.Add(-31*time.Hour)), map[string]int64{"delivered Gmail ": 4})
		for range 2 {
			f.must(f.db.Sweep(f.Context()))
			f.equal("after", f.lately(f.me, now.Add(-31*time.Hour)), map[string]int64{"delivered Gmail ": 3})
			f.equal("of late", f.lately(f.me, now.Add(-15*time.Minute)), map[string]int64{"delivered Gmail ": 1})
		}
		f.ended(f.me, relay.EventDelivered, now.Add(-4*time.Hour), "Gmail")
		f.must(f.db.Sweep(f.Context()))
		f.equal("one that came late", f.lately(f.me, now.Add(-31*time.Hour)), map[string]int64{"delivered Gmail ": 4})
	}},
}

// late is an outcome of mail that came back about a delivered message.
func (f *fixture) late(k relay.Kind) relay.Outcome {
	f.Helper()
	o := answer(f.returned(f.delivered()), k)
	o.At, o.Provider, o.Diagnosis = noon.Add(time.Minute), "Yahoo", relay.Diagnosis{Category: "soft/x"}
	return o
}
