package bench

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// session is a client that, like smtp-source, sends a command and waits for its
// reply, and knows no more than the benchmark needs.
type session struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte // for commands
}

// dial opens a session; with a password, over TLS and as user postrider.
func dial(ctx context.Context, addr, password string) (*session, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	s := &session{conn: conn, in: bufio.NewReader(conn)}
	_ = conn.SetDeadline(time.Now().Add(limit)) // of the whole run
	if err := s.open(ctx, password); err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

func (s *session) open(ctx context.Context, password string) error {
	if err := s.reply("220"); err != nil {
		return err
	}
	if err := s.command("EHLO client.example", "250"); err != nil {
		return err
	}
	if password == "" {
		return nil
	}
	if err := s.command("STARTTLS", "220"); err != nil {
		return err
	}
	// The certificate is the relay's own, made at its first start.
	secure := tls.Client(s.conn, &tls.Config{InsecureSkipVerify: true, DynamicRecordSizingDisabled: true})
	if err := secure.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("STARTTLS: %w", err)
	}
	s.conn, s.in = secure, bufio.NewReader(secure)
	if err := s.command("EHLO client.example", "250"); err != nil {
		return err
	}
	return s.command("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00postrider\x00"+password)), "235")
}

func (s *session) command(line, code string) error {
	s.out = append(append(s.out[:0], line...), "\r\n"...)
	if _, err := s.conn.Write(s.out); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return s.reply(code)
}

func (s *session) reply(code string) error {
	for {
		line, err := s.in.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("wait for %s: %w", code, err)
		}
		if string(line[:min(3, len(line))]) != code {
			return fmt.Errorf("the answer is %q, not %s", line, code)
		}
		if len(line) > 3 && line[3] == ' ' {
			return nil
		}
	}
}

// message sends one, with the dot in content; before is called just before that.
func (s *session) message(to string, content []byte, before func()) error {
	if err := s.command("MAIL FROM:<"+sender+">", "250"); err != nil {
		return err
	}
	if err := s.command("RCPT TO:<"+to+">", "250"); err != nil {
		return err
	}
	if err := s.command("DATA", "354"); err != nil {
		return err
	}
	before()
	if _, err := s.conn.Write(content); err != nil {
		return fmt.Errorf("send content: %w", err)
	}
	return s.reply("250")
}

func (s *session) quit() error {
	err := s.command("QUIT", "221")
	if closed := s.conn.Close(); err == nil && closed != nil {
		err = fmt.Errorf("close: %w", closed)
	}
	return err
}

// content is a message of so many bytes, with the dot.
func content(id string, bytes int) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "From: <%s>\r\nTo: <%s>\r\nSubject: bench\r\n%s%s\r\n\r\n", sender, recipient, idField, id)
	line := strings.Repeat("X", 78) + "\r\n"
	for b.Len() < bytes {
		b.WriteString(line)
	}
	return append([]byte(b.String()), ".\r\n"...)
}

// dialAll opens n sessions.
func dialAll(ctx context.Context, addr, password string, n int) ([]*session, error) {
	sessions := make([]*session, n)
	g, dialing := errgroup.WithContext(ctx)
	for i := range sessions {
		g.Go(func() (err error) {
			sessions[i], err = dial(dialing, addr, password)
			return err
		})
	}
	err := g.Wait()
	if err != nil {
		closeAll(sessions)
	}
	return sessions, err
}

func closeAll(sessions []*session) {
	for _, s := range sessions {
		if s != nil {
			s.conn.Close()
		}
	}
}

// sessions is a load over kept sessions that stand before the clock starts.
func (b *bench) sessions(bytes int, password string) load {
	text := content("none", bytes)
	return func(ctx context.Context, addr string, n int) (sent, error) {
		all, err := dialAll(ctx, addr, password, b.o.Sessions)
		if err != nil {
			return sent{}, err
		}
		defer closeAll(all)
		defer context.AfterFunc(ctx, func() { closeAll(all) })()
		self := program{pid: os.Getpid()}
		before, err := self.cpu()
		if err != nil {
			return sent{}, err
		}
		began := time.Now()
		var given atomic.Int64
		var g errgroup.Group
		for _, s := range all {
			g.Go(func() error {
				for given.Add(1) <= int64(n) {
					if err := s.message(recipient, text, func() {}); err != nil {
						return err
					}
				}
				return s.quit()
			})
		}
		err = g.Wait()
		after, e := self.cpu()
		if err == nil {
			err = e
		}
		return sent{began: began, cpu: after - before}, err
	}
}
