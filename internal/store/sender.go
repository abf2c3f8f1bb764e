package store

import (
	"context"
	"fmt"

	"postrider/internal/relay"
)

const senderColumns = "id, account, address, token, asked, verified"

func (db *DB) scanSender(row scanner) (*relay.Sender, error) {
	var s relay.Sender
	var id, account []byte
	var asked, verified int64
	if err := row.Scan(&id, &account, &s.Address, &s.Token, &asked, &verified); err != nil {
		return nil, err
	}
	if len(s.Token) == 0 {
		s.Token = nil
	}
	s.ID, s.Account, s.Asked, s.Verified = toID(id), toID(account), db.clock.time(asked), db.clock.time(verified)
	return &s, nil
}

// AddSender keeps an address that is to be verified, or is. A relay.Error
// Conflict says that the account has it already.
func (db *DB) AddSender(ctx context.Context, by relay.Actor, s *relay.Sender) error {
	if s.ID.IsZero() || s.Account.IsZero() || s.Account == relay.Everyone || s.Address == "" {
		return &relay.Error{Code: relay.Invalid, Text: "A sender needs an id, an account and an address."}
	}
	return db.edit(ctx, "add sender", func(ctx context.Context, w *writer) (*edit, error) {
		_, err := w.exec(ctx, "insert into sender (id, account, address, token, asked, verified) values (?, ?, ?, ?, ?, ?)",
			s.ID[:], s.Account[:], text(s.Address), some(s.Token), db.clock.micros(s.Asked), db.clock.micros(s.Verified))
		if err != nil {
			return nil, db.taken(err, fmt.Sprintf("The sender %s is there already.", s.Address), "Have its link sent again if it is not verified.")
		}
		return &edit{by: by, account: s.Account, action: "sender.add", object: s.Address, after: s}, nil
	})
}

// SetSender writes the token of a sender of the account, when it was asked, and
// when it was verified.
func (db *DB) SetSender(ctx context.Context, by relay.Actor, account relay.ID, s *relay.Sender) error {
	return db.edit(ctx, "change sender", func(ctx context.Context, w *writer) (*edit, error) {
		before, err := db.ownSender(ctx, w, account, s.ID)
		if err != nil {
			return nil, err
		}
		after := *before
		after.Token, after.Asked, after.Verified = s.Token, s.Asked, s.Verified
		action := "sender.ask"
		if before.Verified.IsZero() != after.Verified.IsZero() {
			action = "sender.verify"
		}
		_, err = w.exec(ctx, "update sender set token = ?, asked = ?, verified = ? where id = ?", some(s.Token), db.clock.micros(s.Asked), db.clock.micros(s.Verified), s.ID[:])
		return &edit{by: by, account: before.Account, action: action, object: before.Address, before: before, after: after}, err
	})
}

func (db *DB) ownSender(ctx context.Context, w *writer, account, id relay.ID) (*relay.Sender, error) {
	var own conditions
	own.account("account", account)
	own.add("id = ?", id[:])
	found, err := look(ctx, w, db.scanSender, "select "+senderColumns+" from sender where "+own.String(), own.args...)
	return only(found, err, notFound("sender", id))
}

// RemoveSender removes a sender of the account.
func (db *DB) RemoveSender(ctx context.Context, by relay.Actor, account, id relay.ID) error {
	return db.edit(ctx, "remove sender", func(ctx context.Context, w *writer) (*edit, error) {
		before, err := db.ownSender(ctx, w, account, id)
		if err != nil {
			return nil, err
		}
		_, err = w.exec(ctx, "delete from sender where id = ?", id[:])
		return &edit{by: by, account: before.Account, action: "sender.remove", object: before.Address, before: before}, err
	})
}

// Sender gives the account's sender of that address.
func (db *DB) Sender(ctx context.Context, account relay.ID, address string) (*relay.Sender, error) {
	var c conditions
	c.account("account", account)
	c.add("address = ?", text(address))
	found, err := db.senders(ctx, c, " order by verified desc, id limit 1")
	return only(found, err, missing("sender", address))
}

// SenderByToken gives the sender whose link has the token of that digest, of
// whichever account. Whether the link is still good is for the caller to see.
func (db *DB) SenderByToken(ctx context.Context, sum [32]byte) (*relay.Sender, error) {
	var c conditions
	c.add("token = ?", sum[:])
	found, err := db.senders(ctx, c, " limit 1")
	return only(found, err, &relay.Error{Code: relay.NotFound, Text: "There is no such link.", Advice: "Have a new one sent."})
}

// Senders gives the account's senders after the one of that id, the oldest first.
func (db *DB) Senders(ctx context.Context, account, after relay.ID, limit int) ([]*relay.Sender, error) {
	var c conditions
	c.account("account", account)
	c.add("id > ?", after[:])
	return db.senders(ctx, c, " order by id limit ?", page(limit))
}

func (db *DB) senders(ctx context.Context, c conditions, tail string, args ...any) ([]*relay.Sender, error) {
	return collect(ctx, db, "read senders", db.scanSender, "select "+senderColumns+" from sender where "+c.String()+tail, append(c.args, args...)...)
}
