package alert

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"postrider/internal/relay"
	"postrider/internal/store"
)

// Incidents are kept in the store.
type Incidents interface {
	OpenAlerts(ctx context.Context) ([]*relay.Alert, error)
	PutAlert(ctx context.Context, a *relay.Alert, tell []*relay.AlertSend) error
	EndAlerts(ctx context.Context, before time.Time) error
	AlertRules(ctx context.Context, account relay.ID) ([]*relay.AlertRules, error)
	Lock(ctx context.Context, name, owner string, lasts time.Duration) (bool, error)
}

// Facts are what is looked at.
type Facts interface {
	Recent(ctx context.Context, account relay.ID, since time.Time) ([]*relay.Recent, error)
	SeenReplies(ctx context.Context, account relay.ID, kinds [2]relay.Kind, since time.Time, rows int) ([]*relay.SeenReply, error)
	Changes(ctx context.Context, account relay.ID, f relay.ChangeFilter) ([]*relay.Change, error)
	DomainByName(ctx context.Context, account relay.ID, name string) (*relay.Domain, error)
	WebhooksInTrouble(ctx context.Context) ([]*store.WebhookHealth, error)
}

// People are who alerts are for.
type People interface {
	Members(ctx context.Context, account relay.ID) ([]*relay.Member, error)
	Users(ctx context.Context, account, after relay.ID, limit int) ([]*relay.User, error)
	AlertChannels(ctx context.Context, account, after relay.ID, limit int) ([]*relay.AlertChannel, error)
	Account(ctx context.Context, as, id relay.ID) (*relay.Account, error)
}

// Store has all of that.
type Store interface {
	Incidents
	Facts
	People
	Now() time.Time
}

// Certificate is one that this node serves, or of a tracking host, which all do.
type Certificate struct {
	Name          string // of a host
	From, Expires time.Time
	Renewed       bool     // the relay renews it by itself; all nodes share it
	Account       relay.ID // whose tracking host it is of
	Error         string   // why it is not renewed, or does not come
	// Missing is since when the relay has asked for it and has none; zero: there is
	// one.
	Missing time.Time
}

// Config is what a Watch must know.
type Config struct {
	Node   string
	Every  time.Duration
	Keep   time.Duration // of incidents that have ended
	Times  Times
	Rules  Rules // of accounts that have none of their own, and of the relay
	Expiry [2]time.Duration
	// Operators are told what concerns the relay, and accounts that have nobody.
	Operators Operators
	NewID     func() (relay.ID, error)
	// Idle, where not nil, tells that this node is not to work at the moment.
	Idle func() bool
	// Certificates gives those of this node; nil: none.
	Certificates func() []Certificate
	// Disk looks at this node's data folder; nil: it does not matter.
	Disk func(ctx context.Context) relay.Finding
	// Hosts gives those of tracking hosts that are not renewed although it is time, or
	// do not come at all; nil: there are none.
	Hosts func(ctx context.Context) ([]Certificate, error)
	// Blocklists asks the lists for the relay's addresses; nil: none are asked.
	Blocklists func(ctx context.Context) []relay.Finding
	Lists      time.Duration // between such questions
	Log        *slog.Logger
}

// Operators are how operators are told.
type Operators struct {
	To      []string // addresses; none: of the users that are operators
	Webhook string   // an address; empty: none
	Secret  string
	Slack   string
}

// Watch looks, one node at a time, and keeps what it finds. What is to be told is
// written with it.
type Watch struct {
	config Config
	store  Store
	log    *slog.Logger

	quotas  map[place]quota
	domains map[place]bool
	audited time.Time // up to when the audit log was read
	lists   []Seen
	listed  time.Time // when the lists were asked
	unsure  map[string]bool
	swept   time.Time
}

// NewWatch makes it.
func NewWatch(c Config, s Store) *Watch {
	return &Watch{config: c, store: s, log: c.Log, quotas: map[place]quota{}, domains: map[place]bool{}, unsure: map[string]bool{}}
}

