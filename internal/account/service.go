package account

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postrider/internal/relay"
)

// Store keeps credentials. Look-ups give a relay.Error with code NotFound where
// there is none; a key is found by the secret before its last rotation as well.
type Store interface {
	CredentialByUser(ctx context.Context, user string) (*relay.Credential, error)
	CredentialByKey(ctx context.Context, sum [32]byte) (*relay.Credential, error)
	NetworkCredentials(ctx context.Context) ([]*relay.Credential, error)
	DirectoryChanged(ctx context.Context) (int64, error)
	UseCredentials(ctx context.Context, uses []relay.Use, settled time.Time) (strange []relay.Use, err error)
}

// Service checks who a client is.
type Service struct {
	store    Store
	book     *Directory
	uses     uses
	log      *slog.Logger
	failures *failures
	lines    lines
	hashing  hashing
	fakeKey  [32]byte // makes the SCRAM verifiers of users that do not exist
	memory   [32]byte // key of what chosen remembers

	throttled atomic.Uint64 // logins that had to wait

	refreshing sync.Mutex // one at a time, so that none puts older facts over newer ones

	mu       sync.Mutex
	version  int64
	users    map[string]*relay.Credential // by user name
	keys     map[[32]byte]*relay.Credential
	networks []*relay.Credential
	chosen   map[relay.ID][32]byte // digest of what argon2 has accepted; see remembered
}

// maxCached bounds each cache of credentials.
const maxCached = 50_000

// failTime is how long every failed login takes at least, so that the time
// does not tell why it failed: longer than a hash takes.
const failTime = 500 * time.Millisecond

// Open loads what must be at hand before the first client comes.
func Open(ctx context.Context, store Store, book *Directory, rule Throttle, log *slog.Logger) (*Service, error) {
	s := &Service{store: store, book: book, log: log, failures: newFailures(rule), lines: lines{by: map[string]*line{}}}
	s.hashing.init()
	s.chosen = map[relay.ID][32]byte{}
	rand.Read(s.fakeKey[:])
	rand.Read(s.memory[:])
	if err := s.reload(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Run notices changes that other nodes make, within a second, and notes the use
// of credentials, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	note := time.NewTicker(time.Minute)
	defer note.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			s.noteUses(context.WithoutCancel(ctx)) // drain: the last uses
			return nil
		case <-note.C:
			s.noteUses(ctx)
			continue
		case <-tick.C:
		}
		err := s.Refresh(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			s.log.Warn("credentials cannot be refreshed", "err", err)
		}
		failing = err != nil
	}
}

// Refresh drops what is cached, here and in the Directory, if anything of it was
// changed.
func (s *Service) Refresh(ctx context.Context) error {
	s.refreshing.Lock()
	defer s.refreshing.Unlock()
	v, err := s.store.DirectoryChanged(ctx)
	if err != nil {
		return fmt.Errorf("look for changed credentials: %w", err)
	}
	s.mu.Lock()
	same := v == s.version
	s.mu.Unlock()
	if same {
		return nil
	}
	return s.reload(ctx)
}

func (s *Service) reload(ctx context.Context) error {
	// The version is read first: a change that comes in between is found by
	// the next look.
	v, err := s.store.DirectoryChanged(ctx)
	if err != nil {
		return fmt.Errorf("look for changed credentials: %w", err)
	}
	nets, err := s.store.NetworkCredentials(ctx)
	if err != nil {
		return fmt.Errorf("load network credentials: %w", err)
	}
	s.book.Forget()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version, s.networks = v, nets
	s.users, s.keys = map[string]*relay.Credential{}, map[[32]byte]*relay.Credential{}
	return nil
}

// Login checks a user name and password (AUTH PLAIN and LOGIN). An API key is
// taken as the password of any user name, because hosted services and their
// SDKs each have their own ("apikey", "resend", the token itself). The error is
// a relay.Error; after failures it comes late.
func (s *Service) Login(ctx context.Context, client netip.Addr, user, password string) (*Identity, error) {
	name := user
	if strings.HasPrefix(password, keyPrefix) {
		// Many share the user name that they give with their keys: what one of
		// them does wrong must not slow the others.
		name = ""
	}
	leave, err := s.turn(ctx, client, name)
	if err != nil {
		return nil, err
	}
	defer leave()
	start := time.Now()
	c, err := s.find(ctx, user, password)
	if err != nil {
		return nil, err
	}
	ok, before := false, false
	if c != nil {
		if ok, before, err = s.matchesEither(ctx, c, password, s.failures.known(client, name)); err != nil {
			return nil, err
		}
	}
	if !ok {
		s.failures.failed(time.Now(), client, name)
		if err := wait(ctx, max(failTime, s.hashing.slowest(time.Now()))-time.Since(start)); err != nil {
			return nil, err
		}
		return nil, badCredentials()
	}
	s.failures.succeeded(client, name)
	if err := s.refusal(ctx, c); err != nil {
		return nil, err
	}
	s.uses.note(c, client)
	id := identity(c, user)
	if before {
		id.key = secretKey(c.Previous.SecretSHA256, c.Previous.Argon2)
	}
	return id, nil
}

