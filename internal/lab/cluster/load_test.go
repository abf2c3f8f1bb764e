package cluster

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postrider/internal/sink"
)

// receiver is a sink that notes each delivery.
type receiver struct {
	*sink.Server
	mu   sync.Mutex
	seen map[string][]delivery // by subject
	gate chan struct{}         // nil, or closed: what comes is taken
}

type delivery struct {
	at   time.Time
	from string // the address that it came from
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{seen: map[string][]delivery{}}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s, err := sink.New(sink.Config{Capture: 2048, Received: func(m *sink.Message) {
		host, _, _ := net.SplitHostPort(m.Client)
		name, came := subject(m), time.Now()
		r.mu.Lock()
		defer r.mu.Unlock()
		if gate := r.gate; gate != nil {
			r.mu.Unlock()
			select {
			case <-gate:
			case <-ctx.Done():
			}
			r.mu.Lock()
		}
		r.seen[name] = append(r.seen[name], delivery{came, host})
	}})
	if err != nil {
		t.Fatal(err)
	}
	r.Server = s
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

// hold lets nothing more arrive until the returned function is called: what the
// nodes take meanwhile they have in hand, however slowly they take it.
func (r *receiver) hold() (release func()) {
	gate := make(chan struct{})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gate = gate
	return sync.OnceFunc(func() { close(gate) })
}

func subject(m *sink.Message) string {
	for line := range strings.Lines(string(m.Content)) {
		if v, ok := strings.CutPrefix(line, "Subject: "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func (r *receiver) deliveries() map[string][]delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.seen)
}

// load is clients that send to nodes and note what they were answered.
type load struct {
	t   *testing.T
	ctx context.Context
	end func() // ends all sessions and waits for them
	// delay is how late the receiver answers to a message: so that something is
	// under way at any time. It is set before sessions begin.
	delay time.Duration
	wg    sync.WaitGroup
	next  atomic.Int64

	mu      sync.Mutex
	acked   map[string]ack
	replies []answer
}

type ack struct {
	node string
	at   time.Time
}

// answer is what came of one try to send.
type answer struct {
	node string
	at   time.Time
	code int           // 0: the connection broke, or none was to be had
	took time.Duration // for the whole try
}

func newLoad(t *testing.T) *load {
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	l := &load{t: t, ctx: ctx, delay: 100 * time.Millisecond, acked: map[string]ack{}}
	l.end = sync.OnceFunc(func() { cancel(); l.wg.Wait() })
	t.Cleanup(l.end)
	return l
}

// on lets sessions send to a node, with a pause before each message, until the
// returned function is called.
func (l *load) on(n *node, sessions int, pause time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(l.ctx)
	var mine sync.WaitGroup
	for range sessions {
		l.wg.Add(1)
		mine.Go(func() {
			defer l.wg.Done()
			for ctx.Err() == nil {
				l.session(ctx, n, pause)
				wait(ctx, 50*time.Millisecond)
			}
		})
	}
	return func() { cancel(); mine.Wait() }
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// session sends until something is not answered as it should be.
func (l *load) session(ctx context.Context, n *node, pause time.Duration) {
	began := time.Now()
	c, err := dial(n.Addr)
	if err != nil {
		l.answered(n, began, codeOf(err))
		return
	}
	defer c.Close()
	for ctx.Err() == nil {
		began := time.Now()
		name := fmt.Sprintf("m%06d", l.next.Add(1))
		err := l.send(c, name)
		if err == nil {
			l.mu.Lock()
			l.acked[name] = ack{n.name, time.Now()}
			l.mu.Unlock()
		}
		l.answered(n, began, codeOf(err))
		if err != nil {
			return
		}
		wait(ctx, pause)
	}
}

func (l *load) answered(n *node, began time.Time, code int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.replies = append(l.replies, answer{n.name, time.Now(), code, time.Since(began)})
}

// answers gives those of a node since a time.
func (l *load) answers(n *node, since time.Time) (found []answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.replies {
		if a.node == n.name && a.at.After(since) {
			found = append(found, a)
		}
	}
	return found
}

func (l *load) acknowledged() map[string]ack {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.acked)
}

func (l *load) count(n *node) (count int) {
	for _, a := range l.acknowledged() {
		if a.node == n.name {
			count++
		}
	}
	return count
}

// patience is how long a client waits for any one answer.
const patience = time.Minute

func dial(addr string) (*textproto.Conn, error) {
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}}
	conn, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(5 * time.Minute))
	c := textproto.NewConn(conn)
	if _, _, err := c.ReadResponse(220); err != nil {
		c.Close()
		return nil, err
	}
	if err := say(c, 250, "EHLO client.test"); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func say(c *textproto.Conn, code int, format string, args ...any) error {
	if err := c.PrintfLine(format, args...); err != nil {
		return err
	}
	_, _, err := c.ReadResponse(code)
	return err
}

// send sends one message.
func (l *load) send(c *textproto.Conn, name string) error {
	for _, step := range []struct {
		code int
		line string
	}{{250, "MAIL FROM:<app@client.test>"}, {250, "RCPT TO:<slow-dot+" + l.delay.String() + "@receiver.test>"}, {354, "DATA"},
		{250, "From: app@client.test\r\nSubject: " + name + "\r\n\r\n" + strings.Repeat("x", 500) + "\r\n."}} {
		if err := say(c, step.code, "%s", step.line); err != nil {
			return err
		}
	}
	return nil
}

// codeOf is the reply that an error of say is about: 250 for none, 0 where the
// connection broke.
func codeOf(err error) int {
	if err == nil {
		return 250
	}
	if r, ok := err.(*textproto.Error); ok {
		return r.Code
	}
	return 0
}

// tryMail asks a node whether it takes a message, and sends none.
func tryMail(addr string) int {
	c, err := dial(addr)
	if err != nil {
		return codeOf(err)
	}
	defer c.Close()
	return codeOf(say(c, 250, "MAIL FROM:<app@client.test>"))
}
