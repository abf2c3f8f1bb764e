package account

import (
	"context"
	"slices"
	"sync"
	"time"

	"postrider/internal/relay"
)

// longestLine is how long a login waits for its turn.
const longestLine = 30 * time.Second

// lines let the logins of one client wait for each other: delays slow nobody
// down who may wait in a thousand sessions at once.
type lines struct {
	mu sync.Mutex
	by map[string]*line
}

type line struct {
	active  int
	waiting []chan struct{} // closed to let the first one look again
}

// enter waits until fewer than most() logins of the line are under way. The
// caller calls leave when its own is over. The error is a relay.Error.
func (l *lines) enter(ctx context.Context, key string, most func() int) (leave func(), err error) {
	var patience <-chan time.Time
	first := false
	for {
		turn := l.take(key, most(), first)
		if turn == nil {
			return func() { l.leave(key) }, nil
		}
		if patience == nil {
			t := time.NewTimer(longestLine)
			defer t.Stop()
			patience = t.C
		}
		select {
		case <-turn:
			first = true // it has waited longest
		case <-ctx.Done():
			l.give(key, turn)
			return nil, brokenOff(ctx)
		case <-patience:
			l.give(key, turn)
			return nil, &relay.Error{Code: relay.Busy, Text: "Too many logins from your address wait already, because some were wrong.",
				Advice: "Correct the clients that have a wrong password; try again in a minute."}
		}
	}
}

// take takes a place, or gives what to wait for.
func (l *lines) take(key string, most int, first bool) chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.by[key]
	if e == nil {
		e = &line{}
		l.by[key] = e
	}
	if e.active < most && (first || len(e.waiting) == 0) {
		e.active++
		if e.active < most {
			e.call()
		}
		return nil
	}
	turn := make(chan struct{})
	if first {
		e.waiting = slices.Insert(e.waiting, 0, turn)
	} else {
		e.waiting = append(e.waiting, turn)
	}
	return turn
}

// call lets the first one that waits look again.
func (e *line) call() {
	if len(e.waiting) > 0 {
		close(e.waiting[0])
		e.waiting = e.waiting[1:]
	}
}

// leave gives a place back.
func (l *lines) leave(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.by[key]
	e.active--
	e.call()
	l.drop(key, e)
}

// give gives up waiting.
func (l *lines) give(key string, turn chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.by[key]
	if e == nil {
		return
	}
	if i := slices.Index(e.waiting, turn); i >= 0 {
		e.waiting = slices.Delete(e.waiting, i, i+1)
	} else {
		e.call() // it was our turn: now it is the next one's
	}
	l.drop(key, e)
}

func (l *lines) drop(key string, e *line) {
	if e.active == 0 && len(e.waiting) == 0 {
		delete(l.by, key)
	}
}
