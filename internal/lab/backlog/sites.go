package backlog

import (
	"context"
	"fmt"
	"sync"
)

// Sites is what dead sites do to the others.
type Sites struct {
	Sites int `json:"sites"`
	Dead  int `json:"dead"` // half of them refuse connections, half are silent
	Compared
	MaxRSS float64 `json:"max_rss_mb"`
}

func siteName(i int) string { return fmt.Sprintf("site%d.test", i) }

// sites compares a relay whose sites are all well with one where a tenth is dead.
// Both are handed the same mail, by the same senders.
func (h *harness) sites(ctx context.Context) error {
	res := &Sites{Sites: h.o.Sites, Dead: h.o.Sites / 10}
	h.result.Sites = res
	var rigs []*rig
	for _, name := range []string{"sites-well", "sites-dead"} {
		r, err := h.newRig(ctx, name)
		if err != nil {
			return err
		}
		defer r.close()
		for i := range res.Sites {
			host := goodHost
			switch {
			case name == "sites-well" || i >= res.Dead:
			case i%2 == 0:
				host = refusedHost
			default:
				host = silentHost
			}
			if err := r.site(siteName(i), host); err != nil {
				return err
			}
		}
		rigs = append(rigs, r)
	}
	var well, dead []*figures
	for round := range h.o.Rounds {
		for k, r := range rigs {
			m, err := h.withTenth(ctx, r, res, fmt.Sprintf("sites-%d-%d", round+1, k))
			if err != nil {
				return err
			}
			if k == 0 {
				h.say("round %d, all are well:  %v", round+1, m)
				well = append(well, m)
			} else {
				h.say("round %d, %3d are dead:  %v", round+1, res.Dead, m)
				dead = append(dead, m)
				res.MaxRSS = max(res.MaxRSS, float64(r.maxRSS())/mb)
				h.profile(ctx, r, "sites")
			}
			if err := r.Stop(); err != nil {
				return err
			}
		}
	}
	res.Compared = compared(well, dead)
	return nil
}

// withTenth measures mail for the sites that are well, while others get mail as
// well that may be dead: a ninth of it, so that all sites get the same.
func (h *harness) withTenth(ctx context.Context, r *rig, res *Sites, name string) (*figures, error) {
	if err := r.start(ctx); err != nil {
		return nil, err
	}
	side := &flow{rig: r, by: r.senders[firstShop:], name: name + "-side", to: func(i int) string { return siteName(i % max(res.Dead, 1)) }}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var failed error
	wg.Go(func() {
		for failed == nil {
			select {
			case <-stop:
				return
			default:
				_, failed = side.steady(ctx, max(h.o.Rate/9, 1), h.o.Load/2)
			}
		}
	})
	m, err := h.atStart(ctx, r, name, func(i int) string { return siteName(res.Dead + i%(res.Sites-res.Dead)) })
	close(stop)
	wg.Wait()
	if err == nil {
		err = failed
	}
	return m, err
}
