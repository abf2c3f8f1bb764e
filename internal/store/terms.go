package store

import (
	"hash/fnv"
	"slices"
	"strings"

	"postrider/internal/relay"
	"postrider/internal/wording"
)

// What a delivery is found by in the index of the log are terms: a letter that
// says of what, and a word or a value. Another meaning needs another letter, for
// what was indexed stays.
const (
	termAccount    = "a"
	termCategory   = "g"
	termClient     = "x"
	termCredential = "c"
	termDeed       = "e" // of the recipient
	termDomain     = "d"
	termHeaderID   = "m"
	termKey        = "l" // of metadata
	termMetadata   = "k"
	termNullSender = "n"
	termProvider   = "v"
	termRecipient  = "r"
	termReply      = "p"
	termScript     = "y"
	termSender     = "s"
	termSource     = "i"
	termState      = "o"
	termSubject    = "j"
	termTag        = "t"
)

const (
	termMost   = 48 // bytes of a value
	termPrefix = 40 // that stand in a longer one as they are
)

// bounded shortens a long value: its beginning stays, and a digest tells it from
// others.
func bounded(s string) string {
	if len(s) <= termMost {
		return s
	}
	return s[:termPrefix] + digest(s)
}

func digest(s string) string {
	h := fnv.New64a()
	h.Write([]byte(s)) // never fails
	return string(h.Sum(nil))
}

func bareHeaderID(s string) string { return strings.Trim(text(s), "<>") }

// categoryParts are the names that a category goes by.
func categoryParts(s string) []string {
	s = wording.Fold(s)
	if kind, name, ok := strings.Cut(s, "/"); ok {
		return []string{s, kind, name}
	}
	return []string{s}
}

// termsOf calls add with the terms of a delivery, some maybe twice.
func termsOf(l *relay.Logged, add func(string)) {
	m, d := l.Message, &l.Delivery
	value := func(kind, s string) {
		if s != "" {
			add(kind + bounded(s))
		}
	}
	each := func(kind, s string) {
		for _, w := range wording.Of(s) {
			add(kind + bounded(w))
		}
	}
	add(termAccount + string(d.Account[:]))
	if !m.Credential.IsZero() {
		add(termCredential + string(m.Credential[:]))
	}
	each(termRecipient, d.Recipient.Address)
	value(termDomain, d.Domain)
	if m.Envelope.Sender == "" {
		add(termNullSender)
	}
	each(termSender, m.Envelope.Sender)
	each(termSender, m.From)
	each(termSubject, m.Subject)
	if m.HeaderID != "" {
		add(termHeaderID + digest(bareHeaderID(m.HeaderID)))
	}
	if m.Source.Client.IsValid() {
		each(termClient, m.Source.Client.Addr().String())
	}
	each(termClient, m.Source.Helo)
	each(termScript, m.Script)
	for _, t := range m.Tags {
		value(termTag, wording.Fold(t))
	}
	for k, v := range m.Metadata {
		value(termKey, wording.Fold(k))
		value(termMetadata, wording.Fold(k)+"\x00"+wording.Fold(v))
	}
	add(termState + string(rune('A'+d.State)))
	for _, k := range d.Deeds {
		add(termDeed + string(rune('A'+k)))
	}
	each(termReply, d.Reply.String())
	if d.Diagnosis.Category != "" {
		for _, c := range categoryParts(d.Diagnosis.Category) {
			value(termCategory, c)
		}
	}
	value(termProvider, wording.Fold(d.Provider))
	value(termSource, d.Source)
}

// need is a condition as the index knows it: one of these terms, or any that
// begins so.
type need struct {
	terms  []string
	prefix string
}

// logQuery is a search of the log.
type logQuery struct {
	account relay.ID
	f       relay.DeliveryFilter
	needs   []need
	live    bool // nothing that is final is wanted

	recipient, sender, subject, reply, client, script wording.Query
}

func newLogQuery(account relay.ID, f relay.DeliveryFilter) *logQuery {
	q := &logQuery{account: account, f: f, live: f.Live,
		recipient: wording.Part(f.Recipient), subject: wording.All(f.Subject), reply: wording.All(f.Reply), client: wording.Part(f.Client), script: wording.Part(f.Script)}
	if account != relay.Everyone {
		q.one(termAccount, string(account[:]))
	}
	if !f.Credential.IsZero() {
		q.one(termCredential, string(f.Credential[:]))
	}
	if f.Sender == relay.NullSender {
		q.needs = append(q.needs, need{terms: []string{termNullSender}})
	} else {
		q.sender = wording.Part(f.Sender)
	}
	q.all(termRecipient, &q.recipient)
	q.all(termSender, &q.sender)
	q.all(termSubject, &q.subject)
	q.all(termReply, &q.reply)
	q.all(termClient, &q.client)
	q.all(termScript, &q.script)
	if f.Message != "" {
		q.one(termHeaderID, digest(bareHeaderID(f.Message)))
	}
	q.one(termDomain, strings.ToLower(text(f.Domain)))
	q.one(termTag, wording.Fold(text(f.Tag)))
	q.one(termCategory, wording.Fold(f.Category))
	q.one(termProvider, wording.Fold(f.Provider))
	q.one(termSource, f.Source)
	for k, v := range f.Metadata {
		if v == "" {
			q.one(termKey, wording.Fold(k))
		} else {
			q.one(termMetadata, wording.Fold(k)+"\x00"+wording.Fold(v))
		}
	}
	q.outcomes()
	return q
}

