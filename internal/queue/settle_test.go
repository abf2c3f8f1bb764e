package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postrider/internal/relay"
	"postrider/internal/store"
	"postrider/internal/store/storetest"
)

func TestSettleTriesOnWhileTheStoreIsAway(t *testing.T) {
	inBubble(t, usual, func(r *rig) {
		r.put(r.message("x"))
		it := r.take()
		var tries atomic.Int32
		r.store.settle.set(func(_ int64, b []relay.Outcome) []error {
			tries.Add(1)
			return all(b, errors.New("disk on fire"))
		})
		var g sync.WaitGroup
		g.Go(func() { r.settle(it, relay.EventDelivered) })
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if n := tries.Load(); n < 60 || n > 100 {
			t.Errorf("%d tries in five minutes; want one in about five seconds", n)
		}
		r.want(Stats{InHand: 1, InFlight: 1, Peak: 1, Bytes: 1}) // not forgotten
		r.store.settle.clear()
		g.Wait()
		r.want(Stats{Peak: 1})
		if s := r.state(it.Delivery.ID); s != relay.Delivered {
			t.Errorf("state %s", s)
		}
		r.stop()
		if log := r.logged.String(); strings.Count(log, "trying on") != 1 || strings.Count(log, "stored again") != 1 {
			t.Errorf("want the trouble and its end told once each:\n%s", log)
		}
	})
}

func TestSettleStopsWhereTryingOnIsOfNoUse(t *testing.T) {
	for _, err := range []error{
		fmt.Errorf("settle: %w", store.ErrSettled),
		&relay.Error{Code: relay.NotFound, Text: "Gone."},
		&relay.Error{Code: relay.Invalid, Text: "Nonsense."},
	} {
		inBubble(t, usual, func(r *rig) {
			r.put(r.message("x"))
			it := r.take()
			tries := 0
			r.store.settle.set(func(_ int64, b []relay.Outcome) []error { tries++; return all(b, err) })
			start := time.Now()
			if got := r.Settle(r.Context(), r.outcome(it.Delivery.ID, relay.EventDelivered)); !errors.Is(got, err) || tries != 1 || time.Since(start) != 0 {
				t.Errorf("%v: got %v after %d tries and %v", err, got, tries, time.Since(start))
			}
			r.want(Stats{Peak: 1})
		})
	}
}

func TestSettleTwiceIsHarmless(t *testing.T) {
	inBubble(t, usual, func(r *rig) {
		r.put(r.message("x"))
		it := r.take()
		r.settle(it, relay.EventDelivered)
		if err := r.Settle(r.Context(), r.outcome(it.Delivery.ID, relay.EventBounced)); !errors.Is(err, store.ErrSettled) {
			t.Errorf("second outcome: %v", err)
		}
		if s := r.state(it.Delivery.ID); s != relay.Delivered {
			t.Errorf("state %s", s)
		}
		r.want(Stats{Peak: 1})
	})
}

// A shutdown does not wait for ever for a store that stays away.
func TestSettleGivesUpAfterTheEnd(t *testing.T) {
	for _, tt := range []struct {
		name  string
		end   func(r *rig, cancel func())
		after time.Duration
	}{
		{"its context ends", func(_ *rig, cancel func()) { cancel() }, time.Second},
		{"Run and Write have ended", func(r *rig, _ func()) { r.stop() }, 6 * time.Second},
		{"Run has ended", func(r *rig, _ func()) { go r.stopRun() }, lastTries + 6*time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, usual, func(r *rig) {
				r.put(r.message("x"))
				it := r.take()
				r.store.settle.set(func(_ int64, b []relay.Outcome) []error { return all(b, errors.New("disk on fire")) })
				ctx, cancel := context.WithCancel(r.Context())
				defer cancel()
				result := make(chan error, 1)
				go func() { result <- r.Settle(ctx, r.outcome(it.Delivery.ID, relay.EventDelivered)) }()
				time.Sleep(time.Minute)
				start := time.Now()
				tt.end(r, cancel)
				if err := <-result; err == nil {
					t.Error("an outcome that is not stored counts as settled")
				}
				if took := time.Since(start); took > tt.after {
					t.Errorf("it took %v", took)
				}
				r.want(Stats{Peak: 1})
			})
		})
	}
}

