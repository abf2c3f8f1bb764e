package tail

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"postrider/internal/relay"
)

// shelf is a store that others write to.
type shelf struct {
	mu sync.Mutex
	late
	reads int // of whole events
}

func (s *shelf) add(horizon int, heads ...relay.EventHead) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.visible = append(s.visible, heads...)
	s.horizon = relay.FirstIDAt(time.Unix(int64(horizon), 0))
}

func (s *shelf) Horizon() (relay.ID, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.late.Horizon()
}

func (s *shelf) LastEvent(ctx context.Context) (relay.ID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.late.LastEvent(ctx)
}

func (s *shelf) Heads(ctx context.Context, _, after relay.ID, limit int) ([]*relay.EventHead, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next(ctx, after, limit)
}

func (s *shelf) ScanEvents(ctx context.Context, account, after, to relay.ID, rows int) (found []relay.EventHead, end relay.ID, err error) {
	heads, err := s.Heads(ctx, account, after, rows)
	for _, h := range heads {
		if h.ID.Compare(to) > 0 {
			break
		}
		if end = h.ID; h.Account == account || account == relay.Everyone {
			found = append(found, *h)
		}
	}
	if len(found) < rows {
		end = to
	}
	return found, end, err
}

func (s *shelf) EventsByID(_ context.Context, account relay.ID, ids []relay.ID) (found []*relay.WebhookEvent, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.visible {
		if slices.Contains(ids, h.ID) && (account == h.Account || account == relay.Everyone) {
			s.reads++
			found = append(found, &relay.WebhookEvent{Event: relay.Event{ID: h.ID, Account: h.Account, Kind: h.Kind}, Message: &relay.Message{}})
		}
	}
	return found, nil
}

// listening is a listener and what it has got.
type listening struct {
	*testing.T
	live *Live
	*Listener
}

func listen(t *testing.T, l *Live, account relay.ID, f relay.EventFilter, from *Cursor) *listening {
	t.Helper()
	n, err := l.Listen(t.Context(), account, f, from)
	if err != nil {
		t.Fatal(err)
	}
	return &listening{t, l, n}
}

// gets looks at what comes now. The text of the cursor is that of the last.
func (n *listening) gets(want ...relay.EventHead) Cursor {
	n.Helper()
	if err := n.live.poll(n.Context()); err != nil {
		n.Fatal(err)
	}
	var got []relay.ID
	for {
		items, err := n.Next(n.Context(), 50*time.Millisecond)
		if err != nil {
			n.Fatal(err)
		}
		for _, it := range items {
			got = append(got, it.ID)
		}
		if len(items) == 0 {
			break
		}
	}
	var ids []relay.ID
	for _, h := range want {
		ids = append(ids, h.ID)
	}
	if !slices.Equal(got, ids) {
		n.Errorf("got %v, want %v", got, ids)
	}
	c, err := ParseCursor(n.Cursor().String())
	if err != nil || c != n.Cursor() && c.Loose {
		n.Errorf("cursor %s: %v, %v", n.Cursor(), c, err)
	}
	return c
}

func newLive(s Store, l Limits) *Live { return NewLive(s, l, slog.New(slog.DiscardHandler)) }

var me = relay.ID{1}

// Where events come out of their order, a listener gets each once; one that comes
// back gets what came meanwhile, and, where something came late, some once more.
func TestListen(t *testing.T) {
	s := &shelf{}
	s.add(80, at(70, 1), at(95, 2))
	live := newLive(s, Limits{10, 10})
	n := listen(t, live, me, relay.EventFilter{}, nil)
	n.gets() // what was there before is not news
	s.add(80, at(100, 3), at(90, 4))
	n.gets(at(90, 4), at(100, 3))
	gone := n.gets()
	s.add(85, at(101, 5))
	n.gets(at(101, 5))
	back := listen(t, live, me, relay.EventFilter{}, &gone)
	back.gets(at(101, 5))
	s.add(85, at(91, 6)) // late
	n.gets(at(91, 6))
	back.gets(at(91, 6))
	again := listen(t, live, me, relay.EventFilter{}, &gone)
	again.gets(at(95, 2), at(90, 4), at(101, 5), at(91, 6)) // of what is near 100 all is known again
	gone = again.gets()
	s.add(200, at(250, 7))
	other := newLive(s, Limits{10, 10}) // another node, much later
	listen(t, other, me, relay.EventFilter{}, &gone).gets(at(250, 7))
	// Who knows only the id of an event may have missed what came late.
	listen(t, other, me, relay.EventFilter{}, &Cursor{Done: at(101, 5).ID}).gets(at(70, 1), at(90, 4), at(91, 6), at(95, 2), at(100, 3), at(101, 5), at(250, 7))
	since := Since(time.Unix(95, 0))
	listen(t, other, me, relay.EventFilter{}, &since).gets(at(95, 2), at(100, 3), at(101, 5), at(250, 7))
	n.Close()
	n.Close() // again, which does nothing
	back.Close()
	again.Close()
	if live.Count() != 0 {
		t.Errorf("%d listen", live.Count())
	}
}

