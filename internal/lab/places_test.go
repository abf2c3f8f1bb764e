package lab

import (
	"encoding/base64"
	"net/http"
	"net/smtp"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postrider/internal/api"
	"postrider/internal/dns"
	"postrider/internal/mailauth"
	"postrider/internal/message"
	"postrider/internal/sink"
)

// texts are the bodies of a mail, by their types, when its signature in the name of
// shop.test is good.
func (b *broadcasts) texts(m *sink.Message) map[string]string {
	b.Helper()
	resolver, err := dns.New(b.Config.DNS.Servers, 0)
	b.must(err)
	found, err := mailauth.VerifyDKIM(b.ctx, resolver, strings.NewReader(string(m.Content)))
	b.must(err)
	if !slices.ContainsFunc(found, func(s mailauth.Signature) bool { return s.Domain == "shop.test" && s.Result == mailauth.Pass }) {
		b.Errorf("signatures %+v of\n%s", found, m.Content)
	}
	all := map[string]string{}
	b.must(message.ReadParts(strings.NewReader(string(m.Content)), 1<<20, func(p message.Part) error {
		if !p.Container {
			all[p.Type] = string(p.Body)
		}
		return nil
	}))
	return all
}

// path finds the link of a kind in a text.
func (b *broadcasts) path(text, kind string) *url.URL {
	b.Helper()
	found := regexp.MustCompile(`https://links\.relay\.example/` + kind + `/[\w/-]+`).FindString(text)
	if found == "" {
		b.Fatalf("no link /%s/ in\n%s", kind, text)
	}
	u, err := url.Parse(found)
	b.must(err)
	return u
}

// A template as senders bring it from another service works, over SMTP: in each part
// are links that unsubscribe, no click is counted of them, and the mail is signed.
func TestPlaceholdersOverSMTP(t *testing.T) {
	b := newBroadcasts(t)
	b.must(b.API.Post(b.ctx, "/v1/unsubscribe-groups", api.NewGroup{ID: "news", Name: "news"}, nil))
	const (
		text = "Leave: <%asm_group_unsubscribe_raw_url%>\r\nNews: https://shop.test/news\r\n"
		html = `<html><body><p>Gr&uuml;&szlig;e</p><a href="https://shop.test/news">News</a> <a  href='&lt;%asm_group_unsubscribe_raw_url%&gt;'>Leave</a> or <%asm_preferences_url%></body></html>`
	)
	coded := base64.StdEncoding.EncodeToString([]byte(html))
	mail := "From: app@shop.test\r\nTo: ann@away.test\r\nSubject: offers\r\nX-Postrider-Group: news\r\nX-Postrider-Track: clicks, text\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" +
		strings.Replace(text, "unsubscribe", "unsub=\r\nscribe", 1) + "--b\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
		coded[:76] + "\r\n" + coded[76:152] + "\r\n" + coded[152:] + "\r\n--b--\r\n"
	b.must(smtp.SendMail(b.Addr("plain"), smtp.PlainAuth("", b.User, b.Password, "127.0.0.1"), "app@shop.test", []string{"ann@away.test"}, []byte(mail)))
	m := b.next()
	got := b.texts(m)
	leave, click := b.path(got["text/plain"], "u"), b.path(got["text/plain"], "c")
	choose := b.path(got["text/html"], "p")
	if want := strings.NewReplacer("<%asm_group_unsubscribe_raw_url%>", leave.String(), "https://shop.test/news", click.String()).Replace(text); got["text/plain"] != strings.TrimSuffix(want, "\r\n") {
		t.Errorf("text %q, want %q", got["text/plain"], want)
	}
	if want := strings.NewReplacer("https://shop.test/news", click.String(), "&lt;%asm_group_unsubscribe_raw_url%&gt;", leave.String(),
		"<%asm_preferences_url%>", `<a href="`+choose.String()+`">Manage email preferences</a>`).Replace(html); got["text/html"] != want {
		t.Errorf("html %q, want %q", got["text/html"], want)
	}
	if link, _ := b.ways(m); link == nil || *link != *leave {
		t.Errorf("List-Unsubscribe %v, in the text %v", link, leave)
	}
	all, err := b.Deliveries(b.ctx, nil)
	b.must(err)
	i := slices.IndexFunc(all, func(d api.Delivery) bool { return d.Recipient == "ann@away.test" })
	id := all[i].Message
	b.state(id)
	for _, u := range []*url.URL{leave, choose} {
		if code := b.follow(http.MethodGet, u, ""); code != http.StatusOK {
			t.Errorf("%s: %d", u, code)
		}
	}
	if code := b.follow(http.MethodPost, leave, oneClick); code != http.StatusOK {
		t.Errorf("one click: %d", code)
	}
	if got := b.kinds(id); !slices.Equal(got, []string{"accepted", "delivered", "unsubscribed"}) {
		t.Errorf("events %v", got)
	}
	if state, category := b.state(b.submit("broadcast", &api.NewUnsubscribe{Group: "news"})); state != "cancelled" || category != "unsubscribed" {
		t.Errorf("the next one: %s %s", state, category)
	}
}

