package reputation

import (
	"context"
	"math"
	"testing"
	"time"

	"postrider/internal/relay"
)

var noon = time.Date(2026, 2, 3, 12, 0, 0, 0, time.UTC)

const week = 7 * 24 * time.Hour

// life is what a simulated sender does each day: so many mails, of which so many in a
// thousand have each fault.
type life struct {
	days                                 int
	mails, nobody, spam, complaint, read float64
}

// live gives the days of a sender that lived so, up to noon.
func live(lives ...life) (days []Day) {
	n := 0
	for _, l := range lives {
		n += l.days
	}
	start := relay.PerDay.Start(noon).AddDate(0, 0, 1-n)
	for _, l := range lives {
		for range l.days {
			d := Day{Start: start, Failed: l.mails * (l.nobody + l.spam) / 1000, Engaged: l.mails * l.read / 1000}
			d.Delivered = l.mails - d.Failed
			d.Faults[Nobody], d.Faults[Spam], d.Faults[Complaint] = l.mails*l.nobody/1000, l.mails*l.spam/1000, l.mails*l.complaint/1000
			days, start = append(days, d), start.AddDate(0, 0, 1)
		}
	}
	return days
}

func TestSenders(t *testing.T) {
	good := life{30, 1000, 5, 1, 0.1, 200}
	spammer := life{30, 1000, 120, 200, 5, 0}
	for name, c := range map[string]struct {
		days     []Day
		from, to float64
		worst    string // reason
	}{
		"nobody knows it":                    {nil, 74, 76, "little-mail"},
		"good":                               {live(good), 92, 100, "no-such-mailbox"},
		"good, and widely read":              {live(life{30, 1000, 5, 1, 0.1, 400}), 93, 100, "no-such-mailbox"},
		"a spammer":                          {live(spammer), 0, 10, "content-or-spam"},
		"many complaints":                    {live(life{30, 1000, 5, 1, 4, 100}), 25, 50, "complaints"},
		"an old list":                        {live(life{30, 1000, 80, 5, 0.2, 50}), 35, 60, "no-such-mailbox"},
		"good, a spammer since today":        {live(good, life{1, 5000, 100, 300, 5, 0}), 0, 35, "content-or-spam"},
		"a spammer, good for a week":         {live(spammer, life{7, 1000, 5, 1, 0.1, 200}), 10, 35, "content-or-spam"},
		"a spammer, good for a month":        {live(spammer, good), 75, 90, "content-or-spam"},
		"new, all good":                      {live(life{2, 100, 0, 0, 0, 200}), 88, 100, "little-mail"},
		"tiny":                               {live(life{30, 3, 0, 0, 0, 0}), 78, 90, "little-mail"},
		"tiny, one bounce":                   {append(live(life{30, 3, 0, 0, 0, 0}), bad(Nobody)), 62, 85, "little-mail"},
		"the first mail bounces":             {[]Day{bad(Nobody)}, 60, 72, "little-mail"},
		"the first mail is complained about": {[]Day{bad(Complaint)}, 60, 72, "little-mail"},
		"silent for a year":                  {[]Day{{Start: noon.AddDate(-1, 0, 0), Delivered: 1e6}}, 74, 76, "little-mail"},
	} {
		s := Of(c.days, noon, week)
		if s.Value < c.from || s.Value > c.to || len(s.Reasons) == 0 || s.Reasons[0].Name != c.worst {
			t.Errorf("%s: %.1f (%.1f to %.1f), %+v; want %v to %v, %s first", name, s.Value, s.Low, s.High, s.Reasons, c.from, c.to, c.worst)
		}
		if s.Low > s.Value || s.High < s.Value || s.Low < 0 || s.High > 100 {
			t.Errorf("%s: %v is not between %v and %v", name, s.Value, s.Low, s.High)
		}
		sum := 100.0
		for _, r := range s.Reasons {
			sum += r.Points
			if r.Text == "" || r.Points < 0 && r.Advice == "" {
				t.Errorf("%s: nobody is told why: %+v", name, r)
			}
		}
		if math.Abs(sum-s.Value) > 0.5 {
			t.Errorf("%s: 100 with all reasons is %.1f, the score %.1f", name, sum, s.Value)
		}
	}
}

// bad is one mail, today, that had the fault.
func bad(f Fault) Day {
	d := Day{Start: relay.PerDay.Start(noon), Delivered: 1}
	if f != Complaint {
		d.Delivered, d.Failed = 0, 1
	}
	d.Faults[f] = 1
	return d
}

