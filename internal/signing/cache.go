package signing

import (
	"context"
	"sync"
)

// cache remembers what was made for a key, and lets those who want the same at
// the same time wait for one of them to make it. It keeps the newest, between
// most and twice as many.
type cache[V any] struct {
	most int

	mu         sync.Mutex
	young, old map[string]*entry[V]
}

type entry[V any] struct {
	ready chan struct{} // closed when v and err are there
	v     V
	err   error
}

func newCache[V any](most int) *cache[V] {
	return &cache[V]{most: most, young: map[string]*entry[V]{}}
}

// get gives what was made for the key, or makes it. An error is not remembered;
// those who waited try for themselves.
func (c *cache[V]) get(ctx context.Context, key string, build func() (V, error)) (V, error) {
	for {
		e, first := c.entry(key)
		if first {
			e.v, e.err = build()
			if e.err != nil {
				c.drop(key, e)
			}
			close(e.ready)
			return e.v, e.err
		}
		select {
		case <-e.ready:
			if e.err == nil {
				return e.v, nil
			}
		case <-ctx.Done():
			var none V
			return none, ctx.Err()
		}
	}
}

// entry finds the entry for the key, or makes one, which the first must fill.
func (c *cache[V]) entry(key string) (e *entry[V], first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e = c.young[key]
	if e != nil {
		return e, false
	}
	if e = c.old[key]; e == nil {
		e, first = &entry[V]{ready: make(chan struct{})}, true
	}
	if len(c.young) >= c.most {
		c.young, c.old = map[string]*entry[V]{}, c.young
	}
	c.young[key] = e
	return e, first
}

// drop forgets an entry that failed.
func (c *cache[V]) drop(key string, e *entry[V]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.young[key] == e {
		delete(c.young, key)
	}
	if c.old[key] == e {
		delete(c.old, key)
	}
}
