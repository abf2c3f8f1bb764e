package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postrider/internal/message"
	"postrider/internal/relay"
	"postrider/internal/store"
	"postrider/internal/store/sqlite"
	"postrider/internal/store/storetest"
)

// faulty is a real store with faults.
type faulty struct {
	*store.DB
	put     hook[func(batch []*relay.Submission) []error]          // before; nil goes on
	written hook[func()]                                           // after Put
	settle  hook[func(lease int64, batch []relay.Outcome) []error] // before; nil goes on
	settled hook[func(lease int64, batch []relay.Outcome)]         // committed, not yet told
	claim   hook[func() error]                                     // before; nil goes on
	taken   hook[func(claimed []relay.Claimed)]                    // committed, not yet told
	// What is told of a commit instead of the truth:
	lost      hook[func(err error) error]
	lostClaim hook[func(err error) error]
}

// hook is a function that may be changed while the queue runs.
type hook[F any] struct{ f atomic.Pointer[F] }

func (h *hook[F]) set(f F) { h.f.Store(&f) }
func (h *hook[F]) clear()  { h.f.Store(nil) }

// Commit is the store's own as long as nobody meddles with it; else the two parts
// come one after the other.
func (f *faulty) Commit(ctx context.Context, lease int64, puts []*relay.Submission, ends []relay.Outcome) (ofPuts, ofEnds []error) {
	if f.put.f.Load() == nil && f.written.f.Load() == nil && f.settle.f.Load() == nil && f.settled.f.Load() == nil && f.lost.f.Load() == nil {
		return f.DB.Commit(ctx, lease, puts, ends)
	}
	if len(puts) > 0 {
		ofPuts = f.Put(ctx, lease, puts)
	}
	if len(ends) > 0 {
		ofEnds = f.Settle(ctx, lease, ends)
	}
	return ofPuts, ofEnds
}

func (f *faulty) Put(ctx context.Context, lease int64, batch []*relay.Submission) []error {
	if fault := f.put.f.Load(); fault != nil {
		if errs := (*fault)(batch); errs != nil {
			return errs
		}
	}
	errs := f.DB.Put(ctx, lease, batch)
	if then := f.written.f.Load(); then != nil {
		(*then)()
	}
	if tell := f.lost.f.Load(); tell != nil {
		for i := range errs {
			errs[i] = (*tell)(errs[i])
		}
	}
	return errs
}

func (f *faulty) Settle(ctx context.Context, lease int64, batch []relay.Outcome) []error {
	if fault := f.settle.f.Load(); fault != nil {
		if errs := (*fault)(lease, batch); errs != nil {
			return errs
		}
	}
	errs := f.DB.Settle(ctx, lease, batch)
	if then := f.settled.f.Load(); then != nil {
		(*then)(lease, batch)
	}
	return errs
}

func (f *faulty) Claim(ctx context.Context, lease int64, now time.Time, wants []relay.Want) ([]relay.Claimed, []relay.Waiting, error) {
	if fault := f.claim.f.Load(); fault != nil {
		if err := (*fault)(); err != nil {
			return nil, nil, err
		}
	}
	claimed, left, err := f.DB.Claim(ctx, lease, now, wants)
	if then := f.taken.f.Load(); then != nil {
		(*then)(claimed)
	}
	if tell := f.lostClaim.f.Load(); tell != nil && len(claimed) > 0 {
		return nil, nil, (*tell)(err)
	}
	return claimed, left, err
}

func all[T any](batch []T, err error) []error { return slices.Repeat([]error{err}, len(batch)) }

// rig is a queue at work over a real store, in the bubble of a test.
type rig struct {
	*testing.T
	*Queue
	store   *faulty
	account relay.ID
	items   chan *Item
	logged  *strings.Builder
	stopRun func()
	stop    func() // what a shutdown does, up to Close
}

var usual = Config{Window: 100, WindowBytes: 1 << 20, Batch: 8, BatchBytes: 1 << 20}

