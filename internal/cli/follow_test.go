package cli

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"testing"
	"time"

	"postrider/internal/api"
	"postrider/internal/relay"
)

// Events that become visible after later ones are shown all the same, and each
// once.
func TestFollowerMissesNothing(t *testing.T) {
	start := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	var visible []string // ids in order
	add := func(from, to, step time.Duration) {
		for d := from; d < to; d += step {
			visible = append(visible, relay.FirstIDAt(start.Add(d)).String())
		}
		slices.Sort(visible)
	}
	f := newFollower(nil, relay.FirstIDAt(start))
	f.get = func(_ context.Context, path string, q url.Values, out any) error {
		limit, err := strconv.Atoi(q.Get("limit"))
		if path != "/v1/events" || err != nil {
			return fmt.Errorf("asked for %s %v", path, q)
		}
		events := out.(*api.List[api.Event])
		for _, id := range visible {
			if id > q.Get("cursor") && len(events.Data) < limit {
				events.Data = append(events.Data, api.Event{ID: id})
			}
		}
		return nil
	}
	seen := map[string]int{}
	read := func(back bool) {
		t.Helper()
		f.looked = time.Now()
		if back {
			f.looked = f.looked.Add(-time.Minute)
		}
		fresh, err := f.next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range fresh {
			seen[ev.ID]++
		}
	}
	add(-time.Second, 0, 100*time.Millisecond) // from before: not of interest
	add(time.Second, 5*time.Second, 2*time.Millisecond)
	read(false)
	add(6*time.Second, 12*time.Second, 2*time.Millisecond)
	read(false)
	add(5*time.Second+time.Millisecond, 12*time.Second, 2*time.Millisecond) // late
	read(true)
	add(12*time.Second, 13*time.Second, 50*time.Millisecond)
	add(time.Millisecond, time.Second, 500*time.Millisecond) // later than anything may be
	read(false)
	read(true)
	for i, id := range visible {
		parsed, _ := relay.ParseID(id)
		at := parsed.Time().Sub(start)
		want := 1
		if at < time.Second {
			want = 0
		}
		if seen[id] != want {
			t.Fatalf("event %d, %v after the start, was shown %d times, want %d", i, at, seen[id], want)
		}
	}
	if len(f.seen) > 10_500 {
		t.Errorf("%d ids are remembered", len(f.seen))
	}
}
