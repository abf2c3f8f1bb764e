package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"postrider/internal/api"
	"postrider/internal/config"
	"postrider/internal/lab"
	"postrider/internal/sink"
)

// served is a relay with its API on loopback, whose mail goes to a sink.
type served struct {
	*testing.T
	*lab.Relay
	sink *sink.Server
	url  string
}

func serve(t *testing.T, change func(*config.Config)) *served {
	t.Helper()
	return serveIn(t, t.TempDir(), change)
}

func serveIn(t *testing.T, dir string, change func(*config.Config)) *served {
	t.Helper()
	s, err := sink.New(sink.Config{Keep: 100, Capture: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	r, err := lab.Start(context.WithoutCancel(t.Context()), dir, slog.New(slog.NewTextHandler(t.Output(), nil)), func(c *config.Config) {
		c.API.Listen = "127.0.0.1:0"
		c.Route = []config.Route{{Domain: "*", To: s.Addr()}}
		c.Queue.Retry = []config.Duration{config.Duration(time.Hour)}
		c.Login.Delay, c.Login.Max = 0, 0
		if change != nil {
			change(c)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	})
	return &served{t, r, s, "http://" + r.APIAddr()}
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) problem() (p api.Problem) {
	_ = json.Unmarshal(a.body, &p)
	return p
}

// decode reads the body into v.
func (s *served) decode(a answer, v any) {
	s.Helper()
	if a.status >= 300 {
		s.Fatalf("status %d: %s", a.status, a.body)
	}
	if err := json.Unmarshal(a.body, v); err != nil {
		s.Fatalf("%v: %s", err, a.body)
	}
}

// ask asks over TCP with a key, or without one. A body that is no reader is
// sent as JSON.
func (s *served) ask(key, method, path string, body any, header ...string) answer {
	s.Helper()
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case io.Reader:
		r = b
	default:
		text, err := json.Marshal(b)
		if err != nil {
			s.Fatal(err)
		}
		r = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(s.Context(), method, s.url+path, r)
	if err != nil {
		s.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	if r != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, b}
}

// key makes an API key over the control socket.
func (s *served) key(body map[string]any, account string) string {
	s.Helper()
	body["kind"] = "key"
	path := "/v1/credentials"
	if account != "" {
		path += "?account=" + account
	}
	var made api.AddedCredential
	if err := s.API.Post(s.Context(), path, body, &made); err != nil {
		s.Fatal(err)
	}
	return made.Secret
}

// until waits for a fact.
func (s *served) until(what string, fact func() bool) {
	s.Helper()
	late := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !fact() {
		select {
		case <-tick.C:
		case <-late:
			s.Fatalf("it does not come about: %s", what)
		}
	}
}

type object = map[string]any
