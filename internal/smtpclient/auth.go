package smtpclient

import (
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"

	"postrider/internal/smtp"
)

// mechanism answers the peer's challenges. first is the initial response (RFC
// 4954 section 4), nil for none; next answers one challenge.
type mechanism struct {
	name  string
	first []byte
	next  func(challenge []byte) ([]byte, error)
	// done tells after 235 whether the peer proved itself too; may be nil.
	done func() error
}

// auth logs in (RFC 4954) by the best mechanism that both sides know.
func (c *Conn) auth() *Error {
	a := c.opt.Auth
	if !a.Unprotected {
		if c.tls == nil {
			return &Error{Stage: StageAuth, Err: errors.New("the password is not sent without TLS, which this host does not offer")}
		}
		skip := c.opt.TLSConfig != nil && c.opt.TLSConfig.InsecureSkipVerify
		if !c.tls.Verified && !skip {
			return &Error{Stage: StageAuth, Err: fmt.Errorf("the password is not sent: %s", c.tls.Problem)}
		}
	}
	tried := false
	for _, name := range []string{"SCRAM-SHA-256", "PLAIN", "LOGIN"} {
		if !slices.Contains(c.ext.Auth, name) {
			continue
		}
		tried = true
		m, err := newMechanism(name, a)
		if err != nil {
			return &Error{Stage: StageAuth, Err: err}
		}
		r, e := c.converse(m)
		if e != nil {
			return e
		}
		switch r.Code {
		case 235:
			return nil
		case 504, 534: // offered, yet not for this user
			continue
		}
		return refused(StageAuth, r)
	}
	if tried {
		return &Error{Stage: StageAuth, Err: errors.New("the host refused every AUTH mechanism that it offers")}
	}
	return &Error{Stage: StageAuth, Err: fmt.Errorf("the host offers no AUTH mechanism that is known here, but %q", strings.Join(c.ext.Auth, " "))}
}

// converse runs one mechanism to its final reply.
func (c *Conn) converse(m *mechanism) (smtp.Reply, *Error) {
	line := "AUTH " + m.name
	shown := line
	if m.first != nil {
		line += " " + base64.StdEncoding.EncodeToString(m.first)
		shown += " (secret)"
	}
	for range 5 {
		r, err := c.exchange(StageAuth, line, shown, maxReply)
		c.redactLast()
		if err != nil {
			if err.Reply != nil {
				err.Reply = c.redact(r)
			}
			return r, err
		}
		r = *c.redact(r)
		if r.Code == 235 && m.done != nil {
			if err := m.done(); err != nil {
				return r, &Error{Stage: StageAuth, Err: err}
			}
		}
		if r.Code != 334 {
			return r, nil
		}
		challenge, derr := base64.StdEncoding.DecodeString(strings.TrimSpace(r.Text()))
		if derr != nil {
			return r, &Error{Stage: StageAuth, Err: errors.New("the host's challenge is not base64")}
		}
		answer, aerr := m.next(challenge)
		if aerr != nil {
			return r, &Error{Stage: StageAuth, Err: aerr}
		}
		line, shown = base64.StdEncoding.EncodeToString(answer), "(secret)"
	}
	return smtp.Reply{}, &Error{Stage: StageAuth, Err: errors.New("the host asks on and on")}
}

// redact takes the password out of a reply: nobody says that a host does not
// repeat what it got.
func (c *Conn) redact(r smtp.Reply) *smtp.Reply {
	a := c.opt.Auth
	if a.Password == "" {
		return &r
	}
	hide := strings.NewReplacer(
		base64.StdEncoding.EncodeToString([]byte("\x00"+a.User+"\x00"+a.Password)), "(secret)",
		base64.StdEncoding.EncodeToString([]byte(a.Password)), "(secret)",
		a.Password, "(secret)")
	r.Lines = slices.Clone(r.Lines)
	for i, l := range r.Lines {
		r.Lines[i] = hide.Replace(l)
	}
	return &r
}

func (c *Conn) redactLast() {
	if n := len(c.opening); n > 0 {
		c.opening[n-1].Reply = *c.redact(c.opening[n-1].Reply)
	}
}

func newMechanism(name string, a *Auth) (*mechanism, error) {
	switch name {
	case "PLAIN": // RFC 4616
		if strings.ContainsRune(a.User+a.Password, 0) {
			return nil, errors.New("user or password hold a NUL, which AUTH PLAIN cannot say")
		}
		return &mechanism{name: name, first: []byte("\x00" + a.User + "\x00" + a.Password), next: noNext}, nil
	case "LOGIN":
		return loginMechanism(a), nil
	default:
		return scramMechanism(a)
	}
}

func noNext([]byte) ([]byte, error) {
	return nil, errors.New("the host asks for more than the mechanism has")
}

// loginMechanism is LOGIN, which has no RFC: the host asks for the user, then for
// the password. The prompts differ, so only their order counts.
func loginMechanism(a *Auth) *mechanism {
	answers := []string{a.User, a.Password}
	return &mechanism{name: "LOGIN", next: func([]byte) ([]byte, error) {
		if len(answers) == 0 {
			return noNext(nil)
		}
		answer := answers[0]
		answers = answers[1:]
		return []byte(answer), nil
	}}
}

// maxIterations bounds the work that a host may ask for in SCRAM.
const maxIterations = 1_000_000

// iterations is the count in the host's first message (RFC 5802 section 5.1).
var iterations = regexp.MustCompile(`(?:^|,)i=([0-9]+)(?:,|$)`)

// scramMechanism is SCRAM-SHA-256 (RFC 7677), in which the host must prove that
// it knows the password too.
func scramMechanism(a *Auth) (*mechanism, error) {
	client, err := scram.SHA256.NewClient(a.User, a.Password, "")
	if err != nil {
		return nil, errors.New("user or password hold characters that SCRAM cannot say")
	}
	conv := client.NewConversation()
	first, err := conv.Step("")
	if err != nil {
		return nil, fmt.Errorf("begin SCRAM: %w", err)
	}
	return &mechanism{
		name:  "SCRAM-SHA-256",
		first: []byte(first),
		next: func(challenge []byte) ([]byte, error) {
			if m := iterations.FindSubmatch(challenge); m != nil {
				if n, err := strconv.Atoi(string(m[1])); err != nil || n > maxIterations {
					return nil, fmt.Errorf("the host asks for %s iterations in SCRAM, more than %d", m[1], maxIterations)
				}
			}
			if conv.Done() {
				return noNext(nil)
			}
			answer, err := conv.Step(string(challenge))
			if err != nil {
				return nil, errors.New("SCRAM failed: the password is wrong, or the host does not know it")
			}
			return []byte(answer), nil
		},
		done: func() error {
			if !conv.Valid() {
				return errors.New("the host did not prove in SCRAM that it knows the password")
			}
			return nil
		},
	}, nil
}
