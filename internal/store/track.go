package store

import (
	"context"
	"slices"
	"strings"

	"postrider/internal/relay"
)

// linkedAtOnce is how many deliveries one statement asks for.
const linkedAtOnce = 50

// Linked gives those of these deliveries that are there, of whichever account: they
// are named by links that only the relay can make.
func (db *DB) Linked(ctx context.Context, ids []relay.DeliveryID) (found []*relay.Delivery, err error) {
	for some := range slices.Chunk(ids, linkedAtOnce) {
		args := make([]any, 0, 2*len(some))
		for i := range some {
			args = append(args, some[i].Message[:], int64(some[i].N))
		}
		which := strings.Repeat(" or message = ? and n = ?", len(some))[len(" or "):]
		err := db.read(ctx, "select "+deliveryColumns+" from delivery where "+which, func(row scanner) error {
			var r deliveryRow
			if err := row.Scan(r.targets()...); err != nil {
				return err
			}
			found = append(found, r.delivery())
			return nil
		}, args...)
		if err != nil {
			return nil, db.fail("find deliveries of links", err)
		}
	}
	return found, nil
}

var untrackedTable = newTable("untracked", " on conflict do nothing", columns(blob, "account"), columns(words, "address note"), columns(number, "created"))

const untrackedColumns = "account, address, note, created"

func (db *DB) scanUntracked(row scanner) (*relay.Untracked, error) {
	var u relay.Untracked
	var account []byte
	var created int64
	if err := row.Scan(&account, &u.Address, &u.Note, &created); err != nil {
		return nil, err
	}
	u.Account, u.Created = toID(account), db.clock.time(created)
	return &u, nil
}

// Untrack adds an address of which the account tracks nothing, and tells whether it
// is new.
func (db *DB) Untrack(ctx context.Context, by relay.Actor, u relay.Untracked) (added bool, err error) {
	if u.Account.IsZero() || u.Account == relay.Everyone {
		return false, &relay.Error{Code: relay.Invalid, Text: "An address that is not tracked needs an account."}
	}
	err = db.edit(ctx, "add untracked address", func(ctx context.Context, w *writer) (*edit, error) {
		found, err := look(ctx, w, db.scanUntracked, "select "+untrackedColumns+" from untracked where account = ? and address = ?", u.Account[:], text(u.Address))
		if added = len(found) == 0; err != nil || !added {
			return nil, err
		}
		err = w.insert(ctx, untrackedTable, []any{u.Account[:], text(u.Address), text(u.Note), db.clock.micros(u.Created)})
		return &edit{by: by, account: u.Account, action: "untracked.add", object: u.Address, after: u, silent: true}, err
	})
	return added, err
}

// Retrack takes an address off that list, or says NotFound.
func (db *DB) Retrack(ctx context.Context, by relay.Actor, account relay.ID, address string) error {
	return db.edit(ctx, "remove untracked address", func(ctx context.Context, w *writer) (*edit, error) {
		var own conditions
		own.account("account", account)
		own.add("address = ?", text(address))
		found, err := look(ctx, w, db.scanUntracked, "select "+untrackedColumns+" from untracked where "+own.String(), own.args...)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, missing("untracked address", address)
		}
		before := found[0]
		_, err = w.exec(ctx, "delete from untracked where account = ? and address = ?", before.Account[:], before.Address)
		return &edit{by: by, account: before.Account, action: "untracked.remove", object: address, before: before, silent: true}, err
	})
}

// Untracked gives the addresses of which the account tracks nothing, by account and
// address, those after one, of which only the account and the address count; part,
// where not empty, is a part of each.
func (db *DB) Untracked(ctx context.Context, account relay.ID, part string, after relay.Untracked, limit int) ([]*relay.Untracked, error) {
	var c conditions
	c.account("account", account)
	c.contains("address", part)
	c.add("(account, address) > (?, ?)", after.Account[:], text(after.Address))
	return collect(ctx, db, "read untracked addresses", db.scanUntracked, "select "+untrackedColumns+" from untracked where "+c.String()+" order by account, address limit ?",
		append(c.args, page(limit))...)
}

// IsUntracked tells whether one of the addresses is on the account's list.
func (db *DB) IsUntracked(ctx context.Context, account relay.ID, addresses []string) (bool, error) {
	for some := range inParts(addresses) {
		found, err := collect(ctx, db, "look for untracked addresses", db.scanUntracked, "select "+untrackedColumns+" from untracked where account = ? and address in (?"+
			repeatMark(len(some)-1)+") limit 1", texts([]any{account[:]}, some)...)
		if err != nil || len(found) > 0 {
			return len(found) > 0, err
		}
	}
	return false, nil
}
