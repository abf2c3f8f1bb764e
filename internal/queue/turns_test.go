package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postrider/internal/relay"
	"postrider/internal/store"
	"postrider/internal/store/storetest"
)

// backlog puts n messages of an account into the store that nobody has in hand.
func (r *rig) backlog(n int, account relay.ID, stream relay.Stream, domain func(i int) string) {
	r.Helper()
	var batch []*relay.Submission
	for i := range n {
		s := storetest.Submission(account, time.Now().Truncate(time.Microsecond), []byte("x"), "x@"+domain(i))
		s.Message.Stream, s.Deliveries[0].Stream = stream, stream
		batch = append(batch, s)
	}
	if err := errors.Join(r.store.DB.Put(r.Context(), 0, batch)...); err != nil {
		r.Fatal(err)
	}
	r.Look()
}

func (r *rig) other(name string) relay.ID {
	r.Helper()
	id, err := r.store.EnsureAccount(r.Context(), name)
	if err != nil {
		r.Fatal(err)
	}
	return id
}

// ready is all that is ready now.
func (r *rig) ready() (items []*Item) {
	for it := r.next(); it != nil; it = r.next() {
		items = append(items, it)
	}
	return items
}

// A hog's backlog, however long, leaves room for all others: its own urgent mail,
// other accounts, each at once.
func TestHogLeavesRoom(t *testing.T) {
	for _, tt := range []struct {
		name   string
		domain func(i int) string
		site   string
		most   int
	}{
		{"one domain", func(int) string { return "slow.test" }, "", 50},
		{"many domains", func(i int) string { return fmt.Sprintf("d%d.test", i) }, "", 75},
		{"many domains at one site", func(i int) string { return fmt.Sprintf("d%d.test", i) }, "slow", 50},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := usual
			c.Site = func(string) string { return tt.site }
			inBubble(t, c, func(r *rig) {
				r.backlog(400, r.account, relay.Broadcast, tt.domain)
				for range 20 { // new mail takes nothing from it
					s := r.message("x", "x@"+tt.domain(7))
					s.Message.Stream, s.Deliveries[0].Stream = relay.Broadcast, relay.Broadcast
					r.put(s)
				}
				time.Sleep(10 * time.Second)
				hogs := r.ready()
				if n := len(hogs); n > tt.most || n < tt.most*9/10 {
					t.Errorf("the hog has %d of 100; want %d", n, tt.most)
				}
				other := r.other("other")
				start := time.Now()
				for i, s := range []*relay.Submission{r.message("x", "x@"+tt.domain(1)),
					storetest.Submission(other, time.Now().Truncate(time.Microsecond), []byte("x"), "x@"+tt.domain(2)), r.message("x", "x@fresh.test")} {
					r.put(s)
					it := r.next()
					if it == nil || it.Delivery != s.Deliveries[0] || time.Since(start) != 0 {
						t.Fatalf("%d: %+v comes after %v", i, it, time.Since(start))
					}
				}
				// What one of them leaves behind in the store comes at once, too.
				r.backlog(1, other, relay.Broadcast, func(int) string { return "late.test" })
				if it := r.next(); it == nil || it.Delivery.Account != other {
					t.Fatalf("%+v comes", it)
				}
				// And the hog goes on as fast as it gets rid of what it has.
				seen := len(hogs)
				for len(hogs) > 0 {
					for _, it := range hogs {
						if !r.Begin(it) {
							t.Fatal("can't begin")
						}
						r.settle(it, relay.EventDelivered)
					}
					hogs = r.ready()
					seen += len(hogs)
				}
				if took := time.Since(start); seen != 420 || took > time.Second {
					t.Errorf("%d of 420 came in %v", seen, took)
				}
			})
		})
	}
}

