package policy

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"postrider/internal/account"
	"postrider/internal/message"
	"postrider/internal/relay"
)

var (
	limits = Limits{MessageSize: 1000, Recipients: 3, Hops: 5}
	strict = Rules{Senders: relay.SendersVerified, DNS: relay.DNSWarn, Sandbox: 10}
	lax    = Rules{Senders: relay.SendersAny, DNS: relay.DNSWarn, Sandbox: 10}
	noon   = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)
)

// held is what the test's account has: by domain, and single addresses.
func held(key, domain string) Standing {
	switch key {
	case "ann@mail.test":
		return Standing{Sender: true}
	case "":
		return Standing{}
	}
	for name, d := range map[string]relay.Domain{
		"example.com":           {Verified: noon},
		"xn--bcher-kva.example": {Verified: noon},
		"new.example":           {},
		"gone.example":          {Failing: noon},
		"broken.example": {Verified: noon, Failing: noon, Findings: []relay.Finding{{Check: "dkim", Name: "s1._domainkey.broken.example", Status: relay.Bad},
			{Check: "dmarc", Status: relay.Warning}, {Check: "spf", Status: relay.Unknown}}},
		"late.example": {Verified: noon, Failing: noon},
	} {
		if domain == name || strings.HasSuffix(domain, "."+name) {
			d.Name = name
			return Standing{Domain: &d}
		}
	}
	return Standing{}
}

// given makes a case of an envelope sender and a header.
func given(t *testing.T, sender, content string, change func(*Case)) Case {
	t.Helper()
	f, err := message.Scan(message.Bytes([]byte(content)))
	if err != nil {
		t.Fatal(err)
	}
	c := Case{Identity: &account.Identity{User: "app"}, Account: &relay.Account{Status: relay.Active}, Rules: strict, Limits: limits,
		Envelope: &relay.Envelope{Sender: sender, Recipients: []relay.Recipient{{Address: "bob@example.net"}}},
		Size:     int64(len(content)), Facts: &f, Standing: map[string]Standing{}}
	if change != nil {
		change(&c)
	}
	c.Names = Names(*c.Envelope, c.Facts)
	for _, n := range c.Names {
		c.Standing[n.Key] = held(n.Key, n.Domain)
	}
	return c
}

// sandboxed stands for a verdict that the message goes to own addresses only.
const sandboxed relay.Code = "sandboxed"

// judge gives the code of what Check says, and its text.
func judge(c Case) (relay.Code, string) {
	v, err := Check(c)
	if err == nil && v.Sandbox != nil {
		return sandboxed, v.Sandbox.Error()
	}
	if err != nil {
		return relay.CodeOf(err), err.Error()
	}
	return "", ""
}

