package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"postrider/internal/relay"
)

func (s *Server) untrackedRoutes() {
	Register(s, Route{Method: http.MethodGet, Path: "/v1/untracked", ID: "list-untracked", Tag: "Tracking", Right: Read, OfAccount: true,
		Summary: "Addresses whose opens and clicks are not tracked",
		Example: Example{Params: object{"text": "example.net"}, Answer: object{"data": []any{exampleUntracked()}}},
	}, s.listUntracked)
	Register(s, Route{Method: http.MethodPost, Path: "/v1/untracked", ID: "add-untracked", Tag: "Tracking", Right: Build, OfAccount: true,
		Summary: "Track nothing of an address", Doc: "Mail to it has no pixel and its own links, whatever else is said. @example.com is a whole domain, @.example.com all names below it. Mail that was sent before has its links already.",
		Example: Example{Body: object{"address": "private@example.net", "note": "asked for it"}, Answer: object{"added": true}},
	}, s.addUntracked)
	Register(s, Route{Method: http.MethodDelete, Path: "/v1/untracked/{address}", ID: "remove-untracked", Tag: "Tracking", Right: Build, OfAccount: true,
		Summary: "Track an address again",
		Example: Example{Params: object{"address": "private@example.net"}},
	}, s.removeUntracked)
}

// Untracked is an address, or a domain, of which an account tracks nothing.
type Untracked struct {
	Account string    `json:"account"`
	Address string    `json:"address"`
	Note    string    `json:"note,omitempty"`
	Created time.Time `json:"created"`
}

func newUntracked(u *relay.Untracked) Untracked {
	return Untracked{Account: u.Account.String(), Address: u.Address, Note: u.Note, Created: u.Created}
}

type untrackedQuery struct {
	Text   string `query:"text" maxLength:"400" doc:"Part of the address"`
	Limit  int    `query:"limit" default:"100" minimum:"1" maximum:"1000" doc:"Most entries to answer with"`
	Cursor string `query:"cursor" maxLength:"500" doc:"Where the page before ended: its next"`
}

func (s *Server) listUntracked(ctx context.Context, q *untrackedQuery) (*body[List[Untracked]], error) {
	var after relay.Untracked
	if q.Cursor != "" {
		account, address, _ := strings.Cut(q.Cursor, " ")
		id, err := relay.ParseID(account)
		if err != nil {
			return nil, invalid("query.cursor", "This is no cursor of untracked addresses.", "Give the next of the page before.")
		}
		after = relay.Untracked{Account: id, Address: address}
	}
	found, err := s.config.Untracked.List(ctx, CallerOf(ctx).Caller, q.Text, after, q.Limit)
	out := List[Untracked]{Data: make([]Untracked, 0, len(found))}
	for _, u := range found {
		out.Data = append(out.Data, newUntracked(u))
	}
	if len(found) == q.Limit {
		last := found[len(found)-1] // several accounts may have the same address
		out.Next = last.Account.String() + " " + last.Address
	}
	return answer(out, err)
}

// NewUntracked is what POST /v1/untracked takes.
type NewUntracked struct {
	Address string `json:"address" maxLength:"400" doc:"user@example.com, @example.com for a whole domain, or @.example.com for all names below it"`
	Note    string `json:"note,omitempty" maxLength:"1000"`
}

// AddedUntracked is the answer.
type AddedUntracked struct {
	Added bool `json:"added" doc:"Whether it is new"`
}

func (s *Server) addUntracked(ctx context.Context, in *body[NewUntracked]) (*body[AddedUntracked], error) {
	added, err := s.config.Untracked.Add(ctx, CallerOf(ctx).within(), in.Body.Address, in.Body.Note)
	return answer(AddedUntracked{added}, err)
}

func (s *Server) removeUntracked(ctx context.Context, q *struct {
	Address string `path:"address" maxLength:"400"`
}) (*struct{}, error) {
	return nil, s.config.Untracked.Remove(ctx, CallerOf(ctx).within(), q.Address)
}

func exampleUntracked() object {
	return object{"account": ExampleAccount, "address": "private@example.net", "note": "asked for it", "created": ExampleTime}
}
