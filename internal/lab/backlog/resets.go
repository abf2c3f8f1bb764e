package backlog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Resets is what becomes of password resets behind a newsletter.
type Resets struct {
	Letters  int     `json:"letters"`     // of one account, for one site
	Alone    float64 `json:"alone"`       // letters delivered a second, median of rounds
	With     float64 `json:"with"`        // the same while resets are sent
	Ratio    float64 `json:"ratio"`       // median of the rounds' own ratios
	Sent     int     `json:"sent"`        // resets, in all rounds
	SameP50  float64 `json:"same_p50_ms"` // of the same account
	SameP99  float64 `json:"same_p99_ms"`
	OtherP50 float64 `json:"other_p50_ms"` // of another account
	OtherP99 float64 `json:"other_p99_ms"`
	Late     int     `json:"late"` // not delivered in time
	Left     int     `json:"left"` // letters that still waited at the end
	MaxRSS   float64 `json:"max_rss_mb"`
}

// resetRate is how many resets each of the two accounts sends a second.
const resetRate = 20

// resets has one account send a newsletter to a site that takes it, and resets
// to the same site.
func (h *harness) resets(ctx context.Context) error {
	r, err := h.newRig(ctx, "resets")
	if err != nil {
		return err
	}
	defer r.close()
	res := &Resets{Letters: h.o.Letters}
	h.result.Resets = res
	target := func(int) string { return "good.test" }
	if err := r.fill(ctx, r.senders[hogBulk], "letter", res.Letters, target); err != nil {
		return fmt.Errorf("fill the store: %w", err)
	}
	h.say("%d letters put on disk", res.Letters)
	if err := r.start(ctx); err != nil {
		return err
	}
	letters := h.probe("letter")
	if err := letters.waitFor(ctx, min(res.Letters, 1000), h.o.Patience); err != nil {
		return err
	}
	var alone, with, ratios []float64
	for round := range h.o.Rounds {
		n, began := letters.count(), time.Now()
		if err := pause(ctx, h.o.Load); err != nil {
			return err
		}
		a := float64(letters.count()-n) / time.Since(began).Seconds()
		n, began = letters.count(), time.Now()
		sent, err := h.sendResets(ctx, r, target)
		if err != nil {
			return err
		}
		w := float64(letters.count()-n) / time.Since(began).Seconds()
		res.Sent += sent
		alone, with, ratios = append(alone, a), append(with, w), append(ratios, w/a)
		h.say("round %d: %.0f letters a second alone, %.0f with resets; %d of %d resets have arrived, %d letters",
			round+1, a, w, h.probe("reset-same").count()+h.probe("reset-other").count(), res.Sent, letters.count())
	}
	h.profile(ctx, r, "resets")
	same, other := h.probe("reset-same"), h.probe("reset-other")
	if err := errors.Join(same.waitFor(ctx, res.Sent/2, h.o.Patience), other.waitFor(ctx, res.Sent/2, h.o.Patience)); err != nil {
		return err
	}
	res.Alone, res.With, res.Ratio = median(alone), median(with), median(ratios)
	res.SameP50, res.SameP99 = ms(same.percentile(0.5, res.Sent/2, h.o.Patience)), ms(same.percentile(0.99, res.Sent/2, h.o.Patience))
	res.OtherP50, res.OtherP99 = ms(other.percentile(0.5, res.Sent/2, h.o.Patience)), ms(other.percentile(0.99, res.Sent/2, h.o.Patience))
	res.Late, res.Left = res.Sent-same.count()-other.count(), res.Letters-letters.count()
	res.MaxRSS = float64(r.maxRSS()) / mb
	h.say("resets: p50 %.0f ms, p99 %.0f ms by the same account; p50 %.0f ms, p99 %.0f ms by another; %d letters left",
		res.SameP50, res.SameP99, res.OtherP50, res.OtherP99, res.Left)
	return r.Stop()
}

// sendResets sends as many by the newsletter's account as by another.
func (h *harness) sendResets(ctx context.Context, r *rig, target func(int) string) (sent int, err error) {
	same := &flow{rig: r, by: r.senders[hogUrgent : hogUrgent+1], name: "reset-same", to: target}
	other := &flow{rig: r, by: r.senders[firstShop : firstShop+1], name: "reset-other", to: target}
	var wg sync.WaitGroup
	counts, errs := make([]int, 2), make([]error, 2)
	for i, f := range []*flow{same, other} {
		wg.Go(func() { counts[i], errs[i] = f.steady(ctx, resetRate, h.o.Load) })
	}
	wg.Wait()
	return counts[0] + counts[1], errors.Join(errs...)
}
