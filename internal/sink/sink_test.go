package sink

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"postrider/internal/smtp"
)

// start serves until the test ends, and fails it when sessions do not end.
func start(t testing.TB, cfg Config) *Server {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(patience):
			t.Error("Serve did not end")
		}
		if n := s.Stats().Open; n != 0 {
			t.Errorf("%d connections are open after Serve", n)
		}
	})
	return s
}

// patience bounds each wait for what does come, on a machine that is busy too;
// hush is how long nothing has come where nothing should.
const patience, hush = time.Minute, 300 * time.Millisecond

// client is one end of a dialogue.
type client struct {
	t    testing.TB
	conn net.Conn
	br   *bufio.Reader
}

func dial(t testing.TB, addr string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return &client{t, conn, bufio.NewReader(conn)}
}

// greet dials and says EHLO.
func greet(t testing.TB, addr string) *client {
	t.Helper()
	c := dial(t, addr)
	c.expect("220")
	c.send("EHLO client.test\r\n")
	c.expect("250")
	return c
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, s); err != nil {
		c.t.Fatalf("send %.40q: %v", s, err)
	}
}

func (c *client) read() (smtp.Reply, error) { return smtp.ReadReply(c.br, 64<<10) }

// expect reads a reply that begins with prefix.
func (c *client) expect(prefix string) smtp.Reply {
	c.t.Helper()
	r, err := c.read()
	if err != nil {
		c.t.Fatalf("want reply %q, got error %v", prefix, err)
	}
	if !strings.HasPrefix(r.String(), prefix) {
		c.t.Fatalf("want reply %q, got %q", prefix, r)
	}
	return r
}

// closed wants the connection to end.
func (c *client) closed() {
	c.t.Helper()
	if b, err := c.br.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("want the connection closed, got %q, %v", b, err)
	}
}

// try sends one message and tells where it ended and how: "ok", "550 5.1.1 at
// rcpt", "closed at dot", "silent at data", "nonsense at rcpt".
func try(t testing.TB, addr, rcpt, content string) string {
	t.Helper()
	return tryUntil(t, addr, rcpt, content, "")
}

// tryUntil knows the stage at which no reply should come.
func tryUntil(t testing.TB, addr, rcpt, content, silent string) string {
	t.Helper()
	c := greet(t, addr)
	defer c.conn.Close()
	for _, step := range []struct{ stage, send string }{
		{"mail", "MAIL FROM:<from@client.test>\r\n"},
		{"rcpt", "RCPT TO:<" + rcpt + ">\r\n"},
		{"data", "DATA\r\n"},
		{"dot", content + "\r\n.\r\n"},
	} {
		_, err := io.WriteString(c.conn, step.send)
		var r smtp.Reply
		if err == nil {
			if step.stage == silent {
				c.conn.SetReadDeadline(time.Now().Add(hush))
			}
			r, err = c.read()
		}
		var nonsense *smtp.ReplyError
		switch {
		case errors.As(err, &nonsense):
			return "nonsense at " + step.stage
		case errors.Is(err, os.ErrDeadlineExceeded):
			return "silent at " + step.stage
		case err != nil:
			return "closed at " + step.stage
		case r.Code >= 400:
			out := fmt.Sprintf("%d %s at %s", r.Code, r.Enhanced, step.stage)
			c.send("NOOP\r\n")
			if _, err := c.read(); err != nil {
				out += ", closed"
			}
			return out
		}
	}
	return "ok"
}

