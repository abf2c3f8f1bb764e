package mailauth_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"postrider/internal/dns"
	"postrider/internal/lab/fakedns"
	"postrider/internal/mailauth"
	content "postrider/internal/message"
)

// awkward are messages that were hard for somebody's signer or verifier.
var awkward = map[string]string{
	"plain":            "From: a@example.com\r\nTo: b@example.net\r\nSubject: hello\r\nDate: Sun, 22 Nov 2026 02:35:00 +0000\r\n\r\nHello.\r\n",
	"bare":             "From: a@example.com\r\n\r\n",
	"header only":      "From: a@example.com\r\nSubject: no blank line\r\n",
	"no line end":      "From: a@example.com\r\n\r\nnot ended",
	"empty lines":      "From: a@example.com\r\n\r\n\r\n\r\n \r\n\t\r\n",
	"blank body":       "From: a@example.com\r\n\r\n   ",
	"trailing":         "From: a@example.com\r\n\r\nspace  at \t the end \t\r\n\r\nand  lines\r\n\r\n\r\n",
	"folded":           "From:\r\n a@example.com\r\nSubject:  many \t words\r\n\tin  many\r\n lines \r\nTo: b@example.net,\r\n c@example.net\r\n\r\nx\r\n",
	"odd names":        "FROM: a@example.com\r\nsubject : space before the colon\r\nX-Empty:\r\nDate:\r\n\r\nx\r\n",
	"eight bit":        "From: a@example.com\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße, 世界\r\n",
	"utf8 header":      "From: Jürgen <jürgen@example.com>\r\nSubject: Größe 世界\r\n\r\nx\r\n",
	"latin header":     "From: a@example.com\r\nSubject: Gr\xfc\xdfe\r\n\r\nx\r\n",
	"dupes":            "Subject: first\r\nFrom: a@example.com\r\nTo: b@example.net\r\nSubject: second\r\nTo: c@example.net\r\nSubject: third\r\n\r\nx\r\n",
	"two authors":      "From: a@example.com, b@example.com\r\nSender: a@example.com\r\n\r\nx\r\n",
	"trace":            "Return-Path: <a@example.com>\r\nReceived: from x by y; Sun, 22 Nov 2026 02:35:00 +0000\r\nReceived: from z by x;\r\n Sun, 22 Nov 2026 02:34:00 +0000\r\nFrom: a@example.com\r\n\r\nx\r\n",
	"signed before":    "DKIM-Signature: v=1; a=rsa-sha256; d=other.test; s=gone; h=from; bh=abc=; b=def=\r\nFrom: a@example.com\r\n\r\nx\r\n",
	"list":             "From: a@example.com\r\nSender: list-bounces@example.com\r\nReply-To: list@example.com\r\nList-Id: A list <list.example.com>\r\nList-Unsubscribe: <https://example.com/u>,\r\n <mailto:u@example.com>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nList-Post: <mailto:list@example.com>\r\nSubject: [list] hello\r\n\r\nHello\r\n-- \r\nfooter\r\n",
	"resent":           "Resent-From: c@example.com\r\nResent-Date: Sun, 22 Nov 2026 02:35:00 +0000\r\nResent-From: b@example.com\r\nFrom: a@example.com\r\n\r\nx\r\n",
	"dots":             "From: a@example.com\r\n\r\n.\r\n..\r\n.x\r\n",
	"long line":        "From: a@example.com\r\nSubject: " + strings.Repeat("long ", 3000) + "\r\nReferences:" + strings.Repeat("\r\n <id@example.com>", 500) + "\r\n\r\n" + strings.Repeat("y", 50_000) + "\r\n",
	"many fields":      strings.Repeat("X-Field: value\r\n", 2000) + "From: a@example.com\r\n\r\nx\r\n",
	"many recipients":  strings.Repeat("To: a@example.net\r\n", 60) + "From: a@example.com\r\n\r\nx\r\n",
	"multipart":        "From: a@example.com\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"b\"\r\n\r\npreamble\r\n--b\r\n\r\nbare part\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nFrom: x@example.org\r\nDKIM-Signature: v=1\r\n\r\ninner\r\n--b--\r\n\r\n",
	"megabyte":         "From: a@example.com\r\n\r\n" + strings.Repeat(strings.Repeat("word ", 15)+" \r\n", 14_000),
	"spaces only":      "From: a@example.com\r\n\r\n \t \r\n  \r\n x\r\n \r\n",
	"leading newlines": "From: a@example.com\r\n\r\n\r\n\r\nx\r\n",
}

