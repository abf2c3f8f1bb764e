package queue

import (
	"context"
	"errors"
	"sync"
)

// committer gathers what many goroutines want written and writes it in
// batches. There is no timer: while one batch is being synced, the next one
// forms, so that a lone write waits for nobody and a crowd shares one sync.
type committer[T any] struct {
	in       chan entry[T]
	write    func(context.Context, []T) []error // one error for each of the batch
	maxCount int
	maxBytes int64
	stopped  chan struct{} // closed when run has ended: nothing is taken any more
	answers  sync.Pool     // of chan error
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

func newCommitter[T any](write func(context.Context, []T) []error, maxCount int, maxBytes int64) *committer[T] {
	return &committer[T]{in: make(chan entry[T], 4*maxCount), write: write, maxCount: maxCount, maxBytes: maxBytes,
		stopped: make(chan struct{}), answers: sync.Pool{New: func() any { return make(chan error, 1) }}}
}

// offer hands a value over and waits until it is written. It does not wait for
// room: where there is none it returns errFull at once.
func (c *committer[T]) offer(v T, bytes int64) error {
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
func (c *committer[T]) push(ctx context.Context, v T, bytes int64) error {
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
func (c *committer[T]) wait(e entry[T]) error {
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

// run writes batches until ctx ends; what was handed over by then is written.
func (c *committer[T]) run(ctx context.Context) {
	defer close(c.stopped)
	// A batch that has begun is written whatever becomes of those who wait for
	// it: the store bounds how long that takes, no context does.
	writing := context.WithoutCancel(ctx)
	var batch []entry[T]
	var values []T
	for {
		select {
		case e := <-c.in:
			batch = append(batch[:0], e)
		case <-ctx.Done():
			select {
			case e := <-c.in:
				batch = append(batch[:0], e)
			default:
				return
			}
		}
		batch = c.gather(batch)
		values = values[:0]
		for _, e := range batch {
			values = append(values, e.value)
		}
		errs := c.write(writing, values)
		for i, e := range batch {
			e.done <- errs[i]
		}
		clear(batch)
		clear(values)
	}
}

// gather adds what is waiting to the batch, up to its bounds. The last one may
// go beyond the bytes: how large it is shows when it is taken.
func (c *committer[T]) gather(batch []entry[T]) []entry[T] {
	bytes := batch[0].bytes
	for len(batch) < c.maxCount && bytes < c.maxBytes {
		select {
		case e := <-c.in:
			batch = append(batch, e)
			bytes += e.bytes
		default:
			return batch
		}
	}
	return batch
}
