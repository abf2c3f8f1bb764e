package account

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"postrider/internal/relay"
	"postrider/internal/smtp"
)

// PeopleStore keeps users and their places in accounts.
type PeopleStore interface {
	UserStore
	SetMember(ctx context.Context, by relay.Actor, m relay.Member) error
	RemoveMember(ctx context.Context, by relay.Actor, account, user relay.ID) error
	Members(ctx context.Context, account relay.ID) ([]*relay.Member, error)
}

// UserStore keeps users.
type UserStore interface {
	AddUser(ctx context.Context, by relay.Actor, u *relay.User) error
	SetUser(ctx context.Context, by relay.Actor, account relay.ID, u *relay.User) error
	User(ctx context.Context, account, id relay.ID) (*relay.User, error)
	UserByEmail(ctx context.Context, email string) (*relay.User, error)
	Users(ctx context.Context, account, after relay.ID, limit int) ([]*relay.User, error)
}

// People manages users and members. Each method acts in the caller's account, and
// refuses what the caller may not do.
type People struct {
	Store   PeopleStore
	NewID   func() (relay.ID, error)
	Changed func(context.Context) error // called after each change, before it is reported done
}

// AddUser makes a user who is in no account yet. The password may be empty: then
// there is none to log in with.
func (p *People) AddUser(ctx context.Context, by Caller, want relay.User, password string) (*relay.User, error) {
	if err := by.Need(Operate, "make users"); err != nil {
		return nil, err
	}
	return p.addUser(ctx, by, want, password)
}

func (p *People) addUser(ctx context.Context, by Caller, want relay.User, password string) (*relay.User, error) {
	id, err := p.NewID()
	if err != nil {
		return nil, err
	}
	u := &relay.User{ID: id, Email: want.Email, Name: want.Name, Operator: want.Operator, Created: time.Now().UTC().Truncate(time.Microsecond)}
	if err := fillUser(u, password); err != nil {
		return nil, err
	}
	if err := p.Store.AddUser(ctx, by.Actor, u); err != nil {
		return nil, fmt.Errorf("add user: %w", err)
	}
	return u, p.Changed(ctx)
}

// fillUser puts a user's address into the form in which it is kept, and hashes
// the password, if there is one.
func fillUser(u *relay.User, password string) error {
	var err error
	if u.Email, err = emailOf(u.Email); err != nil {
		return err
	}
	if u.Name = strings.TrimSpace(u.Name); unfit(u.Name) {
		return invalid("This name can't be used.", "Take at most 128 bytes, without control characters.")
	}
	if password == "" {
		return nil
	}
	if len(password) < 10 || len(password) > 256 || strings.ContainsRune(password, 0) {
		return invalid("This password can't be used.", "Take 10 to 256 bytes.")
	}
	u.Argon2 = argonHash(password)
	return nil
}

// emailOf is an address as users are known by it: in lower case, with the domain
// in A-labels.
func emailOf(s string) (string, error) {
	a, err := smtp.ParseAddress(strings.TrimSpace(s), true)
	if err == nil {
		var domain string
		if domain, err = a.ASCIIDomain(); err == nil {
			return strings.ToLower(smtp.Address{Local: a.Local, Domain: domain}.String()), nil
		}
	}
	return "", invalid(fmt.Sprintf("%q is no e-mail address: %v.", s, err), "Write one such as ann@example.com.")
}

// SetUser changes a user: operators anybody, users their own name, address and
// password. An empty password leaves the one that there is. The version is the one
// that the caller has seen.
func (p *People) SetUser(ctx context.Context, by Caller, want *relay.User, password string) (*relay.User, error) {
	self := !by.User.IsZero() && by.User == want.ID && by.Credential.IsZero()
	within := by.Account
	if self {
		within = relay.Everyone
	} else if err := by.Need(Operate, "change users"); err != nil {
		return nil, err
	}
	was, err := p.Store.User(ctx, within, want.ID)
	if err != nil {
		return nil, err
	}
	u := *was
	u.Email, u.Name, u.Operator, u.Disabled, u.Version = want.Email, want.Name, want.Operator, want.Disabled, want.Version
	if u.Operator != was.Operator || !u.Disabled.Equal(was.Disabled) {
		if err := by.Need(Operate, "make operators, or disable users"); err != nil {
			return nil, err
		}
	}
	if err := fillUser(&u, password); err != nil {
		return nil, err
	}
	if err := p.Store.SetUser(ctx, by.Actor, within, &u); err != nil {
		return nil, fmt.Errorf("change user: %w", err)
	}
	return &u, p.Changed(ctx)
}

// User gives a user who is a member of the caller's account.
func (p *People) User(ctx context.Context, by Caller, id relay.ID) (*relay.User, error) {
	if err := by.Need(Read, "see users"); err != nil {
		return nil, err
	}
	return p.Store.User(ctx, by.Account, id)
}

