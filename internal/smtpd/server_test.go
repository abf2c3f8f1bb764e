package smtpd

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	proxyproto "github.com/pires/go-proxyproto"

	"postrider/internal/account"
	"postrider/internal/config"
	"postrider/internal/message"
	"postrider/internal/relay"
)

// steps plays lines of a dialogue.
func (p *player) steps(text string) {
	p.t.Helper()
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		word, rest, _ := strings.Cut(strings.TrimLeft(line, "\t"), " ")
		if err := p.step(word, rest); err != nil {
			p.t.Fatalf("%s: %v", line, err)
		}
	}
	if err := p.flush(); err != nil {
		p.t.Fatal(err)
	}
}

const hello = `
	S: 220 ...
	C: EHLO client.example
	S* 250`

const begin = `
	C: MAIL FROM:<joe@client.example>
	S: 250 ...
	C: RCPT TO:<ann@example.com>
	S: 250 ...
	C: DATA
	S: 354 ...`

// openNetwork lets every client in without a login.
func (f *fixture) openNetwork() {
	f.accounts.network = func(netip.Addr) *account.Identity {
		i := id("")
		i.Kind = account.KindNetwork
		return i
	}
}

func TestShutdownEndsIdleSessions(t *testing.T) {
	c := testConfig(t)
	c.Drain = time.Hour
	f := start(t, c, ListenerConfig{Mode: ModePlain})
	f.openNetwork()
	idle, authing, writing := dial(t, f), dial(t, f), dial(t, f)
	idle.steps(hello)
	authing.steps(hello + "\nC: AUTH LOGIN\nS: 334 ...")
	writing.steps(hello + begin)
	f.stop()
	idle.steps("S: 421 4.3.2 ...\nCLOSED")
	authing.steps("S: 421 4.3.2 ...\nCLOSED")
	// The port closes while the sessions are told; who comes in between is told
	// as well.
	for late := time.Now().Add(patience); ; {
		c, err := net.Dial("tcp", f.addr)
		if err != nil {
			break
		}
		c.Close()
		if time.Now().After(late) {
			t.Fatal("connections are taken during the shutdown")
		}
	}
	writing.steps("C: Subject: x\nC:\nC: .\nS: 250 ...\nS: 421 4.3.2 ...\nCLOSED\nMAIL from=joe@client.example")
	if err := f.wait(); err != nil {
		t.Error(err)
	}
}

func TestShutdownCutsAfterDrain(t *testing.T) {
	c := testConfig(t)
	c.Drain = 100 * time.Millisecond
	f := start(t, c, ListenerConfig{Mode: ModePlain})
	f.openNetwork()
	f.entrance.block, f.entrance.came = make(chan struct{}), make(chan struct{}, 1)
	writing, waiting := dial(t, f), dial(t, f)
	writing.steps(hello + begin + "\nC: Subject: x")
	waiting.steps(hello + begin + "\nC: Subject: x\nC: \nC: .")
	<-f.entrance.came
	f.stop()
	writing.steps("S: 421 4.3.2 ...\nCLOSED")
	waiting.steps("S: 451 4.3.0 ...\nS: 421 4.3.2 ...\nCLOSED\nNOMAIL")
	if err := f.wait(); err != nil {
		t.Error(err)
	}
}

func TestSessionLimits(t *testing.T) {
	for name, set := range map[string]func(*config.Limits){
		"all":        func(l *config.Limits) { l.Sessions = 1 },
		"per client": func(l *config.Limits) { l.PerClient = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			c := testConfig(t)
			set(&c.Limits)
			f := start(t, c, ListenerConfig{Mode: ModePlain})
			first := dial(t, f)
			first.steps(hello)
			dial(t, f).steps("S: 421 4.7.0 ...\nCLOSED")
			first.steps("C: QUIT\nS: 221 ...\nCLOSED")
			for { // the place is free once the server has noticed
				p := dial(t, f)
				line, err := p.br.ReadString('\n')
				if strings.HasPrefix(line, "220 ") {
					break
				}
				if !strings.HasPrefix(line, "421 ") {
					t.Fatal(line, err)
				}
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.total > 1 || len(f.clients) > 1 {
				t.Errorf("%d sessions of %d clients are counted", f.total, len(f.clients))
			}
		})
	}
}

