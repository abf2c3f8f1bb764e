package interop

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// patience bounds every wait; it is only ever used up when something is broken.
const patience = 2 * time.Minute

// mailbox hands out what arrived, by recipient.
type mailbox struct {
	mu      sync.Mutex
	arrived map[string]chan []byte
}

func (m *mailbox) of(recipient string) chan []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.arrived == nil {
		m.arrived = map[string]chan []byte{}
	}
	if m.arrived[recipient] == nil {
		m.arrived[recipient] = make(chan []byte, 16)
	}
	return m.arrived[recipient]
}

func (m *mailbox) put(recipient string, content []byte) error {
	select {
	case m.of(recipient) <- content:
		return nil
	default:
		return errors.New("too many messages for " + recipient)
	}
}

// wait returns the next message for recipient.
func (m *mailbox) wait(t *testing.T, recipient string) []byte {
	t.Helper()
	select {
	case content := <-m.of(recipient):
		return content
	case <-t.Context().Done():
		t.Fatalf("waiting for mail to %s: %v", recipient, t.Context().Err())
	case <-time.After(patience):
		t.Fatalf("no mail for %s arrived within %v", recipient, patience)
	}
	return nil
}

// startReceiver starts emersion/go-smtp on a loopback port and puts what comes
// into box. Without a TLS config it offers no STARTTLS; utf8 makes it offer
// SMTPUTF8.
func startReceiver(t *testing.T, box *mailbox, config *tls.Config, utf8 bool) (addr string) {
	t.Helper()
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
		return &session{box: box}, nil
	}))
	server.Domain = "receiver.example"
	server.MaxMessageBytes = 50 << 20
	server.TLSConfig = config
	server.EnableDSN, server.EnableSMTPUTF8 = true, utf8
	server.ReadTimeout, server.WriteTimeout = patience, patience
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-ended; err != nil && !errors.Is(err, smtp.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			t.Errorf("serve receiver: %v", err)
		}
	})
	return listener.Addr().String()
}

type session struct {
	box        *mailbox
	recipients []string
}

func (s *session) Reset()                               { s.recipients = nil }
func (s *session) Logout() error                        { return nil }
func (s *session) Mail(string, *smtp.MailOptions) error { return nil }

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.recipients = append(s.recipients, to)
	return nil
}

func (s *session) Data(r io.Reader) error {
	content, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	for _, recipient := range s.recipients {
		if err := s.box.put(recipient, content); err != nil {
			return err
		}
	}
	return nil
}

// startAiosmtpd starts the Python receiver and puts what comes into box.
func startAiosmtpd(t *testing.T, box *mailbox, cert keyPair) (addr string) {
	t.Helper()
	cmd := exec.Command("/usr/bin/python3", filepath.Join("testdata", "aiosmtpd_receive.py"), cert.cert, cert.key)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start aiosmtpd: %v", err)
	}
	told := json.NewDecoder(stdout)
	var first struct{ Port int }
	if err := told.Decode(&first); err != nil {
		stdin.Close()
		cmd.Wait()
		t.Fatalf("start aiosmtpd: %v\n%s", err, stderr.Bytes())
	}
	ended := make(chan error, 1)
	go func() { ended <- collect(told, box) }()
	t.Cleanup(func() {
		stdin.Close() // it leaves by itself
		if err := errors.Join(<-ended, cmd.Wait()); err != nil {
			t.Errorf("aiosmtpd: %v\n%s", err, stderr.Bytes())
		}
	})
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(first.Port))
}

// collect puts the messages that a receiver tells of into box, until it ends.
func collect(told *json.Decoder, box *mailbox) error {
	for {
		var message struct {
			Recipients []string
			TLS        bool
			Content    []byte
		}
		if err := told.Decode(&message); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if !message.TLS {
			return errors.New("a message came without TLS, though STARTTLS was offered")
		}
		for _, recipient := range message.Recipients {
			if err := box.put(recipient, message.Content); err != nil {
				return err
			}
		}
	}
}
