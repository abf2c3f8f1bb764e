package sink

import (
	"container/list"
	"sync"
	"time"
)

// maxRemembered bounds the pairs of sender and recipient whose tries are
// counted; the one not seen for the longest time is forgotten first.
const maxRemembered = 1 << 16

// memory counts tries over connections.
type memory struct {
	mu    sync.Mutex
	pairs map[string]*list.Element
	order *list.List // of *pair, latest first
	max   int
}

type pair struct {
	key    string
	first  time.Time
	tries  int
	passed bool
}

func newMemory(max int) *memory {
	return &memory{pairs: make(map[string]*list.Element), order: list.New(), max: max}
}

// active counts a try and tells whether the action still applies to it.
func (m *memory) active(a *action, key string, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.pairs[key]
	if e == nil {
		e = m.order.PushFront(&pair{key: key, first: now})
		m.pairs[key] = e
		if m.order.Len() > m.max {
			delete(m.pairs, m.order.Remove(m.order.Back()).(*pair).key)
		}
	} else {
		m.order.MoveToFront(e)
	}
	p := e.Value.(*pair)
	if !p.passed && (p.tries < a.tries || now.Sub(p.first) < a.span) {
		p.tries++
		return true
	}
	if p.passed = a.remember; !p.passed {
		m.order.Remove(e)
		delete(m.pairs, key)
	}
	return false
}
