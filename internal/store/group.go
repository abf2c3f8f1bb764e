package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"postrider/internal/relay"
)

const selectGroups = "select account, id, standard, position, settings, version from mail_group where "

func scanGroup(row scanner) (*relay.Group, error) {
	g := &relay.Group{}
	var account, doc []byte
	var id string
	var standard, position, version int64
	if err := row.Scan(&account, &id, &standard, &position, &doc, &version); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(doc, g); err != nil {
		return nil, fmt.Errorf("read group %s: %w", id, err)
	}
	g.Account, g.ID, g.Default, g.Position, g.Version = toID(account), id, standard != 0, int(position), version
	return g, nil
}

func encodeGroup(g *relay.Group) ([]byte, error) {
	doc, err := json.Marshal(g)
	if err != nil {
		return nil, fmt.Errorf("encode group: %w", err)
	}
	return doc, nil
}

func noGroup(id string) error {
	return &relay.Error{Code: relay.NotFound, Text: fmt.Sprintf("There is no group %q.", id), Advice: "See \"postrider group list\"."}
}

// AddGroup keeps a group, of version 1. An account has at most that many.
func (db *DB) AddGroup(ctx context.Context, by relay.Actor, g *relay.Group, most int) error {
	if g.Account.IsZero() || g.Account == relay.Everyone || g.ID == "" {
		return &relay.Error{Code: relay.Invalid, Text: "A group needs an account and an id."}
	}
	g.Version = 1
	doc, err := encodeGroup(g)
	if err != nil {
		return err
	}
	return db.edit(ctx, "add group", func(ctx context.Context, w *writer) (*edit, error) {
		n, err := w.exec(ctx, "insert into mail_group (account, id, standard, position, settings, version)"+
			" select ?, ?, cast(? as bigint), cast(? as bigint), ?, cast(? as bigint) where (select count(*) from mail_group where account = ?) < ?",
			g.Account[:], text(g.ID), bit(g.Default), int64(g.Position), doc, g.Version, g.Account[:], most)
		if err != nil {
			return nil, db.taken(err, fmt.Sprintf("There is a group %q already.", g.ID), "Take another id, or change the one that is there.")
		}
		if n == 0 {
			return nil, &relay.Error{Code: relay.TooMany, Text: fmt.Sprintf("An account has at most %d groups.", most), Advice: "Remove one that is not needed."}
		}
		return &edit{by: by, account: g.Account, action: "group.add", object: g.ID, after: g}, w.onlyStandard(ctx, g)
	})
}

// onlyStandard makes g the only group that is the account's default.
func (w *writer) onlyStandard(ctx context.Context, g *relay.Group) error {
	if !g.Default {
		return nil
	}
	return w.send(ctx, "update mail_group set standard = 0, version = version + 1 where account = ? and id <> ? and standard <> 0", g.Account[:], text(g.ID))
}

// SetGroup changes a group of the account and raises its version. Its account,
// its id and when it was made stay. One that becomes the default ends another's
// being it.
func (db *DB) SetGroup(ctx context.Context, by relay.Actor, account relay.ID, g *relay.Group) error {
	var after relay.Group
	err := db.edit(ctx, "change group", func(ctx context.Context, w *writer) (*edit, error) {
		before, err := db.ownGroup(ctx, w, account, g.ID)
		if err != nil {
			return nil, err
		}
		after = *g
		after.Account, after.Created, after.Version = before.Account, before.Created, g.Version+1
		doc, err := encodeGroup(&after)
		if err != nil {
			return nil, err
		}
		changed, err := w.exec(ctx, "update mail_group set standard = ?, position = ?, settings = ?, version = ? where account = ? and id = ? and version = ?",
			bit(after.Default), int64(after.Position), doc, after.Version, before.Account[:], text(g.ID), g.Version)
		if err == nil && changed == 0 {
			err = overtaken()
		}
		if err == nil {
			err = w.onlyStandard(ctx, &after)
		}
		return &edit{by: by, account: before.Account, action: "group.change", object: g.ID, before: before, after: after}, err
	})
	if err == nil {
		*g = after
	}
	return err
}

