package feedback

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"postrider/internal/bounce"
	"postrider/internal/classify"
	"postrider/internal/message"
	"postrider/internal/relay"
	"postrider/internal/store"
	"postrider/internal/suppression"
)

// ReturnStore has what came back, and what it is about.
type ReturnStore interface {
	Returned(ctx context.Context, after relay.ID, limit int) ([]*relay.Returned, error)
	EndReturned(ctx context.Context, id relay.ID) error
	Story(ctx context.Context, account, message relay.ID) (*relay.Story, error)
	Lock(ctx context.Context, name, owner string, lasts time.Duration) (bool, error)
}

// Settler makes outcomes durable.
type Settler interface {
	Settle(ctx context.Context, o relay.Outcome) error
}

// ReturnsConfig is what Returns must know.
type ReturnsConfig struct {
	Node   string
	Gather time.Duration // how long a DSN waits for further failures of the message
	// Suppress says which bounces keep an address from further mail.
	Suppress suppression.Rule
	// Idle, where not nil, tells that this node is not to work at the moment.
	Idle func() bool
}

// Returns makes outcomes of the mail that came back. One node at a time does so;
// if two did, the second would find it done.
type Returns struct {
	config ReturnsConfig
	store  ReturnStore
	queue  Settler
	rules  *Rules
	log    *slog.Logger
	now    func() time.Time
}

// NewReturns makes it.
func NewReturns(c ReturnsConfig, s ReturnStore, q Settler, r *Rules, log *slog.Logger) *Returns {
	return &Returns{config: c, store: s, queue: q, rules: r, log: log, now: time.Now}
}

const (
	returnLook  = time.Second // between looks for mail
	returnBatch = 32          // mails at once; each may have maxKept bytes
	returnLock  = 30 * time.Second
)

