package badday

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"net/textproto"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"postrider/internal/lab/process"
	"postrider/internal/sink"
)

// day is a relay, those who send, and a receiver.
type day struct {
	*process.Relay
	t        *testing.T
	dir      string
	receiver string // address; nobody listens there before receive is called
	log      safeBuffer

	mu       sync.Mutex
	accepted []string       // names of the messages that were answered 250
	came     map[string]int // how often each came to the receiver
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// newDay makes a relay in dir that is not started yet, of the given program.
func newDay(t *testing.T, dir, program, settings string) *day {
	t.Helper()
	receiver, err := process.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	d := &day{t: t, dir: dir, receiver: receiver, came: map[string]int{}}
	d.Relay, err = process.New(process.Options{Binary: program, Dir: dir, Receiver: d.receiver,
		Settings: "[queue]\nretry = [\"1s\"]\n[notices]\ngather = \"1s\"\n" + settings, Stderr: &d.log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.Close()
		if t.Failed() {
			lines := strings.SplitAfter(d.log.String(), "\n")
			t.Logf("the relay's log ends:\n%s", strings.Join(lines[max(0, len(lines)-30):], ""))
		}
	})
	return d
}

// start runs the relay, for the first time with a credential for clients.
func (d *day) start() {
	d.t.Helper()
	first := d.Password() == ""
	if err := d.Launch(); err != nil {
		d.t.Fatal(err)
	}
	if err := d.Ready(d.t.Context(), patience); err != nil {
		d.t.Fatal(err)
	}
	if !first {
		return
	}
	if out, err := d.Run(d.t.Context(), "credential", "add", "-kind", "network", "-network", "127.0.0.2", "test"); err != nil {
		d.t.Fatalf("%v\n%s", err, out)
	}
}

// receive starts the receiver.
func (d *day) receive() {
	d.t.Helper()
	s, err := sink.New(sink.Config{Listen: []string{d.receiver}, Capture: 4096, Received: func(m *sink.Message) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.came[m.From]++
	}})
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(d.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	d.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			d.t.Error(err)
		}
	})
}

// call opens a session from the network that is its credential.
func (d *day) call() (*smtp.Client, error) {
	dialer := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	conn, err := dialer.DialContext(d.t.Context(), "tcp", d.Addr)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	c, err := smtp.NewClient(conn, "localhost")
	if err != nil {
		conn.Close()
	}
	return c, err
}

// send sends a message of some size over a session of its own, and notes it when
// it is accepted.
func (d *day) send(name string, size int) error {
	c, err := d.call()
	if err != nil {
		return err
	}
	defer c.Close()
	name += "@sender.test"
	if err := errors.Join(c.Mail(name), c.Rcpt("ok@receiver.test")); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	line := strings.Repeat("x", 76) + "\r\n"
	_, err = fmt.Fprintf(w, "Subject: test\r\n\r\n%s", strings.Repeat(line, size/len(line)+1))
	if err := errors.Join(err, w.Close()); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.accepted = append(d.accepted, name)
	return nil
}

// code is that of an SMTP reply that refuses, or 0.
func code(err error) int {
	var r *textproto.Error
	if errors.As(err, &r) {
		return r.Code
	}
	return 0
}

// missing counts accepted messages that have not come, and those that came more
// than once.
func (d *day) missing() (n, twice int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range d.accepted {
		if d.came[name] == 0 {
			n++
		}
	}
	for _, times := range d.came {
		if times > 1 {
			twice++
		}
	}
	return n, twice
}

// allCame waits until every accepted message has come, each once.
func (d *day) allCame() {
	d.t.Helper()
	d.within(patience, "everything accepted has come", func() bool { n, _ := d.missing(); return n == 0 })
	if _, twice := d.missing(); twice > 0 {
		d.t.Errorf("%d came twice", twice)
	}
}

// patience is how long a slow machine may take for what takes others seconds.
const patience = 2 * time.Minute

// within waits for a fact.
func (d *day) within(longest time.Duration, fact string, f func() bool) {
	d.t.Helper()
	late := time.After(longest)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-late:
			d.t.Fatalf("after %v it is still not so that %s", longest, fact)
		}
	}
}

// stays sees to it that a fact holds for a while.
func (d *day) stays(long time.Duration, fact string, f func() bool) {
	d.t.Helper()
	end := time.After(long)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if !f() {
			d.t.Fatalf("it is not so any more that %s", fact)
		}
		select {
		case <-tick.C:
		case <-end:
			return
		}
	}
}

// busy is the processor time that the relay has used.
func (d *day) busy() time.Duration {
	d.t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(d.PID()), "stat"))
	if err != nil {
		d.t.Fatal(err)
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err := errors.Join(err1, err2); err != nil {
		d.t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}
