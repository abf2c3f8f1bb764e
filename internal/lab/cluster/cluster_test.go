package cluster

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"postrider/internal/api"
	"postrider/internal/lab/postgres"
	"postrider/internal/lab/process"
)

// long makes the tests take their time, as "make cluster" wants it.
var long = flag.Bool("long", false, "larger loads, more rounds, and what needs another build of the program")

// binary is the program under test, built once; server is for those who do not
// harm it.
var (
	binary string
	server *postgres.Server
)

// figures are what the tests measured, for the line at the end.
var figures = struct {
	sync.Mutex
	of map[string]any
}{of: map[string]any{}}

func figure(t *testing.T, name string, value any) {
	t.Helper()
	t.Logf("%s: %v", name, value)
	figures.Lock()
	defer figures.Unlock()
	figures.of[name] = value
}

func TestMain(m *testing.M) {
	// They wait for leases to end more than they compute. An error would say
	// that there is no such flag.
	_ = flag.Set("test.parallel", "8")
	flag.Parse()
	os.Exit(process.Main(context.Background(), func() int { return run(m) }, &binary))
}

// run runs the tests on one server, and prints what they measured.
func run(m *testing.M) int {
	var err error
	if server, err = postgres.New(context.Background(), postgres.Options{Settings: []string{"max_connections = 400"}}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer server.Close()
	status := m.Run()
	if line, err := json.Marshal(figures.of); err == nil && len(figures.of) > 0 {
		fmt.Println(string(line))
	}
	return status
}

// database is a new one for a test on the common server.
func database(t *testing.T) string {
	t.Helper()
	url, err := server.NewDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return url
}

// node is a process of the program.
type node struct {
	*process.Relay
	t      *testing.T
	name   string
	source string // address that its deliveries come from
}

// options say what a node is beside the usual.
type options struct {
	binary   string // empty: the one under test
	store    string // DSN
	guest    bool   // it may not be the first one
	settings string // more TOML
}

// cluster is nodes that share a store, a receiver and a load.
type cluster struct {
	t     *testing.T
	nodes []*node
	to    *receiver
	load  *load
}

// start starts n nodes on the store that dsn gives for each, counted from 0.
func start(t *testing.T, n int, dsn func(i int) string) *cluster {
	t.Helper()
	c := &cluster{t: t, to: newReceiver(t), load: newLoad(t)}
	for i := range n {
		c.add(options{store: dsn(i)})
		c.nodes[i].start()
		if i == 0 {
			// No password: the load is not about logins.
			c.nodes[0].run("credential", "add", "-kind", "network", "-network", "127.0.0.1", "load")
		}
	}
	for _, n := range c.nodes {
		n.takesMail(patience)
	}
	return c
}

// add adds a node that does not run yet.
func (c *cluster) add(o options) *node {
	c.t.Helper()
	i := len(c.nodes)
	n := &node{t: c.t, name: fmt.Sprintf("n%d", i+1), source: fmt.Sprintf("127.0.1.%d", i+1)}
	if o.binary == "" {
		o.binary = binary
	}
	r, err := process.New(process.Options{Binary: o.binary, Dir: c.t.TempDir(), Receiver: c.to.Addr(), Guest: i > 0 || o.guest, Stderr: prefixed(c.t, n.name),
		Settings: fmt.Sprintf("store = %q\nnode = %q\nstore_wait = \"4m\"\n[queue]\nretry = [\"1s\"]\ndrain = \"5s\"\n[delivery]\nsource = [%q]\nidle = \"2s\"\n", o.store, n.name, n.source) + o.settings})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(r.Close)
	n.Relay = r
	c.nodes = append(c.nodes, n)
	return n
}

// start runs the program and waits until it greets.
func (n *node) start() {
	n.t.Helper()
	if err := n.Launch(); err != nil {
		n.t.Fatal(err)
	}
	if err := n.Ready(n.t.Context(), patience); err != nil {
		n.t.Fatalf("%s: %v", n.name, err)
	}
}

// run calls a subcommand and gives what it prints.
func (n *node) run(args ...string) string {
	n.t.Helper()
	out, err := n.Run(n.t.Context(), args...)
	if err != nil {
		n.t.Fatalf("%s: postrider %s: %v\n%s", n.name, strings.Join(args, " "), err, out)
	}
	return out
}

// takesMail waits until the node takes mail of the load's network.
func (n *node) takesMail(longest time.Duration) {
	n.t.Helper()
	within(n.t, longest, n.name+" takes mail", func() bool { return tryMail(n.Addr) == 250 })
}

// list gives the nodes as this one knows them, by name.
func (n *node) list() map[string]api.Node {
	n.t.Helper()
	var all api.List[api.Node]
	if err := api.NewClient(n.Data).Get(n.t.Context(), "/v1/nodes", nil, &all); err != nil {
		n.t.Fatalf("%s: list nodes: %v", n.name, err)
	}
	byName := map[string]api.Node{}
	for _, a := range all.Data {
		byName[a.Name] = a
	}
	return byName
}

// status asks the node how it is.
func (n *node) status() (s api.Status) {
	n.t.Helper()
	if err := api.NewClient(n.Data).Get(n.t.Context(), "/v1/status", nil, &s); err != nil {
		n.t.Fatalf("%s: status: %v", n.name, err)
	}
	return s
}

// settle ends the load and compares: all that was acknowledged has arrived, and
// no more came twice than may have been in flight.
func (c *cluster) settle(longest time.Duration, mayRepeat int) {
	c.t.Helper()
	c.load.end()
	acked := c.load.acknowledged()
	missing := func() (names []string) {
		seen := c.to.deliveries()
		for name := range acked {
			if len(seen[name]) == 0 {
				names = append(names, name)
			}
		}
		return names
	}
	deadline := time.Now().Add(longest)
	for len(missing()) > 0 && time.Now().Before(deadline) {
		await(c.t, 50*time.Millisecond)
	}
	lost := missing()
	repeated := 0
	for _, d := range c.to.deliveries() {
		repeated += len(d) - 1
	}
	c.t.Logf("%d acknowledged, %d lost, %d repeated of at most %d in flight", len(acked), len(lost), repeated, mayRepeat)
	if len(lost) > 0 {
		c.t.Errorf("lost: %d messages that were acknowledged did not arrive within %v, such as %s (%+v)", len(lost), longest, lost[0], acked[lost[0]])
	}
	for _, name := range lost[:min(len(lost), 3)] {
		for _, n := range c.nodes {
			if out, err := n.Run(c.t.Context(), "log", "-subject", name, "-json"); err == nil {
				c.t.Logf("%s says of %s: %s", n.name, name, out)
				break
			}
		}
	}
	if repeated > mayRepeat {
		c.t.Errorf("%d came twice; at most %d were in flight", repeated, mayRepeat)
	}
	if len(acked) < 50 {
		c.t.Errorf("only %d messages were acknowledged: nothing is shown by that", len(acked))
	}
}

// within waits for a fact.
func within(t *testing.T, longest time.Duration, fact string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(longest)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("after %v it is still not so that %s", longest, fact)
		}
		await(t, 20*time.Millisecond)
	}
}

// await lets the time go by, or ends with the test.
func await(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal("the test was ended")
	}
}

// prefixed writes a node's log into that of the test, each line under its name.
func prefixed(t *testing.T, name string) *prefixer { return &prefixer{t: t, name: name} }

type prefixer struct {
	t    *testing.T
	name string
}

func (p *prefixer) Write(b []byte) (int, error) {
	for line := range strings.Lines(string(b)) {
		fmt.Fprintf(p.t.Output(), "%s %s %s\n", time.Now().Format("05.000"), p.name, strings.TrimSuffix(line, "\n"))
	}
	return len(b), nil
}
