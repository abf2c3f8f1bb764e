package smtpclient

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"postrider/internal/smtp"
)

func TestOpening(t *testing.T) {
	tests := map[string]struct {
		script string
		stage  string // "": no error
		code   int    // of the reply in the error
		ext    Extensions
	}{
		"usual": {script: `
			S: 220 mx.test
			C: EHLO me.test
			S: 250-mx.test hello
			S: 250-SIZE 1000
			S: 250-PIPELINING
			S: 250 DSN
			G:`, ext: Extensions{HasSize: true, Size: 1000, Pipelining: true, DSN: true}},
		"greeting of many lines": {script: `
			S: 220-mx.test
			S: 220-no spam
			S: 220 please
			C: EHLO me.test
			S: 250 mx.test
			G:`},
		"greeting 554": {script: `
			S: 554 5.7.1 no
			C: QUIT
			G:`, stage: StageGreeting, code: 554},
		"greeting 421": {script: `
			S: 421 4.3.2 busy
			G:`, stage: StageGreeting, code: 421},
		"greeting 250": {script: `
			S: 250 hi
			G:`, stage: StageGreeting},
		"greeting is HTTP": {script: `
			S: HTTP/1.1 400 Bad Request
			G:`, stage: StageGreeting},
		"no greeting": {script: ``, stage: StageGreeting},
		"reset":       {script: `X:`, stage: StageGreeting},
		"HELO for 500": {script: `
			S: 220 old
			C: EHLO me.test
			S: 500 what
			C: HELO me.test
			S: 250 old
			G:`},
		"HELO for 502": {script: `
			S: 220 old
			C: EHLO me.test
			S: 502 what
			C: HELO me.test
			S: 250 old
			G:`},
		"HELO refused": {script: `
			S: 220 old
			C: EHLO me.test
			S: 550 who
			C: HELO me.test
			S: 550 go away
			C: QUIT
			G:`, stage: StageEhlo, code: 550},
		"EHLO 421": {script: `
			S: 220 old
			C: EHLO me.test
			S: 421 busy
			G:`, stage: StageEhlo, code: 421},
		"EHLO 451": {script: `
			S: 220 old
			C: EHLO me.test
			S: 451 later
			C: QUIT
			G:`, stage: StageEhlo, code: 451},
		"EHLO closed": {script: `
			S: 220 old
			C: EHLO me.test`, stage: StageEhlo},
		"closed inside the reply": {script: `
			S: 220 old
			C: EHLO me.test
			S: 250-mx.test`, stage: StageEhlo},
		"reply before the question": {script: `
			S: 220 hi
			S: 250 mx.test
			G:`, stage: StageEhlo},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			script := run(tt.script)
			if name == "reply before the question" {
				script = func(p *peer) { p.say("220 hi\r\n250 mx.test"); io.Copy(io.Discard, p.br) }
			}
			c, err := New(t.Context(), serve(t, script), "mx.test.", plain)
			if tt.stage == "" {
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if d := cmp.Diff(tt.ext, c.Extensions()); d != "" {
					t.Error(d)
				}
				if len(c.Opening()) < 2 || c.Opening()[1].Command != "EHLO me.test" {
					t.Errorf("dialogue is %+v", c.Opening())
				}
				return
			}
			e := asError(t, err)
			if e.Stage != tt.stage || (e.Reply == nil) != (tt.code == 0) || e.Reply != nil && e.Reply.Code != tt.code {
				t.Errorf("got %+v (%v), want stage %s, code %d", e, e, tt.stage, tt.code)
			}
			if e.Permanent() {
				t.Error("a host that refuses us counts against the message")
			}
			if tt.code != 0 && (len(e.Dialogue) == 0 || e.Dialogue[len(e.Dialogue)-1].Reply.Code != tt.code) {
				t.Errorf("dialogue is %+v", e.Dialogue)
			}
		})
	}
}

