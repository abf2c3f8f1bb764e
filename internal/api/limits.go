package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"postrider/internal/limit"
	"postrider/internal/relay"
)

// Limits tells what of limits is used up.
type Limits interface {
	States(ctx context.Context, o limit.Order) ([]limit.State, error)
}

// Book knows accounts and their plans.
type Book interface {
	Account(ctx context.Context, id relay.ID) (*relay.Account, *relay.Plan, error)
}

func (s *Server) limitRoutes() {
	Register(s, Route{Method: http.MethodGet, Path: "/v1/limits", ID: "list-limits", Tag: "Accounts", Right: Read, OfAccount: true,
		Summary: "The limits that hold, and what is used up", Doc: "Those of the account and of its plan; with a credential, those of that too. Hours, days and months are those of the calendar in UTC. Nodes take a little in advance, which counts as used until they give it back.",
		Example: Example{Params: object{"credential": "webshop"}, Answer: object{"data": []any{object{"limit": "1000 recipients/hour", "whose": "this account", "used": 120, "reset": ExampleTime}}}},
	}, s.listLimits)
}

// LimitState is a limit, and what of it is used up.
type LimitState struct {
	Limit string     `json:"limit"`
	Whose string     `json:"whose" doc:"What it is a limit of"`
	Used  int64      `json:"used" doc:"0 for limits per second"`
	Reset *time.Time `json:"reset,omitempty" doc:"When it begins anew; none for limits per second"`
}

func (s *Server) listLimits(ctx context.Context, q *struct {
	Credential string `query:"credential" maxLength:"400" doc:"Id, user name or name"`
}) (*body[List[LimitState]], error) {
	by := CallerOf(ctx).within()
	order := limit.Order{}
	if q.Credential != "" {
		c, err := s.config.Credentials.Find(ctx, by.Account, q.Credential)
		if err != nil {
			return nil, at("query.credential", err)
		}
		order.Credential, order.Limits = c.ID, c.Limits
	}
	found, err := s.states(ctx, by.Account, order)
	out := List[LimitState]{Data: []LimitState{}}
	for _, f := range found {
		out.Data = append(out.Data, LimitState{Limit: f.Limit.String(), Whose: f.Whose, Used: f.Used, Reset: moment(f.Reset)})
	}
	return answer(out, err)
}

func (s *Server) states(ctx context.Context, account relay.ID, o limit.Order) ([]limit.State, error) {
	var err error
	if o.Account, o.Plan, err = s.config.Book.Account(ctx, account); err != nil {
		return nil, err
	}
	if parent := o.Account.Parent; !parent.IsZero() {
		a, plan, err := s.config.Book.Account(ctx, parent)
		if err != nil {
			return nil, err
		}
		o.Manager = limit.Above(a, plan, o.Recipients)
	}
	return s.config.Limits.States(ctx, o)
}

// Rate is what the headers of an answer to a request to send tell of limits
// (draft-ietf-httpapi-ratelimit-headers).
type Rate struct {
	Policy string `header:"RateLimit-Policy" doc:"The limits that hold: q of them in w seconds"`
	Left   string `header:"RateLimit" doc:"What is left of each: r, and in how many seconds it begins anew: t"`
}

// rate looks what is left. That it can't be told is no reason to refuse what was
// taken.
func (s *Server) rate(ctx context.Context, account relay.ID) (r Rate) {
	o := limit.Order{}
	if id := CallerOf(ctx).Identity; id != nil {
		o.Credential, o.Limits = id.Credential, id.Limits
	}
	found, err := s.states(ctx, account, o)
	if err != nil {
		return r
	}
	now := time.Now()
	var policy, left []string
	for _, f := range found {
		name := fmt.Sprintf("%q", f.Limit.Of+"/"+string(f.Limit.Per))
		start, end := f.Limit.Per.Start(now), f.Limit.Per.End(now)
		policy = append(policy, fmt.Sprintf("%s;q=%d;w=%d", name, f.Limit.Most, int(end.Sub(start).Seconds())))
		if !f.Reset.IsZero() {
			left = append(left, fmt.Sprintf("%s;r=%d;t=%d", name, max(0, f.Limit.Most-f.Used), max(0, int(time.Until(f.Reset).Seconds()))))
		}
	}
	r.Policy, r.Left = strings.Join(policy, ", "), strings.Join(left, ", ")
	return r
}

// limited adds them to a refusal for a limit that is used up.
func (s *Server) limited(ctx context.Context, account relay.ID, err error) error {
	var e *relay.Error
	if !errors.As(err, &e) || e.Code != relay.RateLimited {
		return err
	}
	h := http.Header{}
	r := s.rate(ctx, account)
	for name, v := range map[string]string{"RateLimit-Policy": r.Policy, "RateLimit": r.Left} {
		if v != "" {
			h.Set(name, v)
		}
	}
	return huma.ErrorWithHeaders(problem(err), h)
}
