package deliver

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"postrider/internal/queue"
	"postrider/internal/relay"
	"postrider/internal/sink"
)

// delivered checks that all items were delivered.
func (r *rig) delivered(items []*queue.Item) {
	r.t.Helper()
	if got := r.all(items); got[relay.EventDelivered] != len(items) {
		r.t.Errorf("outcomes %v, want %d delivered", got, len(items))
	}
}

// pace is the limit of a site.
func (r *rig) pace(site string) int {
	r.t.Helper()
	r.d.mu.Lock()
	defer r.d.mu.Unlock()
	s := r.d.sites[site]
	if s == nil {
		r.t.Fatalf("no site %q", site)
	}
	return s.pace.Limit()
}

// TestKeptConnectionThatIsOver: the receiver ended it in one way or the other
// while it was idle; the next message goes over a new one, and nobody sees a
// failure.
func TestKeptConnectionThatIsOver(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(*talk) // of the first connection, when it is idle
		mail string      // answer to the second MAIL on it
	}{
		{name: "closed", end: func(s *talk) { s.conn.Close() }},
		{name: "421 and closed", end: func(s *talk) { s.say("421 4.4.2 idle for too long"); s.conn.Close() }},
		{name: "421 and open", end: func(s *talk) { s.say("421 4.4.2 idle for too long") }},
		{name: "421 to MAIL", mail: "421 4.7.0 enough for one connection"},
		{name: "closed at MAIL", mail: hangUp},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t).mx("receiver.test", "127.0.1.1").run()
			first := make(chan *talk, 1)
			p := r.peer("127.0.1.1", func(s *talk) {
				mails := 0
				s.on = func(line string) string {
					if strings.HasPrefix(line, "MAIL") {
						if mails++; s.n == 1 && mails == 2 {
							return tt.mail
						}
					}
					return ""
				}
				if s.n == 1 {
					first <- s
				}
				s.serve()
			})
			r.try(r.item("b@receiver.test", plain))
			if tt.end != nil {
				tt.end(<-first)
			}
			o := r.try(r.item("b@receiver.test", plain))
			if o.Kind != relay.EventDelivered || o.Attempt.Reused {
				t.Errorf("%s %s, reused %v; want it delivered over a new connection", o.Kind, o.Reply, o.Attempt.Reused)
			}
			if total, _, _, _ := p.count(); total != 2 {
				t.Errorf("%d connections, want 2", total)
			}
			r.eventually("the first connection is closed", func(*Dispatcher) bool { _, now, _, _ := p.count(); return now == 1 })
			if got := r.pace("receiver.test"); got != 4 {
				t.Errorf("the pace is %d: a connection that was idle for too long says nothing of it", got)
			}
		})
	}
}

// TestKeptConnectionThatIsOverAndNoOther: here the attempt fails, like any that
// gets no connection.
func TestKeptConnectionThatIsOverAndNoOther(t *testing.T) {
	r := newRig(t).mx("receiver.test", "127.0.1.1").run()
	p := r.peer("127.0.1.1", (*talk).serve)
	r.try(r.item("b@receiver.test", plain))
	p.stop()
	items := r.many(5, "b@receiver.test")
	r.offer(items...)
	for _, o := range r.queue.wait(t, items...) {
		if o.Kind != relay.EventDeferred || o.Attempt.Stage != "connect" || o.Reply.Enhanced != "4.4.1" || o.Host != "mx.receiver.test" {
			t.Errorf("%s %s at %s with %s", o.Kind, o.Reply, o.Attempt.Stage, o.Host)
		}
	}
}

func TestMessagesPerConnection(t *testing.T) {
	r := newRig(t).mx("receiver.test", "127.0.1.1")
	r.config.PerSite, r.config.PerConn = 1, 3
	r.make()
	items := r.many(10, "b@receiver.test")
	r.offer(items...)
	p := r.peer("127.0.1.1", (*talk).serve)
	r.run()
	r.delivered(items)
	r.end()
	if total, now, most, quits := p.count(); total != 4 || most != 1 || quits != 4 {
		t.Errorf("%d connections (now %d), %d at once, %d ended with QUIT; want 4, 1, 4", total, now, most, quits)
	}
}

