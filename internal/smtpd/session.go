package smtpd

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	proxyproto "github.com/pires/go-proxyproto"

	"postrider/internal/account"
	"postrider/internal/relay"
	"postrider/internal/smtp"
)

const (
	maxLine = 2048  // RFC 5321 section 4.5.3.1.4 has 512; parameters and SMTPUTF8 add to it
	maxAuth = 12288 // RFC 4954 section 4
	// maxLoginFailures end a session; what a guesser then has to pay is a new
	// connection.
	maxLoginFailures = 3
	proxyWait        = 5 * time.Second // for a PROXY header
	tlsRecord        = 0x16            // first byte of a TLS handshake (RFC 8446 section 5.1)
)

// session is one connection of a client.
type session struct {
	l      *listener
	w      *wire
	in     *smtp.Reader
	log    *slog.Logger
	client netip.AddrPort

	tls  *tls.ConnectionState // nil: no TLS
	leaf *x509.Certificate    // our certificate, with TLS

	helo          string
	extended      bool // EHLO, not HELO
	identity      *account.Identity
	authenticated bool // by AUTH; else identity comes from the network
	tx            transaction

	about    about
	messages int // accepted
	commands int // since the last message
	errors   int
	failures int  // of logins
	greeted  bool // a command was understood
	over     bool // nothing more is read
	linger   bool // the client may still be sending when we close
}

// about is what a reply answers, for the log and for counting.
type about struct {
	verb              smtp.Verb // of the command that is being obeyed
	sender, recipient string    // where they could be read
}

// serve runs one session from accept to close. A session waits in run most of
// its life: what comes before is in functions of its own, so that its stack is
// small then.
func (l *listener) serve(soft, hard context.Context, c net.Conn) {
	w := newWire(c, time.Duration(l.config.Limits.Idle), time.Duration(l.config.Limits.Session))
	s := &session{l: l, w: w, in: smtp.NewReader(w, &l.buffers)}
	defer s.end()
	leave := s.admit()
	if leave == nil {
		return
	}
	defer leave()
	l.config.Observer.Session(l.Name, true)
	defer l.config.Observer.Session(l.Name, false)
	defer context.AfterFunc(soft, func() { w.stop(true) })()
	defer context.AfterFunc(hard, func() { w.stop(false) })()
	s.run(hard)
}

// admit lets a client in; nil says that it is refused.
func (s *session) admit() (leave func()) {
	if err := s.identify(); err != nil {
		s.l.log.Info("connection refused", "listener", s.l.Name, "client", s.w.raw.RemoteAddr().String(), "err", err)
		s.l.config.Observer.TurnedAway(s.l.Name, AwayProxy)
		return nil
	}
	s.log = s.l.log.With("listener", s.l.Name, "session", newSessionID(), "client", s.client.String())
	leave, why, refused := s.l.enter(s.client.Addr())
	if refused != "" {
		s.l.config.Observer.TurnedAway(s.l.Name, why)
		s.log.Info("session refused", "reason", refused)
		if s.l.Mode != ModeTLS { // a TLS client would not understand it
			s.send(reply(421, "4.7.0", refused))
		}
		return nil
	}
	if s.l.condition() == relay.Draining {
		leave()
		s.l.config.Observer.TurnedAway(s.l.Name, AwayDraining)
		s.log.Info("session refused", "reason", "this node drains")
		if s.l.Mode != ModeTLS {
			s.send(draining())
		}
		return nil
	}
	return leave
}

// end frees what the session has.
func (s *session) end() {
	s.reset()
	s.w.close(s.linger)
	s.in.Close()
}

// newSessionID names a session in the log: what belongs together is found by
// it, also where a client uses one port twice.
func newSessionID() string { return rand.Text()[:12] }

