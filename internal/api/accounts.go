package api

import (
	"context"
	"net/http"
	"time"

	"postrider/internal/relay"
)

func (s *Server) accountRoutes() {
	named := object{"which": "shop"}
	Register(s, Route{Method: http.MethodGet, Path: "/v1/accounts", ID: "list-accounts", Tag: "Accounts", Right: Read, OfAccount: true,
		Summary: "The account and its sub-accounts", Doc: "Operators see all accounts.",
		Example: Example{Answer: object{"data": []any{exampleAccountValue()}}},
	}, s.listAccounts)
	Register(s, Route{Method: http.MethodPost, Path: "/v1/accounts", ID: "add-account", Tag: "Accounts", Right: Manage, OfAccount: true, Status: http.StatusCreated,
		Summary: "Make an account", Doc: "A sub-account of the caller's account, which what holds for that holds for too; or, by an operator who names none, an account of the relay's.",
		Example: Example{Body: object{"name": "shop-test", "plan": "small"}, Answer: exampleAccountValue()},
	}, s.addAccount)
	Register(s, Route{Method: http.MethodGet, Path: "/v1/accounts/{which}", ID: "get-account", Tag: "Accounts", Right: Read, OfAccount: true,
		Summary: "One account",
		Example: Example{Params: named, Answer: exampleAccountValue()},
	}, s.getAccount)
	Register(s, Route{Method: http.MethodPatch, Path: "/v1/accounts/{which}", ID: "change-account", Tag: "Accounts", Right: Manage, OfAccount: true,
		Summary: "Change an account", Doc: "Fields that are left out stay. Status and limits are changed by who manages the account: its parent's admins, or operators; plan and senders by operators alone.",
		Example: Example{Params: named, Body: object{"suppressed": "refuse", "limits": []any{"5000 recipients/day"}}, Answer: exampleAccountValue()},
	}, s.changeAccount)
	Register(s, Route{Method: http.MethodDelete, Path: "/v1/accounts/{which}", ID: "close-account", Tag: "Accounts", Right: Manage, OfAccount: true,
		Summary: "Close an account", Doc: "Nobody sends with it any more. Its log stays, and it can be opened again.",
		Example: Example{Params: object{"which": "shop-old"}, Answer: exampleAccountValue()},
	}, s.closeAccount)
	Register(s, Route{Method: http.MethodGet, Path: "/v1/plans", ID: "list-plans", Tag: "Accounts", Right: Operators,
		Summary: "Sets of limits that accounts share",
		Example: Example{Answer: object{"data": []any{examplePlanValue()}}},
	}, s.listPlans)
	Register(s, Route{Method: http.MethodPut, Path: "/v1/plans/{name}", ID: "set-plan", Tag: "Accounts", Right: Operators,
		Summary: "Make or change a plan", Doc: "Its limits hold for each account that has it, at once.",
		Example: Example{Params: object{"name": "small"}, Body: object{"limits": []any{"10000 recipients/month"}, "start": 200}, Answer: examplePlanValue()},
	}, s.setPlan)
	Register(s, Route{Method: http.MethodDelete, Path: "/v1/plans/{name}", ID: "remove-plan", Tag: "Accounts", Right: Operators,
		Summary: "Remove a plan that no account has",
		Example: Example{Params: object{"name": "unused"}},
	}, s.removePlan)
}

