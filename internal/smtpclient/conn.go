package smtpclient

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"postrider/internal/smtp"
)

// TLSMode says what TLS a session must have.
type TLSMode uint8

const (
	// Opportunistic takes TLS when it is offered, whatever the certificate (RFC
	// 7435). A handshake that fails is an error at StageTLS: the caller may come
	// back with Never.
	Opportunistic TLSMode = iota
	// Never stays in plain text.
	Never
	// Required wants STARTTLS and a certificate that verifies.
	Required
	// Implicit wants TLS from the first byte (RFC 8314) and a certificate that
	// verifies.
	Implicit
)

// Auth is a user at a smart host.
type Auth struct {
	User, Password string
	// Unprotected sends the password to a peer without TLS, or whose certificate
	// does not verify. For tests on loopback.
	Unprotected bool
}

// Timeouts bound each step. Zero is the default, from RFC 5321 section 4.5.3.2.
type Timeouts struct {
	Greeting  time.Duration // until the greeting: 5 minutes
	Command   time.Duration // for the whole reply to a command, or the TLS handshake: 5 minutes
	DataStall time.Duration // for the peer to take a few kB that we send: 3 minutes
	Dot       time.Duration // for the reply to the content: 10 minutes
}

// Options are the settings of a session.
type Options struct {
	LocalName string // what we call ourselves in EHLO
	TLS       TLSMode
	// TLSConfig may be nil. Its RootCAs and Time serve to verify. With its
	// InsecureSkipVerify, Required and Implicit take any certificate; the state
	// still tells the truth. It is not changed.
	TLSConfig *tls.Config
	// Verify, where it is set, judges the peer's certificate in place of the usual
	// rules, as DANE does. Its error is for people.
	Verify   func(tls.ConnectionState) error
	Auth     *Auth // nil: no AUTH
	Timeouts Timeouts
	// Watch is told of each step as it happens, and does not wait; nil: nobody is.
	Watch func(Step)
}

// Step is one thing that has just happened in a session: a command that was sent,
// as a dialogue shows it, a reply that came, or TLS that was agreed.
type Step struct {
	Command string
	Reply   *smtp.Reply
	TLS     *TLSState
}

func (c *Conn) sent(command string) {
	if c.opt.Watch != nil && command != "" {
		c.opt.Watch(Step{Command: command})
	}
}

func (c *Conn) came(r smtp.Reply) {
	if c.opt.Watch != nil && r.Code != 0 {
		c.opt.Watch(Step{Reply: &r})
	}
}

// Bounds on what a peer may make us keep.
const (
	maxReply     = 8 << 10
	maxEhloReply = 32 << 10
)

const (
	quitTimeout = 2 * time.Second
	// lastWords is how long a peer that stopped taking what we send has for
	// saying why.
	lastWords = 2 * time.Second
	// farewellTimeout bounds a QUIT whose reply nobody waits for.
	farewellTimeout = time.Second
)

// past is a deadline that is over.
var past = time.Unix(1, 0)

// Conn is a session with a peer. It is used by one goroutine at a time.
type Conn struct {
	raw  net.Conn // what the caller gave; deadlines are set here
	conn net.Conn // raw, or TLS over it
	host string
	opt  Options
	br   *bufio.Reader
	bw   *bufio.Writer

	ext     Extensions
	tls     *TLSState
	opening []Exchange
	mails   int  // transactions begun
	dirty   bool // the last transaction failed: RSET comes first
	broken  bool // nothing more can be said

	// stopped: the context ended. answered: the peer answered while we were still
	// sending. Both are set before a deadline is moved to the past, and read after
	// one is set anew, so that no interruption is lost.
	stopped, answered atomic.Bool
	stop              func() // set stopped; kept to spare an allocation

	// Kept from one transaction to the next.
	dot   smtp.DotWriter
	lines []byte
	steps []step
	chunk []byte
	buf   []byte
	out   target
}

