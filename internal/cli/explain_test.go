package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestExplainReply(t *testing.T) {
	want(t, ok(t, "explain", "550 5.1.1 User unknown"), "hard, no-such-mailbox", "Drop the address: yes", "Whose turn:    sender")
	want(t, ok(t, "explain", "550", "5.7.1", "relay", "access", "denied"), "block, relaying-denied", "Drop the address: no")
	want(t, ok(t, "explain", "SMTP Error: Could not authenticate."), "authentication-failed-login", "587")
	want(t, ok(t, "explain", "-host", "mx.example.net", "451 Greylisted"), "mx.example.net asks unknown senders")
	var e explanation
	if err := json.Unmarshal([]byte(ok(t, "explain", "-json", "-domain", "gmail.com", "452 4.2.2 over quota")), &e); err != nil {
		t.Fatal(err)
	}
	if e.Kind != "soft" || e.Category != "mailbox-full" || e.Enhanced != "4.2.2" || e.Code != 452 || e.Provider != "Gmail" || !e.Retry || e.Suppress || e.Diagnosis == "" {
		t.Errorf("%+v", e)
	}
	out, _, status := call(t, "550 5.1.1 no such user\n\n421 too many connections\n", "explain", "-json", "-")
	if lines := strings.Split(strings.TrimSpace(out), "\n"); status != 0 || len(lines) != 2 || !strings.Contains(lines[1], `"rate-limited"`) {
		t.Errorf("status %d: %s", status, out)
	}
}

// No line is too long for those behind it, and nothing is no reply.
func TestExplainOddLines(t *testing.T) {
	long := "550 5.1.1 no such user " + strings.Repeat("x", 3*mostLine)
	out, errs, status := call(t, long+"\r\n421 too many connections", "explain", "-json", "-")
	if lines := strings.Split(strings.TrimSpace(out), "\n"); status != 0 || len(lines) != 2 || !strings.Contains(lines[1], `"rate-limited"`) {
		t.Errorf("status %d, %q: %d lines", status, errs, len(lines))
	}
	for _, none := range []string{"", " "} {
		if _, errs, status := call(t, "", "explain", none); status != 2 || !strings.Contains(errs, "standard input") {
			t.Errorf("%q: status %d, %q", none, status, errs)
		}
	}
}

const bouncedMail = `From: MAILER-DAEMON@relay.example
To: news@sender.example
Subject: failure notice

<bob@corp.example>:
Remote host said: 550 5.1.1 no such user

<eve@corp.example>:
Remote host said: 552 5.2.2 mailbox full
`

func TestExplainMails(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"1": bouncedMail, "2": "From: a@b.example\nSubject: Lunch\n\nAt one?\n", ".hidden": bouncedMail} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil { // it would be waited for
		t.Fatal(err)
	}
	var all []explanation
	for line := range strings.Lines(ok(t, "explain", "-json", "-mail", dir)) {
		var e explanation
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	if len(all) != 3 || all[0].Recipient != "bob@corp.example" || all[0].Category != "no-such-mailbox" || !all[0].Suppress || all[0].File != filepath.Join(dir, "1") ||
		all[1].Recipient != "eve@corp.example" || all[1].Category != "mailbox-full" || all[1].Suppress || all[2].Mail != "unknown" {
		t.Errorf("%+v", all)
	}
	out, _, _ := call(t, bouncedMail, "explain", "-mail", "-")
	want(t, out, "bob@corp.example failed", "hard, no-such-mailbox", "552 5.2.2 mailbox full")
	// A file that is not there does not keep the others from being read.
	out, errs, status := call(t, "", "explain", "-mail", "-json", filepath.Join(dir, "none"), filepath.Join(dir, "1"))
	if status != 1 || !strings.Contains(errs, "none") || strings.Count(out, "\n") != 2 {
		t.Errorf("status %d, %q, %q", status, out, errs)
	}
}

// A complaint that names nobody suppresses nobody, and a mail that was passed on is
// told with the address that it was sent to.
func TestExplainMailOfOthers(t *testing.T) {
	dir := t.TempDir()
	nobody, passed := filepath.Join(dir, "nobody"), filepath.Join(dir, "passed")
	os.WriteFile(nobody, []byte("From: abuse@isp.example\nSubject: complaint\nContent-Type: multipart/report; report-type=feedback-report; boundary=B\n\n--B\nContent-Type: message/feedback-report\n\nFeedback-Type: abuse\nUser-Agent: X/1\nVersion: 1\n\n--B\nContent-Type: message/rfc822\n\nFrom: news@shop.example\nTo: redacted\nSubject: Hello\n\n--B--\n"), 0o600)
	out := ok(t, "explain", "-mail", "-json", nobody)
	if !strings.Contains(out, `"category":"complaint"`) || !strings.Contains(out, `"recipient":""`) || !strings.Contains(out, `"suppress":false`) {
		t.Error(out)
	}
	os.WriteFile(passed, []byte("From: MAILER-DAEMON@relay.example\nSubject: Undelivered Mail\nContent-Type: multipart/report; report-type=delivery-status; boundary=B\n\n--B\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; relay.example\n\nOriginal-Recipient: rfc822; bob@corp.example\nFinal-Recipient: rfc822; old.bob@isp.example\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 User unknown\n\n--B--\n"), 0o600)
	out = ok(t, "explain", "-mail", "-json", passed)
	if !strings.Contains(out, `"recipient":"old.bob@isp.example"`) || !strings.Contains(out, `"original_recipient":"bob@corp.example"`) || !strings.Contains(out, `"suppress":false`) {
		t.Error(out)
	}
}

func TestExplainOperatorsRules(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rules.toml")
	os.WriteFile(file, []byte("[[rule]]\nmeaning = \"policy\"\nwords = [\"user unknown\"]\n"), 0o600)
	want(t, ok(t, "explain", "-rules", file, "550 5.1.1 User unknown"), "block, policy")
	os.WriteFile(file, []byte("[[rule]]\nmeaning = \"polcy\"\nwords = [\"user unknown\"]\n"), 0o600)
	_, errs, status := call(t, "", "explain", "-rules", file, "550 5.1.1 User unknown")
	if status != 1 || !strings.Contains(errs, "line 1") || !strings.Contains(errs, "polcy") {
		t.Errorf("status %d, %q", status, errs)
	}
	if _, _, status := call(t, "", "explain"); status != 2 {
		t.Errorf("no words: status %d", status)
	}
}
