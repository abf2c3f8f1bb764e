package store

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"postrider/internal/relay"
)

// EnsureAccount gives the account of that name, and makes it if there is none.
func (db *DB) EnsureAccount(ctx context.Context, name string) (id relay.ID, err error) {
	err = db.write(ctx, "ensure account", func(ctx context.Context, w *writer) error {
		fresh, err := db.newID()
		if err != nil {
			return err
		}
		if _, err := w.exec(ctx, "insert into account (id, name, created) values (?, ?, "+w.dialect.Now+") on conflict do nothing", fresh[:], text(name)); err != nil {
			return err
		}
		return w.query(ctx, "select id from account where name = ?", func(row scanner) error {
			var b []byte
			err := row.Scan(&b)
			id = toID(b)
			return err
		}, text(name))
	})
	return id, err
}

// settings is the part of a credential that is never searched.
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
}

// AddCredential keeps c. A relay.Error Conflict says that a live credential has
// its user name or secret already.
func (db *DB) AddCredential(ctx context.Context, c *relay.Credential) error {
	if c.ID.IsZero() || c.Account.IsZero() || c.Account == relay.Everyone {
		return &relay.Error{Code: relay.Invalid, Text: "A credential needs an id and an account."}
	}
	raw, err := json.Marshal(settings{Argon2: c.Argon2, Salt: c.Scram.Salt, Iterations: c.Scram.Iterations, Stored: c.Scram.Stored, Server: c.Scram.Server,
		Networks: c.Networks, Stream: int8(c.Stream), RepairLF: c.RepairLF, Senders: c.Senders})
	if err != nil {
		return fmt.Errorf("encode credential: %w", err)
	}
	return db.write(ctx, "add credential", func(ctx context.Context, w *writer) error {
		if _, err := w.exec(ctx, "insert into credential (id, account, kind, name, username, secret, settings, created, revoked) values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
			c.ID[:], c.Account[:], c.Kind, text(c.Name), text(c.User), c.SecretSHA256, raw, micros(c.Created), micros(c.Revoked)); err != nil {
			return err
		}
		return w.credentialsChanged(ctx)
	})
}

func (w *writer) credentialsChanged(ctx context.Context) error {
	_, err := w.exec(ctx, "update counter set value = value + 1 where name = 'credentials'")
	return err
}

// CredentialsChanged gives a number that grows with each change of any
// credential: whoever keeps some in memory asks for it now and then.
func (db *DB) CredentialsChanged(ctx context.Context) (version int64, err error) {
	err = db.read(ctx, "select value from counter where name = 'credentials'", func(row scanner) error { return row.Scan(&version) })
	if err != nil {
		return 0, db.fail("read version of credentials", err)
	}
	return version, nil
}

// Credentials gives the account's credentials, revoked ones too, oldest first.
func (db *DB) Credentials(ctx context.Context, account relay.ID) ([]*relay.Credential, error) {
	if account == relay.Everyone {
		return db.credentials(ctx, "1 = 1")
	}
	return db.credentials(ctx, "account = ?", account[:])
}

// RevokeCredential ends a credential from the time at. Revoking twice leaves
// the first time.
func (db *DB) RevokeCredential(ctx context.Context, account, id relay.ID, at time.Time) error {
	return db.write(ctx, "revoke credential", func(ctx context.Context, w *writer) error {
		changed, err := w.exec(ctx, "update credential set revoked = case when revoked = 0 then ? else revoked end where id = ? and (account = ? or ? = 1)",
			micros(at), id[:], account[:], bit(account == relay.Everyone))
		if err != nil {
			return err
		}
		if changed == 0 {
			return notFound("credential", id)
		}
		return w.credentialsChanged(ctx)
	})
}

// CredentialByUser gives the live credential with that user name, of whichever
// account, or a relay.Error NotFound.
func (db *DB) CredentialByUser(ctx context.Context, user string) (*relay.Credential, error) {
	return one(db.credentials(ctx, "username = ? and username <> '' and revoked = 0", text(user)))
}

// CredentialByKey gives the live API key with that digest, of whichever
// account, or a relay.Error NotFound.
func (db *DB) CredentialByKey(ctx context.Context, sum [32]byte) (*relay.Credential, error) {
	return one(db.credentials(ctx, "secret = ? and kind = 'key' and revoked = 0", sum[:]))
}

// NetworkCredentials gives all live credentials of kind network, oldest first.
func (db *DB) NetworkCredentials(ctx context.Context) ([]*relay.Credential, error) {
	return db.credentials(ctx, "kind = 'network' and revoked = 0")
}

func one(found []*relay.Credential, err error) (*relay.Credential, error) {
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, &relay.Error{Code: relay.NotFound, Text: "There is no such credential."}
	}
	return found[0], nil
}

func (db *DB) credentials(ctx context.Context, where string, args ...any) ([]*relay.Credential, error) {
	var found []*relay.Credential
	err := db.read(ctx, "select id, account, kind, name, username, secret, settings, created, revoked from credential where "+where+" order by created, id", func(row scanner) error {
		var c relay.Credential
		var id, account, raw []byte
		var created, revoked int64
		if err := row.Scan(&id, &account, &c.Kind, &c.Name, &c.User, &c.SecretSHA256, &raw, &created, &revoked); err != nil {
			return err
		}
		c.ID, c.Account, c.Created, c.Revoked = toID(id), toID(account), fromMicros(created), fromMicros(revoked)
		var s settings
		if err := json.Unmarshal(raw, &s); err != nil {
			return fmt.Errorf("read credential %s: %w", c.ID, err)
		}
		c.Argon2, c.Networks, c.Stream, c.RepairLF, c.Senders = s.Argon2, s.Networks, relay.Stream(s.Stream), s.RepairLF, s.Senders
		c.Scram = relay.Scram{Salt: s.Salt, Iterations: s.Iterations, Stored: s.Stored, Server: s.Server}
		found = append(found, &c)
		return nil
	}, args...)
	if err != nil {
		return nil, db.fail("read credentials", err)
	}
	return found, nil
}
