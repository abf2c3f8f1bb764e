package account

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postrider/internal/relay"
)

// Store keeps credentials. Look-ups give a relay.Error with code NotFound where
// there is none; revoked credentials are given as well.
type Store interface {
	CredentialByUser(ctx context.Context, user string) (*relay.Credential, error)
	CredentialByKey(ctx context.Context, sum [32]byte) (*relay.Credential, error)
	NetworkCredentials(ctx context.Context) ([]*relay.Credential, error)
	DirectoryChanged(ctx context.Context) (int64, error)
}

// Service checks who a client is.
type Service struct {
	store    Store
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
func Open(ctx context.Context, store Store, rule Throttle, log *slog.Logger) (*Service, error) {
	s := &Service{store: store, log: log, failures: newFailures(rule), lines: lines{by: map[string]*line{}}}
	s.hashing.init()
	s.chosen = map[relay.ID][32]byte{}
	rand.Read(s.fakeKey[:])
	rand.Read(s.memory[:])
	if err := s.reload(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Run notices changes that other nodes make, within a second, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := s.Refresh(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			s.log.Warn("credentials cannot be refreshed", "err", err)
		}
		failing = err != nil
	}
}

// Refresh drops what is cached if a credential was added or revoked.
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
	ok := false
	if c != nil {
		if ok, err = s.matches(ctx, c, password, s.failures.known(client, name)); err != nil {
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
	return identity(c, user), nil
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
	id := &Identity{Account: c.Account, Credential: c.ID, Kind: c.Kind, User: user, Stream: c.Stream,
		RepairLF: c.RepairLF, Senders: c.Senders}
	copy(id.key[:], c.SecretSHA256)
	return id
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

// matches checks the password of a credential. known says that the client has
// logged in with it before.
func (s *Service) matches(ctx context.Context, c *relay.Credential, password string, known bool) (bool, error) {
	if c.Argon2 == "" {
		sum := sha256.Sum256([]byte(password))
		return subtle.ConstantTimeCompare(sum[:], c.SecretSHA256) == 1, nil
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
		return &Verifier{Salt: c.Scram.Salt, Iterations: c.Scram.Iterations, StoredKey: c.Scram.Stored,
			ServerKey: c.Scram.Server, Identity: identity(c, user)}, nil
	}
	derive := func(label string) []byte {
		m := hmac.New(sha256.New, s.fakeKey[:])
		m.Write([]byte(label + user))
		return m.Sum(nil)
	}
	return &Verifier{Salt: derive("salt ")[:16], Iterations: scramIterations, StoredKey: derive("stored "),
		ServerKey: derive("server ")}, nil
}

// Failed records a failed SCRAM exchange.
func (s *Service) Failed(client netip.Addr, user string) { s.failures.failed(time.Now(), client, user) }

// Succeeded records a SCRAM exchange that ended well.
func (s *Service) Succeeded(client netip.Addr, user string) {
	s.failures.succeeded(client, user)
}

// Network gives the identity of a client that needs no password, or nil. The
// narrowest network wins.
func (s *Service) Network(_ context.Context, client netip.Addr) *Identity {
	client = client.Unmap().WithZone("") // no prefix contains an address with a zone
	s.mu.Lock()
	defer s.mu.Unlock()
	var best *relay.Credential
	bits := -1
	for _, c := range s.networks {
		for _, p := range c.Networks {
			if c.Revoked.IsZero() && p.Contains(client) && p.Bits() > bits {
				best, bits = c, p.Bits()
			}
		}
	}
	if best == nil {
		return nil
	}
	return identity(best, "")
}

// Alive tells whether the credential behind an identity still holds. Sessions
// ask before each message, so that revoking one works on open sessions too. When
// the store can't say, the identity holds: the message itself will tell.
func (s *Service) Alive(ctx context.Context, id *Identity) bool {
	var c *relay.Credential
	var err error
	switch id.Kind {
	case KindNetwork:
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, n := range s.networks {
			if n.ID == id.Credential {
				return n.Revoked.IsZero()
			}
		}
		return false
	case KindKey:
		c, err = s.byKey(ctx, id.key)
	default:
		c, err = s.byUser(ctx, id.User)
	}
	if err != nil {
		return true
	}
	return c != nil && c.ID == id.Credential && c.Revoked.IsZero()
}
