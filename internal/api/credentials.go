package api

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"postrider/internal/account"
	"postrider/internal/relay"
)

func (s *Server) credentialRoutes() {
	named := object{"which": "webshop"}
	Register(s, Route{Method: http.MethodGet, Path: "/v1/credentials", ID: "list-credentials", Tag: "Credentials", Right: Read, OfAccount: true,
		Summary: "What apps and devices log in with",
		Example: Example{Answer: object{"data": []any{exampleCredentialValue()}}},
	}, s.listCredentials)
	Register(s, Route{Method: http.MethodPost, Path: "/v1/credentials", ID: "add-credential", Tag: "Credentials", Right: Build, OfAccount: true, Status: http.StatusCreated,
		Summary: "Make a credential", Doc: "The secret is in the answer, and never shown again. A key can do no more than who makes it.",
		Example: Example{Body: object{"kind": "key", "name": "crm", "scopes": []any{"send", "read"}, "limits": []any{"1000 recipients/hour"}}, Answer: exampleAddedCredential()},
	}, s.addCredential)
	Register(s, Route{Method: http.MethodGet, Path: "/v1/credentials/{which}", ID: "get-credential", Tag: "Credentials", Right: Read, OfAccount: true,
		Summary: "One credential",
		Example: Example{Params: named, Answer: exampleCredentialValue()},
	}, s.getCredential)
	Register(s, Route{Method: http.MethodPatch, Path: "/v1/credentials/{which}", ID: "change-credential", Tag: "Credentials", Right: Build, OfAccount: true,
		Summary: "Change a credential", Doc: "Fields that are left out stay. With a version, the change is refused where somebody else was faster. What is blocked is refused within a second, on every node.",
		Example: Example{Params: named, Body: object{"limits": []any{"500 recipients/hour"}, "senders": []any{"shop.example"}}, Answer: exampleCredentialValue()},
	}, s.changeCredential)
	Register(s, Route{Method: http.MethodPost, Path: "/v1/credentials/{which}/rotate", ID: "rotate-credential", Tag: "Credentials", Right: Build, OfAccount: true,
		Summary: "Give a credential another secret", Doc: "The old one is good for a while yet, so that nothing stops while the new one is put in place.",
		Example: Example{Params: named, Body: object{"overlap": 86400}, Answer: exampleAddedCredential()},
	}, s.rotateCredential)
	Register(s, Route{Method: http.MethodDelete, Path: "/v1/credentials/{which}", ID: "revoke-credential", Tag: "Credentials", Right: Build, OfAccount: true,
		Summary: "Revoke a credential", Doc: "It stays in the list. Sessions that use it end within a second, on every node.",
		Example: Example{Params: named, Answer: exampleCredentialValue()},
	}, s.revokeCredential)
}

// Credential is what an app or a device submits with, without its secret.
type Credential struct {
	ID       string          `json:"id"`
	Account  string          `json:"account"`
	Kind     string          `json:"kind" enum:"smtp,key,network"`
	Name     string          `json:"name"`
	User     string          `json:"user,omitempty" doc:"smtp: the user name"`
	Networks []string        `json:"networks,omitempty" doc:"network: where clients need no password"`
	Stream   string          `json:"stream"`
	RepairLF bool            `json:"repair_lf,omitempty"`
	Senders  []string        `json:"senders,omitempty" doc:"Addresses and domains that it may send as; none: all of the account's"`
	Status   relay.Status    `json:"status" enum:"active,sandbox,blocked"`
	Reason   string          `json:"reason,omitempty" doc:"Of the status"`
	StatusBy relay.Authority `json:"status_by,omitempty" enum:"manager,operator" doc:"Who set the status, and alone may lift it"`
	Scopes   []relay.Scope   `json:"scopes,omitempty" doc:"key: what it may do; none: send"`
	Owner    string          `json:"owner,omitempty" doc:"key: id of the user whose rights bound it"`
	Limits   []string        `json:"limits,omitempty"`
	Pool     string          `json:"pool,omitempty" doc:"Of source addresses"`
	Opens    bool            `json:"opens,omitempty" doc:"Opens of HTML mail are tracked"`
	Clicks   bool            `json:"clicks,omitempty" doc:"Links are tracked"`
	Archive  bool            `json:"archive,omitempty" doc:"Content is kept after the last delivery"`
	Group    string          `json:"group,omitempty" doc:"Unsubscribe group of mail that names none"`
	Used     *time.Time      `json:"used,omitempty" doc:"Last use, to the minute"`
	UsedFrom string          `json:"used_from,omitempty" doc:"Address of the last use"`
	Previous *time.Time      `json:"previous_until,omitempty" doc:"Until when the secret before the last rotation is good"`
	Created  time.Time       `json:"created"`
	Expires  *time.Time      `json:"expires,omitempty"`
	Revoked  *time.Time      `json:"revoked,omitempty"`
	Version  int64           `json:"version"`
}

