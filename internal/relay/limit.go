package relay

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Limit is how much may be submitted in each span of time. A limit of zero
// allows nothing; where there is no limit there is no Limit.
type Limit struct {
	Most  int64  // messages or recipients
	Of    string // "messages" or "recipients"
	Per   Period
	Burst int64 // of Per Second only: how much may come at once; 0: as Most
}

// Period is the span of a limit. Hours, days and months are those of the
// calendar in UTC, the same on every node.
type Period string

const (
	PerSecond Period = "second"
	PerHour   Period = "hour"
	PerDay    Period = "day"
	PerMonth  Period = "month"
)

// String writes the limit as "1000 recipients/hour", with a burst as
// "10 messages/second burst 50".
func (l Limit) String() string {
	s := fmt.Sprintf("%d %s/%s", l.Most, l.Of, l.Per)
	if l.Burst > 0 {
		s += " burst " + strconv.FormatInt(l.Burst, 10)
	}
	return s
}

// MarshalText writes what String does.
func (l Limit) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads what String writes. Its errors are for people.
func (l *Limit) UnmarshalText(b []byte) error {
	bad := fmt.Errorf(`%q is no limit; want one such as "1000 recipients/hour" or "10 messages/second burst 50"`, b)
	words := strings.Fields(string(b))
	if len(words) != 2 && (len(words) != 4 || words[2] != "burst") {
		return bad
	}
	var got Limit
	var err error
	if got.Most, err = strconv.ParseInt(words[0], 10, 64); err != nil || got.Most < 0 {
		return bad
	}
	of, per, _ := strings.Cut(words[1], "/")
	got.Of, got.Per = of, Period(per)
	switch got.Per {
	case PerSecond, PerHour, PerDay, PerMonth:
	default:
		return bad
	}
	if of != "messages" && of != "recipients" {
		return bad
	}
	if len(words) == 4 {
		if got.Burst, err = strconv.ParseInt(words[3], 10, 64); err != nil || got.Burst < 1 || got.Per != PerSecond {
			return bad
		}
	}
	*l = got
	return nil
}

// Start is when the period that t lies in began.
func (p Period) Start(t time.Time) time.Time {
	t = t.UTC()
	switch p {
	case PerHour:
		return t.Truncate(time.Hour)
	case PerDay:
		return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	case PerMonth:
		return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
	default:
		return t.Truncate(time.Second)
	}
}

// End is when it is over.
func (p Period) End(t time.Time) time.Time {
	start := p.Start(t)
	switch p {
	case PerHour:
		return start.Add(time.Hour)
	case PerDay:
		return start.AddDate(0, 0, 1)
	case PerMonth:
		return start.AddDate(0, 1, 0)
	default:
		return start.Add(time.Second)
	}
}

// Take asks for a share of what may be used up in a period.
type Take struct {
	Account    ID
	Subject    string // what is limited, for whom: "recipients/day", "credential …"
	Start, End time.Time
	Want       int64 // less than zero gives back
	Most       int64 // that may be used up in all
	// Least and Top bound what counts as used up, whatever stands there: of a
	// bucket, that it is full, and that a clock which went back does not leave it
	// empty for long. Top 0 is no bound.
	Least, Top int64
}

// Taken is what came of a Take.
type Taken struct {
	Got    int64 // as much of Want as there was
	Before int64 // what was used up before it
}

// Usage is what is used up of a subject in a period.
type Usage struct {
	Account    ID
	Subject    string
	Start, End time.Time
	Used       int64
}

// DayCount is how many outcomes of a kind an account had on a day (UTC).
type DayCount struct {
	Account ID
	Day     time.Time
	Kind    Kind
	N       int64
}

// TLSCount is how many sessions with receivers of a domain went in one way on a
// day (UTC). Detail says which way, in words of package tlspolicy.
type TLSCount struct {
	Day      time.Time
	Domain   string
	Detail   string
	Sessions int64
}
