package store

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"postrider/internal/relay"
)

// settings is the part of a credential that is never searched. Programs of
// schema 2 read the first nine.
type settings struct {
	Argon2     string         `json:"argon2,omitempty"`
	Salt       []byte         `json:"salt,omitempty"`
	Iterations int            `json:"iterations,omitempty"`
	Stored     []byte         `json:"stored,omitempty"`
	Server     []byte         `json:"server,omitempty"`
	Networks   []netip.Prefix `json:"networks,omitempty"`
	Stream     int8           `json:"stream,omitempty"`
	RepairLF   bool           `json:"repair_lf,omitempty"`
	Senders    []string       `json:"senders,omitempty"`

	Status   relay.Status    `json:"status,omitempty"`
	Reason   string          `json:"reason,omitempty"`
	Scopes   []relay.Scope   `json:"scopes,omitempty"`
	Owner    relay.ID        `json:"owner,omitzero"`
	Limits   []relay.Limit   `json:"limits,omitempty"`
	Pool     string          `json:"pool,omitempty"`
	Opens    bool            `json:"opens,omitempty"`
	Clicks   bool            `json:"clicks,omitempty"`
	Archive  bool            `json:"archive,omitempty"`
	Expires  int64           `json:"expires,omitempty"`
	StatusBy relay.Authority `json:"status_by,omitempty"`

	Argon2Before string      `json:"argon2_before,omitempty"`
	ScramBefore  relay.Scram `json:"scram_before,omitzero"`
	Until        int64       `json:"until,omitempty"`
}

func (db *DB) encodeSettings(c *relay.Credential) ([]byte, error) {
	raw, err := json.Marshal(settings{Argon2: c.Argon2, Salt: c.Scram.Salt, Iterations: c.Scram.Iterations, Stored: c.Scram.Stored, Server: c.Scram.Server,
		Networks: c.Networks, Stream: int8(c.Stream), RepairLF: c.RepairLF, Senders: c.Senders,
		Status: c.Status, Reason: c.Reason, Scopes: c.Scopes, Owner: c.Owner, Limits: c.Limits, Pool: c.Pool, Opens: c.Opens, Clicks: c.Clicks,
		Archive: c.Archive, Expires: db.clock.micros(c.Expires), StatusBy: c.StatusBy,
		Argon2Before: c.Previous.Argon2, ScramBefore: c.Previous.Scram, Until: db.clock.micros(c.Previous.Until)})
	if err != nil {
		return nil, fmt.Errorf("encode credential: %w", err)
	}
	return raw, nil
}

const credentialColumns = "id, account, kind, name, username, secret, previous, settings, created, revoked, used, used_from, version"

func (db *DB) scanCredential(row scanner) (*relay.Credential, error) {
	var c relay.Credential
	var id, account, secret, previous, raw []byte
	var created, revoked, used int64
	var from string
	if err := row.Scan(&id, &account, &c.Kind, &c.Name, &c.User, &secret, &previous, &raw, &created, &revoked, &used, &from, &c.Version); err != nil {
		return nil, err
	}
	var s settings
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, fmt.Errorf("read credential %s: %w", toID(id), err)
	}
	c.ID, c.Account, c.Created, c.Revoked, c.Used = toID(id), toID(account), fromMicros(created), fromMicros(revoked), db.clock.time(used)
	if len(secret) > 0 {
		c.SecretSHA256 = secret
	}
	if len(previous) > 0 {
		c.Previous.SecretSHA256 = previous
	}
	if from != "" {
		var err error
		if c.UsedFrom, err = netip.ParseAddr(from); err != nil {
			return nil, fmt.Errorf("read credential %s: %w", c.ID, err)
		}
	}
	c.Argon2, c.Networks, c.Stream, c.RepairLF, c.Senders = s.Argon2, s.Networks, relay.Stream(s.Stream), s.RepairLF, s.Senders
	c.Scram = relay.Scram{Salt: s.Salt, Iterations: s.Iterations, Stored: s.Stored, Server: s.Server}
	c.Status, c.Reason, c.Scopes, c.Owner, c.Limits, c.Pool = s.Status, s.Reason, s.Scopes, s.Owner, s.Limits, s.Pool
	c.Opens, c.Clicks, c.Archive, c.Expires, c.StatusBy = s.Opens, s.Clicks, s.Archive, db.clock.time(s.Expires), s.StatusBy
	c.Previous.Argon2, c.Previous.Scram, c.Previous.Until = s.Argon2Before, s.ScramBefore, db.clock.time(s.Until)
	return &c, nil
}

