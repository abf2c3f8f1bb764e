// Package relay holds the words of Postrider as Go types: message, delivery,
// attempt, outcome, event, and the errors that people read. It knows no socket,
// no clock and no database, and imports the standard library only.
package relay

import (
	"io"
	"net/netip"
	"time"
)

// Stream is the kind of mail: transactional overtakes broadcast everywhere.
type Stream int8

const (
	Transactional Stream = 1
	Broadcast     Stream = 2
)

// Envelope is what the client said in MAIL and RCPT (RFC 5321 section 2.3.1)
// and what of it must reach the receiver.
type Envelope struct {
	Sender     string      // reverse-path without brackets; empty for the null sender
	Recipients []Recipient // in the order of RCPT
	UTF8       bool        // SMTPUTF8 was asked for (RFC 6531)
	RequireTLS bool        // REQUIRETLS was asked for (RFC 8689)
	Ret        string      // DSN: "FULL", "HDRS" or empty (RFC 3461 section 4.3)
	EnvID      string      // DSN: envelope id, xtext decoded (RFC 3461 section 4.4)
	Priority   int         // MT-PRIORITY, -9 to 9 (RFC 6710); 0 is usual
	Release    time.Time   // FUTURERELEASE: not before this time (RFC 4865); zero is at once
}

// Recipient is one RCPT.
type Recipient struct {
	Address string // forward-path without brackets, as the client wrote it
	Notify  Notify
	ORcpt   string // DSN: original recipient, "type;address", xtext decoded (RFC 3461 section 4.2); may be empty
}

// Notify says of which fates the sender wants a DSN (RFC 3461 section 4.1).
// Zero is what a client gets that says nothing: failures, and delays.
type Notify uint8

const (
	NotifyNever Notify = 1 << iota
	NotifySuccess
	NotifyFailure
	NotifyDelay
)

// Wants tells whether a DSN of the given kind (one of the constants) is wanted.
func (n Notify) Wants(kind Notify) bool {
	if n == 0 {
		return kind == NotifyFailure || kind == NotifyDelay
	}
	return n&NotifyNever == 0 && n&kind != 0
}

// Source is where a message came from: what the session knew of its client.
type Source struct {
	Client   netip.AddrPort // behind a balancer: the address from the PROXY header
	Helo     string         // what the client called itself
	Protocol string         // "ESMTPSA" and kin (RFC 3848), or "HTTP"; "DSN" for our own notices, "ALERT" for alerts; TLSReport
	Listener string         // name of the listener, as in the configuration
	TLS      string         // "TLS1.3 TLS_AES_128_GCM_SHA256", or empty
	User     string         // the user name given to AUTH
}

// TLSReport is the Source.Protocol of our own reports on TLS (RFC 8460): they go
// out whatever is wrong with the receiver's TLS.
const TLSReport = "TLSRPT"

// Message is what was accepted. It does not change.
type Message struct {
	ID         ID
	Account    ID
	Credential ID // zero for our own reports
	Stream     Stream
	Received   time.Time
	Envelope   Envelope
	Source     Source
	Subject    string // decoded, at most 255 characters
	From       string // address in the From header, for people to search by
	HeaderID   string // Message-ID with its brackets
	Size       int64  // bytes of the content
	EightBit   bool   // the body has bytes above 127
	UTF8Header bool   // the header has bytes above 127
	About      ID     // of a DSN: the message that it reports on; else zero
	Script     string // what a header told of the program that sent it (X-PHP-Originating-Script and kin)
	Tags       []string
	Metadata   map[string]string
	Archive    bool // content stays after the last delivery
	OptOut     OptOut
	Track      Track // what of it is tracked, as far as it says so itself
}

// OptOut is how recipients of a message can have no more of its kind.
type OptOut struct {
	Group string `json:"group,omitempty"` // that they leave; empty: all mail of the stream
	// Link: words that stand for our links in its texts become links.
	Link bool `json:"link,omitempty"`
	// Places: there are such words in its texts.
	Places bool `json:"places,omitempty"`
	// Header: the fields of RFC 2369 and RFC 8058 are added; its sender has added none.
	Header bool `json:"header,omitempty"`
}

// Content is the bytes of a message, with CRLF line ends. It can be opened many
// times and at the same time; each reader is closed by who opened it.
type Content interface {
	Size() int64
	Open() (io.ReadCloser, error)
}

// Submission is a message on its way into the queue. A delivery that is Cancelled
// already, with its diagnosis, is one that is not to be made.
type Submission struct {
	Message    *Message
	Content    Content
	Deliveries []*Delivery
	InHand     bool // the node that puts it leases its deliveries at once
	// Answers is the notice that this message, a DSN, deals with; putting the
	// message ends the notice in the same transaction. Nil for other mail.
	Answers *Notice
	// Warning is told with the events of the acceptance; empty: there is none.
	Warning Diagnosis
	// Once keeps a request that is repeated from being taken twice; nil: there is
	// no key.
	Once *Once
}

// Once is an idempotency key of an account. Whoever puts the same key again
// within a day gets the first message's id, or a Conflict where Digest differs.
type Once struct {
	Key      string
	Digest   [32]byte // of the request
	Repeated bool     // set by the entrance: the request was taken before, and nothing more came of it
}
