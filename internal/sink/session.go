package sink

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"postrider/internal/smtp"
)

const (
	readBuffer = 32 << 10
	maxLine    = 4 << 10         // of a command; RFC 5321 section 4.5.3.1.4 and extensions ask for less
	maxReplies = 64 << 10        // bytes of replies that wait for the end of a pipelined group
	maxErrors  = 50              // commands that make no sense, in one session
	lastWord   = 2 * time.Second // for a 421 that nobody may be waiting for
)

// session is one connection. It is used again for later ones.
type session struct {
	srv  *Server
	ctx  context.Context
	br   *bufio.Reader
	out  []byte   // replies that wait for the end of the pipelined group
	raw  net.Conn // as accepted
	conn net.Conn // raw, or TLS over it

	number  int64 // of the connection
	client  string
	helo    string
	esmtp   bool
	tls     *tls.ConnectionState
	user    string
	errors  int
	renewed time.Time // when the deadline was set last
	id      string    // of the session or message, made when first needed

	transaction
}

// transaction is what RSET forgets.
type transaction struct {
	voice      *[kinds]prepared
	mail       bool
	from       smtp.Address
	utf8       bool
	params     string
	rcpt       smtp.Address // the latest
	accepted   int
	first      smtp.Address // the first accepted one
	recipients []Recipient  // only when the message is recorded
	refused    []Recipient
	later      [stages]*action // what the recipients ask for after RCPT
	afterwards string          // the recipient that later[After] is of
	chunks     *body           // of a BDAT that was not the last
	delay      time.Duration   // before each reply
	perByte    time.Duration   // of replies
	readPause  time.Duration   // after each part of content
}

func newSession(srv *Server) *session {
	s := &session{srv: srv}
	s.br = bufio.NewReaderSize(input{s}, readBuffer)
	return s
}

// input reads from the connection; before it waits, the replies go out.
type input struct{ s *session }

func (in input) Read(p []byte) (int, error) {
	s := in.s
	s.renew()
	if err := s.flush(); err != nil {
		return 0, err
	}
	if s.readPause > 0 && len(p) > 4<<10 {
		p = p[:4<<10]
	}
	return s.conn.Read(p)
}

