package schedule

import "postrider/internal/relay"

// Line is who waits for one site: transactional mail goes before broadcast,
// and within a stream the accounts take turns. The zero Line is empty.
type Line[T any] struct {
	streams [2]ring[T] // transactional, broadcast
	length  int
}

// ring is the accounts of one stream that have something waiting.
type ring[T any] struct {
	accounts []*share[T]
	by       map[relay.ID]*share[T]
	turn     int // whose turn it is in accounts
}

// share is what one account has waiting, first come first served.
type share[T any] struct {
	account relay.ID
	items   fifo[T]
}

// Push puts an item at the end of its account's share.
func (l *Line[T]) Push(stream relay.Stream, account relay.ID, item T) {
	r := &l.streams[streamIndex(stream)]
	s := r.by[account]
	if s == nil {
		if r.by == nil {
			r.by = map[relay.ID]*share[T]{}
		}
		s = &share[T]{account: account}
		r.by[account] = s
		r.accounts = append(r.accounts, s)
	}
	s.items.push(item)
	l.length++
}

// Pop takes the item whose turn it is.
func (l *Line[T]) Pop() (item T, ok bool) {
	return l.PopOf(func(Group) bool { return true })
}

// PopOf is Pop that passes over whoever may not have a turn now.
func (l *Line[T]) PopOf(may func(Group) bool) (item T, ok bool) {
	for i, stream := range []relay.Stream{relay.Transactional, relay.Broadcast} {
		r := &l.streams[i]
		for range r.accounts {
			if r.turn >= len(r.accounts) {
				r.turn = 0
			}
			if may(Group{stream, r.accounts[r.turn].account}) {
				l.length--
				return r.pop(), true
			}
			r.turn++
		}
	}
	return item, false
}

// Len is how many wait.
func (l *Line[T]) Len() int { return l.length }

// Urgent tells whether transactional mail waits.
func (l *Line[T]) Urgent() bool { return len(l.streams[0].accounts) > 0 }

// pop takes an item of the account whose turn it is.
func (r *ring[T]) pop() T {
	s := r.accounts[r.turn]
	item := s.items.pop()
	if s.items.len() == 0 {
		delete(r.by, s.account)
		r.accounts = append(r.accounts[:r.turn], r.accounts[r.turn+1:]...)
	} else {
		r.turn++
	}
	return item
}

func streamIndex(s relay.Stream) int {
	if s == relay.Broadcast {
		return 1
	}
	return 0
}
