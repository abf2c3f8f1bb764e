package upkeep

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"postrider/internal/relay"
)

var day = 24 * time.Hour

// shelf has messages of accounts, which are as old as their ids.
type shelf struct {
	keeps  map[relay.ID]relay.Keep
	logs   []entry
	blobs  []entry
	now    time.Time
	calls  int
	locked map[string]string
}

type entry struct {
	id      relay.ID
	account relay.ID
}

func (s *shelf) Now() time.Time                                         { return s.now }
func (s *shelf) Keeps(context.Context) (map[relay.ID]relay.Keep, error) { return s.keeps, nil }
func (s *shelf) Lock(_ context.Context, name, owner string, _ time.Duration) (bool, error) {
	return s.locked[name] == owner || s.locked[name] == "", nil
}

func (s *shelf) DropLog(_ context.Context, after, until relay.ID, ends func(relay.ID) relay.ID) (int, relay.ID, error) {
	return s.drop(&s.logs, after, until, ends)
}

func (s *shelf) DropContent(_ context.Context, after, until relay.ID, ends func(relay.ID) relay.ID) (int, relay.ID, error) {
	return s.drop(&s.blobs, after, until, ends)
}

// drop looks at two at a time.
func (s *shelf) drop(all *[]entry, after, until relay.ID, ends func(relay.ID) relay.ID) (n int, next relay.ID, err error) {
	s.calls++
	var stay []entry
	seen := 0
	for _, e := range *all {
		if e.id.Compare(after) > 0 && e.id.Compare(until) < 0 && seen < 2 {
			seen++
			next = e.id
			if e.id.Compare(ends(e.account)) < 0 {
				n++
				continue
			}
		}
		stay = append(stay, e)
	}
	if *all = stay; seen < 2 {
		next = relay.ID{}
	}
	return n, next, nil
}

func (s *shelf) IndexLog(context.Context, int) (int, time.Time, error) { return 0, time.Time{}, nil }
func (s *shelf) MergeLog(context.Context) (bool, error)                { return false, nil }
func (s *shelf) CleanLog(context.Context) error                        { return nil }

// Each account's log is kept as long as the account, its plan or the configuration
// says.
func TestDrop(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	short, long, ever, usual := relay.ID{1}, relay.ID{2}, relay.ID{3}, relay.ID{4}
	for _, c := range []struct {
		name  string
		keep  relay.Keep
		stays map[relay.ID][]int // ages in days of what is left of the log
		blobs map[relay.ID][]int
	}{
		{"days", relay.Keep{Log: 30, Content: 10}, map[relay.ID][]int{short: {1, 6}, long: {1, 6, 8, 31}, ever: {1, 6, 8, 31, 400}, usual: {1, 6, 8}},
			map[relay.ID][]int{short: {1, 6, 8}, long: {1, 6, 8}, ever: {1}, usual: {1, 6, 8}}},
		{"for ever", relay.Keep{}, map[relay.ID][]int{short: {1, 6}, long: {1, 6, 8, 31}, ever: {1, 6, 8, 31, 400}, usual: {1, 6, 8, 31, 400}},
			map[relay.ID][]int{short: {1, 6, 8, 31, 400}, long: {1, 6, 8, 31, 400}, ever: {1}, usual: {1, 6, 8, 31, 400}}},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &shelf{now: now, keeps: map[relay.ID]relay.Keep{short: {Log: 7}, long: {Log: 90}, ever: {Log: relay.KeepForEver, Content: 5}}}
			for _, age := range []int{400, 31, 8, 6, 1} {
				for _, a := range []relay.ID{short, long, ever, usual} {
					id := relay.FirstIDAt(now.Add(-time.Duration(age) * day))
					id[15] = a[0]
					s.logs = append(s.logs, entry{id, a})
				}
			}
			s.blobs = append(s.blobs, s.logs...)
			u := New(Config{Node: "n", Keep: c.keep}, s, s, slog.New(slog.DiscardHandler))
			if err := u.Drop(t.Context()); err != nil {
				t.Fatal(err)
			}
			for what, check := range map[string]struct {
				is   []entry
				want map[relay.ID][]int
			}{"log": {s.logs, c.stays}, "content": {s.blobs, c.blobs}} {
				got := map[relay.ID][]int{}
				for i := len(check.is) - 1; i >= 0; i-- {
					e := check.is[i]
					got[e.account] = append(got[e.account], int(now.Sub(e.id.Time())/day))
				}
				if d := cmp.Diff(check.want, got); d != "" {
					t.Errorf("%s, %s: %s", c.name, what, d)
				}
			}
		})
	}
}

// indexer counts what is asked of it.
type indexer struct {
	*shelf
	mu      sync.Mutex
	indexed int
	fails   bool
}

func (i *indexer) IndexLog(context.Context, int) (int, time.Time, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.fails {
		i.fails = false
		return 0, time.Time{}, errors.New("the store is away")
	}
	if i.indexed++; i.indexed%4 != 0 {
		return 10, time.Now(), nil // there is more
	}
	return 1, time.Time{}, nil
}

// One node at a time indexes, all that there is at each look, and goes on after a
// failure.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mine := &indexer{shelf: &shelf{now: time.Now()}, fails: true}
		theirs := &indexer{shelf: &shelf{now: time.Now(), locked: map[string]string{"index": "other"}}}
		ctx, cancel := context.WithCancel(t.Context())
		var g sync.WaitGroup
		for _, i := range []*indexer{mine, theirs} {
			g.Go(func() { New(Config{Node: "me"}, i, i.shelf, slog.New(slog.DiscardHandler)).Run(ctx) })
		}
		time.Sleep(2*look + look/2) // the clock of the bubble
		cancel()
		g.Wait()
		if mine.indexed != 8 || theirs.indexed != 0 {
			t.Errorf("asked %d times, and %d where another node works", mine.indexed, theirs.indexed)
		}
	})
}
