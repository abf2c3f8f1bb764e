package relay

import "time"

// Returned is a mail that came back about a delivery, to its return path or to
// another address that was given out: kept from the reply to its content until it is
// dealt with.
type Returned struct {
	ID       ID
	Account  ID
	Delivery DeliveryID
	Received time.Time
	Sender   string // envelope sender, mostly the null one
	Source   Source
	Size     int64  // bytes of the whole
	Content  []byte // the whole, or its beginning
	// Unsubscribe: it came to the address at which its recipient unsubscribes.
	Unsubscribe bool
	// Provider is whose complaints come to the address that it came to; empty: it is no
	// such address.
	Provider string
	// Expired: it came too late and was refused. This stands for it.
	Expired bool
}
