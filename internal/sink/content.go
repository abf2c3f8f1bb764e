package sink

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"postrider/internal/smtp"
)

// body is content on its way to where it is wanted: nowhere, memory, a file.
type body struct {
	max      int64 // beyond it the content is too large, and only read
	size     int64
	large    bool
	captures int64 // bytes that go into content; less than 0: all
	content  []byte
	spool    *spool
	err      error // of the spool
	start    bool  // at the start of a line: a dot was added here
	cr       bool  // the last byte was CR
}

// newBody makes one for what the server records.
func (s *session) newBody() *body {
	c := &s.srv.cfg
	b := &body{max: c.MaxSize, start: true}
	if c.Keep > 0 || c.Received != nil {
		if b.captures = c.Capture; b.captures == 0 {
			b.captures = -1
		}
	}
	if c.Resolver != nil || s.srv.reactor != nil && s.later[After] != nil {
		b.captures = -1
	}
	if s.srv.store != nil {
		b.spool, b.err = s.srv.store.create()
	}
	return b
}

func (b *body) drop() {
	if b.spool != nil {
		b.spool.drop()
		b.spool = nil
	}
}

// wanted tells whether anybody will see the bytes.
func (b *body) wanted() bool { return b.captures != 0 || b.spool != nil }

// add takes bytes as they are.
func (b *body) add(p []byte) {
	b.size += int64(len(p))
	if b.size > b.max {
		b.large = true
		b.content = nil
	}
	if b.large || b.err != nil {
		return
	}
	if b.spool != nil {
		_, b.err = b.spool.Write(p)
	}
	if b.captures < 0 {
		b.content = append(b.content, p...)
	} else if room := b.captures - int64(len(b.content)); room > 0 {
		b.content = append(b.content, p[:min(room, int64(len(p)))]...)
	}
}

// addDotted takes bytes of DATA and drops the dots that the client added at the
// start of lines (RFC 5321 section 4.5.2). A line begins after CRLF alone.
func (b *body) addDotted(p []byte) {
	if !b.wanted() {
		b.add(p)
		return
	}
	for len(p) > 0 {
		if b.start && p[0] == '.' {
			p, b.start = p[1:], false
			continue
		}
		end := bytes.IndexByte(p, '\n') + 1
		if end == 0 {
			b.start, b.cr = false, p[len(p)-1] == '\r'
			b.add(p)
			return
		}
		b.start = end > 1 && p[end-2] == '\r' || end == 1 && b.cr
		b.cr = false
		b.add(p[:end])
		p = p[end:]
	}
}

var (
	errEndless = errors.New("content without end")
	dotEnd     = []byte("\r\n.\r\n")
)

// part gives the bytes that can be had without waiting, at least min of them.
func (s *session) part(min int) ([]byte, error) {
	if s.br.Buffered() < min {
		if _, err := s.br.Peek(min); err != nil {
			return nil, err
		}
	}
	return s.br.Peek(s.br.Buffered())
}

// dot reads content up to CRLF.CRLF; nothing else ends it.
func (s *session) dot(b *body) error {
	p, err := s.part(3)
	if err != nil {
		return err
	}
	if string(p[:3]) == ".\r\n" { // no line at all
		_, err = s.br.Discard(3)
		return err
	}
	for {
		if p, err = s.part(len(dotEnd)); err != nil {
			return err
		}
		end := bytes.Index(p, dotEnd)
		n := end + 2
		if end < 0 {
			n = len(p) - len(dotEnd) + 1 // the rest may be the beginning of the end
		}
		b.addDotted(p[:n])
		if end >= 0 {
			n = end + len(dotEnd)
		}
		if _, err := s.br.Discard(n); err != nil {
			return err
		}
		if end >= 0 {
			return nil
		}
		if err := s.between(b); err != nil {
			return err
		}
	}
}

// between does what is asked for while content comes.
func (s *session) between(b *body) error {
	if b.size > 2*b.max+1<<20 {
		s.say(tooBig)
		return errEndless
	}
	if s.readPause > 0 && !sleep(s.ctx, s.readPause) {
		return s.ctx.Err()
	}
	return nil
}

// doData is RFC 5321 section 4.1.1.4.
func (s *session) doData(args []byte) bool {
	switch {
	case len(args) > 0:
		return s.mistake(501, "5.5.4", "DATA takes no argument")
	case !s.mail:
		return s.mistake(503, "5.5.1", "Say MAIL first")
	case s.chunks != nil:
		return s.mistake(503, "5.5.1", "BDAT and DATA do not mix")
	case s.accepted == 0:
		return s.mistake(554, "5.5.1", "No valid recipients")
	}
	if v := s.at(AtData); v != proceed {
		s.reset()
		return v != gone
	}
	s.say(dataOK)
	if s.later[AtContent] != nil && !s.content() {
		return false
	}
	b := s.newBody()
	if err := s.dot(b); err != nil {
		b.drop()
		return false
	}
	return s.finish(b)
}