// Whoever comes back gets what was seen while it was there and did not reach it,
// also where its feed was dropped and others kept the tail going.
func TestListenAgain(t *testing.T) {
	s := &shelf{}
	s.add(80)
	live := newLive(s, Limits{10, 10})
	other := listen(t, live, relay.ID{2}, relay.EventFilter{}, nil)
	n := listen(t, live, me, relay.EventFilter{}, nil)
	s.add(80, at(100, 1))
	had := n.gets(at(100, 1))
	s.add(80, at(101, 2))
	n.gets(at(101, 2)) // sent, but the connection broke
	n.Close()
	other.gets() // without a feed of the account
	s.add(80, at(102, 3))
	other.gets()
	back := listen(t, live, me, relay.EventFilter{}, &had)
	back.gets(at(101, 2), at(102, 3))
	all := listen(t, live, relay.Everyone, relay.EventFilter{}, &had)
	all.gets(at(101, 2), at(102, 3))
}

// Where they come in order the cursor is the id of the last event, and nothing is
// ever read twice; those of others are not seen.
func TestListenInOrder(t *testing.T) {
	s := &shelf{late: late{whole: true}}
	foreign := at(2, 2)
	foreign.Account = relay.ID{9}
	bounced := at(3, 3)
	bounced.Kind = relay.EventBounced
	s.add(0, at(1, 1), foreign, bounced, at(4, 4))
	live := newLive(s, Limits{10, 2})
	first := Cursor{Done: at(1, 1).ID}
	n := listen(t, live, me, relay.EventFilter{}, &first)
	if c := n.gets(bounced, at(4, 4)); c.String() != at(4, 4).ID.String() {
		t.Errorf("cursor %s", c)
	}
	some := listen(t, live, me, relay.EventFilter{Kinds: []relay.Kind{relay.EventBounced}}, &first)
	some.gets(bounced)
	if s.reads != 2 {
		t.Errorf("%d events were read; what one listener has read is there for the other", s.reads)
	}
	if _, err := live.Listen(t.Context(), me, relay.EventFilter{}, nil); relay.CodeOf(err) != relay.RateLimited {
		t.Errorf("one too many of an account: %v", err)
	}
	all := listen(t, live, relay.Everyone, relay.EventFilter{}, &first)
	all.gets(foreign, bounced, at(4, 4))
	s.add(0, at(5, 5))
	all.gets(at(5, 5))
	n.gets(at(5, 5))
	if c := some.gets(); c.Done != at(5, 5).ID {
		t.Error("the cursor does not pass over what is not wanted")
	}
	live.limits.All = 3
	if _, err := live.Listen(t.Context(), relay.ID{7}, relay.EventFilter{}, nil); relay.CodeOf(err) != relay.RateLimited {
		t.Errorf("one too many of all: %v", err)
	}
}

// Who falls behind by more than is kept is told, and misses nothing when it comes
// back.
func TestSlow(t *testing.T) {
	s := &shelf{late: late{whole: true}}
	live := newLive(s, Limits{10, 10})
	live.tail.most = 10
	n := listen(t, live, me, relay.EventFilter{}, nil)
	s.add(0, at(1, 1))
	gone := n.gets(at(1, 1))
	var all []relay.EventHead
	for i := range 100 {
		all = append(all, at(2+i, 1))
	}
	s.add(0, all...)
	for range 2 {
		if err := live.poll(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.Next(t.Context(), 0); !errors.Is(err, ErrSlow) {
		t.Errorf("Next gives %v", err)
	}
	listen(t, live, me, relay.EventFilter{}, &gone).gets(all...)
}

// At the end of the relay all are told.
func TestEnd(t *testing.T) {
	live := newLive(&shelf{late: late{whole: true}}, Limits{10, 10})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- live.Run(ctx) }()
	n := listen(t, live, me, relay.EventFilter{}, nil)
	cancel()
	if _, err := n.Next(t.Context(), time.Minute); !errors.Is(err, ErrEnded) {
		t.Errorf("Next gives %v", err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func FuzzParseCursor(f *testing.F) {
	for _, s := range []string{at(1, 1).ID.String(), Cursor{Done: me, Until: relay.ID{2}, Sums: [ages]Sum{0: {3, 4}, 3: {1, 1 << 63}}, Loose: true}.String(), Cursor{Done: me, Loose: true}.String(), "x.y.1-2...", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCursor(s)
		if err != nil {
			return
		}
		if again, err := ParseCursor(c.String()); err != nil || again != c {
			t.Errorf("%q: %v, %v", s, again, err)
		}
	})
}
