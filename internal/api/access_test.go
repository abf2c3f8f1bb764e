package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"postrider/internal/account"
	"postrider/internal/relay"
)

// ring are keys, by their text.
type ring map[string]*account.Identity

func (r ring) Login(_ context.Context, client netip.Addr, _, password string) (*account.Identity, error) {
	if id := r[password]; id != nil {
		return id, nil
	}
	return nil, &relay.Error{Code: relay.Unauthenticated, Text: "User name or password is wrong.", Advice: "Check both."}
}

func (r ring) Alive(context.Context, *account.Identity) bool { return true }

func (r ring) Caller(_ context.Context, id *account.Identity, client netip.Addr) (account.Caller, error) {
	return account.Caller{Actor: relay.Actor{Credential: id.Credential, Name: "key good one"}, Account: id.Account, Rights: account.OfCredential(&relay.Credential{Kind: id.Kind, Scopes: id.Scopes}, 0)}, nil
}

// public serves the API as over TCP.
func public(t *testing.T, change func(*Config)) (*Server, *httptest.Server) {
	t.Helper()
	c := (&kept{deliveries: func(relay.DeliveryFilter) ([]relay.Logged, error) { return nil, nil }}).config(t)
	c.Keys = ring{"good": {Kind: account.KindKey, Account: relay.ID{7}, Credential: relay.ID{8}}, "password": {Kind: account.KindSMTP}}
	if change != nil {
		change(&c)
	}
	s := New(c)
	web := httptest.NewServer(s.Public())
	t.Cleanup(web.Close)
	return s, web
}

type request struct {
	method, path, body string
	header             map[string]string
}

