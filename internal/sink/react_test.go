package sink

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// What follows later goes to the addresses that were given, and there only: the
// hosts in the message do not exist.
func TestReactions(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, strings.TrimSpace(fmt.Sprintf("%s %s%s %s", r.Method, r.Host, r.URL, body)))
	}))
	defer web.Close()
	back := start(t, Config{Keep: 10})
	s := start(t, Config{Hostname: "mx.test", React: &Reactions{SMTP: back.Addr(), HTTP: web.Listener.Addr().String()}})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	const content = "From: shop@shop.test\r\nSubject: Sale\r\nList-Unsubscribe: <mailto:u+1.x@bounce.shop.test?subject=leave>,\r\n <http://track.shop.test/u/1>\r\n" +
		"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nMIME-Version: 1.0\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" +
		"<p><a href=3D\"http://track.shop.test/u/1\">leave</a> <a href=3D\"http://track.shop.test/c/1?a=3D1&amp;b=3D2\">buy</a>\r\n<img src=3D\"http://track.shop.test/o/1\">\r\n"
	for i, c := range []struct {
		to    string
		asked []string
		mail  []string // in what comes back
	}{
		{to: "open+1ms", asked: []string{"GET track.shop.test/o/1"}},
		{to: "prefetch+1ms", asked: []string{"GET track.shop.test/o/1"}},
		{to: "click+1ms", asked: []string{"GET track.shop.test/o/1", "GET track.shop.test/c/1?a=1&b=2"}},
		{to: "scan+1ms", asked: []string{"GET track.shop.test/u/1", "GET track.shop.test/c/1?a=1&b=2", "GET track.shop.test/u/1"}},
		{to: "unsubscribe+1ms", asked: []string{"POST track.shop.test/u/1 List-Unsubscribe=One-Click"}},
		{to: "unsubscribe-mail+1ms", mail: []string{"To: <u+1.x@bounce.shop.test>", "Subject: leave"}},
		{to: "late-bounce+1ms", mail: []string{"To: <b+1.x@bounce.shop.test>", "Final-Recipient: rfc822; late-bounce+1ms@example.test", "Status: 5.1.1", "Subject: Sale"}},
		{to: "complain+1ms", mail: []string{"Feedback-Type: abuse", "Subject: Sale"}},
		{to: "vacation+1ms", mail: []string{"Auto-Submitted: auto-replied"}},
	} {
		mu.Lock()
		asked = nil
		mu.Unlock()
		before := back.Stats().Messages
		conn := greet(t, s.Addr())
		conn.send("MAIL FROM:<b+1.x@bounce.shop.test>\r\nRCPT TO:<" + c.to + "@example.test>\r\nDATA\r\n")
		for _, reply := range []string{"250", "250", "354"} {
			conn.expect(reply)
		}
		conn.send(content + ".\r\n")
		conn.expect("250")
		if len(c.mail) > 0 {
			if err := back.Wait(ctx, before+1); err != nil {
				t.Fatalf("%s: %v", c.to, err)
			}
			got := back.Messages()[before]
			if person := strings.HasPrefix(c.to, "unsubscribe-mail"); (got.From != "") != person {
				t.Errorf("%s: from %q", c.to, got.From)
			}
			for _, want := range c.mail {
				if !strings.Contains(string(got.Content), want+"\r\n") {
					t.Errorf("%s: lacks %q:\n%s", c.to, want, got.Content)
				}
			}
			continue
		}
		for {
			mu.Lock()
			n := len(asked)
			mu.Unlock()
			if n >= len(c.asked) {
				break
			}
			if !sleep(ctx, 5*time.Millisecond) {
				t.Fatalf("%d %s: asked for %q, want %q; %+v", i, c.to, asked, c.asked, s.Stats().Faults)
			}
		}
		s.reacting.Wait()
		mu.Lock()
		if !slices.Equal(asked, c.asked) {
			t.Errorf("%s: asked for %q, want %q", c.to, asked, c.asked)
		}
		mu.Unlock()
	}
}
