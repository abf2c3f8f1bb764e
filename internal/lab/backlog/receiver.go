package backlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"postrider/internal/sink"
)

// Addresses of receivers. All listen on one port, as those found by MX do.
const (
	goodHost    = "127.0.0.10" // takes what comes
	slowHost    = "127.0.0.11" // answers late
	refusedHost = "127.0.0.12" // nobody listens
	silentHost  = "127.0.0.13" // nobody answers
)

// slowness is how late the slow receiver answers RCPT, DATA and the content.
const slowness = "300ms"

// receivers are those that the relays deliver to.
type receivers struct {
	port   int
	cancel context.CancelFunc
	ended  chan error
	silent *deaf

	mu     sync.Mutex
	probes map[string]*probe
}

func startReceivers(ctx context.Context) (*receivers, error) {
	r := &receivers{probes: map[string]*probe{}, ended: make(chan error, 2)}
	ln, err := net.Listen("tcp", goodHost+":0")
	if err != nil {
		return nil, fmt.Errorf("find a port: %w", err)
	}
	r.port = ln.Addr().(*net.TCPAddr).Port
	ln.Close()
	if r.silent, err = newDeaf(silentHost, r.port); err != nil {
		return nil, err
	}
	slow, err := sink.ParseScenario("slow", []byte("local_parts = false\n[[rule]]\nrecipient = \"*\"\ndo = \"slow+"+slowness+"\"\n"))
	if err != nil {
		return nil, err
	}
	good, err := sink.ParseScenario("good", []byte("local_parts = false\n"))
	if err != nil {
		return nil, err
	}
	ctx, r.cancel = context.WithCancel(ctx)
	for host, s := range map[string]*sink.Scenario{goodHost: good, slowHost: slow} {
		srv, err := sink.New(sink.Config{Listen: []string{net.JoinHostPort(host, strconv.Itoa(r.port))}, Scenario: s,
			Without: sink.StartTLS, Capture: 1024, Received: r.received})
		if err != nil {
			r.cancel()
			return nil, fmt.Errorf("start receiver: %w", err)
		}
		go func() { r.ended <- srv.Serve(ctx) }()
	}
	return r, nil
}

func (r *receivers) stop() error {
	r.cancel()
	return errors.Join(<-r.ended, <-r.ended, r.silent.Close())
}

// markField carries the name of a probe, and when a message was handed in.
const markField = "X-Mark: "

func mark(name string, at time.Time) string {
	return markField + name + " " + strconv.FormatInt(at.UnixNano(), 10) + "\r\n"
}

func (r *receivers) received(m *sink.Message) {
	_, after, ok := bytes.Cut(m.Content, []byte(markField))
	if !ok {
		return // a DSN
	}
	now := time.Now()
	line, _, _ := strings.Cut(string(after[:min(len(after), 100)]), "\r")
	name, at, _ := strings.Cut(line, " ")
	ns, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return
	}
	r.probe(name).add(now.Sub(time.Unix(0, ns)))
}

// probe gives the probe of that name.
func (r *receivers) probe(name string) *probe {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.probes[name]
	if p == nil {
		p = &probe{}
		r.probes[name] = p
	}
	return p
}

// probe counts what has arrived of one kind, and how long it took.
type probe struct {
	mu   sync.Mutex
	took []time.Duration
}

func (p *probe) add(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.took = append(p.took, d)
}

func (p *probe) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.took)
}

// waitFor waits until n have arrived, as long as longest.
func (p *probe) waitFor(ctx context.Context, n int, longest time.Duration) error {
	for end := time.Now().Add(longest); p.count() < n && time.Now().Before(end); {
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// percentile gives one, of sent messages: those that have not arrived count as
// having taken as long as was waited for them.
func (p *probe) percentile(q float64, sent int, waited time.Duration) time.Duration {
	p.mu.Lock()
	all := slices.Clone(p.took)
	p.mu.Unlock()
	for len(all) < sent {
		all = append(all, waited)
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[min(int(q*float64(len(all))), len(all)-1)]
}

// deaf is an address that does not answer: its backlog is full and nobody
// accepts, so the system drops whoever else wants to connect.
type deaf struct {
	socket int
	held   []net.Conn
}

func newDeaf(host string, port int) (*deaf, error) {
	s, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a silent address: %w", err)
	}
	d := &deaf{socket: s}
	err = errors.Join(syscall.SetsockoptInt(s, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1),
		syscall.Bind(s, &syscall.SockaddrInet4{Port: port, Addr: [4]byte(net.ParseIP(host).To4())}), syscall.Listen(s, 0))
	for err == nil {
		c, full := net.DialTimeout("tcp", net.JoinHostPort(host, strconv.Itoa(port)), 300*time.Millisecond)
		if full != nil {
			return d, nil
		}
		if d.held = append(d.held, c); len(d.held) > 64 {
			err = errors.New("its backlog does not become full")
		}
	}
	return nil, errors.Join(fmt.Errorf("make a silent address: %w", err), d.Close())
}

func (d *deaf) Close() error {
	for _, c := range d.held {
		c.Close()
	}
	return syscall.Close(d.socket)
}
