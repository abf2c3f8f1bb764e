package deliver

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postrider/internal/dns"
	"postrider/internal/queue"
	"postrider/internal/relay"
	"postrider/internal/schedule"
)

// TestShutdownFinishesAttempts: what is under way comes to its end; nothing else
// begins; idle connections are closed with QUIT.
func TestShutdownFinishesAttempts(t *testing.T) {
	r := newRig(t).mx("receiver.test", "127.0.1.1").mx("idle.test", "127.0.1.2")
	r.config.PerSite = 1
	r.run()
	g := r.gate()
	p := r.peer("127.0.1.1", func(s *talk) {
		s.on = func(line string) string {
			if line == "." {
				g.pass()
			}
			return ""
		}
		s.serve()
	})
	other := r.peer("127.0.1.2", (*talk).serve)
	r.try(r.item("b@idle.test", plain))
	busy := r.item("b@receiver.test", plain)
	r.offer(busy)
	r.eventually("the attempt is under way", func(*Dispatcher) bool { return r.queue.hasBegun(busy) })
	waiting := r.many(5, "b@receiver.test")
	r.offer(waiting...)
	over := make(chan struct{})
	go func() { r.end(); close(over) }()
	r.eventually("the end begins", func(d *Dispatcher) bool { return d.phase == ended })
	late := r.item("b@receiver.test", plain)
	r.offer(late)
	if r.queue.settled(busy) {
		t.Error("the attempt was cut though there was time")
	}
	g.open()
	if o := r.outcome(busy); o.Kind != relay.EventDelivered {
		t.Errorf("the attempt under way: %s %s", o.Kind, o.Reply)
	}
	<-over
	for _, it := range append(waiting, late) {
		if r.queue.hasBegun(it) {
			t.Error("an attempt began after the end")
		}
	}
	for name, p := range map[string]*peer{"busy": p, "idle": other} {
		if total, now, _, quits := p.count(); total != 1 || now != 0 || quits != 1 {
			t.Errorf("%s: %d connections, %d still open, %d ended with QUIT; want 1, 0, 1", name, total, now, quits)
		}
	}
}

// TestShutdownCutsAttempts that take longer than the time to drain. They are
// made again as soon as can be.
func TestShutdownCutsAttempts(t *testing.T) {
	r := newRig(t).mx("receiver.test", "127.0.1.1")
	r.config.Drain = 20 * time.Millisecond
	r.run()
	g := r.gate()
	var under sync.WaitGroup
	under.Add(2)
	r.peer("127.0.1.1", func(s *talk) {
		s.on = func(line string) string {
			if line == "." || strings.HasPrefix(line, "RCPT TO:<early") {
				under.Done()
				g.pass()
				return hangUp
			}
			return ""
		}
		s.serve()
	})
	late, early := r.item("late@receiver.test", plain), r.item("early@receiver.test", plain)
	r.offer(late, early)
	under.Wait()
	r.end()
	for it, unknown := range map[*queue.Item]bool{late: true, early: false} {
		o := r.outcome(it)
		if o.Kind != relay.EventDeferred || !o.Due.Equal(o.At) || o.Reply.Code != 0 || o.Reply.Enhanced != "4.3.2" || o.Attempt.Unknown != unknown {
			t.Errorf("%s: %s %s, due after %v, unknown %v; want deferred till now, %v", it.Delivery.Recipient.Address,
				o.Kind, o.Reply, o.Due.Sub(o.At), o.Attempt.Unknown, unknown)
		}
	}
}

// TestShutdownWaitsForNothingElse: neither a connection on its way nor a look-up
// is an attempt.
func TestShutdownWaitsForNothingElse(t *testing.T) {
	r := newRig(t).mx("receiver.test", "127.0.1.1").zone("silent.test. 60 IN A 127.0.1.1")
	r.config.Drain = time.Hour
	r.config.Timeouts.Greeting = time.Hour
	r.dns.Silence("silent.test")
	r.run()
	g := r.gate()
	p := r.peer("127.0.1.1", func(*talk) { g.pass() })
	items := append(r.many(3, "b@receiver.test"), r.many(3, "b@silent.test")...)
	r.offer(items...)
	r.eventually("both wait", func(d *Dispatcher) bool {
		total, _, _, _ := p.count()
		return total == 1 && d.domains["silent.test"].running
	})
	began := time.Now()
	r.end()
	if took := time.Since(began); took > patience/2 {
		t.Errorf("the end took %v", took)
	}
	for _, it := range items {
		if r.queue.hasBegun(it) {
			t.Error("an attempt was counted that never was")
		}
	}
}