// Account is a tenant.
type Account struct {
	ID          string             `json:"id"`
	Parent      string             `json:"parent,omitempty" doc:"Id of the account that manages this one"`
	Name        string             `json:"name"`
	Title       string             `json:"title,omitempty" doc:"As recipients see it where they unsubscribe; none: they see the domain that mail is from"`
	Status      relay.Status       `json:"status" enum:"active,sandbox,blocked" doc:"sandbox: sends to its own verified addresses only"`
	Reason      string             `json:"reason,omitempty" doc:"Of the status"`
	StatusBy    relay.Authority    `json:"status_by,omitempty" enum:"manager,operator" doc:"Who set the status or closed the account, and alone may lift it"`
	Plan        string             `json:"plan,omitempty"`
	Senders     relay.SenderRule   `json:"senders,omitempty" enum:"verified,any" doc:"In whose names it may send: its verified domains and senders, or anybody; none: as the relay is configured"`
	DNS         relay.DNSRule      `json:"dns,omitempty" enum:"warn,refuse" doc:"What becomes of mail of domains whose records are broken"`
	Muted       relay.SuppressRule `json:"suppressed,omitempty" enum:"drop,refuse" doc:"What becomes of suppressed recipients"`
	Track       relay.Track        `json:"track,omitempty" doc:"What is tracked of mail that nothing else is said of: some of opens, clicks and text (clicks of plain text). off: nothing of any mail, whatever else is said"`
	Limits      []string           `json:"limits,omitempty" doc:"Beside those of the plan"`
	Daily       int64              `json:"daily,omitempty" doc:"Recipients a day, while a new account grows"`
	LogDays     int                `json:"log_days,omitempty" doc:"For how many days messages, deliveries and events are kept; 0: as the plan says, -1: for ever"`
	ContentDays int                `json:"content_days,omitempty" doc:"For how many days archived content is kept; 0 and -1 as above"`
	Created     time.Time          `json:"created"`
	Closed      *time.Time         `json:"closed,omitempty"`
	Version     int64              `json:"version"`
}

func newAccount(a *relay.Account) Account {
	out := Account{ID: a.ID.String(), Name: a.Name, Title: a.Title, Status: a.Status, Reason: a.Reason, StatusBy: a.StatusBy, Plan: a.Plan, Senders: a.Senders, DNS: a.DNS, Muted: a.Muted, Track: a.Track,
		Limits: limitTexts(a.Limits), Daily: a.Growth.Daily, LogDays: a.Keep.Log, ContentDays: a.Keep.Content, Created: a.Created, Closed: moment(a.Closed), Version: a.Version}
	if out.Status == "" {
		out.Status = relay.Active
	}
	if !a.Parent.IsZero() {
		out.Parent = a.Parent.String()
	}
	return out
}

func oneAccount(a *relay.Account, err error) (*body[Account], error) {
	if err != nil {
		return nil, err
	}
	return answer(newAccount(a), nil)
}

func (s *Server) listAccounts(ctx context.Context, p *Page) (*body[List[Account]], error) {
	by := CallerOf(ctx).Caller
	return listOf(ctx, *p, func(ctx context.Context, _, after relay.ID, limit int) ([]*relay.Account, error) {
		return s.config.Accounts.List(ctx, by, after, limit)
	}, newAccount, func(a *relay.Account) relay.ID { return a.ID })
}

// NewAccount is what POST /v1/accounts takes.
type NewAccount struct {
	Name    string             `json:"name" maxLength:"128"`
	Title   string             `json:"title,omitempty" maxLength:"128" doc:"As recipients see it where they unsubscribe"`
	Plan    string             `json:"plan,omitempty"`
	Status  relay.Status       `json:"status,omitempty" enum:"active,sandbox,blocked"`
	Reason  string             `json:"reason,omitempty"`
	Senders relay.SenderRule   `json:"senders,omitempty" enum:"verified,any"`
	DNS     relay.DNSRule      `json:"dns,omitempty" enum:"warn,refuse"`
	Muted   relay.SuppressRule `json:"suppressed,omitempty" enum:"drop,refuse"`
	Track   relay.Track        `json:"track,omitempty"`
	Limits  []string           `json:"limits,omitempty"`
}

func (s *Server) addAccount(ctx context.Context, in *body[NewAccount]) (*body[Account], error) {
	n := &in.Body
	a := relay.Account{Name: n.Name, Title: n.Title, Plan: n.Plan, Status: n.Status, Reason: n.Reason, Senders: n.Senders, DNS: n.DNS, Muted: n.Muted, Track: n.Track}
	if len(n.Limits) > 0 {
		var err error
		if a.Limits, err = limits(n.Limits); err != nil {
			return nil, err
		}
	}
	return oneAccount(s.config.Accounts.Add(ctx, CallerOf(ctx).Caller, a))
}

