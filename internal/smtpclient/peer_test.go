package smtpclient

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// peer is a server that does as its script says, over a real socket.
type peer struct {
	t    *testing.T
	conn net.Conn
	br   *bufio.Reader
	got  []string // what the client sent, by line
}

// patience bounds each wait of a peer: a client that says too little fails the
// test instead of hanging it.
const patience = 30 * time.Second

// serve listens on loopback, gives the first connection to the script, and
// returns the client's end. The connection is closed after the script.
func serve(t *testing.T, script func(*peer)) net.Conn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done, dialled := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		defer ln.Close()
		conn, err := ln.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		p := &peer{t: t, conn: conn, br: bufio.NewReader(conn)}
		defer func() { p.conn.Close() }()
		conn.SetDeadline(time.Now().Add(patience))
		<-dialled // or a reset could meet the dial
		script(p)
	}()
	client, err := net.Dial("tcp", ln.Addr().String())
	close(dialled)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		<-done
	})
	return client
}

// say sends the lines as they are, each with CRLF.
func (p *peer) say(lines ...string) {
	io.WriteString(p.conn, strings.Join(lines, "\r\n")+"\r\n")
}

// hear reads one line for each that is wanted. "DATA…" lines and the like must
// match whole; a want that ends in * matches its start.
func (p *peer) hear(want ...string) bool {
	for _, w := range want {
		line, err := p.br.ReadString('\n')
		if err != nil {
			p.t.Errorf("peer waits for %q: %v", w, err)
			return false
		}
		line = strings.TrimSuffix(line, "\r\n")
		p.got = append(p.got, line)
		if start, ok := strings.CutSuffix(w, "*"); ok && strings.HasPrefix(line, start) {
			continue
		}
		if line != w {
			p.t.Errorf("peer heard %q, wants %q", line, w)
			return false
		}
	}
	return true
}

// alone checks that the client waits: nothing came after what was heard.
func (p *peer) alone() {
	if n := p.br.Buffered(); n > 0 {
		b, _ := p.br.Peek(n)
		p.t.Errorf("the client did not wait: %q", b)
	}
}

// content reads to the lone dot and undoes the stuffing.
func (p *peer) content() string {
	var b strings.Builder
	for {
		line, err := p.br.ReadString('\n')
		if err != nil {
			p.t.Errorf("peer reads content: %v", err)
			return b.String()
		}
		if line == ".\r\n" {
			return b.String()
		}
		b.WriteString(strings.TrimPrefix(line, "."))
	}
}

// chunk reads the command BDAT and its chunk.
func (p *peer) chunk() (data string, last bool) {
	line, err := p.br.ReadString('\n')
	words := strings.Fields(line)
	if err != nil || len(words) < 2 || words[0] != "BDAT" {
		p.t.Errorf("peer heard %q (%v), wants BDAT", line, err)
		return "", true
	}
	n, _ := strconv.Atoi(words[1])
	b := make([]byte, n)
	if _, err := io.ReadFull(p.br, b); err != nil {
		p.t.Errorf("peer reads chunk: %v", err)
	}
	return string(b), len(words) == 3
}

// gone waits until the client has closed.
func (p *peer) gone() {
	rest, err := io.ReadAll(p.br)
	if len(rest) > 0 {
		p.t.Errorf("the client said %q, wants nothing more", rest)
	}
	if err != nil && !isReset(err) {
		p.t.Errorf("peer waits for the end: %v", err)
	}
}

func isReset(err error) bool { return strings.Contains(err.Error(), "reset") }

// hello does the opening without TLS.
func (p *peer) hello(extensions ...string) {
	p.say("220 mx.test ESMTP")
	p.hear("EHLO me.test")
	p.offer(extensions...)
}

func (p *peer) offer(extensions ...string) {
	lines := append([]string{"mx.test"}, extensions...)
	for i := range lines {
		sep := "-"
		if i == len(lines)-1 {
			sep = " "
		}
		lines[i] = "250" + sep + lines[i]
	}
	p.say(lines...)
}

// wrap turns the peer's end into TLS.
func (p *peer) wrap(cert tls.Certificate) error {
	tc := tls.Server(p.conn, &tls.Config{Certificates: []tls.Certificate{cert}})
	err := tc.Handshake()
	p.conn, p.br = tc, bufio.NewReader(tc)
	return err
}

// run plays a script in text. Its lines: "S: …" is said, "E: …|…" in one packet, "C: …" is heard, "W:"
// checks that the client waits, "D:" hears content, "B:" a chunk, "G:" waits for
// the client to close, "X:" closes by a reset.
func run(script string) func(*peer) {
	return func(p *peer) {
		for line := range strings.Lines(script) {
			op, arg, _ := strings.Cut(strings.TrimSpace(line), ":")
			arg = strings.TrimPrefix(arg, " ")
			switch op {
			case "":
			case "S":
				p.say(arg)
			case "E": // many lines in one packet
				p.say(strings.Split(arg, "|")...)
			case "C":
				if !p.hear(arg) {
					return
				}
			case "W":
				p.alone()
			case "D":
				if got := p.content(); got != strings.ReplaceAll(arg, "|", "\r\n") {
					p.t.Errorf("content %q, wants %q", got, arg)
				}
			case "B":
				if got, _ := p.chunk(); got != strings.ReplaceAll(arg, "|", "\r\n") {
					p.t.Errorf("chunk %q, wants %q", got, arg)
				}
			case "G":
				p.gone()
			case "X":
				p.conn.(*net.TCPConn).SetLinger(0)
				return
			default:
				p.t.Errorf("bad script line %q", line)
			}
		}
	}
}

var plain = Options{LocalName: "me.test"}

// mail is a message with the content given.
func mail(content string, rcpts ...string) Mail {
	m := Mail{From: "a@me.test", Size: int64(len(content)), Open: opens(content)}
	for _, r := range rcpts {
		m.Rcpts = append(m.Rcpts, Rcpt{Addr: r})
	}
	return m
}

func opens(content string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil }
}

func asError(t *testing.T, err error) *Error {
	t.Helper()
	e := (*Error)(nil)
	if !errors.As(err, &e) {
		t.Fatalf("error is %v, want an *Error", err)
	}
	return e
}

// pki makes certificates.
type pki struct {
	t     *testing.T
	key   *ecdsa.PrivateKey
	ca    *x509.Certificate
	roots *x509.CertPool
}

func newPKI(t *testing.T) *pki {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := &pki{t: t, key: key, roots: x509.NewCertPool()}
	p.ca = &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, p.ca, p.ca, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	p.roots.AddCert(ca)
	return p
}

func (p *pki) leaf(name string, selfSigned bool, ends time.Time) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: ends}
	parent, signer := p.ca, p.key
	if selfSigned {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		p.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// good is a certificate that verifies for mx.test.
func (p *pki) good() tls.Certificate { return p.leaf("mx.test", false, time.Now().Add(time.Hour)) }

func newReader(conn net.Conn) *bufio.Reader { return bufio.NewReader(conn) }
