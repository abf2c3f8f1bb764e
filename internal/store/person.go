package store

import (
	"context"
	"fmt"

	"postrider/internal/relay"
)

const personColumns = "p.id, p.email, p.name, p.operator, p.argon2, p.created, p.disabled, p.version"

func (db *DB) scanPerson(row scanner) (*relay.User, error) {
	var u relay.User
	var id []byte
	var operator, created, disabled int64
	if err := row.Scan(&id, &u.Email, &u.Name, &operator, &u.Argon2, &created, &disabled, &u.Version); err != nil {
		return nil, err
	}
	u.ID, u.Operator, u.Created, u.Disabled = toID(id), operator != 0, db.clock.time(created), db.clock.time(disabled)
	return &u, nil
}

// AddUser makes a user, of version 1, who is in no account yet. A relay.Error
// Conflict says that somebody has the e-mail address.
func (db *DB) AddUser(ctx context.Context, by relay.Actor, u *relay.User) error {
	if u.ID.IsZero() || u.Email == "" {
		return &relay.Error{Code: relay.Invalid, Text: "A user needs an id and an e-mail address."}
	}
	u.Version = 1
	return db.edit(ctx, "add user", func(ctx context.Context, w *writer) (*edit, error) {
		_, err := w.exec(ctx, "insert into person (id, email, name, operator, argon2, created, disabled, version) values (?, ?, ?, ?, ?, ?, ?, ?)",
			u.ID[:], text(u.Email), text(u.Name), bit(u.Operator), text(u.Argon2), db.clock.micros(u.Created), db.clock.micros(u.Disabled), u.Version)
		if err != nil {
			return nil, db.taken(err, fmt.Sprintf("There is a user %q already.", u.Email), "Make that one a member.")
		}
		return &edit{by: by, account: relay.Everyone, action: "user.add", object: u.Email, after: u}, nil
	})
}

// known keeps to users who are members of the account.
func (c *conditions) known(account relay.ID) {
	if account != relay.Everyone {
		c.add("exists (select 1 from member m where m.person = p.id and m.account = ?)", account[:])
	}
}

// User gives one who is a member of the account.
func (db *DB) User(ctx context.Context, account, id relay.ID) (*relay.User, error) {
	var c conditions
	c.known(account)
	c.add("p.id = ?", id[:])
	found, err := db.persons(ctx, c, "")
	return only(found, err, notFound("user", id))
}

// UserByEmail gives the user with that address, of whichever account: for the
// login.
func (db *DB) UserByEmail(ctx context.Context, email string) (*relay.User, error) {
	var c conditions
	c.add("p.email = ?", text(email))
	found, err := db.persons(ctx, c, "")
	return only(found, err, missing("user", email))
}

// Users gives members of the account after the one of that id, the oldest first.
func (db *DB) Users(ctx context.Context, account, after relay.ID, limit int) ([]*relay.User, error) {
	var c conditions
	c.known(account)
	c.add("p.id > ?", after[:])
	return db.persons(ctx, c, " order by p.id limit ?", page(limit))
}

func (db *DB) persons(ctx context.Context, c conditions, tail string, args ...any) ([]*relay.User, error) {
	return collect(ctx, db, "read users", db.scanPerson, "select "+personColumns+" from person p where "+c.String()+tail, append(c.args, args...)...)
}

// SetUser changes a user who is a member of the account, and raises the version.
func (db *DB) SetUser(ctx context.Context, by relay.Actor, account relay.ID, u *relay.User) error {
	var after relay.User
	err := db.edit(ctx, "change user", func(ctx context.Context, w *writer) (*edit, error) {
		var c conditions
		c.known(account)
		c.add("p.id = ?", u.ID[:])
		found, err := look(ctx, w, db.scanPerson, "select "+personColumns+" from person p where "+c.String(), c.args...)
		before, err := only(found, err, notFound("user", u.ID))
		if err != nil {
			return nil, err
		}
		after = *u
		after.Created, after.Version = before.Created, u.Version+1
		changed, err := w.exec(ctx, "update person set email = ?, name = ?, operator = ?, argon2 = ?, disabled = ?, version = ? where id = ? and version = ?",
			text(u.Email), text(u.Name), bit(u.Operator), text(u.Argon2), db.clock.micros(u.Disabled), after.Version, u.ID[:], u.Version)
		if err != nil {
			return nil, db.taken(err, fmt.Sprintf("There is a user %q already.", u.Email), "Take another address.")
		}
		if changed == 0 {
			return nil, overtaken()
		}
		return &edit{by: by, account: account, action: "user.change", object: u.Email, before: before, after: after}, nil
	})
	if err == nil {
		*u = after
	}
	return err
}

