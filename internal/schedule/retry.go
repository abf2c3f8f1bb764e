// Package schedule answers "what next?": when a delivery is tried again, whose
// turn it is at a site, and how many connections the site takes. It is pure:
// no goroutine, no clock, no socket.
package schedule

import "time"

// Retry is the plan for further attempts.
type Retry struct {
	Waits []time.Duration // before the second, third, … attempt; the last one repeats
}

// jitter is how much a wait is varied, up and down: enough to spread what
// failed together, too little for a person to notice.
const jitter = 0.1

// Next is when to try again after the given number of attempts (at least one).
// chance, from 0 to below 1, picks the variation. The second value is false
// where that would be after expires: the delivery is to be given up. The last
// try comes shortly before the end rather than long before it.
func (r Retry) Next(now, expires time.Time, attempts int, chance float64) (time.Time, bool) {
	i := min(max(attempts, 1), len(r.Waits)) - 1
	wait := float64(r.Waits[i])
	next := now.Add(time.Duration(wait * (1 - jitter + 2*jitter*chance)))
	if next.After(expires) {
		// One more try at the very end, unless this one was it.
		last := expires.Add(-time.Second)
		if last.Sub(now) < r.Waits[0]/2 {
			return time.Time{}, false
		}
		return last, true
	}
	return next, true
}
