package report

import (
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"postrider/internal/relay"
	"postrider/internal/store"
	"postrider/internal/store/sqlite"
	"postrider/internal/store/storetest"
)

// noon is a Tuesday.
var noon = time.Date(2026, 2, 3, 12, 0, 0, 0, time.UTC)

// world is a store with mail in it.
type world struct {
	*testing.T
	db    *store.DB
	me    relay.ID
	lease int64
	*Reports
}

func newWorld(t *testing.T) *world {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "mail.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	w := &world{T: t, db: db, Reports: &Reports{Store: db, Hours: 35 * 24 * time.Hour, Now: func() time.Time { return noon.Add(time.Hour) }}}
	if w.me, err = db.EnsureAccount(t.Context(), "me"); err != nil {
		t.Fatal(err)
	}
	if w.lease, err = db.Join(t.Context(), "node"); err != nil {
		t.Fatal(err)
	}
	return w
}

// send puts n messages at a time, and settles each as one of the kind, a while later.
func (w *world) send(n int, at time.Time, took time.Duration, kind relay.Kind, provider, category string, tags ...string) (last relay.DeliveryID) {
	w.Helper()
	for range n {
		s := storetest.Submission(w.me, at, []byte("x"), "a@x.test")
		s.Message.Tags = tags
		last = s.Deliveries[0].ID
		o := relay.Outcome{Delivery: last, Account: w.me, Kind: kind, At: at.Add(took), Due: at.Add(time.Hour), Provider: provider, Host: "mx.x.test",
			Diagnosis: relay.Diagnosis{Category: category, Text: "It was so.", Advice: "Do this."}, Reply: relay.Reply{Code: 550, Text: "No"},
			Attempt: &relay.Attempt{Source: netip.MustParseAddr("192.0.2.1"), Hosts: []relay.HostTry{{Name: "mx.x.test"}}}}
		w.must(w.db.Put(w.Context(), w.lease, []*relay.Submission{s})[0])
		w.must(w.db.Settle(w.Context(), w.lease, []relay.Outcome{o})[0])
	}
	return last
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) engage(of relay.DeliveryID, kind relay.Kind, machine string) {
	w.Helper()
	w.must(w.db.Settle(w.Context(), 0, []relay.Outcome{{Delivery: of, Account: w.me, Kind: kind, At: noon, Engagement: &relay.Engagement{Machine: machine}}})[0])
}

func (w *world) counts(q Query) *Report {
	w.Helper()
	q.Account = w.me
	r, err := w.Counts(w.Context(), q)
	w.must(err)
	return r
}

