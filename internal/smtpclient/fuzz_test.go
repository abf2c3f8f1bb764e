package smtpclient

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// FuzzClient has a server that says what the fuzzer likes, whatever it hears, and
// then closes. The client must come to an end, and must not take for success what
// is none.
func FuzzClient(f *testing.F) {
	for _, ext := range []string{"250 mx\r\n", "250-mx\r\n250 PIPELINING\r\n", "250-mx\r\n250 CHUNKING\r\n", "250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n"} {
		for _, rest := range []string{
			"250 ok\r\n250 ok\r\n354 go\r\n250 queued\r\n221 bye\r\n",
			"250 ok\r\n550 no\r\n354 go\r\n250 queued\r\n",
			"550 no\r\n503 no\r\n421 bye\r\n",
			"250 ok\r\n250 ok\r\n250 queued\r\n",
		} {
			f.Add([]byte("220 hi\r\n"+ext+rest), uint8(0))
		}
	}
	f.Add([]byte("220 hi\r\n250-mx\r\n250 STARTTLS\r\n220 go\r\n\x16\x03\x03"), uint8(1))
	f.Add([]byte("220 hi\r\n250-mx\r\n250 AUTH LOGIN\r\n334\r\n334\r\n235 ok\r\n"), uint8(2))
	f.Add([]byte("220 hi\r\n250-mx\r\n250 AUTH SCRAM-SHA-256\r\n334 cj0sej0=\r\n235 ok\r\n"), uint8(3))
	content := strings.Repeat("x\r\n", 20000)
	f.Fuzz(func(t *testing.T, says []byte, how uint8) {
		client, server := net.Pipe()
		server.SetDeadline(time.Now().Add(patience))
		done := make(chan struct{})
		go func() {
			defer close(done)
			heard := make(chan struct{})
			go func() { io.Copy(io.Discard, server); close(heard) }()
			server.Write(says)
			server.Close()
			<-heard
		}()
		o := Options{LocalName: "me.test", Timeouts: Timeouts{time.Second, time.Second, time.Second, time.Second}}
		if how&1 == 0 {
			o.TLS = Never
		}
		if how&2 != 0 {
			o.Auth = &Auth{User: user, Password: password, Unprotected: true}
		}
		begin := time.Now()
		c, err := New(t.Context(), client, "mx.test", o)
		for i := 0; err == nil && i < 3; i++ {
			m := mail(content[:3<<(i*7)], "b@mx.test", "c@mx.test")
			var res Result
			res, err = c.Send(t.Context(), m)
			if err == nil && (res.Mail.Code/100 != 2 || res.Final.Code/100 != 2 || res.Rcpts[0].Code/100 != 2 && res.Rcpts[1].Code/100 != 2) {
				t.Errorf("success with %+v", res)
			}
			if e, ok := err.(*Error); err != nil && (!ok || (e.Reply == nil) == (e.Err == nil) || e.Reply != nil && e.Reply.Positive() || e.Error() == "") {
				t.Errorf("error is %#v", err)
			}
		}
		if c != nil {
			c.Quit(t.Context())
		}
		client.Close()
		<-done
		if time.Since(begin) > patience {
			t.Errorf("took %v", time.Since(begin))
		}
	})
}
