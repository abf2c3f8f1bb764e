// Package report tells how much of an account's mail went which way, from the counts
// that the store keeps: figures and rates over time, by all that they are told apart
// by, times to deliver, and what failed most.
package report

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"postrider/internal/relay"
)

// Store keeps the counts.
type Store interface {
	Counts(ctx context.Context, account relay.ID, f relay.CountFilter) ([]*relay.Count, error)
	Example(ctx context.Context, account relay.ID, f relay.CountFilter) (relay.DeliveryID, error)
	StoryPart(ctx context.Context, account, message relay.ID, p relay.StoryPart) (*relay.Story, error)
}

// Reports answers questions.
type Reports struct {
	Store Store
	Hours time.Duration // for how long hours are kept apart
	Now   func() time.Time
}

// Query is what is asked. The zero value of each field asks for nothing special.
type Query struct {
	Account      relay.ID
	Since, Until time.Time
	Interval     string                       // of the lines: "hour", "day", "week" or "month"; empty: one for all the time
	Zone         *time.Location               // that days begin in; nil: UTC
	By           relay.Dimension              // empty: all in one
	Where        map[relay.Dimension][]string // as relay.CountFilter has it
	Top          int                          // most values of By, those with most mail; 0: 10
}

// Line is the figures of one value in one interval.
type Line struct {
	Start time.Time // of the interval; zero where there is none
	Key   string    // value of By; empty: not known
	Figures
	Rates
}

// Report answers a query.
type Report struct {
	Lines []Line // by value, that with the most mail first, and by time
	Total Line
	// Before is the total of a time as long just before.
	Before Line
	More   bool // there are more values than were asked for
}

// mostLines is how many a report may have.
const mostLines = 20_000

// Counts gives figures and rates.
func (r *Reports) Counts(ctx context.Context, q Query) (*Report, error) {
	if err := r.check(ctx, &q); err != nil {
		return nil, err
	}
	out := &Report{}
	keys, err := r.keys(ctx, &q, out)
	if err != nil {
		return nil, err
	}
	before := q
	before.Since, before.Until = q.before()
	if out.Before.Figures, err = r.total(ctx, before); err != nil {
		return nil, err
	}
	base, err := r.bases(ctx, q)
	if err != nil {
		return nil, err
	}
	was, err := r.bases(ctx, before)
	if err != nil {
		return nil, err
	}
	out.Total.Rates, out.Before.Rates = out.Total.rates(base.of(&out.Total)), out.Before.rates(was.of(&out.Before))
	if q.By == "" && q.Interval == "" {
		out.Lines = []Line{out.Total}
		return out, nil
	}
	if q.By != "" && len(keys) == 0 {
		return out, nil
	}
	starts := q.starts()
	if err := fits(keys, starts); err != nil {
		return nil, err
	}
	out.Lines, err = r.lines(ctx, q, keys, starts)
	for i := range out.Lines {
		l := &out.Lines[i]
		l.Rates = l.rates(base.of(l))
	}
	return out, err
}

// fits refuses a report of too many lines.
func fits(keys []string, starts []time.Time) error {
	n := max(len(keys), 1) * max(len(starts), 1)
	if n <= mostLines {
		return nil
	}
	return &relay.Error{Code: relay.Invalid, Text: fmt.Sprintf("The report would have %d lines; %d are allowed.", n, mostLines), Advice: "Ask for a shorter time, longer intervals or fewer values."}
}

