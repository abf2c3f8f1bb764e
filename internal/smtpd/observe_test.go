package smtpd

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"

	"postrider/internal/config"
	"postrider/internal/relay"
	"postrider/internal/smtp"
)

// tally counts what an Observer is told.
type tally struct {
	mu    sync.Mutex
	seen  map[string]int
	taken []Accepted
}

func (c *tally) add(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil {
		c.seen = map[string]int{}
	}
	c.seen[fmt.Sprintf(format, args...)]++
}

func (c *tally) Session(listener string, begins bool) { c.add("session %s %v", listener, begins) }
func (c *tally) TurnedAway(listener, why string)      { c.add("away %s %s", listener, why) }
func (c *tally) Login(mechanism string, code int)     { c.add("login %s %d", mechanism, code) }
func (c *tally) Refused(stage string, r smtp.Reply) {
	c.add("refused %s %d %s", stage, r.Code, r.Enhanced)
}
func (c *tally) Accepted(m Accepted) {
	c.add("accepted %s %d", m.Stream, m.Recipients)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.taken = append(c.taken, m)
}

// logged is a log that can be read while it is written.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// say sends a line and wants a reply with the code.
func say(t *testing.T, c *textproto.Conn, line string, code int) {
	t.Helper()
	if err := c.PrintfLine("%s", line); err != nil {
		t.Fatal(err)
	}
	if _, text, err := c.ReadResponse(code); err != nil {
		t.Fatalf("%q: %v %s; want %d", line, err, text, code)
	}
}

func hail(t *testing.T, addr string, code int) *textproto.Conn {
	t.Helper()
	c, err := textproto.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, text, err := c.ReadResponse(code); err != nil {
		t.Fatalf("greeting: %v %s", err, text)
	}
	return c
}

// TestObserver tells each thing once, and the log tells it with the same keys
// and without a secret.
func TestObserver(t *testing.T) {
	seen, log := new(tally), new(logged)
	c := testConfig(t)
	c.Observer, c.Limits.PerClient = seen, 1
	f := startLogging(t, c, ListenerConfig{Name: "test", Mode: ModePlain}, slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	p := hail(t, f.addr, 220)
	hail(t, f.addr, 421)
	say(t, p, "EHLO client.example", 250)
	say(t, p, "MAIL FROM:<a@b.example>", 530)
	b64 := base64.StdEncoding.EncodeToString
	say(t, p, "AUTH XOAUTH2 "+b64([]byte("user=joe\x01auth=Bearer token-secret\x01\x01")), 504)
	say(t, p, "AUTH PLAIN "+b64([]byte("\x00joe\x00wrong-secret")), 535)
	say(t, p, "AUTH LOGIN", 334)
	say(t, p, b64([]byte("busy")), 334)
	say(t, p, b64([]byte("login-secret")), 454)
	say(t, p, "AUTH PLAIN "+b64([]byte("\x00joe\x00secret")), 235)
	say(t, p, "MAIL FROM:<a@b.example>", 250)
	say(t, p, "RCPT TO:<ann@[192.0.2.1]>", 550)
	say(t, p, "RCPT TO:<ann@example.com>", 250)
	say(t, p, "RCPT TO:<bob@example.com>", 250)
	say(t, p, "DATA", 354)
	say(t, p, "Subject: x\r\n\r\nx\r\n.", 250)
	say(t, p, "MAIL FROM:<full@relay.test>", 250)
	say(t, p, "RCPT TO:<ann@example.com>", 250)
	say(t, p, "DATA", 354)
	say(t, p, "Subject: x\r\n\r\nx\r\n.", 452)
	say(t, p, "QUIT", 221)
	f.stop()
	if err := f.wait(); err != nil {
		t.Error(err)
	}

	want := map[string]int{
		"session test true": 1, "session test false": 1, "away test client_limit": 1, "refused other 421 4.7.0": 1,
		"refused mail 530 5.7.0": 1, "refused auth 504 5.5.4": 1, "refused auth 535 5.7.8": 1, "refused auth 454 4.7.0": 1,
		"login PLAIN 535": 1, "login LOGIN 454": 1, "login PLAIN 235": 1,
		"refused rcpt 550 5.1.2": 1, "accepted transactional 2": 1, "refused data 452 4.3.1": 1,
	}
	if !maps.Equal(seen.seen, want) {
		t.Errorf("told of %v\nwant %v", seen.seen, want)
	}
	if m := seen.taken[0]; m.Size != int64(len("Subject: x\r\n\r\nx\r\n")) || m.Took <= 0 || m.Took > time.Minute {
		t.Errorf("accepted %+v", m)
	}

	text := log.String()
	for _, secret := range []string{"secret", b64([]byte("login-secret")), b64([]byte("\x00joe\x00secret"))} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
	lines := map[string][]map[string]any{}
	for line := range strings.Lines(text) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if entry["session"] == nil || entry["listener"] != "test" || entry["client"] == nil {
			t.Errorf("a line without session, listener or client: %s", line)
		}
		lines[entry["msg"].(string)] = append(lines[entry["msg"].(string)], entry)
	}
	if a := lines["accepted"]; len(a) != 1 || a[0]["message"] != (relay.ID{15: 1}).String() || a[0]["sender"] != "a@b.example" || a[0]["recipients"] != 2.0 {
		t.Errorf("accepted: %v", a)
	}
	if r := lines["refused"]; len(r) != 3 || r[1]["recipient"] != "ann@[192.0.2.1]" || r[1]["stage"] != "rcpt" || r[2]["sender"] != "full@relay.test" {
		t.Errorf("refused: %v", r)
	}
}

func TestObserverOfBrokenTLS(t *testing.T) {
	seen := new(tally)
	c := testConfig(t)
	c.Observer, c.Limits = seen, config.Default().Limits
	f := start(t, c, ListenerConfig{Name: "test", Mode: ModeTLS})
	conn, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "EHLO client.example\r\n")
	conn.Read(make([]byte, 100)) // until it is closed
	conn.Close()
	f.stop()
	if err := f.wait(); err != nil {
		t.Error(err)
	}
	if seen.seen["away test tls"] != 1 {
		t.Errorf("told of %v", seen.seen)
	}
}
