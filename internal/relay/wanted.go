package relay

import (
	"slices"
	"strings"
)

// EventFilter says which events are wanted as they come. Fields that are zero ask
// for nothing; the others must all hold. Texts are sought as they stand, in either
// case of letters.
type EventFilter struct {
	Kinds       []Kind            // any of them
	Stream      Stream            // of the message
	Credentials []ID              // that it was submitted with: any of them
	Tags        []string          // of the message: any of them
	Domains     []string          // of the recipient, lower case, as A-labels: any of them
	Categories  []string          // of the diagnosis: "hard/no-such-mailbox", or one half of it; any of them
	Metadata    map[string]string // of the message: all of them; an empty value stands for any
	Provider    string            // public name of the receiving service
	Source      string            // our address at the attempt
	Client      string            // part of the client's address, or of the name that it gave
	Script      string            // part of what told of the program that sent it
	Recipient   string            // part of the address
	Sender      string            // part of the envelope sender; NullSender asks for mail without one
	Subject     string            // part of it
	Reply       string            // part of the reply, with its codes
	Message     string            // the message's id, or its Message-ID header with or without brackets
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
		f.metadata(m) && (f.Provider == "" || strings.EqualFold(f.Provider, e.Provider)) && (f.Source == "" || f.Source == sourceOf(&e.Event)) &&
		has(m.Source.Client.String()+" "+m.Source.Helo, f.Client) && has(m.Script, f.Script) && has(e.Subject, f.Subject) && has(e.Reply.String(), f.Reply) && f.names(e)
}

// within tells whether a category is the one that is named, wholly or by one half.
func within(category, name string) bool {
	kind, rest, _ := strings.Cut(category, "/")
	return category == name || name != "" && (kind == name || rest == name)
}

func (f *EventFilter) metadata(m *Message) bool {
	for key, want := range f.Metadata {
		if got, ok := m.Metadata[key]; !ok || want != "" && got != want {
			return false
		}
	}
	return true
}

// sourceOf is our address at the attempt that an event is of, or that came before it.
func sourceOf(e *Event) string {
	if e.Attempt != nil && e.Attempt.Source.IsValid() {
		return e.Attempt.Source.String()
	}
	return e.Source
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
