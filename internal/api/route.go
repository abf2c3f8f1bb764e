package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"postrider/internal/relay"
)

// Route declares an operation beside its handler.
type Route struct {
	Method, Path string
	ID           string // of the operation: "add-domain"
	Tag          string // chapter of the documentation
	Summary      string // one line
	Doc          string // the rest, Markdown-free paragraphs
	Right        Right
	// OfAccount says that ?account= chooses whose things are meant.
	OfAccount bool
	Status    int           // of success; 0: 200, or 204 where nothing is answered
	MaxBody   int64         // bytes; 0: 1 MiB
	BodyTime  time.Duration // longest time for the body; 0: 30 seconds
	// Streams describes the data of a stream of Server-Sent Events; nil: the answer
	// is no stream.
	Streams func(huma.Registry) *huma.Schema
	Example Example
}

// Example is a request that works, and its answer. Names in it are those that
// the examples of other operations make.
type Example struct {
	Params map[string]any // by name: in the path, the query or the header
	Body   any            // nil: none
	Answer any            // nil: none
}

const maxBody = 1 << 20

// Register adds an operation. Whoever has no right to it is told so before the
// body is read; handler is called with a context that CallerOf knows.
func Register[I, O any](s *Server, r Route, handler func(context.Context, *I) (*O, error)) {
	op := huma.Operation{Method: r.Method, Path: r.Path, OperationID: r.ID, Tags: []string{r.Tag}, Summary: r.Summary, Description: r.Doc,
		DefaultStatus: r.Status, MaxBodyBytes: r.MaxBody, BodyReadTimeout: r.BodyTime,
		Responses: map[string]*huma.Response{"default": {Description: "An error, in the form of RFC 9457",
			Content: map[string]*huma.MediaType{"application/problem+json": {Schema: s.problemSchema}}}}}
	if op.MaxBodyBytes == 0 {
		op.MaxBodyBytes = maxBody
	}
	if op.BodyReadTimeout == 0 {
		op.BodyReadTimeout = 30 * time.Second
	}
	if r.Right != Anybody {
		op.Security = []map[string][]string{{"key": {}}, {"basic": {}}}
		op.Extensions = map[string]any{"x-right": r.Right.String()}
	}
	if r.OfAccount {
		op.Parameters = append(op.Parameters, &huma.Param{Name: "account", In: "query", Schema: &huma.Schema{Type: huma.TypeString},
			Description: "Id or name of the account that is meant, for operators and for accounts with sub-accounts"})
	}
	if r.Streams != nil {
		op.Responses["200"] = &huma.Response{Description: "A stream of Server-Sent Events", Content: map[string]*huma.MediaType{eventStream: {Schema: streamSchema(r.Streams(s.huma.OpenAPI().Components.Schemas))}}}
	}
	declared := &op
	op.Middlewares = huma.Middlewares{func(ctx huma.Context, next func(huma.Context)) {
		req, w := humago.Unwrap(ctx)
		err := s.identify(req, exchangeOf(req.Context()), r.Right)
		if err == nil {
			err = unknownQuery(req, ctx.Operation())
		}
		if err != nil {
			s.writeProblem(w, req, problem(err).(*Problem))
			return
		}
		if req.URL.Query().Get("format") == "csv" {
			req.Header.Set("Accept", "text/csv") // for who can't set it
		}
		size := bodySize(req, ctx.Operation().MaxBodyBytes)
		if !s.bodies.take(size) {
			s.writeProblem(w, req, problem(tooManyBodies()).(*Problem))
			return
		}
		defer s.bodies.give(size)
		next(ctx)
	}}
	huma.Register(s.huma, *declared, func(ctx context.Context, in *I) (*O, error) {
		out, err := handler(ctx, in)
		if err != nil {
			return nil, problem(err)
		}
		return out, nil
	})
	s.illustrate(r)
}

// unknownQuery refuses parameters that do not exist: one that is misspelt must
// not widen what is asked for.
func unknownQuery(req *http.Request, op *huma.Operation) error {
	var known []string
	for _, p := range op.Parameters {
		if p.In == "query" {
			known = append(known, p.Name)
		}
	}
	for name, values := range req.URL.Query() {
		if !slices.Contains(known, name) {
			advice := "This operation takes none."
			if len(known) > 0 {
				advice = "Known are: " + strings.Join(known, ", ") + "."
			}
			return invalid("query."+name, fmt.Sprintf("There is no parameter %q here.", name), advice)
		}
		if len(values) > 1 {
			return invalid("query."+name, fmt.Sprintf("The parameter %q is there %d times.", name, len(values)), "Separate several values by commas.")
		}
	}
	return nil
}

// illustrate puts an operation's example into the document.
func (s *Server) illustrate(r Route) {
	op := s.operation(r.Method, r.Path)
	for _, p := range op.Parameters {
		if v, ok := r.Example.Params[p.Name]; ok {
			p.Example = v
		}
	}
	if op.RequestBody != nil && r.Example.Body != nil {
		op.RequestBody.Content["application/json"].Example = r.Example.Body
	}
	if r.Example.Answer == nil {
		return
	}
	for status, resp := range op.Responses {
		for _, m := range resp.Content {
			if status != "default" {
				m.Example = r.Example.Answer
			}
		}
	}
}

// operation finds what was declared.
func (s *Server) operation(method, path string) *huma.Operation {
	item := s.huma.OpenAPI().Paths[path]
	return map[string]*huma.Operation{http.MethodGet: item.Get, http.MethodPost: item.Post, http.MethodPut: item.Put,
		http.MethodPatch: item.Patch, http.MethodDelete: item.Delete}[method]
}

// body is an answer.
type body[T any] struct{ Body T }

func answer[T any](v T, err error) (*body[T], error) {
	if err != nil {
		return nil, err
	}
	return &body[T]{v}, nil
}

// parseID reads an id at a place in the request. What is no id names nothing.
func parseID(location, s, what string) (relay.ID, error) {
	id, err := relay.ParseID(s)
	if err != nil {
		return id, at(location, &relay.Error{Code: relay.NotFound, Text: fmt.Sprintf("There is no %s %q.", what, cut(s)), Err: err})
	}
	return id, nil
}

// cut keeps what somebody wrote short enough to be repeated.
func cut(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