func TestConnectionsPerSite(t *testing.T) {
	r := newRig(t).mx("receiver.test", "127.0.1.1")
	r.config.PerSite, r.config.PerConn = 6, 7
	r.make()
	items := r.many(300, "b@receiver.test")
	r.offer(items...)
	g := r.gate()
	p := r.peer("127.0.1.1", func(s *talk) {
		s.on = func(line string) string {
			if line == "." && s.n > 1 { // the first message goes through, and shows that the host is up
				g.pass()
			}
			return ""
		}
		s.serve()
	})
	r.run()
	// One delivery made the pace a little faster than the 4 it starts with; the
	// first connection goes on alone.
	r.eventually("the pace is used", func(d *Dispatcher) bool {
		s := d.sites["receiver.test"]
		return s != nil && s.open == s.pace.Limit() && s.open >= 4
	})
	g.open()
	r.delivered(items)
	if _, _, most, _ := p.count(); most != 6 {
		t.Errorf("%d connections at once, want 6", most)
	}
}

// TestFirstConnectionAlone: while nobody knows whether a host is up, it gets one
// connection.
func TestFirstConnectionAlone(t *testing.T) {
	r := newRig(t).mx("receiver.test", "127.0.1.1").make()
	items := r.many(50, "b@receiver.test")
	r.offer(items...)
	g := r.gate()
	p := r.peer("127.0.1.1", func(s *talk) {
		if s.n == 1 {
			g.pass()
		}
		s.serve()
	})
	r.run()
	r.eventually("somebody connects", func(d *Dispatcher) bool { total, _, _, _ := p.count(); return total > 0 })
	more := r.many(50, "b@receiver.test")
	r.offer(more...)
	r.d.mu.Lock()
	if n := r.d.conns; n != 1 {
		t.Errorf("%d workers for a host that has not answered yet, want 1", n)
	}
	r.d.mu.Unlock()
	g.open()
	r.delivered(append(items, more...))
	if total, _, _, _ := p.count(); total < 2 {
		t.Errorf("%d connections for 100 messages, want more as the host is up", total)
	}
}

func TestConnectionsInAll(t *testing.T) {
	r := newRig(t)
	r.config.Connections = 3
	var items []*queue.Item
	r.make()
	for i := range 12 {
		domain := fmt.Sprintf("d%d.test", i)
		r.mx(domain, "127.0.1.1")
		items = append(items, r.many(4, "b@"+domain)...)
	}
	p := r.peer("127.0.1.1", (*talk).serve)
	r.run()
	r.offer(items...)
	r.delivered(items)
	if _, _, most, _ := p.count(); most > 3 {
		t.Errorf("%d connections at once, want 3 at most", most)
	}
}

// TestIdleConnectionMakesWay: where the limit is reached, an idle connection is
// closed for the sake of others at once, not when its time is over.
func TestIdleConnectionMakesWay(t *testing.T) {
	for name, limit := range map[string]func(*Config){
		"of all":  func(c *Config) { c.Connections = 1 },
		"by site": func(c *Config) { c.PerSite = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t).zone("a.test. 60 IN MX 10 a.provider.test.", "b.test. 60 IN MX 10 b.provider.test.",
				"a.provider.test. 60 IN A 127.0.1.1", "b.provider.test. 60 IN A 127.0.1.1")
			limit(&r.config)
			r.run()
			p := r.peer("127.0.1.1", (*talk).serve)
			for _, to := range []string{"x@a.test", "x@b.test", "x@a.test"} {
				if o := r.try(r.item(to, plain)); o.Kind != relay.EventDelivered {
					t.Errorf("to %s: %s %s", to, o.Kind, o.Reply)
				}
			}
			if total, _, most, quits := p.count(); total != 3 || most != 1 || quits != 2 {
				t.Errorf("%d connections, %d at once, %d ended with QUIT; want 3, 1, 2", total, most, quits)
			}
		})
	}
}

