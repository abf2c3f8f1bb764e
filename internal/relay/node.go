package relay

import "time"

// LeaseTime is how long a node's lease outlives its last beat, by the clock of
// the store: then its work is anybody's.
const LeaseTime = 15 * time.Second

// Node is one of those that share a store.
type Node struct {
	Name     string
	Lease    int64
	Joined   time.Time
	Silent   time.Duration // since its last beat, by the store's clock
	Version  string        // of its program
	Draining bool          // it is to take no mail and begin no attempt
	InHand   int64         // deliveries
}

// Dead tells whether the node's lease is over.
func (n *Node) Dead() bool { return n.Silent > LeaseTime }

// News is what a node is to know of the others, and of what is wanted of it.
type News struct {
	Draining bool
	// Released grows when some node has given back what it had in hand, or when
	// its lease was ended: there may be more to do for the others.
	Released int64
}

// Condition is whether a node works.
type Condition int8

const (
	Working   Condition = iota
	Draining            // by order: it takes no mail, and begins no attempt
	Away                // the store does not answer; the lease still holds
	Suspended           // the store has not answered for so long that the lease may be over
)

var conditionNames = map[Condition]string{Working: "working", Draining: "draining", Away: "without store", Suspended: "suspended"}

func (c Condition) String() string { return nameOf(conditionNames, c) }