// open opens a store.
func open(t *testing.T, path string) (db *store.DB, account relay.ID, lease int64) {
	t.Helper()
	db, err := sqlite.Open(t.Context(), path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if account, err = db.EnsureAccount(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	if lease, err = db.Join(t.Context(), "node"); err != nil {
		t.Fatal(err)
	}
	return db, account, lease
}

// newRig starts a rig, inside a bubble.
func newRig(t *testing.T, c Config, ready func(r *rig, it *Item)) *rig {
	t.Helper()
	r := newLive(t, c, ready)
	synctest.Wait()
	return r
}

// newLive starts a rig on the real clock.
func newLive(t *testing.T, c Config, ready func(r *rig, it *Item)) *rig {
	t.Helper()
	db, account, lease := open(t, filepath.Join(t.TempDir(), "mail.db"))
	r := &rig{T: t, store: &faulty{DB: db}, account: account, items: make(chan *Item, 10_000), logged: &strings.Builder{}}
	r.Queue = New(r.store, lease, c, slog.New(slog.NewTextHandler(r.logged, nil)))
	if ready == nil {
		ready = func(r *rig, it *Item) { r.items <- it }
	}
	running, stopRun := context.WithCancel(t.Context())
	writing, stopWrite := context.WithCancel(t.Context())
	var run, write sync.WaitGroup
	run.Go(func() { _ = r.Queue.Run(running, func(it *Item) { ready(r, it) }) })
	write.Go(func() { _ = r.Write(writing) })
	r.stopRun = func() { stopRun(); run.Wait() }
	r.stop = func() { r.stopRun(); stopWrite(); write.Wait() }
	t.Cleanup(func() {
		r.stop()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// inBubble runs a test with a rig of its own, on the bubble's clock.
func inBubble(t *testing.T, c Config, f func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(newRig(t, c, nil)) })
}

func (r *rig) message(content string, recipients ...string) *relay.Submission {
	if len(recipients) == 0 {
		recipients = []string{"bob@example.net"}
	}
	s := storetest.Submission(r.account, time.Now().Truncate(time.Microsecond), nil, recipients...)
	s.Content = message.Bytes([]byte(content))
	s.Message.Size = s.Content.Size()
	return s
}

func (r *rig) put(s *relay.Submission) *relay.Submission {
	r.Helper()
	if err := r.Put(r.Context(), s); err != nil {
		r.Fatalf("put: %v", err)
	}
	return s
}

// next is the item that is ready now, or nil.
func (r *rig) next() *Item {
	synctest.Wait()
	select {
	case it := <-r.items:
		return it
	default:
		return nil
	}
}

// take is next where there must be one, with its attempt begun.
func (r *rig) take() *Item {
	r.Helper()
	it := r.next()
	if it == nil {
		r.Fatal("nothing is ready")
	}
	if !r.Begin(it) {
		r.Fatalf("%s can't begin", it.Delivery.ID)
	}
	return it
}

func (r *rig) outcome(id relay.DeliveryID, kind relay.Kind) relay.Outcome {
	return relay.Outcome{Delivery: id, Account: r.account, Kind: kind, At: time.Now(), Due: time.Now(), Reply: relay.Reply{Code: 250, Text: "Ok"},
		Attempt: &relay.Attempt{Started: time.Now(), Ended: time.Now()}}
}

func (r *rig) settle(it *Item, kind relay.Kind) {
	r.Helper()
	if err := r.Settle(r.Context(), r.outcome(it.Delivery.ID, kind)); err != nil {
		r.Fatalf("settle: %v", err)
	}
}

func (r *rig) state(id relay.DeliveryID) relay.State {
	r.Helper()
	s, err := r.store.Story(r.Context(), r.account, id.Message)
	if err != nil {
		r.Fatal(err)
	}
	return s.Deliveries[id.N-1].State
}

func (r *rig) want(s Stats) {
	r.Helper()
	got := r.Stats()
	got.Classes = s.Classes // is for whoever asks
	if got != s {
		r.Errorf("stats %+v; want %+v", got, s)
	}
}

func TestPutIsDeliveredFromMemory(t *testing.T) {
	inBubble(t, usual, func(r *rig) {
		s := r.put(r.message("12345", "a@example.net", "b@example.net"))
		r.want(Stats{InHand: 2, Bytes: 5})
		one, two := r.take(), r.take()
		r.want(Stats{InHand: 2, InFlight: 2, Peak: 2, Bytes: 5})
		if one.Delivery != s.Deliveries[0] || two.Delivery != s.Deliveries[1] || one.Message != s.Message || one.Content() != s.Content || two.Content() != s.Content {
			t.Errorf("items %+v and %+v", one, two)
		}
		r.settle(one, relay.EventDelivered)
		r.want(Stats{InHand: 1, InFlight: 1, Peak: 2, Bytes: 5})
		r.settle(two, relay.EventBounced)
		r.want(Stats{Peak: 2})
		if a, b := r.state(one.Delivery.ID), r.state(two.Delivery.ID); a != relay.Delivered || b != relay.Bounced {
			t.Errorf("states %s and %s", a, b)
		}
		time.Sleep(5 * time.Minute) // of the bubble's clock
		if it := r.next(); it != nil {
			t.Errorf("%s comes again", it.Delivery.ID)
		}
	})
}

func TestPutsShareACommit(t *testing.T) {
	inBubble(t, usual, func(r *rig) {
		gate := make(chan struct{})
		var sizes []int
		r.store.put.set(func(batch []*relay.Submission) []error {
			<-gate
			sizes = append(sizes, len(batch))
			return nil
		})
		var g sync.WaitGroup
		put := func(s *relay.Submission, code relay.Code) {
			g.Go(func() {
				err := r.Put(r.Context(), s)
				if code == "" && err != nil || code != "" && relay.CodeOf(err) != code {
					t.Errorf("put: %v; want code %q", err, code)
				}
			})
			synctest.Wait()
		}
		first := r.message("x")
		put(first, "")
		for range 3 {
			put(r.message("x"), "")
		}
		twin := r.message("x")
		twin.Message = first.Message // its id is taken
		twin.Deliveries[0].ID.Message = first.Message.ID
		twin.Deliveries[0].ID.N = 7
		put(twin, relay.Conflict)
		for range 3 {
			put(r.message("x"), "")
		}
		close(gate)
		g.Wait()
		if fmt.Sprint(sizes) != "[1 7]" {
			t.Errorf("commits of %v messages; want one, and the others together", sizes)
		}
		for range 7 {
			r.take()
		}
		if it := r.next(); it != nil {
			t.Errorf("a message that was refused is ready: %+v", it)
		}
		r.want(Stats{InHand: 7, InFlight: 7, Peak: 7, Bytes: 7})
	})
}

func TestPutWhenFull(t *testing.T) {
	inBubble(t, Config{Window: 100, WindowBytes: 1 << 20, Batch: 2, BatchBytes: 100}, func(r *rig) {
		gate := make(chan struct{})
		r.store.put.set(func([]*relay.Submission) []error { <-gate; return nil })
		var g sync.WaitGroup
		for range 1 + 8 { // one is written, four batches wait
			g.Go(func() { r.put(r.message("x")) })
			synctest.Wait()
		}
		start := time.Now()
		err := r.Put(r.Context(), r.message("x"))
		wantCode(t, "put", err, relay.Busy)
		if time.Since(start) != 0 {
			t.Errorf("the answer took %v", time.Since(start))
		}
		r.want(Stats{InHand: 9, Bytes: 9})
		close(gate)
		g.Wait()
	})
}

func wantCode(t testing.TB, what string, err error, code relay.Code) {
	t.Helper()
	var e *relay.Error
	if !errors.As(err, &e) || e.Code != code || e.Text == "" || e.Advice == "" {
		t.Errorf("%s: error %#v; want one with code %s, text and advice", what, err, code)
	}
}

func TestPutFails(t *testing.T) {
	inBubble(t, usual, func(r *rig) {
		for _, tt := range []struct {
			err  error
			code relay.Code
		}{
			{&relay.Error{Code: relay.Full, Text: "No room.", Advice: "Make some."}, relay.Full},
			{fmt.Errorf("put: %w", &relay.Error{Code: relay.Unavailable, Text: "Away.", Advice: "Wait."}), relay.Unavailable},
			{errors.New("disk on fire"), relay.Unavailable},
			{fmt.Errorf("end notice: %w", store.ErrSettled), relay.Unavailable},
		} {
			r.store.put.set(func(b []*relay.Submission) []error { return all(b, tt.err) })
			err := r.Put(r.Context(), r.message("x", "a@example.net", "b@example.net"))
			wantCode(t, "put", err, tt.code)
			if !errors.Is(err, tt.err) {
				t.Errorf("%v hides its cause %v", err, tt.err)
			}
		}
		ctx, cancel := context.WithCancel(r.Context())
		cancel()
		wantCode(t, "put for a client that has gone", r.Put(ctx, r.message("x")), relay.Unavailable)
		r.want(Stats{})
		if it := r.next(); it != nil {
			t.Errorf("a message that was refused is ready: %+v", it)
		}
		r.store.put.clear()
		r.put(r.message("x"))
		r.take()
		r.stop()
		wantCode(t, "put after the end", r.Put(r.Context(), r.message("x")), relay.Unavailable)
	})
}

// A client that leaves while its message is written changes nothing: what is
// kept is delivered.
func TestPutOutlivesItsClient(t *testing.T) {
	inBubble(t, usual, func(r *rig) {
		ctx, cancel := context.WithCancel(r.Context())
		r.store.written.set(cancel)
		if err := r.Put(ctx, r.message("x")); err != nil {
			t.Errorf("put: %v", err)
		}
		r.settle(r.take(), relay.EventDelivered)
		r.want(Stats{Peak: 1})
	})
}

func TestWindow(t *testing.T) {
	inBubble(t, Config{Window: 12, WindowBytes: 1 << 20, Batch: 8, BatchBytes: 1 << 20}, func(r *rig) {
		start := time.Now()
		var want []relay.ID
		for range 10 {
			want = append(want, r.put(r.message("x")).Message.ID)
		}
		r.put(r.message("x", "a@example.net", "b@example.net"))
		synctest.Wait()
		// A third of the window directly, half of it by claims.
		if s := r.Stats(); s.InHand < 5 || s.InHand > 6 || s.Bytes != 4 {
			t.Errorf("stats %+v", s)
		}
		seen := map[relay.DeliveryID]int{}
		for range 12 {
			if n := r.Stats().InHand; n > 6 {
				t.Errorf("%d in hand", n)
			}
			it := r.take()
			seen[it.Delivery.ID]++
			r.settle(it, relay.EventDelivered)
		}
		if it := r.next(); it != nil || len(seen) != 12 {
			t.Errorf("%d of 12 deliveries came, and then %v", len(seen), it)
		}
		for _, id := range want {
			if seen[relay.DeliveryID{Message: id, N: 1}] != 1 {
				t.Errorf("%s came %d times", id, seen[relay.DeliveryID{Message: id, N: 1}])
			}
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("it took %v; room is to be used at once", took)
		}
	})
}

// Room that is made while the claimer still looks must not go unseen.
func TestWindowRoomMadeAtOnce(t *testing.T) {
	for _, window := range []int{1, 2, 3, 7} {
		synctest.Test(t, func(t *testing.T) {
			done := make(chan struct{}, 100)
			r := newRig(t, Config{Window: window, WindowBytes: 1 << 20, Batch: 8, BatchBytes: 1 << 20}, func(r *rig, it *Item) {
				if r.Begin(it) {
					r.settle(it, relay.EventDelivered) // before the claimer goes on
					done <- struct{}{}
				}
			})
			var batch []*relay.Submission
			for range 40 {
				batch = append(batch, r.message("x"))
				batch[len(batch)-1].InHand = false
			}
			if err := errors.Join(r.store.DB.Put(t.Context(), 0, batch)...); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			r.Look()
			for range 40 {
				<-done
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("window %d: it took %v", window, took)
			}
			r.stop()
		})
	}
}

func TestWindowBytes(t *testing.T) {
	inBubble(t, Config{Window: 100, WindowBytes: 20, Batch: 8, BatchBytes: 1 << 20}, func(r *rig) {
		r.put(r.message("123456", "a@example.net", "b@example.net"))
		large := r.put(r.message("1234567"))
		r.put(r.message("1234"))
		r.want(Stats{InHand: 4, Bytes: 10})
		a, b, other, small := r.take(), r.take(), r.take(), r.take()
		if a.Content() == nil || b.Content() == nil || small.Content() == nil {
			t.Error("content that has room is not kept")
		}
		if other.Content() != nil || other.Message != large.Message {
			t.Error("content beyond the window is kept")
		}
		c, err := r.store.Content(r.Context(), large.Message.ID)
		if err != nil {
			t.Fatal(err)
		}
		rc, err := c.Open()
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(rc); string(text) != "1234567" || err != nil {
			t.Errorf("the store has %q, %v", text, err)
		}
		r.settle(a, relay.EventDelivered)
		r.want(Stats{InHand: 3, InFlight: 3, Peak: 4, Bytes: 10})
		r.settle(b, relay.EventDelivered)
		r.settle(small, relay.EventDelivered)
		r.settle(other, relay.EventDelivered)
		r.want(Stats{Peak: 4})
	})
}

func TestDeferredComesBackWhenDue(t *testing.T) {
	inBubble(t, usual, func(r *rig) {
		for i, wait := range []time.Duration{10 * time.Minute, 7 * time.Second, 90 * time.Second} {
			s := r.put(r.message("x"))
			for n := range 2 {
				it := r.take()
				if it.Delivery.Attempts != n || (it.Content() != nil) != (n == 0) || it.Message.ID != s.Message.ID {
					t.Errorf("%d: attempt %d finds %+v", i, n+1, it.Delivery)
				}
				o := r.outcome(it.Delivery.ID, relay.EventDeferred)
				o.Due = time.Now().Add(wait)
				if err := r.Settle(r.Context(), o); err != nil {
					t.Fatal(err)
				}
				r.want(Stats{Peak: 1})
				time.Sleep(wait - time.Millisecond)
				if it := r.next(); it != nil {
					t.Fatalf("%s comes too early", it.Delivery.ID)
				}
				time.Sleep(10 * time.Millisecond)
			}
			r.settle(r.take(), relay.EventDelivered)
		}
	})
}

func TestFutureAndHeldWaitInTheStore(t *testing.T) {
	inBubble(t, usual, func(r *rig) {
		later, held := r.message("x", "a@example.net", "b@example.net"), r.message("x")
		for _, d := range later.Deliveries {
			d.Due = d.Due.Add(10 * time.Minute)
		}
		held.Deliveries[0].State = relay.Held
		r.put(later)
		r.put(held)
		r.want(Stats{})
		time.Sleep(10*time.Minute - time.Millisecond)
		if it := r.next(); it != nil {
			t.Fatalf("%s comes too early", it.Delivery.ID)
		}
		time.Sleep(10 * time.Millisecond)
		r.settle(r.take(), relay.EventDelivered)
		r.settle(r.take(), relay.EventDelivered)
		time.Sleep(10 * time.Minute)
		if it := r.next(); it != nil {
			t.Errorf("held %s comes", it.Delivery.ID)
		}
	})
}

// What comes in before Run, or was left by an earlier life, is claimed.
func TestRunClaimsWhatIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, account, lease := open(t, filepath.Join(t.TempDir(), "mail.db"))
		defer db.Close()
		const many = 1200 // more than one claim
		usual := usual
		usual.Window = 3 * many
		q := New(db, lease, usual, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		var g sync.WaitGroup
		g.Go(func() { _ = q.Write(ctx) })
		var batch []*relay.Submission
		for range many - 1 {
			s := storetest.Submission(account, time.Now().Truncate(time.Microsecond), []byte("x"), "a@example.net")
			s.InHand = false
			batch = append(batch, s)
		}
		if err := errors.Join(db.Put(ctx, 0, batch)...); err != nil {
			t.Fatal(err)
		}
		if err := q.Put(ctx, storetest.Submission(account, time.Now().Truncate(time.Microsecond), []byte("x"), "b@example.net")); err != nil {
			t.Fatal(err)
		}
		items := make(chan *Item, many)
		g.Go(func() { _ = q.Run(ctx, func(it *Item) { items <- it }) })
		seen := map[relay.DeliveryID]bool{}
		for range many {
			seen[(<-items).Delivery.ID] = true
		}
		if len(seen) != many || q.Stats().InHand != many {
			t.Errorf("%d of %d came, %d in hand", len(seen), many, q.Stats().InHand)
		}
		cancel()
		g.Wait()
	})
}

func TestClaimTriesOn(t *testing.T) {
	inBubble(t, usual, func(r *rig) {
		r.store.claim.set(func() error { return errors.New("disk on fire") })
		s := r.message("x")
		s.Deliveries[0].Due = s.Deliveries[0].Due.Add(time.Minute)
		r.put(s)
		time.Sleep(3 * time.Minute)
		if it := r.next(); it != nil {
			t.Fatalf("%s comes", it.Delivery.ID)
		}
		r.store.claim.clear()
		time.Sleep(1001 * time.Millisecond)
		r.take()
		r.stop()
		if n := strings.Count(r.logged.String(), "disk on fire"); n != 1 {
			t.Errorf("told %d times; want once:\n%s", n, r.logged)
		}
	})
}

// Another node, or another process, puts something without our knowing.
func TestClaimLooksByItself(t *testing.T) {
	inBubble(t, usual, func(r *rig) {
		s := r.message("x")
		s.InHand = false
		if err := r.store.DB.Put(r.Context(), 0, []*relay.Submission{s})[0]; err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute + time.Millisecond)
		r.settle(r.take(), relay.EventDelivered)
	})
}
