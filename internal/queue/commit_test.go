package queue

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
)

// recorder is a committer that notes what it writes.
type recorder struct {
	*intake[int]
	gate chan struct{} // one token for each batch; nil: open

	mu      sync.Mutex
	batches [][]int
	stop    context.CancelFunc
	ended   chan struct{}
}

var errOdd = errors.New("odd")

func newRecorder(t *testing.T, gate chan struct{}, count int, bytes int64) *recorder {
	r := &recorder{gate: gate, ended: make(chan struct{})}
	r.intake = newIntake[int](count, bytes)
	other := newIntake[string](count, bytes)
	write := func(ctx context.Context, values []int, _ []string) ([]error, []error) {
		return r.record(ctx, values), nil
	}
	ctx, stop := context.WithCancel(t.Context())
	r.stop = func() { stop(); <-r.ended }
	go func() { defer close(r.ended); commit(ctx, r.intake, other, write) }()
	t.Cleanup(stop)
	return r
}

// record refuses odd numbers.
func (r *recorder) record(_ context.Context, values []int) []error {
	if r.gate != nil {
		<-r.gate
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.batches = append(r.batches, append([]int(nil), values...))
	errs := make([]error, len(values))
	for i, v := range values {
		if v%2 == 1 {
			errs[i] = fmt.Errorf("%d: %w", v, errOdd)
		}
	}
	return errs
}

func (r *recorder) sizes() (n []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.batches {
		n = append(n, len(b))
	}
	return n
}

func TestCommitterSharesAndBounds(t *testing.T) {
	for _, tt := range []struct {
		name  string
		bytes int64 // of each
		want  string
	}{
		{"by count", 1, "[1 5 5 2]"},
		{"by bytes", 40, "[1 3 3 3 3]"}, // the third goes beyond 100
		{"each too large", 1000, "[1 1 1 1 1 1 1 1 1 1 1 1 1]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gate := make(chan struct{})
				r := newRecorder(t, gate, 5, 100)
				var g sync.WaitGroup
				put := func(v int) {
					g.Go(func() {
						if err := r.offer(v, tt.bytes); errors.Is(err, errOdd) != (v%2 == 1) || err != nil && err.Error() != fmt.Sprintf("%d: odd", v) {
							t.Errorf("%d got the answer %v", v, err)
						}
					})
				}
				put(100)
				synctest.Wait() // the first is being written
				for v := range 12 {
					put(v)
				}
				synctest.Wait() // and the others have gathered
				close(gate)
				g.Wait()
				if got := fmt.Sprint(r.sizes()); got != tt.want {
					t.Errorf("batches of %s; want %s", got, tt.want)
				}
				r.stop()
			})
		})
	}
}

func TestCommitterFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		r := newRecorder(t, gate, 3, 100)
		var g sync.WaitGroup
		for range 1 + cap(r.in) {
			g.Go(func() {
				if err := r.offer(2, 1); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		if err := r.offer(4, 1); !errors.Is(err, errFull) { // a bubble that hangs here fails
			t.Errorf("one more than there is room for: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		g.Go(func() {
			if err := r.push(ctx, 6, 1); !errors.Is(err, context.Canceled) {
				t.Errorf("push without room: %v", err)
			}
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		g.Go(func() {
			if err := r.push(t.Context(), 8, 1); err != nil {
				t.Errorf("push that waits for room: %v", err)
			}
		})
		synctest.Wait()
		close(gate)
		g.Wait()
		r.stop()
		if got := fmt.Sprint(r.sizes()); got != "[1 3 3 3 3 1]" {
			t.Errorf("batches of %s", got)
		}
	})
}

func TestCommitterWritesOutAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		r := newRecorder(t, gate, 2, 100)
		var g sync.WaitGroup
		for range 7 {
			g.Go(func() {
				if err := r.offer(2, 1); err != nil {
					t.Errorf("handed over before the end: %v", err)
				}
			})
		}
		synctest.Wait()
		g.Go(r.stop)
		synctest.Wait()
		close(gate)
		g.Wait()
		for name, err := range map[string]error{"offer": r.offer(2, 1), "push": r.push(t.Context(), 2, 1)} {
			if !errors.Is(err, errStopped) {
				t.Errorf("%s after the end: %v", name, err)
			}
		}
	})
}

// Whoever hands over while the committer stops learns the truth: nil exactly
// where the value was written.
func TestCommitterTellsTheTruth(t *testing.T) {
	for round := range 200 {
		r := newRecorder(t, nil, 4, 1<<20)
		var mu sync.Mutex
		told := map[int]bool{}
		var g sync.WaitGroup
		for w := range 8 {
			g.Go(func() {
				for i := range 50 {
					v := 2 * (w*1000 + i)
					err := r.offer(v, 1)
					mu.Lock()
					told[v] = err == nil
					mu.Unlock()
					if errors.Is(err, errStopped) {
						return
					}
				}
			})
		}
		for { // stop in the middle of it
			mu.Lock()
			n := len(told)
			mu.Unlock()
			if n >= round {
				break
			}
			runtime.Gosched()
		}
		r.stop()
		g.Wait()
		written := map[int]bool{}
		for _, b := range r.batches {
			for _, v := range b {
				if written[v] {
					t.Fatalf("%d was written twice", v)
				}
				written[v] = true
			}
		}
		for v, ok := range told {
			if ok != written[v] {
				t.Fatalf("%d: told %v, written %v", v, ok, written[v])
			}
		}
	}
}

// Both kinds share a batch, each within bounds of its own, and each gets its own
// answers.
func TestCommitWritesBothKindsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newIntake[int](3, 100), newIntake[string](2, 100)
		gate := make(chan struct{})
		var batches []string
		ctx, stop := context.WithCancel(t.Context())
		var g sync.WaitGroup
		g.Go(func() {
			commit(ctx, a, b, func(_ context.Context, as []int, bs []string) (ofA, ofB []error) {
				<-gate
				batches = append(batches, fmt.Sprint(len(as), len(bs)))
				for _, v := range as {
					ofA = append(ofA, fmt.Errorf("int %d", v))
				}
				for _, v := range bs {
					ofB = append(ofB, fmt.Errorf("string %s", v))
				}
				return ofA, ofB
			})
		})
		want := func(err error, text string) {
			if err == nil || err.Error() != text {
				t.Errorf("answer %v; want %s", err, text)
			}
		}
		put := func(v int) { g.Go(func() { want(a.offer(v, 1), fmt.Sprintf("int %d", v)) }) }
		put(0)
		synctest.Wait() // it is being written
		for v := range 5 {
			put(v)
			s := fmt.Sprint(v)
			g.Go(func() { want(b.push(t.Context(), s, 1), "string "+s) })
		}
		synctest.Wait()
		close(gate)
		synctest.Wait()
		stop()
		g.Wait()
		if got := fmt.Sprint(batches); got != "[1 0 3 2 2 2 0 1]" {
			t.Errorf("batches of %s", got)
		}
	})
}
