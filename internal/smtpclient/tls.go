package smtpclient

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
)

// TLSState is what was agreed with the peer, and what its certificate is worth.
type TLSState struct {
	Version  string // "TLS1.3"
	Cipher   string // "TLS_AES_128_GCM_SHA256"
	Verified bool   // the certificate is valid for the host
	Problem  string // why it is not; empty when Verified
	Err      error  // the same, as an *x509 error or that of Options.Verify
	Subject  string
	Issuer   string
}

// ErrNoTLS says that a peer has no TLS where it must have it.
var ErrNoTLS = errors.New("the receiver does not offer STARTTLS, which is required here")

// startTLS says STARTTLS (RFC 3207) where it is offered, and EHLO once more after
// it.
func (c *Conn) startTLS() *Error {
	required := c.opt.TLS == Required
	if !c.ext.StartTLS {
		if required {
			return &Error{Stage: StageTLS, Err: ErrNoTLS}
		}
		return nil
	}
	r, err := c.command(StageTLS, "STARTTLS", maxReply)
	if err != nil {
		return err
	}
	switch {
	case r.Code == 220:
	case r.Positive() || required:
		return refused(StageTLS, r)
	default: // offered, yet refused: plain text is better than no mail
		return nil
	}
	// Whoever is in the middle may add replies in plain text that we would take
	// for the peer's, inside TLS.
	if c.br.Buffered() > 0 {
		return &Error{Stage: StageTLS, Err: errors.New("the receiver sent more in plain text after its reply to STARTTLS: somebody may be tampering with the connection")}
	}
	if err := c.handshake(); err != nil {
		return err
	}
	return c.hello()
}

// handshake turns the connection into TLS. Certificates are judged after it, so
// that opportunistic TLS can go on with a bad one and tell what is wrong with it.
func (c *Conn) handshake() *Error {
	cfg := new(tls.Config)
	if c.opt.TLSConfig != nil {
		cfg = c.opt.TLSConfig.Clone()
	}
	if cfg.ServerName == "" {
		cfg.ServerName = c.host
	}
	lax := cfg.InsecureSkipVerify
	cfg.InsecureSkipVerify = true
	tc := tls.Client(c.raw, cfg)
	c.raw.SetWriteDeadline(time.Now().Add(c.opt.Timeouts.Command))
	c.armRead(c.opt.Timeouts.Command)
	if err := tc.Handshake(); err != nil {
		return &Error{Stage: StageTLS, Err: fmt.Errorf("TLS handshake: %w", err)}
	}
	c.conn = tc
	c.br.Reset(tc)
	c.tls = inspect(tc.ConnectionState(), cfg)
	if c.opt.Verify != nil {
		c.tls.Verified, c.tls.Problem = true, ""
		if c.tls.Err = c.opt.Verify(tc.ConnectionState()); c.tls.Err != nil {
			c.tls.Verified, c.tls.Problem = false, bounded(c.tls.Err.Error())
		}
	}
	if c.opt.Watch != nil {
		c.opt.Watch(Step{TLS: c.tls})
	}
	if !c.tls.Verified && !lax && c.opt.TLS != Opportunistic {
		return &Error{Stage: StageTLS, Err: &certError{c.tls.Problem, c.tls.Err}}
	}
	return nil
}

// certError is a certificate that is not what it must be.
type certError struct {
	problem string
	err     error
}

func (e *certError) Error() string {
	return e.problem + ", and a certificate that verifies is required here"
}
func (e *certError) Unwrap() error { return e.err }

// Distrusted tells whether a session ended because the peer's certificate is not
// what it must be.
func Distrusted(err error) bool {
	var e *certError
	return errors.As(err, &e)
}

// inspect verifies the peer's certificate for the name in cfg (RFC 5280, RFC
// 9525) and tells the state in words.
func inspect(cs tls.ConnectionState, cfg *tls.Config) *TLSState {
	s := &TLSState{
		Version: strings.ReplaceAll(tls.VersionName(cs.Version), " ", ""),
		Cipher:  tls.CipherSuiteName(cs.CipherSuite),
	}
	if len(cs.PeerCertificates) == 0 {
		s.Problem = "the receiver has no certificate"
		s.Err = errors.New(s.Problem)
		return s
	}
	leaf := cs.PeerCertificates[0]
	s.Subject, s.Issuer = bounded(leaf.Subject.String()), bounded(leaf.Issuer.String())
	o := x509.VerifyOptions{Roots: cfg.RootCAs, DNSName: cfg.ServerName, Intermediates: x509.NewCertPool()}
	if cfg.Time != nil {
		o.CurrentTime = cfg.Time()
	}
	for _, cert := range cs.PeerCertificates[1:] {
		o.Intermediates.AddCert(cert)
	}
	if _, err := leaf.Verify(o); err != nil {
		s.Problem, s.Err = problem(leaf, cfg.ServerName, err), err
		return s
	}
	s.Verified = true
	return s
}

// problem says in words why a certificate does not verify.
func problem(leaf *x509.Certificate, host string, err error) string {
	var (
		invalid  x509.CertificateInvalidError
		hostname x509.HostnameError
		unknown  x509.UnknownAuthorityError
	)
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Sprintf("the certificate is valid only from %s to %s", leaf.NotBefore.UTC().Format(time.DateOnly), leaf.NotAfter.UTC().Format(time.DateOnly))
	case errors.As(err, &hostname):
		names := strings.Join(leaf.DNSNames, ", ")
		if names == "" {
			names = "no name"
		}
		return bounded(fmt.Sprintf("the certificate is for %s, not for %s", names, host))
	case errors.As(err, &unknown) && leaf.Subject.String() == leaf.Issuer.String():
		return "the certificate is self-signed"
	case errors.As(err, &unknown):
		return "the certificate comes from an authority that is not known here"
	}
	return bounded("the certificate does not verify: " + strings.TrimPrefix(err.Error(), "x509: "))
}

// bounded keeps what comes out of a certificate short and printable.
func bounded(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "…"
	}
	return s
}