// Little mail says little: the range shrinks with the mail.
func TestUncertainty(t *testing.T) {
	wide := math.Inf(1)
	for _, mails := range []float64{1, 30, 1000, 100_000} {
		s := Of(live(life{14, mails, 5, 1, 0.1, 0}), noon, week)
		if w := s.High - s.Low; w >= wide {
			t.Errorf("%v mails a day: from %v to %v", mails, s.Low, s.High)
		} else {
			wide = w
		}
	}
	if wide > 4 {
		t.Errorf("of 100000 mails a day the score is still within %v points only", wide)
	}
}

// Each fault weighs, and each in its order: complaints most.
func TestWeights(t *testing.T) {
	last := -1.0
	for f := Complaint; f < faults; f++ {
		d := Day{Start: noon, Delivered: 9900, Failed: 100}
		d.Faults[f] = 100
		s := Of([]Day{d}, noon, week)
		if s.Value < last || s.Value > 97.5 {
			t.Errorf("one in a hundred with %s: %.1f, after %.1f", weights[f].name, s.Value, last)
		}
		last = s.Value
	}
	if calm := Of([]Day{{Start: noon, Delivered: 10000}}, noon, week); calm.Value < 99 {
		t.Errorf("without a fault: %v", calm.Value)
	}
}

func TestAdd(t *testing.T) {
	var d Day
	for _, c := range []relay.Count{
		{Kind: relay.EventDelivered, N: 100}, {Kind: relay.EventBounced, Category: "hard/no-such-mailbox", N: 4},
		{Kind: relay.EventBounced, Mark: relay.MarkLate, Category: "block/content-or-spam", N: 2}, {Kind: relay.EventBounced, Category: "soft/mailbox-full", N: 1},
		{Kind: relay.EventDeferred, Category: "block/sender-reputation", N: 50}, {Kind: relay.EventDeferred, Category: "soft/greylisted", N: 50},
		{Kind: relay.EventComplained, Mark: relay.MarkFirst, N: 3}, {Kind: relay.EventComplained, N: 9},
		{Kind: relay.EventOpened, Category: "machine", Mark: relay.MarkFirst, N: 70}, {Kind: relay.EventOpened, Mark: relay.MarkPerson, N: 20},
		{Kind: relay.EventExpired, N: 1}, {Kind: relay.EventAccepted, N: 1000},
	} {
		d.Add(&c)
	}
	want := Day{Delivered: 98, Failed: 8, Engaged: 20}
	want.Faults[Nobody], want.Faults[Spam], want.Faults[Reputation], want.Faults[Complaint] = 4, 2, 5, 3
	if d != want {
		t.Errorf("%+v, want %+v", d, want)
	}
}

// counts are a store.
type counts []*relay.Count

func (c counts) Counts(context.Context, relay.ID, relay.CountFilter) ([]*relay.Count, error) {
	return c, nil
}
func (c counts) Now() time.Time { return noon }

func TestLook(t *testing.T) {
	today := relay.PerDay.Start(noon)
	b := &Book{Store: counts{
		{At: today.AddDate(0, 0, -3), Domain: "a.test", Kind: relay.EventDelivered, N: 1000},
		{At: today.AddDate(0, 0, -1), Domain: "b.test", Kind: relay.EventDelivered, N: 1000},
		{At: today, Domain: "a.test", Kind: relay.EventComplained, Mark: relay.MarkFirst, N: 100},
	}, HalfLife: week}
	got, err := b.Look(t.Context(), relay.ID{1}, relay.ByDomain, func(c *relay.Count) string { return c.Domain }, nil, 3)
	if err != nil || len(got) != 2 || got[0].Key != "a.test" || got[1].Key != "b.test" {
		t.Fatalf("%+v, %v", got, err)
	}
	a, h := got[0], got[0].History
	if a.Value > 20 || len(h) != 3 || !h[2].At.Equal(today) || h[0].Value < 90 || h[2].Value > 20 || h[1].Value < 90 {
		t.Errorf("%+v", a)
	}
	all, err := (&Book{Store: counts{}, HalfLife: week}).Look(t.Context(), relay.ID{1}, "", func(*relay.Count) string { return "" }, nil, 0)
	if err != nil || len(all) != 1 || math.Round(all[0].Value) != 75 {
		t.Errorf("of one that nobody knows: %+v, %v", all, err)
	}
}
