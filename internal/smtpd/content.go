package smtpd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"postrider/internal/account"
	"postrider/internal/message"
	"postrider/internal/relay"
	"postrider/internal/smtp"
	"postrider/internal/submit"
)

const (
	inMemory = 1 << 20 // content beyond this goes to a file
	// allInMemory is what the content of all sessions may take together, but for
	// the first 64 KiB of each; beyond it content goes to files earlier.
	allInMemory = 64 << 20
	// maxBeyond is how far beyond the limit content is read to its end, so that
	// the client hears of it in order; more ends the session.
	maxBeyond = 64 << 20
	// maxStray is how much of a chunk is read that belongs to no message.
	maxStray = 1 << 20
)

// data is DATA (RFC 5321 section 4.1.1.4).
func (s *session) data(ctx context.Context, args []byte) smtp.Reply {
	if r, bad := s.checkContent(); bad {
		return r
	}
	switch {
	case s.tx.content != nil: // RFC 3030 section 2
		return badSequence("BDAT has begun this message; it has to end it.")
	case len(args) > 0:
		return badArgument("DATA stands alone.")
	}
	s.openContent()
	s.send(smtp.Reply{Code: 354, Lines: []string{"Send the message; end with a line that has a dot alone"}})
	s.w.content = true
	err := s.in.Dot(s.tx.content)
	s.w.content = false
	return s.finish(ctx, err)
}

// checkContent refuses content that no envelope waits for.
func (s *session) checkContent() (r smtp.Reply, bad bool) {
	switch {
	case !s.tx.open:
		r = badSequence("Send MAIL and RCPT first.")
	case len(s.tx.envelope.Recipients) > 0:
	case s.tx.refused > 0:
		r = reply(554, "5.5.1", "None of the recipients was taken; the replies to RCPT say why.")
	default:
		r = badSequence("Send RCPT first.")
	}
	return r, r.Code != 0
}

// openContent makes room for the content, and starts its time.
func (s *session) openContent() {
	limits := s.l.config.Limits
	most := s.l.most
	s.tx.buffer = message.NewBuffer(s.l.config.TempDir, inMemory)
	s.tx.buffer.Share(s.l.memory)
	s.tx.buffer.Grow(s.tx.size)
	s.tx.content = smtp.NewContent(s.tx.buffer, smtp.ContentOptions{Max: most, Hard: most + min(most, maxBeyond) + 1, Repair: s.tx.identity.RepairLF})
	s.w.message = time.Now().Add(time.Duration(limits.Message))
}

// bdat is BDAT (RFC 3030 section 2). Whatever becomes of it, its chunk is read:
// it must never be taken for commands.
func (s *session) bdat(ctx context.Context, args []byte) smtp.Reply {
	size, last, err := smtp.ParseBdat(args)
	if err != nil { // where the chunk ends is not known
		s.send(asReply(err))
		return reply(421, "4.5.0", "I cannot tell where your chunk ends. Connect again.")
	}
	if r, bad := s.checkContent(); bad {
		return s.skipChunk(size, r)
	}
	if s.tx.content == nil {
		s.openContent()
	}
	s.w.content = true
	err = s.in.Chunk(s.tx.content, size, last)
	s.w.content = false
	if err != nil || last {
		return s.finish(ctx, err)
	}
	return ok(fmt.Sprintf("%d bytes taken", size))
}

// skipChunk reads a chunk that belongs to no message, and answers r.
func (s *session) skipChunk(size int64, r smtp.Reply) smtp.Reply {
	most := int64(maxStray)
	if s.identity != nil { // it may be pipelined behind a chunk that was refused
		most = s.l.most
	}
	if size > most {
		s.send(r)
		return reply(421, "4.7.0", "The chunk is too large to be skipped. Connect again.")
	}
	s.w.content = true
	s.w.message = time.Now().Add(time.Duration(s.l.config.Limits.Message))
	err := s.in.Chunk(smtp.NewContent(io.Discard, smtp.ContentOptions{Repair: true}), size, false)
	s.w.content, s.w.message = false, time.Time{}
	if err != nil {
		s.fail(err)
		return smtp.Reply{}
	}
	return r
}

// finish ends the transaction: with its content handed on, or with what was
// wrong with reading it.
func (s *session) finish(ctx context.Context, err error) smtp.Reply {
	defer s.reset()
	s.about.sender = s.tx.envelope.Sender
	most := s.l.most
	switch written := s.tx.content.Err(); {
	case err == nil:
		return s.submit(ctx, time.Now())
	case errors.Is(err, smtp.ErrTooLarge):
		return reply(552, "5.3.4", tooLarge(most))
	case errors.Is(err, smtp.ErrBareLF): // the number is Exchange Online's, for who looks it up
		return reply(554, "5.6.11", "The message has a CR or LF that is not part of CR LF. Make the client end lines with CR LF, or use a credential that has them repaired.")
	case errors.Is(err, smtp.ErrEndless):
		s.log.Info("content without end", "limit", most)
		return reply(421, "4.3.4", tooLarge(most))
	case written != nil && errors.Is(err, written):
		s.log.Error("content not kept", "err", err)
		return reply(452, "4.3.1", "There is no room for the message at the moment. Try again later.")
	default: // the connection
		s.fail(err)
		return smtp.Reply{}
	}
}

// submit hands the message to the entrance. 250 says that it is durable. The
// content ended at the time given.
func (s *session) submit(ctx context.Context, ended time.Time) smtp.Reply {
	content := s.tx.buffer.Content()
	id, err := s.l.entrance.Submit(ctx, submit.Draft{
		Identity: s.tx.identity,
		Envelope: s.tx.envelope,
		Source:   s.source(),
		Content:  content,
	})
	if err != nil {
		return s.refusal(err)
	}
	s.log.Info("accepted", "message", id, "sender", s.tx.envelope.Sender, "recipients", len(s.tx.envelope.Recipients))
	if s.l.Mode == ModeFeedback { // it is not sent on
		s.messages++
		s.commands = 0
		return ok("Ok: taken as " + id.String())
	}
	s.l.config.Observer.Accepted(Accepted{s.tx.identity.Stream, len(s.tx.envelope.Recipients), content.Size(), time.Since(ended)})
	s.messages++
	s.commands = 0
	return ok("Ok: queued as " + id.String())
}

func (s *session) source() relay.Source {
	src := relay.Source{Client: s.client, Helo: s.helo, Protocol: s.protocol(), Listener: s.l.Name, TLS: s.tlsText()}
	if s.authenticated && s.identity.Kind != account.KindKey { // with a key the user name is any, or the key itself
		src.User = s.identity.User
	}
	return src
}

// protocol is the keyword for the Received header (RFC 3848, RFC 6531 section
// 4.3).
func (s *session) protocol() string {
	p := "ESMTP"
	switch {
	case s.tx.envelope.UTF8:
		p = "UTF8SMTP"
	case !s.extended && s.tls == nil && !s.authenticated:
		return "SMTP"
	}
	if s.tls != nil {
		p += "S"
	}
	if s.authenticated {
		p += "A"
	}
	return p
}

func tooLarge(most int64) string {
	return fmt.Sprintf("The message is too large: %d bytes are the most. Send a link instead of the attachment.", most)
}

// asReply gives the reply that a parser of package smtp made.
func asReply(err error) smtp.Reply {
	var r smtp.Reply
	if !errors.As(err, &r) {
		return badArgument(err.Error())
	}
	return r
}