const memberColumns = "m.account, m.person, p.email, m.role, m.since"

func (db *DB) scanMember(row scanner) (*relay.Member, error) {
	var m relay.Member
	var account, person []byte
	var since int64
	if err := row.Scan(&account, &person, &m.Email, &m.Role, &since); err != nil {
		return nil, err
	}
	m.Account, m.User, m.Since = toID(account), toID(person), db.clock.time(since)
	return &m, nil
}

// SetMember makes a user a member of an account, or gives a member another role.
func (db *DB) SetMember(ctx context.Context, by relay.Actor, m relay.Member) error {
	if m.Account.IsZero() || m.Account == relay.Everyone || m.Role == "" {
		return &relay.Error{Code: relay.Invalid, Text: "A member needs an account and a role."}
	}
	return db.edit(ctx, "set member", func(ctx context.Context, w *writer) (*edit, error) {
		people, err := look(ctx, w, db.scanPerson, "select "+personColumns+" from person p where p.id = ?", m.User[:])
		who, err := only(people, err, notFound("user", m.User))
		if err != nil {
			return nil, err
		}
		found, err := w.member(ctx, db, m.Account, m.User)
		if err != nil {
			return nil, err
		}
		e := &edit{by: by, account: m.Account, action: "member.add", object: who.Email}
		after := m
		after.Email = who.Email
		if len(found) > 0 {
			if found[0].Role == m.Role {
				return nil, nil
			}
			after.Since = found[0].Since
			e.action, e.before = "member.change", found[0]
		}
		e.after = after
		_, err = w.exec(ctx, "insert into member (account, person, role, since) values (?, ?, ?, ?) on conflict (account, person) do update set role = excluded.role",
			m.Account[:], m.User[:], string(m.Role), db.clock.micros(m.Since))
		return e, err
	})
}

func (w *writer) member(ctx context.Context, db *DB, account, user relay.ID) ([]*relay.Member, error) {
	return look(ctx, w, db.scanMember, "select "+memberColumns+" from member m join person p on p.id = m.person where m.account = ? and m.person = ?", account[:], user[:])
}

// RemoveMember takes a user out of an account.
func (db *DB) RemoveMember(ctx context.Context, by relay.Actor, account, user relay.ID) error {
	return db.edit(ctx, "remove member", func(ctx context.Context, w *writer) (*edit, error) {
		found, err := w.member(ctx, db, account, user)
		before, err := only(found, err, notFound("member", user))
		if err != nil {
			return nil, err
		}
		_, err = w.exec(ctx, "delete from member where account = ? and person = ?", account[:], user[:])
		return &edit{by: by, account: account, action: "member.remove", object: before.Email, before: before}, err
	})
}

// Members gives the members of an account by their addresses.
func (db *DB) Members(ctx context.Context, account relay.ID) ([]*relay.Member, error) {
	var c conditions
	c.account("m.account", account)
	return db.members(ctx, c)
}

// Memberships gives the places of a user in accounts: what the user may do is for
// the caller to see.
func (db *DB) Memberships(ctx context.Context, user relay.ID) ([]*relay.Member, error) {
	var c conditions
	c.add("m.person = ?", user[:])
	return db.members(ctx, c)
}

func (db *DB) members(ctx context.Context, c conditions) ([]*relay.Member, error) {
	return collect(ctx, db, "read members", db.scanMember, "select "+memberColumns+" from member m join person p on p.id = m.person where "+c.String()+" order by p.email, m.account", c.args...)
}
