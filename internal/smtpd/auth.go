package smtpd

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"strings"

	"github.com/xdg-go/scram"

	"postrider/internal/account"
	"postrider/internal/relay"
	"postrider/internal/smtp"
)

// mayLogin tells whether AUTH is offered on the session as it is.
func (s *session) mayLogin() bool {
	return s.l.Mode != ModeFeedback && (s.tls != nil || s.l.Mode == ModePlain || s.l.PlainAuth)
}

// auth is AUTH (RFC 4954).
func (s *session) auth(ctx context.Context, args []byte) smtp.Reply {
	mechanism, rest, more := strings.Cut(string(args), " ")
	var initial *string // initial response, still in base64; nil: none
	if more {
		rest = strings.TrimLeft(rest, " ")
		initial = &rest
	}
	switch {
	case s.helo == "":
		return badSequence("Send EHLO first.")
	case s.authenticated:
		return badSequence("You have logged in already.")
	case s.tx.open:
		return badSequence("A message is under way. Finish it, or send RSET, before AUTH.")
	case !s.mayLogin() && (s.l.tls == nil || s.l.Mode == ModeFeedback):
		return reply(502, "5.5.1", "AUTH is not offered here.")
	case !s.mayLogin():
		return reply(538, "5.7.11", "Logging in needs encryption. Send STARTTLS first (in the client's settings: \"STARTTLS\" or \"TLS\").")
	}
	if s.l.condition() == relay.Suspended {
		return reply(454, "4.7.0", "Logins can't be checked at the moment. Try again later.")
	}
	var id *account.Identity
	var err error
	switch mechanism = strings.ToUpper(mechanism); mechanism {
	case "PLAIN":
		id, err = s.authPlain(ctx, initial)
	case "LOGIN":
		id, err = s.authLogin(ctx, initial)
	case "SCRAM-SHA-256":
		id, err = s.authSCRAM(ctx, initial, false)
	case "SCRAM-SHA-256-PLUS":
		if s.tls == nil {
			return reply(504, "5.5.4", "SCRAM-SHA-256-PLUS works over TLS only.")
		}
		id, err = s.authSCRAM(ctx, initial, true)
	default:
		return reply(504, "5.5.4", "This mechanism is not offered. Use PLAIN, LOGIN or SCRAM-SHA-256.")
	}
	if err != nil {
		return s.loginFailed(mechanism, err)
	}
	s.l.config.Observer.Login(mechanism, 235)
	s.identity, s.authenticated = id, true
	s.log.Debug("logged in", "mechanism", mechanism, "credential", id.Credential.String()) // the user name may be an API key
	return reply(235, "2.7.0", "You are logged in.")
}

// loginFailed makes the reply to a login that did not work.
func (s *session) loginFailed(mechanism string, err error) smtp.Reply {
	var r smtp.Reply
	if errors.As(err, &r) { // the exchange itself went wrong
		return r
	}
	var broken *brokenError
	if errors.As(err, &broken) {
		s.fail(broken.err)
		return smtp.Reply{}
	}
	r = s.loginRefusal(err)
	s.l.config.Observer.Login(mechanism, r.Code)
	s.log.Info("login failed", "mechanism", mechanism, "reply", r.Code)
	if s.failures++; s.failures >= maxLoginFailures {
		s.send(r)
		return reply(421, "4.7.0", "These are too many failed logins. Connect again, with the right password.")
	}
	return r
}

// brokenError is a connection that broke in the middle of AUTH.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return e.err.Error() }

// prompt sends a challenge and reads the response to it. Errors are a reply to
// send or a brokenError.
func (s *session) prompt(challenge string) (string, error) {
	s.send(smtp.Reply{Code: 334, Lines: []string{base64.StdEncoding.EncodeToString([]byte(challenge))}})
	line, err := s.readLine(maxAuth)
	if errors.Is(err, smtp.ErrLineTooLong) {
		return "", reply(500, "5.5.6", "The response is too long.")
	}
	if err != nil {
		return "", &brokenError{err}
	}
	return decode(string(line))
}

// decode reads a response.
func decode(text string) (string, error) {
	text = strings.Trim(text, " ")
	if text == "*" {
		return "", reply(501, "5.7.0", "The login was cancelled.")
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return "", reply(501, "5.5.2", "The response is not base64.")
	}
	return string(b), nil
}

// response gives the initial response, or prompts for it with an empty
// challenge. A single "=" stands for an empty one (RFC 4954 section 4).
func (s *session) response(initial *string) (string, error) {
	switch {
	case initial == nil:
		return s.prompt("")
	case *initial == "=":
		return "", nil
	default:
		return decode(*initial)
	}
}