// A dead domain's backlog is tried now and then, a few at a time; what has expired
// near its head is seen all the same, new mail is tried at once, and one success
// sets it going.
func TestDeadDomainBacksOff(t *testing.T) {
	inBubble(t, usual, func(r *rig) {
		r.backlog(300, r.account, relay.Transactional, func(int) string { return "dead.test" })
		fail := func(items []*Item) {
			for _, it := range items {
				if !r.Begin(it) {
					t.Fatal("can't begin")
				}
				o := r.outcome(it.Delivery.ID, relay.EventDeferred)
				o.Due, o.Attempt.Stage = time.Now().Add(4*time.Hour), "connect"
				if err := r.Settle(r.Context(), o); err != nil {
					t.Fatal(err)
				}
			}
		}
		tried := 0
		start := time.Now()
		for time.Since(start) < 3*time.Minute {
			items := r.ready()
			tried += len(items)
			fail(items)
			time.Sleep(100 * time.Millisecond)
		}
		if tried < 50+6*8 || tried > 50+10*8 {
			t.Errorf("%d were tried in three minutes", tried)
		}
		s := r.put(r.message("x", "x@dead.test"))
		it := r.next()
		if it == nil || it.Delivery != s.Deliveries[0] {
			t.Fatal("new mail for a dead domain is not tried at once")
		}
		r.Begin(it)
		r.settle(it, relay.EventDelivered)
		r.backlog(1, r.account, relay.Transactional, func(int) string { return "wake.test" })
		came := 0
		for items := r.ready(); len(items) > 0; items = r.ready() {
			for _, it := range items {
				r.Begin(it)
				r.settle(it, relay.EventDelivered)
			}
			came += len(items)
		}
		if came != 300-tried+1 {
			t.Errorf("%d came when it was alive again; want %d", came, 300-tried+1)
		}
	})
}

// A write that failed may have been done all the same: what it has leased is found
// and delivered.
func TestDoubtfulCommits(t *testing.T) {
	away := &relay.Error{Code: relay.Unavailable, Text: "The store can't be reached.", Advice: "Wait."}
	t.Run("put", func(t *testing.T) {
		inBubble(t, usual, func(r *rig) {
			r.store.lost.set(func(err error) error { return away })
			s := r.message("x", "a@example.net", "b@example.net")
			wantCode(t, "put", r.Put(r.Context(), s), relay.Unavailable)
			r.store.lost.clear()
			time.Sleep(time.Second)
			r.settle(r.take(), relay.EventDelivered)
			r.settle(r.take(), relay.EventDelivered)
			r.want(Stats{Peak: 1})
		})
	})
	t.Run("claim", func(t *testing.T) {
		inBubble(t, usual, func(r *rig) {
			r.store.taken.set(func(c []relay.Claimed) {
				if len(c) > 0 {
					r.store.claim.set(func() error { return away })
				}
			})
			r.store.lostClaim.set(func(err error) error { return away })
			r.backlog(3, r.account, relay.Transactional, func(int) string { return "x.test" })
			time.Sleep(10 * time.Second)
			if it := r.next(); it != nil {
				t.Fatalf("%s comes", it.Delivery.ID)
			}
			r.store.claim.clear()
			r.store.taken.clear()
			r.store.lostClaim.clear()
			time.Sleep(2 * time.Second)
			for range 3 {
				r.settle(r.take(), relay.EventDelivered)
			}
			r.want(Stats{Peak: 1})
		})
	})
}

