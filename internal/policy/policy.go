// Package policy decides whether a message may be sent: in whose name it speaks,
// whether its form allows it, and to whom it may go. It is pure: values in, a
// verdict out. Who asks looks up what the account has of the names that a
// message speaks in (Names), asks Check, and for what may go to the account's own
// addresses alone, asks Own about each recipient.
package policy

import (
	"fmt"
	"slices"
	"strings"

	"postrider/internal/account"
	"postrider/internal/message"
	"postrider/internal/relay"
)

// Limits are the operator's bounds.
type Limits struct {
	MessageSize int64 // bytes
	Recipients  int
	Hops        int // Received headers
}

// Rules are what holds where an account has none of its own.
type Rules struct {
	Senders relay.SenderRule
	DNS     relay.DNSRule
	Sandbox int64 // most recipients a day of what goes to own addresses; 0: nothing does
}

// For gives the rules that hold for an account.
func (r Rules) For(a *relay.Account) Rules {
	if a.Senders != "" {
		r.Senders = a.Senders
	}
	if a.DNS != "" {
		r.DNS = a.DNS
	}
	return r
}

// Case is all that a verdict rests on.
type Case struct {
	Identity *account.Identity // nil: nobody has logged in
	Account  *relay.Account    // of the identity
	Rules    Rules             // that hold for the account
	Limits   Limits
	Envelope *relay.Envelope
	Size     int64 // of the content, in bytes
	Facts    *message.Facts
	Names    []Name              // in which the message speaks; see Names
	Standing map[string]Standing // of them, by their keys
}

// Verdict is what becomes of a message that is not refused.
type Verdict struct {
	// Sandbox is why the message may go to the account's own addresses only, to be
	// given where another recipient is among them; nil: it may go anywhere.
	Sandbox error
	// Warnings tell what is likely to harm the message at its receivers.
	Warnings []relay.Diagnosis
}

// Check gives a verdict, or a relay.Error that says why the message may go to
// nobody.
func Check(c Case) (Verdict, error) {
	if err := c.form(); err != nil {
		return Verdict{}, err
	}
	if err := Standstill(c.Account); err != nil {
		return Verdict{}, err
	}
	var v Verdict
	v.Warnings = c.oddities()
	if c.Rules.Senders != relay.SendersAny || len(c.Identity.Senders) > 0 || c.Account.Status == relay.Sandbox {
		if err := c.speakers(); err != nil {
			return Verdict{}, err
		}
	}
	for _, n := range c.Names {
		if err := within(c.Identity, n); err != nil {
			return Verdict{}, err
		}
	}
	if c.Rules.Senders != relay.SendersAny {
		v.Sandbox = c.unverified()
	}
	if v.Sandbox == nil {
		v.Sandbox = InSandbox(c.Account)
	}
	if v.Sandbox != nil && c.Rules.Sandbox == 0 {
		return Verdict{}, v.Sandbox
	}
	broken, err := c.records()
	v.Warnings = append(v.Warnings, broken...)
	return v, err
}

// Standstill is the refusal of an account that sends nothing at all, or nil.
func Standstill(a *relay.Account) error {
	switch {
	case !a.Closed.IsZero():
		return refuse(relay.Forbidden, "This account is closed.", "Ask the operator.")
	case a.Status == relay.Blocked:
		return refuse(relay.Forbidden, "This account is blocked."+because(a.Reason), "Ask the operator.")
	}
	return nil
}

// InSandbox is why an account may send to its own addresses only, whatever it has
// verified, or nil.
func InSandbox(a *relay.Account) error {
	if a.Status != relay.Sandbox {
		return nil
	}
	return refuse(relay.Unverified, "This account may send to its own verified addresses only."+because(a.Reason), "Ask the operator to take it out of the sandbox.")
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return " The reason: " + strings.TrimSuffix(reason, ".") + "."
}