// content begins what is asked for while content comes. Only slowness lets the
// session go on.
func (s *session) content() bool {
	a := s.later[AtContent]
	switch a.deed {
	case drop: // after the first part
		s.part(1)
	case silent: // nothing is read
		if s.flush() == nil {
			s.fault(a.name)
			sleep(s.ctx, s.srv.cfg.Idle)
		}
		s.cut()
		return false
	}
	return s.perform(a) == proceed
}

// doBdat is RFC 3030 section 2.
func (s *session) doBdat(args []byte) bool {
	if !s.offers(Chunking) {
		return s.mistake(502, "5.5.1", "CHUNKING is not offered")
	}
	n, last, err := smtp.ParseBdat(args)
	if err != nil {
		s.badCommand(err)
		return false // the end of the chunk is not known
	}
	var refusal *smtp.Reply
	switch {
	case !s.mail:
		refusal = &smtp.Reply{Code: 503, Enhanced: "5.5.1", Lines: []string{"Say MAIL first"}}
	case s.accepted == 0:
		refusal = &smtp.Reply{Code: 554, Enhanced: "5.5.1", Lines: []string{"No valid recipients"}}
	}
	first := s.chunks == nil
	b := s.chunks
	if refusal != nil {
		b = &body{max: s.srv.cfg.MaxSize}
	} else if first {
		if s.later[AtContent] != nil && !s.content() {
			return false
		}
		b = s.newBody()
		s.chunks = b
	}
	if err := s.chunk(b, n); err != nil {
		return false
	}
	if refusal != nil {
		return s.mistake(refusal.Code, refusal.Enhanced, refusal.Lines[0])
	}
	if first {
		if v := s.at(AtData); v != proceed {
			s.reset()
			return v != gone
		}
	}
	if last {
		s.chunks = nil
		return s.finish(b)
	}
	s.reply(smtp.NewReply(250, "2.0.0", fmt.Sprintf("%d octets received", n)))
	return true
}

// chunk reads n bytes.
func (s *session) chunk(b *body, n int64) error {
	for n > 0 {
		p, err := s.part(1)
		if err != nil {
			return err
		}
		p = p[:min(int64(len(p)), n)]
		b.add(p)
		n -= int64(len(p))
		if _, err := s.br.Discard(len(p)); err != nil {
			return err
		}
		if err := s.between(b); err != nil {
			return err
		}
	}
	return nil
}

// finish takes or refuses the message, and answers.
func (s *session) finish(b *body) bool {
	defer s.reset()
	if b.large {
		b.drop()
		s.say(tooBig)
		return true
	}
	if b.err != nil {
		b.drop()
		return s.unstored(b.err)
	}
	a := s.later[AtDot]
	if a == nil || a.deed == drop || a.deed == slow || a.deed == tarpit || a.deed == lengthy || a.deed == terse || a.reply != nil && a.reply.Positive() {
		if err := s.take(b, a != nil && a.deed == drop); err != nil {
			return s.unstored(err)
		}
	} else {
		b.drop()
	}
	v := s.at(AtDot)
	if v == proceed {
		s.say(dotOK)
	}
	return v != gone
}

// unstored answers when the store failed.
func (s *session) unstored(err error) bool {
	if s.srv.cfg.Log != nil {
		s.srv.cfg.Log.Error("message not stored", "err", err)
	}
	s.reply(smtp.NewReply(452, "4.3.1", "Cannot store the message"))
	return true
}

// take records and counts the message.
func (s *session) take(b *body, lost bool) error {
	attrs := []any{"size", b.size}
	if s.records() {
		m := &Message{
			ID: s.ident(), Connection: s.number, Time: time.Now(), Client: s.peer(), Helo: s.helo, User: s.user,
			From: s.from.String(), Params: s.params, Recipients: s.recipients, Refused: s.refused,
			Size: b.size, Lost: lost, Content: b.content,
		}
		if s.tls != nil {
			m.TLS = tls.VersionName(s.tls.Version) + " " + tls.CipherSuiteName(s.tls.CipherSuite)
		}
		if a := s.later[After]; a != nil && s.srv.reactor != nil {
			s.fault(a.name)
			whole := *m
			s.srv.react(s.ctx, a, &whole, s.afterwards)
		}
		if c := &s.srv.cfg; c.Resolver != nil {
			m.Proof = s.srv.prove(s.ctx, m)
			attrs = append(attrs, "proof", m.Proof.String())
			s.srv.counters.proof(m.Proof.DMARC.Result)
			if c.Capture > 0 && m.Size > c.Capture {
				m.Content = m.Content[:c.Capture]
			}
		}
		if b.spool != nil {
			if err := s.srv.store.commit(b.spool, m); err != nil {
				return err
			}
		}
		if s.srv.cfg.Keep > 0 {
			s.srv.keep(m)
		}
		if s.srv.cfg.Received != nil {
			s.srv.cfg.Received(m)
		}
	}
	s.srv.counters.message(s.accepted, b.size)
	s.log("message", s.first, attrs...)
	return nil
}
