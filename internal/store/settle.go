package store

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
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
// operator's order, and concerns only what no node has in hand. ErrSettled says
// of what is to be rescheduled, besides, that it has been tried or is due.
//
// An outcome that answers mail that came back ends that mail's row; ErrSettled says
// that it had ended. It makes a delivered delivery bounced, whoever has it in hand;
// another one stays as it is. So does one of which a recipient did something.
//
// The content of a message goes when its last delivery is final and no DSN is
// to be written about it, unless it is archived. Outcomes are counted by account,
// day and kind, and for reports by all that these tell apart. What they say of
// addresses is written with them: suppressions, and failures that may come to one.
func (db *DB) Settle(ctx context.Context, lease int64, batch []relay.Outcome) []error {
	return db.each(ctx, "settle", len(batch), db.settling(lease, batch))
}

func (db *DB) settling(lease int64, batch []relay.Outcome) batch {
	return func(ctx context.Context, w *writer, parts []int, fail func(int, error)) error {
		var s outcomes
		var sums sums
		v := &verdicts{}
		for _, i := range parts {
			o := &batch[i]
			switch {
			case o.Late():
				if err := db.settleLate(ctx, w, o, &sums, v); err != nil {
					u, ok := err.(untouched)
					if !ok {
						return err
					}
					fail(i, u.error)
				}
				continue
			case o.Kind == relay.EventAccepted || o.Kind.Stays():
				fail(i, &relay.Error{Code: relay.Invalid, Text: "Only Put accepts a message, or reports on one, and only mail that came back is feedback."})
				continue
			}
			if err := s.add(db.clock, o, i); err != nil {
				return err
			}
		}
		for len(s.parts) > 0 {
			now := s.first()
			changed, err := w.setStates(ctx, lease, now)
			if err != nil {
				return err
			}
			if err := db.settled(ctx, w, now, changed, batch, &sums, v, fail); err != nil {
				return err
			}
		}
		if err := db.conclude(ctx, w, v); err != nil {
			return err
		}
		return w.putSums(ctx, lease, &sums)
	}
}

// settleColumns are what the row of an outcome has. what tells how much of the
// last columns is new: nothing, the diagnosis, or the reply too.
var settleColumns = slices.Concat(columns(blob, "message account"), columns(number, "n state due at tried delay what code"),
	columns(words, "enhanced reply host category diagnosis advice provider source"))

const (
	untried int64 = iota - 1 // the order concerns only what never was tried and is not due yet
	orderOnly
	withDiagnosis
	withReply
)

// outcomes is a batch of outcomes, each with its row and its detail.
type outcomes struct {
	parts   []int // numbers of the outcomes in the batch
	ids     []relay.DeliveryID
	rows    [][]any
	details [][]byte
}

func (s *outcomes) add(clock *clock, o *relay.Outcome, part int) error {
	detail, err := encodeDetail(detailOf(o))
	if err != nil {
		return fmt.Errorf("encode event of %s: %w", o.Delivery, err)
	}
	at := clock.micros(o.At)
	due := at
	if !o.Due.IsZero() {
		due = clock.micros(o.Due)
	}
	r, d := &o.Reply, &o.Diagnosis
	what := orderOnly
	switch {
	case o.Kind == relay.EventRescheduled:
		what = untried
	case o.Attempt != nil || *r != relay.Reply{}:
		what = withReply
	case *d != relay.Diagnosis{}:
		// Nobody replied: what the receiver said last still stands.
		what = withDiagnosis
	}
	source := ""
	if o.Attempt != nil && o.Attempt.Source.IsValid() {
		source = o.Attempt.Source.String()
	}
	s.append(part, o.Delivery, []any{o.Delivery.Message[:], o.Account[:], int64(o.Delivery.N), int64(o.Kind.State()), due, at,
		bit(o.Attempt != nil), bit(o.Notice == relay.NotifyDelay), what, int64(r.Code),
		text(r.Enhanced), text(r.Text), text(o.Host), text(d.Category), text(d.Text), text(d.Advice), text(o.Provider), source}, detail)
	return nil
}