func newCredential(c *relay.Credential) Credential {
	out := Credential{ID: c.ID.String(), Account: c.Account.String(), Kind: c.Kind, Name: c.Name, User: c.User,
		Stream: c.Stream.String(), RepairLF: c.RepairLF, Senders: c.Senders, Status: c.Status, Reason: c.Reason, StatusBy: c.StatusBy, Scopes: c.Scopes,
		Limits: limitTexts(c.Limits), Pool: c.Pool, Opens: c.Opens, Clicks: c.Clicks, Archive: c.Archive, Group: c.Group, Used: moment(c.Used),
		Previous: moment(c.Previous.Until), Created: c.Created, Expires: moment(c.Expires), Revoked: moment(c.Revoked), Version: c.Version}
	for _, p := range c.Networks {
		out.Networks = append(out.Networks, p.String())
	}
	if out.Status == "" {
		out.Status = relay.Active
	}
	if !c.Owner.IsZero() {
		out.Owner = c.Owner.String()
	}
	if c.UsedFrom.IsValid() {
		out.UsedFrom = c.UsedFrom.String()
	}
	return out
}

func limitTexts(limits []relay.Limit) (out []string) {
	for _, l := range limits {
		out = append(out, l.String())
	}
	return out
}

func (s *Server) listCredentials(ctx context.Context, p *Page) (*body[List[Credential]], error) {
	found, err := s.config.Credentials.List(ctx, CallerOf(ctx).Account)
	if err != nil {
		return nil, err
	}
	return pageOf(found, *p, func(c *relay.Credential) string { return c.ID.String() }, newCredential)
}

// NewCredential is what POST /v1/credentials takes.
type NewCredential struct {
	Kind     string        `json:"kind" enum:"smtp,key,network" doc:"smtp: user and password. key: API key. network: addresses that need no password"`
	Name     string        `json:"name" doc:"The app or device that uses it"`
	User     string        `json:"user,omitempty" doc:"smtp: user name; empty makes one"`
	Password string        `json:"password,omitempty" doc:"smtp: a password that you bring along; empty makes one"`
	Networks []string      `json:"networks,omitempty" doc:"network: 192.168.1.0/24 and kin"`
	Stream   string        `json:"stream,omitempty" enum:"transactional,broadcast" doc:"Kind of mail; transactional unless said otherwise"`
	RepairLF bool          `json:"repair_lf,omitempty" doc:"Repair bare CR and LF, as old scanners send them, instead of refusing the message"`
	Senders  []string      `json:"senders,omitempty" doc:"Addresses and domains that it may send as; none: all of the account's"`
	Status   relay.Status  `json:"status,omitempty" enum:"active,sandbox,blocked"`
	Scopes   []relay.Scope `json:"scopes,omitempty" doc:"key: send, read, manage; none: send"`
	Limits   []string      `json:"limits,omitempty" doc:"Such as \"1000 recipients/hour\" or \"10 messages/second burst 50\""`
	Pool     string        `json:"pool,omitempty" doc:"Of source addresses; empty: the account's"`
	Opens    bool          `json:"opens,omitempty" doc:"Track opens of HTML mail"`
	Clicks   bool          `json:"clicks,omitempty" doc:"Track links"`
	Archive  bool          `json:"archive,omitempty" doc:"Keep content after the last delivery"`
	Group    string        `json:"group,omitempty" maxLength:"64" doc:"Unsubscribe group of mail that names none"`
	Expires  time.Time     `json:"expires,omitzero" doc:"When it ends; left out: never"`
}

// AddedCredential is the answer: the only time that the secret is shown.
type AddedCredential struct {
	Credential
	Secret string `json:"secret,omitempty" doc:"Password or API key; not shown again"`
}

func (s *Server) addCredential(ctx context.Context, in *body[NewCredential]) (*body[AddedCredential], error) {
	n := &in.Body
	w := account.Wish{Account: CallerOf(ctx).Into(), Kind: n.Kind, Name: n.Name, User: n.User, Password: n.Password, RepairLF: n.RepairLF, Senders: n.Senders,
		Status: n.Status, Scopes: n.Scopes, Pool: n.Pool, Opens: n.Opens, Clicks: n.Clicks, Archive: n.Archive, Group: n.Group, Expires: n.Expires}
	var err error
	if n.Stream != "" {
		if w.Stream, err = relay.ParseStream(n.Stream); err != nil {
			return nil, invalid("body.stream", sentence(err), "Take transactional or broadcast.")
		}
	}
	if w.Networks, err = networks(n.Networks); err != nil {
		return nil, err
	}
	if w.Limits, err = limits(n.Limits); err != nil {
		return nil, err
	}
	c, secret, err := s.config.Credentials.Add(ctx, CallerOf(ctx).Caller, w)
	if err != nil {
		return nil, err
	}
	return answer(AddedCredential{newCredential(c), secret}, nil)
}

func networks(list []string) (out []netip.Prefix, err error) {
	for i, n := range list {
		p, err := netip.ParsePrefix(n)
		if a, aerr := netip.ParseAddr(n); aerr == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return nil, invalid(fmt.Sprintf("body.networks[%d]", i), fmt.Sprintf("%q is not a network.", cut(n)), "Write it as 192.168.1.0/24 or 2001:db8::/32, or name one address.")
		}
		out = append(out, p)
	}
	return out, nil
}

