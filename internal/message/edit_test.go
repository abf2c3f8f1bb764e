package message

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
)

// shout makes links of a part longer, and notes what it got.
func shout(seen *[]string) Editing {
	return Editing{Most: 10_000, Edit: func(p Part, charset string) ([]byte, bool) {
		*seen = append(*seen, fmt.Sprintf("%s %s %q", p.Type, charset, p.Body))
		out := bytes.ReplaceAll(p.Body, []byte("LINK"), []byte("another=link"))
		return out, !bytes.Equal(out, p.Body)
	}}
}

func edited(t *testing.T, e Editing, in string) string {
	t.Helper()
	buf := NewBuffer(t.TempDir(), 100)
	defer buf.Close()
	c, err := e.Apply(Bytes([]byte(in)), buf)
	if err != nil {
		t.Fatal(err)
	}
	rc, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	out, err := io.ReadAll(rc)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(out)) != c.Size() {
		t.Errorf("%d bytes, said to be %d", len(out), c.Size())
	}
	return string(out)
}

func TestEdit(t *testing.T) {
	const (
		top   = "Subject: x\r\nMIME-Version: 1.0\r\n"
		multi = top + "Content-Type: multipart/alternative; boundary=b\r\n\r\npreamble\r\n--b\r\n"
		html  = "Content-Type: text/html; charset=utf-8\r\n"
	)
	for name, tt := range map[string]struct{ in, want, seen string }{
		"plain":       {"Subject: x\r\n\r\nsee LINK\r\n", "Subject: x\r\n\r\nsee another=link\r\n", `["text/plain  \"see LINK\\r\\n\""]`},
		"html":        {top + html + "\r\n<LINK>", top + html + "\r\n<another=link>", `["text/html utf-8 \"<LINK>\""]`},
		"nothing":     {"Subject: x\r\n\r\nsee\r\n", "", `["text/plain  \"see\\r\\n\""]`},
		"quoted":      {top + html + "Content-Transfer-Encoding: Quoted-Printable\r\n\r\nL=49NK=20=\r\n=C3=BC\r\nx \r\n", top + html + "Content-Transfer-Encoding: Quoted-Printable\r\n\r\nanother=3Dlink =C3=BC\r\nx\r\n", `["text/html utf-8 \"LINK ü\\r\\nx\\r\\n\""]`},
		"base64":      {top + html + "Content-Transfer-Encoding: base64\r\n\r\nPExJ\r\nTks+\r\n", top + html + "Content-Transfer-Encoding: base64\r\n\r\nPGFub3RoZXI9bGluaz4=\r\n", `["text/html utf-8 \"<LINK>\""]`},
		"broken code": {top + html + "Content-Transfer-Encoding: base64\r\n\r\nP\x00ExJTks+\r\n", "", `[]`},
		"parts": {multi + "Content-Type: text/plain\r\n\r\nLINK\r\n--b\r\n" + html + "Content-Transfer-Encoding: base64\r\n\r\nPExJTks+\r\n--b--\r\nLINK\r\n",
			multi + "Content-Type: text/plain\r\n\r\nanother=link\r\n--b\r\n" + html + "Content-Transfer-Encoding: base64\r\n\r\nPGFub3RoZXI9bGluaz4=\r\n--b--\r\nLINK\r\n", `["text/plain  \"LINK\"" "text/html utf-8 \"<LINK>\""]`},
		"attachment": {multi + html + "Content-Disposition: attachment; filename=a.html\r\n\r\nLINK\r\n--b--\r\n", "", `[]`},
		"other text": {multi + "Content-Type: text/x-amp-html\r\n\r\nLINK\r\n--b\r\nContent-Type: text/calendar\r\n\r\nLINK\r\n--b--\r\n", "", `[]`},
		"signed": {strings.Replace(multi, "alternative", "signed", 1) + html + "\r\nLINK\r\n--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\nLINK\r\n--c--\r\n--b--\r\n", "",
			`[]`},
		"passed on": {multi + "Content-Type: message/rfc822\r\n\r\nSubject: y\r\n\r\nLINK\r\n--b\r\n\r\nLINK\r\n--b--\r\n",
			multi + "Content-Type: message/rfc822\r\n\r\nSubject: y\r\n\r\nLINK\r\n--b\r\n\r\nanother=link\r\n--b--\r\n", `["text/plain  \"LINK\""]`},
		"passed on, in parts": {multi + "Content-Type: message/rfc822\r\n\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\nLINK\r\n--c--\r\n--b--\r\n", "", `[]`},
		"wide charset":        {top + "Content-Type: text/html; charset=UTF-16\r\n\r\nLINK", "", `[]`},
		"escaping charset":    {top + "Content-Type: text/html; charset=iso-2022-jp\r\n\r\nLINK", "", `[]`},
		"binary":              {top + html + "Content-Transfer-Encoding: binary\r\n\r\nLINK", "", `[]`},
		"too large":           {top + html + "\r\nLINK" + strings.Repeat("x", 10_000), "", `[]`},
		"no blank line":       {"Subject: x\r\nLINK\r\n", "", `[]`},
		"long line": {top + html + "Content-Transfer-Encoding: 8bit\r\n\r\nLINK " + strings.Repeat("ü", 495) + "\r\n-\r\n",
			top + html + "Content-Transfer-Encoding: quoted-printable\r\n\r\n", ""},
	} {
		var seen []string
		got := edited(t, shout(&seen), tt.in)
		want := tt.want
		if want == "" {
			want = tt.in
		}
		if name == "long line" {
			if !strings.HasPrefix(got, want) || longLine([]byte(got)) || strings.Count(strings.ReplaceAll(got, "=\r\n", ""), "=C3=BC") != 495 || !strings.HasSuffix(got, "\r\n-\r\n") {
				t.Errorf("%s: %q", name, got)
			}
			continue
		}
		if got != want {
			t.Errorf("%s:\n got %q\nwant %q", name, got, want)
		}
		if s := fmt.Sprintf("%q", seen); s != tt.seen {
			t.Errorf("%s: saw %s", name, s)
		}
	}
}

