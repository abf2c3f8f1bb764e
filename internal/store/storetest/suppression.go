package storetest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"postrider/internal/relay"
	"postrider/internal/store"
)

// held gives the keys of what keeps an address from mail of a stream.
func (f *fixture) held(stream relay.Stream, address string) (reasons []string) {
	f.Helper()
	found, err := f.db.Suppressed(f.Context(), f.me, stream, []string{address})
	f.must(err)
	for _, s := range found {
		reasons = append(reasons, s.Reason)
	}
	return reasons
}

func (f *fixture) suppress(want int64, list ...relay.Suppression) {
	f.Helper()
	if added, err := f.db.Suppress(f.Context(), somebody, f.me, list); err != nil || added != want {
		f.Errorf("added %d, %v; want %d", added, err, want)
	}
}

// softly is an outcome that counts against its address.
func softly(d *relay.Delivery, at time.Time) relay.Outcome {
	o := outcome(d, relay.EventExpired)
	o.At, o.Address, o.Soft = at, d.Recipient.Address, relay.SoftRule{Failures: 3, Within: 10 * 24 * time.Hour, Lasts: 30 * 24 * time.Hour}
	return o
}

const day = 24 * time.Hour

// fails settles a soft failure of an address some days after noon; it gives the
// message.
func (f *fixture) fails(address string, days time.Duration) relay.ID {
	f.Helper()
	s := f.message(address)
	f.put(f.lease, s)
	f.settle(f.lease, softly(s.Deliveries[0], noon.Add(days*day)))
	return s.Message.ID
}

// arrives settles a delivery to it.
func (f *fixture) arrives(address string) *relay.Delivery {
	f.Helper()
	s := f.message(address)
	f.put(f.lease, s)
	o := outcome(s.Deliveries[0], relay.EventDelivered)
	o.Address = address
	f.settle(f.lease, o)
	return s.Deliveries[0]
}

// news reads what is new until there is no more.
func (f *fixture) news(db *store.DB, since store.Position) (addresses []string, now store.Position) {
	f.Helper()
	for {
		news, now, whole, err := db.SuppressionNews(f.Context(), since)
		if err != nil || !whole {
			f.Fatalf("news: whole %t, %v", whole, err)
		}
		for _, n := range news {
			for _, a := range n.Addresses {
				addresses = append(addresses, fmt.Sprintf("%s/%d", a, n.Stream))
			}
		}
		since = now
		if len(news) == 0 {
			slices.Sort(addresses)
			return addresses, now
		}
	}
}