// Over HTTP the same, also of mail that can't be left else; where unsubscribing is
// switched off, the placeholder stays, with a warning.
func TestPlaceholdersOverHTTP(t *testing.T) {
	b := newBroadcasts(t)
	send := func(u *api.NewUnsubscribe) (string, *sink.Message) {
		t.Helper()
		var sent api.Sent
		b.must(b.API.Post(b.ctx, "/v1/messages", api.NewMessage{From: api.Address{Email: "app@shop.test"}, To: []api.Address{{Email: "ann@away.test"}}, Subject: "hello",
			HTML: `<p><a href="https://shop.test/">Shop</a> <a href="%7B%7Bunsubscribe_url%7D%7D">Leave ü</a></p>`, Unsubscribe: u}, &sent))
		return sent.ID, b.next()
	}
	id, m := send(nil)
	html := b.texts(m)["text/html"]
	leave := b.path(html, "u")
	if strings.Count(html, "/u/") != 1 || strings.Contains(html, "unsubscribe_url") || !strings.Contains(html, `<a href="`+leave.String()+`">Leave ü</a>`) {
		t.Errorf("arrived %s", html)
	}
	if link, _ := b.ways(m); link == nil || *link != *leave {
		t.Errorf("List-Unsubscribe %v, in the text %v", link, leave)
	}
	b.state(id)
	if code := b.follow(http.MethodPost, leave, "action=leave"); code != http.StatusOK {
		t.Errorf("the page's button: %d", code)
	}
	events := b.story(id).Events
	if last := events[len(events)-1]; last.Kind != "unsubscribed" || last.Engagement.Method != "page" || len(events) != 3 {
		t.Errorf("events %+v", events)
	}
	b.must(b.API.Delete(b.ctx, "/v1/suppressions/ann@away.test", nil))
	var warning string
	b.until("the suppression to go", func() bool {
		off := false
		var sent api.Sent
		b.must(b.API.Post(b.ctx, "/v1/messages", api.NewMessage{From: api.Address{Email: "app@shop.test"}, To: []api.Address{{Email: "ann@away.test"}}, Subject: "hello",
			Text: "Put {{unsubscribe_url}} into it.", Unsubscribe: &api.NewUnsubscribe{Enabled: &off}}, &sent))
		state, _ := b.state(sent.ID)
		warning = b.story(sent.ID).Events[0].Diagnosis.Text
		return state == "delivered"
	})
	if text := b.texts(b.next())["text/plain"]; !strings.Contains(text, "{{unsubscribe_url}}") || !strings.Contains(warning, "{{unsubscribe_url}}") {
		t.Errorf("switched off: %q, warning %q", text, warning)
	}
}
