package compose

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"strings"
	"testing"
)

// read reads a message with the standard library: the header, and each part with
// the path of media types that leads to it.
func read(t testing.TB, b []byte) (mail.Header, map[string]string) {
	t.Helper()
	m, err := mail.ReadMessage(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	parts := map[string]string{}
	var walk func(path, kind, encoding string, body io.Reader)
	walk = func(path, kind, encoding string, body io.Reader) {
		media, params, err := mime.ParseMediaType(kind)
		if err != nil {
			t.Fatalf("%q: %v", kind, err)
		}
		if strings.HasPrefix(media, "multipart/") {
			for r := multipart.NewReader(body, params["boundary"]); ; {
				p, err := r.NextRawPart()
				if errors.Is(err, io.EOF) {
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				name := ""
				if p.FileName() != "" {
					name = " " + p.FileName()
				}
				walk(path+media+name+" > ", p.Header.Get("Content-Type"), p.Header.Get("Content-Transfer-Encoding"), p)
			}
		}
		switch encoding {
		case "quoted-printable":
			body = quotedprintable.NewReader(body)
		case "base64":
			body = base64.NewDecoder(base64.StdEncoding, body)
		}
		b, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		parts[path+media] = string(b)
	}
	walk("", m.Header.Get("Content-Type"), m.Header.Get("Content-Transfer-Encoding"), m.Body)
	return m.Header, parts
}

func whole() *Message {
	return &Message{From: Address{"Müller, Ann", "ann@bücher.example"}, To: []Address{{"", "bob@example.net"}, {`The "Boss"`, "boss@example.net"}},
		Cc: []Address{{Email: "cy@example.net"}}, Bcc: []Address{{Email: "secret@example.net"}}, ReplyTo: []Address{{Email: "reply@example.net"}},
		Subject: "Grüße ☂ " + strings.Repeat("und mehr ", 30), Text: "Hello\nÜber 1000:" + strings.Repeat("x", 2000) + "\n.\nend", HTML: "<p>Hé</p>\r\n",
		Files:   []File{{Name: "Rechnung №1.pdf", Content: []byte("%PDF-1.7\x00\xff")}, {Name: "logo.png", Type: "image/png", ID: "logo", Inline: true, Content: []byte("\x89PNG")}},
		Headers: map[string]string{"X-Order": "1001", "List-Unsubscribe": "<https://shop.example/u?x=" + strings.Repeat("y", 200) + ">", "In-Reply-To": "<1@x.example>", "X-Ü-Free": ""}}
}

func TestWrite(t *testing.T) {
	m := whole()
	delete(m.Headers, "X-Ü-Free")
	b, err := m.Write()
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		if !bytes.HasSuffix(line, []byte("\r\n")) || bytes.Count(line, []byte("\r")) != 1 || len(line) > 1000 {
			t.Fatalf("line %q", line)
		}
		if bytes.ContainsFunc(line, func(r rune) bool { return r > 127 }) {
			t.Errorf("beyond ASCII: %q", line)
		}
	}
	h, parts := read(t, b)
	if bytes.Contains(b, []byte("secret@")) {
		t.Error("Bcc is told")
	}
	from, err := h.AddressList("From")
	if err != nil || len(from) != 1 || from[0].Name != "Müller, Ann" || from[0].Address != "ann@xn--bcher-kva.example" {
		t.Errorf("From %v, %v", from, err)
	}
	if to, err := h.AddressList("To"); err != nil || len(to) != 2 || to[1].Name != `The "Boss"` {
		t.Errorf("To %v, %v", to, err)
	}
	if s, err := new(mime.WordDecoder).DecodeHeader(h.Get("Subject")); err != nil || s != m.Subject {
		t.Errorf("Subject %q, %v", s, err)
	}
	for name, want := range map[string]string{"X-Order": "1001", "In-Reply-To": "<1@x.example>", "Mime-Version": "1.0", "List-Unsubscribe": m.Headers["List-Unsubscribe"]} {
		if got := strings.TrimSpace(h.Get(name)); got != want || len(h[name]) != 1 {
			t.Errorf("%s %q; want %q", name, h[name], want)
		}
	}
	const top = "multipart/mixed > "
	for path, want := range map[string]string{
		top + "multipart/alternative > text/plain": strings.ReplaceAll(m.Text, "\n", "\r\n"),
	} {
		if parts[path] != want {
			t.Errorf("%s: %q", path, parts[path])
		}
	}
	for path, body := range parts {
		switch {
		case strings.HasSuffix(path, "related > text/html"):
			if body != m.HTML {
				t.Errorf("HTML %q", body)
			}
		case strings.HasSuffix(path, "image/png"):
			if body != "\x89PNG" || !strings.Contains(path, "related logo.png") {
				t.Errorf("%s: %q", path, body)
			}
		case strings.HasSuffix(path, "application/pdf"):
			if body != "%PDF-1.7\x00\xff" || !strings.Contains(path, "mixed Rechnung №1.pdf") {
				t.Errorf("%s: %q", path, body)
			}
		}
	}
	if len(parts) != 4 {
		t.Errorf("%d parts: %q", len(parts), parts)
	}
}

// Simple messages have no levels that nobody needs.
func TestShapes(t *testing.T) {
	file := File{Name: "a.txt", Content: []byte("x")}
	for want, m := range map[string]Message{
		"text/plain":            {Text: "x"},
		"text/html":             {HTML: "<p>"},
		"multipart/mixed":       {Files: []File{file}},
		"multipart/alternative": {Text: "x", HTML: "<p>"},
		"multipart/related":     {HTML: "<p>", Files: []File{{Inline: true, Type: "image/png", ID: "1", Content: []byte("x")}}},
	} {
		m.From = Address{Email: "a@b.example"}
		b, err := m.Write()
		if err != nil {
			t.Errorf("%s: %v", want, err)
			continue
		}
		h, _ := read(t, b)
		if media, _, _ := mime.ParseMediaType(h.Get("Content-Type")); media != want || h.Get("To") != "undisclosed-recipients:;" {
			t.Errorf("%s: %s, To %q", want, media, h.Get("To"))
		}
	}
}

// An address with a local part beyond ASCII stands in UTF-8 (RFC 6532).
func TestWriteUTF8(t *testing.T) {
	m := Message{From: Address{Email: "a@b.example"}, To: []Address{{"Ω", "δοκιμή@παράδειγμα.example"}}, Text: "x"}
	b, err := m.Write()
	if err != nil {
		t.Fatal(err)
	}
	h, _ := read(t, b)
	to, err := h.AddressList("To")
	if err != nil || to[0].Name != "Ω" || !strings.HasPrefix(to[0].Address, "δοκιμή@xn--") || !UTF8(m.To[0].Email) || UTF8(m.From.Email) {
		t.Errorf("%v, %v; %s", to, err, b)
	}
}

// What would break out of its field is refused, by name.
func TestWriteRefuses(t *testing.T) {
	for field, change := range map[string]func(*Message){
		"from":                        func(m *Message) { m.From.Email = "ann" },
		"to[1]":                       func(m *Message) { m.To[1].Name = "x\r\nBcc: all@example.net" },
		"cc[0]":                       func(m *Message) { m.Cc[0].Email = "a@b.example>\r\nX: y" },
		"bcc[0]":                      func(m *Message) { m.Bcc[0].Email = "a@b@c" },
		"reply_to[0]":                 func(m *Message) { m.ReplyTo[0].Name = "\x00" },
		"subject":                     func(m *Message) { m.Subject = "a\nBcc: x@y.example" },
		"headers.X-A: b":              func(m *Message) { m.Headers = map[string]string{"X-A: b": "c"} },
		"headers.X-A":                 func(m *Message) { m.Headers = map[string]string{"X-A": "b\r\n\r\nbody"} },
		"headers.X-B":                 func(m *Message) { m.Headers = map[string]string{"X-B": strings.Repeat("x", 1000)} },
		"headers.X-C":                 func(m *Message) { m.Headers = map[string]string{"X-C": "1", "X-c": "2"} },
		"headers.bcc":                 func(m *Message) { m.Headers = map[string]string{"bcc": "x@y.example"} },
		"headers.Content-Type":        func(m *Message) { m.Headers = map[string]string{"Content-Type": "text/html"} },
		"headers.DKIM-Signature":      func(m *Message) { m.Headers = map[string]string{"DKIM-Signature": "v=1"} },
		"headers.Message-ID":          func(m *Message) { m.Headers = map[string]string{"Message-ID": "x"} },
		"text":                        func(m *Message) { m.Text = "\xff" },
		"attachments[0].filename":     func(m *Message) { m.Files[0].Name = "a\"\r\nX: y" },
		"attachments[1].content_type": func(m *Message) { m.Files[1].Type = "image/png\r\nX: y" },
		"attachments[0].content_type": func(m *Message) { m.Files[0].Type = "message/rfc822" },
		"attachments[1].content_id":   func(m *Message) { m.Files[1].ID = "a>\r\nX: y" },
	} {
		m := whole()
		m.Headers = nil
		change(m)
		_, err := m.Write()
		var e *Error
		if !errors.As(err, &e) || e.Field != field || e.Text == "" || e.Advice == "" {
			t.Errorf("%s: %+v", field, err)
		}
	}
	if _, err := (&Message{From: Address{Email: "a@b.example"}}).Write(); err == nil {
		t.Error("a message of nothing is taken")
	}
}

func TestParse(t *testing.T) {
	for s, want := range map[string]Address{
		"a@b.example":                 {"", "a@b.example"},
		" Ann <a@b.example> ":         {"Ann", "a@b.example"},
		"Müller, Ann <a@b.example>":   {"Müller, Ann", "a@b.example"},
		`"Ann \"A\" B" <a@b.example>`: {`Ann "A" B`, "a@b.example"},
		`"quoted local"@b.example`:    {"", `"quoted local"@b.example`},
		"Ann <x> <a@b.example>":       {"Ann <x>", "a@b.example"},
		"<a@b.example>":               {"", "a@b.example"},
		"a@b.example, c@d.example":    {"", "a@b.example, c@d.example"}, // Check refuses it
	} {
		if got, err := Parse(s); err != nil || got != want {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
	if _, err := (Address{Email: "a@b.example, c@d.example"}).Check(); err == nil {
		t.Error("two addresses pass for one")
	}
}

// Whatever the fields hold, the message has the header and the parts that were
// meant, and no others.
func FuzzWrite(f *testing.F) {
	f.Add("Ann", "a@b.example", "Subject", "text", "<p>", "X-Name", "value", "f.txt", "text/plain", "id")
	f.Add("a\r\nb", "a\"b@c.example", "=?utf-8?q?x?=", "\r.\r", "", "x", "a\tb", "=?x?=", "a/b; c=\"d\"", "@")
	f.Fuzz(func(t *testing.T, name, email, subject, text, html, field, value, file, kind, id string) {
		m := Message{From: Address{name, email}, To: []Address{{Email: "to@example.net"}}, Subject: subject, Text: text, HTML: html,
			Headers: map[string]string{field: value}, Files: []File{{Name: file, Type: kind, ID: id, Content: []byte("content")}}}
		b, err := m.Write()
		if err != nil {
			return
		}
		h, parts := read(t, b)
		for key, values := range h {
			switch key {
			case "From", "To", "Subject", "Mime-Version", "Content-Type", "Content-Transfer-Encoding", "Content-Disposition", "Content-Id":
			default:
				if !strings.EqualFold(key, field) {
					t.Errorf("a field %s: %q", key, values)
				}
			}
			if len(values) != 1 {
				t.Errorf("%s stands there %d times", key, len(values))
			}
		}
		from, err := h.AddressList("From")
		if err != nil || len(from) != 1 {
			t.Errorf("From %q: %v", h.Get("From"), err)
		}
		if len(parts) > 3 {
			t.Errorf("%d parts: %q", len(parts), parts)
		}
	})
}
