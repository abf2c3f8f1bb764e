package smtpclient

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// session is a dialogue after the opening, in which one message with the content
// "x" goes to the recipients b, c … at mx.test.
type session struct {
	ext     []string
	rcpts   int // 0: one
	script  string
	stage   string // of the error; "": none
	code    int    // of the error's reply; 0: none
	unknown bool
	usable  bool
	codes   []int // of the recipients, when not nil
}

var sessions = map[string]session{
	"one by one": {script: `
		C: MAIL FROM:<a@me.test>
		W:
		S: 250 ok
		C: RCPT TO:<b@mx.test>
		W:
		S: 251 will forward
		C: DATA
		W:
		S: 354 go
		D: x|
		S: 250 2.0.0 queued`, usable: true, codes: []int{251}},
	"pipelined": {ext: []string{"PIPELINING"}, rcpts: 2, script: `
		C: MAIL FROM:<a@me.test>
		C: RCPT TO:<b@mx.test>
		C: RCPT TO:<c@mx.test>
		C: DATA
		W:
		S: 250 ok
		S: 250 ok
		S: 250-many
		S: 250 lines
		S: 354 go
		D: x|
		S: 250 queued`, usable: true, codes: []int{250, 250}},
	"MAIL refused": {script: `
		C: MAIL*
		S: 550 5.7.1 no
		G:`, stage: StageMail, code: 550, usable: true, codes: []int{0}},
	"MAIL deferred, pipelined": {ext: []string{"PIPELINING"}, script: `
		C: MAIL*
		C: RCPT*
		C: DATA
		S: 451 later
		S: 503 MAIL first
		S: 503 MAIL first
		G:`, stage: StageMail, code: 451, usable: true},
	"MAIL refused, pipelined, then closed": {ext: []string{"PIPELINING"}, script: `
		C: MAIL*
		C: RCPT*
		C: DATA
		S: 550 no`, stage: StageMail, code: 550},
	"MAIL refused, pipelined, then 421": {ext: []string{"PIPELINING"}, script: `
		C: MAIL*
		C: RCPT*
		C: DATA
		S: 550 no
		S: 421 bye`, stage: StageMail, code: 550},
	"MAIL refused, yet 354": {ext: []string{"PIPELINING"}, script: `
		C: MAIL*
		C: RCPT*
		C: DATA
		S: 550 no
		S: 250 ok
		S: 354 go
		D:
		S: 554 nothing
		G:`, stage: StageMail, code: 550, usable: true},
	"MAIL 354":    {script: "C: MAIL*\nS: 354 go\nG:", stage: StageMail},
	"MAIL 421":    {script: "C: MAIL*\nS: 421 bye\nG:", stage: StageMail, code: 421},
	"MAIL closed": {script: "C: MAIL*", stage: StageMail},
	"MAIL garbage": {script: `
		C: MAIL*
		S: hello there
		G:`, stage: StageMail},
	"all recipients refused": {rcpts: 2, script: `
		C: MAIL*
		S: 250 ok
		C: RCPT*
		S: 550 5.1.1 no b
		C: RCPT*
		S: 450 4.2.1 not now
		G:`, stage: StageRcpt, code: 450, usable: true, codes: []int{550, 450}},
	"all recipients refused, pipelined": {ext: []string{"PIPELINING"}, rcpts: 2, script: `
		C: MAIL*
		C: RCPT*
		C: RCPT*
		C: DATA
		S: 250 ok
		S: 450 4.2.1 not now
		S: 550 5.1.1 no c
		S: 554 no valid recipients
		G:`, stage: StageRcpt, code: 550, usable: true, codes: []int{450, 550}},
	"all recipients refused, yet 354": {ext: []string{"PIPELINING"}, script: `
		C: MAIL*
		C: RCPT*
		C: DATA
		S: 250 ok
		S: 550 5.1.1 no b
		S: 354 go
		D:
		S: 250 thanks for nothing
		G:`, stage: StageRcpt, code: 550, usable: true},
	"all recipients refused, yet 354, then closed": {ext: []string{"PIPELINING"}, script: `
		C: MAIL*
		C: RCPT*
		C: DATA
		S: 250 ok
		S: 550 5.1.1 no b
		S: 354 go`, stage: StageRcpt, code: 550},
	"all recipients refused, yet 250": {ext: []string{"PIPELINING"}, script: `
		C: MAIL*
		C: RCPT*
		C: DATA
		S: 250 ok
		S: 550 5.1.1 no b
		S: 250 ok
		G:`, stage: StageRcpt, code: 550},
	"one recipient refused": {ext: []string{"PIPELINING"}, rcpts: 3, script: `
		C: MAIL*
		C: RCPT*
		C: RCPT*
		C: RCPT*
		C: DATA
		S: 250 ok
		S: 250 ok
		S: 550 5.1.1 no
		S: 250 ok
		S: 354 go
		D: x|
		S: 250 queued
		G:`, usable: true, codes: []int{250, 550, 250}},
	"RCPT 421": {rcpts: 3, script: `
		C: MAIL*
		S: 250 ok
		C: RCPT*
		S: 250 ok
		C: RCPT*
		S: 421 too many
		G:`, stage: StageRcpt, code: 421, codes: []int{250, 421, 0}},
	"RCPT closed": {script: "C: MAIL*\nS: 250 ok\nC: RCPT*", stage: StageRcpt},
	"RCPT 354":    {script: "C: MAIL*\nS: 250 ok\nC: RCPT*\nS: 354 go\nG:", stage: StageRcpt},
	"DATA refused": {script: `
		C: MAIL*
		S: 250 ok
		C: RCPT*
		S: 250 ok
		C: DATA
		S: 451 4.7.1 later
		G:`, stage: StageData, code: 451, usable: true},
	"DATA 421":    {script: "C: MAIL*\nS: 250 ok\nC: RCPT*\nS: 250 ok\nC: DATA\nS: 421 bye\nG:", stage: StageData, code: 421},
	"DATA 250":    {script: "C: MAIL*\nS: 250 ok\nC: RCPT*\nS: 250 ok\nC: DATA\nS: 250 ok\nG:", stage: StageData},
	"DATA closed": {script: "C: MAIL*\nS: 250 ok\nC: RCPT*\nS: 250 ok\nC: DATA", stage: StageData},
	"DATA one reply too many": {ext: []string{"PIPELINING"}, script: `
		C: MAIL*
		C: RCPT*
		C: DATA
		S: 250 ok
		S: 250 ok
		E: 354 go|250 already
		G:`, stage: StageData},
	"content refused": {script: `
		C: MAIL*
		S: 250 ok
		C: RCPT*
		S: 250 ok
		C: DATA
		S: 354 go
		D: x|
		S: 550 5.7.1 spam
		G:`, stage: StageDot, code: 550, usable: true},
	"dot 421": {script: `
		C: MAIL*
		S: 250 ok
		C: RCPT*
		S: 250 ok
		C: DATA
		S: 354 go
		D: x|
		S: 421 bye
		G:`, stage: StageDot, code: 421},
	"dot closed": {script: `
		C: MAIL*
		S: 250 ok
		C: RCPT*
		S: 250 ok
		C: DATA
		S: 354 go
		D: x|`, stage: StageDot, unknown: true},
	"dot reset": {script: `
		C: MAIL*
		S: 250 ok
		C: RCPT*
		S: 250 ok
		C: DATA
		S: 354 go
		D: x|
		X:`, stage: StageDot, unknown: true},
	"dot garbage": {script: `
		C: MAIL*
		S: 250 ok
		C: RCPT*
		S: 250 ok
		C: DATA
		S: 354 go
		D: x|
		S: yes
		G:`, stage: StageDot, unknown: true},
	"dot half a reply": {script: `
		C: MAIL*
		S: 250 ok
		C: RCPT*
		S: 250 ok
		C: DATA
		S: 354 go
		D: x|
		S: 250-queued`, stage: StageDot, unknown: true},
	"dot 354": {script: `
		C: MAIL*
		S: 250 ok
		C: RCPT*
		S: 250 ok
		C: DATA
		S: 354 go
		D: x|
		S: 354 more
		G:`, stage: StageDot},
	"a reply too many at the end": {script: `
		C: MAIL*
		S: 250 ok
		C: RCPT*
		S: 250 ok
		C: DATA
		S: 354 go
		D: x|
		E: 250 queued|250 queued again
		G:`},
	"BDAT": {ext: []string{"CHUNKING"}, script: `
		C: MAIL*
		W:
		S: 250 ok
		C: RCPT*
		W:
		S: 250 ok
		B: x|
		S: 250 queued
		G:`, usable: true},
	"BDAT refused": {ext: []string{"CHUNKING"}, script: `
		C: MAIL*
		S: 250 ok
		C: RCPT*
		S: 250 ok
		B: x|
		S: 554 5.7.1 spam
		G:`, stage: StageDot, code: 554, usable: true},
	"BDAT closed":    {ext: []string{"CHUNKING"}, script: "C: MAIL*\nS: 250 ok\nC: RCPT*\nS: 250 ok\nB: x|", stage: StageDot, unknown: true},
	"BDAT, no RCPT":  {ext: []string{"CHUNKING"}, script: "C: MAIL*\nS: 250 ok\nC: RCPT*\nS: 550 no\nG:", stage: StageRcpt, code: 550, usable: true},
	"DATA if we may": {ext: []string{"CHUNKING", "PIPELINING"}, script: "C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nD: x|\nS: 250 ok\nG:", usable: true},
}

