package schedule

// fifo is a line: first come, first served. The zero fifo is empty.
type fifo[T any] struct {
	items []T
	head  int // items before it are gone
}

func (f *fifo[T]) push(item T) { f.items = append(f.items, item) }

// pop takes the first one; there must be one.
func (f *fifo[T]) pop() T {
	var none T
	item := f.items[f.head]
	f.items[f.head] = none // let go of what it holds
	f.head++
	switch {
	case f.head == len(f.items):
		f.items, f.head = f.items[:0], 0
		if cap(f.items) > 1024 {
			f.items = nil
		}
	case f.head > 64 && f.head > len(f.items)/2:
		n := copy(f.items, f.items[f.head:])
		clear(f.items[n:])
		f.items, f.head = f.items[:n], 0
	}
	return item
}

func (f *fifo[T]) len() int { return len(f.items) - f.head }
