package lab

import (
	"io"
	"net/http"
	"net/smtp"
	"regexp"
	"strings"
	"testing"
	"time"

	"postrider/internal/api"
	"postrider/internal/config"
	"postrider/internal/dns"
	"postrider/internal/mailauth"
	"postrider/internal/sink"
)

const newsletter = "From: app@shop.test\r\nTo: ann@away.test\r\nSubject: offers\r\nDate: Sun, 01 Mar 2026 12:00:00 +0000\r\nMessage-ID: <1@shop.test>\r\n" +
	"MIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" +
	"<html><body><a href=3D\"https://shop.test/a?x=3D1&amp;y=3D2\">Gr=C3=BC=C3=9Fe</a></body></html>\r\n"

// A mail with a pixel and links of ours arrives, signed. What its recipient does is
// in its story; a link that was changed leads nowhere. Mail of which nothing is
// tracked arrives byte for byte.
func TestOpensAndClicks(t *testing.T) {
	box, _ := listen(t, sink.Config{Hostname: "mx.away.test", Keep: 10})
	r := StartRelay(t, func(c *config.Config) {
		c.Service.Domain = "relay.example"
		c.Tracking.Listen, c.Tracking.Early = "127.0.0.1:0", 0
		c.Route = []config.Route{{Domain: "*", To: box.Addr()}}
	})
	p := newPatient(t, 4*time.Minute)
	ctx, must := p.ctx, p.must
	align(ctx, t, r, "shop.test")
	// send gives what arrives of a mail.
	arrived := int64(0)
	send := func(mail string) string {
		t.Helper()
		auth := smtp.PlainAuth("", r.User, r.Password, "127.0.0.1")
		must(smtp.SendMail(r.Addr("plain"), auth, "app@shop.test", []string{"ann@away.test"}, []byte(mail)))
		arrived++
		must(box.Wait(ctx, arrived))
		got := string(box.Messages()[arrived-1].Content)
		resolver, err := dns.New([]string{r.DNS.Addr()}, 0)
		must(err)
		found, err := mailauth.VerifyDKIM(ctx, resolver, strings.NewReader(got))
		if err != nil || len(found) == 0 || found[0].Result != mailauth.Pass {
			t.Errorf("signatures: %+v, %v", found, err)
		}
		return got
	}
	if got := send(newsletter); !strings.HasSuffix(got, newsletter) {
		t.Errorf("changed although nothing is tracked:\n%s", got)
	}
	got := send("X-Postrider-Track: opens, clicks\r\n" + newsletter)
	if strings.Contains(got, "X-Postrider-Track") || strings.Contains(got, "shop.test/a?") {
		t.Errorf("arrived:\n%s", got)
	}
	text := strings.NewReplacer("=\r\n", "", "=3D", "=").Replace(got)
	base := regexp.QuoteMeta("http://track.shop.test:" + r.TrackingAddr()[strings.LastIndex(r.TrackingAddr(), ":")+1:])
	pixel, link := regexp.MustCompile(base+`/o/[\w-]+`).FindString(text), regexp.MustCompile(base+`/c/[\w/-]+`).FindString(text)
	if pixel == "" || link == "" {
		t.Fatalf("no links on the domain's own host (%s) in:\n%s", base, text)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	// ask follows a link as if its host led to the relay.
	ask := func(link string) *http.Response {
		t.Helper()
		q, err := http.NewRequestWithContext(ctx, "GET", link, nil)
		must(err)
		q.Host, q.URL.Host = q.URL.Host, r.TrackingAddr()
		q.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
		a, err := client.Do(q)
		must(err)
		_, err = io.Copy(io.Discard, a.Body)
		must(err)
		must(a.Body.Close())
		return a
	}
	if a := ask(pixel); a.StatusCode != 200 || a.Header.Get("Content-Type") != "image/gif" {
		t.Errorf("pixel: %d %s", a.StatusCode, a.Header.Get("Content-Type"))
	}
	if a := ask(link); a.StatusCode != 302 || a.Header.Get("Location") != "https://shop.test/a?x=1&y=2" {
		t.Errorf("link: %d to %q", a.StatusCode, a.Header.Get("Location"))
	}
	if a := ask(link[:len(link)-2] + "xx"); a.StatusCode != 404 || a.Header.Get("Location") != "" {
		t.Errorf("a link that was changed: %d to %q", a.StatusCode, a.Header.Get("Location"))
	}
	all, err := r.Deliveries(ctx, nil)
	must(err)
	var story api.Story
	seen := map[string]*api.Event{}
	for tick := time.NewTicker(50 * time.Millisecond); seen["opened"] == nil || seen["clicked"] == nil; {
		select {
		case <-ctx.Done():
			t.Fatalf("the story has %d events", len(story.Events))
		case <-tick.C:
		}
		must(r.API.Get(ctx, "/v1/messages/"+all[0].Message, nil, &story))
		for i := range story.Events {
			seen[story.Events[i].Kind] = &story.Events[i]
		}
	}
	if e := seen["clicked"].Engagement; e.URL != "https://shop.test/a?x=1&y=2" || !e.Client.IsLoopback() || !strings.Contains(e.UserAgent, "Firefox") || e.Machine != "" {
		t.Errorf("clicked: %+v", e)
	}
	if e := seen["opened"].Engagement; e.Machine != "" || e.URL != "" {
		t.Errorf("opened: %+v", e)
	}
	// The recipient wants none of it.
	must(r.API.Post(ctx, "/v1/untracked", api.NewUntracked{Address: "@away.test"}, nil))
	if got := send("X-Postrider-Track: opens, clicks\r\n" + newsletter); !strings.HasSuffix(got, newsletter) {
		t.Errorf("changed although the recipient opted out:\n%s", got)
	}
}
