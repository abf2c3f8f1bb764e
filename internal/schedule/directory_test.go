package schedule

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"postrider/internal/relay"
)

var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

func class(stream relay.Stream, account byte, domain string) relay.Class {
	return relay.Class{Stream: stream, Account: relay.ID{account}, Domain: domain}
}

func nowhere(string) string { return "" }

// shown lists picks as "stream account domain limit+expired".
func shown(picks []Pick) string {
	var s []string
	for _, p := range picks {
		s = append(s, fmt.Sprintf("%c%d %s %d+%d", p.Stream.String()[0], p.Account[0], p.Domain, p.Limit, p.Expired))
	}
	return strings.Join(s, ", ")
}

// bench is a directory with its room and clock.
type bench struct {
	*testing.T
	d    *Directory
	r    *Room
	now  time.Time
	site Places
}

func newBench(t *testing.T, room int64) *bench {
	return &bench{T: t, d: NewDirectory(1_000_000), r: NewRoom(room), now: noon, site: nowhere}
}

func (b *bench) note(cs ...relay.Class) {
	for _, c := range cs {
		b.now = b.now.Add(time.Microsecond) // each has a place of its own
		b.d.Note(c, b.now)
	}
}

// pick picks, and gives back the room at once.
func (b *bench) pick(most int) []Pick {
	picks, _ := b.d.Pick(b.now, b.r, b.site, most)
	for _, p := range picks {
		b.r.Take(p.Part, -p.Room())
	}
	return picks
}

func (b *bench) want(most int, want string) []Pick {
	b.Helper()
	picks := b.pick(most)
	if got := shown(picks); got != want {
		b.Errorf("picked %q; want %q", got, want)
	}
	return picks
}

// done tells that more waits of each.
func (b *bench) done(picks []Pick) {
	for _, p := range picks {
		b.now = b.now.Add(time.Microsecond)
		b.d.Done(p.Class, b.now)
	}
}

const (
	urgent = relay.Transactional
	bulk   = relay.Broadcast
)

func TestDirectoryTakesTurns(t *testing.T) {
	b := newBench(t, 10_000)
	for i := range 4 {
		b.note(class(bulk, 1, fmt.Sprintf("%c.test", 'a'+i)))
	}
	b.note(class(bulk, 2, "a.test"), class(urgent, 3, "z.test"))
	b.done(b.want(10, "t3 z.test 8+0, b1 a.test 2+0")) // most is urgent, some is left for bulk
	b.done(b.want(10, "t3 z.test 8+0, b2 a.test 2+0"))
	b.done(b.want(10, "t3 z.test 8+0, b1 b.test 2+0"))
	b.d.Done(b.pick(10)[0].Class, time.Time{}) // z.test is empty; of account 2 nothing is told yet
	b.done(b.want(12, "b1 c.test 4+0, b1 d.test 4+0, b1 a.test 4+0"))
	b.done(b.want(12, "b1 b.test 4+0, b1 c.test 4+0, b1 d.test 4+0"))
}

func TestDirectoryWaitsUntilDue(t *testing.T) {
	b := newBench(t, 1000)
	c := class(urgent, 1, "a.test")
	for _, tt := range []struct {
		after time.Duration
		news  bool
	}{{time.Hour, true}, {2 * time.Hour, false}, {time.Minute, true}, {time.Minute, false}} {
		if got := b.d.Note(c, noon.Add(tt.after)); got != tt.news {
			t.Errorf("noted for %v: news %v", tt.after, got)
		}
	}
	if at, found := b.d.Next(); !found || !at.Equal(noon.Add(time.Minute)) {
		t.Errorf("next %v, %v", at, found)
	}
	b.now = noon.Add(time.Minute - time.Microsecond)
	b.want(100, "")
	b.now = noon.Add(time.Minute)
	b.want(100, "t1 a.test 80+0")
	b.d.Note(c, noon.Add(2*time.Minute)) // comes while it is asked for
	b.d.Note(c, noon.Add(3*time.Minute))
	b.want(100, "")
	b.d.Done(c, time.Time{}) // which the store did not see yet
	if at, found := b.d.Next(); !found || !at.Equal(noon.Add(2*time.Minute)) {
		t.Errorf("next %v, %v: what was noted while asked for is lost", at, found)
	}
	b.now = noon.Add(time.Hour)
	b.want(100, "t1 a.test 80+0")
	b.d.Done(c, time.Time{})
	if _, found := b.d.Next(); found || b.d.Len() != 0 || b.d.space.Used() != 0 {
		t.Error("an empty class is remembered")
	}
}

