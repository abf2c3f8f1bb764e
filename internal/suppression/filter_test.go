package suppression

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"postrider/internal/lab/postgres"
	"postrider/internal/relay"
	"postrider/internal/store"
	pg "postrider/internal/store/postgres"
	"postrider/internal/store/sqlite"
)

// model is lists as the store keeps them, for nodes that share them.
type model struct {
	now    time.Time
	rows   map[relay.SuppressionKey]time.Time // when it was added
	ends   map[relay.SuppressionKey]time.Time
	news   []relay.SuppressionNews
	swept  int
	away   bool
	asked  int
	told   func(relay.SuppressionNews)
	inWalk func()
}

func newModel() *model {
	return &model{now: time.Unix(1_800_000_000, 0), rows: map[relay.SuppressionKey]time.Time{}, ends: map[relay.SuppressionKey]time.Time{}}
}

func (m *model) OnSuppress(told func(relay.SuppressionNews)) { m.told = told }

var errAway = errors.New("away")

func (m *model) Suppressed(_ context.Context, account relay.ID, stream relay.Stream, addresses []string) (found []*relay.Suppression, err error) {
	m.asked++
	for k := range m.rows {
		if k.Account == account && (k.Stream == 0 || stream == 0 || k.Stream == stream) && slices.Contains(addresses, k.Address) && (m.ends[k].IsZero() || m.now.Before(m.ends[k])) {
			found = append(found, &relay.Suppression{Account: account, Address: k.Address, Stream: k.Stream})
		}
	}
	return found, nil
}

func (m *model) SuppressionKeys(_ context.Context, after relay.SuppressionKey, limit int) (keys []relay.SuppressionKey, err error) {
	if m.away {
		return nil, errAway
	}
	order := func(a, b relay.SuppressionKey) int {
		return cmp.Or(a.Account.Compare(b.Account), cmp.Compare(a.Address, b.Address), cmp.Compare(a.Stream, b.Stream))
	}
	for k := range m.rows {
		if order(k, after) > 0 {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, order)
	if m.inWalk != nil {
		m.inWalk()
	}
	return keys[:min(len(keys), limit)], nil
}

func (m *model) SuppressionNews(_ context.Context, since store.Position) ([]relay.SuppressionNews, store.Position, bool, error) {
	const most = 16
	if m.away {
		return nil, nil, false, errAway
	}
	end := len(m.news)
	if since == nil {
		return nil, store.Position{1: int64(end)}, true, nil
	}
	begin := int(since[1])
	if begin < m.swept {
		return nil, nil, false, nil
	}
	end = min(end, begin+most)
	return m.news[begin:end], store.Position{1: int64(end)}, true, nil
}

// add adds, at this node or at another.
func (m *model) add(k relay.SuppressionKey, lasts time.Duration, here bool) {
	news := relay.SuppressionNews{Account: k.Account, Stream: k.Stream, Addresses: []string{k.Address}}
	if here {
		m.told(news)
	}
	if here {
		m.rows[k] = time.Time{}
	} else {
		m.rows[k] = m.now
	}
	delete(m.ends, k)
	if lasts > 0 {
		m.ends[k] = m.now.Add(lasts)
	}
	m.news = append(m.news, news)
}

func (m *model) filter() *Filter {
	f := NewFilter(m, 1, slog.New(slog.DiscardHandler))
	f.now = func() time.Time { return m.now }
	return f
}

var accounts = []relay.ID{{1}, {2}, {0xff, 3}}

func keyOf(n byte) relay.SuppressionKey {
	names := []string{"ann@example.com", "ben@example.com", "@example.com", "@.example.com", "jörg@example.com", "c\nd@example.com", "", "@"}
	return relay.SuppressionKey{Account: accounts[int(n)%3], Address: names[int(n/3)%8], Stream: relay.Stream(n / 24 % 3)}
}

// play makes things happen, and holds the filter to what the store says: never is
// somebody missed but who was added by another node within the last second.
func play(t *testing.T, script []byte) {
	m := newModel()
	f := m.filter()
	for i := 0; i+1 < len(script); i += 2 {
		k := keyOf(script[i+1])
		switch script[i] % 16 {
		case 0, 1:
			m.add(k, 0, true)
		case 2, 3, 4:
			m.add(k, 0, false)
		case 5:
			m.add(k, time.Duration(script[i+1])*10*time.Millisecond, script[i+1]%2 == 0)
		case 6, 7:
			delete(m.rows, k)
		case 8, 9, 10:
			_ = f.step(t.Context())
		case 11:
			m.away = !m.away
		case 12:
			m.now = m.now.Add(time.Duration(script[i+1]) * 10 * time.Millisecond)
		case 13:
			if script[i+1]%8 == 0 {
				m.swept = len(m.news)
			} else { // something comes in between pages
				m.inWalk = func() { m.inWalk = nil; m.add(k, 0, script[i+1]%2 == 0) }
			}
		case 14:
			if script[i+1]%8 == 0 {
				m.now = m.now.Add(renew)
			}
		case 15:
			f = m.filter() // a new start
		}
		for n := range byte(72) {
			k := keyOf(n)
			got, err := f.Suppressed(t.Context(), k.Account, k.Stream, []string{"x@example.com", k.Address})
			if err != nil {
				t.Fatal(err)
			}
			want, _ := m.Suppressed(t.Context(), k.Account, k.Stream, []string{k.Address})
			for _, w := range want {
				if !slices.ContainsFunc(got, func(s *relay.Suppression) bool { return s.Key() == w.Key() }) && m.now.Sub(m.rows[w.Key()]) >= believe {
					t.Fatalf("after %d of %x, %+v is missed", i/2, script, w)
				}
			}
			if len(got) > len(want) {
				t.Fatalf("after %d of %x: found %d, there are %d", i/2, script, len(got), len(want))
			}
		}
	}
}

func FuzzFilter(f *testing.F) {
	f.Add([]byte{2, 5, 8, 0, 8, 0, 2, 7, 12, 120, 8, 0, 6, 5, 11, 0, 2, 9, 12, 120})
	f.Add([]byte{13, 3, 8, 0, 2, 1, 13, 8, 12, 200, 8, 0, 8, 0, 14, 0, 13, 6, 8, 0, 15, 0, 0, 4})
	f.Fuzz(func(t *testing.T, script []byte) { play(t, script[:min(len(script), 200)]) })
}

func TestFilterAtRandom(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		script := make([]byte, 200)
		for i := range script {
			script[i] = byte(random.Uint32())
		}
		play(t, script)
	}
}

