package store

import (
	"context"
	"fmt"
	"time"

	"postrider/internal/relay"
)

// Join makes the node a new incarnation and gives its lease, a number that was
// never given before and is never 0. What earlier incarnations of the node held
// is released and due at once; where only one node can be, that is whatever
// anybody held.
func (db *DB) Join(ctx context.Context, node string) (lease int64, err error) {
	err = db.write(ctx, "join", func(ctx context.Context, w *writer) error {
		err := w.query(ctx, "update counter set value = value + 1 where name = 'lease' returning value",
			func(row scanner) error { return row.Scan(&lease) })
		if err != nil {
			return err
		}
		dead, err := w.leases(ctx, node)
		if err != nil {
			return err
		}
		for _, d := range dead {
			if _, err := w.endLease(ctx, d); err != nil {
				return err
			}
		}
		now := w.dialect.Now
		_, err = w.exec(ctx, "insert into node (lease, name, joined, beat) values (?, ?, "+now+", "+now+")", lease, text(node))
		return err
	})
	return lease, err
}

// leases gives those that end when a node of that name joins. They are read
// from the deliveries too, so that none stays behind whatever became of the
// table of nodes.
func (w *writer) leases(ctx context.Context, node string) (found []int64, err error) {
	add := func(row scanner) error {
		var l int64
		err := row.Scan(&l)
		found = append(found, l)
		return err
	}
	if !w.dialect.Single {
		err = w.query(ctx, "select lease from node where name = ?", add, text(node))
		return found, err
	}
	err = w.query(ctx, "select lease from node union select lease from delivery where lease > 0 and state < 3", add)
	return found, err
}

// endLease takes the node off the list and releases what it held, and says how
// many deliveries those were. Due times to come are brought forward: nothing that
// was in hand has to wait.
func (w *writer) endLease(ctx context.Context, lease int64) (released int64, err error) {
	if _, err := w.exec(ctx, "delete from node where lease = ?", lease); err != nil {
		return 0, err
	}
	now := w.dialect.Now
	released, err = w.exec(ctx, "update delivery set lease = 0, due = case when due > "+now+" then "+now+" else due end where lease = ? and lease > 0 and state < 3", lease)
	if err != nil {
		return 0, err
	}
	_, err = w.exec(ctx, countReleased)
	return released, err
}

// countReleased is news to the other nodes.
const countReleased = "update counter set value = value + 1 where name = 'released'"

// Beat says that the node of that name and lease lives, by the database's clock,
// and runs the program of that version. It gives how far this machine's clock is
// ahead of the database's, good to half of the time that the beat took.
// ErrLeaseLost means that others may have taken its work: it must start no more
// attempts.
func (db *DB) Beat(ctx context.Context, n relay.Node) (ahead time.Duration, err error) {
	err = db.write(ctx, "beat", func(ctx context.Context, w *writer) error {
		began, at, found := time.Now(), db.clock.now(), false
		err := w.query(ctx, "update node set beat = "+w.dialect.Now+", version = ? where lease = ? returning beat", func(row scanner) error {
			var beat int64
			found = true
			err := row.Scan(&beat)
			if err == nil && !w.dialect.Single {
				ahead = db.clock.compare(at, time.Since(began), beat)
			}
			return err
		}, text(n.Version), n.Lease)
		if err != nil || found {
			return err
		}
		taken := false
		err = w.query(ctx, "select 1 from node where name = ?", func(scanner) error { taken = true; return nil }, text(n.Name))
		if err == nil {
			err = leaseLost(n.Lease)
		}
		if taken {
			err = fmt.Errorf("%w: %w", ErrNameTaken, err)
		}
		return err
	})
	return ahead, err
}

func leaseLost(lease int64) error { return fmt.Errorf("lease %d: %w", lease, ErrLeaseLost) }

// News tells what the node with that lease is to know. It costs less than a
// beat, and says as well, by ErrLeaseLost, that the lease has ended.
func (db *DB) News(ctx context.Context, lease int64) (relay.News, error) {
	var n relay.News
	found := false
	err := db.read(ctx, "select n.draining, c.value from node n, counter c where n.lease = ? and c.name = 'released'", func(row scanner) error {
		var draining int64
		err := row.Scan(&draining, &n.Released)
		n.Draining, found = draining != 0, true
		return err
	}, lease)
	if err != nil {
		return n, db.fail("look for news", err)
	}
	if !found {
		return n, leaseLost(lease)
	}
	return n, nil
}

// Drain orders the node of that name to drain, or to work again. A relay.Error
// NotFound says that no such node takes part.
func (db *DB) Drain(ctx context.Context, node string, drain bool) error {
	return db.write(ctx, "drain node", func(ctx context.Context, w *writer) error {
		changed, err := w.exec(ctx, "update node set draining = ? where name = ?", bit(drain), text(node))
		if err == nil && changed == 0 {
			err = &relay.Error{Code: relay.NotFound, Text: fmt.Sprintf("There is no node %q.", node), Advice: "\"postrider node list\" shows those that there are."}
		}
		return err
	})
}

// Nodes gives the nodes that take part, by name.
func (db *DB) Nodes(ctx context.Context) ([]relay.Node, error) {
	var found []relay.Node
	err := db.read(ctx, "select n.name, n.lease, n.joined, "+db.dialect.Now+" - n.beat, n.version, n.draining,"+
		" (select count(*) from delivery d where d.lease = n.lease and d.lease > 0 and d.state < 3) from node n order by n.name, n.lease", func(row scanner) error {
		var n relay.Node
		var joined, silent, draining int64
		if err := row.Scan(&n.Name, &n.Lease, &joined, &silent, &n.Version, &draining, &n.InHand); err != nil {
			return err
		}
		n.Joined, n.Silent, n.Draining = fromMicros(joined), time.Duration(silent)*time.Microsecond, draining != 0
		found = append(found, n)
		return nil
	})
	if err != nil {
		return nil, db.fail("list nodes", err)
	}
	return found, nil
}

// Dead is a node whose lease was ended.
type Dead struct {
	Name     string
	Released int64 // deliveries that it held; they are due now
}

// Reap ends the leases of nodes that have not beaten for longer than silent, by
// the database's clock. Where only one node can be, a start ends the lease of
// the one before, and Reap does nothing.
func (db *DB) Reap(ctx context.Context, silent time.Duration) ([]Dead, error) {
	if db.dialect.Single {
		return nil, nil
	}
	var ended []Dead
	err := db.write(ctx, "end leases of dead nodes", func(ctx context.Context, w *writer) error {
		ended = nil
		var leases []int64
		// Locked before it is judged: a beat that is being written counts. Who
		// is being reaped by another node already is passed over.
		err := w.query(ctx, "select lease, name from node where beat < "+w.dialect.Now+" - ? order by lease "+w.dialect.Lock, func(row scanner) error {
			var lease int64
			var d Dead
			err := row.Scan(&lease, &d.Name)
			leases, ended = append(leases, lease), append(ended, d)
			return err
		}, silent.Microseconds())
		if err != nil {
			return err
		}
		for i, lease := range leases {
			if ended[i].Released, err = w.endLease(ctx, lease); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return ended, nil
}

// Leave ends the lease; what the node still held is released. Leaving twice is
// harmless.
func (db *DB) Leave(ctx context.Context, lease int64) error {
	return db.write(ctx, "leave", func(ctx context.Context, w *writer) error {
		_, err := w.endLease(ctx, lease)
		return err
	})
}
