package store

import (
	"context"
	"fmt"
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
			if err := w.endLease(ctx, d); err != nil {
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
	err = w.query(ctx, "select lease from node union select lease from delivery where state < 3 and lease > 0", add)
	return found, err
}

// endLease takes the node off the list and releases what it held. Due times to
// come are brought forward: nothing that was in hand has to wait.
func (w *writer) endLease(ctx context.Context, lease int64) error {
	if _, err := w.exec(ctx, "delete from node where lease = ?", lease); err != nil {
		return err
	}
	now := w.dialect.Now
	_, err := w.exec(ctx, "update delivery set lease = 0, due = case when due > "+now+" then "+now+" else due end where state < 3 and lease = ?", lease)
	return err
}

// Beat says that the node lives, by the database's clock. ErrLeaseLost means
// that others may have taken its work: it must start no more attempts.
func (db *DB) Beat(ctx context.Context, lease int64) error {
	return db.write(ctx, "beat", func(ctx context.Context, w *writer) error {
		changed, err := w.exec(ctx, "update node set beat = "+w.dialect.Now+" where lease = ?", lease)
		if err == nil && changed == 0 {
			err = fmt.Errorf("lease %d: %w", lease, ErrLeaseLost)
		}
		return err
	})
}

// Leave ends the lease; what the node still held is released. Leaving twice is
// harmless.
func (db *DB) Leave(ctx context.Context, lease int64) error {
	return db.write(ctx, "leave", func(ctx context.Context, w *writer) error { return w.endLease(ctx, lease) })
}
