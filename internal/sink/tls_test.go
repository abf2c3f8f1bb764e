package sink

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	gosmtp "net/smtp"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestCertificates has Go's own client judge each kind.
func TestCertificates(t *testing.T) {
	ca, err := NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	trusts := &tls.Config{ServerName: "mx.sink.test", RootCAs: ca.Pool()}
	for _, c := range []struct {
		kind CertKind
		want func(error) bool
	}{
		{Good, func(err error) bool { return err == nil }},
		{SelfSigned, func(err error) bool { return errors.As(err, new(x509.UnknownAuthorityError)) }},
		{WrongName, func(err error) bool { return errors.As(err, new(x509.HostnameError)) }},
		{Expired, func(err error) bool {
			var e x509.CertificateInvalidError
			return errors.As(err, &e) && e.Reason == x509.Expired
		}},
	} {
		for _, implicit := range []bool{false, true} {
			cfg := Config{Hostname: "mx.sink.test", Authority: ca, Certificate: c.kind, Keep: 1}
			if implicit {
				cfg.ListenTLS = []string{"127.0.0.1:0"}
			}
			s := start(t, cfg)
			if err := sendTLS(s.Addr(), implicit, trusts); !c.want(err) {
				t.Errorf("%s, verified: %v", c.kind, err)
			}
			// Who does not verify gets through.
			if err := sendTLS(s.Addr(), implicit, &tls.Config{InsecureSkipVerify: true}); err != nil {
				t.Errorf("%s, not verified: %v", c.kind, err)
			}
			if m := s.Messages(); len(m) != 1 || !strings.HasPrefix(m[0].TLS, "TLS 1.3 TLS_") || string(m[0].Content) != "hi\r\n" {
				t.Errorf("%s: messages %+v", c.kind, m)
			}
		}
	}
}

// sendTLS sends a message with net/smtp.
func sendTLS(addr string, implicit bool, conf *tls.Config) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if implicit {
		tc := tls.Client(conn, conf)
		if err := tc.Handshake(); err != nil {
			return err
		}
		conn = tc
	}
	c, err := gosmtp.NewClient(conn, "sink")
	if err != nil {
		return err
	}
	if !implicit {
		if err := c.StartTLS(conf); err != nil {
			return err
		}
	}
	if err := errors.Join(c.Mail("a@b.test"), c.Rcpt("x@x.test")); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte("hi\r\n")); err != nil {
		return err
	}
	return errors.Join(w.Close(), c.Quit())
}

func TestTLSFaults(t *testing.T) {
	for _, c := range []struct {
		fault TLSFault
		want  string
	}{
		{TLSRefused, "454"},
		{TLSClosed, "EOF|reset by peer|broken pipe"}, // by whether the handshake had begun
		{TLSGarbage, "first record does not look like a TLS handshake"},
		{TLSSilent, "timeout"},
		{TLSOldVersion, "protocol version"},
	} {
		s := start(t, Config{TLSFault: c.fault})
		d := greet(t, s.Addr())
		d.send("STARTTLS\r\n")
		if c.fault == TLSRefused {
			d.expect("454 4.7.0")
			d.send("MAIL FROM:<a@b.test>\r\n") // and in the clear
			d.expect("250")
			continue
		}
		d.expect("220")
		if c.fault == TLSSilent {
			d.conn.SetDeadline(time.Now().Add(50 * time.Millisecond))
		}
		err := tls.Client(d.conn, &tls.Config{InsecureSkipVerify: true}).Handshake()
		if err == nil || !regexp.MustCompile(c.want).MatchString(err.Error()) {
			t.Errorf("%s: %v", c.fault, err)
		}
		if n := s.Stats().TLS; n != 0 {
			t.Errorf("%s: %d handshakes", c.fault, n)
		}
	}
}

// TestInjection wants what was said before TLS to be forgotten (RFC 3207
// section 6).
func TestInjection(t *testing.T) {
	s := start(t, Config{})
	d := greet(t, s.Addr())
	d.send("STARTTLS\r\nNOOP\r\n")
	d.expect("220")
	conn := tls.Client(d.conn, &tls.Config{InsecureSkipVerify: true})
	// The injected line stands before the handshake, so either it is taken for
	// one, which fails, or it is dropped; it is never obeyed.
	if err := conn.Handshake(); err != nil {
		return
	}
	d.conn, d.br = conn, bufio.NewReader(conn)
	d.send("RCPT TO:<x@x.test>\r\n")
	d.expect("503")
}

func TestAfterSTARTTLS(t *testing.T) {
	s := start(t, Config{})
	d := greet(t, s.Addr())
	d.send("MAIL FROM:<a@b.test>\r\nSTARTTLS\r\n")
	d.expect("250")
	d.expect("220")
	conn := tls.Client(d.conn, &tls.Config{InsecureSkipVerify: true})
	d.conn, d.br = conn, bufio.NewReader(conn)
	d.send("MAIL FROM:<a@b.test>\r\n")
	d.expect("503 5.5.1") // EHLO first
	d.send("EHLO again\r\n")
	if r := d.expect("250"); strings.Contains(r.Text(), "STARTTLS") || !strings.Contains(r.Text(), "REQUIRETLS") {
		t.Errorf("EHLO over TLS: %q", r)
	}
	d.send("STARTTLS\r\nMAIL FROM:<a@b.test> REQUIRETLS\r\n")
	d.expect("503")
	d.expect("250")
}

func TestParseNames(t *testing.T) {
	for _, c := range []struct {
		parse func(string) error
		good  string
		bad   string
	}{
		{func(s string) error { _, err := ParseCertKind(s); return err }, "expired", "stale"},
		{func(s string) error { _, err := ParseTLSFault(s); return err }, "garbage", "broken"},
		{func(s string) error { _, err := ParseVoice(s); return err }, "Gmail", "hotmail"},
		{func(s string) error { _, err := ParseExtensions(s); return err }, "pipelining, SIZE", "XCLIENT"},
	} {
		if err := c.parse(c.good); err != nil {
			t.Errorf("%q: %v", c.good, err)
		}
		if err := c.parse(c.bad); err == nil || !strings.Contains(err.Error(), c.bad) {
			t.Errorf("%q: %v", c.bad, err)
		}
	}
}
