package sink

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	gosmtp "net/smtp"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestSequence(t *testing.T) {
	s := start(t, Config{MaxRecipients: 1})
	for _, c := range []struct {
		send string
		want []string
	}{
		{"MAIL FROM:<a@b.test>\r\n", []string{"503"}},
		{"EHLO\r\n", []string{"501"}},
		{"HELO x\r\nMAIL FROM:<a@b.test>\r\nMAIL FROM:<a@b.test>\r\n", []string{"250", "250", "503"}},
		{"HELO x\r\nMAIL FROM:<a@b.test> SIZE=1\r\n", []string{"250", "555"}},
		{"EHLO x\r\nRCPT TO:<x@x.test>\r\n", []string{"250", "503"}},
		{"EHLO x\r\nDATA\r\nDATA x\r\n", []string{"250", "503", "501"}},
		{"EHLO x\r\nMAIL FROM:<a@b.test>\r\nDATA\r\n", []string{"250", "250", "554"}},
		{"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRSET\r\nRCPT TO:<x@x.test>\r\n", []string{"250", "250", "250", "503"}},
		{"EHLO x\r\nMAIL FROM:a b\r\nMAIL FROM:<a@b.test> FOO=1\r\n", []string{"250", "553", "555"}},
		{"EHLO x\r\nMAIL FROM:<a@b.test> HOLDFOR=1\r\nMAIL FROM:<a@b.test> REQUIRETLS\r\nMAIL FROM:<a@b.test> AUTH=<>\r\n", []string{"250", "555", "530", "555"}},
		{"EHLO x\r\nMAIL FROM:<\xc3\xa4@b.test>\r\nMAIL FROM:<\xc3\xa4@b.test> SMTPUTF8\r\nRCPT TO:<\xc3\xb6@x.test>\r\n", []string{"250", "553", "250", "250"}},
		{"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nRCPT TO:<>\r\n", []string{"250", "250", "250", "452", "553"}},
		{"NOOP\r\nVRFY x\r\nHELP\r\nFOO\r\nAUTH PLAIN\r\n\r\nRSET\r\n", []string{"250", "252", "214", "500", "502", "500", "250"}},
		{strings.Repeat("x", 5000) + "\r\nNOOP\r\n", []string{"500", "250"}},
		{strings.Repeat("x", 50000) + "\r\nNOOP\r\n", []string{"500", "250"}},
		{"noop\nEHLO x\nmail from: a@b.test\nrcpt to:<x@x.test>\n", []string{"250", "250", "250", "250"}},
	} {
		d := dial(t, s.Addr())
		d.expect("220 sink.example")
		d.send(c.send)
		for i, want := range c.want {
			r, err := d.read()
			if err != nil || fmt.Sprint(r.Code) != want {
				t.Errorf("%.60q: reply %d: got %v (%v), want %s", c.send, i+1, r, err, want)
				break
			}
		}
	}
	d := dial(t, s.Addr())
	d.expect("220")
	d.send(strings.Repeat("FOO\r\n", maxErrors+1))
	for range maxErrors {
		d.expect("500")
	}
	d.expect("421")
	d.closed()
	d = dial(t, s.Addr())
	d.expect("220")
	d.send("GET / HTTP/1.1\r\n")
	d.closed()
	d = dial(t, s.Addr())
	d.expect("220")
	d.conn.Write(bytes.Repeat([]byte("x"), 1<<20)) // a line without end
	d.closed()
}

func TestWithout(t *testing.T) {
	s := start(t, Config{Without: Chunking | DSN | EightBitMIME | Size | SMTPUTF8 | StartTLS | EnhancedCodes})
	d := dial(t, s.Addr())
	d.expect("220")
	d.send("EHLO x\r\n")
	if r := d.expect("250"); r.Text() != "sink.example\nPIPELINING" {
		t.Errorf("EHLO: %q", r.Text())
	}
	for _, c := range []struct{ send, want string }{
		{"MAIL FROM:<a@b.test> SIZE=1", "555"},
		{"MAIL FROM:<a@b.test> BODY=8BITMIME", "555"},
		{"MAIL FROM:<a@b.test> SMTPUTF8", "555"},
		{"MAIL FROM:<a@b.test> RET=FULL", "555"},
		{"BDAT 1 LAST", "502"},
		{"STARTTLS", "502"},
		{"MAIL FROM:<a@b.test>", "250 Ok"},
		{"RCPT TO:<x@x.test> NOTIFY=NEVER", "555"},
		{"RCPT TO:<bounce@x.test>", "550 <bounce"},
	} {
		d.send(c.send + "\r\n")
		d.expect(c.want)
	}
}

