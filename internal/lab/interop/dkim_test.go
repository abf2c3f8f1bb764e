package interop

import (
	"context"
	"fmt"
	"net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postrider/internal/config"
	"postrider/internal/dns"
	"postrider/internal/lab"
	"postrider/internal/relay"
	"postrider/internal/sink"
)

// signedMessages are hard for signers and verifiers. The relay may add fields.
var signedMessages = map[string]string{
	"plain":        "Subject: hello\r\nTo: b@receiver.example\r\n\r\nHello.\r\n",
	"bare":         "Subject: nothing\r\n\r\n",
	"no body":      "Subject: no blank line\r\n",
	"spaces":       "Subject:   many \t spaces  \r\n\r\nspace  at \t the end \t\r\n \r\n\t\r\n\r\n\r\n",
	"folded":       "Subject: many\r\n\twords\r\n  in many lines\r\nTo: b@receiver.example,\r\n c@receiver.example\r\nReferences:" + strings.Repeat("\r\n <0123456789012345678901234567890123456789@example.com>", 100) + "\r\n\r\nx\r\n",
	"eight bit":    "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße aus der Größe, 世界 \r\n",
	"unlabelled":   "Subject: x\r\n\r\nGrüße without a label\r\n",
	"parts":        "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"b\"\r\n\r\npreamble\r\n--b\r\n\r\nbare part\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nFrom: x@example.org\r\nDKIM-Signature: v=1\r\n\r\ninner\r\n--b--\r\n\r\n",
	"list":         "Subject: [list] x\r\nSender: list@example.com\r\nReply-To: list@example.com\r\nList-Id: <list.example.com>\r\nList-Unsubscribe: <https://example.com/u>,\r\n <mailto:u@example.com>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nPrecedence: list\r\n\r\nHello\r\n-- \r\nfooter\r\n",
	"resent":       "Resent-From: c@example.com\r\nResent-Date: Sun, 22 Nov 2026 02:35:00 +0000\r\nSubject: x\r\n\r\nx\r\n",
	"dots":         "Subject: x\r\n\r\n.\r\n..\r\n.x\r\n",
	"many fields":  strings.Repeat("X-Field: value\r\n", 300) + "Subject: x\r\n\r\nx\r\n",
	"signed":       "DKIM-Signature: v=1; a=rsa-sha256; d=other.example; s=gone; h=from; bh=YWJj; b=YWJj\r\nSubject: x\r\n\r\nx\r\n",
	"half a meg":   "Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("word ", 15)+" \r\n", 7_000),
	"long line":    "Subject: x\r\n\r\n" + strings.Repeat("y", 900) + "\r\n",
	"other repeat": "Comments: one\r\nComments: two\r\nKeywords: a\r\nKeywords: b\r\nSubject: x\r\n\r\nx\r\n",
}

// TestDKIM adds a domain, publishes its records, and has what arrives verified by
// OpenDKIM and dkimpy, whose authors know nothing of this program; and the receiver
// finds DMARC passed, with both DKIM and SPF aligned.
func TestDKIM(t *testing.T) {
	t.Parallel()
	var boxes [2]*sink.Server
	r := lab.StartRelay(t, func(c *config.Config) {
		c.Policy.Senders = "verified"
		c.Service.Domain, c.Service.Selector = "relay.example", "own"
		resolver, err := dns.New(c.DNS.Servers, 0)
		if err != nil {
			t.Fatal(err)
		}
		boxes = [2]*sink.Server{startSink(t, resolver, 0), startSink(t, resolver, sink.EightBitMIME|sink.SMTPUTF8)}
		c.Route = []config.Route{to("eight.example", boxes[0].Addr()), to("seven.example", boxes[1].Addr())}
	})
	keys := addDomain(t, r, "example.com")

	n := int64(0)
	for name, text := range signedMessages {
		content := "From: Ann <ann@example.com>\r\n" + text
		if err := submit(r, "ann@example.com", content, strings.ReplaceAll(name, " ", ".")); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		n++
	}
	for i, box := range boxes {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := box.Wait(ctx, n); err != nil {
			t.Fatal(err)
		}
		for _, m := range box.Messages() {
			name, _, _ := strings.Cut(m.To()[0], "@")
			t.Run(fmt.Sprint(name, i), func(t *testing.T) {
				verified(t, keys, m)
			})
		}
	}
}

