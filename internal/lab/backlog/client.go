package backlog

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// patience is how long a client waits for any one answer.
const patience = time.Minute

// session is one client of the relay.
type session struct {
	conn net.Conn
	br   *bufio.Reader
}

// dial opens a session from a loopback address, up to the reply to EHLO. With a
// password it begins TLS and logs in as well. Many of them wait at once, so
// that each has a small buffer only.
func dial(ctx context.Context, addr string, from net.IP, password string) (*session, error) {
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: from}}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &session{conn, bufio.NewReaderSize(conn, 1024)}
	if err = s.begin(password); err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

func (s *session) begin(password string) error {
	if err := s.answer("220"); err != nil {
		return err
	}
	if err := s.ask("EHLO client.test\r\n", "250"); err != nil || password == "" {
		return err
	}
	if err := s.ask("STARTTLS\r\n", "220"); err != nil {
		return err
	}
	// The certificate is the relay's own, made at its first start.
	s.conn = tls.Client(s.conn, &tls.Config{InsecureSkipVerify: true})
	s.br.Reset(s.conn)
	if err := s.ask("EHLO client.test\r\n", "250"); err != nil {
		return err
	}
	return s.ask("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00postrider\x00"+password))+"\r\n", "235")
}

// ask sends lines and reads as many replies, each of which must have its code.
func (s *session) ask(lines string, codes ...string) error {
	if err := s.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := s.conn.Write([]byte(lines)); err != nil {
		return err
	}
	for _, code := range codes {
		if err := s.answer(code); err != nil {
			return err
		}
	}
	return nil
}

// answer reads one reply.
func (s *session) answer(code string) error {
	for {
		line, err := s.br.ReadString('\n')
		if err != nil {
			return err
		}
		if len(line) < 4 || !strings.HasPrefix(line, code) {
			return fmt.Errorf("answered %q, want %s", line, code)
		}
		if line[3] != '-' {
			return nil
		}
	}
}

// send sends one message of one recipient; content is ready for DATA. It takes
// when the relay has acknowledged it.
func (s *session) send(from, to string, content []byte) error {
	if err := s.ask("MAIL FROM:<"+from+">\r\nRCPT TO:<"+to+">\r\nDATA\r\n", "250", "250", "354"); err != nil {
		return err
	}
	return s.ask(string(content), "250")
}

func (s *session) quit() error {
	return errors.Join(s.ask("QUIT\r\n", "221"), s.conn.Close())
}