// A client that sends a byte now and then passes no limit that counts a whole.
func TestTrickle(t *testing.T) {
	for name, tt := range map[string]struct {
		before string
		set    func(*config.Limits)
		want   string
	}{
		"command": {hello, func(l *config.Limits) { l.Idle = config.Duration(2 * time.Second) }, "S: 421 4.4.2 I have waited...\nCLOSED"},
		"content": {hello + begin, func(l *config.Limits) { l.Message = config.Duration(2 * time.Second) }, "S: 421 4.4.2 This message...\nCLOSED"},
		"session": {hello + begin, func(l *config.Limits) { l.Session = config.Duration(2 * time.Second) }, "S: 421 4.4.2 This session...\nCLOSED"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := testConfig(t)
			tt.set(&c.Limits)
			f := start(t, c, ListenerConfig{Mode: ModePlain})
			f.openNetwork()
			p := dial(t, f)
			p.steps(tt.before)
			stop := make(chan struct{})
			done := make(chan struct{})
			go func() {
				defer close(done)
				tick := time.NewTicker(20 * time.Millisecond)
				defer tick.Stop()
				for {
					select {
					case <-tick.C:
						if _, err := io.WriteString(p.conn, "x"); err != nil {
							return
						}
					case <-stop:
						return
					}
				}
			}()
			if err := p.line("421 4.4.2 ..."); err != nil {
				t.Error(err)
			}
			close(stop)
			<-done
			p.steps("NOMAIL")
		})
	}
}

// A client that takes no replies is not waited for longer than for its input.
func TestClientThatDoesNotRead(t *testing.T) {
	c := testConfig(t)
	c.Limits.Idle = config.Duration(2 * time.Second)
	c.Limits.Commands = 1 << 30
	f := start(t, c, ListenerConfig{Mode: ModePlain})
	p := dial(t, f)
	p.steps(hello)
	help := bytes.Repeat([]byte("HELP\r\n"), 1<<16)
	for {
		if _, err := p.conn.Write(help); err != nil {
			return // closed
		}
	}
}

