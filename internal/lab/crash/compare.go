package crash

import "fmt"

// Comparison is what the two logs say together. All counts are of recipients
// unless they say otherwise.
type Comparison struct {
	Messages     int `json:"messages"`      // acknowledged
	Acknowledged int `json:"acknowledged"`  // recipients of those messages
	Delivered    int `json:"delivered"`     // of the acknowledged, those who have their copy, unchanged
	Reported     int `json:"reported"`      // of the acknowledged, those who refused for ever, as a DSN told the sender
	Lost         int `json:"lost"`          // acknowledged; neither delivered nor reported
	Repeated     int `json:"repeated"`      // copies beyond the first, of messages and DSNs
	Altered      int `json:"altered"`       // copies of other content than was sent
	FalseReports int `json:"false_reports"` // DSNs about one who was not refused, or was reported before
	Strange      int `json:"strange"`       // messages that nobody sent
	Unasked      int `json:"unasked"`       // delivered though the client saw no acknowledgement: allowed

	examples []string // of what is wrong
}

// Wrong tells whether anything but repeats speaks against the relay.
func (c *Comparison) Wrong() bool {
	return c.Lost+c.Altered+c.FalseReports+c.Strange > 0
}

func (c *Comparison) example(format string, args ...any) {
	if len(c.examples) < 20 {
		c.examples = append(c.examples, fmt.Sprintf(format, args...))
	}
}

// spot is one recipient of one letter.
type spot struct{ number, index int }

// compare holds what was acknowledged against what was delivered.
func compare(sent *clientLog, got *receiverLog) *Comparison {
	sent.mu.Lock()
	defer sent.mu.Unlock()
	got.mu.Lock()
	defer got.mu.Unlock()
	c := &Comparison{Strange: len(got.strange)}
	for _, s := range got.strange {
		c.example("strange: %s", s)
	}
	reported := c.readReports(sent, got)
	delivered := c.readCopies(sent, got)
	for _, a := range sent.letters {
		c.Messages++
		for i, kind := range a.kinds {
			c.Acknowledged++
			at := spot{a.number, i}
			switch {
			case bounces(kind) && reported[at]:
				c.Reported++
			case !bounces(kind) && delivered[at]:
				c.Delivered++
			default:
				c.Lost++
				c.example("lost: %s, letter %d to %s", a.id, a.number, recipientOf(kind, i))
			}
		}
	}
	return c
}

func (c *Comparison) readReports(sent *clientLog, got *receiverLog) map[spot]bool {
	reported := map[spot]bool{}
	for id, n := range got.notices {
		c.Repeated += n.times - 1
		for _, i := range n.about {
			at := spot{n.number, i}
			a, known := sent.letters[n.number]
			if reported[at] || known && (i >= len(a.kinds) || !bounces(a.kinds[i])) {
				c.FalseReports++
				c.example("false report: %s about recipient %d of letter %d", id, i, n.number)
			}
			reported[at] = true
		}
	}
	return reported
}

func (c *Comparison) readCopies(sent *clientLog, got *receiverLog) map[spot]bool {
	delivered := map[spot]bool{}
	for k, times := range got.copies {
		at := spot{k.number, k.index}
		a, known := sent.letters[k.number]
		switch {
		case !known:
			c.Unasked++
		case k.index >= len(a.kinds) || k.digest != a.digest:
			c.Altered++
			c.example("altered: %s, letter %d, recipient %d", a.id, k.number, k.index)
			continue
		}
		c.Repeated += times - 1
		delivered[at] = true
	}
	return delivered
}
