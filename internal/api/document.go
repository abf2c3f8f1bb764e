package api

import (
	"bytes"
	"cmp"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
)

//go:embed page
var pages embed.FS

// documentRoutes serves the description of the API: as OpenAPI 3.1 and as a page
// for people. They are written when they are first asked for: by then all routes
// are there.
func (s *Server) documentRoutes() {
	o := s.huma.OpenAPI()
	o.Info.Description = "Hand in mail, see what became of it, and manage who may send what."
	if s.config.URL != "" {
		o.Servers = []*huma.Server{{URL: s.config.URL}}
	}
	o.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"key":   {Type: "http", Scheme: "bearer", Description: "An API key."},
		"basic": {Type: "http", Scheme: "basic", Description: "An API key as the password, with any user name."},
	}
	o.Tags = chapters()
	s.page("/openapi.json", "application/openapi+json", func() ([]byte, error) {
		delete(o.Components.Schemas.Map(), "ErrorModel") // the framework's, which finish replaces
		delete(o.Components.Schemas.Map(), "ErrorDetail")
		return json.Marshal(o)
	})
	s.page("/docs", "text/html; charset=utf-8", s.docs)
	s.page("/docs/style.css", "text/css; charset=utf-8", func() ([]byte, error) { return pages.ReadFile("page/style.css") })
}

// chapters are the parts of the documentation, in their order.
func chapters() (tags []*huma.Tag) {
	for _, name := range []string{"Messages", "Domains", "Credentials", "Suppressions", "Unsubscribe groups", "Tracking", "Reports", "Webhooks", "Alerts", "Accounts", "Server"} {
		tags = append(tags, &huma.Tag{Name: name})
	}
	return tags
}

// page serves something that is made once. It loads nothing from elsewhere.
func (s *Server) page(path, kind string, write func() ([]byte, error)) {
	content := sync.OnceValues(write)
	s.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		b, err := content()
		if err != nil {
			s.writeProblem(w, r, problem(err).(*Problem))
			return
		}
		h := w.Header()
		h.Set("Content-Type", kind)
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		_, _ = w.Write(b) // who has gone needs none
	})
}

// Of the page for people.
type (
	docPage struct {
		Title, Version, Intro string
		Statuses              []docStatus
		Chapters              []docChapter
	}
	docStatus struct {
		Code int
		Text string
	}
	docChapter struct {
		Name       string
		Operations []docOperation
	}
	docOperation struct {
		ID, Method, Path, Summary, Doc, Right, MaxBody, Curl, Status, Answer string
		Params                                                               []docField
		Fields, AnswerFields                                                 []docField
	}
	docField struct {
		Name, In, Type, Doc string
		Required            bool
	}
)

func (s *Server) docs() ([]byte, error) {
	t, err := template.ParseFS(pages, "page/docs.html")
	if err != nil {
		return nil, fmt.Errorf("read page: %w", err)
	}
	o := s.huma.OpenAPI()
	p := docPage{Title: o.Info.Title, Version: o.Info.Version, Intro: o.Info.Description, Statuses: []docStatus{
		{400, "The body can't be read."}, {401, "No key, or not a valid one."}, {403, "The key may not do this, or the mail may not be sent."},
		{404, "There is no such thing, or it is somebody else's."}, {409, "The thing is not in a state for this, or somebody else has changed it."},
		{413, "The body or the message is too large."}, {415, "The content type is not taken."}, {422, "A field is not right."},
		{429, "A limit is used up."}, {500, "Something went wrong in the server."}, {503, "The server has too much to do, or its store does not answer."}, {507, "The server has no room."}}}
	for _, tag := range o.Tags {
		c := docChapter{Name: tag.Name}
		for _, path := range slices.Sorted(maps.Keys(o.Paths)) {
			for _, m := range methods {
				if op := s.operation(m, path); op != nil && op.Tags[0] == tag.Name {
					c.Operations = append(c.Operations, s.describe(m, path, op))
				}
			}
		}
		if len(c.Operations) > 0 {
			p.Chapters = append(p.Chapters, c)
		}
	}
	var b bytes.Buffer
	if err := t.Execute(&b, p); err != nil {
		return nil, fmt.Errorf("write page: %w", err)
	}
	return b.Bytes(), nil
}

