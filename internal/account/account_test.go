package account

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/gofrs/uuid/v5"
	"golang.org/x/crypto/argon2"

	"postrider/internal/relay"
	"postrider/internal/store"
	"postrider/internal/store/sqlite"
)

// fixture is a service over a real store, with one account.
type fixture struct {
	*testing.T
	db      *store.DB
	service *Service
	manager *Manager
	account relay.ID
}

var testRule = Throttle{Free: 3, Delay: time.Second, Max: 30 * time.Second, Reset: time.Hour}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	ctx := t.Context()
	log := slog.New(slog.DiscardHandler)
	db, err := sqlite.Open(ctx, filepath.Join(t.TempDir(), "mail.db"), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	f := &fixture{T: t, db: db}
	if f.account, err = db.EnsureAccount(ctx, "test"); err != nil {
		t.Fatal(err)
	}
	if f.service, err = Open(ctx, db, NewDirectory(db), testRule, log); err != nil {
		t.Fatal(err)
	}
	f.manager = f.managerWith(f.service.Refresh)
	return f
}

// managerWith makes a manager as this process, or another one, has it.
func (f *fixture) managerWith(changed func(context.Context) error) *Manager {
	return &Manager{Store: f.db, Book: NewDirectory(f.db), NewID: func() (relay.ID, error) { u, err := uuid.NewV7(); return relay.ID(u), err }, Changed: changed}
}

func (f *fixture) add(w Wish) (*relay.Credential, string) {
	f.Helper()
	if w.Account.IsZero() {
		w.Account = f.account
	}
	if w.Name == "" {
		w.Name = "app"
	}
	c, secret, err := f.manager.Add(f.Context(), Operator(relay.Actor{}), w)
	if err != nil {
		f.Fatalf("add %+v: %v", w, err)
	}
	return c, secret
}

// choose adds a user with a chosen password, hashed with little effort.
func (f *fixture) choose(user, password string) *relay.Credential {
	f.Helper()
	salt := []byte("sixteen bytes ..")
	b64 := base64.RawStdEncoding
	c := &relay.Credential{Account: f.account, Kind: KindSMTP, Name: user, User: user, Stream: relay.Transactional, Created: time.Now(),
		Argon2: "$argon2id$v=19$m=8,t=1,p=1$" + b64.EncodeToString(salt) + "$" + b64.EncodeToString(argon2.IDKey([]byte(password), salt, 1, 8, 1, 32))}
	var err error
	if c.ID, err = f.manager.NewID(); err != nil {
		f.Fatal(err)
	}
	if err := f.db.AddCredential(f.Context(), relay.Actor{}, c); err != nil {
		f.Fatal(err)
	}
	if err := f.service.Refresh(f.Context()); err != nil {
		f.Fatal(err)
	}
	return c
}

func (f *fixture) revoke(which string) {
	f.Helper()
	if _, err := f.manager.Revoke(f.Context(), Operator(relay.Actor{}).In(f.account), which); err != nil {
		f.Fatalf("revoke %s: %v", which, err)
	}
}

func (f *fixture) login(client, user, password string) (*Identity, error) {
	return f.service.Login(f.Context(), netip.MustParseAddr(client), user, password)
}

// timed logs in and tells how long it took.
func (f *fixture) timed(client, user, password string) (time.Duration, error) {
	start := time.Now()
	_, err := f.login(client, user, password)
	return time.Since(start), err
}

// wantCode checks an error's code, and that its text is for people.
func wantCode(t testing.TB, what string, err error, code relay.Code) {
	t.Helper()
	var e *relay.Error
	if !errors.As(err, &e) || e.Code != code || e.Text == "" || e.Advice == "" {
		t.Errorf("%s: error %#v; want one with code %s, text and advice", what, err, code)
	}
}
