// Package acme gets certificates for the relay's own names and for the tracking
// hosts of its customers by ACME (RFC 8555), renews them, and shares them with the
// other nodes through the store.
package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"postrider/internal/seal"
)

// alpn is the protocol of the authority's TLS connections (RFC 8737).
const alpn = "acme-tls/1"

// Config says which certificates are wanted, and of whom.
type Config struct {
	Names     []string // each gets a certificate of its own; the first one serves clients that name none
	Email     string   // may be empty
	Directory string   // empty: Let's Encrypt
	Roots     *x509.CertPool
	// HTTP and TLS are where the authority looks (HTTP-01, TLS-ALPN-01); nil: it
	// is not asked to. They are closed at the end of Run.
	HTTP, TLS net.Listener
	// Shared is the address of another's port that gets the authority's HTTP
	// requests, and hands them to Answer; empty: none.
	Shared string
	Box    Box
	Waits  []time.Duration // after failures; the last one repeats. Nil: a minute to six hours
	Check  time.Duration   // how often certificates are looked at; 0: 10 minutes
	Hosts  *HostsConfig    // of tracking hosts; nil: none is asked for
}

// Manager holds certificates.
type Manager struct {
	config Config
	cache  *certmagic.Cache
	magic  *certmagic.Config
	issuer *certmagic.ACMEIssuer
	files  *storage
	log    *slog.Logger
	end    func()
	hosts  *hosts // nil: none
	served *served

	mu   sync.Mutex
	good map[string]*tls.Certificate // the latest of each name that is really for it
}

// New makes a manager. It asks nobody until Run, which ends what New begins, as
// Close does.
func New(c Config, files Files, log *slog.Logger) *Manager {
	if c.Waits == nil {
		// Let's Encrypt lets five validations an hour fail.
		c.Waits = []time.Duration{time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour}
	}
	if c.Check == 0 {
		c.Check = 10 * time.Minute
	}
	m := &Manager{config: c, files: newStorage(files, c.Box), log: log, good: map[string]*tls.Certificate{}}
	zlog := zap.New(bridge{log: log})
	m.cache = certmagic.NewCache(certmagic.CacheOptions{RenewCheckInterval: c.Check, Logger: zlog,
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return m.magic, nil }})
	m.end = sync.OnceFunc(m.cache.Stop)
	m.magic = certmagic.New(m.cache, certmagic.Config{Storage: m.files, Logger: zlog, OCSP: certmagic.OCSPConfig{DisableStapling: true}})
	template := certmagic.ACMEIssuer{CA: c.Directory, Email: c.Email, Agreed: true, TrustedRoots: c.Roots, Logger: zlog,
		DisableHTTPChallenge: c.HTTP == nil && c.Shared == "", DisableTLSALPNChallenge: c.TLS == nil}
	if c.Directory == "" {
		template.CA = certmagic.LetsEncryptProductionCA
	}
	// certmagic opens no port where one is open already.
	template.ListenHost, template.AltHTTPPort = at(c.Shared)
	if c.HTTP != nil {
		template.ListenHost, template.AltHTTPPort = at(c.HTTP.Addr().String())
	}
	if c.TLS != nil {
		template.ListenHost, template.AltTLSALPNPort = at(c.TLS.Addr().String())
	}
	m.issuer = certmagic.NewACMEIssuer(m.magic, template)
	m.magic.Issuers = []certmagic.Issuer{m.issuer}
	if c.Email == "" {
		m.magic.Issuers = []certmagic.Issuer{mute{m.issuer}}
	}
	if m.served = newServed(); c.Hosts != nil {
		m.hosts = newHosts(*c.Hosts, m)
	}
	return m
}

// mute is an issuer that asks nobody at the terminal for an address.
type mute struct{ *certmagic.ACMEIssuer }

// PreCheck is that of who can't be asked.
func (m mute) PreCheck(ctx context.Context, names []string, _ bool) error {
	return m.ACMEIssuer.PreCheck(ctx, names, false)
}

func at(address string) (host string, port int) {
	host, digits, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0
	}
	port, _ = strconv.Atoi(digits) // it is one: a listener has it
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = ""
	}
	return host, port
}

// Names are those that Certificate knows.
func (m *Manager) Names() []string { return m.config.Names }

// fixed tells whether a name is one of them.
func (m *Manager) fixed(name string) bool { return slices.Contains(m.config.Names, name) }

