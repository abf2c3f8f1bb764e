package queue

import (
	"context"
	"errors"
	"sync"
)

// intake is where many goroutines hand over what they want written.
type intake[T any] struct {
	in       chan entry[T]
	maxCount int // of a batch
	maxBytes int64
	stopped  chan struct{} // closed when nothing is taken any more
	answers  sync.Pool     // of chan error

	// The batch that is being written; commit's alone.
	batch  []entry[T]
	values []T
	bytes  int64
}

type entry[T any] struct {
	value T
	bytes int64
	done  chan error // holds one
}

var (
	errFull    = errors.New("committer is full")
	errStopped = errors.New("committer has stopped")
)

func newIntake[T any](maxCount int, maxBytes int64) *intake[T] {
	return &intake[T]{in: make(chan entry[T], 4*maxCount), maxCount: maxCount, maxBytes: maxBytes,
		stopped: make(chan struct{}), answers: sync.Pool{New: func() any { return make(chan error, 1) }}}
}

// offer hands a value over and waits until it is written. It does not wait for
// room: where there is none it returns errFull at once.
func (c *intake[T]) offer(v T, bytes int64) error {
	e := entry[T]{v, bytes, c.answers.Get().(chan error)}
	select {
	case <-c.stopped:
		return errStopped
	default:
	}
	select {
	case c.in <- e:
	default:
		return errFull
	}
	return c.wait(e)
}

// push is offer that waits for room, as long as ctx lasts.
func (c *intake[T]) push(ctx context.Context, v T, bytes int64) error {
	e := entry[T]{v, bytes, c.answers.Get().(chan error)}
	select {
	case c.in <- e:
	case <-c.stopped:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	return c.wait(e)
}

// wait minds no context: what was handed over is going to be written, and who
// left before would not know how that ended. The store bounds how long it takes.
func (c *intake[T]) wait(e entry[T]) error {
	select {
	case err := <-e.done:
		c.answers.Put(e.done)
		return err
	case <-c.stopped:
		select {
		case err := <-e.done:
			return err
		default:
			return errStopped
		}
	}
}

// commit writes in batches what is handed over to a and b, both in one: what
// becomes of old mail shares the sync of the new. There is no timer: while one
// batch is being synced, the next one forms, so that a lone write waits for nobody
// and a crowd shares one sync. write gives one error for each. When ctx ends, what
// was handed over by then is written.
func commit[A, B any](ctx context.Context, a *intake[A], b *intake[B], write func(context.Context, []A, []B) ([]error, []error)) {
	defer close(a.stopped)
	defer close(b.stopped)
	// A batch that has begun is written whatever becomes of those who wait for
	// it: the store bounds how long that takes, no context does.
	writing := context.WithoutCancel(ctx) // drain:
	for {
		select {
		case e := <-a.in:
			a.add(e)
		case e := <-b.in:
			b.add(e)
		case <-ctx.Done():
		}
		as, bs := a.gather(), b.gather()
		if len(as)+len(bs) == 0 {
			return
		}
		ofA, ofB := write(writing, as, bs)
		a.answer(ofA)
		b.answer(ofB)
	}
}

func (c *intake[T]) add(e entry[T]) {
	c.batch, c.values, c.bytes = append(c.batch, e), append(c.values, e.value), c.bytes+e.bytes
}

// gather adds what is waiting to the batch, up to its bounds, and gives the whole.
// The last one may go beyond the bytes: how large it is shows when it is taken.
func (c *intake[T]) gather() []T {
	for len(c.batch) < c.maxCount && (len(c.batch) == 0 || c.bytes < c.maxBytes) {
		select {
		case e := <-c.in:
			c.add(e)
		default:
			return c.values
		}
	}
	return c.values
}

// refuse answers those whose turn has not come yet; commit's alone.
func (c *intake[T]) refuse(err error) {
	for {
		select {
		case e := <-c.in:
			e.done <- err
		default:
			return
		}
	}
}

// answer tells those who wait what became of the batch, and begins the next one.
func (c *intake[T]) answer(errs []error) {
	for i, e := range c.batch {
		e.done <- errs[i]
	}
	clear(c.batch)
	clear(c.values)
	c.batch, c.values, c.bytes = c.batch[:0], c.values[:0], 0
}
