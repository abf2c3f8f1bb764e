package relay

import (
	"fmt"
	"net/netip"
	"time"
)

// State is where a delivery stands.
type State int8

const (
	Queued    State = 1 // waits for its first attempt
	Deferred  State = 2 // waits for its next attempt
	Held      State = 3 // waits for a person
	Delivered State = 10
	Bounced   State = 11
	Expired   State = 12 // retried until its time was over
	Cancelled State = 13
)

var stateNames = map[State]string{Queued: "queued", Deferred: "deferred", Held: "held",
	Delivered: "delivered", Bounced: "bounced", Expired: "expired", Cancelled: "cancelled"}

// Final tells whether nothing more will be tried.
func (s State) Final() bool { return s >= Delivered }

func (s State) String() string { return nameOf(stateNames, s) }

// MarshalText writes the state as String does.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what ParseState reads.
func (s *State) UnmarshalText(b []byte) (err error) { *s, err = ParseState(string(b)); return err }

// ParseState reads a state by its name.
func ParseState(name string) (State, error) { return byName(stateNames, "state", name) }

func (s Stream) String() string { return nameOf(streamNames, s) }

var streamNames = map[Stream]string{Transactional: "transactional", Broadcast: "broadcast"}

// MarshalText writes the stream as String does.
func (s Stream) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what ParseStream reads.
func (s *Stream) UnmarshalText(b []byte) (err error) { *s, err = ParseStream(string(b)); return err }

// ParseStream reads a stream by its name.
func ParseStream(name string) (Stream, error) { return byName(streamNames, "stream", name) }

func nameOf[T ~int8](names map[T]string, v T) string {
	if n, ok := names[v]; ok {
		return n
	}
	return fmt.Sprintf("unknown(%d)", v)
}

func byName[T ~int8](names map[T]string, what, name string) (T, error) {
	for v, n := range names {
		if n == name {
			return v, nil
		}
	}
	return 0, fmt.Errorf("%q is not a %s", name, what)
}

// Delivery is one recipient of one message: the unit of queueing, retrying and
// counting.
type Delivery struct {
	ID        DeliveryID
	Account   ID
	Stream    Stream
	Recipient Recipient
	Domain    string // of the recipient, lower case, as A-labels
	State     State
	Attempts  int       // attempts made
	Due       time.Time // not to be tried before
	Expires   time.Time // given up after
	Delayed   bool      // the sender was told of the delay
	Updated   time.Time // when State changed last
	Reply     Reply     // the last reply, or what stood in for one
	Diagnosis Diagnosis // what the last outcome means
	Host      string    // that gave the last reply
	Provider  string    // public name of the receiving service, such as "Gmail"; empty: not known
	Source    string    // our address at the last attempt that reached a server; empty: none did
	// Deeds are what the recipient did, each kind once: opened and clicked (a person,
	// as far as can be told), unsubscribed, complained.
	Deeds []Kind
}

// ParseOutcome reads what deliveries are found by: a state, or else what a recipient
// did.
func ParseOutcome(name string) (s State, deed Kind, err error) {
	if s, err = ParseState(name); err == nil {
		return s, 0, nil
	}
	if deed.UnmarshalText([]byte(name)) == nil && deed.Deed() {
		return 0, deed, nil
	}
	return 0, 0, err
}

// Reply is what a receiver answered. Where no receiver answered (no route, no
// connection), Code is 0 and Text says what happened.
type Reply struct {
	Code     int    `json:"code,omitempty"`     // 250, 451, …
	Enhanced string `json:"enhanced,omitempty"` // "5.1.1", or empty (RFC 3463)
	Text     string `json:"text,omitempty"`     // lines joined by newlines, without codes
}

func (r Reply) String() string {
	s := r.Text
	if r.Enhanced != "" {
		s = r.Enhanced + " " + s
	}
	if r.Code != 0 {
		s = fmt.Sprintf("%d %s", r.Code, s)
	}
	return s
}

// Diagnosis is an outcome in plain words.
type Diagnosis struct {
	Category string `json:"category,omitempty"` // "hard/no-such-mailbox", "soft/greylisted", … (see package feedback)
	Text     string `json:"text,omitempty"`     // what happened and why, one sentence
	Advice   string `json:"advice,omitempty"`   // what to do; empty when nothing is to be done
	// Suppress: the address is certainly dead. It is not kept; what it comes to is.
	Suppress bool `json:"-"`
}

// Attempt is one try at a delivery.
type Attempt struct {
	Started time.Time  `json:"started"`
	Ended   time.Time  `json:"ended"`
	Source  netip.Addr `json:"source,omitzero"` // our address
	Helo    string     `json:"helo,omitempty"`  // what we called ourselves
	Hosts   []HostTry  `json:"hosts,omitempty"` // in the order tried; the last one is where it ended
	TLS     *TLS       `json:"tls,omitempty"`   // nil: no TLS
	// Policy is what the receiver asks of TLS, where it asks for something:
	// "DANE", "MTA-STS", "MTA-STS (testing)".
	Policy string `json:"policy,omitempty"`
	Reused bool   `json:"reused,omitempty"`
	Stage  string `json:"stage,omitempty"` // where it ended: route, connect, greeting, ehlo, starttls, auth, mail, rcpt, data, dot
	// Unknown: the content went out whole but no final reply came; the receiver
	// may or may not have it.
	Unknown  bool       `json:"unknown,omitempty"`
	Dialogue []Exchange `json:"dialogue,omitempty"`
}

// HostTry is one host that was tried.
type HostTry struct {
	Name  string         `json:"name"`
	Addr  netip.AddrPort `json:"addr,omitzero"`
	Error string         `json:"error,omitempty"` // why it was left; empty for the one that served
}

// TLS is what was agreed with the receiver.
type TLS struct {
	Version  string `json:"version"` // "TLS1.3"
	Cipher   string `json:"cipher"`
	Verified bool   `json:"verified"`
	Problem  string `json:"problem,omitempty"` // why the certificate does not verify
	Subject  string `json:"subject,omitempty"`
	Issuer   string `json:"issuer,omitempty"`
}

// Exchange is one command and its reply. Command is what was said, shortened;
// secrets and content are left out.
type Exchange struct {
	Command string `json:"command"`
	Reply   Reply  `json:"reply"`
}
