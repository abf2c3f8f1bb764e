package store

import (
	"context"
	"sync/atomic"
	"time"
)

// clock knows how far this machine's clock is ahead of the database's. Nodes that
// share a database share its clock: what a node writes is by the database's, and
// what it reads to work by is by its own. So a node whose clock is wrong by an
// hour tries nothing an hour early, and leaves nothing that others would try an
// hour late.
type clock struct {
	now   func() time.Time // this machine's
	ahead atomic.Int64     // nanoseconds, as measured: for ids
	// shift is ahead as it counts for the times that are stored, in
	// microseconds: whole seconds, and 0 while it is less than two. Clocks that
	// are kept right leave times as they are, to the microsecond.
	shift atomic.Int64
}

// much is how far clocks differ before it counts.
const much = 2 * time.Second

// learn takes note of a comparison that took that long.
func (c *clock) learn(ahead, took time.Duration) {
	if took > much/2 {
		return // it may be off by half of that
	}
	c.ahead.Store(int64(ahead))
	if before := time.Duration(c.shift.Load()) * time.Microsecond; (ahead - before).Abs() < much {
		return // let it stay: times that were stored are read back the same
	}
	if ahead = ahead.Round(time.Second); ahead.Abs() < much {
		ahead = 0
	}
	c.shift.Store(ahead.Microseconds())
}

// compare is given the database's time, asked for when this machine's clock
// showed at, and answered after took.
func (c *clock) compare(at time.Time, took time.Duration, theirs int64) time.Duration {
	ahead := at.Add(took / 2).Sub(fromMicros(theirs))
	c.learn(ahead, took)
	return ahead
}

// theirs is the time by the database's clock.
func (c *clock) theirs() time.Time { return c.now().Add(-time.Duration(c.ahead.Load())) }

// micros is a time of this machine as it is stored.
func (c *clock) micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return micros(t) - c.shift.Load()
}

// time is a time that was stored, as this machine has it.
func (c *clock) time(v int64) time.Time {
	if v == 0 {
		return time.Time{}
	}
	return fromMicros(v + c.shift.Load())
}

// ours puts a time that was read into this machine's.
func (c *clock) ours(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(time.Duration(c.shift.Load()) * time.Microsecond)
}

// Now is the time by the database's clock, as far as it is known: the same for all
// nodes.
func (db *DB) Now() time.Time { return db.clock.theirs() }

// clockInterval is how often the clocks are compared.
const clockInterval = 10 * time.Second

// watchClock compares them until ctx ends.
func (db *DB) watchClock(ctx context.Context) {
	tick := time.NewTicker(clockInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = db.readClock(ctx) // the store is away: it stays as it was
		}
	}
}

// Ahead asks the database for its time, and gives how far this machine's clock is
// ahead of it.
func (db *DB) Ahead(ctx context.Context) (time.Duration, error) {
	err := db.readClock(ctx)
	return time.Duration(db.clock.ahead.Load()), err
}

func (db *DB) readClock(ctx context.Context) error {
	began, at := time.Now(), db.clock.now()
	var now int64
	err := db.read(ctx, "select "+db.dialect.Now, func(row scanner) error { return row.Scan(&now) })
	if err != nil {
		return db.fail("read the store's clock", err)
	}
	db.clock.compare(at, time.Since(began), now)
	return nil
}
