package tail

import (
	"slices"
	"strings"

	"postrider/internal/relay"
	"postrider/internal/smtp"
	"postrider/internal/wording"
)

// wanted tells which events a listener wants. What is sought in texts is found as
// the search of the log finds it (store.Find), so that both say the same.
type wanted struct {
	relay.EventFilter
	recipient, sender, subject, reply, client, script wording.Query
}

func newWanted(f relay.EventFilter) *wanted {
	w := &wanted{EventFilter: f, recipient: wording.Part(f.Recipient), subject: wording.All(f.Subject), reply: wording.All(f.Reply),
		client: wording.Part(f.Client), script: wording.Part(f.Script)}
	if f.Sender != relay.NullSender {
		w.sender = wording.Part(f.Sender)
	}
	return w
}

// wants tells whether an event is wanted.
func (w *wanted) wants(e *relay.WebhookEvent) bool {
	m := e.Message
	switch {
	case !w.WantsKind(e.Kind),
		w.Stream != 0 && w.Stream != m.Stream,
		len(w.Credentials) > 0 && !slices.Contains(w.Credentials, m.Credential),
		len(w.Tags) > 0 && !slices.ContainsFunc(w.Tags, func(t string) bool { return slices.ContainsFunc(m.Tags, same(t)) }),
		len(w.Domains) > 0 && !slices.Contains(w.Domains, domainOf(e.Recipient)),
		len(w.Categories) > 0 && !slices.ContainsFunc(w.Categories, func(c string) bool { return within(e.Diagnosis.Category, c) }),
		w.Sender == relay.NullSender && e.Sender != "",
		w.Provider != "" && !same(w.Provider)(e.Provider),
		w.Source != "" && w.Source != sourceOf(&e.Event),
		!w.named(e), !w.labelled(m):
		return false
	}
	return w.recipient.In(e.Recipient) && (w.sender.In(e.Sender) || w.sender.In(m.From)) && w.subject.In(e.Subject) && w.reply.In(e.Reply.String()) &&
		w.script.In(m.Script) && (m.Source.Client.IsValid() && w.client.In(m.Source.Client.Addr().String()) || w.client.In(m.Source.Helo))
}

// same tells whether a text is the same as another, as the log has it.
func same(text string) func(string) bool {
	text = wording.Fold(text)
	return func(s string) bool { return wording.Fold(s) == text }
}

// within tells whether a category is the one that is named, wholly or by one half.
func within(category, name string) bool {
	category, name = wording.Fold(category), wording.Fold(name)
	kind, rest, _ := strings.Cut(category, "/")
	return category == name || name != "" && (kind == name || rest == name)
}

// labelled tells whether a message has the metadata.
func (w *wanted) labelled(m *relay.Message) bool {
	for key, want := range w.Metadata {
		found := false
		for k, v := range m.Metadata {
			found = found || same(key)(k) && (want == "" || same(want)(v))
		}
		if !found {
			return false
		}
	}
	return true
}

// named tells whether the event is of the message that is named, if one is.
func (w *wanted) named(e *relay.WebhookEvent) bool {
	if w.Message == "" {
		return true
	}
	if id, err := relay.ParseID(w.Message); err == nil {
		return id == e.Delivery.Message
	}
	return e.HeaderID != "" && strings.Trim(w.Message, "<>") == strings.Trim(e.HeaderID, "<>")
}

// sourceOf is our address at the attempt that an event is of, or that came before it.
func sourceOf(e *relay.Event) string {
	if e.Attempt != nil && e.Attempt.Source.IsValid() {
		return e.Attempt.Source.String()
	}
	return e.Source
}

// domainOf is the domain of an address, in lower case and as A-labels where it can
// be.
func domainOf(address string) string {
	domain := address[strings.LastIndexByte(address, '@')+1:]
	if ascii, err := smtp.ASCIIDomain(domain); err == nil {
		return ascii
	}
	return strings.ToLower(domain)
}
