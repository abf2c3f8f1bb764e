package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"postrider/internal/account"
	"postrider/internal/relay"
)

func (s *Server) peopleRoutes() {
	named := object{"who": "ann@shop.example"}
	Register(s, Route{Method: http.MethodGet, Path: "/v1/users", ID: "list-users", Tag: "Accounts", Right: Read, OfAccount: true,
		Summary: "People who are members of the account", Doc: "Operators see all users.",
		Example: Example{Answer: object{"data": []any{exampleUserValue()}}},
	}, s.listUsers)
	Register(s, Route{Method: http.MethodPost, Path: "/v1/users", ID: "add-user", Tag: "Accounts", Right: Operators, Status: http.StatusCreated,
		Summary: "Make a user", Doc: "Somebody in no account yet. Adding a member makes a user too, where nobody has the address.",
		Example: Example{Body: object{"email": "ben@shop.example", "name": "Ben"}, Answer: exampleUserValue()},
	}, s.addUser)
	Register(s, Route{Method: http.MethodGet, Path: "/v1/users/{who}", ID: "get-user", Tag: "Accounts", Right: Read, OfAccount: true,
		Summary: "One user",
		Example: Example{Params: named, Answer: exampleUserValue()},
	}, s.getUser)
	Register(s, Route{Method: http.MethodPatch, Path: "/v1/users/{who}", ID: "change-user", Tag: "Accounts", Right: Operators,
		Summary: "Change a user", Doc: "Fields that are left out stay. A user who is disabled, and each key that is theirs, can do nothing.",
		Example: Example{Params: named, Body: object{"name": "Ann Smith"}, Answer: exampleUserValue()},
	}, s.changeUser)
	Register(s, Route{Method: http.MethodGet, Path: "/v1/members", ID: "list-members", Tag: "Accounts", Right: Read, OfAccount: true,
		Summary: "Who has which role in the account",
		Example: Example{Answer: object{"data": []any{exampleMember()}}},
	}, s.listMembers)
	Register(s, Route{Method: http.MethodPost, Path: "/v1/members", ID: "set-member", Tag: "Accounts", Right: Manage, OfAccount: true,
		Summary: "Give somebody a role in the account", Doc: "viewer: sees everything. developer: domains, senders, keys. admin: members and sub-accounts too. owner: closes the account and names owners. Nobody gives a role above their own.",
		Example: Example{Body: object{"email": "cy@shop.example", "role": "developer"}, Answer: exampleMember()},
	}, s.setMember)
	Register(s, Route{Method: http.MethodDelete, Path: "/v1/members/{who}", ID: "remove-member", Tag: "Accounts", Right: Manage, OfAccount: true,
		Summary: "Take somebody out of the account", Doc: "Keys that are theirs stop within a second.",
		Example: Example{Params: object{"who": "ann@shop.example"}},
	}, s.removeMember)
}

// User is a person who logs in.
type User struct {
	ID       string     `json:"id"`
	Email    string     `json:"email"`
	Name     string     `json:"name,omitempty"`
	Operator bool       `json:"operator,omitempty" doc:"Sees and manages all accounts"`
	Password bool       `json:"password" doc:"Whether there is one"`
	Created  time.Time  `json:"created"`
	Disabled *time.Time `json:"disabled,omitempty"`
	Version  int64      `json:"version"`
}

func newUser(u *relay.User) User {
	return User{ID: u.ID.String(), Email: u.Email, Name: u.Name, Operator: u.Operator, Password: u.Argon2 != "", Created: u.Created, Disabled: moment(u.Disabled), Version: u.Version}
}

func oneUser(u *relay.User, err error) (*body[User], error) {
	if err != nil {
		return nil, err
	}
	return answer(newUser(u), nil)
}

func (s *Server) listUsers(ctx context.Context, p *Page) (*body[List[User]], error) {
	by := CallerOf(ctx).Caller
	return listOf(ctx, *p, func(ctx context.Context, _, after relay.ID, limit int) ([]*relay.User, error) {
		return s.config.People.Users(ctx, by, after, limit)
	}, newUser, func(u *relay.User) relay.ID { return u.ID })
}

// NewUser is what POST /v1/users takes.
type NewUser struct {
	Email    string `json:"email" maxLength:"400"`
	Name     string `json:"name,omitempty" maxLength:"128"`
	Operator bool   `json:"operator,omitempty" doc:"Sees and manages all accounts"`
	Password string `json:"password,omitempty" doc:"10 to 256 bytes; none: nobody logs in with one"`
}

func (s *Server) addUser(ctx context.Context, in *body[NewUser]) (*body[User], error) {
	n := in.Body
	return oneUser(s.config.People.AddUser(ctx, CallerOf(ctx).Caller, relay.User{Email: n.Email, Name: n.Name, Operator: n.Operator}, n.Password))
}

