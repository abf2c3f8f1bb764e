package alert

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"postrider/internal/relay"
	"postrider/internal/webhook"
)

// Outbox has what is to be told.
type Outbox interface {
	DueAlertSends(ctx context.Context, now time.Time, limit int) ([]*relay.AlertSend, error)
	SetAlertSend(ctx context.Context, s *relay.AlertSend) error
	AlertChannel(ctx context.Context, account, id relay.ID) (*relay.AlertChannel, error)
	Account(ctx context.Context, as, id relay.ID) (*relay.Account, error)
	Lock(ctx context.Context, name, owner string, lasts time.Duration) (bool, error)
}

// Post is how hooks are reached.
type Post interface {
	Post(ctx context.Context, address string, secrets []string, id string, body []byte) webhook.Answer
	Check(address string) error
}

// SendConfig is what sending must know.
type SendConfig struct {
	Node      string
	Hostname  string
	From      string
	Home      relay.ID // whose mail that is which goes to operators
	Operators Operators
	Idle      func() bool // nil: this node always works
	Observer  Observer    // nil: nobody counts
	Log       *slog.Logger
}

const (
	sendEvery = time.Second
	sendLock  = time.Minute
	sendBatch = 200
	atOnce    = 16
	giveUp    = 3 * 24 * time.Hour
)

// Sender tells what is to be told, one node at a time, each thing at least once
// and with the same id. Receivers wait for none of the others.
type Sender struct {
	config SendConfig
	outbox Outbox
	post   Post
	mail   Mail
	box    Box
	now    func() time.Time

	mu   sync.Mutex
	busy map[string]bool // receivers that something is on its way to
	wg   sync.WaitGroup
}

// NewSender makes it.
func NewSender(c SendConfig, o Outbox, p Post, m Mail, b Box) *Sender {
	return &Sender{config: c, outbox: o, post: p, mail: m, box: b, now: time.Now, busy: map[string]bool{}}
}

// Run sends until ctx ends, and waits for what is under way.
func (s *Sender) Run(ctx context.Context) error {
	defer s.wg.Wait()
	return rounds(ctx, sendEvery, s.config.Idle, s.Round, func(err error) {
		s.config.Log.Error("alerts can't be told; trying on", "err", err)
	})
}

// Round begins to send what is due, the first thing to each receiver that nothing
// is on its way to.
func (s *Sender) Round(ctx context.Context) error {
	due, err := s.outbox.DueAlertSends(ctx, s.now(), sendBatch)
	if err != nil || len(due) == 0 {
		return err
	}
	mine, err := s.outbox.Lock(ctx, "alerts-told", s.config.Node, sendLock)
	if err != nil || !mine {
		return err
	}
	for _, d := range due {
		to := d.Channel.String() + " " + d.Target
		s.mu.Lock()
		free := !s.busy[to] && len(s.busy) < atOnce
		if free {
			s.busy[to] = true
		}
		s.mu.Unlock()
		if !free {
			continue
		}
		s.wg.Go(func() {
			defer func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				delete(s.busy, to)
			}()
			s.try(ctx, d)
		})
	}
	return nil
}

// try sends one thing, and notes what came of it.
func (s *Sender) try(ctx context.Context, d *relay.AlertSend) {
	answer := s.send(ctx, d)
	if answer.Error != "" && ctx.Err() != nil {
		return // it is sent again at the next start
	}
	now := s.now()
	d.Tries++
	d.Error = answer.Error
	switch {
	case answer.Error == "":
		d.Sent, d.Due = now, time.Time{}
	case answer.Error == removed || now.Sub(d.ID.Time()) >= giveUp:
		d.Due = time.Time{}
	default:
		d.Due = webhook.Backoff(d.Tries, now, answer.Retry)
	}
	if s.config.Observer != nil {
		s.config.Observer.AlertTold(d.Kind, answer.Error == "")
	}
	if answer.Error != "" {
		s.config.Log.Warn("an alert is not taken", "alert", d.Alert, "by", d.Kind, "try", d.Tries, "given_up", d.Due.IsZero(), "err", answer.Error)
	}
	noting := context.WithoutCancel(ctx) // drain: else it is told once more
	if err := s.outbox.SetAlertSend(noting, d); err != nil {
		s.config.Log.Warn("it is not noted that an alert was told; it will be told again", "alert", d.Alert, "err", err)
	}
}

// removed is the answer of a channel that is not there any more.
const removed = "The channel was removed."

// failed is an answer that never came.
func failed(err error) webhook.Answer { return webhook.Answer{Error: err.Error()} }

func (s *Sender) send(ctx context.Context, d *relay.AlertSend) webhook.Answer {
	v := view{host: s.config.Hostname, id: d.ID.String(), news: d.News, Alert: d.Incident(), now: d.ID.Time()}
	if d.Account != relay.Everyone {
		if a, err := s.outbox.Account(ctx, d.Account, d.Account); err == nil {
			v.account = a.Name
		}
	}
	r := reach{kind: d.Kind, account: d.Account, to: d.Target}
	switch {
	case d.Account == relay.Everyone:
		r.account = s.config.Home
	}
	switch {
	case !d.Channel.IsZero():
		c, err := s.outbox.AlertChannel(ctx, d.Account, d.Channel)
		if err != nil && relay.CodeOf(err) == relay.NotFound {
			return webhook.Answer{Error: removed}
		}
		if err != nil {
			return failed(err)
		}
		if r, err = reachOf(s.box, c); err != nil {
			return failed(err)
		}
	case d.Target == operatorWebhook:
		r.to, r.secret = s.config.Operators.Webhook, s.config.Operators.Secret
	case d.Target == operatorSlack:
		r.to = s.config.Operators.Slack
	}
	return s.reach(ctx, r, v)
}

// reach is how somebody is told.
type reach struct {
	kind       relay.ChannelKind
	account    relay.ID // whose mail it is
	to, secret string
}

// sealed is what of a channel is sealed.
type sealed struct {
	URL    string `json:"url"`
	Secret string `json:"secret,omitempty"`
}

func sealContext(c *relay.AlertChannel) string { return "alert channel " + c.ID.String() }

func reachOf(box Box, c *relay.AlertChannel) (reach, error) {
	r := reach{kind: c.Kind, account: c.Account, to: c.Shown}
	if c.Kind == relay.ChannelMail {
		return r, nil
	}
	plain, err := box.Open(c.Sealed, sealContext(c))
	if err != nil {
		return r, fmt.Errorf("open channel %s: %w", c.ID, err)
	}
	var in sealed
	if err := json.Unmarshal(plain, &in); err != nil {
		return r, fmt.Errorf("read channel %s: %w", c.ID, err)
	}
	r.to, r.secret = in.URL, in.Secret
	return r, nil
}

// reach tells somebody something.
func (s *Sender) reach(ctx context.Context, r reach, v view) webhook.Answer {
	switch r.kind {
	case relay.ChannelMail:
		if _, err := s.mail.Alert(ctx, r.account, r.to, v.letter(s.config.From, r.to, s.now()), "alert "+v.id); err != nil {
			return failed(err)
		}
		return webhook.Answer{}
	case relay.ChannelWebhook:
		return s.post.Post(ctx, r.to, []string{r.secret}, v.id, v.event())
	default:
		return s.post.Post(ctx, r.to, nil, v.id, v.slack())
	}
}

// host is the part of an address that is no secret.
func host(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Host
}
