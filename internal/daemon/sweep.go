package daemon

import (
	"context"
	"time"
)

// sweepEvery is how often what has ended is removed from the store. Each node
// does it; the second finds little to do.
const sweepEvery = 15 * time.Minute

// sweep removes old keys of requests, usage of periods that are over, and locks
// that nobody gave back, until ctx ends.
func (d *Daemon) sweep(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := d.store.Sweep(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("what has ended stays in the store for now", "err", err)
		}
	}
}
