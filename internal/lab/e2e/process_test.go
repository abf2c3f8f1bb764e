package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postrider/internal/lab/fakedns"
	"postrider/internal/sink"
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "postrider-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "postrider")
	build := exec.Command("go", "build", "-o", binary, "postrider/cmd/postrider")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build postrider:", err)
		return 1
	}
	return m.Run()
}

// relay is a process of the program.
type relay struct {
	t        *testing.T
	config   string // file
	dir      string
	addr     string // of the listener
	password string // of user postrider, once a first start has printed it
	command  *exec.Cmd
	ended    chan struct{}
}

// newRelay writes a configuration that sends all mail to the receiver. extra is
// more TOML.
func newRelay(t *testing.T, receiver, extra string) *relay {
	t.Helper()
	dns, err := fakedns.Start("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dns.Close)
	r := &relay{t: t, dir: t.TempDir(), addr: freeAddr(t)}
	r.config = filepath.Join(r.dir, "postrider.toml")
	text := fmt.Sprintf(`hostname = "relay.test"
data = %q
%s
[[listen]]
name = "in"
address = %q
mode = "starttls"
[[route]]
domain = "*"
to = %q
[dns]
servers = [%q]
[log]
level = "warn"
`, filepath.Join(r.dir, "data"), extra, r.addr, receiver, dns.Addr())
	if err := os.WriteFile(r.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return r
}

// freeAddr is an address that nobody listens on just now.
func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// start runs the program and waits until its listener greets.
func (r *relay) start() {
	r.t.Helper()
	cmd := exec.Command(binary, "serve", "-config", r.config)
	cmd.Stderr = r.t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.command, r.ended = cmd, make(chan struct{})
	printed := make(chan string, 1)
	ended := r.ended
	go func() {
		defer close(ended)
		s := bufio.NewScanner(out)
		for s.Scan() {
			if f := strings.Fields(s.Text()); len(f) == 2 && f[0] == "password" {
				printed <- f[1]
			}
		}
		cmd.Wait()
	}()
	r.t.Cleanup(r.kill)
	deadline := time.Now().Add(30 * time.Second)
	for !greets(r.addr) {
		select {
		case <-ended:
			r.t.Fatal("the relay ended at its start")
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			r.t.Fatal("the relay does not greet")
		}
	}
	if r.password == "" {
		r.password = <-printed
	}
}

func greets(addr string) bool {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	line, err := bufio.NewReader(c).ReadString('\n')
	return err == nil && strings.HasPrefix(line, "220 ")
}

// kill ends the process as a power cut would, as far as the process can tell.
func (r *relay) kill() {
	if r.command != nil {
		r.command.Process.Signal(syscall.SIGKILL)
		<-r.ended
		r.command = nil
	}
}

// stop ends it politely; it must come to an end.
func (r *relay) stop() {
	r.t.Helper()
	r.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.ended:
	case <-time.After(40 * time.Second):
		r.t.Fatal("the relay does not stop")
	}
	if code := r.command.ProcessState.ExitCode(); code != 0 {
		r.t.Fatalf("the relay stops with status %d", code)
	}
	r.command = nil
}

// run calls a subcommand and gives what it prints.
func (r *relay) run(args ...string) string {
	r.t.Helper()
	out, err := r.try(args...)
	if err != nil {
		r.t.Fatalf("postrider %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (r *relay) try(args ...string) (string, error) {
	args = append([]string{args[0], "-config", r.config}, args[1:]...)
	var out bytes.Buffer
	cmd := exec.Command(binary, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
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
