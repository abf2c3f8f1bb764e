package webhook

import (
	"math/rand/v2"
	"time"
)

// waits between the tries of a request; the last one repeats.
func waits() []time.Duration {
	return []time.Duration{5 * time.Second, 15 * time.Second, time.Minute, 5 * time.Minute, 15 * time.Minute, 30 * time.Minute, longestWait}
}

const longestWait = time.Hour

// backoff is when to try again after that many failures: by the schedule, varied
// by a fifth so that what failed together does not come back together, or when
// the receiver says, if that is later.
func backoff(waits []time.Duration, failures int, now, asked time.Time) time.Time {
	wait := waits[min(max(failures, 1), len(waits))-1]
	wait += time.Duration(rand.Int64N(int64(wait)*2/5)) - wait/5
	next := now.Add(wait)
	if asked.After(now.Add(longestWait)) {
		asked = now.Add(longestWait)
	}
	if asked.After(next) {
		next = asked
	}
	return next
}
