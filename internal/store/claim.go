package store

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"postrider/internal/relay"
)

// ofClass finds what waits of one class; the index delivery_ready has just these
// in order, however much else waits.
const ofClass = " from delivery where lease = 0 and state < 3 and stream = ? and domain = ? and account = ?"

// nearHead is how far into the line of a class expired deliveries are looked for.
const nearHead = "500"

// claims are the statements of Claim, in words of the dialect. "+ 0" keeps SQLite
// from planning them anew for every other limit.
type claims struct{ due, expired string }

func (d *Dialect) claims() claims {
	const update, returning = "update delivery set lease = ? where (message, n) in (select message, n ", ") returning " + deliveryColumns
	return claims{
		due: update + ofClass + " and due <= ? order by due limit ? + 0 " + d.Lock + returning,
		expired: update + "from (select message, n, expires" + ofClass + " and due <= ? order by due limit " + nearHead + " " + d.Lock +
			") head where expires <= ? limit ? + 0" + returning,
	}
}

// Claim takes what is wanted of each class, as far as it is due, in nobody's
// hand and not held: those that wait longest first. They are leased to lease
// until they are settled or released, or the lease ends; ErrLeaseLost says that it
// has ended. Besides, it tells of each class that was asked for what is left of
// it; where that is nothing, the class is not mentioned.
func (db *DB) Claim(ctx context.Context, lease int64, now time.Time, wants []relay.Want) ([]relay.Claimed, []relay.Waiting, error) {
	if lease == 0 {
		return nil, nil, errors.New("claim without a lease")
	}
	var claimed []relay.Claimed
	var left []relay.Waiting
	err := db.write(ctx, "claim", func(ctx context.Context, w *writer) error {
		claimed, left = nil, nil
		if err := w.holds(ctx, lease); err != nil {
			return err
		}
		for _, want := range wants {
			taken, err := w.claimClass(ctx, lease, now, want)
			if err != nil {
				return err
			}
			claimed = append(claimed, taken...)
			if left, err = w.leftOf(ctx, want.Class, left); err != nil {
				return err
			}
		}
		return w.loadMessages(ctx, claimed)
	})
	if err != nil {
		return nil, nil, err
	}
	return claimed, left, nil
}

func (w *writer) claimClass(ctx context.Context, lease int64, now time.Time, want relay.Want) (taken []relay.Claimed, err error) {
	take := func(row scanner) error {
		var r deliveryRow
		if err := row.Scan(r.targets()...); err != nil {
			return err
		}
		d := r.delivery()
		d.Due, d.Expires, d.Updated = w.clock.ours(d.Due), w.clock.ours(d.Expires), w.clock.ours(d.Updated)
		taken = append(taken, relay.Claimed{Delivery: d})
		return nil
	}
	if want.Expired > 0 {
		if err := w.query(ctx, w.claims.expired, take, lease, int64(want.Stream), text(want.Domain), want.Account[:],
			w.clock.micros(now), w.clock.micros(now), want.Expired); err != nil {
			return nil, err
		}
	}
	if want.Limit > 0 {
		if err := w.query(ctx, w.claims.due, take, lease, int64(want.Stream), text(want.Domain), want.Account[:],
			w.clock.micros(now), want.Limit); err != nil {
			return nil, err
		}
	}
	// RETURNING promises no order.
	slices.SortFunc(taken, func(a, b relay.Claimed) int {
		return cmp.Or(a.Delivery.Due.Compare(b.Delivery.Due),
			slices.Compare(a.Delivery.ID.Message[:], b.Delivery.ID.Message[:]), cmp.Compare(a.Delivery.ID.N, b.Delivery.ID.N))
	})
	return taken, nil
}

// leftOf adds what is left of a class.
func (w *writer) leftOf(ctx context.Context, c relay.Class, left []relay.Waiting) ([]relay.Waiting, error) {
	err := w.query(ctx, "select due"+ofClass+" order by due limit 1", func(row scanner) error {
		var due int64
		err := row.Scan(&due)
		left = append(left, relay.Waiting{Class: c, Due: w.clock.time(due)})
		return err
	}, int64(c.Stream), text(c.Domain), c.Account[:])
	return left, err
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
				if err == nil {
					m.Received = w.clock.ours(m.Received)
				}
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
		_, err := w.exec(ctx, countReleased)
		return err
	})
}

