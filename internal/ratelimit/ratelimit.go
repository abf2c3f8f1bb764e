// Package ratelimit holds the arithmetic of limits that several share: a bucket
// that fills with time, and a share of what there is, fetched in advance so that
// not every use is a question to whoever keeps the whole. It asks nobody for the
// time and is safe for one goroutine at a time.
package ratelimit

import (
	"math"
	"time"
)

// Bucket is a token bucket: so many units a second, of which so many may come at
// once. All of it hangs on one number, how much was used since a beginning at
// which the bucket was full.
type Bucket struct {
	Rate  int64 // units a second, 1 or more
	Burst int64 // units, 1 or more
}

// Span gives the bounds of the number after that time: it cannot be more than
// most, and counts as least where it is less, because a full bucket takes no more.
func (b Bucket) Span(elapsed time.Duration) (least, most int64) {
	filled := int64(elapsed/time.Second)*b.Rate + int64(float64(elapsed%time.Second)*float64(b.Rate)/float64(time.Second))
	return filled, filled + b.Burst
}

// Wait is how long it takes until n more units may be used, where used is the
// number after that time. For more than a burst it is the time until the bucket
// is full.
func (b Bucket) Wait(elapsed time.Duration, used, n int64) time.Duration {
	least, most := b.Span(elapsed)
	missing := max(used, least) + min(n, b.Burst) - most
	if missing <= 0 {
		return 0
	}
	return time.Duration(math.Ceil(float64(missing) / float64(b.Rate) * float64(time.Second)))
}

// Share is one's part of a whole that others take from too.
type Share struct {
	have    int64 // fetched and not used
	left    int64 // of the whole, as far as the last fetch told
	spent   int64 // since the last fetch
	fetched time.Time
	used    time.Time // last use
	dry     time.Time // when a fetch gave less than was wanted; zero: it did not
	started bool
}

// Have is how much is there to be used at once.
func (s *Share) Have() int64 { return s.have }

// Left is how much the whole had besides when something was fetched last.
func (s *Share) Left() (left int64, fetched time.Time) { return s.left, s.fetched }

// Dry is when a fetch gave less than was wanted; zero where the last one did not.
func (s *Share) Dry() time.Time { return s.dry }

// Used is when something was used last.
func (s *Share) Used() time.Time { return s.used }

// Use takes n units, which must be there.
func (s *Share) Use(now time.Time, n int64) {
	s.have -= n
	s.spent += n
	s.used = now
}

// Return puts units back that were used for nothing.
func (s *Share) Return(n int64) {
	s.have += n
	s.spent = max(0, s.spent-n)
}

// Want is how much to fetch where n units are needed: what is missing, and what
// will be needed within the horizon if it goes on as it did, but no more than
// ahead in advance. Where that is a small part of what is left, little lies about
// in the end where nobody needs it.
func (s *Share) Want(now time.Time, n int64, horizon time.Duration, ahead int64) int64 {
	missing := max(0, n-s.have)
	if !s.started {
		return missing
	}
	since := max(now.Sub(s.fetched), time.Millisecond)
	rate := float64(s.spent+n) / float64(since)
	more := int64(min(rate*float64(horizon), 4*float64(s.spent+n)))
	return missing + max(0, min(more, ahead))
}

// Fetched notes what a fetch gave of what was wanted, and what the whole has
// left.
func (s *Share) Fetched(now time.Time, wanted, got, left int64) {
	s.have += got
	s.left, s.spent, s.fetched, s.started = max(0, left), 0, now, true
	s.dry = time.Time{}
	if got < wanted {
		s.dry = now
	}
}

// Idle gives all that is there back, where nothing was used for that long.
func (s *Share) Idle(now time.Time, long time.Duration) (spare int64) {
	if s.have <= 0 || now.Sub(s.used) < long {
		return 0
	}
	return s.Drop()
}

// Drop forgets all that is there, and gives it.
func (s *Share) Drop() (had int64) {
	had, s.have = s.have, 0
	return had
}
