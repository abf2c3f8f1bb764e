package cli

import (
	"context"
	"maps"
	"net/url"
	"strconv"
	"time"

	"postrider/internal/api"
	"postrider/internal/relay"
)

// follower reads the events as they come. Where several nodes write, one may
// become visible after another with a greater id: now and then the follower
// looks back, and passes over what it has seen.
type follower struct {
	get   func(ctx context.Context, path string, query url.Values, out any) error
	every time.Duration // how often it looks back
	back  time.Duration // how far, from the newest event: longer than any commit takes

	start  relay.ID // nothing before it is of interest
	newest relay.ID
	seen   map[relay.ID]struct{}
	looked time.Time // back
}

func newFollower(c *api.Client, start relay.ID) *follower {
	return &follower{get: c.Get, every: 5 * time.Second, back: 10 * time.Second, start: start, newest: start,
		seen: map[relay.ID]struct{}{}, looked: time.Now()}
}

// next gives what has come since it was asked last; it does not wait.
func (f *follower) next(ctx context.Context) ([]api.Event, error) {
	const page = 1000
	after := f.newest
	now := time.Now()
	if now.Sub(f.looked) >= f.every {
		after = f.horizon()
	}
	var fresh []api.Event
	for {
		var events api.List[api.Event]
		err := f.get(ctx, "/v1/events", url.Values{"cursor": {after.String()}, "limit": {strconv.Itoa(page)}}, &events)
		if err != nil {
			return fresh, err
		}
		for _, ev := range events.Data {
			id, err := relay.ParseID(ev.ID)
			if err != nil {
				return fresh, err
			}
			after = id
			if _, known := f.seen[id]; !known {
				f.seen[id] = struct{}{}
				fresh = append(fresh, ev)
			}
		}
		if f.newest.Compare(after) < 0 {
			f.newest = after
		}
		if len(events.Data) < page {
			break
		}
	}
	if now.Sub(f.looked) >= f.every {
		f.looked = now
		old := f.horizon()
		maps.DeleteFunc(f.seen, func(id relay.ID, _ struct{}) bool { return id.Compare(old) <= 0 })
	}
	return fresh, nil
}

// horizon is how far the follower looks back.
func (f *follower) horizon() relay.ID {
	h := relay.FirstIDAt(f.newest.Time().Add(-f.back))
	if h.Compare(f.start) < 0 {
		return f.start
	}
	return h
}
