package api_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"postrider/internal/api"
	"postrider/internal/config"
	"postrider/internal/lab"
)

// streams tells whether an operation answers with a stream.
func (o *operation) streams() bool {
	_, ok := o.Responses["200"].Content["text/event-stream"]
	return ok
}

// sent is one event of a stream, as EventSource gives it to a page.
type sent struct {
	Event string          `json:"event,omitempty"`
	ID    string          `json:"id,omitempty"`
	Data  json.RawMessage `json:"data"`
}

// source reads a stream as the HTML standard has it (section 9.2.6).
type source struct {
	lines *bufio.Scanner
	last  string // Last-Event-ID
	beats int
	close func()
}

func newSource(r io.Reader) *source {
	s := &source{lines: bufio.NewScanner(r), close: func() {}}
	s.lines.Buffer(nil, 1<<20)
	return s
}

// next gives the next event; false: the stream has ended.
func (s *source) next() (e sent, ok bool) {
	var data []string
	for s.lines.Scan() {
		line := s.lines.Text()
		if line == "" {
			e.ID = s.last
			if data == nil {
				e.Event = ""
				continue
			}
			e.Data = json.RawMessage(strings.Join(data, "\n"))
			return e, true
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "":
			s.beats++
		case "event":
			e.Event = value
		case "data":
			data = append(data, value)
		case "id":
			s.last = value
		}
	}
	return e, false
}

func eventsIn(t *testing.T, body []byte) (all []sent) {
	t.Helper()
	for s := newSource(bytes.NewReader(body)); ; {
		e, ok := s.next()
		if !ok {
			return all
		}
		all = append(all, e)
	}
}

// open opens a stream; the status tells whether it is one.
func (s *served) open(key, path, last string) (*source, answer) {
	s.Helper()
	ctx, cancel := context.WithCancel(s.Context())
	s.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		s.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Accept", "text/event-stream")
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(resp.Body)
		return nil, answer{resp.StatusCode, resp.Header, b}
	}
	out := newSource(resp.Body)
	out.close = cancel
	return out, answer{resp.StatusCode, resp.Header, nil}
}

// event waits for the next event of a stream.
func (s *served) event(from *source) api.LiveEvent {
	s.Helper()
	e, ok := from.next()
	if !ok || e.Event != "" {
		s.Fatalf("want an event, got %q %s", e.Event, e.Data)
	}
	var ev api.LiveEvent
	if err := json.Unmarshal(e.Data, &ev); err != nil {
		s.Fatal(err)
	}
	return ev
}

// end waits for the end of a stream.
func (s *served) end(from *source) api.StreamEnd {
	s.Helper()
	e, ok := from.next()
	var end api.StreamEnd
	if !ok || e.Event != "end" || json.Unmarshal(e.Data, &end) != nil {
		s.Fatalf("want the end, got %q %s", e.Event, e.Data)
	}
	if more, ok := from.next(); ok {
		s.Errorf("after the end: %s", more.Data)
	}
	return end
}

func (s *served) send(key string, fields object) string {
	s.Helper()
	m := object{"from": "me@shop.example", "to": []string{"ann@example.net"}, "subject": "Hello", "text": "Hello."}
	for k, v := range fields {
		m[k] = v
	}
	var out api.Sent
	s.decode(s.ask(key, "POST", "/v1/messages", m), &out)
	return out.ID
}

