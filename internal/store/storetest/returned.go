package storetest

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"postrider/internal/relay"
	"postrider/internal/store"
)

// returned keeps a mail that came back for a delivery.
func (f *fixture) returned(d *relay.Delivery) *relay.Returned {
	f.Helper()
	r := &relay.Returned{ID: NewID(noon), Account: d.Account, Delivery: d.ID, Received: noon, Sender: "mailer-daemon@x.test", Size: 9,
		Source:  relay.Source{Client: netip.MustParseAddrPort("192.0.2.1:5"), Helo: "mx", Protocol: "ESMTP", Listener: "in", TLS: "TLS1.3"},
		Content: []byte("\x00\xffbounce")}
	f.must(f.db.AddReturned(f.Context(), []*relay.Returned{r}))
	return r
}

// delivered is a message to one recipient that was delivered.
func (f *fixture) delivered() *relay.Delivery {
	f.Helper()
	s := f.message("a@x.test")
	f.put(f.lease, s)
	f.settle(f.lease, outcome(s.Deliveries[0], relay.EventDelivered))
	return s.Deliveries[0]
}

// answer is an outcome of a mail that came back.
func answer(r *relay.Returned, kind relay.Kind) relay.Outcome {
	return relay.Outcome{Delivery: r.Delivery, Account: r.Account, Kind: kind, At: noon.Add(time.Hour), Host: "mx.x.test", Answers: r.ID, Address: "a@x.test",
		Reply: relay.Reply{Code: 550, Enhanced: "5.1.1", Text: "no\x00such user"}, Diagnosis: relay.Diagnosis{Category: "hard/no-such-mailbox", Text: "It does not exist."}}
}

// left are the mails that are not dealt with.
func (f *fixture) left() []*relay.Returned {
	f.Helper()
	all, err := f.db.Returned(f.Context(), relay.Everyone, relay.ID{}, 100)
	f.must(err)
	return all
}

func (f *fixture) suppressions() []*relay.Suppression {
	f.Helper()
	all, err := f.db.Suppressions(f.Context(), f.me, relay.SuppressionFilter{})
	f.must(err)
	return all
}