// Each thing by itself: when the store is asked, and when not.
func TestFilterAsks(t *testing.T) {
	ann := relay.SuppressionKey{Account: accounts[0], Address: "ann@example.com", Stream: relay.Broadcast}
	for name, tt := range map[string]struct {
		happens func(*testing.T, *model, *Filter)
		address string
		stream  relay.Stream
		asks    bool
		found   int
	}{
		"known":             {nil, "x@example.com", relay.Broadcast, false, 0},
		"on the list":       {nil, ann.Address, relay.Broadcast, true, 1},
		"of any stream":     {nil, ann.Address, 0, true, 1},
		"of another stream": {nil, ann.Address, relay.Transactional, false, 0},
		"not plain":         {nil, "jörg@example.com", relay.Broadcast, true, 0},
		"not heard of": {func(t *testing.T, m *model, f *Filter) { m.now = m.now.Add(believe) },
			"x@example.com", relay.Broadcast, true, 0},
		"cut off": {func(t *testing.T, m *model, f *Filter) {
			m.away, m.now = true, m.now.Add(believe)
			if f.step(t.Context()) == nil {
				t.Error("no error")
			}
		}, "x@example.com", relay.Broadcast, true, 0},
		"back, and caught up": {func(t *testing.T, m *model, f *Filter) {
			m.now = m.now.Add(time.Minute)
			for i := range 100 {
				m.add(relay.SuppressionKey{Account: accounts[0], Address: fmt.Sprintf("%d@example.com", i)}, 0, false)
			}
			if err := f.step(t.Context()); err != nil {
				t.Error(err)
			}
		}, "99@example.com", relay.Broadcast, true, 1},
		"back, and knows others": {func(t *testing.T, m *model, f *Filter) {
			m.now = m.now.Add(time.Minute)
			_ = f.step(t.Context())
		}, "x@example.com", relay.Broadcast, false, 0},
		"wall clock alone goes on": {func(t *testing.T, m *model, f *Filter) {
			heard := f.heard.Load().Add(-2 * believe)
			f.heard.Store(&heard)
		}, "x@example.com", relay.Broadcast, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			m := newModel()
			m.add(ann, 0, false)
			f := m.filter()
			if err := f.step(t.Context()); err != nil || f.set.Load() == nil {
				t.Fatalf("not read: %v", err)
			}
			if tt.happens != nil {
				tt.happens(t, m, f)
			}
			m.asked = 0
			found, err := f.Suppressed(t.Context(), ann.Account, tt.stream, []string{tt.address})
			if err != nil || len(found) != tt.found || (m.asked > 0) != tt.asks {
				t.Errorf("found %d, asked %d times, %v", len(found), m.asked, err)
			}
		})
	}
}

