package relay

import (
	"net/netip"
	"time"
)

// Credential is what an application or a device submits mail with. It holds no
// secret, only what is needed to recognise one.
type Credential struct {
	ID      ID
	Account ID
	Kind    string // "smtp", "key" or "network" (see package account)
	Name    string // for people
	User    string // of kind smtp: the user name for AUTH; at most one live credential has it

	SecretSHA256 []byte // digest of a secret that we made; long and random, so a plain digest will do
	Argon2       string // encoded hash of a password that a person chose
	Scram        Scram  // verifier of an smtp credential; empty where SCRAM is not offered

	Networks []netip.Prefix // of kind network: where clients need no password
	Stream   Stream
	RepairLF bool     // bare CR and LF in content are repaired, not refused
	Senders  []string // allowed envelope senders and From addresses: addresses or domains; empty allows all of the account's

	Status  Status  // empty: active
	Reason  string  // of the status, for people
	Scopes  []Scope // of kind key: what it may do over HTTP; empty: send. Only with ScopeSend does it work over SMTP
	Owner   ID      // of kind key: the user whose rights bound it; zero: nobody's
	Limits  []Limit
	Pool    string // of source addresses; empty: the account's
	Opens   bool   // opens of HTML mail are tracked
	Clicks  bool   // links are tracked
	Archive bool   // content is kept after the last delivery

	// Previous is the secret before the last rotation, which is taken until then.
	Previous Previous
	Used     time.Time // last use, to the minute; zero: never
	UsedFrom netip.Addr

	Created time.Time
	Expires time.Time // zero: never
	Revoked time.Time // zero: live
	Version int64
}

// Previous is a secret that was replaced and is good for a while yet.
type Previous struct {
	SecretSHA256 []byte
	Argon2       string
	Scram        Scram
	Until        time.Time
}

// Scram is a SCRAM-SHA-256 verifier (RFC 5802 section 3, RFC 7677): enough to
// check a password, too little to log in with.
type Scram struct {
	Salt       []byte
	Iterations int
	Stored     []byte
	Server     []byte
}
