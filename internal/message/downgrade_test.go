package message

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/textproto"
	"os"
	"strings"
	"testing"

	gomessage "github.com/emersion/go-message"
	"github.com/google/go-cmp/cmp"
)

func to7Bit(t testing.TB, c Content) (Content, error) {
	t.Helper()
	buf := NewBuffer(t.TempDir(), 1<<20)
	t.Cleanup(func() { buf.Close() })
	return To7Bit(c, buf)
}

func text(lines ...string) string { return strings.Join(lines, "\r\n") + "\r\n" }

func TestTo7BitBytes(t *testing.T) {
	for name, tt := range map[string]struct{ in, want string }{
		"nothing to do": {text("Content-Transfer-Encoding: 8bit", "", "ascii"), text("Content-Transfer-Encoding: 8bit", "", "ascii")},
		"text": {text("Subject: x", "MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8", "Content-transfer-encoding:", " 8BIT (yes)", "X: y", "",
			"café = 1", "trailing space ", "", ".", "From here"),
			text("Subject: x", "MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: quoted-printable", "X: y", "",
				"caf=C3=A9 =3D 1", "trailing space=20", "", ".", "From here")},
		"no MIME, UTF-8":   {text("Subject: x", "", "café"), text("Subject: x", "MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: quoted-printable", "", "caf=C3=A9")},
		"no MIME, latin-1": {text("Subject: x", "", "caf\xe9"), text("Subject: x", "MIME-Version: 1.0", "Content-Type: text/plain; charset=unknown-8bit", "Content-Transfer-Encoding: quoted-printable", "", "caf=E9")},
		"no header":        {"caf\xe9", "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\ncaf=E9"},
		"long line": {"MIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n" + strings.Repeat("é", 30),
			"MIME-Version: 1.0\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" +
				strings.Repeat("=C3=A9", 12) + "=C3=\r\n=A9" + strings.Repeat("=C3=A9", 12) + "=\r\n" + strings.Repeat("=C3=A9", 5)},
		"line that becomes a boundary": {"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n" + strings.Repeat("x", 69) + "é--b\r\n--b--\r\n",
			"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + strings.Repeat("x", 69) + "=C3=A9=\r\n=2D-b\r\n--b--\r\n"},
		"boundary outside of ASCII": {"Content-Type: multipart/mixed; boundary*=utf-8''%C3%A9\r\n\r\n--x\r\n", "Content-Type: multipart/mixed; boundary*=utf-8''%C3%A9\r\n\r\n--x\r\n"},
		"bare CR and LF": {"MIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\né\ra\nb\r\n",
			"MIME-Version: 1.0\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=C3=A9=0Da=0Ab\r\n"},
		"binary at the end": {text("MIME-Version: 1.0", "Content-Type: image/x", "", "\xff\xfe"),
			text("MIME-Version: 1.0", "Content-Type: image/x", "Content-Transfer-Encoding: base64", "", "//4NCg==")},
		"labels in a multipart": {
			text("MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=b", "Content-Transfer-Encoding: 8bit", "", "pré", "--b", "Content-Transfer-Encoding: binary", "", "clean", "--b ", "", "caf\xe9", "--b--", "\xff"),
			text("MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=b", "Content-Transfer-Encoding: 7bit", "", "pr??", "--b", "Content-Transfer-Encoding: 7bit", "", "clean", "--b ",
				"Content-Transfer-Encoding: quoted-printable", "", "caf=E9", "--b--", "?")},
		"part without header": {text("Content-Type: multipart/mixed; boundary=b", "", "--b", "cafés", "--b--"),
			text("Content-Type: multipart/mixed; boundary=b", "", "--b", "Content-Transfer-Encoding: quoted-printable", "", "caf=C3=A9s", "--b--")},
		"base64 before a boundary": {text("Content-Type: multipart/mixed; boundary=b", "", "--b", "Content-Type: image/x", "", "\xff", "--b--"),
			text("Content-Type: multipart/mixed; boundary=b", "", "--b", "Content-Type: image/x", "Content-Transfer-Encoding: base64", "", "/w==", "--b--")},
		"broken quoted-printable": {text("Content-Transfer-Encoding: quoted-printable", "", "caf=C3=A9 café"), text("Content-Transfer-Encoding: quoted-printable", "", "caf=C3=A9 caf=C3=A9")},
		"broken base64":           {text("Content-Transfer-Encoding: base64", "", "YWJj\xff"), text("Content-Transfer-Encoding: base64", "", "YWJj?")},
		"enclosed": {text("Content-Type: message/rfc822", "Content-Transfer-Encoding: 8bit", "", "Subject: in", "MIME-Version: 1.0", "Content-Type: text/plain", "", "é"),
			text("Content-Type: message/rfc822", "Content-Transfer-Encoding: 7bit", "MIME-Version: 1.0", "", "Subject: in", "MIME-Version: 1.0", "Content-Type: text/plain", "Content-Transfer-Encoding: quoted-printable", "", "=C3=A9")},
		"digest": {text("Content-Type: multipart/digest; boundary=b", "", "--b", "", "MIME-Version: 1.0", "Content-Type: text/plain", "", "é", "--b--"),
			text("Content-Type: multipart/digest; boundary=b", "", "--b", "", "MIME-Version: 1.0", "Content-Type: text/plain", "Content-Transfer-Encoding: quoted-printable", "", "=C3=A9", "--b--")},
		"delivery status": {text("Content-Type: message/delivery-status", "MIME-Version: 1.0", "", "Diagnostic-Code: smtp; 550 é"),
			text("Content-Type: message/delivery-status", "MIME-Version: 1.0", "Content-Transfer-Encoding: quoted-printable", "", "Diagnostic-Code: smtp; 550 =C3=A9")},
		"loose boundary": {text(`Content-Type: multipart/mixed; charset; Boundary = "b c"; x`, "", "--b c", "", "é", "--b c--"),
			text(`Content-Type: multipart/mixed; charset; Boundary = "b c"; x`, "", "--b c", "Content-Transfer-Encoding: quoted-printable", "", "=C3=A9", "--b c--")},
		"outer boundary ends inner parts": {
			text("Content-Type: multipart/mixed; boundary=a", "", "--a", "Content-Type: multipart/mixed; boundary=b", "", "--b", "Content-Type: image/x", "", "\xff", "--a", "", "é", "--b", "--a--"),
			text("Content-Type: multipart/mixed; boundary=a", "", "--a", "Content-Type: multipart/mixed; boundary=b", "", "--b", "Content-Type: image/x", "Content-Transfer-Encoding: base64", "", "/w==", "--a",
				"Content-Transfer-Encoding: quoted-printable", "", "=C3=A9", "--b", "--a--")},
	} {
		for _, c := range []Content{Bytes([]byte(tt.in)), stream(tt.in)} {
			got, err := to7Bit(t, c)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if diff := cmp.Diff(tt.want, string(readAll(t, got))); diff != "" {
				t.Errorf("%s: (-want +got)\n%s", name, diff)
			}
		}
	}
}

func TestTo7BitErrors(t *testing.T) {
	deep := "Content-Type: multipart/mixed; boundary=b0\r\n\r\n"
	for i := range maxDepth {
		deep += fmt.Sprintf("--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n", i, i+1)
	}
	for want, in := range map[string]string{
		ErrHeader8Bit.Error():              text("Subject: é", "", "x"),
		"the header has characters":        text("Content-Type: message/rfc822", "", "Subject: é", "", "x"),
		`the encoding "x-uuencode"`:        text("Content-Transfer-Encoding: x-uuencode", "", "é"),
		"multipart without a boundary":     text("Content-Type: multipart/mixed", "", "é"),
		"type message/partial":             text("Content-Type: message/partial", "", "é"),
		"too deep inside others":           deep + "é",
		"more than 10000 parts":            "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n\r\n", 10_001) + "é",
		"header of the message or of a pa": "X: " + strings.Repeat("x", MaxHeader) + "\r\n\r\né",
	} {
		if _, err := to7Bit(t, Bytes([]byte(in))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: got error %v, want %q", in, err, want)
		}
	}
	if _, err := to7Bit(t, Bytes([]byte("Content-Type: multipart/mixed; boundary=b\r\n\r\n"+strings.Repeat("--b\r\n\r\n", 10_001)))); err != nil {
		t.Errorf("7-bit content with many parts: %v", err)
	}
	if _, err := to7Bit(t, Bytes([]byte(text("Subject: é", "", "x")))); !errors.Is(err, ErrHeader8Bit) {
		t.Error(err)
	}
	bad := errors.New("disk on fire")
	for _, c := range []Content{failing{bad, nil}, failing{nil, bad}} {
		if _, err := to7Bit(t, c); !errors.Is(err, bad) {
			t.Error(err)
		}
	}
	if _, err := To7Bit(Bytes([]byte("\r\n\xff")), NewBuffer(t.TempDir()+"/missing", 0)); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// decoded gives the bodies of all parts, decoded, as the standard library reads
// them.
func decoded(t testing.TB, b []byte) []string {
	t.Helper()
	m, err := mail.ReadMessage(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return decodedParts(t, textproto.MIMEHeader(m.Header), m.Body)
}

func decodedParts(t testing.TB, h textproto.MIMEHeader, r io.Reader) (all []string) {
	t.Helper()
	typ, params, _ := mime.ParseMediaType(h.Get("Content-Type"))
	switch strings.ToLower(h.Get("Content-Transfer-Encoding")) {
	case "quoted-printable":
		r = quotedprintable.NewReader(r)
	case "base64":
		r = base64.NewDecoder(base64.StdEncoding, r)
	}
	if strings.HasPrefix(typ, "multipart/") {
		mr := multipart.NewReader(r, params["boundary"])
		for {
			p, err := mr.NextRawPart()
			if err == io.EOF {
				return all
			}
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, decodedParts(t, p.Header, p)...)
		}
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if typ == "message/rfc822" {
		return decoded(t, b)
	}
	return []string{typ + ":" + string(b)}
}

// decodedByGoMessage is the same by another reader.
func decodedByGoMessage(t testing.TB, b []byte) (all []string) {
	t.Helper()
	e, err := gomessage.Read(bytes.NewReader(b))
	if err != nil && !gomessage.IsUnknownCharset(err) {
		t.Fatal(err)
	}
	if err := e.Walk(func(path []int, e *gomessage.Entity, err error) error {
		if err != nil && !gomessage.IsUnknownCharset(err) {
			return err
		}
		if e.MultipartReader() == nil {
			b, err := io.ReadAll(e.Body)
			if err != nil {
				return err
			}
			if typ, _, _ := e.Header.ContentType(); typ == "message/rfc822" {
				all = append(all, decodedByGoMessage(t, b)...)
				return nil
			}
			all = append(all, string(b))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// rich is a message with parts of every kind; n sizes the largest.
func rich(n int) []byte {
	var b bytes.Buffer
	b.WriteString(text("From: Ann <ann@example.com>", "To: bob@example.net", "Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=", "MIME-Version: 1.0",
		"Content-Type: multipart/mixed;", "\tboundary=\"=_outer\"", "Content-Transfer-Encoding: 8bit", "", "preamble",
		"--=_outer", "Content-Type: multipart/alternative; boundary=inner", "Content-Transfer-Encoding: 8bit", "",
		"--inner", "Content-Type: text/plain; charset=iso-8859-1", "Content-Transfer-Encoding: 8bit", "", "Gr\xfc\xdfe ", "", "--", "--inne", strings.Repeat("\xfc ", 600),
		"--inner", "Content-Type: text/html; charset=utf-8", "", "<p>Grüße</p>", "",
		"--inner--", "", "--=_outer", "Content-Type: application/octet-stream", "Content-Transfer-Encoding: binary", "Content-Disposition: attachment; filename=a.bin", ""))
	b.Write(bytes.Map(func(r rune) rune {
		if r == '\r' || r == '\n' { // bare ones would be changed by the standard library's reader
			return 'x'
		}
		return r
	}, []byte(strings.ToValidUTF8(string(pattern(n)), "ü"))))
	b.WriteString("\r\n" + text("--=_outer", "Content-Type: message/rfc822", "Content-Transfer-Encoding: 8bit", "",
		"Subject: inside", "MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=deep", "", "--deep", "Content-Type: text/plain; charset=utf-8", "", "tief: ä",
		"--deep", "Content-Type: image/png", "Content-Transfer-Encoding: base64", "", "iVBORw0KGgo=", "--deep--",
		"--=_outer", "Content-Type: text/plain", "", "plain ascii", "--=_outer--", "epilogue"))
	return b.Bytes()
}

func TestTo7BitKeepsDecodedContent(t *testing.T) {
	for _, size := range []int{0, 1, 57, 58, 5000, 300_000} {
		in := rich(size)
		c, err := to7Bit(t, stream(in))
		if err != nil {
			t.Fatal(err)
		}
		out := readAll(t, c)
		if hasHigh(out) {
			t.Fatal("the result is not 7-bit")
		}
		if f := mustScan(t, c); f.LongestLine > 998 {
			t.Errorf("a line of %d bytes", f.LongestLine)
		}
		want := decoded(t, in)
		if len(want) != 6 {
			t.Fatalf("%d parts in the test message", len(want))
		}
		if !cmp.Equal(want, decoded(t, out)) {
			t.Errorf("size %d: decoded content differs", size)
		}
		if !cmp.Equal(decodedByGoMessage(t, in), decodedByGoMessage(t, out)) {
			t.Errorf("size %d: decoded content differs by go-message", size)
		}
		if again, err := to7Bit(t, c); err != nil || again != c {
			t.Errorf("a second conversion changes something: %v", err)
		}
	}
}

// Whatever comes in, what comes out is 7-bit and keeps everything that was so.
func FuzzTo7Bit(f *testing.F) {
	f.Add(rich(100))
	f.Add([]byte("Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: image/x\n\n\xff\xfe\n--b--\n"))
	f.Add([]byte("Content-Type: text/plain\r\n\r\n\xc3\xa9 \t\r\r\n=\r\n"))
	f.Add([]byte("Content-Transfer-Encoding: quoted-printable\r\n\r\n=\xc3\xa9=\r\n"))
	f.Add([]byte("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: binary\r\n\r\nX: y\r\n\r\n\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		buf := NewBuffer("", 64<<20)
		defer buf.Close()
		c, err := To7Bit(stream(in), buf)
		if !hasHigh(in) {
			if err != nil || !bytes.Equal(readAll(t, c), in) {
				t.Fatalf("7-bit content changed: %v", err)
			}
			return
		}
		if err != nil {
			return
		}
		out := readAll(t, c)
		if hasHigh(out) {
			t.Fatalf("not 7-bit:\n%q\n%q", in, out)
		}
		was, is := leavesOf(t, in), leavesOf(t, out)
		if len(was) != len(is) {
			t.Fatalf("%d leaves became %d:\n%q\n%q", len(was), len(is), in, out)
		}
		for i := range was {
			if a, ok := was[i].decode(); ok {
				if b, ok := is[i].decode(); !ok || !bytes.Equal(a, b) {
					t.Fatalf("leaf %d differs:\n%q\n%q", i, in, out)
				}
			}
		}
	})
}

// rawLeaf is the body of a leaf as it is written.
type rawLeaf struct {
	encoding string
	raw      []byte
}

// decode is a decoder of the plainest kind.
func (l rawLeaf) decode() (out []byte, ok bool) {
	switch l.encoding {
	case "", "8bit", "binary":
		return l.raw, true
	case "quoted-printable":
		for p := l.raw; len(p) > 0; {
			switch {
			case bytes.HasPrefix(p, []byte("=\r\n")):
				p = p[3:]
			case p[0] == '=' && len(p) > 2 && hexValue(p[1]) >= 0 && hexValue(p[2]) >= 0:
				out = append(out, byte(hexValue(p[1])<<4|hexValue(p[2])))
				p = p[3:]
			default:
				out = append(out, p[0])
				p = p[1:]
			}
		}
		return out, true
	case "base64":
		out, err := base64.StdEncoding.DecodeString(string(l.raw))
		return out, err == nil
	}
	return nil, false
}

func leavesOf(t *testing.T, b []byte) []*rawLeaf {
	var c leafCollector
	if err := walk(bytes.NewReader(b), &c); err != nil {
		t.Fatal(err)
	}
	return c.all
}

type leafCollector struct{ all []*rawLeaf }

func (c *leafCollector) header(e *entity) error {
	if e.kind == leaf {
		c.all = append(c.all, &rawLeaf{encoding: e.encoding})
	}
	return nil
}
func (c *leafCollector) body(_ *entity, p []byte) error {
	l := c.all[len(c.all)-1]
	l.raw = append(l.raw, p...)
	return nil
}
func (c *leafCollector) end(*entity, bool) error { return nil }
func (c *leafCollector) between([]byte) error    { return nil }