// Events come as they happen, filtered, and who comes back misses none and gets
// none twice.
func TestStream(t *testing.T) {
	s := serve(t, nil)
	key := s.key(object{"name": "all", "scopes": []string{"send", "read"}}, "")
	all, a := s.open(key, "/v1/events/stream", "")
	if got := a.header; got.Get("Content-Type") != "text/event-stream" || got.Get("X-Accel-Buffering") != "no" || !strings.Contains(got.Get("Cache-Control"), "no-transform") || got.Get("Content-Length") != "" {
		t.Errorf("header %v", got)
	}
	some, _ := s.open(key, "/v1/events/stream?kind=delivered&tag=a,b&domain=EXAMPLE.net&credential=all", "")
	first := s.send(key, object{"tags": []string{"b"}, "metadata": object{"order": "7"}})
	for _, kind := range []string{"accepted", "delivered"} {
		if e := s.event(all); e.Message != first || e.Kind != kind || e.Tags[0] != "b" || e.Metadata["order"] != "7" || e.Stream != "transactional" || e.Recipient != "ann@example.net" || e.Credential == "" {
			t.Errorf("%s: %+v", kind, e)
		}
	}
	if e := s.event(some); e.Message != first || e.Kind != "delivered" {
		t.Errorf("the wanted one: %+v", e)
	}
	// What nobody who is there wants passes; a client that is away misses nothing.
	last := all.last
	all.close()
	second := s.send(key, object{"tags": []string{"c"}})
	third := s.send(key, object{"tags": []string{"a"}})
	if e := s.event(some); e.Message != third {
		t.Errorf("the next wanted one: %+v", e)
	}
	again, _ := s.open(key, "/v1/events/stream?kind=accepted&limit=2", last)
	for _, want := range []string{second, third} {
		if e := s.event(again); e.Message != want {
			t.Errorf("after its return: %+v, want message %s", e, want)
		}
	}
	if end := s.end(again); end.Reason != "limit" || end.Cursor != again.last {
		t.Errorf("end %+v", end)
	}
	// From before, and for so long.
	since, _ := s.open(key, "/v1/events/stream?seconds=1&kind=accepted&since=2020-01-01T00:00:00Z", "")
	for _, want := range []string{first, second, third} {
		if e := s.event(since); e.Message != want {
			t.Errorf("since then: %+v, want message %s", e, want)
		}
	}
	if end := s.end(since); end.Reason != "time" {
		t.Errorf("end %+v", end)
	}
	for _, bad := range []string{"kind=exploded", "cursor=x", "cursor=a.b.c.d", "stream=both", "credential=x", "metadata=x", "domain=a..b", "nonsense=1"} {
		if _, a := s.open(key, "/v1/events/stream?"+bad, ""); a.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d", bad, a.status)
		}
	}
	if _, a := s.open(key, "/v1/events/stream", strings.Repeat("x", 400)); a.status != http.StatusUnprocessableEntity {
		t.Errorf("a long Last-Event-ID: %d %s", a.status, a.body)
	}
}

// A stream ends when its key does, and when the server does; a place that is free
// again can be taken.
func TestStreamEnds(t *testing.T) {
	r, err := lab.Start(context.WithoutCancel(t.Context()), t.TempDir(), slog.New(slog.NewTextHandler(t.Output(), nil)), func(c *config.Config) {
		c.API.Listen = "127.0.0.1:0"
		c.API.AccountStreams, c.API.Streams = 2, 3
	})
	if err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceValue(r.Stop)
	defer stop()
	s := &served{t, r, nil, "http://" + r.APIAddr()}
	var made api.AddedCredential
	if err := s.API.Post(t.Context(), "/v1/credentials", object{"kind": "key", "name": "watcher", "scopes": []string{"read"}}, &made); err != nil {
		t.Fatal(err)
	}
	stays := s.key(object{"name": "other", "scopes": []string{"read"}}, "")
	one, _ := s.open(made.Secret, "/v1/events/stream", "")
	two, _ := s.open(stays, "/v1/events/stream", "")
	_, a := s.open(stays, "/v1/events/stream", "")
	if a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") == "" || a.problem().Code != "rate-limited" {
		t.Fatalf("one too many: %d %s", a.status, a.body)
	}
	began := time.Now()
	if err := s.API.Delete(t.Context(), "/v1/credentials/"+made.ID, nil); err != nil {
		t.Fatal(err)
	}
	if end := s.end(one); end.Reason != "revoked" {
		t.Errorf("end %+v", end)
	}
	t.Logf("the stream ended %v after its key", time.Since(began).Round(time.Millisecond))
	var three *source
	s.until("the place is free", func() bool {
		three, a = s.open(stays, "/v1/events/stream", "")
		return a.status == http.StatusOK
	})
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	for _, open := range []*source{two, three} {
		if end := s.end(open); end.Reason != "stopping" || end.Cursor == "" {
			t.Errorf("end %+v", end)
		}
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// The command line's own socket has streams too.
func TestStreamOnSocket(t *testing.T) {
	s := serve(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := make(chan api.LiveEvent, 10)
	ended := make(chan error, 1)
	ready := make(chan struct{})
	go func() {
		_, err := api.Follow(ctx, s.API, &api.Stream{Path: "/v1/events/stream?kind=delivered", Begun: func() { close(ready) }}, func(_ string, e api.LiveEvent) error { got <- e; return nil })
		ended <- err
	}()
	<-ready
	key := s.key(object{"name": "k", "scopes": []string{"send"}}, "")
	m := s.send(key, nil)
	if e := <-got; e.Message != m {
		t.Errorf("event %+v", e)
	}
	cancel()
	<-ended
}
