package cluster

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// buildFast builds the program with a clock that is an hour fast: with another
// time.Now than Go's, and nothing else changed. Timers and timeouts are on the
// monotonic clock, as they are on a machine whose wall clock is wrong.
func buildFast(t *testing.T) string {
	t.Helper()
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	original := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	source, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	const reading = "sec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(source), reading) == 0 {
		t.Fatalf("%s reads the clock in another way than it did", original)
	}
	dir := t.TempDir()
	changed, overlay, built := filepath.Join(dir, "time.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "postrider")
	before, after, _ := strings.Cut(string(source), "func Now() Time {\n\t"+reading)
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{overlay: string(replace), changed: before + "func Now() Time {\n\t" + reading + "\tsec += 3600\n" + after} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-overlay", overlay, "-o", built, "postrider/cmd/postrider").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return built
}

// A node whose clock is an hour fast holds its lease, and is taken over like any
// other when it dies; its mail comes when it should.
func TestFastClock(t *testing.T) {
	if !*long {
		t.Log("only with -long: it builds Go's library anew. The store's suite has the rest (cluster/a_clock_that_is_an_hour_fast)")
		return
	}
	t.Parallel()
	fast := buildFast(t)
	dsn := database(t)
	c := start(t, 1, func(int) string { return dsn })
	c.add(options{store: dsn, binary: fast})
	second := c.nodes[1]
	second.start()
	second.takesMail(patience)
	if ahead := time.Until(second.status().Started); ahead < 55*time.Minute {
		t.Fatalf("the node's clock is ahead by %v only", ahead)
	}
	joined := second.list()["n2"].Joined
	for _, n := range c.nodes {
		c.load.on(n, 2, 50*time.Millisecond)
	}
	began := time.Now()
	within(t, 30*time.Second, "two leases' time has gone by", func() bool { return time.Since(began) > 25*time.Second })
	for _, n := range c.nodes {
		all := n.list()
		if !all["n2"].Joined.Equal(joined) || all["n1"].State != "alive" || all["n2"].State != "alive" || all["n2"].Silent > 10 {
			t.Errorf("%s knows %+v", n.name, all)
		}
	}
	if time.Until(joined) > time.Minute {
		t.Errorf("it joined at %v, by its own clock", joined)
	}
	release := c.pile(1000, second)
	held := c.undelivered(second)
	second.Kill()
	release()
	killed := time.Now()
	within(t, patience, "the other one has delivered what it held", func() bool {
		seen := c.to.deliveries()
		return !slices.ContainsFunc(held, func(name string) bool { return len(seen[name]) == 0 })
	})
	figure(t, "takeover_from_a_fast_clock_s", time.Since(killed).Round(10*time.Millisecond).Seconds())
	if len(held) < 1000 {
		t.Errorf("it held %d messages: too few to show anything", len(held))
	}
	c.settle(patience, perSite)
}
