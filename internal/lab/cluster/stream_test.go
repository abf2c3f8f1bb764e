package cluster

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"postrider/internal/api"
)

// follower reads the stream of events at a node.
type follower struct {
	t     *testing.T
	stop  context.CancelFunc
	ended chan struct{}

	mu    sync.Mutex
	times map[string]int // that each event came
	order []string
	last  string
}

// follow begins to follow at a node, after a cursor.
func follow(t *testing.T, n *node, from string) *follower {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	f := &follower{t: t, stop: stop, ended: make(chan struct{}), times: map[string]int{}, last: from}
	begun := make(chan struct{})
	once := sync.OnceFunc(func() { close(begun) })
	go func() {
		defer close(f.ended)
		s := &api.Stream{Path: "/v1/events/stream?" + url.Values{"cursor": {from}}.Encode(), Begun: once}
		_, err := api.Follow(ctx, api.NewClient(n.Data), s, func(id string, e api.LiveEvent) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.times[e.ID]++; f.times[e.ID] == 1 {
				f.order = append(f.order, e.ID)
			}
			f.last = id
			return nil
		})
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("the stream ends: %v", err)
		}
	}()
	t.Cleanup(func() { stop(); <-f.ended })
	select {
	case <-begun:
	case <-time.After(patience):
		t.Fatal("no stream begins")
	}
	return f
}

func (f *follower) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.times)
}

// flows waits until that many more events have come.
func (f *follower) flows(more int) {
	f.t.Helper()
	want := f.count() + more
	within(f.t, patience, "events come", func() bool { return f.count() >= want })
}

// leave ends the stream, and gives what came and where to go on.
func (f *follower) leave() (times map[string]int, last string) {
	f.stop()
	<-f.ended
	return f.times, f.last
}

// known are the ids of all events that a node knows.
func (n *node) known() (ids []string) {
	n.t.Helper()
	err := api.All(n.t.Context(), api.NewClient(n.Data), "/v1/events", url.Values{"limit": {"1000"}}, func(e api.Event) error {
		ids = append(ids, e.ID)
		return nil
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return ids
}

// Two nodes write at once, and events come out of their order: who follows at one
// of them gets each once, and who goes on at another, when the first is killed,
// misses none.
func TestStreamOverNodes(t *testing.T) {
	t.Parallel()
	c := &cluster{t: t, to: newReceiver(t), load: newLoad(t)}
	store := database(t)
	for i := range 2 {
		c.add(options{store: store})
		c.nodes[i].start()
		if i == 0 {
			c.nodes[0].run("credential", "add", "-kind", "network", "-network", "127.0.0.1", "load")
		}
	}
	for _, n := range c.nodes {
		n.takesMail(patience)
	}
	stays, moves := follow(t, c.nodes[1], ""), follow(t, c.nodes[0], "")
	for _, n := range c.nodes {
		c.load.on(n, 4, 2*time.Millisecond)
	}
	moves.flows(500)
	before, last := moves.leave()
	if !strings.Contains(last, ".") {
		t.Errorf("cursor %q is none of a store where events come out of their order", last)
	}
	stays.flows(200)
	// In order it goes on where it was, here and elsewhere.
	moves = follow(t, c.nodes[0], last)
	moves.flows(200)
	between, last := moves.leave()
	c.nodes[0].Kill()
	after := follow(t, c.nodes[1], last)
	after.flows(300)
	c.load.end()
	all := c.nodes[1].known()
	within(t, 2*patience, "each event has come", func() bool {
		all = c.nodes[1].known()
		stays.mu.Lock()
		defer stays.mu.Unlock()
		return len(stays.times) == len(all)
	})
	missing := func() (n int) {
		after.mu.Lock()
		defer after.mu.Unlock()
		for _, id := range all {
			if before[id]+between[id]+after.times[id] == 0 {
				n++
			}
		}
		return n
	}
	within(t, patience, "none is missing of what came in three parts", func() bool { return missing() == 0 })
	again, late := 0, 0
	for _, id := range all {
		if before[id] > 1 || between[id] > 1 || after.times[id] > 1 || stays.times[id] > 1 {
			t.Errorf("event %s came twice in one stream", id)
		}
		again += before[id] + between[id] + after.times[id] - 1
	}
	for i := range stays.order[1:] {
		if stays.order[i] > stays.order[i+1] {
			late++
		}
	}
	figure(t, "stream_events", len(all))
	t.Logf("%d events, %d of them after one with a greater id, %d again where the stream was taken up", len(all), late, again)
}
