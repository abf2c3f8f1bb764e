package schedule

import (
	"slices"
	"testing"
	"time"

	"postrider/internal/relay"
)

func TestRetryFollowsThePlan(t *testing.T) {
	r := Retry{Waits: []time.Duration{time.Minute, 5 * time.Minute, time.Hour}}
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	far := now.Add(5 * 24 * time.Hour)
	for _, tt := range []struct {
		attempts int
		chance   float64
		want     time.Duration
	}{
		{1, 0.5, time.Minute},
		{2, 0.5, 5 * time.Minute},
		{3, 0.5, time.Hour},
		{9, 0.5, time.Hour},
		{0, 0.5, time.Minute},
		{3, 0, 54 * time.Minute},
	} {
		got, ok := r.Next(now, far, tt.attempts, tt.chance)
		if d := got.Sub(now).Round(time.Millisecond); !ok || d != tt.want {
			t.Errorf("after %d attempts, chance %v: %v, %v; want %v", tt.attempts, tt.chance, d, ok, tt.want)
		}
	}
}

func TestRetryEndsAtExpiry(t *testing.T) {
	r := Retry{Waits: []time.Duration{time.Minute, time.Hour}}
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	expires := now.Add(20 * time.Minute)
	last, ok := r.Next(now, expires, 2, 0.5)
	if !ok || last != expires.Add(-time.Second) {
		t.Fatalf("a wait beyond the end: %v, %v; want one last try just before it", last, ok)
	}
	if next, ok := r.Next(last, expires, 3, 0.5); ok {
		t.Fatalf("after the last try: another one at %v; want none", next)
	}
	if _, ok := r.Next(expires.Add(time.Hour), expires, 3, 0.5); ok {
		t.Fatal("long after the end: another try; want none")
	}
}

func TestLineTakesTurns(t *testing.T) {
	a, b := relay.ID{1}, relay.ID{2}
	var l Line[string]
	for _, s := range []string{"a1", "a2", "a3", "a4"} {
		l.Push(relay.Broadcast, a, s)
	}
	l.Push(relay.Broadcast, b, "b1")
	l.Push(relay.Transactional, b, "urgent")
	if !l.Urgent() || l.Len() != 6 {
		t.Fatalf("urgent %v, length %d; want true, 6", l.Urgent(), l.Len())
	}
	var got []string
	for {
		s, ok := l.Pop()
		if !ok {
			break
		}
		got = append(got, s)
	}
	if want := []string{"urgent", "a1", "b1", "a2", "a3", "a4"}; !slices.Equal(got, want) {
		t.Fatalf("order %v; want %v", got, want)
	}
	if l.Len() != 0 || l.Urgent() {
		t.Fatalf("length %d, urgent %v at the end", l.Len(), l.Urgent())
	}
}

func TestLineKeepsOrderOfOneAccount(t *testing.T) {
	var l Line[int]
	next := 0
	for i := range 10_000 {
		l.Push(relay.Transactional, relay.ID{1}, i)
		if i%3 == 0 {
			continue
		}
		got, ok := l.Pop()
		if !ok || got != next {
			t.Fatalf("got %d, %v; want %d", got, ok, next)
		}
		next++
	}
	for ; l.Len() > 0; next++ {
		if got, _ := l.Pop(); got != next {
			t.Fatalf("got %d; want %d", got, next)
		}
	}
	if next != 10_000 {
		t.Fatalf("%d came out of 10000", next)
	}
}

func TestPaceGrowsAndShrinks(t *testing.T) {
	p := NewPace(20)
	if p.Limit() != startPace {
		t.Fatalf("starts with %d", p.Limit())
	}
	for range 1000 {
		p.Good()
	}
	if p.Limit() != 20 {
		t.Fatalf("after much success: %d; want 20", p.Limit())
	}
	p.Bad()
	if p.Limit() != 10 {
		t.Fatalf("after one push back: %d; want 10", p.Limit())
	}
	for range 10 {
		p.Bad()
	}
	if p.Limit() != 1 {
		t.Fatalf("after many: %d; want 1", p.Limit())
	}
	if one := NewPace(1); one.Limit() != 1 {
		t.Fatalf("max 1 starts with %d", one.Limit())
	}
}
