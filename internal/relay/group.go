package relay

import "time"

// Group is a kind of mail that recipients can leave and get the account's other
// mail all the same: "newsletter", "offers".
type Group struct {
	Account     ID     `json:"account"`
	ID          string `json:"id"`   // short name that messages and events bear, unique in the account; it stays
	Name        string `json:"name"` // as recipients see it
	Description string `json:"description,omitempty"`
	// Public: the preference page of the account shows it to each recipient. One
	// that is not is shown only to those who had mail of it.
	Public bool `json:"public"`
	// Default: broadcast mail that names no group is of this one. An account has
	// one such group at most.
	Default  bool      `json:"default,omitempty"`
	Position int       `json:"position"` // on the page; equals stand by name
	Created  time.Time `json:"created"`
	Version  int64     `json:"version"`
}

// Leaver is an address that has left a group.
type Leaver struct {
	Account ID        `json:"account"`
	Group   string    `json:"group"`
	Address string    `json:"address"` // in the form that suppressions have
	Note    string    `json:"note,omitempty"`
	Event   ID        `json:"event,omitzero"` // the proof; zero: somebody put it there
	Created time.Time `json:"created"`
}

// LeaverFilter says which leavers are wanted, by address.
type LeaverFilter struct {
	Text  string // part of the address
	After string // an address: the last one of the page before
	Limit int
}
