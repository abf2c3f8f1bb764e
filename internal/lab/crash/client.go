package crash

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"net/smtp"
	"strings"
	"sync"
	"time"
)

// clientLog holds what was acknowledged.
type clientLog struct {
	mu      sync.Mutex
	letters map[int]acknowledged
	begun   int // letters whose content went out, acknowledged or not
	refused int // answered 4xx or 5xx
}

// acknowledged is a letter that the relay answered 250 to.
type acknowledged struct {
	letter
	id string // the relay's name for it
}

func (l *clientLog) add(a acknowledged) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.letters[a.number] = a
}

func (l *clientLog) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.letters)
}

// client is one who sends: many sessions of it run at once.
type client struct {
	addr     string
	password string // of user postrider; empty: the client's network is its credential
	from     net.IP // address to call from
	writer   *writer
	log      *clientLog
}

// run sends until ctx ends, over one session after the other. A session that
// breaks is no error: the relay is being killed.
func (c *client) run(ctx context.Context) {
	for ctx.Err() == nil {
		if c.session(ctx) == nil {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(10+rand.IntN(60)) * time.Millisecond):
		}
	}
}

// patience is how long a client waits for any one answer.
const patience = 30 * time.Second

func (c *client) session(ctx context.Context) error {
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: c.from}}
	conn, err := d.DialContext(ctx, "tcp", c.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	s, err := smtp.NewClient(conn, "localhost")
	if err != nil {
		return err
	}
	if c.password != "" {
		// The certificate is the relay's own, made at its first start.
		if err := s.StartTLS(&tls.Config{InsecureSkipVerify: true}); err != nil {
			return err
		}
		if err := s.Auth(smtp.PlainAuth("", "postrider", c.password, "localhost")); err != nil {
			return err
		}
	}
	for range 1 + rand.IntN(60) {
		if ctx.Err() != nil {
			break
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		if err := c.send(s); err != nil {
			return err
		}
	}
	return s.Quit()
}

// send sends one letter. Only the reply to its end counts as acknowledgement.
func (c *client) send(s *smtp.Client) error {
	l, content := c.writer.write()
	if err := s.Mail(senderOf(l.number)); err != nil {
		return err
	}
	for i, kind := range l.kinds {
		if err := s.Rcpt(recipientOf(kind, i)); err != nil {
			return err
		}
	}
	if err := s.Text.PrintfLine("DATA"); err != nil {
		return err
	}
	if _, _, err := s.Text.ReadResponse(354); err != nil {
		return err
	}
	w := s.Text.DotWriter()
	if _, err := w.Write(content); err != nil {
		return err
	}
	c.log.mu.Lock()
	c.log.begun++
	c.log.mu.Unlock()
	if err := w.Close(); err != nil {
		return err
	}
	code, text, err := s.Text.ReadResponse(0)
	if err != nil {
		return err
	}
	if code != 250 {
		c.log.mu.Lock()
		c.log.refused++
		c.log.mu.Unlock()
		return fmt.Errorf("answered %d %s", code, text)
	}
	c.log.add(acknowledged{l, text[strings.LastIndexByte(text, ' ')+1:]})
	return nil
}
