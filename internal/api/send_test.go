package api_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net/mail"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"postrider/internal/api"
	"postrider/internal/config"
	"postrider/internal/relay"
	"postrider/internal/sink"
)

// got gives the messages that the sink has for a recipient, once there are n.
func (s *served) got(recipient string, n int) (found []*sink.Message) {
	s.Helper()
	s.until(fmt.Sprintf("%d messages for %s", n, recipient), func() bool {
		found = nil
		for _, m := range s.sink.Messages() {
			if slices.Contains(m.To(), recipient) {
				found = append(found, m)
			}
		}
		return len(found) >= n
	})
	return found
}

func TestSend(t *testing.T) {
	s := serve(t, nil)
	key := s.key(object{"name": "shop", "scopes": []string{"send", "read"}}, "")
	var sent api.Sent
	s.decode(s.ask(key, "POST", "/v1/messages", object{"from": "Ünal <orders@shop.test>", "to": []any{"ann@one.test", object{"email": "bob@two.test", "name": "Bob, the \"B\""}},
		"cc": []string{"ann@one.test"}, "bcc": []string{"hidden@three.test"}, "subject": "Größe", "text": "Hello\n.\nWorld", "html": "<p>Hello</p>",
		"headers": object{"X-Order": "1"}, "attachments": []any{object{"filename": "a.pdf", "content": "JVBERg=="}}, "tags": []string{"order"}, "metadata": object{"order": "1"}}), &sent)
	var to []string
	for i, d := range sent.Deliveries {
		to = append(to, d.Recipient)
		if want := fmt.Sprintf("%s-%d", sent.ID, i+1); d.ID != want {
			t.Errorf("delivery %s, want %s", d.ID, want)
		}
	}
	if !slices.Equal(to, []string{"ann@one.test", "bob@two.test", "hidden@three.test"}) {
		t.Errorf("recipients %q", to)
	}
	m := s.got("hidden@three.test", 1)[0]
	if m.From != "orders@shop.test" || bytes.Contains(m.Content, []byte("hidden@")) && !bytes.Contains(m.Content, []byte("for <hidden@")) {
		t.Errorf("from %s: %s", m.From, m.Content)
	}
	parsed, err := mail.ReadMessage(bytes.NewReader(m.Content))
	if err != nil {
		t.Fatal(err)
	}
	if to, err := parsed.Header.AddressList("To"); err != nil || len(to) != 2 || to[1].Name != `Bob, the "B"` {
		t.Errorf("To %v, %v", to, err)
	}
	if parsed.Header.Get("Date") == "" || parsed.Header.Get("Message-Id") == "" || parsed.Header.Get("X-Order") != "1" {
		t.Errorf("header %v", parsed.Header)
	}
	var story api.Story
	s.decode(s.ask(key, "GET", "/v1/messages/"+sent.ID, nil), &story)
	if story.App != "shop" || story.Protocol != "HTTP" || story.Listener != "api" || story.Client != "127.0.0.1" || !slices.Equal(story.Tags, []string{"order"}) || story.Metadata["order"] != "1" ||
		story.Subject != "Größe" || len(story.Deliveries) != 3 {
		t.Errorf("story %+v", story)
	}
	var first, rest api.Story // of a message with many recipients it comes in parts
	s.decode(s.ask(key, "GET", "/v1/messages/"+sent.ID+"?limit=2", nil), &first)
	s.decode(s.ask(key, "GET", "/v1/messages/"+sent.ID+"?limit=2&cursor="+first.Next, nil), &rest)
	if len(first.Deliveries) != 2 || first.Next != sent.ID+"-2" || len(rest.Deliveries) != 1 || rest.Next != "" || rest.Deliveries[0].ID != sent.ID+"-3" || len(rest.Events) == 0 || rest.Events[0].Delivery != sent.ID+"-3" {
		t.Errorf("parts %+v, %+v", first, rest)
	}
	if a := s.ask(key, "GET", "/v1/messages/"+sent.ID+"?cursor="+api.ExampleMessage+"-1", nil); a.status != 422 {
		t.Errorf("the cursor of another message: %d", a.status)
	}
	var list api.List[api.Summary]
	s.decode(s.ask(key, "GET", "/v1/messages?recipient=hidden", nil), &list)
	if len(list.Data) != 1 || list.Data[0].ID != sent.ID {
		t.Errorf("list %+v", list)
	}
}