// OneAccount names one.
type OneAccount struct {
	Which string `path:"which" maxLength:"200" doc:"Id or name"`
}

// account finds the account that is meant.
func (s *Server) account(ctx context.Context, which string) (*relay.Account, error) {
	by := CallerOf(ctx).Caller
	id, err := s.config.Tenants.Find(ctx, by.Account, which)
	if err != nil {
		return nil, at("path.which", err)
	}
	return s.config.Accounts.Get(ctx, by, id)
}

func (s *Server) getAccount(ctx context.Context, q *OneAccount) (*body[Account], error) {
	return oneAccount(s.account(ctx, q.Which))
}

// AccountChange is what PATCH /v1/accounts takes. What is left out stays.
type AccountChange struct {
	Name        *string             `json:"name,omitempty" maxLength:"128"`
	Title       *string             `json:"title,omitempty" maxLength:"128" doc:"As recipients see it where they unsubscribe; empty: they see the domain that mail is from"`
	Plan        *string             `json:"plan,omitempty" doc:"Empty: none"`
	Status      *relay.Status       `json:"status,omitempty" enum:"active,sandbox,blocked"`
	Reason      *string             `json:"reason,omitempty" doc:"Of the status; who is refused is told it"`
	Senders     *relay.SenderRule   `json:"senders,omitempty" enum:"verified,any"`
	DNS         *relay.DNSRule      `json:"dns,omitempty" enum:"warn,refuse"`
	Muted       *relay.SuppressRule `json:"suppressed,omitempty" enum:"drop,refuse"`
	Track       *relay.Track        `json:"track,omitempty"`
	Limits      *[]string           `json:"limits,omitempty"`
	Daily       *int64              `json:"daily,omitempty" minimum:"0" doc:"Recipients a day of a new account; 0: it is grown up"`
	LogDays     *int                `json:"log_days,omitempty" minimum:"-1" doc:"For how many days messages, deliveries and events are kept; 0: as the plan says, -1: for ever"`
	ContentDays *int                `json:"content_days,omitempty" minimum:"-1" doc:"For how many days archived content is kept; 0 and -1 as above"`
	Closed      *bool               `json:"closed,omitempty" doc:"false opens it again"`
	Version     *int64              `json:"version,omitempty" doc:"The one that you have seen"`
}

func (s *Server) changeAccount(ctx context.Context, in *struct {
	OneAccount
	Body AccountChange
}) (*body[Account], error) {
	was, err := s.account(ctx, in.Which)
	if err != nil {
		return nil, err
	}
	a, n := *was, &in.Body
	set(&a.Name, n.Name)
	set(&a.Title, n.Title)
	set(&a.Plan, n.Plan)
	set(&a.Status, n.Status)
	set(&a.Reason, n.Reason)
	set(&a.Senders, n.Senders)
	set(&a.DNS, n.DNS)
	set(&a.Muted, n.Muted)
	set(&a.Track, n.Track)
	set(&a.Version, n.Version)
	set(&a.Keep.Log, n.LogDays)
	set(&a.Keep.Content, n.ContentDays)
	if n.Limits != nil {
		if a.Limits, err = limits(*n.Limits); err != nil {
			return nil, err
		}
	}
	if n.Daily != nil {
		a.Growth = relay.Growth{Daily: *n.Daily, Since: time.Now().UTC().Truncate(time.Microsecond)}
		if *n.Daily == 0 {
			a.Growth = relay.Growth{}
		}
	}
	if n.Closed != nil && *n.Closed == a.Closed.IsZero() {
		a.Closed = time.Time{}
		if *n.Closed {
			a.Closed = time.Now().UTC().Truncate(time.Microsecond)
		}
	}
	if err := s.config.Accounts.Set(ctx, CallerOf(ctx).Caller, &a); err != nil {
		return nil, err
	}
	return oneAccount(s.account(ctx, was.ID.String()))
}