// A hog without room is passed over, whatever it has waiting, and its other
// stream, its other sites and other accounts are not.
func TestDirectoryPassesOver(t *testing.T) {
	b := newBench(t, 1000)
	b.site = func(domain string) string {
		if strings.HasPrefix(domain, "slow") {
			return "slow"
		}
		return ""
	}
	for i := range 5000 {
		b.note(class(bulk, 1, fmt.Sprintf("slow%d.test", i)))
	}
	fill(b.r, Whole, Part{Group{bulk, relay.ID{1}}, "slow"})
	for b.r.Used() == 500 {
		if picks, more := b.d.Pick(b.now, b.r, b.site, 500); len(picks) > 0 {
			t.Fatalf("picked %s", shown(picks))
		} else if !more {
			break // all have been sorted
		}
	}
	if !b.d.Stalled(b.now) {
		t.Error("nothing seems to be due")
	}
	b.note(class(bulk, 1, "fast.test"), class(urgent, 1, "slow1.test"), class(bulk, 2, "slow1.test"))
	b.want(10, "t1 slow1.test 8+0, b1 fast.test 2+0")
	b.want(10, "b2 slow1.test 10+0")
	b.want(10, "")
	for range 100 {
		b.r.Take(Part{Group{bulk, relay.ID{1}}, "slow"}, -1)
	}
	if picks := b.pick(100); len(picks) != 25 || picks[0].Limit != 4 {
		t.Errorf("picked %s", shown(picks))
	}
}

// Where a domain's mail goes is seen anew when its turn comes.
func TestDirectoryLearnsSites(t *testing.T) {
	b := newBench(t, 1000)
	for i := range 100 {
		b.note(class(bulk, 1, fmt.Sprintf("%d.test", i)))
	}
	b.want(1, "b1 0.test 1+0") // the others have been sorted as well
	b.site = func(string) string { return "slow" }
	fill(b.r, Whole, Part{Group{bulk, relay.ID{1}}, "slow"})
	b.want(1, "")
	for _, p := range b.d.streams[1].by {
		if len(p.by) != 1 || p.by["slow"].classes.len() != 99 {
			t.Errorf("%d places", len(p.by))
		}
	}
}

func TestDirectoryBacksOff(t *testing.T) {
	b := newBench(t, 10_000)
	c := class(bulk, 1, "dead.test")
	b.note(c)
	b.done(b.want(500, "b1 dead.test 500+0"))
	var waits []time.Duration
	for range 9 {
		for range 300 { // they fail together
			b.d.Failed(c, b.now, false)
		}
		at, _ := b.d.Next()
		waits = append(waits, at.Sub(b.now)/time.Second)
		b.now = at.Add(-time.Microsecond)
		b.want(500, "")
		b.now = at
		b.done(b.want(500, "b1 dead.test 8+500"))
	}
	if !slices.Equal(waits, []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60}) {
		t.Errorf("waits of %d seconds", waits)
	}
	// An order to try now, once.
	if !b.d.Hurry(c) {
		t.Error("no news")
	}
	b.done(b.want(500, "b1 dead.test 8+500"))
	b.want(500, "")
	if !b.d.Worked(c) || b.d.Worked(c) {
		t.Error("one success is news, another one is none")
	}
	b.done(b.want(500, "b1 dead.test 500+0"))
	b.done(b.want(500, "b1 dead.test 500+0"))
}

