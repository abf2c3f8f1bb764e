package relay

import (
	"net/netip"
	"time"
)

// Kind is what an event tells.
type Kind int8

const (
	EventAccepted  Kind = 1
	EventDelivered Kind = 2
	EventDeferred  Kind = 3
	EventBounced   Kind = 4
	EventExpired   Kind = 5
	EventHeld      Kind = 6
	EventReleased  Kind = 7 // from hold, or "retry now"
	EventCancelled Kind = 8
	EventReported  Kind = 9 // a DSN about it was written; its id is the reply's text. The state stays
	// EventRescheduled gives what has not been tried, and is not due yet, another
	// time to be due; it expires as much later.
	EventRescheduled Kind = 10

	// Of mail that came back after the end. The state stays.
	EventFeedback   Kind = 11 // a bounce that says nothing final, an automatic reply
	EventComplained Kind = 12

	// Of what recipients did with the message. The state stays.
	EventOpened       Kind = 13
	EventClicked      Kind = 14
	EventUnsubscribed Kind = 15
	EventResubscribed Kind = 16 // took that back
)

var kindNames = map[Kind]string{EventAccepted: "accepted", EventDelivered: "delivered", EventDeferred: "deferred",
	EventBounced: "bounced", EventExpired: "expired", EventHeld: "held", EventReleased: "released", EventCancelled: "cancelled", EventReported: "reported",
	EventRescheduled: "rescheduled", EventFeedback: "feedback", EventComplained: "complained",
	EventOpened: "opened", EventClicked: "clicked", EventUnsubscribed: "unsubscribed",
	EventResubscribed: "resubscribed"}

func (k Kind) String() string { return nameOf(kindNames, k) }

// MarshalText writes the kind as String does.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads a kind by its name.
func (k *Kind) UnmarshalText(b []byte) (err error) {
	*k, err = byName(kindNames, "kind of event", string(b))
	return err
}

// Stays tells whether an event of this kind leaves the state as it was.
func (k Kind) Stays() bool {
	return k == EventReported || k == EventFeedback || k == EventComplained || k.Engages()
}

// Engages tells whether an event of this kind is what a recipient did with the
// message.
func (k Kind) Engages() bool { return k >= EventOpened && k <= EventResubscribed }

// Deed tells whether an event of this kind is what a recipient did that deliveries
// are found by, beside their state.
func (k Kind) Deed() bool {
	return k == EventOpened || k == EventClicked || k == EventUnsubscribed || k == EventComplained
}

// State is the state of a delivery after an event of this kind that does not
// leave it as it was.
func (k Kind) State() State {
	switch k {
	case EventDelivered:
		return Delivered
	case EventDeferred:
		return Deferred
	case EventBounced:
		return Bounced
	case EventExpired:
		return Expired
	case EventHeld:
		return Held
	case EventCancelled:
		return Cancelled
	default:
		return Queued
	}
}

// Event is one fact about a delivery. Events are appended and never changed.
type Event struct {
	ID        ID
	At        time.Time
	Account   ID
	Delivery  DeliveryID
	Kind      Kind
	Reply     Reply
	Diagnosis Diagnosis
	Attempt   *Attempt // nil where nothing was tried
	// Provider is the public name of the receiving service, such as "Gmail"; empty:
	// not known.
	Provider   string
	Engagement *Engagement // of what a recipient did; nil of all else
	// Source is our address at the last attempt, of what came after the attempts;
	// else Attempt has it.
	Source string
	Mark   Mark

	// Of the message and the delivery, for people who follow the events.
	Sender, Recipient, Subject, HeaderID string
}

// Engagement is how a recipient, or a machine on the way, opened a message,
// followed a link or unsubscribed.
type Engagement struct {
	URL       string     `json:"url,omitempty"`        // that was followed
	Client    netip.Addr `json:"client,omitzero"`      // that asked
	UserAgent string     `json:"user_agent,omitempty"` // as it called itself, at most 400 characters
	// Machine names the program that asked in a person's place: "Apple Mail
	// Privacy Protection", "security scanner"; empty: a person, as far as can be
	// told.
	Machine string `json:"machine,omitempty"`
	// Proxy names a program that asked because a person did: "Gmail image proxy".
	// Client and UserAgent are its own then.
	Proxy string `json:"proxy,omitempty"`
	// Method is how somebody unsubscribed, or took it back: "one-click", "page" or
	// "mail".
	Method string `json:"method,omitempty"`
	Group  string `json:"group,omitempty"` // that was left, or joined again; empty: all mail of the stream
}

// Outcome is what one attempt, one order of an operator, one mail that came back
// or one deed of a recipient comes to. Settling
// it changes the delivery's state and appends the event, in one transaction.
type Outcome struct {
	Delivery  DeliveryID
	Account   ID
	Kind      Kind
	At        time.Time
	Due       time.Time // next attempt; only for deferred, released and rescheduled
	Host      string    // that answered
	Reply     Reply
	Diagnosis Diagnosis
	Attempt   *Attempt // counted as an attempt when not nil
	Provider  string   // public name of the receiving service; empty: not known
	// Message is the delivery's, where it is at hand: settling counts by it. Nil: it
	// is read.
	Message *Message
	// Notice asks for a DSN to the sender about this delivery (one of the
	// Notify constants), or 0. NoticeDue is when to write it: failures that come
	// until then share one DSN.
	Notice    Notify
	NoticeDue time.Time
	// Answers is the mail that came back, of which this comes; zero for what comes
	// of an attempt. It is dealt with then: settling ends it in the same transaction.
	Answers ID
	// Suppress is the reason for which Address is not to be sent to any more (see
	// Suppression), or empty; SuppressStream of which mail, 0: of all.
	Suppress       string
	SuppressStream Stream
	// Soft, where it has a number of failures, says that this is one of those that
	// suppress Address when there are so many.
	Soft SoftRule
	// Address of the recipient, in the form that suppressions have. With what was
	// delivered it says that soft failures before do not count any more.
	Address string
	// Engagement is needed where Kind Engages.
	Engagement *Engagement
	// Null says that the message is from the null sender, as reports and alerts of
	// our own are: no account is judged by what becomes of them.
	Null bool
}

// Late tells whether it comes of something that happened after the attempts, and
// leaves the delivery in whosever hand it is.
func (o *Outcome) Late() bool { return !o.Answers.IsZero() || o.Kind.Engages() }

// Notice is the duty to write one DSN about a message.
type Notice struct {
	Message ID
	Kind    Notify // NotifyFailure, NotifyDelay or NotifySuccess
	Due     time.Time
	// Deliveries that the DSN is about.
	Deliveries []int
}
