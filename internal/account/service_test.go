package account

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xdg-go/scram"

	"postrider/internal/relay"
)

const here = "192.0.2.1"

func TestLogin(t *testing.T) { synctest.Test(t, testLogin) }

func testLogin(t *testing.T) {
	f := newFixture(t)
	made, secret := f.add(Wish{Kind: KindSMTP, Name: "Shop", Stream: relay.Broadcast, RepairLF: true, Senders: []string{"example.com"}})
	chosen := f.choose("printer", "correct horse")
	key, token := f.add(Wish{Kind: KindKey})
	if len(secret) != 32 || !strings.HasPrefix(token, keyPrefix) || !strings.HasPrefix(made.User, "shop-") {
		t.Errorf("made user %q, password of %d, key %.4s…", made.User, len(secret), token)
	}
	for _, tt := range []struct {
		name, user, password string
		want                 *relay.Credential // nil: refused
	}{
		{"made password", made.User, secret, made},
		{"chosen password", "printer", "correct horse", chosen},
		{"chosen password again, from the cache", "printer", "correct horse", chosen},
		{"key with any user", "apikey", token, key},
		{"key as user too", token, token, key},
		{"key without user", "", token, key},
		{"key with another's user", made.User, token, key},
		{"wrong password", made.User, secret + "x", nil},
		{"wrong chosen password", "printer", "correct horsf", nil},
		{"another's password", "printer", secret, nil},
		{"no password", made.User, "", nil},
		{"unknown user", "nobody", secret, nil},
		{"no user", "", "", nil},
		{"user in other case", strings.ToUpper(made.User), secret, nil},
		{"wrong key", "apikey", token[:len(token)-1] + "0", nil},
		{"key prefix alone", "apikey", keyPrefix, nil},
		{"key in other case", "apikey", strings.ToUpper(token), nil},
		{"argon2 text as password", "printer", chosen.Argon2, nil},
	} {
		// A client of its own for each, so that none is slowed.
		f.service.failures = newFailures(testRule)
		id, err := f.login(here, tt.user, tt.password)
		if tt.want == nil {
			wantCode(t, tt.name, err, relay.Unauthenticated)
			if id != nil {
				t.Errorf("%s: an identity with the error", tt.name)
			}
			for _, hidden := range []string{tt.user, tt.password} {
				if hidden != "" && strings.Contains(err.Error(), hidden) {
					t.Errorf("%s: the error tells %q", tt.name, hidden)
				}
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if id.Account != f.account || id.Credential != tt.want.ID || id.Kind != tt.want.Kind || id.User != tt.user ||
			id.Stream != tt.want.Stream || id.RepairLF != tt.want.RepairLF || !slices.Equal(id.Senders, tt.want.Senders) {
			t.Errorf("%s: got %+v, want what %+v says", tt.name, id, tt.want)
		}
		if !f.service.Alive(t.Context(), id) {
			t.Errorf("%s: not alive", tt.name)
		}
	}
}

func TestChosenPasswordIsHashedOnce(t *testing.T) {
	f := newFixture(t)
	c, _ := f.add(Wish{Kind: KindSMTP, User: "printer", Password: "correct horse"})
	if c.Argon2 == "" || len(c.SecretSHA256) != 0 || len(c.Scram.Stored) != 0 {
		t.Fatalf("a chosen password is kept as more than argon2: %+v", c)
	}
	if strings.Contains(c.Argon2, "correct horse") || !strings.HasPrefix(c.Argon2, "$argon2id$v=19$m=65536,t=3,p=1$") {
		t.Fatalf("kept as %q", c.Argon2)
	}
	if _, err := f.login(here, "printer", "correct horse"); err != nil {
		t.Fatal(err)
	}
	// With the places for hashing taken, only what is remembered gets through.
	for _, slot := range f.service.hashing.slot {
		slot <- struct{}{}
	}
	if _, err := f.login(here, "printer", "correct horse"); err != nil {
		t.Errorf("remembered password: %v", err)
	}
	f.add(Wish{Kind: KindKey}) // drops the cached credentials
	if _, err := f.login(here, "printer", "correct horse"); err != nil {
		t.Errorf("remembered password after a change elsewhere: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := f.service.Login(ctx, netip.MustParseAddr(here), "printer", "correct horsf")
	wantCode(t, "a wrong password while another is hashed", err, relay.Unavailable)
	for _, slot := range f.service.hashing.slot {
		<-slot
	}

	// What is remembered is bound to the hash, should a password ever change.
	f.revoke("printer")
	successor := *f.choose("printer", "another horse")
	successor.ID = c.ID
	if ok, err := f.service.matches(t.Context(), &successor, "correct horse", false); ok || err != nil {
		t.Errorf("the old password, with another hash: %v, %v", ok, err)
	}
	if _, err := f.login(here, "printer", "correct horse"); err == nil {
		t.Error("the password of a revoked credential opens its successor")
	}
	if _, err := f.login(here, "printer", "another horse"); err != nil {
		t.Errorf("password of the successor: %v", err)
	}
}

func TestRevokedAtOnce(t *testing.T) { synctest.Test(t, testRevokedAtOnce) }

func testRevokedAtOnce(t *testing.T) {
	f := newFixture(t)
	made, secret := f.add(Wish{Kind: KindSMTP, Name: "made"})
	f.choose("printer", "correct horse")
	_, token := f.add(Wish{Kind: KindKey, Name: "key"})
	f.add(Wish{Kind: KindNetwork, Name: "net", Networks: prefixes("192.0.2.0/24")})
	client := netip.MustParseAddr(here)

	var ids []*Identity
	for _, l := range [][2]string{{made.User, secret}, {"printer", "correct horse"}, {"any", token}} {
		id, err := f.login(here, l[0], l[1])
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	v, err := f.service.SCRAM(t.Context(), client, made.User)
	if err != nil || v.Identity == nil {
		t.Fatalf("SCRAM: %+v, %v", v, err)
	}
	ids = append(ids, v.Identity, f.service.Network(t.Context(), client))

	for _, name := range []string{"made", "printer", "key", "net"} {
		f.revoke(name)
	}
	for _, id := range ids {
		if f.service.Alive(t.Context(), id) {
			t.Errorf("%s is alive after it was revoked", id.Kind)
		}
	}
	for _, l := range [][2]string{{made.User, secret}, {"printer", "correct horse"}, {"any", token}} {
		if _, err := f.login(here, l[0], l[1]); relay.CodeOf(err) != relay.Unauthenticated {
			t.Errorf("login as %s after it was revoked: %v", l[0], err)
		}
	}
	if v, err := f.service.SCRAM(t.Context(), client, made.User); err != nil || v.Identity != nil {
		t.Errorf("SCRAM after it was revoked: %+v, %v", v, err)
	}
	if id := f.service.Network(t.Context(), client); id != nil {
		t.Errorf("network after it was revoked: %+v", id)
	}
	// The same user name again is another credential.
	f.choose("printer", "correct horse")
	if f.service.Alive(t.Context(), ids[1]) {
		t.Error("a successor brought a revoked identity back to life")
	}
}

// Another process, or the command line, changes credentials behind our back.
func TestRunNoticesChangesElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		ctx, cancel := context.WithCancel(t.Context())
		var g sync.WaitGroup
		g.Go(func() {
			if err := f.service.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		made, secret := f.add(Wish{Kind: KindSMTP})
		id, err := f.login(here, made.User, secret)
		if err != nil {
			t.Fatal(err)
		}
		elsewhere := f.managerWith(func(context.Context) error { return nil })
		if _, err := elsewhere.Revoke(ctx, Operator(relay.Actor{}).In(f.account), made.User); err != nil {
			t.Fatal(err)
		}
		if _, _, err := elsewhere.Add(ctx, Operator(relay.Actor{}), Wish{Account: f.account, Kind: KindNetwork, Name: "net", Networks: prefixes("192.0.2.0/24")}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // of the bubble's clock
		synctest.Wait()
		if f.service.Alive(ctx, id) {
			t.Error("alive a second after another process revoked it")
		}
		if _, err := f.login(here, made.User, secret); relay.CodeOf(err) != relay.Unauthenticated {
			t.Errorf("login a second after another process revoked it: %v", err)
		}
		if f.service.Network(ctx, netip.MustParseAddr(here)) == nil {
			t.Error("a network that another process added is not known after a second")
		}
		cancel()
		g.Wait()
	})
}

func TestNetwork(t *testing.T) {
	f := newFixture(t)
	wide, _ := f.add(Wish{Kind: KindNetwork, Networks: prefixes("10.0.0.0/8", "fe80::/10")})
	narrow, _ := f.add(Wish{Kind: KindNetwork, Networks: prefixes("2001:db8::/48", "10.1.2.77/24")})
	f.add(Wish{Kind: KindNetwork, Networks: prefixes("10.1.0.0/16")})
	for client, want := range map[string]*relay.Credential{
		"10.1.2.3": narrow, "10.9.9.9": wide, "::ffff:10.1.2.3": narrow, "2001:db8::1": narrow, "fe80::1%eth0": wide,
		"11.0.0.1": nil, "2001:db8:1::1": nil, "::1": nil, "127.0.0.1": nil,
	} {
		id := f.service.Network(t.Context(), netip.MustParseAddr(client))
		switch {
		case want == nil && id != nil:
			t.Errorf("%s: %+v; want none", client, id)
		case want != nil && (id == nil || id.Credential != want.ID || id.Kind != KindNetwork || id.User != ""):
			t.Errorf("%s: %+v; want %s", client, id, want.ID)
		}
	}
	if id := f.service.Network(t.Context(), netip.Addr{}); id != nil {
		t.Errorf("no address: %+v", id)
	}
}

// A client that guesses learns neither from the words nor from the time
// whether the user exists, slowed or not.
func TestFailuresLookAlike(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		made, _ := f.add(Wish{Kind: KindSMTP})
		f.choose("printer", "correct horse")
		revoked, secret := f.add(Wish{Kind: KindSMTP, Name: "old"})
		_, token := f.add(Wish{Kind: KindKey, Name: "old key"})
		f.revoke("old")
		f.revoke("old key")
		for _, tt := range []struct{ name, user, password string }{
			{"unknown user", "nobody", "whatever"},
			{"made password", made.User, "whatever"},
			{"chosen password", "printer", "whatever"},
			{"revoked user", revoked.User, secret},
			{"revoked key", "apikey", token},
			{"unknown key", "apikey", keyPrefix + "whatever"},
		} {
			f.service.failures = newFailures(testRule)
			for n, delay := range []time.Duration{0, 0, 0, 0, time.Second, 2 * time.Second} {
				took, err := f.timed(here, tt.user, tt.password)
				if err == nil || err.Error() != badCredentials().Error() {
					t.Errorf("%s: %v", tt.name, err)
				}
				if took != delay+failTime {
					t.Errorf("%s, failure %d took %v; want %v", tt.name, n+1, took, delay+failTime)
				}
			}
		}
	})
}

func TestLoginEndsWithItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		ctx, cancel := context.WithTimeout(t.Context(), failTime/2)
		defer cancel()
		start := time.Now()
		_, err := f.service.Login(ctx, netip.MustParseAddr(here), "nobody", "whatever")
		wantCode(t, "login", err, relay.Unavailable)
		if took := time.Since(start); took != failTime/2 {
			t.Errorf("it took %v", took)
		}
	})
}

func TestLoginSlowsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		made, secret := f.add(Wish{Kind: KindSMTP})
		for range testRule.Free + 2 {
			f.login("198.51.100.7", made.User, "guess")
		}
		if took, err := f.timed(here, made.User, secret); err != nil || took != 2*time.Second {
			t.Errorf("right password from an address not seen before, while others guess: %v, %v; want 2s", took, err)
		}
		f.login("198.51.100.7", made.User, "guess")
		if took, err := f.timed(here, made.User, secret); err != nil || took != 0 {
			t.Errorf("right password from an address that logged in before: %v, %v; want no delay", took, err)
		}
		v := time.Now()
		if _, err := f.service.SCRAM(t.Context(), netip.MustParseAddr("198.51.100.7"), made.User); err != nil || time.Since(v) != 4*time.Second {
			t.Errorf("SCRAM from the address that guesses took %v, %v; want 4s", time.Since(v), err)
		}
	})
}

// Keys come with user names that many share; guessing at "apikey" must not slow
// all who use that name.
func TestSharedUserNamesOfKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		_, token := f.add(Wish{Kind: KindKey})
		for range 20 {
			f.login("198.51.100.7", "apikey", keyPrefix+"guess")
			f.login("198.51.100.7", "apikey", "guess")
		}
		if took, err := f.timed(here, "apikey", token); err != nil || took != 0 {
			t.Errorf("a right key took %v, %v; want no delay", took, err)
		}
		if took, _ := f.timed("198.51.100.7", "apikey", keyPrefix+"guess"); took < testRule.Max {
			t.Errorf("the next guess took %v; want %v and more", took, testRule.Max)
		}
	})
}

