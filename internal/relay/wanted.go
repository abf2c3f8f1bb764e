package relay

import "slices"

// EventFilter says which events are wanted as they come. Fields that are zero ask
// for nothing; the others must all hold. They mean what they do in a DeliveryFilter.
type EventFilter struct {
	Kinds       []Kind            // any of them
	Stream      Stream            // of the message
	Credentials []ID              // that it was submitted with: any of them
	Tags        []string          // of the message: any of them
	Domains     []string          // of the recipient, lower case, as A-labels: any of them
	Categories  []string          // of the diagnosis: "hard/no-such-mailbox", or one half of it; any of them
	Metadata    map[string]string // of the message: all of them; an empty value stands for any
	Provider    string            // public name of the receiving service
	Source      string            // our address at the attempt
	Client      string            // part of the client's address, or of the name that it gave
	Script      string            // part of what told of the program that sent it
	Recipient   string            // part of the address
	Sender      string            // part of the envelope sender, or of the address in From; NullSender asks for mail without an envelope sender
	Subject     string            // words of it
	Reply       string            // words of the reply, with its codes
	Message     string            // the message's id, or its Message-ID header with or without brackets
}

// WantsKind tells whether events of that kind are wanted at all.
func (f *EventFilter) WantsKind(k Kind) bool { return len(f.Kinds) == 0 || slices.Contains(f.Kinds, k) }