func TestLargeMessageGoesToFile(t *testing.T) {
	c := testConfig(t)
	f := start(t, c, ListenerConfig{Mode: ModePlain})
	f.openNetwork()
	line := strings.Repeat("x", 98) + "\r\n"
	large := strings.Repeat(line, 3<<20/len(line))
	p := dial(t, f)
	p.steps(hello + begin)
	io.WriteString(p.conn, large+".\r\n")
	p.steps("S: 250 ..." + begin)
	io.WriteString(p.conn, line+".\r\n")
	p.steps("S: 250 ...\nC: QUIT\nS: 221 ...\nCLOSED")
	mail := f.entrance.taken()
	if len(mail) != 2 || mail[0].body != large || mail[1].body != line {
		t.Fatal("other messages were taken than sent")
	}
	if _, ok := mail[0].Content.(interface{ Bytes() []byte }); ok {
		t.Error("the large message sits in memory")
	}
	if _, err := mail[0].Content.Open(); err == nil {
		if rc, err := mail[0].Content.Open(); err == nil {
			if _, err := rc.Read(make([]byte, 1)); err == nil {
				t.Error("the file of the large message is still open")
			}
		}
	}
	if left, err := os.ReadDir(c.TempDir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestNoRoomForLargeMessage(t *testing.T) {
	c := testConfig(t)
	c.TempDir += "/missing"
	f := start(t, c, ListenerConfig{Mode: ModePlain})
	f.openNetwork()
	p := dial(t, f)
	p.steps(hello + begin)
	io.WriteString(p.conn, strings.Repeat(strings.Repeat("x", 98)+"\r\n", 2<<20/100)+".\r\n")
	p.steps("S: 452 4.3.1 ...\nNOMAIL\nC: NOOP\nS: 250 ...")
}

func TestHabits(t *testing.T) {
	f := start(t, testConfig(t), ListenerConfig{Mode: ModeSTARTTLS})
	local := netip.MustParseAddr("127.0.0.1")
	f.habits.learn(local, false)
	dial(t, f).steps(hello) // after a moment
	if f.habits.wait(local) != patientWait {
		t.Error("a client that waited is not known to do so")
	}
	p := dial(t, f)
	p.steps("S: 220 ...\nC\" \\x16\\x03\\x01\"\nC: \nCLOSED")
	if f.habits.wait(local) != strangerWait {
		t.Error("a client that did not wait is still believed to")
	}
	for i := range maxHabits + 10 {
		f.habits.learn(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), true)
	}
	if n := len(f.habits.patient); n > maxHabits {
		t.Errorf("%d clients are remembered", n)
	}
}

func TestTLSVersions(t *testing.T) {
	for _, tt := range []struct {
		min, client uint16
		ok          bool
	}{{0, tls.VersionTLS11, false}, {0, tls.VersionTLS12, true}, {tls.VersionTLS10, tls.VersionTLS10, true}, {tls.VersionTLS13, tls.VersionTLS12, false}} {
		f := start(t, testConfig(t), ListenerConfig{Mode: ModeTLS, MinTLS: tt.min})
		c := clientTLS()
		c.MinVersion, c.MaxVersion = tls.VersionTLS10, tt.client
		conn, err := tls.Dial("tcp", f.addr, c)
		if (err == nil) != tt.ok {
			t.Errorf("min %x, client %x: %v", tt.min, tt.client, err)
		}
		if err == nil {
			conn.Close()
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := New(Config{}, newAccounts(), new(entrance), nil).Serve(t.Context(), ln, ListenerConfig{Mode: ModeTLS}); err == nil {
		t.Error("mode tls goes without a certificate")
	}
}

func TestProxyHeader(t *testing.T) {
	local := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	src, dst := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1000}, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 25}
	src6, dst6 := &net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 1000}, &net.TCPAddr{IP: net.ParseIP("2001:db8::2"), Port: 25}
	format := func(v byte, src, dst net.Addr) string {
		b, err := proxyproto.HeaderProxyFromAddrs(v, src, dst).Format()
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	localHeader, err := (&proxyproto.Header{Version: 2, Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}).Format()
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ header, client string }{
		"v1":         {format(1, src, dst), "192.0.2.1"},
		"v1 v6":      {format(1, src6, dst6), "2001:db8::1"},
		"v2":         {format(2, src, dst), "192.0.2.1"},
		"v2 v6":      {format(2, src6, dst6), "2001:db8::1"},
		"v1 unknown": {"PROXY UNKNOWN\r\n", "127.0.0.1"},
		"v2 local":   {string(localHeader), "127.0.0.1"},
		"none":       {"EHLO client.example\r\n", ""},
		"bad v1":     {"PROXY TCP4 192.0.2.1\r\n", ""},
		"bad v2":     {format(2, src, dst)[:12] + "\x21\x11\x00\x01\x00", ""},
		"endless v1": {"PROXY " + strings.Repeat("x", 1000), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := start(t, testConfig(t), ListenerConfig{Mode: ModePlain, Proxy: local})
			f.accounts.network = func(a netip.Addr) *account.Identity {
				if a.String() != tt.client {
					return nil
				}
				return id("")
			}
			p := dial(t, f)
			io.WriteString(p.conn, tt.header)
			if tt.client == "" {
				p.steps("CLOSED")
				return
			}
			p.steps(hello + begin + "\nC: Subject: x\nC:\nC: .\nS: 250 ...\nMAIL client=" + tt.client)
		})
	}
}

// A header is waited for, but not for ever.
func TestProxyHeaderIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		s := New(Config{}, newAccounts(), new(entrance), nil)
		l := &listener{Server: s, ListenerConfig: ListenerConfig{Mode: ModePlain, Proxy: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}}
		w := newWire(&fakeAddr{Conn: server}, time.Minute, time.Minute)
		asked := time.Now()
		if err := (&session{l: l, w: w}).identify(); err == nil || time.Since(asked) != proxyWait {
			t.Errorf("got %v after %v", err, time.Since(asked))
		}
	})
}

type fakeAddr struct{ net.Conn }

func (*fakeAddr) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 9), Port: 9} }

// The replies to a pipelined group go out together.
func TestRepliesAreGathered(t *testing.T) {
	var writes atomic.Int64
	in := strings.NewReader("EHLO client.example\r\n" + strings.Repeat("NOOP\r\n", 50) + "QUIT\r\n")
	conn := &scripted{Reader: in, write: func([]byte) { writes.Add(1) }}
	serveScript(testServer(t), conn, ModePlain)
	if n := writes.Load(); n != 2 { // the greeting, and the rest
		t.Errorf("%d writes", n)
	}
}