func (s *Server) closeAccount(ctx context.Context, q *OneAccount) (*body[Account], error) {
	a, err := s.account(ctx, q.Which)
	if err != nil {
		return nil, err
	}
	return oneAccount(s.config.Accounts.Close(ctx, CallerOf(ctx).Caller, a.ID))
}

// Plan is a set of limits with a name.
type Plan struct {
	Name        string   `json:"name"`
	Limits      []string `json:"limits,omitempty"`
	Start       int64    `json:"start,omitempty" doc:"Recipients a day that a new account begins with, and that doubles with each good day; 0: at once all"`
	LogDays     int      `json:"log_days,omitempty" doc:"For how many days messages, deliveries and events are kept; 0: as the configuration says, -1: for ever"`
	ContentDays int      `json:"content_days,omitempty" doc:"For how many days archived content is kept; 0 and -1 as above"`
	Version     int64    `json:"version"`
}

func newPlan(p *relay.Plan) Plan {
	return Plan{Name: p.Name, Limits: limitTexts(p.Limits), Start: p.Start, LogDays: p.Keep.Log, ContentDays: p.Keep.Content, Version: p.Version}
}

func (s *Server) listPlans(ctx context.Context, p *Page) (*body[List[Plan]], error) {
	all, err := s.config.Accounts.Plans(ctx, CallerOf(ctx).Caller)
	if err != nil {
		return nil, err
	}
	return pageOf(all, *p, func(p *relay.Plan) string { return p.Name }, newPlan)
}

// OnePlan names one.
type OnePlan struct {
	Name string `path:"name" maxLength:"128"`
}

// NewPlan is what PUT /v1/plans takes: all of the plan.
type NewPlan struct {
	Limits      []string `json:"limits,omitempty"`
	Start       int64    `json:"start,omitempty" minimum:"0" doc:"Recipients a day that a new account begins with; 0: at once all"`
	LogDays     int      `json:"log_days,omitempty" doc:"For how many days messages, deliveries and events are kept; 0: as the configuration says, -1: for ever"`
	ContentDays int      `json:"content_days,omitempty" doc:"For how many days archived content is kept; 0 and -1 as above"`
	Version     *int64   `json:"version,omitempty" doc:"The one that you have seen; 0: only if there is none"`
}

func (s *Server) setPlan(ctx context.Context, in *struct {
	OnePlan
	Body NewPlan
}) (*body[Plan], error) {
	by := CallerOf(ctx).Caller
	p := relay.Plan{Name: in.Name, Start: in.Body.Start, Keep: relay.Keep{Log: in.Body.LogDays, Content: in.Body.ContentDays}}
	all, err := s.config.Accounts.Plans(ctx, by)
	if err != nil {
		return nil, err
	}
	for _, old := range all {
		if old.Name == in.Name {
			p.Version = old.Version
		}
	}
	set(&p.Version, in.Body.Version)
	if p.Limits, err = limits(in.Body.Limits); err != nil {
		return nil, err
	}
	if err := s.config.Accounts.SetPlan(ctx, by, &p); err != nil {
		return nil, err
	}
	return answer(newPlan(&p), nil)
}

func (s *Server) removePlan(ctx context.Context, q *OnePlan) (*struct{}, error) {
	return nil, s.config.Accounts.RemovePlan(ctx, CallerOf(ctx).Caller, q.Name)
}

func exampleAccountValue() object {
	return object{"id": ExampleAccount, "name": "shop", "status": "active", "plan": "small", "senders": "verified", "limits": []any{"5000 recipients/day"}, "created": ExampleTime, "version": 2}
}

func examplePlanValue() object {
	return object{"name": "small", "limits": []any{"10000 recipients/month"}, "start": 200, "version": 1}
}
