package limit

import (
	"context"
	"testing"
	"time"

	"postrider/internal/relay"
)

func TestNext(t *testing.T) {
	for _, tt := range []struct {
		name              string
		daily, start, top int64
		day               Day
		want              int64
	}{
		{"nothing sent", 100, 100, grown, Day{}, 100},
		{"too little to tell", 100, 100, grown, Day{Delivered: 49}, 100},
		{"half is enough", 100, 100, grown, Day{Delivered: 48, Bounced: 2}, 200},
		{"all used", 100, 100, grown, Day{Delivered: 100}, 200},
		{"bounces", 400, 100, grown, Day{Delivered: 380, Bounced: 20}, 200},
		{"just under", 400, 100, grown, Day{Delivered: 381, Bounced: 19}, 800},
		{"bounces of little mail", 400, 100, grown, Day{Delivered: 19, Bounced: 1}, 200},
		{"bounces of hardly any mail", 400, 100, grown, Day{Delivered: 5, Bounced: 5}, 400},
		{"complaints", 4000, 100, grown, Day{Delivered: 3000, Complaints: 4}, 2000},
		{"few complaints", 4000, 100, grown, Day{Delivered: 3000, Complaints: 3}, 8000},
		{"not below the start", 100, 100, grown, Day{Delivered: 50, Bounced: 50}, 100},
		{"not below the start, nearly", 150, 100, grown, Day{Delivered: 50, Bounced: 50}, 100},
		{"the top is reached", 500, 100, 1000, Day{Delivered: 400}, 0},
		{"the top is near", 400, 100, 1000, Day{Delivered: 400}, 800},
		{"grown up without a top", 512_000, 100, grown, Day{Delivered: 400_000}, 0},
	} {
		if got := Next(tt.daily, tt.start, tt.top, tt.day); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

// outcomes is a store whose accounts had these outcomes on the day before.
type outcomes struct {
	*at
	of map[relay.ID][]*relay.DayCount
}

func (o *outcomes) Outcomes(_ context.Context, account relay.ID, since, until time.Time) ([]*relay.DayCount, error) {
	if !since.Equal(until) || !since.Equal(relay.PerDay.Start(o.Now()).AddDate(0, 0, -1)) {
		return nil, nil
	}
	return o.of[account], nil
}

func TestGrow(t *testing.T) {
	db := onSQLite(t)
	by := relay.Actor{Name: "test"}
	if err := db.SetPlan(t.Context(), by, &relay.Plan{Name: "starter", Start: 50, Limits: limits(t, "150 recipients/day")}); err != nil {
		t.Fatal(err)
	}
	s := &outcomes{at: db, of: map[relay.ID][]*relay.DayCount{}}
	g := &Grower{Store: s, Log: quiet()}
	add := func(n byte, plan string, growth relay.Growth) relay.ID {
		id := relay.ID{n}
		if err := db.AddAccount(t.Context(), by, &relay.Account{ID: id, Name: string('a' + rune(n)), Plan: plan, Growth: growth, Created: noon}); err != nil {
			t.Fatal(err)
		}
		return id
	}
	good, bad, old, closed := add(1, "starter", relay.Growth{}), add(2, "", relay.Growth{Daily: 800, Since: noon.AddDate(0, 0, -9)}), add(3, "starter", relay.Growth{Since: noon}), add(4, "", relay.Growth{})
	day := func(id relay.ID, delivered, bounced int64) {
		s.of[id] = []*relay.DayCount{{Kind: relay.EventDelivered, N: delivered}, {Kind: relay.EventDeferred, N: 1000}, {Kind: relay.EventBounced, N: bounced}}
	}
	want := func(what string, id relay.ID, daily int64) {
		t.Helper()
		a, err := db.Account(t.Context(), relay.Everyone, id)
		if err != nil {
			t.Fatal(err)
		}
		plan := &relay.Plan{Start: 50}
		if a.Plan == "" {
			plan = nil
		}
		if got := Daily(a, plan); got != daily {
			t.Errorf("%s: %d a day, want %d", what, got, daily)
		}
	}
	round := func() {
		t.Helper()
		for range 2 { // a second look on one day changes nothing
			if err := g.Round(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	want("at first", good, 50)
	day(good, 40, 0)
	day(bad, 500, 100)
	day(old, 9999, 0)
	round()
	want("a good day", good, 100)
	want("a bad day", bad, 400)
	want("grown up", old, 0)
	want("never new", closed, 0)
	day(good, 5, 0)
	day(bad, 400, 0)
	round()
	want("the same day still", good, 100)
	want("the same day still", bad, 400)
	db.pass(24 * time.Hour)
	round()
	want("a day of little", good, 100)
	want("a good day after a bad one", bad, 800)
	db.pass(24 * time.Hour)
	day(good, 100, 1)
	round()
	want("beyond the plan's own limit", good, 0)
	db.pass(24 * time.Hour)
	s.of[bad] = []*relay.DayCount{{Kind: relay.EventDelivered, N: 800}, {Kind: relay.EventComplained, N: 1}}
	round()
	want("a day with one complaint of 800, at 1600", bad, 800)
	db.pass(24 * time.Hour)
	day(good, 10, 100)
	round()
	want("grown up for good", good, 0)
	changes, err := db.Changes(t.Context(), good, relay.ChangeFilter{Action: "account.change"})
	if err != nil || len(changes) != 2 || changes[0].Actor.Name != "postrider" {
		t.Errorf("%d changes noted, %v", len(changes), err)
	}
}

// An account grows by what its sub-accounts send, too.
func TestGrowByChildren(t *testing.T) {
	db := onSQLite(t)
	by := relay.Actor{Name: "test"}
	s := &outcomes{at: db, of: map[relay.ID][]*relay.DayCount{{2}: {{Kind: relay.EventDelivered, N: 100}}}}
	parent := &relay.Account{ID: relay.ID{1}, Name: "parent", Growth: relay.Growth{Daily: 100, Since: noon.AddDate(0, 0, -2)}, Created: noon}
	for _, a := range []*relay.Account{parent, {ID: relay.ID{2}, Parent: parent.ID, Name: "child", Created: noon}} {
		if err := db.AddAccount(t.Context(), by, a); err != nil {
			t.Fatal(err)
		}
	}
	if err := (&Grower{Store: s, Log: quiet()}).Round(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a, err := db.Account(t.Context(), relay.Everyone, parent.ID); err != nil || a.Growth.Daily != 200 {
		t.Errorf("%+v, %v", a, err)
	}
}
