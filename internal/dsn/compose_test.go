package dsn

import (
	"bytes"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"strings"
	"testing"
	"time"

	gomessage "github.com/emersion/go-message"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"postrider/internal/message"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.FixedZone("", 3600))

func lines(l ...string) string { return strings.Join(l, "\r\n") + "\r\n" }

func content(l ...string) message.Content { return message.Bytes([]byte(lines(l...))) }

// sample is a report with every field set.
func sample() Report {
	return Report{
		Kind: Failed, From: "MAILER-DAEMON@relay.example", To: "ann@example.com", ReportingMTA: "relay.example",
		MessageID: "<01abc@relay.example>", EnvID: "env 1", OriginalID: "<1@example.com>", Arrival: noon.Add(-time.Hour), Now: noon,
		Recipients: []Recipient{
			{Final: "bob@example.net", ORcpt: "rfc822;robert@example.net", Action: ActionFailed, Status: "5.1.1", RemoteMTA: "mx.example.net",
				Reply: "550-5.1.1 No such user.\n550 5.1.1 See https://example.net/help", Text: "The mailbox does not exist.",
				Advice: "Check the address for typing errors.", LastAttempt: noon, FinalLogID: "01abc-1"},
			{Final: "eve@example.org", Action: ActionFailed, Status: "4.4.7", Reply: "No host answered.", Text: "The receiver could not be reached for 5 days.", LastAttempt: noon},
		},
		Original: content("From: ann@example.com", "Subject: Your order", "Message-ID: <1@example.com>", "", "Hello"),
	}
}

