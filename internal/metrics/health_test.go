package metrics

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		waits, asked := "starting", 0
		var away error
		h := &Health{
			Waits: func() string { mu.Lock(); defer mu.Unlock(); return waits },
			Store: func(context.Context) error { mu.Lock(); defer mu.Unlock(); asked++; return away },
		}
		want := func(reason string, times int) {
			t.Helper()
			if got := h.Ready(t.Context()); !strings.HasPrefix(got, reason) || reason == "" && got != "" {
				t.Errorf("%q, want %q", got, reason)
			}
			if asked != times {
				t.Errorf("the store was asked %d times, want %d", asked, times)
			}
		}
		want("starting", 0)
		waits = ""
		want("", 1)
		want("", 1) // as a moment ago
		away = errors.New("no route to host")
		want("", 1)
		<-time.After(checkEvery)
		want("the store does not answer: no route to host", 2)
		away = nil
		want("the store does not answer", 2)
		<-time.After(checkEvery)
		want("", 3)
		waits = "draining"
		want("draining", 3)
	})
}

// A store that hangs is away, and does not hang who asks.
func TestHealthOfAStoreThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		h := &Health{Waits: func() string { return "" }, Store: func(ctx context.Context) error { asked++; <-ctx.Done(); return ctx.Err() }}
		start := time.Now()
		for range 50 { // the others get what the first one waited for
			if h.Ready(t.Context()) == "" {
				t.Error("ready without an answer")
			}
		}
		if took := time.Since(start); took != checkTime || asked != 1 {
			t.Errorf("50 questions took %v, and the store was asked %d times", took, asked)
		}
	})
}
