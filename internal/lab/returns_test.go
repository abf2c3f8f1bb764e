package lab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/smtp"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"postrider/internal/api"
	"postrider/internal/config"
	"postrider/internal/sink"
)

// A receiver takes a message and sends it back later, as a report to the return
// path. The story shows it, the address is suppressed, the sender is told; a forged
// report never comes in.
func TestBounceComesLater(t *testing.T) {
	box, _ := listen(t, sink.Config{Hostname: "mx.away.test", Keep: 10})
	r := StartRelay(t, func(c *config.Config) {
		c.Policy.Senders, c.Service.Domain = "verified", "relay.example"
		c.Listen = append(c.Listen, config.Listener{Name: "back", Address: "127.0.0.1:0", Mode: "feedback"})
		c.Route = []config.Route{{Domain: "*", To: box.Addr()}}
	})
	p := newPatient(t, 4*time.Minute)
	ctx, must, until := p.ctx, p.must, p.until
	align(ctx, t, r, "shop.test")
	const header = "From: app@shop.test\r\nSubject: hello"
	until("the domain", func() bool { return r.send("app@shop.test", header, "ann@away.test") == nil })
	must(box.Wait(ctx, 1))
	to := box.Messages()[0].From
	if !strings.HasPrefix(to, "b+") || !strings.HasSuffix(to, "@bounce.shop.test") {
		t.Fatalf("left with %s", to)
	}

	report := "From: MAILER-DAEMON@mx.away.test\r\nTo: " + to + "\r\nSubject: Undelivered\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\r\nSorry.\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n" +
		"Reporting-MTA: dns; mx.away.test\r\n\r\nFinal-Recipient: rfc822; ann@away.test\r\nAction: failed\r\nStatus: 5.1.1\r\n" +
		"Diagnostic-Code: smtp; 550 5.1.1 no mailbox of that name\r\n\r\n--b--\r\n"
	refused(t, r.sendBack("", strings.Replace(to, "@", "x@", 1), report), 550, "5.1.1 There is no such address here.")
	refused(t, r.sendBack("app@shop.test", "bob@away.test", report), 550, "5.1.1")
	must(r.sendBack("", to, report))

	var story api.Story
	first := func() string {
		all, err := r.Deliveries(ctx, nil)
		must(err)
		return all[len(all)-1].Message
	}()
	until("the bounce", func() bool {
		must(r.API.Get(ctx, "/v1/messages/"+first, nil, &story))
		return story.Deliveries[0].State == "bounced"
	})
	kinds := []string{}
	for _, e := range story.Events {
		kinds = append(kinds, e.Kind)
		if e.Kind == "bounced" && (!strings.Contains(e.Reply.Text, "no mailbox of that name") || e.Diagnosis.Category != "hard/no-such-mailbox") {
			t.Errorf("event %+v", e)
		}
	}
	if !slices.Equal(kinds[:3], []string{"accepted", "delivered", "bounced"}) {
		t.Errorf("events %v", kinds)
	}
	// The sender is told, from the null sender, and by no address that comes back.
	must(box.Wait(ctx, 2))
	if dsn := box.Messages()[1]; dsn.From != "" || dsn.To()[0] != "app@shop.test" {
		t.Errorf("report from %q to %v", dsn.From, dsn.To())
	}
	until("the suppression", func() bool {
		must(r.send("app@shop.test", header, "ann@away.test"))
		all, err := r.Deliveries(ctx, nil)
		must(err)
		return all[0].State == "cancelled"
	})
}

// sendBack sends over the listener "back", with TLS, as the receiver's server.
func (r *Relay) sendBack(from, to, mail string) error {
	pem, err := os.ReadFile(r.CAFile)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	c, err := smtp.Dial(r.Addr("back"))
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.StartTLS(&tls.Config{RootCAs: pool, ServerName: "relay.test"}); err != nil {
		return err
	}
	if err := c.Mail(from); err != nil {
		return err
	}
	if err := c.Rcpt(to); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, mail); err != nil {
		return err
	}
	return w.Close()
}

// align adds a domain and publishes all that its mail and its bounces need.
func align(ctx context.Context, t *testing.T, r *Relay, name string) {
	t.Helper()
	if _, d, err := r.OwnDomain(ctx, name); err != nil || d.Aligned == nil {
		t.Fatalf("the domain is not ready: %+v, %v", d, err)
	}
}