// identify learns the client's address, from the PROXY header where the peer is
// a load balancer of ours.
func (s *session) identify() error {
	s.client = addrPort(s.w.raw.RemoteAddr())
	for _, p := range s.l.Proxy {
		if !p.Contains(s.client.Addr()) {
			continue
		}
		c := proxyproto.NewConn(s.w.raw, proxyproto.WithPolicy(proxyproto.REQUIRE), proxyproto.SetReadHeaderTimeout(proxyWait))
		s.w.raw, s.w.conn = c, c
		if c.ProxyHeader() == nil {
			return errors.New("no valid PROXY header came, and the listener's proxy_from wants one of this peer")
		}
		if a := addrPort(c.RemoteAddr()); a.IsValid() { // not so for UNKNOWN and for local sockets
			s.client = a
		}
		return nil
	}
	return nil
}

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok || t == nil {
		return netip.AddrPort{}
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port())
}

// run greets, then obeys until the session is over.
func (s *session) run(ctx context.Context) {
	s.log.Debug("session begins")
	if err := s.greet(ctx); err != nil {
		s.log.Info("session did not begin", "err", err)
		s.l.config.Observer.TurnedAway(s.l.Name, AwayTLS)
		return
	}
	for !s.over {
		if s.w.stopping() {
			s.fail(errShutdown)
			break
		}
		s.about = about{}
		line, err := s.readLine(maxAuth) // AUTH may come with a long response
		s.handle(ctx, line, err)
	}
	s.log.Debug("session ends", "messages", s.messages, "errors", s.errors)
}

// handle does what a line asks for.
func (s *session) handle(ctx context.Context, line []byte, err error) {
	switch {
	case errors.Is(err, smtp.ErrLineTooLong):
		s.answer(lineTooLong())
	case err != nil:
		s.fail(err)
	default:
		s.answer(s.command(ctx, line))
	}
}

// greet begins TLS where the client does so, and sends the greeting.
func (s *session) greet(ctx context.Context) error {
	switch {
	case s.l.Mode == ModeTLS:
		if err := s.startTLS(ctx, nil); err != nil {
			return err
		}
	case s.l.tls != nil:
		s.w.line = time.Now().Add(s.l.habits.wait(s.client.Addr()))
		first, err := s.in.Peek()
		if err == nil && first[0] == tlsRecord {
			s.log.Info("the client begins TLS on a port for STARTTLS: served all the same")
			s.l.habits.learn(s.client.Addr(), false)
			if err := s.startTLS(ctx, bytes.Clone(first)); err != nil {
				return err
			}
		}
	}
	s.send(smtp.Reply{Code: 220, Lines: []string{s.l.config.Hostname + " ESMTP Postrider"}})
	return nil
}

// readLine waits for a line. The wait for it counts as a whole: a line that
// trickles in is too late like one that does not come.
func (s *session) readLine(limit int) ([]byte, error) {
	s.w.line, s.w.content = time.Time{}, false
	return s.in.ReadLine(limit)
}

// send gathers a reply; it goes out when the session waits for input.
func (s *session) send(r smtp.Reply) {
	if help := s.l.config.Help; help != "" && r.Code >= 400 && r.Enhanced != "" {
		last := len(r.Lines) - 1
		r.Lines = append(slices.Clone(r.Lines[:last]), r.Lines[last]+" See "+help+"#"+r.Enhanced)
	}
	if r.Code >= 400 {
		s.refused(r)
	}
	if s.w.send(r) != nil {
		s.over = true
	}
}

// refused notes a reply that refuses something. What is refused of a message is
// told to the log too: people ask what became of it.
func (s *session) refused(r smtp.Reply) {
	stage := stageOf(s.about.verb)
	s.l.config.Observer.Refused(stage, r)
	switch stage {
	case StageMail, StageRcpt, StageData:
		s.log.Info("refused", "stage", stage, "sender", s.about.sender, "recipient", s.about.recipient, "reply", r.String())
	}
}

// answer sends the reply to a command, if there is one, and ends the session
// with any 421 (RFC 5321 section 3.8) or when there were too many errors.
func (s *session) answer(r smtp.Reply) {
	if r.Code == 0 {
		return
	}
	s.send(r)
	if r.Code >= 400 {
		s.errors++
	}
	if r.Code == 421 {
		s.over, s.linger = true, true
	} else if s.errors > s.l.config.Limits.Errors {
		s.answer(tooManyErrors())
	}
	if s.over {
		s.log.Debug("session is ended", "reply", r.String())
	}
}

