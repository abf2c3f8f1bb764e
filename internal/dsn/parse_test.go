package dsn

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	postfix = lines("Return-Path: <>", "Date: Fri,  2 Jan 2026 12:00:00 +0100 (CET)", "From: MAILER-DAEMON@mail.example (Mail Delivery System)",
		"Subject: Undelivered Mail Returned to Sender", "To: bounces@relay.example", "Auto-Submitted: auto-replied", "MIME-Version: 1.0",
		`Content-Type: multipart/report; report-type=delivery-status;`, "\t"+`boundary="4F1.1767351600/mail.example"`, "Message-Id: <20260102110000.4F1@mail.example>", "",
		"This is a MIME-encapsulated message.", "", "--4F1.1767351600/mail.example", "Content-Description: Notification", "Content-Type: text/plain; charset=us-ascii", "",
		"This is the mail system at host mail.example.", "", "--4F1.1767351600/mail.example", "Content-Description: Delivery report", "Content-Type: message/delivery-status", "",
		"Reporting-MTA: dns; mail.example", "X-Postfix-Queue-ID: 4F1", "X-Postfix-Sender: rfc822; bounces@relay.example", "Arrival-Date: Fri,  2 Jan 2026 11:59:00 +0100 (CET)", "",
		"Final-Recipient: rfc822; bob@example.net", "Original-Recipient: rfc822;bob@example.net", "Action: failed", "Status: 5.1.1", "Remote-MTA: dns; mx.example.net",
		"Diagnostic-Code: smtp; 550 5.1.1 <bob@example.net>: Recipient address rejected:", "    User unknown", "", "--4F1.1767351600/mail.example",
		"Content-Description: Undelivered Message", "Content-Type: message/rfc822", "", "Received: from a by b", "Message-ID: <o@example.com>", "Subject: x", "",
		"Message-ID: <not this>", "--4F1.1767351600/mail.example--")

	exchange = lines("From: postmaster@corp.example", "To: <bounces@relay.example>", "Date: Fri, 2 Jan 2026 11:00:00 +0000",
		`Content-Type: multipart/report; report-type=delivery-status;boundary="_000_"`, "In-Reply-To: <o@example.com>", "Message-ID: <x@CORP>", "", "--_000_",
		`Content-Type: multipart/alternative; differences=Content-Type;`, ` boundary="_001_"`, "", "--_001_", "Content-Type: text/html", "", "<p>Undeliverable</p>", "--_001_--",
		"--_000_", "Content-Type: message/delivery-status", "", "Reporting-MTA: dns;HUB01.corp.example", "Received-From-MTA: dns;mail.relay.example", "Arrival-Date: Fri, 2 Jan 2026 10:59:00 +0000", "",
		"Original-Recipient: rfc822;bob@corp.example", "Final-Recipient: rfc822;bob@corp.example", "Action: failed", "Status: 5.1.10",
		"Diagnostic-Code: smtp;550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", "X-Display-Name: Bob", "",
		"Original-Recipient: RFC822;<eve@corp.example>", "Final-Recipient: RFC822;<eve@corp.example>", "Action: Delayed", "Status: 4.4.7 (expired)",
		"Will-Retry-Until: Sat, 3 Jan 2026 10:59:00 +0000", "--_000_", "Content-Type: text/rfc822-headers", "", "Subject: x", "--_000_--")

	// bare is all one group, without types, status or action, in base64.
	bare = lines("To: bounces@relay.example", "Content-Type: multipart/report; boundary=b", "", "--b", "Content-Type: message/delivery-status", "Content-Transfer-Encoding: base64", "",
		// "Reporting-MTA: mail.example\r\nFinal-Recipient: bob@example.net\r\nthis is no field\r\nDiagnostic-Code: 552 5.2.2 mailbox; full\r\n"
		"UmVwb3J0aW5nLU1UQTogbWFpbC5leGFtcGxlDQpGaW5hbC1SZWNpcGllbnQ6IGJvYkBleGFtcGxl", "Lm5ldA0KdGhpcyBpcyBubyBmaWVsZA0KRGlhZ25vc3RpYy1Db2RlOiA1NTIgNS4yLjIgbWFpbGJv", "eDsgZnVsbA0K", "--b--")
)

