package storetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postrider/internal/relay"
)

var findTests = []test{
	{"every filter finds what a recount finds", func(f *fixture) {
		l := newLogLab(f)
		l.fill(100)
		l.recount(10) // nothing is indexed
		for range 3 {
			l.fill(130)
			l.index()
			l.recount(10)
		}
		l.fill(60) // and this is not
		l.recount(10)
	}},
	{"segments are merged", func(f *fixture) {
		l := newLogLab(f)
		for range 9 {
			l.fill(60)
			l.index()
		}
		l.merge()
		l.recount(40)
		// What was replaced goes when nobody can be reading it any more.
		f.must(f.engine.Exec(f.Context(), f.place, "update log_segment set replaced = 1 where replaced > 0"))
		for merged := true; merged; {
			var err error
			merged, err = f.db.MergeLog(f.Context())
			f.must(err)
		}
		l.recount(8)
	}},
	{"a segment that was cut off", func(f *fixture) {
		l := newLogLab(f)
		l.fill(100)
		l.index()
		f.must(f.engine.Exec(f.Context(), f.place, "insert into log_part (segment, part, bytes) values (999, 0, ?)", []byte("x")))
		f.must(f.db.CleanLog(f.Context()))
		f.must(f.engine.Exec(f.Context(), f.place, "insert into log_part (segment, part, bytes) values (999, 0, ?)", []byte("x"))) // it is not there
		l.recount(10)
	}},
	{"an event that was late", func(f *fixture) {
		l := newLogLab(f)
		l.fill(100)
		l.index()
		// As if the segment had been made before some events could be seen, and knew
		// nothing of their deliveries.
		f.must(f.engine.Exec(f.Context(), f.place, "update log_segment set docs = 0, sure = 0, events = events - 1, last_event = ?", latest(f)))
		if got := l.found(relay.DeliveryFilter{Recipient: "e"}); len(got) != 0 {
			f.Fatalf("%d found: the test is not what it should be", len(got))
		}
		l.old()
		for {
			merged, err := f.db.MergeLog(f.Context())
			f.must(err)
			if !merged {
				break
			}
		}
		l.recount(10)
	}},
	{"more is live than is looked at one by one", func(f *fixture) {
		l := newLogLab(f)
		var batch []*relay.Submission
		var ends []relay.Outcome
		for i := range 600 {
			l.at = l.at.Add(time.Second)
			var to []string
			for range 10 {
				to = append(to, pick(l.r, labNames...)+"@"+pick(l.r, labDomains...))
			}
			s := Submission(l.accounts[0], l.at, []byte("x"), to...)
			s.InHand = false
			if i%3 == 0 {
				s.Message.Tags = []string{"welcome"}
			}
			for n, d := range s.Deliveries {
				if n%4 == 0 || i > 100 && i < 180 { // many in a row, too
					ends = append(ends, outcome(d, relay.EventDelivered))
				} else if n%4 == 1 {
					ends = append(ends, outcome(d, relay.EventDeferred))
				}
			}
			batch = append(batch, s)
		}
		// So many that those of a part of the index are not live.
		for some := range slices.Chunk(batch, 100) {
			l.put(0, some...)
		}
		for some := range slices.Chunk(ends, 500) {
			l.settle(0, some...)
		}
		l.index()
		for i := range 40 { // since then
			l.settle(0, order(batch[i].Deliveries[2], relay.EventCancelled, l.at))
		}
		for _, filter := range []relay.DeliveryFilter{{Live: true}, {Live: true, Tag: "welcome"}, {Live: true, Recipient: "ann"}, {Live: true, Tag: "none"},
			{States: []relay.State{relay.Queued}, Tag: "welcome"}, {States: []relay.State{relay.Deferred}, Domain: "gmail.test"}, {States: []relay.State{relay.Held}, Tag: "welcome"},
			{Live: true, Domain: "gmail.test", Recipient: "bob", Tag: "welcome"}, {States: []relay.State{relay.Queued, relay.Delivered}, Recipient: "bob"}} {
			var want []relay.DeliveryID
			for _, d := range l.all() {
				if sought(&filter, &d) {
					want = append(want, d.ID)
				}
			}
			for _, filter.Limit = range []int{1000, 90} {
				l.equal(fmt.Sprintf("%+v", filter), l.found(filter), want)
			}
		}
	}},
	{"by what recipients did", func(f *fixture) {
		l := newLogLab(f)
		names := []string{"nothing", "opened", "machine", "clicked", "unsubscribed", "complained", "both", "of another"}
		at := map[string]*relay.Delivery{}
		for i, name := range names {
			s := Submission(l.accounts[i/7], l.at.Add(time.Duration(-i)*time.Second), []byte("x"), name+"@did.test")
			s.InHand = false
			l.put(0, s)
			at[name] = s.Deliveries[0]
			l.settle(0, outcome(at[name], relay.EventDelivered))
		}
		queued := Submission(l.accounts[0], l.at.Add(-time.Minute), []byte("x"), "queued@did.test", "unknown@did.test")
		queued.InHand = false
		l.put(0, queued)
		at["unknown"] = queued.Deliveries[1] // the receiver has it, and never said so
		l.settle(0, outcome(at["unknown"], relay.EventDeferred))
		by := func(live bool, states []relay.State, deeds ...relay.Kind) (got []string) {
			l.Helper()
			for _, account := range l.accounts[:2] {
				page, err := f.db.Find(f.Context(), account, relay.DeliveryFilter{Domain: "did.test", Live: live, States: states, Deeds: deeds}, 0)
				l.must(err)
				for _, d := range page.Found {
					name, _, _ := strings.Cut(d.Recipient.Address, "@")
					got = append(got, fmt.Sprint(strings.TrimSpace(fmt.Sprint(name, " ", d.Deeds)), account == l.accounts[1]))
				}
			}
			return got
		}
		check := func(when string) {
			l.Helper()
			l.equal(when+": opened", by(false, nil, relay.EventOpened), []string{"opened [opened]false", "both [opened complained]false", "of another [opened]true"})
			l.equal(when+": clicked", by(false, nil, relay.EventClicked), []string{"clicked [clicked]false", "unknown [clicked]false"})
			l.equal(when+": unsubscribed", by(false, nil, relay.EventUnsubscribed), []string{"unsubscribed [unsubscribed]false"})
			l.equal(when+": complained", by(false, nil, relay.EventComplained), []string{"complained [complained]false", "both [opened complained]false"})
			l.equal(when+": several", by(false, nil, relay.EventClicked, relay.EventComplained),
				[]string{"clicked [clicked]false", "complained [complained]false", "both [opened complained]false", "unknown [clicked]false"})
			l.equal(when+": or waiting", by(false, []relay.State{relay.Queued}, relay.EventClicked), []string{"clicked [clicked]false", "queued []false", "unknown [clicked]false"})
			l.equal(when+": or waiting, of what waits", by(true, []relay.State{relay.Queued}, relay.EventClicked), []string{"queued []false", "unknown [clicked]false"})
			l.equal(when+": of what waits", by(true, nil, relay.EventClicked), []string{"unknown [clicked]false"})
			l.equal(when+": delivered", len(by(false, []relay.State{relay.Delivered}, relay.EventComplained)), len(names))
		}
		engage := func() {
			for _, o := range []relay.Outcome{engaged(at["opened"], relay.EventOpened, ""), engaged(at["opened"], relay.EventOpened, ""), engaged(at["machine"], relay.EventOpened, "scanner"),
				engaged(at["machine"], relay.EventClicked, "scanner"), engaged(at["clicked"], relay.EventClicked, "scanner"), engaged(at["clicked"], relay.EventClicked, ""),
				engaged(at["unknown"], relay.EventClicked, ""), engaged(at["unsubscribed"], relay.EventUnsubscribed, ""), answer(l.returned(at["complained"]), relay.EventComplained),
				engaged(at["both"], relay.EventOpened, ""), answer(l.returned(at["both"]), relay.EventComplained), engaged(at["of another"], relay.EventOpened, "")} {
				l.settle(0, o)
			}
		}
		// The deliveries are in the index before anything is done.
		l.fill(100)
		l.index()
		l.equal("before", by(false, nil, relay.EventOpened, relay.EventComplained), []string(nil))
		engage()
		check("not indexed")
		l.fill(100)
		l.index()
		check("indexed")
		for range 7 {
			l.fill(60)
			l.index()
		}
		l.merge()
		check("merged")
		l.recount(20)
		s, err := f.db.Story(f.Context(), l.accounts[0], at["both"].ID.Message)
		l.must(err)
		l.equal("in its story", s.Deliveries[0].Deeds, []relay.Kind{relay.EventOpened, relay.EventComplained})
	}},
	{"what a recipient does again is not indexed again", func(f *fixture) {
		l := newLogLab(f)
		s := Submission(l.accounts[0], l.at, []byte("x"), "ann@did.test")
		s.InHand = false
		l.put(0, s)
		d := s.Deliveries[0]
		l.settle(0, outcome(d, relay.EventDelivered), engaged(d, relay.EventOpened, ""))
		l.equal("deliveries at first", l.indexAll(), 1)
		var again []relay.Outcome
		for i := range 150 {
			again = append(again, engaged(d, relay.EventOpened, []string{"", "scanner"}[i%2]))
		}
		l.settle(0, again...)
		l.equal("deliveries after it", l.indexAll(), 0)
		l.equal("found", l.found(relay.DeliveryFilter{Deeds: []relay.Kind{relay.EventOpened}}), []relay.DeliveryID{d.ID})
	}},
	{"a search that takes long", func(f *fixture) {
		l := newLogLab(f)
		l.fill(250)
		l.index()
		for _, filter := range []relay.DeliveryFilter{{}, {Subject: "order"}, {Live: true, Subject: "order"}, {Sender: "app"}, {Reply: "blocked"}, {Recipient: "nobody"}} {
			want := l.found(filter)
			var got []relay.DeliveryID
			pages := 0
			for {
				page, err := f.db.Find(f.Context(), l.accounts[0], filter, time.Nanosecond)
				f.must(err)
				got = append(got, loggedIDs(page.Found)...)
				if pages++; page.Next == nil || pages > 10_000 {
					break
				}
				filter.Before = page.Next
			}
			f.equal(fmt.Sprintf("%+v in %d pages", filter, pages), got, want)
		}
	}},
}

