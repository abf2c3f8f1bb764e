package cluster

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"postrider/internal/lab/postgres"
	"postrider/internal/relay"
	"postrider/internal/store"
	storepg "postrider/internal/store/postgres"
)

// more waits until clients of every node were answered that their mail is kept,
// that many times more.
func (c *cluster) more(count int, longest time.Duration) {
	c.t.Helper()
	for _, n := range c.nodes {
		want := c.load.count(n) + count
		within(c.t, longest, n.name+" takes mail", func() bool { return c.load.count(n) >= want })
	}
}

// A node that is cut off from the database begins no attempt once its lease may
// be over, refuses mail with 4xx, and comes back by itself. What it had in hand
// the others deliver meanwhile.
func TestCutOff(t *testing.T) {
	t.Parallel()
	p := newProxy(t, server.Addr())
	dsn := database(t)
	c := start(t, 2, func(i int) string {
		if i == 1 {
			return p.before(t, dsn)
		}
		return dsn
	})
	first, second := c.nodes[0], c.nodes[1]
	c.load.delay = 400 * time.Millisecond
	c.load.on(first, 2, 200*time.Millisecond)
	c.load.on(second, 4, 200*time.Millisecond)
	release := c.pile(250, second)
	p.cut()
	cut := time.Now()
	held := c.undelivered(second)
	release()
	within(t, 13*time.Second, "the node is suspended", func() bool { return second.status().Condition == relay.Suspended.String() })
	suspended := time.Since(cut)
	figure(t, "suspended_after_cut_s", suspended.Round(10*time.Millisecond).Seconds())
	if code := tryMail(second.Addr); code != 451 {
		t.Errorf("a client was answered %d, want 451", code)
	}
	within(t, 30*time.Second, "the other node ends the lease", func() bool { _, there := first.list()[second.name]; return !there })
	figure(t, "lease_ended_after_cut_s", time.Since(cut).Round(10*time.Millisecond).Seconds())
	within(t, 15*time.Second, "the other node delivers what the one that is cut off had in hand", func() bool {
		seen := c.to.deliveries()
		return !slices.ContainsFunc(held, func(name string) bool { return len(seen[name]) == 0 })
	})
	figure(t, "takeover_after_cut_s", time.Since(cut).Round(10*time.Millisecond).Seconds())

	healed := time.Now()
	p.heal()
	second.takesMail(10 * time.Second)
	figure(t, "back_after_cut_s", time.Since(healed).Round(10*time.Millisecond).Seconds())
	had := c.load.count(second)
	within(t, 10*time.Second, "the node delivers again", func() bool {
		return c.load.count(second) > had+20 && slices.ContainsFunc(deliveriesSince(c.to, healed), func(d delivery) bool { return d.from == second.source })
	})
	c.settle(30*time.Second, 2*perSite)

	for _, d := range deliveriesSince(c.to, cut.Add(suspended+500*time.Millisecond)) {
		if d.from == second.source && d.at.Before(healed) {
			t.Errorf("the node delivered %v after it was cut off", d.at.Sub(cut))
			break
		}
	}
	var longest time.Duration
	for _, a := range c.load.answers(second, cut) {
		if a.at.After(healed) {
			break
		}
		longest = max(longest, a.took)
		if a.code == 0 || a.code >= 500 || a.code < 300 && a.at.Sub(cut) > time.Second {
			t.Errorf("a client was answered %d, %v after the cut", a.code, a.at.Sub(cut))
		}
	}
	figure(t, "longest_answer_while_cut_s", longest.Round(10*time.Millisecond).Seconds())
	if longest > 12*time.Second {
		t.Errorf("a client waited %v for its answer", longest)
	}
}

func deliveriesSince(r *receiver, since time.Time) (found []delivery) {
	for _, all := range r.deliveries() {
		for _, d := range all {
			if d.at.After(since) {
				found = append(found, d)
			}
		}
	}
	return found
}

