package submit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gofrs/uuid/v5"

	"postrider/internal/account"
	"postrider/internal/limit"
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

// Directory knows the accounts and what is theirs. Names are in lower case, and
// domains as A-labels.
type Directory interface {
	Account(ctx context.Context, id relay.ID) (*relay.Account, *relay.Plan, error)
	// Domain gives the domain of the account that the name is or is below; nil:
	// there is none.
	Domain(ctx context.Context, account relay.ID, name string) (*relay.Domain, error)
	// Sender tells whether a single address is verified.
	Sender(ctx context.Context, account relay.ID, address string) (verified bool, err error)
	// Suppressed gives, by address, why nothing of that stream may be sent to some of
	// them.
	Suppressed(ctx context.Context, account relay.ID, stream relay.Stream, addresses []string) (map[string]*relay.Suppression, error)
	// UserRights is what a user may do in an account.
	UserRights(ctx context.Context, in, user relay.ID) (account.Rights, error)
}

// Limiter holds accounts to their limits. Errors are relay.Error.
type Limiter interface {
	// Take takes what a message uses, or refuses it; undo gives it back.
	Take(ctx context.Context, o limit.Order) (undo func(), err error)
	// Known is the refusal as far as it is known before the content comes.
	Known(o limit.Order) error
}

// Config is what the entrance must know.
type Config struct {
	Hostname string
	Limits   policy.Limits
	Rules    policy.Rules  // for accounts that have none of their own
	Expire   time.Duration // how long a delivery is tried
	Groups   Groups        // nil: there are none
	Links    bool          // recipients can be given something to unsubscribe by
}

// Entrance is the one way in, for every protocol and for our own reports.
type Entrance struct {
	config    Config
	queue     Queue
	directory Directory
	limiter   Limiter
	now       func() time.Time
}

// New makes an entrance to the queue.
func New(c Config, q Queue, d Directory, l Limiter) *Entrance {
	return &Entrance{config: c, queue: q, directory: d, limiter: l, now: time.Now}
}

// NewID makes the id of a message, an account or a credential.
func NewID() (relay.ID, error) {
	u, err := uuid.NewV7()
	if err != nil {
		return relay.ID{}, fmt.Errorf("make id: %w", err)
	}
	return relay.ID(u), nil
}

// Submit takes a message in. When it returns an id, the message is durable; of a
// request that was taken before it is the first one's id. The error is a
// relay.Error where the client can do something about it.
func (e *Entrance) Submit(ctx context.Context, d Draft) (relay.ID, error) {
	facts, err := message.Scan(d.Content)
	if err != nil {
		return relay.ID{}, fmt.Errorf("scan content: %w", err)
	}
	a, err := e.admit(ctx, &d, &facts)
	if err != nil {
		return relay.ID{}, err
	}
	m, err := e.newMessage(d.Envelope, d.Source, facts)
	if err != nil {
		return relay.ID{}, err
	}
	if !d.ID.IsZero() {
		if m.ID = d.ID; !facts.HasMessageID {
			m.HeaderID = message.NewMessageID(m.ID.String(), e.config.Hostname)
		}
	}
	m.Account, m.Credential, m.Stream = d.Identity.Account, d.Identity.Credential, cmp.Or(d.Stream, d.Identity.Stream)
	m.Tags, m.Metadata, m.Script, m.Archive, m.OptOut = d.Tags, d.Metadata, facts.Script, d.Identity.Archive, a.optOut
	if m.Track = d.Track; m.Track == "" && facts.Track != "" {
		if m.Track, err = relay.ParseTrack(facts.Track); err != nil {
			m.Track = relay.TrackOff // whatever was meant: nobody is tracked who should not be
		}
	}
	s := &relay.Submission{Message: m, Content: facts.Prepend(e.header(m, facts), d.Content), Once: cmp.Or(d.Once, onceOf(&d.Envelope, &facts)), Warning: a.warning}
	if err := e.addDeliveries(s); err != nil {
		return relay.ID{}, err
	}
	for i, v := range s.Deliveries {
		if a.left[i] {
			v.State, v.Diagnosis = relay.Cancelled, unsubscribed(v.Recipient.Address, m.OptOut.Group)
		}
		if by := a.suppressed[i]; by != nil {
			v.State, v.Diagnosis = relay.Cancelled, suppressed(v.Recipient.Address, by)
		}
	}
	undo, err := e.limiter.Take(ctx, a.order)
	if err != nil {
		return relay.ID{}, err
	}
	if err := e.queue.Put(ctx, s); err != nil {
		undo()
		var earlier *relay.Earlier
		if errors.As(err, &earlier) {
			s.Once.Repeated = true
			return earlier.Message, nil
		}
		return relay.ID{}, err
	}
	return m.ID, nil
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

// Alert takes in mail of ours that tells people that something is wrong, from the
// null sender, so that nothing comes back of it. What has the same key is taken
// once a day.
func (e *Entrance) Alert(ctx context.Context, account relay.ID, to string, content relay.Content, key string) (relay.ID, error) {
	facts, err := message.Scan(content)
	if err != nil {
		return relay.ID{}, fmt.Errorf("scan content: %w", err)
	}
	addr, err := smtp.ParseAddress(to, true)
	if err != nil {
		return relay.ID{}, badAddress(to, "recipient", err)
	}
	env := relay.Envelope{UTF8: !addr.IsASCII(), Recipients: []relay.Recipient{{Address: to, Notify: relay.NotifyNever}}}
	m, err := e.newMessage(env, relay.Source{Protocol: "ALERT", Helo: e.config.Hostname}, facts)
	if err != nil {
		return relay.ID{}, err
	}
	m.Account, m.Stream = account, relay.Transactional
	id, err := e.put(ctx, &relay.Submission{Message: m, Content: content, Once: &relay.Once{Key: key}})
	var earlier *relay.Earlier
	if errors.As(err, &earlier) {
		return earlier.Message, nil
	}
	return id, err
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

// put queues mail of our own, which nobody limits.
func (e *Entrance) put(ctx context.Context, s *relay.Submission) (relay.ID, error) {
	if err := e.addDeliveries(s); err != nil {
		return relay.ID{}, err
	}
	if err := e.queue.Put(ctx, s); err != nil {
		return relay.ID{}, err
	}
	return s.Message.ID, nil
}

// addDeliveries makes one for each recipient, when all else is known.
func (e *Entrance) addDeliveries(s *relay.Submission) error {
	m := s.Message
	m.Size = s.Content.Size()
	due := m.Received
	if m.Envelope.Release.After(due) {
		due = m.Envelope.Release.Truncate(time.Microsecond)
	}
	for i, r := range m.Envelope.Recipients {
		addr, err := smtp.ParseAddress(r.Address, true)
		if err != nil {
			return badAddress(r.Address, "recipient", err)
		}
		domain, err := addr.ASCIIDomain()
		if err != nil {
			return badAddress(r.Address, "recipient", err)
		}
		s.Deliveries = append(s.Deliveries, &relay.Delivery{ID: relay.DeliveryID{Message: m.ID, N: i + 1}, Account: m.Account,
			Stream: m.Stream, Recipient: r, Domain: strings.TrimSuffix(domain, "."), State: relay.Queued, Due: due,
			Expires: due.Add(e.config.Expire), Updated: m.Received})
	}
	return nil
}

func badAddress(address, what string, err error) error {
	return &relay.Error{Code: relay.BadAddress, Text: fmt.Sprintf("%q can't be a %s: %v.", address, what, err), Advice: "Correct the address."}
}