// Run deals with what came back until ctx ends.
func (r *Returns) Run(ctx context.Context) error {
	tick := time.NewTicker(returnLook)
	defer tick.Stop()
	failing := false
	for {
		var err error
		if r.config.Idle == nil || !r.config.Idle() {
			err = r.Round(ctx)
		}
		if err != nil && !failing && ctx.Err() == nil {
			r.log.Error("feedback can't be dealt with; trying on", "err", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Round deals with all that is there, each once: what fails waits for the next
// round.
func (r *Returns) Round(ctx context.Context) error {
	var after relay.ID
	for {
		list, err := r.store.Returned(ctx, after, returnBatch)
		if err != nil || len(list) == 0 {
			return err
		}
		mine, err := r.store.Lock(ctx, "feedback", r.config.Node, returnLock)
		if err != nil || !mine {
			return err
		}
		after = list[len(list)-1].ID
		var mu sync.Mutex
		var first error
		var g errgroup.Group // outcomes that are settled at once share a sync
		for _, m := range list {
			g.Go(func() error {
				if err := r.settle(ctx, m); err != nil {
					mu.Lock()
					defer mu.Unlock()
					first = errors.Join(first, fmt.Errorf("feedback %s: %w", m.ID, err))
				}
				return nil
			})
		}
		_ = g.Wait() // tells nothing
		if first != nil {
			return first
		}
	}
}

// settle deals with one mail.
func (r *Returns) settle(ctx context.Context, m *relay.Returned) error {
	story, err := r.store.Story(ctx, m.Account, m.Delivery.Message)
	var d *relay.Delivery
	if err == nil {
		for _, of := range story.Deliveries {
			if of.ID == m.Delivery {
				d = of
			}
		}
	}
	switch {
	case d == nil && (err == nil || relay.CodeOf(err) == relay.NotFound):
		r.log.Info("feedback is about what is not in the log any more", "id", m.ID, "delivery", m.Delivery)
		err = r.store.EndReturned(ctx, m.ID)
	case err == nil:
		o := r.outcome(m, story.Message, d)
		if err = r.queue.Settle(ctx, o); err == nil {
			r.log.Info("feedback", "id", m.ID, "delivery", m.Delivery, "kind", o.Kind, "category", o.Diagnosis.Category, "suppress", o.Suppress)
		}
	}
	if errors.Is(err, store.ErrSettled) {
		return nil
	}
	return err
}

// outcome says what a mail that came back means for its delivery.
func (r *Returns) outcome(m *relay.Returned, about *relay.Message, d *relay.Delivery) relay.Outcome {
	now := r.now()
	o := relay.Outcome{Delivery: m.Delivery, Account: m.Account, Kind: relay.EventFeedback, At: now, Answers: m.ID, Address: suppression.Key(d.Recipient.Address)}
	if m.Unsubscribe && m.Sender != "" { // no machine answers from there
		o.Kind, o.Suppress, o.SuppressStream = relay.EventUnsubscribed, relay.ReasonUnsubscribe, about.Stream
		o.Engagement = &relay.Engagement{Method: "mail", Client: m.Source.Client.Addr()}
		o.Diagnosis = relay.Diagnosis{Text: "The recipient unsubscribed by mail."}
		return o
	}
	mail, err := bounce.Read(bytes.NewReader(m.Content))
	if err != nil { // not of memory
		r.log.Error("feedback can't be read", "id", m.ID, "err", err)
	}
	v, own := verdict(mail, r.rules.current.Load(), d.Recipient)
	o.Reply, o.Host = words(mail, v), v.Recipient.Host
	if o.Host == "" {
		o.Host = mail.Host
	}
	if v.Meaning == "" {
		o.Diagnosis = relay.Diagnosis{Text: "A mail came back that says nothing this relay understands."}
		return o
	}
	o.Provider = v.Provider
	if d.Provider != "" {
		o.Provider = d.Provider
	}
	o.Diagnosis = worded(categoryOf(v.Result), v.Result, mail.Kind == bounce.Report && own && gone(mail, v))
	switch {
	case mail.Kind == bounce.Complaint:
		if v.Category == "complaint" { // also one that names nobody: the return path tells whose it is
			o.Kind, o.Suppress = relay.EventComplained, relay.ReasonComplaint
		}
	case mail.Kind != bounce.Report:
	case !own:
		o.Diagnosis.Text = "It is about another address, " + message.Clean(v.Recipient.Address, 320) + ", that the mail was passed on to: " + o.Diagnosis.Text
	case gone(mail, v):
		o.Kind = relay.EventBounced
		if about.Envelope.Sender != "" && d.Recipient.Notify.Wants(relay.NotifyFailure) { // RFC 5321 section 4.5.5
			o.Notice, o.NoticeDue = relay.NotifyFailure, now.Add(r.config.Gather)
		}
		o.Diagnosis.Suppress = v.Suppress
		r.config.Suppress.Judge(&o)
	}
	return o
}

// gone tells whether a report says that the mail will not arrive.
func gone(mail bounce.Mail, v bounce.Verdict) bool {
	return v.Recipient.Action == "failed" && (v.Kind == classify.Hard || v.Kind == classify.Block || mail.Standard)
}

// verdict is what a mail says of a recipient. Own is false where it speaks of others
// only: of members of a list, of whom the mail was passed on to. A report without a
// name is of the recipient: nobody else had the address that it came to.
func verdict(mail bounce.Mail, c *classify.Classifier, to relay.Recipient) (v bounce.Verdict, own bool) {
	all := mail.Judge(c)
	if len(all) == 0 {
		return bounce.Verdict{}, false
	}
	asked := to.Address
	if _, addr, ok := strings.Cut(to.ORcpt, ";"); ok && addr != "" {
		asked = addr
	}
	for _, v := range all {
		if a := v.Recipient.Address; a == "" || strings.EqualFold(suppression.Key(a), suppression.Key(to.Address)) || strings.EqualFold(a, asked) {
			return v, true
		}
	}
	return all[0], mail.Kind == bounce.Complaint
}

// maxWords is how much of a mail's words an event keeps, in characters.
const maxWords = 1000

// words are what the mail says: the words of the server that refused it, else of
// the mail itself.
func words(mail bounce.Mail, v bounce.Verdict) relay.Reply {
	text := v.Recipient.Reply
	if mail.Kind != bounce.Report {
		text = mail.Text
	}
	for _, more := range []string{v.Recipient.Context, mail.Text, mail.Subject} {
		if strings.TrimSpace(text) == "" {
			text = more
		}
	}
	return relay.Reply{Code: v.Code, Enhanced: v.Enhanced, Text: message.Clean(text, maxWords)}
}
