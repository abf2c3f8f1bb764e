package feedback

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strconv"
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
	ReturnedAccounts(ctx context.Context, after relay.ID, limit int) ([]relay.ID, error)
	Returned(ctx context.Context, account, after relay.ID, limit int) ([]*relay.Returned, error)
	ReturnedAbout(ctx context.Context, ids []relay.DeliveryID) ([]*relay.Logged, error)
	EndReturned(ctx context.Context, id relay.ID) error
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
	Idle     func() bool
	Observer Observer
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
	returnLock  = 30 * time.Second
	returnBatch = 128         // mails at once, about
	returnWait  = time.Minute // that a bounce waits for its delivery to be delivered
	returnBytes = 16 << 20    // of them at once, about
	// returnTurns is how many accounts share a batch.
	returnTurns = 32
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
// round, and keeps nothing else waiting.
func (r *Returns) Round(ctx context.Context) error {
	p := pass{Returns: r, seen: map[relay.ID]relay.ID{}}
	for {
		before := p.mails
		if err := p.turns(ctx); err != nil || p.lost {
			return err
		}
		if p.mails == before {
			return p.failed
		}
	}
}

// pass goes over what is there, by turns of accounts: however much came for one, the
// others have their part of each batch.
type pass struct {
	*Returns
	seen   map[relay.ID]relay.ID // by account, the last mail that was looked at
	list   []*relay.Returned     // the batch that is being made
	bytes  int
	mails  int
	failed error // the first
	lost   bool  // another node does it
}

// turns gives each account that has mail one turn.
func (p *pass) turns(ctx context.Context) error {
	for from := (relay.ID{}); ; {
		accounts, err := p.store.ReturnedAccounts(ctx, from, returnTurns)
		if err != nil || len(accounts) == 0 {
			return err
		}
		from = accounts[len(accounts)-1]
		for _, a := range accounts {
			list, err := p.store.Returned(ctx, a, p.seen[a], max(1, returnBatch/len(accounts)))
			if err != nil {
				return err
			}
			for _, m := range list {
				p.list, p.bytes, p.seen[a] = append(p.list, m), p.bytes+len(m.Content), m.ID
			}
			p.mails += len(list)
			if p.bytes >= returnBytes || len(p.list) >= returnBatch {
				if err := p.flush(ctx); err != nil || p.lost {
					return err
				}
			}
		}
		if err := p.flush(ctx); err != nil || p.lost || len(accounts) < returnTurns {
			return err
		}
	}
}

// flush deals with a batch.
func (p *pass) flush(ctx context.Context) error {
	list := p.list
	p.list, p.bytes = nil, 0
	if len(list) == 0 {
		return nil
	}
	mine, err := p.store.Lock(ctx, "feedback", p.config.Node, returnLock)
	if err != nil || !mine {
		p.lost = !mine
		return err
	}
	ids := make([]relay.DeliveryID, len(list))
	for i, m := range list {
		ids[i] = m.Delivery
	}
	found, err := p.store.ReturnedAbout(ctx, ids)
	if err != nil {
		return err
	}
	about := make(map[relay.DeliveryID]*relay.Logged, len(found))
	for _, l := range found {
		about[l.ID] = l
	}
	outcomes := make([]*relay.Outcome, len(list))
	var reading errgroup.Group
	reading.SetLimit(runtime.GOMAXPROCS(0))
	for i, m := range list {
		if l := about[m.Delivery]; l != nil && l.Account == m.Account {
			reading.Go(func() error {
				o := p.outcome(m, l.Message, &l.Delivery)
				outcomes[i] = &o
				return nil
			})
		}
	}
	_ = reading.Wait() // tells nothing
	var mu sync.Mutex
	var g errgroup.Group // outcomes that are settled at once share a sync
	for i, m := range list {
		if p.early(m, outcomes[i], about[m.Delivery]) {
			continue
		}
		g.Go(func() error {
			if err := p.settle(ctx, m, outcomes[i], about[m.Delivery]); err != nil {
				mu.Lock()
				defer mu.Unlock()
				if p.failed == nil {
					p.failed = fmt.Errorf("feedback %s: %w", m.ID, err)
				}
			}
			return nil
		})
	}
	_ = g.Wait() // tells nothing
	return ctx.Err()
}