func TestAuth(t *testing.T) {
	s := start(t, Config{Auth: &Auth{User: "ann", Password: "secret", Required: true}, Keep: 1, Without: StartTLS})
	host, _, _ := net.SplitHostPort(s.Addr())
	if err := gosmtp.SendMail(s.Addr(), gosmtp.PlainAuth("", "ann", "wrong", host), "a@b.test", []string{"x@x.test"}, []byte("hi")); err == nil || !strings.Contains(err.Error(), "535") {
		t.Errorf("wrong password: %v", err)
	}
	d := greet(t, s.Addr())
	for _, c := range []struct{ send, want string }{
		{"MAIL FROM:<a@b.test>", "530"},
		{"AUTH CRAM-MD5", "504"},
		{"AUTH LOGIN", "334 VXNlcm5hbWU6"},
		{"YW5u", "334 UGFzc3dvcmQ6"},
		{"*", "501"},
		{"AUTH PLAIN =", "535"},
		{"AUTH LOGIN YW5u", "334 UGFzc3dvcmQ6"},
		{"c2VjcmV0", "235"},
		{"AUTH PLAIN", "503"},
		{"MAIL FROM:<a@b.test> AUTH=<>", "250"},
		{"RCPT TO:<x@x.test>", "250"},
		{"DATA", "354"},
		{".", "250"},
	} {
		d.send(c.send + "\r\n")
		d.expect(c.want)
	}
	if m := s.Messages(); len(m) != 1 || m[0].User != "ann" {
		t.Errorf("messages: %+v", m)
	}
	any := start(t, Config{Auth: &Auth{}})
	d = greet(t, any.Addr())
	d.send("AUTH PLAIN\r\nAGJvYgB4\r\n")
	d.expect("334")
	d.expect("235")
}

func TestStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "mail")
	for run := range 2 {
		s := start(t, Config{Store: dir})
		for range 2 {
			if got := try(t, s.Addr(), "ok@x.test", "Subject: x\r\n\r\n..dot"); got != "ok" {
				t.Fatal(got)
			}
		}
		try(t, s.Addr(), "spam@x.test", "x")      // not stored
		try(t, s.Addr(), "drop-data@x.test", "x") // nor this
		if got := try(t, s.Addr(), "drop-dot@x.test", "x"); got != "closed at dot" {
			t.Fatal(got)
		}
		c := greet(t, s.Addr()) // nor what never ends
		c.send("MAIL FROM:<a@b.test>\r\nRCPT TO:<x@x.test>\r\nBDAT 1\r\nx")
		for range 3 {
			c.expect("250")
		}
		c.conn.Close()
		if err := s.Wait(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
		until(t, func() bool { return s.Stats().Open == 0 })
		names, err := filepath.Glob(dir + "/*")
		if hidden, _ := filepath.Glob(dir + "/.*"); err != nil || len(names) != (run+1)*6 || len(hidden) > 0 {
			t.Fatalf("run %d: %v %v %v", run, names, hidden, err)
		}
	}
	emls, _ := filepath.Glob(dir + "/000001-*.eml")
	if len(emls) != 1 {
		t.Fatalf("first message: %v", emls)
	}
	if b, err := os.ReadFile(emls[0]); err != nil || string(b) != "Subject: x\r\n\r\n.dot\r\n" {
		t.Errorf("content %q, %v", b, err)
	}
	for i, lost := range []bool{false, false, true, false, false, true} {
		names, _ := filepath.Glob(fmt.Sprintf("%s/%06d-*.json", dir, i+1))
		if len(names) != 1 {
			t.Fatalf("envelope %d: %v", i+1, names)
		}
		b, err := os.ReadFile(names[0])
		if err != nil {
			t.Fatal(err)
		}
		var m Message
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		if m.From != "from@client.test" || len(m.To()) != 1 || m.Lost != lost || m.Helo != "client.test" ||
			!strings.Contains(names[0], m.ID) || !strings.HasPrefix(m.Client, "127.0.0.1:") || time.Since(m.Time) > time.Minute {
			t.Errorf("envelope %d: %s", i+1, b)
		}
	}
}

func TestStoreFails(t *testing.T) {
	dir := t.TempDir()
	s := start(t, Config{Store: dir})
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if got := try(t, s.Addr(), "ok@x.test", "x"); got != "452 4.3.1 at dot" {
		t.Error(got)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{Store: file}); err == nil || !strings.Contains(err.Error(), "make store") {
		t.Errorf("a file as store: %v", err)
	}
}

