package reputation

import (
	"context"
	"time"

	"postrider/internal/relay"
)

// Counts are where outcomes are counted.
type Counts interface {
	Counts(ctx context.Context, account relay.ID, f relay.CountFilter) ([]*relay.Count, error)
	Now() time.Time
}

// Book looks up scores. It keeps nothing of its own.
type Book struct {
	Store    Counts
	HalfLife time.Duration
}

// Sender is one that has a score.
type Sender struct {
	Key string // id, name or address; empty: none, or all in one
	Score
	History []Point // a day each, the oldest first
}

// Point is what a score was at the end of a day that began at At, or is now.
type Point struct {
	At    time.Time
	Value float64
	Mail  float64
}

// horizon is how many half-lives are looked back: what is older counts less than one
// in two hundred.
const horizon = 8

// Look gives the scores of an account's senders by a dimension, or of all its mail in
// one, with what they were for some days.
func (b *Book) Look(ctx context.Context, account relay.ID, by relay.Dimension, key func(*relay.Count) string, where map[relay.Dimension][]string, history int) ([]Sender, error) {
	now := b.Store.Now().UTC()
	today := relay.PerDay.Start(now)
	f := relay.CountFilter{Since: today.Add(-horizon*b.HalfLife).AddDate(0, 0, -history), Per: relay.PerDay, By: []relay.Dimension{relay.ByCategory}, Where: where,
		Kinds: []relay.Kind{relay.EventDelivered, relay.EventBounced, relay.EventExpired, relay.EventDeferred, relay.EventComplained, relay.EventOpened}}
	if by != "" {
		f.By = append(f.By, by)
	}
	counts, err := b.Store.Counts(ctx, account, f)
	if err != nil {
		return nil, err
	}
	if len(counts) >= relay.MaxCounts {
		return nil, &relay.Error{Code: relay.Invalid, Text: "There is too much to be counted at once.", Advice: "Ask for one account, or by another dimension."}
	}
	var order []string
	senders := map[string][]Day{}
	for _, c := range counts { // in order of time
		k := key(c)
		days, known := senders[k]
		if !known {
			order = append(order, k)
		}
		if n := len(days); n == 0 || !days[n-1].Start.Equal(c.At) {
			days = append(days, Day{Start: c.At})
		}
		days[len(days)-1].Add(c)
		senders[k] = days
	}
	if by == "" && len(order) == 0 {
		order = []string{""} // nobody knows it so far
	}
	out := make([]Sender, len(order))
	for i, k := range order {
		out[i] = Sender{Key: k, Score: Of(senders[k], now, b.HalfLife)}
		for n := history; n > 0; n-- {
			day := today.AddDate(0, 0, 1-n)
			end := day.AddDate(0, 0, 1).Add(-time.Microsecond)
			if end.After(now) {
				end = now
			}
			s := Of(senders[k], end, b.HalfLife)
			out[i].History = append(out[i].History, Point{At: day, Value: s.Value, Mail: s.Mail})
		}
	}
	return out, nil
}