// A set that is too small is made anew, and one that is asked in vain too.
func TestFilterRenews(t *testing.T) {
	m := newModel()
	f := m.filter()
	f.most = 1 << 12
	_ = f.step(t.Context())
	for i := range minBlocks * blockBytes {
		f.add(relay.SuppressionNews{Account: accounts[0], Addresses: []string{fmt.Sprintf("%d@example.com", i)}})
	}
	if !f.stale() {
		t.Error("it is full, and stays")
	}
	_ = f.step(t.Context())
	if set := f.set.Load(); set.n != 0 || f.stale() {
		t.Errorf("%d entries are left", set.n)
	}
	f.asked.Store(10_000)
	f.vain.Store(2_000)
	if f.stale() {
		t.Error("it is read again at once")
	}
	if m.now = m.now.Add(rest); !f.stale() {
		t.Error("it is asked in vain, and stays")
	}
}

func started(t *testing.T, db *store.DB) *Filter {
	t.Helper()
	f := NewFilter(db, 1<<20, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for until := time.Now().Add(time.Minute); f.set.Load() == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("the lists are not read")
		}
	}
	return f
}

// Two nodes, on a real database: each believes what it added itself at once, and
// what the other did within a second. A third one starts with what there is.
func TestNodes(t *testing.T) {
	server := postgres.Run(t, postgres.Options{Unsynced: true})
	url, err := server.NewDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	open := func() *store.DB {
		db, err := pg.Open(t.Context(), url, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		return db
	}
	a, b := open(), open()
	nodes(t, a, b, open)
}

// One node, on SQLite, which is closed and opened again.
func TestRestart(t *testing.T) {
	place := filepath.Join(t.TempDir(), "mail.db")
	open := func() *store.DB {
		db, err := sqlite.Open(t.Context(), place, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	db := open()
	nodes(t, db, db, func() *store.DB {
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db := open()
		t.Cleanup(func() { db.Close() })
		return db
	})
}

func nodes(t *testing.T, a, b *store.DB, again func() *store.DB) {
	account, err := a.EnsureAccount(t.Context(), "me")
	if err != nil {
		t.Fatal(err)
	}
	here := started(t, a)
	there := here
	if b != a {
		there = started(t, b)
	}
	missed := func(f *Filter, address string) bool {
		found, err := f.Suppressed(t.Context(), account, relay.Broadcast, []string{address, "x" + address})
		if err != nil {
			t.Fatal(err)
		}
		return len(found) == 0
	}
	for i := range 20 {
		address := fmt.Sprintf("n%d@example.com", i)
		if !missed(there, address) {
			t.Errorf("%s is there before", address)
		}
		if _, err := a.Suppress(t.Context(), relay.Actor{Name: "test"}, account, []relay.Suppression{{Address: address, Reason: relay.ReasonManual, Created: time.Now()}}); err != nil {
			t.Fatal(err)
		}
		added := time.Now()
		if missed(here, address) {
			t.Errorf("%s is missed where it was added", address)
		}
		for {
			asked := time.Now()
			if !missed(there, address) {
				break
			}
			if asked.Sub(added) > believe {
				t.Fatalf("%s is missed after %s", address, asked.Sub(added))
			}
			time.Sleep(time.Millisecond)
		}
	}
	third := started(t, again())
	for i := range 20 {
		if missed(third, fmt.Sprintf("n%d@example.com", i)) {
			t.Errorf("number %d is missed after a start", i)
		}
	}
}