// Held gives all deliveries that are in the hand of lease.
func (db *DB) Held(ctx context.Context, lease int64) ([]relay.DeliveryID, error) {
	var held []relay.DeliveryID
	// "lease > 0" for an engine that does not see that the index serves.
	err := db.read(ctx, "select message, n from delivery where lease = ? and lease > 0 and state < 3", func(row scanner) error {
		var message []byte
		var id relay.DeliveryID
		err := row.Scan(&message, &id.N)
		id.Message = toID(message)
		held = append(held, id)
		return err
	}, lease)
	if err != nil {
		return nil, db.fail("read what is in hand", err)
	}
	return held, nil
}

// Class gives the class of a delivery, or a relay.Error NotFound.
func (db *DB) Class(ctx context.Context, id relay.DeliveryID) (c relay.Class, err error) {
	found := false
	err = db.read(ctx, "select stream, account, domain from delivery where message = ? and n = ?", func(row scanner) error {
		var account []byte
		err := row.Scan(&c.Stream, &account, &c.Domain)
		c.Account, found = toID(account), true
		return err
	}, id.Message[:], id.N)
	if err != nil {
		return c, db.fail("find delivery", err)
	}
	if !found {
		return c, notFound("delivery", id)
	}
	return c, nil
}

// readyColumns are what waitingRow scans: the index delivery_ready.
const readyColumns = "stream, domain, account, due"

const (
	// nextReady finds what waits of the next classes. Who asks again and again
	// walks from class to class, however much waits of each.
	nextReady = "select " + readyColumns + " from delivery where lease = 0 and state < 3 and (stream, domain, account) > (?, ?, ?)" +
		" order by stream, domain, account, due limit "
	// walkReady is the same walk in one statement, where the engine has
	// lateral joins.
	walkReady = "with recursive walk (place, stream, domain, account, due) as (" +
		"select cast(1 as bigint), f.stream, f.domain, f.account, f.due from (" + nextReady + "1) f" +
		" union all select w.place + 1, n.stream, n.domain, n.account, n.due from walk w cross join lateral (" +
		"select " + readyColumns + " from delivery d where d.lease = 0 and d.state < 3 and (d.stream, d.domain, d.account) > (w.stream, w.domain, w.account)" +
		" order by d.stream, d.domain, d.account, d.due limit 1) n where w.place < ?) select " + readyColumns + " from walk order by place"
)

// Waiting gives the classes that deliveries in nobody's hand wait of, held ones
// left aside: up to limit of them, after the class after, in an order of the
// database's own that starts after the zero Class.
func (db *DB) Waiting(ctx context.Context, after relay.Class, limit int) ([]relay.Waiting, error) {
	found := make([]relay.Waiting, 0, limit)
	scan := func(row scanner) error {
		var r relay.Waiting
		var account []byte
		var due int64
		if err := row.Scan(&r.Stream, &r.Domain, &account, &due); err != nil {
			return err
		}
		r.Account, r.Due = toID(account), db.clock.time(due)
		if n := len(found); n == 0 || found[n-1].Class != r.Class {
			found = append(found, r)
		}
		return nil
	}
	var err error
	if db.dialect.Lateral {
		err = db.read(ctx, walkReady, scan, int64(after.Stream), text(after.Domain), after.Account[:], limit)
	} else {
		err = db.walkReady(ctx, after, limit, &found, scan)
	}
	if err != nil {
		return nil, db.fail("read what waits", err)
	}
	return found, nil
}

// walkReady asks for some rows, passes over the rest of the last one's class, and
// so on. It asks for more at once where it found that many classes have few.
func (db *DB) walkReady(ctx context.Context, after relay.Class, limit int, found *[]relay.Waiting, scan func(scanner) error) error {
	next, err := db.readers.PrepareContext(ctx, db.dialect.rebind(nextReady+"? + 0"))
	if err != nil {
		return err
	}
	defer next.Close()
	const most = 256
	for rows := 1; len(*found) < limit; {
		got, err := next.QueryContext(ctx, int64(after.Stream), text(after.Domain), after.Account[:], min(rows, limit-len(*found)))
		if err != nil {
			return err
		}
		before := len(*found)
		if err := each(got, scan); err != nil || len(*found) == before {
			return err
		}
		after = (*found)[len(*found)-1].Class
		rows = min(2*(len(*found)-before), most)
	}
	return nil
}