// Addresses beyond ASCII: a domain becomes A-labels, a local part asks for
// SMTPUTF8.
func TestSendUnicode(t *testing.T) {
	s := serve(t, nil)
	key := s.key(object{"name": "shop"}, "")
	var sent api.Sent
	s.decode(s.ask(key, "POST", "/v1/messages", object{"from": "a@bücher.test", "to": []string{"ok@παράδειγμα.test", "ok.δοκιμή@x.test"}, "text": "x"}), &sent)
	if m := s.got("ok@xn--hxajbheg2az3al.test", 1)[0]; m.From != "a@xn--bcher-kva.test" {
		t.Errorf("%+v", m)
	}
	if m := s.got("ok.δοκιμή@x.test", 1)[0]; !strings.Contains(m.Params, "SMTPUTF8") {
		t.Errorf("%+v", m)
	}
}

func TestSendRaw(t *testing.T) {
	s := serve(t, nil)
	key := s.key(object{"name": "shop"}, "")
	const text = "From: Ann <ann@shop.test>\nTo: one@x.test,\n two@x.test\nBcc: three@x.test\n\tfour@x.test\nSubject: raw\nX-Odd:  kept   as it is \n\nBody\n.\n..\rend"
	kept := "X-Odd:  kept   as it is \r\n\r\nBody\r\n.\r\n..\r\nend"
	for name, a := range map[string]answer{
		"one":   s.ask(key, "POST", "/v1/messages", object{"raw": base64.StdEncoding.EncodeToString([]byte(text)), "envelope": object{"to": []string{"one@x.test"}}}),
		"mime":  s.ask(key, "POST", "/v1/messages?envelope_to=mime@x.test,mime2@x.test&envelope_from=bounce@shop.test", strings.NewReader(text), "Content-Type", "message/rfc822"),
		"two":   s.ask(key, "POST", "/v1/messages", object{"raw": base64.StdEncoding.EncodeToString([]byte(strings.Replace(text, "two@x.test", "two@x.test, \"a b\"@x.test", 1)))}),
		"null":  s.ask(key, "POST", "/v1/messages?envelope_from=<>&envelope_to=null@x.test", strings.NewReader(text), "Content-Type", "message/rfc822; charset=utf-8"),
		"given": s.ask(key, "POST", "/v1/messages", object{"raw": base64.StdEncoding.EncodeToString([]byte(text)), "from": "other@shop.test", "to": []string{"given@x.test"}}),
	} {
		var sent api.Sent
		s.decode(a, &sent)
		want := map[string]string{"one": "ann@shop.test", "two": "ann@shop.test", "mime": "bounce@shop.test", "null": "", "given": "other@shop.test"}[name]
		n := map[string]int{"one": 1, "two": 3, "mime": 2, "null": 1, "given": 1}[name]
		if len(sent.Deliveries) != n {
			t.Errorf("%s: %+v", name, sent)
		}
		m := s.got(name+"@x.test", 1)
		if got := m[len(m)-1]; got.From != want || !strings.HasSuffix(strings.TrimSuffix(string(got.Content), "\r\n"), kept) || strings.Contains(string(got.Content), "three@") || strings.Contains(string(got.Content), "four@") {
			t.Errorf("%s: from %q\n%q", name, got.From, got.Content)
		}
	}
}