func TestSuspendAndResume(t *testing.T) {
	inBubble(t, usual, func(r *rig) {
		waits := r.put(r.message("x")).Deliveries[0].ID
		unbegun := r.next()
		flying := r.put(r.message("y")).Deliveries[0].ID
		flies := r.take()
		lands := r.put(r.message("z")).Deliveries[0].ID
		landing := r.take()
		r.Suspend(r.Context())
		r.want(Stats{InHand: 2, InFlight: 2, Peak: 2, Bytes: 2})
		if r.Begin(unbegun) {
			t.Error("an attempt begins while the node is suspended")
		}
		wantCode(t, "put while suspended", r.Put(r.Context(), r.message("x")), relay.Unavailable)
		if held, err := r.store.Held(r.Context(), r.lease); err != nil || len(held) != 3 {
			t.Errorf("%d are held, %v: what is forgotten must not be given back", len(held), err)
		}
		r.settle(landing, relay.EventDelivered) // the old lease still holds
		time.Sleep(time.Hour)
		if it := r.next(); it != nil {
			t.Errorf("%s comes while the node is suspended", it.Delivery.ID)
		}
		lease, err := r.store.Join(r.Context(), "node")
		if err != nil {
			t.Fatal(err)
		}
		r.Resume(lease)
		it := r.take()
		if it.Delivery.ID != waits || it == unbegun {
			t.Errorf("%s comes", it.Delivery.ID)
		}
		if again := r.next(); again != nil {
			t.Errorf("%s comes, while its attempt is still under way", again.Delivery.ID)
		}
		if held, err := r.store.Held(r.Context(), lease); err != nil || len(held) != 2 {
			t.Errorf("%d are held, %v; want what is new and what was adopted", len(held), err)
		}
		r.settle(flies, relay.EventDelivered)
		r.settle(it, relay.EventDelivered)
		r.want(Stats{Peak: 2})
		for _, id := range []relay.DeliveryID{waits, flying, lands} {
			if s := r.state(id); s != relay.Delivered {
				t.Errorf("%s is %s", id, s)
			}
		}
		r.put(r.message("x"))
		r.settle(r.take(), relay.EventDelivered)
	})
}

// An attempt of an earlier lease that ends while a claim takes its delivery is
// not made again.
func TestAttemptEndsDuringClaim(t *testing.T) {
	for _, kind := range []relay.Kind{relay.EventDelivered, relay.EventDeferred} {
		inBubble(t, usual, func(r *rig) {
			r.put(r.message("x"))
			flies := r.take()
			r.Suspend(r.Context())
			lease, err := r.store.Join(r.Context(), "node")
			if err != nil {
				t.Fatal(err)
			}
			settled := 0
			r.store.taken.set(func(c []relay.Claimed) {
				if len(c) == 1 && settled == 0 {
					settled++
					o := r.outcome(flies.Delivery.ID, kind)
					o.Due = time.Now().Add(time.Hour)
					if err := r.Settle(r.Context(), o); err != nil {
						t.Errorf("settle: %v", err)
					}
				}
			})
			time.Sleep(time.Millisecond)
			r.Resume(lease)
			if it := r.next(); it != nil || settled != 1 {
				t.Errorf("%v comes after its attempt has ended; settled %d", it, settled)
			}
			r.want(Stats{Peak: 1})
			time.Sleep(time.Hour + time.Second)
			if it := r.next(); (it != nil) != (kind == relay.EventDeferred) {
				t.Errorf("an hour later: %v", it)
			}
		})
	}
}

// What is put while the node is suspended half way is neither lost nor stuck.
func TestSuspendDuringPut(t *testing.T) {
	for name, stop := range map[string]func(r *rig){
		"suspend": func(r *rig) { r.Suspend(r.Context()) },
		"drain":   func(r *rig) { _ = r.Drain(r.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, usual, func(r *rig) {
				r.store.put.set(func([]*relay.Submission) []error {
					stop(r)
					if name == "suspend" {
						r.Resume(r.lease)
					}
					return nil
				})
				r.put(r.message("x"))
				r.store.put.clear()
				time.Sleep(time.Second)
				if it := r.next(); name == "drain" {
					if it != nil && r.Begin(it) {
						t.Error("a drained node begins an attempt")
					}
					if held, err := r.store.Held(r.Context(), r.lease); err != nil || len(held) != 0 {
						t.Errorf("a drained node holds %d, %v", len(held), err)
					}
					r.Resume(r.lease)
				} else if it != nil && r.Begin(it) {
					r.settle(it, relay.EventDelivered)
				}
				time.Sleep(time.Second)
				for _, it := range r.ready() {
					if r.Begin(it) {
						r.settle(it, relay.EventDelivered)
					}
				}
				r.want(Stats{Peak: 1})
				if held, err := r.store.Held(r.Context(), r.lease); err != nil || len(held) != 0 {
					t.Errorf("%d are stuck, %v", len(held), err)
				}
			})
		})
	}
}