func TestNotifyBitsAgree(t *testing.T) {
	f := start(t, testConfig(t), ListenerConfig{Mode: ModePlain})
	f.openNetwork()
	p := dial(t, f)
	p.steps(hello + "\nC: MAIL FROM:<a@client.example>\nS: 250 ...")
	words := []string{"NEVER", "SUCCESS", "FAILURE", "DELAY"}
	for _, w := range words {
		p.steps(fmt.Sprintf("C: RCPT TO:<%s@example.com> NOTIFY=%s\nS: 250 ...", w, w))
	}
	p.steps("C: DATA\nS: 354 ...\nC: Subject: x\nC:\nC: .\nS: 250 ...")
	want := []relay.Notify{relay.NotifyNever, relay.NotifySuccess, relay.NotifyFailure, relay.NotifyDelay}
	for i, r := range f.entrance.taken()[0].Envelope.Recipients {
		if r.Notify != want[i] {
			t.Errorf("%s is taken for %d", words[i], r.Notify)
		}
	}
}

// A client that is cut off in the middle of its words reads our last reply and
// an orderly end: a reset could cost it the reply.
func TestLastReplyIsHeard(t *testing.T) {
	f := start(t, testConfig(t), ListenerConfig{Mode: ModePlain})
	p := dial(t, f)
	io.WriteString(p.conn, "GET / HTTP/1.1\r\n"+strings.Repeat("X-Header: x\r\n", 10_000))
	b, err := io.ReadAll(p.br)
	if err != nil || !strings.Contains(string(b), "\r\n421 4.7.0 ") {
		t.Errorf("got %q, %v", b, err)
	}
}

// TestTooManyRecipients: those that are too many, and those that are refused,
// do not cost the others their message (RFC 5321 section 4.5.3.1.10). There is an
// end to it all the same.
func TestTooManyRecipients(t *testing.T) {
	c := testConfig(t)
	c.Limits.Recipients, c.Limits.Errors, c.Limits.Commands = 3, 2, 20
	f := start(t, c, ListenerConfig{Mode: ModePlain})
	f.openNetwork()
	p := dial(t, f)
	p.steps(hello + `
		C: MAIL FROM:<joe@client.example>
		S: 250 ...`)
	for i := range 3 {
		p.steps(fmt.Sprintf("C: RCPT TO:<u%d@example.com>\nS: 250 ...", i))
	}
	for i := range 25 {
		p.steps(fmt.Sprintf("C: RCPT TO:<v%d@example.com>\nS: 452 4.5.3 ...", i))
	}
	p.steps(strings.Repeat("C: RCPT TO:<nobody>\nS: 553 ...\n", 5))
	p.steps(`
		C: DATA
		S: 354 ...
		C: From: joe@client.example
		C: .
		S: 250 ...`)
	if mail := f.entrance.taken(); len(mail) != 1 || len(mail[0].Envelope.Recipients) != 3 {
		t.Errorf("taken: %+v", mail)
	}
	p.steps("C: MAIL FROM:<joe@client.example>\nS: 250 ...")
	for i := range 3 {
		p.steps(fmt.Sprintf("C: RCPT TO:<u%d@example.com>\nS: 250 ...", i))
	}
	for i := range 30 {
		p.steps(fmt.Sprintf("C: RCPT TO:<v%d@example.com>\nS: 452 4.5.3 ...", i))
	}
	p.steps("C: RCPT TO:<w@example.com>\nS: 421 4.7.0 ...")
}

// TestSessionsShareMemory: when all sessions together hold much, content goes to
// a file long before it would for one alone.
func TestSessionsShareMemory(t *testing.T) {
	f := start(t, testConfig(t), ListenerConfig{Mode: ModePlain})
	f.openNetwork()
	f.memory = message.NewMemory(0)
	p := dial(t, f)
	p.steps(hello + begin + "\n" + strings.Repeat("C: "+strings.Repeat("x", 900)+"\n", 200) + "C: .\nS: 250 ...")
	mail := f.entrance.taken()
	if len(mail) != 1 || len(mail[0].body) != 200*902 {
		t.Fatal("the message did not arrive")
	}
	if _, ok := mail[0].Content.(interface{ Bytes() []byte }); ok {
		t.Error("the content is in memory")
	}
}
