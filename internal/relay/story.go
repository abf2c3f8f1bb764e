package relay

// Claimed is a delivery that a node has taken to work on. Several deliveries of
// one message, claimed together, share the Message.
type Claimed struct {
	// Message comes without Envelope.Recipients: each delivery has its own.
	Message  *Message
	Delivery *Delivery
}

// Logged is a delivery as the log shows it.
type Logged struct {
	Delivery
	Message *Message // without Envelope.Recipients
}

// Story is everything that is known of one message.
type Story struct {
	Message    *Message    // with Envelope.Recipients
	Deliveries []*Delivery // in the order of the envelope
	Events     []*Event    // in the order in which they happened
	Content    bool        // the content is still kept

	// Of a part: after which number it goes on, 0 where nothing follows; and whether
	// events of its only delivery are left out.
	Next int
	Cut  bool
}

// StoryPart says which part of a story is wanted: the deliveries after that number, up
// to so many, with their events, up to so many. It ends before a delivery whose
// events do not all fit, unless that is its first one.
type StoryPart struct {
	After              int
	Deliveries, Events int
}
