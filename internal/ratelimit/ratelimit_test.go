package ratelimit

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

var noon = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)

// whole is what shares are taken of.
type whole struct{ used, most, fetches int64 }

func (w *whole) take(least, most, want int64) (got, left int64) {
	w.fetches++
	w.used = max(w.used, least)
	got = max(0, min(want, most-w.used))
	w.used += got
	return got, most - w.used
}

func TestBucket(t *testing.T) {
	b := Bucket{Rate: 10, Burst: 50}
	var w whole
	take := func(at time.Duration, n int64) int64 {
		least, most := b.Span(at)
		got, _ := w.take(least, most, n)
		return got
	}
	for _, step := range []struct {
		at        time.Duration
		want, got int64
	}{
		{0, 60, 50},
		{0, 1, 0},
		{100 * time.Millisecond, 5, 1},
		{time.Second, 100, 9},
		{1500 * time.Millisecond, 100, 5},
		{time.Hour, 100, 50}, // full, and not more than that
		{time.Hour, 1, 0},
		{48 * time.Hour, 51, 50},
	} {
		if got := take(step.at, step.want); got != step.got {
			t.Errorf("at %v: %d of %d, want %d", step.at, got, step.want, step.got)
		}
	}
	used := w.used
	for _, step := range []struct {
		n    int64
		want time.Duration
	}{{0, 0}, {1, 100 * time.Millisecond}, {25, 2500 * time.Millisecond}, {50, 5 * time.Second}, {1000, 5 * time.Second}} {
		if got := b.Wait(48*time.Hour, used, step.n); got != step.want {
			t.Errorf("wait for %d: %v, want %v", step.n, got, step.want)
		}
	}
	if got := b.Wait(49*time.Hour, used, 50); got != 0 {
		t.Errorf("wait at a full bucket: %v", got)
	}
}

// Whoever uses much fetches much at once, until little is left; in all nobody
// gets more than there is, and hardly anything is left over.
func TestShare(t *testing.T) {
	for _, most := range []int64{0, 1, 10, 100, 1000, 100_000} {
		w := whole{most: most}
		shares := make([]Share, 3)
		now, accepted, refused := noon, int64(0), 0
		r := rand.New(rand.NewPCG(1, 2))
		for refused < 100 && accepted <= most {
			now = now.Add(100 * time.Microsecond)
			s := &shares[0]
			if n := r.IntN(100); n < 10 {
				s = &shares[1]
			} else if n == 10 {
				s = &shares[2]
			}
			if s.Have() < 1 {
				want := s.Want(now, 1, 2*time.Second, leftOf(s)/64)
				got, left := w.take(0, w.most, want)
				s.Fetched(now, want, got, left)
			}
			if s.Have() < 1 {
				refused++
				if s.Dry() != now {
					t.Errorf("of %d: empty, and it does not say so", most)
				}
				continue
			}
			s.Use(now, 1)
			accepted++
		}
		if accepted > most || accepted < most-most/50 {
			t.Errorf("of %d: %d accepted", most, accepted)
		}
		if most >= 1000 && float64(w.fetches) > 64*math.Log(float64(most)/64)+250 {
			t.Errorf("of %d: %d fetches", most, w.fetches)
		}
		for i := range shares {
			held := shares[i].Have()
			if shares[i].Idle(now, time.Hour) != 0 || shares[i].Idle(now.Add(time.Hour), time.Hour) != held || shares[i].Have() != 0 {
				t.Errorf("of %d: share %d does not give back %d", most, i, held)
			}
		}
	}
}

func leftOf(s *Share) int64 {
	left, _ := s.Left()
	return left
}

func TestShareReturns(t *testing.T) {
	var s Share
	if got := s.Want(noon, 5, time.Second, 100); got != 5 {
		t.Errorf("the first fetch: %d, want what is needed", got)
	}
	s.Fetched(noon, 5, 5, 1000)
	s.Use(noon, 5)
	s.Return(5)
	if s.Have() != 5 || s.Want(noon.Add(time.Second), 3, time.Second, 100) > 3 {
		t.Errorf("after a return: %d there, %d wanted", s.Have(), s.Want(noon.Add(time.Second), 3, time.Second, 100))
	}
	s.Use(noon, 5)
	if got := s.Want(noon.Add(time.Second), 5, 2*time.Second, 100); got != 5+20 { // 10 a second
		t.Errorf("wanted %d in advance", got)
	}
	if got := s.Want(noon.Add(time.Second), 5, 2*time.Second, 0); got != 5 {
		t.Errorf("wanted %d where nothing is fetched in advance", got)
	}
	if leftOf(&s) != 1000 || s.Used() != noon || !s.Dry().IsZero() || s.Drop() != 0 {
		t.Errorf("%+v", s)
	}
}