func TestCheckForm(t *testing.T) {
	to := func(n int) func(*Case) {
		return func(c *Case) { c.Envelope.Recipients = slices.Repeat([]relay.Recipient{{Address: "a@example.net"}}, n) }
	}
	const good = "From: a@example.com\r\nSubject: x\r\n\r\nx\r\n"
	pad := func(n int) string { return good + strings.Repeat("x", n-len(good)) }
	for _, tt := range []struct {
		name            string
		sender, content string
		change          func(*Case)
		want            relay.Code // empty: may go
		says            string
	}{
		{"usual", "a@example.com", good, nil, "", ""},
		{"at every limit", "a@example.com", strings.Repeat("Received: x\r\n", 5) + pad(1000-65), to(3), "", ""},
		{"null sender", "", good, nil, "", ""},
		{"no From, but a sender", "a@example.com", "x", nil, "", ""},
		{"no header", "a@example.com", "Hello\r\n", nil, "", ""},
		{"8-bit without declaration", "a@example.com", good + "\xe9", nil, "", ""},

		{"nobody", "a@example.com", good, func(c *Case) { c.Identity = nil }, relay.Unauthenticated, "Log in"},
		{"nobody, in all else wrong too", "", "", func(c *Case) { c.Identity = nil; c.Envelope.Recipients = nil }, relay.Unauthenticated, ""},
		{"no recipient", "a@example.com", good, to(0), relay.Invalid, ""},
		{"too many recipients", "a@example.com", good, to(4), relay.TooMany, "4 recipients; 3 are allowed"},
		{"too large", "a@example.com", pad(1001), nil, relay.TooLarge, "1001 bytes; 1000 are allowed"},
		{"loop", "a@example.com", strings.Repeat("Received: x\r\n", 6) + good, nil, relay.Loop, "6 servers"},
		{"empty", "a@example.com", "", nil, relay.BadContent, "empty"},
		{"from nobody", "", "Subject: x\r\n\r\n", nil, relay.BadContent, "neither"},
		{"bare LF", "a@example.com", good + "\n.\n", nil, relay.BadContent, "CR or LF"},
		{"two From fields", "a@example.com", "From: a@example.com\r\n" + good, nil, relay.BadContent, "2 From fields"},
		{"two From fields where anybody's name goes", "a@example.com", "From: a@example.com\r\n" + good, func(c *Case) { c.Rules = lax }, relay.BadContent, "2 From fields"},
		{"blocked account", "a@example.com", good, func(c *Case) { c.Account.Status, c.Account.Reason = relay.Blocked, "unpaid." }, relay.Forbidden, "blocked. The reason: unpaid. Ask"},
		{"closed account", "a@example.com", good, func(c *Case) { c.Account.Closed = noon }, relay.Forbidden, "closed"},
	} {
		code, text := judge(given(t, tt.sender, tt.content, tt.change))
		if code != tt.want || !strings.Contains(text, tt.says) {
			t.Errorf("%s: %q %s; want %q and %q", tt.name, code, text, tt.want, tt.says)
		}
	}
}

