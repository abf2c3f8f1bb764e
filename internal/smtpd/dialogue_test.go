package smtpd

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"postrider/internal/account"
	"postrider/internal/config"
)

// TestDialogues plays each testdata/*.txt against a server. A line of a dialogue
// is one of:
//
//	#              a comment
//	mode M         of the listener (before the first C or S)
//	limit K=V      of the session (before the first C or S)
//	network        the client needs no login (before the first C or S)
//	plainauth      AUTH without TLS (before the first C or S)
//	help URL       refusals link to (before the first C or S)
//	unknown        the client's address was not seen before
//	C: line        the client sends the line and CRLF; C lines in a row go out at once
//	C" bytes"      the client sends just these bytes, a Go string
//	S: line        the server sends the line; "..." at its end stands for anything
//	S* 250         the server sends a whole reply with this code
//	TLS            handshake
//	CLOSED         the server closes the connection
//	MAIL key=value the next message that was taken: from, to, body (a Go string), …
//	NOMAIL         no further message was taken
func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no dialogues", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			play(t, file, strings.Split(strings.TrimSuffix(string(b), "\n"), "\n"))
		})
	}
}

// player is the client of a dialogue.
type player struct {
	t    *testing.T
	f    *fixture
	conn net.Conn
	br   *bufio.Reader
	out  strings.Builder
	mail int
}

func play(t *testing.T, file string, lines []string) {
	c, lc := testConfig(t), ListenerConfig{Name: "test", Mode: ModeSTARTTLS}
	var network, unknown bool
	var p *player
	for i, line := range lines {
		word, rest, _ := strings.Cut(line, " ")
		if p == nil {
			switch word {
			case "mode":
				lc.Mode = rest
				continue
			case "limit":
				setLimit(t, &c.Limits, rest)
				continue
			case "network":
				network = true
				continue
			case "plainauth":
				lc.PlainAuth = true
				continue
			case "help":
				c.Help = rest
				continue
			case "unknown":
				unknown = true
				continue
			case "", "#":
				continue
			}
			f := start(t, c, lc)
			if network {
				f.accounts.network = func(netip.Addr) *account.Identity {
					id := id("scanner")
					id.Kind, id.User = account.KindNetwork, ""
					return id
				}
			}
			f.habits.learn(netip.MustParseAddr("127.0.0.1"), !unknown)
			p = dial(t, f)
		}
		if err := p.step(word, rest); err != nil {
			t.Fatalf("%s:%d: %s: %v", file, i+1, line, err)
		}
	}
	if err := p.flush(); err != nil {
		t.Fatal(err)
	}
	if n := len(p.f.entrance.taken()); n != p.mail {
		t.Errorf("%d messages were taken, %d are in the dialogue", n, p.mail)
	}
}

// patience bounds each dialogue, on a machine that is busy too.
const patience = time.Minute

func dial(t *testing.T, f *fixture) *player {
	t.Helper()
	conn, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return &player{t: t, f: f, conn: conn, br: bufio.NewReader(conn)}
}

func (p *player) step(word, rest string) error {
	switch word {
	case "C:":
		p.out.WriteString(rest + "\r\n")
		return nil
	case "C\"":
		text, err := strconv.Unquote(`"` + rest)
		p.out.WriteString(text)
		return err
	case "", "#":
		return nil
	}
	if err := p.flush(); err != nil {
		return err
	}
	switch word {
	case "S:":
		return p.line(rest)
	case "S*":
		return p.reply(rest)
	case "TLS":
		conn := tls.Client(p.conn, clientTLS())
		p.conn, p.br = conn, bufio.NewReader(conn)
		return conn.Handshake()
	case "CLOSED":
		if b, err := io.ReadAll(p.br); len(b) > 0 {
			return fmt.Errorf("got %q, %v", b, err)
		}
		return nil
	case "MAIL":
		mail := p.f.entrance.taken()
		if p.mail >= len(mail) {
			return fmt.Errorf("there are %d messages", len(mail))
		}
		p.mail++
		return mail[p.mail-1].check(rest)
	case "NOMAIL":
		if n := len(p.f.entrance.taken()); n != p.mail {
			return fmt.Errorf("there are %d messages", n)
		}
		return nil
	}
	return fmt.Errorf("unknown word")
}

func (p *player) flush() error {
	if p.out.Len() == 0 {
		return nil
	}
	_, err := io.WriteString(p.conn, p.out.String())
	p.out.Reset()
	return err
}

func (p *player) line(want string) error {
	got, err := p.br.ReadString('\n')
	if err != nil {
		return fmt.Errorf("got %q, %w", got, err)
	}
	got, ok := strings.CutSuffix(got, "\r\n")
	start, open := strings.CutSuffix(want, "...")
	if !ok || open && !strings.HasPrefix(got, start) || !open && got != want {
		return fmt.Errorf("got %q", got)
	}
	return nil
}

func (p *player) reply(code string) error {
	for {
		got, err := p.br.ReadString('\n')
		if err != nil || !strings.HasPrefix(got, code) {
			return fmt.Errorf("got %q, %v", got, err)
		}
		if got[3] == ' ' {
			return nil
		}
	}
}

// check compares a message with "key=value key=value"; values have no spaces but
// for body, which comes last.
func (m taken) check(want string) error {
	to := ""
	for i, r := range m.Envelope.Recipients {
		if i > 0 {
			to += ","
		}
		to += r.Address
		if r.Notify != 0 || r.ORcpt != "" {
			to += fmt.Sprintf("(%d,%s)", r.Notify, r.ORcpt)
		}
	}
	e, s := m.Envelope, m.Source
	for want != "" {
		key, rest, _ := strings.Cut(want, "=")
		value, more, _ := strings.Cut(rest, " ")
		if key == "body" {
			var err error
			if value, err = strconv.Unquote(rest); err != nil {
				return err
			}
			more = ""
		}
		got, ok := map[string]string{"from": e.Sender, "to": to, "body": m.body, "ret": e.Ret, "envid": e.EnvID,
			"priority": strconv.Itoa(e.Priority), "utf8": strconv.FormatBool(e.UTF8), "requiretls": strconv.FormatBool(e.RequireTLS),
			"held": strconv.FormatBool(!e.Release.IsZero()), "helo": s.Helo, "protocol": s.Protocol, "user": s.User,
			"listener": s.Listener, "tls": strings.ReplaceAll(s.TLS, " ", "_"), "client": s.Client.Addr().String(),
			"credential": strconv.FormatBool(m.Identity != nil)}[key]
		if !ok || got != value {
			return fmt.Errorf("%s is %q, want %q", key, got, value)
		}
		want = more
	}
	return nil
}

func setLimit(t *testing.T, l *config.Limits, text string) {
	key, value, _ := strings.Cut(text, "=")
	if d, err := time.ParseDuration(value); err == nil && value != "0" {
		p, ok := map[string]*config.Duration{"idle": &l.Idle, "message_time": &l.Message, "session_time": &l.Session}[key]
		if ok {
			*p = config.Duration(d)
			return
		}
	}
	n, err := strconv.Atoi(value)
	p, ok := map[string]*int{"recipients": &l.Recipients, "messages": &l.Messages, "commands": &l.Commands, "errors": &l.Errors,
		"sessions": &l.Sessions, "per_client": &l.PerClient}[key]
	switch {
	case err != nil || !ok && key != "size":
		t.Fatalf("limit %s is unknown", text)
	case key == "size":
		l.MessageSize = config.Size(n)
	default:
		*p = n
	}
}
