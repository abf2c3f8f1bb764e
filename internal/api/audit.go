package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"postrider/internal/relay"
)

// Audit tells who changed what.
type Audit interface {
	Changes(ctx context.Context, account relay.ID, f relay.ChangeFilter) ([]*relay.Change, error)
}

func (s *Server) auditRoutes() {
	Register(s, Route{Method: http.MethodGet, Path: "/v1/audit", ID: "list-changes", Tag: "Accounts", Right: Read, OfAccount: true,
		Summary: "Who changed what", Doc: "The newest change first: who, when, from where, and what it was before and after.",
		Example: Example{Params: object{"action": "credential", "limit": 10}, Answer: object{"data": []any{exampleChange()}}},
	}, s.audit)
}

// Change is an entry of the audit log.
type Change struct {
	ID      string          `json:"id"`
	At      time.Time       `json:"at"`
	Account string          `json:"account,omitempty" doc:"None: of no account"`
	Actor   Actor           `json:"actor"`
	Action  string          `json:"action" doc:"credential.add, domain.check …"`
	Object  string          `json:"object" doc:"Id or name of what was changed"`
	Before  json.RawMessage `json:"before,omitempty" doc:"Without secrets; none: it was not there"`
	After   json.RawMessage `json:"after,omitempty" doc:"None: it is gone"`
}

// Actor is who changed something.
type Actor struct {
	Name       string `json:"name"`
	User       string `json:"user,omitempty"`
	Credential string `json:"credential,omitempty" doc:"The key that was used"`
	Client     string `json:"client,omitempty" doc:"Address that it came from; none: the control socket, or the relay itself"`
}

func newChange(c *relay.Change) Change {
	out := Change{ID: c.ID.String(), At: c.At, Actor: Actor{Name: c.Actor.Name}, Action: c.Action, Object: c.Object, Before: c.Before, After: c.After}
	for _, f := range []struct {
		to *string
		id relay.ID
	}{{&out.Account, c.Account}, {&out.Actor.User, c.Actor.User}, {&out.Actor.Credential, c.Actor.Credential}} {
		if !f.id.IsZero() && f.id != relay.Everyone {
			*f.to = f.id.String()
		}
	}
	if c.Actor.Client.IsValid() {
		out.Actor.Client = c.Actor.Client.String()
	}
	return out
}

type auditQuery struct {
	Action     string    `query:"action" maxLength:"100" doc:"The whole, or up to a dot: credential finds credential.add too"`
	Object     string    `query:"object" maxLength:"400" doc:"Id or name of what was changed"`
	User       string    `query:"user" doc:"Id of the user who did it"`
	Credential string    `query:"credential" doc:"Id of the key that was used"`
	Since      time.Time `query:"since"`
	Until      time.Time `query:"until"`
	Page
}

func (s *Server) audit(ctx context.Context, q *auditQuery) (*body[List[Change]], error) {
	f := relay.ChangeFilter{Action: q.Action, Object: q.Object, Since: q.Since, Until: q.Until, Limit: q.Limit}
	for _, p := range []struct {
		name, text string
		to         *relay.ID
	}{{"user", q.User, &f.User}, {"credential", q.Credential, &f.Credential}, {"cursor", q.Cursor, &f.Before}} {
		if p.text == "" {
			continue
		}
		var err error
		if *p.to, err = relay.ParseID(p.text); err != nil {
			return nil, invalid("query."+p.name, sentence(err), "Give an id as the list has it.")
		}
	}
	found, err := s.config.Audit.Changes(ctx, CallerOf(ctx).Account, f)
	out := List[Change]{Data: make([]Change, 0, len(found))}
	for _, c := range found {
		out.Data = append(out.Data, newChange(c))
	}
	if len(found) == q.Limit {
		out.Next = out.Data[len(out.Data)-1].ID
	}
	return answer(out, err)
}

func exampleChange() object {
	return object{"id": "06dx0000000000000000000070", "at": ExampleTime, "account": ExampleAccount, "actor": object{"name": "ann@shop.example", "user": ExampleUser, "client": "192.0.2.7"},
		"action": "credential.add", "object": ExampleCredential, "after": object{"id": ExampleCredential, "kind": "smtp", "name": "webshop"}}
}