// PostgreSQL is restarted, and killed with -9, under load: nothing that was
// acknowledged is lost, and the nodes go on by themselves. A node that starts
// while it is away waits for it.
func TestDatabaseRestarted(t *testing.T) {
	t.Parallel()
	db := postgres.Run(t, postgres.Options{})
	dsn, err := db.NewDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := start(t, 2, func(int) string { return dsn })
	for _, n := range c.nodes {
		c.load.on(n, 4, 20*time.Millisecond)
	}
	rounds := 1
	if *long {
		rounds = 10
	}
	var slowest time.Duration
	for range rounds {
		for name, end := range map[string]func() error{"restart": db.Stop, "kill": db.Kill} {
			c.more(50, 20*time.Second)
			if err := end(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err := db.Start(t.Context()); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			up := time.Now()
			c.more(1, 20*time.Second)
			slowest = max(slowest, time.Since(up))
		}
	}
	figure(t, "mail_taken_after_database_start_s", slowest.Round(10*time.Millisecond).Seconds())

	if err := c.nodes[1].Stop(); err != nil {
		t.Fatal(err)
	}
	if err := db.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := c.nodes[1].Launch(); err != nil {
		t.Fatal(err)
	}
	await(t, 2*time.Second)
	if err := db.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.nodes[1].Ready(t.Context(), 15*time.Second); err != nil {
		t.Errorf("a node that starts while the database is away: %v", err)
	}
	c.more(20, 20*time.Second)
	c.settle(30*time.Second, (2*rounds+1)*2*perSite)
}

// The primary is killed and its synchronous standby promoted: the nodes follow,
// and nothing that was acknowledged is lost.
func TestFailover(t *testing.T) {
	t.Parallel()
	primary := postgres.Run(t, postgres.Options{})
	dsn, err := primary.NewDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	standby, err := primary.Standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer standby.Close()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	both := fmt.Sprintf("postgres://postgres@%s,%s%s?sslmode=disable&target_session_attrs=read-write", primary.Addr(), standby.Addr(), u.Path)
	c := start(t, 2, func(int) string { return both })
	for _, n := range c.nodes {
		c.load.on(n, 8, 0)
	}
	c.more(200, 30*time.Second)
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	promoted := time.Since(killed)
	c.more(50, 30*time.Second)
	t.Logf("promoted %v after the kill of the primary", promoted)
	figure(t, "mail_taken_after_failover_s", time.Since(killed).Round(10*time.Millisecond).Seconds())
	c.settle(30*time.Second, 2*perSite)
}

// Nodes that start at once on an empty database make the tables once, and one
// first credential.
func TestStartTogether(t *testing.T) {
	t.Parallel()
	dsn := database(t)
	c := &cluster{t: t, to: newReceiver(t), load: newLoad(t)}
	for range 3 {
		c.add(options{store: dsn, guest: true})
	}
	for _, n := range c.nodes {
		if err := n.Launch(); err != nil {
			t.Fatal(err)
		}
	}
	told := 0
	for _, n := range c.nodes {
		if err := n.Ready(t.Context(), 30*time.Second); err != nil {
			t.Fatalf("%s: %v", n.name, err)
		}
		if n.Password() != "" {
			told++
		}
	}
	if told != 1 {
		t.Errorf("%d nodes print a first password", told)
	}
	within(t, 5*time.Second, "all are on the list, with their versions", func() bool {
		all := c.nodes[0].list()
		return len(all) == 3 && all["n1"].Version != "" && all["n2"].Version != "" && all["n3"].Version != ""
	})
	if out := c.nodes[0].run("node", "list"); !strings.Contains(out, "n1 (this one)") || !strings.Contains(out, "n3") {
		t.Errorf("node list prints\n%s", out)
	}
}

// A newer program takes the schema a step further while this one runs: it goes
// on, and starts again. A step that it would not understand is refused while it
// runs.
func TestNewerSchema(t *testing.T) {
	t.Parallel()
	dsn := database(t)
	c := start(t, 2, func(int) string { return dsn })
	for _, n := range c.nodes {
		c.load.on(n, 2, 20*time.Millisecond)
	}
	c.more(20, 20*time.Second)
	step := fmt.Sprintf("-- serves programs from schema %d\nalter table delivery add column colour text not null default '';\n"+
		"create table novelty (\n\tid blob not null primary key\n) without rowid;\n", store.Latest)
	if err := storepg.Upgrade(t.Context(), dsn, step); err != nil {
		t.Fatal(err)
	}
	c.more(50, 20*time.Second)
	for _, n := range c.nodes {
		if err := n.Stop(); err != nil {
			t.Fatal(err)
		}
		n.start()
		c.more(20, 20*time.Second)
	}
	err := storepg.Upgrade(t.Context(), dsn, "alter table delivery drop column colour;\n")
	if relay.CodeOf(err) != relay.Conflict {
		t.Errorf("a step that the nodes do not understand: %v", err)
	}
	for _, a := range c.load.answers(c.nodes[0], time.Time{}) {
		if a.code >= 500 {
			t.Errorf("a client was answered %d", a.code)
		}
	}
	c.settle(30*time.Second, 0)
}
