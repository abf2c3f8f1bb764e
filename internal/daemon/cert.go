package daemon

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"postrider/internal/acme"
	"postrider/internal/config"
)

// Files of the certificate that the relay makes for itself, in the data folder.
const (
	CertName = "tls-cert.pem"
	keyName  = "tls-key.pem"
)

// certLife is how long a self-signed certificate lasts; one that has less than
// certSpare left is made anew at the start.
const (
	certLife  = 10 * 365 * 24 * time.Hour
	certSpare = 90 * 24 * time.Hour
)

// certs is the certificate that the relay serves, which may change at any time:
// that of ACME, else that of the files, else a self-signed one.
type certs struct {
	config config.Config
	log    *slog.Logger
	every  time.Duration // between looks at the files
	acme   *acme.Manager // nil: not used
	began  time.Time

	own    atomic.Pointer[tls.Certificate]
	stamp  string    // of the files that own was read from
	tried  string    // the stamp that could not be read
	warned time.Time // of the end of a certificate
}

const (
	// reloadEvery is how often the files are looked at.
	reloadEvery = 10 * time.Second
	// warnBefore the end of a certificate the log says so, once a day. Authorities
	// that give short ones are asked for the next at a third of the life.
	warnBefore = 14 * 24 * time.Hour
)

// openCerts loads the certificate, or makes it.
func openCerts(c config.Config, log *slog.Logger) (*certs, error) {
	s := &certs{config: c, log: log, every: reloadEvery, stamp: stamp(c), began: time.Now()}
	cert, err := certificate(c)
	if err != nil {
		return nil, err
	}
	s.own.Store(&cert)
	return s, nil
}

// tls is how a server uses it.
func (s *certs) tls(protocols ...string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: protocols,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return s.get(hello.ServerName), nil }}
}

func (s *certs) get(name string) *tls.Certificate {
	if s.acme != nil {
		if c := s.acme.Certificate(name); c != nil && (holds(c, name) || !s.inFiles(name)) {
			return c
		}
	}
	return s.own.Load()
}

// inFiles tells whether the certificate of the files is for a name.
func (s *certs) inFiles(name string) bool {
	return s.config.TLS.Cert != "" && holds(s.own.Load(), name)
}

// holds tells whether a certificate is for a name.
func holds(c *tls.Certificate, name string) bool {
	return c != nil && c.Leaf != nil && c.Leaf.VerifyHostname(name) == nil
}

// expires is when the certificate that most clients get runs out.
func (s *certs) expires() time.Time { return s.get("").Leaf.NotAfter }