// form refuses what nobody may send.
func (c *Case) form() error {
	l, env, f := c.Limits, c.Envelope, c.Facts
	switch {
	case c.Identity == nil:
		return refuse(relay.Unauthenticated, "Mail is taken from known senders only.", "Log in first.")
	case len(env.Recipients) == 0:
		return refuse(relay.Invalid, "The message has no recipients.", "Name at least one.")
	case len(env.Recipients) > l.Recipients:
		return refuse(relay.TooMany, fmt.Sprintf("The message has %d recipients; %d are allowed.", len(env.Recipients), l.Recipients), "Send it in several parts.")
	case c.Size > l.MessageSize:
		return refuse(relay.TooLarge, fmt.Sprintf("The message has %d bytes; %d are allowed.", c.Size, l.MessageSize), "Send a link instead of an attachment, or ask the operator to raise limits.message_size.")
	case f.Received > l.Hops:
		return refuse(relay.Loop, fmt.Sprintf("The message has passed %d servers: it goes in a circle.", f.Received), "Look at its Received headers to find the forwarding that sends it back.")
	case c.Size == 0:
		return refuse(relay.BadContent, "The message is empty.", "Send at least a header.")
	case f.Bare:
		return enhanced("5.6.11", refuse(relay.BadContent, "The message has a CR or LF that is not part of CR LF.", "Make the client end lines with CR LF."))
	case f.Authors.Fields > 1: // many a receiver refuses it; which of them it shows, nobody can tell
		return refuse(relay.BadContent, fmt.Sprintf("The header has %d From fields; it may have one.", f.Authors.Fields),
			"Name all authors in one From field, or send a message for each (RFC 5322 section 3.6).")
	case !f.HasFrom && env.Sender == "":
		return refuse(relay.BadContent, "The message has neither a From header nor an envelope sender.", "Add a From header (RFC 5322 section 3.6.2).")
	}
	return nil
}

// speakers refuses a header of which it can't be told for sure whose message it
// says to be (RFC 5322 sections 3.6.2 and 3.6.6).
func (c *Case) speakers() error {
	f := c.Facts
	if f.Problem != "" && !f.NoHeader {
		// Some readers go on behind it, and may find another From there.
		return refuse(relay.BadContent, f.Problem, "Make the client write a header of fields, then a blank line, then the body.")
	}
	for _, is := range []struct {
		name  string
		field *message.Mailboxes
		most  int
	}{{"From", &f.Authors, 0}, {"Sender", &f.Senders, 1}, {"Resent-From", &f.ResentAuthors, 0}, {"Resent-Sender", &f.ResentSender, 1}} {
		switch n := len(is.field.List); {
		case is.field.Fields == 0:
		case is.field.Problem != "":
			return refuse(relay.BadContent, fmt.Sprintf("The %s field can't be read: %s.", is.name, is.field.Problem),
				`Write it as in: Ann Example <ann@example.com>.`)
		case n == 0:
			return refuse(relay.BadContent, fmt.Sprintf("The %s field names nobody.", is.name), "Name the address that the message comes from.")
		case is.most > 0 && (n > is.most || is.field.Fields > 1):
			return refuse(relay.BadContent, fmt.Sprintf("The %s field names several addresses; it may name one.", is.name), "Name the one that sends the message.")
		}
	}
	switch {
	case several(f.Authors) && f.Senders.Fields == 0:
		return refuse(relay.BadContent, "From names several authors, and no Sender field says who of them sends the message.",
			"Add a Sender field with one address (RFC 5322 section 3.6.2).")
	case several(f.ResentAuthors) && f.ResentSender.Fields == 0:
		return refuse(relay.BadContent, "Resent-From names several people, and no Resent-Sender field says who of them sends the message.",
			"Add a Resent-Sender field with one address (RFC 5322 section 3.6.6).")
	}
	return nil
}

// several tells whether there is more than one address, however often each is
// written.
func several(m message.Mailboxes) bool {
	for _, a := range m.List {
		if !strings.EqualFold(a.String(), m.List[0].String()) {
			return true
		}
	}
	return false
}

// oddities warns of what is against the rules and yet goes through.
func (c *Case) oddities() (warnings []relay.Diagnosis) {
	f := c.Facts
	warn := func(text, advice string) {
		warnings = append(warnings, relay.Diagnosis{Category: "warning/header", Text: text, Advice: advice})
	}
	if f.Problem != "" && !f.NoHeader {
		warn(f.Problem, "Make the client write a header of fields, then a blank line, then the body.")
	}
	if twice := slices.DeleteFunc(slices.Clone(f.Twice), func(s string) bool { return s == "From" }); len(twice) > 0 {
		warn("The header has more than one field "+strings.Join(twice, ", ")+": some receivers refuse that.", "Make the client write each once (RFC 5322 section 3.6).")
	}
	if f.EightBit && (!f.HasMIME || !f.HasType) {
		warn("The body has bytes above 127, and the header does not say which characters they are.",
			"Make the client send MIME-Version, and Content-Type with a charset (RFC 2045 section 5.2).")
	}
	if f.Authors.Problem != "" {
		warn("The From field can't be read for sure: "+f.Authors.Problem+".", `Write it as in: Ann Example <ann@example.com>.`)
	}
	return warnings
}

// refuse makes the error that both entrances show.
func refuse(code relay.Code, text, advice string) error {
	return &relay.Error{Code: code, Text: text, Advice: advice}
}

// enhanced gives a refusal a status code of its own (RFC 3463).
func enhanced(status string, err error) error {
	if e, ok := err.(*relay.Error); ok {
		e.Enhanced = status
	}
	return err
}
