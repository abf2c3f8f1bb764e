package store

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"postrider/internal/relay"
)

// domainRow is a domain with what its JSON leaves out.
type domainRow struct {
	*relay.Domain
	Sealed [][]byte `json:"sealed,omitempty"` // of its keys, in their order
}

func encodeDomain(d *relay.Domain) ([]byte, error) {
	row := domainRow{Domain: d}
	for _, k := range d.Keys {
		row.Sealed = append(row.Sealed, k.Sealed)
	}
	b, err := json.Marshal(row)
	if err != nil {
		return nil, fmt.Errorf("encode domain: %w", err)
	}
	return b, nil
}

const domainColumns = "id, account, name, verified, due, settings, version"

func (db *DB) scanDomain(row scanner) (*relay.Domain, error) {
	d := &relay.Domain{}
	var name string
	var id, account, doc []byte
	var verified, due, version int64
	if err := row.Scan(&id, &account, &name, &verified, &due, &doc, &version); err != nil {
		return nil, err
	}
	kept := domainRow{Domain: d}
	if err := json.Unmarshal(doc, &kept); err != nil || len(kept.Sealed) != len(d.Keys) {
		return nil, fmt.Errorf("read domain %s: %w", toID(id), err)
	}
	for i := range d.Keys {
		d.Keys[i].Sealed = kept.Sealed[i]
	}
	d.ID, d.Account, d.Name, d.Verified, d.Due, d.Version = toID(id), toID(account), name, db.clock.time(verified), db.clock.time(due), version
	return d, nil
}

func (db *DB) domainTaken(err error, name string) error {
	return db.taken(err, fmt.Sprintf("The domain %s is in use already.", name), "One account has a domain. Where it is another's, remove it there first.")
}

// AddDomain keeps a domain, of version 1. A relay.Error Conflict says that the
// account has it already or, if it is verified, that another one has.
func (db *DB) AddDomain(ctx context.Context, by relay.Actor, d *relay.Domain) error {
	if d.ID.IsZero() || d.Account.IsZero() || d.Account == relay.Everyone || d.Name == "" {
		return &relay.Error{Code: relay.Invalid, Text: "A domain needs an id, an account and a name."}
	}
	d.Version = 1
	doc, err := encodeDomain(d)
	if err != nil {
		return err
	}
	return db.edit(ctx, "add domain", func(ctx context.Context, w *writer) (*edit, error) {
		_, err := w.exec(ctx, "insert into domain (id, account, name, verified, due, settings, version) values (?, ?, ?, ?, ?, ?, ?)",
			d.ID[:], d.Account[:], text(d.Name), db.clock.micros(d.Verified), db.clock.micros(d.Due), doc, d.Version)
		if err != nil {
			return nil, db.domainTaken(err, d.Name)
		}
		return &edit{by: by, account: d.Account, action: "domain.add", object: d.Name, after: d}, nil
	})
}

// SetDomain changes a domain of the account and raises its version. Its account,
// its name and when it was made stay.
func (db *DB) SetDomain(ctx context.Context, by relay.Actor, account relay.ID, d *relay.Domain) error {
	return db.setDomain(ctx, by, account, d, "domain.change", false)
}

// CheckedDomain does the same with what a check found. Where nothing but the
// findings and the times of checks is new, the audit log does not mention it, and
// nobody need look anew.
func (db *DB) CheckedDomain(ctx context.Context, by relay.Actor, account relay.ID, d *relay.Domain) error {
	return db.setDomain(ctx, by, account, d, "domain.check", true)
}

func (db *DB) setDomain(ctx context.Context, by relay.Actor, account relay.ID, d *relay.Domain, action string, quiet bool) error {
	var after relay.Domain
	err := db.edit(ctx, "change domain", func(ctx context.Context, w *writer) (*edit, error) {
		before, err := db.ownDomain(ctx, w, account, d.ID)
		if err != nil {
			return nil, err
		}
		after = *d
		after.Account, after.Name, after.Created, after.Version = before.Account, before.Name, before.Created, d.Version+1
		doc, err := encodeDomain(&after)
		if err != nil {
			return nil, err
		}
		changed, err := w.exec(ctx, "update domain set verified = ?, due = ?, settings = ?, version = ? where id = ? and version = ?",
			db.clock.micros(d.Verified), db.clock.micros(d.Due), doc, after.Version, d.ID[:], d.Version)
		if err != nil {
			return nil, db.domainTaken(err, before.Name)
		}
		if changed == 0 {
			return nil, overtaken()
		}
		if quiet {
			same, err := sameDomain(before, &after)
			if err != nil || same {
				return nil, err
			}
		}
		return &edit{by: by, account: before.Account, action: action, object: before.Name, before: before, after: after}, nil
	})
	if err == nil {
		*d = after
	}
	return err
}