// Run looks until ctx ends.
func (w *Watch) Run(ctx context.Context) error {
	return rounds(ctx, w.config.Every, w.config.Idle, w.Round, func(err error) {
		w.log.Error("it can't be told whether something is wrong; trying on", "err", err)
	})
}

// rounds makes a round at each tick until ctx ends, but while idle (nil: never); what
// makes rounds fail is told once.
func rounds(ctx context.Context, every time.Duration, idle func() bool, round func(context.Context) error, tell func(error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if idle != nil && idle() {
			continue
		}
		err := round(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			tell(err)
		}
		failing = err != nil
	}
}

// lock is for how long a node that looks keeps others from it.
func (w *Watch) lock() time.Duration { return max(time.Minute, 3*w.config.Every/2) }

// Round looks once: at what is this node's own, and at the rest if no other node
// does.
func (w *Watch) Round(ctx context.Context) error {
	now := w.store.Now()
	open, err := w.store.OpenAlerts(ctx)
	if err != nil {
		return err
	}
	own := func(a *relay.Alert) bool { return ofNode(a) && w.mine(a) }
	var ours []*relay.Alert
	for _, a := range open {
		if own(a) {
			ours = append(ours, a)
		}
		if a.Kind == relay.AlertDomain { // told of longer ago than the audit log is read
			w.domains[place{a.Account, a.Subject}] = true
		}
	}
	disk, looked := w.disk(ctx)
	if err := w.turn(ctx, ours, append(w.certificates(now), disk...), func(a *relay.Alert) bool { return a.Kind != relay.AlertDisk || looked }, now); err != nil {
		return err
	}
	mine, err := w.store.Lock(ctx, "alerts", w.config.Node, w.lock())
	if err != nil || !mine {
		return err
	}
	seen, err := w.look(ctx, now)
	if err != nil {
		return err
	}
	open = slices.DeleteFunc(open, own)
	sure := func(a *relay.Alert) bool {
		if ofNode(a) {
			return now.Sub(a.Seen) > gone // the node is gone
		}
		list, _, _ := strings.Cut(a.Subject, " ")
		return a.Kind != relay.AlertBlocklist || !w.unsure[list]
	}
	if err := w.turn(ctx, open, seen, sure, now); err != nil {
		return err
	}
	if now.Sub(w.swept) >= time.Hour {
		w.swept = now
		return w.store.EndAlerts(ctx, now.Add(-w.config.Keep))
	}
	return nil
}

// ofNode tells whether each node looks at such a thing for itself.
func ofNode(a *relay.Alert) bool {
	return a.Account == relay.Everyone && (a.Kind == relay.AlertCertificate || a.Kind == relay.AlertDisk)
}

// gone is after how long without a word of a node its own incidents are nobody's.
const gone = 24 * time.Hour