// renew puts the deadline off. A precise one would cost a timer for each line.
func (s *session) renew() {
	now := time.Now()
	idle := s.srv.cfg.Idle
	if now.Sub(s.renewed) < idle/8 {
		return
	}
	s.renewed = now
	s.conn.SetDeadline(now.Add(idle))
	if s.srv.closing.Load() {
		s.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// start makes the session fit for a new connection.
func (s *session) start(ctx context.Context, conn net.Conn, number int64) {
	s.ctx, s.raw, s.conn, s.number = ctx, conn, conn, number
	s.br.Reset(input{s})
	s.reset()
}

// end drops what belongs to the connection.
func (s *session) end() {
	s.reset()
	*s = session{srv: s.srv, br: s.br, out: s.out[:0]}
}

// reset ends the transaction.
func (s *session) reset() {
	if s.chunks != nil {
		s.chunks.drop()
	}
	if s.perByte > 0 {
		s.flush()
	}
	s.transaction = transaction{voice: s.srv.voices[orElse(s.srv.scenario.voice, s.srv.cfg.Voice)]}
	s.id = ""
}

// run is the session from the greeting to the end.
func (s *session) run(implicit bool) {
	if implicit && !s.handshake() {
		return
	}
	defer s.hangUp()
	if s.srv.counters.open.Load() > int64(s.srv.cfg.MaxOpen) {
		s.reply(smtp.NewReply(421, "4.7.0", "Too many connections"))
		return
	}
	if v := s.early(AtConnect); v != proceed {
		if v == answered {
			s.refuseAll()
		}
		return
	}
	s.say(greeting)
	for s.step() {
	}
}

// hangUp sends what is to be sent and closes.
func (s *session) hangUp() {
	if s.flush() == nil && s.conn != s.raw {
		s.conn.Close() // with close_notify
	}
}

// refuseAll answers after a refusal instead of a greeting (RFC 5321 section 3.1).
func (s *session) refuseAll() {
	for {
		line, err := s.readLine()
		if err != nil {
			return
		}
		if v, _ := smtp.ParseCommand(line); v == smtp.QUIT {
			s.say(bye)
			return
		}
		if !s.mistake(503, "5.5.1", "This server takes no mail now") {
			return
		}
	}
}

var errTooLong = errors.New("line too long")

// readLine reads a line and gives it without its end.
func (s *session) readLine() ([]byte, error) {
	line, err := s.br.ReadSlice('\n')
	for skipped := 0; err == bufio.ErrBufferFull; skipped++ {
		if skipped == 4 {
			return nil, io.ErrUnexpectedEOF // endless
		}
		if _, err = s.br.ReadSlice('\n'); err == nil {
			err = errTooLong
		}
	}
	if err != nil {
		return nil, err
	}
	if len(line) > maxLine {
		return nil, errTooLong
	}
	line = line[:len(line)-1]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line, nil
}

// step reads and answers a command; it tells whether the session goes on.
func (s *session) step() bool {
	line, err := s.readLine()
	switch {
	case err == nil:
	case err == errTooLong:
		return s.mistake(500, "5.5.2", "Line too long")
	case s.srv.closing.Load():
		s.conn.SetWriteDeadline(time.Now().Add(lastWord))
		s.say(closing)
		return false
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.conn.SetWriteDeadline(time.Now().Add(lastWord))
		s.reply(smtp.NewReply(421, "4.4.2", "Timeout, closing connection"))
		return false
	default:
		return false
	}
	if s.srv.debug {
		s.srv.cfg.Log.Debug("command", "connection", s.number, "line", shown(line))
	}
	verb, args := smtp.ParseCommand(line)
	switch verb {
	case smtp.MAIL:
		return s.doMail(args)
	case smtp.RCPT:
		return s.doRcpt(args)
	case smtp.DATA:
		return s.doData(args)
	case smtp.BDAT:
		return s.doBdat(args)
	case smtp.EHLO, smtp.HELO:
		return s.doHello(args, verb == smtp.EHLO)
	case smtp.QUIT:
		s.reset()
		s.say(bye)
		return false
	case smtp.RSET:
		s.reset()
		s.say(resetOK)
	case smtp.NOOP:
		s.reply(smtp.NewReply(250, "2.0.0", "Ok"))
	case smtp.STARTTLS:
		return s.doStartTLS()
	case smtp.AUTH:
		return s.doAuth(string(args))
	case smtp.VRFY:
		s.reply(smtp.NewReply(252, "2.5.2", "Cannot verify, send some mail"))
	case smtp.HELP:
		s.reply(smtp.NewReply(214, "2.0.0", "The recipient's local part says what happens: see postrider sink -list"))
	case smtp.HTTP:
		return false
	default:
		return s.mistake(500, "5.5.1", "Command not recognized")
	}
	return true
}

// shown is a line for the log, without passwords.
func shown(line []byte) string {
	if v, args := smtp.ParseCommand(line); v == smtp.AUTH {
		mechanism, _, _ := strings.Cut(string(args), " ")
		return "AUTH " + mechanism
	}
	return string(line)
}

// mistake answers a command that makes no sense here; too many end the session.
func (s *session) mistake(code int, enhanced, text string) bool {
	if s.errors++; s.errors > maxErrors {
		s.reply(smtp.NewReply(421, "4.7.0", "Too many errors"))
		return false
	}
	s.reply(smtp.NewReply(code, enhanced, text))
	return true
}

// doHello is RFC 5321 section 4.1.1.1.
func (s *session) doHello(args []byte, esmtp bool) bool {
	if len(args) == 0 {
		return s.mistake(501, "5.5.4", "Give your host name")
	}
	s.reset()
	s.helo, s.esmtp = string(args), esmtp
	if v := s.early(AtEHLO); v != proceed {
		if v == answered {
			s.helo = ""
		}
		return v != gone
	}
	first := s.expand(s.voice[hello].text)
	r := smtp.Reply{Code: 250, Lines: []string{first}}
	if esmtp {
		r.Lines = s.extensions(r.Lines)
	}
	s.write(r.AppendTo(nil))
	return true
}

// offers tells whether EHLO names the extension.
func (s *session) offers(e Extension) bool { return s.srv.cfg.Without&e == 0 }

func (s *session) extensions(lines []string) []string {
	for i, name := range extensionNames {
		e := Extension(1) << i
		if !s.offers(e) {
			continue
		}
		switch e {
		case Size:
			name += " " + strconv.FormatInt(s.srv.cfg.MaxSize, 10)
		case StartTLS:
			if s.tls != nil {
				continue
			}
		case RequireTLS: // RFC 8689 section 4: only over TLS
			if s.tls == nil {
				continue
			}
		}
		lines = append(lines, name)
	}
	if s.srv.cfg.Auth != nil && s.user == "" {
		lines = append(lines, "AUTH PLAIN LOGIN")
	}
	return lines
}

// doStartTLS is RFC 3207.
func (s *session) doStartTLS() bool {
	if !s.offers(StartTLS) {
		return s.mistake(502, "5.5.1", "STARTTLS is not offered")
	}
	if s.tls != nil {
		return s.mistake(503, "5.5.1", "TLS is on already")
	}
	if v := s.early(AtStartTLS); v != proceed {
		return v != gone
	}
	if s.srv.cfg.TLSFault == TLSRefused {
		s.fault("tls-refused")
		s.reply(smtp.NewReply(454, "4.7.0", "TLS not available due to temporary reason"))
		return true
	}
	s.reply(smtp.NewReply(220, "2.0.0", "Ready to start TLS"))
	if s.flush() != nil {
		return false
	}
	return s.handshake()
}

// handshake makes the connection TLS, or breaks it as the configuration asks.
func (s *session) handshake() bool {
	switch f := s.srv.cfg.TLSFault; f {
	case TLSClosed:
		s.fault("tls-closed")
		return false
	case TLSGarbage:
		s.fault("tls-garbage")
		s.part(1) // the client has begun
		s.br.Discard(s.br.Buffered())
		s.conn.Write([]byte("500 5.5.1 What is this?\r\n"))
		return false
	case TLSSilent:
		s.fault("tls-silent")
		s.silence()
		return false
	}
	s.renewed = time.Time{}
	s.renew()
	conn := tls.Server(s.conn, s.srv.tls)
	if err := conn.HandshakeContext(s.ctx); err != nil {
		s.fault("tls-handshake")
		if s.srv.info {
			s.srv.cfg.Log.Info("handshake failed", "connection", s.number, "client", s.peer(), "err", err)
		}
		return false
	}
	state := conn.ConnectionState()
	s.srv.counters.tls.Add(1)
	s.conn, s.tls = conn, &state
	s.reset()
	s.helo = "" // RFC 3207 section 4.2: what was said before does not count
	s.br.Reset(input{s})
	return true
}

// doMail is RFC 5321 section 4.1.1.2.
func (s *session) doMail(args []byte) bool {
	switch {
	case s.helo == "":
		return s.mistake(503, "5.5.1", "Say EHLO first")
	case s.mail:
		return s.mistake(503, "5.5.1", "A transaction is open already")
	case s.srv.cfg.Auth != nil && s.srv.cfg.Auth.Required && s.user == "":
		return s.mistake(530, "5.7.0", "Authentication required")
	}
	m, err := smtp.ParseMail(args)
	if err == nil {
		err = s.checkMail(m)
	}
	if err != nil {
		return s.badCommand(err)
	}
	s.from, s.utf8 = m.From, m.UTF8
	if v := s.early(AtMail); v != proceed {
		if v != accepted {
			s.from = smtp.Address{}
			return v != gone
		}
	} else {
		s.say(mailOK)
	}
	s.mail = true
	if s.records() {
		s.params = params(args, "FROM:")
	}
	return true
}

// checkMail refuses parameters that were not offered.
func (s *session) checkMail(m smtp.Mail) error {
	for _, p := range [...]struct {
		used  bool
		needs Extension
		name  string
	}{
		{m.Size > 0, Size, "SIZE"},
		{m.Body != "", EightBitMIME, "BODY"},
		{m.UTF8, SMTPUTF8, "SMTPUTF8"},
		{m.Ret != "" || m.EnvID != "", DSN, "RET or ENVID"},
		{m.RequireTLS, RequireTLS, "REQUIRETLS"},
		{m.Body == "BINARYMIME" || m.HoldFor != 0 || !m.HoldUntil.IsZero() || m.Priority != 0, 0, "of this kind"},
		{m.Auth != "" && s.srv.cfg.Auth == nil, 0, "AUTH"},
	} {
		if p.used && (p.needs == 0 || !s.offers(p.needs) || !s.esmtp) {
			return smtp.NewReply(555, "5.5.4", "A parameter "+p.name+" is not offered")
		}
	}
	if m.RequireTLS && s.tls == nil {
		return smtp.NewReply(530, "5.7.10", "REQUIRETLS needs TLS")
	}
	if m.Size > s.srv.cfg.MaxSize {
		return s.render(tooBig)
	}
	return nil
}

// badCommand answers with the reply that err is.
func (s *session) badCommand(err error) bool {
	var r smtp.Reply
	if !errors.As(err, &r) {
		r = smtp.NewReply(501, "5.5.4", err.Error())
	}
	return s.mistake(r.Code, r.Enhanced, strings.Join(r.Lines, "\n"))
}

// params is what follows the path, as it was sent.
func params(args []byte, prefix string) string {
	_, rest, _ := smtp.ParsePath(string(args[len(prefix):]), true)
	return rest
}

// doRcpt is RFC 5321 section 4.1.1.3.
func (s *session) doRcpt(args []byte) bool {
	if !s.mail {
		return s.mistake(503, "5.5.1", "Say MAIL first")
	}
	r, err := smtp.ParseRcpt(args, s.utf8)
	if err == nil && (r.Notify != 0 || r.ORcpt != "") && !s.offers(DSN) {
		err = smtp.NewReply(555, "5.5.4", "DSN is not offered")
	}
	if err != nil {
		return s.badCommand(err)
	}
	s.rcpt = r.To
	if s.accepted >= s.srv.cfg.MaxRecipients {
		s.say(tooMany)
		return true
	}
	p := s.srv.choose(s.number, s.from, r.To)
	if p.err != nil {
		s.reply(smtp.NewReply(553, "5.1.3", "Sink: "+p.err.Error()))
		return true
	}
	voice := s.voice
	if p.voice != "" {
		s.voice = s.srv.voices[p.voice]
	}
	v := s.atRcpt(p)
	yes := v == proceed || v == accepted
	if s.records() {
		s.record(args, yes)
	}
	if !yes {
		s.voice = voice
		return v != gone
	}
	if v == proceed {
		s.say(rcptOK)
	}
	if s.accepted++; s.accepted == 1 {
		s.first = r.To
	} else {
		s.voice = voice // the first one speaks for the content
	}
	return true
}

// atRcpt does what the plan says, or notes it for later.
func (s *session) atRcpt(p plan) verdict {
	a := p.action
	if a == nil {
		return proceed
	}
	if a.limited() && !s.srv.memory.active(a, memoryKey(p.rule, s.from, s.rcpt), time.Now()) {
		return proceed
	}
	if a.stage == AtRcpt {
		return s.perform(a)
	}
	if s.later[a.stage] == nil {
		s.later[a.stage] = a
		if a.stage == After {
			s.afterwards = s.rcpt.String()
		}
	}
	return proceed
}

func memoryKey(rule int, from, to smtp.Address) string {
	return strconv.Itoa(rule) + "\x00" + strings.ToLower(from.String()) + "\x00" + strings.ToLower(to.String())
}

// records tells whether messages are wanted at all.
func (s *session) records() bool {
	c := &s.srv.cfg
	return c.Store != "" || c.Keep > 0 || c.Received != nil || c.Resolver != nil || c.React != nil
}

// record notes a recipient. Refused ones are bounded, accepted ones are by
// MaxRecipients.
func (s *session) record(args []byte, yes bool) {
	r := Recipient{Address: s.rcpt.String(), Params: params(args, "TO:")}
	if yes {
		s.recipients = append(s.recipients, r)
	} else if len(s.refused) < s.srv.cfg.MaxRecipients {
		s.refused = append(s.refused, r)
	}
}

// peer is the client's address, for replies and records.
func (s *session) peer() string {
	if s.client == "" {
		s.client = s.raw.RemoteAddr().String()
	}
	return s.client
}

func (s *session) log(what string, to smtp.Address, attrs ...any) {
	if s.srv.info {
		s.srv.cfg.Log.Info(what, append([]any{slog.Int64("connection", s.number), slog.String("client", s.peer()),
			slog.String("from", s.from.String()), slog.String("to", to.String()), slog.Int("recipients", s.accepted)}, attrs...)...)
	}
}
