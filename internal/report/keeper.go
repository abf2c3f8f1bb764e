package report

import (
	"context"
	"log/slog"
	"time"
)

// Counts are what a Keeper keeps small.
type Counts interface {
	MergeCounts(ctx context.Context, before time.Time) error
	DropCounts(ctx context.Context, before time.Time) error
	Now() time.Time
}

// Keeper makes days of old hours, and drops what is older still.
type Keeper struct {
	Store Counts
	Hours time.Duration // for how long hours are kept apart
	Keep  time.Duration // for how long days are kept
	Log   *slog.Logger
}

// Run does so every hour until ctx ends. Each node does; the second finds little to
// do.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		if err := k.Round(ctx); err != nil && ctx.Err() == nil {
			k.Log.Warn("counts are not made smaller for now", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Round does so once.
func (k *Keeper) Round(ctx context.Context) error {
	now := k.Store.Now()
	if err := k.Store.DropCounts(ctx, now.Add(-k.Keep)); err != nil {
		return err
	}
	return k.Store.MergeCounts(ctx, now.Add(-k.Hours))
}
