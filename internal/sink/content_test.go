package sink

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

// TestEndOfContent knows the ends that must not be taken for one, and cuts the
// stream at every place.
func TestEndOfContent(t *testing.T) {
	for _, c := range []struct{ sent, want string }{
		{".\r\n", ""},
		{"\r\n.\r\n", "\r\n"},
		{"a\r\n.\r\n", "a\r\n"},
		{"a\n.\nb\r\n.\r\n", "a\n.\nb\r\n"},
		{"a\n.\r\nb\r\n.\r\n", "a\n.\r\nb\r\n"},
		{"a\r.\rb\r\n.\r\n", "a\r.\rb\r\n"},
		{"a\r\n.\nb\r\n.\r\n", "a\r\n\nb\r\n"},
		{"a\r\n.\rb\r\n.\r\n", "a\r\n\rb\r\n"},
		{"a\r.\r\nb\r\n.\r\n", "a\r.\r\nb\r\n"},
		{"a\r\r\n.\r\n", "a\r\r\n"},
		{"..\r\n...\r\n.\r\n", ".\r\n..\r\n"},
		{"\r\n..\r\n\r\n.\r\n", "\r\n.\r\n\r\n"},
		{"a\r\n\x00.\r\n.\r\n", "a\r\n\x00.\r\n"},
	} {
		s := start(t, Config{Keep: 1})
		conn := greet(t, s.Addr())
		for cut := 0; cut <= len(c.sent); cut++ {
			conn.send("MAIL FROM:<>\r\nRCPT TO:<x@x.test>\r\nDATA\r\n")
			conn.expect("250")
			conn.expect("250")
			conn.expect("354")
			conn.send(c.sent[:cut])
			conn.send(c.sent[cut:] + "NOOP\r\n")
			conn.expect("250 2.0.0 Ok: queued")
			conn.expect("250")
			if got := string(s.Messages()[0].Content); got != c.want {
				t.Errorf("%q cut at %d: got %q, want %q", c.sent, cut, got, c.want)
			}
		}
	}
}

// TestBigContent crosses the borders of the buffer in many ways.
func TestBigContent(t *testing.T) {
	s := start(t, Config{Keep: 1})
	c := greet(t, s.Addr())
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range 30 {
		var want, sent bytes.Buffer
		for want.Len() < 150_000 {
			line := strings.Repeat("x", rnd.IntN(120)) + strings.Repeat(".", rnd.IntN(3))
			if rnd.IntN(3) == 0 {
				line = "." + line
			}
			want.WriteString(line + "\r\n")
			if strings.HasPrefix(line, ".") {
				line = "." + line
			}
			sent.WriteString(line + "\r\n")
		}
		c.send("MAIL FROM:<a@b.test>\r\nRCPT TO:<x@x.test>\r\nDATA\r\n" + sent.String() + ".\r\n")
		for _, code := range []string{"250", "250", "354", "250"} {
			c.expect(code)
		}
		if m := s.Messages()[0]; !bytes.Equal(m.Content, want.Bytes()) || m.Size != int64(want.Len()) {
			t.Fatalf("round %d: content differs", round)
		}
	}
}

func TestBDAT(t *testing.T) {
	s := start(t, Config{Keep: 1, MaxSize: 1000})
	c := greet(t, s.Addr())
	c.send("MAIL FROM:<a@b.test>\r\nRCPT TO:<x@x.test>\r\nBDAT 5\r\n.\r\n\r\nBDAT 3 LAST\r\n..\n")
	for _, want := range []string{"250", "250", "250 2.0.0 5 octets", "250 2.0.0 Ok"} {
		c.expect(want)
	}
	if got := string(s.Messages()[0].Content); got != ".\r\n\r\n..\n" {
		t.Errorf("content %q", got)
	}
	// A chunk without a transaction is read, and refused.
	c.send("BDAT 6 LAST\r\nNOOP\r\nMAIL FROM:<>\r\nRCPT TO:<x@x.test>\r\nDATA\r\n.\r\n")
	for _, want := range []string{"503 5.5.1", "250", "250", "354", "250"} {
		c.expect(want)
	}
	// Nobody to send to.
	c.send("MAIL FROM:<a@b.test>\r\nRCPT TO:<bounce@x.test>\r\nBDAT 4 LAST\r\nabcdRSET\r\n")
	for _, want := range []string{"250", "550", "554", "250"} {
		c.expect(want)
	}
	// DATA after BDAT.
	c.send("MAIL FROM:<a@b.test>\r\nRCPT TO:<x@x.test>\r\nBDAT 1\r\naDATA\r\nRSET\r\n")
	for _, want := range []string{"250", "250", "250", "503", "250"} {
		c.expect(want)
	}
	// Too large, in all.
	c.send("MAIL FROM:<a@b.test>\r\nRCPT TO:<x@x.test>\r\nBDAT 600\r\n" + strings.Repeat("x", 600) + "BDAT 600 LAST\r\n" + strings.Repeat("y", 600))
	for _, want := range []string{"250", "250", "250", "552 5.3.4"} {
		c.expect(want)
	}
	// Behaviours hold for BDAT as well.
	c.send("MAIL FROM:<a@b.test>\r\nRCPT TO:<spam@x.test>\r\nBDAT 1 LAST\r\nx")
	for _, want := range []string{"250", "250", "550 5.7.1"} {
		c.expect(want)
	}
	c.send("MAIL FROM:<a@b.test>\r\nRCPT TO:<tempfail-data@x.test>\r\nBDAT 1 LAST\r\nx")
	for _, want := range []string{"250", "250", "451 4.3.0"} {
		c.expect(want)
	}
	c.send("BDAT x\r\n")
	c.expect("501")
	c.closed()
}

func TestMaxSize(t *testing.T) {
	s := start(t, Config{MaxSize: 1000, Keep: 1})
	c := greet(t, s.Addr())
	c.send("MAIL FROM:<a@b.test> SIZE=1001\r\n")
	c.expect("552 5.3.4")
	c.send("MAIL FROM:<a@b.test> SIZE=1\r\nRCPT TO:<x@x.test>\r\nDATA\r\n" + strings.Repeat("x", 1001) + "\r\n.\r\nNOOP\r\n")
	for _, want := range []string{"250", "250", "354", "552 5.3.4", "250"} {
		c.expect(want)
	}
	// Without end.
	c.send("MAIL FROM:<a@b.test>\r\nRCPT TO:<x@x.test>\r\nDATA\r\n")
	for _, want := range []string{"250", "250", "354"} {
		c.expect(want)
	}
	for range 1000 {
		if _, err := fmt.Fprint(c.conn, strings.Repeat("x", 4096)); err != nil {
			break
		}
	}
	if r, err := c.read(); err == nil && r.Code != 552 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, %v", r, err)
	}
	if n := s.Stats().Messages; n != 0 {
		t.Errorf("%d messages", n)
	}
}

func TestCapture(t *testing.T) {
	var got []*Message
	s := start(t, Config{Capture: 10, Received: func(m *Message) { got = append(got, m) }})
	if r := try(t, s.Addr(), "x@x.test", strings.Repeat("0123456789", 9)); r != "ok" {
		t.Fatal(r)
	}
	if len(got) != 1 || string(got[0].Content) != "0123456789" || got[0].Size != 92 {
		t.Errorf("got %d messages: %+v", len(got), got)
	}
}
