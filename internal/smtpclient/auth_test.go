package smtpclient

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/xdg-go/scram"
)

const (
	user     = "joe@me.test"
	password = "päss, w=ord"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// scramPeer is the other side of SCRAM-SHA-256. It knows the right password or
// another one.
func scramPeer(p *peer, knows string) {
	client, err := scram.SHA256.NewClient(user, knows, "")
	if err != nil {
		p.t.Error(err)
		return
	}
	stored, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: "salt of the earth", Iters: 4096})
	if err != nil {
		p.t.Error(err)
		return
	}
	server, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return stored, nil })
	if err != nil {
		p.t.Error(err)
		return
	}
	conv := server.NewConversation()
	line, _ := p.br.ReadString('\n')
	in, ok := strings.CutPrefix(strings.TrimSpace(line), "AUTH SCRAM-SHA-256 ")
	if !ok {
		p.t.Errorf("peer heard %q", line)
	}
	for {
		msg, _ := base64.StdEncoding.DecodeString(in)
		out, err := conv.Step(string(msg))
		if err != nil {
			p.say("535 5.7.8 wrong")
			return
		}
		p.say("334 " + b64(out))
		line, _ = p.br.ReadString('\n')
		in = strings.TrimSpace(line)
		if conv.Done() {
			p.say("235 2.7.0 welcome")
			return
		}
	}
}

func TestAuth(t *testing.T) {
	plainLine := "C: AUTH PLAIN " + b64("\x00"+user+"\x00"+password)
	tests := map[string]struct {
		offer  string
		script func(*peer)
		err    string // part of the error; "": none
		code   int
	}{
		"PLAIN":             {"AUTH PLAIN LOGIN", run(plainLine + "\nS: 235 ok"), "", 0},
		"PLAIN, old form":   {"AUTH=PLAIN", run(plainLine + "\nS: 235 ok"), "", 0},
		"LOGIN":             {"AUTH LOGIN", run("C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: " + b64(user) + "\nS: 334 UGFzc3dvcmQ6\nC: " + b64(password) + "\nS: 235 ok"), "", 0},
		"LOGIN, odd prompt": {"AUTH LOGIN", run("C: AUTH LOGIN\nS: 334\nC: " + b64(user) + "\nS: 334 \nC: " + b64(password) + "\nS: 235 ok"), "", 0},
		"SCRAM":             {"AUTH PLAIN SCRAM-SHA-256", func(p *peer) { scramPeer(p, password) }, "", 0},
		"SCRAM, wrong":      {"AUTH PLAIN SCRAM-SHA-256", func(p *peer) { scramPeer(p, "other"); p.hear("QUIT"); p.gone() }, "535", 535},
		"SCRAM, no proof":   {"AUTH SCRAM-SHA-256", run("C: AUTH SCRAM-SHA-256*\nS: 235 ok\nG:"), "prove", 0},
		"SCRAM, much work":  {"AUTH SCRAM-SHA-256", manyIterations, "999999999 iterations", 0},
		"SCRAM refused, then PLAIN": {"AUTH PLAIN SCRAM-SHA-256", run("C: AUTH SCRAM-SHA-256*\nS: 504 not for you\n" + plainLine + "\nS: 235 ok"),
			"", 0},
		"wrong":           {"AUTH PLAIN", run(plainLine + "\nS: 535 5.7.8 wrong\nC: QUIT\nG:"), "535 5.7.8 wrong", 535},
		"busy":            {"AUTH PLAIN", run(plainLine + "\nS: 454 4.7.0 later\nC: QUIT\nG:"), "454", 454},
		"421":             {"AUTH PLAIN", run(plainLine + "\nS: 421 " + password + "\nG:"), "421 (secret)", 421},
		"none offered":    {"SIZE", func(p *peer) { p.gone() }, "no AUTH mechanism", 0},
		"none known":      {"AUTH GSSAPI", func(p *peer) { p.gone() }, "GSSAPI", 0},
		"none works":      {"AUTH PLAIN", run(plainLine + "\nS: 504 no\nG:"), "refused every", 0},
		"not base64":      {"AUTH LOGIN", run("C: AUTH LOGIN\nS: 334 %%%\nG:"), "base64", 0},
		"asks on":         {"AUTH LOGIN", run("C: AUTH LOGIN\nS: 334\nC: *\nS: 334\nC: *\nS: 334\nG:"), "more than", 0},
		"PLAIN asks":      {"AUTH PLAIN", run(plainLine + "\nS: 334\nG:"), "more than", 0},
		"250":             {"AUTH PLAIN", run(plainLine + "\nS: 250 ok\nG:"), "no sense", 0},
		"repeats it":      {"AUTH PLAIN", run(plainLine + "\nS: 535 I do not like " + password + " and " + b64("\x00"+user+"\x00"+password) + "\nC: QUIT\nG:"), "like (secret) and (secret)", 535},
		"repeats half":    {"AUTH LOGIN", run("C: AUTH LOGIN\nS: 334\nC: *\nS: 334\nC: *\nS: 535 not " + b64(password) + "\nC: QUIT\nG:"), "not (secret)", 535},
		"greets it, then": {"AUTH PLAIN", run(plainLine + "\nS: 235 " + password), "", 0},
	}
	ca := newPKI(t)
	cert := ca.good()
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := New(t.Context(), serve(t, func(p *peer) {
				p.secured(cert)
				p.hear("EHLO*")
				p.offer(tt.offer)
				tt.script(p)
				p.gone()
			}), "mx.test", Options{LocalName: "me.test", TLS: Required, TLSConfig: &tls.Config{RootCAs: ca.roots}, Auth: &Auth{User: user, Password: password}})
			var dialogue []Exchange
			if tt.err == "" {
				if err != nil {
					t.Fatal(err)
				}
				dialogue = c.Opening()
				c.Close()
			} else {
				e := asError(t, err)
				if e.Stage != StageAuth || e.Permanent() || !strings.Contains(e.Error(), tt.err) || e.Reply != nil && e.Reply.Code != tt.code || e.Reply == nil && tt.code != 0 {
					t.Errorf("got %v at %s", e, e.Stage)
				}
				dialogue = e.Dialogue
			}
			all := fmt.Sprintf("%v %+v", err, dialogue)
			for _, secret := range []string{password, b64(password), b64("\x00" + user + "\x00" + password)} {
				if strings.Contains(all, secret) {
					t.Errorf("a secret got out: %s", all)
				}
			}
		})
	}
}