func TestOfferBeforeRunAndRunAfterTheEnd(t *testing.T) {
	r := newRig(t).mx("receiver.test", "127.0.1.1").make()
	p := r.peer("127.0.1.1", (*talk).serve)
	items := r.many(3, "b@receiver.test")
	r.offer(items...)
	r.run()
	r.delivered(items)
	r.end()
	r.offer(r.many(3, "b@receiver.test")...)
	if n := len(p.received()); n != 3 {
		t.Errorf("%d messages arrived, want 3", n)
	}

	r = newRig(t).mx("receiver.test", "127.0.1.1").make()
	items = r.many(3, "b@receiver.test")
	r.offer(items...)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.d.Run(ctx); err != nil {
		t.Error(err)
	}
	for _, it := range items {
		if r.queue.hasBegun(it) {
			t.Error("an attempt began after the end")
		}
	}
}

// nowhere is a resolver without sockets.
type nowhere struct{ wait time.Duration }

func (n nowhere) Mail(ctx context.Context, domain string) (*dns.MailHosts, error) {
	select {
	case <-time.After(n.wait):
		return nil, &dns.Error{Kind: dns.NotFound, Name: domain, Text: "no such domain"}
	case <-ctx.Done():
		return nil, &dns.Error{Kind: dns.Temporary, Name: domain, Err: ctx.Err()}
	}
}

func (n nowhere) Host(context.Context, string) (dns.Host, error) { panic("not asked for") }

// TestShutdownWithoutStore: outcomes that can't be stored do not keep the relay
// from ending.
func TestShutdownWithoutStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newFakeQueue()
		d := New(Config{Hostname: "relay.test", Connections: 10, PerSite: 1, Drain: 20 * time.Second, Retry: schedule.Retry{Waits: []time.Duration{time.Minute}}},
			stuckQueue{q}, fakeContents{}, nowhere{time.Second}, nil, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- d.Run(ctx) }()
		r := &rig{t: t, d: d, queue: q, kept: fakeContents{}}
		r.offer(r.many(600, "b@nowhere.test")...)
		time.Sleep(2 * time.Second) // of the bubble's clock
		cancel()
		began := time.Now()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != 20*time.Second+lastWrite {
			t.Errorf("the end took %v, want the time to drain and %v", took, lastWrite)
		}
	})
}

// stuckQueue is a queue whose store is away.
type stuckQueue struct{ *fakeQueue }

func (q stuckQueue) Settle(ctx context.Context, _ relay.Outcome) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestLookupsAreBounded: many domains at once share a bounded number of look-ups,
// each asked once, however many messages wait for it.
func TestLookupsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newFakeQueue()
		res := &countingResolver{nowhere: nowhere{time.Second}}
		d := New(Config{Hostname: "relay.test", Connections: 10, PerSite: 1, Retry: schedule.Retry{Waits: []time.Duration{time.Minute}}},
			q, fakeContents{}, res, nil, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- d.Run(ctx) }()
		r := &rig{t: t, d: d, queue: q, kept: fakeContents{}}
		var items []*queue.Item
		for i := range 3 * maxLookups {
			items = append(items, r.many(3, fmt.Sprintf("b@d%d.test", i))...)
		}
		r.offer(items...)
		synctest.Wait()
		time.Sleep(7 * time.Second) // one account has half of them
		for _, it := range items {
			if !q.settled(it) {
				t.Fatal("an item is not settled")
			}
		}
		if res.total != 3*maxLookups || res.most > maxLookups/2 {
			t.Errorf("%d look-ups, %d at once; want %d, %d at most", res.total, res.most, 3*maxLookups, maxLookups/2)
		}
		cancel()
		<-ended
	})
}

type countingResolver struct {
	nowhere
	mu               sync.Mutex
	total, now, most int
}

func (c *countingResolver) Mail(ctx context.Context, domain string) (*dns.MailHosts, error) {
	c.mu.Lock()
	c.total++
	c.now++
	c.most = max(c.most, c.now)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.now--
		c.mu.Unlock()
	}()
	return c.nowhere.Mail(ctx, domain)
}

