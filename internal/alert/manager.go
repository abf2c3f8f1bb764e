package alert

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"postrider/internal/message"
	"postrider/internal/relay"
	"postrider/internal/smtp"
	"postrider/internal/webhook"
)

// Bounds of what people may ask for.
const (
	mostChannels = 20
	mostName     = 100
	mostMute     = 90 * 24 * time.Hour
)

// Reader finds incidents, and what was told of them.
type Reader interface {
	Alerts(ctx context.Context, account relay.ID, f relay.AlertFilter) ([]*relay.Alert, error)
	Alert(ctx context.Context, account, id relay.ID) (*relay.Alert, error)
	AlertSends(ctx context.Context, account, alert relay.ID) ([]*relay.AlertSend, error)
	TakeAlert(ctx context.Context, by relay.Actor, account, id relay.ID, action string, change func(*relay.Alert)) (*relay.Alert, error)
}

// Channels are kept in the store, and so are rules.
type Channels interface {
	AlertChannel(ctx context.Context, account, id relay.ID) (*relay.AlertChannel, error)
	AlertChannels(ctx context.Context, account, after relay.ID, limit int) ([]*relay.AlertChannel, error)
	AddAlertChannel(ctx context.Context, by relay.Actor, c *relay.AlertChannel, most int) error
	RemoveAlertChannel(ctx context.Context, by relay.Actor, account, id relay.ID) error
}

// RuleBook keeps rules.
type RuleBook interface {
	AlertRules(ctx context.Context, account relay.ID) ([]*relay.AlertRules, error)
	SetAlertRules(ctx context.Context, by relay.Actor, r *relay.AlertRules) error
}

// Owner tells whose an address is.
type Owner interface {
	Account(ctx context.Context, as, id relay.ID) (*relay.Account, error)
	Members(ctx context.Context, account relay.ID) ([]*relay.Member, error)
	Sender(ctx context.Context, account relay.ID, address string) (*relay.Sender, error)
	DomainByName(ctx context.Context, account relay.ID, name string) (*relay.Domain, error)
}

// Keeper is the store of a Manager.
type Keeper interface {
	Reader
	Channels
	RuleBook
	Owner
}

// Manager does what people ask for. Its errors are relay.Errors where they can do
// something about them.
type Manager struct {
	Reader
	store  Keeper
	rules  Rules
	anyone bool // by default accounts send in anybody's name, so may they write to anybody
	sender *Sender
	newID  func() (relay.ID, error)
}

// NewManager makes a manager. The rules are those of accounts without any of their
// own; anyone tells that accounts send in anybody's name by default.
func NewManager(rules Rules, anyone bool, k Keeper, s *Sender, newID func() (relay.ID, error)) *Manager {
	return &Manager{Reader: k, store: k, rules: rules, anyone: anyone, sender: s, newID: newID}
}

func invalid(advice, format string, args ...any) error {
	return &relay.Error{Code: relay.Invalid, Text: fmt.Sprintf(format, args...), Advice: advice}
}

// Ack notes that somebody looks after an incident: nobody is reminded of it.
func (m *Manager) Ack(ctx context.Context, by relay.Actor, account, id relay.ID) (*relay.Alert, error) {
	return m.TakeAlert(ctx, by, account, id, "alert.acknowledge", func(a *relay.Alert) { a.Taken, a.TakenBy = m.now(), by.Name })
}

// Mute lets nothing be told of an incident until a time; one in the past lets it
// be told again.
func (m *Manager) Mute(ctx context.Context, by relay.Actor, account, id relay.ID, until time.Time) (*relay.Alert, error) {
	if until.Sub(m.now()) > mostMute {
		return nil, invalid("", "An incident can be muted for up to %d days.", int(mostMute.Hours()/24))
	}
	return m.TakeAlert(ctx, by, account, id, "alert.mute", func(a *relay.Alert) { a.Muted = until })
}

func (m *Manager) now() time.Time { return m.sender.now().UTC().Truncate(time.Microsecond) }