// authPlain is RFC 4616.
func (s *session) authPlain(ctx context.Context, initial *string) (*account.Identity, error) {
	text, err := s.response(initial)
	if err != nil {
		return nil, err
	}
	part := strings.Split(text, "\x00")
	if len(part) != 3 {
		return nil, reply(501, "5.5.2", "The response of PLAIN has three parts: NUL, user name, NUL, password.")
	}
	if part[0] != "" && part[0] != part[1] {
		return nil, &relay.Error{Code: relay.Unauthenticated, Text: "You cannot log in for somebody else.", Advice: "Leave the authorization identity empty."}
	}
	return s.login(ctx, part[1], part[2])
}

// authLogin is draft-murchison-sasl-login. The prompts must be just these: Xerox
// devices leave at any other. Some clients give the user name with the command.
func (s *session) authLogin(ctx context.Context, initial *string) (*account.Identity, error) {
	var user string
	var err error
	if initial != nil {
		user, err = s.response(initial)
	} else {
		user, err = s.prompt("Username:")
	}
	if err != nil {
		return nil, err
	}
	password, err := s.prompt("Password:")
	if err != nil {
		return nil, err
	}
	return s.login(ctx, user, password)
}

func (s *session) login(ctx context.Context, user, password string) (*account.Identity, error) {
	return s.l.accounts.Login(ctx, s.client.Addr(), user, password)
}

// authSCRAM is SCRAM-SHA-256 (RFC 7677, RFC 5802), with plus bound to the TLS
// session.
func (s *session) authSCRAM(ctx context.Context, initial *string, plus bool) (*account.Identity, error) {
	first, err := s.response(initial)
	if err != nil {
		return nil, err
	}
	badLogin := &relay.Error{Code: relay.Unauthenticated, Text: "User name or password is wrong.", Advice: "Check both, or try PLAIN."}
	if strings.HasPrefix(first, "p=") != plus {
		return nil, reply(501, "5.5.2", "Channel binding goes with SCRAM-SHA-256-PLUS, and only with it.")
	}
	var user string
	var verifier *account.Verifier
	var unavailable error
	server, err := scramServer(func(name string) (*account.Verifier, error) {
		user = name
		verifier, unavailable = s.l.accounts.SCRAM(ctx, s.client.Addr(), name)
		return verifier, unavailable
	})
	if err != nil {
		return nil, err
	}
	binding, nonce := s.binding(first), rand.Text()
	server.WithNonceGenerator(func() string { return nonce })
	talk := server.NewConversationWithChannelBinding(binding)
	challenge, err := talk.Step(first)
	if unavailable != nil {
		return nil, unavailable
	}
	if err != nil {
		return nil, badLogin
	}
	final, err := s.prompt(challenge)
	if err != nil {
		return nil, err
	}
	proof, err := talk.Step(final)
	if (err != nil || !talk.Valid()) && verifier.Before != nil {
		// The same exchange with the secret before the last rotation: its salt is
		// the same, so the client can't tell.
		verifier = verifier.Before
		if server, err = scramServer(func(string) (*account.Verifier, error) { return verifier, nil }); err != nil {
			return nil, err
		}
		server.WithNonceGenerator(func() string { return nonce })
		talk = server.NewConversationWithChannelBinding(binding)
		if _, err = talk.Step(first); err == nil {
			proof, err = talk.Step(final)
		}
	}
	if authz := talk.AuthzID(); err != nil || !talk.Valid() || verifier.Identity == nil || authz != "" && authz != user {
		s.l.accounts.Failed(s.client.Addr(), user)
		return nil, badLogin
	}
	// SMTP has no room for data in 235, so the server's proof is one more
	// challenge, answered with nothing.
	if _, err := s.prompt(proof); err != nil {
		return nil, err
	}
	if err := s.l.accounts.Succeeded(ctx, s.client.Addr(), user); err != nil {
		return nil, err
	}
	return verifier.Identity, nil
}

func scramServer(find func(name string) (*account.Verifier, error)) (*scram.Server, error) {
	return scram.SHA256.NewServer(func(name string) (scram.StoredCredentials, error) {
		v, err := find(name)
		if err != nil {
			return scram.StoredCredentials{}, err
		}
		return scram.StoredCredentials{KeyFactors: scram.KeyFactors{Salt: string(v.Salt), Iters: v.Iterations},
			StoredKey: v.StoredKey, ServerKey: v.ServerKey}, nil
	})
}

// binding is the channel binding that the client's first message names, or, when
// it names none, any that is not empty: then a client that believes us to have
// none is told so (RFC 5802 section 6). Without TLS it is empty.
func (s *session) binding(first string) scram.ChannelBinding {
	if s.tls == nil {
		return scram.ChannelBinding{}
	}
	if strings.HasPrefix(first, "p=tls-server-end-point,") && s.leaf != nil {
		if b, err := scram.NewTLSServerEndpointBinding(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{s.leaf}}); err == nil {
			return b
		}
	}
	// RFC 9266: over TLS 1.2 only with extended master secret, which package tls
	// sees to.
	b, err := scram.NewTLSExporterBinding(s.tls)
	if err != nil {
		return scram.ChannelBinding{Type: "none", Data: []byte{0}}
	}
	return b
}