// fail ends the session after an error of reading, with 421 where the client may
// still hear it.
func (s *session) fail(err error) {
	s.over = true
	var timeout net.Error
	switch {
	case errors.Is(err, errShutdown), s.w.stopping():
		err = errShutdown // and not the deadline that ended the wait
		s.send(reply(421, "4.3.2", "The server is going down. Try again in a minute."))
	case errors.Is(err, smtp.ErrEndless):
		s.linger = true
		s.send(reply(421, "4.7.0", "Your input has no end. Look for what is wrong with the client."))
	case errors.As(err, &timeout) && timeout.Timeout():
		s.send(reply(421, "4.4.2", s.w.late()))
	case !errors.Is(err, io.EOF):
		s.log.Debug("connection broke", "err", err)
		return
	default:
		return
	}
	s.log.Info("session is ended", "err", err)
}

// command obeys one line and gives the reply to it.
func (s *session) command(ctx context.Context, line []byte) smtp.Reply {
	verb, args := smtp.ParseCommand(line)
	s.about = about{verb: verb}
	switch {
	case len(line) > 0 && line[0] == tlsRecord && !s.greeted:
		s.l.habits.learn(s.client.Addr(), false) // next time we shall wait for it
		s.log.Info("the client began TLS after our greeting: closed; its next try will be served")
		s.over = true
		return smtp.Reply{}
	case bytes.HasPrefix(line, proxyproto.SIGV1) && !s.greeted:
		s.log.Warn("a PROXY header came from an address that may not send one")
		s.over = true
		return reply(554, "5.7.1", "Your address may not send a PROXY header. List it in proxy_from of this listener.")
	case verb == smtp.HTTP:
		return reply(421, "4.7.0", "This is a mail server; it does not speak HTTP.")
	case len(line) > maxLine && verb != smtp.AUTH:
		return lineTooLong()
	case bytes.IndexByte(line, 0) >= 0 || bytes.IndexByte(line, '\r') >= 0:
		return reply(500, "5.5.2", "The line has a control character. Lines end in CR LF.")
	}
	// Recipients are bounded by their own limit.
	if s.commands++; s.commands > s.l.config.Limits.Commands {
		return reply(421, "4.7.0", "These are too many commands without a message. Connect again.")
	}
	if verb != smtp.Unknown && !s.greeted {
		s.greeted = true
		if s.tls == nil {
			s.l.habits.learn(s.client.Addr(), true)
		}
	}
	return s.obey(ctx, verb, args)
}

func (s *session) obey(ctx context.Context, verb smtp.Verb, args []byte) smtp.Reply {
	switch verb {
	case smtp.HELO, smtp.EHLO:
		return s.hello(verb, args)
	case smtp.MAIL:
		return s.mail(ctx, args)
	case smtp.RCPT:
		return s.rcpt(ctx, args)
	case smtp.DATA:
		return s.data(ctx, args)
	case smtp.BDAT:
		return s.bdat(ctx, args)
	case smtp.RSET:
		s.reset()
		return ok("Ok")
	case smtp.NOOP:
		return ok("Ok")
	case smtp.QUIT:
		s.over = true
		return reply(221, "2.0.0", "Bye")
	case smtp.AUTH:
		return s.auth(ctx, args)
	case smtp.STARTTLS:
		return s.starttls(ctx, args)
	case smtp.VRFY: // RFC 5321 section 7.3
		return reply(252, "2.1.5", "I do not tell whether an address exists. Send the message, and I will try to deliver it.")
	case smtp.EXPN:
		return reply(502, "5.5.1", "EXPN is not offered.")
	case smtp.HELP:
		return reply(214, "2.0.0", "Commands: EHLO HELO STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT",
			"Mail is taken after AUTH, for any recipient; on a port for feedback without it, for addresses that we gave out.")
	default:
		return reply(500, "5.5.1", "I do not know this command. HELP lists those that I know.")
	}
}
