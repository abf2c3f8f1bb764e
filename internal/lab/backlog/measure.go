package backlog

import (
	"context"
	"fmt"
	"slices"
	"time"

	"postrider/internal/api"
)

// figures are what one measurement gives of mail that nobody should hold up.
type figures struct {
	accept   float64       // messages a second, acknowledged as fast as the relay does
	p50, p99 time.Duration // to delivery, at a given rate
	late     int           // of those, not delivered within the patience
	drain    time.Duration // until what accept has sent is delivered
	early    float64       // as accept, right after the start of the relay
}

// measure lets the shops send, first as fast as they can and then at a given
// rate. name must be another one each time.
func (h *harness) measure(ctx context.Context, r *rig, name string, to func(i int) string) (*figures, error) {
	f := &flow{rig: r, by: r.senders[firstShop:], name: name + "-flood", to: to}
	sent, rate, err := f.flood(ctx, h.o.Sessions, h.o.Load)
	if err != nil {
		return nil, fmt.Errorf("send as fast as possible: %w", err)
	}
	m := &figures{accept: rate}
	began := time.Now()
	if err := h.probe(f.name).waitFor(ctx, sent, h.o.Patience); err != nil {
		return nil, err
	}
	m.drain = time.Since(began)
	f.name = name + "-steady"
	if sent, err = f.steady(ctx, h.o.Rate, h.o.Load); err != nil {
		return nil, fmt.Errorf("send %d a second: %w", h.o.Rate, err)
	}
	p := h.probe(f.name)
	if err := p.waitFor(ctx, sent, h.o.Patience); err != nil {
		return nil, err
	}
	m.p50, m.p99, m.late = p.percentile(0.5, sent, h.o.Patience), p.percentile(0.99, sent, h.o.Patience), sent-p.count()
	return m, nil
}

func (m *figures) String() string {
	return fmt.Sprintf("%5.0f accepted a second (%.0f at the start), delivered %4.1f s later; at a given rate p50 %.0f ms, p99 %.0f ms, %d late",
		m.accept, m.early, m.drain.Seconds(), ms(m.p50), ms(m.p99), m.late)
}

// atStart is measure for a relay that has just been started: how it accepts while
// it takes up what waits, and when that is over the rest.
func (h *harness) atStart(ctx context.Context, r *rig, name string, to func(i int) string) (*figures, error) {
	f := &flow{rig: r, by: r.senders[firstShop:], name: name + "-early", to: to}
	_, early, err := f.flood(ctx, h.o.Sessions, h.o.Load/2)
	if err != nil {
		return nil, fmt.Errorf("send as fast as possible: %w", err)
	}
	if err := takenUp(ctx, r); err != nil {
		return nil, err
	}
	m, err := h.measure(ctx, r, name, to)
	if err != nil {
		return nil, err
	}
	m.early = early
	return m, nil
}

// takenUp waits until a relay has in hand what it takes in hand of all that
// waits; not longer than a minute.
func takenUp(ctx context.Context, r *rig) error {
	c := api.NewClient(r.Data)
	for last, end := -1, time.Now().Add(time.Minute); time.Now().Before(end); {
		var s api.Status
		if err := c.Get(ctx, "/v1/status", nil, &s); err != nil {
			return fmt.Errorf("ask how much is in hand: %w", err)
		}
		if last >= 0 && s.Queue.InHand-last < 100 {
			break
		}
		last = s.Queue.InHand
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
	return nil
}

// Compared is what the shops get on a relay, beside one with nothing else to do:
// medians of the rounds.
type Compared struct {
	EmptyAccept float64 `json:"empty_accept"` // messages a second
	Accept      float64 `json:"accept"`
	AcceptRatio float64 `json:"accept_ratio"` // median of the rounds' own ratios
	EarlyRatio  float64 `json:"early_ratio"`  // the same, of the rates right after the start
	EmptyP50    float64 `json:"empty_p50_ms"`
	EmptyP99    float64 `json:"empty_p99_ms"`
	P50         float64 `json:"p50_ms"`
	P99         float64 `json:"p99_ms"`
	Late        int     `json:"late"`          // messages not delivered in time, in all rounds
	EmptyDrain  float64 `json:"empty_drain_s"` // from the end of sending as fast as possible until all of it was delivered
	Drain       float64 `json:"drain_s"`
}

func compared(empty, loaded []*figures) Compared {
	ratios, early := make([]float64, len(empty)), make([]float64, len(empty))
	late := 0
	for i := range empty {
		ratios[i], early[i] = loaded[i].accept/empty[i].accept, loaded[i].early/empty[i].early
		late += loaded[i].late
	}
	accept := func(m *figures) float64 { return m.accept }
	p50 := func(m *figures) float64 { return ms(m.p50) }
	p99 := func(m *figures) float64 { return ms(m.p99) }
	drain := func(m *figures) float64 { return m.drain.Seconds() }
	return Compared{EmptyAccept: medianOf(empty, accept), Accept: medianOf(loaded, accept), AcceptRatio: median(ratios), EarlyRatio: median(early),
		EmptyP50: medianOf(empty, p50), EmptyP99: medianOf(empty, p99), P50: medianOf(loaded, p50), P99: medianOf(loaded, p99),
		Late: late, EmptyDrain: medianOf(empty, drain), Drain: medianOf(loaded, drain)}
}

func medianOf[T any](all []T, f func(T) float64) float64 {
	values := make([]float64, len(all))
	for i, v := range all {
		values[i] = f(v)
	}
	return median(values)
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	values = slices.Sorted(slices.Values(values))
	n := len(values)
	return (values[n/2] + values[(n-1)/2]) / 2
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
