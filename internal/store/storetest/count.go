package storetest

import (
	"fmt"
	"time"

	"postrider/internal/relay"
)

var countTests = []test{
	{"what waits, by class", func(f *fixture) {
		other := f.account("other", relay.ID{})
		// Of one class: one queued, two deferred, one in hand, one held, one done.
		at := func(minutes int, rcpt string) *relay.Submission {
			s := Submission(f.me, noon.Add(time.Duration(minutes)*time.Minute), []byte("x"), rcpt)
			f.put(f.lease, s)
			return s
		}
		held, done, first, second := at(0, "h@a.test"), at(-9, "x@a.test"), at(1, "1@a.test"), at(2, "2@a.test")
		at(3, "i@a.test")
		waits := Submission(f.me, noon.Add(4*time.Minute), []byte("x"), "w@a.test")
		waits.InHand = false
		f.put(0, waits)
		late := outcome(second.Deliveries[0], relay.EventDeferred)
		late.At, late.Due, late.Reply.Text = noon.Add(5*time.Minute), noon.Add(3*time.Minute), "Later, please"
		f.settle(f.lease, order(held.Deliveries[0], relay.EventHeld, noon), outcome(done.Deliveries[0], relay.EventDelivered),
			outcome(first.Deliveries[0], relay.EventDeferred), late)
		// Of others: only held, only in hand, somebody else's.
		lone := at(0, "h@b.test")
		f.settle(f.lease, order(lone.Deliveries[0], relay.EventHeld, noon))
		at(6, "i@c.test")
		theirs := Submission(other.ID, noon, []byte("x"), "t@a.test")
		theirs.InHand = false
		f.put(0, theirs)

		class := func(account relay.ID, domain string) relay.Class {
			return relay.Class{Stream: relay.Transactional, Account: account, Domain: domain}
		}
		ms := func(minutes int) time.Time {
			return noon.Add(time.Duration(minutes) * time.Minute).Truncate(time.Millisecond)
		}
		mine := []relay.Backlog{
			{Class: class(f.me, "a.test"), Queued: 1, Deferred: 2, InHand: 1, Held: 1, Oldest: ms(0), Due: noon.Add(3 * time.Minute),
				Last: &relay.Deferral{At: late.At, Host: late.Host, Reply: late.Reply, Diagnosis: late.Diagnosis}},
			{Class: class(f.me, "b.test"), Held: 1, Oldest: ms(0)},
			{Class: class(f.me, "c.test"), InHand: 1, Oldest: ms(6)},
		}
		foreign := relay.Backlog{Class: class(other.ID, "a.test"), Queued: 1, Oldest: ms(0), Due: noon}
		for name, c := range map[string]struct {
			account relay.ID
			filter  relay.BacklogFilter
			want    []relay.Backlog
		}{
			"one account": {f.me, relay.BacklogFilter{}, mine},
			"the other":   {other.ID, relay.BacklogFilter{}, []relay.Backlog{foreign}},
			"all":         {relay.Everyone, relay.BacklogFilter{}, []relay.Backlog{foreign, mine[0], mine[1], mine[2]}},
			"of a domain": {relay.Everyone, relay.BacklogFilter{Domain: "B.test"}, mine[1:2]},
			"a page":      {f.me, relay.BacklogFilter{Limit: 2}, mine[:2]},
			"the next":    {f.me, relay.BacklogFilter{Limit: 2, After: mine[1].Class}, mine[2:]},
			"the first":   {f.me, relay.BacklogFilter{Limit: 1}, mine[:1]},
			"none":        {relay.ID{}, relay.BacklogFilter{}, nil},
		} {
			got, err := f.db.Backlog(f.Context(), c.account, c.filter)
			f.must(err)
			f.equal(name, got, c.want)
		}
	}},
	{"the last deferral behind what never was tried", func(f *fixture) {
		var batch []*relay.Submission
		for i := range 250 {
			batch = append(batch, f.message(fmt.Sprintf("%d@a.test", i)))
			batch[i].InHand = false
		}
		f.put(0, batch...)
		f.claimAs(batch[0].Deliveries[0].Class(), 1)
		held, err := f.db.Held(f.Context(), f.lease)
		f.must(err)
		for _, s := range batch {
			if s.Deliveries[0].ID == held[0] {
				f.settle(f.lease, outcome(s.Deliveries[0], relay.EventDeferred))
			}
		}
		got, err := f.db.Backlog(f.Context(), f.me, relay.BacklogFilter{})
		f.must(err)
		if len(got) != 1 || got[0].Queued != 249 || got[0].Deferred != 1 || got[0].Last == nil || got[0].Last.Reply.Code != 451 {
			f.Errorf("%+v", got)
		}
	}},
}