// TestDismissedWorkerLeaves, even if whoever wanted its place is gone by then.
func TestDismissedWorkerLeaves(t *testing.T) {
	r := newRig(t).mx("receiver.test", "127.0.1.1").run()
	p := r.peer("127.0.1.1", (*talk).serve)
	r.try(r.item("b@receiver.test", plain))
	r.d.mu.Lock()
	if !r.d.evictAny() || r.d.evictAny() {
		t.Error("want one worker to dismiss, and no other")
	}
	r.d.mu.Unlock()
	items := r.many(3, "b@receiver.test") // it may find work on its way
	r.offer(items...)
	r.delivered(items)
	r.calm()
	if _, _, _, quits := p.count(); quits != 1 {
		t.Errorf("%d connections ended with QUIT, want 1", quits)
	}
}

func TestIdleConnectionEnds(t *testing.T) {
	r := newRig(t).mx("receiver.test", "127.0.1.1")
	r.config.Idle = 20 * time.Millisecond
	r.run()
	p := r.peer("127.0.1.1", (*talk).serve)
	r.try(r.item("b@receiver.test", plain))
	r.eventually("the idle connection is closed", func(d *Dispatcher) bool { return d.conns == 0 })
	if total, _, _, quits := p.count(); total != 1 || quits != 1 {
		t.Errorf("%d connections, %d ended with QUIT; want 1, 1", total, quits)
	}
	if n := len(r.d.sites["receiver.test"].lanes); n != 0 {
		t.Errorf("%d lanes are kept for nothing", n)
	}
	if o := r.try(r.item("b@receiver.test", plain)); o.Kind != relay.EventDelivered || o.Attempt.Reused {
		t.Errorf("%s %s", o.Kind, o.Reply)
	}
}

func TestPace(t *testing.T) {
	busy := func(line string) func(*talk) {
		return func(s *talk) {
			s.on = func(l string) string {
				if strings.HasPrefix(l, "RCPT") {
					return line
				}
				return ""
			}
			s.serve()
		}
	}
	t.Run("grows", func(t *testing.T) {
		r := newRig(t).mx("receiver.test", "127.0.1.1").run()
		r.peer("127.0.1.1", (*talk).serve)
		items := r.many(30, "b@receiver.test")
		r.offer(items...)
		r.delivered(items)
		if got := r.pace("receiver.test"); got < 6 {
			t.Errorf("after 30 deliveries the pace is %d", got)
		}
	})
	t.Run("shrinks by 421", func(t *testing.T) {
		r := newRig(t).mx("receiver.test", "127.0.1.1").run()
		r.peer("127.0.1.1", busy("421 4.7.0 too much"))
		r.try(r.item("b@receiver.test", plain))
		if got := r.pace("receiver.test"); got != 2 {
			t.Errorf("after 421 the pace is %d, want 2", got)
		}
		r.try(r.item("b@receiver.test", plain))
		r.try(r.item("b@receiver.test", plain))
		if got := r.pace("receiver.test"); got != 1 {
			t.Errorf("after three times 421 the pace is %d, want 1", got)
		}
	})
	t.Run("shrinks by a refused connection", func(t *testing.T) {
		r := newRig(t).mx("receiver.test", "127.0.1.1").run()
		r.peer("127.0.1.1", func(s *talk) { s.say("421 4.7.0 too many connections") })
		r.try(r.item("b@receiver.test", plain))
		if got := r.pace("receiver.test"); got != 2 {
			t.Errorf("after a refused connection the pace is %d, want 2", got)
		}
	})
	t.Run("is not for a host behind the site's to say", func(t *testing.T) {
		// Whoever owns evil.test names a host of the provider that takes no
		// mail, and behind it one of their own.
		r := newRig(t).zone("evil.test. 60 IN MX 10 www.provider.test.", "evil.test. 60 IN MX 20 mx.evil.test.",
			"www.provider.test. 60 IN A 127.0.1.9", "mx.evil.test. 60 IN A 127.0.1.2").run()
		r.peer("127.0.1.2", busy("421 4.7.0 too much"))
		r.try(r.item("b@evil.test", plain))
		if got := r.pace("provider.test"); got != 4 {
			t.Errorf("the provider's pace is %d, want 4", got)
		}
	})
	t.Run("is not for a host behind the site's to say by refusing", func(t *testing.T) {
		r := newRig(t).zone("evil.test. 60 IN MX 10 www.provider.test.", "evil.test. 60 IN MX 20 mx.evil.test.",
			"www.provider.test. 60 IN A 127.0.1.9", "mx.evil.test. 60 IN A 127.0.1.2").run()
		r.peer("127.0.1.2", func(s *talk) { s.say("421 4.7.0 too many connections") })
		r.try(r.item("b@evil.test", plain))
		if got := r.pace("provider.test"); got != 4 {
			t.Errorf("the provider's pace is %d, want 4", got)
		}
	})
	t.Run("is not changed by a host that is down", func(t *testing.T) {
		r := newRig(t).mx("receiver.test", "127.0.1.1").run()
		r.try(r.item("b@receiver.test", plain))
		if got := r.pace("receiver.test"); got != 4 {
			t.Errorf("the pace is %d, want 4", got)
		}
	})
}