func TestSCRAMConversation(t *testing.T) {
	f := newFixture(t)
	made, secret := f.add(Wish{Kind: KindSMTP})
	f.choose("printer", "correct horse")
	for _, tt := range []struct {
		name, user, password string
		ok                   bool
	}{
		{"right", made.User, secret, true},
		{"wrong", made.User, "wrong password", false},
		{"unknown", "nobody", secret, false},
		{"chosen password", "printer", "correct horse", false},
	} {
		ok, id := f.scram(tt.user, tt.password)
		if ok != tt.ok {
			t.Errorf("%s: the exchange ended with %v; want %v", tt.name, ok, tt.ok)
		}
		if tt.ok && (id == nil || id.Credential != made.ID || id.User != made.User) {
			t.Errorf("%s: identity %+v", tt.name, id)
		}
	}
}

// scram logs in with the client and the server of another author.
func (f *fixture) scram(user, password string) (ok bool, id *Identity) {
	f.Helper()
	server, err := scram.SHA256.NewServer(func(name string) (scram.StoredCredentials, error) {
		v, err := f.service.SCRAM(f.Context(), netip.MustParseAddr(here), name)
		if err != nil {
			return scram.StoredCredentials{}, err
		}
		id = v.Identity
		return scram.StoredCredentials{KeyFactors: scram.KeyFactors{Salt: string(v.Salt), Iters: v.Iterations},
			StoredKey: v.StoredKey, ServerKey: v.ServerKey}, nil
	})
	if err != nil {
		f.Fatal(err)
	}
	client, err := scram.SHA256.NewClient(user, password, "")
	if err != nil {
		f.Fatal(err)
	}
	a, b := client.NewConversation(), server.NewConversation()
	message := ""
	for range 2 {
		if message, err = a.Step(message); err != nil {
			return false, id
		}
		if message, err = b.Step(message); err != nil {
			return false, id
		}
	}
	_, err = a.Step(message)
	return err == nil && a.Valid() && b.Valid(), id
}

