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
	Senders  []string // allowed envelope senders: addresses or domains; empty allows any

	Created time.Time
	Revoked time.Time // zero: live
}

// Scram is a SCRAM-SHA-256 verifier (RFC 5802 section 3, RFC 7677): enough to
// check a password, too little to log in with.
type Scram struct {
	Salt       []byte
	Iterations int
	Stored     []byte
	Server     []byte
}
