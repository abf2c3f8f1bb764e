package store

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"postrider/internal/relay"
)

// How long a slot of recent is, how long slots are kept apart before they become
// hours, and for how long there are hours.
const (
	recentSlot  = 5 * time.Minute
	recentFine  = 2 * time.Hour
	recentKept  = 26 * time.Hour
	recentHours = -1 // the part of an hour
)

var recentTable = newTable("recent", " on conflict (slot, account, kind, provider, category, part) do update set count = recent.count + excluded.count",
	columns(number, "slot"), columns(blob, "account"), columns(number, "kind"), columns(words, "provider category"), columns(number, "part count"))

type recentKey struct {
	slot               int64
	account            relay.ID
	kind               relay.Kind
	provider, category string
}

// recentOf is where an outcome counts; false: alerts do not ask for it. Mail from
// the null sender (reports, alerts) is not what an account is judged by.
func recentOf(clock *clock, o *relay.Outcome) (recentKey, bool) {
	switch o.Kind {
	case relay.EventDelivered, relay.EventDeferred, relay.EventBounced, relay.EventExpired, relay.EventComplained:
	default:
		return recentKey{}, false
	}
	at := clock.micros(o.At)
	return recentKey{at - at%recentSlot.Microseconds(), o.Account, o.Kind, text(o.Provider), text(o.Diagnosis.Category)}, !o.Null
}

// putRecent writes what was added up, in an order that is the same for all.
func (w *writer) putRecent(ctx context.Context, part int64, sums map[recentKey]int64) error {
	keys := make([]recentKey, 0, len(sums))
	for k := range sums {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b recentKey) int {
		return cmp.Or(cmp.Compare(a.slot, b.slot), a.account.Compare(b.account), cmp.Compare(a.kind, b.kind), strings.Compare(a.provider, b.provider), strings.Compare(a.category, b.category))
	})
	rows := make([][]any, len(keys))
	for i := range keys {
		k := &keys[i]
		rows[i] = []any{k.slot, k.account[:], int64(k.kind), k.provider, k.category, part, sums[*k]}
	}
	return w.insert(ctx, recentTable, rows...)
}

// Recent counts the outcomes since a time, to five minutes exactly for the last
// two hours and to the hour for a day. It leaves out mail from the null sender.
func (db *DB) Recent(ctx context.Context, account relay.ID, since time.Time) ([]*relay.Recent, error) {
	at := db.clock.micros(since)
	var c conditions
	c.add("slot > ?", at-recentSlot.Microseconds())
	c.account("account", account)
	return collect(ctx, db, "count what was recent", func(row scanner) (*relay.Recent, error) {
		var n relay.Recent
		var id []byte
		err := row.Scan(&id, &n.Kind, &n.Provider, &n.Category, &n.N)
		n.Account = toID(id)
		return &n, err
	}, "select account, kind, provider, category, cast(sum(count) as bigint) from recent where "+c.String()+
		" group by account, kind, provider, category order by account, kind, provider, category", c.args...)
}

// sweepRecent makes hours of what is old, and drops what is older.
func (db *DB) sweepRecent(ctx context.Context, w *writer) error {
	// Written out, not a parameter: an expression with one is not the same twice.
	const hours, hour = "slot - slot % 3600000000", int64(time.Hour / time.Microsecond)
	now := micros(db.clock.theirs())
	fine := now - recentFine.Microseconds()
	fine -= fine % hour
	// One node at a time: two would count the same slots into the same hour.
	if _, err := w.exec(ctx, "update counter set value = value + 1 where name = 'recent'"); err != nil {
		return err
	}
	if _, err := w.exec(ctx, "insert into recent (slot, account, kind, provider, category, part, count)"+
		" select "+hours+", account, kind, provider, category, cast(? as bigint), cast(sum(count) as bigint) from recent where slot < ? and part >= 0"+
		" group by "+hours+", account, kind, provider, category"+
		" on conflict (slot, account, kind, provider, category, part) do update set count = recent.count + excluded.count", int64(recentHours), fine); err != nil {
		return err
	}
	if _, err := w.exec(ctx, "delete from recent where slot < ? and part >= 0", fine); err != nil {
		return err
	}
	_, err := w.exec(ctx, "delete from recent where slot < ?", now-recentKept.Microseconds())
	return err
}
