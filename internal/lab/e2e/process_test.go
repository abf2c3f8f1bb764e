package e2e

import (
	"context"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postrider/internal/lab/process"
	"postrider/internal/sink"
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) { os.Exit(process.Main(context.Background(), m.Run, &binary)) }

// relay is a process of the program, for the time of a test.
type relay struct {
	*process.Relay
	t *testing.T
}

// newRelay makes a relay that sends all mail to the receiver. extra is more TOML.
func newRelay(t *testing.T, receiver, extra string) *relay {
	t.Helper()
	r, err := process.New(process.Options{Binary: binary, Dir: t.TempDir(), Receiver: receiver, Settings: extra, Stderr: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return &relay{r, t}
}

// start runs the program and waits until its listener greets.
func (r *relay) start() {
	r.t.Helper()
	if err := r.Launch(); err != nil {
		r.t.Fatal(err)
	}
	if err := r.Ready(r.t.Context(), patience); err != nil {
		r.t.Fatal(err)
	}
}

// stop ends it politely.
func (r *relay) stop() {
	r.t.Helper()
	if err := r.Stop(); err != nil {
		r.t.Fatal(err)
	}
}

// run calls a subcommand and gives what it prints.
func (r *relay) run(args ...string) string {
	r.t.Helper()
	out, err := r.Run(r.t.Context(), args...)
	if err != nil {
		r.t.Fatalf("postrider %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// receiver is a sink that remembers which messages came, and how often.
type receiver struct {
	*sink.Server
	mu   sync.Mutex
	seen map[string]int
}

// newReceiver starts a sink; key finds in a message what it is known by.
func newReceiver(t *testing.T, key func(*sink.Message) string) *receiver {
	t.Helper()
	r := &receiver{seen: map[string]int{}}
	s, err := sink.New(sink.Config{Capture: 2048, Received: func(m *sink.Message) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.seen[key(m)]++
	}})
	if err != nil {
		t.Fatal(err)
	}
	r.Server = s
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *receiver) counts() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string]int, len(r.seen))
	for k, n := range r.seen {
		out[k] = n
	}
	return out
}

// waitFor waits until all keys have come.
func (r *receiver) waitFor(t *testing.T, keys []string, longest time.Duration) {
	t.Helper()
	within(t, longest, "every acknowledged message has arrived", func() bool {
		seen := r.counts()
		return !slices.ContainsFunc(keys, func(k string) bool { return seen[k] == 0 })
	})
}

// patience is how long a slow machine may take for what takes others seconds.
const patience = 4 * time.Minute

// within waits for a fact.
func within(t *testing.T, longest time.Duration, fact string, f func() bool) {
	t.Helper()
	late := time.After(longest)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("after %v it is still not so that %s", longest, fact)
		}
	}
}

// field gives the value of a header field of a captured message.
func field(m *sink.Message, name string) string {
	for line := range strings.Lines(string(m.Content)) {
		if line == "\r\n" {
			break
		}
		if v, ok := strings.CutPrefix(line, name+": "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
