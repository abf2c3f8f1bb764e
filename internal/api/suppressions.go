package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"postrider/internal/relay"
)

func (s *Server) suppressionRoutes() {
	Register(s, Route{Method: http.MethodGet, Path: "/v1/suppressions", ID: "list-suppressions", Tag: "Suppressions", Right: Read, OfAccount: true,
		Summary: "Addresses that the account does not send to",
		Example: Example{Params: object{"text": "example.net"}, Answer: object{"data": []any{exampleSuppression()}}},
	}, s.listSuppressions)
	Register(s, Route{Method: http.MethodPost, Path: "/v1/suppressions", ID: "add-suppressions", Tag: "Suppressions", Right: Build, OfAccount: true, MaxBody: 4 << 20,
		Summary: "Stop sending to addresses", Doc: "Up to 10000 at once; @example.com is a whole domain. Addresses that are on the list already stay as they are.",
		Example: Example{Body: object{"data": []any{object{"address": "gone@example.net", "reason": "manual", "note": "asked by phone"}}}, Answer: object{"added": 1}},
	}, s.addSuppressions)
	Register(s, Route{Method: http.MethodDelete, Path: "/v1/suppressions/{address}", ID: "remove-suppression", Tag: "Suppressions", Right: Build, OfAccount: true,
		Summary: "Send to an address again",
		Example: Example{Params: object{"address": "gone@example.net"}},
	}, s.removeSuppression)
}

// Suppression is an address, or a domain, that an account does not send to.
type Suppression struct {
	Account string    `json:"account"`
	Address string    `json:"address"`
	Reason  string    `json:"reason" enum:"manual,bounce,complaint,unsubscribe"`
	Note    string    `json:"note,omitempty"`
	Event   string    `json:"event,omitempty" doc:"Id of the event that is the proof"`
	Created time.Time `json:"created"`
}

func newSuppression(v *relay.Suppression) Suppression {
	out := Suppression{Account: v.Account.String(), Address: v.Address, Reason: v.Reason, Note: v.Note, Created: v.Created}
	if !v.Event.IsZero() {
		out.Event = v.Event.String()
	}
	return out
}

type suppressionsQuery struct {
	Text   string `query:"text" maxLength:"400" doc:"Part of the address"`
	Reason string `query:"reason" enum:"manual,bounce,complaint,unsubscribe"`
	Page
}

func (s *Server) listSuppressions(ctx context.Context, q *suppressionsQuery) (*body[List[Suppression]], error) {
	found, err := s.config.Suppressions.List(ctx, CallerOf(ctx).Caller, relay.SuppressionFilter{Text: q.Text, Reason: q.Reason, After: q.Cursor, Limit: q.Limit})
	out := List[Suppression]{Data: make([]Suppression, 0, len(found))}
	for _, v := range found {
		out.Data = append(out.Data, newSuppression(v))
	}
	if len(found) == q.Limit {
		out.Next = found[len(found)-1].Address
	}
	return answer(out, err)
}

// NewSuppressions is what POST /v1/suppressions takes.
type NewSuppressions struct {
	Data []NewSuppression `json:"data" minItems:"1" maxItems:"10000" nullable:"false"`
}

// NewSuppression is one of them.
type NewSuppression struct {
	Address string `json:"address" maxLength:"400" doc:"user@example.com, or @example.com for a whole domain"`
	Reason  string `json:"reason,omitempty" enum:"manual,bounce,complaint,unsubscribe"`
	Note    string `json:"note,omitempty" maxLength:"1000"`
}

// AddedSuppressions is the answer.
type AddedSuppressions struct {
	Added int64 `json:"added" doc:"How many are new"`
}

func (s *Server) addSuppressions(ctx context.Context, in *body[NewSuppressions]) (*body[AddedSuppressions], error) {
	var list []relay.Suppression
	for _, n := range in.Body.Data {
		list = append(list, relay.Suppression{Address: n.Address, Reason: n.Reason, Note: n.Note})
	}
	n, err := s.config.Suppressions.Add(ctx, CallerOf(ctx).within(), list)
	return answer(AddedSuppressions{n}, err)
}

func (s *Server) removeSuppression(ctx context.Context, q *struct {
	Address string `path:"address" maxLength:"400"`
}) (*struct{}, error) {
	n, err := s.config.Suppressions.Remove(ctx, CallerOf(ctx).within(), []string{q.Address})
	if err == nil && n == 0 {
		err = at("path.address", &relay.Error{Code: relay.NotFound, Text: fmt.Sprintf("%s is not on the list.", cut(q.Address)), Advice: "A whole domain is written as @example.com."})
	}
	return nil, err
}

func exampleSuppression() object {
	return object{"account": ExampleAccount, "address": "gone@example.net", "reason": "manual", "note": "asked by phone", "created": ExampleTime}
}