// check refuses what makes no sense, and fills in what was left out.
func (r *Reports) check(ctx context.Context, q *Query) error {
	if q.Zone == nil {
		q.Zone = time.UTC
	}
	if q.Until.IsZero() {
		q.Until = r.Now()
	}
	if q.Since.IsZero() {
		q.Since = q.Until.AddDate(0, 0, -7)
	}
	if q.Top <= 0 {
		q.Top = 10
	}
	switch q.Interval {
	case "", "hour", "day", "week", "month":
	default:
		return &relay.Error{Code: relay.Invalid, Text: fmt.Sprintf("%q is no interval.", q.Interval), Advice: "Use hour, day, week or month."}
	}
	if !q.Since.Before(q.Until) {
		return &relay.Error{Code: relay.Invalid, Text: "The time ends before it begins."}
	}
	if kept := r.Now().Add(-r.Hours); q.Interval == "hour" && r.Hours > 0 && q.Since.Before(kept.Add(-24*time.Hour)) {
		return &relay.Error{Code: relay.Invalid, Text: fmt.Sprintf("Hours are kept apart since %s only.", kept.UTC().Format(time.DateOnly)), Advice: "Ask for days, or for a later time."}
	}
	return r.named(ctx, q)
}

// before is a time as long, just before. The hour that Since lies in is counted in
// whole, so it ends where that begins.
func (q *Query) before() (since, until time.Time) {
	until = q.Since.Truncate(time.Hour)
	return until.Add(-q.Until.Sub(q.Since)), until
}

// filter is the query as the store wants it.
func (q *Query) filter(by ...relay.Dimension) relay.CountFilter {
	return relay.CountFilter{Since: q.Since, Until: q.Until, Where: q.Where, By: by}
}

// keys gives the values that lines are about, those with most mail first, and the
// total of all.
func (r *Reports) keys(ctx context.Context, q *Query, out *Report) (keys []string, err error) {
	if out.Total.Figures, err = r.total(ctx, *q); err != nil || q.By == "" {
		return nil, err
	}
	counts, err := r.counts(ctx, q.Account, q.filter(uniqueDimensions(q.By, relay.ByCategory)...))
	if err != nil {
		return nil, err
	}
	weight := map[string]int64{}
	for _, c := range counts {
		if q.By != relay.ByCategory || c.Category != "" {
			// What was accepted has no provider and no address of ours.
			if c.Kind != relay.EventAccepted || !foreign(q.By) {
				weight[KeyOf(q.By, c)] += c.N
			}
		}
	}
	for k := range weight {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int { return cmp.Or(cmp.Compare(weight[b], weight[a]), cmp.Compare(a, b)) })
	if len(keys) > q.Top {
		keys, out.More = keys[:q.Top], true
	}
	return keys, nil
}

// foreign tells whether a dimension says something of the receiver's side, which is
// not known when mail is accepted.
func foreign(d relay.Dimension) bool {
	return d == relay.ByProvider || d == relay.BySource || d == relay.ByCategory
}

func uniqueDimensions(all ...relay.Dimension) (some []relay.Dimension) {
	for _, d := range all {
		if d != "" && !slices.Contains(some, d) {
			some = append(some, d)
		}
	}
	return some
}

// KeyOf is the value of a dimension as a text.
func KeyOf(by relay.Dimension, c *relay.Count) string {
	id := func(v relay.ID) string {
		if v.IsZero() {
			return ""
		}
		return v.String()
	}
	switch by {
	case relay.ByAccount:
		return id(c.Account)
	case relay.ByCredential:
		return id(c.Credential)
	case relay.ByStream:
		return c.Stream.String()
	case relay.ByCategory:
		return c.Category
	case relay.ByProvider:
		return c.Provider
	case relay.ByDomain:
		return c.Domain
	case relay.BySource:
		return c.Source
	case relay.ByTag:
		return c.Tag
	}
	return ""
}

// counts asks the store, and makes sure that it told all.
func (r *Reports) counts(ctx context.Context, account relay.ID, f relay.CountFilter) ([]*relay.Count, error) {
	found, err := r.Store.Counts(ctx, account, f)
	if err == nil && len(found) >= relay.MaxCounts {
		err = &relay.Error{Code: relay.Invalid, Text: "There is too much to be counted at once.", Advice: "Ask for a shorter time, longer intervals or fewer values."}
	}
	return found, err
}

