package smtpd

import (
	"context"
	"fmt"
	"time"

	"postrider/internal/account"
	"postrider/internal/message"
	"postrider/internal/relay"
	"postrider/internal/smtp"
)

// transaction is one message on its way, from MAIL on (RFC 5321 section 3.3).
type transaction struct {
	open     bool
	identity *account.Identity
	envelope relay.Envelope
	size     int64 // announced with MAIL; 0: not
	refused  int   // recipients
	excess   int   // of them, those that were too many
	// seen are the recipients that are in the envelope, in one form.
	seen map[string]struct{}
	// With BDAT the content comes in parts.
	buffer  *message.Buffer
	content *smtp.Content
}

// reset ends the transaction and frees what it holds.
func (s *session) reset() {
	if s.tx.buffer != nil {
		if err := s.tx.buffer.Close(); err != nil {
			s.log.Error("content not freed", "err", err)
		}
	}
	clear(s.tx.seen)
	s.tx = transaction{seen: s.tx.seen}
	s.w.message = time.Time{}
	s.w.setBusy(false)
}

// mail is MAIL (RFC 5321 section 4.1.1.2).
func (s *session) mail(ctx context.Context, args []byte) smtp.Reply {
	limits := s.l.config.Limits
	switch {
	case s.helo == "":
		return badSequence("Send EHLO first.")
	case s.tx.open:
		return badSequence("A message is under way. Finish it, or send RSET.")
	case s.messages >= limits.Messages:
		return reply(421, "4.7.0", fmt.Sprintf("%d messages are the most in one session. Connect again.", limits.Messages))
	}
	if r := s.l.closed(); r.Code != 0 {
		return r
	}
	id, r := s.whose(ctx)
	if r.Code != 0 {
		return r
	}
	m, err := smtp.ParseMail(args)
	if err != nil {
		return asReply(err)
	}
	s.about.sender = m.From.String()
	if r, bad := s.checkMail(m); bad {
		return r
	}
	env := relay.Envelope{Sender: s.about.sender, UTF8: m.UTF8, RequireTLS: m.RequireTLS, Ret: m.Ret, EnvID: m.EnvID,
		Priority: m.Priority, Release: m.HoldUntil}
	if m.HoldFor > 0 {
		env.Release = time.Now().Add(m.HoldFor)
	}
	if err := s.l.entrance.Sender(ctx, id, env.Sender); err != nil {
		return s.refusal(err)
	}
	s.tx.open, s.tx.identity, s.tx.envelope, s.tx.size = true, id, env, m.Size
	s.w.setBusy(true)
	return reply(250, "2.1.0", "Ok")
}

// maxFeedback is the largest mail that may come back, in bytes. Who returns
// whole messages need not return large ones (RFC 3461 section 5.1.1).
const maxFeedback = 10 << 20

// whose tells for whom the session sends, or refuses it. Feedback may come from
// anybody; bare line ends are no reason to lose it.
func (s *session) whose(ctx context.Context) (*account.Identity, smtp.Reply) {
	if s.l.Mode == ModeFeedback {
		return &account.Identity{RepairLF: true}, smtp.Reply{}
	}
	id := s.identity
	if id == nil {
		id = s.l.accounts.Network(ctx, s.client.Addr())
	}
	if id == nil {
		return nil, s.loginFirst()
	}
	if !s.l.accounts.Alive(ctx, id) {
		return nil, reply(421, "4.7.0", "The credential of this session was revoked or blocked, or its account was. Log in with another one.")
	}
	return id, smtp.Reply{}
}

