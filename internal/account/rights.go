package account

import (
	"slices"
	"strings"

	"postrider/internal/relay"
)

// Rights is what somebody may do in an account.
type Rights uint8

const (
	Send    Rights = 1 << iota // submit mail
	Read                       // see everything but secrets
	Build                      // change domains, senders, credentials and suppressions, and let programs send
	Manage                     // change members, sub-accounts and the account's own rules
	Own                        // close the account, name owners
	Control                    // the account's limits and status: its parent's affair
	Operate                    // what is of no account, or of all: plans, users, nodes
)

const (
	everything  = Send | Read | Build | Manage | Own | Control | Operate
	ofAdmin     = Send | Read | Build | Manage
	ofDeveloper = Send | Read | Build
)

// OfRole is what a role lets a member do.
func OfRole(role relay.Role) Rights {
	switch role {
	case relay.Owner:
		return ofAdmin | Own
	case relay.Admin:
		return ofAdmin
	case relay.Developer:
		return ofDeveloper
	case relay.Viewer:
		return Read
	}
	return 0
}

// OfCredential is what a credential lets its bearer do, whose owner has these
// rights in its account. A key that is nobody's does no more than an admin.
func OfCredential(c *relay.Credential, owner Rights) Rights {
	if c.Kind != KindKey || len(c.Scopes) == 0 && c.Owner.IsZero() {
		return Send
	}
	if c.Owner.IsZero() {
		owner = ofAdmin
	}
	var asked Rights
	for _, s := range c.Scopes {
		switch s {
		case relay.ScopeSend:
			asked |= Send
		case relay.ScopeRead:
			asked |= Read
		case relay.ScopeManage:
			asked |= everything &^ Send
		}
	}
	if len(c.Scopes) == 0 {
		asked = Send
	}
	return asked & owner
}

// Has tells whether all of the rights are there.
func (r Rights) Has(all Rights) bool { return r&all == all }

// mayGrant tells whether somebody with these rights may give others to somebody:
// no more than they have, but that who may let programs send need not send.
func (r Rights) mayGrant(others Rights) bool {
	if r.Has(Build) {
		r |= Send
	}
	return r.Has(others)
}

// authority is with whose word somebody of these rights sets a status.
func (r Rights) authority() relay.Authority {
	switch {
	case r.Has(Operate):
		return relay.ByOperator
	case r.Has(Control):
		return relay.ByManager
	}
	return ""
}

// mayLift refuses to change a status that somebody of more rights has set.
func (c Caller) mayLift(by relay.Authority) error {
	switch {
	case by == relay.ByOperator && !c.Rights.Has(Operate):
		return &relay.Error{Code: relay.Forbidden, Text: "An operator of the relay has set this status.", Advice: "Ask an operator to lift it."}
	case by == relay.ByManager && !c.Rights.Has(Control):
		return &relay.Error{Code: relay.Forbidden, Text: "Who manages this account has set this status.", Advice: "Ask them, or an operator of the relay, to lift it."}
	}
	return nil
}

func (r Rights) String() string {
	var names []string
	for i, name := range []string{"send", "read", "build", "manage", "own", "control", "operate"} {
		if r.Has(1 << i) {
			names = append(names, name)
		}
	}
	return strings.Join(names, " ")
}

// Caller is who acts, and where.
type Caller struct {
	relay.Actor
	Account relay.ID // whose things are meant; relay.Everyone: all accounts', of an operator
	Rights  Rights   // in that account
}

// Operator is a caller who may do everything.
func Operator(a relay.Actor) Caller {
	return Caller{Actor: a, Account: relay.Everyone, Rights: everything}
}

// In is the caller acting in an account that Directory.Find gave. Who manages an
// account owns and controls its sub-accounts.
func (c Caller) In(account relay.ID) Caller {
	if c.Account != account && c.Account != relay.Everyone && c.Rights.Has(Manage) {
		c.Rights |= Own | Control
	}
	c.Account = account
	return c
}

// Need refuses a caller who has not all of the rights. To do is what is refused:
// "change limits".
func (c Caller) Need(all Rights, todo string) error {
	if c.Rights.Has(all) {
		return nil
	}
	return &relay.Error{Code: relay.Forbidden, Text: "You may not " + todo + ".", Advice: advice(all &^ c.Rights)}
}

func advice(missing Rights) string {
	switch {
	case missing.Has(Operate):
		return "Ask an operator of the relay."
	case missing.Has(Control):
		return "Ask an operator of the relay, or who manages this account."
	case missing.Has(Own):
		return "Ask an owner of the account."
	default:
		return "Ask an admin of the account, or use a key with the scope for it."
	}
}

var (
	knownScopes = []relay.Scope{relay.ScopeSend, relay.ScopeRead, relay.ScopeManage}
	knownRoles  = []relay.Role{relay.Owner, relay.Admin, relay.Developer, relay.Viewer}
)

func checkScopes(scopes []relay.Scope) error {
	for _, s := range scopes {
		if !slices.Contains(knownScopes, s) {
			return invalid("There is no scope \""+string(s)+"\".", "Take send, read or manage.")
		}
	}
	return nil
}