func TestKeepWaitReceived(t *testing.T) {
	var mu sync.Mutex
	var sizes []int64
	s := start(t, Config{Keep: 3, Without: StartTLS, Received: func(m *Message) {
		mu.Lock()
		defer mu.Unlock()
		sizes = append(sizes, m.Size)
	}})
	waited := make(chan error, 1)
	go func() { waited <- s.Wait(t.Context(), 5) }()
	for i := range 5 {
		if err := gosmtp.SendMail(s.Addr(), nil, "a@b.test", []string{"x@x.test", "y@x.test"}, []byte(strings.Repeat("x", i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-waited; err != nil {
		t.Fatal(err)
	}
	var got []int64
	for _, m := range s.Messages() {
		got = append(got, m.Size)
	}
	if fmt.Sprint(got) != "[4 5 6]" && fmt.Sprint(got) != "[3 5 6]" || len(sizes) != 5 {
		t.Errorf("kept sizes %v, received %v", got, sizes)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := s.Wait(ctx, 6); err == nil || !strings.Contains(err.Error(), "wait for 6 messages, have 5") {
		t.Errorf("Wait: %v", err)
	}
}

func TestIdleAndShutdown(t *testing.T) {
	s := start(t, Config{Idle: 2 * time.Second})
	d := greet(t, s.Addr())
	d.expect("421 4.4.2")
	d.closed()

	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	waiting := greet(t, s.Addr())
	silent := greet(t, s.Addr())
	silent.send("MAIL FROM:<>\r\nRCPT TO:<silent@x.test>\r\n")
	silent.expect("250")
	cancel()
	waiting.expect("421 4.3.2")
	waiting.closed()
	silent.closed()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp", s.Addr()); err == nil {
		t.Error("the port is still open")
	}
}

func TestClose(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(t.Context()) }()
	greet(t, s.Addr())
	s.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestMaxOpen(t *testing.T) {
	s := start(t, Config{MaxOpen: 2})
	a, _ := greet(t, s.Addr()), greet(t, s.Addr())
	c := dial(t, s.Addr())
	c.expect("421 4.7.0")
	c.closed()
	a.send("QUIT\r\n")
	a.expect("221")
	a.closed()
}

func TestListenErrors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := New(Config{Listen: []string{"127.0.0.1:0", l.Addr().String()}}); err == nil || !strings.Contains(err.Error(), "listen on "+l.Addr().String()) {
		t.Errorf("taken port: %v", err)
	}
	for _, bad := range []Config{{Voice: "x"}, {Certificate: "x"}, {TLSFault: "x"}} {
		if _, err := New(bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

// until polls for a fact that nothing announces.
func until(t testing.TB, fact func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !fact(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("waited for too long")
		}
	}
}

// lockedBuffer is what Run prints to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestRun(t *testing.T) {
	var out lockedBuffer
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Config{Listen: []string{"127.0.0.1:0"}, ListenTLS: []string{"127.0.0.1:0"}}, &out)
	}()
	until(t, func() bool { return strings.Count(out.String(), "\n") >= 2 })
	lines := strings.Split(out.String(), "\n")
	addr := strings.TrimPrefix(lines[0], "listening on ")
	if !strings.HasSuffix(lines[1], " (TLS)") {
		t.Errorf("second port: %q", lines[1])
	}
	try(t, addr, "ok@x.test", "x")
	try(t, addr, "bounce@x.test", "x")
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	lines = strings.Split(strings.TrimSpace(out.String()), "\n")
	var st Stats
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &st); err != nil {
		t.Fatal(err)
	}
	if st.Messages != 1 || st.Connections != 2 || st.Refused[550] != 1 || st.Faults["user-unknown"] != 1 {
		t.Errorf("counts %s", lines[len(lines)-1])
	}
	if want := "2 connections (0 open), 1 messages, 1 recipients, 3 bytes"; !strings.Contains(lines[len(lines)-2], want) {
		t.Errorf("line %q lacks %q", lines[len(lines)-2], want)
	}
}

// TestLog wants the dialogue, without passwords.
func TestLog(t *testing.T) {
	var log lockedBuffer
	s := start(t, Config{Auth: &Auth{}, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	c := greet(t, s.Addr())
	c.send("AUTH PLAIN AGJvYgBzZWNyZXQ=\r\nMAIL FROM:<>\r\nRCPT TO:<ok@x.test>\r\nRCPT TO:<bounce@x.test>\r\nDATA\r\n.\r\n")
	for _, want := range []string{"235", "250", "250", "550", "354", "250"} {
		c.expect(want)
	}
	got := log.String()
	for _, want := range []string{"AUTH PLAIN\"", "RCPT TO:<ok@x.test>", "msg=user-unknown", "to=bounce@x.test", "msg=message", "to=ok@x.test"} {
		if !strings.Contains(got, want) {
			t.Errorf("the log lacks %s", want)
		}
	}
	if strings.Contains(got, "AGJvYgBz") {
		t.Error("the log has a password")
	}
}
