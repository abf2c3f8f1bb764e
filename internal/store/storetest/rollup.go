package storetest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"postrider/internal/relay"
	"postrider/internal/store/recount"
)

// recount holds what is counted against the events.
func (f *fixture) recount(span time.Duration) *recount.Result {
	f.Helper()
	db, err := f.engine.Look(f.place)
	f.must(err)
	defer db.Close()
	r, err := recount.Check(f.Context(), db, span)
	f.must(err)
	if r.Wrong > 0 {
		f.Errorf("%d counts do not agree with the events:\n%s", r.Wrong, strings.Join(r.First, "\n"))
	}
	return r
}

// counts gives counts as texts, "kind key=value … n".
func (f *fixture) counts(account relay.ID, filter relay.CountFilter) (all []string) {
	f.Helper()
	found, err := f.db.Counts(f.Context(), account, filter)
	f.must(err)
	for _, c := range found {
		s := []string{c.Kind.String()}
		add := func(name string, v any, is bool) {
			if is {
				s = append(s, fmt.Sprint(name, "=", v))
			}
		}
		add("at", c.At.Format("02T15"), !c.At.IsZero())
		add("stream", c.Stream, c.Stream != 0)
		add("mark", c.Mark, c.Mark != 0)
		add("category", c.Category, c.Category != "")
		add("provider", c.Provider, c.Provider != "")
		add("credential", c.Credential, !c.Credential.IsZero())
		add("domain", c.Domain, c.Domain != "")
		add("source", c.Source, c.Source != "")
		add("tag", c.Tag, c.Tag != "")
		add("latency", c.Latency, c.Latency != 0)
		all = append(all, strings.Join(s, " ")+fmt.Sprint(" ", c.N))
	}
	return all
}

// engaged is what a recipient, or a machine, did an hour after noon.
func engaged(d *relay.Delivery, kind relay.Kind, machine string) relay.Outcome {
	return relay.Outcome{Delivery: d.ID, Account: d.Account, Kind: kind, At: noon.Add(time.Hour), Engagement: &relay.Engagement{Machine: machine}}
}

