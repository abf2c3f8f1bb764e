package store

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"

	"postrider/internal/relay"
)

// backlogParts count what is not final by class, each from an index of its own
// with the first classes after one. What waits is counted along delivery_ready,
// whose order is that of the pages: a page costs what its own classes have. What
// is in hand is bounded by the nodes' windows, what is held by people's patience.
var backlogParts = [...]string{
	"count(case when state = 1 then 1 end) queued, count(case when state = 2 then 1 end) deferred, 0 in_hand, 0 held, min(%[1]s) oldest, min(due) due from delivery where lease = 0 and state < 3",
	"0, 0, count(*), 0, min(%[1]s), cast(null as bigint) from delivery where lease > 0 and state < 3",
	"0, 0, 0, count(*), min(%[1]s), cast(null as bigint) from delivery where state = 3",
}

// nearEnds is how many deliveries at either end of a class's line are looked at
// for the last deferral.
const nearEnds = "100"

const (
	ofEnds = "select state, updated, host, code, enhanced, reply, category, diagnosis, advice" + ofClass
	// lastDeferral finds it near the ends: in a class that is put off, the last
	// in line are those that were tried last.
	lastDeferral = "select updated, host, code, enhanced, reply, category, diagnosis, advice from (" +
		"select * from (" + ofEnds + " order by due desc limit " + nearEnds + ") late union all " +
		"select * from (" + ofEnds + " order by due limit " + nearEnds + ") early) ends where state = 2 order by updated desc limit 1"
)

// Backlog counts the account's deliveries that are not final, by class. It takes
// time in proportion to how many the classes of the page have (for one account
// among others, to how many wait in all): about a second for a million. Who asks
// bounds it by ctx.
func (db *DB) Backlog(ctx context.Context, account relay.ID, f relay.BacklogFilter) ([]relay.Backlog, error) {
	limit := f.Limit
	if limit <= 0 {
		limit = relay.DefaultLimit
	}
	var c conditions
	c.add("(stream, domain, account) > (?, ?, ?)", int64(f.After.Stream), text(f.After.Domain), f.After.Account[:])
	c.account("account", account)
	if f.Domain != "" {
		c.add("domain = ?", strings.ToLower(text(f.Domain)))
	}
	const class = "stream, domain, account"
	var parts []string
	var args []any
	for i, part := range backlogParts {
		parts = append(parts, fmt.Sprintf("select * from (select "+class+", "+part+" and %[2]s group by "+class+" order by "+class+" limit ?) p%[3]d", db.dialect.Hex, c.String(), i))
		args = append(append(args, c.args...), limit)
	}
	var found []relay.Backlog
	err := db.read(ctx, "select "+class+", cast(sum(queued) as bigint), cast(sum(deferred) as bigint), cast(sum(in_hand) as bigint), cast(sum(held) as bigint), min(oldest), coalesce(min(due), 0) from ("+
		strings.Join(parts, " union all ")+") parts group by "+class+" order by "+class+" limit ?", func(row scanner) error {
		var b relay.Backlog
		var account []byte
		var oldest string
		var due int64
		if err := row.Scan(&b.Stream, &b.Domain, &account, &b.Queued, &b.Deferred, &b.InHand, &b.Held, &oldest, &due); err != nil {
			return err
		}
		id, err := hex.DecodeString(oldest)
		b.Account, b.Oldest = toID(account), toID(id).Time().UTC()
		if due != 0 {
			b.Due = db.clock.time(due)
		}
		found = append(found, b)
		return err
	}, append(args, limit)...)
	for i := range found {
		if b := &found[i]; err == nil && b.Deferred > 0 {
			b.Last, err = db.lastDeferral(ctx, b.Class)
		}
	}
	if err != nil {
		return nil, db.fail("count what waits", err)
	}
	return found, nil
}

func (db *DB) lastDeferral(ctx context.Context, c relay.Class) (last *relay.Deferral, err error) {
	err = db.read(ctx, lastDeferral, func(row scanner) error {
		var d relay.Deferral
		var at int64
		err := row.Scan(&at, &d.Host, &d.Reply.Code, &d.Reply.Enhanced, &d.Reply.Text, &d.Diagnosis.Category, &d.Diagnosis.Text, &d.Diagnosis.Advice)
		d.At, last = db.clock.time(at), &d
		return err
	}, int64(c.Stream), text(c.Domain), c.Account[:], int64(c.Stream), text(c.Domain), c.Account[:])
	return last, err
}
