package store

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"postrider/internal/relay"
)

// verdicts are what the outcomes of a batch say of addresses.
type verdicts struct {
	dead []relay.Suppression
	soft []softFailure
	fine [][]any // rows of fineColumns
}

// softFailure is one that passes, and counts. Late: of a message that had been
// delivered, so that this delivery says nothing for the address any more.
type softFailure struct {
	account, message, event relay.ID
	address                 string
	at                      time.Time
	rule                    relay.SoftRule
	note                    string
	late                    bool
}

// add takes note of an outcome that became an event of that kind.
func (v *verdicts) add(o *relay.Outcome, kind relay.Kind, event relay.ID) {
	address := text(o.Address)
	if address == "" {
		return
	}
	switch {
	case o.Suppress != "":
		v.dead = append(v.dead, relay.Suppression{Account: o.Account, Address: address, Stream: o.SuppressStream, Reason: o.Suppress, Note: o.Diagnosis.Text, Event: event, Created: o.At})
	case o.Soft.Failures > 0 && (kind == relay.EventBounced || kind == relay.EventExpired):
		v.soft = append(v.soft, softFailure{account: o.Account, message: o.Delivery.Message, event: event, address: address, at: o.At, rule: o.Soft,
			note: o.Diagnosis.Text, late: !o.Answers.IsZero()})
	case kind == relay.EventDelivered:
		v.fine = append(v.fine, []any{o.Account[:], address, o.Delivery.Message[:]})
	}
}

// conclude writes what they come to.
func (db *DB) conclude(ctx context.Context, w *writer, v *verdicts) error {
	if err := w.clearFailures(ctx, v.fine); err != nil {
		return err
	}
	more, err := db.countFailures(ctx, w, v.soft)
	if err != nil {
		return err
	}
	if dead := slices.Concat(v.dead, more); len(dead) > 0 {
		_, err = db.suppress(ctx, w, relay.Actor{Name: "postrider"}, dead)
	}
	return err
}

// fineColumns are of mail that was delivered. What failed before it counts no more
// for its address, unless it comes back.
var fineColumns = slices.Concat(columns(blob, "account"), columns(words, "address"), columns(blob, "message"))

const clearOne = "update soft_failure set delivered = ?3 where account = ?1 and address = ?2 and delivered = ''"

var clearMany = "update soft_failure set delivered = u.message from " + unnested(fineColumns) + " as u (" + strings.Join(names(fineColumns), ", ") + ")" +
	" where soft_failure.account = u.account and soft_failure.address = u.address and soft_failure.delivered = ''"

// clearFailures costs next to nothing where no address fails: the engine with
// arrays gets one statement for all, the other is asked whether there is anything.
func (w *writer) clearFailures(ctx context.Context, fine [][]any) error {
	if len(fine) == 0 {
		return nil
	}
	if w.dialect.Arrays {
		return w.send(ctx, clearMany, arrays(fineColumns, fine)...)
	}
	some := false
	if err := w.query(ctx, "select 1 from soft_failure limit 1", func(scanner) error { some = true; return nil }); err != nil || !some {
		return err
	}
	for _, row := range fine {
		if _, err := w.exec(ctx, clearOne, row...); err != nil {
			return err
		}
	}
	return nil
}

var softTable = newTable("soft_failure", " on conflict (account, address, day) do update set delivered = '',"+
	" ends = case when excluded.ends > soft_failure.ends then excluded.ends else soft_failure.ends end",
	columns(blob, "account"), columns(words, "address"), columns(number, "day ends"))

// countFailures notes failures, and gives the suppressions that they come to.
func (db *DB) countFailures(ctx context.Context, w *writer, list []softFailure) (dead []relay.Suppression, err error) {
	order := func(a, b softFailure) int {
		return cmp.Or(a.account.Compare(b.account), strings.Compare(a.address, b.address))
	}
	// The same address may fail more than once in a batch; days are what counts.
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b softFailure) int { return cmp.Or(order(a, b), a.at.Compare(b.at)) })
	var rows [][]any
	for i := range list {
		f := &list[i]
		if f.late {
			if _, err := w.exec(ctx, "update soft_failure set delivered = '' where account = ? and address = ? and delivered = ?", f.account[:], f.address, f.message[:]); err != nil {
				return nil, err
			}
		}
		at := db.clock.micros(f.at)
		row := []any{f.account[:], f.address, dayMicros(fromMicros(at)), at + f.rule.Within.Microseconds()}
		if last := len(rows) - 1; last >= 0 && order(list[i-1], *f) == 0 && rows[last][2] == row[2] {
			rows[last] = row
			continue
		}
		rows = append(rows, row)
	}
	if err := w.insert(ctx, softTable, rows...); err != nil {
		return nil, err
	}
	for i := range list {
		f := &list[i]
		if i+1 < len(list) && order(*f, list[i+1]) == 0 {
			continue // the last one of an address speaks for all
		}
		var days int
		err := w.query(ctx, "select count(*) from soft_failure where account = ? and address = ? and delivered = '' and ends > ?",
			func(row scanner) error { return row.Scan(&days) }, f.account[:], f.address, db.clock.micros(f.at))
		if err != nil {
			return nil, err
		}
		if days < f.rule.Failures {
			continue
		}
		s := relay.Suppression{Account: f.account, Address: f.address, Reason: relay.ReasonSoftBounce, Note: f.note, Event: f.event, Created: f.at}
		if f.rule.Lasts > 0 {
			s.Expires = f.at.Add(f.rule.Lasts)
		}
		dead = append(dead, s)
		// They have had their say: off the list again, it begins anew.
		if _, err := w.exec(ctx, "delete from soft_failure where account = ? and address = ?", f.account[:], f.address); err != nil {
			return nil, err
		}
	}
	return dead, nil
}
