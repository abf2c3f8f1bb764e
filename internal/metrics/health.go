package metrics

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Health answers whether the relay may be sent mail.
type Health struct {
	// Waits says in plain words why not, as far as the relay itself knows:
	// it starts, it drains. Empty: it may.
	Waits func() string
	// Store reads something small from the store.
	Store func(ctx context.Context) error

	mu      sync.Mutex
	checked time.Time
	away    error // of the last check
}

const (
	checkEvery = time.Second     // how old an answer of the store may be
	checkTime  = 2 * time.Second // how long it may take
)

// Ready gives the reason why no mail should be sent here, or nothing. It asks
// the store once a second at most; who comes meanwhile gets the same answer.
func (h *Health) Ready(ctx context.Context) (reason string) {
	if reason := h.Waits(); reason != "" {
		return reason
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.checked) >= checkEvery {
		// drain: the answer is for others too, so one who hangs up does not end it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTime)
		defer cancel()
		h.away = h.Store(ctx)
		h.checked = time.Now()
	}
	if h.away != nil {
		return fmt.Sprintf("the store does not answer: %v", h.away)
	}
	return ""
}