// What was repeated is not sent twice; the same key for another request is an
// error.
func TestSendOnce(t *testing.T) {
	s := serve(t, nil)
	key, other := s.key(object{"name": "shop"}, ""), s.key(object{"name": "other"}, "")
	body := object{"from": "a@shop.test", "to": []string{"once@x.test", "twice@x.test"}, "text": "x"}
	var first, again api.Sent
	a := s.ask(key, "POST", "/v1/messages", body, "Idempotency-Key", "order 1")
	s.decode(a, &first)
	b := s.ask(other, "POST", "/v1/messages", body, "Idempotency-Key", "order 1")
	s.decode(b, &again)
	if first.ID != again.ID || len(again.Deliveries) != 2 || a.header.Get("Idempotent-Replayed") != "" || b.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("%+v, %+v", first, again)
	}
	body["text"] = "y"
	if c := s.ask(key, "POST", "/v1/messages", body, "Idempotency-Key", "order 1"); c.status != 409 || c.problem().Code != "conflict" {
		t.Errorf("another request with the same key: %d %s", c.status, c.body)
	}
	if c := s.ask(key, "POST", "/v1/messages", body, "Idempotency-Key", "ümlaut"); c.status != 422 || c.problem().Errors[0].Location != "header.Idempotency-Key" {
		t.Errorf("a key beyond ASCII: %d %s", c.status, c.body)
	}
	s.decode(s.ask(key, "POST", "/v1/messages", body, "Idempotency-Key", "order 2"), &again)
	if again.ID == first.ID || len(s.got("once@x.test", 2)) != 2 {
		t.Errorf("another key: %+v", again)
	}
}