// OneUser names one.
type OneUser struct {
	Who string `path:"who" maxLength:"400" doc:"Id or e-mail address"`
}

// user finds a user whom the caller sees.
func (s *Server) user(ctx context.Context, who string) (*relay.User, error) {
	by := CallerOf(ctx).Caller
	none := at("path.who", &relay.Error{Code: relay.NotFound, Text: fmt.Sprintf("There is no user %q.", cut(who))})
	if !strings.Contains(who, "@") {
		id, err := relay.ParseID(who)
		if err != nil {
			return nil, none
		}
		return s.config.People.User(ctx, by, id)
	}
	const page = 1000
	for after := (relay.ID{}); ; {
		some, err := s.config.People.Users(ctx, by, after, page)
		if err != nil {
			return nil, err
		}
		for _, u := range some {
			if strings.EqualFold(u.Email, who) {
				return u, nil
			}
			after = u.ID
		}
		if len(some) < page {
			return nil, none
		}
	}
}

func (s *Server) getUser(ctx context.Context, q *OneUser) (*body[User], error) {
	return oneUser(s.user(ctx, q.Who))
}

// UserChange is what PATCH /v1/users takes. What is left out stays.
type UserChange struct {
	Email    *string `json:"email,omitempty" maxLength:"400"`
	Name     *string `json:"name,omitempty" maxLength:"128"`
	Operator *bool   `json:"operator,omitempty"`
	Password *string `json:"password,omitempty"`
	Disabled *bool   `json:"disabled,omitempty"`
	Version  *int64  `json:"version,omitempty" doc:"The one that you have seen"`
}

func (s *Server) changeUser(ctx context.Context, in *struct {
	OneUser
	Body UserChange
}) (*body[User], error) {
	was, err := s.user(ctx, in.Who)
	if err != nil {
		return nil, err
	}
	u, n, password := *was, &in.Body, ""
	set(&u.Email, n.Email)
	set(&u.Name, n.Name)
	set(&u.Operator, n.Operator)
	set(&u.Version, n.Version)
	set(&password, n.Password)
	if n.Disabled != nil && *n.Disabled == u.Disabled.IsZero() {
		u.Disabled = time.Time{}
		if *n.Disabled {
			u.Disabled = time.Now().UTC().Truncate(time.Microsecond)
		}
	}
	return oneUser(s.config.People.SetUser(ctx, CallerOf(ctx).Caller, &u, password))
}

// Member is a user's place in an account.
type Member struct {
	Account string     `json:"account"`
	User    string     `json:"user" doc:"Id of the user"`
	Email   string     `json:"email"`
	Role    relay.Role `json:"role" enum:"owner,admin,developer,viewer"`
	Since   time.Time  `json:"since"`
}

func newMember(m *relay.Member) Member {
	return Member{m.Account.String(), m.User.String(), m.Email, m.Role, m.Since}
}

// within is the caller in one account: the one that is meant, or where an
// operator who named none adds things.
func (c *Caller) within() account.Caller {
	if c.Account == relay.Everyone {
		return c.In(c.home)
	}
	return c.Caller
}

func (s *Server) listMembers(ctx context.Context, p *Page) (*body[List[Member]], error) {
	all, err := s.config.People.Members(ctx, CallerOf(ctx).within())
	if err != nil {
		return nil, err
	}
	return pageOf(all, *p, func(m *relay.Member) string { return m.User.String() }, newMember)
}

// NewMember is what POST /v1/members takes.
type NewMember struct {
	Email string     `json:"email" maxLength:"400"`
	Role  relay.Role `json:"role" enum:"owner,admin,developer,viewer"`
}

func (s *Server) setMember(ctx context.Context, in *body[NewMember]) (*body[Member], error) {
	m, err := s.config.People.SetMember(ctx, CallerOf(ctx).within(), in.Body.Email, in.Body.Role)
	if err != nil {
		return nil, err
	}
	return answer(newMember(m), nil)
}

func (s *Server) removeMember(ctx context.Context, q *OneUser) (*struct{}, error) {
	by := CallerOf(ctx).within()
	all, err := s.config.People.Members(ctx, by)
	if err != nil {
		return nil, err
	}
	for _, m := range all {
		if m.User.String() == q.Who || strings.EqualFold(m.Email, q.Who) {
			return nil, s.config.People.RemoveMember(ctx, by, m.User)
		}
	}
	return nil, at("path.who", &relay.Error{Code: relay.NotFound, Text: fmt.Sprintf("%q is no member of this account.", cut(q.Who)), Advice: "See the list of members."})
}

func exampleUserValue() object {
	return object{"id": ExampleUser, "email": "ann@shop.example", "name": "Ann", "password": true, "created": ExampleTime, "version": 1}
}

func exampleMember() object {
	return object{"account": ExampleAccount, "user": ExampleUser, "email": "ann@shop.example", "role": "owner", "since": ExampleTime}
}
