package bench

import (
	"cmp"
	"math"
	"slices"
)

// Throughput is what came of one part.
type Throughput struct {
	Part     string     `json:"part"`
	What     string     `json:"what"`
	Bytes    int        `json:"bytes"`    // of a message
	Messages int        `json:"messages"` // of a run
	Sessions int        `json:"sessions"` // at once
	Systems  []Measured `json:"systems"`
}

// Measured is what one system did, over all rounds.
type Measured struct {
	System string            `json:"system"`
	Rate   Spread            `json:"rate"`             // messages a second, until the receiver has them all
	Of     map[string]Spread `json:"of,omitempty"`     // the rate as a share of another system's in the same round
	CPUOf  map[string]Spread `json:"cpu_of,omitempty"` // all processor time of its programs, as a share of the other's in the same round
	CPU    map[string]Spread `json:"cpu,omitempty"`    // seconds of processor time per 1,000 messages, by program
	Source Spread            `json:"source"`           // the same of what sends
	Memory map[string]int64  `json:"memory,omitempty"` // the most bytes in any round, by program
}

// Spread is the median of a figure's rounds, and its range.
type Spread struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

// spread is about no rounds only where a figure does not exist.
func spread(v []float64) Spread {
	if len(v) == 0 {
		return Spread{}
	}
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	return Spread{Median: round((v[(n-1)/2] + v[n/2]) / 2), Low: round(v[0]), High: round(v[n-1])}
}

// round leaves no digits that mean nothing.
func round(v float64) float64 { return math.Round(v*1000) / 1000 }

// each makes a spread of something of all runs.
func each(runs []*run, f func(i int, r *run) float64) Spread {
	var v []float64
	for i, r := range runs {
		v = append(v, f(i, r))
	}
	return spread(v)
}

// allCPU adds up the programs of a system. No more exact than a tick of the
// kernel's, and not nothing: it is divided by.
func (r *run) allCPU() float64 {
	sum := 0.0
	for _, v := range r.cpu {
		sum += v
	}
	return max(sum, 1./ticks)
}

// summary joins the rounds.
func (p *part) summary(sessions int, runs map[string][]*run) *Throughput {
	t := &Throughput{Part: p.name, What: p.what, Bytes: p.bytes, Messages: p.messages, Sessions: sessions}
	thousand := 1000 / float64(p.messages)
	for _, e := range p.entries {
		mine := runs[e.name]
		m := Measured{System: e.name, Of: map[string]Spread{}, CPUOf: map[string]Spread{}, CPU: map[string]Spread{}, Memory: map[string]int64{},
			Rate:   each(mine, func(_ int, r *run) float64 { return r.rate }),
			Source: each(mine, func(_ int, r *run) float64 { return r.source * thousand })}
		for _, other := range e.of {
			m.Of[other] = each(mine, func(i int, r *run) float64 { return r.rate / runs[other][i].rate })
			if other != direct {
				m.CPUOf[other] = each(mine, func(i int, r *run) float64 { return r.allCPU() / runs[other][i].allCPU() })
			}
		}
		for _, process := range e.system.programs {
			m.CPU[process.name] = each(mine, func(_ int, r *run) float64 { return r.cpu[process.name] * thousand })
			m.Memory[process.name] = slices.MaxFunc(mine, func(a, b *run) int {
				return cmp.Compare(a.memory[process.name], b.memory[process.name])
			}).memory[process.name]
		}
		t.Systems = append(t.Systems, m)
	}
	return t
}
