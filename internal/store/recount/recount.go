// Package recount holds the counts that a store keeps for reports against its
// events. It reads the tables by itself, without the code that writes them.
package recount

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"postrider/internal/relay"
)

// Result is what a recount found.
type Result struct {
	Events int      // that count
	Rows   int      // different counts that they come to
	Wrong  int      // counts that differ, or events that contradict each other
	First  []string // some of what is wrong, for people
}

// row is all that counts are told apart by.
type row struct {
	account, credential                           string
	at, stream, kind, mark, latency               int64
	category, provider, sending, source, tag, day string
}

// event is what of an event's detail counts.
type event struct {
	Diagnosis  struct{ Category string }
	Attempt    *struct{ Source string }
	Engagement *struct{ Machine, Method string }
	Provider   string
	Source     string
	Mark       int64
}

// recount is one under way.
type recount struct {
	Result
	span   int64 // microseconds that counts are told apart by
	counts map[row]int64
	days   map[row]int64
	firsts map[string][2]int64 // events about one delivery of one kind, and first ones among them
}

// Check counts all events anew, and compares. Times are told apart by the span: an
// hour, or a day where the store has merged hours.
func Check(ctx context.Context, db *sql.DB, span time.Duration) (*Result, error) {
	r := &recount{span: span.Microseconds(), counts: map[row]int64{}, days: map[row]int64{}, firsts: map[string][2]int64{}}
	for _, step := range []func(context.Context, *sql.DB) error{r.events, r.rollup, r.tally} {
		if err := step(ctx, db); err != nil {
			return nil, fmt.Errorf("recount: %w", err)
		}
	}
	for k, n := range r.counts {
		if n != 0 {
			r.wrong("%+v: %+d", k, n)
		}
	}
	for k, n := range r.days {
		if n != 0 {
			r.wrong("on %s of %s, kind %s: %+d", k.day, k.account, relay.Kind(k.kind), n)
		}
	}
	for what, n := range r.firsts {
		if n[1] != 1 {
			r.wrong("%s: %d events, %d of them the first", what, n[0], n[1])
		}
	}
	slices.Sort(r.First)
	return &r.Result, nil
}

func (r *recount) wrong(format string, args ...any) {
	if r.Wrong++; len(r.First) < 20 {
		r.First = append(r.First, fmt.Sprintf(format, args...))
	}
}

// events adds what the counts should be.
func (r *recount) events(ctx context.Context, db *sql.DB) error {
	rows, err := db.QueryContext(ctx, "select e.at, e.account, e.kind, e.detail, e.message, e.n, m.stream, m.credential, m.received, m.header_from, m.sender, m.tags, m.params"+
		" from event e join message m on m.id = e.message")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var at, kind, n, stream, received int64
		var account, detail, message, credential, params []byte
		var from, sender, tags string
		if err := rows.Scan(&at, &account, &kind, &detail, &message, &n, &stream, &credential, &received, &from, &sender, &tags, &params); err != nil {
			return err
		}
		var e event
		if len(detail) > 0 {
			if err := json.Unmarshal(detail, &e); err != nil {
				return fmt.Errorf("event of %x: %w", message, err)
			}
		}
		k := row{account: hex.EncodeToString(account), credential: hex.EncodeToString(credential), at: at - at%r.span, stream: stream, kind: kind, mark: e.Mark,
			provider: e.Provider, sending: domain(from, sender), source: e.Source}
		switch relay.Kind(kind) {
		case relay.EventReported:
			continue // nothing that became of mail
		case relay.EventHeld, relay.EventReleased, relay.EventRescheduled:
			r.day(at, k.account, kind, 1)
			continue
		case relay.EventAccepted:
			k.provider, k.source = "", ""
		case relay.EventDelivered:
			if k.latency, err = latency(at, received, params); err != nil {
				return err
			}
		default:
			k.category = e.Diagnosis.Category
		}
		if relay.Kind(kind) != relay.EventAccepted {
			r.day(at, k.account, kind, 1)
		}
		if e.Attempt != nil && e.Attempt.Source != "" {
			k.source = e.Attempt.Source
		}
		if e.Engagement != nil {
			if k.category = e.Engagement.Method; e.Engagement.Machine != "" {
				k.category = "machine"
			}
		}
		r.first(kind, e, fmt.Sprintf("delivery %x.%d, kind %s", message, n, relay.Kind(kind)))
		r.Events++
		r.add(k, tags)
	}
	return rows.Err()
}

// first notes whether the event is the first of its kind about a delivery.
func (r *recount) first(kind int64, e event, what string) {
	switch relay.Kind(kind) {
	case relay.EventComplained, relay.EventOpened, relay.EventClicked, relay.EventUnsubscribed:
	default:
		return
	}
	note := func(what string, mark relay.Mark) {
		n := r.firsts[what]
		n[0]++
		if relay.Mark(e.Mark)&mark != 0 {
			n[1]++
		}
		r.firsts[what] = n
	}
	note(what, relay.MarkFirst)
	if e.Engagement == nil || e.Engagement.Machine == "" {
		note(what+", of a person", relay.MarkPerson)
	}
}

func (r *recount) add(k row, tags string) {
	r.counts[k]++
	var seen []string
	for tag := range strings.SplitSeq(tags, "\n") {
		if tag != "" && !slices.Contains(seen, tag) {
			seen = append(seen, tag)
			k.tag = tag
			r.counts[k]++
		}
	}
}

func (r *recount) day(at int64, account string, kind, n int64) {
	r.days[row{account: account, kind: kind, day: time.UnixMicro(at).UTC().Format(time.DateOnly)}] += n
}

func domain(addresses ...string) string {
	for _, a := range addresses {
		if i := strings.LastIndex(a, "@"); i >= 0 {
			return strings.ToLower(a[i+1:])
		}
	}
	return ""
}

// latency is how long it took from when the message was to go.
func latency(at, received int64, params []byte) (int64, error) {
	var p struct{ Release int64 }
	if err := json.Unmarshal(params, &p); err != nil {
		return 0, err
	}
	return int64(relay.Latency(time.Duration(at-max(received, p.Release)) * time.Microsecond)), nil
}

// rollup takes off what the counts are.
func (r *recount) rollup(ctx context.Context, db *sql.DB) error {
	rows, err := db.QueryContext(ctx, "select account, at, stream, kind, mark, latency, credential, category, provider, sending, source, tag, count from rollup")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var k row
		var account, credential []byte
		var n int64
		if err := rows.Scan(&account, &k.at, &k.stream, &k.kind, &k.mark, &k.latency, &credential, &k.category, &k.provider, &k.sending, &k.source, &k.tag, &n); err != nil {
			return err
		}
		k.at -= k.at % r.span
		k.account, k.credential = hex.EncodeToString(account), hex.EncodeToString(credential)
		r.counts[k] -= n
	}
	r.Rows = len(r.counts)
	return rows.Err()
}

// tally takes off what the counts by day are.
func (r *recount) tally(ctx context.Context, db *sql.DB) error {
	rows, err := db.QueryContext(ctx, "select account, day, kind, count from tally")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var account []byte
		var day, kind, n int64
		if err := rows.Scan(&account, &day, &kind, &n); err != nil {
			return err
		}
		r.day(day, hex.EncodeToString(account), kind, -n)
	}
	return rows.Err()
}