func mustCompose(t testing.TB, r Report) []byte {
	t.Helper()
	c, err := Compose(r)
	if err != nil {
		t.Fatal(err)
	}
	rc, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	b, err := io.ReadAll(rc)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type part struct{ typ, encoding, body string }

// split reads a mail with the standard library.
func split(t testing.TB, b []byte) (mail.Header, []part) {
	t.Helper()
	m, err := mail.ReadMessage(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	typ, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || typ != "multipart/report" {
		t.Fatalf("%s: %v", typ, err)
	}
	var parts []part
	mr := multipart.NewReader(m.Body, params["boundary"])
	for {
		p, err := mr.NextRawPart()
		if err == io.EOF {
			return m.Header, parts
		}
		if err != nil {
			t.Fatal(err)
		}
		typ, _, err := mime.ParseMediaType(p.Header.Get("Content-Type"))
		if err != nil {
			t.Fatal(err)
		}
		enc := p.Header.Get("Content-Transfer-Encoding")
		var r io.Reader = p
		if enc == "quoted-printable" {
			r = quotedprintable.NewReader(p)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, part{typ, enc, string(body)})
	}
}

func TestComposeWhole(t *testing.T) {
	h, parts := split(t, mustCompose(t, sample()))
	delete(h, "Content-Type")
	if diff := cmp.Diff(mail.Header{
		"From": {"Mail Delivery System <MAILER-DAEMON@relay.example>"}, "To": {"<ann@example.com>"},
		"Subject": {"Undelivered mail: Your order"}, "Date": {"Fri, 02 Jan 2026 12:00:00 +0100"}, "Message-Id": {"<01abc@relay.example>"},
		"In-Reply-To": {"<1@example.com>"}, "References": {"<1@example.com>"}, "Auto-Submitted": {"auto-replied"}, "Mime-Version": {"1.0"},
	}, h); diff != "" {
		t.Errorf("header: (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]part{
		{"text/plain", "", lines(
			"Your message could not be delivered to 2 recipients. It will not be", "tried again.", "",
			"    Subject: Your order", "    Sent:    Fri, 02 Jan 2026 11:00:00 +0100", "",
			"bob@example.net:", "  The mailbox does not exist.", "  The server mx.example.net answered:",
			"    550-5.1.1 No such user.", "    550 5.1.1 See https://example.net/help", "  What to do: Check the address for typing errors.", "",
			"eve@example.org:", "  The receiver could not be reached for 5 days.", "  What happened, in technical terms:", "    No host answered.", "",
			"This report was written by the mail system at relay.example on Fri, 02", "Jan 2026 12:00:00 +0100. The header of your message is attached.")},
		{"message/delivery-status", "", lines(
			"Reporting-MTA: dns; relay.example", "Original-Envelope-Id: env 1", "Arrival-Date: Fri, 02 Jan 2026 11:00:00 +0100", "",
			"Original-Recipient: rfc822;robert@example.net", "Final-Recipient: rfc822;bob@example.net", "Action: failed", "Status: 5.1.1",
			"Remote-MTA: dns; mx.example.net", "Diagnostic-Code: smtp; 550-5.1.1 No such user. 550 5.1.1 See", " https://example.net/help",
			"Last-Attempt-Date: Fri, 02 Jan 2026 12:00:00 +0100", "Final-Log-ID: 01abc-1", "",
			"Final-Recipient: rfc822;eve@example.org", "Action: failed", "Status: 4.4.7", "Diagnostic-Code: x-postrider; No host answered.",
			"Last-Attempt-Date: Fri, 02 Jan 2026 12:00:00 +0100")},
		{"text/rfc822-headers", "", lines("From: ann@example.com", "Subject: Your order", "Message-ID: <1@example.com>")},
	}, parts, cmp.AllowUnexported(part{})); diff != "" {
		t.Errorf("parts: (-want +got)\n%s", diff)
	}
}

func TestComposeKinds(t *testing.T) {
	for _, tt := range []struct {
		kind                           Kind
		action                         Action
		subject, says, fields, notSays string
	}{
		{Failed, "", "Undelivered mail: Your order", "Your message could not be delivered to bob@example.net.", "Action: failed\r\nStatus: 5.0.0\r\n", "Will-Retry"},
		{Delayed, "", "Delivery delayed: Your order", "It is kept and will be tried again", "Action: delayed\r\nStatus: 4.0.0\r\n", "will not"},
		{Delivered, "", "Delivered: Your order", "Your message was delivered to bob@example.net.", "Action: delivered\r\nStatus: 2.0.0\r\n", "Will-Retry"},
		{Delivered, ActionRelayed, "Delivered: Your order", "does not report", "Action: relayed\r\nStatus: 2.0.0\r\n", "Will-Retry"},
	} {
		r := sample()
		r.Kind = tt.kind
		r.Recipients = []Recipient{{Final: "bob@example.net", Action: tt.action, WillRetry: noon.Add(time.Hour)}}
		h, parts := split(t, mustCompose(t, r))
		if got := h.Get("Subject"); got != tt.subject {
			t.Errorf("%d: Subject %q", tt.kind, got)
		}
		if got := strings.Join(strings.Fields(parts[0].body), " "); !strings.Contains(got, tt.says) || strings.Contains(got, tt.notSays) {
			t.Errorf("%d: text %q", tt.kind, got)
		}
		if got := parts[1].body; !strings.Contains(got, tt.fields) || strings.Contains(got, tt.notSays) {
			t.Errorf("%d: fields %q", tt.kind, got)
		}
		if retry := strings.Contains(parts[1].body, "Will-Retry-Until: Fri, 02 Jan 2026 13:00:00 +0100"); retry != (tt.kind == Delayed) {
			t.Errorf("%d: Will-Retry-Until: %t", tt.kind, retry)
		}
	}
}

func TestComposeOriginal(t *testing.T) {
	plain := []string{"Subject: x", "Message-ID: <o@example.com>", "", "body"}
	for name, tt := range map[string]struct {
		full, utf8     bool
		in             message.Content
		typ, encoding  string
		has, hasNot    string
		outerEightBits bool
	}{
		"headers":               {in: content(plain...), typ: "text/rfc822-headers", has: "Subject: x", hasNot: "body"},
		"full":                  {full: true, in: content(plain...), typ: "message/rfc822", has: lines(plain...)},
		"full, too large":       {full: true, in: content("Subject: x", "", "body"+strings.Repeat("\r\n"+strings.Repeat("x", 500), 2200)), typ: "text/rfc822-headers", has: "Subject: x", hasNot: "body"},
		"full, 8-bit":           {full: true, in: content("Subject: x", "Content-Type: text/plain", "", "café"), typ: "message/rfc822", has: "caf=C3=A9"},
		"full, 8-bit header":    {full: true, in: content("Subject: é", "", "body"), typ: "text/rfc822-headers", encoding: "quoted-printable", has: "Subject: é", hasNot: "body"},
		"full, not encodable":   {full: true, in: content("Content-Type: message/partial", "", "é"), typ: "text/rfc822-headers", has: "message/partial"},
		"full, long line":       {full: true, in: content("Subject: x", "", strings.Repeat("body", 300)), typ: "text/rfc822-headers", hasNot: "body"},
		"full, bare LF":         {full: true, in: content("Subject: x", "", "bo\ndy"), typ: "text/rfc822-headers", hasNot: "dy"},
		"full, UTF-8":           {full: true, utf8: true, in: content("Subject: é", "", "body"), typ: "message/global", encoding: "8bit", has: "Subject: é\r\n\r\nbody", outerEightBits: true},
		"headers, UTF-8":        {utf8: true, in: content("Subject: é", "", "body"), typ: "message/global-headers", encoding: "8bit", has: "Subject: é", hasNot: "body", outerEightBits: true},
		"UTF-8 without need":    {utf8: true, in: content(plain...), typ: "text/rfc822-headers", has: "Subject: x"},
		"header with long line": {in: content("X: " + strings.Repeat("x", 2000)), typ: "text/rfc822-headers", encoding: "quoted-printable", has: strings.Repeat("x", 2000)},
		"header too long":       {in: content(strings.Repeat("X-Field: 1\r\n", 10_000) + "X-Last: x"), typ: "text/rfc822-headers", has: "X-Field: 1", hasNot: "X-Last"},
		"mbox":                  {in: content("From ann Thu", "Subject: x"), typ: "text/rfc822-headers", has: "Subject: x", hasNot: "From ann"},
		"no header":             {full: true, in: content("body only"), typ: "text/rfc822-headers", hasNot: "body"},
		"empty":                 {full: true, in: content(""), typ: "message/rfc822"},
	} {
		r := sample()
		r.Full, r.UTF8, r.Original = tt.full, tt.utf8, tt.in
		h, parts := split(t, mustCompose(t, r))
		if len(parts) != 3 || parts[2].typ != tt.typ || parts[2].encoding != tt.encoding {
			t.Errorf("%s: %d parts, last of type %s, encoding %q", name, len(parts), parts[2].typ, parts[2].encoding)
			continue
		}
		if got := parts[2].body; !strings.Contains(got, tt.has) || tt.hasNot != "" && strings.Contains(got, tt.hasNot) {
			t.Errorf("%s: original %.300q", name, got)
		}
		if got := h.Get("Content-Transfer-Encoding") == "8bit"; got != tt.outerEightBits {
			t.Errorf("%s: 8bit: %t", name, got)
		}
	}
	r := sample()
	r.Original = nil
	if _, parts := split(t, mustCompose(t, r)); len(parts) != 2 {
		t.Errorf("%d parts without an original", len(parts))
	}
}

func TestComposeNothingIsInjected(t *testing.T) {
	evil := "x\r\nBcc: victim@example.com\r\n\r\n--=_\r\n\x00\u2028\x85\x1b[31m"
	r := sample()
	r.From, r.To, r.ReportingMTA, r.EnvID, r.OriginalID, r.MessageID = evil+"@a", evil+"@b", evil, evil, evil, evil
	r.Recipients = []Recipient{{Final: evil, ORcpt: evil, Action: Action(evil), Status: evil, RemoteMTA: evil, Reply: "550 " + evil, Text: evil, Advice: evil, FinalLogID: evil}}
	r.Original = message.Bytes([]byte("Subject: =?utf-8?Q?x=0D=0ABcc:_victim?=\r\n\r\n"))
	b := mustCompose(t, r)
	h, parts := split(t, b)
	for name := range h {
		if !strings.Contains("From To Subject Date Auto-Submitted Mime-Version Content-Type Content-Transfer-Encoding", name) {
			t.Errorf("header has %s: %q", name, h[name])
		}
	}
	for line := range strings.Lines(parts[0].body + parts[1].body) {
		if strings.HasPrefix(line, "Bcc") || strings.HasPrefix(line, "--") {
			t.Errorf("a line of its own: %q", line)
		}
	}
	if strings.ContainsAny(string(b), "\x00\x1b") {
		t.Error("control characters came through")
	}
}

func TestComposeRefuses(t *testing.T) {
	for want, change := range map[string]func(*Report){
		"no recipient":         func(r *Report) { r.Recipients = nil },
		"recipient has no add": func(r *Report) { r.Recipients[0].Final = "<>" },
		"nobody to go to":      func(r *Report) { r.To = "" },
		"no sender":            func(r *Report) { r.From = " " },
	} {
		r := sample()
		change(&r)
		if _, err := Compose(r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// check holds a notification to what is promised of all of them.
func check(t *testing.T, r Report, b []byte) {
	t.Helper()
	f, err := message.Scan(message.Bytes(b))
	if err != nil {
		t.Fatal(err)
	}
	if f.LongestLine > 998 || f.Bare || f.NUL || f.Problem != "" {
		t.Errorf("unsound: %+v\n%q", f, b)
	}
	if (f.UTF8Header || f.EightBit) && !r.sanitised().UTF8 {
		t.Errorf("not 7-bit:\n%s", b)
	}
	h, parts := split(t, b)
	if (h.Get("Content-Transfer-Encoding") == "8bit") != f.EightBit {
		t.Errorf("8-bit body %t, declared %q", f.EightBit, h.Get("Content-Transfer-Encoding"))
	}
	for _, p := range parts {
		if p.encoding == "" && !isASCII(p.body) {
			t.Errorf("a part of type %s is not declared 8bit", p.typ)
		}
	}
	e, err := gomessage.Read(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for mr := e.MultipartReader(); ; n++ {
		if _, err := mr.NextPart(); err == io.EOF {
			break
		} else if err != nil && !gomessage.IsUnknownCharset(err) {
			t.Fatal(err)
		}
	}
	if n != len(parts) || n < 2 {
		t.Errorf("%d and %d parts", n, len(parts))
	}
}

var sameFields = cmp.Options{
	cmpopts.IgnoreFields(Report{}, "Original", "Full", "Kind"),
	cmpopts.IgnoreFields(Recipient{}, "Text", "Advice"),
	sameTimes,
}

// sameTimes compares instants, whatever their zones.
var sameTimes = cmpopts.EquateApproxTime(0)

func roundTrip(t *testing.T, r Report) {
	t.Helper()
	b := mustCompose(t, r)
	check(t, r, b)
	got, err := Parse(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	want := r.sanitised()
	if want.OriginalID == "" {
		want.OriginalID = got.OriginalID
	}
	if diff := cmp.Diff(want, got, sameFields); diff != "" {
		t.Errorf("(-written +read)\n%s\n%s", diff, b)
	}
	if got.Kind != kindOf(want.Recipients) {
		t.Errorf("kind %d, want %d", got.Kind, kindOf(want.Recipients))
	}
}

func TestRoundTrip(t *testing.T) {
	roundTrip(t, sample())
	r := sample()
	r.UTF8 = true
	r.To = "änn@example.com"
	r.Recipients[0].Final = `b+ö=b@exämple.net`
	r.Recipients[0].ORcpt = `utf-8;b\x{F6}b@example.net`
	r.Recipients[0].Reply = "550 5.1.1 Unbekannter Empfänger"
	roundTrip(t, r)
	r.UTF8, r.To = false, "ann@example.com"
	roundTrip(t, r)
	if b := mustCompose(t, r); !bytes.Contains(b, []byte(`Final-Recipient: utf-8;b\x{2B}\x{F6}\x{3D}b@ex\x{E4}mple.net`)) {
		t.Errorf("%s", b)
	}
	r.Recipients[0].Final = strings.Repeat("ä", 400)
	roundTrip(t, r)
}

func FuzzRoundTrip(f *testing.F) {
	f.Add("MAILER-DAEMON@relay.example", "ann@example.com", "relay.example", "<1@r>", "env", "<o@x>", "bob@example.net", "rfc822;b@x", "failed", "5.1.1", "mx", "550 No", "gone", "Subject: x\r\n\r\nbody", int64(1e9), false, true)
	f.Add("a", "ü@x", "(;", "<>", "é", "<a b>", `b\+=<é>`, "UTF-8;\\x{E9}\\x{zz}", "relayed", "2.0", "a b", "x;\r\n y", "\x00", "From x\n\xff", int64(-1), true, false)
	f.Add("@", "\"a\\", ";", "=?utf-8?Q?x?=", " ", "<é@x>", "a\u2028b", ";;", "", "", "", "smtp; 550", "é", "Subject: =?\r\n\r\n--=_", int64(1e12), true, true)
	f.Fuzz(func(t *testing.T, from, to, mta, id, env, oid, final, orcpt, action, status, remote, reply, words, orig string, at int64, utf8, full bool) {
		when := time.Unix(at, 0).UTC()
		r := Report{From: from, To: to, ReportingMTA: mta, MessageID: id, EnvID: env, OriginalID: oid, Arrival: when, Now: when, UTF8: utf8, Full: full,
			Original: message.Bytes([]byte(orig)), Recipients: []Recipient{{Final: final, ORcpt: orcpt, Action: Action(action), Status: status, RemoteMTA: remote,
				Reply: reply, Text: words, Advice: words, LastAttempt: when, WillRetry: when, FinalLogID: env}, {Final: "eve@example.org", Reply: words}}}
		if _, err := Compose(r); err != nil {
			if address(from) != "" && address(to) != "" && address(final) != "" {
				t.Fatal(err)
			}
			return
		}
		roundTrip(t, r)
	})
}