func (s *outcomes) append(part int, id relay.DeliveryID, row []any, detail []byte) {
	s.parts, s.ids, s.rows, s.details = append(s.parts, part), append(s.ids, id), append(s.rows, row), append(s.details, detail)
}

// first takes the first outcome of each delivery; others of the same ones stay,
// to come after these.
func (s *outcomes) first() outcomes {
	var now, later outcomes
	taken := make(map[relay.DeliveryID]bool, len(s.parts))
	for i, id := range s.ids {
		to := &now
		if taken[id] {
			to = &later
		}
		taken[id] = true
		to.append(s.parts[i], id, s.rows[i], s.details[i])
	}
	*s = later
	return now
}

// settleSet and settleWhere are the update of a delivery by a row u of
// settleColumns. An outcome leaves no lease and its own time and state behind: by
// these it is recognised when it comes again (a commit whose reply was lost).
const (
	settleSet = "update delivery set lease = 0, state = u.state, due = u.due, updated = u.at, attempts = attempts + u.tried," +
		" expires = case when u.what < 0 then expires + u.due - delivery.due else expires end," +
		" delayed = case when u.delay <> 0 then 1 else delayed end," +
		" code = case when u.what > 1 then u.code else delivery.code end," +
		" enhanced = case when u.what > 1 then u.enhanced else delivery.enhanced end," +
		" reply = case when u.what > 1 then u.reply else delivery.reply end," +
		" host = case when u.what > 1 then u.host else delivery.host end," +
		" category = case when u.what > 0 then u.category else delivery.category end," +
		" diagnosis = case when u.what > 0 then u.diagnosis else delivery.diagnosis end," +
		" advice = case when u.what > 0 then u.advice else delivery.advice end," +
		" provider = case when u.provider <> '' then u.provider else delivery.provider end," +
		" source = case when u.source <> '' then u.source else delivery.source end"
	// "state + 0" so that PostgreSQL does not take the index of the live ones: as long
	// as it has not counted the table, it reads all of that for a few rows.
	settleWhere = " where delivery.message = u.message and delivery.n = u.n and delivery.account = u.account" +
		" and delivery.state + 0 < 10 and lease in (0, ?) and not (lease = 0 and updated = u.at and delivery.state = u.state)" +
		" and (u.what >= 0 or delivery.state = 1 and attempts = 0 and delivery.due > u.at)"
)

var (
	// settleOne takes the row as its parameters, each by its number.
	settleOne = regexp.MustCompile(`\bu\.\w+`).ReplaceAllStringFunc(settleSet+settleWhere, func(name string) string {
		return "?" + strconv.Itoa(1+slices.Index(names(settleColumns), name[len("u."):]))
	})
	settleMany = settleSet + " from " + unnested(settleColumns) + " as u (" + strings.Join(names(settleColumns), ", ") + ")" +
		settleWhere + " returning delivery.message, delivery.n"
)

const (
	dropContents = "delete from content where %s" +
		" and not exists (select 1 from delivery d where d.message = content.message and d.state < 10)" +
		" and not exists (select 1 from notice where notice.message = content.message)" +
		" and not exists (select 1 from message m where m.id = content.message and m.archive <> 0)"
	lockMessages = "select id from message where id = any(cast(? as bytea[]))"
	lockInOrder  = " order by id for update"
	// lockShared locks those about which two may write at once.
	lockShared = lockMessages + " and (exists (select 1 from delivery d where d.message = id and d.n > 1) or exists (select 1 from notice where notice.message = id))" + lockInOrder
	lockAll    = lockMessages + lockInOrder
)

var (
	dropOne  = fmt.Sprintf(dropContents, "message = ?")
	dropMany = fmt.Sprintf(dropContents, "message = any(cast(? as bytea[]))")
)

