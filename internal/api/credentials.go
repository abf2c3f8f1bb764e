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
	Register(s, Route{Method: http.MethodGet, Path: "/v1/credentials", ID: "list-credentials", Tag: "Credentials", Right: Read, OfAccount: true,
		Summary: "What apps and devices log in with",
		Example: Example{Answer: map[string]any{"data": []any{exampleCredentialValue()}}},
	}, s.listCredentials)
	Register(s, Route{Method: http.MethodPost, Path: "/v1/credentials", ID: "add-credential", Tag: "Credentials", Right: Manage, OfAccount: true, Status: http.StatusCreated,
		Summary: "Make a credential", Doc: "The secret is in the answer, and never shown again.",
		Example: Example{Body: map[string]any{"kind": "smtp", "name": "webshop"}, Answer: exampleAddedCredential()},
	}, s.addCredential)
	Register(s, Route{Method: http.MethodDelete, Path: "/v1/credentials/{which}", ID: "revoke-credential", Tag: "Credentials", Right: Manage, OfAccount: true,
		Summary: "Revoke a credential", Doc: "It stays in the list. Sessions that use it end within a second, on every node.",
		Example: Example{Params: map[string]any{"which": "webshop"}, Answer: exampleCredentialValue()},
	}, s.revokeCredential)
}

// Credential is what an app or a device submits with, without its secret.
type Credential struct {
	ID       string     `json:"id"`
	Account  string     `json:"account"`
	Kind     string     `json:"kind"`
	Name     string     `json:"name"`
	User     string     `json:"user,omitempty"`
	Networks []string   `json:"networks,omitempty"`
	Stream   string     `json:"stream"`
	RepairLF bool       `json:"repair_lf,omitempty"`
	Senders  []string   `json:"senders,omitempty"`
	Created  time.Time  `json:"created"`
	Revoked  *time.Time `json:"revoked,omitempty"`
}

func newCredential(c *relay.Credential) Credential {
	out := Credential{ID: c.ID.String(), Account: c.Account.String(), Kind: c.Kind, Name: c.Name, User: c.User,
		Stream: c.Stream.String(), RepairLF: c.RepairLF, Senders: c.Senders, Created: c.Created}
	for _, p := range c.Networks {
		out.Networks = append(out.Networks, p.String())
	}
	if !c.Revoked.IsZero() {
		out.Revoked = &c.Revoked
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
	Kind     string   `json:"kind" enum:"smtp,key,network" doc:"smtp: user and password. key: API key. network: addresses that need no password"`
	Name     string   `json:"name" doc:"The app or device that uses it"`
	User     string   `json:"user,omitempty" doc:"smtp: user name; empty makes one"`
	Password string   `json:"password,omitempty" doc:"smtp: a password that you bring along; empty makes one"`
	Networks []string `json:"networks,omitempty" doc:"network: 192.168.1.0/24 and kin"`
	Stream   string   `json:"stream,omitempty" enum:"transactional,broadcast" doc:"Kind of mail; transactional unless said otherwise"`
	RepairLF bool     `json:"repair_lf,omitempty" doc:"Repair bare CR and LF, as old scanners send them, instead of refusing the message"`
	Senders  []string `json:"senders,omitempty" doc:"Allowed envelope senders: addresses or domains; empty allows any"`
}

// AddedCredential is the answer: the only time that the secret is shown.
type AddedCredential struct {
	Credential
	Secret string `json:"secret,omitempty" doc:"Password or API key; not shown again"`
}

func (s *Server) addCredential(ctx context.Context, in *body[NewCredential]) (*body[AddedCredential], error) {
	w := account.Wish{Account: CallerOf(ctx).Into(), Kind: in.Body.Kind, Name: in.Body.Name, User: in.Body.User, Password: in.Body.Password,
		RepairLF: in.Body.RepairLF, Senders: in.Body.Senders}
	if in.Body.Stream != "" {
		var err error
		if w.Stream, err = relay.ParseStream(in.Body.Stream); err != nil {
			return nil, invalid("body.stream", sentence(err), "Take transactional or broadcast.")
		}
	}
	for i, n := range in.Body.Networks {
		p, err := parsePrefix(n)
		if err != nil {
			return nil, invalid(fmt.Sprintf("body.networks[%d]", i), fmt.Sprintf("%q is not a network.", cut(n)), "Write it as 192.168.1.0/24 or 2001:db8::/32, or name one address.")
		}
		w.Networks = append(w.Networks, p)
	}
	c, secret, err := s.config.Credentials.Add(ctx, CallerOf(ctx).acting(), w)
	if err != nil {
		return nil, err
	}
	return answer(AddedCredential{newCredential(c), secret}, nil)
}

func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.ParsePrefix(s)
}

type revokeQuery struct {
	Which string `path:"which" doc:"Id, user name or name"`
}

func (s *Server) revokeCredential(ctx context.Context, q *revokeQuery) (*body[Credential], error) {
	c, err := s.config.Credentials.Revoke(ctx, CallerOf(ctx).acting(), q.Which)
	if err != nil {
		return nil, err
	}
	return answer(newCredential(c), nil)
}

// acting is the caller in words of package account.
func (c *Caller) acting() account.Caller {
	if c.Operator {
		return account.Operator(c.Actor).In(c.Account)
	}
	return account.Caller{Actor: c.Actor, Account: c.Account, Rights: account.OfCredential(&relay.Credential{Kind: account.KindKey, Scopes: c.Scopes}, 0)}
}