// New opens a session over conn with the server that host names: greeting, EHLO,
// STARTTLS, AUTH. An error is an *Error, and conn is closed then.
func New(ctx context.Context, conn net.Conn, host string, o Options) (*Conn, error) {
	c := &Conn{raw: conn, conn: conn, host: strings.TrimSuffix(host, "."), opt: o}
	setDefault(&c.opt.Timeouts.Greeting, 5*time.Minute)
	setDefault(&c.opt.Timeouts.Command, 5*time.Minute)
	setDefault(&c.opt.Timeouts.DataStall, 3*time.Minute)
	setDefault(&c.opt.Timeouts.Dot, 10*time.Minute)
	c.stop = func() {
		c.stopped.Store(true)
		c.raw.SetDeadline(past)
	}
	c.br = bufio.NewReaderSize(conn, 4<<10)
	c.bw = bufio.NewWriterSize(writer{c}, 16<<10)

	release := context.AfterFunc(ctx, c.stop)
	err := c.open()
	if err == nil && !release() {
		err = &Error{Stage: StageEhlo}
	}
	if err != nil {
		release()
		c.farewell(err)
		err.Dialogue = c.opening
		return nil, c.explain(ctx, err)
	}
	return c, nil
}

func setDefault(d *time.Duration, v time.Duration) {
	if *d <= 0 {
		*d = v
	}
}

func (c *Conn) open() *Error {
	if !safeWord(c.opt.LocalName) {
		return &Error{Stage: StageEhlo, Err: fmt.Errorf("%q cannot be said in EHLO", c.opt.LocalName)}
	}
	if c.opt.TLS == Implicit {
		if err := c.handshake(); err != nil {
			return err
		}
	}
	r, err := c.readReply(c.opt.Timeouts.Greeting, maxReply)
	if err != nil {
		return &Error{Stage: StageGreeting, Err: err}
	}
	c.opening = append(c.opening, Exchange{Reply: r})
	c.came(r)
	if r.Code != 220 {
		return refused(StageGreeting, r)
	}
	if err := c.hello(); err != nil {
		return err
	}
	if c.opt.TLS == Opportunistic || c.opt.TLS == Required {
		if err := c.startTLS(); err != nil {
			return err
		}
	}
	if c.opt.Auth != nil {
		return c.auth()
	}
	return nil
}

// hello says EHLO, and HELO to a peer that does not know that (RFC 5321 section
// 3.2).
func (c *Conn) hello() *Error {
	c.ext = Extensions{}
	r, err := c.command(StageEhlo, "EHLO "+c.opt.LocalName, maxEhloReply)
	if err != nil {
		return err
	}
	if r.Code/100 == 2 {
		c.ext = parseExtensions(r.Lines)
		return nil
	}
	if !r.Permanent() {
		return refused(StageEhlo, r)
	}
	r, err = c.command(StageEhlo, "HELO "+c.opt.LocalName, maxReply)
	if err != nil {
		return err
	}
	if r.Code/100 != 2 {
		return refused(StageEhlo, r)
	}
	return nil
}

// command says one command of the opening and notes it with its reply. A 421 is
// an error here, any other reply is for the caller to judge.
func (c *Conn) command(stage, line string, max int) (smtp.Reply, *Error) {
	return c.exchange(stage, line, line, max)
}

// exchange is command, with what the dialogue is to show instead of the line.
func (c *Conn) exchange(stage, line, shown string, max int) (smtp.Reply, *Error) {
	if c.br.Buffered() > 0 {
		return smtp.Reply{}, &Error{Stage: stage, Err: errOutOfTurn}
	}
	c.bw.WriteString(line)
	c.bw.WriteString("\r\n")
	r, err := c.flush()
	c.sent(shown)
	if err == nil {
		r, err = c.readReply(c.opt.Timeouts.Command, max)
	}
	c.came(r)
	if err != nil && r.Code == 0 {
		return r, &Error{Stage: stage, Err: err}
	}
	c.opening = append(c.opening, Exchange{Command: shown, Reply: r})
	if err != nil || r.Code == 421 {
		return r, refused(stage, r)
	}
	return r, nil
}

// refused is the error for a reply that ends the session or the transaction. A
// positive reply gets here only from a peer that is out of its mind.
func refused(stage string, r smtp.Reply) *Error {
	if r.Positive() {
		return &Error{Stage: stage, Err: fmt.Errorf("the receiver's reply makes no sense here: %s", r)}
	}
	return &Error{Stage: stage, Reply: &r}
}

// writer sends to the peer, which has the time of DataStall to take each piece.
type writer struct{ c *Conn }

func (w writer) Write(p []byte) (int, error) {
	c := w.c
	c.raw.SetWriteDeadline(time.Now().Add(c.opt.Timeouts.DataStall))
	if c.stopped.Load() || c.answered.Load() {
		return 0, os.ErrDeadlineExceeded
	}
	return c.conn.Write(p)
}