func TestParseForeign(t *testing.T) {
	utc := func(day, hour, minute int) time.Time { return time.Date(2026, 1, day, hour, minute, 0, 0, time.UTC) }
	for name, tt := range map[string]struct {
		in   string
		want Report
	}{
		"Postfix": {postfix, Report{Kind: Failed, From: "MAILER-DAEMON@mail.example", To: "bounces@relay.example", ReportingMTA: "mail.example",
			MessageID: "<20260102110000.4F1@mail.example>", OriginalID: "<o@example.com>", Arrival: utc(2, 10, 59), Now: utc(2, 11, 0),
			Recipients: []Recipient{{Final: "bob@example.net", ORcpt: "rfc822;bob@example.net", Action: ActionFailed, Status: "5.1.1", RemoteMTA: "mx.example.net",
				Reply: "550 5.1.1 <bob@example.net>: Recipient address rejected: User unknown"}}}},
		"bare line ends": {strings.ReplaceAll(postfix, "\r", ""), Report{Kind: Failed, From: "MAILER-DAEMON@mail.example", To: "bounces@relay.example", ReportingMTA: "mail.example",
			MessageID: "<20260102110000.4F1@mail.example>", OriginalID: "<o@example.com>", Arrival: utc(2, 10, 59), Now: utc(2, 11, 0),
			Recipients: []Recipient{{Final: "bob@example.net", ORcpt: "rfc822;bob@example.net", Action: ActionFailed, Status: "5.1.1", RemoteMTA: "mx.example.net",
				Reply: "550 5.1.1 <bob@example.net>: Recipient address rejected: User unknown"}}}},
		"Exchange": {exchange, Report{Kind: Failed, From: "postmaster@corp.example", To: "bounces@relay.example", ReportingMTA: "HUB01.corp.example",
			MessageID: "<x@CORP>", OriginalID: "<o@example.com>", Arrival: utc(2, 10, 59), Now: utc(2, 11, 0),
			Recipients: []Recipient{
				{Final: "bob@corp.example", ORcpt: "rfc822;bob@corp.example", Action: ActionFailed, Status: "5.1.10",
					Reply: "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup"},
				{Final: "eve@corp.example", ORcpt: "rfc822;eve@corp.example", Action: ActionDelayed, Status: "4.4.7", Reply: "expired", WillRetry: utc(3, 10, 59)},
			}}},
		"bare": {bare, Report{Kind: Failed, To: "bounces@relay.example", ReportingMTA: "mail.example",
			Recipients: []Recipient{{Final: "bob@example.net", Action: ActionFailed, Status: "5.2.2", Reply: "552 5.2.2 mailbox; full"}}}},
		"status alone": {lines("Content-Type: message/delivery-status", "", "", "", "Reporting-MTA: dns; m", " ", "Final-Recipient: rfc822; a@b", "Action: delivered", "Final-Recipient: rfc822; c@d"),
			Report{Kind: Delivered, ReportingMTA: "m", Recipients: []Recipient{{Final: "a@b", Action: ActionDelivered}, {Final: "c@d"}}}},
	} {
		got, err := Parse(strings.NewReader(tt.in))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(tt.want, got, sameTimes); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"empty":           "",
		"ordinary mail":   lines("Subject: Hello", "", "Final-Recipient: rfc822; bob@example.net"),
		"no recipient":    lines("Content-Type: message/delivery-status", "", "Reporting-MTA: dns; m", "", "Action: failed"),
		"a bounce inside": lines("Content-Type: message/rfc822", "", "Content-Type: message/delivery-status", "", "Final-Recipient: rfc822; a@b"),
	} {
		if r, err := Parse(strings.NewReader(in)); !errors.Is(err, ErrNotReport) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	bad := errors.New("disk on fire")
	if _, err := Parse(io.MultiReader(strings.NewReader(postfix[:900]), iotest.ErrReader(bad))); !errors.Is(err, bad) {
		t.Error(err)
	}
}

func TestParseIsBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString("Content-Type: message/delivery-status\r\n\r\n")
	for i := range 5000 {
		fmt.Fprintf(&b, "\r\nFinal-Recipient: rfc822; %d@b\r\nDiagnostic-Code: %s\r\n", i, strings.Repeat("long\r\n ", 1000)[:100])
	}
	r, err := Parse(strings.NewReader(b.String()))
	if err != nil || len(r.Recipients) != maxRecipients {
		t.Errorf("%d recipients, %v", len(r.Recipients), err)
	}
	one := "Content-Type: message/delivery-status\r\n\r\nFinal-Recipient: rfc822; a@b\r\nDiagnostic-Code: x" + strings.Repeat("\r\n y", 300_000)
	if r, err = Parse(strings.NewReader(one)); err != nil || len(r.Recipients[0].Reply) > maxValue {
		t.Errorf("a value of %d bytes, %v", len(r.Recipients[0].Reply), err)
	}
}

// Whatever is read can be written and is read again as the same.
func FuzzParse(f *testing.F) {
	f.Add([]byte(postfix))
	f.Add([]byte(exchange))
	f.Add([]byte(bare))
	f.Add([]byte("Content-Type: message/global-delivery-status\n\nFinal-Recipient: utf-8; \\x{E9}@b\nOriginal-Recipient: ;x\n\xff\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := Parse(strings.NewReader(string(in)))
		if err != nil {
			return
		}
		if len(r.Recipients) == 0 {
			t.Fatal("a report without recipients")
		}
		for _, rc := range r.Recipients {
			if rc.Final == "" || rc.Final != address(rc.Final) {
				t.Errorf("address %q", rc.Final)
			}
		}
		if r.From == "" || r.To == "" {
			r.From, r.To = "a@b", "c@d"
		}
		if address(r.From) == "" || address(r.To) == "" {
			return
		}
		roundTrip(t, r)
	})
}