// Wish is what people choose of a channel.
type Wish struct {
	Kind relay.ChannelKind `json:"kind" enum:"mail,webhook,slack" doc:"mail; webhook: signed as Standard Webhooks has it; slack: an incoming hook of Slack, Mattermost, or Discord (with /slack behind its address)"`
	To   string            `json:"to" maxLength:"2000" doc:"A mail address, or the address of the hook. That of a hook is not shown again"`
	Name string            `json:"name,omitempty" maxLength:"100" doc:"For people"`
}

// Add makes a channel. Of a webhook it gives the secret that requests are signed
// with, which is not shown again.
func (m *Manager) Add(ctx context.Context, by relay.Actor, account relay.ID, in Wish) (c *relay.AlertChannel, secret string, err error) {
	c = &relay.AlertChannel{Account: account, Kind: in.Kind, Name: message.Clean(in.Name, mostName), Created: m.now()}
	if c.ID, err = m.newID(); err != nil {
		return nil, "", err
	}
	switch in.Kind {
	case relay.ChannelMail:
		if err := m.mayWrite(ctx, account, in.To); err != nil {
			return nil, "", err
		}
		c.Shown = in.To
	case relay.ChannelWebhook, relay.ChannelSlack:
		if err := m.sender.post.Check(in.To); err != nil {
			return nil, "", err
		}
		if in.Kind == relay.ChannelWebhook {
			secret = webhook.NewSecret()
		}
		plain, err := json.Marshal(sealed{in.To, secret})
		if err != nil {
			return nil, "", fmt.Errorf("encode channel: %w", err)
		}
		c.Shown, c.Sealed = masked(in.To), m.sender.box.Seal(plain, sealContext(c))
	default:
		return nil, "", invalid("Use mail, webhook or slack.", "%.40q is not a kind of channel.", string(in.Kind))
	}
	if err := m.store.AddAlertChannel(ctx, by, c, mostChannels); err != nil {
		return nil, "", err
	}
	return c, secret, nil
}

// masked is as much of a hook's address as is no secret.
func masked(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "…"
	}
	return u.Scheme + "://" + u.Host + "/…"
}

// mayWrite refuses mail to strangers: an address is that of a member, of a verified
// sender, or in a verified domain of the account, unless it sends in anybody's name.
func (m *Manager) mayWrite(ctx context.Context, account relay.ID, to string) error {
	addr, err := smtp.ParseAddress(to, true)
	if err != nil {
		return &relay.Error{Code: relay.BadAddress, Text: fmt.Sprintf("%.100q is not a mail address.", to), Advice: "Correct it."}
	}
	a, err := m.store.Account(ctx, account, account)
	if err != nil {
		return err
	}
	if a.Senders == relay.SendersAny || a.Senders == "" && m.anyone {
		return nil
	}
	members, err := m.store.Members(ctx, account)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(members, func(of *relay.Member) bool { return strings.EqualFold(of.Email, to) }) {
		return nil
	}
	if s, err := m.store.Sender(ctx, account, strings.ToLower(to)); err == nil && !s.Verified.IsZero() {
		return nil
	}
	if name, err := addr.ASCIIDomain(); err == nil {
		if d, err := m.store.DomainByName(ctx, account, strings.ToLower(strings.TrimSuffix(name, "."))); err == nil && !d.Verified.IsZero() {
			return nil
		}
	}
	return invalid("Add it as a user of the account, or verify it as a sender or its domain as a domain.", "%.100s is not an address of the account.", to)
}

// Channels gives the account's channels after the one of that id.
func (m *Manager) Channels(ctx context.Context, account, after relay.ID, limit int) ([]*relay.AlertChannel, error) {
	return m.store.AlertChannels(ctx, account, after, limit)
}

// Remove forgets a channel.
func (m *Manager) Remove(ctx context.Context, by relay.Actor, account, id relay.ID) error {
	return m.store.RemoveAlertChannel(ctx, by, account, id)
}

