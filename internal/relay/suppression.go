package relay

import "time"

// Suppression is an address, or a domain, that an account must not send to.
type Suppression struct {
	Account ID        `json:"account"`
	Address string    `json:"address"`         // lower case; "@example.com" is a whole domain, "@.example.com" all below it
	Stream  Stream    `json:"stream,omitzero"` // of mail that it holds for; 0: of all
	Reason  string    `json:"reason"`          // one of Reasons
	Note    string    `json:"note,omitempty"`
	Event   ID        `json:"event,omitzero"` // the proof
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"` // holds until then; zero: for ever
}

// Reasons of suppressions.
const (
	ReasonManual      = "manual"
	ReasonBounce      = "bounce"      // the address is dead
	ReasonSoftBounce  = "soft-bounce" // again and again what passes
	ReasonComplaint   = "complaint"   // its owner called mail spam
	ReasonUnsubscribe = "unsubscribe"
)

// SuppressionKey is what tells suppressions apart, in the order in which they are
// listed.
type SuppressionKey struct {
	Address string
	Account ID
	Stream  Stream
}

// Key of a suppression.
func (s *Suppression) Key() SuppressionKey { return SuppressionKey{s.Address, s.Account, s.Stream} }

// Holds tells whether it is in force at a time.
func (s *Suppression) Holds(now time.Time) bool { return s.Expires.IsZero() || now.Before(s.Expires) }

// SuppressionFilter says which suppressions are wanted, as ChangeFilter does.
type SuppressionFilter struct {
	Text   string // part of the address
	Reason string
	Stream Stream         // those that hold for mail of this stream; 0: all
	After  SuppressionKey // the last one of the page before
	Limit  int
}

// Unsuppression says what is to be taken off a list of suppressions.
type Unsuppression struct {
	Addresses []string
	Stream    Stream // only what was made for this stream alone; 0: all of the addresses
	// Complaints: those too whose owners complained. Without it an address of such a
	// one is refused, and with it all.
	Complaints bool
}

// SuppressionNews is what was suppressed lately, of one account and stream.
type SuppressionNews struct {
	Account   ID
	Stream    Stream
	Addresses []string
}

// SoftRule says when failures that pass add up to a suppression: that many, on
// different days within a time, with no delivery between.
type SoftRule struct {
	Failures int // 0: never
	Within   time.Duration
	Lasts    time.Duration // how long the suppression holds; 0: for ever
}
