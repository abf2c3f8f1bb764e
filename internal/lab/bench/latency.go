package bench

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"postrider/internal/sink"
)

// Delays are how long messages took while they came at a steady rate, whatever
// became of those before them. All in milliseconds.
type Delays struct {
	Messages int         `json:"messages"`
	Rate     float64     `json:"rate"`     // messages a second that were due
	Bytes    int         `json:"bytes"`    // of a message
	Sessions int         `json:"sessions"` // kept
	Dot      Percentiles `json:"dot"`      // from the dot that ends the content to the receiver's 250
	Accept   Percentiles `json:"accept"`   // from the dot to the relay's own 250
	Due      Percentiles `json:"due"`      // from the moment that the message was due, also if no session was free then, to the receiver's 250
}

// Percentiles of a time, in milliseconds.
type Percentiles struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func percentiles(v []time.Duration) Percentiles {
	v = slices.Sorted(slices.Values(v))
	at := func(share float64) float64 {
		return round(float64(v[int(share*float64(len(v)-1))]) / float64(time.Millisecond))
	}
	return Percentiles{P50: at(0.5), P90: at(0.9), P99: at(0.99), Max: at(1)}
}

// timedDomain is routed to the receiver that notes times.
const timedDomain = "timed.example"

// idField is the header field that tells messages apart.
const idField = "X-Bench-Id: "

// receiver notes when each message comes.
type receiver struct {
	sink *sink.Server
	stop func() error

	mu  sync.Mutex
	got map[int]time.Time // by id
}

func startReceiver(ctx context.Context) (*receiver, error) {
	r := &receiver{got: map[int]time.Time{}}
	var err error
	if r.sink, err = sink.New(sink.Config{Received: r.received, Capture: 8 << 10}); err != nil {
		return nil, fmt.Errorf("start receiver: %w", err)
	}
	serving, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- r.sink.Serve(serving) }()
	r.stop = func() error {
		stop()
		return <-served
	}
	return r, nil
}

func (r *receiver) addr() string { return r.sink.Addr() }
func (r *receiver) close() error { return r.stop() }

// received notes a message, just before its 250 is written.
func (r *receiver) received(m *sink.Message) {
	now := time.Now()
	_, after, _ := bytes.Cut(m.Content, []byte("\n"+idField))
	number, _, _ := bytes.Cut(after, []byte("\r"))
	id, err := strconv.Atoi(string(number))
	if err != nil {
		return // it will be missing
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got[id] = now
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.got)
}

// take gives what was received, and forgets it.
func (r *receiver) take() map[int]time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.got
	r.got = map[int]time.Time{}
	return got
}

// letter is one message of a steady load.
type letter struct {
	id                 int
	due, dot, accepted time.Time
}

// delays measures a relay under a load that does not wait for it: messages are
// due at random moments, as those of many independent clients would be.
func (b *bench) delays(ctx context.Context, s *system) (*Delays, error) {
	ctx, cancel := context.WithTimeout(ctx, b.o.Lasting+limit)
	defer cancel()
	b.say("\n%s: %s, %.0f messages a second for %v", Latency, s.name, b.o.Rate, b.o.Lasting)
	const bytes = 10 << 10
	all, err := dialAll(ctx, s.addr, "", b.o.Sessions)
	if err != nil {
		return nil, err
	}
	defer closeAll(all)
	defer context.AfterFunc(ctx, func() { closeAll(all) })()

	warm := int(b.o.Rate) // the messages of the first second are not counted
	letters := make([]letter, warm+int(b.o.Rate*b.o.Lasting.Seconds()))
	due := make(chan *letter, len(letters))
	g, sending := errgroup.WithContext(ctx)
	for _, s := range all {
		g.Go(func() error {
			for l := range due {
				err := s.message("recipient@"+timedDomain, content(strconv.Itoa(l.id), bytes), func() { l.dot = time.Now() })
				if err != nil {
					return err
				}
				l.accepted = time.Now()
			}
			return s.quit()
		})
	}
	g.Go(func() error {
		defer close(due)
		return clock(sending, letters, b.o.Rate, due)
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	err = wait(ctx, 10*time.Millisecond, "the last message", func() (bool, error) { return b.receiver.count() >= len(letters), nil })
	if err != nil {
		return nil, err
	}
	if err := wait(ctx, 10*time.Millisecond, "an empty queue", func() (bool, error) { return s.idle(ctx) }); err != nil {
		return nil, err
	}
	d := judge(letters[warm:], b.receiver.take())
	d.Rate, d.Bytes, d.Sessions = b.o.Rate, bytes, b.o.Sessions
	b.say("  dot to the receiver's 250: p50 %.1f ms, p99 %.1f ms; to the relay's: p50 %.1f ms, p99 %.1f ms",
		d.Dot.P50, d.Dot.P99, d.Accept.P50, d.Accept.P99)
	return d, nil
}

// clock sends each letter off when it is due.
func clock(ctx context.Context, letters []letter, rate float64, due chan<- *letter) error {
	random := rand.New(rand.NewPCG(1, 1)) // each run the same
	next := time.Now()
	for i := range letters {
		next = next.Add(time.Duration(random.ExpFloat64() / rate * float64(time.Second)))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Until(next)):
		}
		letters[i].id, letters[i].due = i, next
		due <- &letters[i]
	}
	return nil
}

func judge(letters []letter, got map[int]time.Time) *Delays {
	var dot, accept, due []time.Duration
	for _, l := range letters {
		dot = append(dot, got[l.id].Sub(l.dot))
		accept = append(accept, l.accepted.Sub(l.dot))
		due = append(due, got[l.id].Sub(l.due))
	}
	return &Delays{Messages: len(letters), Dot: percentiles(dot), Accept: percentiles(accept), Due: percentiles(due)}
}
