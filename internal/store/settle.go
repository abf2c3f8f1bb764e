package store

import (
	"context"
	"fmt"
	"time"

	"postrider/internal/relay"
)

// Settle writes what became of deliveries: the new state and the event of each,
// all in one transaction with one sync. Error i belongs to batch[i]: ErrSettled
// where the delivery is final, in another node's hand, or has this very outcome
// already; a relay.Error NotFound where the account has no such delivery.
// Neither harms the others.
//
// A settled delivery is in nobody's hand. With lease 0 an outcome is an
// operator's order, and concerns only what no node has in hand.
//
// The content of a message goes when its last delivery is final and no DSN is
// to be written about it.
func (db *DB) Settle(ctx context.Context, lease int64, batch []relay.Outcome) []error {
	return db.each(ctx, "settle", len(batch), func(ctx context.Context, w *writer, i int) error {
		return db.settle(ctx, w, lease, &batch[i])
	})
}

const (
	// An outcome leaves no lease and its own time and state behind: by these it
	// is recognised when it comes again (a commit whose reply was lost).
	settleGuard  = " where message = ? and n = ? and account = ? and state < 10 and lease in (0, ?) and not (lease = 0 and updated = ? and state = ?)"
	settleState  = "update delivery set lease = 0, state = ?, due = ?, updated = ?, attempts = attempts + ?, delayed = case when ? <> 0 then 1 else delayed end"
	setReply     = ", code = ?, enhanced = ?, reply = ?, host = ?"
	setDiagnosis = ", category = ?, diagnosis = ?, advice = ?"
	settleAll    = settleState + setReply + setDiagnosis + settleGuard
	settleWhy    = settleState + setDiagnosis + settleGuard
	settleOrder  = settleState + settleGuard
	insertNotice = "insert into notice (message, kind, n, due) values (?, ?, ?, ?) on conflict do nothing"
	dropContent  = "delete from content where message = ?" +
		" and not exists (select 1 from delivery where message = ? and state < 10)" +
		" and not exists (select 1 from notice where message = ?)"
)

func (db *DB) settle(ctx context.Context, w *writer, lease int64, o *relay.Outcome) error {
	if o.Kind == relay.EventAccepted || o.Kind == relay.EventReported {
		return untouched{&relay.Error{Code: relay.Invalid, Text: "Only Put accepts a message, or reports on one."}}
	}
	changed, err := w.setState(ctx, lease, o)
	if err != nil {
		return err
	}
	id := o.Delivery.Message
	if changed == 0 {
		return w.unsettled(ctx, o)
	}
	detail, err := encodeDetail(detail{Reply: o.Reply, Diagnosis: o.Diagnosis, Attempt: o.Attempt})
	if err != nil {
		return fmt.Errorf("encode event of %s: %w", o.Delivery, err)
	}
	event, err := db.newID()
	if err != nil {
		return err
	}
	if _, err := w.exec(ctx, insertEvent, event[:], micros(o.At), o.Account[:], id[:], o.Delivery.N, int64(o.Kind), detail); err != nil {
		return err
	}
	if o.Notice != 0 {
		// Whatever is due first brings the others of its kind along.
		if _, err := w.exec(ctx, insertNotice, id[:], int64(o.Notice), o.Delivery.N, micros(o.NoticeDue)); err != nil {
			return err
		}
	}
	if o.Kind.State().Final() && o.Notice == 0 {
		return w.dropContent(ctx, id)
	}
	return nil
}

// setState gives the number of rows changed: 1, or 0 where the guard holds.
func (w *writer) setState(ctx context.Context, lease int64, o *relay.Outcome) (int64, error) {
	state, at := int64(o.Kind.State()), micros(o.At)
	due := at
	if !o.Due.IsZero() {
		due = micros(o.Due)
	}
	args := append(make([]any, 0, 18), state, due, at, bit(o.Attempt != nil), bit(o.Notice == relay.NotifyDelay))
	r, d := &o.Reply, &o.Diagnosis
	statement := settleAll
	switch {
	case o.Attempt != nil || *r != relay.Reply{}:
		args = append(args, int64(r.Code), text(r.Enhanced), text(r.Text), text(o.Host), text(d.Category), text(d.Text), text(d.Advice))
	case *d != relay.Diagnosis{}:
		// Nobody replied: what the receiver said last still stands.
		statement = settleWhy
		args = append(args, text(d.Category), text(d.Text), text(d.Advice))
	default:
		statement = settleOrder
	}
	args = append(args, o.Delivery.Message[:], int64(o.Delivery.N), o.Account[:], lease, at, state)
	return w.exec(ctx, statement, args...)
}

// unsettled says why an outcome changed nothing.
func (w *writer) unsettled(ctx context.Context, o *relay.Outcome) error {
	exists := false
	err := w.query(ctx, "select 1 from delivery where message = ? and n = ? and account = ?", func(scanner) error {
		exists = true
		return nil
	}, o.Delivery.Message[:], o.Delivery.N, o.Account[:])
	if err != nil {
		return err
	}
	if !exists {
		return untouched{notFound("delivery", o.Delivery)}
	}
	return untouched{fmt.Errorf("settle %s: %w", o.Delivery, ErrSettled)}
}

func notFound(what string, id fmt.Stringer) error {
	return &relay.Error{Code: relay.NotFound, Text: fmt.Sprintf("There is no %s %s.", what, id)}
}

// dropContent deletes the content of a message that nothing needs any more.
func (w *writer) dropContent(ctx context.Context, id relay.ID) error {
	_, err := w.exec(ctx, dropContent, id[:], id[:], id[:])
	return err
}

// endNotice takes the deliveries that n names off its notice. Others, added
// since n was read, stay and will have a DSN of their own.
func (w *writer) endNotice(ctx context.Context, n *relay.Notice) error {
	var gone int64
	for _, d := range n.Deliveries {
		changed, err := w.exec(ctx, "delete from notice where message = ? and kind = ? and n = ?", n.Message[:], int64(n.Kind), d)
		if err != nil {
			return err
		}
		gone += changed
	}
	if gone == 0 {
		return untouched{fmt.Errorf("end notice about %s: %w", n.Message, ErrSettled)}
	}
	return w.dropContent(ctx, n.Message)
}

// EndNotice ends a notice without a DSN. ErrSettled says that it was ended
// before.
func (db *DB) EndNotice(ctx context.Context, n relay.Notice) error {
	return db.each(ctx, "end notice", 1, func(ctx context.Context, w *writer, _ int) error { return w.endNotice(ctx, &n) })[0]
}

// Notices gives the notices that are due, most overdue first, each with all of
// its deliveries.
func (db *DB) Notices(ctx context.Context, now time.Time, limit int) ([]relay.Notice, error) {
	var found []relay.Notice
	err := db.read(ctx, "select message, kind, min(due) from notice where due <= ? group by message, kind order by 3, 1, 2 limit ?", func(row scanner) error {
		var n relay.Notice
		var id []byte
		var due int64
		if err := row.Scan(&id, &n.Kind, &due); err != nil {
			return err
		}
		n.Message, n.Due = toID(id), fromMicros(due)
		found = append(found, n)
		return nil
	}, micros(now), limit)
	if err != nil {
		return nil, db.fail("read notices", err)
	}
	for i := range found {
		n := &found[i]
		err := db.read(ctx, "select n from notice where message = ? and kind = ? order by n", func(row scanner) error {
			var d int
			err := row.Scan(&d)
			n.Deliveries = append(n.Deliveries, d)
			return err
		}, n.Message[:], int64(n.Kind))
		if err != nil {
			return nil, db.fail("read notice", err)
		}
	}
	return found, nil
}
