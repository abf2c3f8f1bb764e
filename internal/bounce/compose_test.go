package bounce

import (
	"bufio"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postrider/internal/classify"
)

// forms are mails of usual systems around a reply: %[1]s is the recipient, %[2]s
// the reply on one line, %[3]s the enhanced code, or 5.0.0.
var forms = []string{
	// Postfix
	"From: MAILER-DAEMON@relay.example (Mail Delivery System)\nTo: news@sender.example\nSubject: Undelivered Mail Returned to Sender\nContent-Type: multipart/report; report-type=delivery-status; boundary=B\n\n--B\nContent-Type: text/plain\n\nThis is the mail system at host relay.example.\n\nI'm sorry to have to inform you that your message could not\nbe delivered to one or more recipients. It's attached below.\n\nFor further assistance, please send mail to postmaster.\n\n                   The mail system\n\n<%[1]s>: host mx.corp.example[192.0.2.10] said: %[2]s (in reply to RCPT TO command)\n\n--B\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; relay.example\n\nFinal-Recipient: rfc822; %[1]s\nAction: failed\nStatus: %[3]s\nRemote-MTA: dns; mx.corp.example\nDiagnostic-Code: smtp; %[2]s\n\n--B--\n",
	// Sendmail, the words only
	"From: Mail Delivery Subsystem <MAILER-DAEMON@relay.example>\nTo: <news@sender.example>\nSubject: Returned mail: see transcript for details\n\nThe original message was received at Fri, 1 Oct 2010 19:15:20 +0900\nfrom client.example [192.0.2.5]\n\n   ----- The following addresses had permanent fatal errors -----\n<%[1]s>\n    (reason: %[2]s)\n\n   ----- Transcript of session follows -----\n... while talking to mx.corp.example.:\n>>> RCPT To:<%[1]s>\n<<< %[2]s\n",
	// Exim
	"From: Mail Delivery System <Mailer-Daemon@relay.example>\nTo: news@sender.example\nX-Failed-Recipients: %[1]s\nAuto-Submitted: auto-replied\nSubject: Mail delivery failed: returning message to sender\n\nThis message was created automatically by mail delivery software.\n\nA message that you sent could not be delivered to one or more of its\nrecipients. This is a permanent error. The following address(es) failed:\n\n  %[1]s\n    host mx.corp.example [192.0.2.10]\n    SMTP error from remote mail server after RCPT TO:<%[1]s>:\n    %[2]s\n\n------ This is a copy of the message, including all the headers. ------\n\nFrom: news@sender.example\nTo: %[1]s\nSubject: spam quota blocked\nMessage-ID: <m@sender.example>\n\nThe mailbox is full of spam; user unknown.\n",
	// qmail
	"From: MAILER-DAEMON@relay.example\nTo: news@sender.example\nSubject: failure notice\n\nHi. This is the qmail-send program at relay.example.\nI'm afraid I wasn't able to deliver your message to the following addresses.\nThis is a permanent error; I've given up. Sorry it didn't work out.\n\n<%[1]s>:\n192.0.2.10 does not like recipient.\nRemote host said: %[2]s\nGiving up on 192.0.2.10.\n\n--- Below this line is a copy of the message.\n\nFrom: news@sender.example\nTo: %[1]s\n",
	// Gmail
	"From: Mail Delivery Subsystem <mailer-daemon@googlemail.com>\nTo: news@sender.example\nSubject: Delivery Status Notification (Failure)\n\nDelivery to the following recipient failed permanently:\n\n     %[1]s\n\nTechnical details of permanent failure: \nThe server for the recipient domain answered.\n\nThe error that the other server returned was:\n%[2]s\n\n----- Original message -----\n\nFrom: news@sender.example\n",
	// OpenSMTPD
	"From: Mailer Daemon <MAILER-DAEMON@relay.example>\nTo: news@sender.example\nSubject: Delivery status notification: error\n\n    Hi!\n\n    This is the MAILER-DAEMON, please DO NOT REPLY to this e-mail.\n\n    An error has occurred while attempting to deliver a message for\n    the following list of recipients:\n\n%[1]s: %[2]s\n\n    Below is a copy of the original message:\n\nFrom: news@sender.example\n",
	// Exchange
	"From: <postmaster@relay.example>\nTo: <news@sender.example>\nSubject: Undeliverable: Offer\nContent-Type: multipart/report; report-type=delivery-status; boundary=X\n\n--X\nContent-Type: text/plain\n\nDelivery has failed to these recipients or groups:\n\n%[1]s<mailto:%[1]s>\nA problem occurred while delivering this message.\n\nDiagnostic information for administrators:\n\nGenerating server: relay.example\n\n%[1]s\n#< #%[3]s smtp;%[2]s> #SMTP#\n\n--X\nContent-Type: message/delivery-status\n\nReporting-MTA: dns;relay.example\n\nFinal-Recipient: rfc822;%[1]s\nAction: failed\nStatus: %[3]s\nDiagnostic-Code: smtp;%[2]s\n\n--X--\n",
	// an appliance, quoted-printable
	"From: postmaster@gate.example\nTo: news@sender.example\nSubject: =?utf-8?q?Undeliverable_Mail?=\n\nYour message:\n   From:    news@sender.example\n   Subject: Hello\n\nCould not be delivered because of\n\n%[2]s\n\nThe following recipients were affected: \n    %[1]s\n",
}