// RemoveGroup removes a group of the account, and who left it with it. A
// relay.Error Conflict says that somebody has, and that must not be forgotten.
func (db *DB) RemoveGroup(ctx context.Context, by relay.Actor, account relay.ID, id string, forget bool) error {
	return db.edit(ctx, "remove group", func(ctx context.Context, w *writer) (*edit, error) {
		before, err := db.ownGroup(ctx, w, account, id)
		if err != nil {
			return nil, err
		}
		left := int64(0)
		err = w.query(ctx, "select count(*) from leaver where account = ? and mail_group = ?", func(row scanner) error { return row.Scan(&left) },
			before.Account[:], text(id))
		if err != nil {
			return nil, err
		}
		if left > 0 && !forget {
			return nil, &relay.Error{Code: relay.Conflict, Text: fmt.Sprintf("%d addresses have left the group %s. They would get mail again that they do not want.", left, id),
				Advice: "Keep the group. Or export who left it and suppress them, and confirm that they are to be forgotten."}
		}
		for _, query := range []string{"delete from leaver where account = ? and mail_group = ?", "delete from mail_group where account = ? and id = ?"} {
			if _, err := w.exec(ctx, query, before.Account[:], text(id)); err != nil {
				return nil, err
			}
		}
		return &edit{by: by, account: before.Account, action: "group.remove", object: id, before: before}, nil
	})
}

func (db *DB) ownGroup(ctx context.Context, w *writer, account relay.ID, id string) (*relay.Group, error) {
	found, err := look(ctx, w, scanGroup, selectGroups+"account = ? and id = ?", account[:], text(id))
	return only(found, err, noGroup(id))
}

// Group gives a group of the account.
func (db *DB) Group(ctx context.Context, account relay.ID, id string) (*relay.Group, error) {
	found, err := collect(ctx, db, "read group", scanGroup, selectGroups+"account = ? and id = ?", account[:], text(id))
	return only(found, err, noGroup(id))
}

// Groups gives the account's groups in the order of their ids, after that one.
func (db *DB) Groups(ctx context.Context, account relay.ID, after string, limit int) ([]*relay.Group, error) {
	return collect(ctx, db, "read groups", scanGroup, selectGroups+"account = ? and id > ? order by id limit ?", account[:], text(after), page(limit))
}

var leaverTable = newTable("leaver", " on conflict do nothing", columns(blob, "account"), columns(words, "mail_group address note"),
	columns(blob, "event"), columns(number, "created"))

func (db *DB) leaverRow(l *relay.Leaver) []any {
	return []any{l.Account[:], text(l.Group), text(l.Address), text(l.Note), l.Event[:], db.clock.micros(l.Created)}
}

var groupColumns = slices.Concat(accountColumn, columns(words, "mail_group"))

const leaverColumns = "account, mail_group, address, note, event, created"

func (db *DB) scanLeaver(row scanner) (*relay.Leaver, error) {
	var l relay.Leaver
	var account, event []byte
	var created int64
	if err := row.Scan(&account, &l.Group, &l.Address, &l.Note, &event, &created); err != nil {
		return nil, err
	}
	l.Account, l.Event, l.Created = toID(account), toID(event), db.clock.time(created)
	return &l, nil
}

// LeaveGroup notes that addresses have left a group of the account, and says how
// many are new. Who has left stays as he was.
func (db *DB) LeaveGroup(ctx context.Context, by relay.Actor, account relay.ID, group string, list []relay.Leaver) (added int64, err error) {
	return db.editLeavers(ctx, by, account, group, "group.leave", func(ctx context.Context, w *writer) (int64, any, error) {
		addresses := make([]string, 0, len(list))
		rows := make([][]any, 0, len(list))
		for i := range list {
			l := list[i]
			l.Account, l.Group = account, group
			addresses, rows = append(addresses, l.Address), append(rows, db.leaverRow(&l))
		}
		before, err := w.countLeavers(ctx, account, group, addresses)
		if err != nil {
			return 0, nil, err
		}
		if err := w.insert(ctx, leaverTable, rows...); err != nil {
			return 0, nil, err
		}
		after, err := w.countLeavers(ctx, account, group, addresses)
		return after - before, addresses[:min(len(addresses), listed)], err
	})
}

