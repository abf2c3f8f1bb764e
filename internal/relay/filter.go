package relay

import "time"

// DeliveryFilter says which deliveries are wanted. Fields that are zero ask for
// nothing; the others must all hold. Neither case nor accents count. Parts of
// addresses and names begin where a word does; of subjects and replies all words
// must be there, the last one maybe unfinished (see package wording).
type DeliveryFilter struct {
	Recipient  string // part of the recipient's address
	Sender     string // part of the envelope sender, or of the address in From; NullSender asks for mail without an envelope sender
	Message    string // the message's id, or its Message-ID header with or without brackets
	Subject    string // words of the subject
	Reply      string // words of the last reply: its code, enhanced code and text, as in "550 5.1.1 User unknown"
	Domain     string // the recipient's domain, whole
	Credential ID     // that it was submitted with
	Client     string // part of the client's address, or of the name that it gave
	Script     string // part of what told of the program that sent it
	Tag        string // whole
	Category   string // of the diagnosis: "hard/no-such-mailbox", or only "hard", or only "no-such-mailbox"
	Provider   string // public name of the receiving service, whole
	Source     string // our address at the last attempt that reached a server
	// Metadata are keys with the values that they must have; an empty value asks
	// for the key with any value.
	Metadata map[string]string
	// States and Deeds: it is in one of these states, or its recipient did one of
	// these things (see Delivery).
	States []State
	Deeds  []Kind
	Since  time.Time // received at or after
	Until  time.Time // received before
	Live   bool      // only what is not final

	Limit int // most to give; zero gives DefaultLimit
	// Before asks for the page that follows this delivery, the last one of the
	// page before.
	Before *DeliveryID
}

// LogPage is what a search found.
type LogPage struct {
	Found []Logged
	// Next is where the search goes on, as the Before of the next one; nil: there is
	// nothing more. A page that is not full has it where time was up.
	Next *DeliveryID
}

// NullSender asks, as a DeliveryFilter's Sender, for mail from the null sender.
const NullSender = "<>"

// DefaultLimit is the length of a page that nobody asked a length for.
const DefaultLimit = 100