// checkMail refuses what is well-formed but not possible here.
func (s *session) checkMail(m smtp.Mail) (r smtp.Reply, bad bool) {
	most := s.l.most
	switch {
	case m.From.IsLiteral() && s.l.Mode != ModeFeedback:
		r = reply(553, "5.1.7", "A sender at an IP address cannot get replies or bounces. Use an address with a domain.")
	case m.Size > most: // RFC 1870 section 6.1
		r = reply(552, "5.3.4", tooLarge(most))
	case m.Body == "BINARYMIME":
		r = reply(555, "5.5.4", "BINARYMIME is not offered. Send 8BITMIME or 7BIT.")
	case m.RequireTLS && s.tls == nil: // RFC 8689 section 2
		r = reply(530, "5.7.10", "REQUIRETLS wants a session with TLS. Send STARTTLS first.")
	case m.HoldFor > maxHold || time.Until(m.HoldUntil) > maxHold: // RFC 4865 section 4.1
		r = badArgument(fmt.Sprintf("A message is held for %d days at most.", maxHold/(24*time.Hour)))
	}
	return r, r.Code != 0
}

// loginFirst refuses a client that nobody knows, and says what it can do.
func (s *session) loginFirst() smtp.Reply {
	switch {
	case s.mayLogin():
		return reply(530, "5.7.0", "Log in first: set user name and password in the client.")
	case s.l.tls != nil:
		return reply(530, "5.7.0", "Send STARTTLS first, then log in: set encryption, user name and password in the client.")
	default:
		return reply(530, "5.7.0", "Your address is not known here, and this port has no login.")
	}
}

// rcpt is RCPT (RFC 5321 section 4.1.1.3). A recipient given twice is one
// delivery.
func (s *session) rcpt(ctx context.Context, args []byte) smtp.Reply {
	if !s.tx.open {
		return badSequence("Send MAIL first.")
	}
	if s.tx.content != nil {
		return badSequence("The content has begun. Finish the message, or send RSET.")
	}
	r, err := smtp.ParseRcpt(args, s.tx.envelope.UTF8)
	if err == nil {
		s.about.sender, s.about.recipient = s.tx.envelope.Sender, r.To.String()
		err = s.addRecipient(ctx, r, s.about.recipient)
	}
	if err != nil {
		return s.refuseRecipient(asReply(err))
	}
	s.commands-- // bounded by the number of recipients
	return reply(250, "2.1.5", "Ok")
}

// maxExcess is how many times the recipients that a message may have can be
// tried in it.
const maxExcess = 10

// refuseRecipient counts a recipient that is not taken. Many of them in one
// message are no reason to end the session before its content comes: the same
// message would come again, to the same end. So they count as commands, not as
// errors, and those that are only too many, which the client is to send in
// another message (RFC 5321 section 4.5.3.1.10), have a bound of their own.
func (s *session) refuseRecipient(r smtp.Reply) smtp.Reply {
	s.tx.refused++
	s.errors--
	if r.Code == 452 {
		s.commands--
		if s.tx.excess++; s.tx.excess > maxExcess*s.l.config.Limits.Recipients {
			return reply(421, "4.7.0", "These are far too many recipients. Connect again, and send the message in parts.")
		}
	}
	return r
}

// addRecipient puts a recipient, whose address is given as text too, into the
// envelope. The error is a Reply.
func (s *session) addRecipient(ctx context.Context, r smtp.Rcpt, address string) error {
	if r.To.IsLiteral() {
		return reply(550, "5.1.2", "Mail to IP addresses is not relayed. Use an address with a domain.")
	}
	domain, err := r.To.ASCIIDomain()
	if err != nil {
		return reply(553, "5.1.2", "The recipient's domain is not valid: "+err.Error()+".")
	}
	key := r.To.Local + "@" + domain
	if _, twice := s.tx.seen[key]; twice {
		return nil
	}
	most := s.l.config.Limits.Recipients
	if len(s.tx.envelope.Recipients) >= most {
		return reply(452, "4.5.3", fmt.Sprintf("%d recipients are the most in one message. Send the rest in another.", most))
	}
	if err := s.l.entrance.Recipient(ctx, s.tx.identity, s.tx.envelope.Sender, address); err != nil {
		return s.refusal(err)
	}
	if s.tx.seen == nil {
		s.tx.seen = map[string]struct{}{}
	}
	s.tx.seen[key] = struct{}{}
	s.tx.envelope.Recipients = append(s.tx.envelope.Recipients,
		relay.Recipient{Address: address, Notify: relay.Notify(r.Notify), ORcpt: r.ORcpt})
	return nil
}