// What nothing comes of is not even copied.
func TestEditStays(t *testing.T) {
	c := Bytes([]byte("DKIM-Signature: x\r\n\r\nLINK\r\n"))
	var seen []string
	e := shout(&seen)
	e.Skip = func(header []byte) bool { return bytes.HasPrefix(header, []byte("DKIM-")) }
	if got, err := e.Apply(c, NewBuffer("", 100)); err != nil || got != c || seen != nil {
		t.Errorf("%v, %v, saw %q", got, err, seen)
	}
	e.Skip, e.Edit = nil, func(Part, string) ([]byte, bool) { return nil, false }
	if got, err := e.Apply(c, NewBuffer("", 100)); err != nil || got != c {
		t.Errorf("%v, %v", got, err)
	}
}

// An edition that gives each body back changes no byte of what is not encoded, and
// no text of what is.
func FuzzEdit(f *testing.F) {
	f.Add([]byte("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\nPExJTks+\r\n--b--\r\n"))
	f.Add([]byte("Content-Transfer-Encoding: quoted-printable\r\n\r\na=20=\r\nb\r\n"))
	f.Add([]byte("Subject: x\r\n\r\nx\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		texts := func(c Content) (all []string, err error) {
			err = visitParts(c, func(p Part) { all = append(all, p.Type+" "+string(p.Body)) })
			return all, err
		}
		before, err := texts(Bytes(in))
		if err != nil {
			return
		}
		buf := NewBuffer("", 1<<20)
		defer buf.Close()
		c, err := Editing{Most: 1 << 20, Edit: func(p Part, _ string) ([]byte, bool) { return p.Body, true }}.Apply(Bytes(in), buf)
		if err != nil {
			t.Fatal(err)
		}
		after, err := texts(c)
		if err != nil || fmt.Sprintf("%q", before) != fmt.Sprintf("%q", after) {
			t.Fatalf("%q became %q (%v)\n%q\n%q", in, buf.mem, err, before, after)
		}
	})
}

func visitParts(c Content, visit func(Part)) error {
	rc, err := c.Open()
	if err != nil {
		return err
	}
	defer rc.Close()
	return ReadParts(rc, 1<<20, func(p Part) error { visit(p); return nil })
}