var rollupTests = []test{
	{"by all that there is", func(f *fixture) {
		s := f.message("a@x.test", "b@x.test", "c@y.test")
		m := s.Message
		m.Tags, m.Stream, m.Credential, m.From = []string{"shop", "news", "shop"}, relay.Broadcast, NewID(noon), "app@Shop.Example"
		plain := f.message("d@x.test")
		s.Deliveries[2].State, s.Deliveries[2].Diagnosis = relay.Cancelled, relay.Diagnosis{Category: "suppressed"}
		f.put(f.lease, s, plain)
		first, second := outcome(s.Deliveries[0], relay.EventDelivered), outcome(s.Deliveries[1], relay.EventDeferred)
		first.Provider, first.Message, second.Provider = "Gmail", m, "Gmail" // the other one's message is read
		f.settle(f.lease, first, second, outcome(plain.Deliveries[0], relay.EventDelivered))
		f.settle(f.lease, order(s.Deliveries[1], relay.EventHeld, noon.Add(time.Hour)))
		f.settle(0, order(s.Deliveries[1], relay.EventCancelled, noon.Add(time.Hour)))
		f.recount(time.Hour)
		f.equal("in all", f.counts(f.me, relay.CountFilter{}), []string{"accepted 4", "delivered 2", "deferred 1", "cancelled 2"})
		minute := relay.Latency(time.Minute)
		f.equal("by everything", f.counts(f.me, relay.CountFilter{Kinds: []relay.Kind{relay.EventDelivered, relay.EventDeferred}, Per: relay.PerHour,
			By: []relay.Dimension{relay.ByStream, relay.ByProvider, relay.ByCategory, relay.ByCredential, relay.ByDomain, relay.BySource, relay.ByLatency}}), []string{
			fmt.Sprint("delivered at=03T12 stream=transactional domain=example.com source=192.0.2.1 latency=", minute, " 1"),
			fmt.Sprint("delivered at=03T12 stream=broadcast provider=Gmail credential=", m.Credential, " domain=shop.example source=192.0.2.1 latency=", minute, " 1"),
			fmt.Sprint("deferred at=03T12 stream=broadcast category=greylisted provider=Gmail credential=", m.Credential, " domain=shop.example source=192.0.2.1 1"),
		})
		f.equal("by tag", f.counts(f.me, relay.CountFilter{By: []relay.Dimension{relay.ByTag}, Kinds: []relay.Kind{relay.EventAccepted}}),
			[]string{"accepted tag=news 3", "accepted tag=shop 3"})
		f.equal("by day", f.counts(f.me, relay.CountFilter{Per: relay.PerDay, Kinds: []relay.Kind{relay.EventCancelled}}), []string{"cancelled at=03T00 2"})
		f.equal("later", f.counts(f.me, relay.CountFilter{Since: noon.Add(time.Hour)}), []string{"cancelled 1"})
		f.equal("before", f.counts(f.me, relay.CountFilter{Until: noon.Add(time.Hour).Truncate(time.Hour)}), []string{"accepted 4", "delivered 2", "deferred 1", "cancelled 1"})
		for name, c := range map[string]struct {
			where map[relay.Dimension][]string
			want  []string
		}{
			"tag":        {map[relay.Dimension][]string{relay.ByTag: {"shop"}}, []string{"accepted 3", "delivered 1", "deferred 1", "cancelled 2"}},
			"provider":   {map[relay.Dimension][]string{relay.ByProvider: {"Gmail", "Yahoo"}}, []string{"delivered 1", "deferred 1"}},
			"credential": {map[relay.Dimension][]string{relay.ByCredential: {""}}, []string{"accepted 1", "delivered 1"}},
			"stream":     {map[relay.Dimension][]string{relay.ByStream: {"transactional"}, relay.ByDomain: {"example.com"}}, []string{"accepted 1", "delivered 1"}},
			"nobody":     {map[relay.Dimension][]string{relay.BySource: {"192.0.2.9"}}, nil},
			"category":   {map[relay.Dimension][]string{relay.ByCategory: {"suppressed"}}, []string{"cancelled 1"}},
		} {
			f.equal(name, f.counts(f.me, relay.CountFilter{Where: c.where}), c.want)
		}
		f.equal("of all accounts", f.counts(relay.Everyone, relay.CountFilter{Kinds: []relay.Kind{relay.EventAccepted}}), []string{"accepted 4"})
		for _, bad := range []relay.CountFilter{{By: []relay.Dimension{"colour"}}, {Where: map[relay.Dimension][]string{"colour": {"red"}}},
			{Where: map[relay.Dimension][]string{relay.ByStream: {"slow"}}}, {Where: map[relay.Dimension][]string{relay.ByTag: nil}}} {
			if _, err := f.db.Counts(f.Context(), f.me, bad); relay.CodeOf(err) != relay.Invalid {
				f.Errorf("%+v: %v", bad, err)
			}
		}
	}},
	{"what comes after the end", func(f *fixture) {
		s := f.message("a@x.test")
		s.Message.Tags = []string{"shop"}
		f.put(f.lease, s)
		d := s.Deliveries[0]
		o := outcome(d, relay.EventDelivered)
		o.Provider = "Gmail"
		f.settle(f.lease, o)
		const machine = "security scanner"
		f.settle(0, engaged(d, relay.EventOpened, machine), engaged(d, relay.EventOpened, ""), engaged(d, relay.EventOpened, ""), engaged(d, relay.EventClicked, ""))
		f.settle(0, engaged(d, relay.EventClicked, machine))
		complaint := answer(f.returned(d), relay.EventComplained)
		f.settle(0, complaint, answer(f.returned(d), relay.EventComplained), answer(f.returned(d), relay.EventBounced), answer(f.returned(d), relay.EventBounced))
		left := engaged(d, relay.EventUnsubscribed, "")
		left.Engagement.Method = "one-click"
		f.settle(0, left)
		f.recount(time.Hour)
		at := "at=03T13 "
		const of = " provider=Gmail source=192.0.2.1 "
		no := " category=hard/no-such-mailbox"
		f.equal("counts", f.counts(f.me, relay.CountFilter{Per: relay.PerHour, Since: noon.Add(time.Hour),
			By: []relay.Dimension{relay.ByCategory, relay.ByProvider, relay.BySource}}), []string{
			"bounced " + at + "mark=4" + no + of + "1",
			"feedback " + "at=03T13" + no + of + "1",
			"complained " + "at=03T13" + no + of + "1",
			"complained " + at + "mark=3" + no + of + "1",
			"opened at=03T13" + of + "1",
			"opened " + at + "mark=1 category=machine" + of + "1",
			"opened " + at + "mark=2" + of + "1",
			"clicked at=03T13 category=machine" + of + "1",
			"clicked " + at + "mark=3" + of + "1",
			"unsubscribed " + at + "mark=3 category=one-click" + of + "1",
		})
		e := f.story(s.Message.ID).Events
		if last := e[len(e)-1]; last.Provider != "Gmail" || last.Source != "192.0.2.1" || last.Mark != relay.MarkFirst|relay.MarkPerson {
			f.Errorf("event %+v", last)
		}
	}},
	{"a message that is to go later", func(f *fixture) {
		s := f.message("a@x.test")
		s.Message.Envelope.Release = noon.Add(50 * time.Second)
		f.put(f.lease, s)
		f.settle(f.lease, outcome(s.Deliveries[0], relay.EventDelivered)) // a minute after noon
		f.recount(time.Hour)
		f.equal("counted from then", f.counts(f.me, relay.CountFilter{Kinds: []relay.Kind{relay.EventDelivered}, By: []relay.Dimension{relay.ByLatency}}),
			[]string{fmt.Sprint("delivered latency=", relay.Latency(10*time.Second), " 1")})
	}},
	{"an example", func(f *fixture) {
		s := f.message("a@x.test", "b@x.test")
		f.put(f.lease, s)
		bounced := outcome(s.Deliveries[1], relay.EventBounced)
		bounced.Diagnosis.Category = "hard/no-such-mailbox"
		f.settle(f.lease, outcome(s.Deliveries[0], relay.EventDelivered), bounced)
		of := func(category string) relay.CountFilter {
			return relay.CountFilter{Since: noon, Kinds: []relay.Kind{relay.EventBounced}, Where: map[relay.Dimension][]string{relay.ByCategory: {category}}}
		}
		got, err := f.db.Example(f.Context(), f.me, of("hard/no-such-mailbox"))
		f.must(err)
		f.equal("example", got, s.Deliveries[1].ID)
		if got, err := f.db.Example(f.Context(), f.me, of("soft/mailbox-full")); err != nil || got != (relay.DeliveryID{}) {
			f.Errorf("of what never was: %v, %v", got, err)
		}
	}},
	{"hours become days, and go", func(f *fixture) {
		// More than one piece, over three days, in several parts.
		for day := range 3 {
			for hour := range 24 {
				s := f.message("a@x.test")
				s.Message.Received = noon.AddDate(0, 0, day-3).Truncate(24 * time.Hour).Add(time.Duration(hour) * time.Hour)
				for t := range 10 {
					s.Message.Tags = append(s.Message.Tags, fmt.Sprint(t))
				}
				f.put(0, s)
				o := outcome(s.Deliveries[0], relay.EventBounced)
				o.At = s.Message.Received.Add(time.Minute)
				f.settle(f.lease, o)
			}
		}
		rows := func(per relay.Period) int { return len(f.counts(f.me, relay.CountFilter{Per: per})) }
		f.equal("hours at first", rows(relay.PerHour), 3*24*2)
		f.exec("update rollup set part = 7 where kind = 4 and at % 7200000000 = 0")
		var g sync.WaitGroup
		for range 3 {
			g.Go(func() { f.must(f.db.MergeCounts(f.Context(), noon.AddDate(0, 0, -1))) })
		}
		g.Wait()
		f.equal("days, and the hours of the last one", rows(relay.PerHour), 2*2+24*2)
		f.equal("days", rows(relay.PerDay), 3*2)
		f.recount(24 * time.Hour)
		f.must(f.db.MergeCounts(f.Context(), noon.Add(48*time.Hour)))
		f.equal("days only", rows(relay.PerHour), 3*2)
		f.equal("in all", f.counts(f.me, relay.CountFilter{}), []string{"accepted 72", "bounced 72"})
		f.recount(24 * time.Hour)
		f.must(f.db.DropCounts(f.Context(), noon.AddDate(0, 0, -2)))
		f.equal("what is kept", f.counts(f.me, relay.CountFilter{}), []string{"accepted 48", "bounced 48"})
	}},
	{"settled by many at once", func(f *fixture) {
		// Every outcome twice, from everywhere: each counts once.
		const messages, each = 20, 5
		var batch []*relay.Submission
		var outcomes []relay.Outcome
		for i := range messages {
			var to []string
			for n := range each {
				to = append(to, fmt.Sprintf("r%d@x%d.test", n, i%3))
			}
			s := f.message(to...)
			s.InHand = false
			s.Message.Tags = []string{"t" + fmt.Sprint(i%2), "all"}
			batch = append(batch, s)
			for n, d := range s.Deliveries {
				o := outcome(d, []relay.Kind{relay.EventDelivered, relay.EventDeferred, relay.EventBounced}[n%3])
				o.Provider, o.At = []string{"Gmail", "", "Yahoo"}[i%3], noon.Add(time.Duration(i*each+n)*time.Minute)
				o.Attempt.Source = netip.AddrFrom4([4]byte{192, 0, 2, byte(i % 2)})
				if n%2 == 0 {
					o.Message = s.Message
				}
				outcomes = append(outcomes, o)
				for range 2 {
					e := engaged(d, relay.EventOpened, []string{"", "scanner"}[n%2])
					e.Engagement.URL = fmt.Sprint(i, n)
					outcomes = append(outcomes, e)
				}
			}
		}
		var puts sync.WaitGroup
		for part := range slices.Chunk(batch, 3) {
			puts.Go(func() { f.put(0, part...) })
		}
		puts.Wait()
		var g sync.WaitGroup
		for turn := range 2 {
			lease := f.lease
			if turn > 0 {
				lease = f.another()
			}
			for part := range slices.Chunk(slices.Clone(outcomes), 7+turn) {
				g.Go(func() { f.db.Settle(f.Context(), lease, part) })
			}
		}
		g.Wait()
		r := f.recount(time.Hour)
		if r.Events < messages*each*3 || r.Rows < 20 {
			f.Errorf("no test: %+v", r)
		}
	}},
}
