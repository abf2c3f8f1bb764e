package storetest

import (
	"time"

	"postrider/internal/relay"
)

var retainTests = []test{
	{"what is old goes, with all that belongs to it", func(f *fixture) {
		other := f.account("other", relay.ID{}).ID
		at := noon
		put := func(account relay.ID) *relay.Submission {
			at = at.Add(time.Minute)
			s := Submission(account, at, []byte("x"), "a@x.test", "b@x.test")
			s.InHand, s.Message.Archive = false, true
			f.put(0, s)
			return s
		}
		end := func(s *relay.Submission) *relay.Submission {
			for _, d := range s.Deliveries {
				f.settle(0, outcome(d, relay.EventDelivered))
			}
			return s
		}
		old, live, told, theirs := end(put(f.me)), put(f.me), end(put(f.me)), end(put(other))
		f.settle(0, outcome(live.Deliveries[0], relay.EventDelivered))
		f.must(f.engine.Exec(f.Context(), f.place, "insert into notice (message, kind, n, due) values (?, 4, 1, 5)", told.Message.ID[:]))
		cut := relay.FirstIDAt(at.Add(time.Minute))
		fresh := func() *relay.Submission { at = at.Add(time.Hour); return end(put(f.me)) }()
		ends := func(account relay.ID) relay.ID {
			if account == f.me {
				return cut
			}
			return relay.ID{}
		}
		n, next, err := f.db.DropContent(f.Context(), relay.ID{}, relay.Everyone, ends)
		if err != nil || n != 3 || !next.IsZero() {
			f.Fatalf("content: %d dropped, next %s, %v", n, next, err)
		}
		for s, kept := range map[*relay.Submission]bool{old: false, live: true, told: true, theirs: true, fresh: true} {
			if _, err := f.db.Content(f.Context(), s.Message.ID); (err == nil) != kept {
				f.Errorf("content of %s: %v", s.Message.ID, err)
			}
		}
		n, next, err = f.db.DropLog(f.Context(), relay.ID{}, relay.Everyone, ends)
		if err != nil || n != 1 || !next.IsZero() {
			f.Fatalf("%d dropped, next %s, %v", n, next, err)
		}
		for s, kept := range map[*relay.Submission]bool{old: false, live: true, told: true, theirs: true, fresh: true} {
			story, err := f.db.Story(f.Context(), relay.Everyone, s.Message.ID)
			if !kept && relay.CodeOf(err) == relay.NotFound {
				continue
			}
			if !kept || err != nil || len(story.Deliveries) != 2 || len(story.Events) < 3 {
				f.Errorf("message %s, which stays %v: %v", s.Message.ID, kept, err)
			}
		}
		events, err := f.db.Events(f.Context(), f.me, relay.ID{}, 1000)
		f.must(err)
		for _, e := range events {
			if e.Delivery.Message == old.Message.ID {
				f.Errorf("event %s is left", e.ID)
			}
		}
		// Nothing is asked twice: what a late mail says of it finds nothing.
		late := outcome(old.Deliveries[0], relay.EventOpened)
		late.Engagement = &relay.Engagement{}
		if err := f.db.Settle(f.Context(), 0, []relay.Outcome{late})[0]; relay.CodeOf(err) != relay.NotFound {
			f.Errorf("an open of what is gone: %v", err)
		}
	}},
	{"little by little", func(f *fixture) {
		for i := range 130 {
			s := Submission(f.me, noon.Add(time.Duration(i)*time.Second), []byte("x"), "a@x.test")
			s.InHand = false
			f.put(0, s)
			f.settle(0, order(s.Deliveries[0], relay.EventCancelled, noon))
		}
		all, steps := 0, 0
		for after := (relay.ID{}); ; steps++ {
			n, next, err := f.db.DropLog(f.Context(), after, relay.Everyone, func(relay.ID) relay.ID { return relay.Everyone })
			f.must(err)
			if all += n; next.IsZero() {
				break
			}
			after = next
		}
		if all != 130 || steps < 2 {
			f.Errorf("%d dropped in %d steps", all, steps)
		}
	}},
	{"the index forgets what is gone", func(f *fixture) {
		l := newLogLab(f)
		l.fill(250)
		l.index()
		l.sure()
		before, err := f.db.LogIndexSize(f.Context())
		f.must(err)
		l.cancelAll()
		half := relay.FirstIDAt(noon.Add(l.at.Sub(noon) * 3 / 4))
		for after := (relay.ID{}); ; {
			_, next, err := f.db.DropLog(f.Context(), after, half, func(relay.ID) relay.ID { return half })
			f.must(err)
			if next.IsZero() {
				break
			}
			after = next
		}
		l.recount(10)
		for {
			merged, err := f.db.MergeLog(f.Context())
			f.must(err)
			if !merged {
				break
			}
		}
		after, err := f.db.LogIndexSize(f.Context())
		f.must(err)
		if after > before*2/3 {
			f.Errorf("the index has %d bytes of %d", after, before)
		}
		l.recount(10)
	}},
	{"how long", func(f *fixture) {
		f.must(f.db.SetPlan(f.Context(), somebody, &relay.Plan{Name: "small", Keep: relay.Keep{Log: 45, Content: 7}}))
		a, b := f.account("on a plan", relay.ID{}), f.account("on its own", relay.ID{})
		a.Plan, a.Keep = "small", relay.Keep{Log: relay.KeepForEver}
		f.must(f.db.SetAccount(f.Context(), somebody, relay.Everyone, a))
		b.Plan = "small"
		f.must(f.db.SetAccount(f.Context(), somebody, relay.Everyone, b))
		got, err := f.db.Keeps(f.Context())
		f.must(err)
		f.equal("keeps", got, map[relay.ID]relay.Keep{a.ID: {Log: relay.KeepForEver, Content: 7}, b.ID: {Log: 45, Content: 7}})
	}},
}

// cancelAll ends what waits.
func (l *logLab) cancelAll() {
	l.Helper()
	var all []relay.Outcome
	for _, d := range l.waiting {
		all = append(all, order(d, relay.EventCancelled, l.at.Add(time.Hour)))
	}
	l.settle(0, all...)
	l.waiting = nil
}