// A receiver that answers is given up later: it may be one that defers all mail
// that it has not seen before.
func TestDirectoryIsPatient(t *testing.T) {
	b := newBench(t, 10_000)
	c := class(bulk, 1, "grey.test")
	b.note(c)
	for range patience {
		b.d.Failed(c, b.now, true)
	}
	b.done(b.want(500, "b1 grey.test 500+0"))
	b.d.Failed(c, b.now, true)
	b.want(500, "")
	b.now = b.now.Add(time.Second)
	b.done(b.want(500, "b1 grey.test 250+500"))
	b.d.Worked(c)
	b.done(b.want(500, "b1 grey.test 500+0"))
}

func TestDirectoryIsBounded(t *testing.T) {
	b := newBench(t, 1000)
	b.d = NewDirectory(100)
	for i := range 200 {
		b.note(class(urgent, 1, fmt.Sprint(i)))
	}
	if b.d.Len() != 50 || !b.d.Missed() || b.d.Missed() {
		t.Errorf("one account has %d classes of 100", b.d.Len())
	}
	b.note(class(urgent, 2, "x"))
	if b.d.Len() != 51 || b.d.Missed() {
		t.Error("another account found no room")
	}
}

// Whatever is noted comes, as often as the store says that there is more.
func TestDirectoryForgetsNothing(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		b := newBench(t, 50)
		b.site = func(domain string) string {
			return map[bool]string{true: "", false: "s" + domain[:1]}[random.IntN(2) == 0]
		}
		waiting := map[relay.Class]int{}
		held := map[Part]int{}
		taken, all := 0, 0
		for step := 0; taken < all || step < 2000; step++ {
			if step > 100_000 {
				t.Fatalf("%d of %d came", taken, all)
			}
			if step < 2000 {
				c := class(relay.Stream(1+random.IntN(2)), byte(random.IntN(3)), fmt.Sprint(random.IntN(40)))
				n := random.IntN(3)
				if waiting[c] += n; n > 0 {
					b.note(c)
				}
				all += n
			}
			if random.IntN(10) == 0 {
				b.d.Failed(class(bulk, 1, fmt.Sprint(random.IntN(40))), b.now, random.IntN(2) == 0)
			}
			for p, n := range held { // some leave
				gone := random.IntN(n + 1)
				b.r.Take(p, -int64(gone))
				if held[p] -= gone; held[p] == 0 {
					delete(held, p)
				}
			}
			picks, _ := b.d.Pick(b.now, b.r, b.site, 10)
			for _, p := range picks {
				n := min(waiting[p.Class], int(p.Room()))
				b.r.Take(p.Part, int64(n)-p.Room())
				if n > 0 {
					held[p.Part] += n
				}
				waiting[p.Class] -= n
				taken += n
				due := time.Time{}
				if waiting[p.Class] > 0 {
					due = b.now
				}
				b.d.Done(p.Class, due)
			}
			if used := b.r.Used(); used > 50 {
				t.Fatalf("%d of 50 in hand", used)
			}
			b.now = b.now.Add(10 * time.Millisecond)
		}
		if b.d.Len() != 0 {
			t.Errorf("%d classes are left", b.d.Len())
		}
	}
}

// BenchmarkDirectory has as many classes as a newsletter has domains, and says
// what one of them takes.
func BenchmarkDirectory(b *testing.B) {
	const many = 200_000
	var before, after runtime.MemStats
	domains := make([]string, many)
	for i := range domains {
		domains[i] = fmt.Sprintf("customer%d.example.com", i)
	}
	runtime.GC()
	runtime.ReadMemStats(&before)
	d, r := NewDirectory(2*many), NewRoom(1<<40)
	for _, domain := range domains {
		d.Note(class(bulk, 1, domain), noon)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	waiting := after.HeapAlloc - before.HeapAlloc
	for b.Loop() {
		picks, _ := d.Pick(noon, r, nowhere, 500)
		for _, p := range picks {
			r.Take(p.Part, -p.Room())
			d.Done(p.Class, noon)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(waiting)/many, "B/class")
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/many, "B/class-due")
	runtime.KeepAlive(domains)
	runtime.KeepAlive(d)
}
