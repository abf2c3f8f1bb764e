package relay

import (
	"slices"
	"strings"
)

// EventFilter says which events are wanted as they come. Fields that are zero ask
// for nothing; the others must all hold. Texts are sought as they stand, in either
// case of letters.
type EventFilter struct {
	Kinds       []Kind   // any of them
	Stream      Stream   // of the message
	Credentials []ID     // that it was submitted with: any of them
	Tags        []string // of the message: any of them
	Domains     []string // of the recipient, lower case, as A-labels: any of them
	Categories  []string // of the diagnosis: "hard/no-such-mailbox", or "hard" for all of that kind; any of them
	Recipient   string   // part of the address
	Sender      string   // part of the envelope sender; NullSender asks for mail without one
	Subject     string   // part of it
	Reply       string   // part of the reply, with its codes
	Message     string   // the message's id, or its Message-ID header with or without brackets
}

// WantsKind tells whether events of that kind are wanted at all.
func (f *EventFilter) WantsKind(k Kind) bool { return len(f.Kinds) == 0 || slices.Contains(f.Kinds, k) }

// Wants tells whether an event is wanted. domain is the recipient's.
func (f *EventFilter) Wants(e *WebhookEvent, domain string) bool {
	m := e.Message
	return f.WantsKind(e.Kind) && (f.Stream == 0 || f.Stream == m.Stream) &&
		(len(f.Credentials) == 0 || slices.Contains(f.Credentials, m.Credential)) &&
		(len(f.Tags) == 0 || slices.ContainsFunc(f.Tags, func(t string) bool { return slices.Contains(m.Tags, t) })) &&
		(len(f.Domains) == 0 || slices.Contains(f.Domains, domain)) &&
		(len(f.Categories) == 0 || slices.ContainsFunc(f.Categories, func(c string) bool { return within(e.Diagnosis.Category, c) })) &&
		has(e.Recipient, f.Recipient) && (has(e.Sender, f.Sender) || f.Sender == NullSender && e.Sender == "") &&
		has(e.Subject, f.Subject) && has(e.Reply.String(), f.Reply) && f.names(e)
}

// within tells whether a category is the one that is named, or of that kind.
func within(category, name string) bool {
	return category == name || strings.HasPrefix(category, name+"/")
}

func has(text, part string) bool {
	return part == "" || strings.Contains(strings.ToLower(text), strings.ToLower(part))
}

// names tells whether the event is of the message that is named, if one is.
func (f *EventFilter) names(e *WebhookEvent) bool {
	if f.Message == "" {
		return true
	}
	if id, err := ParseID(f.Message); err == nil {
		return id == e.Delivery.Message
	}
	return strings.Trim(f.Message, "<>") == strings.Trim(e.HeaderID, "<>")
}
