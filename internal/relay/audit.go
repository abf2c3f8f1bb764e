package relay

import (
	"encoding/json"
	"net/netip"
	"time"
)

// Actor is who changes something.
type Actor struct {
	User       ID         `json:"user,omitzero"`       // zero: nobody who logged in
	Credential ID         `json:"credential,omitzero"` // the key that was used
	Name       string     `json:"name"`                // for people: an address, the name of a key, "operator", "postrider"
	Client     netip.Addr `json:"client,omitzero"`     // where from; invalid: the control socket, or the relay itself
}

// Change is an entry of the audit log, written in the transaction of the change
// that it tells of.
type Change struct {
	ID      ID              `json:"id"`
	At      time.Time       `json:"at"`
	Account ID              `json:"account"` // Everyone: of no account
	Actor   Actor           `json:"actor"`
	Action  string          `json:"action"`           // "credential.add", "domain.check" …
	Object  string          `json:"object"`           // id or name of what was changed
	Before  json.RawMessage `json:"before,omitempty"` // without secrets; empty: it was not there
	After   json.RawMessage `json:"after,omitempty"`  // empty: it is gone
}

// ChangeFilter says which changes are wanted. Fields that are zero ask for
// nothing; the others must all hold.
type ChangeFilter struct {
	Action     string // the whole, or up to a dot: "credential" finds "credential.add"
	Object     string
	User       ID
	Credential ID
	Since      time.Time
	Until      time.Time
	Before     ID  // only those before it: the last one of the page before
	Limit      int // zero gives DefaultLimit
}
