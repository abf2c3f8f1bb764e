package report

import (
	"context"
	"math"
	"time"

	"postrider/internal/relay"
)

// Timing is how long mail took from when it was to go until a receiver had it.
type Timing struct {
	Start              time.Time // of the interval; zero where there is none
	Key                string
	Delivered          int64
	P50, P90, P95, P99 time.Duration
}

// Timing gives times to deliver. They come of buckets, each one and a half times as
// long as the one before: within one, times are taken to be spread evenly.
func (r *Reports) Timing(ctx context.Context, q Query) (lines []Timing, more bool, err error) {
	if err := r.check(ctx, &q); err != nil {
		return nil, false, err
	}
	var out Report
	keys, err := r.keys(ctx, &q, &out)
	if err != nil || q.By != "" && len(keys) == 0 {
		return nil, false, err
	}
	starts := q.starts()
	if err := fits(keys, starts); err != nil {
		return nil, false, err
	}
	f := q.filter(uniqueDimensions(q.By, relay.ByLatency)...)
	f.Kinds = []relay.Kind{relay.EventDelivered}
	if q.Interval != "" {
		if f.Per = relay.PerHour; q.Interval != "hour" && q.Zone == time.UTC {
			f.Per = relay.PerDay
		}
	}
	counts, err := r.counts(ctx, q.Account, f)
	if err != nil {
		return nil, false, err
	}
	if len(keys) == 0 {
		keys = []string{""}
	}
	type place struct {
		key   string
		start int
	}
	cells := map[place]histogram{}
	for _, c := range counts {
		p := place{key: KeyOf(q.By, c)}
		if len(starts) > 0 {
			p.start = bucket(starts, c.At)
		}
		if cells[p] == nil {
			cells[p] = histogram{}
		}
		cells[p][c.Latency] += c.N
	}
	if len(starts) == 0 {
		starts = []time.Time{{}}
	}
	for _, k := range keys {
		for i, s := range starts {
			h := cells[place{k, i}]
			if h == nil && q.By != "" {
				continue // nothing was delivered
			}
			lines = append(lines, Timing{Start: s, Key: k, Delivered: h.sum(), P50: h.percentile(50), P90: h.percentile(90), P95: h.percentile(95), P99: h.percentile(99)})
		}
	}
	return lines, out.More, nil
}

// histogram counts by bucket of time.
type histogram map[int]int64

func (h histogram) sum() (n int64) {
	for _, v := range h {
		n += v
	}
	return n
}

// percentile is the time within which so many of a hundred were delivered.
func (h histogram) percentile(p int) time.Duration {
	n := h.sum()
	if n == 0 {
		return 0
	}
	rank := float64(n) * float64(p) / 100
	for b, seen := 1, float64(0); ; b++ {
		in := float64(h[b])
		if in > 0 && seen+in >= rank {
			from, to := relay.LatencyBounds(b)
			return from + time.Duration(math.Round(float64(to-from)*(rank-seen)/in)).Round(time.Millisecond)
		}
		if seen += in; seen >= float64(n) || b > 1000 {
			return 0
		}
	}
}
