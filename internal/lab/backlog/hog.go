package backlog

import (
	"context"
	"fmt"
	"sync"
	"time"

	"postrider/internal/store"
)

// Hog is what one account's long queue does to the others.
type Hog struct {
	Waiting int     `json:"waiting"` // deliveries of that account on disk
	Fill    float64 `json:"fill_s"`  // that putting them there took, not through the relay
	Compared
	First   float64 `json:"first_s"` // longest time from a start of the relay until a message was delivered that waited behind all of them
	Ready   float64 `json:"ready_s"` // longest time from a start to the greeting
	MaxRSS  float64 `json:"max_rss_mb"`
	HogRate float64 `json:"hog_rate"` // deliveries of the long queue, a second
	HogLeft int     `json:"hog_left"` // of them that were not delivered at the end

	probe *probe // of the long queue
}

func (h *harness) slow(ctx context.Context) (err error) {
	h.result.Slow, err = h.wall(ctx, "slow", slowHost)
	return err
}

func (h *harness) silent(ctx context.Context) (err error) {
	h.result.Silent, err = h.wall(ctx, "silent", silentHost)
	return err
}

func (h *harness) refused(ctx context.Context) (err error) {
	h.result.Refused, err = h.wall(ctx, "refused", refusedHost)
	return err
}

// wall has all of the hog's mail for one site, which is at host. The mail is
// put on disk once, for all of these scenarios.
func (h *harness) wall(ctx context.Context, name, host string) (*Hog, error) {
	res := &Hog{Waiting: h.o.N, probe: h.probe("hog-wall")}
	r := h.filled["wall"]
	if r == nil {
		var err error
		if r, err = h.newRig(ctx, "wall"); err != nil {
			return nil, err
		}
		h.filled["wall"] = r
		if err := h.fillHog(ctx, r, "hog-wall", res, func(int) string { return "wall.test" }); err != nil {
			return nil, err
		}
	}
	r.DNS().Remove("wall.test")
	r.DNS().Remove("mx.wall.test")
	if err := r.site("wall.test", host); err != nil {
		return nil, err
	}
	return res, h.hog(ctx, name, r, res)
}

// spread has it for very many domains, all at one slow site.
func (h *harness) spread(ctx context.Context) error {
	h.result.Spread = &Hog{Waiting: h.o.Domains, probe: h.probe("hog-spread")}
	return h.many(ctx, "spread", h.result.Spread, func(i int) string { return fmt.Sprintf("d%d.slow.test", i) })
}

// lost has it for many domains whose DNS does not answer.
func (h *harness) lost(ctx context.Context) error {
	h.result.Lost = &Hog{Waiting: h.o.Lost, probe: h.probe("hog-lost")}
	return h.many(ctx, "lost", h.result.Lost, lostDomain)
}

func lostDomain(i int) string { return fmt.Sprintf("d%d.lost.test", i) }

func (h *harness) many(ctx context.Context, name string, res *Hog, domain func(int) string) error {
	r, err := h.newRig(ctx, name)
	if err != nil {
		return err
	}
	defer r.close()
	if name == "lost" {
		for i := range res.Waiting {
			r.DNS().Silence(lostDomain(i))
		}
	}
	if err := h.fillHog(ctx, r, "hog-"+name, res, domain); err != nil {
		return err
	}
	return h.hog(ctx, name, r, res)
}

func (h *harness) fillHog(ctx context.Context, r *rig, mark string, res *Hog, domain func(int) string) error {
	began := time.Now()
	// In the same stream as the mail of all others: nothing but fairness helps
	// them.
	if err := r.fill(ctx, r.senders[hogUrgent], mark, res.Waiting, domain); err != nil {
		return fmt.Errorf("fill the store: %w", err)
	}
	res.Fill = time.Since(began).Seconds()
	h.say("%d deliveries put on disk in %.1f s", res.Waiting, res.Fill)
	return nil
}

// otherDomain is where the shops' mail goes: to many domains, all at a receiver
// that takes it.
func otherDomain(i int) string { return fmt.Sprintf("s%d.good.test", i%500) }

// hog measures a relay with nothing on disk and one with the long queue, turn by
// turn. Only one of them runs at a time, and each is started anew each time.
func (h *harness) hog(ctx context.Context, name string, r *rig, res *Hog) error {
	base, err := h.newRig(ctx, name+"-empty")
	if err != nil {
		return err
	}
	defer base.close()
	var empty, loaded []*figures
	for round := range h.o.Rounds {
		id := fmt.Sprintf("%s-%d", name, round+1)
		m, err := h.running(ctx, base, id+"-empty", nil)
		if err != nil {
			return err
		}
		h.say("round %d, nothing waits:  %v", round+1, m)
		empty = append(empty, m)
		if m, err = h.running(ctx, r, id, res); err != nil {
			return err
		}
		h.say("round %d, %7d wait: %v; greeted after %.1f s, first delivery %.1f s, %.0f MB, hog %.0f a second",
			round+1, res.Waiting, m, res.Ready, res.First, res.MaxRSS, res.HogRate)
		loaded = append(loaded, m)
	}
	res.Compared = compared(empty, loaded)
	res.HogLeft = res.Waiting - res.probe.count()
	return nil
}

// running starts a relay, measures and stops it. With res, it also sees to what
// waits when it starts.
func (h *harness) running(ctx context.Context, r *rig, name string, res *Hog) (*figures, error) {
	first := h.probe(name + "-first")
	began := time.Now()
	if res != nil {
		if err := r.edit(ctx, func(*store.DB) error { return nil }); err != nil { // the log of the last run goes into the file
			return nil, err
		}
		if err := r.fill(ctx, r.senders[firstShop], name+"-first", 1, otherDomain); err != nil {
			return nil, err
		}
		began = time.Now()
	}
	if err := r.start(ctx); err != nil {
		return nil, err
	}
	if res != nil {
		res.Ready = max(res.Ready, time.Since(began).Seconds())
		if err := first.waitFor(ctx, 1, h.o.Patience); err != nil {
			return nil, err
		}
		res.First = max(res.First, time.Since(began).Seconds())
	}
	before, since := 0, time.Now()
	if res != nil {
		before = res.probe.count()
	}
	var profiling sync.WaitGroup
	if res != nil {
		profiling.Go(func() { h.profile(ctx, r, name) })
	}
	m, err := h.atStart(ctx, r, name, otherDomain)
	profiling.Wait()
	if err != nil {
		return nil, err
	}
	if res != nil {
		res.HogRate = float64(res.probe.count()-before) / time.Since(since).Seconds()
		res.MaxRSS = max(res.MaxRSS, float64(r.maxRSS())/mb)
	}
	return m, r.Stop()
}
