package lab

import (
	"context"
	"net/smtp"
	"testing"
	"time"
)

// A relay in the lab takes mail on its plain listener and asks its own DNS: a
// domain that is not there bounces, and the DSN, whose way is blocked as well,
// has no DSN of its own.
func TestRelayAsksItsOwnDNS(t *testing.T) {
	r := StartRelay(t, nil)
	if err := smtp.SendMail(r.Addr("plain"), smtp.PlainAuth("", r.User, r.Password, "127.0.0.1"), "me@nowhere.test", []string{"ann@missing.test"}, []byte("Subject: x\r\n\r\nx\r\n")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	all, err := r.WaitFinal(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 || all[0].Sender != "" || all[0].Recipient != "me@nowhere.test" || all[1].Recipient != "ann@missing.test" {
		t.Fatalf("deliveries: %+v", all)
	}
	for _, d := range all {
		if d.State != "bounced" || d.Reply.Enhanced != "5.1.2" {
			t.Errorf("%s is %s: %s", d.Recipient, d.State, d.Reply)
		}
	}
}
