package relay

import "time"

// Status says what an account or a credential may do.
type Status string

const (
	Active  Status = "active"
	Sandbox Status = "sandbox" // sends to the account's own verified addresses only
	Blocked Status = "blocked" // sends nothing; Reason says why
)

// Authority is who set a status, where not everybody who may change it may lift
// it; empty: they may.
type Authority string

const (
	ByManager  Authority = "manager"  // who controls the account: of its parent
	ByOperator Authority = "operator" // of the relay
)

// Account is a tenant. Everything else belongs to one.
type Account struct {
	ID       ID           `json:"id"`
	Parent   ID           `json:"parent,omitzero"` // the account that manages this one; zero: the operator does
	Name     string       `json:"name"`            // unique
	Title    string       `json:"title,omitempty"` // as recipients see it; empty: they see the domain in From
	Status   Status       `json:"status"`
	Reason   string       `json:"reason,omitempty"`    // of the status, for people
	StatusBy Authority    `json:"status_by,omitempty"` // who set the status, or closed the account
	Plan     string       `json:"plan,omitempty"`      // name of a Plan; empty: none
	Senders  SenderRule   `json:"senders,omitempty"`   // empty: as the operator's configuration says
	DNS      DNSRule      `json:"dns,omitempty"`       // empty: as the operator's configuration says
	Muted    SuppressRule `json:"suppressed,omitempty"`
	Track    Track        `json:"track,omitempty"`  // of mail that nothing else is said of; "off" holds for all of its mail
	Limits   []Limit      `json:"limits,omitempty"` // beside those of the plan
	Growth   Growth       `json:"growth,omitzero"`
	Keep     Keep         `json:"keep,omitzero"` // where it differs from the plan's
	Created  time.Time    `json:"created"`
	Closed   time.Time    `json:"closed,omitzero"` // zero: open. A closed account keeps its log
	Version  int64        `json:"version"`         // grows with each change; a change names the one it saw
}

// SenderRule says whose names an account may send in.
type SenderRule string

const (
	SendersVerified SenderRule = "verified" // of its verified domains and senders; else the sandbox
	SendersAny      SenderRule = "any"      // anybody's: for the operator's own devices
)

// DNSRule says what becomes of mail whose domain's records are broken.
type DNSRule string

const (
	DNSWarn   DNSRule = "warn"
	DNSRefuse DNSRule = "refuse"
)

// SuppressRule says what becomes of a suppressed recipient.
type SuppressRule string

const (
	SuppressDrop   SuppressRule = "drop"   // accepted, then cancelled with an event; also where nothing is said
	SuppressRefuse SuppressRule = "refuse" // refused at RCPT, or with the HTTP request
)

// Growth is how far a new account has come: it starts with a small daily limit,
// which doubles with each good day until only its other limits hold.
type Growth struct {
	Daily int64     `json:"daily,omitempty"` // recipients a day; 0: grown up
	Since time.Time `json:"since,omitzero"`  // of the present step
}

// Plan is a set of limits, and of how long things are kept, with a name that
// accounts share.
type Plan struct {
	Name    string  `json:"name"`
	Limits  []Limit `json:"limits,omitempty"`
	Start   int64   `json:"start,omitempty"` // recipients a day that a new account begins with; 0: at once all
	Keep    Keep    `json:"keep,omitzero"`   // of the accounts' logs; what is 0 is as the configuration says
	Version int64   `json:"version"`
}

// User is a person who logs in.
type User struct {
	ID       ID        `json:"id"`
	Email    string    `json:"email"` // unique, lower case
	Name     string    `json:"name,omitempty"`
	Operator bool      `json:"operator,omitempty"` // sees and manages all accounts
	Argon2   string    `json:"-"`                  // encoded hash of the password; empty: none
	Created  time.Time `json:"created"`
	Disabled time.Time `json:"disabled,omitzero"` // zero: may log in
	Version  int64     `json:"version"`
}

// Role is what a user may do in an account.
type Role string

const (
	Owner     Role = "owner"     // everything, closing the account and naming owners included
	Admin     Role = "admin"     // everything else
	Developer Role = "developer" // domains, senders, keys and sending; no users, limits or accounts
	Viewer    Role = "viewer"    // reads
)

// Member is a user's place in an account.
type Member struct {
	Account ID        `json:"account"`
	User    ID        `json:"user"`
	Email   string    `json:"email"`
	Role    Role      `json:"role"`
	Since   time.Time `json:"since"`
}

// Scope is what an API key may do over HTTP. Each includes none of the others.
type Scope string

const (
	ScopeSend   Scope = "send"   // submit mail, over HTTP and SMTP
	ScopeRead   Scope = "read"   // see everything of the account but secrets
	ScopeManage Scope = "manage" // change everything of the account, and see it
)

// Sender is one verified address, for who cannot publish records for its domain.
type Sender struct {
	ID       ID        `json:"id"`
	Account  ID        `json:"account"`
	Address  string    `json:"address"` // domain in lower case A-labels
	Token    []byte    `json:"-"`       // SHA-256 of the secret in the link that verifies it
	Asked    time.Time `json:"asked"`   // when the link was sent
	Verified time.Time `json:"verified,omitzero"`
}
