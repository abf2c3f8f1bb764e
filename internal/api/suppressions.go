package api

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"postrider/internal/relay"
)

func (s *Server) suppressionRoutes() {
	Register(s, Route{Method: http.MethodGet, Path: "/v1/suppressions", ID: "list-suppressions", Tag: "Suppressions", Right: Read, OfAccount: true,
		Summary: "Addresses that the account does not send to",
		Example: Example{Params: object{"text": "example.net"}, Answer: object{"data": []any{exampleSuppression()}}},
	}, s.listSuppressions)
	Register(s, Route{Method: http.MethodPost, Path: "/v1/suppressions", ID: "add-suppressions", Tag: "Suppressions", Right: Build, OfAccount: true, MaxBody: 4 << 20,
		Summary: "Stop sending to addresses", Doc: "Up to 10000 at once; @example.com is a whole domain, @.example.com all names below it. Without a stream nothing is sent; with one, mail of the other stream still is. Addresses that are on the list already stay as they are, but what holds for a time gives way to what holds longer, and anything to a complaint.",
		Example: Example{Body: object{"data": []any{object{"address": "gone@example.net", "reason": "manual", "note": "asked by phone"}}}, Answer: object{"added": 1}},
	}, s.addSuppressions)
	Register(s, Route{Method: http.MethodDelete, Path: "/v1/suppressions/{address}", ID: "remove-suppression", Tag: "Suppressions", Right: Build, OfAccount: true,
		Summary: "Send to an address again", Doc: "Takes off the list what stands there for the address, or only what holds for one stream. A complaint is taken off only with confirm=complaint, else the answer is 409.",
		Example: Example{Params: object{"address": "gone@example.net"}},
	}, s.removeSuppression)
}

// Suppression is an address, or a domain, that an account does not send to.
type Suppression struct {
	Account string    `json:"account"`
	Address string    `json:"address"`
	Stream  string    `json:"stream,omitempty" enum:"transactional,broadcast" doc:"The only stream that it holds for; not there: it holds for all"`
	Reason  string    `json:"reason" enum:"manual,bounce,soft-bounce,complaint,unsubscribe"`
	Note    string    `json:"note,omitempty"`
	Event   string    `json:"event,omitempty" doc:"Id of the event that is the proof"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero" doc:"It holds until then; not there: for ever"`
}

func newSuppression(v *relay.Suppression) Suppression {
	out := Suppression{Account: v.Account.String(), Address: v.Address, Reason: v.Reason, Note: v.Note, Created: v.Created, Expires: v.Expires, Stream: streamName(v.Stream)}
	if !v.Event.IsZero() {
		out.Event = v.Event.String()
	}
	return out
}

// streamName is empty for all streams.
func streamName(s relay.Stream) string {
	if s == 0 {
		return ""
	}
	return s.String()
}

// streamOf reads it.
func streamOf(name, where string) (relay.Stream, error) {
	if name == "" {
		return 0, nil
	}
	s, err := relay.ParseStream(name)
	if err != nil {
		return 0, invalid(where, sentence(err), "Take transactional or broadcast, or none for both.")
	}
	return s, nil
}

type suppressionsQuery struct {
	Text   string `query:"text" maxLength:"400" doc:"Part of the address"`
	Reason string `query:"reason" enum:"manual,bounce,soft-bounce,complaint,unsubscribe"`
	Stream string `query:"stream" enum:"transactional,broadcast" doc:"Only those that hold for mail of this stream"`
	Limit  int    `query:"limit" default:"100" minimum:"1" maximum:"1000" doc:"Most entries to answer with"`
	Cursor string `query:"cursor" maxLength:"500" doc:"Where the page before ended: its next"`
}

// cursorOf names where a page of suppressions ended: address, account, stream. An
// address may have spaces, the others have none.
func cursorOf(s *relay.Suppression) string {
	return fmt.Sprintf("%s %s %d", s.Address, s.Account, s.Stream)
}

