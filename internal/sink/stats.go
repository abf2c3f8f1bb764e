package sink

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postrider/internal/mailauth"
)

// Stats are counts since the server was made.
type Stats struct {
	Seconds     float64          `json:"seconds"`
	Connections int64            `json:"connections"`
	Open        int64            `json:"open"` // connections now
	TLS         int64            `json:"tls"`  // handshakes done
	Messages    int64            `json:"messages"`
	Recipients  int64            `json:"recipients"`        // of those messages
	Bytes       int64            `json:"bytes"`             // of those messages
	Refused     map[int]int64    `json:"refused,omitempty"` // replies of 400 and more, by code
	Faults      map[string]int64 `json:"faults,omitempty"`  // behaviours that were carried out, by name
	DMARC       map[string]int64 `json:"dmarc,omitempty"`   // messages that were checked, by result
}

// counters are what the sessions add to.
type counters struct {
	start                       time.Time
	connections, open, tls      atomic.Int64
	messages, recipients, bytes atomic.Int64

	waiting atomic.Int32 // those in Wait
	mu      sync.Mutex
	refused map[int]int64
	faults  map[string]int64
	dmarc   map[string]int64
	changed chan struct{} // closed and replaced when a message comes while someone waits
}

func (c *counters) refusal(code int) {
	c.mu.Lock()
	c.refused[code]++
	c.mu.Unlock()
}

func (c *counters) fault(name string) {
	c.mu.Lock()
	c.faults[name]++
	c.mu.Unlock()
}

func (c *counters) proof(r mailauth.Result) {
	c.mu.Lock()
	c.dmarc[string(r)]++
	c.mu.Unlock()
}

// message counts one, and wakes those who wait for it.
func (c *counters) message(recipients int, size int64) {
	c.recipients.Add(int64(recipients))
	c.bytes.Add(size)
	c.messages.Add(1)
	if c.waiting.Load() > 0 {
		c.mu.Lock()
		close(c.changed)
		c.changed = make(chan struct{})
		c.mu.Unlock()
	}
}

// Stats gives the counts so far.
func (s *Server) Stats() Stats {
	c := &s.counters
	c.mu.Lock()
	defer c.mu.Unlock()
	return Stats{
		Seconds:     time.Since(c.start).Seconds(),
		Connections: c.connections.Load(),
		Open:        c.open.Load(),
		TLS:         c.tls.Load(),
		Messages:    c.messages.Load(),
		Recipients:  c.recipients.Load(),
		Bytes:       c.bytes.Load(),
		Refused:     maps.Clone(c.refused),
		Faults:      maps.Clone(c.faults),
		DMARC:       maps.Clone(c.dmarc),
	}
}

// String is a line for people.
func (s Stats) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d connections (%d open), %d messages, %d recipients, %d bytes",
		s.Connections, s.Open, s.Messages, s.Recipients, s.Bytes)
	for _, code := range slices.Sorted(maps.Keys(s.Refused)) {
		fmt.Fprintf(&b, ", %d times %d", s.Refused[code], code)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Faults)) {
		fmt.Fprintf(&b, ", %s %d", name, s.Faults[name])
	}
	for _, result := range slices.Sorted(maps.Keys(s.DMARC)) {
		fmt.Fprintf(&b, ", dmarc=%s %d", result, s.DMARC[result])
	}
	return b.String()
}

// report prints a line every second in which something came, until done is
// closed, and then the counts as one line of JSON.
func (s *Server) report(w io.Writer, done <-chan struct{}) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last := s.Stats()
	for open := true; open; {
		select {
		case <-tick.C:
		case <-done:
			open = false
		}
		now := s.Stats()
		if now.Connections != last.Connections || now.Messages != last.Messages || now.Open != last.Open {
			rate := float64(now.Messages-last.Messages) / max(now.Seconds-last.Seconds, 0.001)
			if _, err := fmt.Fprintf(w, "%6.1f s  %7.0f/s  %s\n", now.Seconds, rate, now); err != nil {
				return fmt.Errorf("print counts: %w", err)
			}
		}
		last = now
	}
	if err := json.NewEncoder(w).Encode(last); err != nil {
		return fmt.Errorf("print counts: %w", err)
	}
	return nil
}