// Replies of the classifier's corpus, as the usual systems send them back.
func TestComposedMails(t *testing.T) {
	files, err := filepath.Glob("../classify/testdata/replies/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no replies", err)
	}
	var open, held score
	byForm := make([]score, len(forms))
	n := 0
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		for in := bufio.NewScanner(f); in.Scan(); {
			part := strings.SplitN(in.Text(), " | ", 3)
			if len(part) != 3 || part[2][0] != '4' && part[2][0] != '5' || strings.HasPrefix(part[0], "#") {
				continue
			}
			label, reply := strings.Fields(part[0]), strings.ReplaceAll(part[2], `\n`, " ")
			h := fnv.New32a()
			h.Write([]byte(strings.ReplaceAll(part[2], `\n`, "\n")))
			status := "5.0.0"
			if m := statusForm.FindStringSubmatch(reply); m != nil {
				status = m[1]
			}
			rcpt := "someone@corp.example"
			if a := clean(addressForm.FindString(reply)); usual(a) && !strings.HasPrefix(a, "news@") {
				rcpt = a // as servers name it
			}
			n++
			form := n % len(forms)
			m, err := Read(strings.NewReader(fmt.Sprintf(forms[form], rcpt, reply, status)))
			if err != nil {
				t.Fatal(err)
			}
			all := m.Judge(classify.Builtin())
			w := want{rcpt, label[0], label[1], len(label) > 2 || label[0] != "hard"}
			to, show := &open, true
			if h.Sum32()%3 == 0 {
				to, show = &held, os.Getenv("HELD") != ""
			}
			ok := to.add(w, all)
			byForm[form].add(w, all)
			if !ok && show && testing.Verbose() {
				t.Logf("form %d, %v: %.200q", form, label, reply)
				for _, v := range all {
					t.Logf("    %s %s %s %s (%s) suppress %v: %.120q", v.Recipient.Address, v.Recipient.Action, v.Kind, v.Category, v.Rule, v.Suppress, v.Recipient.Reply)
				}
			}
		}
		f.Close()
	}
	for i, s := range byForm {
		t.Logf("form %d: %v", i, s)
	}
	t.Logf("rules were written from: %v", open)
	t.Logf("held back: %v", held)
	for name, s := range map[string]score{"open": open, "held back": held} {
		if 100*s.kind < 97*s.n || 100*s.category < 90*s.n || s.wrongly > 0 {
			t.Errorf("%s: %v", name, s)
		}
	}
}