// flush sends what is buffered. Where that fails, the peer may have said why
// before it closed: then the reply is not zero.
func (c *Conn) flush() (smtp.Reply, error) {
	err := c.bw.Flush()
	if err == nil {
		return smtp.Reply{}, nil
	}
	return c.lastReply(), err
}

// lastReply is the refusal that a peer left for us before it stopped reading, or
// zero.
func (c *Conn) lastReply() smtp.Reply {
	r, err := c.readReply(lastWords, maxReply)
	if err != nil || r.Positive() {
		return smtp.Reply{}
	}
	return r
}

// readReply reads one reply that must be whole in the given time.
func (c *Conn) readReply(d time.Duration, max int) (smtp.Reply, error) {
	c.armRead(d)
	return smtp.ReadReply(c.br, max)
}

func (c *Conn) armRead(d time.Duration) {
	c.raw.SetReadDeadline(time.Now().Add(d))
	if c.stopped.Load() {
		c.raw.SetReadDeadline(past)
	}
}

// explain completes an error for the caller: the context's end where that was
// the cause, and words that people understand.
func (c *Conn) explain(ctx context.Context, e *Error) *Error {
	switch {
	case e.Reply != nil:
	case ctx.Err() != nil && (e.Err == nil || isTimeout(e.Err)):
		e.Err = context.Cause(ctx)
	case errors.Is(e.Err, io.EOF), errors.Is(e.Err, io.ErrUnexpectedEOF),
		errors.Is(e.Err, syscall.ECONNRESET), errors.Is(e.Err, syscall.EPIPE):
		e.Err = inWords{errClosed, e.Err}
	case isTimeout(e.Err) && e.Err != errStalled:
		e.Err = inWords{errSilent, e.Err}
	}
	return e
}

// inWords says an error of the network in words that people know.
type inWords struct{ said, cause error }

func (e inWords) Error() string   { return e.said.Error() }
func (e inWords) Unwrap() []error { return []error{e.said, e.cause} }

func isTimeout(err error) bool {
	var ne net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}

// farewell closes a session that did not come about; a peer that refused it
// politely is told so (RFC 5321 section 3.1).
func (c *Conn) farewell(e *Error) {
	if e.Reply != nil && e.Reply.Code != 421 && !c.stopped.Load() {
		c.raw.SetWriteDeadline(time.Now().Add(farewellTimeout))
		io.WriteString(c.conn, "QUIT\r\n")
	}
	c.Close()
}

// Extensions is what the peer offers now.
func (c *Conn) Extensions() Extensions { return c.ext }

// TLS is what was agreed, nil for plain text.
func (c *Conn) TLS() *TLSState { return c.tls }

// Opening is the dialogue of New.
func (c *Conn) Opening() []Exchange { return c.opening }

// Usable tells whether another Send may be tried: nothing went wrong with the
// session, the peer's MAILMAX is not reached, and the peer neither closed the
// connection nor spoke since the last Send.
func (c *Conn) Usable() bool {
	if c.broken || c.stopped.Load() || c.br.Buffered() > 0 {
		return false
	}
	if c.ext.MailMax > 0 && c.mails >= c.ext.MailMax {
		return false
	}
	return quiet(c.raw)
}

// Quit ends the session politely (RFC 5321 section 4.1.1.10) within two seconds,
// and closes the connection.
func (c *Conn) Quit(ctx context.Context) {
	defer c.Close()
	if c.broken || c.stopped.Load() {
		return
	}
	release := context.AfterFunc(ctx, c.stop)
	defer release()
	c.opt.Timeouts.DataStall = quitTimeout
	c.bw.WriteString("QUIT\r\n")
	if c.bw.Flush() == nil {
		c.sent("QUIT")
		if r, err := c.readReply(quitTimeout, maxReply); err == nil {
			c.came(r)
		}
	}
}

// Close closes the connection at once. It may be called again.
func (c *Conn) Close() error {
	if c.broken {
		c.raw.Close()
		return nil
	}
	c.broken = true
	return c.conn.Close()
}

// safeWord tells whether s can be an argument of a command: printable and
// without spaces and brackets.
func safeWord(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == '<' || c == '>' || c == 0x7f {
			return false
		}
	}
	return s != ""
}
