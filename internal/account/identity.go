// Package account knows who may submit mail: it checks passwords, API keys and
// addresses against the credentials in the store, and slows down guessing.
package account

import (
	"postrider/internal/relay"
)

// Kinds of credentials.
const (
	KindSMTP    = "smtp"    // user name and password
	KindKey     = "key"     // API key
	KindNetwork = "network" // the client's address is enough
)

// Identity is who a client turned out to be.
type Identity struct {
	Account    relay.ID
	Credential relay.ID
	Kind       string // of the credential: "smtp", "key" or "network"
	User       string // as given to AUTH; empty for a network credential
	Stream     relay.Stream
	RepairLF   bool     // bare CR and LF in content are repaired, not refused
	Senders    []string // allowed envelope senders: addresses or domains; empty allows any

	Status relay.Status // of the credential: active, where it is empty too, or sandbox
	// Scopes and Owner are those of an API key.
	Scopes  []relay.Scope
	Owner   relay.ID
	Limits  []relay.Limit // of the credential
	Pool    string
	Opens   bool
	Clicks  bool
	Archive bool
	Group   string // that mail is of which names none

	key [32]byte // digest of the secret, to know again what was logged in with
}

// Verifier is what SCRAM-SHA-256 needs of a user (RFC 5802 section 3).
type Verifier struct {
	Salt       []byte
	Iterations int
	StoredKey  []byte
	ServerKey  []byte
	// Before is the verifier of the secret before the last rotation, with the
	// same salt and iterations, while that is good; nil: there is none.
	Before   *Verifier
	Identity *Identity // nil for a user that does not exist: the exchange must fail, and look no different
}
