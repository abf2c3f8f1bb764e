package account

import (
	"context"
	"slices"
	"strings"
	"testing"

	"postrider/internal/relay"
)

func TestGroups(t *testing.T) {
	f := newFixture(t)
	s := &Groups{Store: f.db, Changed: func(context.Context) error { return nil }}
	by := Caller{Account: f.account, Rights: ofDeveloper}
	g, err := s.Add(t.Context(), by, relay.Group{Name: " Weekly News! ", Default: true, Public: true})
	if err != nil || g.ID != "weekly-news" || g.Name != "Weekly News!" || g.Account != f.account {
		t.Fatalf("added %+v, %v", g, err)
	}
	for name, bad := range map[string]relay.Group{"no name": {ID: "x"}, "no id": {Name: "Ü"}, "id": {ID: "A b", Name: "x"}, "dash": {ID: "-a", Name: "x"},
		"long id": {ID: strings.Repeat("x", 65), Name: "x"}, "long": {ID: "x", Name: "x", Description: strings.Repeat("x", 501)}, "far": {ID: "x", Name: "x", Position: 5000}} {
		_, err := s.Add(t.Context(), by, bad)
		wantCode(t, name, err, relay.Invalid)
	}
	other := by.In(relay.ID{9})
	for name, do := range map[string]func(by Caller) error{
		"change": func(by Caller) error { return second(s.Change(t.Context(), by, *g)) },
		"remove": func(by Caller) error { return s.Remove(t.Context(), by, g.ID, true) },
		"leave": func(by Caller) error {
			return second(s.Leave(t.Context(), by, g.ID, []relay.Leaver{{Address: "a@x.test"}}))
		},
		"rejoin": func(by Caller) error { return second(s.Rejoin(t.Context(), by, g.ID, []string{"a@x.test"})) },
		"get":    func(by Caller) error { return second(s.Get(t.Context(), by, g.ID)) },
		"left":   func(by Caller) error { return second(s.Left(t.Context(), by, g.ID, "a@x.test")) },
		"list":   func(by Caller) error { return second(s.Leavers(t.Context(), by, g.ID, relay.LeaverFilter{})) },
	} {
		wantCode(t, name+" of another account", do(other), relay.NotFound)
		wantCode(t, name+" without a right", do(Caller{Account: f.account, Rights: Send}), relay.Forbidden)
	}
	if n, err := s.Leave(t.Context(), by, g.ID, []relay.Leaver{{Address: "Ann@EXAMPLE.com"}}); err != nil || n != 1 {
		t.Errorf("left: %d, %v", n, err)
	}
	_, err = s.Leave(t.Context(), by, g.ID, []relay.Leaver{{Address: "nobody"}})
	wantCode(t, "no address", err, relay.Invalid)
	if l, err := s.Left(t.Context(), by, g.ID, "ann@Example.com"); err != nil || l == nil {
		t.Errorf("left: %v, %v", l, err)
	}
	if l, err := s.Left(t.Context(), by, g.ID, "ben@example.com"); err != nil || l != nil {
		t.Errorf("has not left: %v, %v", l, err)
	}

	book := NewDirectory(f.db)
	for id, want := range map[string]string{"weekly-news": "weekly-news", "": "weekly-news", "other": ""} {
		g, err := book.Group(t.Context(), f.account, id)
		if err != nil || (g == nil) != (want == "") || g != nil && g.ID != want {
			t.Errorf("group %q: %+v, %v", id, g, err)
		}
	}
	if left, err := book.Left(t.Context(), f.account, g.ID, []string{"ANN@example.com", "ben@example.com"}); err != nil || !slices.Equal(left, []string{"ANN@example.com"}) {
		t.Errorf("left: %q, %v", left, err)
	}
	if _, err := s.Add(t.Context(), by, relay.Group{Name: "Alerts", Position: -1}); err != nil {
		t.Fatal(err)
	}
	book.Forget()
	if all, err := book.Groups(t.Context(), f.account); err != nil || len(all) != 2 || all[0].ID != "alerts" {
		t.Errorf("in order: %v, %v", all, err)
	}
}

func second[T any](_ T, err error) error { return err }
