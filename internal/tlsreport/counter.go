// Package tlsreport tells receivers how TLS with their mail servers went (TLS-RPT,
// RFC 8460): it counts sessions, and once a day sends each domain that asks for
// it a report.
package tlsreport

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"postrider/internal/dns"
	"postrider/internal/relay"
	"postrider/internal/tlspolicy"
)

// TXT looks up records; dns.Resolver does. Its error is a *dns.Error.
type TXT interface {
	TXT(ctx context.Context, name string) ([]string, error)
}

// Counts keeps counts for all nodes.
type Counts interface {
	CountTLS(ctx context.Context, counts []relay.TLSCount) error
}

const (
	flushEvery = time.Minute
	// maxCounts bounds what is counted between two flushes. Sessions beyond that
	// which are like no other are not counted.
	maxCounts = 50_000
	// maxAsked bounds the look-ups of one flush; the others come with the next.
	maxAsked = 5000
	askers   = 8
)

// Counter counts sessions.
type Counter struct {
	store Counts
	txt   TXT
	log   *slog.Logger
	now   func() time.Time

	mu     sync.Mutex
	counts map[relay.TLSCount]int64 // whose Sessions are zero
	lost   int64
}

// NewCounter makes a counter.
func NewCounter(store Counts, txt TXT, log *slog.Logger) *Counter {
	return &Counter{store: store, txt: txt, log: log, now: time.Now, counts: map[relay.TLSCount]int64{}}
}

// Session implements deliver.Sessions.
func (c *Counter) Session(s tlspolicy.Session) {
	key := relay.TLSCount{Day: relay.PerDay.Start(c.now()), Domain: s.Domain, Detail: s.Detail()}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.counts[key]; !known && len(c.counts) >= maxCounts {
		c.lost++
		return
	}
	c.counts[key]++
}

// Run stores what is counted until ctx ends, and what is left then.
func (c *Counter) Run(ctx context.Context) error {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.flush(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second) // drain: the last minute's counts
			defer cancel()
			c.flush(last)
			return nil
		}
	}
}

// flush stores the counts of domains that want reports, and forgets the others.
func (c *Counter) flush(ctx context.Context) {
	c.mu.Lock()
	counts, lost := c.counts, c.lost
	c.counts, c.lost = map[relay.TLSCount]int64{}, 0
	c.mu.Unlock()
	if lost > 0 {
		c.log.Warn("too many kinds of TLS sessions at once: some will not be in reports", "sessions", lost)
	}
	byDomain := map[string][]relay.TLSCount{}
	for key, n := range counts {
		key.Sessions = n
		byDomain[key.Domain] = append(byDomain[key.Domain], key)
	}
	var rows []relay.TLSCount
	for _, domain := range c.wanted(ctx, byDomain) {
		rows = append(rows, byDomain[domain]...)
	}
	if len(rows) == 0 {
		return
	}
	if err := c.store.CountTLS(ctx, rows); err != nil {
		c.log.Warn("counts of TLS sessions are not stored; they are kept for the next try", "err", err)
		c.giveBack(rows)
	}
}

func (c *Counter) giveBack(rows []relay.TLSCount) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range rows {
		n := r.Sessions
		r.Sessions = 0
		if _, known := c.counts[r]; known || len(c.counts) < maxCounts {
			c.counts[r] += n
		}
	}
}

// wanted finds those of the domains that want reports. Where nobody knows, they
// may.
func (c *Counter) wanted(ctx context.Context, domains map[string][]relay.TLSCount) (want []string) {
	line := make(chan string)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range askers {
		wg.Go(func() {
			for domain := range line {
				records, err := c.txt.TXT(ctx, "_smtp._tls."+domain)
				var failed *dns.Error
				if len(tlspolicy.Targets(records)) > 0 || errors.As(err, &failed) && failed.Kind == dns.Temporary {
					mu.Lock()
					want = append(want, domain)
					mu.Unlock()
				}
			}
		})
	}
	var later []relay.TLSCount
	asked := 0
	for domain, rows := range domains {
		if asked++; asked > maxAsked || ctx.Err() != nil {
			later = append(later, rows...)
			continue
		}
		line <- domain
	}
	close(line)
	wg.Wait()
	c.giveBack(later)
	return want
}