// latest is the id of the newest event.
func latest(f *fixture) []byte {
	last, err := f.db.LastEvent(f.Context())
	f.must(err)
	return last[:]
}

// logLab is a log with mail of accounts of different sizes.
type logLab struct {
	*fixture
	r        *rand.Rand
	accounts []relay.ID
	apps     []relay.ID
	at       time.Time
	waiting  []*relay.Delivery
	arrived  []*relay.Delivery
}

func newLogLab(f *fixture) *logLab {
	l := &logLab{fixture: f, r: rand.New(rand.NewPCG(7, 11)), at: noon}
	for i := range 3 {
		l.accounts = append(l.accounts, f.account(fmt.Sprint("log", i), relay.ID{}).ID)
		l.apps = append(l.apps, NewID(noon), NewID(noon))
	}
	return l
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

var (
	labNames    = []string{"ann", "Anna.Miller", "bob", "eve+shop", "o'hara", "jürgen", "noreply"}
	labDomains  = []string{"example.net", "example.org", "mail.example.com", "gmail.test", "xn--bcher-kva.example"}
	labSubjects = []string{"Your order %d has shipped", "Order %d: Rechnung für Sie", "Reset your password", "Été à Paris %d", "注文確認 %d", "50%% off_today"}
	labReplies  = []relay.Reply{{Code: 250, Enhanced: "2.0.0", Text: "OK 1700000%03d gsmtp"}, {Code: 250, Text: "queued as A%03dB"}, {Code: 550, Enhanced: "5.1.1", Text: "<x>: User unknown"},
		{Code: 554, Enhanced: "5.7.1", Text: "Message blocked\nsee https://help.example/%03d"}, {Code: 451, Enhanced: "4.7.1", Text: "Greylisted, try again"}, {Text: "connection refused"}}
	labCategories = []string{"hard/no-such-mailbox", "block/spam", "soft/greylisted", ""}
	labTags       = []string{"welcome", "Invoice", "news 2026"}
	labProviders  = []string{"Gmail", "Microsoft", ""}
	labSources    = []string{"192.0.2.1", "192.0.2.2", "2001:db8::25"}
)

// fill puts n messages, and settles some of what waits.
func (l *logLab) fill(n int) {
	l.Helper()
	var batch []*relay.Submission
	for range n {
		which := 0
		if l.r.IntN(5) == 0 {
			which = 1 + l.r.IntN(40)/39
		}
		l.at = l.at.Add(time.Duration(l.r.IntN(3)) * time.Second)
		var to []string
		for range 1 + l.r.IntN(12)/9*l.r.IntN(3) {
			to = append(to, pick(l.r, labNames...)+fmt.Sprint(l.r.IntN(80))[:l.r.IntN(2)]+"@"+pick(l.r, labDomains...))
		}
		s := Submission(l.accounts[which], l.at, []byte("x"), to...)
		s.InHand = false
		m := s.Message
		subject := pick(l.r, labSubjects...)
		if strings.Contains(subject, "%d") {
			subject = fmt.Sprintf(subject, l.r.IntN(300))
		}
		m.Subject, m.HeaderID, m.Credential = subject, fmt.Sprintf("<%d.%d@shop.example>", l.r.IntN(500), which), l.apps[2*which+l.r.IntN(2)]
		m.Envelope.Sender = pick(l.r, "app@example.com", "bounces@shop.example", "")
		m.From = pick(l.r, "App@example.com", "news@shop.example")
		m.Source.Client, m.Source.Helo = netip.MustParseAddrPort(pick(l.r, "198.51.100.7:25", "198.51.100.70:99", "[2001:db8::1]:5")), pick(l.r, "printer.lan", "web-1.example")
		m.Script = pick(l.r, "", "mail.php", "cron/send.php")
		m.Tags, m.Metadata = nil, nil
		if l.r.IntN(2) == 0 {
			m.Tags = []string{pick(l.r, labTags...)}
			m.Metadata = map[string]string{"user": fmt.Sprint(l.r.IntN(50)), "Plan": pick(l.r, "free", "Pro")}
		}
		batch = append(batch, s)
		l.waiting = append(l.waiting, s.Deliveries...)
	}
	for some := range slices.Chunk(batch, 200) {
		l.put(0, some...)
	}
	l.r.Shuffle(len(l.waiting), func(i, j int) { l.waiting[i], l.waiting[j] = l.waiting[j], l.waiting[i] })
	var outcomes []relay.Outcome
	end := len(l.waiting) * 9 / 10
	var stay []*relay.Delivery
	for i, d := range l.waiting[:end] {
		kind := pick(l.r, relay.EventDelivered, relay.EventDelivered, relay.EventDelivered, relay.EventBounced, relay.EventDeferred, relay.EventExpired, relay.EventHeld, relay.EventCancelled)
		o := outcome(d, kind)
		o.At = l.at.Add(time.Duration(i) * time.Millisecond)
		o.Reply = pick(l.r, labReplies...)
		if strings.Contains(o.Reply.Text, "%03d") {
			o.Reply.Text = fmt.Sprintf(o.Reply.Text, l.r.IntN(1000))
		}
		o.Diagnosis, o.Provider = relay.Diagnosis{Category: pick(l.r, labCategories...), Text: "It is so."}, pick(l.r, labProviders...)
		o.Attempt = &relay.Attempt{Source: netip.MustParseAddr(pick(l.r, labSources...))}
		outcomes = append(outcomes, o)
		if !kind.State().Final() {
			stay = append(stay, d)
		}
		if kind == relay.EventDelivered {
			l.arrived = append(l.arrived, d)
		}
	}
	l.waiting = append(stay, l.waiting[end:]...)
	for range len(l.arrived) / 8 { // some long ago
		d := pick(l.r, l.arrived...)
		outcomes = append(outcomes, engaged(d, pick(l.r, relay.EventOpened, relay.EventClicked, relay.EventUnsubscribed), pick(l.r, "", "scanner")))
	}
	for some := range slices.Chunk(outcomes, 500) {
		l.settle(0, some...)
	}
}

// index takes events into the index, and puts more mail where there are too few.
// Where events become visible out of their order it waits until they are old
// enough.
func (l *logLab) index() {
	l.Helper()
	for try := 1; ; try++ {
		n, _, err := l.db.IndexLog(l.Context(), 100)
		l.must(err)
		if n > 0 {
			return
		}
		if l.engine.Single || try%100 == 0 {
			l.fill(50)
			continue
		}
		select {
		case <-l.Context().Done():
			l.Fatal(context.Cause(l.Context()))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// indexAll takes all events into the index at once, and tells how many deliveries
// that were not there were added with them, or were indexed anew.
func (l *logLab) indexAll() (docs int) {
	l.Helper()
	db, err := l.engine.Look(l.place)
	l.must(err)
	defer db.Close()
	var all int
	l.must(db.QueryRowContext(l.Context(), "select count(*) from event where id > coalesce((select last_event from log_segment order by last_event desc limit 1), '')").Scan(&all))
	for {
		n, _, err := l.db.IndexLog(l.Context(), all)
		l.must(err)
		if n > 0 {
			l.equal("events taken", n, all)
			l.must(db.QueryRowContext(l.Context(), "select docs from log_segment order by last_event desc limit 1").Scan(&docs))
			return docs
		}
		select {
		case <-l.Context().Done():
			l.Fatal(context.Cause(l.Context()))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// sure has all segments be complete, as they are after a while.
func (l *logLab) sure() {
	l.must(l.engine.Exec(l.Context(), l.place, "update log_segment set sure = 1"))
}

// merge makes segments one.
func (l *logLab) merge() {
	l.Helper()
	l.sure()
	merged, err := l.db.MergeLog(l.Context())
	l.must(err)
	if !merged {
		l.Error("nothing was merged")
	}
}

// old has the segment be one that is looked at again: its last event is old enough.
func (l *logLab) old() {
	if l.engine.Single {
		return
	}
	past := relay.FirstIDAt(time.Now().Add(-time.Hour))
	first := relay.FirstIDAt(time.Now().Add(-2 * time.Hour))
	l.must(l.engine.Exec(l.Context(), l.place, "update event set id = substr(cast(? as bytea), 1, 6) || substr(id, 7)", past[:]))
	l.must(l.engine.Exec(l.Context(), l.place, "update log_segment set first_event = ?, last_event = substr(cast(? as bytea), 1, 6) || substr(last_event, 7)", first[:], past[:]))
}

// found finds all by pages.
func (l *logLab) found(filter relay.DeliveryFilter) (got []relay.DeliveryID) {
	l.Helper()
	return l.foundAs(l.accounts[0], filter)
}

func (l *logLab) foundAs(account relay.ID, filter relay.DeliveryFilter) (got []relay.DeliveryID) {
	l.Helper()
	if filter.Limit == 0 {
		filter.Limit = 1000
	}
	for {
		page, err := l.db.Find(l.Context(), account, filter, 0)
		l.must(err)
		got = append(got, loggedIDs(page.Found)...)
		if page.Next == nil {
			return got
		}
		filter.Before = page.Next
	}
}

// all goes through all, without the index.
func (l *logLab) all() (all []relay.Logged) {
	l.Helper()
	f := relay.DeliveryFilter{Limit: 1000}
	for {
		page, err := l.db.Find(l.Context(), relay.Everyone, f, 0)
		l.must(err)
		all = append(all, page.Found...)
		if page.Next == nil {
			return all
		}
		f.Before = page.Next
	}
}

// recount compares n searches with what a look at each delivery gives.
func (l *logLab) recount(n int) {
	l.Helper()
	all := l.all()
	hits := 0
	for range n {
		filter := l.filter(all)
		account := pick(l.r, append(l.accounts, l.accounts[0], relay.Everyone)...)
		var want []relay.DeliveryID
		for i := range all {
			if (account == relay.Everyone || all[i].Account == account) && sought(&filter, &all[i]) {
				want = append(want, all[i].ID)
			}
		}
		filter.Limit = pick(l.r, 1000, 1000, 100, 7)
		if len(want) > 300 {
			filter.Limit = 1000
		}
		hits += min(len(want), 1)
		l.equal(fmt.Sprintf("%+v", filter), l.foundAs(account, filter), want)
	}
	if hits < n/4 {
		l.Errorf("only %d of %d searches found something", hits, n)
	}
}

// filter makes a filter out of what some delivery has, so that something is found,
// and sometimes out of what another one has.
func (l *logLab) filter(all []relay.Logged) (f relay.DeliveryFilter) {
	kinds := 1 + l.r.IntN(3)
	d := all[l.r.IntN(len(all))]
	for range kinds {
		if l.r.IntN(8) == 0 {
			d = all[l.r.IntN(len(all))]
		}
		m := d.Message
		local, domain, _ := strings.Cut(d.Recipient.Address, "@")
		switch l.r.IntN(19) {
		case 0:
			f.Recipient = pick(l.r, d.Recipient.Address, local, "@"+domain, strings.ToUpper(local[:2]), domain[:3], "nobody")
		case 1:
			f.Sender = pick(l.r, m.Envelope.Sender, m.From, "shop", "exam", relay.NullSender)
		case 2:
			f.Subject = pick(l.r, m.Subject, "order", "ORDER ship", "ete", "für rech", "注", "%", "reset password", `"your order"`)
		case 3:
			f.Reply = pick(l.r, "250", "5.1.1", "user unk", "blocked", "1700000", "queued as", "refused", strings.ReplaceAll(d.Reply.Text, "\n", " "))
		case 4:
			f.Domain = domain
		case 5:
			f.Credential = m.Credential
		case 6:
			f.Client = pick(l.r, "198.51.100.7", "198.51.100.", "printer", "web-1", "2001:db8")
		case 7:
			f.Script = pick(l.r, "mail.php", "send", "cron")
		case 8:
			f.Tag = strings.ToLower(pick(l.r, labTags...))
		case 9:
			f.Category = pick(l.r, "hard/no-such-mailbox", "block", "greylisted", "other")
		case 10:
			f.Provider = pick(l.r, "gmail", "Microsoft", "none")
		case 11:
			f.Source = pick(l.r, labSources...)
		case 12:
			f.Metadata = map[string]string{"USER": m.Metadata["user"]}
		case 13:
			f.Metadata = map[string]string{"plan": "pro"}
		case 14:
			f.States = []relay.State{d.State}
		case 15:
			f.States = []relay.State{pick(l.r, relay.Queued, relay.Deferred, relay.Held), pick(l.r, relay.Bounced, relay.Expired, relay.Deferred)}
		case 16:
			f.Live = l.r.IntN(2) == 0
			f.Message = pick(l.r, "", m.HeaderID, strings.Trim(m.HeaderID, "<>"), m.ID.String())
		case 17:
			f.Since, f.Until = m.Received.Add(-time.Minute), pick(l.r, time.Time{}, m.Received.Add(time.Minute))
		case 18:
			f.Deeds = []relay.Kind{pick(l.r, relay.EventOpened, relay.EventClicked, relay.EventUnsubscribed)}
		}
	}
	return f
}

// sought says in the plainest way whether a delivery is one that is sought.
func sought(f *relay.DeliveryFilter, l *relay.Logged) bool {
	m, d := l.Message, &l.Delivery
	domain := d.Recipient.Address[strings.Index(d.Recipient.Address, "@")+1:]
	tag, state := f.Tag == "", len(f.States)+len(f.Deeds) == 0
	for _, t := range m.Tags {
		tag = tag || strings.EqualFold(t, f.Tag)
	}
	for _, s := range f.States {
		state = state || s == d.State
	}
	for _, k := range f.Deeds {
		state = state || slices.Contains(d.Deeds, k)
	}
	for k, v := range f.Metadata {
		has := false
		for key, value := range m.Metadata {
			has = has || strings.EqualFold(key, k) && (v == "" || strings.EqualFold(value, v))
		}
		if !has {
			return false
		}
	}
	kind, name, _ := strings.Cut(d.Diagnosis.Category, "/")
	client := m.Source.Client.Addr().String()
	return state && tag && plainPart(d.Recipient.Address, f.Recipient) &&
		(f.Sender == relay.NullSender && m.Envelope.Sender == "" || f.Sender != relay.NullSender && (plainPart(m.Envelope.Sender, f.Sender) || plainPart(m.From, f.Sender))) &&
		plainWords(m.Subject, f.Subject) && plainWords(d.Reply.String(), f.Reply) && (f.Domain == "" || domain == f.Domain) &&
		(f.Credential.IsZero() || m.Credential == f.Credential) && (plainPart(client, f.Client) || plainPart(m.Source.Helo, f.Client)) && plainPart(m.Script, f.Script) &&
		(f.Category == "" || f.Category == d.Diagnosis.Category || f.Category == kind || f.Category == name) && (f.Provider == "" || strings.EqualFold(d.Provider, f.Provider)) &&
		(f.Source == "" || f.Source == d.Source) && (!f.Live || !d.State.Final()) &&
		(f.Message == "" || f.Message == m.ID.String() || strings.Trim(f.Message, "<>") == strings.Trim(m.HeaderID, "<>")) &&
		(f.Since.IsZero() || !m.Received.Before(f.Since)) && (f.Until.IsZero() || m.Received.Before(f.Until))
}

var plain = strings.NewReplacer("ü", "u", "É", "e", "é", "e", "à", "a")

func plainFold(s string) string { return strings.ToLower(plain.Replace(s)) }

func letter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c >= 0x80
}

// plainPart: in the text, from the beginning of a word on.
func plainPart(text, part string) bool {
	text, part = plainFold(text), plainFold(part)
	if part == "" {
		return true
	}
	for i := range text {
		inNumber := i > 1 && text[i-1] == '.' && text[i-2] >= '0' && text[i-2] <= '9' && text[i] >= '0' && text[i] <= '9'
		if strings.HasPrefix(text[i:], part) && (i == 0 || !letter(part[0]) || !letter(text[i-1]) && !inNumber) {
			return true
		}
	}
	return false
}

// plainWords: each of the words; of the last one the beginning.
func plainWords(text, sought string) bool {
	if strings.HasPrefix(sought, `"`) {
		return plainPart(text, strings.Trim(sought, `"`))
	}
	cut := func(s string) (list []string) {
		for _, w := range strings.FieldsFunc(plainFold(s), func(r rune) bool {
			return !(r == '.' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r >= 0x80)
		}) {
			if !strings.ContainsAny(w, "0123456789") { // the dot of a number belongs to it
				list = append(list, strings.FieldsFunc(w, func(r rune) bool { return r == '.' })...)
			} else {
				list = append(list, strings.Trim(w, "."))
			}
		}
		var each []string
		for _, w := range list {
			if w != "" && w[0] >= 0xe0 { // of these each character is a word
				for _, r := range w {
					each = append(each, string(r))
				}
			} else if w != "" {
				each = append(each, w)
			}
		}
		return each
	}
	have, want := cut(text), cut(sought)
	if len(want) == 0 {
		return sought == "" || strings.Contains(text, sought)
	}
	for i, w := range want {
		if !slices.ContainsFunc(have, func(h string) bool { return h == w || i == len(want)-1 && strings.HasPrefix(h, w) }) {
			return false
		}
	}
	return true
}
