package store

import (
	"context"
	"fmt"

	"postrider/internal/relay"
)

// settleWish writes that a recipient wants no more mail of a group, or of a stream,
// or wants it again. The event is the proof. Where it is so already there is no
// second event: ErrSettled.
func (db *DB) settleWish(ctx context.Context, w *writer, o *relay.Outcome, sums *sums) error {
	if o.Engagement == nil {
		return untouched{&relay.Error{Code: relay.Invalid, Text: "Whoever unsubscribes does so in some way."}}
	}
	var err error
	if !o.Answers.IsZero() {
		if err = w.endReturned(ctx, o.Answers); err != nil {
			return err
		}
	}
	told := *o
	if !o.Answers.IsZero() && o.Engagement.Group == "" { // a mail says no group: its message does
		e := *o.Engagement
		if e.Group, err = w.groupOf(ctx, o.Delivery.Message); err != nil {
			return err
		}
		told.Engagement = &e
	}
	id, err := db.newID()
	if err != nil {
		return err
	}
	changed, err := db.wish(ctx, w, &told, id)
	if err != nil {
		return err
	}
	if changed == 0 {
		if !o.Answers.IsZero() {
			return nil // its row is gone, and that is all
		}
		return untouched{fmt.Errorf("settle %s: %w", o.Delivery, ErrSettled)}
	}
	// Only now: it marks the delivery as one that has such an event.
	d, doc, err := w.lateDetail(ctx, &told)
	if err != nil {
		return err
	}
	event := []any{id[:], o.Account[:], o.Delivery.Message[:], db.clock.micros(o.At), int64(o.Delivery.N), int64(o.Kind), doc}
	if err := w.insert(ctx, eventTable, event); err != nil {
		return err
	}
	sums.add(db.clock, &told, &d)
	return nil
}

// wish changes who has left a group, or who is suppressed in a stream, and says how
// much of it is new.
func (db *DB) wish(ctx context.Context, w *writer, o *relay.Outcome, event relay.ID) (int64, error) {
	if o.Address == "" {
		return 1, nil // the event is all there is
	}
	group, leaves := o.Engagement.Group, o.Kind == relay.EventUnsubscribed
	if group != "" {
		// Whoever leaves what is gone since wants no more of anything like it.
		if _, err := db.ownGroup(ctx, w, o.Account, group); relay.CodeOf(err) == relay.NotFound {
			group = ""
		} else if err != nil {
			return 0, err
		}
	}
	if group != "" && leaves {
		l := relay.Leaver{Account: o.Account, Group: group, Address: o.Address, Event: event, Created: o.At}
		return w.exec(ctx, leaverTable.one, db.leaverRow(&l)...)
	}
	if group != "" {
		return w.exec(ctx, "delete from leaver where account = ? and mail_group = ? and address = ?", o.Account[:], text(group), text(o.Address))
	}
	by := relay.Actor{Name: "recipient", Client: o.Engagement.Client}
	if !leaves {
		return db.resume(ctx, w, by, o)
	}
	return db.mute(ctx, w, by, o, event)
}

// groupOf is the group of a message.
func (w *writer) groupOf(ctx context.Context, message relay.ID) (string, error) {
	var m relay.Message
	err := w.query(ctx, "select params from message where id = ?", func(row scanner) error {
		var doc []byte
		if err := row.Scan(&doc); err != nil {
			return err
		}
		return decodeParams(&m, doc)
	}, message[:])
	return m.OptOut.Group, err
}

// streamOf is the stream of a delivery.
func (w *writer) streamOf(ctx context.Context, id relay.DeliveryID) (s relay.Stream, err error) {
	err = w.query(ctx, "select stream from delivery where message = ? and n = ?", func(row scanner) error { return row.Scan(&s) }, id.Message[:], int64(id.N))
	return s, err
}

// mute suppresses an address in the stream of the delivery that it had.
func (db *DB) mute(ctx context.Context, w *writer, by relay.Actor, o *relay.Outcome, event relay.ID) (int64, error) {
	stream, err := w.streamOf(ctx, o.Delivery)
	if err != nil {
		return 0, err
	}
	s := relay.Suppression{Account: o.Account, Address: text(o.Address), Stream: stream, Reason: relay.ReasonUnsubscribe, Note: text(o.Engagement.Method), Event: event, Created: o.At}
	here, err := db.suppressionsOf(ctx, w, o.Account, []relay.Suppression{s})
	if before := here[s.Key()]; err != nil || before != nil && !outlasts(before, &s) {
		return 0, err
	}
	turn, err := w.nextTurn(ctx, db.part)
	if err != nil {
		return 0, err
	}
	// Whoever writes the row first is the one whose event is the proof; others wait
	// for him here.
	n, err := w.exec(ctx, suppressionTable.one, s.Account[:], s.Address, s.Reason, s.Note, s.Event[:], db.clock.micros(s.Created), int64(s.Stream), int64(0), int64(0))
	if err != nil {
		return 0, err
	}
	// Also where another was faster: a turn without news looks like one whose news were
	// swept, and whoever follows them would read all suppressions once more.
	if err := db.addNews(ctx, w, turn, s.Account, map[relay.Stream][]string{s.Stream: {s.Address}}); err != nil || n == 0 {
		return 0, err
	}
	c := relay.Change{At: o.At, Account: o.Account, Actor: by, Action: "suppression.add", Object: "1"}
	if c.After, err = document([]relay.Suppression{s}); err != nil {
		return 0, err
	}
	return 1, db.note(ctx, w, &c)
}

// resume takes an address off the suppressions where it is there because its owner
// unsubscribed from the stream of a delivery, or from all. A bounce or a complaint
// stays.
func (db *DB) resume(ctx context.Context, w *writer, by relay.Actor, o *relay.Outcome) (int64, error) {
	stream, err := w.streamOf(ctx, o.Delivery)
	if err != nil {
		return 0, err
	}
	n, err := w.exec(ctx, "delete from suppression where account = ? and address = ? and stream in (0, ?) and reason = '"+relay.ReasonUnsubscribe+"'",
		o.Account[:], text(o.Address), int64(stream))
	if err != nil || n == 0 {
		return 0, err
	}
	c := relay.Change{At: o.At, Account: o.Account, Actor: by, Action: "suppression.remove", Object: fmt.Sprint(n)}
	if c.Before, err = document([]string{o.Address}); err != nil {
		return 0, err
	}
	return n, db.note(ctx, w, &c)
}