// limits reads limits as people write them.
func limits(list []string) ([]relay.Limit, error) {
	out := make([]relay.Limit, len(list))
	for i, text := range list {
		if err := out[i].UnmarshalText([]byte(text)); err != nil {
			return nil, invalid(fmt.Sprintf("body.limits[%d]", i), fmt.Sprintf("%q is no limit.", cut(text)), "Write one such as \"1000 recipients/hour\" or \"10 messages/second burst 50\".")
		}
	}
	return out, nil
}

// OneCredential names one.
type OneCredential struct {
	Which string `path:"which" maxLength:"400" doc:"Id, user name or name"`
}

func (s *Server) getCredential(ctx context.Context, q *OneCredential) (*body[Credential], error) {
	return oneCredential(s.config.Credentials.Find(ctx, CallerOf(ctx).Account, q.Which))
}

func oneCredential(c *relay.Credential, err error) (*body[Credential], error) {
	if err != nil {
		return nil, err
	}
	return answer(newCredential(c), nil)
}

// CredentialChange is what PATCH /v1/credentials takes. What is left out stays.
type CredentialChange struct {
	Name     *string        `json:"name,omitempty"`
	Networks *[]string      `json:"networks,omitempty"`
	Stream   *string        `json:"stream,omitempty" enum:"transactional,broadcast"`
	RepairLF *bool          `json:"repair_lf,omitempty"`
	Senders  *[]string      `json:"senders,omitempty"`
	Status   *relay.Status  `json:"status,omitempty" enum:"active,sandbox,blocked"`
	Reason   *string        `json:"reason,omitempty" doc:"Of the status; who is refused is told it"`
	Scopes   *[]relay.Scope `json:"scopes,omitempty"`
	Limits   *[]string      `json:"limits,omitempty"`
	Pool     *string        `json:"pool,omitempty"`
	Opens    *bool          `json:"opens,omitempty"`
	Clicks   *bool          `json:"clicks,omitempty"`
	Archive  *bool          `json:"archive,omitempty"`
	Group    *string        `json:"group,omitempty" maxLength:"64" doc:"Empty: none"`
	Expires  *time.Time     `json:"expires,omitempty" doc:"0001-01-01T00:00:00Z: never"`
	Version  *int64         `json:"version,omitempty" doc:"The one that you have seen"`
}

// set changes what is named.
func set[T any](to *T, v *T) {
	if v != nil {
		*to = *v
	}
}

func (s *Server) changeCredential(ctx context.Context, in *struct {
	OneCredential
	Body CredentialChange
}) (*body[Credential], error) {
	by, n := CallerOf(ctx).Caller, &in.Body
	was, err := s.config.Credentials.Find(ctx, by.Account, in.Which)
	if err != nil {
		return nil, err
	}
	c := *was
	set(&c.Name, n.Name)
	set(&c.RepairLF, n.RepairLF)
	set(&c.Senders, n.Senders)
	set(&c.Status, n.Status)
	set(&c.Reason, n.Reason)
	set(&c.Scopes, n.Scopes)
	set(&c.Pool, n.Pool)
	set(&c.Opens, n.Opens)
	set(&c.Clicks, n.Clicks)
	set(&c.Archive, n.Archive)
	set(&c.Group, n.Group)
	set(&c.Expires, n.Expires)
	set(&c.Version, n.Version)
	if n.Stream != nil {
		if c.Stream, err = relay.ParseStream(*n.Stream); err != nil {
			return nil, invalid("body.stream", sentence(err), "Take transactional or broadcast.")
		}
	}
	if n.Networks != nil {
		if c.Networks, err = networks(*n.Networks); err != nil {
			return nil, err
		}
	}
	if n.Limits != nil {
		if c.Limits, err = limits(*n.Limits); err != nil {
			return nil, err
		}
	}
	return oneCredential(s.config.Credentials.Change(ctx, by, &c))
}

// Rotation is what POST /v1/credentials/{which}/rotate takes. A pointer tells 0 from
// nothing said.
type Rotation struct {
	Overlap *int64 `json:"overlap,omitempty" default:"86400" minimum:"0" maximum:"2592000" doc:"For how many seconds the old secret is good yet"`
}

func (s *Server) rotateCredential(ctx context.Context, in *struct {
	OneCredential
	Body Rotation
}) (*body[AddedCredential], error) {
	c, secret, err := s.config.Credentials.Rotate(ctx, CallerOf(ctx).Caller, in.Which, time.Duration(*in.Body.Overlap)*time.Second)
	if err != nil {
		return nil, err
	}
	return answer(AddedCredential{newCredential(c), secret}, nil)
}

func (s *Server) revokeCredential(ctx context.Context, q *OneCredential) (*body[Credential], error) {
	return oneCredential(s.config.Credentials.Revoke(ctx, CallerOf(ctx).Caller, q.Which))
}
