package logbench

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"postrider/internal/relay"
	"postrider/internal/submit"
	"postrider/internal/upkeep"
)

// Drop is what retention costs the mail that is taken meanwhile: commits of a few
// messages each, one after the other, without and with messages being dropped.
type Drop struct {
	Messages int     `json:"messages"` // dropped
	Rows     int     `json:"rows"`     // of messages, deliveries and events that went with them
	Seconds  float64 `json:"seconds"`
	Accepted int     `json:"accepted"` // messages that were taken meanwhile

	Before Taking `json:"before"` // without
	During Taking `json:"during"`
}

// Taking is how mail was taken.
type Taking struct {
	PerSecond float64 `json:"per_second"`
	P50       float64 `json:"p50"` // of commits, in milliseconds
	P99       float64 `json:"p99"`
	Max       float64 `json:"max"`
}

// rowsOfMessage is how many rows a message has, with its deliveries and events, on
// average.
const rowsOfMessage = 1 + 1.125 + eventsOfMessage

// batch is how many messages a commit has, as it has under load.
const batch = 16

// drop drops the oldest messages by their age while mail is taken.
func (b *bench) drop(ctx context.Context) error {
	if b.o.Drop <= 0 {
		return nil
	}
	before := &taking{bench: b}
	alone, stop := context.WithTimeout(ctx, min(10*time.Second, time.Duration(b.o.Drop)*time.Millisecond))
	err := before.run(alone)
	stop()
	if err != nil || ctx.Err() != nil {
		return fmt.Errorf("take mail: %w", err)
	}
	// As a log that is kept for so long that all these are too old: the clock of
	// the upkeep is as far ahead.
	p := &past{Past: b.db, most: b.o.Drop, now: b.to.AddDate(0, 0, 30)}
	during, d := &taking{bench: b}, &Drop{}
	running, end := context.WithCancel(ctx)
	var failed error
	var g sync.WaitGroup
	g.Go(func() { failed = during.run(running) })
	began := time.Now()
	err = upkeep.New(upkeep.Config{Node: "bench", Keep: relay.Keep{Log: 30}}, b.db, p, slog.New(slog.DiscardHandler)).Drop(ctx)
	d.Seconds = time.Since(began).Seconds()
	for during.commits() == 0 && failed == nil && ctx.Err() == nil {
		runtime.Gosched()
	}
	end()
	g.Wait()
	if err == nil {
		err = failed
	}
	if err != nil {
		return fmt.Errorf("drop log: %w", err)
	}
	d.Messages, d.Accepted = p.dropped, during.commits()*batch
	d.Rows = int(float64(d.Messages) * rowsOfMessage)
	d.Before, d.During = before.result(), during.result()
	b.result.Drop = d
	b.say("dropped %d messages, %d rows, in %.1f s", d.Messages, d.Rows, d.Seconds)
	for _, t := range []struct {
		name string
		Taking
	}{{"taking mail before", d.Before}, {"and meanwhile", d.During}} {
		b.say("%-20s %7.0f messages/s   commit p50 %6.1f   p99 %6.1f   max %6.1f ms", t.name, t.PerSecond, t.P50, t.P99, t.Max)
	}
	return nil
}

// past is a store that has dropped enough at some point.
type past struct {
	upkeep.Past
	most, dropped int
	now           time.Time
}

func (p *past) Now() time.Time { return p.now }

func (p *past) DropLog(ctx context.Context, after, until relay.ID, ends func(relay.ID) relay.ID) (int, relay.ID, error) {
	n, next, err := p.Past.DropLog(ctx, after, until, ends)
	if p.dropped += n; p.dropped >= p.most {
		next = relay.ID{}
	}
	return n, next, err
}

// taking takes mail.
type taking struct {
	*bench
	mu   sync.Mutex
	took []time.Duration
	all  time.Duration
}

func (t *taking) commits() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.took)
}

func (t *taking) run(ctx context.Context) error {
	began := time.Now()
	content := body(make([]byte, 4000))
	for ctx.Err() == nil {
		var some []*relay.Submission
		for range batch {
			s, err := t.submission(content)
			if err != nil {
				return err
			}
			some = append(some, s)
		}
		start := time.Now()
		for _, err := range t.db.Put(context.WithoutCancel(ctx), 0, some) {
			if err != nil {
				return err
			}
		}
		t.mu.Lock()
		t.took = append(t.took, time.Since(start))
		t.mu.Unlock()
	}
	t.all = time.Since(began)
	return nil
}

func (t *taking) submission(content relay.Content) (*relay.Submission, error) {
	id, err := submit.NewID()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	m := &relay.Message{ID: id, Account: t.accounts[1], Stream: relay.Transactional, Received: now, Envelope: relay.Envelope{Sender: "app@example.com"},
		Subject: "Hello", HeaderID: "<" + id.String() + "@example.com>", Size: content.Size()}
	d := &relay.Delivery{ID: relay.DeliveryID{Message: id, N: 1}, Account: m.Account, Stream: m.Stream, Recipient: relay.Recipient{Address: "ann@example.net"}, Domain: "example.net",
		State: relay.Queued, Due: now, Expires: now.Add(time.Hour), Updated: now}
	return &relay.Submission{Message: m, Content: content, Deliveries: []*relay.Delivery{d}}, nil
}

func (t *taking) result() Taking {
	slices.Sort(t.took)
	ms := func(at int) float64 { return float64(t.took[len(t.took)*at/100].Microseconds()) / 1000 }
	return Taking{PerSecond: float64(len(t.took)*batch) / t.all.Seconds(), P50: ms(50), P99: ms(99), Max: float64(t.took[len(t.took)-1].Microseconds()) / 1000}
}