// TestStress throws faults of all kinds at a dispatcher whose limits are tight,
// with items from many goroutines. Each item must come to one outcome, the limits
// must hold, and in the end the books must be in order.
func TestStress(t *testing.T) {
	const sites, lanes, each = 5, 4, 40
	r := newRig(t)
	r.config.Connections, r.config.PerSite, r.config.PerConn, r.config.Idle = 12, 4, 6, 2*time.Millisecond
	for s := range sites {
		for l := range lanes {
			r.zone(fmt.Sprintf("d%d-%d.test. 60 IN MX 10 mx%d.p%d.test.", s, l, l, s), fmt.Sprintf("mx%d.p%d.test. 60 IN A 127.0.4.%d", l, s, s+1))
		}
	}
	var faults atomic.Int64
	var peers []*peer
	for s := range sites - 1 { // the last one is down
		peers = append(peers, r.peer(fmt.Sprintf("127.0.4.%d", s+1), func(s *talk) {
			switch faults.Add(1); rand.IntN(30) {
			case 0:
				return
			case 1:
				s.say("421 4.3.2 not now")
				return
			}
			s.on = func(line string) string {
				faults.Add(1)
				if strings.HasPrefix(line, "EHLO") || line == "QUIT" {
					return ""
				}
				switch rand.IntN(100) {
				case 0:
					return hangUp
				case 1:
					return "421 4.3.2 enough"
				case 2:
					return "451 4.3.0 later"
				case 3:
					return "550 5.7.1 never"
				}
				return ""
			}
			s.serve()
		}))
	}
	r.run()
	var items [sites * lanes][]*queue.Item
	var wg sync.WaitGroup
	for i := range items {
		domain := fmt.Sprintf("b@d%d-%d.test", i/lanes, i%lanes)
		items[i] = append(r.many(each/2, domain, stream(relay.Broadcast)), r.many(each/2, domain, account(byte(i)))...)
		rand.Shuffle(each, func(a, b int) { items[i][a], items[i][b] = items[i][b], items[i][a] })
		for j := 0; j < each; j += 7 {
			r.queue.mu.Lock()
			r.queue.taken[items[i][j].Delivery.ID] = true
			r.queue.mu.Unlock()
		}
		wg.Go(func() { r.offer(items[i]...) })
	}
	wg.Wait()
	counts := map[relay.Kind]int{}
	for i := range items {
		for j, it := range items[i] {
			if j%7 != 0 {
				counts[r.outcome(it).Kind]++
			}
		}
	}
	t.Logf("outcomes %v", counts)
	if counts[relay.EventDelivered] < sites*lanes*each/8 || counts[relay.EventDeferred] < lanes*each/2 {
		t.Errorf("outcomes %v: too few of a kind", counts)
	}
	r.eventually("all workers leave", func(d *Dispatcher) bool { return d.conns == 0 })
	r.eventually("no lane is left", func(d *Dispatcher) bool {
		for _, s := range d.sites {
			if len(s.lanes) > 0 {
				return false
			}
		}
		return d.waiting.Len() == 0
	})
	for i, p := range peers {
		// A peer may learn of the end of a connection a moment after us.
		if _, _, most, _ := p.count(); most > 2*4 {
			t.Errorf("site %d had %d connections at once", i, most)
		}
	}
}

// TestStressShutdown ends dispatchers in the middle of their work.
func TestStressShutdown(t *testing.T) {
	for i := range 20 {
		r := newRig(t).mx("a.test", "127.0.1.1").mx("b.test", "127.0.1.2").mx("down.test", "127.0.1.3")
		r.config.Drain = time.Duration(i%2) * time.Second
		r.config.Connections, r.config.PerConn = 4, 3
		r.run()
		var seen atomic.Int64
		stop := make(chan struct{})
		for _, addr := range []string{"127.0.1.1", "127.0.1.2"} {
			r.peer(addr, func(s *talk) {
				s.on = func(string) string {
					if seen.Add(1) == int64(10+20*i) {
						close(stop)
					}
					return ""
				}
				s.serve()
			})
		}
		r.offer(append(append(r.many(60, "x@a.test"), r.many(60, "x@b.test")...), r.many(10, "x@down.test")...)...)
		<-stop
		r.end() // audits the books
	}
}
