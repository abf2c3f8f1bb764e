package relay

import "time"

// DeliveryFilter says which deliveries are wanted. Fields that are zero ask for
// nothing; the others must all hold. Texts are sought as they stand, without
// wildcards. ASCII letters match in either case; whether others do is the
// database's affair.
type DeliveryFilter struct {
	Recipient  string // part of the recipient's address
	Sender     string // part of the envelope sender; NullSender asks for mail without one
	Message    string // the message's id, or its Message-ID header with or without brackets
	Subject    string // part of the subject
	Reply      string // part of the last reply: its code, enhanced code and text, as in "550 5.1.1 User unknown"
	Domain     string // the recipient's domain, whole
	Credential ID     // that it was submitted with
	Client     string // part of the client's address, or of the name that it gave
	Script     string // part of what told of the program that sent it
	Tag        string // whole
	States     []State
	Since      time.Time // received at or after
	Until      time.Time // received before
	Live       bool      // only what is not final

	Limit int // most to give; zero gives DefaultLimit
	// Before asks for the page that follows this delivery, the last one of the
	// page before.
	Before *DeliveryID
}

// NullSender asks, as a DeliveryFilter's Sender, for mail from the null sender.
const NullSender = "<>"

// DefaultLimit is the length of a page that nobody asked a length for.
const DefaultLimit = 100
