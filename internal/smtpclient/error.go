package smtpclient

import (
	"errors"
	"fmt"

	"postrider/internal/smtp"
)

// The stages of a session, as Error.Stage names them.
const (
	StageGreeting = "greeting"
	StageEhlo     = "ehlo"
	StageTLS      = "starttls" // STARTTLS, the handshake, the certificate
	StageAuth     = "auth"
	StageMail     = "mail"
	StageRcpt     = "rcpt"
	StageData     = "data" // DATA itself, and the content on its way
	StageDot      = "dot"  // the content is out; its reply is awaited or came
)

// Error says where a session or a transaction ended, and why.
type Error struct {
	Stage string
	// Reply is what the peer answered; nil where the trouble was another.
	Reply *smtp.Reply
	// Err is the trouble where Reply is nil: the connection, the certificate, a
	// peer that breaks the protocol. It is an smtp.Reply where we refuse what the
	// peer never saw, for instance a message that is larger than it takes.
	Err error
	// Unknown tells that the whole content went out and its reply never came: the
	// peer may have the message or not.
	Unknown bool
	// Dialogue is what was said, where New failed. Send gives it in its Result.
	Dialogue []Exchange
}

func (e *Error) Error() string {
	if e.Reply != nil {
		return fmt.Sprintf("smtp %s: %s", e.Stage, e.Reply)
	}
	return fmt.Sprintf("smtp %s: %v", e.Stage, e.Err)
}

func (e *Error) Unwrap() error {
	if e.Reply != nil {
		return *e.Reply
	}
	return e.Err
}

// Permanent tells whether trying this message again is of no use: the peer, or we
// in its place, answered 5xx to it. What is refused before MAIL is about the host
// or about us: another host or another day may serve, and a wrong password must
// bounce no mail.
func (e *Error) Permanent() bool {
	switch e.Stage {
	case StageMail, StageRcpt, StageData, StageDot:
		var r smtp.Reply
		return errors.As(e.Unwrap(), &r) && r.Permanent()
	}
	return false
}

var errOutOfTurn = errors.New("the receiver answered before it was asked")

// What people are told instead of io.EOF and kin.
var (
	errClosed = errors.New("the receiver closed the connection")
	errSilent = errors.New("the receiver did not answer in time")
)

// Exchange is one command and its reply, which is zero where none came. Secrets
// and content are left out of Command, which is empty for the greeting.
type Exchange struct {
	Command string
	Reply   smtp.Reply
}