// Certificate gives the certificate for one of the names, or for the first one
// where name is none of them. Nil: there is none yet.
func (m *Manager) Certificate(name string) *tls.Certificate {
	if name = strings.ToLower(strings.TrimSuffix(name, ".")); !m.fixed(name) {
		name = m.config.Names[0]
	}
	var best *tls.Certificate
	for _, c := range m.cache.AllMatchingCertificates(name) {
		// Whatever the authority says: a certificate for somebody else is of no
		// use. Its dates are not looked at: the clock may be wrong, and an expired
		// one is better than one that nobody knows.
		if c.Leaf != nil && c.Leaf.VerifyHostname(name) == nil && (best == nil || c.Leaf.NotAfter.After(best.Leaf.NotAfter)) {
			best = &c.Certificate
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if best != nil {
		m.good[name] = best
	}
	return m.good[name]
}

// Run gets the certificates, keeps them fresh, and answers the authority, until
// ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	defer m.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	if m.config.HTTP != nil {
		wg.Go(func() { m.answerHTTP(ctx) })
	}
	if m.config.TLS != nil {
		wg.Go(func() { m.answerTLS(ctx) })
	}
	if m.hosts != nil {
		wg.Go(func() { m.hosts.run(ctx) })
	}
	for failures := 0; ; {
		wait := m.config.Check
		if err := m.manage(ctx); err == nil {
			failures = 0
		} else if ctx.Err() == nil {
			wait = m.config.Waits[min(failures, len(m.config.Waits)-1)]
			failures++
			m.log.Error("no certificate by ACME; it will be tried again", "names", strings.Join(m.config.Names, ", "), "again_in", wait, "err", err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// Close ends a manager that does not run.
func (m *Manager) Close() {
	m.end()
	for _, ln := range []net.Listener{m.config.HTTP, m.config.TLS} {
		if ln != nil {
			ln.Close()
		}
	}
}

// manage sees that there is a certificate for each name.
func (m *Manager) manage(ctx context.Context) error {
	var errs []error
	for _, name := range m.config.Names {
		err := m.purge(ctx, name)
		if err == nil {
			err = m.magic.ManageSync(ctx, []string{name})
		}
		if err == nil && m.Certificate(name) == nil {
			err = fmt.Errorf("%s: the authority gave a certificate that is not for this name", name)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// purge drops a stored certificate that can't be used: an authority that gives a
// wrong one must not keep us from asking for a right one.
func (m *Manager) purge(ctx context.Context, name string) error {
	issuer := m.issuer.IssuerKey()
	cert, err := m.files.Load(ctx, certmagic.StorageKeys.SiteCert(issuer, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil && ctx.Err() != nil {
		return err
	}
	key, keyErr := m.files.Load(ctx, certmagic.StorageKeys.SitePrivateKey(issuer, name))
	if err == nil && keyErr == nil {
		pair, pairErr := tls.X509KeyPair(cert, key)
		if pairErr == nil && pair.Leaf.VerifyHostname(name) == nil {
			return nil
		}
	} else if err = errors.Join(err, keyErr); !unusable(err) {
		return err // the store is away
	}
	m.log.Warn("a stored certificate can't be used, and is dropped", "name", name)
	m.cache.RemoveManaged([]certmagic.SubjectIssuer{{Subject: name, IssuerKey: issuer}})
	return m.remove(ctx, name)
}

// unusable tells whether a stored file is lost for good.
func unusable(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, seal.ErrBroken)
}

// Answer has the authority's HTTP requests (RFC 8555 section 8.3) answered, and
// others by next.
func (m *Manager) Answer(next http.Handler) http.Handler { return m.issuer.HTTPChallengeHandler(next) }

// answerHTTP serves the authority's HTTP requests, and nothing else.
func (m *Manager) answerHTTP(ctx context.Context) {
	server := &http.Server{Handler: m.Answer(http.NotFoundHandler()), ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout: 20 * time.Second, WriteTimeout: 20 * time.Second, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(m.log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(m.config.HTTP); err != nil && ctx.Err() == nil {
		m.log.Error("the authority's HTTP requests are answered no more", "err", err)
	}
}

// maxHandshakes bounds the connections to the port of answerTLS.
const maxHandshakes = 64

// answerTLS serves the authority's TLS connections (RFC 8737), which end with
// the handshake.
func (m *Manager) answerTLS(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { m.config.TLS.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	room := make(chan struct{}, maxHandshakes)
	config := &tls.Config{GetCertificate: m.challenge, NextProtos: []string{alpn}, MinVersion: tls.VersionTLS12}
	for {
		conn, err := m.config.TLS.Accept()
		if err != nil {
			if ctx.Err() == nil {
				m.log.Error("the authority's TLS connections are answered no more", "err", err)
			}
			return
		}
		select {
		case room <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		wg.Go(func() {
			defer func() { conn.Close(); <-room }()
			within, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			if err := tls.Server(conn, config).HandshakeContext(within); err != nil {
				m.log.Debug("a TLS connection at the authority's port", "from", conn.RemoteAddr().String(), "err", err)
			}
		})
	}
}

// challenge gives the certificate that proves a name, and no other.
func (m *Manager) challenge(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if !slices.Equal(hello.SupportedProtos, []string{alpn}) {
		return nil, errors.New("not an authority")
	}
	return m.magic.GetCertificate(hello)
}
