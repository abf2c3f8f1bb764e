package lab

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/smtp"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"postrider/internal/api"
	"postrider/internal/config"
	"postrider/internal/sink"
)

// What comes to the feedback port may be huge, or made to be. None of it takes the
// relay or the session down, and what is taken ends as an event.
func TestFeedbackOfAnySort(t *testing.T) {
	box, _ := listen(t, sink.Config{Hostname: "mx.away.test", Keep: 20})
	r := StartRelay(t, func(c *config.Config) {
		c.Service.Domain = "relay.example"
		c.Listen = append(c.Listen, config.Listener{Name: "back", Address: "127.0.0.1:0", Mode: "feedback"})
		c.Route = []config.Route{{Domain: "*", To: box.Addr()}}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	align(ctx, t, r, "shop.test")

	report := func(head, text, status string) string {
		return "From: MAILER-DAEMON@mx.away.test\r\nSubject: Undelivered\r\nMIME-Version: 1.0\r\n" + head +
			"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n" + text + "\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n" +
			"Reporting-MTA: dns; mx.away.test\r\n\r\nFinal-Recipient: rfc822; ann@away.test\r\nAction: failed\r\nStatus: " + status + "\r\nDiagnostic-Code: smtp; 550 " + status + " no mailbox of that name\r\n\r\n"
	}
	nested := "MIME-Version: 1.0\r\n"
	for i := range 10_000 {
		nested += fmt.Sprintf("Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%[1]d\r\n", i)
	}
	for name, c := range map[string]struct{ mail, want string }{
		"a large original behind it": {report("", "\r\nSorry.", "5.1.1") + "--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: hello\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 40_000) + "--b--\r\n", "bounced"},
		"10,000 parts deep":          {nested + "x\r\n", "feedback"},
		"a header of 2 MB":           {strings.Repeat("X-Long: "+strings.Repeat("y", 900)+"\r\n", 2200) + "\r\nx\r\n", "feedback"},
		"base64 of nothing":          {"MIME-Version: 1.0\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n" + strings.Repeat(strings.Repeat("!", 76)+"\r\n", 10_000), "feedback"},
		"another charset than said":  {report("", "Content-Type: text/plain; charset=utf-8\r\n\r\n\xb6\xe9\xff\xfe\x1b$B", "5.1.1") + "--b--\r\n", "bounced"},
		"a charset of nobody's":      {report("", "Content-Type: text/plain; charset=klingon\r\n\r\nqo'", "5.1.1") + "--b--\r\n", "bounced"},
		"an answer to an answer":     {"From: ann@away.test\r\nAuto-Submitted: auto-replied\r\nSubject: Re: Re: Out of office\r\n\r\nI am away.\r\n", "feedback"},
	} {
		t.Run(name, func(t *testing.T) {
			n := box.Stats().Messages
			if err := r.send("app@shop.test", "From: app@shop.test\r\nSubject: hello", "ann@away.test"); err != nil {
				t.Fatal(err)
			}
			if err := box.Wait(ctx, n+1); err != nil {
				t.Fatal(err)
			}
			all := box.Messages()
			to := all[len(all)-1].From
			if err := r.sendBack("", to, c.mail); err != nil {
				t.Fatal(err)
			}
			id, _, _ := strings.Cut(strings.TrimPrefix(to, "b+"), "-")
			if !r.comes(ctx, t, id, c.want) {
				t.Errorf("no event %s", c.want)
			}
			if c.want == "bounced" { // so that the next one is sent
				if err := r.API.Delete(ctx, "/v1/suppressions/ann@away.test?account=default", nil); err != nil {
					t.Error(err)
				}
				if err := box.Wait(ctx, n+2); err != nil { // the sender is told
					t.Error(err)
				}
			}
		})
	}

	t.Run("50 MB", func(t *testing.T) {
		all := box.Messages()
		to := ""
		for _, m := range all {
			if m.From != "" {
				to = m.From
			}
		}
		c, err := smtp.Dial(r.Addr("back"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.StartTLS(&tls.Config{InsecureSkipVerify: true}); err != nil {
			t.Fatal(err)
		}
		large := func(err error) {
			t.Helper()
			var refusal *textproto.Error
			if !errors.As(err, &refusal) || refusal.Code != 552 {
				t.Errorf("%v; want 552", err)
			}
		}
		// By what it says of itself, and by what comes.
		id, err := c.Text.Cmd("MAIL FROM:<> SIZE=%d", 50<<20)
		if err != nil {
			t.Fatal(err)
		}
		c.Text.StartResponse(id)
		_, _, err = c.Text.ReadResponse(250)
		c.Text.EndResponse(id)
		large(err)
		for _, err := range []error{c.Mail(""), c.Rcpt(to)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		large(pour(t, c, 12<<20))
		// The session goes on, until somebody sends without end.
		for _, err := range []error{c.Mail(""), c.Rcpt(to)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := pour(t, c, 50<<20); err == nil {
			t.Error("50 MB were taken")
		}
		if err := r.sendBack("", to, report("", "\r\nSorry.", "4.2.2")+"--b--\r\n"); err != nil {
			t.Errorf("the next session: %v", err)
		}
	})
}

// pour sends so many bytes of content.
func pour(t *testing.T, c *smtp.Client, n int) error {
	t.Helper()
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	line := append(bytes.Repeat([]byte("x"), 998), "\r\n"...)
	for range n / len(line) {
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
	return w.Close()
}

// comes waits until a message has an event of that kind.
func (r *Relay) comes(ctx context.Context, t *testing.T, message, kind string) bool {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		var story api.Story
		if err := r.API.Get(ctx, "/v1/messages/"+message, nil, &story); err != nil {
			t.Fatal(err)
		}
		for _, e := range story.Events {
			if e.Kind == kind {
				return true
			}
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}
