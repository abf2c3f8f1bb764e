package feedback

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"postrider/internal/dsn"
	"postrider/internal/message"
	"postrider/internal/relay"
	"postrider/internal/store"
)

// NoticeStore knows which notices are due and what they are about.
type NoticeStore interface {
	Notices(ctx context.Context, now time.Time, limit int) ([]relay.Notice, error)
	EndNotice(ctx context.Context, n relay.Notice) error
	Story(ctx context.Context, account, message relay.ID) (*relay.Story, error)
	Content(ctx context.Context, message relay.ID) (relay.Content, error)
}

// Entrance takes a DSN in like any other mail. It ends the notice in the same
// transaction, so that a crash neither loses nor repeats one.
type Entrance interface {
	Report(ctx context.Context, account relay.ID, to string, utf8 bool, content relay.Content, answers *relay.Notice) (relay.ID, error)
}

// NotifierConfig is what the notifier must know.
type NotifierConfig struct {
	Hostname string
	From     string // address in the From header of DSNs
	// Idle, where not nil, tells that this node takes no mail at the moment, and
	// so no DSN: others may write them.
	Idle func() bool
}

// Notifier writes the DSNs that settled deliveries ask for.
type Notifier struct {
	config   NotifierConfig
	store    NoticeStore
	entrance Entrance
	log      *slog.Logger
	later    map[noticeKey]time.Time // notices that failed: not to be tried before
}

type noticeKey struct {
	message relay.ID
	kind    relay.Notify
}

// NewNotifier makes a notifier.
func NewNotifier(c NotifierConfig, s NoticeStore, e Entrance, log *slog.Logger) *Notifier {
	return &Notifier{config: c, store: s, entrance: e, log: log, later: map[noticeKey]time.Time{}}
}

const (
	noticeLook  = time.Second // between looks for due notices
	noticeBatch = 100
	noticeRetry = time.Minute // after a failure
)

// Run writes what is due until ctx ends.
func (n *Notifier) Run(ctx context.Context) error {
	tick := time.NewTicker(noticeLook)
	defer tick.Stop()
	failing := false
	for {
		done, err := 0, error(nil)
		if n.config.Idle == nil || !n.config.Idle() {
			done, err = n.round(ctx, time.Now())
		}
		if err != nil && !failing && ctx.Err() == nil {
			n.log.Error("due notices can't be read; trying on", "err", err)
		}
		failing = err != nil
		if err == nil && done == noticeBatch {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// round writes one batch of due notices, and says how many it wrote.
func (n *Notifier) round(ctx context.Context, now time.Time) (done int, err error) {
	// What waits after a failure must not keep the others from being seen.
	due, err := n.store.Notices(ctx, now, noticeBatch+len(n.later))
	if err != nil {
		return 0, err
	}
	for key, at := range n.later {
		if now.After(at) {
			delete(n.later, key)
		}
	}
	for _, notice := range due {
		key := noticeKey{notice.Message, notice.Kind}
		if _, waits := n.later[key]; waits || ctx.Err() != nil {
			continue
		}
		err := n.write(ctx, notice, now)
		switch {
		case err == nil, errors.Is(err, store.ErrSettled):
			done++
		case ctx.Err() == nil:
			n.log.Error("a notice can't be sent; trying again later", "message", notice.Message, "err", err)
			n.later[key] = now.Add(noticeRetry)
		}
	}
	return done, nil
}

// write sends one DSN about all the deliveries of a notice.
func (n *Notifier) write(ctx context.Context, notice relay.Notice, now time.Time) error {
	story, err := n.store.Story(ctx, relay.Everyone, notice.Message)
	if err != nil {
		return fmt.Errorf("read message: %w", err)
	}
	m := story.Message
	r := dsn.Report{Kind: kinds[notice.Kind], From: n.config.From, To: m.Envelope.Sender, ReportingMTA: n.config.Hostname,
		EnvID: m.Envelope.EnvID, OriginalID: m.HeaderID, Arrival: m.Received, Now: now, UTF8: m.Envelope.UTF8,
		Full: m.Envelope.Ret == "FULL" || m.Envelope.Ret == "" && notice.Kind == relay.NotifyFailure}
	r.MessageID = message.NewMessageID(notice.Message.String()+"."+fmt.Sprint(now.UnixNano()), n.config.Hostname)
	moot := relay.Notice{Message: notice.Message, Kind: notice.Kind}
	var rest []int
	for _, d := range story.Deliveries {
		switch {
		case !slices.Contains(notice.Deliveries, d.ID.N):
		case notice.Kind == relay.NotifyDelay && d.State.Final():
			// It has its own report, or needs none.
			moot.Deliveries = append(moot.Deliveries, d.ID.N)
		default:
			rest = append(rest, d.ID.N)
			r.Recipients = append(r.Recipients, recipient(d, notice.Kind))
		}
	}
	if len(moot.Deliveries) > 0 {
		if err := n.store.EndNotice(ctx, moot); err != nil && !errors.Is(err, store.ErrSettled) {
			return fmt.Errorf("end what is moot: %w", err)
		}
	}
	if len(rest) == 0 {
		return n.store.EndNotice(ctx, notice)
	}
	notice.Deliveries = rest
	switch original, err := n.store.Content(ctx, notice.Message); {
	case err == nil:
		r.Original = original
	case relay.CodeOf(err) == relay.NotFound: // the report says all but that
	default:
		return fmt.Errorf("read content: %w", err)
	}
	report, err := dsn.Compose(r)
	if err != nil {
		return fmt.Errorf("compose DSN: %w", err)
	}
	_, err = n.entrance.Report(ctx, m.Account, m.Envelope.Sender, r.UTF8, report, &notice)
	if relay.CodeOf(err) == relay.BadAddress {
		n.log.Warn("a sender can't be told: the address can't receive mail", "message", notice.Message, "err", err)
		return n.store.EndNotice(ctx, notice)
	}
	return err
}

var kinds = map[relay.Notify]dsn.Kind{relay.NotifyFailure: dsn.Failed, relay.NotifyDelay: dsn.Delayed, relay.NotifySuccess: dsn.Delivered}

func recipient(d *relay.Delivery, kind relay.Notify) dsn.Recipient {
	out := dsn.Recipient{Final: d.Recipient.Address, ORcpt: d.Recipient.ORcpt, Status: d.Reply.Enhanced, RemoteMTA: d.Host,
		Reply: d.Reply.Text, Text: d.Diagnosis.Text, Advice: d.Diagnosis.Advice, LastAttempt: d.Updated, FinalLogID: d.ID.String()}
	if d.Reply.Code != 0 {
		out.Reply = d.Reply.String()
	}
	switch {
	case kind == relay.NotifyDelay:
		out.WillRetry = d.Expires
	case kind == relay.NotifySuccess:
		out.Action = dsn.ActionRelayed // the receiver has it; it will not report (RFC 3461 section 6.2.3)
	case d.State == relay.Expired:
		out.Status = "4.4.7" // delivery time expired (RFC 3463 section 3.5)
		out.Text = "It was tried until its time was over. The last time: " + out.Text
	}
	return out
}
