// Package process builds the program and runs it as a process of its own, for
// those who look at it from outside only: the end-to-end tests and the crash
// harness.
package process

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"postrider/internal/lab/fakedns"
)

// Build builds the program, as make build does, from the module in the folder
// module (empty: the current one) into a file.
func Build(ctx context.Context, module, file string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", file, "postrider/cmd/postrider")
	cmd.Dir, cmd.Env = module, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build postrider: %w\n%s", err, out)
	}
	return nil
}

// Main is what TestMain of a package does whose tests run the program: it builds it
// into a folder of its own, sets binary to the file, runs the tests, and gives their
// status.
func Main(ctx context.Context, run func() int, binary *string) int {
	dir, err := os.MkdirTemp("", "postrider-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	*binary = filepath.Join(dir, "postrider")
	if err := Build(ctx, "", *binary); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return run()
}

// Options say what a relay is.
type Options struct {
	Binary   string    // the built program
	Dir      string    // folder for its configuration and data
	Receiver string    // host:port that all mail goes to; empty: to its MX, which may be on loopback
	Settings string    // more TOML, before the first table
	Guest    bool      // another one made the first credential of the store that they share
	Stderr   io.Writer // for what it logs
}

// Relay is a process of the program on loopback, with a DNS server of its own.
// One goroutine at a time may start and end it.
type Relay struct {
	Config string // file
	Data   string // folder
	Addr   string // of the listener

	binary  string
	guest   bool
	stderr  io.Writer
	dns     *fakedns.Server
	command *exec.Cmd
	ended   chan struct{} // closed when the process has ended

	mu       sync.Mutex
	password string
	told     chan struct{} // closed when the password is known
}

// New writes the configuration. Close ends what it began.
func New(o Options) (*Relay, error) {
	addr, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	dns, err := fakedns.Start("")
	if err != nil {
		return nil, fmt.Errorf("start DNS server: %w", err)
	}
	to := fmt.Sprintf("to = %q", o.Receiver)
	if o.Receiver == "" {
		to = "to = \"mx\"\nallow_private = [\"127.0.0.0/8\"]"
	}
	r := &Relay{Config: filepath.Join(o.Dir, "postrider.toml"), Data: filepath.Join(o.Dir, "data"), Addr: addr,
		binary: o.Binary, guest: o.Guest, stderr: o.Stderr, dns: dns, told: make(chan struct{})}
	// Relays that share a store share a master key; here all have one.
	key := filepath.Join(o.Dir, "master.key")
	if err := os.WriteFile(key, []byte(strings.Repeat("5a", 32)), 0o600); err != nil {
		dns.Close()
		return nil, fmt.Errorf("write master key: %w", err)
	}
	text := fmt.Sprintf(`hostname = "relay.test"
data = %q
master_key = %q
%s
[[listen]]
name = "in"
address = %q
mode = "starttls"
[[route]]
domain = "*"
%s
[dns]
servers = [%q]
[policy]
senders = "any"
[log]
level = "warn"
`, r.Data, key, o.Settings, addr, to, dns.Addr())
	if err := os.WriteFile(r.Config, []byte(text), 0o600); err != nil {
		dns.Close()
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	return r, nil
}

// DNS is the server that the relay asks.
func (r *Relay) DNS() *fakedns.Server { return r.dns }

// FreeAddr is an address that nobody listens on just now. Its port is below
// those that systems give to connections (RFC 6335 section 6: from 49152; Linux:
// from 32768), of which one could otherwise take it before the program does.
func FreeAddr() (string, error) {
	var err error
	for range 100 {
		var ln net.Listener
		ln, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000)))
		if err == nil {
			return ln.Addr().String(), ln.Close()
		}
	}
	return "", fmt.Errorf("find a free port: %w", err)
}

// Launch runs the program and does not wait for anything.
func (r *Relay) Launch() error {
	cmd := exec.Command(r.binary, "serve", "-config", r.Config)
	cmd.Stderr = r.stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start the relay: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the relay: %w", err)
	}
	ended := make(chan struct{})
	r.command, r.ended = cmd, ended
	go func() {
		defer close(ended)
		s := bufio.NewScanner(out)
		for s.Scan() {
			if f := strings.Fields(s.Text()); len(f) == 2 && f[0] == "password" {
				r.learn(f[1])
			}
		}
		_ = cmd.Wait() // how it ended is in cmd.ProcessState
	}()
	return nil
}

func (r *Relay) learn(password string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.password == "" {
		close(r.told)
	}
	r.password = password
}

// Ready waits until the listener greets, and at the first start until the
// password is known.
func (r *Relay) Ready(ctx context.Context, longest time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	for !greets(ctx, r.Addr) {
		select {
		case <-r.ended:
			return fmt.Errorf("the relay ended at its start: %v", r.command.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("the relay does not greet: %w", ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	if r.guest {
		return nil
	}
	select {
	case <-r.told:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the relay prints no password: %w", ctx.Err())
	}
}

func greets(ctx context.Context, addr string) bool {
	d := net.Dialer{Timeout: 5 * time.Second}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	line, err := bufio.NewReader(c).ReadString('\n')
	return err == nil && strings.HasPrefix(line, "220 ")
}

// Password of user postrider; empty before a first start has printed it.
func (r *Relay) Password() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.password
}

// PID of the process that runs; 0 if none does.
func (r *Relay) PID() int {
	if r.command == nil {
		return 0
	}
	return r.command.Process.Pid
}

// Kill ends the process as a power cut would, as far as the process can tell.
func (r *Relay) Kill() {
	if r.command == nil {
		return
	}
	_ = r.command.Process.Signal(syscall.SIGKILL) // an error: it has ended already
	<-r.ended
	r.command = nil
}

// Stop ends the process politely; it must come to an end, with status 0.
func (r *Relay) Stop() error {
	if r.command == nil {
		return errors.New("the relay does not run")
	}
	_ = r.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.ended:
	case <-time.After(2 * time.Minute):
		r.Kill()
		return errors.New("the relay does not stop")
	}
	state := r.command.ProcessState
	r.command = nil
	if !state.Success() {
		return fmt.Errorf("the relay stops with %v", state)
	}
	return nil
}

// Close kills what still runs.
func (r *Relay) Close() {
	r.Kill()
	r.dns.Close()
}

// Run calls a subcommand and gives what it prints.
func (r *Relay) Run(ctx context.Context, args ...string) (string, error) {
	args = append([]string{args[0], "-config", r.Config}, args[1:]...)
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, r.binary, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}
