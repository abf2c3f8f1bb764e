package tail

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"postrider/internal/relay"
)

// Cursor is how far somebody has read: all events up to Done. Where events can
// come out of their order, Done waits until none can come before it; what was read
// beyond it is known again by sums of it. There is one for each of some ages: what
// is older is seldom joined by what comes late.
type Cursor struct {
	Done  relay.ID
	Until relay.ID // the greatest that was read
	Sums  [ages]Sum
	// Loose: events come out of their order. A cursor that is the id of an event, and
	// not one of ours, is not.
	Loose bool
}

// Sum is how many were read, and the exclusive or of the second halves of their
// ids.
type Sum struct{ N, X uint64 }

func (s *Sum) add(id relay.ID) {
	s.N++
	var half uint64
	for _, b := range id[8:] {
		half = half<<8 | uint64(b)
	}
	s.X ^= half
}

// ages are told apart by the time in ids, in ticks before that of Until.
const (
	ages     = 4
	tickTime = 250 * time.Millisecond
)

func tickOf(id relay.ID) int64 { return id.Time().UnixMilli() / tickTime.Milliseconds() }

// ageOf is in which of the sums a tick counts.
func ageOf(tick, until int64) int {
	switch n := until - tick; {
	case n >= 20: // five seconds
		return 0
	case n >= 6:
		return 1
	case n >= 2:
		return 2
	}
	return 3
}

// Since is the cursor of who wants all that happened since then.
func Since(t time.Time) Cursor { return Cursor{Done: before(relay.FirstIDAt(t)), Loose: true} }

// before is the id just before one.
func before(id relay.ID) relay.ID {
	for i := len(id) - 1; i >= 0; i-- {
		if id[i]--; id[i] != 0xff {
			break
		}
	}
	return id
}

// String writes the cursor for ParseCursor. Where events come in their order it is
// the id of the last one.
func (c Cursor) String() string {
	if !c.Loose {
		return c.Done.String()
	}
	var b strings.Builder
	b.WriteString(c.Done.String() + "." + c.Until.String())
	for _, s := range c.Sums {
		b.WriteByte('.')
		if s.N > 0 {
			fmt.Fprintf(&b, "%d-%x", s.N, s.X)
		}
	}
	return b.String()
}

// ParseCursor reads one.
func ParseCursor(s string) (c Cursor, err error) {
	bad := fmt.Errorf("%.100q is not the id of an event of a stream", s)
	parts := strings.Split(s, ".")
	if len(parts) != 1 && len(parts) != 2+ages {
		return c, bad
	}
	if c.Done, err = relay.ParseID(parts[0]); err != nil || len(parts) == 1 {
		return c, err
	}
	c.Loose = true
	if c.Until, err = relay.ParseID(parts[1]); err != nil {
		return c, err
	}
	any := false
	for i, text := range parts[2:] {
		if text == "" {
			continue
		}
		n, x, _ := strings.Cut(text, "-")
		var errs [2]error
		c.Sums[i].N, errs[0] = strconv.ParseUint(n, 10, 64)
		c.Sums[i].X, errs[1] = strconv.ParseUint(x, 16, 64)
		if errs[0] != nil || errs[1] != nil || c.Sums[i].N == 0 {
			return c, bad
		}
		any = true
	}
	if any && c.Until.Compare(c.Done) <= 0 {
		return c, bad
	}
	return c, nil
}
