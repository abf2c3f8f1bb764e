package account

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"postrider/internal/relay"
)

// maxHashing is how many passwords may wait to be hashed, of each kind of
// client.
const maxHashing = 32

// hashing checks chosen passwords, which takes a good part of a second and 64
// MiB each. One is hashed at a time for clients that have logged in before, and
// one for all others: who guesses with many addresses does not keep those out.
type hashing struct {
	same singleflight.Group // the same password, offered in many sessions, is hashed once
	slot [2]chan struct{}
	line [2]atomic.Int32

	mu   sync.Mutex
	slow time.Duration // the longest that a wrong password took lately
	when time.Time
}

func (h *hashing) init() {
	for i := range h.slot {
		h.slot[i] = make(chan struct{}, 1)
	}
}

// matches checks a password against a hash. key stands for both. Errors are
// relay.Errors but for a hash that cannot be read.
func (h *hashing) matches(ctx context.Context, key, hash, password string, known bool) (bool, error) {
	start := time.Now()
	lane := 0
	if known {
		lane, key = 1, "known "+key
	}
	v, err, _ := h.same.Do(key, func() (any, error) {
		defer h.line[lane].Add(-1)
		if h.line[lane].Add(1) > maxHashing {
			return false, &relay.Error{Code: relay.Busy, Text: "Too many passwords wait to be checked.", Advice: "Try again in a minute."}
		}
		select {
		case h.slot[lane] <- struct{}{}:
			defer func() { <-h.slot[lane] }()
		case <-ctx.Done():
			return false, brokenOff(ctx)
		}
		return argonMatches(hash, password)
	})
	good, _ := v.(bool)
	if err == nil && !good {
		h.took(start, time.Now())
	}
	return good, err
}

// slowLasts is for how long a slow answer makes other failures as slow.
const slowLasts = time.Minute

func (h *hashing) took(start, end time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d := end.Sub(start); d >= h.slow || end.Sub(h.when) > slowLasts {
		h.slow, h.when = d, end
	}
}

// slowest is how long a wrong password took lately, where many waited: a user
// that does not exist must not be known by a faster answer.
func (h *hashing) slowest(now time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now.Sub(h.when) > slowLasts {
		return 0
	}
	return h.slow
}
