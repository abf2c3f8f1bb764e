package domain

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"postrider/internal/relay"
)

// Due gives domains whose check is due, of all accounts, and keeps other nodes
// from taking them until the time that is named.
type Due interface {
	DueDomains(ctx context.Context, now, until time.Time, limit int) ([]*relay.Domain, error)
}

// How the watch works: it looks for domains that are due, takes a few, and has
// them to itself for a while.
const (
	watchEvery = 10 * time.Second
	watchBatch = 20
	watchHold  = 5 * time.Minute // as long as the whole batch may take, and more
	watchWidth = 4               // checks at once
)

// Watch checks domains when they are due. Each node has one; a domain is checked
// by one of them.
type Watch struct {
	manager *Manager
	due     Due
	// idle, where not nil, tells that this node does nothing at the moment.
	idle func() bool
}

// NewWatch makes a watch.
func NewWatch(m *Manager, d Due, idle func() bool) *Watch {
	return &Watch{manager: m, due: d, idle: idle}
}

// Run checks until ctx ends.
func (w *Watch) Run(ctx context.Context) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	failing := false
	for {
		found, err := 0, error(nil)
		if w.idle == nil || !w.idle() {
			found, err = w.round(ctx)
		}
		if err != nil && !failing && ctx.Err() == nil {
			w.manager.config.Log.Error("domains that are due can't be read; trying on", "err", err)
		}
		failing = err != nil
		if err == nil && found == watchBatch && ctx.Err() == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// round checks one batch, and says how many it took.
func (w *Watch) round(ctx context.Context) (int, error) {
	now := w.manager.now()
	found, err := w.due.DueDomains(ctx, now, now.Add(watchHold), watchBatch)
	if err != nil {
		return 0, err
	}
	var g errgroup.Group
	g.SetLimit(watchWidth)
	for _, d := range found {
		g.Go(func() error {
			_, err := w.manager.check(ctx, relay.Actor{Name: "postrider"}, d)
			if err != nil && ctx.Err() == nil && relay.CodeOf(err) != relay.NotFound {
				w.manager.config.Log.Error("a domain can't be checked; trying again later", "domain", d.Name, "err", err)
			}
			return nil // the others are checked all the same
		})
	}
	return len(found), g.Wait()
}
