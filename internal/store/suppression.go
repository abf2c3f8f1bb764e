package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"postrider/internal/relay"
)

// Whoever is suppressed for good stays so as it is; what holds for a time gives
// way to what holds longer, and everything to a complaint, which is not to be
// taken off the list without a thought: by whatever it is made to hold longer, a
// complaint it stays, and its proof.
var suppressionTable = newTable("suppression", " on conflict (account, address, stream) do update set reason = "+unlessComplaint("reason")+", note = "+unlessComplaint("note")+
	", event = "+unlessComplaint("event")+", created = "+unlessComplaint("created")+
	", expires = case when suppression.expires = 0 or excluded.expires = 0 then 0 when suppression.expires > excluded.expires then suppression.expires else excluded.expires end"+
	" where suppression.reason <> 'complaint' and excluded.reason = 'complaint' or suppression.expires > 0 and (excluded.expires = 0 or excluded.expires > suppression.expires)",
	columns(blob, "account"), columns(words, "address reason note"), columns(blob, "event"), columns(number, "created stream expires strange"))

// unlessComplaint is what a column becomes where a row gives way to another.
func unlessComplaint(column string) string {
	return "case when suppression.reason = 'complaint' and excluded.reason <> 'complaint' then suppression." + column + " else excluded." + column + " end"
}

// listed is how many addresses an entry of the audit log names, of those that
// are suppressed at once.
const listed = 100

// Suppress adds to the account's suppressions, and says how many are new. What
// is suppressed already stays as it is, but for what the new one outlasts, and
// for complaints.
func (db *DB) Suppress(ctx context.Context, by relay.Actor, account relay.ID, list []relay.Suppression) (added int64, err error) {
	if account.IsZero() || account == relay.Everyone {
		return 0, &relay.Error{Code: relay.Invalid, Text: "A suppression needs an account."}
	}
	list = slices.Clone(list)
	for i := range list {
		list[i].Account = account
	}
	err = db.write(ctx, "suppression.add", func(ctx context.Context, w *writer) error {
		added, err = db.suppress(ctx, w, by, list)
		return err
	})
	return added, err
}

// suppress adds to the suppressions of accounts within a transaction, with an
// entry in the audit log for each account, and says how many are new.
func (db *DB) suppress(ctx context.Context, w *writer, by relay.Actor, list []relay.Suppression) (fresh int64, err error) {
	now := db.clock.now()
	for some := range accountsOf(list) {
		account := some[0].Account
		here, err := db.suppressionsOf(ctx, w, account, some)
		if err != nil {
			return 0, err
		}
		var change []relay.Suppression
		for _, s := range some {
			before := here[s.Key()]
			if before != nil && !outlasts(before, &s) {
				continue
			}
			if before == nil || !before.Holds(now) {
				fresh++
				w.fresh[s.Reason]++
			}
			change = append(change, s)
		}
		if len(change) == 0 {
			continue
		}
		if err := db.addSuppressions(ctx, w, account, change); err != nil {
			return 0, err
		}
		c := relay.Change{At: now, Account: account, Actor: by, Action: "suppression.add", Object: fmt.Sprint(len(change))}
		if c.After, err = document(change[:min(len(change), listed)]); err != nil {
			return 0, err
		}
		if err := db.note(ctx, w, &c); err != nil {
			return 0, err
		}
	}
	return fresh, nil
}

// countFresh counts what a transaction added.
func (db *DB) countFresh(fresh map[string]int64) {
	for reason, n := range fresh {
		if added := db.added[reason]; added != nil {
			added.Add(n)
		}
	}
}

// SuppressionsAdded counts the suppressions that were added by way of this handle,
// by reason.
func (db *DB) SuppressionsAdded() map[string]int64 {
	all := make(map[string]int64, len(db.added))
	for reason, n := range db.added {
		all[reason] = n.Load()
	}
	return all
}

// outlasts tells what the statement that adds tells too: whether one on the list
// gives way to another.
func outlasts(before, s *relay.Suppression) bool {
	return before.Reason != relay.ReasonComplaint && s.Reason == relay.ReasonComplaint ||
		!before.Expires.IsZero() && (s.Expires.IsZero() || s.Expires.After(before.Expires))
}

// accountsOf cuts a list by accounts, and into parts that fit a statement: each
// address and stream once, a complaint before anything else, in one order for all
// who write.
func accountsOf(list []relay.Suppression) func(yield func([]relay.Suppression) bool) {
	list = slices.Clone(list)
	for i := range list {
		list[i].Address, list[i].Note, list[i].Reason = text(list[i].Address), text(list[i].Note), text(list[i].Reason)
	}
	order := func(a, b relay.Suppression) int {
		return cmp.Or(a.Account.Compare(b.Account), strings.Compare(a.Address, b.Address), cmp.Compare(a.Stream, b.Stream))
	}
	slices.SortStableFunc(list, func(a, b relay.Suppression) int {
		return cmp.Or(order(a, b), cmp.Compare(bit(b.Reason == relay.ReasonComplaint), bit(a.Reason == relay.ReasonComplaint)))
	})
	list = slices.CompactFunc(list, func(a, b relay.Suppression) bool { return order(a, b) == 0 })
	return func(yield func([]relay.Suppression) bool) {
		for start := 0; start < len(list); {
			end := start + 1
			for end < len(list) && list[end].Account == list[start].Account {
				end++
			}
			if !yield(list[start:end:end]) {
				return
			}
			start = end
		}
	}
}

// byKey is a condition on addresses, each behind the values of the columns that stand
// before it in a primary key, for who writes. An engine with arrays gets whole keys: by
// the others alone it might read all that an account has, as long as it does not know
// how much that is, in a table that is just being filled.
func (w *writer) byKey(before []column, values []any, addresses []string) (where string, args []any) {
	if !w.dialect.Arrays {
		return strings.Join(names(before), " = ? and ") + " = ? and address in (?" + repeatMark(len(addresses)-1) + ")", texts(slices.Clone(values), addresses)
	}
	key := slices.Concat(before, columns(words, "address"))
	rows := make([][]any, len(addresses))
	for i, a := range addresses {
		rows[i] = append(slices.Clip(values), text(a))
	}
	return "(" + strings.Join(names(key), ", ") + ") in (select * from " + unnested(key) + ")", arrays(key, rows)
}

var accountColumn = columns(blob, "account")

// suppressionsOf reads what stands in the account's list of the addresses of list.
func (db *DB) suppressionsOf(ctx context.Context, w *writer, account relay.ID, list []relay.Suppression) (map[relay.SuppressionKey]*relay.Suppression, error) {
	addresses := make([]string, len(list))
	for i, s := range list {
		addresses[i] = s.Address
	}
	here := map[relay.SuppressionKey]*relay.Suppression{}
	for some := range inParts(slices.Compact(addresses)) {
		where, args := w.byKey(accountColumn, []any{account[:]}, some)
		found, err := look(ctx, w, db.scanSuppression, "select "+suppressionColumns+" from suppression where "+where, args...)
		if err != nil {
			return nil, err
		}
		for _, s := range found {
			here[s.Key()] = s
		}
	}
	return here, nil
}

// OnSuppress has told be called with what this store adds to suppressions, of
// whichever account, before it is committed; some of it may never be. It is called
// by many at once, and must not wait. Call OnSuppress once, before anything is added.
func (db *DB) OnSuppress(told func(relay.SuppressionNews)) { db.told = told }

// addSuppressions writes rows, and tells of them all who keep addresses in memory.
func (db *DB) addSuppressions(ctx context.Context, w *writer, account relay.ID, list []relay.Suppression) error {
	// The turn comes first: whoever takes the next one of this part waits until this
	// transaction ends.
	turn, err := w.nextTurn(ctx, db.part)
	if err != nil {
		return err
	}
	rows := make([][]any, len(list))
	news := map[relay.Stream][]string{}
	for i, s := range list {
		rows[i] = []any{account[:], s.Address, s.Reason, s.Note, s.Event[:], db.clock.micros(s.Created), int64(s.Stream), db.clock.micros(s.Expires), int64(0)}
		news[s.Stream] = append(news[s.Stream], s.Address)
	}
	if err := w.insert(ctx, suppressionTable, rows...); err != nil {
		return err
	}
	return db.addNews(ctx, w, turn, account, news)
}

// suppressionParts is how many writers can add at once without waiting for another.
const suppressionParts = 64

// turn is a place in the order of what was added.
type turn struct{ part, value int64 }

func (w *writer) nextTurn(ctx context.Context, seed int64) (t turn, err error) {
	t.part = (seed + w.number) % suppressionParts
	err = w.query(ctx, "insert into suppression_turn (part, value) values (?, 1) on conflict (part) do update set value = suppression_turn.value + 1 returning value",
		func(row scanner) error { return row.Scan(&t.value) }, t.part)
	return t, err
}

func (db *DB) addNews(ctx context.Context, w *writer, t turn, account relay.ID, news map[relay.Stream][]string) error {
	for stream, addresses := range news {
		if db.told != nil {
			db.told(relay.SuppressionNews{Account: account, Stream: stream, Addresses: addresses})
		}
		if err := w.send(ctx, "insert into suppression_news (part, turn, account, stream, at, addresses) values (?, ?, ?, ?, "+w.dialect.Now+", ?)",
			t.part, t.value, account[:], int64(stream), strings.Join(addresses, "\n")); err != nil {
			return err
		}
	}
	return nil
}

// Unsuppress takes addresses off the account's suppressions, and says how many
// rows were there. A relay.Error Conflict says that one of them complained.
func (db *DB) Unsuppress(ctx context.Context, by relay.Actor, account relay.ID, u relay.Unsuppression) (removed int64, err error) {
	err = db.edit(ctx, "suppression.remove", func(ctx context.Context, w *writer) (*edit, error) {
		removed = 0
		list := make([]relay.Suppression, len(u.Addresses))
		for i, a := range u.Addresses {
			list[i].Address = text(a)
		}
		slices.SortFunc(list, func(a, b relay.Suppression) int { return strings.Compare(a.Address, b.Address) })
		here, err := db.suppressionsOf(ctx, w, account, list)
		if err != nil {
			return nil, err
		}
		var gone []*relay.Suppression
		for key, s := range here {
			if u.Stream != 0 && key.Stream != u.Stream {
				continue
			}
			if s.Reason == relay.ReasonComplaint && !u.Complaints {
				return nil, complained(s)
			}
			gone = append(gone, s)
		}
		if len(gone) == 0 {
			return nil, nil
		}
		slices.SortFunc(gone, func(a, b *relay.Suppression) int {
			return cmp.Or(strings.Compare(a.Address, b.Address), cmp.Compare(a.Stream, b.Stream))
		})
		addresses := make([]string, len(gone))
		for i, s := range gone {
			addresses[i] = s.Address
		}
		for some := range inParts(slices.Compact(addresses)) {
			where, args := w.byKey(accountColumn, []any{account[:]}, some)
			if u.Stream != 0 {
				where, args = where+" and stream = ?", append(args, int64(u.Stream))
			}
			if !u.Complaints { // one may have come just now
				where += " and reason <> 'complaint'"
			}
			n, err := w.exec(ctx, "delete from suppression where "+where, args...)
			if err != nil {
				return nil, err
			}
			removed += n
		}
		return &edit{by: by, account: account, action: "suppression.remove", object: fmt.Sprint(removed), before: gone[:min(len(gone), listed)], silent: true}, nil
	})
	return removed, err
}

func complained(s *relay.Suppression) error {
	return &relay.Error{Code: relay.Conflict, Text: fmt.Sprintf("The owner of %s has called mail of this account spam, so it stays suppressed.", s.Address),
		Advice: "Each further complaint costs the reputation of your domain. If they asked for your mail since, say so: confirm=complaint, or -confirm complaint on the command line."}
}

const suppressionColumns = "account, address, stream, reason, note, event, created, expires"

func (db *DB) scanSuppression(row scanner) (*relay.Suppression, error) {
	var s relay.Suppression
	var account, event []byte
	var created, expires int64
	if err := row.Scan(&account, &s.Address, &s.Stream, &s.Reason, &s.Note, &event, &created, &expires); err != nil {
		return nil, err
	}
	s.Account, s.Event, s.Created, s.Expires = toID(account), toID(event), db.clock.time(created), db.clock.time(expires)
	return &s, nil
}

// Suppressed gives those of the addresses that the account must not send mail of
// a stream to now, as they stand in its list; stream 0: of any.
func (db *DB) Suppressed(ctx context.Context, account relay.ID, stream relay.Stream, addresses []string) ([]*relay.Suppression, error) {
	var all []*relay.Suppression
	only, rest := "", []any{db.clock.micros(db.clock.now())}
	if stream != 0 {
		only, rest = " and stream in (0, ?)", append(rest, int64(stream))
	}
	for some := range inParts(addresses) {
		found, err := collect(ctx, db, "look for suppressions", db.scanSuppression, "select "+suppressionColumns+" from suppression where account = ? and address in (?"+
			repeatMark(len(some)-1)+") and (expires = 0 or expires > ?)"+only+" order by address, stream", append(texts([]any{account[:]}, some), rest...)...)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// Suppressions gives the account's suppressions by address; those of all accounts by
// account first, as they lie in the store: each page begins where the one before ended.
func (db *DB) Suppressions(ctx context.Context, account relay.ID, f relay.SuppressionFilter) ([]*relay.Suppression, error) {
	var c conditions
	c.account("account", account)
	c.contains("address", f.Text)
	if f.Reason != "" {
		c.add("reason = ?", text(f.Reason))
	}
	if f.Stream != 0 {
		c.add("stream in (0, ?)", int64(f.Stream))
	}
	switch a := f.After; { // each form finds its place by the primary key
	case a.Address == "":
	case account == relay.Everyone:
		c.add("(account, address, stream) > (?, ?, ?)", a.Account[:], text(a.Address), int64(a.Stream))
	default:
		c.add("(address, stream) > (?, ?)", text(a.Address), int64(a.Stream))
	}
	return collect(ctx, db, "read suppressions", db.scanSuppression, "select "+suppressionColumns+" from suppression where "+c.String()+" order by account, address, stream limit ?",
		append(c.args, page(f.Limit))...)
}
