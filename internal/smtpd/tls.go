package smtpd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"time"
)

// certKey is where a handshake's context holds the place for the certificate
// that was used: a *tls.Certificate. Channel binding needs it (RFC 5929 section
// 4), and package tls does not tell a server its own certificate.
type certKey struct{}

// tlsConfig makes the configuration of a listener; nil where it has no TLS.
func tlsConfig(base *tls.Config, lc ListenerConfig) *tls.Config {
	if base == nil || lc.Mode == ModePlain {
		return nil
	}
	c := base.Clone()
	c.MinVersion = max(lc.MinTLS, tls.VersionTLS10)
	if lc.MinTLS == 0 {
		c.MinVersion = tls.VersionTLS12
	}
	if c.MinVersion < tls.VersionTLS12 {
		c.CipherSuites = oldSuites()
	}
	own := c.GetConfigForClient
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if used, ok := hello.Context().Value(certKey{}).(*tls.Certificate); ok {
			// Asked here and not in GetCertificate, which a resumed session skips.
			if cert, err := certificateFor(c, hello); err == nil && cert != nil {
				*used = *cert
			}
		}
		if own != nil {
			return own(hello)
		}
		return nil, nil
	}
	return c
}

func certificateFor(c *tls.Config, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c.GetCertificate != nil {
		return c.GetCertificate(hello)
	}
	for i := range c.Certificates {
		if hello.SupportsCertificate(&c.Certificates[i]) == nil {
			return &c.Certificates[i], nil
		}
	}
	return nil, fmt.Errorf("no certificate for %q", hello.ServerName)
}

// oldSuites is what devices from before TLS 1.2 know: those that Go offers by
// itself, and the key exchanges and CBC modes that it has given up. RC4 stays
// out.
func oldSuites() []uint16 {
	var ids []uint16
	for _, s := range tls.CipherSuites() {
		ids = append(ids, s.ID)
	}
	for _, s := range tls.InsecureCipherSuites() {
		if !strings.Contains(s.Name, "RC4") {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// startTLS goes on over TLS. first are bytes of the handshake that were read
// already. All that the client said before is forgotten (RFC 3207 section 4.2).
func (s *session) startTLS(ctx context.Context, first []byte) error {
	under := s.w.raw
	if len(first) > 0 {
		under = &prefixed{Conn: under, first: first}
	}
	s.w.line = time.Time{} // a new wait, for the handshake as a whole
	if err := s.w.arm(); err != nil {
		return err
	}
	if err := s.w.flush(); err != nil {
		return err
	}
	cert := new(tls.Certificate)
	conn := tls.Server(under, s.l.tls)
	s.w.conn = conn
	if err := conn.HandshakeContext(context.WithValue(ctx, certKey{}, cert)); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	s.in.Reset(s.w)
	s.reset()
	state := conn.ConnectionState()
	s.tls, s.leaf = &state, nil
	if len(cert.Certificate) > 0 {
		if s.leaf = cert.Leaf; s.leaf == nil {
			s.leaf, _ = x509.ParseCertificate(cert.Certificate[0])
		}
	}
	s.helo, s.extended, s.identity, s.authenticated = "", false, nil, false
	return nil
}

// tlsText is what the source of a message says of TLS.
func (s *session) tlsText() string {
	if s.tls == nil {
		return ""
	}
	return strings.ReplaceAll(tls.VersionName(s.tls.Version), " ", "") + " " + tls.CipherSuiteName(s.tls.CipherSuite)
}
