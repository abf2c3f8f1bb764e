package queue

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postrider/internal/relay"
)

// A client that waits for its turn behind a store that hangs is answered once the
// node is suspended; it does not wait for the store to fail once more.
func TestSuspendAnswersThoseWhoWait(t *testing.T) {
	inBubble(t, usual, func(r *rig) {
		gate := make(chan struct{})
		r.store.put.set(func(batch []*relay.Submission) []error {
			<-gate
			return all(batch, error(&relay.Error{Code: relay.Unavailable, Text: "Away.", Advice: "Try again."}))
		})
		var g sync.WaitGroup
		put := func() {
			g.Go(func() { wantCode(t, "put", r.Put(r.Context(), r.message("x")), relay.Unavailable) })
			synctest.Wait()
		}
		put()
		for range 3 {
			put()
		}
		r.Suspend(r.Context())
		r.store.put.set(func(batch []*relay.Submission) []error {
			t.Errorf("%d messages are written after the node was suspended", len(batch))
			return nil
		})
		close(gate)
		g.Wait()
		r.want(Stats{})
	})
}

// Nor does it wait for a second failure where the first one took long.
func TestSlowFailureIsForAllWhoWait(t *testing.T) {
	inBubble(t, usual, func(r *rig) {
		batches := 0
		r.store.put.set(func(batch []*relay.Submission) []error {
			batches++
			time.Sleep(10 * time.Second)
			return all(batch, error(&relay.Error{Code: relay.Unavailable, Text: "Away.", Advice: "Try again."}))
		})
		began := time.Now()
		var g sync.WaitGroup
		for range 4 {
			g.Go(func() { wantCode(t, "put", r.Put(r.Context(), r.message("x")), relay.Unavailable) })
			synctest.Wait()
		}
		g.Wait()
		if took := time.Since(began); took > 11*time.Second || batches != 1 {
			t.Errorf("the last one was answered after %v and %d batches", took, batches)
		}
		r.want(Stats{})
	})
}
