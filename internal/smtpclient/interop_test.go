package smtpclient

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-sasl"
	gosmtp "github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"
)

// inbox is a server by other hands, with what it took.
type inbox struct {
	mu   sync.Mutex
	got  []received
	auth []string
}

type received struct {
	From    string
	To      []string
	Content string
	Opts    gosmtp.MailOptions
}

func (b *inbox) NewSession(*gosmtp.Conn) (gosmtp.Session, error) { return &inboxSession{b: b}, nil }

type inboxSession struct {
	b   *inbox
	cur received
}

func (s *inboxSession) Reset()        { s.cur = received{} }
func (s *inboxSession) Logout() error { return nil }
func (s *inboxSession) Mail(from string, o *gosmtp.MailOptions) error {
	s.cur = received{From: from, Opts: *o}
	return nil
}

func (s *inboxSession) Rcpt(to string, o *gosmtp.RcptOptions) error {
	if strings.HasPrefix(to, "nobody@") {
		return &gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 1, 1}, Message: "No such user"}
	}
	s.cur.To = append(s.cur.To, to)
	return nil
}

func (s *inboxSession) Data(r io.Reader) error {
	c, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.cur.Content = string(c)
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.b.got = append(s.b.got, s.cur)
	return nil
}

func (s *inboxSession) AuthMechanisms() []string { return []string{sasl.Plain, sasl.Login} }
func (s *inboxSession) Auth(mech string) (sasl.Server, error) {
	check := func(u, p string) error {
		if u != user || p != password {
			return errors.New("wrong")
		}
		s.b.mu.Lock()
		defer s.b.mu.Unlock()
		s.b.auth = append(s.b.auth, mech)
		return nil
	}
	if mech == sasl.Plain {
		return sasl.NewPlainServer(func(_, u, p string) error { return check(u, p) }), nil
	}
	return nil, gosmtp.ErrAuthUnknownMechanism
}

func (b *inbox) listen(t *testing.T, cert tls.Certificate) string {
	s := gosmtp.NewServer(b)
	s.Domain = "mx.test"
	s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.EnableSMTPUTF8, s.EnableDSN, s.EnableREQUIRETLS = true, true, true
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { s.Serve(ln); close(done) }()
	t.Cleanup(func() { s.Close(); <-done })
	return ln.Addr().String()
}

// TestGoSMTP sends to emersion/go-smtp, over TLS and with AUTH.
func TestGoSMTP(t *testing.T) {
	ca := newPKI(t)
	contents := map[string]string{
		"small": "Subject: hi\r\n\r\n.dots\r\n..\r\n.\r\nend\r\n",
		"8-bit": "Subject: hi\r\n\r\nGrüße\r\n",
		"big":   "Subject: big\r\n\r\n" + strings.Repeat(strings.Repeat("y", 76)+"\r\n", 20000),
		"empty": "",
	}
	b := new(inbox)
	conn, err := net.Dial("tcp", b.listen(t, ca.good()))
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(t.Context(), conn, "mx.test", Options{LocalName: "me.test", TLS: Required,
		TLSConfig: &tls.Config{RootCAs: ca.roots}, Auth: &Auth{User: user, Password: password}})
	if err != nil {
		t.Fatal(err)
	}
	if e := c.Extensions(); !e.Pipelining || !e.Chunking || !e.DSN || !e.RequireTLS || !c.TLS().Verified || len(b.auth) != 1 {
		t.Errorf("%+v, %+v, %v", e, c.TLS(), b.auth)
	}
	for name, content := range contents {
		m := mail(content, "b@mx.test", "nobody@mx.test", "jörg@mx.test")
		m.UTF8, m.EightBit, m.RequireTLS, m.EnvID, m.Ret = true, true, true, "id+1", "FULL"
		res, err := c.Send(t.Context(), m)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := b.got[len(b.got)-1]
		if d := cmp.Diff([]string{"b@mx.test", "jörg@mx.test"}, got.To); d != "" || got.From != "a@me.test" || got.Content != content {
			t.Errorf("%s: %s, content of %d bytes, want %d", name, d, len(got.Content), len(content))
		}
		if o := got.Opts; !o.UTF8 || !o.RequireTLS || o.EnvelopeID != "id+1" || o.Body != gosmtp.Body8BitMIME {
			t.Errorf("%s: options %+v", name, o)
		}
		if res.Rcpts[1].Code != 550 || res.Rcpts[1].Enhanced != "5.1.1" {
			t.Errorf("%s: refused with %v", name, res.Rcpts[1])
		}
		// All refused, and the content of an attacker must be nobody's command.
		n := len(b.got)
		m = mail("MAIL FROM:<evil@x.test>\r\nRCPT TO:<b@mx.test>\r\nDATA\r\nevil\r\n", "nobody@mx.test")
		_, err = c.Send(t.Context(), m)
		if e := asError(t, err); e.Stage != StageRcpt || !c.Usable() || len(b.got) != n {
			t.Errorf("%s: got %v, usable %v, %d messages more", name, e, c.Usable(), len(b.got)-n)
		}
	}
	c.Quit(t.Context())
}
