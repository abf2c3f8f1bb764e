package alert

import (
	"time"

	"postrider/internal/relay"
)

// Times are how long an incident takes to end, and until people are reminded.
type Times struct {
	Quiet  time.Duration
	Remind time.Duration // 0: they are not
}

// Step is what becomes of an incident.
type Step struct {
	Alert *relay.Alert // as it is now; of version 0 where it begins
	News  relay.AlertNews
	Seen  *Seen // what was seen now; nil: nothing
}

// key names an incident among those that are open.
type key struct {
	account relay.ID
	kind    relay.AlertKind
	subject string
}

// refresh is how often what is known of an incident is written anew while nothing
// else changes.
const refresh = 5 * time.Minute

// Turn says what becomes of incidents by what is seen at now: which begin, get
// worse, end, or are to be told of again. Of an incident for which looked is false
// nobody looked whether it goes on. The open ones are not changed; steps have
// copies. What stays as it is has no step.
func Turn(open []*relay.Alert, seen []Seen, looked func(*relay.Alert) bool, now time.Time, t Times) []Step {
	known := map[key]*Seen{}
	for i := range seen {
		s := &seen[i]
		k := key{s.Account, s.Kind, s.Subject}
		if before := known[k]; before == nil || s.Level > before.Level {
			known[k] = s
		}
	}
	var steps []Step
	for _, a := range open {
		k := key{a.Account, a.Kind, a.Subject}
		s := known[k]
		delete(known, k)
		if step, changed := turn(a, s, looked(a), now, t); changed {
			steps = append(steps, step)
		}
	}
	for i := range seen {
		s := &seen[i]
		k := key{s.Account, s.Kind, s.Subject}
		if known[k] != s || s.Level < 1 || !s.Until.IsZero() && !now.Before(s.Until) {
			continue
		}
		a := &relay.Alert{Account: s.Account, Kind: s.Kind, Subject: s.Subject, Opened: now, Told: now}
		steps = append(steps, Step{Alert: fill(a, s, now), News: relay.AlertOpened, Seen: s})
	}
	return steps
}

// fill writes what is seen into an incident.
func fill(a *relay.Alert, s *Seen, now time.Time) *relay.Alert {
	a.Title, a.Text, a.Advice, a.Figures, a.Until, a.Seen, a.Calm = s.Title, s.Text, s.Advice, s.Figures, s.Until, now, time.Time{}
	if s.Level > a.Level {
		a.Level, a.Severity = s.Level, s.Severity
	}
	return a
}

// turn is what becomes of an open incident.
func turn(before *relay.Alert, s *Seen, looked bool, now time.Time, t Times) (Step, bool) {
	a := *before
	over := !a.Until.IsZero() && !now.Before(a.Until) && (s == nil || !s.Until.After(a.Until))
	if over {
		a.Ended = a.Until
		return ended(&a, now), true
	}
	changed := false
	step := Step{Alert: &a, Seen: s}
	switch {
	case s != nil && s.Level > a.Level:
		fill(&a, s, now)
		step.News, changed = relay.AlertWorse, true
	case s != nil && s.Level > 0 && (now.Sub(a.Seen) >= refresh || !a.Calm.IsZero()):
		// The words of the gravest time stay, the figures are those of now.
		a.Figures, a.Seen, a.Calm, a.Until = s.Figures, now, time.Time{}, s.Until
		changed = true
	case s != nil && !a.Calm.IsZero():
		a.Calm, changed = time.Time{}, true
	case s == nil && looked && a.Calm.IsZero():
		a.Calm, changed = now, true
	}
	if looked && !a.Calm.IsZero() && now.Sub(a.Calm) >= t.Quiet {
		a.Ended = a.Calm
		return ended(&a, now), true
	}
	muted := now.Before(a.Muted)
	switch {
	case step.News != "" && muted:
		step.News, a.Missed = "", true
	case step.News == "" && !muted && a.Missed:
		step.News = relay.AlertReminder
	case step.News == "" && !muted && t.Remind > 0 && a.Taken.IsZero() && a.Calm.IsZero() && now.Sub(a.Told) >= t.Remind:
		step.News = relay.AlertReminder
	}
	if step.News != "" {
		a.Told, a.Missed, changed = now, false, true
	}
	return step, changed
}

func ended(a *relay.Alert, now time.Time) Step {
	s := Step{Alert: a, News: relay.AlertEnded}
	if now.Before(a.Muted) {
		s.News = ""
	}
	return s
}
