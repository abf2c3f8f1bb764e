package storetest

import (
	"context"
	"crypto/sha256"
	"net/netip"
	"time"

	"postrider/internal/relay"
)

var accountTests = []test{
	{"ensure", func(f *fixture) {
		again, err := f.db.EnsureAccount(f.Context(), "me")
		if err != nil || again != f.me || again.IsZero() {
			f.Errorf("got %v %v, want %v", again, err, f.me)
		}
		other, err := f.db.EnsureAccount(f.Context(), "Me")
		if err != nil || other == f.me {
			f.Errorf("another name gave %v %v", other, err)
		}
	}},
	{"credentials", func(f *fixture) {
		smtp, key, network := credentials(f.me)
		version := f.version()
		for _, c := range []*relay.Credential{smtp, key, network} {
			if err := f.db.AddCredential(f.Context(), somebody, c); err != nil {
				f.Fatalf("add %s: %v", c.Kind, err)
			}
			if next := f.version(); next <= version {
				f.Errorf("the version stays %d", next)
			} else {
				version = next
			}
		}
		f.reopen()
		all, err := f.db.Credentials(f.Context(), f.me)
		if err != nil {
			f.Fatal(err)
		}
		f.equal("list", all, []*relay.Credential{smtp, key, network})
		f.finds("user", smtp, func(ctx context.Context) (*relay.Credential, error) { return f.db.CredentialByUser(ctx, smtp.User) })
		f.finds("key", key, func(ctx context.Context) (*relay.Credential, error) {
			return f.db.CredentialByKey(ctx, [32]byte(key.SecretSHA256))
		})
		networks, err := f.db.NetworkCredentials(f.Context())
		if err != nil {
			f.Fatal(err)
		}
		f.equal("networks", networks, []*relay.Credential{network})
		for what, find := range map[string]func(context.Context) (*relay.Credential, error){
			"empty user":         func(ctx context.Context) (*relay.Credential, error) { return f.db.CredentialByUser(ctx, "") },
			"user in other case": func(ctx context.Context) (*relay.Credential, error) { return f.db.CredentialByUser(ctx, "APP") },
			"no key":             func(ctx context.Context) (*relay.Credential, error) { return f.db.CredentialByKey(ctx, [32]byte{1}) },
			"a password's digest": func(ctx context.Context) (*relay.Credential, error) {
				return f.db.CredentialByKey(ctx, [32]byte(smtp.SecretSHA256))
			},
		} {
			f.finds(what, nil, find)
		}
	}},
	{"taken", func(f *fixture) {
		smtp, key, _ := credentials(f.me)
		for _, c := range []*relay.Credential{smtp, key} {
			if err := f.db.AddCredential(f.Context(), somebody, c); err != nil {
				f.Fatal(err)
			}
			other := *c
			other.ID, other.Account = NewID(noon), NewID(noon)
			version := f.version()
			if err := f.db.AddCredential(f.Context(), somebody, &other); relay.CodeOf(err) != relay.Conflict {
				f.Errorf("a second %s: %v", c.Kind, err)
			}
			if f.version() != version {
				f.Error("a refused credential changed the version")
			}
			// Once it is revoked, its name is free.
			if err := f.db.RevokeCredential(f.Context(), somebody, f.me, c.ID, noon); err != nil {
				f.Fatal(err)
			}
			if err := f.db.AddCredential(f.Context(), somebody, &other); err != nil {
				f.Errorf("a second %s after the first was revoked: %v", c.Kind, err)
			}
		}
		for _, bad := range []*relay.Credential{{Account: f.me}, {ID: NewID(noon)}, {ID: NewID(noon), Account: relay.Everyone}} {
			if err := f.db.AddCredential(f.Context(), somebody, bad); relay.CodeOf(err) != relay.Invalid {
				f.Errorf("%v: %v", bad, err)
			}
		}
	}},
	{"revoke", func(f *fixture) {
		smtp, key, network := credentials(f.me)
		for _, c := range []*relay.Credential{smtp, key, network} {
			if err := f.db.AddCredential(f.Context(), somebody, c); err != nil {
				f.Fatal(err)
			}
			for i, account := range []relay.ID{{}, NewID(noon), f.me, f.me, relay.Everyone} {
				version := f.version()
				err := f.db.RevokeCredential(f.Context(), somebody, account, c.ID, noon.Add(time.Duration(i)*time.Second))
				if i < 2 && relay.CodeOf(err) != relay.NotFound || i >= 2 && err != nil {
					f.Errorf("revoke %s as %v: %v", c.Kind, account, err)
				}
				if (f.version() > version) != (i == 2) { // once
					f.Errorf("revoke %s as %v: version %d after %d", c.Kind, account, f.version(), version)
				}
			}
			c.Revoked, c.Version = noon.Add(2*time.Second), 2
		}
		all, err := f.db.Credentials(f.Context(), f.me)
		if err != nil {
			f.Fatal(err)
		}
		f.equal("list", all, []*relay.Credential{smtp, key, network})
		f.finds("user", nil, func(ctx context.Context) (*relay.Credential, error) { return f.db.CredentialByUser(ctx, smtp.User) })
		f.finds("key", nil, func(ctx context.Context) (*relay.Credential, error) {
			return f.db.CredentialByKey(ctx, [32]byte(key.SecretSHA256))
		})
		if networks, err := f.db.NetworkCredentials(f.Context()); err != nil || len(networks) != 0 {
			f.Errorf("networks: %v %v", networks, err)
		}
	}},
}

// credentials makes one of each kind.
func credentials(account relay.ID) (smtp, key, network *relay.Credential) {
	digest := func(s string) []byte { d := sha256.Sum256([]byte(s)); return d[:] }
	smtp = &relay.Credential{ID: NewID(noon), Account: account, Kind: "smtp", Name: "Büro", User: "app", SecretSHA256: digest("secret"), Argon2: "$argon2id$x",
		Scram:  relay.Scram{Salt: []byte{1, 0, 255}, Iterations: 4096, Stored: []byte{2}, Server: []byte{3}},
		Stream: relay.Transactional, Senders: []string{"example.com", "a@example.org"}, Created: noon}
	key = &relay.Credential{ID: NewID(noon), Account: account, Kind: "key", Name: "key", SecretSHA256: digest("key"), Stream: relay.Broadcast, Created: noon.Add(time.Microsecond)}
	network = &relay.Credential{ID: NewID(noon), Account: account, Kind: "network", Name: "printers", RepairLF: true, Stream: relay.Transactional,
		Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/64")}, Created: noon.Add(time.Second)}
	return smtp, key, network
}

func (f *fixture) version() int64 {
	f.Helper()
	v, err := f.db.DirectoryChanged(f.Context())
	if err != nil {
		f.Fatalf("version: %v", err)
	}
	return v
}

// finds expects want, or nothing where want is nil.
func (f *fixture) finds(what string, want *relay.Credential, find func(context.Context) (*relay.Credential, error)) {
	f.Helper()
	got, err := find(f.Context())
	if want == nil {
		if relay.CodeOf(err) != relay.NotFound || got != nil {
			f.Errorf("%s: found %v, %v", what, got, err)
		}
		return
	}
	if err != nil {
		f.Errorf("%s: %v", what, err)
	}
	f.equal(what, got, want)
}

// somebody changes things.
var somebody = relay.Actor{User: relay.ID{7, 15: 7}, Name: "Jörg", Client: netip.MustParseAddr("2001:db8::7")}