// Throttled is how many logins had to wait, since the start, for failed ones
// before them.
func (s *Service) Throttled() uint64 { return s.throttled.Load() }

// turn waits until this client may try a login, after its failures and its
// other logins.
func (s *Service) turn(ctx context.Context, client netip.Addr, name string) (leave func(), err error) {
	leave, err = s.lines.enter(ctx, s.failures.line(client, name), func() int { return s.failures.atOnce(time.Now(), client) })
	if err != nil {
		return nil, err
	}
	delay := s.failures.delay(time.Now(), client, name)
	if delay > 0 {
		s.throttled.Add(1)
	}
	if err := wait(ctx, delay); err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}

func badCredentials() error {
	return &relay.Error{Code: relay.Unauthenticated, Text: "User name or password is wrong.",
		Advice: "Check both, or make a new credential with \"postrider credential add\"."}
}

func identity(c *relay.Credential, user string) *Identity {
	id := &Identity{Account: c.Account, Credential: c.ID, Kind: c.Kind, User: user, key: secretKey(c.SecretSHA256, c.Argon2)}
	id.follow(c)
	return id
}

// follow takes over what may have been changed of the credential.
func (id *Identity) follow(c *relay.Credential) {
	id.Stream, id.RepairLF, id.Senders, id.Status = c.Stream, c.RepairLF, c.Senders, c.Status
	id.Scopes, id.Owner, id.Limits, id.Pool = c.Scopes, c.Owner, c.Limits, c.Pool
	id.Opens, id.Clicks, id.Archive, id.Group = c.Opens, c.Clicks, c.Archive, c.Group
}

// secretKey is by what a secret is known again.
func secretKey(sum []byte, argon2 string) (key [32]byte) {
	if argon2 != "" {
		return sha256.Sum256([]byte(argon2))
	}
	copy(key[:], sum)
	return key
}

// holds tells whether a secret that was logged in with is good now.
func holds(c *relay.Credential, key [32]byte, now time.Time) bool {
	return key == secretKey(c.SecretSHA256, c.Argon2) || before(c, now) && key == secretKey(c.Previous.SecretSHA256, c.Previous.Argon2)
}

// before tells whether the secret before the last rotation is good.
func before(c *relay.Credential, now time.Time) bool { return now.Before(c.Previous.Until) }

// refusal says why a credential that was recognised does not serve, or nothing.
// The error is a relay.Error.
func (s *Service) refusal(ctx context.Context, c *relay.Credential) error {
	if c.Status == relay.Blocked {
		return &relay.Error{Code: relay.Forbidden, Text: because("This credential is blocked", c.Reason), Advice: "Ask who manages the account."}
	}
	if !c.Expires.IsZero() && !time.Now().Before(c.Expires) {
		return &relay.Error{Code: relay.Forbidden, Text: "This credential expired on " + c.Expires.UTC().Format("2 January 2006, 15:04 UTC") + ".",
			Advice: "Make a new one, or give it more time."}
	}
	a, _, err := s.book.Account(ctx, c.Account)
	switch {
	case err != nil:
		return &relay.Error{Code: relay.Unavailable, Text: "The account can't be checked at the moment.", Advice: "Try again later.", Err: err}
	case !a.Closed.IsZero():
		return &relay.Error{Code: relay.Forbidden, Text: "This account is closed.", Advice: "Ask an operator of the relay."}
	case a.Status == relay.Blocked:
		return &relay.Error{Code: relay.Forbidden, Text: because("This account is blocked", a.Reason), Advice: "Ask an operator of the relay."}
	}
	return nil
}

func because(what, reason string) string {
	if reason = strings.TrimSuffix(reason, "."); reason != "" {
		what += ": " + reason
	}
	return what + "."
}

// wait waits for d. The error is a relay.Error.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return brokenOff(ctx)
	case <-t.C:
		return nil
	}
}

func brokenOff(ctx context.Context) error {
	return &relay.Error{Code: relay.Unavailable, Text: "The login was broken off.", Advice: "Try again later.", Err: ctx.Err()}
}

