package store

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"

	"postrider/internal/relay"
)

// edit is a change of what people manage, as the audit log shows it.
type edit struct {
	by             relay.Actor
	account        relay.ID
	action, object string
	before, after  any // nil: it was not there, or is gone
	// silent: nothing of it is cached by anybody, so that nobody need look anew.
	silent bool
}

// edit runs f in a transaction, with what it tells noted in the audit log and the
// number raised that DirectoryChanged gives. A nil edit means that nothing
// changed.
func (db *DB) edit(ctx context.Context, doing string, f func(ctx context.Context, w *writer) (*edit, error)) error {
	return db.write(ctx, doing, func(ctx context.Context, w *writer) error {
		e, err := f(ctx, w)
		if err != nil || e == nil {
			return err
		}
		c := relay.Change{At: db.clock.now(), Account: e.account, Actor: e.by, Action: e.action, Object: e.object}
		if c.Before, err = document(e.before); err != nil {
			return err
		}
		if c.After, err = document(e.after); err != nil {
			return err
		}
		if err := db.note(ctx, w, &c); err != nil || e.silent {
			return err
		}
		return w.directoryChanged(ctx)
	})
}

func document(v any) (json.RawMessage, error) {
	if v == nil {
		return nil, nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode change: %w", err)
	}
	return b, nil
}

// directoryChanged raises the number that DirectoryChanged gives. The counter has
// kept the name by which programs of schema 2 know it.
func (w *writer) directoryChanged(ctx context.Context) error {
	return w.send(ctx, "update counter set value = value + 1 where name = 'credentials'")
}

// DirectoryChanged gives a number that grows with each change of an account, a
// member, a plan, a credential, a domain or a sender: whoever keeps some in
// memory asks for it now and then.
func (db *DB) DirectoryChanged(ctx context.Context) (version int64, err error) {
	err = db.read(ctx, "select value from counter where name = 'credentials'", func(row scanner) error { return row.Scan(&version) })
	if err != nil {
		return 0, db.fail("read version of the directory", err)
	}
	return version, nil
}

// note writes an entry of the audit log.
func (db *DB) note(ctx context.Context, w *writer, c *relay.Change) error {
	id, err := db.newID()
	if err != nil {
		return err
	}
	client := ""
	if c.Actor.Client.IsValid() {
		client = c.Actor.Client.String()
	}
	c.ID = id
	return w.send(ctx, "insert into audit (id, at, account, person, credential, actor, client, action, object, was, became) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		id[:], db.clock.micros(c.At), c.Account[:], c.Actor.User[:], c.Actor.Credential[:], text(c.Actor.Name), client, text(c.Action), text(c.Object),
		[]byte(c.Before), []byte(c.After))
}

// Note adds an entry to the audit log about what is no change of the store's own,
// such as a limit that is nearly used up. It fills in the id.
func (db *DB) Note(ctx context.Context, c *relay.Change) error {
	if c.Account.IsZero() {
		return &relay.Error{Code: relay.Invalid, Text: "A change needs an account."}
	}
	return db.write(ctx, "note change", func(ctx context.Context, w *writer) error { return db.note(ctx, w, c) })
}

// Changes gives entries of the audit log, the newest first.
func (db *DB) Changes(ctx context.Context, account relay.ID, f relay.ChangeFilter) ([]*relay.Change, error) {
	var c conditions
	c.account("account", account)
	if f.Action != "" {
		c.add(`(action = ? or action like ? escape '\')`, text(f.Action), likeEscaper.Replace(text(f.Action))+".%")
	}
	if f.Object != "" {
		c.add("object = ?", text(f.Object))
	}
	if !f.User.IsZero() {
		c.add("person = ?", f.User[:])
	}
	if !f.Credential.IsZero() {
		c.add("credential = ?", f.Credential[:])
	}
	if !f.Since.IsZero() {
		first := idAt(f.Since.Add(-idSlack))
		c.add("id >= ? and at >= ?", first[:], db.clock.micros(f.Since))
	}
	if !f.Until.IsZero() {
		end := idAt(f.Until.Add(idSlack))
		c.add("id < ? and at < ?", end[:], db.clock.micros(f.Until))
	}
	if !f.Before.IsZero() {
		c.add("id < ?", f.Before[:])
	}
	var found []*relay.Change
	err := db.read(ctx, "select id, at, account, person, credential, actor, client, action, object, was, became from audit where "+c.String()+
		" order by id desc limit ?", func(row scanner) error {
		var e relay.Change
		var id, account, person, credential, was, became []byte
		var at int64
		var client string
		err := row.Scan(&id, &at, &account, &person, &credential, &e.Actor.Name, &client, &e.Action, &e.Object, &was, &became)
		if err == nil && client != "" {
			e.Actor.Client, err = netip.ParseAddr(client)
		}
		e.ID, e.At, e.Account, e.Actor.User, e.Actor.Credential = toID(id), db.clock.time(at), toID(account), toID(person), toID(credential)
		if len(was) > 0 {
			e.Before = was
		}
		if len(became) > 0 {
			e.After = became
		}
		found = append(found, &e)
		return err
	}, append(c.args, page(f.Limit))...)
	if err != nil {
		return nil, db.fail("read audit log", err)
	}
	return found, nil
}

// page is how many entries a page has.
func page(limit int) int {
	if limit <= 0 {
		return relay.DefaultLimit
	}
	return limit
}

// overtaken is what a change gets that names another version than there is.
func overtaken() error {
	return &relay.Error{Code: relay.Conflict, Text: "Somebody else has changed it in the meantime.", Advice: "Look at it again, then repeat your change."}
}

// taken gives a broken constraint words of its own; other errors stay.
func (db *DB) taken(err error, text, advice string) error {
	if err == nil || db.dialect.Classify(err) != ClassConstraint {
		return err
	}
	return &relay.Error{Code: relay.Conflict, Text: text, Advice: advice, Err: err}
}

// missing says that there is no such thing of that name.
func missing(what, name string) error {
	return &relay.Error{Code: relay.NotFound, Text: fmt.Sprintf("There is no %s %q.", what, name)}
}

// only gives the first of what was found, or the error for where nothing was.
func only[T any](found []*T, err, none error) (*T, error) {
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, none
	}
	return found[0], nil
}

// look reads rows within a transaction.
func look[T any](ctx context.Context, w *writer, scan func(scanner) (*T, error), query string, args ...any) (found []*T, err error) {
	err = w.query(ctx, query, func(row scanner) error {
		v, err := scan(row)
		found = append(found, v)
		return err
	}, args...)
	return found, err
}

// collect reads rows.
func collect[T any](ctx context.Context, db *DB, doing string, scan func(scanner) (*T, error), query string, args ...any) (found []*T, err error) {
	err = db.read(ctx, query, func(row scanner) error {
		v, err := scan(row)
		found = append(found, v)
		return err
	}, args...)
	if err != nil {
		return nil, db.fail(doing, err)
	}
	return found, nil
}
