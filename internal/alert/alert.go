// Package alert tells people when something is wrong: one incident of a kind about
// a thing at a time, with a beginning and an end. What is wrong is judged from
// counts and states (judge.go), what becomes of an incident from what was seen
// (turn.go); both are pure. A Watch looks, and a Sender tells.
package alert

import (
	"context"
	"slices"
	"time"

	"postrider/internal/relay"
)

// Seen is something that is wrong now, or nearly.
type Seen struct {
	Account relay.ID // Everyone: of the relay as a whole
	Kind    relay.AlertKind
	Subject string
	// Level is how grave it is. 0: hardly wrong enough to begin an incident, and
	// not well enough to end one.
	Level    int
	Severity relay.Severity
	Title    string
	Text     string
	Advice   string
	Figures  []relay.AlertFigure
	Until    time.Time // when it ends by itself; zero: when it is not seen any more
	// Replies says which replies are examples of it; nil: none are.
	Replies *Replies
}

// Replies are those of some outcomes to an account's mail.
type Replies struct {
	Kinds    [2]relay.Kind
	Provider string
	Any      bool     // of any provider
	Class    string   // beginning, or end, of the category
	Not      []string // such classes are none
	Window   time.Duration
}

// fits tells whether a reply is one of them.
func (r *Replies) fits(s *relay.SeenReply) bool {
	return (r.Any || s.Provider == r.Provider) && hasClass(s.Category, r.Class) &&
		!slices.ContainsFunc(r.Not, func(class string) bool { return hasClass(s.Category, class) })
}

// Rules are what holds for an account, of each kind.
type Rules map[relay.AlertKind]relay.AlertRule

// For gives the rules of an account, which has set some of its own.
func (r Rules) For(own map[relay.AlertKind]relay.AlertRule) Rules {
	all := Rules{}
	for kind, rule := range r {
		all[kind] = rule
		if mine, ok := own[kind]; ok {
			all[kind] = mine.Over(rule)
		}
	}
	return all
}

// Windows are the spans that a rate can be looked at over.
func Windows() []time.Duration {
	return []time.Duration{15 * time.Minute, 30 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour}
}

// OfAccounts are the kinds that accounts have rules of their own for.
func OfAccounts() []relay.AlertKind {
	return []relay.AlertKind{relay.AlertBounces, relay.AlertComplaints, relay.AlertDeferrals, relay.AlertBlock, relay.AlertQuota, relay.AlertDomain, relay.AlertCertificate, relay.AlertWebhook}
}

// IsRate tells whether a kind is a share of something, with thresholds.
func IsRate(k relay.AlertKind) bool {
	return slices.Contains([]relay.AlertKind{relay.AlertBounces, relay.AlertComplaints, relay.AlertDeferrals, relay.AlertBlock}, k)
}

// Box seals the secrets of channels.
type Box interface {
	Seal(plain []byte, context string) []byte
	Open(sealed []byte, context string) ([]byte, error)
}

// Mail takes mail of our own into the queue; the same key is taken once.
type Mail interface {
	Alert(ctx context.Context, account relay.ID, to string, content relay.Content, key string) (relay.ID, error)
}

// Observer counts what is told.
type Observer interface {
	AlertTold(kind relay.ChannelKind, ok bool)
}
