package smtpd

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	proxyproto "github.com/pires/go-proxyproto"

	"postrider/internal/account"
	"postrider/internal/config"
	"postrider/internal/relay"
	"postrider/internal/smtp"
	"postrider/internal/submit"
)

// scripted is a client that says all it has to say and then closes.
type scripted struct {
	io.Reader
	write func([]byte)
}

func (c *scripted) Write(b []byte) (int, error) {
	if c.write != nil {
		c.write(b)
	}
	return len(b), nil
}

func (*scripted) Close() error                     { return nil }
func (*scripted) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 25} }
func (*scripted) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1000} }
func (*scripted) SetDeadline(time.Time) error      { return nil }
func (*scripted) SetReadDeadline(time.Time) error  { return nil }
func (*scripted) SetWriteDeadline(time.Time) error { return nil }

func testServer(t testing.TB) *Server {
	c := testConfig(t)
	return New(c, newAccounts(), new(entrance), slog.New(slog.DiscardHandler))
}

func serveScript(s *Server, c net.Conn, mode string) {
	ctx := context.WithoutCancel(context.TODO())
	lc := ListenerConfig{Name: "test", Mode: mode}
	s.listener(lc).serve(ctx, ctx, c)
}

// seedSessions are what the clients of the dialogues say, without waiting.
func seedSessions(f *testing.F) (list [][]byte) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		var in []byte
		for line := range strings.SplitSeq(string(b), "\n") {
			if text, ok := strings.CutPrefix(line, "C: "); ok {
				in = append(in, text+"\r\n"...)
			} else if text, ok := strings.CutPrefix(line, `C" `); ok {
				text, err := strconv.Unquote(`"` + text)
				if err != nil {
					f.Fatal(file, err)
				}
				in = append(in, text...)
			}
		}
		if len(in) < 4096 {
			list = append(list, in)
		}
	}
	return list
}

var replyLine = regexp.MustCompile(`^[2-5][0-9][0-9](-| |$)[^\r\n\x00]*\r\n$`)

// auditor is an entrance that takes mail only of whom accounts let in.
type auditor struct {
	discard
	t     *testing.T
	known map[*account.Identity]bool
	mail  []taken
}

func (a *auditor) Submit(_ context.Context, d submit.Draft) (relay.ID, error) {
	if d.Identity == nil || !a.known[d.Identity] {
		a.t.Errorf("a message of nobody was submitted: %+v", d.Envelope)
	}
	rc, err := d.Content.Open()
	if err != nil {
		a.t.Fatal(err)
	}
	defer rc.Close()
	b, err := io.ReadAll(rc)
	if err != nil {
		a.t.Fatal(err)
	}
	a.mail = append(a.mail, taken{d, string(b)})
	return relay.ID{1}, nil
}

// FuzzSession throws a whole session at the server. It must come to an end, say
// nothing but replies, take no mail from nobody, and end messages only where
// they end.
func FuzzSession(f *testing.F) {
	for i, in := range seedSessions(f) {
		f.Add(in, i%2 == 0, i%3 == 0)
		f.Add(in, true, true)
	}
	f.Fuzz(func(t *testing.T, in []byte, network, repair bool) {
		known := map[*account.Identity]bool{}
		accounts := newAccounts()
		login := accounts.login
		accounts.login = func(user, password string) (*account.Identity, error) {
			i, err := login(user, password)
			if err == nil {
				i.RepairLF = repair
				known[i] = true
			}
			return i, err
		}
		if network {
			who := id("")
			who.RepairLF = repair
			known[who] = true
			accounts.network = func(netip.Addr) *account.Identity { return who }
		}
		audit := &auditor{t: t, known: known}
		limits := config.Default().Limits
		limits.MessageSize, limits.Recipients = 1<<16, 10
		var out bytes.Buffer
		s := New(Config{Hostname: "relay.example", Limits: limits}, accounts, audit, slog.New(slog.DiscardHandler))
		serveScript(s, &scripted{Reader: bytes.NewReader(in), write: func(b []byte) { out.Write(b) }}, ModePlain)
		for line := range strings.SplitAfterSeq(out.String(), "\n") {
			if line != "" && !replyLine.MatchString(line) {
				t.Fatalf("%q is no reply", line)
			}
		}
		checkMail(t, in, audit.mail)
		if s.total != 0 || len(s.clients) != 0 {
			t.Fatalf("%d sessions are left", s.total)
		}
	})
}