func TestDomainsShareConnections(t *testing.T) {
	r := newRig(t).zone("one.test. 60 IN MX 10 mx1.provider.test.", "one.test. 60 IN MX 10 mx2.provider.test.",
		"two.test. 60 IN MX 10 mx2.provider.test.", "two.test. 60 IN MX 10 mx1.provider.test.", "three.test. 60 IN MX 10 mx1.provider.test.",
		"mx1.provider.test. 60 IN A 127.0.1.1", "mx2.provider.test. 60 IN A 127.0.1.1").run()
	p := r.peer("127.0.1.1", (*talk).serve)
	r.try(r.item("b@one.test", plain))
	if o := r.try(r.item("b@two.test", plain)); !o.Attempt.Reused {
		t.Error("the same hosts, and another connection")
	}
	if o := r.try(r.item("b@three.test", plain)); o.Attempt.Reused {
		t.Error("other hosts, and the same connection")
	}
	if total, _, _, _ := p.count(); total != 2 {
		t.Errorf("%d connections, want 2", total)
	}
}

// TestLanesTakeTurns: two lanes of one site that has room for one connection.
// The one that comes second waits for its fair turn, not for the end of the
// first.
func TestLanesTakeTurns(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*queue.Item) // of the second lane's items
		urgent bool
	}{
		{name: "equals", change: stream(relay.Broadcast)},
		{name: "urgent", change: stream(relay.Transactional), urgent: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t).zone("a.test. 60 IN MX 10 a.provider.test.", "b.test. 60 IN MX 10 b.provider.test.",
				"a.provider.test. 60 IN A 127.0.1.1", "b.provider.test. 60 IN A 127.0.1.1")
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
			a := r.many(200, "a@a.test", stream(relay.Broadcast))
			r.offer(a...)
			r.eventually("the first attempt is under way", func(*Dispatcher) bool { return len(r.queue.open()) == 1 })
			b := r.many(30, "b@b.test", tt.change)
			r.offer(b...)
			r.eventually("the second lane waits", func(d *Dispatcher) bool {
				s := d.sites["provider.test"]
				return s != nil && s.waiting.Len() == 2
			})
			g.open()
			r.delivered(append(a, b...))
			order := p.received()
			first := slices.IndexFunc(order, func(s string) bool { return strings.Contains(s, "b@b.test") })
			want := fairShare
			if tt.urgent {
				want = 1
			}
			if first != want {
				t.Errorf("the second lane's first message came after %d of the other, want %d", first, want)
			}
			if last := slices.Index(order[first:], "RCPT TO:<a@a.test>"); last > fairShare && !tt.urgent {
				t.Errorf("the first lane then waited for %d messages, want %d", last, fairShare)
			}
		})
	}
}