// turn keeps what becomes of incidents. One that cannot be kept waits for the next
// round; where somebody else was faster it is the same.
func (w *Watch) turn(ctx context.Context, open []*relay.Alert, seen []Seen, looked func(*relay.Alert) bool, now time.Time) error {
	var failed error
	for _, step := range Turn(open, seen, looked, now, w.config.Times) {
		if err := w.keep(ctx, step, now); err != nil && relay.CodeOf(err) != relay.Conflict {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

func (w *Watch) keep(ctx context.Context, step Step, now time.Time) error {
	a := step.Alert
	if a.Version == 0 {
		id, err := w.config.NewID()
		if err != nil {
			return err
		}
		a.ID = id
	}
	if step.Seen != nil && (step.News == relay.AlertOpened || step.News == relay.AlertWorse) {
		s := *step.Seen
		if err := w.illustrate(ctx, &s, now); err != nil {
			return err
		}
		a.Text, a.Advice, a.Figures = s.Text, s.Advice, s.Figures
	}
	var tell []*relay.AlertSend
	if step.News != "" {
		var err error
		if tell, err = w.tell(ctx, a, step.News, now); err != nil {
			return err
		}
	}
	if err := w.store.PutAlert(ctx, a, tell); err != nil {
		return fmt.Errorf("keep alert %s %q: %w", a.Kind, a.Subject, err)
	}
	if step.News != "" {
		level := slog.LevelWarn
		if step.News == relay.AlertEnded {
			level = slog.LevelInfo
		}
		w.log.Log(ctx, level, "alert "+string(step.News), "id", a.ID, "account", a.Account, "kind", a.Kind, "subject", a.Subject, "severity", a.Severity, "title", a.Title, "told", len(tell))
	}
	return nil
}

// mostEvents is how many events are looked at for the reply that was seen most.
const mostEvents = 20_000

func (w *Watch) illustrate(ctx context.Context, s *Seen, now time.Time) error {
	if s.Replies == nil {
		return nil
	}
	all, err := w.store.SeenReplies(ctx, s.Account, s.Replies.Kinds, now.Add(-s.Replies.Window), mostEvents)
	if err == nil {
		illustrate(s, all)
	}
	return err
}

// tell says who is to hear of an incident.
func (w *Watch) tell(ctx context.Context, a *relay.Alert, news relay.AlertNews, now time.Time) ([]*relay.AlertSend, error) {
	all, err := w.receivers(ctx, a.Account)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if s.ID, err = w.config.NewID(); err != nil {
			return nil, err
		}
		s.Alert, s.Account, s.Due, s.News, s.Shown = a.ID, a.Account, now, news, *a
		s.Of = relay.AlertOf{Account: a.Account, Kind: a.Kind, Subject: a.Subject, Severity: a.Severity, Opened: a.Opened, Ended: a.Ended}
	}
	return all, nil
}

// receivers of what concerns an account: its channels, else the addresses of its
// owners and admins, else the operators.
func (w *Watch) receivers(ctx context.Context, account relay.ID) (all []*relay.AlertSend, err error) {
	if account == relay.Everyone {
		return w.operators(ctx)
	}
	channels, err := w.store.AlertChannels(ctx, account, relay.ID{}, mostChannels)
	if err != nil {
		return nil, err
	}
	for _, c := range channels {
		all = append(all, &relay.AlertSend{Channel: c.ID, Kind: c.Kind})
	}
	if len(all) > 0 {
		return all, nil
	}
	members, err := w.store.Members(ctx, account)
	if err != nil {
		return nil, err
	}
	users, err := w.store.Users(ctx, account, relay.ID{}, 1000)
	if err != nil {
		return nil, err
	}
	out := map[relay.ID]bool{}
	for _, u := range users {
		out[u.ID] = !u.Disabled.IsZero()
	}
	for _, m := range members {
		if (m.Role == relay.Owner || m.Role == relay.Admin) && !out[m.User] {
			all = append(all, &relay.AlertSend{Target: m.Email, Kind: relay.ChannelMail})
		}
	}
	if len(all) > 0 {
		return all, nil
	}
	return w.operators(ctx)
}

// Names of the operator's hooks, as targets.
const (
	operatorWebhook = "alerts.webhook"
	operatorSlack   = "alerts.slack_file"
)

func (w *Watch) operators(ctx context.Context) (all []*relay.AlertSend, err error) {
	o := w.config.Operators
	for _, to := range o.To {
		all = append(all, &relay.AlertSend{Target: to, Kind: relay.ChannelMail})
	}
	if o.Webhook != "" {
		all = append(all, &relay.AlertSend{Target: operatorWebhook, Kind: relay.ChannelWebhook})
	}
	if o.Slack != "" {
		all = append(all, &relay.AlertSend{Target: operatorSlack, Kind: relay.ChannelSlack})
	}
	if len(o.To) > 0 {
		return all, nil
	}
	for after := (relay.ID{}); ; {
		const page = 500
		users, err := w.store.Users(ctx, relay.Everyone, after, page)
		if err != nil {
			return nil, err
		}
		for _, u := range users {
			if u.Operator && u.Disabled.IsZero() {
				all = append(all, &relay.AlertSend{Target: u.Email, Kind: relay.ChannelMail})
			}
			after = u.ID
		}
		if len(users) < page {
			return all, nil
		}
	}
}
