// Package submit is the one entrance for mail: it checks what a client hands
// in, completes the header, and puts the message into the queue.
package submit

import (
	"postrider/internal/account"
	"postrider/internal/relay"
)

// Draft is a message as a client handed it in.
type Draft struct {
	Identity *account.Identity
	Envelope relay.Envelope
	Source   relay.Source
	Content  relay.Content // must stay readable until Submit returns; it is not kept
	Stream   relay.Stream  // zero: that of the identity
	Tags     []string
	Metadata map[string]string
	Track    relay.Track // empty: what an X-Postrider-Track field says
	Once     *relay.Once // nil: the client gave no idempotency key
	// Group is what recipients leave who want no more of its kind, and Unsubscribe
	// whether they have a link for that: "on" or "off". Where both are empty it is as
	// the header, the credential and the stream say.
	Group, Unsubscribe string
	ID                 relay.ID // of the message; zero: one is made
}
