package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"postrider/internal/relay"
)

func (s *Server) groupRoutes() {
	const tag = "Unsubscribe groups"
	named := map[string]any{"group": "newsletter"}
	Register(s, Route{Method: http.MethodGet, Path: "/v1/unsubscribe-groups", ID: "list-groups", Tag: tag, Right: Read, OfAccount: true,
		Summary: "Kinds of mail that recipients can leave",
		Example: Example{Answer: object{"data": []any{exampleGroup()}}},
	}, s.listGroups)
	Register(s, Route{Method: http.MethodPost, Path: "/v1/unsubscribe-groups", ID: "add-group", Tag: tag, Right: Build, OfAccount: true, Status: http.StatusCreated,
		Summary: "Make a group", Doc: "Messages name it by its id, which stays. Broadcast mail that names no group is of the account's default one.",
		Example: Example{Body: object{"id": "offers", "name": "Offers", "description": "What is cheap this week", "public": true}, Answer: exampleGroup()},
	}, s.addGroup)
	Register(s, Route{Method: http.MethodGet, Path: "/v1/unsubscribe-groups/{group}", ID: "get-group", Tag: tag, Right: Read, OfAccount: true,
		Summary: "One group",
		Example: Example{Params: named, Answer: exampleGroup()},
	}, s.getGroup)
	Register(s, Route{Method: http.MethodPatch, Path: "/v1/unsubscribe-groups/{group}", ID: "change-group", Tag: tag, Right: Build, OfAccount: true,
		Summary: "Change a group", Doc: "Fields that are left out stay. With a version, the change is refused where somebody else was faster.",
		Example: Example{Params: named, Body: object{"name": "Weekly news", "position": 2}, Answer: exampleGroup()},
	}, s.changeGroup)
	Register(s, Route{Method: http.MethodDelete, Path: "/v1/unsubscribe-groups/{group}", ID: "remove-group", Tag: tag, Right: Build, OfAccount: true,
		Summary: "Remove a group", Doc: "Refused where somebody has left it, unless forget says that they may get such mail again.",
		Example: Example{Params: map[string]any{"group": "newsletter", "forget": true}},
	}, s.removeGroup)
	Register(s, Route{Method: http.MethodGet, Path: "/v1/unsubscribe-groups/{group}/members", ID: "list-group-members", Tag: tag, Right: Read, OfAccount: true,
		Summary: "Who has left a group",
		Example: Example{Params: named, Answer: object{"data": []any{exampleLeaver()}}},
	}, s.listLeavers)
	Register(s, Route{Method: http.MethodPost, Path: "/v1/unsubscribe-groups/{group}/members", ID: "add-group-members", Tag: tag, Right: Build, OfAccount: true, MaxBody: 4 << 20,
		Summary: "Take addresses out of a group", Doc: "Up to 10000 at once: they get no mail of the group any more. Addresses that have left it already stay as they are.",
		Example: Example{Params: named, Body: object{"data": []any{object{"address": "ben@example.net", "note": "asked by phone"}}}, Answer: object{"added": 1}},
	}, s.addLeavers)
	Register(s, Route{Method: http.MethodGet, Path: "/v1/unsubscribe-groups/{group}/members/{address}", ID: "get-group-member", Tag: tag, Right: Read, OfAccount: true,
		Summary: "Whether an address has left a group",
		Example: Example{Params: map[string]any{"group": "newsletter", "address": "gone@example.net"}, Answer: exampleLeaver()},
	}, s.getLeaver)
	Register(s, Route{Method: http.MethodDelete, Path: "/v1/unsubscribe-groups/{group}/members/{address}", ID: "remove-group-member", Tag: tag, Right: Build, OfAccount: true,
		Summary: "Send mail of a group to an address again", Doc: "Only where its owner asked for that.",
		Example: Example{Params: map[string]any{"group": "newsletter", "address": "gone@example.net"}},
	}, s.removeLeaver)
}