// Nothing is sent in somebody else's name.
func TestCheckNames(t *testing.T) {
	bound := func(c *Case) { c.Identity = &account.Identity{Senders: []string{"ann@mail.test", "sub.example.com"}} }
	for _, tt := range []struct {
		name           string
		sender, header string
		change         func(*Case)
		want           relay.Code
		says           string
	}{
		{"own domain", "a@example.com", "From: A <a@example.com>", nil, "", ""},
		{"own domain, in other case", "A@EXAMPLE.com", "From: A <a@Example.COM>", nil, "", ""},
		{"subdomain", "a@x.y.example.com", "From: a@mail.example.com", nil, "", ""},
		{"verified sender", "ann@mail.test", "From: \"Ann\" <ann@mail.test>", nil, "", ""},
		{"verified sender, in other case", "Ann@mail.test", "From: ANN@MAIL.TEST", nil, "", ""},
		{"IDN", "a@bücher.example", "From: =?utf-8?q?B=C3=BC?= <a@xn--bcher-kva.example>", nil, "", ""},
		{"IDN, as U-labels", "a@xn--bcher-kva.example", "From: a@BÜCHER.example", nil, "", ""},
		{"null sender", "", "From: a@example.com", nil, "", ""},
		{"quoted local part", `"a@b"@example.com`, `From: "a@bank.test" <"a b"@example.com>`, nil, "", ""},
		{"comments", "a@example.com", "From: (x@bank.test) a (y) @ (z) example.com", nil, "", ""},
		{"folded", "a@example.com", "From: A\r\n <a@example.com>", nil, "", ""},
		{"encoded name with another's address", "a@example.com", "From: =?utf-8?q?ceo=40bank=2Etest?= <a@example.com>", nil, "", ""},
		{"several with Sender", "a@example.com", "From: a@example.com, ann@mail.test\r\nSender: a@example.com", nil, "", ""},
		{"group with Sender", "a@example.com", "From: Team: a@example.com, b@example.com;\r\nSender: a@example.com", nil, "", ""},
		{"one, written twice", "a@example.com", "From: a@example.com <a@example.com>", nil, "", ""},
		{"resent by ours", "a@example.com", "Resent-From: a@example.com\r\nFrom: b@example.com", nil, "", ""},
		{"old resent block of another", "a@example.com", "Resent-From: a@example.com\r\nReceived: x\r\nResent-From: x@bank.test\r\nFrom: b@example.com", nil, "", ""},
		{"anybody's", "x@bank.test", "From: y@bank.test", func(c *Case) { c.Rules = lax }, "", ""},
		{"anybody's, and hard to read", "x@bank.test", "From: Doe, John <x@bank.test>", func(c *Case) { c.Rules = lax }, "", ""},
		{"bound, within", "Ann@Mail.test", "From: a@sub.example.com", bound, "", ""},
		{"bound, null sender", "", "From: ann@mail.test", bound, "", ""},

		{"another's From", "a@example.com", "From: x@bank.test", nil, sandboxed, "<x@bank.test> (the From field): bank.test is not a domain of this account. Add it with \"postrider domain add bank.test\""},
		{"another's envelope sender", "x@bank.test", "From: a@example.com", nil, sandboxed, "<x@bank.test> (the envelope sender)"},
		{"another's Sender", "a@example.com", "From: a@example.com\r\nSender: x@bank.test", nil, sandboxed, "(the Sender field)"},
		{"one of several", "a@example.com", "From: a@example.com, x@bank.test\r\nSender: a@example.com", nil, sandboxed, "x@bank.test"},
		{"one of a group", "a@example.com", "From: T: a@example.com, X <x@bank.test>;\r\nSender: a@example.com", nil, sandboxed, "x@bank.test"},
		{"own name before another's address", "a@example.com", "From: a@example.com <x@bank.test>\r\nSender: a@example.com", nil, sandboxed, "x@bank.test"},
		{"another's address as a name", "a@example.com", "From: x@bank.test <a@example.com>\r\nSender: a@example.com", nil, sandboxed, "x@bank.test"},
		{"domain that only ends like ours", "a@notexample.com", "From: a@example.com", nil, sandboxed, "notexample.com is not"},
		{"our domain as a part of another", "a@example.com.evil.test", "From: a@example.com", nil, sandboxed, "evil.test"},
		{"another at a shared domain", "eve@mail.test", "From: eve@mail.test", nil, sandboxed, "eve@mail.test"},
		{"address literal", "a@example.com", "From: a@[192.0.2.1]", nil, sandboxed, "no address with a domain"},
		{"320 octets", "a@example.com", "From: " + strings.Repeat("l", 64) + "@" + strings.Repeat(strings.Repeat("d", 62)+".", 4) + "com", nil, sandboxed, "may not send as"},
		{"asked for, not verified", "a@new.example", "From: a@new.example", nil, sandboxed, "new.example to be this account's is not seen yet. See \"postrider domain check new.example\". Until then mail goes to your own verified addresses only."},
		{"not verified, no sandbox", "a@new.example", "From: a@new.example", func(c *Case) { c.Rules.Sandbox = 0 }, relay.Unverified, "See \"postrider domain check new.example\"."},
		{"records gone", "a@gone.example", "From: a@gone.example", nil, sandboxed, "records of gone.example have been missing since 2030-01-02"},
		{"another's, passed on by ours", "a@example.com", "Resent-From: a@example.com\r\nFrom: x@bank.test", nil, sandboxed, "DMARC"},
		{"passed on in another's name", "a@example.com", "Resent-From: x@bank.test\r\nFrom: a@example.com", nil, sandboxed, "(the Resent-From field)"},
		{"sender of it in another's name", "a@example.com", "Resent-From: a@example.com\r\nResent-Sender: x@bank.test\r\nFrom: a@example.com", nil, sandboxed, "(the Resent-Sender field)"},
		{"account in the sandbox", "a@example.com", "From: a@example.com", func(c *Case) { c.Account.Status, c.Account.Reason = relay.Sandbox, "new" }, sandboxed, "own verified addresses only. The reason: new."},
		{"account in the sandbox, where anybody's name goes", "a@bank.test", "From: a@bank.test", func(c *Case) { c.Account.Status = relay.Sandbox; c.Rules = lax }, sandboxed, "own verified addresses only."},
		{"account in the sandbox, no sandbox", "a@example.com", "From: a@example.com", func(c *Case) { c.Account.Status = relay.Sandbox; c.Rules.Sandbox = 0 }, relay.Unverified, "own verified addresses only."},

		{"bound, another's From", "ann@mail.test", "From: a@example.com", bound, relay.Forbidden, "<a@example.com>, as the From field has it. Send as one of: ann@mail.test, sub.example.com."},
		{"bound, another's Sender", "ann@mail.test", "From: ann@mail.test\r\nSender: b@example.com", bound, relay.Forbidden, "Sender field"},
		{"bound, null sender, another's From", "", "From: a@example.com", bound, relay.Forbidden, "From field"},
		{"bound, where anybody's name goes", "ann@mail.test", "From: a@example.com", func(c *Case) { bound(c); c.Rules = lax }, relay.Forbidden, "From field"},

		{"several without Sender", "a@example.com", "From: a@example.com, ann@mail.test", nil, relay.BadContent, "no Sender field"},
		{"group without Sender", "a@example.com", "From: T: a@example.com, b@example.com;", nil, relay.BadContent, "no Sender field"},
		{"two Sender fields", "a@example.com", "From: a@example.com\r\nSender: a@example.com\r\nSender: b@example.com", nil, relay.BadContent, "Sender field names several"},
		{"Sender with two", "a@example.com", "From: a@example.com\r\nSender: a@example.com, b@example.com", nil, relay.BadContent, "Sender field names several"},
		{"empty Sender", "a@example.com", "From: a@example.com\r\nSender:", nil, relay.BadContent, "Sender field names nobody"},
		{"empty From", "a@example.com", "From:", nil, relay.BadContent, "From field names nobody"},
		{"empty group", "a@example.com", "From: Undisclosed:;", nil, relay.BadContent, "From field names nobody"},
		{"hard to read", "a@example.com", "From: Doe, John <a@example.com>", nil, relay.BadContent, "The From field can't be read: \"Doe\" is no address"},
		{"with a route", "a@example.com", "From: <@bank.test:a@example.com>", nil, relay.BadContent, "can't be read"},
		{"several resend", "a@example.com", "Resent-From: a@example.com, b@example.com\r\nFrom: a@example.com", nil, relay.BadContent, "no Resent-Sender field"},
		{"a line that is no field", "a@example.com", "From: a@example.com\r\nwhat is this\r\nFrom: x@bank.test", nil, relay.BadContent, "not a field"},
		{"bound, hard to read, where anybody's name goes", "ann@mail.test", "From: ann@mail.test, <", func(c *Case) { bound(c); c.Rules = lax }, relay.BadContent, "can't be read"},
	} {
		code, text := judge(given(t, tt.sender, tt.header+"\r\n\r\nx\r\n", tt.change))
		if code != tt.want || !strings.Contains(text, tt.says) {
			t.Errorf("%s: %q %s\nwant %q and %q", tt.name, code, text, tt.want, tt.says)
		}
	}
}

