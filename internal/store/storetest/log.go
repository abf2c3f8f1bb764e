package storetest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"postrider/internal/relay"
)

var logTests = []test{
	{"filters", func(f *fixture) {
		a, b := loggedMail(f)
		a1, a2, b1 := a.Deliveries[0].ID, a.Deliveries[1].ID, b.Deliveries[0].ID
		for _, c := range []struct {
			name   string
			filter relay.DeliveryFilter
			want   []relay.DeliveryID
		}{
			{"none", relay.DeliveryFilter{}, ids(b1, a1, a2)},
			{"recipient", relay.DeliveryFilter{Recipient: "anna@"}, ids(a1)},
			{"recipient in other case", relay.DeliveryFilter{Recipient: "ANNA@EXAMPLE"}, ids(a1)},
			{"recipient in none", relay.DeliveryFilter{Recipient: "nobody"}, nil},
			{"percent", relay.DeliveryFilter{Recipient: "%"}, ids(a2)},
			{"underscore", relay.DeliveryFilter{Recipient: "_"}, ids(b1)},
			{"backslash", relay.DeliveryFilter{Subject: `\`}, ids(b1)},
			{"quote", relay.DeliveryFilter{Subject: `'`}, ids(b1)},
			{"sender", relay.DeliveryFilter{Sender: "billing@"}, ids(b1)},
			{"id", relay.DeliveryFilter{Message: a.Message.ID.String()}, ids(a1, a2)},
			{"id in other case", relay.DeliveryFilter{Message: strings.ToUpper(b.Message.ID.String())}, ids(b1)},
			{"header", relay.DeliveryFilter{Message: "<a@x>"}, ids(a1, a2)},
			{"bare header", relay.DeliveryFilter{Message: "b@x"}, ids(b1)},
			{"part of a header", relay.DeliveryFilter{Message: "@x"}, nil},
			{"subject", relay.DeliveryFilter{Subject: "grüße"}, ids(a1, a2)},
			{"reply", relay.DeliveryFilter{Reply: "MAILBOX"}, ids(a2)},
			{"reply code", relay.DeliveryFilter{Reply: "550"}, ids(a2)},
			{"whole reply", relay.DeliveryFilter{Reply: "550 5.1.1 no such"}, ids(a2)},
			{"domain", relay.DeliveryFilter{Domain: "Example.NET"}, ids(a1)},
			{"part of a domain", relay.DeliveryFilter{Domain: "example"}, nil},
			{"state", relay.DeliveryFilter{States: []relay.State{relay.Bounced}}, ids(a2)},
			{"states", relay.DeliveryFilter{States: []relay.State{relay.Bounced, relay.Held}}, ids(b1, a2)},
			{"live", relay.DeliveryFilter{Live: true}, ids(b1, a1)},
			{"live and state", relay.DeliveryFilter{Live: true, States: []relay.State{relay.Bounced, relay.Queued}}, ids(a1)},
			{"since", relay.DeliveryFilter{Since: b.Message.Received}, ids(b1)},
			{"since before", relay.DeliveryFilter{Since: a.Message.Received}, ids(b1, a1, a2)},
			{"until", relay.DeliveryFilter{Until: b.Message.Received}, ids(a1, a2)},
			{"until before", relay.DeliveryFilter{Until: a.Message.Received}, nil},
			{"until after", relay.DeliveryFilter{Until: b.Message.Received.Add(time.Microsecond)}, ids(b1, a1, a2)},
			{"limit", relay.DeliveryFilter{Limit: 2}, ids(b1, a1)},
			{"all", relay.DeliveryFilter{Recipient: "rcpt%", Sender: "app@", Message: "a@x", Subject: "Gr", Reply: "no such", Domain: "example.org",
				States: []relay.State{relay.Bounced}, Since: noon, Until: noon.Add(time.Second), Limit: 5, Before: &a1}, ids(a2)},
			{"all but one", relay.DeliveryFilter{Recipient: "rcpt%", Sender: "app@", Message: "a@x", Subject: "Gr", Reply: "no such", Domain: "example.org",
				States: []relay.State{relay.Held}, Since: noon, Until: noon.Add(time.Second), Limit: 5}, nil},
		} {
			got, err := f.db.Deliveries(f.Context(), f.me, c.filter)
			if err != nil {
				f.Errorf("%s: %v", c.name, err)
			}
			f.equal(c.name, loggedIDs(got), c.want)
		}
		dsn := f.message("app@example.com")
		dsn.Message.Envelope.Sender = ""
		f.put(0, dsn)
		got, err := f.db.Deliveries(f.Context(), f.me, relay.DeliveryFilter{Sender: relay.NullSender})
		if err != nil {
			f.Error(err)
		}
		f.equal("null sender", loggedIDs(got), ids(dsn.Deliveries[0].ID))
		if _, err := f.db.Deliveries(f.Context(), f.me, relay.DeliveryFilter{Subject: strings.Repeat("x", 1001)}); relay.CodeOf(err) != relay.Invalid {
			f.Errorf("an endless text: %v", err)
		}
	}},
	{"whole", func(f *fixture) {
		s := full(f.me)
		f.put(0, s)
		got, err := f.db.Deliveries(f.Context(), f.me, relay.DeliveryFilter{})
		if err != nil || len(got) != 2 {
			f.Fatalf("%d found: %v", len(got), err)
		}
		message := *s.Message
		message.Envelope.Recipients = nil
		for i, l := range got {
			f.equal("delivery", &l.Delivery, s.Deliveries[i])
			f.equal("message", l.Message, &message)
		}
	}},
	{"pages", func(f *fixture) {
		var want []relay.DeliveryID
		var batch []*relay.Submission
		for i := range 9 {
			s := f.message([]string{"a@x.test", "b@x.test", "c@x.test", "d@x.test"}[:1+i%4]...)
			batch = append(batch, s)
			var page []relay.DeliveryID
			for _, d := range s.Deliveries {
				page = append(page, d.ID)
			}
			want = append(page, want...)
		}
		f.put(0, batch...)
		for limit := 1; limit <= len(want)+1; limit++ {
			var got []relay.DeliveryID
			filter := relay.DeliveryFilter{Limit: limit}
			for {
				page, err := f.db.Deliveries(f.Context(), f.me, filter)
				if err != nil {
					f.Fatal(err)
				}
				got = append(got, loggedIDs(page)...)
				if len(page) < limit {
					break
				}
				filter.Before = &got[len(got)-1]
			}
			f.equal(fmt.Sprintf("pages of %d", limit), got, want)
		}
	}},
	{"ids grow though the clock was set back", func(f *fixture) {
		if !f.engine.Single {
			return // the database's clock counts
		}
		f.put(0, f.message("a@x.test"))
		future := NewID(time.Now().Add(24 * time.Hour))
		if err := f.engine.Exec(f.Context(), f.place, "update event set id = ?", future[:]); err != nil {
			f.Fatal(err)
		}
		f.reopen()
		f.put(0, f.message("b@x.test"))
		if got, err := f.db.Events(f.Context(), f.me, future, 7); err != nil || len(got) != 1 {
			f.Errorf("%d events after the last one, %v", len(got), err)
		}
	}},
	{"events, page by page", func(f *fixture) {
		other := f.account("other", relay.ID{}).ID
		var want []relay.ID
		for i := range 7 {
			s := f.message("a@x.test")
			if i%2 > 0 {
				s.Message.Account, s.Deliveries[0].Account = other, other
			}
			f.put(f.lease, s)
		}
		all, err := f.db.Events(f.Context(), f.me, relay.ID{}, 100)
		f.must(err)
		for _, e := range all {
			want = append(want, e.ID)
		}
		for _, limit := range []int{1, 2, 4, 9} {
			var got []relay.ID
			for next, pages := (relay.ID{}), 0; pages == 0 || !next.IsZero(); pages++ {
				var found []*relay.Event
				found, next, err = f.db.EventPage(f.Context(), f.me, next, limit, time.Minute)
				if f.must(err); len(found) > limit {
					f.Fatalf("a page of %d", len(found))
				}
				for _, e := range found {
					got = append(got, e.ID)
				}
			}
			f.equal("events", got, want)
		}
		both, next, err := f.db.EventPage(f.Context(), relay.Everyone, relay.ID{}, 5, time.Minute)
		if err != nil || len(both) != 5 || next != both[4].ID {
			f.Errorf("of all: %d, next %s, %v", len(both), next, err)
		}
	}},
	{"few events of many", func(f *fixture) {
		other := f.account("other", relay.ID{}).ID
		var many []string
		for i := range 900 {
			many = append(many, fmt.Sprintf("%d@x.test", i))
		}
		for range 6 {
			f.put(0, Submission(other, noon, []byte("x"), many...))
		}
		mine := f.message("a@x.test")
		f.put(0, mine)
		var got []relay.ID
		pages := 0
		for next := (relay.ID{}); pages == 0 || !next.IsZero(); pages++ {
			found, to, err := f.db.EventPage(f.Context(), f.me, next, 10, 0)
			f.must(err)
			for _, e := range found {
				got = append(got, e.Delivery.Message)
			}
			next = to
		}
		f.equal("events", got, []relay.ID{mine.Message.ID})
		f.equal("pages", pages, 2) // a look ends in time, and the next one goes on
	}},
	{"parts of a story", func(f *fixture) {
		s := f.message("a@x.test", "b@x.test", "c@x.test", "d@x.test")
		f.put(0, s)
		for _, k := range []relay.Kind{relay.EventHeld, relay.EventReleased, relay.EventHeld} { // besides the first
			f.settle(0, order(s.Deliveries[1], k, noon))
		}
		whole, err := f.db.Story(f.Context(), f.me, s.Message.ID)
		if err != nil || len(whole.Events) != 7 {
			f.Fatalf("%+v: %v", whole, err)
		}
		for _, c := range []struct {
			part       relay.StoryPart
			deliveries []int // by number
			events     int
			next       int
			cut        bool
		}{
			{relay.StoryPart{Deliveries: 10, Events: 10}, []int{1, 2, 3, 4}, 7, 0, false},
			{relay.StoryPart{Deliveries: 4, Events: 7}, []int{1, 2, 3, 4}, 7, 0, false},
			{relay.StoryPart{Deliveries: 2, Events: 10}, []int{1, 2}, 5, 2, false},
			{relay.StoryPart{After: 2, Deliveries: 2, Events: 10}, []int{3, 4}, 2, 0, false},
			{relay.StoryPart{Deliveries: 4, Events: 5}, []int{1, 2}, 5, 2, false},
			{relay.StoryPart{Deliveries: 4, Events: 4}, []int{1}, 1, 1, false},
			{relay.StoryPart{After: 1, Deliveries: 4, Events: 3}, []int{2}, 3, 2, true},
			{relay.StoryPart{After: 3, Deliveries: 1, Events: 1}, []int{4}, 1, 0, false},
			{relay.StoryPart{After: 4, Deliveries: 1, Events: 1}, nil, 0, 0, false},
		} {
			got, err := f.db.StoryPart(f.Context(), f.me, s.Message.ID, c.part)
			if err != nil {
				f.Fatal(err)
			}
			var numbers []int
			for _, d := range got.Deliveries {
				numbers = append(numbers, d.ID.N)
			}
			f.equal("deliveries", numbers, c.deliveries)
			f.equal("recipients", len(got.Message.Envelope.Recipients), len(c.deliveries))
			f.equal("events", len(got.Events), c.events)
			f.equal("next", got.Next, c.next)
			f.equal("cut", got.Cut, c.cut)
			if !slices.IsSortedFunc(got.Events, func(a, b *relay.Event) int { return a.ID.Compare(b.ID) }) {
				f.Error("the events are not in their order")
			}
		}
	}},
	{"tenants", func(f *fixture) {
		other, err := f.db.EnsureAccount(f.Context(), "other")
		if err != nil {
			f.Fatal(err)
		}
		mine, theirs := f.message("a@x.test"), Submission(other, noon, []byte("x"), "b@x.test")
		f.put(f.lease, mine, theirs)
		key := func(account relay.ID, user string) *relay.Credential {
			return &relay.Credential{ID: NewID(noon), Account: account, Kind: "smtp", User: user, Stream: relay.Transactional, Created: noon}
		}
		for _, c := range []*relay.Credential{key(f.me, "mine"), key(other, "theirs")} {
			if err := f.db.AddCredential(f.Context(), somebody, c); err != nil {
				f.Fatal(err)
			}
		}
		for _, c := range []struct {
			name    string
			account relay.ID
			sees    []*relay.Submission
		}{
			{"me", f.me, []*relay.Submission{mine}},
			{"other", other, []*relay.Submission{theirs}},
			{"zero", relay.ID{}, nil},
			{"unknown", NewID(noon), nil},
			{"everyone", relay.Everyone, []*relay.Submission{mine, theirs}},
		} {
			deliveries, err1 := f.db.Deliveries(f.Context(), c.account, relay.DeliveryFilter{})
			live, err2 := f.db.Deliveries(f.Context(), c.account, relay.DeliveryFilter{Live: true, Recipient: "x.test"})
			events, err3 := f.db.Events(f.Context(), c.account, relay.ID{}, 100)
			creds, err4 := f.db.Credentials(f.Context(), c.account)
			if err1 != nil || err2 != nil || err3 != nil || err4 != nil {
				f.Fatal(err1, err2, err3, err4)
			}
			f.equal(c.name+" counts", []int{len(deliveries), len(live), len(events), len(creds)}, []int{len(c.sees), len(c.sees), len(c.sees), len(c.sees)})
			for i, s := range c.sees {
				f.equal(c.name+" events", events[i].Delivery, s.Deliveries[0].ID)
				f.equal(c.name+" deliveries", deliveries[len(c.sees)-1-i].ID, s.Deliveries[0].ID)
				f.equal(c.name+" credentials", creds[i].Account, s.Message.Account)
			}
			for _, s := range []*relay.Submission{mine, theirs} {
				sees := false
				for _, seen := range c.sees {
					sees = sees || seen == s
				}
				story, err := f.db.Story(f.Context(), c.account, s.Message.ID)
				if sees != (err == nil) || !sees && (story != nil || relay.CodeOf(err) != relay.NotFound) {
					f.Errorf("%s reads a story: %v", c.name, err)
				}
				if sees {
					f.equal("story", story.Message.ID, s.Message.ID)
				}
				if c.account == relay.Everyone || sees {
					continue
				}
				o := order(s.Deliveries[0], relay.EventCancelled, noon)
				o.Account = c.account
				if err := f.db.Settle(f.Context(), f.lease, []relay.Outcome{o})[0]; relay.CodeOf(err) != relay.NotFound {
					f.Errorf("%s cancels: %v", c.name, err)
				}
			}
		}
	}},
}

// loggedMail puts two messages that differ in all that can be sought for, the
// second a minute later.
func loggedMail(f *fixture) (a, b *relay.Submission) {
	a = Submission(f.me, noon, []byte("x"), "Anna@example.net", "rcpt%1@example.org")
	a.Message.Subject, a.Message.HeaderID = "Grüße", "<a@x>"
	b = Submission(f.me, noon.Add(time.Minute), []byte("x"), "under_score@sub.example.net")
	b.Message.Subject, b.Message.HeaderID, b.Message.Envelope.Sender = `It's a \ here`, "b@x", "billing@example.com"
	b.Deliveries[0].State = relay.Held
	f.put(f.lease, a, b)
	o := outcome(a.Deliveries[1], relay.EventBounced)
	o.Reply = relay.Reply{Code: 550, Enhanced: "5.1.1", Text: "No such\nmailbox"}
	f.settle(f.lease, o)
	return a, b
}

func ids(d ...relay.DeliveryID) []relay.DeliveryID { return d }

func loggedIDs(l []relay.Logged) (ids []relay.DeliveryID) {
	for _, d := range l {
		ids = append(ids, d.ID)
	}
	return ids
}
