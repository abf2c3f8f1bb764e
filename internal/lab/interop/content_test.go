package interop

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"net/mail"
	"slices"
	"strings"
	"testing"
)

// hardMessage is a message with what gets lost or changed on the way when a
// sender, relay or receiver is careless: lines that begin with dots, a line of
// the longest length allowed (RFC 5321 section 4.5.3.1.6), 8-bit text, white
// space at line ends, folded and repeated header fields, an attachment with
// every byte value, and blank lines at the end. Lines end in CRLF.
func hardMessage(from, to, subject string) []byte {
	binary := make([]byte, 20_000)
	random := rand.New(rand.NewPCG(5321, 5322))
	for i := range binary {
		binary[i] = byte(random.Uint32())
	}
	var attachment strings.Builder
	for b := range slices.Chunk([]byte(base64.StdEncoding.EncodeToString(binary)), 76) {
		attachment.Write(b)
		attachment.WriteString("\r\n")
	}
	return []byte(crlf(`From: Sender <`+from+`>
To: Recipient <`+to+`>
Subject: `+subject+`
Date: Mon, 02 Mar 2026 10:11:12 +0100
Message-ID: <`+strings.ReplaceAll(subject, " ", ".")+`@client.example>
MIME-Version: 1.0
X-Folded: first
	second
  third
X-Twice: one
x-twice: two
Content-Type: multipart/mixed; boundary="=_border"

This is a message in several parts.
--=_border
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

.
..
.leading dot
...three
. 
Grüße aus Köln, 日本語, emoji 🚀, end of 8-bit text
trailing blanks   
	tab first, tab last	
`+strings.Repeat("0123456789", 99)+`12345678
From the beginning of a line
=20 =3D looks like quoted-printable
%FROM_ADDRESS% \n is not for templates
--=_border
Content-Type: application/octet-stream; name="bytes.bin"
Content-Disposition: attachment; filename="bytes.bin"
Content-Transfer-Encoding: base64

`) + attachment.String() + crlf(`--=_border--
An epilogue, and blank lines:



`))
}

// bareMessage is what devices send: neither Date nor Message-ID.
func bareMessage(from, to, subject string) []byte {
	return []byte(crlf("From: " + from + "\nTo: " + to + "\nSubject: " + subject + "\n\nscan attached\n"))
}

// emptyMessage ends with its header.
func emptyMessage(from, to, subject string) []byte {
	return []byte(crlf("From: " + from + "\nTo: " + to + "\nSubject: " + subject + "\n\n"))
}

// largeMessage is more than the relay keeps in memory, with a dot where a line
// begins and 8-bit text on every line.
func largeMessage(from, to, subject string) []byte {
	line := []byte("..Grüße: " + strings.Repeat("x", 60) + "\r\n")
	return append(hardMessage(from, to, subject), bytes.Repeat(line, (3<<20)/len(line))...)
}

func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

func lf(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")) }

// prepended returns the names of the header fields that stand before sent in
// got. It is an error when got is anything but header fields and then sent.
func prepended(got, sent []byte) ([]string, error) {
	head, ok := bytes.CutSuffix(got, sent)
	if !ok {
		return nil, fmt.Errorf("content differs: %s", difference(got, sent))
	}
	var names []string
	for line := range strings.Lines(string(head)) {
		name, _, isField := strings.Cut(line, ":")
		folded := strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t")
		switch {
		case !strings.HasSuffix(line, "\r\n"):
			return nil, fmt.Errorf("before the content stands %q, which does not end in CRLF", line)
		case folded && len(names) > 0:
		case !folded && isField && !strings.ContainsAny(name, " \t"):
			names = append(names, name)
		default:
			return nil, fmt.Errorf("before the content stands %q, which is no header field", line)
		}
	}
	return names, nil
}

// difference says where got, but for what was put before it, first differs from
// sent.
func difference(got, sent []byte) string {
	first, _, _ := bytes.Cut(sent, []byte("\r\n"))
	at := bytes.Index(got, first)
	if at < 0 {
		return fmt.Sprintf("the first line %q did not arrive; got %d bytes:\n%.2000q", first, len(got), got)
	}
	gotLines := bytes.SplitAfter(got[at:], []byte("\n"))
	sentLines := bytes.SplitAfter(sent, []byte("\n"))
	for i, line := range sentLines {
		if i >= len(gotLines) || !bytes.Equal(line, gotLines[i]) {
			var instead []byte
			if i < len(gotLines) {
				instead = gotLines[i]
			}
			return fmt.Sprintf("line %d (%d bytes sent, %d received in all)\nsent     %q\nreceived %q", i+1, len(sent), len(got[at:]), line, instead)
		}
	}
	return fmt.Sprintf("%d bytes follow: %.500q", len(bytes.Join(gotLines[len(sentLines)-1:], nil)), gotLines[len(sentLines)-1:])
}

// field returns the first field of that name in a message's header, unfolded.
func field(content []byte, name string) string {
	m, err := mail.ReadMessage(bytes.NewReader(content))
	if err != nil {
		return ""
	}
	return m.Header.Get(name)
}

// parts returns the decoded parts of a multipart message.
func parts(t *testing.T, content []byte) (decoded [][]byte) {
	t.Helper()
	m, err := mail.ReadMessage(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	for r := multipart.NewReader(m.Body, params["boundary"]); ; {
		part, err := r.NextPart() // decodes quoted-printable
		if err == io.EOF {
			return decoded
		}
		if err != nil {
			t.Fatal(err)
		}
		var body io.Reader = part
		if strings.EqualFold(part.Header.Get("Content-Transfer-Encoding"), "base64") {
			body = base64.NewDecoder(base64.StdEncoding, part)
		}
		b, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		decoded = append(decoded, b)
	}
}
