package smtpclient

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestContentTrouble has content that cannot be read: the message must not end
// with a dot, or the peer would take half of it.
func TestContentTrouble(t *testing.T) {
	for name, open := range map[string]func() (io.ReadCloser, error){
		"open":  func() (io.ReadCloser, error) { return nil, errDisk },
		"small": func() (io.ReadCloser, error) { return io.NopCloser(brokenReader{strings.NewReader("x\r\n")}), nil },
		"big": func() (io.ReadCloser, error) {
			return io.NopCloser(brokenReader{strings.NewReader(strings.Repeat("x\r\n", 50000))}), nil
		},
	} {
		for _, ext := range []string{"PIPELINING", "CHUNKING"} {
			t.Run(name+" "+ext, func(t *testing.T) {
				c, err := New(t.Context(), serve(t, func(p *peer) {
					p.hello(ext)
					if ext == "CHUNKING" {
						run("C: MAIL*\nS: 250 ok\nC: RCPT*\nS: 250 ok")(p)
					} else {
						run("C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go")(p)
					}
					rest, _ := io.ReadAll(p.br)
					if strings.Contains(string(rest), "\r\n.\r\n") || strings.Contains(string(rest), "LAST") {
						t.Errorf("the content was ended: %q", rest)
					}
				}), "mx.test", plain)
				if err != nil {
					t.Fatal(err)
				}
				m := mail("", "b@mx.test")
				m.Open, m.Size = open, 150000
				if name == "small" {
					m.Size = 3
				}
				begin := time.Now()
				_, err = c.Send(t.Context(), m)
				if took := time.Since(begin); took > patience/2 {
					t.Errorf("waited %v for a peer that has nothing to say", took)
				}
				if e := asError(t, err); !errors.Is(err, errDisk) || e.Stage != StageData || e.Unknown || c.Usable() {
					t.Errorf("got %v (stage %s), usable %v", err, e.Stage, c.Usable())
				}
			})
		}
	}
}

// TestBigContent sends content that fits no buffer, by DATA and by BDAT.
func TestBigContent(t *testing.T) {
	content := strings.Repeat("."+strings.Repeat("x", 70)+"\r\n", 20000)
	for _, ext := range []string{"PIPELINING", "CHUNKING", ""} {
		got := make(chan string, 1)
		c, err := New(t.Context(), serve(t, func(p *peer) {
			p.hello(ext)
			p.hear("MAIL*")
			p.say("250 ok")
			p.hear("RCPT*")
			p.say("250 ok")
			if ext != "CHUNKING" {
				p.hear("DATA")
				p.say("354 go")
				got <- p.content()
				p.say("250 ok")
				return
			}
			var b strings.Builder
			for {
				data, last := p.chunk()
				b.WriteString(data)
				p.say("250 ok")
				if last {
					got <- b.String()
					return
				}
			}
		}), "mx.test", plain)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Send(t.Context(), mail(content, "b@mx.test")); err != nil {
			t.Errorf("%s: %v", ext, err)
		} else if <-got != content {
			t.Errorf("%s: the content came out changed", ext)
		}
		c.Close()
	}
}

// TestEarlyAnswer has a peer that speaks up inside the content and reads no
// more, or closes.
func TestEarlyAnswer(t *testing.T) {
	endless := io.LimitReader(zeros{}, 1<<30)
	tests := map[string]struct {
		say  []string
		hang bool // reads no more, and stays
		code int
	}{
		"552, hangs":  {[]string{"552 5.3.4 too big"}, true, 552},
		"421, hangs":  {[]string{"421 4.3.0 shutting down"}, true, 421},
		"421, closes": {[]string{"421 4.3.0 shutting down"}, false, 421},
		"250, hangs":  {[]string{"250 ok"}, true, 0},
		"garbage":     {[]string{"what"}, true, 0},
		"closes":      {nil, false, 0},
	}
	for name, tt := range tests {
		for _, ext := range []string{"PIPELINING", "CHUNKING"} {
			if ext == "CHUNKING" && name == "250, hangs" {
				continue // the buffers may hold the chunk: then it is in its place
			}
			t.Run(name+" "+ext, func(t *testing.T) {
				over := make(chan struct{})
				conn := serve(t, func(p *peer) {
					p.hello(ext)
					if ext == "CHUNKING" {
						run("C: MAIL*\nS: 250 ok\nC: RCPT*\nS: 250 ok\nC: BDAT*")(p)
					} else {
						run("C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go")(p)
					}
					io.CopyN(io.Discard, p.br, 100000)
					if tt.say != nil {
						p.say(tt.say...)
					}
					if tt.hang {
						<-over
					}
				})
				c, err := New(t.Context(), conn, "mx.test", plain)
				if err != nil {
					t.Fatal(err)
				}
				m := mail("", "b@mx.test")
				m.Size = 1 << 30
				m.Open = func() (io.ReadCloser, error) { return io.NopCloser(endless), nil }
				_, err = c.Send(t.Context(), m)
				close(over)
				e := asError(t, err)
				code := 0
				if e.Reply != nil {
					code = e.Reply.Code
				}
				// The buffers may hold a chunk whole: then the session goes on.
				if e.Stage != StageData || e.Unknown || c.Usable() && ext != "CHUNKING" {
					t.Errorf("got %v, stage %s, unknown %v, usable %v", e, e.Stage, e.Unknown, c.Usable())
				}
				if code != tt.code && (tt.hang || code != 0) {
					t.Errorf("code is %d, want %d", code, tt.code)
				}
			})
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
		if i%80 == 79 {
			p[i] = '\n'
		}
	}
	return len(p), nil
}

// TestHalfClosed has a peer that closes its sending side and reads on.
func TestHalfClosed(t *testing.T) {
	c, err := New(t.Context(), serve(t, func(p *peer) {
		p.hello("PIPELINING")
		run("C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go")(p)
		p.conn.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, p.br)
	}), "mx.test", plain)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Send(t.Context(), mail("x", "b@mx.test"))
	if e := asError(t, err); e.Stage != StageDot || !e.Unknown || !errors.Is(err, errClosed) {
		t.Errorf("got %v, stage %s, unknown %v", e, e.Stage, e.Unknown)
	}
}