var suppressionTests = []test{
	{"by stream", func(f *fixture) {
		s := relay.Suppression{Address: "a@x.test", Stream: relay.Broadcast, Reason: relay.ReasonUnsubscribe, Created: noon}
		f.suppress(1, s)
		f.equal("transactional", f.held(relay.Transactional, s.Address), []string(nil))
		f.equal("broadcast", f.held(relay.Broadcast, s.Address), []string{"unsubscribe"})
		s.Stream, s.Reason = 0, relay.ReasonBounce
		f.suppress(1, s)
		f.equal("transactional", f.held(relay.Transactional, s.Address), []string{"bounce"})
		f.equal("any", f.held(0, s.Address), []string{"bounce", "unsubscribe"})
		var all []*relay.Suppression // a page may end between the two
		for after := (relay.SuppressionKey{}); ; after = all[len(all)-1].Key() {
			found, err := f.db.Suppressions(f.Context(), f.me, relay.SuppressionFilter{After: after, Limit: 1})
			f.must(err)
			if len(found) == 0 {
				break
			}
			all = append(all, found...)
		}
		if len(all) != 2 || all[0].Stream != 0 || all[1].Stream != relay.Broadcast {
			f.Errorf("listed %v", all)
		}
		for stream, want := range map[relay.Stream]int{0: 2, relay.Transactional: 1, relay.Broadcast: 2} {
			if found, err := f.db.Suppressions(f.Context(), f.me, relay.SuppressionFilter{Stream: stream}); err != nil || len(found) != want {
				f.Errorf("listed for stream %d: %d, %v", stream, len(found), err)
			}
		}
		for _, want := range []int64{1, 0} {
			if n, err := f.db.Unsuppress(f.Context(), somebody, f.me, relay.Unsuppression{Addresses: []string{s.Address}, Stream: relay.Broadcast}); err != nil || n != want {
				f.Errorf("removed %d, %v; want %d", n, err, want)
			}
		}
		f.equal("the rest", f.held(relay.Broadcast, s.Address), []string{"bounce"})
	}},
	{"of all accounts, page by page", func(f *fixture) {
		other, err := f.db.EnsureAccount(f.Context(), "other")
		f.must(err)
		for i, account := range []relay.ID{f.me, other} {
			for _, name := range []string{"b", "a", "c"} {
				n, err := f.db.Suppress(f.Context(), somebody, account, []relay.Suppression{{Address: name + "@x.test", Reason: relay.ReasonManual, Created: noon}})
				if err != nil || n != 1 {
					f.Fatalf("account %d: %d, %v", i, n, err)
				}
			}
		}
		var all []string
		for after := (relay.SuppressionKey{}); ; {
			found, err := f.db.Suppressions(f.Context(), relay.Everyone, relay.SuppressionFilter{After: after, Limit: 2})
			f.must(err)
			if len(found) == 0 {
				break
			}
			for _, s := range found {
				after, all = s.Key(), append(all, fmt.Sprint(s.Account == f.me, s.Address[:1]))
			}
		}
		first := f.me.Compare(other) < 0
		var want []string
		for _, mine := range []bool{first, !first} {
			want = append(want, fmt.Sprint(mine, "a"), fmt.Sprint(mine, "b"), fmt.Sprint(mine, "c"))
		}
		f.equal("listed", all, want)
	}},
	{"for a time", func(f *fixture) {
		now := f.db.Now()
		s := relay.Suppression{Address: "a@x.test", Reason: relay.ReasonSoftBounce, Created: now.Add(-2 * time.Hour), Expires: now.Add(-90 * time.Minute)}
		f.suppress(1, s)
		f.equal("when its time is over", f.held(0, s.Address), []string(nil))
		s.Expires = now.Add(time.Hour)
		f.suppress(1, s) // not in force before
		f.equal("within its time", f.held(0, s.Address), []string{"soft-bounce"})
		s.Expires = now.Add(time.Minute)
		s.Note = "shorter"
		f.suppress(0, s)
		s.Expires, s.Reason = time.Time{}, relay.ReasonBounce
		f.suppress(0, s)
		s.Expires, s.Reason = now.Add(24*time.Hour), relay.ReasonSoftBounce
		f.suppress(0, s)
		f.equal("for ever", f.suppressions()[0].Expires, time.Time{})
		f.equal("reason", f.held(0, s.Address), []string{"bounce"})
		s.Address, s.Expires = "b@x.test", now.Add(-2*time.Hour)
		f.suppress(1, s)
		f.must(f.db.Sweep(f.Context()))
		if list := f.suppressions(); len(list) != 1 {
			f.Errorf("after the sweep: %v", list)
		}
	}},
	{"complaints stay", func(f *fixture) {
		s := relay.Suppression{Address: "a@x.test", Reason: relay.ReasonManual, Created: noon}
		f.suppress(1, s)
		s.Reason, s.Event = relay.ReasonComplaint, NewID(noon)
		f.suppress(0, s) // nothing new, but worse
		s.Reason, s.Event = relay.ReasonBounce, relay.ID{}
		f.suppress(0, s)
		if list := f.suppressions(); len(list) != 1 || list[0].Reason != "complaint" || list[0].Event.IsZero() {
			f.Errorf("list %+v", list)
		}
		f.suppress(1, relay.Suppression{Address: "b@x.test", Reason: relay.ReasonManual, Created: noon})
		both := relay.Unsuppression{Addresses: []string{"a@x.test", "b@x.test"}}
		if n, err := f.db.Unsuppress(f.Context(), somebody, f.me, both); relay.CodeOf(err) != relay.Conflict || n != 0 || !strings.Contains(err.Error(), "a@x.test") {
			f.Errorf("removed %d: %v", n, err)
		}
		if len(f.suppressions()) != 2 {
			f.Error("one went all the same")
		}
		both.Complaints = true
		if n, err := f.db.Unsuppress(f.Context(), somebody, f.me, both); err != nil || n != 2 {
			f.Errorf("removed %d: %v", n, err)
		}
		changes, err := f.db.Changes(f.Context(), f.me, relay.ChangeFilter{Action: "suppression.remove"})
		f.must(err)
		if len(changes) != 1 || !strings.Contains(string(changes[0].Before), "complaint") {
			f.Errorf("audit log %+v", changes)
		}
	}},
	{"a complaint for a time gives way to what holds longer", func(f *fixture) {
		now := time.Now()
		s := relay.Suppression{Address: "a@x.test", Reason: relay.ReasonComplaint, Created: noon, Expires: now.Add(time.Hour), Note: "first"}
		f.suppress(1, s)
		s.Expires, s.Note = now.Add(time.Minute), "sooner"
		f.suppress(0, s)
		s.Expires, s.Event, s.Note = time.Time{}, NewID(noon), "for ever"
		f.suppress(0, s)
		if list := f.suppressions(); len(list) != 1 || !list[0].Expires.IsZero() || list[0].Event != s.Event || list[0].Note != "for ever" {
			f.Errorf("list %+v", list[0])
		}
		// It stays a complaint, with its proof.
		s = relay.Suppression{Address: "b@x.test", Reason: relay.ReasonComplaint, Created: noon, Event: NewID(noon), Expires: now.Add(time.Hour)}
		f.suppress(1, s)
		f.suppress(0, relay.Suppression{Address: "b@x.test", Reason: relay.ReasonBounce, Created: noon})
		if b := f.suppressions()[1]; b.Reason != relay.ReasonComplaint || b.Event != s.Event || !b.Expires.IsZero() {
			f.Errorf("%+v", b)
		}
		// A complaint makes nothing end sooner.
		s = relay.Suppression{Address: "c@x.test", Reason: relay.ReasonSoftBounce, Created: noon, Expires: now.Add(time.Hour)}
		f.suppress(1, s)
		f.suppress(0, relay.Suppression{Address: "c@x.test", Reason: relay.ReasonComplaint, Created: noon, Expires: now.Add(time.Minute)})
		if c := f.suppressions()[2]; c.Reason != relay.ReasonComplaint || c.Expires.Before(now.Add(59*time.Minute)) {
			f.Errorf("%+v", c)
		}
	}},
	{"within a session", func(f *fixture) {
		s := f.message("a@x.test", "b@x.test", "c@x.test")
		f.put(f.lease, s)
		var batch []relay.Outcome
		for i, d := range s.Deliveries[:2] {
			o := outcome(d, relay.EventBounced)
			o.Address = d.Recipient.Address
			if i == 0 {
				o.Suppress, o.Diagnosis.Text = relay.ReasonBounce, "It does not exist."
			}
			batch = append(batch, o)
		}
		f.settle(f.lease, batch...)
		list := f.suppressions()
		if len(list) != 1 || list[0].Address != "a@x.test" || list[0].Reason != "bounce" || list[0].Stream != 0 || list[0].Note != "It does not exist." {
			f.Fatalf("suppressions %+v", list)
		}
		story := f.story(s.Message.ID)
		proof := slices.IndexFunc(story.Events, func(e *relay.Event) bool { return e.ID == list[0].Event })
		if proof < 0 || story.Events[proof].Kind != relay.EventBounced || story.Events[proof].Delivery.N != 1 {
			f.Errorf("the proof is %s", list[0].Event)
		}
		changes, err := f.db.Changes(f.Context(), f.me, relay.ChangeFilter{Action: "suppression"})
		f.must(err)
		if len(changes) != 1 || changes[0].Actor.Name != "postrider" || changes[0].Object != "1" {
			f.Errorf("audit log %+v", changes)
		}
		// What did not become an event says nothing of its address.
		late := outcome(s.Deliveries[1], relay.EventBounced)
		late.At, late.Suppress, late.Address = noon.Add(time.Hour), relay.ReasonBounce, "b@x.test"
		if err := f.db.Settle(f.Context(), f.lease, []relay.Outcome{late})[0]; err == nil || len(f.suppressions()) != 1 {
			f.Errorf("settled twice: %v, %+v", err, f.suppressions())
		}
	}},
	{"again and again", func(f *fixture) {
		f.fails("a@x.test", 0)
		f.fails("a@x.test", 0) // of one day
		f.fails("a@x.test", 1)
		f.fails("b@x.test", 2) // somebody else
		f.equal("too few", f.suppressions(), []*relay.Suppression(nil))
		last := f.fails("a@x.test", 2)
		list := f.suppressions()
		if len(list) != 1 || list[0].Address != "a@x.test" || list[0].Reason != "soft-bounce" || !list[0].Expires.Equal(noon.Add(32*day)) {
			f.Fatalf("suppressions %+v", list)
		}
		if events := f.story(last).Events; events[len(events)-1].ID != list[0].Event {
			f.Errorf("the proof is %s", list[0].Event)
		}
		// Taken off the list, it begins anew.
		if _, err := f.db.Unsuppress(f.Context(), somebody, f.me, relay.Unsuppression{Addresses: []string{"a@x.test"}}); err != nil {
			f.Fatal(err)
		}
		f.fails("a@x.test", 3)
		f.equal("anew", f.suppressions(), []*relay.Suppression(nil))
	}},
	{"not after a delivery, nor too seldom", func(f *fixture) {
		f.fails("a@x.test", 0)
		f.fails("a@x.test", 1)
		arrived := f.arrives("a@x.test")
		f.fails("a@x.test", 2)
		f.fails("a@x.test", 3)
		f.equal("after a delivery", f.suppressions(), []*relay.Suppression(nil))
		f.fails("b@x.test", 0)
		f.fails("b@x.test", 8)
		f.fails("b@x.test", 11) // the first is too old by now
		f.equal("seldom", f.suppressions(), []*relay.Suppression(nil))
		// What was delivered comes back: then it never was.
		o := answer(f.returned(arrived), relay.EventBounced)
		o.At, o.Soft = noon.Add(3*day), relay.SoftRule{Failures: 3, Within: 10 * day}
		f.settle(f.lease, o)
		if list := f.suppressions(); len(list) != 1 || list[0].Address != "a@x.test" || !list[0].Expires.IsZero() {
			f.Errorf("suppressions %+v", list)
		}
		// All of it in one batch.
		batch := f.message("c@x.test", "c@x.test", "c@x.test", "d@x.test")
		f.put(f.lease, batch)
		outcomes := []relay.Outcome{outcome(batch.Deliveries[3], relay.EventDelivered)}
		outcomes[0].Address = "d@x.test"
		for i := range 3 {
			outcomes = append(outcomes, softly(batch.Deliveries[i], noon.Add(time.Duration(i)*day)))
		}
		f.settle(f.lease, outcomes...)
		if list := f.suppressions(); len(list) != 2 || list[1].Address != "c@x.test" {
			f.Errorf("at once: %+v", list)
		}
	}},
	{"news of what is added", func(f *fixture) {
		_, at := f.news(f.db, nil)
		f.suppress(2, relay.Suppression{Address: "a@x.test", Reason: "manual", Created: noon}, relay.Suppression{Address: "b@x.test", Stream: relay.Broadcast, Reason: "manual", Created: noon})
		s := f.message("c@x.test")
		f.put(f.lease, s)
		o := outcome(s.Deliveries[0], relay.EventBounced)
		o.Suppress, o.Address = relay.ReasonBounce, "c@x.test"
		f.settle(f.lease, o)
		news, at := f.news(f.db, at)
		f.equal("news", news, []string{"a@x.test/0", "b@x.test/2", "c@x.test/0"})
		// More than is read at once.
		var want []string
		for i := range 100 {
			a := fmt.Sprintf("n%02d@x.test", i)
			f.suppress(1, relay.Suppression{Address: a, Reason: "manual", Created: noon})
			want = append(want, a+"/0")
		}
		later := at
		news, at = f.news(f.db, at)
		f.equal("many", news, want)
		f.suppress(0, relay.Suppression{Address: "a@x.test", Reason: "manual", Created: noon})
		if news, _ := f.news(f.db, at); len(news) > 0 {
			f.Errorf("news of nothing: %v", news)
		}
		// What is swept is missed, and that is told.
		if err := f.engine.Exec(f.Context(), f.place, "delete from suppression_news where turn < ?", slices.Max(slices.Collect(maps.Values(at)))); err != nil {
			f.Fatal(err)
		}
		if _, _, whole, err := f.db.SuppressionNews(f.Context(), later); err != nil || whole {
			f.Errorf("after a sweep: whole %t, %v", whole, err)
		}
	}},
	{"news of two who say the same at once", func(f *fixture) {
		_, at := f.news(f.db, nil)
		var want []string
		for i := range 30 {
			a := fmt.Sprintf("n%02d@x.test", i)
			want = append(want, a+"/1")
			var all []relay.Outcome
			for range 3 {
				leave := wish(f.delivered(), relay.EventUnsubscribed, "")
				leave.Address = a
				all = append(all, leave)
			}
			var g errgroup.Group
			for _, leave := range all {
				g.Go(func() error {
					if err := f.db.Settle(f.Context(), 0, []relay.Outcome{leave})[0]; !errors.Is(err, store.ErrSettled) {
						return err
					}
					return nil
				})
			}
			f.must(g.Wait())
		}
		news, _ := f.news(f.db, at) // and nothing is missed
		f.equal("news", slices.Compact(news), want)
	}},
	{"all keys, and a word before each", func(f *fixture) {
		var told []string
		f.db.OnSuppress(func(n relay.SuppressionNews) {
			for _, a := range n.Addresses {
				told = append(told, fmt.Sprintf("%t %s/%d", n.Account == f.me, a, n.Stream))
			}
		})
		f.suppress(3, relay.Suppression{Address: "a@x.test", Stream: relay.Broadcast, Reason: "manual", Created: noon}, relay.Suppression{Address: "a@x.test", Reason: "manual", Created: noon},
			relay.Suppression{Address: "b@x.test", Reason: "manual", Created: noon})
		s := f.message("c@x.test")
		f.put(f.lease, s)
		o := outcome(s.Deliveries[0], relay.EventBounced)
		o.Suppress, o.Address = relay.ReasonBounce, "c@x.test"
		f.settle(f.lease, o)
		slices.Sort(told)
		f.equal("told", slices.Compact(told), []string{"true a@x.test/0", "true a@x.test/2", "true b@x.test/0", "true c@x.test/0"})
		var keys []relay.SuppressionKey
		for after := (relay.SuppressionKey{}); ; after = keys[len(keys)-1] {
			some, err := f.db.SuppressionKeys(f.Context(), after, 1)
			f.must(err)
			if len(some) == 0 {
				break
			}
			keys = append(keys, some...)
		}
		f.equal("keys", keys, []relay.SuppressionKey{{Address: "a@x.test", Account: f.me}, {Address: "a@x.test", Account: f.me, Stream: relay.Broadcast},
			{Address: "b@x.test", Account: f.me}, {Address: "c@x.test", Account: f.me}})
	}},
	{"beside older programs", func(f *fixture) {
		_, at := f.news(f.db, nil)
		const add = "insert into suppression (account, address, reason, note, event, created) values (?, ?, 'manual', '', ?, 5) on conflict do nothing"
		if err := f.engine.Exec(f.Context(), f.place, add, f.me[:], "old@x.test", make([]byte, 16)); err != nil {
			f.Fatal(err)
		}
		f.equal("found", f.held(relay.Broadcast, "old@x.test"), []string{"manual"})
		news, at := f.news(f.db, at)
		f.equal("news", news, []string{"old@x.test/0"})
		if news, _ := f.news(f.db, at); len(news) > 0 {
			f.Errorf("told twice: %v", news)
		}
	}},
	{"of an older schema", func(f *fixture) {
		place := f.engine.New(f)
		f.must(f.engine.Migrate(f.Context(), place, 7))
		f.must(f.engine.Exec(f.Context(), place, fillings[0], old[:]))
		f.must(f.engine.Exec(f.Context(), place, "insert into suppression (account, address, reason, note, event, created) values (?, 'a@x.test', 'bounce', 'x', ?, 5)", old[:], old[:]))
		db, err := f.engine.Open(f.Context(), place)
		f.must(err)
		defer db.Close()
		found, err := db.Suppressed(f.Context(), old, relay.Transactional, []string{"a@x.test"})
		f.must(err)
		f.equal("kept", found, []*relay.Suppression{{Account: old, Address: "a@x.test", Reason: "bounce", Note: "x", Event: old, Created: time.UnixMicro(5).UTC()}})
	}},
}