func suppressionCursor(cursor string) (key relay.SuppressionKey, err error) {
	if cursor == "" {
		return key, nil
	}
	bad := invalid("query.cursor", "This is no cursor of suppressions.", "Give the next of the page before.")
	words := strings.Split(cursor, " ")
	if len(words) < 3 {
		return key, bad
	}
	rest := len(words) - 2
	stream, err := strconv.ParseInt(words[rest+1], 10, 8)
	if err != nil {
		return key, bad
	}
	if key.Account, err = relay.ParseID(words[rest]); err != nil {
		return key, bad
	}
	key.Address, key.Stream = strings.Join(words[:rest], " "), relay.Stream(stream)
	return key, nil
}

func (s *Server) listSuppressions(ctx context.Context, q *suppressionsQuery) (*body[List[Suppression]], error) {
	f := relay.SuppressionFilter{Text: q.Text, Reason: q.Reason, Limit: q.Limit}
	var err error
	if f.Stream, err = streamOf(q.Stream, "query.stream"); err != nil {
		return nil, err
	}
	if f.After, err = suppressionCursor(q.Cursor); err != nil {
		return nil, err
	}
	found, err := s.config.Suppressions.List(ctx, CallerOf(ctx).Caller, f)
	out := List[Suppression]{Data: make([]Suppression, 0, len(found))}
	for _, v := range found {
		out.Data = append(out.Data, newSuppression(v))
	}
	if len(found) == q.Limit {
		out.Next = cursorOf(found[len(found)-1])
	}
	return answer(out, err)
}

// NewSuppressions is what POST /v1/suppressions takes.
type NewSuppressions struct {
	Data []NewSuppression `json:"data" minItems:"1" maxItems:"10000" nullable:"false"`
}

// NewSuppression is one of them.
type NewSuppression struct {
	Address string    `json:"address" maxLength:"400" doc:"user@example.com, @example.com for a whole domain, or @.example.com for all names below it"`
	Stream  string    `json:"stream,omitempty" enum:"transactional,broadcast" doc:"The only stream that it holds for; not there: all"`
	Reason  string    `json:"reason,omitempty" enum:"manual,bounce,soft-bounce,complaint,unsubscribe"`
	Note    string    `json:"note,omitempty" maxLength:"1000"`
	Created time.Time `json:"created,omitzero" doc:"Since when it holds, for what another list had before; not there: now"`
	Expires time.Time `json:"expires,omitzero" doc:"It holds until then; not there: for ever"`
}

// AddedSuppressions is the answer.
type AddedSuppressions struct {
	Added int64 `json:"added" doc:"How many are new"`
}

func (s *Server) addSuppressions(ctx context.Context, in *body[NewSuppressions]) (*body[AddedSuppressions], error) {
	var list []relay.Suppression
	for i, n := range in.Body.Data {
		stream, err := streamOf(n.Stream, fmt.Sprintf("body.data[%d].stream", i))
		if err != nil {
			return nil, err
		}
		list = append(list, relay.Suppression{Address: n.Address, Stream: stream, Reason: n.Reason, Note: n.Note, Created: n.Created, Expires: n.Expires})
	}
	n, err := s.config.Suppressions.Add(ctx, CallerOf(ctx).within(), list)
	return answer(AddedSuppressions{n}, err)
}

func (s *Server) removeSuppression(ctx context.Context, q *struct {
	Address string `path:"address" maxLength:"400"`
	Stream  string `query:"stream" enum:"transactional,broadcast" doc:"Only what was made for this stream alone"`
	Confirm string `query:"confirm" enum:"complaint" doc:"complaint: although its owner called mail of this account spam"`
}) (*struct{}, error) {
	stream, err := streamOf(q.Stream, "query.stream")
	if err != nil {
		return nil, err
	}
	n, err := s.config.Suppressions.Remove(ctx, CallerOf(ctx).within(), relay.Unsuppression{Addresses: []string{q.Address}, Stream: stream, Complaints: q.Confirm != ""})
	if err == nil && n == 0 {
		err = at("path.address", &relay.Error{Code: relay.NotFound, Text: fmt.Sprintf("%s is not on the list.", cut(q.Address)), Advice: "A whole domain is written as @example.com."})
	}
	return nil, err
}

func exampleSuppression() object {
	return object{"account": ExampleAccount, "address": "gone@example.net", "reason": "manual", "note": "asked by phone", "created": ExampleTime}
}