func TestLocalParts(t *testing.T) {
	ok := "ok"
	for _, c := range []struct {
		local string
		want  []string // of the tries, one after the other
	}{
		{"anybody", []string{ok, ok}},
		{"ok", []string{ok}},
		{"ok+x+y", []string{ok}},
		{"john+spam", []string{ok}},
		{"user-unknown", []string{"550 5.1.1 at rcpt", "550 5.1.1 at rcpt"}},
		{"bounce", []string{"550 5.1.1 at rcpt"}},
		{"BOUNCE", []string{"550 5.1.1 at rcpt"}},
		{"user-disabled", []string{"550 5.2.1 at rcpt"}},
		{"over-quota", []string{"552 5.2.2 at rcpt"}},
		{"full-for-ever", []string{"552 5.2.2 at rcpt"}},
		{"relay-denied", []string{"554 5.7.1 at rcpt"}},
		{"blocked", []string{"554 5.7.1 at rcpt"}},
		{"spam", []string{"550 5.7.1 at dot", "550 5.7.1 at dot"}},
		{"virus", []string{"554 5.7.0 at dot"}},
		{"unauthenticated", []string{"550 5.7.26 at dot"}},
		{"policy", []string{"550 5.7.1 at dot"}},
		{"too-big", []string{"552 5.3.4 at dot"}},
		{"greylist", []string{"451 4.7.1 at rcpt"}},
		{"greylist+2", []string{"451 4.7.1 at rcpt", "451 4.7.1 at rcpt", ok, ok}},
		{"mailbox-full", []string{"452 4.2.2 at rcpt", ok, "452 4.2.2 at rcpt"}},
		{"full+2", []string{"452 4.2.2 at rcpt", "452 4.2.2 at rcpt", ok}},
		{"mailbox-full+1h", []string{"452 4.2.2 at rcpt", "452 4.2.2 at rcpt"}},
		{"tempfail", []string{"451 4.3.0 at rcpt", "451 4.3.0 at rcpt"}},
		{"tempfail+1", []string{"451 4.3.0 at rcpt", ok}},
		{"tempfail-data+1", []string{"451 4.3.0 at data", ok}},
		{"tempfail-dot+1", []string{"451 4.3.0 at dot", ok}},
		{"rate", []string{"450 4.2.1 at rcpt", ok}},
		{"rate-ip", []string{"421 4.7.0 at rcpt, closed", ok}},
		{"shutdown", []string{"421 4.3.2 at rcpt, closed", ok}},
		{"shutdown-dot", []string{"421 4.3.2 at dot, closed", ok}},
		{"drop", []string{"closed at rcpt", ok}},
		{"drop-rcpt+always", []string{"closed at rcpt", "closed at rcpt"}},
		{"drop-data", []string{"closed at dot", ok}},
		{"drop-dot", []string{"closed at dot", ok}},
		{"silent+1", []string{"silent at rcpt", ok}},
		{"silent-data+1", []string{"silent at data", ok}},
		{"silent-dot+1", []string{"silent at dot", ok}},
		{"slow+1h", []string{"silent at rcpt"}},
		{"slow+10ms+1", []string{ok, ok}},
		{"delay+10ms", []string{ok}},
		{"slow-data+1ms", []string{ok}},
		{"slow-data+1h", []string{"silent at dot"}},
		{"slow-dot+1h", []string{"silent at dot"}},
		{"slow-dot+1ms", []string{ok}},
		{"tarpit+1ms", []string{ok}},
		{"tarpit+100ms", []string{"silent at rcpt"}},
		{"long-reply+30", []string{ok}},
		{"code-only", []string{ok}},
		{"garbage+1", []string{"nonsense at rcpt", ok}},
		{"reply+550-5.7.1", []string{"550 5.7.1 at rcpt"}},
		{"reply+452", []string{"452  at rcpt"}},
		{"reply+451-4.7.1+1", []string{"451 4.7.1 at rcpt", ok}},
		{"reply+421-4.7.0", []string{"421 4.7.0 at rcpt, closed"}},
		{"reply+251-2.1.5", []string{ok}},
		{"reply-data+451-4.3.0", []string{"451 4.3.0 at data"}},
		{"reply-dot+554-5.6.0", []string{"554 5.6.0 at dot"}},
		{"reply-dot+250", []string{ok}},
		{"spam+1", []string{"553 5.1.3 at rcpt"}},
		{"greylist+soon", []string{"553 5.1.3 at rcpt"}},
		{"reply", []string{"553 5.1.3 at rcpt"}},
		{"reply+666", []string{"553 5.1.3 at rcpt"}},
		{"reply+550-4.1.1", []string{"553 5.1.3 at rcpt"}},
		{"long-reply+1000000", []string{"553 5.1.3 at rcpt"}},
		{"slow+30h", []string{"553 5.1.3 at rcpt"}},
	} {
		t.Run(c.local, func(t *testing.T) {
			t.Parallel()
			s := start(t, Config{})
			content := strings.Repeat("0123456789012345678901234567890123456789\r\n", 2000)
			messages := int64(0)
			for i, want := range c.want {
				_, silent, _ := strings.Cut(want, "silent at ")
				if got := tryUntil(t, s.Addr(), c.local+"@sink.test", content, silent); got != want {
					t.Fatalf("try %d: got %q, want %q", i+1, got, want)
				}
				if want == ok {
					messages++
				}
			}
			switch c.local { // who gets no reply, but is counted
			case "drop-dot", "slow-dot+1h":
				messages++
			}
			if got := s.Stats().Messages; got != messages {
				t.Errorf("%d messages counted, want %d", got, messages)
			}
		})
	}
}

// TestAllBehavioursTested fails when a row of the table has no case above, or in
// the test of what follows later.
func TestAllBehavioursTested(t *testing.T) {
	var text []byte
	for _, name := range []string{"sink_test.go", "react_test.go"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, b...)
	}
	doc, err := os.ReadFile("../../docs/sink.md")
	if err != nil {
		t.Fatal(err)
	}
	var list strings.Builder
	if err := WriteBehaviours(&list); err != nil {
		t.Fatal(err)
	}
	for _, b := range behaviours {
		if !strings.Contains(string(text), `{"`+b.name+`"`) && !strings.Contains(string(text), `{"`+b.name+`+`) && !strings.Contains(string(text), `{to: "`+b.name+`+`) {
			t.Errorf("%s is not tested", b.name)
		}
		if !strings.Contains(string(doc), "| `"+b.name) {
			t.Errorf("%s is not in docs/sink.md", b.name)
		}
		if !strings.Contains(list.String(), b.name) || !strings.Contains(list.String(), b.does) {
			t.Errorf("%s is not in the printed table", b.name)
		}
	}
}

