package lab

import (
	"context"
	"errors"
	"fmt"
	"net/smtp"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"postrider/internal/api"
	"postrider/internal/config"
)

// send submits over SMTP and gives the reply of a refusal.
func (r *Relay) send(from, header string, to ...string) error {
	return smtp.SendMail(r.Addr("plain"), smtp.PlainAuth("", r.User, r.Password, "127.0.0.1"), from, to, []byte(header+"\r\n\r\nx\r\n"))
}

// refused checks that err is that reply.
func refused(t *testing.T, err error, code int, says string) {
	t.Helper()
	var reply *textproto.Error
	if !errors.As(err, &reply) || reply.Code != code || !strings.Contains(strings.ReplaceAll(reply.Msg, "\n", " "), says) {
		t.Errorf("%v; want %d … %s", err, code, says)
	}
}

// Nothing leaves in the name of a domain before its proof is published; while
// records of it are missing, the log of each message says so, or it is refused.
func TestRelayVerifiesNames(t *testing.T) {
	r := StartRelay(t, func(c *config.Config) { c.Policy.Senders = "verified" })
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	const header = "From: a@shop.test\r\nSubject: hello"
	refused(t, r.send("a@shop.test", header, "b@away.test"), 550, `5.7.1 This account may not send as <a@shop.test> (the envelope sender): shop.test is not a domain of this account. Add it with "postrider domain add shop.test"`)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(r.API.Post(ctx, "/v1/domains", map[string]string{"name": "shop.test"}, nil))
	soon := func(done func(error) bool, send func() error) error { // what is new counts within a second
		err := send()
		for !done(err) && ctx.Err() == nil {
			err = send()
		}
		return err
	}
	refused(t, soon(func(err error) bool { return err != nil && strings.Contains(err.Error(), "not seen yet") },
		func() error { return r.send("", header, "b@away.test") }), 550, "the record that shows shop.test to be this account's is not seen yet")
	var published struct {
		Records []struct{ Purpose, Name, Type, Value string }
	}
	must(r.API.Get(ctx, "/v1/domains/shop.test/records", nil, &published))
	for _, record := range published.Records {
		if record.Purpose == "ownership" {
			must(r.DNS.Add(fmt.Sprintf("%s. 0 IN TXT %q", record.Name, record.Value)))
		}
	}
	must(r.API.Post(ctx, "/v1/domains/shop.test/check", nil, nil))
	must(soon(func(err error) bool { return err == nil }, func() error { return r.send("a@mail.shop.test", header, "b@away.test") }))
	refused(t, r.send("a@shop.test", "From: a@bank.test", "b@away.test"), 550, "<a@bank.test> (the From field)")
	refused(t, r.send("a@bank.test", header, "b@away.test"), 550, "<a@bank.test> (the envelope sender)")
	all, err := r.Deliveries(ctx, nil)
	must(err)
	if len(all) != 1 {
		t.Fatalf("%d deliveries", len(all))
	}
	var story api.Story
	must(r.API.Get(ctx, "/v1/messages/"+all[0].Message, nil, &story))
	if len(story.Events) == 0 || !strings.Contains(story.Events[0].Diagnosis.Text, "DNS records of shop.test are missing or wrong") {
		t.Errorf("events %+v", story.Events)
	}
}

// A client that sends again what it does not know to have been taken gets the
// first id, and nobody gets the message twice.
func TestRelayKnowsRepeats(t *testing.T) {
	r := StartRelay(t, nil)
	for range 3 {
		if err := r.send("a@shop.test", "From: a@shop.test\r\nIdempotency-Key: order-7", "b@away.test"); err != nil {
			t.Fatal(err)
		}
	}
	refused(t, r.send("a@shop.test", "From: a@shop.test\r\nIdempotency-Key: order-7\r\nSubject: other", "b@away.test"), 554, "idempotency key")
	if all, err := r.Deliveries(t.Context(), nil); err != nil || len(all) != 1 {
		t.Errorf("%d deliveries, %v", len(all), err)
	}
}