// Group is a kind of mail that recipients can leave.
type Group struct {
	ID          string    `json:"id"`
	Account     string    `json:"account"`
	Name        string    `json:"name" doc:"As recipients see it"`
	Description string    `json:"description,omitempty"`
	Public      bool      `json:"public" doc:"On the preference page of every recipient; else only of those who had mail of it"`
	Default     bool      `json:"default" doc:"Broadcast mail that names no group is of this one"`
	Position    int       `json:"position" doc:"On the preference page"`
	Created     time.Time `json:"created"`
	Version     int64     `json:"version"`
}

func newGroup(g *relay.Group) Group {
	return Group{ID: g.ID, Account: g.Account.String(), Name: g.Name, Description: g.Description, Public: g.Public, Default: g.Default, Position: g.Position,
		Created: g.Created, Version: g.Version}
}

func (s *Server) listGroups(ctx context.Context, p *Page) (*body[List[Group]], error) {
	found, err := s.config.Groups.List(ctx, CallerOf(ctx).within(), p.Cursor, p.Limit)
	out := List[Group]{Data: make([]Group, 0, len(found))}
	for _, g := range found {
		out.Data = append(out.Data, newGroup(g))
	}
	if len(found) == p.Limit {
		out.Next = found[len(found)-1].ID
	}
	return answer(out, err)
}

// NewGroup is what POST /v1/unsubscribe-groups takes.
type NewGroup struct {
	ID          string `json:"id,omitempty" maxLength:"64" doc:"Small letters, digits, - and _; left out: made of the name"`
	Name        string `json:"name" maxLength:"128"`
	Description string `json:"description,omitempty" maxLength:"500"`
	Public      *bool  `json:"public,omitempty" doc:"True unless said otherwise"`
	Default     bool   `json:"default,omitempty"`
	Position    int    `json:"position,omitempty"`
}

func (s *Server) addGroup(ctx context.Context, in *body[NewGroup]) (*body[Group], error) {
	n := &in.Body
	g, err := s.config.Groups.Add(ctx, CallerOf(ctx).within(), relay.Group{ID: n.ID, Name: n.Name, Description: n.Description,
		Public: n.Public == nil || *n.Public, Default: n.Default, Position: n.Position})
	if err != nil {
		return nil, err
	}
	return answer(newGroup(g), nil)
}

// GroupPath names one.
type GroupPath struct {
	Group string `path:"group" maxLength:"64"`
}

func (s *Server) group(ctx context.Context, p GroupPath) (*relay.Group, error) {
	g, err := s.config.Groups.Get(ctx, CallerOf(ctx).within(), p.Group)
	if err != nil {
		return nil, at("path.group", err)
	}
	return g, nil
}

func (s *Server) getGroup(ctx context.Context, q *GroupPath) (*body[Group], error) {
	g, err := s.group(ctx, *q)
	if err != nil {
		return nil, err
	}
	return answer(newGroup(g), nil)
}

// GroupChange is what PATCH /v1/unsubscribe-groups/{group} takes.
type GroupChange struct {
	Name        *string `json:"name,omitempty" maxLength:"128"`
	Description *string `json:"description,omitempty" maxLength:"500"`
	Public      *bool   `json:"public,omitempty"`
	Default     *bool   `json:"default,omitempty"`
	Position    *int    `json:"position,omitempty"`
	Version     int64   `json:"version,omitempty" doc:"That you have seen"`
}

func (s *Server) changeGroup(ctx context.Context, in *struct {
	GroupPath
	Body GroupChange
}) (*body[Group], error) {
	was, err := s.group(ctx, in.GroupPath)
	if err != nil {
		return nil, err
	}
	g, c := *was, &in.Body
	set(&g.Name, c.Name)
	set(&g.Description, c.Description)
	set(&g.Public, c.Public)
	set(&g.Default, c.Default)
	set(&g.Position, c.Position)
	if c.Version != 0 {
		g.Version = c.Version
	}
	changed, err := s.config.Groups.Change(ctx, CallerOf(ctx).within(), g)
	if err != nil {
		return nil, err
	}
	return answer(newGroup(changed), nil)
}

