package relay

import (
	"net/netip"
	"time"
)

// Credential is what an application or a device submits mail with. It holds no
// secret, only what is needed to recognise one.
type Credential struct {
	ID      ID     `json:"id"`
	Account ID     `json:"account"`
	Kind    string `json:"kind"`           // "smtp", "key" or "network" (see package account)
	Name    string `json:"name"`           // for people
	User    string `json:"user,omitempty"` // of kind smtp: the user name for AUTH; at most one live credential has it

	SecretSHA256 []byte `json:"-"` // digest of a secret that we made; long and random, so a plain digest will do
	Argon2       string `json:"-"` // encoded hash of a password that a person chose
	Scram        Scram  `json:"-"` // verifier of an smtp credential; empty where SCRAM is not offered

	Networks []netip.Prefix `json:"networks,omitempty"` // of kind network: where clients need no password
	Stream   Stream         `json:"stream"`
	RepairLF bool           `json:"repair_lf,omitempty"` // bare CR and LF in content are repaired, not refused
	Senders  []string       `json:"senders,omitempty"`   // allowed envelope senders and From addresses: addresses or domains; empty allows all of the account's

	Status   Status    `json:"status,omitempty"`    // empty: active
	Reason   string    `json:"reason,omitempty"`    // of the status, for people
	StatusBy Authority `json:"status_by,omitempty"` // who set the status
	Scopes   []Scope   `json:"scopes,omitempty"`    // of kind key: what it may do over HTTP; empty: send. Only with ScopeSend does it work over SMTP
	Owner    ID        `json:"owner,omitzero"`      // of kind key: the user whose rights bound it; zero: nobody's
	Limits   []Limit   `json:"limits,omitempty"`
	Pool     string    `json:"pool,omitempty"`    // of source addresses; empty: the account's
	Opens    bool      `json:"opens,omitempty"`   // opens of HTML mail are tracked
	Clicks   bool      `json:"clicks,omitempty"`  // links are tracked
	Archive  bool      `json:"archive,omitempty"` // content is kept after the last delivery
	Group    string    `json:"group,omitempty"`   // that mail is of which names none

	// Previous is the secret before the last rotation, which is taken until then.
	Previous Previous   `json:"previous,omitzero"`
	Used     time.Time  `json:"used,omitzero"` // last use, to the minute; zero: never
	UsedFrom netip.Addr `json:"used_from,omitzero"`

	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"` // zero: never
	Revoked time.Time `json:"revoked,omitzero"` // zero: live
	Version int64     `json:"version"`
}

// Previous is a secret that was replaced and is good for a while yet.
type Previous struct {
	SecretSHA256 []byte    `json:"-"`
	Argon2       string    `json:"-"`
	Scram        Scram     `json:"-"`
	Until        time.Time `json:"until,omitzero"`
}

// Scram is a SCRAM-SHA-256 verifier (RFC 5802 section 3, RFC 7677): enough to
// check a password, too little to log in with.
type Scram struct {
	Salt       []byte
	Iterations int
	Stored     []byte
	Server     []byte
}

// Use is that a credential was used, from a network.
type Use struct {
	Account    ID
	Credential ID
	Client     netip.Addr
	Network    netip.Prefix // that the client is in: a /24 or a /48
	At         time.Time
}