// blank gives nil for what is not there, so that no index has it.
func blank(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}

// AddCredential keeps c, of version 1. A relay.Error Conflict says that a live
// credential has its user name or secret already.
func (db *DB) AddCredential(ctx context.Context, by relay.Actor, c *relay.Credential) error {
	if c.ID.IsZero() || c.Account.IsZero() || c.Account == relay.Everyone {
		return &relay.Error{Code: relay.Invalid, Text: "A credential needs an id and an account."}
	}
	c.Version = 1
	raw, err := db.encodeSettings(c)
	if err != nil {
		return err
	}
	return db.edit(ctx, "add credential", func(ctx context.Context, w *writer) (*edit, error) {
		_, err := w.exec(ctx, "insert into credential (id, account, kind, name, username, secret, previous, settings, created, revoked, version) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			c.ID[:], c.Account[:], c.Kind, text(c.Name), text(c.User), blank(c.SecretSHA256), blank(c.Previous.SecretSHA256), raw, micros(c.Created), micros(c.Revoked), c.Version)
		if err != nil {
			return nil, db.taken(err, fmt.Sprintf("The user name %q is taken.", c.User), "Choose another one.")
		}
		return &edit{by: by, account: c.Account, action: "credential.add", object: c.ID.String(), after: c}, nil
	})
}

// SetCredential changes a credential of the account and raises its version. Its
// account, its kind, its use, and when it was made and revoked stay.
func (db *DB) SetCredential(ctx context.Context, by relay.Actor, account relay.ID, c *relay.Credential) error {
	var after relay.Credential
	err := db.changeCredential(ctx, by, account, c.ID, "credential.change", func(before *relay.Credential) (*relay.Credential, error) {
		if before.Version != c.Version {
			return nil, overtaken()
		}
		after = *c
		after.Account, after.Kind, after.Used, after.UsedFrom = before.Account, before.Kind, before.Used, before.UsedFrom
		after.Created, after.Revoked, after.Version = before.Created, before.Revoked, before.Version+1
		return &after, nil
	})
	if err == nil {
		*c = after
	}
	return err
}

// RevokeCredential ends a credential from the time at. Revoking twice leaves
// the first time.
func (db *DB) RevokeCredential(ctx context.Context, by relay.Actor, account, id relay.ID, at time.Time) error {
	return db.changeCredential(ctx, by, account, id, "credential.revoke", func(before *relay.Credential) (*relay.Credential, error) {
		if !before.Revoked.IsZero() {
			return nil, nil
		}
		after := *before
		after.Revoked, after.Version = at, before.Version+1
		return &after, nil
	})
}

// changeCredential writes what to makes of a credential; nil leaves it.
func (db *DB) changeCredential(ctx context.Context, by relay.Actor, account, id relay.ID, action string, to func(*relay.Credential) (*relay.Credential, error)) error {
	return db.edit(ctx, "change credential", func(ctx context.Context, w *writer) (*edit, error) {
		var own conditions
		own.account("account", account)
		own.add("id = ?", id[:])
		found, err := look(ctx, w, db.scanCredential, "select "+credentialColumns+" from credential where "+own.String(), own.args...)
		before, err := only(found, err, notFound("credential", id))
		if err != nil {
			return nil, err
		}
		after, err := to(before)
		if err != nil || after == nil {
			return nil, err
		}
		raw, err := db.encodeSettings(after)
		if err != nil {
			return nil, err
		}
		changed, err := w.exec(ctx, "update credential set name = ?, username = ?, secret = ?, previous = ?, settings = ?, revoked = ?, version = ? where id = ? and version = ?",
			text(after.Name), text(after.User), blank(after.SecretSHA256), blank(after.Previous.SecretSHA256), raw, micros(after.Revoked), after.Version, id[:], before.Version)
		if err != nil {
			return nil, db.taken(err, fmt.Sprintf("The user name %q is taken.", after.User), "Choose another one.")
		}
		if changed == 0 {
			return nil, overtaken()
		}
		return &edit{by: by, account: after.Account, action: action, object: id.String(), before: before, after: after}, nil
	})
}

// Credentials gives the account's credentials, revoked ones too, oldest first.
func (db *DB) Credentials(ctx context.Context, account relay.ID) ([]*relay.Credential, error) {
	if account == relay.Everyone {
		return db.credentials(ctx, "1 = 1")
	}
	return db.credentials(ctx, "account = ?", account[:])
}

// Credential gives one, revoked or not.
func (db *DB) Credential(ctx context.Context, account, id relay.ID) (*relay.Credential, error) {
	var own conditions
	own.account("account", account)
	own.add("id = ?", id[:])
	found, err := db.credentials(ctx, own.String(), own.args...)
	return only(found, err, notFound("credential", id))
}

// noCredential does not repeat what may be a secret.
func noCredential() error {
	return &relay.Error{Code: relay.NotFound, Text: "There is no such credential."}
}

// CredentialByUser gives the live credential with that user name, of whichever
// account, or a relay.Error NotFound.
func (db *DB) CredentialByUser(ctx context.Context, user string) (*relay.Credential, error) {
	found, err := db.credentials(ctx, "username = ? and username <> '' and revoked = 0", text(user))
	return only(found, err, noCredential())
}

// CredentialByKey gives the live API key with that digest, now or before its
// last rotation, of whichever account, or a relay.Error NotFound. Whether the
// secret before the rotation is still good is for the caller to see.
func (db *DB) CredentialByKey(ctx context.Context, sum [32]byte) (*relay.Credential, error) {
	found, err := db.credentials(ctx, "secret = ? and kind = 'key' and revoked = 0", sum[:])
	if err == nil && len(found) == 0 {
		found, err = db.credentials(ctx, "previous = ? and previous is not null and kind = 'key' and revoked = 0", sum[:])
	}
	return only(found, err, noCredential())
}

// NetworkCredentials gives all live credentials of kind network, oldest first.
func (db *DB) NetworkCredentials(ctx context.Context) ([]*relay.Credential, error) {
	return db.credentials(ctx, "kind = 'network' and revoked = 0")
}

func (db *DB) credentials(ctx context.Context, where string, args ...any) ([]*relay.Credential, error) {
	return collect(ctx, db, "read credentials", db.scanCredential, "select "+credentialColumns+" from credential where "+where+" order by created, id", args...)
}

// mostNetworks is how many networks are kept of a credential: one that is used
// from everywhere is strange nowhere.
const mostNetworks = 200

// UseCredentials notes when and from where credentials were used, and gives those
// uses whose network is new to a credential that has been in use since before
// settled. Of each of these it notes in the audit log that it happened.
func (db *DB) UseCredentials(ctx context.Context, uses []relay.Use, settled time.Time) (strange []relay.Use, err error) {
	err = db.write(ctx, "note use of credentials", func(ctx context.Context, w *writer) error {
		strange = nil
		for _, u := range uses {
			at := db.clock.micros(u.At)
			_, err := w.exec(ctx, "update credential set used = ?, used_from = ? where id = ? and account = ? and used < ?", at, u.Client.String(), u.Credential[:], u.Account[:], at)
			if err != nil {
				return err
			}
			var networks, since int64
			err = w.query(ctx, "select count(*), coalesce(min(since), 0) from credential_network where credential = ?", func(row scanner) error {
				return row.Scan(&networks, &since)
			}, u.Credential[:])
			if err != nil {
				return err
			}
			if networks >= mostNetworks {
				continue
			}
			fresh, err := w.exec(ctx, "insert into credential_network (credential, network, account, since)"+
				" select id, cast(? as text), account, cast(? as bigint) from credential where id = ? and account = ? on conflict do nothing", u.Network.String(), at, u.Credential[:], u.Account[:])
			if err != nil {
				return err
			}
			if fresh == 0 || networks == 0 || since >= db.clock.micros(settled) {
				continue
			}
			strange = append(strange, u)
			after, err := document(map[string]string{"network": u.Network.String(), "client": u.Client.String()})
			if err != nil {
				return err
			}
			if err := db.note(ctx, w, &relay.Change{At: u.At, Account: u.Account, Actor: relay.Actor{Credential: u.Credential, Name: "postrider", Client: u.Client},
				Action: "credential.new_network", Object: u.Credential.String(), After: after}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return strange, nil
}