// A delivery that comes back before its last outcome's Settle has returned is
// another item.
func TestSettleSparesWhatWasClaimedAnew(t *testing.T) {
	inBubble(t, usual, func(r *rig) {
		r.put(r.message("x"))
		it := r.take()
		claimed := make(chan struct{})
		r.store.taken.set(func(c []relay.Claimed) {
			if len(c) == 1 {
				r.store.taken.clear()
				close(claimed)
			}
		})
		r.store.settled.set(func(int64, []relay.Outcome) {
			r.store.settled.clear()
			r.Look()
			<-claimed
			time.Sleep(time.Millisecond) // for it to be taken in hand
		})
		r.settle(it, relay.EventDeferred) // due at once
		again := r.take()
		if again == it {
			t.Error("the old item comes again")
		}
		r.want(Stats{InHand: 1, InFlight: 1, Peak: 1})
		r.settle(again, relay.EventDelivered)
		r.want(Stats{Peak: 1})
		if s := r.state(it.Delivery.ID); s != relay.Delivered {
			t.Errorf("state %s", s)
		}
	})
}

const (
	hold    = relay.EventHeld
	release = relay.EventReleased
	cancel  = relay.EventCancelled
)

func TestOrder(t *testing.T) {
	// Ways to a delivery in the state that the order meets.
	waiting := func(r *rig) relay.DeliveryID { return r.put(r.message("x")).Deliveries[0].ID }
	flying := func(r *rig) relay.DeliveryID { waiting(r); return r.take().Delivery.ID }
	settled := func(kind relay.Kind) func(r *rig) relay.DeliveryID {
		return func(r *rig) relay.DeliveryID {
			waiting(r)
			it := r.take()
			o := r.outcome(it.Delivery.ID, kind)
			o.Due = time.Now().Add(time.Hour)
			if err := r.Settle(r.Context(), o); err != nil {
				r.Fatal(err)
			}
			return o.Delivery
		}
	}
	held := func(r *rig) relay.DeliveryID {
		id := waiting(r)
		if err := r.Order(r.Context(), r.account, id, hold); err != nil {
			r.Fatal(err)
		}
		return id
	}
	future := func(r *rig) relay.DeliveryID {
		s := r.message("x")
		s.Deliveries[0].Due = time.Now().Add(time.Hour)
		return r.put(s).Deliveries[0].ID
	}
	unknown := func(*rig) relay.DeliveryID { return relay.DeliveryID{Message: relay.ID{9}, N: 1} }
	foreign := func(r *rig) relay.DeliveryID { id := future(r); r.account = relay.ID{9}; return id }

	const again = true // the delivery is handed out (once more) after the order
	for _, tt := range []struct {
		name  string
		given func(*rig) relay.DeliveryID
		order relay.Kind
		code  relay.Code // empty: done
		state relay.State
		again bool
	}{
		{"hold what waits in hand", waiting, hold, "", relay.Held, false},
		{"release what waits in hand", waiting, release, "", relay.Queued, again},
		{"cancel what waits in hand", waiting, cancel, "", relay.Cancelled, false},
		{"hold in flight", flying, hold, relay.Conflict, relay.Queued, false},
		{"release in flight", flying, release, relay.Conflict, relay.Queued, false},
		{"cancel in flight", flying, cancel, relay.Conflict, relay.Queued, false},
		{"hold what is deferred", settled(relay.EventDeferred), hold, "", relay.Held, false},
		{"retry now", settled(relay.EventDeferred), release, "", relay.Queued, again},
		{"cancel what is deferred", settled(relay.EventDeferred), cancel, "", relay.Cancelled, false},
		{"hold what is to be sent later", future, hold, "", relay.Held, false},
		{"send now", future, release, "", relay.Queued, again},
		{"cancel what is to be sent later", future, cancel, "", relay.Cancelled, false},
		{"release what is held", held, release, "", relay.Queued, again},
		{"cancel what is held", held, cancel, "", relay.Cancelled, false},
		{"hold what is delivered", settled(relay.EventDelivered), hold, relay.Conflict, relay.Delivered, false},
		{"release what is bounced", settled(relay.EventBounced), release, relay.Conflict, relay.Bounced, false},
		{"cancel what is expired", settled(relay.EventExpired), cancel, relay.Conflict, relay.Expired, false},
		{"cancel what is cancelled", settled(relay.EventCancelled), cancel, relay.Conflict, relay.Cancelled, false},
		{"cancel what is unknown", unknown, cancel, relay.NotFound, 0, false},
		{"cancel what is another's", foreign, cancel, relay.NotFound, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, usual, func(r *rig) {
				id := tt.given(r)
				time.Sleep(time.Second) // orders are told apart by their time
				err := r.Order(r.Context(), r.account, id, tt.order)
				if tt.code == "" && err != nil || tt.code != "" && relay.CodeOf(err) != tt.code {
					t.Fatalf("error %v; want code %q", err, tt.code)
				}
				if tt.state != 0 {
					if s := r.state(id); s != tt.state {
						t.Errorf("state %s; want %s", s, tt.state)
					}
				}
				time.Sleep(time.Second)
				begun := 0
				for it := r.next(); it != nil; it = r.next() {
					if it.Delivery.ID == id && r.Begin(it) {
						begun++
						r.settle(it, relay.EventDelivered)
					}
				}
				if (begun == 1) != tt.again || begun > 1 {
					t.Errorf("%d attempts after the order; want one: %v", begun, tt.again)
				}
			})
		})
	}
}

