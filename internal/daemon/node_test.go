package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postrider/internal/queue"
	"postrider/internal/relay"
	"postrider/internal/store"
)

// registry is a store's list of nodes as a test wants it.
type registry struct {
	mu       sync.Mutex
	away     bool // fails at once
	hangs    bool // answers when the caller gives up
	leases   int64
	lease    int64 // that holds; 0: none
	draining bool
	joined   []time.Time
	beats    int
	taken    bool // by another process
	released int64
}

var errAway = &relay.Error{Code: relay.Unavailable, Text: "The store can't be reached."}

func (r *registry) answer(ctx context.Context) error {
	r.mu.Lock()
	away, hangs := r.away, r.hangs
	r.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	if away {
		return errAway
	}
	return nil
}

func (r *registry) set(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func (r *registry) Join(ctx context.Context, _ string) (int64, error) {
	if err := r.answer(ctx); err != nil {
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leases++
	r.lease, r.draining = r.leases, false
	r.joined = append(r.joined, time.Now())
	return r.lease, nil
}

func (r *registry) holds(ctx context.Context, lease int64) error {
	if err := r.answer(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lease != lease {
		return fmt.Errorf("lease %d: %w", lease, store.ErrLeaseLost)
	}
	return nil
}

func (r *registry) Beat(ctx context.Context, n relay.Node) (time.Duration, error) {
	if err := r.holds(ctx, n.Lease); err != nil || n.Version != Version || n.Name != "n" {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.taken {
			err = fmt.Errorf("%w: %w", store.ErrNameTaken, err)
		}
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.beats++
	return 0, nil
}

func (r *registry) News(ctx context.Context, lease int64) (relay.News, error) {
	if err := r.holds(ctx, lease); err != nil {
		return relay.News{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return relay.News{Draining: r.draining, Released: r.released}, nil
}

func (r *registry) Drain(ctx context.Context, _ string, drain bool) error {
	if err := r.answer(ctx); err != nil {
		return err
	}
	r.set(func() { r.draining = drain })
	return nil
}

// diary notes what a node's work was told, and when.
type diary struct {
	began time.Time
	mu    sync.Mutex
	lines []string
}

func (d *diary) note(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf("%v %s", time.Since(d.began).Round(time.Second), fmt.Sprintf(format, args...)))
}

func (d *diary) Suspend(context.Context)     { d.note("suspend") }
func (d *diary) Resume(lease int64)          { d.note("resume %d", lease) }
func (d *diary) Drain(context.Context) error { d.note("drain"); return nil }
func (d *diary) Look()                       { d.note("look") }
func (d *diary) Stats() queue.Stats          { return queue.Stats{InHand: 3, InFlight: 1} }

func (d *diary) want(t *testing.T, lines ...string) {
	t.Helper()
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Equal(d.lines, lines) {
		t.Errorf("the work was told %q, want %q", d.lines, lines)
	}
}

// keeping runs a node in a bubble for the time of a test.
func keeping(t *testing.T, shared bool, test func(t *testing.T, n *node, r *registry, d *diary, end func() error)) {
	synctest.Test(t, func(t *testing.T) {
		r, d := &registry{}, &diary{began: time.Now()}
		lease, _ := r.Join(t.Context(), "n")
		n := newNode(r, d, "n", shared, lease, time.Now(), quiet(t))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- n.run(ctx) }()
		end := sync.OnceValue(func() error { cancel(); return <-ended })
		defer end()
		test(t, n, r, d, end)
	})
}

func (n *node) is(t *testing.T, want relay.Condition) {
	t.Helper()
	synctest.Wait()
	if got := n.condition(); got != want {
		t.Errorf("the node is %v, want %v", got, want)
	}
}

// While the store answers, the node beats every five seconds; when it does not
// for ten, the work stops, whether the store refuses or hangs. When it answers
// again, the node joins anew.
func TestFence(t *testing.T) {
	for _, hangs := range []bool{false, true} {
		t.Run(fmt.Sprintf("hangs %v", hangs), func(t *testing.T) {
			keeping(t, true, func(t *testing.T, n *node, r *registry, d *diary, _ func() error) {
				time.Sleep(22 * time.Second)
				n.is(t, relay.Working)
				if r.beats != 5 {
					t.Errorf("%d beats in 22 s", r.beats)
				}
				r.set(func() { r.away, r.hangs = !hangs, hangs }) // the last beat was at 20 s
				time.Sleep(6500 * time.Millisecond)
				n.is(t, relay.Away)
				d.want(t)
				time.Sleep(3 * time.Second) // it is 31.5 s
				n.is(t, relay.Suspended)
				d.want(t, "30s suspend")
				time.Sleep(8*time.Second + 500*time.Millisecond)
				r.set(func() { r.away, r.hangs = false, false })
				time.Sleep(8 * time.Second)
				n.is(t, relay.Working)
				if len(d.lines) != 2 || !strings.HasSuffix(d.lines[1], " resume 2") || n.current() != 2 {
					t.Errorf("the work was told %q; lease %d", d.lines, n.current())
				}
				time.Sleep(time.Minute)
				n.is(t, relay.Working)
			})
		})
	}
}

// A store that is slow, but answers in time, stops nothing.
func TestShortAbsence(t *testing.T) {
	keeping(t, true, func(t *testing.T, n *node, r *registry, d *diary, _ func() error) {
		time.Sleep(20500 * time.Millisecond)
		r.set(func() { r.away = true })
		time.Sleep(8 * time.Second)
		n.is(t, relay.Away)
		r.set(func() { r.away = false })
		time.Sleep(2 * time.Second)
		n.is(t, relay.Working)
		time.Sleep(time.Minute)
		d.want(t)
	})
}

// Where only one node can be, a disk that hangs stops nothing.
func TestNoFenceAlone(t *testing.T) {
	keeping(t, false, func(t *testing.T, n *node, r *registry, d *diary, _ func() error) {
		r.set(func() { r.hangs = true })
		time.Sleep(time.Minute)
		n.is(t, relay.Away)
		r.set(func() { r.hangs = false })
		time.Sleep(10 * time.Second)
		n.is(t, relay.Working)
		d.want(t)
	})
}

// A node whose lease was ended stops at once and joins anew.
func TestLeaseLost(t *testing.T) {
	keeping(t, true, func(t *testing.T, n *node, r *registry, d *diary, _ func() error) {
		time.Sleep(12500 * time.Millisecond)
		r.set(func() { r.lease = 0 })
		time.Sleep(2 * time.Second)
		d.want(t, "13s suspend", "13s resume 2")
		n.is(t, relay.Working)
	})
}

// Two processes of one name end each other's leases: the older one gives way,
// and says why.
func TestNameTaken(t *testing.T) {
	keeping(t, true, func(t *testing.T, n *node, r *registry, d *diary, end func() error) {
		time.Sleep(12500 * time.Millisecond)
		r.set(func() {
			r.lease, r.taken = 99, true
		})
		time.Sleep(2 * time.Second)
		d.want(t, "13s suspend")
		if err := end(); err == nil || !strings.Contains(err.Error(), `"n"`) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestDrain(t *testing.T) {
	keeping(t, true, func(t *testing.T, n *node, r *registry, d *diary, _ func() error) {
		time.Sleep(1500 * time.Millisecond)
		r.set(func() { r.draining = true })
		time.Sleep(time.Second)
		n.is(t, relay.Draining)
		time.Sleep(20 * time.Second)
		d.want(t, "2s drain")
		// What goes on with the store does not end the order.
		r.set(func() { r.lease = 0 })
		time.Sleep(2 * time.Second)
		n.is(t, relay.Draining)
		r.set(func() {
			if !r.draining || r.lease != 2 {
				t.Errorf("lease %d, draining %v", r.lease, r.draining)
			}
			r.draining = false
		})
		time.Sleep(2 * time.Second)
		n.is(t, relay.Working)
		d.want(t, "2s drain", "23s suspend", "25s resume 2")
	})
}

// What another node has released is looked for at once.
func TestReleased(t *testing.T) {
	keeping(t, true, func(t *testing.T, n *node, r *registry, d *diary, _ func() error) {
		time.Sleep(11500 * time.Millisecond)
		d.want(t)
		r.set(func() { r.released++ })
		time.Sleep(10 * time.Second)
		d.want(t, "12s look")
	})
}

type reaper func() ([]store.Dead, error)

func (f reaper) Reap(_ context.Context, silent time.Duration) ([]store.Dead, error) {
	if silent != relay.LeaseTime {
		return nil, errors.New("wrong age")
	}
	return f()
}

func TestReap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(&registry{}, &diary{}, "n", true, 1, time.Now(), quiet(t))
		looks := 0
		ctx, cancel := context.WithTimeout(t.Context(), 19*time.Second)
		defer cancel()
		err := n.reap(ctx, reaper(func() ([]store.Dead, error) {
			switch looks++; looks {
			case 2:
				return nil, errAway
			case 3:
				n.mu.Lock()
				n.suspended = true // three looks are left out
				n.mu.Unlock()
				time.AfterFunc(7*time.Second, func() { n.mu.Lock(); n.suspended = false; n.mu.Unlock() })
				return []store.Dead{{Name: "m", Released: 3}}, nil
			}
			return nil, nil
		}))
		if err != nil || looks != 6 {
			t.Errorf("%d looks, %v", looks, err)
		}
	})
}
