// Package policy decides whether a message may be sent. It is pure: values in,
// a verdict out.
package policy

import (
	"fmt"
	"strings"

	"postrider/internal/account"
	"postrider/internal/relay"
	"postrider/internal/smtp"
)

// Limits are the operator's bounds.
type Limits struct {
	MessageSize int64 // bytes
	Recipients  int
	Hops        int // Received headers
}

// Facts are what is known of the content.
type Facts struct {
	Size     int64
	Received int  // Received headers
	HasFrom  bool // a From header
}

// Check gives nil where the message may go, else a relay.Error that says why
// not.
func Check(id *account.Identity, env relay.Envelope, f Facts, l Limits) error {
	switch {
	case id == nil:
		return refuse(relay.Unauthenticated, "Mail is taken from known senders only.", "Log in first.")
	case len(env.Recipients) == 0:
		return refuse(relay.Invalid, "The message has no recipients.", "Name at least one.")
	case len(env.Recipients) > l.Recipients:
		return refuse(relay.TooMany, fmt.Sprintf("The message has %d recipients; %d are allowed.", len(env.Recipients), l.Recipients), "Send it in several parts.")
	case f.Size > l.MessageSize:
		return refuse(relay.TooLarge, fmt.Sprintf("The message has %d bytes; %d are allowed.", f.Size, l.MessageSize), "Send a link instead of an attachment, or ask the operator to raise limits.message_size.")
	case f.Received > l.Hops:
		return refuse(relay.Loop, fmt.Sprintf("The message has passed %d servers: it goes in a circle.", f.Received), "Look at its Received headers to find the forwarding that sends it back.")
	case f.Size == 0:
		return refuse(relay.BadContent, "The message is empty.", "Send at least a header.")
	case !f.HasFrom && env.Sender == "":
		return refuse(relay.BadContent, "The message has neither a From header nor an envelope sender.", "Add a From header (RFC 5322 section 3.6.2).")
	}
	return CheckSender(id, env.Sender)
}

// CheckSender tells whether the identity may use the envelope sender. Case does
// not count, nor how a domain beyond ASCII is written.
func CheckSender(id *account.Identity, sender string) error {
	if len(id.Senders) == 0 {
		return nil
	}
	if sender != "" { // the null sender is nobody's, and has no domain
		i := strings.LastIndexByte(sender, '@') // a quoted local part may have more of them
		domain := strings.ToLower(sender[i+1:])
		if d, err := smtp.ASCIIDomain(domain); err == nil {
			domain = d
		}
		whole := strings.ToLower(sender[:i+1]) + domain
		for _, s := range id.Senders {
			if s = strings.ToLower(s); s == whole || s == domain {
				return nil
			}
		}
	}
	return refuse(relay.Forbidden, fmt.Sprintf("This credential may not send as <%s>.", sender),
		"Send as one of: "+strings.Join(id.Senders, ", ")+".")
}

func refuse(code relay.Code, text, advice string) error {
	return &relay.Error{Code: code, Text: text, Advice: advice}
}