// outcomes: what is live is found by an index of its own, which has nothing else.
// What recipients did is not in it.
func (q *logQuery) outcomes() {
	if len(q.f.States)+len(q.f.Deeds) == 0 {
		return
	}
	var n need
	final := len(q.f.Deeds) > 0
	for _, k := range q.f.Deeds {
		n.terms = append(n.terms, termDeed+string(rune('A'+k)))
	}
	for _, s := range q.f.States {
		n.terms = append(n.terms, termState+string(rune('A'+s)))
		final = final || s.Final()
	}
	if q.live = q.live || !final; !q.live || len(q.f.Deeds) > 0 {
		q.needs = append(q.needs, n)
	}
}

func (q *logQuery) one(kind, value string) {
	if value != "" {
		q.needs = append(q.needs, need{terms: []string{kind + bounded(value)}})
	}
}

// needsMost is how many conditions the index is asked for; what is found is looked
// at anyway.
const needsMost = 24

func (q *logQuery) all(kind string, w *wording.Query) {
	for _, word := range w.Whole[:min(len(w.Whole), max(needsMost-len(q.needs), 0))] {
		q.one(kind, word)
	}
	if w.Prefix != "" {
		q.needs = append(q.needs, need{prefix: kind + w.Prefix[:min(len(w.Prefix), termPrefix)]})
	}
}

// matches tells whether a delivery is one that is sought, as it is now.
func (q *logQuery) matches(l *relay.Logged) bool {
	m, d, f := l.Message, &l.Delivery, &q.f
	switch {
	case q.account != relay.Everyone && d.Account != q.account,
		!f.Credential.IsZero() && m.Credential != f.Credential,
		f.Live && d.State.Final(),
		!f.Since.IsZero() && micros(m.Received) < micros(f.Since),
		!f.Until.IsZero() && micros(m.Received) >= micros(f.Until),
		f.Domain != "" && d.Domain != strings.ToLower(text(f.Domain)),
		f.Sender == relay.NullSender && m.Envelope.Sender != "",
		f.Provider != "" && wording.Fold(d.Provider) != wording.Fold(f.Provider),
		f.Source != "" && d.Source != f.Source,
		f.Category != "" && !has(categoryParts(d.Diagnosis.Category), wording.Fold(f.Category)),
		!q.rightMessage(m), !q.rightOutcome(d), !q.rightLabels(m):
		return false
	}
	if !q.recipient.Empty() && !q.recipient.In(d.Recipient.Address) ||
		!q.sender.Empty() && !q.sender.In(m.Envelope.Sender) && !q.sender.In(m.From) ||
		!q.subject.Empty() && !q.subject.In(m.Subject) || !q.reply.Empty() && !q.reply.In(d.Reply.String()) ||
		!q.script.Empty() && !q.script.In(m.Script) {
		return false
	}
	return q.client.Empty() || m.Source.Client.IsValid() && q.client.In(m.Source.Client.Addr().String()) || q.client.In(m.Source.Helo)
}

func has(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

func (q *logQuery) rightMessage(m *relay.Message) bool {
	if q.f.Message == "" {
		return true
	}
	if id, err := relay.ParseID(q.f.Message); err == nil {
		return m.ID == id
	}
	return m.HeaderID != "" && bareHeaderID(m.HeaderID) == bareHeaderID(q.f.Message)
}

func (q *logQuery) rightOutcome(d *relay.Delivery) bool {
	for _, k := range q.f.Deeds {
		if slices.Contains(d.Deeds, k) {
			return true
		}
	}
	return slices.Contains(q.f.States, d.State) || len(q.f.States)+len(q.f.Deeds) == 0
}

// rightLabels: the tag and the metadata.
func (q *logQuery) rightLabels(m *relay.Message) bool {
	if want := wording.Fold(text(q.f.Tag)); want != "" {
		found := false
		for _, t := range m.Tags {
			found = found || wording.Fold(t) == want
		}
		if !found {
			return false
		}
	}
	for k, v := range q.f.Metadata {
		found := false
		for key, value := range m.Metadata {
			found = found || wording.Fold(key) == wording.Fold(k) && (v == "" || wording.Fold(value) == wording.Fold(v))
		}
		if !found {
			return false
		}
	}
	return true
}
