package storetest

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"postrider/internal/relay"
	"postrider/internal/store"
)

// group makes a group of an account.
func (f *fixture) group(account relay.ID, id string) *relay.Group {
	f.Helper()
	g := &relay.Group{Account: account, ID: id, Name: "The " + id, Public: true, Created: noon}
	f.must(f.db.AddGroup(f.Context(), somebody, g, 100))
	return g
}

func (f *fixture) leavers(group string) (all []string) {
	f.Helper()
	found, err := f.db.Leavers(f.Context(), f.me, group, relay.LeaverFilter{Limit: 1000})
	f.must(err)
	for _, l := range found {
		all = append(all, l.Address)
	}
	return all
}

// wish is what a recipient of a delivery wants.
func wish(d *relay.Delivery, kind relay.Kind, group string) relay.Outcome {
	o := relay.Outcome{Delivery: d.ID, Account: d.Account, Kind: kind, At: noon.Add(time.Hour), Address: "a@x.test",
		Engagement: &relay.Engagement{Method: "one-click", Group: group, Client: netip.MustParseAddr("192.0.2.7")}}
	if kind == relay.EventUnsubscribed && group == "" {
		o.Suppress = "unsubscribe"
	}
	return o
}

var groupTests = []test{
	{"groups", func(f *fixture) {
		news, offers := f.group(f.me, "news"), f.group(f.me, "offers")
		if err := f.db.AddGroup(f.Context(), somebody, &relay.Group{Account: f.me, ID: "news", Created: noon}, 100); relay.CodeOf(err) != relay.Conflict {
			f.Errorf("added twice: %v", err)
		}
		if err := f.db.AddGroup(f.Context(), somebody, &relay.Group{Account: f.me, ID: "more", Created: noon}, 2); relay.CodeOf(err) != relay.TooMany {
			f.Errorf("one too many: %v", err)
		}
		for _, bad := range []*relay.Group{{ID: "x"}, {Account: relay.Everyone, ID: "x"}, {Account: f.me}} {
			if err := f.db.AddGroup(f.Context(), somebody, bad, 100); relay.CodeOf(err) != relay.Invalid {
				f.Errorf("%+v: %v", bad, err)
			}
		}
		f.equal("group", f.get(f.db.Group(f.Context(), f.me, "news")), news)
		version := f.version()
		news.Name, news.Default, news.Position, news.Description = "Ümläut", true, 3, "weekly"
		f.must(f.db.SetGroup(f.Context(), somebody, f.me, news))
		if f.version() == version {
			f.Error("nobody is told of the change")
		}
		if news.Version != 2 {
			f.Errorf("version %d", news.Version)
		}
		f.equal("changed", f.get(f.db.Group(f.Context(), f.me, "news")), news)
		// One is the default.
		offers.Default = true
		f.must(f.db.SetGroup(f.Context(), somebody, f.me, offers))
		if got := f.get(f.db.Group(f.Context(), f.me, "news")).(*relay.Group); got.Default || got.Version != 3 {
			f.Errorf("%+v is the default too", got)
		}
		if err := f.db.SetGroup(f.Context(), somebody, f.me, news); relay.CodeOf(err) != relay.Conflict {
			f.Errorf("changed what somebody else has changed: %v", err)
		}
		all, err := f.db.Groups(f.Context(), f.me, "", 0)
		f.must(err)
		rest, err := f.db.Groups(f.Context(), f.me, "news", 0)
		f.must(err)
		if len(all) != 2 || len(rest) != 1 || rest[0].ID != "offers" {
			f.Errorf("groups %+v, after news %+v", all, rest)
		}
		f.must(f.db.RemoveGroup(f.Context(), somebody, f.me, "offers", false))
		if _, err := f.db.Group(f.Context(), f.me, "offers"); relay.CodeOf(err) != relay.NotFound {
			f.Errorf("removed, and there: %v", err)
		}
		changes, err := f.db.Changes(f.Context(), f.me, relay.ChangeFilter{Action: "group"})
		f.must(err)
		f.equal("audited", actions(changes), []string{"group.remove", "group.change", "group.change", "group.add", "group.add"})
	}},
	{"who left", func(f *fixture) {
		f.group(f.me, "news")
		f.group(f.me, "offers")
		var list []relay.Leaver
		var addresses []string
		for i := range 250 {
			addresses = append(addresses, fmt.Sprintf("a%03d@x.test", i))
			list = append(list, relay.Leaver{Address: addresses[i], Note: "said so", Created: noon})
		}
		for i, want := range []int64{250, 0} {
			if n, err := f.db.LeaveGroup(f.Context(), somebody, f.me, "news", append(list, list[:3]...)); err != nil || n != want {
				f.Errorf("time %d: %d left, want %d: %v", i, n, want, err)
			}
		}
		if _, err := f.db.LeaveGroup(f.Context(), somebody, f.me, "nothing", list); relay.CodeOf(err) != relay.NotFound {
			f.Errorf("left what is not there: %v", err)
		}
		asked := append([]string{"nobody@x.test", "A001@x.test", "a%@x.test", addresses[7]}, addresses[:201]...)
		left, err := f.db.Left(f.Context(), f.me, "news", asked)
		if err != nil || len(left) != 201 {
			f.Errorf("%d have left, want 201: %v", len(left), err)
		}
		if left, err = f.db.Left(f.Context(), f.me, "offers", asked); err != nil || len(left) != 0 {
			f.Errorf("%d have left the other: %v", len(left), err)
		}
		if by, err := f.db.LeftBy(f.Context(), f.me, "a001@x.test"); err != nil || len(by) != 1 || by[0].Group != "news" || by[0].Note != "said so" || !by[0].Created.Equal(noon) {
			f.Errorf("left by: %+v, %v", by, err)
		}
		for what, c := range map[string]struct {
			filter relay.LeaverFilter
			n      int
		}{"text": {relay.LeaverFilter{Text: "00"}, 12}, "after": {relay.LeaverFilter{After: "a247@x.test"}, 2}, "limit": {relay.LeaverFilter{Limit: 7}, 7}} {
			if got, err := f.db.Leavers(f.Context(), f.me, "news", c.filter); err != nil || len(got) != c.n {
				f.Errorf("%s: %d, want %d: %v", what, len(got), c.n, err)
			}
		}
		if n, err := f.db.RejoinGroup(f.Context(), somebody, f.me, "news", asked); err != nil || n != 201 {
			f.Errorf("%d are back: %v", n, err)
		}
		if err := f.db.RemoveGroup(f.Context(), somebody, f.me, "news", false); relay.CodeOf(err) != relay.Conflict || !strings.Contains(err.Error(), "49") {
			f.Errorf("forgot who left: %v", err)
		}
		f.must(f.db.RemoveGroup(f.Context(), somebody, f.me, "news", true))
		if got := f.leavers("news"); len(got) != 0 {
			f.Errorf("%d are left of what is not there", len(got))
		}
		changes, err := f.db.Changes(f.Context(), f.me, relay.ChangeFilter{Action: "group"})
		f.must(err)
		f.equal("audited", actions(changes), []string{"group.remove", "group.rejoin", "group.leave", "group.add", "group.add"})
	}},
	{"a recipient leaves a group, and joins again", func(f *fixture) {
		f.group(f.me, "news")
		d := f.delivered()
		leave, join := wish(d, relay.EventUnsubscribed, "news"), wish(d, relay.EventResubscribed, "news")
		if err := f.db.Settle(f.Context(), 0, []relay.Outcome{join})[0]; !errors.Is(err, store.ErrSettled) {
			f.Errorf("joined what was never left: %v", err)
		}
		f.settle(0, leave)
		for range 2 { // again, and from another delivery: it is known
			if err := f.db.Settle(f.Context(), 0, []relay.Outcome{leave})[0]; !errors.Is(err, store.ErrSettled) {
				f.Errorf("left twice: %v", err)
			}
		}
		s := f.story(d.ID.Message)
		f.equal("kinds", kinds(s), []relay.Kind{relay.EventAccepted, relay.EventDelivered, relay.EventUnsubscribed})
		f.equal("engagement", s.Events[2].Engagement, leave.Engagement)
		left, err := f.db.Left(f.Context(), f.me, "news", []string{"a@x.test"})
		if err != nil || len(left) != 1 || left[0].Event != s.Events[2].ID || !left[0].Created.Equal(leave.At) {
			f.Errorf("left %+v, %v", left, err)
		}
		if s.Deliveries[0].State != relay.Delivered || len(f.suppressions()) != 0 {
			f.Errorf("state %v, suppressions %+v", s.Deliveries[0].State, f.suppressions())
		}
		f.settle(0, join)
		f.settle(0, leave)
		f.settle(0, join)
		if got := f.leavers("news"); len(got) != 0 {
			f.Errorf("left: %q", got)
		}
		bad := leave
		bad.Account = f.account("other", relay.ID{}).ID
		if err := f.db.Settle(f.Context(), 0, []relay.Outcome{bad})[0]; relay.CodeOf(err) != relay.NotFound {
			f.Errorf("of another account: %v", err)
		}
		bad = leave
		bad.Engagement = nil
		if err := f.db.Settle(f.Context(), 0, []relay.Outcome{bad})[0]; relay.CodeOf(err) != relay.Invalid {
			f.Errorf("in no way: %v", err)
		}
	}},
	{"a recipient leaves a stream, and joins again", func(f *fixture) {
		d := f.delivered()
		leave, join := wish(d, relay.EventUnsubscribed, ""), wish(d, relay.EventResubscribed, "")
		f.settle(0, leave)
		if err := f.db.Settle(f.Context(), 0, []relay.Outcome{leave})[0]; !errors.Is(err, store.ErrSettled) {
			f.Errorf("left twice: %v", err)
		}
		s := f.story(d.ID.Message)
		if list := f.suppressions(); len(list) != 1 || list[0].Reason != "unsubscribe" || list[0].Event != s.Events[2].ID {
			f.Errorf("suppressions %+v", list)
		}
		f.settle(0, join)
		if list := f.suppressions(); len(list) != 0 {
			f.Errorf("suppressions %+v", list)
		}
		f.equal("kinds", kinds(f.story(d.ID.Message)), []relay.Kind{relay.EventAccepted, relay.EventDelivered, relay.EventUnsubscribed, relay.EventResubscribed})
		changes, err := f.db.Changes(f.Context(), f.me, relay.ChangeFilter{Action: "suppression"})
		f.must(err)
		f.equal("audited", actions(changes), []string{"suppression.remove", "suppression.add"})
		// A bounce or a complaint is not for the recipient to take back.
		for _, reason := range []string{"bounce", "complaint", "manual"} {
			if _, err := f.db.Suppress(f.Context(), somebody, f.me, []relay.Suppression{{Account: f.me, Address: "a@x.test", Reason: reason, Created: noon}}); err != nil {
				f.Fatal(err)
			}
			if err := f.db.Settle(f.Context(), 0, []relay.Outcome{join})[0]; !errors.Is(err, store.ErrSettled) || len(f.suppressions()) == 0 {
				f.Errorf("%s: %v, suppressions %+v", reason, err, f.suppressions())
			}
		}
	}},
	{"who has left already is counted when he leaves again", func(f *fixture) {
		one, two := f.delivered(), f.delivered()
		f.settle(0, wish(one, relay.EventUnsubscribed, ""))
		if err := f.db.Settle(f.Context(), 0, []relay.Outcome{wish(two, relay.EventUnsubscribed, "")})[0]; !errors.Is(err, store.ErrSettled) {
			f.Errorf("left twice: %v", err)
		}
		f.settle(0, wish(one, relay.EventResubscribed, ""))
		f.settle(0, wish(two, relay.EventUnsubscribed, ""))
		counts, err := f.db.Counts(f.Context(), f.me, relay.CountFilter{Kinds: []relay.Kind{relay.EventUnsubscribed}})
		if err != nil || len(counts) != 1 || counts[0].N != 2 || counts[0].Mark&relay.MarkFirst == 0 {
			f.Errorf("counts %+v, %v", counts, err)
		}
	}},
	{"a mail unsubscribes once", func(f *fixture) {
		f.group(f.me, "news")
		s := f.message("a@x.test")
		s.Message.OptOut.Group = "news"
		f.put(f.lease, s)
		d := s.Deliveries[0]
		f.settle(f.lease, outcome(d, relay.EventDelivered))
		for i := range 2 {
			r := f.returned(d)
			o := wish(d, relay.EventUnsubscribed, "") // the message says which group
			o.Answers, o.Engagement.Method = r.ID, "mail"
			f.settle(f.lease, o)
			if left := f.left(); len(left) != 0 {
				f.Errorf("mail %d is left", i)
			}
			if err := f.db.Settle(f.Context(), f.lease, []relay.Outcome{o})[0]; !errors.Is(err, store.ErrSettled) {
				f.Errorf("mail %d settled twice: %v", i, err)
			}
		}
		f.equal("kinds", kinds(f.story(d.ID.Message)), []relay.Kind{relay.EventAccepted, relay.EventDelivered, relay.EventUnsubscribed})
		f.equal("left", f.leavers("news"), []string{"a@x.test"})
	}},
	{"one event of many at once", func(f *fixture) {
		f.group(f.me, "news")
		d := f.delivered()
		dbs := f.handles()
		for _, group := range []string{"news", ""} {
			var g sync.WaitGroup
			errs := make([]error, 8)
			for i := range errs {
				g.Go(func() {
					errs[i] = dbs[i%len(dbs)].Settle(f.Context(), 0, []relay.Outcome{wish(d, relay.EventUnsubscribed, group)})[0]
				})
			}
			g.Wait()
			done := 0
			for _, err := range errs {
				if err == nil {
					done++
				} else if !errors.Is(err, store.ErrSettled) {
					f.Errorf("group %q: %v", group, err)
				}
			}
			if done != 1 {
				f.Errorf("group %q: %d took effect", group, done)
			}
		}
		f.equal("kinds", kinds(f.story(d.ID.Message)), []relay.Kind{relay.EventAccepted, relay.EventDelivered, relay.EventUnsubscribed, relay.EventUnsubscribed})
	}},
}