// TestTwoNodes lets two queues work on one store, with everything that may happen
// to a delivery: none is in two hands, none is lost, and all end.
func TestTwoNodes(t *testing.T) {
	for seed := range uint64(2) {
		synctest.Test(t, func(t *testing.T) { twoNodes(t, rand.New(rand.NewPCG(seed, 7))) })
	}
}

func twoNodes(t *testing.T, random *rand.Rand) {
	db, account, _ := open(t, filepath.Join(t.TempDir(), "mail.db"))
	defer db.Close()
	w := &world{T: t, random: random, hands: map[relay.DeliveryID][2]bool{}, loose: map[relay.DeliveryID]bool{}, ended: map[relay.DeliveryID]bool{}, put: map[relay.DeliveryID]bool{}}
	ctx, stop := context.WithCancel(t.Context())
	var run sync.WaitGroup
	var nodes []*Queue
	last := int64(100) // lease
	for n := range 2 {
		last++
		q := New(db, last, Config{Window: 12, WindowBytes: 1 << 20, Batch: 8, BatchBytes: 1 << 20}, slog.New(slog.DiscardHandler))
		run.Go(func() { _ = q.Write(ctx) })
		run.Go(func() {
			_ = q.Run(ctx, func(it *Item) { run.Go(func() { w.attempt(ctx, n, q, it) }) })
		})
		nodes = append(nodes, q)
	}
	accounts := []relay.ID{account}
	for _, name := range []string{"b", "c"} {
		id, err := db.EnsureAccount(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		accounts = append(accounts, id)
	}
	for range 150 {
		n := w.pick(2)
		q := nodes[n]
		switch w.pick(20) {
		case 0:
			q.Suspend(ctx)
			w.loosen(n)
			time.Sleep(time.Duration(w.pick(2000)) * time.Millisecond)
			if err := db.Leave(ctx, q.lease); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(w.pick(2000)) * time.Millisecond)
			last++
			q.Resume(last)
		case 1:
			if err := q.Drain(ctx); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Duration(w.pick(2000)) * time.Millisecond)
			q.Resume(q.lease)
		case 2, 3, 4:
			if id, ok := w.any(); ok {
				kind := []relay.Kind{relay.EventHeld, relay.EventReleased, relay.EventReleased, relay.EventCancelled}[w.pick(4)]
				if s, err := db.Story(ctx, relay.Everyone, id.Message); err != nil {
					t.Error(err)
				} else if q.Order(ctx, s.Message.Account, id, kind) == nil && kind == relay.EventCancelled {
					w.end(id)
				}
			}
		default:
			var to []string
			for range 1 + w.pick(3) {
				to = append(to, fmt.Sprintf("x@d%d.test", w.pick(5)))
			}
			s := storetest.Submission(accounts[w.pick(3)], time.Now().Truncate(time.Microsecond), []byte("x"), to...)
			s.Message.Stream = relay.Stream(1 + w.pick(2))
			for _, d := range s.Deliveries {
				d.Stream = s.Message.Stream
				d.Due = d.Due.Add(time.Duration(w.pick(3)*w.pick(30)) * time.Second)
			}
			if q.Put(ctx, s) == nil {
				w.accepted(s)
			}
		}
		time.Sleep(time.Duration(w.pick(300)) * time.Millisecond)
	}
	// In the end all that is held is released, and everything is delivered.
	for range 60 {
		time.Sleep(time.Minute)
		for id := range w.put {
			if s, err := db.Story(ctx, relay.Everyone, id.Message); err != nil {
				t.Error(err)
			} else if s.Deliveries[id.N-1].State == relay.Held {
				if err := nodes[0].Order(ctx, s.Message.Account, id, relay.EventReleased); err != nil {
					t.Error(err)
				}
			}
		}
		if w.over() {
			break
		}
	}
	if !w.over() {
		t.Errorf("%d of %d have ended", len(w.ended), len(w.put))
	}
	stop()
	run.Wait()
	for _, q := range nodes {
		if s := q.Stats(); s.InHand != 0 || s.Bytes != 0 || q.room.Used() != 0 {
			t.Errorf("left behind: %+v, %d in the room", s, q.room.Used())
		}
	}
}