func (q request) do(t *testing.T, web *httptest.Server) (*http.Response, Problem) {
	t.Helper()
	method := q.method
	if method == "" {
		method = http.MethodGet
	}
	r, err := http.NewRequestWithContext(t.Context(), method, web.URL+q.path, strings.NewReader(q.body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range q.header {
		r.Header.Set(k, v)
	}
	resp, err := web.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var p Problem
	_ = json.NewDecoder(resp.Body).Decode(&p)
	return resp, p
}

func TestAccess(t *testing.T) {
	_, web := public(t, nil)
	key := map[string]string{"Authorization": "Bearer good"}
	basic := func(s string) map[string]string {
		return map[string]string{"Authorization": "Basic " + base64.StdEncoding.EncodeToString([]byte(s))}
	}
	for _, tt := range []struct {
		request
		status   int
		code     string
		location string
	}{
		{request{path: "/v1/me"}, 401, "unauthenticated", ""},
		{request{path: "/v1/me", header: map[string]string{"Authorization": "Bearer bad"}}, 401, "unauthenticated", ""},
		{request{path: "/v1/me", header: map[string]string{"Authorization": "Bearer"}}, 401, "unauthenticated", ""},
		{request{path: "/v1/me", header: map[string]string{"Authorization": "Digest x"}}, 401, "unauthenticated", ""},
		{request{path: "/v1/me", header: map[string]string{"Authorization": "Bearer password"}}, 401, "unauthenticated", ""},
		{request{path: "/v1/me", header: basic("good:")}, 401, "unauthenticated", ""},
		{request{path: "/v1/me", header: basic("anything:good")}, 200, "", ""},
		{request{path: "/v1/me", header: map[string]string{"Authorization": "bearer  good"}}, 200, "", ""},
		{request{path: "/v1/deliveries", header: key}, 403, "forbidden", ""},
		{request{path: "/v1/nodes", header: key}, 403, "forbidden", ""},
		{request{path: "/v1/nothing", header: key}, 404, "not-found", ""},
		{request{path: "/debug/pprof/", header: key}, 404, "not-found", ""},
		{request{method: "PUT", path: "/v1/me", header: key}, 405, "not-found", ""},
		{request{path: "/v1/me?acount=x", header: key}, 422, "invalid", "query.acount"},
		{request{path: "/openapi.json"}, 200, "", ""},
	} {
		resp, p := tt.do(t, web)
		if resp.StatusCode != tt.status || p.Code != tt.code || tt.status >= 300 && (p.Status != tt.status || p.Detail == "" || p.RequestID != resp.Header.Get("X-Request-Id") ||
			resp.Header.Get("Content-Type") != "application/problem+json") {
			t.Errorf("%+v: %d %+v; want %d %s", tt.request, resp.StatusCode, p, tt.status, tt.code)
		}
		if tt.location != "" && (len(p.Errors) != 1 || p.Errors[0].Location != tt.location) {
			t.Errorf("%s: errors %+v; want %s", tt.path, p.Errors, tt.location)
		}
		if challenge := resp.Header.Values("WWW-Authenticate"); (len(challenge) == 2) != (tt.status == 401) {
			t.Errorf("%s: WWW-Authenticate %q", tt.path, challenge)
		}
		if resp.StatusCode == 405 && resp.Header.Get("Allow") != "GET" {
			t.Errorf("405 allows %q", resp.Header.Get("Allow"))
		}
	}
}

// Wrong fields are named; the body is bounded; both over any entrance.
func TestFieldsAndSizes(t *testing.T) {
	k := &kept{}
	web := httptest.NewServer(New(k.config(t)).Control())
	defer web.Close()
	for body, want := range map[string]string{
		`{"name":"x"}`: "body.kind", `{"kind":"smtp","name":3}`: "body.name", `{"kind":"pigeon","name":"x"}`: "body.kind",
		`{"kind":"smtp","name":"x","colour":"red"}`: "body.colour", `{"kind":"network","name":"x","networks":["10.0.0.0/8","10.0.0"]}`: "body.networks[1]", `{`: "body",
	} {
		_, p := request{method: "POST", path: "/v1/credentials", body: body}.do(t, web)
		if len(p.Errors) != 1 || p.Errors[0].Location != want || p.Detail == "" || strings.Contains(p.Detail, "validation failed") {
			t.Errorf("%s: %+v; want a problem with %s", body, p, want)
		}
	}
	resp, p := request{method: "POST", path: "/v1/credentials", body: `{"name":"` + strings.Repeat("x", maxBody) + `"}`}.do(t, web)
	if resp.StatusCode != 413 || p.Code != "too-large" || !strings.Contains(p.Detail, "1 MB") {
		t.Errorf("too large: %d %+v", resp.StatusCode, p)
	}
	if resp, p := (request{method: "POST", path: "/v1/credentials"}).do(t, web); resp.StatusCode != 400 || p.Advice == "" {
		t.Errorf("no body: %d %+v", resp.StatusCode, p)
	}
	if resp, p := (request{method: "POST", path: "/v1/credentials", body: "a=b", header: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}}).do(t, web); resp.StatusCode != 415 || p.Advice == "" {
		t.Errorf("a form: %d %+v", resp.StatusCode, p)
	}
}

// A request id that is fit is taken over; the log tells who asked what, and no
// secret.
func TestRequestIDAndLog(t *testing.T) {
	var log bytes.Buffer
	s, web := public(t, func(c *Config) {
		c.Log = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	Register(s, Route{Method: http.MethodPost, Path: "/v1/fall/{token}", ID: "fall", Tag: "Server", Right: Anybody}, func(context.Context, *struct {
		Token string `path:"token"`
	}) (*struct{}, error) {
		panic("it falls")
	})
	for theirs, taken := range map[string]bool{"abc-1.2_3": true, "a b": false, strings.Repeat("x", 65): false, "a\tb": false} {
		resp, _ := request{path: "/v1/me", header: map[string]string{"X-Request-Id": theirs, "Authorization": "Bearer good"}}.do(t, web)
		if got := resp.Header.Get("X-Request-Id"); (got == theirs) != taken || got == "" {
			t.Errorf("%q: %q", theirs, got)
		}
	}
	resp, p := request{method: "POST", path: "/v1/fall/verysecret"}.do(t, web)
	if resp.StatusCode != 500 || p.Code != "internal" || strings.Contains(p.Detail, "falls") || p.RequestID == "" {
		t.Errorf("a panic: %d %+v", resp.StatusCode, p)
	}
	request{path: "/v1/me?account=alsosecret", header: map[string]string{"Authorization": "Bearer evenmoresecret"}}.do(t, web)
	web.Close() // the last line is written
	for _, want := range []string{"it falls", `"path":"/v1/me"`, `"status":200`, `"client":"127.0.0.1"`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %s", want)
		}
	}
	for _, secret := range []string{"Bearer", "evenmoresecret", "verysecret", "alsosecret"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log tells %s", secret)
		}
	}
}

func TestPages(t *testing.T) {
	all := []string{"a", "b", "c", "d", "e"}
	same := func(s string) string { return s }
	var got []string
	for p := (Page{Limit: 2}); ; {
		out, err := pageOf(all, p, same, same)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, out.Body.Data...)
		if p.Cursor = out.Body.Next; p.Cursor == "" {
			break
		}
	}
	if strings.Join(got, "") != "abcde" {
		t.Errorf("%v", got)
	}
	if _, err := pageOf(all, Page{Limit: 2, Cursor: "x"}, same, same); err == nil {
		t.Error("a cursor of nothing is taken")
	}
	if out, err := pageOf(nil, Page{Limit: 2}, same, same); err != nil || out.Body.Data == nil {
		t.Error("an empty list is null")
	}
}
