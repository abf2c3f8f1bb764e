package bounce

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"postrider/internal/classify"
)

func read(t testing.TB, s string) Mail {
	t.Helper()
	m, err := Read(strings.NewReader(s))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func named(t testing.TB, name string) Mail {
	t.Helper()
	for _, s := range samples(t) {
		if s.name == name {
			return read(t, s.text)
		}
	}
	t.Fatalf("no mail %q", name)
	return Mail{}
}

func TestOriginal(t *testing.T) {
	for name, id := range map[string]string{"postfix-unknown": "<m1@sender.example>", "sendmail-unknown": "<m3@sender.example>", "global": "<m11@sender.example>",
		"qmail": "<m21@sender.example>", "exim-text": "<m20@sender.example>", "gmail-old": "<m23@sender.example>", "arf-abuse": "<m30@sender.example>",
		"jmrp": "<m33@sender.example>", "forwarded-attached": "<m12@sender.example>", "not-a-bounce": "<m1@sender.example>", "mailfoundry": "<m27@sender.example>"} {
		if m := named(t, name); m.Original.MessageID != id {
			t.Errorf("%s: original %q, want %q", name, m.Original.MessageID, id)
		}
	}
	m := named(t, "postfix-unknown")
	if m.To != "news@sender.example" || m.Host != "relay.example" || m.Original.Subject != "Hello" || !strings.Contains(string(m.Original.Header), "message-id: <m1@") {
		t.Errorf("%+v", m)
	}
	if rc := m.Recipients[0]; rc.Status != "5.1.1" || rc.Host != "mx.corp.example" || rc.Action != "failed" || !strings.HasPrefix(rc.Reply, "550 5.1.1") {
		t.Errorf("%+v", rc)
	}
}

func TestDelayedInWords(t *testing.T) {
	for _, name := range []string{"exim-warning", "gmail-old-delay", "opensmtpd-warning", "postfix-delayed", "sendmail-warning"} {
		if m := named(t, name); m.Recipients[0].Action != "delayed" {
			t.Errorf("%s: %s", name, m.Recipients[0].Action)
		}
	}
}

func TestCharsets(t *testing.T) {
	for body, want := range map[string]string{
		"Content-Type: text/plain; charset=iso-8859-1\n\nEmpf\xe4nger unbekannt":                       "Empfänger unbekannt",
		"Content-Type: text/plain; charset=koi8-r\n\n\xd0\xcf\xcc\xd8\xda\xcf\xd7\xc1\xd4\xc5\xcc\xd8": "пользователь",
		"Content-Type: text/plain; charset=gb2312\n\n\xd3\xc3\xbb\xa7\xb2\xbb\xb4\xe6\xd4\xda":         "用户不存在",
		"Content-Type: text/plain; charset=iso-2022-jp\n\n\x1b$B08@hITL@\x1b(B":                        "宛先不明",
		"Content-Type: text/plain; charset=iso-2022-jp\n\n宛先不明":                                        "宛先不明", // wrongly labelled
		"Content-Type: text/plain; charset=utf-7\n\nbob+AEA-corp.example +- 1+1":                       "bob@corp.example + 1+1",
		"Content-Type: text/plain; charset=unicode-1-1-utf-7\n\n+Zi5nCk4NX1M-":                         "昮朊不当",
		"Content-Type: text/plain; charset=nonsense\n\nn\xe9ant":                                       "néant",
		"Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\nRW1wZsOkbmdlcg==":              "Empfänger",
	} {
		if m := read(t, "From: MAILER-DAEMON@relay.example\nSubject: Undelivered\n"+body+"\n"); strings.TrimSpace(m.Text) != want {
			t.Errorf("%q: %q, want %q", body, m.Text, want)
		}
	}
}

func TestFeedback(t *testing.T) {
	m := named(t, "arf-abuse")
	if m.Feedback.Type != "abuse" || m.Feedback.Source != "192.0.2.1" || m.Feedback.Domain != "sender.example" {
		t.Errorf("%+v", m.Feedback)
	}
	if v := named(t, "arf-not-spam").Judge(classify.Builtin()); v[0].Suppress {
		t.Error("who says that it is no spam is suppressed")
	}
}

// What people write about bounces condemns nobody.
func TestPeopleAreNoMailSystems(t *testing.T) {
	for _, s := range []string{
		"From: eve@corp.example\nTo: news@sender.example\nSubject: Re: Undelivered Mail Returned to Sender\n\n<bob@corp.example>: 550 5.1.1 user unknown\n",
		"From: eve@corp.example\nTo: news@sender.example\nSubject: Undelivered Mail Returned to Sender\n\n<bob@corp.example>: 550 5.1.1 user unknown\n",
		"From: eve@corp.example\nTo: news@sender.example\nSubject: question\n\nbob@corp.example got 550 5.1.1 user unknown, message could not be delivered\n",
	} {
		for _, v := range read(t, s).Judge(classify.Builtin()) {
			if v.Suppress {
				t.Errorf("%q suppresses %s", s, v.Recipient.Address)
			}
		}
	}
}

func TestCutOriginal(t *testing.T) {
	for _, s := range []string{
		"It failed.\n--- Below this line is a copy of the message.\n\nSubject: user unknown\n",
		"It failed.\n\n------ This is a copy of the message, including all the headers. ------\n\nSubject: user unknown\n",
		"It failed.\n\n----- Original message -----\n\nSubject: user unknown\n",
		"It failed.\n\nReceived: from a by b\nFrom: a@b.example\nTo: c@d.example\nSubject: user unknown\n",
		"It failed.\n\n---- Ursprüngliche Nachricht ----\nSubject: user unknown\n",
	} {
		said, returned := cutOriginal(s)
		if strings.TrimSpace(said) != "It failed." || parseHeader([]byte(returned)).get("subject") != "user unknown" {
			t.Errorf("%q: %q and %q", s, said, returned)
		}
	}
	if said, returned := cutOriginal("The original message was received at noon.\nIt failed.\n"); returned != "" {
		t.Errorf("%q and %q", said, returned)
	}
}

// General talk in a report may explain a reply, and condemns nobody.
func TestTalkCondemnsNobody(t *testing.T) {
	const s = "From: MAILER-DAEMON@relay.example\nTo: news@sender.example\nSubject: Undelivered\nContent-Type: multipart/report; boundary=B\n\n--B\nContent-Type: text/plain\n\nbob@corp.example: it may be that the user is unknown.\n\n--B\nContent-Type: message/delivery-status\n\nReporting-MTA: dns;x\n\nFinal-Recipient: rfc822;bob@corp.example\nAction: failed\nStatus: 5.0.0\nDiagnostic-Code: smtp;550 Failed\n\n--B--\n"
	v := read(t, s).Judge(classify.Builtin())
	if len(v) != 1 || v[0].Category != "no-such-mailbox" || v[0].Suppress {
		t.Errorf("%+v", v)
	}
}

// A delayed report is soft, whatever it tells.
func TestDelayedIsSoft(t *testing.T) {
	const s = "From: MAILER-DAEMON@relay.example\nTo: news@sender.example\nContent-Type: multipart/report; boundary=B\n\n--B\nContent-Type: message/delivery-status\n\nReporting-MTA: dns;x\n\nFinal-Recipient: rfc822;bob@corp.example\nAction: delayed\nStatus: 5.1.1\nDiagnostic-Code: smtp;550 5.1.1 user unknown\n\n--B--\n"
	v := read(t, s).Judge(classify.Builtin())
	if len(v) != 1 || v[0].Kind != classify.Soft || v[0].Suppress || !v[0].Retry {
		t.Errorf("%+v", v)
	}
}

// A mail kept with CR alone at line ends reads like any other.
func TestLineEnds(t *testing.T) {
	for _, s := range samples(t)[:20] {
		want := read(t, s.text)
		for _, end := range []string{"\r\n", "\r"} {
			got := read(t, strings.ReplaceAll(s.text, "\n", end))
			if fmt.Sprint(got.Kind, got.Recipients) != fmt.Sprint(want.Kind, want.Recipients) {
				t.Errorf("%s with %q: %+v, want %+v", s.name, end, got.Recipients, want.Recipients)
			}
		}
	}
}

func TestReadError(t *testing.T) {
	bad := errors.New("the disk is gone")
	if _, err := Read(io.MultiReader(strings.NewReader("From: a@b.example\n"), iotest.ErrReader(bad))); !errors.Is(err, bad) {
		t.Errorf("%v", err)
	}
}

// Mails made to cost much cost little.
func TestBounds(t *testing.T) {
	head := "From: MAILER-DAEMON@relay.example\nTo: news@sender.example\nSubject: Undelivered Mail\n"
	status := "--B\nContent-Type: message/delivery-status\n\nReporting-MTA: dns;x\n\nFinal-Recipient: rfc822;bob@corp.example\nAction: failed\nStatus: 5.1.1\n\n"
	var nest strings.Builder
	nest.WriteString(head + "Content-Type: multipart/mixed; boundary=b0\n\n")
	for i := range 3000 {
		fmt.Fprintf(&nest, "--b%d\nContent-Type: multipart/mixed; boundary=b%d\n\n", i, i+1)
	}
	many := head + "Content-Type: multipart/mixed; boundary=B\n\n" + strings.Repeat("--B\nContent-Type: text/plain\n\nx\n", 200_000)
	groups := head + "Content-Type: multipart/report; boundary=B\n\n--B\nContent-Type: message/delivery-status\n\nReporting-MTA: dns;x\n\n"
	for i := range 20_000 {
		groups += fmt.Sprintf("Final-Recipient: rfc822;a%d@corp.example\nAction: failed\nStatus: 5.1.1\n\n", i)
		if i > 5000 {
			break
		}
	}
	folded := head + "X: y\n" + strings.Repeat(" a\n", 21_000) + "\nx"
	replies := head + "\nThe following addresses failed:\n"
	for i := range 50 {
		replies += fmt.Sprintf("a%d@corp.example\n", i)
	}
	replies += strings.Repeat("550 5.1.1 No\n", 5000)
	for name, r := range map[string]io.Reader{
		"a field of many lines":  strings.NewReader(folded),
		"one reply to many":      strings.NewReader(replies),
		"many words on one":      strings.NewReader(head + "\n<a@corp.example>: failed\n" + strings.Repeat(strings.Repeat("words ", 200)+"\n", 40)),
		"50 MB after the report": io.MultiReader(strings.NewReader(head+"Content-Type: multipart/report; boundary=B\n\n"+status+"--B\nContent-Type: message/rfc822\n\nSubject: x\n\n"), io.LimitReader(zeros{}, 50<<20)),
		"one line of 50 MB":      io.MultiReader(strings.NewReader(head+"\n"), io.LimitReader(zeros{}, 50<<20)),
		"a header of 50 MB":      io.MultiReader(strings.NewReader(head+"X: "), io.LimitReader(zeros{}, 50<<20)),
		"3000 levels":            strings.NewReader(nest.String()),
		"200000 parts":           strings.NewReader(many),
		"5000 recipients":        strings.NewReader(groups),
		"addresses":              strings.NewReader(head + "\n" + strings.Repeat("a@b.example ", 100_000)),
		"lines of addresses":     strings.NewReader(head + "\n" + strings.Repeat("a@b.example\n", 100_000)),
		"replies":                strings.NewReader(head + "\n" + strings.Repeat("<c@d.example>: 550 5.1.1 x\n", 100_000)),
		"angle brackets":         strings.NewReader(head + "Content-Type: text/html\n\n" + strings.Repeat("<p", 500_000)),
	} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		start := time.Now()
		m, err := Read(r)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		verdicts := m.Judge(classify.Builtin())
		runtime.ReadMemStats(&after)
		if d := time.Since(start); d > time.Minute { // it hangs, however slow the machine
			t.Errorf("%s takes %v", name, d)
		}
		if n := (after.TotalAlloc - before.TotalAlloc) >> 20; n > 600 {
			t.Errorf("%s takes %d MB in all", name, n)
		}
		if len(verdicts) > maxRecipients {
			t.Errorf("%s: %d recipients", name, len(verdicts))
		}
		for _, v := range verdicts {
			if len(v.Recipient.Context) > maxContext {
				t.Errorf("%s: %d bytes on one recipient", name, len(v.Recipient.Context))
			}
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'a'
	}
	return len(p), nil
}

func FuzzRead(f *testing.F) {
	for i, s := range samples(f) {
		if i%6 == 0 {
			f.Add([]byte(s.text))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Read(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range m.Judge(classify.Builtin()) {
			if v.Suppress && v.Recipient.Action == "delayed" || v.Category == "" || v.What == "" {
				t.Errorf("%+v", v)
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	all := samples(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		m, _ := Read(strings.NewReader(all[i%len(all)].text))
		m.Judge(classify.Builtin())
	}
}