func TestSend(t *testing.T) {
	for name, s := range sessions {
		t.Run(name, func(t *testing.T) {
			conn := serve(t, func(p *peer) {
				p.hello(s.ext...)
				run(s.script)(p)
			})
			c, err := New(t.Context(), conn, "mx.test", plain)
			if err != nil {
				t.Fatal(err)
			}
			m := mail("x\r\n", "b@mx.test", "c@mx.test", "d@mx.test")
			m.Rcpts = m.Rcpts[:max(1, s.rcpts)]
			res, err := c.Send(t.Context(), m)
			if s.stage == "" && err != nil {
				t.Fatal(err)
			}
			if s.stage != "" {
				s.checkError(t, asError(t, err))
			} else if res.Final == nil || res.Final.Code != 250 {
				t.Errorf("final reply is %v", res.Final)
			}
			if got := !c.broken && c.br.Buffered() == 0; got != s.usable {
				t.Errorf("usable is %v", got)
			}
			if s.codes != nil {
				var codes []int
				for _, r := range res.Rcpts {
					codes = append(codes, r.Code)
				}
				if d := cmp.Diff(s.codes, codes); d != "" {
					t.Error(d)
				}
			}
			c.Close()
		})
	}
}

func (s *session) checkError(t *testing.T, e *Error) {
	t.Helper()
	code := 0
	if e.Reply != nil {
		code = e.Reply.Code
	}
	if e.Stage != s.stage || code != s.code || e.Unknown != s.unknown {
		t.Errorf("got stage %s, code %d, unknown %v (%v), want %s, %d, %v", e.Stage, code, e.Unknown, e, s.stage, s.code, s.unknown)
	}
	if e.Permanent() != (code >= 500) {
		t.Errorf("permanent is %v: %v", e.Permanent(), e)
	}
	if e.Dialogue != nil {
		t.Error("the dialogue of a Send is in its Result")
	}
}