// Test sends a sample now, and gives the answer; mail has none.
func (m *Manager) Test(ctx context.Context, account, id relay.ID) (webhook.Answer, error) {
	c, err := m.store.AlertChannel(ctx, account, id)
	if err != nil {
		return webhook.Answer{}, err
	}
	r, err := reachOf(m.sender.box, c)
	if err != nil {
		return webhook.Answer{}, err
	}
	sample, err := m.newID()
	if err != nil {
		return webhook.Answer{}, err
	}
	v := view{host: m.sender.config.Hostname, id: sample.String(), news: "test", now: m.now(),
		Alert: &relay.Alert{ID: sample, Account: c.Account, Kind: relay.AlertBounces, Severity: relay.SeverityWarning, Opened: m.now(), Title: "A test of this channel",
			Text: "Nothing is wrong: somebody wanted to see that alerts arrive here.", Figures: []relay.AlertFigure{{Name: "share", Value: "0 %"}}}}
	if a, err := m.store.Account(ctx, c.Account, c.Account); err == nil {
		v.account = a.Name
	}
	return m.sender.reach(ctx, r, v), nil
}

// RuleSet is what an account is alerted of.
type RuleSet struct {
	Rules   Rules             // as they hold
	Own     []relay.AlertKind // those that the account has set
	Version int64             // of what it has set
	set     map[relay.AlertKind]relay.AlertRule
}

// RulesOf gives the rules of an account.
func (m *Manager) RulesOf(ctx context.Context, account relay.ID) (RuleSet, error) {
	if account == relay.Everyone {
		return RuleSet{Rules: m.rules.For(nil)}, nil
	}
	all, err := m.store.AlertRules(ctx, account)
	if err != nil {
		return RuleSet{}, err
	}
	out := RuleSet{set: map[relay.AlertKind]relay.AlertRule{}}
	for _, r := range all {
		out.Version = r.Version
		for _, kind := range OfAccounts() {
			if rule, ok := r.Rules[kind]; ok {
				out.set[kind] = rule
				out.Own = append(out.Own, kind)
			}
		}
	}
	out.Rules = m.rules.For(out.set)
	return out, nil
}

// SetRules sets rules of an account; nil puts one back to what is usual. Those of
// other kinds stay.
func (m *Manager) SetRules(ctx context.Context, by relay.Actor, account relay.ID, change map[relay.AlertKind]*relay.AlertRule) (RuleSet, error) {
	now, err := m.RulesOf(ctx, account)
	if err != nil {
		return RuleSet{}, err
	}
	r := &relay.AlertRules{Account: account, Version: now.Version, Rules: now.set}
	for kind, rule := range change {
		if rule == nil {
			delete(r.Rules, kind)
			continue
		}
		if err := m.check(kind, *rule); err != nil {
			return RuleSet{}, err
		}
		r.Rules[kind] = *rule
	}
	if err := m.store.SetAlertRules(ctx, by, r); err != nil {
		return RuleSet{}, err
	}
	return m.RulesOf(ctx, account)
}

func (m *Manager) check(kind relay.AlertKind, r relay.AlertRule) error {
	if !slices.Contains(OfAccounts(), kind) {
		return invalid("Accounts have rules for bounce-rate, complaint-rate, deferral-spike, provider-block, quota, domain-failing, certificate-expiring and webhook-failing.", "There is no rule for %.40q here.", string(kind))
	}
	if !IsRate(kind) {
		if r.Warning != 0 || r.Critical != 0 || r.Least != 0 || len(r.Windows) > 0 {
			return invalid("It can be on or off.", "There are no thresholds of %s.", kind)
		}
		return nil
	}
	whole := r.Over(m.rules[kind])
	if !(whole.Warning > 0 && whole.Warning <= whole.Critical && whole.Critical <= 100) || whole.Least < 1 {
		return invalid("A warning is more than 0 and at most critical, which is at most 100; least is 1 or more. Set both, warning and critical.", "These thresholds make no sense.")
	}
	for _, w := range r.Windows {
		if !slices.Contains(Windows(), w) {
			return invalid("Use 15m, 30m, 1h, 6h or 24h.", "%v is not a span that is counted.", w)
		}
	}
	return nil
}
