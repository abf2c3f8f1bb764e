package cluster

import (
	"slices"
	"testing"
	"time"
)

// perSite is how many connections a node has to one receiving service at most
// (delivery.connections_per_site): what may be in flight when it dies.
const perSite = 20

// pile lets clients send to the nodes as fast as they can, while nothing of it
// arrives, so that each has mail in hand; the last one is sent to last. It arrives
// when the returned function is called.
func (c *cluster) pile(each int, last *node) (release func()) {
	c.t.Helper()
	release = c.to.hold()
	others := slices.DeleteFunc(slices.Clone(c.nodes), func(n *node) bool { return n == last })
	for _, n := range append(others, last) {
		stop := c.load.on(n, 4, 0)
		want := c.load.count(n) + each
		within(c.t, 2*patience, n.name+" has taken enough", func() bool { return c.load.count(n) >= want })
		stop()
	}
	return release
}

// undelivered are the messages that the node acknowledged and that have not
// arrived.
func (c *cluster) undelivered(n *node) (names []string) {
	seen := c.to.deliveries()
	for name, a := range c.load.acknowledged() {
		if a.node == n.name && len(seen[name]) == 0 {
			names = append(names, name)
		}
	}
	return names
}

// Of three nodes under load one is killed with -9: what it held is delivered by
// the others within 30 seconds.
func TestNodeKilled(t *testing.T) {
	t.Parallel()
	// So many that two nodes' connections take them well within the time: what is
	// looked at is the takeover, not how fast a slow receiver is.
	const each = 100
	rounds := 1
	if *long {
		rounds = 4
	}
	dsn := database(t)
	c := start(t, 3, func(int) string { return dsn })
	c.load.delay = 400 * time.Millisecond
	for _, n := range c.nodes {
		c.load.on(n, 2, 200*time.Millisecond)
	}
	var slowest time.Duration
	for round := range rounds {
		victim := c.nodes[(round+2)%3]
		release := c.pile(each, victim)
		victim.Kill()
		killed := time.Now()
		held := c.undelivered(victim)
		release()
		if len(held) < each {
			t.Fatalf("%s held %d messages when it was killed: too few to show anything", victim.name, len(held))
		}
		within(t, 2*patience, "all that the dead node held has arrived", func() bool {
			seen := c.to.deliveries()
			for _, name := range held {
				if len(seen[name]) == 0 {
					return false
				}
			}
			return true
		})
		var last time.Time
		seen := c.to.deliveries()
		for _, name := range held {
			if at := seen[name][0].at; at.After(last) {
				last = at
			}
			if from := seen[name][0].from; from == victim.source && seen[name][0].at.After(killed.Add(time.Second)) {
				t.Errorf("%s came from a node that is dead", name)
			}
		}
		took := last.Sub(killed)
		t.Logf("%s held %d messages; the others had delivered them %v after the kill", victim.name, len(held), took.Round(time.Millisecond))
		if took > 30*time.Second {
			t.Errorf("the takeover took %v", took)
		}
		slowest = max(slowest, took)
		if _, there := c.nodes[(round+1)%3].list()[victim.name]; there {
			t.Errorf("%s is still on the list", victim.name)
		}
		victim.start()
		victim.takesMail(patience)
	}
	figure(t, "takeover_after_kill_s", slowest.Round(10*time.Millisecond).Seconds())
	c.settle(2*patience, rounds*perSite)
}

// A node that is drained takes no mail, gives back what it has not begun, and
// works again when the order is taken back.
func TestDrain(t *testing.T) {
	t.Parallel()
	dsn := database(t)
	c := start(t, 2, func(int) string { return dsn })
	first, second := c.nodes[0], c.nodes[1]
	c.load.on(first, 2, 100*time.Millisecond)
	c.load.on(second, 2, 100*time.Millisecond)
	release := c.pile(250, second)
	ordered := time.Now()
	first.run("node", "drain", second.name)
	within(t, 3*time.Second, "the node takes no mail", func() bool { return tryMail(second.Addr) == 421 })
	obeyed := time.Now()
	figure(t, "drain_obeyed_s", obeyed.Sub(ordered).Round(10*time.Millisecond).Seconds())
	release()
	within(t, 5*time.Second, "it has nothing in hand", func() bool {
		n := first.list()[second.name]
		return n.State == "draining" && n.InHand == 0
	})
	if s := second.status(); s.Condition != "draining" || s.Queue.InFlight != 0 {
		t.Errorf("the node says %q, with %d in flight", s.Condition, s.Queue.InFlight)
	}
	for _, name := range c.undelivered(second) {
		within(t, 20*time.Second, "the other one delivers what was given back", func() bool { return len(c.to.deliveries()[name]) > 0 })
	}
	for _, a := range c.load.answers(second, obeyed) {
		if a.at.Add(-a.took).After(obeyed) && a.code != 421 {
			t.Errorf("a client was answered %d", a.code)
		}
	}
	second.run("node", "drain", "-undo", second.name)
	second.takesMail(3 * time.Second)
	had := c.load.count(second)
	within(t, patience, "clients are served", func() bool { return c.load.count(second) > had })
	if out, err := first.Run(t.Context(), "node", "drain", "n9"); err == nil {
		t.Errorf("drained a node that is not there: %s", out)
	}
	c.settle(patience, 0)
}

// A credential that one node revokes is of no use on the others within a second,
// in open sessions too.
func TestRevoked(t *testing.T) {
	t.Parallel()
	dsn := database(t)
	c := start(t, 2, func(int) string { return dsn })
	open, err := dial(c.nodes[1].Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	for _, line := range []string{"MAIL FROM:<app@client.test>", "RSET"} {
		if err := say(open, 250, "%s", line); err != nil {
			t.Fatal(err)
		}
	}
	c.nodes[0].run("credential", "revoke", "load")
	revoked := time.Now()
	within(t, 5*time.Second, "the other node refuses an open session", func() bool {
		if say(open, 250, "MAIL FROM:<app@client.test>") != nil {
			return true
		}
		if err := say(open, 250, "RSET"); err != nil {
			t.Fatal(err)
		}
		return false
	})
	if code := tryMail(c.nodes[1].Addr); code != 530 {
		t.Errorf("a new session is answered %d, want 530", code)
	}
	took := time.Since(revoked)
	figure(t, "revoked_elsewhere_s", took.Round(time.Millisecond).Seconds())
	if took > time.Second {
		t.Errorf("it took %v", took)
	}
}