// checkMail holds messages against the input that they came from.
func checkMail(t *testing.T, in []byte, mail []taken) {
	upper := bytes.ToUpper(in)
	bdat := bytes.Contains(upper, []byte("BDAT"))
	ends := bytes.Count(in, []byte("\r\n.\r\n")) + bytes.Count(in, []byte("\n.\r\n.\r\n")) + bytes.Count(upper, []byte("LAST")) +
		bytes.Count(upper, []byte("DATA\n.\r\n"))
	if len(mail) > ends {
		t.Fatalf("%d messages came of %d ends of data", len(mail), ends)
	}
	for _, m := range mail {
		if rest := strings.ReplaceAll(m.body, "\r\n", ""); strings.ContainsAny(rest, "\r\n") && !bdat {
			t.Fatalf("bare line ends in %q", m.body)
		}
		for _, r := range m.Envelope.Recipients {
			if a, err := smtp.ParseAddress(r.Address, true); err != nil || a.IsLiteral() || !m.Envelope.UTF8 && !a.IsASCII() {
				t.Fatalf("%q is a recipient: %v", r.Address, err)
			}
		}
		if len(m.Envelope.Recipients) == 0 || len(m.Envelope.Recipients) > 10 || len(m.body) > 1<<16 {
			t.Fatalf("beyond the limits: %d recipients, %d bytes", len(m.Envelope.Recipients), len(m.body))
		}
		if bdat || m.Identity.RepairLF {
			continue
		}
		// What was not repaired stands in the input as a client would send it.
		var sent bytes.Buffer
		bw := bufio.NewWriter(&sent)
		w := smtp.NewDotWriter(bw)
		io.WriteString(w, m.body)
		w.Close()
		bw.Flush()
		if !sloppyContains(in, sent.Bytes()) {
			t.Fatalf("%q is not in the input", sent.Bytes())
		}
	}
}

// sloppyContains is bytes.Contains, blind to dots at the beginning of lines: a
// client may add one to any line.
func sloppyContains(in, part []byte) bool {
	strip := func(b []byte) []byte {
		lines := bytes.Split(b, []byte("\r\n"))
		for i := range lines {
			lines[i] = bytes.TrimLeft(lines[i], ".")
		}
		return bytes.Join(lines, []byte("\r\n"))
	}
	return bytes.Contains(strip(in), strip(part))
}

// FuzzProxy throws PROXY headers at a listener that wants them. No more than one
// header is read, and what follows it is the session.
func FuzzProxy(f *testing.F) {
	src, dst := &net.TCPAddr{IP: net.IPv4(203, 0, 113, 1), Port: 1}, &net.TCPAddr{IP: net.IPv4(203, 0, 113, 2), Port: 25}
	for _, v := range []byte{1, 2} {
		b, err := proxyproto.HeaderProxyFromAddrs(v, src, dst).Format()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append(b, "QUIT\r\n"...))
	}
	f.Add([]byte("PROXY UNKNOWN\r\nQUIT\r\n"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00QUIT\r\n"))
	f.Add([]byte("EHLO x\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		s := New(Config{Hostname: "relay.example", Limits: config.Default().Limits}, newAccounts(), new(entrance), slog.New(slog.DiscardHandler))
		lc := ListenerConfig{Mode: ModePlain, Proxy: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
		ctx := t.Context()
		s.listener(lc).serve(ctx, ctx, &scripted{Reader: bytes.NewReader(in), write: func(b []byte) { out.Write(b) }})
		for line := range strings.SplitAfterSeq(out.String(), "\n") {
			if line != "" && !replyLine.MatchString(line) {
				t.Fatalf("%q is no reply", line)
			}
		}
		if out.Len() > 0 && !bytes.HasPrefix(in, proxyproto.SIGV1) && !bytes.HasPrefix(in, proxyproto.SIGV2) {
			t.Fatalf("served without a header: %q", out.String())
		}
	})
}

// BenchmarkSession sends pipelined messages of 10 kB over one connection.
func BenchmarkSession(b *testing.B) {
	s := New(Config{Hostname: "relay.example", Limits: config.Default().Limits}, newAccounts(), new(discard), slog.New(slog.DiscardHandler))
	s.config.Limits.Messages = 1 << 40
	s.config.Limits.Commands = 1 << 40
	s.accounts.(*accounts).network = func(netip.Addr) *account.Identity { return id("") }
	one := "MAIL FROM:<joe@client.example> SIZE=10000\r\nRCPT TO:<ann@example.com>\r\nDATA\r\n" +
		strings.Repeat(strings.Repeat("x", 98)+"\r\n", 100) + ".\r\n"
	b.SetBytes(int64(len(one)))
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	r, w := io.Pipe()
	wg.Go(func() { serveScript(s, &scripted{Reader: r}, ModePlain) })
	io.WriteString(w, "EHLO client.example\r\n")
	for b.Loop() {
		io.WriteString(w, one)
	}
	w.Close()
	wg.Wait()
}

type discard struct{}

func (discard) Submit(context.Context, submit.Draft) (relay.ID, error)             { return relay.ID{1}, nil }
func (discard) Sender(context.Context, *account.Identity, string) error            { return nil }
func (discard) Recipient(context.Context, *account.Identity, string, string) error { return nil }
