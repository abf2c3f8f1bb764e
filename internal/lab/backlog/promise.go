package backlog

import (
	"errors"
	"fmt"
)

// Bounds of the promises.
const (
	leastShare  = 0.9  // of the rate that there is with nothing in the way
	longestWait = 2000 // ms, to the delivery of 99 in 100
	mostMemory  = 512  // MB, with a million deliveries on disk
	mostIdle    = 300  // MB, with 10,000 idle sessions
	latestStart = 5    // s, to the first delivery
)

// Err says which promises were not kept; nil when all were.
func (r *Result) Err() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	compare := func(name string, c *Compared) {
		check(c.AcceptRatio >= leastShare, "%s: accepted at %.2f of the empty rate; %.2f is promised", name, c.AcceptRatio, leastShare)
		check(c.P99 < longestWait, "%s: p99 is %.0f ms; %d is promised", name, c.P99, longestWait)
		check(c.Late == 0, "%s: %d messages did not arrive in time", name, c.Late)
	}
	for name, g := range map[string]*Hog{"slow": r.Slow, "refused": r.Refused, "silent": r.Silent, "spread": r.Spread, "lost": r.Lost} {
		if g == nil {
			continue
		}
		compare(name, &g.Compared)
		check(g.MaxRSS < mostMemory, "%s: %.0f MB; %d are promised", name, g.MaxRSS, mostMemory)
		check(g.First < latestStart, "%s: first delivery after %.1f s; %d are promised", name, g.First, latestStart)
	}
	if s := r.Sites; s != nil {
		compare("sites", &s.Compared)
	}
	if s := r.Resets; s != nil {
		check(s.SameP99 < longestWait && s.OtherP99 < longestWait && s.Late == 0, "resets: p99 is %.0f ms by the same account, %.0f ms by another, %d late; %d ms are promised",
			s.SameP99, s.OtherP99, s.Late, longestWait)
		check(s.Ratio >= leastShare, "resets: the newsletter goes on at %.2f of its rate; %.2f is promised", s.Ratio, leastShare)
	}
	for name, i := range map[string]*Idle{"idle": r.Idle, "idle-tls": r.IdleTLS} {
		if i == nil {
			continue
		}
		check(i.MaxRSS < mostIdle || i == r.IdleTLS, "%s: %.0f MB; %d are promised", name, i.MaxRSS, mostIdle)
		check(i.P99 < longestWait && i.Arrived == i.Sent, "%s: p99 is %.0f ms, %d of %d arrived", name, i.P99, i.Arrived, i.Sent)
	}
	return errors.Join(errs...)
}
