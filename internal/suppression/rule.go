// Package suppression decides whom an account must not send to: which failures
// keep an address from further mail, and, as mail comes in, who is on the list.
package suppression

import (
	"strings"

	"postrider/internal/policy"
	"postrider/internal/relay"
	"postrider/internal/smtp"
)

// Rule says which failures keep an address from being sent to. It is a pure
// function of an outcome; the store counts.
type Rule struct {
	Hard bool           // an address that is certainly dead, at once
	Soft relay.SoftRule // failures that pass, when there are so many
}

// Judge completes an outcome whose Address is set with what follows for that
// address.
func (r Rule) Judge(o *relay.Outcome) {
	switch {
	case o.Address == "":
	case o.Kind == relay.EventDelivered && r.Soft.Failures == 0:
		o.Address = "" // there is nothing to clear
	case o.Kind != relay.EventBounced && o.Kind != relay.EventExpired:
	case o.Kind == relay.EventBounced && o.Diagnosis.Suppress:
		if r.Hard {
			o.Suppress = relay.ReasonBounce
		}
	case counts(o):
		o.Soft = r.Soft
	}
}

// ofTheAddress are the categories of failures that say something of the address,
// or of the domain that it is in. The others are of us, of the message or of the
// moment: nobody is suppressed for a greylisting, a limit or a spam filter.
var ofTheAddress = map[string]bool{"no-such-mailbox": true, "no-such-domain": true, "mailbox-disabled": true, "mailbox-full": true,
	"connection-problem": true, "dns-problem": true, "expired": true, "other": true}

// counts tells whether a delivery that has ended without success counts against
// its address.
func counts(o *relay.Outcome) bool {
	kind, category, _ := strings.Cut(o.Diagnosis.Category, "/")
	return kind != "block" && ofTheAddress[category]
}

// Key is an address in the form that suppressions have; empty where it is none.
func Key(address string) string {
	a, err := smtp.ParseAddress(address, true)
	if err != nil {
		return ""
	}
	return policy.NameOf("RCPT", a).Key
}
