package limit

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"postrider/internal/relay"
)

// warning is that a limit is used up to a percentage.
type warning struct {
	line
	percent    int64
	used       int64
	start, end time.Time
}

// notice queues a warning where a fetch passed 80, 90 or 100 %.
func (l *Limiter) notice(n *line, k relay.Take, got relay.Taken, now time.Time) {
	if n.limit.Per == relay.PerSecond || k.Most <= 0 {
		return
	}
	for _, percent := range []int64{100, 90, 80} {
		mark := (k.Most*percent + 99) / 100
		if after := got.Before + got.Got; got.Before < mark && after >= mark {
			w := warning{line: *n, percent: percent, used: after, start: k.Start, end: k.End}
			l.mu.Lock()
			l.news = append(l.news, w)
			l.mu.Unlock()
			return // of several at once the highest is enough
		}
	}
}

// Run gives back what this node does not use, and writes warnings, until ctx ends.
// Then it gives back the rest.
func (l *Limiter) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second) // drain: what is not given back is lost until its period ends
			defer cancel()
			return l.tend(closing, 0)
		case <-tick.C:
		}
		if err := l.tend(ctx, unused); err != nil && ctx.Err() == nil {
			l.log.Warn("limits not tended", "err", err)
		}
	}
}

// tend gives back what was not used for that long, writes warnings, and forgets
// accounts that send nothing.
func (l *Limiter) tend(ctx context.Context, idle time.Duration) error {
	now := l.store.Now()
	l.mu.Lock()
	tenants := maps.Clone(l.tenants)
	news := l.news
	l.news = nil
	l.mu.Unlock()
	var back []relay.Take
	for id, t := range tenants {
		back = append(back, t.spare(id, now, idle)...)
		l.forget(id, t, now)
	}
	for some := range slices.Chunk(back, 100) {
		if _, err := l.store.TakeUsage(ctx, some); err != nil {
			return fmt.Errorf("give back: %w", err)
		}
	}
	for _, w := range news {
		if err := l.warn(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

// spare takes out what is to be given back.
func (t *tenant) spare(id relay.ID, now time.Time, idle time.Duration) []relay.Take {
	t.mu.Lock()
	defer t.mu.Unlock()
	back := t.late
	t.late = nil
	for _, c := range t.counters {
		start, end := window(c.per, now)
		if c.per == relay.PerSecond || !c.start.Equal(start) {
			continue // it fills up by itself
		}
		if spare := c.Idle(now, idle); spare > 0 {
			back = append(back, relay.Take{Subject: c.subject, Start: start, End: end, Want: -spare})
		}
	}
	for i := range back {
		back[i].Account = id
	}
	return back
}

// forget drops a tenant that has used nothing for long and has nothing.
func (l *Limiter) forget(id relay.ID, t *tenant, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fetching != nil || len(t.late) > 0 {
		return
	}
	for _, c := range t.counters {
		if c.waiting > 0 || c.Have() > 0 || now.Sub(c.Used()).Abs() < forgotten {
			return
		}
	}
	t.gone = true
	l.mu.Lock() // after t.mu, as where a warning is queued
	defer l.mu.Unlock()
	delete(l.tenants, id)
}

// warn writes a warning, once for all nodes: whoever is first takes the one that
// there is in the period.
func (l *Limiter) warn(ctx context.Context, w warning) error {
	got, err := l.store.TakeUsage(ctx, []relay.Take{{Account: w.account, Subject: "warned " + strconv.FormatInt(w.percent, 10) + " " + w.subject(),
		Start: w.start, End: w.end, Want: 1, Most: 1}})
	if err != nil {
		return fmt.Errorf("write warning: %w", err)
	}
	if got[0].Got == 0 {
		return nil
	}
	after, err := json.Marshal(Warning{Limit: w.limit, Whose: w.whose, Credential: w.key.credential, Percent: w.percent, Used: w.used, Until: w.end})
	if err != nil {
		return fmt.Errorf("write warning: %w", err)
	}
	l.log.Warn("limit nearly used up", "account", w.account, "of", w.whose, "limit", w.limit.String(), "percent", w.percent, "until", w.end)
	change := relay.Change{At: l.store.Now(), Account: w.account, Actor: relay.Actor{Name: "postrider"}, Action: "limit.warning", Object: w.subject(), After: after}
	if err := l.store.Note(ctx, &change); err != nil {
		return fmt.Errorf("write warning: %w", err)
	}
	return nil
}

// Warning is what the audit log tells of a limit that is nearly used up.
type Warning struct {
	Limit      relay.Limit `json:"limit"`
	Whose      string      `json:"whose"`
	Credential relay.ID    `json:"credential,omitzero"` // zero: the account
	Percent    int64       `json:"percent"`             // 80, 90 or 100
	Used       int64       `json:"used"`                // about
	Until      time.Time   `json:"until"`
}

// State is a limit and what of it is used up. Nodes fetch a little in advance,
// which counts as used until they give it back.
type State struct {
	Limit relay.Limit
	Whose string
	Used  int64     // 0 for limits per second
	Reset time.Time // when it begins anew; zero for limits per second
}

// States gives the limits that hold for an order, and what is used up of each.
func (l *Limiter) States(ctx context.Context, o Order) ([]State, error) {
	all, err := l.states(ctx, &o)
	if err != nil || o.Manager == nil {
		return all, err
	}
	above, err := l.states(ctx, o.Manager)
	return append(all, above...), err
}

func (l *Limiter) states(ctx context.Context, o *Order) ([]State, error) {
	lines := o.lines()
	if len(lines) == 0 {
		return nil, nil
	}
	now := l.store.Now()
	used, err := l.store.Usage(ctx, o.Account.ID, now)
	if err != nil {
		return nil, err
	}
	var all []State
	for _, n := range lines {
		s := State{Limit: n.limit, Whose: n.whose}
		if n.limit.Per != relay.PerSecond {
			start, end := window(n.limit.Per, now)
			s.Reset = end
			for _, u := range used {
				if u.Subject == n.subject() && u.Start.Equal(start) {
					s.Used = u.Used
				}
			}
		}
		all = append(all, s)
	}
	return all, nil
}