// world is what the receivers see.
type world struct {
	*testing.T
	mu     sync.Mutex
	random *rand.Rand
	hands  map[relay.DeliveryID][2]bool // attempts under way, by node
	loose  map[relay.DeliveryID]bool    // one was under way at a node that lost its lease: the other node may make one as well
	put    map[relay.DeliveryID]bool
	ended  map[relay.DeliveryID]bool
}

func (w *world) pick(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.random.IntN(n)
}

func (w *world) any() (id relay.DeliveryID, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range w.put {
		if !w.ended[id] {
			return id, true
		}
	}
	return id, false
}

func (w *world) accepted(s *relay.Submission) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range s.Deliveries {
		w.put[d.ID] = true
	}
}

func (w *world) end(id relay.DeliveryID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended[id] {
		w.Errorf("%s ends twice", id)
	}
	w.ended[id] = true
}

func (w *world) loosen(node int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, h := range w.hands {
		if h[node] {
			w.loose[id] = true
		}
	}
}

func (w *world) over() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.ended) == len(w.put)
}

// attempt is what the dispatcher does, with any end.
func (w *world) attempt(ctx context.Context, node int, q *Queue, it *Item) {
	time.Sleep(time.Duration(w.pick(1000)) * time.Millisecond)
	if !q.Begin(it) {
		return
	}
	id := it.Delivery.ID
	w.mu.Lock()
	h := w.hands[id]
	if h[node] || h[1-node] && !w.loose[id] {
		w.Errorf("%s is in two hands", id)
	}
	h[node] = true
	w.hands[id] = h
	w.mu.Unlock()
	time.Sleep(time.Duration(w.pick(1500)) * time.Millisecond)
	o := relay.Outcome{Delivery: id, Account: it.Delivery.Account, Kind: relay.EventDelivered, At: time.Now(),
		Attempt: &relay.Attempt{Started: time.Now(), Ended: time.Now(), Stage: "dot"}}
	if w.pick(3) > 0 && it.Delivery.Attempts < 5 {
		o.Kind, o.Due, o.Attempt.Stage = relay.EventDeferred, time.Now().Add(time.Duration(w.pick(20))*time.Second), []string{"connect", "rcpt"}[w.pick(2)]
	}
	w.mu.Lock()
	h = w.hands[id]
	h[node] = false // another may begin as soon as this is stored
	w.hands[id] = h
	w.mu.Unlock()
	if err := q.Settle(ctx, o); err != nil && !errors.Is(err, store.ErrSettled) {
		w.Errorf("settle: %v", err)
	} else if err == nil && o.Kind == relay.EventDelivered {
		w.end(id)
	}
}

// What is in hand is refilled as soon as it runs low, though the claimer rests.
func TestRestEndsWhenLittleIsLeft(t *testing.T) {
	c := usual
	c.Window = 2000
	inBubble(t, c, func(r *rig) {
		r.store.taken.set(func([]relay.Claimed) { time.Sleep(50 * time.Millisecond) }) // each claim takes some time
		r.backlog(3000, r.account, relay.Broadcast, func(int) string { return "x.test" })
		start, came := time.Now(), 0
		for came < 3000 {
			select {
			case it := <-r.items:
				came++
				if !r.Begin(it) {
					t.Fatal("can't begin")
				}
				r.settle(it, relay.EventDelivered)
			case <-time.After(time.Minute):
				t.Fatalf("%d of 3000 came", came)
			}
		}
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}
