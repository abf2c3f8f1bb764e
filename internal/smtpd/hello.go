package smtpd

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"postrider/internal/smtp"
)

// maxHold is how far in the future a release may lie (RFC 4865).
const maxHold = 30 * 24 * time.Hour

// hello is HELO and EHLO (RFC 5321 section 4.1.1.1).
func (s *session) hello(verb smtp.Verb, args []byte) smtp.Reply {
	name, _, _ := strings.Cut(string(args), " ") // some add a comment
	switch {
	case name == "":
		return badArgument("Say your host name with it, or your address in brackets.")
	case len(name) > 255 || !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsGraphic(r) || strings.ContainsRune(`()<>@,;\"`, r) }):
		return badArgument("This cannot be a host name. Say your host name, or your address in brackets.")
	}
	s.reset() // RFC 5321 section 4.1.4
	s.helo, s.extended = name, verb == smtp.EHLO
	greeting := fmt.Sprintf("%s greets you, %s", s.l.config.Hostname, s.client.Addr())
	if !s.extended {
		return smtp.Reply{Code: 250, Lines: []string{greeting}}
	}
	return smtp.Reply{Code: 250, Lines: append([]string{greeting}, s.extensions()...)}
}

// extensions is what EHLO offers here and now.
func (s *session) extensions() []string {
	l := s.l.config.Limits
	list := []string{
		"PIPELINING",                       // RFC 2920
		fmt.Sprintf("SIZE %d", s.l.most),   // RFC 1870
		"8BITMIME", "SMTPUTF8", "CHUNKING", // RFC 6152, 6531, 3030
		"DSN", "ENHANCEDSTATUSCODES", // RFC 3461, 2034
		fmt.Sprintf("LIMITS MAILMAX=%d RCPTMAX=%d", l.Messages, l.Recipients),                                            // RFC 9422
		fmt.Sprintf("FUTURERELEASE %d %s", int(maxHold/time.Second), time.Now().UTC().Add(maxHold).Format(time.RFC3339)), // RFC 4865
		"MT-PRIORITY", // RFC 6710
	}
	if s.tls != nil {
		list = append(list, "REQUIRETLS") // RFC 8689
	} else if s.l.tls != nil {
		list = append(list, "STARTTLS") // RFC 3207
	}
	if s.mayLogin() {
		// CRAM-MD5 is left out on purpose: it wants passwords kept in the clear,
		// and some clients try it first, and nothing after it.
		plus := ""
		if s.tls != nil {
			plus = "SCRAM-SHA-256-PLUS "
		}
		list = append(list, "AUTH "+plus+"SCRAM-SHA-256 PLAIN LOGIN") // RFC 4954
	}
	return list
}

// starttls is STARTTLS (RFC 3207).
func (s *session) starttls(ctx context.Context, args []byte) smtp.Reply {
	switch {
	case s.tls != nil:
		return badSequence("TLS is on already.")
	case s.l.tls == nil:
		return reply(502, "5.5.1", "STARTTLS is not offered here.")
	case len(args) > 0:
		return badArgument("STARTTLS stands alone.")
	}
	s.send(reply(220, "2.0.0", "Begin TLS"))
	if n := s.in.Buffered(); n > 0 {
		// startTLS drops them: they came in the clear, from anybody on the way.
		s.log.Warn("commands came in the clear behind STARTTLS: dropped", "bytes", n)
	}
	if err := s.startTLS(ctx, nil); err != nil {
		s.log.Info("session is ended", "err", err)
		s.l.config.Observer.TurnedAway(s.l.Name, AwayTLS)
		s.over = true
	}
	return smtp.Reply{}
}