// Each refusal says how to mend what it refuses.
func TestRefusalsAdvise(t *testing.T) {
	for _, header := range []string{"From: x@bank.test", "From: x@new.example", "From: x@gone.example", "From: <", "From: a@example.com, b@example.com", ""} {
		for _, sender := range []string{"", "a@example.com", "a@bank.test"} {
			v, err := Check(given(t, sender, header+"\r\n\r\nx\r\n", nil))
			for _, err := range []error{v.Sandbox, err} {
				var e *relay.Error
				if err != nil && (!errors.As(err, &e) || e.Code == "" || e.Text == "" || e.Advice == "") {
					t.Errorf("%s, %s: %#v", sender, header, err)
				}
			}
		}
	}
}

func TestCheckWarns(t *testing.T) {
	refusing := func(c *Case) { c.Rules.DNS = relay.DNSRefuse }
	for _, tt := range []struct {
		name, content string
		change        func(*Case)
		want          string // of the first warning; empty: none
		code          relay.Code
	}{
		{"nothing", "From: a@example.com\r\n\r\nx\r\n", nil, "", ""},
		{"broken records", "From: a@broken.example\r\n\r\n", nil, "broken.example are missing or wrong: dkim (s1._domainkey.broken.example).", ""},
		{"broken records, of a subdomain", "From: a@x.broken.example\r\n\r\n", nil, "broken.example are missing or wrong: dkim", ""},
		{"broken records, refused", "From: a@broken.example\r\n\r\n", refusing, "", relay.Forbidden},
		{"missing records", "From: a@late.example\r\n\r\n", nil, "DNS records of late.example have been missing since 2030-01-02.", ""},
		{"missing records, refused", "From: a@late.example\r\n\r\n", refusing, "", relay.Forbidden},
		{"good records, refused otherwise", "From: a@example.com\r\n\r\n", refusing, "", ""},
		{"8-bit without declaration", "From: a@example.com\r\n\r\n\xe9\r\n", nil, "bytes above 127", ""},
		{"8-bit with half a declaration", "From: a@example.com\r\nMIME-Version: 1.0\r\n\r\n\xe9\r\n", nil, "bytes above 127", ""},
		{"8-bit with declaration", "From: a@example.com\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\xe9\r\n", nil, "", ""},
		{"fields twice", "From: a@example.com\r\nSubject: a\r\nSubject: b\r\nDate: a\r\nDate: b\r\n\r\n", nil, "more than one field Subject, Date", ""},
		{"From that is hard to read", "From: Doe, John <a@example.com>\r\n\r\n", func(c *Case) { c.Rules = lax }, "can't be read for sure", ""},
	} {
		v, err := Check(given(t, "a@example.com", tt.content, tt.change))
		var e *relay.Error
		if tt.code != "" && (!errors.As(err, &e) || e.Code != tt.code || e.Enhanced != "5.7.26" || e.Advice == "") || tt.code == "" && err != nil {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.code)
		}
		got := ""
		if len(v.Warnings) > 0 {
			got = v.Warnings[0].Text
			if v.Warnings[0].Advice == "" || v.Warnings[0].Category == "" {
				t.Errorf("%s: %+v", tt.name, v.Warnings[0])
			}
		}
		if (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: warning %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestRulesFor(t *testing.T) {
	if got := strict.For(&relay.Account{}); got != strict {
		t.Errorf("an account without rules: %+v", got)
	}
	if got := strict.For(&relay.Account{Senders: relay.SendersAny, DNS: relay.DNSRefuse}); got.Senders != relay.SendersAny || got.DNS != relay.DNSRefuse {
		t.Errorf("an account with rules: %+v", got)
	}
}

func wantCode(t *testing.T, what string, err error, code relay.Code) {
	t.Helper()
	var e *relay.Error
	if !errors.As(err, &e) || e.Code != code || e.Text == "" || e.Advice == "" {
		t.Errorf("%s: error %#v; want one with code %s, text and advice", what, err, code)
	}
}

func TestUnverified(t *testing.T) {
	for sender, allowed := range map[string]bool{"a@example.com": true, "ann@mail.test": true, "a@new.example": false, "a@bank.test": false, "root": false, "a@[192.0.2.1]": false} {
		n, ok := Sender(sender)
		if !ok {
			t.Fatalf("%s is the null sender", sender)
		}
		err := Unverified(strict, n, held(n.Key, n.Domain))
		if allowed && err != nil {
			t.Errorf("%s: %v", sender, err)
		} else if !allowed {
			wantCode(t, sender, err, relay.Unverified)
		}
		if err := Unverified(lax, n, held(n.Key, n.Domain)); err != nil {
			t.Errorf("%s, where anybody's name goes: %v", sender, err)
		}
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
		"":                           true, // its From is looked at
		"eve@example.org":            false,
		"a@sub.example.com":          false,
		"a@example.com.evil.test":    false,
		"a@notexample.com":           false,
		`"a@example.com"@evil.test`:  false,
		"a@example.com@evil.test":    false,
		"example.com@evil.test":      false,
		"bob@example.org@evil.test":  false,
		"a@example.com>, <b@c.test":  false,
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