func TestMadeUpVerifier(t *testing.T) {
	f := newFixture(t)
	made, _ := f.add(Wish{Kind: KindSMTP})
	get := func(user string) *Verifier {
		v, err := f.service.SCRAM(t.Context(), netip.MustParseAddr(here), user)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	real, one, again, other := get(made.User), get("nobody"), get("nobody"), get("nobody2")
	if string(one.Salt) != string(again.Salt) || string(one.StoredKey) != string(again.StoredKey) {
		t.Error("a made-up verifier changes from one exchange to the next")
	}
	if string(one.Salt) == string(other.Salt) || string(one.StoredKey) == string(other.StoredKey) {
		t.Error("two users that do not exist have the same verifier")
	}
	if one.Identity != nil || len(one.Salt) != len(real.Salt) || one.Iterations != real.Iterations ||
		len(one.StoredKey) != len(real.StoredKey) || len(one.ServerKey) != len(real.ServerKey) {
		t.Errorf("a made-up verifier %+v does not look like a real one %+v", one, real)
	}
	// Nothing that the client sees leads to the keys.
	mac := hmac.New(sha256.New, one.Salt)
	mac.Write([]byte("stored nobody"))
	if hmac.Equal(mac.Sum(nil), one.StoredKey) {
		t.Error("the stored key follows from the salt")
	}
}

// broken is a store that is away.
type broken struct{ Store }

func (broken) CredentialByUser(context.Context, string) (*relay.Credential, error) {
	return nil, errors.New("disk on fire")
}
func (broken) CredentialByKey(context.Context, [32]byte) (*relay.Credential, error) {
	return nil, errors.New("disk on fire")
}
func (broken) DirectoryChanged(context.Context) (int64, error) {
	return 0, errors.New("disk on fire")
}

func TestStoreAway(t *testing.T) { synctest.Test(t, testStoreAway) }

func testStoreAway(t *testing.T) {
	f := newFixture(t)
	made, secret := f.add(Wish{Kind: KindSMTP})
	id, err := f.login(here, made.User, secret)
	if err != nil {
		t.Fatal(err)
	}
	f.service.store = broken{f.db}
	if _, err := f.login(here, made.User, secret); err != nil {
		t.Errorf("a user who is known already: %v", err)
	}
	for _, l := range [][2]string{{"stranger", secret}, {"apikey", keyPrefix + "unknown"}} {
		_, err := f.login(here, l[0], l[1])
		wantCode(t, "login as "+l[0], err, relay.Unavailable)
	}
	_, err = f.service.SCRAM(t.Context(), netip.MustParseAddr(here), "stranger")
	wantCode(t, "SCRAM", err, relay.Unavailable)
	if d := f.service.failures.delay(time.Now(), netip.MustParseAddr(here), "stranger"); d != 0 {
		t.Errorf("our own trouble counts as failed logins: %v", d)
	}
	clear(f.service.users)
	if !f.service.Alive(t.Context(), id) {
		t.Error("a session ends because the store is away")
	}
	if err := f.service.Refresh(t.Context()); err == nil {
		t.Error("refreshed from a store that is away")
	}
	if _, err := Open(t.Context(), broken{f.db}, NewDirectory(f.db), testRule, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("opened over a store that is away")
	}
}

// A revocation must not be overtaken by a look-up that began before it.
func TestLookUpDuringRevocation(t *testing.T) {
	f := newFixture(t)
	made, secret := f.add(Wish{Kind: KindSMTP})
	f.service.store = &late{Store: f.db, then: func() { f.revoke(made.User) }}
	id, err := f.login(here, made.User, secret) // began while it was live
	if err != nil {
		t.Fatal(err)
	}
	if f.service.Alive(t.Context(), id) {
		t.Error("a look-up that began before the revocation was cached after it")
	}
}

// late does something after a look-up, before its result is seen.
type late struct {
	Store
	then func()
}

func (l *late) CredentialByUser(ctx context.Context, user string) (*relay.Credential, error) {
	c, err := l.Store.CredentialByUser(ctx, user)
	if then := l.then; then != nil {
		l.then = nil
		then()
	}
	return c, err
}

// Logins, changes and look-ups at once, for the race detector.
func TestManyAtOnce(t *testing.T) {
	f := newFixture(t)
	f.add(Wish{Kind: KindNetwork, Networks: prefixes("192.0.2.0/24")})
	made, secret := f.add(Wish{Kind: KindSMTP})
	_, token := f.add(Wish{Kind: KindKey})
	var g sync.WaitGroup
	for range 8 {
		g.Go(func() {
			for range 20 {
				for _, l := range [][2]string{{made.User, secret}, {"any", token}} {
					id, err := f.login(here, l[0], l[1])
					if err != nil || !f.service.Alive(t.Context(), id) {
						t.Errorf("login as %s: %+v, %v", l[0], id, err)
					}
				}
				f.service.Network(t.Context(), netip.MustParseAddr(here))
			}
		})
	}
	for range 10 {
		f.add(Wish{Kind: KindKey})
	}
	g.Wait()
}
