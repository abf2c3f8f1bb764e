package bounce

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"postrider/internal/classify"
)

// trap builds a report about bob in Postfix's form, with the given part for programs.
func trap(text, fields, original string) string {
	return "From: MAILER-DAEMON@relay.example (Mail Delivery System)\nTo: news@sender.example\nSubject: Undelivered Mail Returned to Sender\nContent-Type: multipart/report; report-type=delivery-status; boundary=B\n\n--B\nContent-Type: text/plain\n\nThis is the mail system at host relay.example.\n\n" + text +
		"\n\n--B\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; relay.example\n\n" + fields + "\n\n--B\nContent-Type: message/rfc822\n\n" + original + "\n\n--B--\n"
}

func refused(status, reply string) string {
	return trap("<bob@corp.example>: host mx.corp.example[192.0.2.10] said: "+reply, "Final-Recipient: rfc822; bob@corp.example\nAction: failed\nStatus: "+status+"\nRemote-MTA: dns; mx.corp.example\nDiagnostic-Code: smtp; "+reply, "Subject: Hello\nMessage-ID: <m@sender.example>\n\nHello")
}

const dead = "Final-Recipient: rfc822; bob@corp.example\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 User unknown"

// Mails that look as if an address were dead, and is not, or perhaps not that one.
func TestTraps(t *testing.T) {
	if v := read(t, trap("<bob@corp.example>: 550 5.1.1 User unknown", dead, "Subject: x")).Judge(classify.Builtin()); len(v) != 1 || !v[0].Suppress {
		t.Fatalf("the plain case: %+v", v)
	}
	for name, s := range map[string]string{
		"unknown in the original only": trap("<bob@corp.example>: host mx said: 554 5.7.1 Message refused", "Final-Recipient: rfc822; bob@corp.example\nAction: failed\nStatus: 5.7.1\nDiagnostic-Code: smtp; 554 5.7.1 Message refused",
			"From: MAILER-DAEMON@x.example\nSubject: Undelivered Mail\n\n<bob@corp.example>: 550 5.1.1 user unknown"),
		"a report inside the report": trap("<bob@corp.example>: host mx said: 552 5.2.2 Mailbox full", "Final-Recipient: rfc822; bob@corp.example\nAction: failed\nStatus: 5.2.2\nDiagnostic-Code: smtp; 552 5.2.2 Mailbox full",
			"Subject: old\nContent-Type: multipart/report; boundary=C\n\n--C\nContent-Type: message/delivery-status\n\nReporting-MTA: dns;y\n\nFinal-Recipient: rfc822;eve@corp.example\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp;550 5.1.1 User unknown\n\n--C--"),
		"spam under 5.1.1":                refused("5.1.1", "550 5.1.1 Rejected: this message looks like spam"),
		"unknown or spam":                 refused("5.1.1", "550 5.1.1 User unknown or message blocked as spam"),
		"full under 5.1.1":                refused("5.1.1", "550 5.1.1 Mailbox is full, user over quota"),
		"full under 5.2.1":                refused("5.2.1", "550 5.2.1 Mailbox disabled: over quota"),
		"inactive for lack of room":       refused("5.2.1", "550 5.2.1 User inactive, quota exceeded"),
		"disabled for now":                refused("5.2.1", "550 5.2.1 Account temporarily disabled"),
		"suspended":                       refused("5.2.1", "550 5.2.1 This account has been suspended"),
		"locked":                          refused("5.2.1", "550 5.2.1 Account locked"),
		"sender unknown":                  refused("5.1.1", "550 5.1.1 Sender address rejected: User unknown in local recipient table"),
		"sender verified":                 refused("5.1.1", "550-5.1.1 Verification failed for <news@sender.example> 550-5.1.1 No such user 550 5.1.1 Sender verify failed"),
		"greylisted":                      refused("4.7.1", "450 4.7.1 <bob@corp.example>: Recipient address rejected: Greylisted"),
		"greylisted for good":             refused("5.1.1", "550 5.1.1 <bob@corp.example>: Recipient address rejected: Greylisted, user unknown yet"),
		"verification under way":          refused("5.1.1", "550 5.1.1 Recipient address rejected: unverified address: Address verification in progress"),
		"unavailable for policy":          refused("5.1.1", "550 5.1.1 Mailbox unavailable due to policy"),
		"unavailable alone":               refused("5.0.0", "550 Requested action not taken: mailbox unavailable"),
		"access denied":                   refused("5.4.1", "550 5.4.1 Recipient address rejected: Access denied. AS(201806281)"),
		"directory down":                  refused("5.1.1", "550 5.1.1 User unknown: LDAP lookup failure"),
		"a client's address":              refused("5.1.1", "550 5.1.1 Client host not found: cannot find your hostname, user unknown"),
		"relaying denied":                 refused("5.1.1", "550 5.1.1 Relay access denied, no such user here"),
		"codes that do not agree":         refused("4.1.1", "550 5.1.1 User unknown"),
		"delayed, quoting 550":            trap("<bob@corp.example>: 550 5.1.1 User unknown", strings.Replace(dead, "failed", "delayed", 1), "Subject: x"),
		"delivered":                       trap("delivered", "Final-Recipient: rfc822; bob@corp.example\nAction: delivered\nStatus: 2.1.5\nDiagnostic-Code: smtp; 250 ok", "Subject: x"),
		"relayed":                         trap("relayed", "Final-Recipient: rfc822; bob@corp.example\nAction: relayed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 250 ok", "Subject: x"),
		"expanded":                        trap("expanded", "Final-Recipient: rfc822; bob@corp.example\nAction: expanded\nStatus: 2.1.5", "Subject: x"),
		"passed on by a forward":          trap("<old.bob@isp.example>: 550 5.1.1 User unknown", "Original-Recipient: rfc822; bob@corp.example\nFinal-Recipient: rfc822; old.bob@isp.example\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 User unknown", "Subject: x"),
		"a rewritten sender's forward":    trap("<SRS0=ab=cd=sender.example=news@corp.example>: 550 5.1.1 User unknown", "Original-Recipient: rfc822; bob@corp.example\nFinal-Recipient: rfc822; SRS0=ab=cd=sender.example=news@corp.example\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 User unknown", "Subject: x"),
		"generated from":                  "From: Mailer-Daemon@relay.example\nTo: news@sender.example\nSubject: Mail delivery failed: returning message to sender\n\nThis message was created automatically by mail delivery software.\nThe following address(es) failed:\n\n  carl@isp.example\n    (generated from bob@corp.example)\n    SMTP error from remote mail server after RCPT TO:<carl@isp.example>:\n    host mx.isp.example [192.0.2.1]: 550 5.1.1 User unknown\n",
		"summed up as unknown":            "From: MAILER-DAEMON@relay.example\nTo: news@sender.example\nSubject: Returned mail: see transcript for details\n\n   ----- Transcript of session follows -----\n... while talking to mx.corp.example.:\n>>> DATA\n<<< 553 Sender Policy Framework (SPF) fail\n550 5.1.1 <bob@corp.example>... User unknown\n<<< 503 RCPT first (#5.5.1)\n\n   ----- Message header follows -----\n\nReturn-Path: <news@sender.example>\nFrom: news@sender.example\nTo: bob@corp.example\nSubject: x\n",
		"expanded from":                   "From: MAILER-DAEMON@relay.example\nTo: news@sender.example\nSubject: Returned mail: see transcript for details\n\n   ----- The following addresses had permanent fatal errors -----\ncarl@isp.example\n    (reason: 550 5.1.1 User unknown)\n    (expanded from: <bob@corp.example>)\n",
		"no longer works here":            "From: bob@corp.example\nTo: news@sender.example\nSubject: Automatic reply: Offer\nAuto-Submitted: auto-replied\n\nBob no longer works here. His address bob@corp.example does not exist any more; user unknown.\n",
		"left, in German":                 "From: bob@corp.example\nTo: news@sender.example\nSubject: Automatische Antwort: Angebot\nAuto-Submitted: auto-replied\n\nIch bin nicht mehr im Unternehmen. Die Adresse bob@corp.example existiert nicht mehr.\n",
		"away, and looking like a report": "From: bob@corp.example\nTo: news@sender.example\nSubject: Undeliverable: Offer\nAuto-Submitted: auto-replied\n\nbob@corp.example: I am on holiday. 550 5.1.1 user unknown is what you get at the old address.\n",
		"list digest":                     "From: list-bounces@lists.example\nTo: news@sender.example\nSubject: Bounce action notification\n\nThis is a Mailman mailing list bounce action notice:\n\n    Member: bob@corp.example\n    Action: Subscription disabled.\n    Reason: Excessive or fatal bounces.\n\n550 5.1.1 user unknown\n",
		"challenge":                       "From: bob@corp.example\nTo: news@sender.example\nSubject: Please confirm your message\n\nYour message to bob@corp.example is held. Click to be let in. Otherwise it will be returned as undeliverable, user unknown.\n",
		"a person writes":                 "From: eve@corp.example\nTo: news@sender.example\nSubject: Fwd: failure notice\n\nLook what I got:\n\n<bob@corp.example>: 550 5.1.1 user unknown\n",
		"ends before the diagnostic":      strings.SplitAfter(refused("5.1.1", "550 5.1.1 Message blocked"), "Status: 5.1.1\n")[0],
		"ends within the diagnostic":      strings.SplitAfter(refused("5.1.1", "550 5.1.1 User unknown in the blocklist"), "smtp; 550 5.1.1 User unknown")[0],
		"of another address":              refused("5.1.1", "550 5.1.1 <carl@isp.example>: User unknown"),
		"of another, in words":            "From: MAILER-DAEMON@relay.example\nTo: news@sender.example\nSubject: failure notice\n\n<bob@corp.example>:\n192.0.2.10 does not like recipient.\nRemote host said: 550 5.1.1 <carl@isp.example>: User unknown\n",
		"a host that does not exist":      refused("5.1.0", "553 5.1.0 q7b2 relay.example does not exist"),
		"talk of possibility":             refused("5.0.0", "550 The user may not exist or the mailbox might be full"),
		"filter at the end of the data":   strings.Replace(refused("5.1.1", "550 Unknown user bob@corp.example (in reply to end of DATA command)"), "Status: 5.1.1", "Status: 5.0.0", 1),
	} {
		for _, v := range read(t, s).Judge(classify.Builtin()) {
			if v.Suppress {
				t.Errorf("%s: suppresses %s: %s %s (%s) %q", name, v.Recipient.Address, v.Kind, v.Category, v.Rule, v.Recipient.Reply)
			}
		}
	}
}

