package api

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"postrider/internal/account"
	"postrider/internal/relay"
)

// Keys knows API keys. Login slows down who guesses; its errors are a
// relay.Error.
type Keys interface {
	Login(ctx context.Context, client netip.Addr, user, password string) (*account.Identity, error)
}

// Tenants finds accounts by id or name.
type Tenants interface {
	// Find gives the account that is meant by somebody who may act for within
	// and its sub-accounts; within is relay.Everyone for operators. Any other
	// account is not found.
	Find(ctx context.Context, within relay.ID, which string) (relay.ID, error)
}

// Caller is who asks, and for which account.
type Caller struct {
	Actor    relay.Actor
	Operator bool // sees and manages all accounts
	Scopes   []relay.Scope
	// Account is whose things are seen and changed: relay.Everyone for an
	// operator who named no account.
	Account relay.ID
	// Identity is what a message is submitted with: that of the key. Where it is
	// nil the operator submits, over the control socket.
	Identity *account.Identity

	home relay.ID // where an operator who named no account adds things
}

// Into is the account that something new belongs to.
func (c *Caller) Into() relay.ID {
	if c.Account == relay.Everyone {
		return c.home
	}
	return c.Account
}

// CallerOf is who asks. It is never nil in a handler, but without an account
// where the route is open to anybody.
func CallerOf(ctx context.Context) *Caller {
	if c := exchangeOf(ctx).caller; c != nil {
		return c
	}
	return &Caller{}
}

// Right is what a route asks of its caller.
type Right int

const (
	Anybody Right = iota // no key at all
	Anyone               // any key, whatever it may do
	Send                 // a key with the scope send
	Read                 // a key with the scope read or manage
	Manage               // a key with the scope manage
	// Operators are who manages all accounts: the control socket, and keys of
	// users that are operators. OperatorsRead lets them have the scope read.
	OperatorsRead
	Operators
)

func (r Right) String() string {
	return map[Right]string{Anybody: "none", Anyone: "any key", Send: "send", Read: "read", Manage: "manage", OperatorsRead: "read, of an operator", Operators: "manage, of an operator"}[r]
}

// check tells whether the caller has the right.
func (r Right) check(c *Caller) error {
	has := func(any ...relay.Scope) bool {
		return slices.ContainsFunc(any, func(s relay.Scope) bool { return slices.Contains(c.Scopes, s) })
	}
	ok, want := true, ""
	switch r {
	case Send:
		ok, want = has(relay.ScopeSend), "send"
	case Read, OperatorsRead:
		ok, want = has(relay.ScopeRead, relay.ScopeManage), "read"
	case Manage, Operators:
		ok, want = has(relay.ScopeManage), "manage"
	}
	if (r == Operators || r == OperatorsRead) && !c.Operator {
		return &relay.Error{Code: relay.Forbidden, Text: "This is for operators of the relay.", Advice: "Ask one, or use the command line on the relay's machine."}
	}
	if !ok {
		return &relay.Error{Code: relay.Forbidden, Text: fmt.Sprintf("This key does not have the scope %s.", want),
			Advice: fmt.Sprintf("Use a key that has it; \"postrider credential add -kind key -scope %s NAME\" makes one.", want)}
	}
	return nil
}

// identify finds out who asks, and whether they may.
func (s *Server) identify(r *http.Request, x *exchange, right Right) error {
	if right == Anybody {
		return nil
	}
	c, err := s.callerOf(r, x)
	if err != nil {
		return err
	}
	x.caller = c
	if err := right.check(c); err != nil {
		return err
	}
	which := r.URL.Query().Get("account")
	if which == "" {
		return nil
	}
	c.Account, err = s.config.Tenants.Find(r.Context(), c.Account, which)
	return at("query.account", err)
}

func (s *Server) callerOf(r *http.Request, x *exchange) (*Caller, error) {
	if x.control {
		return &Caller{Actor: relay.Actor{Name: "operator"}, Operator: true, Account: relay.Everyone, home: s.config.Home,
			Scopes: []relay.Scope{relay.ScopeSend, relay.ScopeRead, relay.ScopeManage}}, nil
	}
	key, err := keyOf(r.Header.Get("Authorization"))
	if err != nil {
		return nil, err
	}
	id, err := s.config.Keys.Login(r.Context(), x.client, "", key)
	if relay.CodeOf(err) == relay.Unauthenticated || err == nil && id.Kind != account.KindKey {
		return nil, &relay.Error{Code: relay.Unauthenticated, Text: "This is not a valid API key.",
			Advice: "Check it, or make a new one with \"postrider credential add -kind key NAME\"."}
	}
	if err != nil {
		return nil, err
	}
	return s.callerWith(r.Context(), id, x.client)
}

// keyOf finds the key in a header: "Bearer KEY", or as the password of "Basic",
// whose user name does not count.
func keyOf(header string) (string, error) {
	scheme, value, _ := strings.Cut(strings.TrimSpace(header), " ")
	value = strings.TrimSpace(value)
	switch strings.ToLower(scheme) {
	case "bearer":
		if value != "" {
			return value, nil
		}
	case "basic":
		b, err := base64.StdEncoding.DecodeString(value)
		if _, password, ok := strings.Cut(string(b), ":"); err == nil && ok && password != "" {
			return password, nil
		}
	case "":
		return "", &relay.Error{Code: relay.Unauthenticated, Text: "An API key is needed.", Advice: "Send it in a header: \"Authorization: Bearer KEY\"."}
	}
	return "", &relay.Error{Code: relay.Unauthenticated, Text: "The header Authorization holds no API key.", Advice: "Send \"Authorization: Bearer KEY\"."}
}

// callerWith is the caller that an API key makes.
func (s *Server) callerWith(_ context.Context, id *account.Identity, client netip.Addr) (*Caller, error) {
	return &Caller{Actor: relay.Actor{Credential: id.Credential, Name: "key " + id.Credential.String(), Client: client},
		Account: id.Account, home: id.Account, Identity: id, Scopes: []relay.Scope{relay.ScopeSend}}, nil
}