func (s *Server) describe(method, path string, op *huma.Operation) docOperation {
	d := docOperation{ID: op.OperationID, Method: method, Path: path, Summary: op.Summary, Doc: op.Description, Right: Anybody.String()}
	if r, ok := op.Extensions["x-right"].(string); ok {
		d.Right = r
	}
	for _, p := range op.Parameters {
		d.Params = append(d.Params, docField{Name: p.Name, In: p.In, Type: s.typeText(p.Schema), Doc: cmp.Or(p.Description, p.Schema.Description), Required: p.Required})
	}
	if op.RequestBody != nil {
		d.MaxBody = bytesText(op.MaxBodyBytes)
		d.Fields = s.fields("", op.RequestBody.Content["application/json"].Schema, 0)
	}
	d.Curl = curl(cmp.Or(s.config.URL, "https://relay.example.com:8025"), method, path, op)
	for status, resp := range op.Responses {
		if status == "default" {
			continue
		}
		d.Status = status
		m := resp.Content["application/json"]
		if m == nil {
			m = resp.Content[eventStream]
		}
		if m != nil {
			d.AnswerFields = s.fields("", m.Schema, 0)
			if b, err := json.MarshalIndent(m.Example, "", "  "); err == nil && m.Example != nil {
				d.Answer = string(b)
			}
		}
	}
	return d
}

// fields lists the fields of an object, those of objects within it too.
func (s *Server) fields(prefix string, schema *huma.Schema, depth int) (out []docField) {
	schema = s.resolve(schema)
	if schema == nil || depth > 3 {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
		p := schema.Properties[name]
		out = append(out, docField{Name: prefix + name, Type: s.typeText(p), Doc: cmp.Or(p.Description, s.resolve(p).Description), Required: slices.Contains(schema.Required, name)})
		inner, mark := s.resolve(p), "."
		if inner.Items != nil {
			inner, mark = s.resolve(inner.Items), "[]."
		}
		out = append(out, s.fields(prefix+name+mark, inner, depth+1)...)
	}
	return out
}

// resolve follows a reference.
func (s *Server) resolve(schema *huma.Schema) *huma.Schema {
	if schema != nil && schema.Ref != "" {
		return s.huma.OpenAPI().Components.Schemas.SchemaFromRef(schema.Ref)
	}
	return schema
}

func (s *Server) typeText(schema *huma.Schema) string {
	schema = s.resolve(schema)
	switch {
	case schema == nil:
		return ""
	case len(schema.OneOf) > 0:
		var all []string
		for _, o := range schema.OneOf {
			all = append(all, s.typeText(o))
		}
		return strings.Join(all, " or ")
	case len(schema.Enum) > 0:
		var all []string
		for _, e := range schema.Enum {
			all = append(all, fmt.Sprint(e))
		}
		return strings.Join(all, " | ")
	case schema.Type == huma.TypeArray:
		return "list of " + s.typeText(schema.Items)
	case schema.ContentEncoding != "":
		return schema.ContentEncoding
	case schema.Format == "date-time":
		return "time (RFC 3339)"
	default:
		return cmp.Or(schema.Type, "anything")
	}
}

// curl is the example as a command.
func curl(base, method, path string, op *huma.Operation) string {
	q := url.Values{}
	var b strings.Builder
	b.WriteString("curl ")
	if method != http.MethodGet {
		fmt.Fprintf(&b, "-X %s ", method)
	}
	headers := ""
	for _, p := range op.Parameters {
		if p.Example == nil {
			continue
		}
		v := fmt.Sprint(p.Example)
		switch p.In {
		case "path":
			path = strings.Replace(path, "{"+p.Name+"}", url.PathEscape(v), 1)
		case "query":
			q.Set(p.Name, v)
		case "header":
			headers += fmt.Sprintf(" \\\n  -H '%s: %s'", p.Name, v)
		}
	}
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	fmt.Fprintf(&b, "'%s%s' \\\n  -H \"Authorization: Bearer $POSTRIDER_TOKEN\"%s", base, path, headers)
	if op.RequestBody != nil {
		if m := op.RequestBody.Content["application/json"]; m.Example != nil {
			if text, err := json.MarshalIndent(m.Example, "  ", "  "); err == nil {
				fmt.Fprintf(&b, " \\\n  -H 'Content-Type: application/json' -d '%s'", text)
			}
		}
	}
	return b.String()
}

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }
