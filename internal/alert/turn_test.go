package alert

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"postrider/internal/relay"
)

var (
	me   = relay.ID{1}
	noon = time.Date(2026, 2, 3, 12, 0, 0, 0, time.UTC)
)

var usual = Times{Quiet: 15 * time.Minute, Remind: 24 * time.Hour}

// ledger is what a store would keep: the incidents, and what was told.
type ledger struct {
	t    *testing.T
	all  []*relay.Alert
	told []string // "opened 1", with the level
	next byte
}

func (l *ledger) open() (open []*relay.Alert) {
	for _, a := range l.all {
		if a.Ended.IsZero() {
			open = append(open, a)
		}
	}
	return open
}

// round looks once. level is what is seen: -1 nothing.
func (l *ledger) round(level int, now time.Time) {
	l.t.Helper()
	var seen []Seen
	if level >= 0 {
		seen = []Seen{{Account: me, Kind: relay.AlertBounces, Level: level, Severity: severity(level), Title: fmt.Sprint(level)}}
	}
	for _, step := range Turn(l.open(), seen, func(*relay.Alert) bool { return true }, now, usual) {
		a := step.Alert
		if a.ID.IsZero() {
			l.next++
			a.ID = relay.ID{l.next}
			l.all = append(l.all, a)
		}
		for i := range l.all {
			if l.all[i].ID == a.ID {
				l.all[i] = a
			}
		}
		if step.News != "" {
			l.told = append(l.told, fmt.Sprintf("%s %d", step.News, a.Level))
		}
	}
}

func TestTurn(t *testing.T) {
	const none = -1
	type at struct {
		minute int
		level  int
	}
	for name, c := range map[string]struct {
		rounds []at
		want   []string
		change map[int]func(*relay.Alert) // before that round
	}{
		"nothing":                         {rounds: []at{{0, none}, {1, none}}},
		"hardly anything begins nothing":  {rounds: []at{{0, 0}, {1, 0}}},
		"it begins and ends":              {rounds: []at{{0, 1}, {1, 1}, {2, none}, {16, none}, {17, none}, {18, none}}, want: []string{"opened 1", "ended 1"}},
		"it wavers":                       {rounds: []at{{0, 1}, {1, 0}, {2, 1}, {3, none}, {10, 1}, {11, none}, {25, none}, {26, none}}, want: []string{"opened 1", "ended 1"}},
		"between well and wrong it stays": {rounds: []at{{0, 1}, {1, 0}, {60, 0}, {600, 0}}, want: []string{"opened 1"}},
		"it gets worse, once":             {rounds: []at{{0, 1}, {1, 2}, {2, 1}, {3, 2}}, want: []string{"opened 1", "worse 2"}},
		"a day later":                     {rounds: []at{{0, 1}, {1439, 1}, {1440, 1}, {1441, 1}, {2880, 1}}, want: []string{"opened 1", "reminder 1", "reminder 1"}},
		"somebody looks after it": {rounds: []at{{0, 1}, {1440, 1}, {1441, 2}, {1450, none}, {1466, none}}, want: []string{"opened 1", "worse 2", "ended 2"},
			change: map[int]func(*relay.Alert){1: func(a *relay.Alert) { a.Taken = noon }}},
		"muted": {rounds: []at{{0, 1}, {1, 2}, {59, 2}, {60, 2}, {61, 2}}, want: []string{"opened 1", "reminder 2"},
			change: map[int]func(*relay.Alert){1: func(a *relay.Alert) { a.Muted = noon.Add(time.Hour) }}},
		"muted, and nothing happened": {rounds: []at{{0, 1}, {60, 1}}, want: []string{"opened 1"},
			change: map[int]func(*relay.Alert){1: func(a *relay.Alert) { a.Muted = noon.Add(time.Hour) }}},
		"it comes again": {rounds: []at{{0, 1}, {1, none}, {16, none}, {17, 1}}, want: []string{"opened 1", "ended 1", "opened 1"}},
	} {
		l := &ledger{t: t}
		for i, r := range c.rounds {
			if f := c.change[i]; f != nil {
				f(l.all[0])
			}
			l.round(r.level, noon.Add(time.Duration(r.minute)*time.Minute))
		}
		if fmt.Sprint(l.told) != fmt.Sprint(c.want) {
			t.Errorf("%s: told %q, want %q", name, l.told, c.want)
		}
	}
}

// An incident that nobody looked at does not end, though it was well before.
func TestTurnUnseen(t *testing.T) {
	a := &relay.Alert{ID: relay.ID{1}, Account: me, Kind: relay.AlertBlocklist, Level: 1, Opened: noon, Seen: noon, Told: noon, Calm: noon}
	if steps := Turn([]*relay.Alert{a}, nil, func(*relay.Alert) bool { return false }, noon.Add(time.Hour), usual); len(steps) != 0 {
		t.Errorf("%+v", steps)
	}
}

// What ends by itself does so at its time; nobody looked says nothing.
func TestTurnUntil(t *testing.T) {
	until := noon.Add(time.Hour)
	s := Seen{Account: me, Kind: relay.AlertQuota, Subject: "x", Level: 1, Severity: relay.SeverityWarning, Until: until}
	first := Turn(nil, []Seen{s}, nil, noon, usual)
	if len(first) != 1 || first[0].News != relay.AlertOpened {
		t.Fatalf("%+v", first)
	}
	open := []*relay.Alert{first[0].Alert}
	not := func(*relay.Alert) bool { return false }
	if steps := Turn(open, nil, not, until.Add(-time.Minute), usual); len(steps) != 0 {
		t.Errorf("before its time: %+v", steps)
	}
	last := Turn(open, nil, not, until.Add(time.Minute), usual)
	if len(last) != 1 || last[0].News != relay.AlertEnded || !last[0].Alert.Ended.Equal(until) {
		t.Errorf("at its time: %+v", last)
	}
	if !open[0].Ended.IsZero() {
		t.Error("the incident that was given is changed")
	}
	if steps := Turn(nil, []Seen{s}, nil, until, usual); len(steps) != 0 {
		t.Errorf("it begins after its end: %+v", steps)
	}
}

// Days of spikes and of rates that waver about the threshold: what is told has a
// beginning and an end in turn, and is far less than what is seen.
func TestTurnSimulated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		l := &ledger{t: t}
		bad := 0
		for minute := range 7 * 24 * 60 {
			level := -1
			hour := minute / 60
			switch {
			case hour%24 >= 8 && hour%24 < 10: // it wavers about the threshold
				level = r.IntN(3) - 1
			case hour%24 == 15 && minute%60 < 30: // a spike
				level = 2
			case r.IntN(500) == 0: // a single minute
				level = 1
			}
			if level > 0 {
				bad++
			}
			l.round(level, time.Now())
			time.Sleep(time.Minute)
		}
		open := false
		for _, news := range l.told {
			switch news[:4] {
			case "open":
				if open {
					t.Fatal("it begins twice")
				}
				open = true
			case "ende":
				if !open {
					t.Fatal("it ends twice")
				}
				open = false
			}
		}
		if len(l.open()) > 1 || len(l.told) > 7*2*2+80 || bad < 400 {
			t.Errorf("%d minutes were bad, %d things were told", bad, len(l.told))
		}
		t.Logf("%d bad minutes, %d incidents, %d things told", bad, len(l.all), len(l.told))
	})
}
