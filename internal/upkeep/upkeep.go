// Package upkeep keeps the log fit to be searched, and no longer than is wanted:
// it makes the index of what came, and drops what is old, beside the mail and
// without haste.
package upkeep

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"postrider/internal/relay"
)

// Index is what searches go by.
type Index interface {
	Lock(ctx context.Context, name, owner string, lasts time.Duration) (bool, error)
	IndexLog(ctx context.Context, least int) (events int, left time.Time, err error)
	MergeLog(ctx context.Context) (bool, error)
	CleanLog(ctx context.Context) error
}

// Past is what is dropped when it is old.
type Past interface {
	Keeps(ctx context.Context) (map[relay.ID]relay.Keep, error)
	DropLog(ctx context.Context, after, until relay.ID, ends func(account relay.ID) relay.ID) (dropped int, next relay.ID, err error)
	DropContent(ctx context.Context, after, until relay.ID, ends func(account relay.ID) relay.ID) (dropped int, next relay.ID, err error)
	Now() time.Time
}

// Config is what it must know.
type Config struct {
	Node string
	// Keep is for accounts of which nothing else is said; 0 stands for ever.
	Keep relay.Keep
	// Idle, where not nil, tells that this node is not to work at the moment.
	Idle func() bool
}

// Upkeep works on one node at a time.
type Upkeep struct {
	config Config
	index  Index
	past   Past
	log    *slog.Logger
}

// New makes it.
func New(c Config, i Index, p Past, log *slog.Logger) *Upkeep {
	return &Upkeep{config: c, index: i, past: p, log: log}
}

// Least is how many events are worth to be indexed together.
const Least = 2000

const (
	look     = time.Second // between looks for new events
	dropLook = 15 * time.Minute
	lockFor  = 30 * time.Second
	rest     = 4 // times as long as it worked, it rests, so that mail goes first
	tell     = 10 * time.Second
)

// Run works until ctx ends.
func (u *Upkeep) Run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error {
		u.every(ctx, look, "index", u.indexing(), "searches of the log are slower until it works again")
		return nil
	})
	g.Go(func() error {
		u.every(ctx, look, "index parts", u.merging, "searches of the log are slower until it works again")
		return nil
	})
	g.Go(func() error { u.every(ctx, dropLook, "retention", u.Drop, "what is old stays for now"); return nil })
	return g.Wait()
}

// every does work again and again where this node has the lock of it.
func (u *Upkeep) every(ctx context.Context, wait time.Duration, lock string, work func(context.Context) error, so string) {
	tick := time.NewTicker(wait)
	defer tick.Stop()
	failing := false
	for {
		var err error
		if u.config.Idle == nil || !u.config.Idle() {
			var mine bool
			if mine, err = u.index.Lock(ctx, lock, u.config.Node, max(lockFor, 2*wait)); mine && err == nil {
				err = work(ctx)
			}
		}
		if err != nil && !failing && ctx.Err() == nil {
			u.log.Warn("the log's upkeep fails: "+so, "work", lock, "err", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// indexing takes new events into the index. After an upgrade, or a long time
// without, it takes a while and tells of it.
func (u *Upkeep) indexing() func(context.Context) error {
	begun := false
	return func(ctx context.Context) error {
		if !begun {
			if err := u.index.CleanLog(ctx); err != nil {
				return err
			}
			begun = true
		}
		began, told, done := time.Now(), time.Now(), 0
		for ctx.Err() == nil {
			n, left, err := u.index.IndexLog(ctx, Least)
			if err != nil {
				return err
			}
			done += n
			if left.IsZero() {
				break // what comes meanwhile is for the next look
			}
			if time.Since(told) > tell {
				told = time.Now()
				u.log.Info("indexing the log; searches are slower until that is done", "events", done, "at", left)
			}
			if _, err := u.index.Lock(ctx, "index", u.config.Node, lockFor); err != nil {
				return err
			}
		}
		if time.Since(began) > tell {
			u.log.Info("the log is indexed", "events", done, "took", time.Since(began).Round(time.Second))
		}
		return nil
	}
}

// merging makes large parts of the index of small ones.
func (u *Upkeep) merging(ctx context.Context) error {
	for ctx.Err() == nil {
		did, err := u.index.MergeLog(ctx)
		if err != nil || !did {
			return err
		}
		if mine, err := u.index.Lock(ctx, "index parts", u.config.Node, lockFor); err != nil || !mine {
			return err
		}
	}
	return nil
}

// Drop drops what is kept no longer.
func (u *Upkeep) Drop(ctx context.Context) error {
	keeps, err := u.past.Keeps(ctx)
	if err != nil {
		return err
	}
	log := func(k relay.Keep) int { return k.Log }
	content := func(k relay.Keep) int { return k.Content }
	messages, err := u.drop(ctx, keeps, log, u.past.DropLog)
	if err == nil {
		_, err = u.drop(ctx, keeps, content, u.past.DropContent)
	}
	if messages > 0 {
		u.log.Info("dropped messages that are kept no longer", "messages", messages)
	}
	return err
}

type dropper func(ctx context.Context, after, until relay.ID, ends func(relay.ID) relay.ID) (int, relay.ID, error)

// drop goes through all that may be old.
func (u *Upkeep) drop(ctx context.Context, keeps map[relay.ID]relay.Keep, days func(relay.Keep) int, some dropper) (dropped int, err error) {
	now := u.past.Now()
	end := func(k relay.Keep) relay.ID {
		n := days(k.Or(u.config.Keep))
		if n <= 0 {
			return relay.ID{}
		}
		return relay.FirstIDAt(now.AddDate(0, 0, -n))
	}
	usual := end(relay.Keep{})
	until := usual
	ends := map[relay.ID]relay.ID{}
	for account, k := range keeps {
		if ends[account] = end(k); ends[account].Compare(until) > 0 {
			until = ends[account]
		}
	}
	if until.IsZero() {
		return 0, nil
	}
	of := func(account relay.ID) relay.ID {
		if e, ok := ends[account]; ok {
			return e
		}
		return usual
	}
	locked := time.Now()
	for after := (relay.ID{}); ; {
		began := time.Now()
		n, next, err := some(ctx, after, until, of)
		dropped += n
		if err != nil || next.IsZero() {
			return dropped, err
		}
		after = next
		if time.Since(locked) > lockFor/2 {
			locked = time.Now()
			if mine, err := u.index.Lock(ctx, "retention", u.config.Node, 2*dropLook); err != nil || !mine {
				return dropped, err
			}
		}
		select {
		case <-ctx.Done():
			return dropped, nil
		case <-time.After(rest * time.Since(began)):
		}
	}
}
