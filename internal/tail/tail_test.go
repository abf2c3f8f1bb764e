package tail

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"time"

	"postrider/internal/relay"
)

// late is a store where events become visible out of their order.
type late struct {
	visible []relay.EventHead
	horizon relay.ID
	whole   bool
}

func (l *late) Horizon() (relay.ID, bool) { return l.horizon, l.whole }
func (l *late) LastEvent(context.Context) (last relay.ID, err error) {
	for _, h := range l.visible {
		if h.ID.Compare(last) > 0 {
			last = h.ID
		}
	}
	return last, nil
}
func (l *late) next(_ context.Context, after relay.ID, limit int) (found []*relay.EventHead, err error) {
	for _, h := range l.visible {
		if h.ID.Compare(after) > 0 {
			found = append(found, &h)
		}
	}
	slices.SortFunc(found, func(a, b *relay.EventHead) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return found[:min(len(found), limit)], nil
}

func at(second int, n byte) relay.EventHead {
	id := relay.FirstIDAt(time.Unix(int64(second), 0))
	id[15] = n
	return relay.EventHead{ID: id, Account: relay.ID{1}, Kind: relay.EventAccepted}
}

// An event that is committed late is found, once, and others are not found
// again.
func TestLate(t *testing.T) {
	l := &late{horizon: relay.FirstIDAt(time.Unix(80, 0))}
	tail := New(l)
	mine := map[relay.ID]bool{{1}: true}
	place := -1
	look := func(want ...relay.EventHead) {
		t.Helper()
		if err := tail.Poll(t.Context(), l.next, mine); err != nil {
			t.Fatal(err)
		}
		g, _ := tail.Since(relay.ID{1}, place)
		if !slices.Equal(g.Heads, want) {
			t.Errorf("found %v, want %v", g.Heads, want)
		}
		place = g.Place
	}
	look()
	l.visible = append(l.visible, at(100, 1), at(101, 2))
	look(l.visible...)
	look()
	l.visible = append(l.visible, at(90, 3), at(102, 4))
	look(at(90, 3), at(102, 4))
	l.horizon = relay.FirstIDAt(time.Unix(101, 0))
	look()
	if len(tail.seen) != 2 {
		t.Errorf("%d ids are remembered", len(tail.seen))
	}
	l.visible = append(l.visible, at(101, 1))
	look(at(101, 1))
	// An account that came later has a feed from there on.
	mine[relay.ID{2}] = true
	look()
	if g, _ := tail.Since(relay.ID{2}, -1); g.Start != l.horizon {
		t.Errorf("the new feed begins at %v", g.Start.Time())
	}
}

// A feed that was dropped begins anew with all that may have been missing, and a
// place in the old one is none in the new one.
func TestForget(t *testing.T) {
	for name, whole := range map[string]bool{"in order": true, "late": false} {
		t.Run(name, func(t *testing.T) {
			l := &late{horizon: relay.FirstIDAt(time.Unix(80, 0)), whole: whole}
			tail := New(l)
			look := func(place int) *Glance {
				t.Helper()
				if err := tail.Poll(t.Context(), l.next, map[relay.ID]bool{{1}: true}); err != nil {
					t.Fatal(err)
				}
				g, _ := tail.Since(relay.ID{1}, place)
				return g
			}
			look(-1)
			l.visible = append(l.visible, at(100, 1))
			place := look(-1).Place
			l.visible = append(l.visible, at(101, 2), at(102, 3), at(103, 4))
			tail.Forget(relay.ID{1})
			if g, _ := tail.Since(relay.ID{1}, place); g != nil {
				t.Error("the feed is there still")
			}
			if g := look(place); !g.Lost {
				t.Errorf("the place before goes on with %v", g.Heads)
			}
			g, _ := tail.Since(relay.ID{1}, -1)
			want := l.visible
			if whole {
				want = want[1:] // the store has the first, and all before it
			}
			if !slices.Equal(g.Heads, want) || g.Start.Compare(want[0].ID) >= 0 {
				t.Errorf("the new feed has %v after %v, want %v", g.Heads, g.Start, want)
			}
		})
	}
}

// A feed keeps what late events may come between, and no more than so many
// others; who has fallen behind is told.
func TestTrim(t *testing.T) {
	f := &feed{}
	for i := range 2 * feedMost {
		h := at(i/100, byte(i))
		h.ID[14] = byte(i >> 8)
		f.heads = append(f.heads, h)
	}
	f.trim(feedMost)
	if len(f.heads) != 2*feedMost {
		t.Fatalf("%d are left of those that late ones may come between", len(f.heads))
	}
	f.bound = relay.FirstIDAt(time.Unix(50, 0))
	f.trim(feedMost)
	if f.base == 0 || len(f.heads)+f.base != 2*feedMost || f.start.Compare(f.bound) > 0 || f.heads[0].ID.Compare(f.start) <= 0 {
		t.Errorf("base %d, %d left, start %v", f.base, len(f.heads), f.start.Time())
	}
	tail := New(nil)
	tail.feeds[relay.ID{1}] = f
	if g, _ := tail.Since(relay.ID{1}, 5); !g.Lost {
		t.Error("who is behind is not told")
	}
	if g, _ := tail.Since(relay.ID{1}, f.base+3); g.Lost || len(g.Heads) != len(f.heads)-3 {
		t.Error("who is not behind is lost")
	}
}
