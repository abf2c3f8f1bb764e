package api_test

import (
	"net/url"
	"testing"
	"time"

	"postrider/internal/api"
)

// What waits is told page by page; each account sees its own.
func TestBacklog(t *testing.T) {
	s := serve(t, nil)
	key := s.key(object{"name": "shop", "scopes": []string{"send", "manage"}}, "")
	s.decode(s.ask(key, "POST", "/v1/messages", object{"from": "a@shop.test", "to": []string{"a@two.test", "b@one.test", "c@two.test"},
		"text": "x", "send_at": time.Now().Add(time.Hour)}), &api.Sent{})
	var first, second, one api.List[api.Backlog]
	s.decode(s.ask(key, "GET", "/v1/queue?limit=1", nil), &first)
	s.decode(s.ask(key, "GET", "/v1/queue?limit=1&cursor="+url.QueryEscape(first.Next), nil), &second)
	for i, want := range []struct {
		of      api.List[api.Backlog]
		domain  string
		waiting int64
	}{{first, "one.test", 1}, {second, "two.test", 2}} {
		if len(want.of.Data) != 1 {
			t.Fatalf("page %d: %+v", i, want.of)
		}
		b := want.of.Data[0]
		if b.Domain != want.domain || b.Waiting != want.waiting || b.Deferred != 0 || b.Due == nil || time.Until(*b.Due) < 59*time.Minute || time.Since(b.Oldest).Abs() > time.Minute {
			t.Errorf("page %d: %+v", i, b)
		}
	}
	s.decode(s.ask(key, "GET", "/v1/queue?domain=TWO.test", nil), &one)
	if len(one.Data) != 1 || one.Data[0].Domain != "two.test" || one.Next != "" {
		t.Errorf("of one domain: %+v", one)
	}
	var other api.Account
	if err := s.API.Post(t.Context(), "/v1/accounts", object{"name": "other"}, &other); err != nil {
		t.Fatal(err)
	}
	foreign := s.key(object{"name": "theirs", "scopes": []string{"read"}}, "other")
	var none api.List[api.Backlog]
	s.decode(s.ask(foreign, "GET", "/v1/queue?cursor="+url.QueryEscape(first.Next), nil), &none)
	if len(none.Data) != 0 {
		t.Errorf("another account sees %+v", none)
	}
	for _, cursor := range []string{"x", "1.2", "1.2.3", "999.06dx0000000000000000000010.x"} {
		if a := s.ask(key, "GET", "/v1/queue?cursor="+cursor, nil); a.status != 422 || a.problem().Errors[0].Location != "query.cursor" {
			t.Errorf("cursor %s: %d %s", cursor, a.status, a.body)
		}
	}
}