// What is scheduled waits, and can be cancelled.
func TestSendLater(t *testing.T) {
	s := serve(t, nil)
	key := s.key(object{"name": "shop", "scopes": []string{"send", "manage"}}, "")
	var sent api.Sent
	s.decode(s.ask(key, "POST", "/v1/messages", object{"from": "a@shop.test", "to": []string{"later@x.test", "never@x.test"}, "text": "x", "send_at": time.Now().Add(time.Hour)}), &sent)
	var list api.List[api.Delivery]
	s.decode(s.ask(key, "GET", "/v1/deliveries?message="+sent.ID, nil), &list)
	for _, d := range list.Data {
		if d.State != "queued" || d.Due == nil || time.Until(*d.Due) < 59*time.Minute {
			t.Errorf("%+v", d)
		}
	}
	tomorrow := time.Now().Add(24 * time.Hour).UTC().Truncate(time.Second)
	var moved api.Rescheduled
	s.decode(s.ask(key, "PATCH", "/v1/messages/"+sent.ID, object{"send_at": tomorrow}), &moved)
	if moved.Rescheduled != 2 || moved.Failed != 0 || !moved.SendAt.Equal(tomorrow) {
		t.Errorf("%+v", moved)
	}
	var after api.List[api.Delivery]
	s.decode(s.ask(key, "GET", "/v1/deliveries?message="+sent.ID, nil), &after)
	for i, d := range after.Data {
		if d.State != "queued" || d.Due == nil || !d.Due.Equal(tomorrow) || d.Expires.Sub(*d.Due) != list.Data[i].Expires.Sub(*list.Data[i].Due) {
			t.Errorf("moved to %s: %+v", tomorrow, d)
		}
	}
	for _, body := range []string{"{}", `{"send_at": "soon"}`, fmt.Sprintf(`{"send_at": %q}`, time.Now().Add(40*24*time.Hour).Format(time.RFC3339))} {
		if a := s.ask(key, "PATCH", "/v1/messages/"+sent.ID, strings.NewReader(body)); a.status != 422 || len(a.problem().Errors) == 0 {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	var cancelled api.Cancelled
	s.decode(s.ask(key, "DELETE", "/v1/messages/"+sent.ID, nil), &cancelled)
	if cancelled.Cancelled != 2 {
		t.Errorf("%+v", cancelled)
	}
	s.decode(s.ask(key, "GET", "/v1/deliveries?message="+sent.ID, nil), &list)
	if list.Data[0].State != "cancelled" || list.Data[1].State != "cancelled" {
		t.Errorf("%+v", list)
	}
	if a := s.ask(key, "DELETE", "/v1/messages/"+sent.ID, nil); a.status != 409 {
		t.Errorf("cancel again: %d %s", a.status, a.body)
	}
	if a := s.ask(key, "PATCH", "/v1/messages/"+sent.ID, object{"send_at": tomorrow}); a.status != 409 {
		t.Errorf("reschedule what is cancelled: %d %s", a.status, a.body)
	}
	// A time that is past sends at once.
	s.decode(s.ask(key, "POST", "/v1/messages", object{"from": "a@shop.test", "to": []string{"soon@x.test"}, "text": "x", "send_at": tomorrow}), &sent)
	s.decode(s.ask(key, "PATCH", "/v1/messages/"+sent.ID, object{"send_at": time.Now().Add(-time.Hour)}), &moved)
	s.until("it is delivered", func() bool {
		s.decode(s.ask(key, "GET", "/v1/deliveries?message="+sent.ID, nil), &after)
		return after.Data[0].State == "delivered"
	})
}

// Each refusal names its field.
func TestSendRefuses(t *testing.T) {
	s := serve(t, func(c *config.Config) { c.Limits.MessageSize, c.Limits.Recipients = 100<<10, 3 })
	key := s.key(object{"name": "shop"}, "")
	many := make([]string, 4)
	for i := range many {
		many[i] = fmt.Sprintf("r%d@x.test", i)
	}
	for _, tt := range []struct {
		change   object
		status   int
		location string
	}{
		{object{"from": nil}, 422, "body.from"},
		{object{"from": "ann"}, 422, "body.from"},
		{object{"from": 7}, 422, "body.from"},
		{object{"from": object{"name": "x"}}, 422, "body.from"},
		{object{"to": []any{}}, 422, "body.to"},
		{object{"to": []any{"a@x.test", "b@x.test, c@x.test"}}, 422, "body.to[1]"},
		{object{"to": []any{"Ann\r\nBcc: evil@x.test <a@x.test>"}}, 422, "body.to[0]"},
		{object{"to": []any{"a@" + strings.Repeat("x", 64) + ".test"}}, 422, "body.to[0]"},
		{object{"to": []any{strings.Repeat("a", 312) + "@x.test"}}, 422, "body.to[0]"},
		{object{"to": []any{"a@[127.0.0.1]"}}, 422, ""},
		{object{"bcc": []any{"x"}}, 422, "body.bcc[0]"},
		{object{"to": many}, 422, "body.to"},
		{object{"subject": "a\r\nX: y"}, 422, "body.subject"},
		{object{"text": ""}, 422, "body.text"},
		{object{"text": strings.Repeat("x", 120<<10)}, 413, ""},
		{object{"text": strings.Repeat("x", 2<<20)}, 413, ""},
		{object{"headers": object{"Bcc": "a@x.test"}}, 422, "body.headers.Bcc"},
		{object{"headers": object{"X-A": "a\nb"}}, 422, "body.headers.X-A"},
		{object{"attachments": []any{object{"content": "!!"}}}, 422, "body.attachments[0].content"},
		{object{"attachments": []any{object{"content": "eA==", "filename": "a\nb"}}}, 422, "body.attachments[0].filename"},
		{object{"raw": "eA=="}, 422, "body.text"},
		{object{"text": nil, "raw": base64.StdEncoding.EncodeToString([]byte("no header\r\n\r\nx"))}, 422, "body.raw"},
		{object{"envelope": object{"from": "x"}}, 422, "body.envelope.from"},
		{object{"envelope": object{"to": []string{"x"}}}, 422, "body.envelope.to[0]"},
		{object{"stream": "fast"}, 422, "body.stream"},
		{object{"send_at": "tomorrow"}, 422, "body.send_at"},
		{object{"send_at": time.Now().Add(40 * 24 * time.Hour)}, 422, "body.send_at"},
		{object{"tags": []string{"a\nb"}}, 422, "body.tags[0]"},
		{object{"tags": strings.Split(strings.Repeat("x", 11), "")}, 422, "body.tags"},
		{object{"metadata": object{"a": strings.Repeat("x", 501)}}, 422, "body.metadata.a"},
		{object{"nonsense": 1}, 422, "body.nonsense"},
	} {
		body := object{"from": "a@shop.test", "to": []string{"refused@x.test"}, "text": "x"}
		for k, v := range tt.change {
			if body[k] = v; v == nil {
				delete(body, k)
			}
		}
		a := s.ask(key, "POST", "/v1/messages", body)
		p := a.problem()
		if a.status != tt.status || p.Status != tt.status || p.Detail == "" || p.RequestID == "" {
			t.Errorf("%.200v: %d %.300s; want %d", tt.change, a.status, a.body, tt.status)
		}
		if tt.location != "" && (len(p.Errors) == 0 || p.Errors[0].Location != tt.location) {
			t.Errorf("%.200v: errors %+v; want %s", tt.change, p.Errors, tt.location)
		}
	}
	if n := len(s.sink.Messages()); n > 0 {
		t.Errorf("%d messages were sent", n)
	}
	broadcast := s.key(object{"name": "news", "stream": "broadcast"}, "")
	if a := s.ask(broadcast, "POST", "/v1/messages", object{"from": "a@shop.test", "to": []string{"x@x.test"}, "text": "x", "stream": "transactional"}); a.status != 403 {
		t.Errorf("a broadcast that would overtake: %d %s", a.status, a.body)
	}
	if a := s.ask(key, "POST", "/v1/messages", io.LimitReader(endless{}, 3<<20)); a.status != 413 && a.status != 422 {
		t.Errorf("an endless body: %d %.200s", a.status, a.body)
	}
}

// A limit that is used up, and a name that is not the account's: the words and
// codes are those that SMTP has.
func TestSendHeldToRules(t *testing.T) {
	s := serve(t, nil)
	var made api.Account
	if err := s.API.Post(t.Context(), "/v1/accounts", object{"name": "strict", "senders": "verified", "limits": []string{"9 recipients/hour"}}, &made); err != nil {
		t.Fatal(err)
	}
	if err := s.API.Post(t.Context(), "/v1/accounts", object{"name": "small", "senders": "any", "limits": []string{"2 recipients/month", "100 messages/second"}}, &made); err != nil {
		t.Fatal(err)
	}
	body := object{"from": "a@shop.test", "to": []string{"x@x.test"}, "text": "x"}
	a := s.ask(s.key(object{"name": "strict"}, "strict"), "POST", "/v1/messages", body)
	if p := a.problem(); a.status != 403 || p.Code != "unverified" || p.Enhanced != "5.7.1" || !strings.Contains(p.Advice, "domain add") || len(p.Errors) != 1 || p.Errors[0].Location != "body.from" {
		t.Errorf("not verified: %d %s", a.status, a.body)
	}
	key := s.key(object{"name": "small"}, "small")
	month := int(relay.PerMonth.End(time.Now()).Sub(relay.PerMonth.Start(time.Now())).Seconds()) // an hour may end at any time
	for left := 1; left >= 0; left-- {
		a := s.ask(key, "POST", "/v1/messages", body)
		if want := fmt.Sprintf(`"recipients/month";r=%d;t=`, left); a.status != 202 || !strings.HasPrefix(a.header.Get("RateLimit"), want) || a.header.Get("RateLimit-Policy") != fmt.Sprintf(`"recipients/month";q=2;w=%d, "messages/second";q=100;w=1`, month) {
			t.Errorf("%d %v; want %s", a.status, a.header, want)
		}
	}
	a = s.ask(key, "POST", "/v1/messages", body)
	retry, err := strconv.Atoi(a.header.Get("Retry-After"))
	if p := a.problem(); a.status != 429 || p.Code != "rate-limited" || p.Enhanced != "4.7.1" || err != nil || retry < 1 || retry > month || !strings.Contains(a.header.Get("RateLimit"), "r=0") {
		t.Errorf("used up: %d %v %s", a.status, a.header, a.body)
	}
	var list api.List[api.LimitState]
	if err := s.API.Get(t.Context(), "/v1/limits", url.Values{"account": {"small"}}, &list); err != nil || len(list.Data) != 2 || list.Data[0].Used != 2 {
		t.Errorf("%+v, %v", list, err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '['
	}
	return len(p), nil
}
