package dns

import (
	"container/list"
	"time"
)

// cache keeps answers until they expire, and no more than max of them: the one
// that was not used for longest goes first. Its user locks it.
type cache struct {
	max     int
	entries map[question]*list.Element
	used    *list.List // of *entry, the latest used in front
}

type entry struct {
	q question
	a *answer
}

func newCache(max int) *cache {
	return &cache{max: max, entries: make(map[question]*list.Element), used: list.New()}
}

// get is nil when there is no answer that is still good.
func (c *cache) get(q question, now time.Time) *answer {
	el, ok := c.entries[q]
	if !ok {
		return nil
	}
	a := el.Value.(*entry).a
	if !now.Before(a.expires) {
		c.used.Remove(el)
		delete(c.entries, q)
		return nil
	}
	c.used.MoveToFront(el)
	return a
}

// drop takes an answer out, and gives it.
func (c *cache) drop(q question) *answer {
	el, ok := c.entries[q]
	if !ok {
		return nil
	}
	c.used.Remove(el)
	delete(c.entries, q)
	return el.Value.(*entry).a
}

func (c *cache) put(q question, a *answer) {
	if el, ok := c.entries[q]; ok {
		el.Value.(*entry).a = a
		c.used.MoveToFront(el)
		return
	}
	c.entries[q] = c.used.PushFront(&entry{q, a})
	for len(c.entries) > c.max {
		last := c.used.Back()
		c.used.Remove(last)
		delete(c.entries, last.Value.(*entry).q)
	}
}