// sameDomain tells whether two differ in nothing but what each check writes. Which
// records are bad is more than that: mail may be refused for it. So is whether the
// tracking host is good: links lead there.
func sameDomain(a, b *relay.Domain) (bool, error) {
	var docs [2][]byte
	for i, d := range []relay.Domain{*a, *b} {
		d.Checked, d.Due, d.Findings, d.Version = time.Time{}, time.Time{}, badOf(d.Findings), 0
		// Whoever compares times does not care how they are kept.
		d.Verified, d.Aligned, d.Failing, d.Created = d.Verified.UTC(), d.Aligned.UTC(), d.Failing.UTC(), time.Time{}
		doc, err := encodeDomain(&d)
		if err != nil {
			return false, err
		}
		docs[i] = doc
	}
	return bytes.Equal(docs[0], docs[1]), nil
}

// badOf names what is bad, and the tracking host where it is good.
func badOf(all []relay.Finding) (bad []relay.Finding) {
	for _, f := range all {
		if f.Status == relay.Bad || f.Check == relay.CheckTracking && f.Status == relay.Good {
			bad = append(bad, relay.Finding{Check: f.Check, Name: f.Name, Type: f.Type})
		}
	}
	return bad
}

func (db *DB) ownDomain(ctx context.Context, w *writer, account, id relay.ID) (*relay.Domain, error) {
	var own conditions
	own.account("account", account)
	own.add("id = ?", id[:])
	found, err := look(ctx, w, db.scanDomain, "select "+domainColumns+" from domain where "+own.String(), own.args...)
	return only(found, err, notFound("domain", id))
}

// RemoveDomain removes a domain of the account, its keys with it.
func (db *DB) RemoveDomain(ctx context.Context, by relay.Actor, account, id relay.ID) error {
	return db.edit(ctx, "remove domain", func(ctx context.Context, w *writer) (*edit, error) {
		before, err := db.ownDomain(ctx, w, account, id)
		if err != nil {
			return nil, err
		}
		_, err = w.exec(ctx, "delete from domain where id = ?", id[:])
		return &edit{by: by, account: before.Account, action: "domain.remove", object: before.Name, before: before}, err
	})
}

// Domain gives a domain of the account.
func (db *DB) Domain(ctx context.Context, account, id relay.ID) (*relay.Domain, error) {
	var c conditions
	c.account("account", account)
	c.add("id = ?", id[:])
	found, err := db.domains(ctx, c, "")
	return only(found, err, notFound("domain", id))
}

// DomainByName gives the account's domain of that name; asked for everyone, the
// one that is verified, if any is.
func (db *DB) DomainByName(ctx context.Context, account relay.ID, name string) (*relay.Domain, error) {
	var c conditions
	c.account("account", account)
	c.add("name = ?", text(name))
	found, err := db.domains(ctx, c, " order by verified desc, id limit 1")
	return only(found, err, missing("domain", name))
}

// Domains gives the account's domains after the one of that id, the oldest first.
func (db *DB) Domains(ctx context.Context, account, after relay.ID, limit int) ([]*relay.Domain, error) {
	var c conditions
	c.account("account", account)
	c.add("id > ?", after[:])
	return db.domains(ctx, c, " order by id limit ?", page(limit))
}

func (db *DB) domains(ctx context.Context, c conditions, tail string, args ...any) ([]*relay.Domain, error) {
	return collect(ctx, db, "read domains", db.scanDomain, "select "+domainColumns+" from domain where "+c.String()+tail, append(c.args, args...)...)
}

// DueDomains gives domains whose check is due, of all accounts, and puts it off
// until then, so that no other node takes them as well: whoever has them checks
// them and says when they are due again.
func (db *DB) DueDomains(ctx context.Context, now, until time.Time, limit int) ([]*relay.Domain, error) {
	var found []*relay.Domain
	err := db.write(ctx, "claim domains", func(ctx context.Context, w *writer) (err error) {
		found, err = look(ctx, w, db.scanDomain, "select "+domainColumns+" from domain where due <= ? order by due, id limit ? "+w.dialect.Lock, db.clock.micros(now), page(limit))
		if err != nil {
			return err
		}
		for _, d := range found {
			d.Due = until
			if _, err := w.exec(ctx, "update domain set due = ? where id = ?", db.clock.micros(until), d.ID[:]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// NearestDomain gives that of the account's domains whose name is the longest of
// those named, or a relay.Error NotFound.
func (db *DB) NearestDomain(ctx context.Context, account relay.ID, names []string) (*relay.Domain, error) {
	var best *relay.Domain
	for some := range inParts(names) {
		found, err := collect(ctx, db, "look for domain", db.scanDomain, "select "+domainColumns+" from domain where account = ? and name in (?"+
			repeatMark(len(some)-1)+") order by length(name) desc, name limit 1", texts([]any{account[:]}, some)...)
		if err != nil {
			return nil, err
		}
		if len(found) > 0 && (best == nil || len(found[0].Name) > len(best.Name)) {
			best = found[0]
		}
	}
	if best == nil {
		return nil, &relay.Error{Code: relay.NotFound, Text: "The account has no such domain."}
	}
	return best, nil
}