// startSink starts a receiver that verifies.
func startSink(t *testing.T, r *dns.Resolver, without sink.Extension) *sink.Server {
	t.Helper()
	s, err := sink.New(sink.Config{Resolver: r, Keep: 1000, Without: without})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

// submit sends a message to both receivers.
func submit(r *lab.Relay, from, content, local string) error {
	return smtp.SendMail(r.Addr("plain"), smtp.PlainAuth("", r.User, r.Password, "127.0.0.1"), from,
		[]string{local + "@eight.example", local + "@seven.example"}, []byte(content))
}

// addDomain adds a domain, publishes what the relay says and what its own zone
// must hold, and sees that both keys sign. It gives a file of the keys for
// verifiers that ask no DNS.
func addDomain(t *testing.T, r *lab.Relay, name string) (file string) {
	t.Helper()
	added, d, err := r.OwnDomain(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	var keys strings.Builder
	for _, rec := range added.Plan.Records {
		if rec.Purpose == "dkim" {
			fmt.Fprintf(&keys, "%s %s\n", rec.Name, rec.Value)
		}
	}
	signing := 0
	for _, k := range d.Keys {
		if k.State == relay.KeySigning {
			signing++
		}
	}
	if signing != 2 || d.Aligned == nil {
		t.Fatalf("the domain is not ready: %+v", d)
	}
	file = filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte(keys.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// verified asks three verifiers about the domain's signatures.
func verified(t *testing.T, keys string, m *sink.Message) {
	t.Helper()
	var ours []string
	for _, s := range m.Proof.DKIM {
		if s.Domain == "example.com" {
			ours = append(ours, s.Algorithm+" "+string(s.Result))
		}
	}
	if got := strings.Join(ours, ", "); got != "rsa-sha256 pass, ed25519-sha256 pass" {
		t.Errorf("go-msgauth: %s", got)
	}
	if d := m.Proof.DMARC; d.Result != "pass" || !d.DKIM || !d.SPF {
		t.Errorf("the receiver says %s", m.Proof)
	}
	file := filepath.Join(t.TempDir(), "message.eml")
	if err := os.WriteFile(file, m.Content, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "/usr/bin/python3", "testdata/dkimpy_verify.py", keys, file).CombinedOutput()
	if err != nil || strings.Count(string(out), "example.com ") != 2 || strings.Count(string(out), " pass\n") != 2 {
		t.Errorf("dkimpy says %s (%v)", out, err)
	}
	out, err = exec.CommandContext(t.Context(), "/usr/sbin/opendkim", "-x", openDKIM(t, keys), "-t", file, "-vv").Output()
	for _, want := range []string{"header.d=example.com header.i=@example.com header.a=rsa-sha256", "header.d=example.com header.i=@example.com header.a=ed25519-sha256"} {
		found := false
		for line := range strings.SplitSeq(string(out), "\n") {
			found = found || strings.Contains(line, "dkim=pass") && strings.Contains(line, want)
		}
		if !found {
			t.Errorf("OpenDKIM says (%v) %s", err, out)
		}
	}
	if t.Failed() {
		t.Logf("%.4000s", m.Content)
	}
}

// openDKIM writes settings for a verifier that asks a file for keys.
func openDKIM(t *testing.T, keys string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "opendkim.conf")
	text := fmt.Sprintf("Mode v\nTestPublicKeys %s\nSyslog no\nAuthservID receiver.example\nSocket inet:1@127.0.0.1\nAlwaysAddARHeader yes\n", keys)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}
