// Package trace keeps the steps of deliveries that somebody watches, on the node
// that makes them, for as long as there is room.
package trace

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postrider/internal/relay"
)

// Bounds of what is kept.
const (
	mostTraces = 500
	mostSteps  = 1000    // of one delivery
	mostText   = 2 << 10 // bytes of a text in a step
)

// Book is where steps are kept. For deliveries that nobody watches it costs one
// look at a number.
type Book struct {
	count atomic.Int64

	mu     sync.Mutex
	traces map[relay.DeliveryID]*trace
	order  []relay.DeliveryID // the oldest first
}

type trace struct {
	steps []relay.Step
	news  chan struct{} // closed when there is one more
}

// New makes a book.
func New() *Book { return &Book{traces: map[relay.DeliveryID]*trace{}} }

// Open has the steps of a delivery be kept from now on. The oldest make room.
func (b *Book) Open(id relay.DeliveryID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.traces[id] != nil {
		return
	}
	for len(b.order) >= mostTraces {
		b.drop(b.order[0])
	}
	b.traces[id] = &trace{news: make(chan struct{})}
	b.order = append(b.order, id)
	b.count.Store(int64(len(b.traces)))
}

// Forget drops what is kept of a delivery.
func (b *Book) Forget(id relay.DeliveryID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop(id)
}

// drop needs the lock.
func (b *Book) drop(id relay.DeliveryID) {
	t := b.traces[id]
	if t == nil {
		return
	}
	delete(b.traces, id)
	for i := range b.order {
		if b.order[i] == id {
			b.order = append(b.order[:i], b.order[i+1:]...)
			break
		}
	}
	b.count.Store(int64(len(b.traces)))
	close(t.news)
}

// Watch gives where the steps of a delivery go; nil: nobody watches it. What it
// gives never waits.
func (b *Book) Watch(id relay.DeliveryID) func(relay.Step) {
	if b.count.Load() == 0 {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.traces[id] == nil {
		return nil
	}
	return func(s relay.Step) { b.add(id, s) }
}

func (b *Book) add(id relay.DeliveryID, s relay.Step) {
	if s.At.IsZero() {
		s.At = time.Now()
	}
	s.At = s.At.UTC().Truncate(time.Microsecond)
	s.Text, s.Command = bounded(s.Text), bounded(s.Command)
	if s.Reply != nil {
		r := *s.Reply
		r.Text = bounded(r.Text)
		s.Reply = &r
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.traces[id]
	if t == nil || len(t.steps) >= mostSteps {
		return
	}
	t.steps = append(t.steps, s)
	close(t.news)
	t.news = make(chan struct{})
}

// bounded cuts a text that somebody else may have made long.
func bounded(s string) string {
	if len(s) <= mostText {
		return s
	}
	return strings.ToValidUTF8(s[:mostText], "") + "…"
}

// Steps are those of a delivery so far. The channel is closed when there is one
// more; it is nil where none are kept.
func (b *Book) Steps(id relay.DeliveryID) (steps []relay.Step, news <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.traces[id]
	if t == nil {
		return nil, nil
	}
	return t.steps[:len(t.steps):len(t.steps)], t.news
}