func manyIterations(p *peer) {
	line, _ := p.br.ReadString('\n')
	first, _ := base64.StdEncoding.DecodeString(strings.TrimSpace(strings.TrimPrefix(line, "AUTH SCRAM-SHA-256 ")))
	_, nonce, _ := strings.Cut(string(first), "r=")
	p.say("334 " + b64("r="+nonce+"x,s="+b64("salt")+",i=999999999"))
	p.gone()
}

// TestAuthUnprotected never shows a password to a peer that is not proven.
func TestAuthUnprotected(t *testing.T) {
	cert := newPKI(t).good()
	auth := Auth{User: user, Password: password}
	t.Run("no TLS", func(t *testing.T) {
		_, err := New(t.Context(), serve(t, func(p *peer) { p.hello("AUTH PLAIN"); p.gone() }), "mx.test", Options{LocalName: "me.test", Auth: &auth})
		if e := asError(t, err); e.Stage != StageAuth || !strings.Contains(e.Error(), "without TLS") {
			t.Errorf("got %v", e)
		}
	})
	t.Run("unverified", func(t *testing.T) {
		_, err := New(t.Context(), serve(t, func(p *peer) { p.secured(cert); p.hear("EHLO*"); p.offer("AUTH PLAIN"); p.gone() }), "mx.test",
			Options{LocalName: "me.test", Auth: &auth})
		if e := asError(t, err); e.Stage != StageAuth || !strings.Contains(e.Error(), "is not sent") {
			t.Errorf("got %v", e)
		}
	})
	t.Run("on purpose", func(t *testing.T) {
		auth := auth
		auth.Unprotected = true
		c, err := New(t.Context(), serve(t, func(p *peer) { p.hello("AUTH PLAIN"); run("C: AUTH PLAIN*\nS: 235 ok\nG:")(p) }), "mx.test",
			Options{LocalName: "me.test", Auth: &auth})
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	})
}