// published starts a DNS server with the test keys.
func published(t testing.TB) (*dns.Resolver, *fakedns.Server) {
	t.Helper()
	s, err := fakedns.Start("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	for _, algorithm := range []string{mailauth.RSA, mailauth.Ed25519} {
		publish(t, s, algorithm+"._domainkey.example.com", key(t, algorithm).Record())
	}
	r, err := dns.New([]string{s.Addr()}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return r, s
}

func publish(t testing.TB, s *fakedns.Server, name, txt string) {
	t.Helper()
	line := name + ". 60 IN TXT"
	for ; len(txt) > 255; txt = txt[255:] {
		line += ` "` + txt[:255] + `"`
	}
	if err := s.Add(line + ` "` + txt + `"`); err != nil {
		t.Fatal(err)
	}
}

func both(t testing.TB) []mailauth.Signer {
	return []mailauth.Signer{{Domain: "example.com", Selector: mailauth.RSA, Key: key(t, mailauth.RSA)},
		{Domain: "example.com", Selector: mailauth.Ed25519, Key: key(t, mailauth.Ed25519)}}
}

func sign(t testing.TB, message string, signers ...mailauth.Signer) string {
	t.Helper()
	fields, err := mailauth.Sign(strings.NewReader(message), time.Now(), signers...)
	if err != nil {
		t.Fatal(err)
	}
	return string(fields)
}

// verify gives the results of a message's signatures in a line.
func verify(t testing.TB, r mailauth.Resolver, message string) string {
	t.Helper()
	found, err := mailauth.VerifyDKIM(t.Context(), r, strings.NewReader(message))
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, s := range found {
		fmt.Fprintf(&b, "%s %s %s; ", s.Algorithm, s.Domain, s.Result)
	}
	return b.String()
}

const bothPass = "rsa-sha256 example.com pass; ed25519-sha256 example.com pass; "

// The verifier is go-msgauth's; the tests of package interop ask two more.
func TestSign(t *testing.T) {
	r, _ := published(t)
	for name, message := range awkward {
		fields := sign(t, message, both(t)...)
		want := bothPass
		if name == "signed before" {
			want += "rsa-sha256 other.test permerror; "
		}
		if got := verify(t, r, fields+message); got != want {
			t.Errorf("%s: %s", name, got)
		}
		for line := range strings.SplitSeq(strings.TrimSuffix(fields, "\r\n"), "\r\n") {
			if len(line) > 78 || strings.Trim(line, " \t") == "" || strings.ContainsAny(line, "\r\n") {
				t.Errorf("%s: line %q", name, line)
			}
		}
		slow, err := mailauth.Sign(iotest.OneByteReader(strings.NewReader(message)), time.Now(), both(t)[1])
		if err != nil || verify(t, r, string(slow)+message) != strings.TrimPrefix(want, "rsa-sha256 example.com pass; ") {
			t.Errorf("%s byte by byte: %v", name, err)
		}
	}
}

// What a signature says of itself.
func TestSignature(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	fields, err := mailauth.Sign(strings.NewReader(awkward["list"]), now, both(t)...)
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`\s+`).ReplaceAllString(string(fields), "")
	for _, want := range []string{"a=rsa-sha256;", "a=ed25519-sha256;", "c=relaxed/relaxed;", "d=example.com;", "s=rsa;", "s=ed25519;", "t=1700000000;",
		"h=From:From:Sender:Sender:Reply-To:Reply-To:To:Cc:Subject:Subject:Date:Message-ID:", ":List-Unsubscribe:List-Unsubscribe:",
		":List-Unsubscribe-Post:List-Unsubscribe-Post:", ":List-Id:"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	for _, never := range []string{";l=", "Received", "Return-Path", "DKIM-Signature:DKIM", "List-Id:List-Id", "x="} {
		if strings.Contains(strings.ReplaceAll(text, "bh=", ""), never) {
			t.Errorf("%s in %s", never, text)
		}
	}
	if strings.Count(string(fields), "DKIM-Signature:") != 2 {
		t.Errorf("fields:\n%s", fields)
	}
}

// What may be done to a message on its way, and what not.
func TestTampering(t *testing.T) {
	r, _ := published(t)
	signed := sign(t, awkward["list"], both(t)...) + awkward["list"]
	insert := func(fields string) string { return fields + signed }
	replace := func(old, new string) string {
		if !strings.Contains(signed, old) {
			t.Fatalf("no %q in the message", old)
		}
		return strings.Replace(signed, old, new, 1)
	}
	fails := strings.ReplaceAll(bothPass, "pass", "fail")
	for name, tt := range map[string]struct{ message, want string }{
		"as it was":        {signed, bothPass},
		"trace":            {insert("Return-Path: <x@example.net>\r\nReceived: from a by b; now\r\n"), bothPass},
		"resent":           {insert("Resent-From: x@example.net\r\n"), bothPass},
		"list field":       {insert("List-Archive: <https://example.net>\r\n"), bothPass},
		"other field":      {insert("X-Spam: no\r\n"), bothPass},
		"white space":      {replace("[list] hello\r\n", "[list]\r\n   hello\t\r\n"), bothPass},
		"another From":     {insert("From: evil@example.net\r\n"), fails},
		"another Subject":  {insert("Subject: buy\r\n"), fails},
		"a To":             {insert("To: somebody@example.net\r\n"), fails},
		"a Cc":             {insert("cc : somebody@example.net\r\n"), fails},
		"another Reply-To": {insert("Reply-To: evil@example.net\r\n"), fails},
		"a type":           {insert("Content-Type: text/html\r\n"), fails},
		"an encoding":      {insert("Content-Transfer-Encoding: base64\r\n"), fails},
		"unsubscribe":      {insert("List-Unsubscribe: <https://evil.example.net>\r\n"), fails},
		"no Subject":       {replace("Subject: [list] hello\r\n", ""), fails},
		"body":             {replace("Hello", "hello"), fails},
		"more body":        {signed + "more\r\n", fails},
		"empty line":       {replace("Hello\r\n", "Hello\r\n\r\n"), fails},
		"lines at the end": {signed + "\r\n\r\n", bothPass},
	} {
		if got := verify(t, r, tt.message); got != tt.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	ed := both(t)[1:]
	for name, tt := range map[string]struct{ message, want string }{
		"no From":     {"Subject: x\r\n\r\nFrom: a@example.com\r\n", "no From"},
		"nothing":     {"", "no From"},
		"space":       {" x\r\nFrom: a@example.com\r\n\r\n", "begins with white space"},
		"header":      {"From: a@example.com\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", "header has more"},
		"folds":       {"From: a@example.com\r\nSubject: x" + strings.Repeat("\r\n x", 3000) + "\r\n\r\n", "header has more"},
		"endless key": {strings.Repeat("X: y\r\n", 1<<20), "header has more"},
	} {
		if _, err := mailauth.Sign(strings.NewReader(tt.message), time.Now(), ed...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	broken := io.MultiReader(strings.NewReader("From: a@example.com\r\n\r\nhalf"), iotest.ErrReader(io.ErrClosedPipe))
	if _, err := mailauth.Sign(broken, time.Now(), ed...); err == nil || !strings.Contains(err.Error(), "closed pipe") {
		t.Errorf("content that can't be read: %v", err)
	}
}

func TestVerifyKeys(t *testing.T) {
	r, s := published(t)
	signed := sign(t, awkward["plain"], both(t)...) + awkward["plain"]
	ed := func(record string) {
		s.Remove("ed25519._domainkey.example.com")
		if record != "" {
			publish(t, s, "ed25519._domainkey.example.com", record)
		}
		r.Forget("ed25519._domainkey.example.com")
	}
	good := key(t, mailauth.Ed25519).Record()
	for name, tt := range map[string]struct{ record, want string }{
		"good":      {good, "pass"},
		"gone":      {"", "permerror"},
		"revoked":   {"v=DKIM1; k=ed25519; p=", "permerror"},
		"malformed": {"v=DKIM1; k=ed25519; p=x", "permerror"},
		"cut":       {good[:len(good)-8], "permerror"},
		"rsa":       {key(t, mailauth.RSA).Record(), "permerror"},
	} {
		ed(tt.record)
		if got := verify(t, r, signed); got != "rsa-sha256 example.com pass; ed25519-sha256 example.com "+tt.want+"; " {
			t.Errorf("%s: %s", name, got)
		}
	}
	ed(good)
	s.Fail("ed25519._domainkey.example.com", 2)
	if got := verify(t, r, signed); !strings.HasSuffix(got, "temperror; ") {
		t.Errorf("no answer: %s", got)
	}
}

// Nobody makes us look up a thousand keys.
func TestManySignatures(t *testing.T) {
	counted := &counter{}
	message := strings.Repeat("DKIM-Signature: v=1; a=rsa-sha256; d=example.net; s=s; h=from; bh=YQ==; b=YQ==\r\n", 1000) + awkward["plain"]
	found, err := mailauth.VerifyDKIM(t.Context(), counted, strings.NewReader(message))
	if err != nil || len(found) != 10 || counted.n.Load() > 10 {
		t.Errorf("%d signatures, %d look-ups, %v", len(found), counted.n.Load(), err)
	}
	if got := verify(t, counted, "DKIM-Signature: nonsense\r\n"+awkward["plain"]); got != "  permerror; " {
		t.Errorf("malformed: %q", got)
	}
	if got := verify(t, counted, awkward["plain"]); got != "" {
		t.Errorf("none: %q", got)
	}
	folds := "DKIM-Signature: v=1" + strings.Repeat("\r\n ;", 100_000) + "\r\n" + awkward["plain"]
	if got := verify(t, counted, folds); !strings.Contains(got, "header has more") {
		t.Errorf("endless: %q", got)
	}
}

func FuzzSign(f *testing.F) {
	for name, m := range awkward {
		if len(m) < 2000 && name != "signed before" {
			f.Add([]byte(m))
		}
	}
	resolver, _ := published(f)
	signer := both(f)[1]
	f.Fuzz(func(t *testing.T, message []byte) {
		// What is signed has passed the entrance: no bare CR or LF.
		message = bytes.ReplaceAll(bytes.ReplaceAll(message, []byte("\r"), nil), []byte("\n"), []byte("\r\n"))
		if facts, err := content.Scan(content.Bytes(message)); err != nil || facts.Problem != "" {
			return // everybody reads a broken header in another way
		}
		fields, err := mailauth.Sign(bytes.NewReader(message), time.Now(), signer)
		if err != nil {
			return
		}
		found, err := mailauth.VerifyDKIM(context.WithoutCancel(t.Context()), resolver, bytes.NewReader(append(fields, message...)))
		if err != nil || len(found) == 0 || found[0].Result != mailauth.Pass {
			t.Errorf("%q: %+v, %v", message, found, err)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	message := []byte(awkward["list"] + strings.Repeat("A line of text as it may stand in a letter to somebody.\r\n", 160))
	for _, algorithm := range []string{mailauth.RSA, mailauth.Ed25519} {
		s := mailauth.Signer{Domain: "example.com", Selector: "s", Key: key(b, algorithm)}
		b.Run(algorithm, func(b *testing.B) {
			b.SetBytes(int64(len(message)))
			for b.Loop() {
				if _, err := mailauth.Sign(bytes.NewReader(message), time.Now(), s); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("none", func(b *testing.B) {
		b.SetBytes(int64(len(message)))
		for b.Loop() {
			if _, err := mailauth.Sign(bytes.NewReader(message), time.Now()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
