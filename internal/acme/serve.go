package acme

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"postrider/internal/relay"
)

// Host gives where a tracking host stands, whichever node asks for its certificate;
// nil: it was not asked for yet.
func (m *Manager) Host(ctx context.Context, name string) (*Host, error) {
	f, err := m.files.files.File(ctx, hostsFolder+name)
	if err != nil {
		if relay.CodeOf(err) == relay.NotFound {
			return nil, nil
		}
		return nil, err
	}
	var h Host
	if err := json.Unmarshal(f.Bytes, &h); err != nil {
		return nil, fmt.Errorf("read host %s: %w", name, err)
	}
	return &h, nil
}

// HostCounts counts tracking hosts by where their certificates stand: there, waiting,
// failing. Nil: this node does not order them.
func (m *Manager) HostCounts() map[string]int {
	if m.hosts == nil {
		return nil
	}
	if counts := m.hosts.counts.Load(); counts != nil {
		return *counts
	}
	return nil
}

// Trouble gives the tracking hosts whose certificates are not renewed although it is
// time, and those that have been refused their first one for more than an hour: at
// most 1,000, those that end first.
func (m *Manager) Trouble(ctx context.Context) ([]Host, error) {
	f, err := m.files.files.File(ctx, hostsTrouble)
	if err != nil {
		if relay.CodeOf(err) == relay.NotFound {
			return nil, nil
		}
		return nil, err
	}
	var all []Host
	if err := json.Unmarshal(f.Bytes, &all); err != nil {
		return nil, fmt.Errorf("read hosts: %w", err)
	}
	return all, nil
}

// served are certificates of tracking hosts that were asked for of late: they are
// many, and stand in the store.
type served struct {
	mu      sync.Mutex
	certs   map[string]servedCert
	unknown map[string]time.Time // names without one
	loads   chan struct{}        // under way
}

type servedCert struct {
	*tls.Certificate
	seen time.Time
}

const (
	maxServed   = 2000 // some 10 KB each
	maxUnknown  = 10_000
	servedFor   = time.Minute      // that a certificate is not read anew
	unknownFor  = 10 * time.Second // that a name is not looked for again
	loadsAtOnce = 8
	loadTime    = 5 * time.Second
)

func newServed() *served {
	return &served{certs: map[string]servedCert{}, unknown: map[string]time.Time{}, loads: make(chan struct{}, loadsAtOnce)}
}

// HostCertificate gives the certificate of a tracking host; nil: there is none. It
// asks the store at most, and never the authority.
func (m *Manager) HostCertificate(ctx context.Context, name string) *tls.Certificate {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if m.hosts == nil || !isHost(name) {
		return nil
	}
	s := m.served
	cert, fresh := s.get(name, time.Now())
	if fresh {
		return cert
	}
	select {
	case s.loads <- struct{}{}:
		defer func() { <-s.loads }()
	case <-ctx.Done():
		return cert
	}
	if cert, fresh = s.get(name, time.Now()); fresh { // meanwhile
		return cert
	}
	within, cancel := context.WithTimeout(ctx, loadTime)
	defer cancel()
	found, err := m.load(within, name)
	if err != nil && !unusable(err) {
		found = cert // the store is away: what was there is good for longer
	}
	s.put(name, found, time.Now())
	return found
}

// isHost tells whether a name can be that of a host: who asks may be anybody.
func isHost(name string) bool {
	return len(name) <= 253 && strings.Contains(name, ".") && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == ""
}

func (s *served) get(name string, now time.Time) (cert *tls.Certificate, fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.certs[name]; ok {
		return c.Certificate, now.Sub(c.seen).Abs() < servedFor
	}
	seen, ok := s.unknown[name]
	return nil, ok && now.Sub(seen).Abs() < unknownFor
}

func (s *served) put(name string, cert *tls.Certificate, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cert == nil {
		delete(s.certs, name)
		if len(s.unknown) >= maxUnknown {
			clear(s.unknown) // names that somebody makes up must not fill the memory
		}
		s.unknown[name] = now
		return
	}
	delete(s.unknown, name)
	if _, ok := s.certs[name]; !ok && len(s.certs) >= maxServed {
		for other := range s.certs { // any: it is read again when it is asked for
			delete(s.certs, other)
			break
		}
	}
	s.certs[name] = servedCert{cert, now}
}

// forget has a certificate read anew.
func (s *served) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.certs, name)
	delete(s.unknown, name)
}

// load reads a certificate from the store; nil: there is none, or not for that name.
func (m *Manager) load(ctx context.Context, name string) (*tls.Certificate, error) {
	issuer := m.issuer.IssuerKey()
	cert, err := m.files.Load(ctx, certmagic.StorageKeys.SiteCert(issuer, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	key, err := m.files.Load(ctx, certmagic.StorageKeys.SitePrivateKey(issuer, name))
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil { // another node may be about to write the other half
		return nil, fmt.Errorf("read certificate of %s: %w", name, err)
	}
	if pair.Leaf.VerifyHostname(name) != nil {
		return nil, nil
	}
	return &pair, nil
}

// remove drops a certificate from the store.
func (m *Manager) remove(ctx context.Context, name string) error {
	return m.files.Delete(ctx, certmagic.StorageKeys.CertsSitePrefix(m.issuer.IssuerKey(), name))
}