// TestStrictMailDoesNotWait: mail with REQUIRETLS has a lane of its own, for the
// same hosts.
func TestStrictMailDoesNotWait(t *testing.T) {
	r := newRig(t).mx("receiver.test", "127.0.1.1")
	r.config.PerSite = 1
	r.make()
	items := append(r.many(100, "b@receiver.test"), r.item("c@receiver.test", plain, requireTLS))
	r.offer(items...)
	r.peer("127.0.1.1", (*talk).serve)
	r.run()
	got := r.all(items)
	if got[relay.EventDelivered] != 100 || got[relay.EventBounced] != 1 {
		t.Errorf("outcomes %v", got)
	}
}

func TestOrderWithinALane(t *testing.T) {
	r := newRig(t).mx("receiver.test", "127.0.1.1")
	r.config.PerSite = 1
	r.make()
	var items []*queue.Item
	add := func(to string, account1 byte, s relay.Stream) {
		items = append(items, r.item(to+"@receiver.test", plain, account(account1), stream(s)))
	}
	add("bulk1", 1, relay.Broadcast)
	add("bulk2", 1, relay.Broadcast)
	add("bulk3", 1, relay.Broadcast)
	add("otherbulk1", 2, relay.Broadcast)
	add("reset1", 1, relay.Transactional)
	add("reset2", 1, relay.Transactional)
	add("otherreset1", 3, relay.Transactional)
	r.offer(items...)
	p := r.peer("127.0.1.1", (*talk).serve)
	r.run()
	r.delivered(items)
	var got []string
	for _, line := range p.received() {
		got = append(got, strings.TrimSuffix(strings.TrimPrefix(line, "RCPT TO:<"), "@receiver.test>"))
	}
	if want := []string{"reset1", "otherreset1", "reset2", "bulk1", "otherbulk1", "bulk2", "bulk3"}; !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
}

// TestOneDeadHostDelaysNobody: its mail waits for a greeting that never comes;
// the mail for others, even of the same site, goes on.
func TestOneDeadHostDelaysNobody(t *testing.T) {
	r := newRig(t).mx("other.test", "127.0.1.1").zone("a.test. 60 IN MX 10 a.provider.test.", "b.test. 60 IN MX 10 b.provider.test.",
		"a.provider.test. 60 IN A 127.0.1.2", "b.provider.test. 60 IN A 127.0.1.1")
	r.config.PerSite, r.config.Connections = 2, 3
	r.config.Timeouts.Greeting = time.Minute
	r.make()
	g := r.gate()
	silent := r.peer("127.0.1.2", func(s *talk) { g.pass() })
	dead := r.many(50, "x@a.test")
	r.offer(dead...)
	r.run()
	r.eventually("somebody waits for the dead host", func(*Dispatcher) bool { total, _, _, _ := silent.count(); return total == 1 })
	r.peer("127.0.1.1", (*talk).serve)
	live := append(r.many(100, "x@b.test"), r.many(100, "x@other.test")...)
	r.offer(live...)
	r.delivered(live)
	if total, _, _, _ := silent.count(); total != 1 {
		t.Errorf("%d connections to the dead host, want 1", total)
	}
	g.open() // it closes without a greeting
	if got := r.all(dead); got[relay.EventDeferred] != len(dead) {
		t.Errorf("outcomes %v, want all deferred", got)
	}
	if total, _, _, _ := silent.count(); total != 1 {
		t.Errorf("%d connections to settle all that waited for a dead host, want 1", total)
	}
}

func TestHostThatComesBack(t *testing.T) {
	r := newRig(t).mx("receiver.test", "127.0.1.1").run()
	if o := r.try(r.item("b@receiver.test", plain)); o.Kind != relay.EventDeferred {
		t.Fatalf("%s %s", o.Kind, o.Reply)
	}
	r.sink("127.0.1.1", sink.Config{})
	if o := r.try(r.item("b@receiver.test", plain)); o.Kind != relay.EventDelivered {
		t.Errorf("%s %s", o.Kind, o.Reply)
	}
}

