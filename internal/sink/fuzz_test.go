package sink

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// FuzzSession feeds a session whatever may come. It must end when the client
// does, and store nothing that did not end properly.
func FuzzSession(f *testing.F) {
	for _, s := range []string{
		"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x@x.test>\r\nDATA\r\nhi\r\n.\r\nQUIT\r\n",
		"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<x@x.test>\r\nBDAT 3\r\nabcBDAT 0 LAST\r\n",
		"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<drop-data@x.test>\r\nDATA\r\nabc",
		"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<reply-dot+250@x.test>\r\nRCPT TO:<long-reply@x.test>\r\nDATA\r\n..\n.\r\n\r\n.\r\n",
		"EHLO x\r\nAUTH LOGIN\r\nYQ==\r\nYQ==\r\nAUTH PLAIN =\r\n",
		"EHLO x\r\nSTARTTLS\r\nMAIL FROM:<>\r\n",
		"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<silent@x.test>\r\n",
	} {
		f.Add([]byte(s))
	}
	sc := scenario(f, "[[rule]]\nrecipient='*@gmail.test'\nvoice='gmail'\n[[rule]]\nevery=7\ndo='drop-dot'\n")
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, word := range []string{"slow", "delay", "tarpit"} { // they may take an hour
			if bytes.Contains(bytes.ToLower(in), []byte(word)) {
				return
			}
		}
		s := start(t, Config{Scenario: sc, Keep: 4, MaxSize: 10_000, Auth: &Auth{}})
		conn, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		done := make(chan error, 1)
		go func() {
			_, err := io.Copy(io.Discard, conn)
			done <- err
		}()
		conn.Write(in)
		conn.(*net.TCPConn).CloseWrite()
		if err, ok := (<-done).(net.Error); ok && err.Timeout() {
			t.Fatal("the session did not end")
		}
		for _, m := range s.Messages() {
			if m.Size > 10_000 || len(m.Recipients) == 0 {
				t.Errorf("message %+v", m)
			}
		}
	})
}

func FuzzScenario(f *testing.F) {
	f.Add([]byte("voice='gmail'\n[[rule]]\nrecipient='*'\ndo='greylist+2'\nat='dot'\n"))
	f.Add([]byte("[[rule]]\nreply='550 5.7.1 x'\nclose=true\nuntil='3s'\nconnection='2-'\nevery=3"))
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := ParseScenario("f", in)
		if (s == nil) == (err == nil) {
			t.Errorf("scenario %v, error %v", s, err)
		}
	})
}

func FuzzBehaviour(f *testing.F) {
	for _, b := range behaviours {
		f.Add(b.name + "+3")
	}
	f.Add("reply+550-5.7.1+3s")
	byName := table()
	f.Fuzz(func(t *testing.T, in string) {
		a, err := parseBehaviour(byName, in)
		if a != nil && (err != nil || a.pause > maxPause || a.lines > maxLines || a.deed == accept || a.tries < 0 || a.span < 0) {
			t.Errorf("%q: %+v, %v", in, a, err)
		}
	})
}