func (r *Reports) total(ctx context.Context, q Query) (f Figures, err error) {
	counts, err := r.counts(ctx, q.Account, q.filter(relay.ByCategory))
	for _, c := range counts {
		f.add(c)
	}
	return f, err
}

// bases are what rates are parts of, where that is not the line itself: of a
// category, all that was tried.
type bases struct {
	own   bool
	total Figures
	times map[time.Time]*Figures
}

func (b *bases) of(l *Line) *Figures {
	if b.own {
		return &l.Figures
	}
	if f := b.times[l.Start]; f != nil {
		return f
	}
	return &b.total
}

func (r *Reports) bases(ctx context.Context, q Query) (*bases, error) {
	_, held := q.Where[relay.ByCategory]
	if !held && q.By != relay.ByCategory {
		return &bases{own: true}, nil
	}
	whole := q
	whole.By, whole.Where = "", map[relay.Dimension][]string{}
	for d, v := range q.Where {
		if d != relay.ByCategory {
			whole.Where[d] = v
		}
	}
	b := &bases{times: map[time.Time]*Figures{}}
	var err error
	if b.total, err = r.total(ctx, whole); err != nil || q.Interval == "" {
		return b, err
	}
	lines, err := r.lines(ctx, whole, nil, whole.starts())
	for i := range lines {
		b.times[lines[i].Start] = &lines[i].Figures
	}
	return b, err
}

// lines counts for each value and interval.
func (r *Reports) lines(ctx context.Context, q Query, keys []string, starts []time.Time) ([]Line, error) {
	f := q.filter(uniqueDimensions(q.By, relay.ByCategory)...)
	if len(keys) > 0 {
		f.Where = map[relay.Dimension][]string{q.By: keys}
		for d, v := range q.Where {
			if d != q.By {
				f.Where[d] = v
			}
		}
	} else {
		keys = []string{""}
	}
	if q.Interval != "" {
		if f.Per = relay.PerHour; q.Interval != "hour" && q.Zone == time.UTC {
			f.Per = relay.PerDay
		}
	} else {
		starts = []time.Time{{}}
	}
	counts, err := r.counts(ctx, q.Account, f)
	if err != nil {
		return nil, err
	}
	lines := make([]Line, 0, len(keys)*len(starts))
	place := map[string]int{}
	for _, k := range keys {
		place[k] = len(lines)
		for _, s := range starts {
			lines = append(lines, Line{Start: s, Key: k})
		}
	}
	for _, c := range counts {
		first, known := place[KeyOf(q.By, c)]
		i := 0
		if q.Interval != "" {
			i = bucket(starts, c.At)
		}
		if known {
			lines[first+i].add(c)
		}
	}
	return lines, nil
}

// starts are the beginnings of the intervals, in the zone of the query. The first
// one may begin before Since.
func (q *Query) starts() (all []time.Time) {
	if q.Interval == "" {
		return nil
	}
	t := q.Since.In(q.Zone)
	y, m, d := t.Date()
	at := func(i int) time.Time {
		switch q.Interval {
		case "hour":
			return t.Truncate(time.Hour).Add(time.Duration(i) * time.Hour)
		case "day":
			return time.Date(y, m, d+i, 0, 0, 0, 0, q.Zone)
		case "week": // they begin on Monday
			return time.Date(y, m, d-(int(t.Weekday())+6)%7+7*i, 0, 0, 0, 0, q.Zone)
		default:
			return time.Date(y, m+time.Month(i), 1, 0, 0, 0, 0, q.Zone)
		}
	}
	for i := 0; i <= mostLines; i++ {
		s := at(i)
		if !s.Before(q.Until) {
			break
		}
		all = append(all, s)
	}
	return all
}

// bucket is the interval that a count belongs to.
func bucket(starts []time.Time, t time.Time) int {
	i, exact := slices.BinarySearchFunc(starts, t, func(s, t time.Time) int { return s.Compare(t) })
	if exact {
		return i
	}
	return max(i-1, 0)
}
