package store

import (
	"context"
	"encoding/json"
	"fmt"

	"postrider/internal/relay"
)

// EnsureAccount gives the account of that name, and makes it if there is none.
func (db *DB) EnsureAccount(ctx context.Context, name string) (id relay.ID, err error) {
	err = db.edit(ctx, "ensure account", func(ctx context.Context, w *writer) (*edit, error) {
		fresh, err := db.newID()
		if err != nil {
			return nil, err
		}
		a := &relay.Account{ID: fresh, Name: text(name), Status: relay.Active, Created: db.clock.now(), Version: 1}
		made, err := w.addAccount(ctx, a, " on conflict do nothing")
		if err != nil {
			return nil, err
		}
		err = w.query(ctx, "select id from account where name = ?", func(row scanner) error {
			var b []byte
			err := row.Scan(&b)
			id = toID(b)
			return err
		}, a.Name)
		if err != nil || made == 0 {
			return nil, err
		}
		return &edit{by: relay.Actor{Name: "postrider"}, account: fresh, action: "account.add", object: a.Name, after: a}, nil
	})
	return id, err
}

func (w *writer) addAccount(ctx context.Context, a *relay.Account, tail string) (int64, error) {
	doc, err := json.Marshal(a)
	if err != nil {
		return 0, fmt.Errorf("encode account: %w", err)
	}
	return w.exec(ctx, "insert into account (id, name, created, parent, plan, version, settings) values (?, ?, ?, ?, ?, ?, ?)"+tail,
		a.ID[:], text(a.Name), w.clock.micros(a.Created), a.Parent[:], text(a.Plan), a.Version, doc)
}

// AddAccount makes an account, of version 1. A relay.Error Conflict says that
// the name is taken.
func (db *DB) AddAccount(ctx context.Context, by relay.Actor, a *relay.Account) error {
	if a.ID.IsZero() || a.ID == relay.Everyone || a.Name == "" {
		return &relay.Error{Code: relay.Invalid, Text: "An account needs an id and a name."}
	}
	a.Version = 1
	return db.edit(ctx, "add account", func(ctx context.Context, w *writer) (*edit, error) {
		if _, err := w.addAccount(ctx, a, ""); err != nil {
			return nil, db.taken(err, fmt.Sprintf("There is an account %q already.", a.Name), "Choose another name.")
		}
		return &edit{by: by, account: a.ID, action: "account.add", object: a.Name, after: a}, nil
	})
}

const accountColumns = "id, name, created, parent, plan, version, settings"

func (db *DB) scanAccount(row scanner) (*relay.Account, error) {
	var name, plan string
	var id, parent, doc []byte
	var created, version int64
	if err := row.Scan(&id, &name, &created, &parent, &plan, &version, &doc); err != nil {
		return nil, err
	}
	a := &relay.Account{Status: relay.Active}
	if err := json.Unmarshal(doc, a); err != nil {
		return nil, fmt.Errorf("read account %s: %w", toID(id), err)
	}
	a.ID, a.Name, a.Created, a.Parent, a.Plan, a.Version = toID(id), name, db.clock.time(created), toID(parent), plan, version
	return a, nil
}

// visible keeps to an account itself and those that it manages.
func (c *conditions) visible(account relay.ID) {
	switch {
	case account.IsZero(): // the parent of many
		c.add("1 = 0")
	case account != relay.Everyone:
		c.add("(id = ? or parent = ?)", account[:], account[:])
	}
}

// Account gives an account that is the asking one, or one that it manages.
func (db *DB) Account(ctx context.Context, account, id relay.ID) (*relay.Account, error) {
	var c conditions
	c.visible(account)
	c.add("id = ?", id[:])
	found, err := db.accounts(ctx, c, "order by id")
	return only(found, err, notFound("account", id))
}

// AccountByName does the same by the name.
func (db *DB) AccountByName(ctx context.Context, account relay.ID, name string) (*relay.Account, error) {
	var c conditions
	c.visible(account)
	c.add("name = ?", text(name))
	found, err := db.accounts(ctx, c, "order by id")
	return only(found, err, missing("account", name))
}

// Accounts gives those after the one of that id, the oldest first: the asking
// one, and those that it manages.
func (db *DB) Accounts(ctx context.Context, account, after relay.ID, limit int) ([]*relay.Account, error) {
	var c conditions
	c.visible(account)
	c.add("id > ?", after[:])
	return db.accounts(ctx, c, "order by id limit ?", page(limit))
}

func (db *DB) accounts(ctx context.Context, c conditions, tail string, args ...any) ([]*relay.Account, error) {
	return collect(ctx, db, "read accounts", db.scanAccount, "select "+accountColumns+" from account where "+c.String()+" "+tail, append(c.args, args...)...)
}

// SetAccount changes an account that is the asking one, or one that it manages,
// and raises its version. The parent and the time that it was made stay.
func (db *DB) SetAccount(ctx context.Context, by relay.Actor, account relay.ID, a *relay.Account) error {
	var after relay.Account
	err := db.edit(ctx, "change account", func(ctx context.Context, w *writer) (*edit, error) {
		var c conditions
		c.visible(account)
		c.add("id = ?", a.ID[:])
		found, err := look(ctx, w, db.scanAccount, "select "+accountColumns+" from account where "+c.String(), c.args...)
		before, err := only(found, err, notFound("account", a.ID))
		if err != nil {
			return nil, err
		}
		after = *a
		after.Parent, after.Created, after.Version = before.Parent, before.Created, a.Version+1
		doc, err := json.Marshal(after)
		if err != nil {
			return nil, fmt.Errorf("encode account: %w", err)
		}
		changed, err := w.exec(ctx, "update account set name = ?, plan = ?, version = ?, settings = ? where id = ? and version = ?",
			text(a.Name), text(a.Plan), after.Version, doc, a.ID[:], a.Version)
		if err != nil {
			return nil, db.taken(err, fmt.Sprintf("There is an account %q already.", a.Name), "Choose another name.")
		}
		if changed == 0 {
			return nil, overtaken()
		}
		return &edit{by: by, account: a.ID, action: "account.change", object: a.Name, before: before, after: after}, nil
	})
	if err == nil {
		*a = after
	}
	return err
}