// run follows changes of the files, and warns before the end, until ctx ends.
func (s *certs) run(ctx context.Context) error {
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	for {
		s.reload()
		s.watch(time.Now())
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// reload reads the files anew where they have changed, and makes a self-signed
// certificate anew before it runs out.
func (s *certs) reload() {
	now := stamp(s.config)
	if now == s.stamp && (s.config.TLS.Cert != "" || time.Until(s.own.Load().Leaf.NotAfter) > certSpare) {
		return
	}
	cert, err := certificate(s.config)
	if err != nil {
		// The key may come after the certificate: the next look tells.
		if s.tried != now {
			s.log.Warn("the certificate has changed, and can't be read; the old one stays in use", "err", err)
		}
		s.tried = now
		return
	}
	s.own.Store(&cert)
	s.stamp, s.tried = stamp(s.config), ""
	s.log.Info("certificate read anew", "subject", cert.Leaf.Subject.String(), "expires", cert.Leaf.NotAfter)
}

func (s *certs) watch(now time.Time) {
	left := s.expires().Sub(now)
	life := s.get("").Leaf.NotAfter.Sub(s.get("").Leaf.NotBefore)
	if left > min(warnBefore, life/4) || now.Sub(s.warned).Abs() < 24*time.Hour {
		return
	}
	s.warned = now
	s.log.Error("the certificate runs out soon, or has; clients will refuse it", "expires", s.expires(), "subject", s.get("").Leaf.Subject.String())
}

// stamp tells whether the files have changed.
func stamp(c config.Config) string {
	files := []string{c.TLS.Cert, c.TLS.Key}
	if c.TLS.Cert == "" {
		files = []string{filepath.Join(c.Data, CertName), filepath.Join(c.Data, keyName)}
	}
	s := ""
	for _, file := range files {
		if i, err := os.Stat(file); err == nil {
			s += fmt.Sprintf("%d %d;", i.ModTime().UnixNano(), i.Size())
		}
	}
	return s
}

// bindACME opens the ports that the authority looks at.
func bindACME(ctx context.Context, c config.Config) (forHTTP, forTLS net.Listener, err error) {
	if !c.TLS.ACME {
		return nil, nil, nil
	}
	var lc net.ListenConfig
	if c.TLS.HTTP01 != "" && !c.SharedPort() {
		if forHTTP, err = lc.Listen(ctx, "tcp", c.TLS.HTTP01); err != nil {
			return nil, nil, bindError("tls.acme_http", c.TLS.HTTP01, err)
		}
	}
	if c.TLS.ALPN01 != "" {
		if forTLS, err = lc.Listen(ctx, "tcp", c.TLS.ALPN01); err != nil {
			if forHTTP != nil {
				forHTTP.Close()
			}
			return nil, nil, bindError("tls.acme_tls", c.TLS.ALPN01, err)
		}
	}
	return forHTTP, forTLS, nil
}

// useACME makes what gets certificates, where that is asked for.
func (d *Daemon) useACME(ctx context.Context) error {
	c := d.Config
	if !c.TLS.ACME {
		return nil
	}
	config := acme.Config{Names: c.TLS.Names, Email: c.TLS.Email, Directory: c.TLS.Directory, Box: d.box}
	if len(config.Names) == 0 {
		if !strings.Contains(c.Hostname, ".") {
			return fmt.Errorf("tls.acme: the hostname, %q, has no dot: no authority knows it; set hostname or tls.acme_names", c.Hostname)
		}
		config.Names = []string{c.Hostname}
		if host := c.Service.TrackHost; host != "" && c.Tracking.Secure() && !strings.EqualFold(host, c.Hostname) {
			config.Names = append(config.Names, host)
		}
	}
	for i, name := range config.Names {
		config.Names[i] = strings.ToLower(name)
	}
	if c.TLS.ACMERoots != "" {
		pool, err := roots(c.TLS.ACMERoots)
		if err != nil {
			return fmt.Errorf("tls.acme_ca: %w", err)
		}
		config.Roots = pool
	}
	var err error
	if config.HTTP, config.TLS, err = bindACME(ctx, c); err != nil {
		return err
	}
	if c.SharedPort() {
		config.Shared = d.track.ln.Addr().String()
	}
	config.Hosts = d.hostsConfig()
	d.certs.acme = acme.New(config, d.store, d.log)
	return nil
}

// certificate loads the configured certificate, or the relay's own, which is
// made where it is missing.
func certificate(c config.Config) (tls.Certificate, error) {
	if c.TLS.Cert != "" {
		cert, err := tls.LoadX509KeyPair(c.TLS.Cert, c.TLS.Key)
		if err != nil {
			return cert, fmt.Errorf("load certificate (tls.cert, tls.key): %w", err)
		}
		return cert, nil
	}
	certFile, keyFile := filepath.Join(c.Data, CertName), filepath.Join(c.Data, keyName)
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err == nil && time.Until(cert.Leaf.NotAfter) > certSpare && cert.Leaf.VerifyHostname(c.Hostname) == nil {
		return cert, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return cert, fmt.Errorf("load certificate: %w; remove %s and %s to have new ones made", err, certFile, keyFile)
	}
	if err := makeCertificate(c.Hostname, certFile, keyFile); err != nil {
		return cert, fmt.Errorf("make certificate: %w", err)
	}
	return tls.LoadX509KeyPair(certFile, keyFile)
}

func makeCertificate(host, certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: host},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(certLife),
		DNSNames: []string{host, "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true, // so that clients can name it as the authority to trust
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = append(template.IPAddresses, ip)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	// Without a certificate both are made anew, with one that is not the key's
	// nothing can be done: so the old one goes first and the new one comes last.
	if err := os.Remove(certFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := writeWhole(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600); err != nil {
		return err
	}
	return writeWhole(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// writeWhole makes a file that a crash leaves whole or away.
func writeWhole(file string, b []byte, mode fs.FileMode) (err error) {
	f, err := os.OpenFile(file+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(file+".new", file); err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
