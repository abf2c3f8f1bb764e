package api_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// The document says what the server does: each example request of it works, with
// the status that it names, and the answer is of the shape that it promises; so is
// the example answer.
func TestContract(t *testing.T) {
	w := newWorld(t)
	if !strings.HasPrefix(w.document.OpenAPI, "3.1") {
		t.Errorf("OpenAPI %s", w.document.OpenAPI)
	}
	check := w.checker()
	for _, op := range w.document.operations() {
		t.Run(op.OperationID, func(t *testing.T) {
			defer w.in(t)()
			if op.Summary == "" || op.Right == "" && len(op.Security) > 0 {
				t.Error("it is not explained")
			}
			var body any
			if op.RequestBody != nil {
				m := op.RequestBody.Content["application/json"]
				if body = m.Example; body == nil {
					t.Fatal("it has no example of a request")
				}
				check(t, "the example request", m.Schema, body)
			}
			if o, ok := body.(map[string]any); ok && op.OperationID == "backup" {
				o["file"] = filepath.Join(t.TempDir(), "copy.db") // of this machine
			}
			if op.OperationID == "reschedule-message" {
				body = object{"send_at": time.Now().Add(2 * time.Hour)} // of this day
			}
			for _, p := range op.Parameters {
				if p.In == "path" && p.Example == nil {
					t.Fatalf("it has no example of %s", p.Name)
				}
			}
			status, answered := success(t, op)
			if answered.Schema != nil {
				if answered.Example == nil {
					t.Fatal("it has no example of an answer")
				}
				check(t, "the example answer", answered.Schema, answered.Example)
			}
			path, header := op.address(nil)
			a := w.ask(keyOfOperator, op.method, path, body, header...)
			if a.status != status {
				t.Fatalf("%s %s: %d %s; want %d", op.method, path, a.status, a.body, status)
			}
			if answered.Schema == nil {
				if len(a.body) > 0 && op.OperationID != "backup" {
					t.Errorf("it answers %s; it promised nothing", a.body)
				}
				return
			}
			text := a.body
			if op.streams() {
				text = []byte(pretty(eventsIn(t, a.body)))
			}
			v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			check(t, "the answer", answered.Schema, v)
		})
	}
}

// success is what the document promises for a request that works.
func success(t *testing.T, op *operation) (status int, m media) {
	t.Helper()
	for text, r := range op.Responses {
		if n, err := strconv.Atoi(text); err == nil && n < 300 {
			if op.streams() {
				return n, r.Content["text/event-stream"]
			}
			return n, r.Content["application/json"]
		}
	}
	t.Fatalf("it promises no success: %v", slices.Collect(maps.Keys(op.Responses)))
	return 0, m
}

// checker makes a function that holds values against schemas of the document.
func (w *world) checker() func(t *testing.T, what string, schema, v any) {
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("mem:///openapi.json", plain(w.document.all)); err != nil {
		w.Fatal(err)
	}
	n := 0
	return func(t *testing.T, what string, schema, v any) {
		t.Helper()
		n++
		at := "mem:///" + strconv.Itoa(n)
		// References lead into the document.
		text := strings.ReplaceAll(pretty(schema), `"#/`, `"mem:///openapi.json#/`)
		parsed, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err == nil {
			err = c.AddResource(at, parsed)
		}
		if err != nil {
			t.Fatal(err)
		}
		s, err := c.Compile(at)
		if err != nil {
			t.Fatalf("%s: the schema: %v", what, err)
		}
		if err := s.Validate(plain(v)); err != nil {
			t.Errorf("%s: %v\n%s", what, err, pretty(v))
		}
	}
}

// plain brings a value into the form that the validator reads.
func plain(v any) any {
	out, err := jsonschema.UnmarshalJSON(strings.NewReader(pretty(v)))
	if err != nil {
		return err
	}
	return out
}

// The page for people tells of every operation, and loads nothing from
// elsewhere.
func TestDocs(t *testing.T) {
	w := newWorld(t)
	a := w.ask("", "GET", "/docs", nil)
	if a.status != 200 || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") || !strings.Contains(a.header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Fatalf("%d %v", a.status, a.header)
	}
	text := string(a.body)
	for _, op := range w.document.operations() {
		if !strings.Contains(text, `id="`+op.OperationID+`"`) || !strings.Contains(text, op.path) {
			t.Errorf("%s %s is not told of", op.method, op.path)
		}
	}
	for _, bad := range []string{"<script", `src="http`, `rel="stylesheet" href="http`, "@import", "%!", "&lt;nil&gt;"} {
		if strings.Contains(text, bad) {
			t.Errorf("the page has %s", bad)
		}
	}
	if css := w.ask("", "GET", "/docs/style.css", nil); css.status != 200 || bytes.Contains(css.body, []byte("url(")) {
		t.Errorf("the style: %d", css.status)
	}
	if a := w.ask("", http.MethodPost, "/docs", nil); a.status != 405 {
		t.Errorf("POST: %d", a.status)
	}
	if !json.Valid(w.ask("", "GET", "/openapi.json", nil).body) {
		t.Error("the document is no JSON")
	}
}
