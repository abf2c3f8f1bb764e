package store

import (
	"context"
	"fmt"
	"slices"

	"postrider/internal/relay"
)

var suppressionTable = newTable("suppression", " on conflict do nothing", columns(blob, "account"), columns(words, "address reason note"),
	columns(blob, "event"), columns(number, "created"))

// listed is how many addresses an entry of the audit log names, of those that
// are suppressed at once.
const listed = 100

// Suppress adds to the account's suppressions, and says how many are new. What
// is suppressed already stays as it is.
func (db *DB) Suppress(ctx context.Context, by relay.Actor, account relay.ID, list []relay.Suppression) (added int64, err error) {
	if account.IsZero() || account == relay.Everyone {
		return 0, &relay.Error{Code: relay.Invalid, Text: "A suppression needs an account."}
	}
	seen := make(map[string]bool, len(list))
	list = slices.DeleteFunc(slices.Clone(list), func(s relay.Suppression) bool {
		again := seen[s.Address]
		seen[s.Address] = true
		return again
	})
	return db.editSuppressions(ctx, by, account, "suppression.add", len(list), func(ctx context.Context, w *writer) (int64, any, error) {
		before, err := w.countSuppressions(ctx, account, list)
		if err != nil {
			return 0, nil, err
		}
		rows := make([][]any, len(list))
		for i, s := range list {
			rows[i] = []any{account[:], text(s.Address), text(s.Reason), text(s.Note), s.Event[:], db.clock.micros(s.Created)}
		}
		if err := w.insert(ctx, suppressionTable, rows...); err != nil {
			return 0, nil, err
		}
		after, err := w.countSuppressions(ctx, account, list)
		return after - before, list[:min(len(list), listed)], err
	})
}

// countSuppressions counts those of the list's addresses that are suppressed.
func (w *writer) countSuppressions(ctx context.Context, account relay.ID, list []relay.Suppression) (n int64, err error) {
	addresses := make([]string, len(list))
	for i, s := range list {
		addresses[i] = s.Address
	}
	for some := range inParts(addresses) {
		err := w.query(ctx, "select count(*) from suppression where account = ? and address in (?"+repeatMark(len(some)-1)+")",
			func(row scanner) error {
				var found int64
				err := row.Scan(&found)
				n += found
				return err
			}, texts([]any{account[:]}, some)...)
		if err != nil {
			return 0, err
		}
	}
	return n, nil
}

func (db *DB) editSuppressions(ctx context.Context, by relay.Actor, account relay.ID, action string, n int, f func(ctx context.Context, w *writer) (int64, any, error)) (changed int64, err error) {
	err = db.edit(ctx, action, func(ctx context.Context, w *writer) (*edit, error) {
		changed = 0
		if n == 0 {
			return nil, nil
		}
		var what any
		var err error
		if changed, what, err = f(ctx, w); err != nil || changed == 0 {
			return nil, err
		}
		e := &edit{by: by, account: account, action: action, object: fmt.Sprint(changed), silent: true}
		if action == "suppression.remove" {
			e.before = what
		} else {
			e.after = what
		}
		return e, nil
	})
	return changed, err
}

// Unsuppress takes addresses off the account's suppressions, and says how many
// were there.
func (db *DB) Unsuppress(ctx context.Context, by relay.Actor, account relay.ID, addresses []string) (removed int64, err error) {
	return db.editSuppressions(ctx, by, account, "suppression.remove", len(addresses), func(ctx context.Context, w *writer) (int64, any, error) {
		var gone int64
		for some := range inParts(addresses) {
			n, err := w.exec(ctx, "delete from suppression where account = ? and address in (?"+repeatMark(len(some)-1)+")", texts([]any{account[:]}, some)...)
			if err != nil {
				return 0, nil, err
			}
			gone += n
		}
		return gone, addresses[:min(len(addresses), listed)], nil
	})
}

const suppressionColumns = "account, address, reason, note, event, created"

func (db *DB) scanSuppression(row scanner) (*relay.Suppression, error) {
	var s relay.Suppression
	var account, event []byte
	var created int64
	if err := row.Scan(&account, &s.Address, &s.Reason, &s.Note, &event, &created); err != nil {
		return nil, err
	}
	s.Account, s.Event, s.Created = toID(account), toID(event), db.clock.time(created)
	return &s, nil
}

// Suppressed gives those of the addresses that the account must not send to, as
// they stand in its list.
func (db *DB) Suppressed(ctx context.Context, account relay.ID, addresses []string) ([]*relay.Suppression, error) {
	var all []*relay.Suppression
	for some := range inParts(addresses) {
		found, err := collect(ctx, db, "look for suppressions", db.scanSuppression, "select "+suppressionColumns+" from suppression where account = ? and address in (?"+
			repeatMark(len(some)-1)+") order by address", texts([]any{account[:]}, some)...)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// Suppressions gives the account's suppressions by address.
func (db *DB) Suppressions(ctx context.Context, account relay.ID, f relay.SuppressionFilter) ([]*relay.Suppression, error) {
	var c conditions
	c.account("account", account)
	c.contains("address", f.Text)
	if f.Reason != "" {
		c.add("reason = ?", text(f.Reason))
	}
	if f.After != "" {
		c.add("address > ?", text(f.After))
	}
	return collect(ctx, db, "read suppressions", db.scanSuppression, "select "+suppressionColumns+" from suppression where "+c.String()+" order by address, account limit ?",
		append(c.args, page(f.Limit))...)
}
