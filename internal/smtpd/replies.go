package smtpd

import (
	"errors"
	"fmt"

	"postrider/internal/relay"
	"postrider/internal/smtp"
)

func reply(code int, enhanced string, lines ...string) smtp.Reply {
	return smtp.Reply{Code: code, Enhanced: enhanced, Lines: lines}
}

func ok(text string) smtp.Reply { return reply(250, "2.0.0", text) }

func lineTooLong() smtp.Reply {
	return reply(500, "5.5.2", fmt.Sprintf("The line is too long: %d bytes are the most.", maxLine))
}

func tooManyErrors() smtp.Reply {
	return reply(421, "4.7.0", "These are too many errors. Mend the client, then connect again.")
}

func badSequence(text string) smtp.Reply { return reply(503, "5.5.1", text) }

func badArgument(text string) smtp.Reply { return reply(501, "5.5.4", text) }

// refusal makes the reply to a message out of an error. What is not a
// relay.Error is for the log, not for the client.
func (s *session) refusal(err error) smtp.Reply {
	var e *relay.Error
	if !errors.As(err, &e) {
		e = &relay.Error{Code: relay.Internal, Text: "Something went wrong here.", Advice: "Try again later; the server's log has the details.", Err: err}
	}
	if e.Err != nil || e.Code == relay.Internal {
		s.log.Error("message not accepted", "err", err)
	}
	code, enhanced := e.Reply()
	return reply(code, enhanced, sentence(e))
}

// loginRefusal is refusal for AUTH (RFC 4954 section 6).
func (s *session) loginRefusal(err error) smtp.Reply {
	var e *relay.Error
	switch {
	case !errors.As(err, &e):
		s.log.Error("login not checked", "err", err)
		return reply(454, "4.7.0", "Logins cannot be checked at the moment. Try again later.")
	case e.Code == relay.Unauthenticated:
		return reply(535, "5.7.8", sentence(e))
	case e.Code == relay.Forbidden:
		return reply(535, "5.7.1", sentence(e))
	}
	if e.Err != nil {
		s.log.Error("login not checked", "err", err)
	}
	return reply(454, "4.7.0", sentence(e))
}

func sentence(e *relay.Error) string {
	if e.Advice == "" {
		return e.Text
	}
	return e.Text + " " + e.Advice
}
