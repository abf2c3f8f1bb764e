package store

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"postrider/internal/relay"
)

// One stream at a time, so that the index gives just the due ones in order,
// however many of the other stream wait.
func (d *Dialect) claim() string {
	return "update delivery set lease = ? where (message, n) in (" +
		"select message, n from delivery where lease = 0 and state < 3 and stream = ? and due <= ? order by due limit ? " + d.Lock +
		") returning " + deliveryColumns
}

// Claim takes up to limit deliveries that are due, in nobody's hand and not
// held: transactional ones before broadcast, then the one that waits longest.
// They are leased to lease until they are settled or released, or the lease
// ends.
func (db *DB) Claim(ctx context.Context, lease int64, now time.Time, limit int) ([]relay.Claimed, error) {
	if lease == 0 {
		return nil, errors.New("claim without a lease")
	}
	var claimed []relay.Claimed
	err := db.write(ctx, "claim", func(ctx context.Context, w *writer) error {
		claimed = nil
		for _, stream := range []relay.Stream{relay.Transactional, relay.Broadcast} {
			taken, err := w.claimStream(ctx, lease, stream, now, limit-len(claimed))
			if err != nil {
				return err
			}
			claimed = append(claimed, taken...)
		}
		return w.loadMessages(ctx, claimed)
	})
	if err != nil {
		return nil, err
	}
	return claimed, nil
}

func (w *writer) claimStream(ctx context.Context, lease int64, stream relay.Stream, now time.Time, limit int) ([]relay.Claimed, error) {
	if limit <= 0 {
		return nil, nil
	}
	var taken []relay.Claimed
	err := w.query(ctx, w.claim, func(row scanner) error {
		var r deliveryRow
		if err := row.Scan(r.targets()...); err != nil {
			return err
		}
		taken = append(taken, relay.Claimed{Delivery: r.delivery()})
		return nil
	}, lease, int64(stream), micros(now), limit)
	// RETURNING promises no order.
	slices.SortFunc(taken, func(a, b relay.Claimed) int {
		return cmp.Or(a.Delivery.Due.Compare(b.Delivery.Due),
			slices.Compare(a.Delivery.ID.Message[:], b.Delivery.ID.Message[:]), cmp.Compare(a.Delivery.ID.N, b.Delivery.ID.N))
	})
	return taken, err
}

// loadMessages gives each delivery its message; deliveries of one share it.
func (w *writer) loadMessages(ctx context.Context, claimed []relay.Claimed) error {
	messages := make(map[relay.ID]*relay.Message)
	for i := range claimed {
		id := claimed[i].Delivery.ID.Message
		if messages[id] == nil {
			err := w.query(ctx, selectMessage, func(row scanner) error {
				var r messageRow
				if err := row.Scan(r.targets()...); err != nil {
					return err
				}
				m, err := r.message()
				messages[id] = m
				return err
			}, id[:])
			if err != nil {
				return err
			}
		}
		claimed[i].Message = messages[id]
	}
	return nil
}

const selectMessage = "select " + messageColumns + " from message m where m.id = ?"

// Release gives deliveries back without an attempt. What is not in the hand of
// lease is passed over.
func (db *DB) Release(ctx context.Context, lease int64, ids []relay.DeliveryID) error {
	if lease == 0 {
		return errors.New("release without a lease")
	}
	return db.write(ctx, "release", func(ctx context.Context, w *writer) error {
		for _, id := range ids {
			if _, err := w.exec(ctx, "update delivery set lease = 0 where message = ? and n = ? and lease = ?", id.Message[:], id.N, lease); err != nil {
				return err
			}
		}
		return nil
	})
}

// NextDue is when the first delivery in nobody's hand is due, held ones left
// aside; false means that there is none.
func (db *DB) NextDue(ctx context.Context) (time.Time, bool, error) {
	var first time.Time
	found := false
	for _, stream := range []relay.Stream{relay.Transactional, relay.Broadcast} {
		err := db.read(ctx, "select due from delivery where lease = 0 and state < 3 and stream = ? order by due limit 1", func(row scanner) error {
			var due int64
			if err := row.Scan(&due); err != nil {
				return err
			}
			if t := time.UnixMicro(due).UTC(); !found || t.Before(first) {
				first, found = t, true
			}
			return nil
		}, int64(stream))
		if err != nil {
			return time.Time{}, false, db.fail("find next due", err)
		}
	}
	return first, found, nil
}
