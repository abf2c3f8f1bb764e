package relay

import "time"

// Backlog is what of one class is not final.
type Backlog struct {
	Class
	Queued   int64     // wait for their first attempt, in nobody's hand
	Deferred int64     // wait for their next attempt, in nobody's hand
	InHand   int64     // nodes work on them, or are about to
	Held     int64     // wait for a person
	Oldest   time.Time // when the first of all of these was accepted, to the millisecond
	Due      time.Time // of the first that is queued or deferred; zero where none is
	Last     *Deferral // nil where none is found
}

// Deferral is why a delivery waits for its next attempt.
type Deferral struct {
	At        time.Time
	Host      string
	Reply     Reply
	Diagnosis Diagnosis
}

// BacklogFilter says which classes are wanted.
type BacklogFilter struct {
	Domain string // whole; empty: all
	After  Class  // the last one of the page before, in an order of the database's own
	Limit  int    // most to give; zero gives DefaultLimit
}