func TestParseExtensions(t *testing.T) {
	for in, want := range map[string]Extensions{
		"PIPELINING":                             {}, // the first line is a name
		"mx\nsize 5\n8BitMime\nsmtputf8":         {HasSize: true, Size: 5, EightBitMIME: true, SMTPUTF8: true},
		"mx\nSIZE":                               {HasSize: true},
		"mx\nSIZE 0":                             {HasSize: true},
		"mx\nSIZE -1":                            {HasSize: true},
		"mx\nSIZE 99999999999999999999":          {HasSize: true},
		"mx\nSIZE=77":                            {HasSize: true, Size: 77},
		"mx\n  SIZE   5  \n\n\t":                 {HasSize: true, Size: 5},
		"mx\nAUTH PLAIN login\nAUTH=LOGIN PLAIN": {Auth: []string{"PLAIN", "LOGIN"}},
		"mx\nAUTH=LOGIN":                         {Auth: []string{"LOGIN"}},
		"mx\nAUTH":                               {},
		"mx\nLIMITS RCPTMAX=20 MAILMAX=5 rcptdomainmax=1 X=2":               {RcptMax: 20, MailMax: 5, RcptDomainMax: 1},
		"mx\nLIMITS RCPTMAX=0 MAILMAX=x RCPTMAX":                            {},
		"mx\nCHUNKING\nDSN\nSTARTTLS\nREQUIRETLS\nMT-PRIORITY MIXER\nX-FOO": {Chunking: true, DSN: true, StartTLS: true, RequireTLS: true, MTPriority: true},
	} {
		if d := cmp.Diff(want, parseExtensions(strings.Split(in, "\n")), cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%q: %s", in, d)
		}
	}
	if e := parseExtensions(nil); e.HasSize {
		t.Error("extensions from nothing")
	}
}

func TestLocalName(t *testing.T) {
	for _, name := range []string{"", "a b", "a\r\nMAIL", "<a>"} {
		client, server := net.Pipe()
		defer server.Close()
		if _, err := New(t.Context(), client, "mx.test", Options{LocalName: name}); err == nil {
			t.Errorf("said EHLO %q", name)
		}
	}
}

// TestEndlessReply has a peer that never stops talking: the client must stop
// listening, with little memory.
func TestEndlessReply(t *testing.T) {
	for name, line := range map[string]string{"lines": "220-more\r\n", "one line": strings.Repeat("x", 1024)} {
		t.Run(name, func(t *testing.T) {
			_, err := New(t.Context(), serve(t, func(p *peer) {
				for {
					if _, err := io.WriteString(p.conn, line); err != nil {
						return
					}
				}
			}), "mx.test", plain)
			if e := asError(t, err); e.Stage != StageGreeting || !errors.Is(err, smtp.ErrReplyTooLong) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestTimeouts runs on a clock that is not real.
func TestTimeouts(t *testing.T) {
	o := Options{LocalName: "me.test", Timeouts: Timeouts{Greeting: 1 * time.Minute, Command: 2 * time.Minute, DataStall: 3 * time.Minute, Dot: 4 * time.Minute}}
	tests := map[string]struct {
		script  string
		big     bool // a content larger than any buffer
		stage   string
		after   time.Duration
		unknown bool
	}{
		"greeting": {"", false, StageGreeting, 1 * time.Minute, false},
		"EHLO":     {"S: 220 hi\nC: EHLO me.test", false, StageEhlo, 2 * time.Minute, false},
		"MAIL":     {"S: 220 hi\nC: EHLO me.test\nS: 250 hi\nC: MAIL*", false, StageMail, 2 * time.Minute, false},
		"RCPT":     {"S: 220 hi\nC: EHLO me.test\nS: 250 hi\nC: MAIL*\nS: 250 ok\nC: RCPT*", false, StageRcpt, 2 * time.Minute, false},
		"DATA":     {"S: 220 hi\nC: EHLO me.test\nS: 250 hi\nC: MAIL*\nS: 250 ok\nC: RCPT*\nS: 250 ok\nC: DATA", false, StageData, 2 * time.Minute, false},
		"dot":      {"S: 220 hi\nC: EHLO me.test\nS: 250 hi\nC: MAIL*\nS: 250 ok\nC: RCPT*\nS: 250 ok\nC: DATA\nS: 354 go\nD: x|", false, StageDot, 4 * time.Minute, true},
		"stall":    {"S: 220 hi\nC: EHLO me.test\nS: 250 hi\nC: MAIL*\nS: 250 ok\nC: RCPT*\nS: 250 ok\nC: DATA\nS: 354 go", true, StageData, 3*time.Minute + lastWords, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := net.Pipe()
				done := make(chan struct{})
				go func() {
					defer close(done)
					p := newPeer(t, server)
					run(tt.script)(p)
					<-t.Context().Done()
					server.Close()
				}()
				ctx, cancel := context.WithCancel(t.Context())
				defer func() { cancel(); server.Close() }()
				begin := time.Now()
				c, err := New(ctx, client, "mx.test", o)
				if err == nil {
					m := mail("x\r\n", "b@mx.test")
					if tt.big {
						m = mail(strings.Repeat("x\r\n", 1<<16), "b@mx.test")
					}
					_, err = c.Send(ctx, m)
					if c.Usable() {
						t.Error("usable after a timeout")
					}
				}
				e := asError(t, err)
				if took := time.Since(begin); e.Stage != tt.stage || took != tt.after || e.Unknown != tt.unknown || !isTimeout(err) {
					t.Errorf("%v (stage %s, unknown %v) after %v, want stage %s, unknown %v after %v", e, e.Stage, e.Unknown, took, tt.stage, tt.unknown, tt.after)
				}
			})
		})
	}
}

// TestSlowReply has a peer that sends a byte now and then, and never ends: the
// time is for the whole reply.
func TestSlowReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Second):
					io.WriteString(server, "2")
				}
			}
		}()
		begin := time.Now()
		_, err := New(t.Context(), client, "mx.test", Options{LocalName: "me.test", Timeouts: Timeouts{Greeting: time.Minute}})
		if took := time.Since(begin); !isTimeout(err) || took != time.Minute {
			t.Errorf("%v after %v", err, took)
		}
		close(stop)
	})
}