func TestGreylistTime(t *testing.T) {
	s := start(t, Config{})
	rcpt := "greylist+50ms@sink.test"
	if got := try(t, s.Addr(), rcpt, "x"); got != "451 4.7.1 at rcpt" {
		t.Fatalf("first try: %s", got)
	}
	for deadline := time.Now().Add(patience); ; {
		got := try(t, s.Addr(), rcpt, "x")
		if got == "ok" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still %s", got)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	m := newMemory(3)
	a := &action{tries: 1, remember: true}
	now := time.Now()
	for i := range 100 {
		if !m.active(a, fmt.Sprint(i), now) {
			t.Fatalf("first try of %d passed", i)
		}
	}
	if len(m.pairs) != 3 || m.order.Len() != 3 {
		t.Errorf("%d pairs, %d in order, want 3", len(m.pairs), m.order.Len())
	}
	if m.active(a, "99", now) {
		t.Error("the latest was forgotten")
	}
	if !m.active(a, "0", now) {
		t.Error("the oldest was remembered")
	}
}

func TestMemoryTime(t *testing.T) {
	m := newMemory(10)
	a := &action{span: time.Minute}
	now := time.Now()
	for _, c := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {time.Second, true}, {59 * time.Second, true}, {time.Minute, false}, {time.Minute, true}} {
		if got := m.active(a, "k", now.Add(c.after)); got != c.want {
			t.Errorf("after %v: %v, want %v", c.after, got, c.want)
		}
	}
}

// TestPipelining wants one segment of replies for one group of commands, and
// the part of the recipients that is good.
func TestPipelining(t *testing.T) {
	s := start(t, Config{Keep: 1})
	c := greet(t, s.Addr())
	c.send("MAIL FROM:<a@b.test> SIZE=100 BODY=8BITMIME RET=HDRS ENVID=x\r\n" +
		"RCPT TO:<one@x.test> NOTIFY=NEVER\r\nRCPT TO:<bounce@x.test>\r\nRCPT TO:<full@x.test>\r\n" +
		"RCPT TO:<two@x.test> ORCPT=rfc822;two@x.test\r\nDATA\r\n")
	buf := make([]byte, 4096)
	n, err := c.conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	for line := range strings.Lines(string(buf[:n])) {
		codes = append(codes, line[:3])
	}
	if got := strings.Join(codes, " "); got != "250 250 550 452 250 354" {
		t.Fatalf("one segment of replies: %s", got)
	}
	c.send("Subject: x\r\n\r\n..\r\n..a\r\nb\n.\nc\r\n.\r\nQUIT\r\n")
	c.expect("250 2.0.0")
	c.expect("221")
	c.closed()
	m := s.Messages()[0]
	if got, want := strings.Join(m.To(), " "), "one@x.test two@x.test"; got != want {
		t.Errorf("accepted %s, want %s", got, want)
	}
	if len(m.Refused) != 2 || m.Refused[0].Address != "bounce@x.test" {
		t.Errorf("refused %v", m.Refused)
	}
	if m.Params != "SIZE=100 BODY=8BITMIME RET=HDRS ENVID=x" || m.Recipients[0].Params != "NOTIFY=NEVER" || m.Recipients[1].Params != "ORCPT=rfc822;two@x.test" {
		t.Errorf("parameters %q, %v", m.Params, m.Recipients)
	}
	if got, want := string(m.Content), "Subject: x\r\n\r\n.\r\n.a\r\nb\n.\nc\r\n"; got != want {
		t.Errorf("content %q, want %q", got, want)
	}
	st := s.Stats()
	if st.Messages != 1 || st.Recipients != 2 || st.Refused[550] != 1 || st.Refused[452] != 1 || st.Connections != 1 {
		t.Errorf("stats %+v", st)
	}
}

// TestPace wants slowness from RCPT to the reply to the content, and no longer.
func TestPace(t *testing.T) {
	s := start(t, Config{})
	for _, c := range []struct {
		local string
		late  string // which replies, of MAIL, RCPT, DATA, the content and NOOP
	}{
		{"ok", "-----"},
		{"slow+500ms", "-XXX-"},
		{"slow-dot+500ms", "---X-"},
		{"tarpit+40ms", "-XXX-"}, // more than twelve bytes each
	} {
		t.Run(c.local, func(t *testing.T) {
			t.Parallel()
			var got []byte
			for range 10 { // the machine may be what is slow
				d := greet(t, s.Addr())
				got = nil
				for _, send := range []string{"MAIL FROM:<>", "RCPT TO:<" + c.local + "@x.test>", "DATA", ".", "NOOP"} {
					begin := time.Now()
					d.send(send + "\r\n")
					if _, err := d.read(); err != nil {
						t.Fatal(err)
					}
					got = append(got, "-X"[min(1, time.Since(begin)/(450*time.Millisecond))])
				}
				if string(got) == c.late {
					return
				}
			}
			t.Errorf("%s: late %s, want %s", c.local, got, c.late)
		})
	}
}
