package relay

import (
	"slices"
	"strings"
	"time"
)

// Mark tells more of an event than its kind does.
type Mark int8

const (
	// MarkFirst: the first event of its kind about this delivery. Only of what comes
	// after the end: complaints, opens, clicks, unsubscriptions.
	MarkFirst Mark = 1 << iota
	// MarkPerson: the first one of its kind that no machine did.
	MarkPerson
	// MarkLate: a bounce of what had been delivered.
	MarkLate
)

// Dimension is one of the things that counts are told apart by.
type Dimension string

const (
	ByAccount    Dimension = "account"
	ByStream     Dimension = "stream"
	ByCategory   Dimension = "category"
	ByProvider   Dimension = "provider"
	ByCredential Dimension = "credential"
	ByDomain     Dimension = "domain" // the sending one: of the From header
	BySource     Dimension = "source" // our address
	ByTag        Dimension = "tag"
	ByLatency    Dimension = "latency"
)

// Count is how many events have in common what stands here. Fields that nobody
// asked to be told apart are zero.
type Count struct {
	At         time.Time // when the hour, or the day, began (UTC)
	Account    ID
	Stream     Stream
	Kind       Kind
	Mark       Mark
	Category   string // of the diagnosis; of opens and clicks: "machine", or empty; of unsubscriptions: how
	Provider   string // of the receiver; empty: not known
	Credential ID     // zero: our own reports
	Domain     string
	Source     string // our address; empty: none was used
	Tag        string
	Latency    int // of what was delivered: see Latency
	N          int64
}

// CountFilter says which events are counted, and what is told apart. Kinds and
// marks always are.
type CountFilter struct {
	Since, Until time.Time // from the hour of the one to before the other; zero: no bound
	Kinds        []Kind    // nil: all
	// Where holds counts to one of the values for each dimension in it, ids and
	// streams as texts.
	Where map[Dimension][]string
	By    []Dimension
	Per   Period // PerHour or PerDay tell times apart; empty: they are not
	Limit int    // most to give; zero gives MaxCounts
}

// MaxCounts is the most counts that one question is answered with.
const MaxCounts = 500_000

// Counted tells whether events of the kind are counted for reports: what became
// of mail is, orders and what we wrote about it are not.
func (k Kind) Counted() bool {
	switch k {
	case EventHeld, EventReleased, EventRescheduled, EventReported:
		return false
	}
	return true
}

// SendingDomain is the domain that the message speaks in the name of, in lower
// case: of its From header, else of its sender.
func (m *Message) SendingDomain() string {
	for _, a := range []string{m.From, m.Envelope.Sender} {
		if i := strings.LastIndexByte(a, '@'); i >= 0 {
			return strings.ToLower(a[i+1:])
		}
	}
	return ""
}

// latencies are the upper bounds of the buckets: from a tenth of a second on, each
// one and a half times the one before.
var latencies = func() (bounds [39]time.Duration) {
	d := 100 * time.Millisecond
	for i := range bounds {
		bounds[i] = d.Truncate(time.Millisecond)
		d = d * 3 / 2
	}
	return bounds
}()

// Latency is the bucket of a time to deliver, from 1 on; the last one is for more
// than five days.
func Latency(d time.Duration) int {
	i, _ := slices.BinarySearch(latencies[:], d)
	return i + 1
}

// LatencyBounds are the least and the most of a bucket. The last one has no end,
// and gives its beginning twice.
func LatencyBounds(bucket int) (from, to time.Duration) {
	if bucket > 1 {
		from = latencies[min(bucket-2, len(latencies)-1)]
	}
	return from, latencies[max(min(bucket-1, len(latencies)-1), 0)]
}
