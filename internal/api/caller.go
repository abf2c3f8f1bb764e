package api

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"postrider/internal/account"
	"postrider/internal/relay"
)

// Keys knows API keys. Login slows down who guesses; its errors are a
// relay.Error.
type Keys interface {
	Login(ctx context.Context, client netip.Addr, user, password string) (*account.Identity, error)
	// Caller is who acts with an identity, and what they may do.
	Caller(ctx context.Context, id *account.Identity, client netip.Addr) (account.Caller, error)
	// Alive tells whether an identity still holds, and brings it up to date.
	Alive(ctx context.Context, id *account.Identity) bool
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
	// Account is whose things are seen and changed: relay.Everyone for an
	// operator who named no account.
	account.Caller
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

// Right is what a route asks of its caller: over HTTP a key's scopes, as far as
// its owner's role in the account goes.
type Right int

const (
	Anybody   Right = iota // no key at all
	Anyone                 // any key, whatever it may do
	Send                   // submits mail
	Read                   // sees everything of the account
	Build                  // changes domains, senders, credentials, suppressions; orders deliveries about
	Manage                 // changes members, sub-accounts and the account's own rules
	Operators              // the control socket, and keys with the scope manage of users that are operators
)

// asked are the rights behind a Right.
func (r Right) asked() account.Rights {
	return map[Right]account.Rights{Send: account.Send, Read: account.Read, Build: account.Build, Manage: account.Manage, Operators: account.Operate}[r]
}

// String says it in words of scopes and roles.
func (r Right) String() string {
	return map[Right]string{Anybody: "no key", Anyone: "any key", Send: "scope send", Read: "scope read or manage", Build: "scope manage, of a developer or admin",
		Manage: "scope manage, of an admin", Operators: "scope manage, of an operator"}[r]
}

// check tells whether the caller has the right.
func (r Right) check(c *Caller) error {
	if c.Rights.Has(r.asked()) {
		return nil
	}
	e := &relay.Error{Code: relay.Forbidden, Text: fmt.Sprintf("This needs a key with the %s.", r),
		Advice: "Use such a key, or have an admin of the account make one: \"postrider credential add -kind key -scope SCOPE NAME\"."}
	if r == Operators {
		e.Text, e.Advice = "This is for operators of the relay.", "Ask one, or use the command line on the relay's machine."
	}
	return e
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
	return s.narrow(r, c, right)
}

// narrow has the caller act in the account that the request names, and tells
// whether they may.
func (s *Server) narrow(r *http.Request, c *Caller, right Right) error {
	if which := r.URL.Query().Get("account"); which != "" {
		found, err := s.config.Tenants.Find(r.Context(), c.Account, which)
		if err != nil {
			return at("query.account", err)
		}
		c.Caller = c.In(found)
	}
	return right.check(c)
}

func (s *Server) callerOf(r *http.Request, x *exchange) (*Caller, error) {
	if x.control {
		return &Caller{Caller: account.Operator(relay.Actor{Name: "operator"}), home: s.config.Home}, nil
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
	return s.bearer(r, x, id)
}

// still tells whether a caller may go on with what takes long: whether the key
// holds, and is good for the same still. Where the store can't say, they may.
func (s *Server) still(r *http.Request, x *exchange, right Right) error {
	if x.control || x.caller == nil || x.caller.Identity == nil {
		return nil
	}
	if !s.config.Keys.Alive(r.Context(), x.caller.Identity) {
		return &relay.Error{Code: relay.Unauthenticated, Text: "The key does not hold any more.", Advice: "Use another one."}
	}
	c, err := s.bearer(r, x, x.caller.Identity)
	if err == nil {
		err = s.narrow(r, c, right)
	}
	if relay.CodeOf(err) == relay.Unavailable {
		return nil
	}
	return err
}

// bearer is who acts with a key.
func (s *Server) bearer(r *http.Request, x *exchange, id *account.Identity) (*Caller, error) {
	c := &Caller{Identity: id, home: id.Account}
	var err error
	if c.Caller, err = s.config.Keys.Caller(r.Context(), id, x.client); err != nil {
		return nil, err
	}
	if c.Rights.Has(account.Operate) {
		c.Account = relay.Everyone
	}
	return c, nil
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
