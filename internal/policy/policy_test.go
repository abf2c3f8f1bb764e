package policy

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"postrider/internal/account"
	"postrider/internal/relay"
)

func TestCheck(t *testing.T) {
	limits := Limits{MessageSize: 1000, Recipients: 3, Hops: 5}
	known := &account.Identity{User: "app"}
	bound := &account.Identity{User: "app", Senders: []string{"example.com"}}
	good := Facts{Size: 100, HasFrom: true}
	to := func(n int) []relay.Recipient { return slices.Repeat([]relay.Recipient{{Address: "a@example.net"}}, n) }
	for _, tt := range []struct {
		name string
		id   *account.Identity
		env  relay.Envelope
		f    Facts
		want relay.Code // empty: may go
	}{
		{"usual", known, relay.Envelope{Sender: "a@example.com", Recipients: to(1)}, good, ""},
		{"at every limit", known, relay.Envelope{Sender: "a@example.com", Recipients: to(3)}, Facts{Size: 1000, Received: 5, HasFrom: true}, ""},
		{"null sender", known, relay.Envelope{Recipients: to(1)}, good, ""},
		{"no From, but a sender", known, relay.Envelope{Sender: "a@example.com", Recipients: to(1)}, Facts{Size: 1}, ""},
		{"own domain", bound, relay.Envelope{Sender: "a@example.com", Recipients: to(1)}, good, ""},

		{"nobody", nil, relay.Envelope{Sender: "a@example.com", Recipients: to(1)}, good, relay.Unauthenticated},
		{"nobody, in all else wrong too", nil, relay.Envelope{}, Facts{Size: 1 << 40, Received: 99}, relay.Unauthenticated},
		{"no recipient", known, relay.Envelope{Sender: "a@example.com"}, good, relay.Invalid},
		{"too many recipients", known, relay.Envelope{Sender: "a@example.com", Recipients: to(4)}, good, relay.TooMany},
		{"too large", known, relay.Envelope{Sender: "a@example.com", Recipients: to(1)}, Facts{Size: 1001, HasFrom: true}, relay.TooLarge},
		{"loop", known, relay.Envelope{Sender: "a@example.com", Recipients: to(1)}, Facts{Size: 100, Received: 6, HasFrom: true}, relay.Loop},
		{"empty", known, relay.Envelope{Sender: "a@example.com", Recipients: to(1)}, Facts{}, relay.BadContent},
		{"from nobody", known, relay.Envelope{Recipients: to(1)}, Facts{Size: 100}, relay.BadContent},
		{"another's domain", bound, relay.Envelope{Sender: "a@example.org", Recipients: to(1)}, good, relay.Forbidden},
		{"null sender where one is prescribed", bound, relay.Envelope{Recipients: to(1)}, good, relay.Forbidden},
	} {
		err := Check(tt.id, tt.env, tt.f, limits)
		if tt.want == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		wantCode(t, tt.name, err, tt.want)
	}
}

func wantCode(t *testing.T, what string, err error, code relay.Code) {
	t.Helper()
	var e *relay.Error
	if !errors.As(err, &e) || e.Code != code || e.Text == "" || e.Advice == "" {
		t.Errorf("%s: error %#v; want one with code %s, text and advice", what, err, code)
	}
}

func TestCheckSender(t *testing.T) {
	senders := []string{"example.com", "Bob@example.org", "xn--bcher-kva.example"}
	for sender, allowed := range map[string]bool{
		"a@example.com":              true,
		"A@EXAMPLE.COM":              true,
		"bob@example.org":            true,
		"BOB@Example.Org":            true,
		"ann@bücher.example":         true,
		"ann@BÜCHER.example":         true,
		"ann@xn--bcher-kva.example":  true,
		`"b@d"@example.com`:          true,
		"eve@example.org":            false,
		"a@sub.example.com":          false,
		"a@example.com.evil.test":    false,
		"a@notexample.com":           false,
		`"a@example.com"@evil.test`:  false,
		"a@example.com@evil.test":    false,
		"example.com@evil.test":      false,
		"bob@example.org@evil.test":  false,
		"a@example.com>, <b@c.test":  false,
		"":                           false,
		"@":                          false,
		"xn--bcher-kva.example@evil": false,
	} {
		err := CheckSender(&account.Identity{Senders: senders}, sender)
		if allowed && err != nil {
			t.Errorf("%q: %v", sender, err)
		}
		if !allowed {
			wantCode(t, sender, err, relay.Forbidden)
			if err != nil && !strings.Contains(err.Error(), "example.com, Bob@example.org") {
				t.Errorf("%q: %v does not say which senders are allowed", sender, err)
			}
		}
		if err := CheckSender(&account.Identity{}, sender); err != nil {
			t.Errorf("%q where any sender is allowed: %v", sender, err)
		}
	}
}