// early tells whether a bounce has overtaken the outcome of the attempt: receivers may
// be faster than our store. It waits, for a while.
func (r *Returns) early(m *relay.Returned, o *relay.Outcome, about *relay.Logged) bool {
	return o != nil && o.Kind == relay.EventBounced && !about.State.Final() && r.now().Sub(m.Received) < returnWait
}

// settle makes durable what one mail comes to; nil: it is about nothing that is there.
func (r *Returns) settle(ctx context.Context, m *relay.Returned, o *relay.Outcome, about *relay.Logged) error {
	if o == nil {
		err := r.store.EndReturned(ctx, m.ID)
		if err == nil {
			r.log.Info("feedback is about what is not in the log any more", "id", m.ID, "delivery", m.Delivery)
			r.config.Observer.FeedbackSettled("unmatched", "")
		}
		return unlessSettled(err)
	}
	err := r.queue.Settle(ctx, *o)
	if err == nil {
		became := o.Kind
		if became == relay.EventBounced && about.State != relay.Delivered { // the store has told of it as a repetition
			became = relay.EventFeedback
		}
		r.log.Info("feedback", "id", m.ID, "delivery", m.Delivery, "kind", became, "category", o.Diagnosis.Category, "suppress", o.Suppress)
		r.config.Observer.FeedbackSettled(became.String(), o.Provider)
	}
	return unlessSettled(err)
}

func unlessSettled(err error) error {
	if errors.Is(err, store.ErrSettled) {
		return nil
	}
	return err
}

// outcome says what a mail that came back means for its delivery.
func (r *Returns) outcome(m *relay.Returned, about *relay.Message, d *relay.Delivery) relay.Outcome {
	now := r.now()
	o := relay.Outcome{Delivery: m.Delivery, Account: m.Account, Kind: relay.EventFeedback, At: now, Answers: m.ID, Message: about,
		Provider: cmp.Or(d.Provider, m.Provider), Address: suppression.Key(d.Recipient.Address)}
	if m.Expired {
		o.Diagnosis = relay.Diagnosis{Text: fmt.Sprintf("A mail came back more than %d days after the message. It was refused, and changes nothing.", returnFor/(24*time.Hour))}
		return o
	}
	mail, err := bounce.Read(bytes.NewReader(m.Content))
	if err != nil { // not of memory
		r.log.Error("feedback can't be read", "id", m.ID, "err", err)
	}
	// A machine that answers does not mean to unsubscribe anybody.
	if m.Unsubscribe && m.Sender != "" && mail.Kind == bounce.Unknown {
		o.Kind, o.Suppress, o.SuppressStream = relay.EventUnsubscribed, relay.ReasonUnsubscribe, about.Stream
		o.Engagement = &relay.Engagement{Method: "mail", Client: m.Source.Client.Addr()}
		o.Diagnosis = relay.Diagnosis{Text: "The recipient unsubscribed by mail."}
		return o
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
	o.Provider = cmp.Or(o.Provider, v.Provider)
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
	if len(mail.Recipients) == 0 {
		return bounce.Verdict{}, false
	}
	asked := to.Address
	if _, addr, ok := strings.Cut(to.ORcpt, ";"); ok && addr != "" {
		asked = addr
	}
	i := slices.IndexFunc(mail.Recipients, func(r bounce.Recipient) bool {
		return r.Address == "" || strings.EqualFold(suppression.Key(r.Address), suppression.Key(to.Address)) || strings.EqualFold(r.Address, asked)
	})
	if own = i >= 0; !own {
		i, own = 0, mail.Kind == bounce.Complaint
	}
	mail.Recipients = mail.Recipients[i : i+1] // a mail may name a thousand, and only one is asked about
	return mail.Judge(c)[0], own
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
	return relay.Reply{Code: v.Code, Enhanced: v.Enhanced, Text: message.Clean(bare(text, v.Code, v.Enhanced), maxWords)}
}

// bare is a text without the codes in front that are told apart from it, as long as
// there is more.
func bare(text string, code int, enhanced string) string {
	rest := strings.TrimSpace(text)
	for _, c := range []string{strconv.Itoa(code), enhanced} {
		after, ok := strings.CutPrefix(rest, c)
		if trimmed := strings.TrimLeft(after, " \t\r\n-:"); ok && c != "" && (after == "" || trimmed != after) {
			rest = trimmed
		}
	}
	if rest == "" {
		return text
	}
	return rest
}