var noticeTable = newTable("notice", " on conflict do nothing", columns(blob, "message"), columns(number, "kind n due"))

// setStates tells which deliveries changed; for the others the guard holds.
func (w *writer) setStates(ctx context.Context, lease int64, s outcomes) (map[relay.DeliveryID]bool, error) {
	changed := make(map[relay.DeliveryID]bool, len(s.rows))
	if w.dialect.Arrays {
		err := w.query(ctx, settleMany, func(row scanner) error {
			var message []byte
			var id relay.DeliveryID
			err := row.Scan(&message, &id.N)
			id.Message = toID(message)
			changed[id] = true
			return err
		}, append(arrays(settleColumns, s.rows), lease)...)
		return changed, err
	}
	for i, row := range s.rows {
		n, err := w.exec(ctx, settleOne, append(row, lease)...)
		if err != nil {
			return nil, err
		}
		changed[s.ids[i]] = n > 0
	}
	return changed, nil
}

// settled writes what belongs to the changes: events and notices. It drops content
// that nothing needs any more, and says of the others why they did not change.
func (db *DB) settled(ctx context.Context, w *writer, s outcomes, changed map[relay.DeliveryID]bool, batch []relay.Outcome, sums *sums, v *verdicts, fail func(int, error)) error {
	var events, notices [][]any
	var final []relay.ID
	for i, part := range s.parts {
		o := &batch[part]
		if !changed[o.Delivery] {
			err := w.unsettled(ctx, o)
			if u, ok := err.(untouched); ok {
				fail(part, u.error)
			} else {
				return err
			}
			continue
		}
		e, err := db.event(o.At, o.Account, o.Delivery, o.Kind, s.details[i])
		if err != nil {
			return err
		}
		events = append(events, e)
		sums.add(db.clock, o, &detail{})
		v.add(o, o.Kind, toID(e[0].([]byte)))
		switch {
		case o.Notice != 0:
			// Whatever is due first brings the others of its kind along.
			notices = append(notices, []any{o.Delivery.Message[:], int64(o.Notice), int64(o.Delivery.N), db.clock.micros(o.NoticeDue)})
		case o.Kind.State().Final():
			final = append(final, o.Delivery.Message)
		}
	}
	if err := w.insert(ctx, eventTable, events...); err != nil {
		return err
	}
	if err := w.insert(ctx, noticeTable, notices...); err != nil {
		return err
	}
	return w.dropContent(ctx, lockShared, final...)
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

// dropContent deletes the content of messages that nothing needs any more.
//
// Two nodes may settle the last two deliveries of a message at once, or one a
// delivery and one a notice. Neither sees what the other writes, so one has to
// wait here, at the message, and looks again when the other is done: that is what
// the statement lock is for.
func (w *writer) dropContent(ctx context.Context, lock string, ids ...relay.ID) error {
	if len(ids) == 0 {
		return nil
	}
	if !w.dialect.Arrays {
		for _, id := range ids {
			if _, err := w.exec(ctx, dropOne, id[:]); err != nil {
				return err
			}
		}
		return nil
	}
	messages := make([][]byte, len(ids))
	for i := range ids {
		messages[i] = ids[i][:]
	}
	if err := w.send(ctx, lock, messages); err != nil {
		return err
	}
	return w.send(ctx, dropMany, messages)
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
	// Our own look does not show the notice any more that others still see.
	return w.dropContent(ctx, lockAll, n.Message)
}

// EndNotice ends a notice without a DSN. ErrSettled says that it was ended
// before.
func (db *DB) EndNotice(ctx context.Context, n relay.Notice) error {
	return db.each(ctx, "end notice", 1, oneByOne(func(ctx context.Context, w *writer, _ int) error { return w.endNotice(ctx, &n) }))[0]
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
		n.Message, n.Due = toID(id), db.clock.time(due)
		found = append(found, n)
		return nil
	}, db.clock.micros(now), limit)
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