// What gets another time is handed out then, and neither before nor after.
func TestReschedule(t *testing.T) {
	for _, after := range []time.Duration{time.Minute, 2 * time.Hour} {
		inBubble(t, usual, func(r *rig) {
			s := r.message("x")
			s.Deliveries[0].Due = time.Now().Add(time.Hour)
			d := r.put(s).Deliveries[0]
			time.Sleep(time.Second)
			due := time.Now().Add(after)
			if err := r.Reschedule(r.Context(), []*relay.Delivery{d}, due)[0]; err != nil {
				t.Fatal(err)
			}
			time.Sleep(after - 10*time.Millisecond)
			if it := r.next(); it != nil {
				t.Errorf("it is handed out before %s", due)
			}
			time.Sleep(time.Second)
			it := r.next()
			if it == nil || !r.Begin(it) {
				t.Fatal("it is not handed out")
			}
			wantCode(t, "in flight", r.Reschedule(r.Context(), []*relay.Delivery{d}, due.Add(time.Hour))[0], relay.Conflict)
			r.settle(it, relay.EventDelivered)
		})
	}
}

// An order that meets a claim half way must not report what does not happen.
func TestOrderDuringClaim(t *testing.T) {
	for _, order := range []relay.Kind{hold, cancel, release} {
		t.Run(order.String(), func(t *testing.T) {
			inBubble(t, usual, func(r *rig) {
				s := r.message("x")
				s.Deliveries[0].Due = s.Deliveries[0].Due.Add(time.Minute)
				id := r.put(s).Deliveries[0].ID
				var err error
				r.store.taken.set(func(c []relay.Claimed) {
					if len(c) == 1 {
						err = r.Order(r.Context(), r.account, id, order)
					}
				})
				time.Sleep(time.Minute + 10*time.Millisecond)
				it := r.next()
				wantCode(t, "order", err, relay.Conflict)
				if it == nil || !r.Begin(it) {
					t.Fatalf("the delivery whose order was refused is not handed out: %+v", it)
				}
				r.settle(it, relay.EventDelivered)
			})
		})
	}
}

// An order that has taken a delivery out of hand does not get lost with its
// client, nor with a store that is away for a while.
func TestOrderOutlivesItsClient(t *testing.T) {
	inBubble(t, usual, func(r *rig) {
		id := r.put(r.message("x")).Deliveries[0].ID
		ctx, leave := context.WithCancel(r.Context())
		tries := 0
		r.store.settle.set(func(_ int64, b []relay.Outcome) []error {
			leave()
			if tries++; tries < 5 {
				return all(b, errors.New("disk on fire"))
			}
			return nil
		})
		if err := r.Order(ctx, r.account, id, cancel); err != nil {
			t.Errorf("order: %v", err)
		}
		if s := r.state(id); s != relay.Cancelled {
			t.Errorf("state %s", s)
		}
		if it := r.next(); it == nil || r.Begin(it) {
			t.Error("a cancelled delivery can begin")
		}
		r.want(Stats{})
	})
}