func newPeer(t *testing.T, conn net.Conn) *peer {
	p := &peer{t: t, conn: conn}
	p.br = newReader(conn)
	return p
}

// TestCancel ends the context while the client waits at each stage.
func TestCancel(t *testing.T) {
	for _, script := range []string{
		"",
		"S: 220 hi\nC: EHLO*",
		"S: 220 hi\nC: EHLO*\nS: 250 hi\nC: MAIL*",
		"S: 220 hi\nC: EHLO*\nS: 250 hi\nC: MAIL*\nS: 250 ok\nC: RCPT*\nS: 250 ok\nC: DATA\nS: 354 go\nD: x|",
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("shutting down")
		conn := serve(t, func(p *peer) {
			run(script)(p)
			cancel(why)
			io.Copy(io.Discard, p.br)
		})
		c, err := New(ctx, conn, "mx.test", plain)
		if err == nil {
			_, err = c.Send(ctx, mail("x\r\n", "b@mx.test"))
			if c.Usable() {
				t.Error("usable after a cancelled Send")
			}
		}
		if !errors.Is(err, why) {
			t.Errorf("%q: got %v, want the cause of the cancel", script, err)
		}
	}
}

func TestUsable(t *testing.T) {
	t.Run("idle", func(t *testing.T) {
		c, err := New(t.Context(), serve(t, func(p *peer) { p.hello(); p.hear("QUIT"); p.say("221 bye"); p.gone() }), "mx.test", plain)
		if err != nil {
			t.Fatal(err)
		}
		if !c.Usable() {
			t.Error("an idle session is not usable")
		}
		c.Quit(t.Context())
		if c.Usable() {
			t.Error("usable after Quit")
		}
		if _, err := c.Send(t.Context(), mail("x", "b@mx.test")); err == nil {
			t.Error("sent after Quit")
		}
	})
	for name, script := range map[string]string{"closed": "", "spoken to": "S: 421 idle for too long\nG:"} {
		t.Run(name, func(t *testing.T) {
			go4it := make(chan struct{})
			conn := serve(t, func(p *peer) { p.hello(); <-go4it; run(script)(p) })
			c, err := New(t.Context(), conn, "mx.test", plain)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			close(go4it)
			for end := time.Now().Add(patience); c.Usable(); {
				if time.Now().After(end) {
					t.Fatal("still usable")
				}
			}
		})
	}
	t.Run("MAILMAX", func(t *testing.T) {
		c, err := New(t.Context(), serve(t, func(p *peer) {
			p.hello("LIMITS MAILMAX=1")
			run("C: MAIL*\nS: 250 ok\nC: RCPT*\nS: 250 ok\nC: DATA\nS: 354 go\nD: x|\nS: 250 ok\nG:")(p)
		}), "mx.test", plain)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if !c.Usable() {
			t.Error("not usable at first")
		}
		if _, err := c.Send(t.Context(), mail("x", "b@mx.test")); err != nil {
			t.Fatal(err)
		}
		if c.Usable() {
			t.Error("usable beyond MAILMAX")
		}
	})
}
