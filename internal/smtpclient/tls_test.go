package smtpclient

import (
	"crypto/tls"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// secured is the part of a script that offers STARTTLS and does it with cert.
func (p *peer) secured(cert tls.Certificate) bool {
	p.hello("STARTTLS", "X-BEFORE", "SIZE 5")
	if !p.hear("STARTTLS") {
		return false
	}
	p.say("220 go")
	if err := p.wrap(cert); err != nil {
		return false
	}
	return true
}

func TestSTARTTLS(t *testing.T) {
	ca := newPKI(t)
	soon := time.Now().Add(time.Hour)
	tests := map[string]struct {
		cert    tls.Certificate
		problem string // "": verifies
	}{
		"good":        {ca.good(), ""},
		"self-signed": {ca.leaf("mx.test", true, soon), "self-signed"},
		"expired":     {ca.leaf("mx.test", false, time.Now().Add(-time.Hour)), "valid only from"},
		"wrong name":  {ca.leaf("other.test", false, soon), "is for other.test, not for mx.test"},
		"unknown CA":  {newPKI(t).good(), "authority that is not known"},
	}
	for name, tt := range tests {
		for _, mode := range []TLSMode{Opportunistic, Required, Implicit} {
			t.Run(name, func(t *testing.T) {
				conn := serve(t, func(p *peer) {
					if mode == Implicit {
						if p.wrap(tt.cert) == nil {
							p.say("220 mx.test")
						}
					} else if !p.secured(tt.cert) {
						return
					}
					if mode != Opportunistic && tt.problem != "" {
						p.gone()
						return
					}
					p.hear("EHLO me.test")
					p.offer("8BITMIME")
					run("C: MAIL FROM:<a@me.test>\nS: 250 ok\nC: RCPT*\nS: 250 ok\nC: DATA\nS: 354 go\nD: x|\nS: 250 ok\nG:")(p)
				})
				cfg := &tls.Config{RootCAs: ca.roots}
				c, err := New(t.Context(), conn, "mx.test.", Options{LocalName: "me.test", TLS: mode, TLSConfig: cfg})
				if cfg.InsecureSkipVerify || cfg.ServerName != "" {
					t.Error("the caller's configuration was changed")
				}
				if mode != Opportunistic && tt.problem != "" {
					if e := asError(t, err); e.Stage != StageTLS || e.Permanent() || !strings.Contains(e.Error(), tt.problem) {
						t.Errorf("got %v at %s", e, e.Stage)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				s := c.TLS()
				if s == nil || s.Version != "TLS1.3" || !strings.HasPrefix(s.Cipher, "TLS_") || s.Subject == "" || s.Issuer == "" {
					t.Fatalf("state is %+v", s)
				}
				if s.Verified != (tt.problem == "") || !strings.Contains(s.Problem, tt.problem) {
					t.Errorf("verified is %v, problem %q", s.Verified, s.Problem)
				}
				// What was offered before TLS must be forgotten (RFC 3207 section 4.2).
				if e := c.Extensions(); !e.EightBitMIME || e.HasSize || e.StartTLS {
					t.Errorf("extensions are %+v", e)
				}
				if _, err := c.Send(t.Context(), mail("x", "b@mx.test")); err != nil {
					t.Error(err)
				}
				if !c.Usable() {
					t.Error("not usable after a message over TLS")
				}
			})
		}
	}
}

func TestSTARTTLSTrouble(t *testing.T) {
	tests := map[string]struct {
		script func(*peer)
		mode   TLSMode
		stage  string // "": goes on in plain text
		code   int
	}{
		"not offered":           {func(p *peer) { p.hello(); p.gone() }, Opportunistic, "", 0},
		"not offered, required": {func(p *peer) { p.hello(); p.gone() }, Required, StageTLS, 0},
		"never":                 {func(p *peer) { p.hello("STARTTLS"); p.gone() }, Never, "", 0},
		"refused":               {func(p *peer) { p.hello("STARTTLS"); run("C: STARTTLS\nS: 454 no certificate\nG:")(p) }, Opportunistic, "", 0},
		"refused, required":     {func(p *peer) { p.hello("STARTTLS"); run("C: STARTTLS\nS: 454 no\nC: QUIT\nG:")(p) }, Required, StageTLS, 454},
		"421":                   {func(p *peer) { p.hello("STARTTLS"); run("C: STARTTLS\nS: 421 bye\nG:")(p) }, Opportunistic, StageTLS, 421},
		"250":                   {func(p *peer) { p.hello("STARTTLS"); run("C: STARTTLS\nS: 250 what\nG:")(p) }, Opportunistic, StageTLS, 0},
		"closed":                {func(p *peer) { p.hello("STARTTLS"); run("C: STARTTLS\nS: 220 go")(p) }, Opportunistic, StageTLS, 0},
		"no handshake": {func(p *peer) {
			p.hello("STARTTLS")
			run("C: STARTTLS\nS: 220 go")(p)
			io.ReadFull(p.br, make([]byte, 5))
			p.say("500 what is this?")
		}, Opportunistic, StageTLS, 0},
		"injected": {func(p *peer) {
			p.hello("STARTTLS")
			run("C: STARTTLS\nE: 220 go|250-mx.test|250 AUTH PLAIN")(p)
			io.Copy(io.Discard, p.br)
		}, Opportunistic, StageTLS, 0},
		"plain on an implicit port": {func(p *peer) { p.say("220 mx.test"); io.Copy(io.Discard, p.br) }, Implicit, StageTLS, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := New(t.Context(), serve(t, tt.script), "mx.test", Options{LocalName: "me.test", TLS: tt.mode})
			if tt.stage == "" {
				if err != nil {
					t.Fatal(err)
				}
				if c.TLS() != nil {
					t.Error("there is TLS")
				}
				c.Close()
				return
			}
			e := asError(t, err)
			if e.Stage != tt.stage || (e.Reply == nil) != (tt.code == 0) || e.Reply != nil && e.Reply.Code != tt.code || e.Permanent() {
				t.Errorf("got %v at %s", e, e.Stage)
			}
			if name == "injected" && !strings.Contains(e.Error(), "tampering") {
				t.Errorf("got %v", e)
			}
		})
	}
}

// TestOldTLS has a peer that speaks TLS 1.0 only.
func TestOldTLS(t *testing.T) {
	cert := newPKI(t).good()
	_, err := New(t.Context(), serve(t, func(p *peer) {
		p.hello("STARTTLS")
		p.hear("STARTTLS")
		p.say("220 go")
		if tls.Server(p.conn, &tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: tls.VersionTLS10, MinVersion: tls.VersionTLS10}).Handshake() == nil {
			t.Error("TLS 1.0 was agreed")
		}
	}), "mx.test", Options{LocalName: "me.test"})
	if e := asError(t, err); e.Stage != StageTLS {
		t.Errorf("got %v at %s", e, e.Stage)
	}
}

// TestAnyCertificate skips verification by the caller's wish; the state still
// tells the truth.
func TestAnyCertificate(t *testing.T) {
	cert := newPKI(t).good()
	c, err := New(t.Context(), serve(t, func(p *peer) { p.secured(cert); p.hear("EHLO*"); p.offer(); p.gone() }), "mx.test",
		Options{LocalName: "me.test", TLS: Required, TLSConfig: &tls.Config{InsecureSkipVerify: true}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.TLS().Verified || c.TLS().Problem == "" {
		t.Errorf("state is %+v", c.TLS())
	}
}

// TestOwnVerdict has the caller judge certificates, as DANE does: what it says
// counts, and nothing else does.
func TestOwnVerdict(t *testing.T) {
	ca := newPKI(t)
	wrong := errors.New("not the one")
	for name, tt := range map[string]struct {
		cert    tls.Certificate
		verdict error
	}{
		"bad one accepted": {newPKI(t).leaf("other.test", true, time.Now().Add(-time.Hour)), nil},
		"good one refused": {ca.good(), wrong},
	} {
		for _, mode := range []TLSMode{Opportunistic, Required} {
			c, err := New(t.Context(), serve(t, func(p *peer) {
				p.secured(tt.cert)
				if mode == Opportunistic || tt.verdict == nil {
					p.hear("EHLO*")
					p.offer()
				}
				p.gone()
			}), "mx.test", Options{LocalName: "me.test", TLS: mode, TLSConfig: &tls.Config{RootCAs: ca.roots},
				Verify: func(cs tls.ConnectionState) error {
					if len(cs.PeerCertificates) == 0 {
						t.Error("no certificate to judge")
					}
					return tt.verdict
				}})
			if mode == Required && tt.verdict != nil {
				if e := asError(t, err); !errors.Is(e.Err, wrong) || !Distrusted(e.Err) || !strings.Contains(e.Error(), "not the one") {
					t.Errorf("%s: %v", name, e)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if s := c.TLS(); s.Verified != (tt.verdict == nil) || !errors.Is(s.Err, tt.verdict) {
				t.Errorf("%s: state is %+v", name, s)
			}
			c.Close()
		}
	}
}

func TestRequireTLS(t *testing.T) {
	ca := newPKI(t)
	tests := map[string]struct {
		cert   tls.Certificate
		ext    string
		refuse string
	}{
		"offered":     {ca.good(), "REQUIRETLS", ""},
		"not offered": {ca.good(), "DSN", "does not offer"},
		"unverified":  {ca.leaf("other.test", false, time.Now().Add(time.Hour)), "REQUIRETLS", "does not verify"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := New(t.Context(), serve(t, func(p *peer) {
				p.secured(tt.cert)
				p.hear("EHLO*")
				p.offer(tt.ext)
				if tt.refuse == "" {
					run("C: MAIL FROM:<a@me.test> REQUIRETLS\nS: 250 ok\nC: RCPT*\nS: 250 ok\nC: DATA\nS: 354 go\nD: x|\nS: 250 ok")(p)
				}
				p.gone()
			}), "mx.test", Options{LocalName: "me.test", TLSConfig: &tls.Config{RootCAs: ca.roots}})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			m := mail("x", "b@mx.test")
			m.RequireTLS = true
			_, err = c.Send(t.Context(), m)
			if tt.refuse == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if e := asError(t, err); !e.Permanent() || !strings.Contains(e.Error(), "5.7.30") || !strings.Contains(e.Error(), tt.refuse) || !c.Usable() {
				t.Errorf("got %v", e)
			}
		})
	}
}

// TestTruncated has a TLS peer whose connection is cut after the content,
// without close_notify.
func TestTruncated(t *testing.T) {
	cert := newPKI(t).good()
	c, err := New(t.Context(), serve(t, func(p *peer) {
		raw := p.conn
		p.secured(cert)
		p.hear("EHLO*")
		p.offer()
		run("C: MAIL*\nS: 250 ok\nC: RCPT*\nS: 250 ok\nC: DATA\nS: 354 go\nD: x|")(p)
		raw.Close()
	}), "mx.test", Options{LocalName: "me.test"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Send(t.Context(), mail("x", "b@mx.test"))
	if e := asError(t, err); !e.Unknown || !errors.Is(err, errClosed) {
		t.Errorf("got %v, unknown %v", e, e.Unknown)
	}
}