func (s *Server) removeGroup(ctx context.Context, q *struct {
	GroupPath
	Forget bool `query:"forget" doc:"Whoever has left it may get mail of this kind again"`
}) (*struct{}, error) {
	err := s.config.Groups.Remove(ctx, CallerOf(ctx).within(), q.Group, q.Forget)
	if relay.CodeOf(err) == relay.NotFound {
		err = at("path.group", err)
	}
	return nil, err
}

// Leaver is an address that has left a group.
type Leaver struct {
	Group   string    `json:"group"`
	Address string    `json:"address"`
	Note    string    `json:"note,omitempty"`
	Event   string    `json:"event,omitempty" doc:"Id of the event that is the proof; none: somebody put it there"`
	Created time.Time `json:"created"`
}

func newLeaver(l *relay.Leaver) Leaver {
	out := Leaver{Group: l.Group, Address: l.Address, Note: l.Note, Created: l.Created}
	if !l.Event.IsZero() {
		out.Event = l.Event.String()
	}
	return out
}

func (s *Server) listLeavers(ctx context.Context, q *struct {
	GroupPath
	Text string `query:"text" maxLength:"400" doc:"Part of the address"`
	Page
}) (*body[List[Leaver]], error) {
	found, err := s.config.Groups.Leavers(ctx, CallerOf(ctx).within(), q.Group, relay.LeaverFilter{Text: q.Text, After: q.Cursor, Limit: q.Limit})
	if err != nil {
		return nil, at("path.group", err)
	}
	out := List[Leaver]{Data: make([]Leaver, 0, len(found))}
	for _, l := range found {
		out.Data = append(out.Data, newLeaver(l))
	}
	if len(found) == q.Limit {
		out.Next = found[len(found)-1].Address
	}
	return answer(out, nil)
}

// NewLeavers is what POST /v1/unsubscribe-groups/{group}/members takes.
type NewLeavers struct {
	Data []NewLeaver `json:"data" minItems:"1" maxItems:"10000" nullable:"false"`
}

// NewLeaver is one of them.
type NewLeaver struct {
	Address string `json:"address" maxLength:"400"`
	Note    string `json:"note,omitempty" maxLength:"1000"`
}

// AddedLeavers is the answer.
type AddedLeavers struct {
	Added int64 `json:"added" doc:"How many are new"`
}

func (s *Server) addLeavers(ctx context.Context, in *struct {
	GroupPath
	Body NewLeavers
}) (*body[AddedLeavers], error) {
	var list []relay.Leaver
	for _, n := range in.Body.Data {
		list = append(list, relay.Leaver{Address: n.Address, Note: n.Note})
	}
	n, err := s.config.Groups.Leave(ctx, CallerOf(ctx).within(), in.Group, list)
	return answer(AddedLeavers{n}, err)
}

// LeaverPath names an address of one.
type LeaverPath struct {
	GroupPath
	Address string `path:"address" maxLength:"400"`
}

func (s *Server) getLeaver(ctx context.Context, q *LeaverPath) (*body[Leaver], error) {
	l, err := s.config.Groups.Left(ctx, CallerOf(ctx).within(), q.Group, q.Address)
	if err == nil && l == nil {
		err = notLeft(q)
	}
	if err != nil {
		return nil, err
	}
	return answer(newLeaver(l), nil)
}

func (s *Server) removeLeaver(ctx context.Context, q *LeaverPath) (*struct{}, error) {
	n, err := s.config.Groups.Rejoin(ctx, CallerOf(ctx).within(), q.Group, []string{q.Address})
	if err == nil && n == 0 {
		err = notLeft(q)
	}
	return nil, err
}

func notLeft(q *LeaverPath) error {
	return at("path.address", &relay.Error{Code: relay.NotFound, Text: fmt.Sprintf("%s has not left the group %s.", cut(q.Address), cut(q.Group))})
}

func exampleGroup() object {
	return object{"id": "newsletter", "account": ExampleAccount, "name": "Newsletter", "description": "Once a week", "public": true, "default": true, "position": 1,
		"created": ExampleTime, "version": 1}
}

func exampleLeaver() object {
	return object{"group": "newsletter", "address": "gone@example.net", "event": ExampleEventID, "created": ExampleTime}
}