// Mails that break off, or whose bytes were damaged on the way, do not crash; and
// none that breaks off condemns an address that lives.
func TestDamage(t *testing.T) {
	c := classify.Builtin()
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, s := range samples(t) {
		living := map[string]bool{}
		for _, w := range s.want {
			living[strings.ToLower(w.address)] = w.living && w.category != "complaint"
		}
		for range 6 {
			cut := s.text[:rnd.IntN(len(s.text)+1)]
			for _, cut := range []string{cut, cut[:strings.LastIndexByte(cut, '\n')+1]} { // within a line, and at its start
				for _, v := range read(t, cut).Judge(c) {
					if v.Suppress && living[strings.ToLower(v.Recipient.Address)] {
						t.Errorf("%s, cut after %d of %d bytes: suppresses %s", s.name, len(cut), len(s.text), v.Recipient.Address)
					}
				}
			}
			b := []byte(s.text)
			for range 1 + len(b)/200 {
				b[rnd.IntN(len(b))] = byte(rnd.IntN(256))
			}
			read(t, string(b)).Judge(c) // an address may change with its bytes
		}
	}
}

// What costs much in little space.
func TestBombs(t *testing.T) {
	head := "From: MAILER-DAEMON@relay.example\nTo: news@sender.example\nSubject: Undelivered Mail\nMIME-Version: 1.0\n"
	var nest, rfc strings.Builder
	nest.WriteString(head + "Content-Type: multipart/report; boundary=b0\n\n")
	rfc.WriteString(head)
	for i := range 10_000 {
		fmt.Fprintf(&nest, "--b%d\nContent-Type: multipart/mixed; boundary=b%d\n\n", i, i+1)
		rfc.WriteString("Content-Type: message/rfc822\n\n")
	}
	var lines, params strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&lines, "X-%d: %s\n", i, strings.Repeat("y", 40))
		fmt.Fprintf(&params, ";\n p*%d*=utf-8''%%41", i)
	}
	for name, s := range map[string]string{
		"10,000 nested parts":   nest.String(),
		"10,000 nested mails":   rfc.String(),
		"100,000 header lines":  head + lines.String() + "\n550 5.1.1 user unknown",
		"100,000 parameters":    head + "Content-Type: text/plain" + params.String() + "\n\nx",
		"base64 of nothing":     head + "Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\n" + strings.Repeat("\n", 5<<20),
		"base64 of zeros":       head + "Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\n" + base64.StdEncoding.EncodeToString(make([]byte, 8<<20)),
		"no base64":             head + "Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\n" + strings.Repeat("!$%&=", 1<<20),
		"quoted-printable":      head + "Content-Type: text/plain\nContent-Transfer-Encoding: quoted-printable\n\n" + strings.Repeat("=", 4<<20),
		"encoded words":         head + "Subject: " + strings.Repeat("=?utf-8?q?=41?= ", 200_000) + "\n\nx",
		"boundaries":            head + "Content-Type: multipart/mixed; boundary=" + strings.Repeat("-", 60) + "\n\n" + strings.Repeat(strings.Repeat("-", 62)+"\n", 100_000),
		"one boundary for all":  head + strings.Repeat("Content-Type: multipart/mixed; boundary=B\n\n--B\n", 50_000),
		"utf-7":                 head + "Content-Type: text/plain; charset=utf-7\n\n" + strings.Repeat("+", 4<<20),
		"iso-2022-jp":           head + "Content-Type: text/plain; charset=iso-2022-jp\n\n" + strings.Repeat("\x1b$B", 1<<20),
		"status fields":         head + "Content-Type: multipart/report; boundary=B\n\n--B\nContent-Type: message/delivery-status\n\n" + strings.Repeat("Final-Recipient: rfc822;bob@corp.example\n", 100_000),
		"status of one line":    head + "Content-Type: multipart/report; boundary=B\n\n--B\nContent-Type: message/delivery-status\n\nDiagnostic-Code: smtp;" + strings.Repeat(" 550 5.1.1", 500_000),
		"recipients in a row":   head + "\nThe following recipients failed:\n" + strings.Repeat("<a@b.example>, ", 300_000),
		"X-Failed-Recipients":   head + "X-Failed-Recipients: " + strings.Repeat("a@b.example, ", 300_000) + "\n\nx",
		"one word of many":      head + "\n" + strings.Repeat("user unknown mailbox not ", 200_000),
		"ends in the header":    head + "Content-Type: multipart/report; bound",
		"nothing":               "",
		"a blank line":          "\n",
		"a header of no fields": strings.Repeat(":\n", 100_000),
	} {
		start := time.Now()
		for _, v := range read(t, s).Judge(classify.Builtin()) {
			if v.Suppress && name != "status fields" && name != "status of one line" {
				t.Errorf("%s: suppresses %q", name, v.Recipient.Address)
			}
		}
		if d := time.Since(start); d > time.Minute { // it hangs, however slow the machine
			t.Errorf("%s takes %v", name, d)
		}
	}
}