// find gives the credential that user and password may belong to, or nil.
func (s *Service) find(ctx context.Context, user, password string) (*relay.Credential, error) {
	var c *relay.Credential
	var err error
	if strings.HasPrefix(password, keyPrefix) {
		sum := sha256.Sum256([]byte(password))
		c, err = s.byKey(ctx, sum)
	} else {
		c, err = s.byUser(ctx, user)
	}
	if err != nil || c == nil || !c.Revoked.IsZero() {
		return nil, err
	}
	return c, nil
}

func (s *Service) byUser(ctx context.Context, user string) (*relay.Credential, error) {
	return lookup(s, s.usersMap, user, func() (*relay.Credential, error) { return s.store.CredentialByUser(ctx, user) })
}

func (s *Service) byKey(ctx context.Context, sum [32]byte) (*relay.Credential, error) {
	return lookup(s, s.keysMap, sum, func() (*relay.Credential, error) { return s.store.CredentialByKey(ctx, sum) })
}

func (s *Service) keysMap() map[[32]byte]*relay.Credential { return s.keys }
func (s *Service) usersMap() map[string]*relay.Credential  { return s.users }

// lookup asks the cache, then the store. Only what exists is cached: names that
// somebody makes up must not fill the memory.
func lookup[K comparable](s *Service, cache func() map[K]*relay.Credential, key K, load func() (*relay.Credential, error)) (*relay.Credential, error) {
	s.mu.Lock()
	c, ok := cache()[key]
	version := s.version
	s.mu.Unlock()
	if ok {
		return c, nil
	}
	c, err := load()
	if relay.CodeOf(err) == relay.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, &relay.Error{Code: relay.Unavailable, Text: "Credentials can't be checked at the moment.", Advice: "Try again later.", Err: err}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := cache(); s.version == version && len(m) < maxCached {
		m[key] = c
	}
	return c, nil
}

// matchesEither checks the password against a credential's secret and, while that
// is good, the one before. known says that the client has logged in with it before.
func (s *Service) matchesEither(ctx context.Context, c *relay.Credential, password string, known bool) (ok, old bool, err error) {
	if ok, err = s.matches(ctx, c, password, known); ok || err != nil || !before(c, time.Now()) {
		return ok, false, err
	}
	was := *c
	was.SecretSHA256, was.Argon2 = c.Previous.SecretSHA256, c.Previous.Argon2
	ok, err = s.matches(ctx, &was, password, known)
	return ok, ok, err
}

// matches checks the password of a credential.
func (s *Service) matches(ctx context.Context, c *relay.Credential, password string, known bool) (bool, error) {
	if c.Argon2 == "" {
		sum := sha256.Sum256([]byte(password))
		return len(c.SecretSHA256) > 0 && subtle.ConstantTimeCompare(sum[:], c.SecretSHA256) == 1, nil
	}
	// argon2 is slow on purpose: what it accepted is remembered.
	digest := s.remembered(c, password)
	s.mu.Lock()
	before, ok := s.chosen[c.ID]
	s.mu.Unlock()
	if ok && before == digest {
		return true, nil
	}
	good, err := s.hashing.matches(ctx, string(digest[:]), c.Argon2, password, known)
	if relay.CodeOf(err) == relay.Busy || relay.CodeOf(err) == relay.Unavailable {
		return false, err
	}
	if err != nil {
		return false, &relay.Error{Code: relay.Internal, Text: "This credential can't be checked.", Advice: "Make a new one.",
			Err: fmt.Errorf("credential %s: %w", c.ID, err)}
	}
	if good {
		s.mu.Lock()
		if len(s.chosen) >= maxCached {
			clear(s.chosen)
		}
		s.chosen[c.ID] = digest
		s.mu.Unlock()
	}
	return good, nil
}

// remembered is the digest by which an accepted password is known again. It
// holds for this very hash only, and its key never leaves the process.
func (s *Service) remembered(c *relay.Credential, password string) [32]byte {
	m := hmac.New(sha256.New, s.memory[:])
	m.Write([]byte(c.Argon2 + "\x00" + password))
	return [32]byte(m.Sum(nil))
}

// SCRAM gives what the exchange with this user needs. For a user that does not
// exist, or that has no SCRAM secret, it makes up a verifier, always the same
// for a name, and Identity is nil. The caller reports how it ended to Failed or
// Succeeded. The error is a relay.Error; after failures the answer comes late.
func (s *Service) SCRAM(ctx context.Context, client netip.Addr, user string) (*Verifier, error) {
	leave, err := s.turn(ctx, client, user)
	if err != nil {
		return nil, err
	}
	leave() // the secrets of SCRAM are too long to be guessed at once
	c, err := s.byUser(ctx, user)
	if err != nil {
		return nil, err
	}
	if c != nil && c.Revoked.IsZero() && len(c.Scram.Stored) > 0 {
		return verifier(c, user, time.Now()), nil
	}
	derive := func(label string) []byte {
		m := hmac.New(sha256.New, s.fakeKey[:])
		m.Write([]byte(label + user))
		return m.Sum(nil)
	}
	return &Verifier{Salt: derive("salt ")[:16], Iterations: scramIterations, StoredKey: derive("stored "),
		ServerKey: derive("server ")}, nil
}