var returnedTests = []test{
	{"by account", func(f *fixture) {
		if at, err := f.db.OldestReturned(f.Context()); err != nil || !at.IsZero() {
			f.Errorf("oldest of none: %v, %v", at, err)
		}
		d := f.delivered()
		mine := []*relay.Returned{f.returned(d), f.returned(d), f.returned(d)}
		other := f.account("other", relay.ID{}).ID
		theirs := &relay.Returned{ID: NewID(noon), Account: other, Delivery: d.ID, Received: noon.Add(-time.Hour), Content: make([]byte, 20<<20), Provider: "yahoo", Expired: true}
		small := &relay.Returned{ID: NewID(noon), Account: other, Delivery: d.ID, Received: noon, Content: []byte("x")}
		f.must(f.db.AddReturned(f.Context(), []*relay.Returned{theirs, small}))
		got, err := f.db.Returned(f.Context(), f.me, relay.ID{}, 100)
		f.must(err)
		f.equal("mine", got, mine)
		got, err = f.db.Returned(f.Context(), other, relay.ID{}, 100)
		f.must(err)
		if len(got) != 1 || got[0].ID != theirs.ID || len(got[0].Content) != len(theirs.Content) || got[0].Provider != "yahoo" || !got[0].Expired {
			f.Errorf("%d; a large one comes alone", len(got))
		}
		accounts := []relay.ID{f.me, other}
		slices.SortFunc(accounts, relay.ID.Compare)
		all, err := f.db.ReturnedAccounts(f.Context(), relay.ID{}, 10)
		f.must(err)
		f.equal("accounts", all, accounts)
		all, err = f.db.ReturnedAccounts(f.Context(), accounts[0], 10)
		f.must(err)
		f.equal("accounts after the first", all, accounts[1:])
		all, err = f.db.ReturnedAccounts(f.Context(), relay.ID{}, 1)
		f.must(err)
		f.equal("one account", all, accounts[:1])
		at, err := f.db.OldestReturned(f.Context())
		f.must(err)
		f.equal("oldest", at, noon)
		e := f.delivered()
		about, err := f.db.ReturnedAbout(f.Context(), []relay.DeliveryID{d.ID, e.ID, {Message: d.ID.Message, N: 9}})
		f.must(err)
		if len(about) != 2 || about[0].Message.ID != about[0].ID.Message || about[0].Recipient.Address != "a@x.test" || about[0].Message.Envelope.Sender == "" {
			f.Errorf("about %+v", about)
		}
	}},
	{"kept until it is dealt with", func(f *fixture) {
		d := f.delivered()
		first, second := f.returned(d), f.returned(d)
		// A crash between the reply and the work loses nothing.
		f.reopen()
		f.equal("kept", f.left(), []*relay.Returned{first, second})
		rest, err := f.db.Returned(f.Context(), f.me, first.ID, 1)
		f.must(err)
		f.equal("after the first", rest, []*relay.Returned{second})
		f.must(f.db.EndReturned(f.Context(), first.ID))
		if err := f.db.EndReturned(f.Context(), first.ID); !errors.Is(err, store.ErrSettled) {
			f.Errorf("ended twice: %v", err)
		}
		f.equal("left", f.left(), []*relay.Returned{second})
		for name, bad := range map[string]*relay.Returned{"no id": {Account: f.me, Delivery: d.ID}, "no account": {ID: NewID(noon), Delivery: d.ID},
			"no delivery": {ID: NewID(noon), Account: f.me}} {
			if err := f.db.AddReturned(f.Context(), []*relay.Returned{bad}); relay.CodeOf(err) != relay.Invalid {
				f.Errorf("%s: %v", name, err)
			}
		}
	}},
	{"bounced after it was delivered", func(f *fixture) {
		d := f.delivered()
		r := f.returned(d)
		o := answer(r, relay.EventBounced)
		o.Suppress, o.Notice, o.NoticeDue = "bounce", relay.NotifyFailure, noon.Add(time.Hour)
		f.settle(0, o)
		if err := f.db.Settle(f.Context(), f.lease, []relay.Outcome{o})[0]; !errors.Is(err, store.ErrSettled) {
			f.Errorf("settled twice: %v", err)
		}
		// A second mail about the same is told of, and changes nothing.
		again := answer(f.returned(d), relay.EventBounced)
		again.Suppress, again.Notice, again.NoticeDue = "bounce", relay.NotifyFailure, noon.Add(time.Hour)
		f.settle(f.lease, again)
		s := f.story(d.ID.Message)
		f.equal("kinds", kinds(s), []relay.Kind{relay.EventAccepted, relay.EventDelivered, relay.EventBounced, relay.EventFeedback})
		got := s.Deliveries[0]
		if got.State != relay.Bounced || got.Reply.Enhanced != "5.1.1" || got.Diagnosis != o.Diagnosis || got.Host != "mx.x.test" || got.Attempts != 1 {
			f.Errorf("delivery %+v", got)
		}
		if e := s.Events[2]; e.Reply.Text != "no\x00such user" || e.Diagnosis != o.Diagnosis {
			f.Errorf("event %+v", e)
		}
		f.equal("left", f.left(), []*relay.Returned(nil))
		list := f.suppressions()
		if len(list) != 1 || list[0].Address != "a@x.test" || list[0].Reason != "bounce" || list[0].Event != s.Events[2].ID {
			f.Errorf("suppressions %+v; want one with the proof %s", list, s.Events[2].ID)
		}
		changes, err := f.db.Changes(f.Context(), f.me, relay.ChangeFilter{Action: "suppression"})
		f.must(err)
		if len(changes) != 1 || changes[0].Actor.Name != "postrider" {
			f.Errorf("audit log %+v", changes)
		}
		notices, err := f.db.Notices(f.Context(), noon.Add(2*time.Hour), 10)
		f.must(err)
		if len(notices) != 1 || !slices.Equal(notices[0].Deliveries, []int{1}) {
			f.Errorf("notices %+v", notices)
		}
		sums := map[relay.Kind]int64{}
		counts, err := f.db.Outcomes(f.Context(), f.me, noon, noon.Add(time.Hour))
		f.must(err)
		for _, c := range counts {
			sums[c.Kind] += c.N
		}
		if sums[relay.EventBounced] != 1 || sums[relay.EventFeedback] != 1 {
			f.Errorf("counted %v", sums)
		}
	}},
	{"changes no state", func(f *fixture) {
		d := f.delivered()
		f.settle(f.lease, answer(f.returned(d), relay.EventFeedback))
		complaint := answer(f.returned(d), relay.EventComplained)
		complaint.Suppress = "complaint"
		f.settle(f.lease, complaint)
		s := f.story(d.ID.Message)
		f.equal("kinds", kinds(s), []relay.Kind{relay.EventAccepted, relay.EventDelivered, relay.EventFeedback, relay.EventComplained})
		if s.Deliveries[0].State != relay.Delivered {
			f.Errorf("state %v", s.Deliveries[0].State)
		}
		if list := f.suppressions(); len(list) != 1 || list[0].Reason != "complaint" {
			f.Errorf("suppressions %+v", list)
		}
		// What is still on its way stays so, whatever came back.
		m := f.message("b@x.test")
		f.put(f.lease, m)
		f.settle(f.lease, answer(f.returned(m.Deliveries[0]), relay.EventBounced))
		if got := f.story(m.Message.ID).Deliveries[0]; got.State != relay.Queued {
			f.Errorf("in hand: %v", got.State)
		}
		f.settle(f.lease, outcome(m.Deliveries[0], relay.EventDelivered)) // its lease is untouched
	}},
	{"who is not tracked", func(f *fixture) {
		other := f.account("other", relay.ID{}).ID
		for _, a := range []string{"a@x.test", "@y.test", "@.z.test", "a@x.test"} {
			added, err := f.db.Untrack(f.Context(), somebody, relay.Untracked{Account: f.me, Address: a, Note: "asked " + a, Created: noon})
			f.must(err)
			if added != (a != "a@x.test") && a != "a@x.test" {
				f.Errorf("%s is new: %t", a, added)
			}
		}
		if _, err := f.db.Untrack(f.Context(), somebody, relay.Untracked{Account: other, Address: "b@x.test", Created: noon}); err != nil {
			f.Fatal(err)
		}
		all, err := f.db.Untracked(f.Context(), f.me, "", relay.Untracked{}, 0)
		f.must(err)
		if len(all) != 3 || all[2].Address != "a@x.test" || all[2].Note != "asked a@x.test" || !all[2].Created.Equal(noon) || all[2].Account != f.me {
			f.Errorf("listed %+v", all)
		}
		if some, err := f.db.Untracked(f.Context(), f.me, "test", relay.Untracked{Account: f.me, Address: "@.z.test"}, 1); err != nil || len(some) != 1 || some[0].Address != "@y.test" {
			f.Errorf("the next one: %+v, %v", some, err)
		}
		// Of all accounts, an entry a page: none is left out, though two have the same.
		_, err = f.db.Untrack(f.Context(), somebody, relay.Untracked{Account: other, Address: "a@x.test", Created: noon})
		f.must(err)
		var after relay.Untracked
		for n := range 6 {
			page, err := f.db.Untracked(f.Context(), relay.Everyone, "", after, 1)
			f.must(err)
			if (n < 5) != (len(page) == 1) {
				f.Fatalf("page %d: %+v", n, page)
			}
			if n < 5 {
				after = *page[0]
			}
		}
		for asked, want := range map[string]bool{"a@x.test": true, "b@x.test": false, "@y.test": true} {
			if got, err := f.db.IsUntracked(f.Context(), f.me, []string{"@x.test", asked}); err != nil || got != want {
				f.Errorf("%s: %t, %v", asked, got, err)
			}
		}
		f.must(f.db.Retrack(f.Context(), somebody, f.me, "a@x.test"))
		if err := f.db.Retrack(f.Context(), somebody, f.me, "a@x.test"); relay.CodeOf(err) != relay.NotFound {
			f.Errorf("again: %v", err)
		}
		changes, err := f.db.Changes(f.Context(), f.me, relay.ChangeFilter{Action: "untracked"})
		f.must(err)
		if len(changes) != 4 {
			f.Errorf("%d changes are audited", len(changes))
		}
	}},
	{"what links are about", func(f *fixture) {
		var ids []relay.DeliveryID
		for range 3 {
			ids = append(ids, f.delivered().ID)
		}
		ids = append(ids, relay.DeliveryID{Message: ids[0].Message, N: 99}, relay.DeliveryID{Message: relay.ID{5}, N: 1})
		for range 60 { // more than one statement takes
			ids = append(ids, relay.DeliveryID{Message: relay.ID{6}, N: 1})
		}
		ids = append(ids, f.delivered().ID)
		found, err := f.db.Linked(f.Context(), ids)
		if err != nil || len(found) != 4 {
			f.Fatalf("%d found, %v", len(found), err)
		}
		for _, d := range found {
			if d.Account != f.me || d.State != relay.Delivered || !slices.Contains(ids, d.ID) {
				f.Errorf("found %+v", d)
			}
		}
		if none, err := f.db.Linked(f.Context(), nil); err != nil || none != nil {
			f.Errorf("of nothing: %v, %v", none, err)
		}
	}},
	{"what recipients do", func(f *fixture) {
		d := f.delivered()
		click := relay.Outcome{Delivery: d.ID, Account: f.me, Kind: relay.EventClicked, At: noon.Add(time.Hour), Provider: "Gmail",
			Engagement: &relay.Engagement{URL: "https://shop.test/?a=1", Client: netip.MustParseAddr("192.0.2.7"), UserAgent: "Mozilla/5.0", Machine: "security scanner"}}
		f.settle(0, click)
		left := click
		left.Kind, left.Engagement = relay.EventUnsubscribed, &relay.Engagement{Method: "one-click"}
		left.Suppress, left.Address = "unsubscribe", "a@x.test"
		f.settle(0, left)
		s := f.story(d.ID.Message)
		f.equal("kinds", kinds(s), []relay.Kind{relay.EventAccepted, relay.EventDelivered, relay.EventClicked, relay.EventUnsubscribed})
		f.equal("engagement", s.Events[2].Engagement, click.Engagement)
		f.equal("provider", s.Events[2].Provider, "Gmail")
		if s.Deliveries[0].State != relay.Delivered {
			f.Errorf("state %v", s.Deliveries[0].State)
		}
		if list := f.suppressions(); len(list) != 1 || list[0].Reason != "unsubscribe" || list[0].Event != s.Events[3].ID {
			f.Errorf("suppressions %+v", list)
		}
		click.Account = f.account("other", relay.ID{}).ID
		if err := f.db.Settle(f.Context(), 0, []relay.Outcome{click})[0]; relay.CodeOf(err) != relay.NotFound {
			f.Errorf("of another account: %v", err)
		}
	}},
	{"only of its account, and only as feedback", func(f *fixture) {
		d := f.delivered()
		r := f.returned(d)
		o := answer(r, relay.EventBounced)
		o.Account, o.Suppress = f.account("other", relay.ID{}).ID, "bounce"
		if err := f.db.Settle(f.Context(), f.lease, []relay.Outcome{o})[0]; relay.CodeOf(err) != relay.NotFound {
			f.Errorf("of another account: %v", err)
		}
		f.equal("left", f.left(), []*relay.Returned{r})
		bare := answer(r, relay.EventComplained)
		bare.Answers = relay.ID{}
		if err := f.db.Settle(f.Context(), f.lease, []relay.Outcome{bare})[0]; relay.CodeOf(err) != relay.Invalid {
			f.Errorf("a complaint of nothing: %v", err)
		}
		if s := f.story(d.ID.Message); s.Deliveries[0].State != relay.Delivered || len(f.suppressions()) != 0 {
			f.Errorf("something changed: %+v", s.Deliveries[0])
		}
	}},
	{"by two at once", func(f *fixture) {
		d := f.delivered()
		for range 10 {
			o := answer(f.returned(d), relay.EventFeedback)
			var g sync.WaitGroup
			errs := make([]error, 2)
			for i := range errs {
				g.Go(func() { errs[i] = f.db.Settle(f.Context(), f.lease, []relay.Outcome{o})[0] })
			}
			g.Wait()
			if (errs[0] == nil) == (errs[1] == nil) || !errors.Is(errors.Join(errs...), store.ErrSettled) {
				f.Errorf("settled at once: %v", errs)
			}
		}
		if n := len(f.story(d.ID.Message).Events); n != 12 {
			f.Errorf("%d events", n)
		}
	}},
}