func TestDrainGivesBack(t *testing.T) {
	inBubble(t, usual, func(r *rig) {
		waiting := r.put(r.message("x", "a@example.net", "b@example.net", "c@example.net"))
		flying := r.take()
		r.stop()
		unused := r.next()
		if err := r.Drain(r.Context()); err != nil {
			t.Fatal(err)
		}
		r.want(Stats{InHand: 1, InFlight: 1, Peak: 1, Bytes: 1})
		if r.Begin(unused) {
			t.Error("an attempt begins after Drain")
		}
		claimed, err := storetest.Claim(r.Context(), r.store.DB, 99, time.Now(), 10)
		if err != nil || len(claimed) != 2 {
			t.Fatalf("another node finds %d deliveries, %v; want 2", len(claimed), err)
		}
		for _, c := range claimed {
			if c.Message.ID != waiting.Message.ID || c.Delivery.ID == flying.Delivery.ID {
				t.Errorf("another node finds %s", c.Delivery.ID)
			}
		}
		if err := r.Drain(r.Context()); err != nil {
			t.Errorf("draining twice: %v", err)
		}
	})
}

// Whatever the moment of the shutdown: each message that was acknowledged is
// delivered once in this life or is there for the next one, and nothing else is.
func TestShutdownLosesNothing(t *testing.T) {
	for _, round := range []int{0, 10, 30, 60, 120} { // shut down after so many messages
		var mu sync.Mutex
		delivered := map[relay.DeliveryID]int{}
		r := newLive(t, Config{Window: 20, WindowBytes: 100, Batch: 8, BatchBytes: 50}, func(r *rig, it *Item) {
			go func() { // as the dispatcher does
				if !r.Begin(it) {
					return
				}
				kind := relay.EventDelivered
				if it.Delivery.ID.Message[15]%4 == 0 && it.Delivery.Attempts == 0 {
					kind = relay.EventDeferred
				}
				if err := r.Settle(r.Context(), r.outcome(it.Delivery.ID, kind)); err != nil {
					if !errors.Is(err, errStopped) {
						r.Errorf("settle: %v", err)
					}
					return
				}
				if kind == relay.EventDelivered {
					mu.Lock()
					delivered[it.Delivery.ID]++
					mu.Unlock()
				}
			}()
		})
		acknowledged := map[relay.DeliveryID]bool{}
		var g sync.WaitGroup
		enough := make(chan struct{}, 1)
		for range 8 {
			g.Go(func() {
				for i := range 20 {
					s := r.message("x", "a@example.net", "b@example.net")
					err := r.Put(r.Context(), s)
					if err != nil {
						return
					}
					mu.Lock()
					for _, d := range s.Deliveries {
						acknowledged[d.ID] = true
					}
					if len(acknowledged) >= 2*round || i == 19 {
						select {
						case enough <- struct{}{}:
						default:
						}
					}
					mu.Unlock()
				}
			})
		}
		<-enough
		r.stop()
		g.Wait()
		if err := r.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		left := map[relay.DeliveryID]bool{}
		lease, err := r.store.Join(t.Context(), "node") // what was in flight is free now
		if err != nil {
			t.Fatal(err)
		}
		claimed, err := storetest.Claim(t.Context(), r.store.DB, lease, time.Now().Add(time.Hour), 10_000)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range claimed {
			left[c.Delivery.ID] = true
		}
		mu.Lock()
		for id := range acknowledged {
			if left[id] == (delivered[id] == 1) {
				t.Errorf("round %d: %s was delivered %d times, is left: %v", round, id, delivered[id], left[id])
			}
		}
		for id := range left {
			if !acknowledged[id] {
				t.Errorf("round %d: %s was not acknowledged, and is there", round, id)
			}
		}
		mu.Unlock()
	}
}
