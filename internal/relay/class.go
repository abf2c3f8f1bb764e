package relay

import "time"

// Class is what deliveries are queued by: those of one stream and account for
// one domain.
type Class struct {
	Stream  Stream
	Account ID
	Domain  string // as in Delivery
}

// Class is the class of the delivery.
func (d *Delivery) Class() Class { return Class{d.Stream, d.Account, d.Domain} }

// Want is how much of a class a node wants to claim.
type Want struct {
	Class
	Limit   int // of those that wait longest
	Expired int // besides, of those that have expired, as far as they wait near the head of the line
}

// Waiting says that deliveries of a class are in nobody's hand.
type Waiting struct {
	Class
	Due time.Time // of the first of them
}
