package e2e

import (
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"net/smtp"
	"sync"
	"sync/atomic"
	"testing"

	"postrider/internal/sink"
)

// sender sends messages over SMTP, each with a name of its own, and notes those
// that were acknowledged.
type sender struct {
	r     *relay
	next  atomic.Int64
	mu    sync.Mutex
	acked []string
}

func (s *sender) acknowledged() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.acked...)
}

// session sends over one connection until it breaks or stop is closed.
func (s *sender) session(stop <-chan struct{}) error {
	conn, err := net.DialTimeout("tcp", s.r.Addr, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	c, err := smtp.NewClient(conn, "localhost")
	if err != nil {
		return err
	}
	if err := c.StartTLS(&tls.Config{InsecureSkipVerify: true}); err != nil {
		return err
	}
	if err := c.Auth(smtp.PlainAuth("", "postrider", s.r.Password(), "localhost")); err != nil {
		return err
	}
	for {
		select {
		case <-stop:
			return c.Quit()
		default:
		}
		name := fmt.Sprintf("m%06d", s.next.Add(1))
		if err := sendOne(c, name); err != nil {
			return err
		}
		s.mu.Lock()
		s.acked = append(s.acked, name)
		s.mu.Unlock()
	}
}

func sendOne(c *smtp.Client, name string) error {
	if err := c.Mail("app@client.test"); err != nil {
		return err
	}
	if err := c.Rcpt("ann@receiver.test"); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "From: app@client.test\r\nSubject: %s\r\n\r\n%4096d\r\n", name, 1); err != nil {
		return err
	}
	return w.Close()
}

// Killed with -9 in mid-load and started again, the relay delivers every message
// that it acknowledged.
func TestKillLosesNothing(t *testing.T) {
	const cycles, sessions = 4, 16
	to := newReceiver(t, func(m *sink.Message) string { return field(m, "Subject") })
	r := newRelay(t, to.Addr(), "[queue]\nretry = [\"1s\"]\n")
	s := &sender{r: r}
	r.start()
	for range cycles {
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range sessions {
			wg.Go(func() { s.session(stop) }) // ends in an error when the relay is killed
		}
		enough := len(s.acknowledged()) + 200 + rand.IntN(200)
		within(t, patience, "enough messages are acknowledged", func() bool { return len(s.acknowledged()) >= enough })
		r.Kill()
		close(stop)
		wg.Wait()
		r.start()
	}
	acked := s.acknowledged()
	to.waitFor(t, acked, patience)
	r.stop()
	repeated := 0
	for _, n := range to.counts() {
		repeated += n - 1
	}
	t.Logf("%d acknowledged, all delivered, %d delivered twice, %d kills", len(acked), repeated, cycles)
	// At most the attempts that were in flight at a kill: one a connection.
	if most := cycles * 20; repeated > most {
		t.Errorf("%d were delivered twice; at most %d can have been in flight", repeated, most)
	}
}