// TestHostThatTakesFewConnections: what it does not take is not held against the
// mail, and not tried over and over.
func TestHostThatTakesFewConnections(t *testing.T) {
	for name, refuse := range map[string]func(*talk){
		"closes": func(*talk) {},
		"421":    func(s *talk) { s.say("421 4.7.0 too many connections from you") },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t).mx("receiver.test", "127.0.1.1")
			r.config.PerConn = 10
			r.make()
			items := r.many(200, "b@receiver.test")
			r.offer(items...)
			places := make(chan struct{}, 2)
			p := r.peer("127.0.1.1", func(s *talk) {
				select {
				case places <- struct{}{}:
				default:
					refuse(s)
					return
				}
				s.on = func(line string) string {
					if line == "QUIT" {
						<-places
					}
					return ""
				}
				s.serve()
			})
			r.run()
			r.delivered(items)
			if total, _, _, _ := p.count(); total > 80 {
				t.Errorf("%d connections for 200 messages to a host that takes two at a time", total)
			}
		})
	}
}

// TestTakenAway: items that the queue takes back are passed over.
func TestTakenAway(t *testing.T) {
	r := newRig(t).mx("receiver.test", "127.0.1.1").make()
	items := r.many(20, "b@receiver.test")
	gone := append(r.many(20, "b@receiver.test"), r.many(5, "b@nowhere.test")...)
	for _, it := range gone {
		r.queue.taken[it.Delivery.ID] = true
	}
	r.offer(gone[:10]...)
	r.offer(items...)
	r.offer(gone[10:]...)
	p := r.peer("127.0.1.1", (*talk).serve)
	r.run()
	r.delivered(items)
	r.calm()
	r.end()
	if n := len(p.received()); n != len(items) {
		t.Errorf("%d messages arrived, want %d", n, len(items))
	}
	for _, it := range gone {
		if r.queue.settled(it) {
			t.Error("an item that was taken away is settled")
		}
	}
}

// TestMemoryOfDomainsIsBounded, however many there are.
func TestMemoryOfDomainsIsBounded(t *testing.T) {
	r := newRig(t)
	r.make()
	d := r.d
	for i := range minRemembered {
		d.domains[fmt.Sprint(i)] = &domain{dest: &destination{expires: time.Now().Add(time.Duration(i%2) * time.Hour)}}
		d.sites[fmt.Sprint(i)] = &site{lanes: map[laneKey]*lane{}}
	}
	busy := &domain{waiting: []*queue.Item{nil}}
	d.domains["busy"], d.sites["busy"] = busy, &site{lanes: map[laneKey]*lane{{}: nil}}
	d.forgetDomains()
	d.forgetSites()
	if n := len(d.domains); n > minRemembered/2 || n < minRemembered/10 {
		t.Errorf("%d domains are remembered, want up to %d", n, minRemembered/2)
	}
	if d.domains["busy"] != busy {
		t.Error("a domain that mail waits for is forgotten")
	}
	if len(d.sites) != 1 {
		t.Errorf("%d sites are remembered, want the busy one", len(d.sites))
	}
}

// TestSilentRecipientsHoldUpNobody: a site whose connections all wait for a reply
// that does not come gets further ones, as far as the configuration allows.
func TestSilentRecipientsHoldUpNobody(t *testing.T) {
	r := newRig(t).mx("receiver.test", "127.0.1.1").make()
	r.d.long = 50 * time.Millisecond
	g := r.gate()
	r.peer("127.0.1.1", func(s *talk) {
		s.on = func(line string) string {
			if strings.Contains(line, "silent") {
				g.pass()
			}
			return ""
		}
		s.serve()
	})
	silent := r.many(12, "silent@receiver.test")
	r.offer(silent...)
	r.run()
	r.eventually("all silent ones are under way", func(d *Dispatcher) bool {
		s := d.sites["receiver.test"]
		return s != nil && s.stuck == len(silent)
	})
	others := r.many(50, "ann@receiver.test")
	r.offer(others...)
	r.delivered(others)
	g.open()
	r.delivered(silent)
	r.eventually("none is stuck", func(d *Dispatcher) bool { return d.sites["receiver.test"].stuck == 0 })
}
