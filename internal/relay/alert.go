package relay

import (
	"slices"
	"time"
)

// Alert is one incident: something is wrong from a time to a time. There is one
// open incident of a kind about a subject at most.
type Alert struct {
	ID       ID        `json:"-"`
	Account  ID        `json:"-"` // Everyone: of the relay as a whole, for its operators
	Kind     AlertKind `json:"-"`
	Subject  string    `json:"-"` // what it is about: a provider, a domain, a webhook …; empty: the account
	Severity Severity  `json:"-"`
	Opened   time.Time `json:"-"`
	Ended    time.Time `json:"-"` // zero: it is open
	Version  int64     `json:"-"`

	Title   string        `json:"title"`            // what is wrong, in one line
	Text    string        `json:"text"`             // what was seen
	Advice  string        `json:"advice,omitempty"` // what to do, and whose turn it is
	Figures []AlertFigure `json:"figures,omitempty"`
	Seen    time.Time     `json:"seen"`             // when it was so last
	Level   int           `json:"level"`            // the gravest so far: people are told when it grows
	Calm    time.Time     `json:"calm,omitzero"`    // since when it is not so any more; zero: it is
	Told    time.Time     `json:"told"`             // when people were told last
	Until   time.Time     `json:"until,omitzero"`   // when it ends by itself; zero: when it is not so any more
	Muted   time.Time     `json:"muted,omitzero"`   // nothing is told until then
	Missed  bool          `json:"missed,omitempty"` // something was not told because of that
	Taken   time.Time     `json:"taken,omitzero"`   // since when somebody looks after it: no reminders
	TakenBy string        `json:"taken_by,omitempty"`
}

// AlertFigure is one number that was seen, for people.
type AlertFigure struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// AlertKind is what an incident is.
type AlertKind string

const (
	AlertBounces     AlertKind = "bounce-rate"
	AlertComplaints  AlertKind = "complaint-rate"
	AlertDeferrals   AlertKind = "deferral-spike"
	AlertBlock       AlertKind = "provider-block"
	AlertQuota       AlertKind = "quota"
	AlertDomain      AlertKind = "domain-failing"
	AlertCertificate AlertKind = "certificate-expiring"
	AlertWebhook     AlertKind = "webhook-failing"
	AlertBlocklist   AlertKind = "blocklisted"
	AlertDisk        AlertKind = "disk-low" // of a node's data folder
)

// AlertKinds are all of them.
func AlertKinds() []AlertKind {
	return []AlertKind{AlertBounces, AlertComplaints, AlertDeferrals, AlertBlock, AlertQuota, AlertDomain, AlertCertificate, AlertWebhook, AlertBlocklist, AlertDisk}
}

// Severity is how grave an incident is.
type Severity string

const (
	SeverityWarning  Severity = "warning"
	SeverityCritical Severity = "critical"
)

// AlertNews is what is told of an incident.
type AlertNews string

const (
	AlertOpened   AlertNews = "opened"
	AlertWorse    AlertNews = "worse"
	AlertReminder AlertNews = "reminder"
	AlertEnded    AlertNews = "ended"
)

// AlertSend is one thing to be told of an incident, to one receiver.
type AlertSend struct {
	ID      ID        `json:"-"`
	Alert   ID        `json:"-"`
	Account ID        `json:"-"`
	Channel ID        `json:"-"` // zero: no channel of the account's
	Target  string    `json:"-"` // without a Channel: an address, or which of the operator's
	Due     time.Time `json:"-"` // of the next try; zero: it was sent, or given up

	Kind  ChannelKind `json:"kind"`
	News  AlertNews   `json:"news"`
	Shown Alert       `json:"shown"` // the incident as it was then
	Of    AlertOf     `json:"of"`    // and what of it Shown leaves out
	Tries int         `json:"tries,omitempty"`
	Sent  time.Time   `json:"sent,omitzero"`
	Error string      `json:"error,omitempty"` // of the last try
}

// AlertOf is what of an Alert stands in columns of its own.
type AlertOf struct {
	Account  ID        `json:"account"`
	Kind     AlertKind `json:"kind"`
	Subject  string    `json:"subject,omitempty"`
	Severity Severity  `json:"severity"`
	Opened   time.Time `json:"opened"`
	Ended    time.Time `json:"ended,omitzero"`
}

// Incident is the incident as it was when it was to be told.
func (s *AlertSend) Incident() *Alert {
	a := s.Shown
	a.ID, a.Account, a.Kind, a.Subject, a.Severity, a.Opened, a.Ended = s.Alert, s.Of.Account, s.Of.Kind, s.Of.Subject, s.Of.Severity, s.Of.Opened, s.Of.Ended
	return &a
}

// ChannelKind is how alerts are sent.
type ChannelKind string

const (
	ChannelMail    ChannelKind = "mail"
	ChannelWebhook ChannelKind = "webhook" // signed as Standard Webhooks has it
	ChannelSlack   ChannelKind = "slack"   // an incoming hook of Slack, or of what takes the same
)

// AlertChannel is where an account wants its alerts sent.
type AlertChannel struct {
	ID      ID          `json:"-"`
	Account ID          `json:"-"`
	Kind    ChannelKind `json:"-"`
	Created time.Time   `json:"-"`

	Name   string       `json:"name,omitempty"`
	Shown  string       `json:"shown"` // the address, as far as it is no secret
	Sealed []byte       `json:"-"`     // the address, where it is one; of a webhook, the secret
	State  ChannelState `json:"-"`
}

// ChannelState is how a channel works.
type ChannelState struct {
	Sent    int64     `json:"sent,omitempty"`
	Last    time.Time `json:"last,omitzero"`    // when something was taken last
	Failing time.Time `json:"failing,omitzero"` // since when nothing is; zero: it works
	Error   string    `json:"error,omitempty"`
}

// AlertFilter says which incidents are wanted. Fields that are zero ask for
// nothing.
type AlertFilter struct {
	Kind   AlertKind
	Open   bool // only those that have not ended
	Ended  bool // only those that have
	Before ID
	Limit  int
}

// AlertRules are what an account wants to be alerted of. What is not there is as
// the operator's configuration says.
type AlertRules struct {
	Account ID                      `json:"-"`
	Version int64                   `json:"-"`
	Rules   map[AlertKind]AlertRule `json:"rules,omitempty"`
}

// AlertRule is when one kind of alert is raised. Rates are in percent.
type AlertRule struct {
	Off      bool            `json:"off,omitempty"`
	Warning  float64         `json:"warning,omitempty"`
	Critical float64         `json:"critical,omitempty"`
	Least    int64           `json:"least,omitempty"`   // there is no rate of fewer than so many
	Windows  []time.Duration `json:"windows,omitempty"` // the spans that are looked at
}

// Over gives the rule with what is not there taken from another.
func (r AlertRule) Over(other AlertRule) AlertRule {
	if r.Warning == 0 && r.Critical == 0 {
		r.Warning, r.Critical = other.Warning, other.Critical
	}
	if r.Least == 0 {
		r.Least = other.Least
	}
	if len(r.Windows) == 0 {
		r.Windows = slices.Clone(other.Windows)
	}
	return r
}

// Recent counts outcomes of a span.
type Recent struct {
	Account  ID
	Kind     Kind
	Provider string // empty: not known
	Category string
	N        int64
}

// SeenReply is what a receiver said, for people who are alerted.
type SeenReply struct {
	Delivery DeliveryID
	Provider string
	Domain   string
	Reply    Reply
	Category string
	Text     string // what it means
	Advice   string
}