// countLeavers counts those of the addresses that have left a group.
func (w *writer) countLeavers(ctx context.Context, account relay.ID, group string, addresses []string) (n int64, err error) {
	for some := range inParts(slices.Compact(slices.Sorted(slices.Values(addresses)))) {
		where, args := w.byKey(groupColumns, []any{account[:], text(group)}, some)
		err := w.query(ctx, "select count(*) from leaver where "+where, func(row scanner) error {
			var found int64
			err := row.Scan(&found)
			n += found
			return err
		}, args...)
		if err != nil {
			return 0, err
		}
	}
	return n, nil
}

// RejoinGroup takes addresses off those that have left a group of the account, and
// says how many were there.
func (db *DB) RejoinGroup(ctx context.Context, by relay.Actor, account relay.ID, group string, addresses []string) (removed int64, err error) {
	return db.editLeavers(ctx, by, account, group, "group.rejoin", func(ctx context.Context, w *writer) (gone int64, what any, err error) {
		for some := range inParts(addresses) {
			where, args := w.byKey(groupColumns, []any{account[:], text(group)}, some)
			n, err := w.exec(ctx, "delete from leaver where "+where, args...)
			if err != nil {
				return 0, nil, err
			}
			gone += n
		}
		return gone, addresses[:min(len(addresses), listed)], nil
	})
}

func (db *DB) editLeavers(ctx context.Context, by relay.Actor, account relay.ID, group, action string, f func(context.Context, *writer) (int64, any, error)) (changed int64, err error) {
	err = db.edit(ctx, action, func(ctx context.Context, w *writer) (*edit, error) {
		changed = 0
		if _, err := db.ownGroup(ctx, w, account, group); err != nil {
			return nil, err
		}
		var what any
		var err error
		if changed, what, err = f(ctx, w); err != nil || changed == 0 {
			return nil, err
		}
		e := &edit{by: by, account: account, action: action, object: group, silent: true}
		doc := map[string]any{"count": changed, "addresses": what}
		if action == "group.rejoin" {
			e.before = doc
		} else {
			e.after = doc
		}
		return e, nil
	})
	return changed, err
}

// Left gives those of the addresses that have left a group of the account.
func (db *DB) Left(ctx context.Context, account relay.ID, group string, addresses []string) ([]*relay.Leaver, error) {
	var all []*relay.Leaver
	for some := range inParts(slices.Compact(slices.Sorted(slices.Values(addresses)))) {
		found, err := collect(ctx, db, "look for leavers", db.scanLeaver, "select "+leaverColumns+" from leaver where account = ? and mail_group = ? and address in (?"+
			repeatMark(len(some)-1)+") order by address", texts([]any{account[:], text(group)}, some)...)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// LeftBy gives the groups of the account that an address has left.
func (db *DB) LeftBy(ctx context.Context, account relay.ID, address string) ([]*relay.Leaver, error) {
	return collect(ctx, db, "look for left groups", db.scanLeaver, "select "+leaverColumns+" from leaver where account = ? and address = ? order by mail_group",
		account[:], text(address))
}

// Leavers gives who has left a group of the account, by address.
func (db *DB) Leavers(ctx context.Context, account relay.ID, group string, f relay.LeaverFilter) ([]*relay.Leaver, error) {
	var c conditions
	c.add("account = ? and mail_group = ?", account[:], text(group))
	c.contains("address", f.Text)
	if f.After != "" {
		c.add("address > ?", text(f.After))
	}
	return collect(ctx, db, "read leavers", db.scanLeaver, "select "+leaverColumns+" from leaver where "+c.String()+" order by address limit ?",
		append(c.args, page(f.Limit))...)
}
