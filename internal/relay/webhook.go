package relay

import (
	"slices"
	"time"
)

// Webhook is an address that an account's events are sent to.
type Webhook struct {
	ID          ID     `json:"id"`
	Account     ID     `json:"account"`
	URL         string `json:"url"`
	Description string `json:"description,omitempty"`

	// What of the events is wanted. Empty fields ask for nothing; the others must
	// all hold.
	Kinds       []Kind   `json:"kinds,omitempty"`
	Tags        []string `json:"tags,omitempty"` // any of them
	Stream      Stream   `json:"stream,omitempty"`
	Credentials []ID     `json:"credentials,omitempty"` // any of them

	Batch int           `json:"batch,omitempty"` // most events in one request; 0: one, and not in an array
	Wait  time.Duration `json:"wait,omitempty"`  // how long a request waits for more, up to Batch

	// Secrets are what requests are signed with: all that are good still, so that
	// a receiver may change from one to the other when it likes.
	Secrets []WebhookSecret `json:"secrets"`

	Status  WebhookStatus `json:"status"`
	Reason  string        `json:"reason,omitempty"` // of the status, for people
	Created time.Time     `json:"created"`
	Version int64         `json:"version"`
}

// WebhookStatus says whether events are sent.
type WebhookStatus string

const (
	WebhookActive   WebhookStatus = "active"
	WebhookPaused   WebhookStatus = "paused"   // by people
	WebhookDisabled WebhookStatus = "disabled" // by the relay, when all has failed for too long
)

// WebhookSecret is one secret of a webhook.
type WebhookSecret struct {
	Sealed  []byte    `json:"-"` // with the master key
	Created time.Time `json:"created"`
	Until   time.Time `json:"until,omitzero"` // zero: for good
}

// WantsKind tells whether events of that kind are wanted at all.
func (w *Webhook) WantsKind(k Kind) bool { return len(w.Kinds) == 0 || slices.Contains(w.Kinds, k) }

// Wants tells whether an event is wanted.
func (w *Webhook) Wants(e *WebhookEvent) bool {
	m := e.Message
	return w.WantsKind(e.Kind) && (w.Stream == 0 || w.Stream == m.Stream) &&
		(len(w.Credentials) == 0 || slices.Contains(w.Credentials, m.Credential)) &&
		(len(w.Tags) == 0 || slices.ContainsFunc(w.Tags, func(t string) bool { return slices.Contains(m.Tags, t) }))
}

// WebhookEvent is an event as it is sent: with what is known of its message,
// which comes without Envelope.Recipients.
type WebhookEvent struct {
	Event
	Message *Message
}

// EventHead is as much of an event as tells who may want it.
type EventHead struct {
	ID      ID
	Account ID
	Kind    Kind
}

// WebhookProgress is how far a webhook has come.
type WebhookProgress struct {
	// Done: all events up to this id have been dealt with.
	Done ID `json:"done"`
	// Where events can be committed out of their order, Done waits until none can
	// come before it; meanwhile those up to Until were dealt with that had Sum:
	// the number of them, and the exclusive or of the second halves of their ids.
	Until ID        `json:"until,omitzero"`
	Sum   [2]uint64 `json:"sum,omitzero"`

	Sent      int64     `json:"sent,omitempty"`     // events, in all
	Delivered time.Time `json:"delivered,omitzero"` // the last request that was taken
	Failing   time.Time `json:"failing,omitzero"`   // since when every request has failed
	Failures  int       `json:"failures,omitempty"` // requests since then
	Next      time.Time `json:"next,omitzero"`      // of the next try, while they fail
	Aside     []Aside   `json:"aside,omitempty"`    // messages whose events are refused, while others are taken
	Epoch     int64     `json:"-"`                  // grows when it is set back by order
	Node      string    `json:"-"`                  // that sends; empty: none does
}

// Aside is a message whose events, from one on, are tried by themselves, so that
// those of others need not wait.
type Aside struct {
	Message  ID        `json:"message"`
	From     ID        `json:"from"`
	Since    time.Time `json:"since"` // its first failure
	Failures int       `json:"failures"`
	Next     time.Time `json:"next"`
}

// WebhookFailure is a request that was not taken.
type WebhookFailure struct {
	ID      ID            `json:"-"`
	At      time.Time     `json:"at"`
	Event   ID            `json:"event"`   // the first in the request
	Message ID            `json:"message"` // of that event
	Events  int           `json:"events"`  // how many were in it
	Try     int           `json:"try"`
	Status  int           `json:"status,omitempty"` // HTTP; 0: no answer came
	Answer  string        `json:"answer,omitempty"` // the beginning of its body
	Error   string        `json:"error,omitempty"`  // why it failed, for people
	Took    time.Duration `json:"took"`
	Next    time.Time     `json:"next,omitzero"` // of the next try; zero: it was given up
}

// WebhookState is what a node notes of a webhook that it serves.
type WebhookState struct {
	Webhook  ID
	Epoch    int64
	Progress WebhookProgress
	Failures []WebhookFailure // since it was noted last
}