// Users gives those who are members of the caller's account, after the one of
// that id.
func (p *People) Users(ctx context.Context, by Caller, after relay.ID, limit int) ([]*relay.User, error) {
	if err := by.Need(Read, "see users"); err != nil {
		return nil, err
	}
	return p.Store.Users(ctx, by.Account, after, limit)
}

// Members gives the members of the caller's account.
func (p *People) Members(ctx context.Context, by Caller) ([]*relay.Member, error) {
	if err := by.Need(Read, "see members"); err != nil {
		return nil, err
	}
	return p.Store.Members(ctx, by.Account)
}

// SetMember gives whoever has that e-mail address a role in the caller's account.
// Where nobody has it, a user without a password is made.
func (p *People) SetMember(ctx context.Context, by Caller, email string, role relay.Role) (*relay.Member, error) {
	if err := by.Need(Manage, "change members"); err != nil {
		return nil, err
	}
	if by.Account == relay.Everyone {
		return nil, invalid("A member needs an account.", "Name the account.")
	}
	if !slices.Contains(knownRoles, role) {
		return nil, invalid(fmt.Sprintf("There is no role %q.", role), "Take owner, admin, developer or viewer.")
	}
	email, err := emailOf(email)
	if err != nil {
		return nil, err
	}
	present, err := p.present(ctx, by, func(m *relay.Member) bool { return m.Email == email })
	if err != nil {
		return nil, err
	}
	if err := p.mayChange(ctx, by, present, role); err != nil {
		return nil, err
	}
	u, err := p.Store.UserByEmail(ctx, email)
	if relay.CodeOf(err) == relay.NotFound {
		u, err = p.addUser(ctx, by, relay.User{Email: email}, "")
	}
	if err != nil {
		return nil, err
	}
	m := relay.Member{Account: by.Account, User: u.ID, Email: email, Role: role, Since: time.Now().UTC().Truncate(time.Microsecond)}
	if present != nil {
		m.Since = present.Since
	}
	if err := p.Store.SetMember(ctx, by.Actor, m); err != nil {
		return nil, fmt.Errorf("set member: %w", err)
	}
	return &m, p.Changed(ctx)
}

// RemoveMember takes a user out of the caller's account.
func (p *People) RemoveMember(ctx context.Context, by Caller, user relay.ID) error {
	if by.User != user || by.User.IsZero() { // anybody may leave
		if err := by.Need(Manage, "remove members"); err != nil {
			return err
		}
	}
	present, err := p.present(ctx, by, func(m *relay.Member) bool { return m.User == user })
	if err != nil {
		return err
	}
	if present == nil {
		return &relay.Error{Code: relay.NotFound, Text: "There is no such member.", Advice: "See the list of members."}
	}
	if by.User != user {
		err = p.mayChange(ctx, by, present, "")
	} else {
		err = p.lastOwner(ctx, by, present, "")
	}
	if err != nil {
		return err
	}
	if err := p.Store.RemoveMember(ctx, by.Actor, by.Account, user); err != nil {
		return fmt.Errorf("remove member: %w", err)
	}
	return p.Changed(ctx)
}

// present finds a member of the caller's account; nil where there is none.
func (p *People) present(ctx context.Context, by Caller, is func(*relay.Member) bool) (*relay.Member, error) {
	all, err := p.Store.Members(ctx, by.Account)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(all, is); i >= 0 {
		return all[i], nil
	}
	return nil, nil
}

// mayChange tells whether the caller may give somebody who is a member already,
// or is none, a role; the empty role takes the place away.
func (p *People) mayChange(ctx context.Context, by Caller, present *relay.Member, role relay.Role) error {
	if !by.Rights.mayGrant(OfRole(role)) || present != nil && !by.Rights.mayGrant(OfRole(present.Role)) {
		return &relay.Error{Code: relay.Forbidden, Text: "Nobody gives or takes a role that is above their own.", Advice: "Ask an owner of the account."}
	}
	return p.lastOwner(ctx, by, present, role)
}

// lastOwner keeps an account from losing its last owner, but for those who
// control it anyway.
func (p *People) lastOwner(ctx context.Context, by Caller, present *relay.Member, role relay.Role) error {
	if present == nil || present.Role != relay.Owner || role == relay.Owner || by.Rights.Has(Control) {
		return nil
	}
	another, err := p.present(ctx, by, func(m *relay.Member) bool { return m.Role == relay.Owner && m.User != present.User })
	if err == nil && another == nil {
		err = &relay.Error{Code: relay.Conflict, Text: "This is the account's last owner.", Advice: "Name another owner first."}
	}
	return err
}
