package schedule

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"postrider/internal/relay"
)

func part(account byte, place string) Part {
	return Part{Group{relay.Broadcast, relay.ID{account}}, place}
}

// fill lets parts take all that they may, one each in turn.
func fill(r *Room, fraction float64, parts ...Part) {
	for some := true; some; {
		some = false
		for _, p := range parts {
			if r.Quota(p, fraction) > 0 {
				r.Take(p, 1)
				some = true
			}
		}
	}
}

func TestRoomIsShared(t *testing.T) {
	many := func(account byte, n int) (parts []Part) {
		for i := range n {
			parts = append(parts, part(account, fmt.Sprint(i)))
		}
		return parts
	}
	var accounts []Part
	for i := range 9 {
		accounts = append(accounts, part(byte(10+i), "x"))
	}
	for _, tt := range []struct {
		name     string
		size     int64
		fraction float64
		hogs     []Part
		used     int64
	}{
		{"one alone has half", 1000, Whole, many(1, 1), 500},
		{"new mail of one a third", 999, Half, many(1, 1), 333},
		{"two sites of one account", 999, Whole, many(1, 2), 666},
		{"many sites of one account", 1000, Whole, many(1, 500), 750},
		{"new mail of that", 1000, Half, many(1, 500), 600},
		{"nine accounts leave a tenth", 1000, Whole, accounts, 900},
		{"a room for one", 1, Whole, many(1, 3), 1},
		{"a room for two", 2, Half, many(1, 1), 1},
		{"no room", 0, Whole, many(1, 1), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := NewRoom(tt.size)
			fill(r, tt.fraction, tt.hogs...)
			if r.Used() != tt.used {
				t.Errorf("%d are taken; want %d", r.Used(), tt.used)
			}
			newcomer := part(99, "new")
			if q := r.Quota(newcomer, Half); (q == 0) != (r.Free() == 0) {
				t.Errorf("a newcomer may have %d of the %d that are free", q, r.Free())
			}
			for _, p := range tt.hogs {
				r.Take(p, -r.parts[p])
			}
			if r.Used() != 0 || len(r.parts) != 0 || len(r.groups) != 0 {
				t.Errorf("left at the end: %+v", r)
			}
		})
	}
}

// Quota gives at once what could be taken one by one.
func TestRoomQuotaAtOnce(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		r := NewRoom(random.Int64N(300))
		for range 5 {
			p := part(byte(random.IntN(2)), fmt.Sprint(random.IntN(3)))
			fraction := []float64{Half, Whole}[random.IntN(2)]
			r.Take(p, random.Int64N(r.Quota(p, fraction)+1))
			q := r.Quota(p, fraction)
			if r.Take(p, q); r.Used() > r.size {
				t.Fatalf("%d of %d", r.Used(), r.size)
			}
			if left := r.Quota(p, fraction); left > 0 && q > 1 {
				t.Fatalf("%d after all %d were taken", left, q)
			}
			r.Take(p, -q)
		}
	}
}

func TestRoomWorth(t *testing.T) {
	r := NewRoom(1000)
	p := part(1, "x")
	fill(r, Whole, p)
	var steps []int64
	for range 3 { // who has much waits until there is much to take
		n := int64(0)
		for ; !r.Worth(p, 50); n++ {
			r.Take(p, -1)
		}
		steps = append(steps, n)
		fill(r, Whole, p)
	}
	if fmt.Sprint(steps) != "[50 50 50]" {
		t.Errorf("worth after %v", steps)
	}
	if !r.Worth(part(1, "y"), 50) || !r.Worth(part(2, "x"), 50) {
		t.Error("who has nothing must not wait")
	}
}
