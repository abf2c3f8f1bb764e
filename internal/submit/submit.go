package submit

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gofrs/uuid/v5"

	"postrider/internal/message"
	"postrider/internal/policy"
	"postrider/internal/relay"
	"postrider/internal/smtp"
)

// Queue makes messages durable. Put returns when the message is kept for good,
// or was refused.
type Queue interface {
	Put(ctx context.Context, s *relay.Submission) error
}

// Config is what the entrance must know.
type Config struct {
	Hostname string
	Limits   policy.Limits
	Expire   time.Duration // how long a delivery is tried
}

// Entrance is the one way in, for every protocol and for our own reports.
type Entrance struct {
	config Config
	queue  Queue
	now    func() time.Time
}

// New makes an entrance to the queue.
func New(c Config, q Queue) *Entrance { return &Entrance{config: c, queue: q, now: time.Now} }

// NewID makes the id of a message, an account or a credential.
func NewID() (relay.ID, error) {
	u, err := uuid.NewV7()
	if err != nil {
		return relay.ID{}, fmt.Errorf("make id: %w", err)
	}
	return relay.ID(u), nil
}

// Submit takes a message in. When it returns an id, the message is durable. The
// error is a relay.Error where the client can do something about it.
func (e *Entrance) Submit(ctx context.Context, d Draft) (relay.ID, error) {
	facts, err := message.Scan(d.Content)
	if err != nil {
		return relay.ID{}, fmt.Errorf("scan content: %w", err)
	}
	err = policy.Check(d.Identity, d.Envelope, policy.Facts{Size: d.Content.Size(), Received: facts.Received, HasFrom: facts.HasFrom}, e.config.Limits)
	if err != nil {
		return relay.ID{}, err
	}
	m, err := e.newMessage(d.Envelope, d.Source, facts)
	if err != nil {
		return relay.ID{}, err
	}
	m.Account, m.Credential, m.Stream = d.Identity.Account, d.Identity.Credential, cmp.Or(d.Stream, d.Identity.Stream)
	m.Tags, m.Metadata = d.Tags, d.Metadata
	content := facts.Prepend(e.header(m, facts), d.Content)
	return e.put(ctx, &relay.Submission{Message: m, Content: content, Once: d.Once})
}

// Report takes in a DSN of our own, for the account whose message it is about.
// It answers the notice: the duty to send it ends in the same transaction.
func (e *Entrance) Report(ctx context.Context, account relay.ID, to string, smtputf8 bool, content relay.Content, answers *relay.Notice) (relay.ID, error) {
	facts, err := message.Scan(content)
	if err != nil {
		return relay.ID{}, fmt.Errorf("scan content: %w", err)
	}
	env := relay.Envelope{UTF8: smtputf8, Recipients: []relay.Recipient{{Address: to, Notify: relay.NotifyNever}}}
	m, err := e.newMessage(env, relay.Source{Protocol: "DSN", Helo: e.config.Hostname}, facts)
	if err != nil {
		return relay.ID{}, err
	}
	m.Account, m.Stream = account, relay.Transactional
	if answers != nil {
		m.About = answers.Message
	}
	return e.put(ctx, &relay.Submission{Message: m, Content: content, Answers: answers})
}

// TLSReport takes in a report of ours on the TLS of somebody's mail servers (RFC
// 8460 section 5.3), from the null sender.
func (e *Entrance) TLSReport(ctx context.Context, account relay.ID, to string, content relay.Content) error {
	facts, err := message.Scan(content)
	if err != nil {
		return fmt.Errorf("scan content: %w", err)
	}
	env := relay.Envelope{Recipients: []relay.Recipient{{Address: to, Notify: relay.NotifyNever}}}
	m, err := e.newMessage(env, relay.Source{Protocol: relay.TLSReport, Helo: e.config.Hostname}, facts)
	if err != nil {
		return err
	}
	m.Account, m.Stream = account, relay.Transactional
	_, err = e.put(ctx, &relay.Submission{Message: m, Content: content})
	return err
}

func (e *Entrance) newMessage(env relay.Envelope, src relay.Source, f message.Facts) (*relay.Message, error) {
	// It is about to stand in a From field and in commands.
	if env.Sender != "" {
		if _, err := smtp.ParseAddress(env.Sender, true); err != nil {
			return nil, badAddress(env.Sender, "sender", err)
		}
	}
	id, err := NewID()
	if err != nil {
		return nil, err
	}
	m := &relay.Message{ID: id, Received: e.now().Truncate(time.Microsecond), Envelope: env, Source: src,
		Subject: f.Subject, From: f.From, HeaderID: f.MessageID, EightBit: f.EightBit, UTF8Header: f.UTF8Header}
	if !f.HasMessageID {
		m.HeaderID = message.NewMessageID(id.String(), e.config.Hostname)
	}
	return m, nil
}

// header is what we add in front of the content: the trace field, and what the
// client left out and a message must have (RFC 6409 section 8).
func (e *Entrance) header(m *relay.Message, f message.Facts) []byte {
	trace := message.Trace{Helo: m.Source.Helo, Client: m.Source.Client.Addr(), Host: e.config.Hostname,
		Protocol: m.Source.Protocol, ID: m.ID.String(), TLS: m.Source.TLS, UTF8: m.Envelope.UTF8, Time: m.Received}
	if len(m.Envelope.Recipients) == 1 {
		trace.For = m.Envelope.Recipients[0].Address
	}
	b := message.Received(trace)
	add := func(name, value string) { b = append(b, name+": "+value+"\r\n"...) }
	if !f.HasDate {
		add("Date", message.FormatDate(m.Received))
	}
	if !f.HasMessageID {
		add("Message-ID", m.HeaderID)
	}
	if !f.HasFrom {
		add("From", "<"+m.Envelope.Sender+">")
		m.From = m.Envelope.Sender
		m.UTF8Header = m.UTF8Header || strings.ContainsFunc(m.Envelope.Sender, func(r rune) bool { return r >= utf8.RuneSelf })
	}
	return b
}

func (e *Entrance) put(ctx context.Context, s *relay.Submission) (relay.ID, error) {
	m := s.Message
	m.Size = s.Content.Size()
	due := m.Received
	if m.Envelope.Release.After(due) {
		due = m.Envelope.Release.Truncate(time.Microsecond)
	}
	for i, r := range m.Envelope.Recipients {
		addr, err := smtp.ParseAddress(r.Address, true)
		if err != nil {
			return relay.ID{}, badAddress(r.Address, "recipient", err)
		}
		domain, err := addr.ASCIIDomain()
		if err != nil {
			return relay.ID{}, badAddress(r.Address, "recipient", err)
		}
		s.Deliveries = append(s.Deliveries, &relay.Delivery{ID: relay.DeliveryID{Message: m.ID, N: i + 1}, Account: m.Account,
			Stream: m.Stream, Recipient: r, Domain: strings.TrimSuffix(domain, "."), State: relay.Queued, Due: due,
			Expires: due.Add(e.config.Expire), Updated: m.Received})
	}
	if err := e.queue.Put(ctx, s); err != nil {
		return relay.ID{}, err
	}
	return m.ID, nil
}

func badAddress(address, what string, err error) error {
	return &relay.Error{Code: relay.BadAddress, Text: fmt.Sprintf("%q can't be a %s: %v.", address, what, err), Advice: "Correct the address."}
}