func TestDialogue(t *testing.T) {
	c, err := New(t.Context(), serve(t, func(p *peer) {
		p.hello("PIPELINING", "SIZE")
		run("C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 2.1.0 ok\nS: 250 ok\nS: 354 go\nD: x|\nS: 250 queued\nG:")(p)
	}), "mx.test", plain)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	res, err := c.Send(t.Context(), mail("x\r\n", "b@mx.test"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, x := range append(c.Opening(), res.Dialogue...) {
		got = append(got, x.Command+" > "+x.Reply.String())
	}
	want := []string{
		" > 220 mx.test ESMTP",
		"EHLO me.test > 250 mx.test PIPELINING SIZE",
		"MAIL FROM:<a@me.test> SIZE=3 > 250 2.1.0 ok",
		"RCPT TO:<b@mx.test> > 250 ok",
		"DATA > 354 go",
		"(content, 3 bytes) > 250 queued",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestReuse sends over one session after success and after each kind of failure.
func TestReuse(t *testing.T) {
	const ok = "S: 250 ok\nS: 250 ok\nS: 354 go\nD: x|\nS: 250 ok\n"
	const ask = "C: MAIL*\nC: RCPT*\nC: DATA\n"
	c, err := New(t.Context(), serve(t, func(p *peer) {
		p.hello("PIPELINING")
		run(ask + ok +
			ask + "S: 550 no\nS: 503 no\nS: 503 no\n" +
			"C: RSET\n" + ask + "S: 250 reset\nS: 250 ok\nS: 550 no\nS: 554 no\n" +
			"C: RSET\n" + ask + "S: 250 reset\nS: 250 ok\nS: 250 ok\nS: 354 go\nD: x|\nS: 550 spam\n" +
			"C: RSET\n" + ask + "S: 250 reset\n" + ok +
			ask + ok + ask + "S: 550 no\nS: 503 no\nS: 503 no\n" +
			"C: RSET\n" + ask + "S: 502 RSET?\nG:")(p)
	}), "mx.test", plain)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i, stage := range []string{"", StageMail, StageRcpt, StageDot, "", "", StageMail} {
		if !c.Usable() {
			t.Fatalf("not usable before %d", i)
		}
		_, err := c.Send(t.Context(), mail("x\r\n", "b@mx.test"))
		if stage == "" && err != nil || stage != "" && asError(t, err).Stage != stage {
			t.Fatalf("message %d: %v, want stage %q", i, err, stage)
		}
	}
	_, err = c.Send(t.Context(), mail("x\r\n", "b@mx.test"))
	if e := asError(t, err); e.Permanent() || c.Usable() {
		t.Errorf("a refused RSET counts against the message: %v, or the session goes on: %v", e, c.Usable())
	}
}

func TestParameters(t *testing.T) {
	full := Mail{From: "a@me.test", UTF8: true, EightBit: true, Ret: "HDRS", EnvID: "x+1", Priority: 3, Size: 3, Open: opens("x\r\n"),
		Rcpts: []Rcpt{{Addr: "b@mx.test", Notify: "SUCCESS,FAILURE", ORcpt: "rfc822;b+x@old.test"}}}
	tests := map[string]struct {
		ext        []string
		m          Mail
		mail, rcpt string
	}{
		"nothing offered": {nil, full, "MAIL FROM:<a@me.test>", "RCPT TO:<b@mx.test>"},
		"all offered": {[]string{"SIZE", "8BITMIME", "SMTPUTF8", "DSN", "MT-PRIORITY"}, full,
			"MAIL FROM:<a@me.test> SIZE=3 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=x+2B1 MT-PRIORITY=3",
			"RCPT TO:<b@mx.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b+2Bx@old.test"},
		"all offered, nothing asked": {[]string{"SIZE", "8BITMIME", "SMTPUTF8", "DSN", "MT-PRIORITY", "REQUIRETLS"}, mail("x\r\n", "b@mx.test"),
			"MAIL FROM:<a@me.test> SIZE=3", "RCPT TO:<b@mx.test>"},
		"UTF-8 address": {[]string{"SMTPUTF8"}, mail("x\r\n", "jörg@mx.test"), "MAIL FROM:<a@me.test> SMTPUTF8", "RCPT TO:<jörg@mx.test>"},
		"null sender":   {nil, Mail{Open: opens("x\r\n"), Rcpts: []Rcpt{{Addr: `"a b\" c"@mx.test`}}}, "MAIL FROM:<>", `RCPT TO:<"a b\" c"@mx.test>`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := New(t.Context(), serve(t, func(p *peer) {
				p.hello(tt.ext...)
				run("C: " + tt.mail + "\nS: 250 ok\nC: " + tt.rcpt + "\nS: 250 ok\nC: DATA\nS: 354 go\nD: x|\nS: 250 ok\nG:")(p)
			}), "mx.test", plain)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Send(t.Context(), tt.m); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRefusedHere holds what must not be said: the peer hears nothing of it, and
// the session goes on.
func TestRefusedHere(t *testing.T) {
	with := func(f func(*Mail)) Mail {
		m := mail("x\r\n", "b@mx.test")
		f(&m)
		return m
	}
	tests := map[string]struct {
		m        Mail
		enhanced string
	}{
		"CRLF in sender":      {with(func(m *Mail) { m.From = "a@b\r\nRCPT TO:<x@y>" }), "5.1.3"},
		"LF in recipient":     {mail("x", "b@mx.test\nDATA"), "5.1.3"},
		"CR in recipient":     {mail("x", "b@mx.test\rDATA"), "5.1.3"},
		"NUL in recipient":    {mail("x", "b\x00@mx.test"), "5.1.3"},
		"bracket":             {mail("x", "b@mx.test> NOTIFY=NEVER"), "5.1.3"},
		"opening bracket":     {mail("x", "<b@mx.test"), "5.1.3"},
		"quoted bracket":      {mail("x", `"b>"@mx.test`), "5.1.3"},
		"escaped bracket":     {mail("x", `"b\>"@mx.test`), "5.1.3"},
		"space":               {mail("x", "b@mx.test NOTIFY=NEVER"), "5.1.3"},
		"space after a quote": {mail("x", `"b\\" c@mx.test`), "5.1.3"},
		"open quote":          {mail("x", `"b@mx.test`), "5.1.3"},
		"empty recipient":     {mail("x", ""), "5.1.3"},
		"no recipient":        {mail("x"), "5.5.1"},
		"second recipient":    {mail("x", "b@mx.test", "c\n@mx.test"), "5.1.3"},
		"UTF-8":               {mail("x", "jörg@mx.test"), "5.6.7"},
		"NOTIFY":              {with(func(m *Mail) { m.Rcpts[0].Notify = "NEVER\r\nDATA" }), "5.5.4"},
		"RET":                 {with(func(m *Mail) { m.Ret = "FULL X=Y" }), "5.5.4"},
		"too large":           {with(func(m *Mail) { m.Size = 101 }), "5.3.4"},
		"REQUIRETLS":          {with(func(m *Mail) { m.RequireTLS = true }), "5.7.30"},
	}
	c, err := New(t.Context(), serve(t, func(p *peer) { p.hello("SIZE 100", "DSN", "REQUIRETLS"); p.gone() }), "mx.test", plain)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range tests {
		_, err := c.Send(t.Context(), tt.m)
		e := asError(t, err)
		if !e.Permanent() || e.Reply != nil || !strings.Contains(e.Err.Error(), tt.enhanced) || !c.Usable() {
			t.Errorf("%s: got %v", name, e)
		}
	}
	c.Close()
}

// TestManyRecipients has more commands than one flight may hold: a client that
// sent them all before it reads could wait for a peer that waits for it.
func TestManyRecipients(t *testing.T) {
	var rcpts []string
	for range 2000 {
		rcpts = append(rcpts, "somebody.with.a.long.name@mx.test")
	}
	client, server := net.Pipe() // what one Write sends, one Read gets
	done := make(chan struct{})
	go func() {
		defer close(done)
		p := &peer{t: t, conn: server, br: bufio.NewReaderSize(server, 32<<10)}
		p.hello("PIPELINING")
		for line := ""; line != "DATA\r\n"; {
			var answers []string
			size := 0
			for size == 0 || p.br.Buffered() > 0 {
				var err error
				if line, err = p.br.ReadString('\n'); err != nil {
					t.Error(err)
					return
				}
				size += len(line)
				answers = append(answers, "250 ok")
			}
			if size > maxFlight+100 {
				t.Errorf("a flight of %d bytes", size)
			}
			if line == "DATA\r\n" {
				answers[len(answers)-1] = "354 go"
			}
			p.say(answers...)
		}
		p.content()
		p.say("250 ok")
	}()
	c, err := New(t.Context(), client, "mx.test", plain)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Send(t.Context(), mail("x", rcpts...))
	if err != nil || len(res.Rcpts) != 2000 || res.Rcpts[1999].Code != 250 {
		t.Error(err)
	}
	<-done
	c.Close()
	server.Close()
}

// deafConn is a connection whose peer reads no more, from some moment on: what
// it said before can still be read.
type deafConn struct {
	net.Conn
	deaf atomic.Bool
}

func (d *deafConn) Write(p []byte) (int, error) {
	if d.deaf.Load() {
		return 0, syscall.EPIPE
	}
	return d.Conn.Write(p)
}

// TestLastWords has a peer that gives up, says why and goes: the reason must not
// be lost because writing failed first.
func TestLastWords(t *testing.T) {
	tests := map[string]struct {
		script string // before it goes deaf
		words  string
		stage  string
		code   int
	}{
		"421 to MAIL":     {"", "421 idle", StageMail, 421},
		"554 to MAIL":     {"", "554 idle", StageMail, 0}, // it never saw the message
		"250 to MAIL":     {"", "250 ok", StageMail, 0},
		"421 to content":  {"C: MAIL*\nS: 250 ok\nC: RCPT*\nS: 250 ok\nC: DATA", "354 go\r\n421 bye", StageData, 421},
		"552 to content":  {"C: MAIL*\nS: 250 ok\nC: RCPT*\nS: 250 ok\nC: DATA", "354 go\r\n552 big", StageData, 552},
		"250 for nothing": {"C: MAIL*\nS: 250 ok\nC: RCPT*\nS: 250 ok\nC: DATA", "354 go\r\n250 ok", StageData, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			conn := new(deafConn)
			opened, said := make(chan struct{}), make(chan struct{})
			conn.Conn = serve(t, func(p *peer) {
				p.hello()
				<-opened // or New would read too much
				run(tt.script)(p)
				conn.deaf.Store(true)
				for line := range strings.SplitSeq(tt.words, "\r\n") {
					p.say(line)
					if tt.script == "" {
						close(said)
					} else {
						<-said // the next line waits for the content
					}
				}
				p.gone()
			})
			c, err := New(t.Context(), conn, "mx.test", plain)
			if err != nil {
				t.Fatal(err)
			}
			close(opened)
			m := mail("x\r\n", "b@mx.test")
			if tt.script == "" {
				<-said
			} else {
				m.Open = func() (io.ReadCloser, error) { close(said); return opens("x\r\n")() }
			}
			_, err = c.Send(t.Context(), m)
			e := asError(t, err)
			if e.Stage != tt.stage || (e.Reply == nil) != (tt.code == 0) || e.Reply != nil && e.Reply.Code != tt.code || e.Unknown || c.Usable() {
				t.Errorf("got %v at %s, usable %v", e, e.Stage, c.Usable())
			}
			if tt.stage == StageMail && e.Permanent() {
				t.Errorf("permanent: %v", e)
			}
		})
	}
}

type brokenReader struct{ after io.Reader }

var errDisk = errors.New("disk on fire")

func (b brokenReader) Read(p []byte) (int, error) {
	n, err := b.after.Read(p)
	if err == io.EOF {
		err = errDisk
	}
	return n, err
}

// TestUnanswered: what got no answer is in the dialogue all the same.
func TestUnanswered(t *testing.T) {
	for _, tt := range []struct{ script, last string }{
		{"C: MAIL*\nS: 250 ok\nC: RCPT*\n", "RCPT TO:<b@mx.test>"},
		{"C: MAIL*\nS: 250 ok\nC: RCPT*\nS: 250 ok\nC: DATA\nS: 354 go\nD: x|\n", "(content, 3 bytes)"},
	} {
		c, err := New(t.Context(), serve(t, func(p *peer) {
			p.hello()
			run(tt.script)(p)
		}), "mx.test", plain)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		res, err := c.Send(t.Context(), mail("x\r\n", "b@mx.test"))
		if err == nil {
			t.Fatal("no error")
		}
		if last := res.Dialogue[len(res.Dialogue)-1]; last.Command != tt.last || last.Reply.Code != 0 {
			t.Errorf("the dialogue ends with %q, %v; want %q unanswered", last.Command, last.Reply, tt.last)
		}
	}
}