func verifier(c *relay.Credential, user string, now time.Time) *Verifier {
	id := identity(c, user)
	v := &Verifier{Salt: c.Scram.Salt, Iterations: c.Scram.Iterations, StoredKey: c.Scram.Stored, ServerKey: c.Scram.Server, Identity: id}
	p := &c.Previous.Scram
	if before(c, now) && len(p.Stored) > 0 && bytes.Equal(p.Salt, v.Salt) && p.Iterations == v.Iterations {
		was := *id
		was.key = secretKey(c.Previous.SecretSHA256, c.Previous.Argon2)
		v.Before = &Verifier{Salt: p.Salt, Iterations: p.Iterations, StoredKey: p.Stored, ServerKey: p.Server, Identity: &was}
	}
	return v
}

// Failed records a failed SCRAM exchange.
func (s *Service) Failed(client netip.Addr, user string) { s.failures.failed(time.Now(), client, user) }

// Succeeded records a SCRAM exchange that ended well. The error, a relay.Error,
// says why the credential does not serve all the same.
func (s *Service) Succeeded(ctx context.Context, client netip.Addr, user string) error {
	s.failures.succeeded(client, user)
	c, err := s.byUser(ctx, user)
	if err != nil {
		return err
	}
	if c == nil {
		return badCredentials()
	}
	if err := s.refusal(ctx, c); err != nil {
		return err
	}
	s.uses.note(c, client)
	return nil
}

// Network gives the identity of a client that needs no password, or nil. The
// narrowest network wins, of those whose credentials serve.
func (s *Service) Network(ctx context.Context, client netip.Addr) *Identity {
	client = client.Unmap().WithZone("") // no prefix contains an address with a zone
	s.mu.Lock()
	networks := s.networks
	s.mu.Unlock()
	var best *relay.Credential
	bits := -1
	for _, c := range networks {
		for _, p := range c.Networks {
			if c.Revoked.IsZero() && p.Contains(client) && p.Bits() > bits && relay.CodeOf(s.refusal(ctx, c)) != relay.Forbidden {
				best, bits = c, p.Bits()
			}
		}
	}
	if best == nil {
		return nil
	}
	s.uses.note(best, client)
	return identity(best, "")
}

// Alive tells whether the credential behind an identity still holds. Sessions
// ask before each message, so that revoking or blocking one works on open sessions
// too, and what else was changed of it holds for the next message: Alive brings the
// identity up to date, so each session has one of its own. When the store can't
// say, the identity holds as it was: the message itself will tell.
func (s *Service) Alive(ctx context.Context, id *Identity) bool {
	c, err := s.Behind(ctx, id)
	if err != nil {
		return relay.CodeOf(err) == relay.Unavailable
	}
	id.follow(c)
	return relay.CodeOf(s.refusal(ctx, c)) != relay.Forbidden
}

// Behind gives the credential that an identity was logged in with, as it is now.
// Forbidden says that it is gone, or that its secret holds no longer. What it gives
// is shared, and not to be changed.
func (s *Service) Behind(ctx context.Context, id *Identity) (*relay.Credential, error) {
	var c *relay.Credential
	var err error
	switch id.Kind {
	case KindNetwork:
		s.mu.Lock()
		networks := s.networks
		s.mu.Unlock()
		if i := slices.IndexFunc(networks, func(n *relay.Credential) bool { return n.ID == id.Credential }); i >= 0 {
			c = networks[i]
		}
	case KindKey:
		c, err = s.byKey(ctx, id.key)
	default:
		c, err = s.byUser(ctx, id.User)
	}
	if err != nil {
		return nil, err
	}
	if c == nil || c.ID != id.Credential || !c.Revoked.IsZero() || id.Kind != KindNetwork && !holds(c, id.key, time.Now()) {
		return nil, &relay.Error{Code: relay.Forbidden, Text: "This credential was revoked.", Advice: "Make a new one."}
	}
	return c, nil
}

// Caller is who acts with an identity, from an address.
func (s *Service) Caller(ctx context.Context, id *Identity, client netip.Addr) (Caller, error) {
	c, err := s.Behind(ctx, id)
	if err != nil {
		return Caller{}, err
	}
	return s.book.Bearer(ctx, c, relay.Actor{Credential: c.ID, Name: c.Name, Client: client})
}