// What happened in the hour in which a report begins is in it, and not in what was
// before too.
func TestBefore(t *testing.T) {
	w := newWorld(t)
	w.send(2, noon.Add(5*time.Minute), time.Second, relay.EventDelivered, "Gmail", "")
	w.send(1, noon.Add(-5*time.Minute), time.Second, relay.EventDelivered, "Gmail", "")
	r := w.counts(Query{Since: noon.Add(10 * time.Minute), Until: noon.Add(time.Hour)})
	if r.Total.Delivered != 2 || r.Before.Delivered != 1 {
		t.Errorf("%d delivered, %d before", r.Total.Delivered, r.Before.Delivered)
	}
	w.send(1, noon.Add(5*time.Minute), time.Second, relay.EventBounced, "Gmail", "hard/no-such-mailbox")
	if got, err := w.Failures(t.Context(), Query{Account: w.me, Since: noon.Add(10 * time.Minute), Until: noon.Add(time.Hour)}); err != nil || len(got) != 1 || got[0].N != 1 || got[0].Before != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestCounts(t *testing.T) {
	w := newWorld(t)
	day := 24 * time.Hour
	w.send(4, noon.Add(-10*day), time.Second, relay.EventDelivered, "Gmail", "")
	w.send(6, noon.Add(-day), time.Second, relay.EventDelivered, "Gmail", "", "shop")
	one := w.send(1, noon.Add(-time.Hour), time.Second, relay.EventDelivered, "Gmail", "")
	w.send(2, noon.Add(-time.Hour), time.Second, relay.EventBounced, "Gmail", "hard/no-such-mailbox", "shop")
	w.send(1, noon.Add(-time.Hour), time.Second, relay.EventBounced, "Yahoo", "block/content-or-spam")
	w.send(5, noon.Add(-time.Hour), time.Second, relay.EventDeferred, "Yahoo", "soft/greylisted")
	w.engage(one, relay.EventOpened, "a proxy")
	w.engage(one, relay.EventOpened, "")
	w.engage(one, relay.EventOpened, "")
	w.engage(one, relay.EventClicked, "")
	r := w.counts(Query{})
	total := Figures{Sent: 15, Delivered: 7, Deferred: 5, Bounced: 3, Hard: 2, Block: 1, Opened: 1, Read: 1, Opens: 3, MachineOpens: 1, Clicked: 1, Followed: 1, Clicks: 1}
	if r.Total.Figures != total || len(r.Lines) != 1 || r.Lines[0].Figures != total || r.Before.Figures != (Figures{Sent: 4, Delivered: 4}) {
		t.Errorf("%+v", r)
	}
	if got := r.Total.Rates; got.Delivery != 0.7 || got.Bounce != 0.3 || got.HardBounce != 0.2 || got.BlockBounce != 0.1 || got.Deferral != 5./15 || got.PersonOpen != 1./7 || r.Before.Delivery != 1 {
		t.Errorf("rates %+v", got)
	}
	r = w.counts(Query{By: relay.ByProvider})
	if len(r.Lines) != 2 || r.Lines[0].Key != "Gmail" || r.Lines[0].Sent != 0 || r.Lines[0].Delivered != 7 || r.Lines[1].Bounce != 1 {
		t.Errorf("by provider: %+v", r.Lines)
	}
	r = w.counts(Query{By: relay.ByProvider, Top: 1, Interval: "day"})
	if !r.More || len(r.Lines) != 8 || r.Lines[6].Delivered != 6 || r.Lines[7].Delivered != 1 || r.Lines[0].Figures != (Figures{}) {
		t.Errorf("by day: %+v", r.Lines)
	}
	// A category's rates are parts of all that was tried, not of itself.
	r = w.counts(Query{By: relay.ByCategory})
	for _, l := range r.Lines {
		if l.Key == "hard/no-such-mailbox" && l.Bounce != 0.2 {
			t.Errorf("%+v", l)
		}
	}
	if len(r.Lines) != 4 { // and machines
		t.Errorf("by category: %+v", r.Lines)
	}
	r = w.counts(Query{Where: map[relay.Dimension][]string{relay.ByCategory: {"block/content-or-spam"}}, Interval: "day"})
	if r.Total.Bounce != 0.1 || len(r.Lines) != 8 || r.Lines[7].Bounce != 1./4 || r.Lines[7].BlockBounce != r.Lines[7].Bounce {
		t.Errorf("of one category: %+v", r)
	}
	for _, where := range []map[relay.Dimension][]string{{relay.ByCategory: {"Hard"}}, {relay.ByCategory: {"no-such-mailbox"}}, {relay.ByCategory: {"hard/no-such-mailbox", "soft"}}} {
		if r := w.counts(Query{Where: where}); r.Total.Figures.Bounced != 2 {
			t.Errorf("%v: %+v", where, r.Total.Figures)
		}
	}
	for name, bounced := range map[string]int64{"gmail": 2, "yahoo": 1, "GMX": 0} {
		where := map[relay.Dimension][]string{relay.ByProvider: {name}}
		if r := w.counts(Query{Where: where}); r.Total.Figures.Bounced != bounced || (r.Before.Delivered > 0) != (name == "gmail") {
			t.Errorf("%s: %+v", name, r)
		}
		got, err := w.Failures(t.Context(), Query{Account: w.me, Where: where})
		if err != nil || len(got) > 0 && got[0].N != bounced || (len(got) > 0) != (bounced > 0) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	r = w.counts(Query{Where: map[relay.Dimension][]string{relay.ByTag: {"shop"}}})
	if r.Total.Sent != 8 || r.Total.Delivered != 6 || r.Total.Bounced != 2 {
		t.Errorf("of a tag: %+v", r.Total)
	}
	for name, q := range map[string]Query{"interval": {Interval: "year"}, "backwards": {Since: noon, Until: noon.Add(-day)},
		"hours that are gone": {Interval: "hour", Since: noon.AddDate(0, -3, 0)}, "too long": {Interval: "day", Since: noon.AddDate(-100, 0, 0)}} {
		q.Account = w.me
		if _, err := w.Counts(t.Context(), q); relay.CodeOf(err) != relay.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// No rate is less than nothing, also of a diagnosis with what bounced late.
func TestRateOfLateBounces(t *testing.T) {
	late := Figures{Bounced: 2, Hard: 2, Late: 2}
	got := late.rates(&Figures{Delivered: 10, Bounced: 2, Hard: 2, Late: 2})
	if got.Delivery != 0 || got.Bounce != 0.2 {
		t.Errorf("%+v", got)
	}
}

// Days begin where the reader lives, on the days that are 23 or 25 hours long too.
func TestZones(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	w.Reports.Now = func() time.Time { return time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC) }
	for _, at := range []string{"2026-03-28T22:30:00Z", "2026-03-28T23:30:00Z", "2026-03-29T21:30:00Z", "2026-03-29T22:30:00Z", "2026-03-30T21:30:00Z"} {
		when, _ := time.Parse(time.RFC3339, at)
		w.send(1, when, time.Minute, relay.EventDelivered, "", "")
	}
	for zone, want := range map[*time.Location]string{berlin: "[1 2 2 0]", time.UTC: "[2 2 1 0]"} {
		r := w.counts(Query{Interval: "day", Zone: zone, Since: time.Date(2026, 3, 28, 0, 0, 0, 0, zone), Until: time.Date(2026, 4, 1, 0, 0, 0, 0, zone)})
		var got []int64
		for _, l := range r.Lines {
			got = append(got, l.Delivered)
		}
		if fmt.Sprint(got) != want {
			t.Errorf("%v: %v, want %s", zone, got, want)
		}
	}
	q := Query{Interval: "month", Zone: berlin, Since: time.Date(2026, 1, 31, 0, 0, 0, 0, berlin), Until: noon.AddDate(0, 1, 0)}
	if s := q.starts(); len(s) != 3 || s[2].Month() != time.March || s[0].Day() != 1 {
		t.Errorf("months: %v", s)
	}
	q.Interval = "week"
	if s := q.starts(); s[0].Weekday() != time.Monday || s[0].After(q.Since) || !s[1].After(q.Since) {
		t.Errorf("weeks: %v", s)
	}
}

func TestTiming(t *testing.T) {
	w := newWorld(t)
	at := noon.Add(-2 * time.Hour)
	w.send(90, at, 300*time.Millisecond, relay.EventDelivered, "Gmail", "")
	w.send(10, at, 20*time.Minute, relay.EventDelivered, "Gmail", "")
	w.send(1, at, time.Hour, relay.EventDelivered, "Yahoo", "")
	w.send(1, at, time.Hour, relay.EventDeferred, "Slow", "soft/greylisted")
	lines, more, err := w.Timing(t.Context(), Query{Account: w.me, By: relay.ByProvider})
	if err != nil || more || len(lines) != 2 || lines[0].Key != "Gmail" || lines[0].Delivered != 100 {
		t.Fatalf("%+v, %v", lines, err)
	}
	within := func(what string, got, want time.Duration) {
		t.Helper()
		if got < want*2/3 || got > want*3/2 {
			t.Errorf("%s: %v, want about %v", what, got, want)
		}
	}
	within("p50", lines[0].P50, 300*time.Millisecond)
	within("p90", lines[0].P90, 300*time.Millisecond)
	within("p95", lines[0].P95, 20*time.Minute)
	within("p99", lines[0].P99, 20*time.Minute)
	within("of the other", lines[1].P50, time.Hour)
	if lines, _, err = w.Timing(t.Context(), Query{Account: w.me, Interval: "hour", Since: at.Truncate(time.Hour), Until: noon}); err != nil || len(lines) != 2 || lines[0].Delivered != 100 || lines[1].P99 < time.Minute {
		t.Errorf("by hour: %+v, %v", lines, err)
	}
	if lines, _, err = w.Timing(t.Context(), Query{Account: relay.ID{9}}); err != nil || len(lines) != 1 || lines[0].Delivered != 0 || lines[0].P50 != 0 {
		t.Errorf("of nothing: %+v, %v", lines, err)
	}
	// Not a part of it, as if it were all.
	if lines, _, err = w.Timing(t.Context(), Query{Account: w.me, Interval: "day", Since: noon.AddDate(-60, 0, 0), Until: noon}); relay.CodeOf(err) != relay.Invalid {
		t.Errorf("of 60 years: %d lines, %v", len(lines), err)
	}
}

func TestFailures(t *testing.T) {
	w := newWorld(t)
	at := noon.Add(-time.Hour)
	w.send(1, noon.AddDate(0, 0, -10), time.Second, relay.EventBounced, "Gmail", "hard/no-such-mailbox")
	last := w.send(3, at, time.Second, relay.EventBounced, "Gmail", "hard/no-such-mailbox")
	w.send(1, at, time.Second, relay.EventBounced, "Yahoo", "block/policy")
	w.send(2, at, time.Second, relay.EventExpired, "", "soft/connection-problem")
	w.send(9, at, time.Second, relay.EventDeferred, "", "soft/greylisted")
	got, err := w.Failures(t.Context(), Query{Account: w.me, Top: 2})
	if err != nil || len(got) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	f := got[0]
	if f.N != 3 || f.Share != 0.75 || f.Before != 1 || f.Example != last || f.Reply.Code != 550 || f.Diagnosis.Text != "It was so." || f.Recipient != "a@x.test" || f.Host != "mx.x.test" {
		t.Errorf("%+v, want an example %v", f, last)
	}
	if got[1].Kind != relay.EventExpired || got[1].N != 2 {
		t.Errorf("%+v", got[1])
	}
	if got, err = w.Failures(t.Context(), Query{Account: w.me}, relay.EventDeferred); err != nil || len(got) != 1 || got[0].N != 9 || got[0].Example.N != 1 {
		t.Errorf("deferred: %+v, %v", got, err)
	}
	if got, err = w.Failures(t.Context(), Query{Account: relay.ID{9}}); err != nil || len(got) != 0 {
		t.Errorf("of another account: %+v, %v", got, err)
	}
}

func TestKeeper(t *testing.T) {
	w := newWorld(t)
	now := time.Now()
	for _, days := range []int{500, 40, 40, 1} {
		w.send(1, now.AddDate(0, 0, -days).Truncate(24*time.Hour).Add(5*time.Hour), time.Minute, relay.EventDelivered, "", "")
	}
	k := &Keeper{Store: w.db, Hours: 35 * 24 * time.Hour, Keep: 400 * 24 * time.Hour, Log: slog.New(slog.DiscardHandler)}
	w.must(k.Round(t.Context()))
	got, err := w.db.Counts(t.Context(), w.me, relay.CountFilter{Per: relay.PerHour, Kinds: []relay.Kind{relay.EventDelivered}})
	if err != nil || len(got) != 2 || got[0].N != 2 || got[0].At.Hour() != 0 || got[1].At.Hour() != 5 {
		t.Errorf("%+v, %v", got, err)
	}
}
