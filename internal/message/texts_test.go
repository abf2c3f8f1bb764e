package message

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

func contains(word string) func([]byte) bool {
	return func(b []byte) bool { return bytes.Contains(b, []byte(word)) }
}

// Texts shows what Editing edits, and stops when it is told to.
func TestTexts(t *testing.T) {
	const (
		top   = "Subject: x\r\nMIME-Version: 1.0\r\n"
		multi = top + "Content-Type: multipart/mixed; boundary=b\r\n\r\npreamble\r\n--b\r\n"
	)
	for name, in := range map[string]string{
		"plain":    "Subject: x\r\n\r\nsee LINK\r\n",
		"quoted":   top + "Content-Type: text/html; charset=UTF-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nL=\r\nINK=C3=BC\r\n",
		"base64":   top + "Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\nTEl\r\nOSw==\r\n",
		"broken":   top + "Content-Transfer-Encoding: base64\r\n\r\nTE*lOSw==\r\n",
		"parts":    multi + "\r\nLINK 1\r\n--b\r\nContent-Type: text/html; charset=utf-16\r\n\r\nLINK 2\r\n--b\r\nContent-Type: application/pdf\r\n\r\nLINK 3\r\n--b\r\nContent-Type: text/html\r\n\r\nLINK 4\r\n--b--\r\nLINK 5\r\n",
		"attached": multi + "Content-Disposition: attachment\r\n\r\nLINK\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: y\r\n\r\nLINK\r\n--b--\r\n",
		"signed":   strings.Replace(multi, "mixed", "signed", 1) + "\r\nLINK\r\n--b--\r\n",
		"long":     "Subject: x\r\n\r\n" + strings.Repeat("LINK\r\n", 2000),
		"empty":    "",
	} {
		var want, got []string
		edited(t, shout(&want), in)
		if err := Texts(Bytes([]byte(in)), 10_000, contains("LINK"), func(p Part, charset string) bool {
			got = append(got, fmt.Sprintf("%s %s %q", p.Type, charset, p.Body))
			return false
		}); err != nil {
			t.Error(err)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: saw %q, edits %q", name, got, want)
		}
		var spilled []string
		buf := NewBuffer(t.TempDir(), 10)
		defer buf.Close()
		if _, err := buf.Write([]byte(in)); err != nil {
			t.Fatal(err)
		}
		if err := Texts(buf.Content(), 10_000, func([]byte) bool { return false }, func(p Part, charset string) bool {
			spilled = append(spilled, fmt.Sprintf("%s %s %q", p.Type, charset, p.Body))
			return false
		}); err != nil || len(in) > 10 && fmt.Sprint(spilled) != fmt.Sprint(want) {
			t.Errorf("%s, not in memory: saw %q, edits %q, %v", name, spilled, want, err)
		}
		n := 0
		if err := Texts(Bytes([]byte(in)), 10_000, contains("LINK"), func(Part, string) bool { n++; return true }); err != nil || n != min(1, len(want)) {
			t.Errorf("%s: %v after %d that were enough", name, err, n)
		}
	}
}

// What is beyond our bounds stays, and is no error.
func TestTextsOfMonsters(t *testing.T) {
	for name, in := range map[string]string{
		"parts":  "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n\r\nx\r\n", maxEntities) + "--b\r\n\r\nLINK\r\n--b--\r\n",
		"header": "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nLINK\r\n--b\r\nX: " + strings.Repeat("y", MaxHeader) + "\r\n\r\nLINK\r\n--b--\r\n",
	} {
		var seen []string
		if out := edited(t, shout(&seen), in); out != in {
			t.Errorf("%s: became %d bytes of %d", name, len(out), len(in))
		}
		if err := Texts(Bytes([]byte(in)), 10_000, contains("LINK"), func(Part, string) bool { return false }); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Where nothing hints at what is looked for, nothing is shown; soft line breaks and
// base64 hide nothing.
func TestTextsHints(t *testing.T) {
	long := strings.Repeat("0123456789\r\n", 50)
	quoted := "Content-Transfer-Encoding: quoted-printable\r\n\r\n"
	for in, want := range map[string]bool{
		quoted + "nothing=\r\n here\r\n":                                                   false,
		quoted + "NEE=\r\nDLE\r\n":                                                         true,
		quoted + "N=\r\nE=\r\nE=\r\nD=\r\nL=\r\nE\r\n":                                     true,
		quoted + "=\r\n" + long + "NEED=\r\nLE":                                            true,
		quoted + "NEED=\r\nLE" + long + "x=\r\n":                                           true,
		quoted + "x=\r\n" + long + "NEED=\r\n" + long + "=\r\nLE":                          false,
		quoted + strings.Repeat("0123456789=\r\n", 2000) + "NEED=\r\nLE":                   true,
		quoted + strings.Repeat("0123456789=\r\n", 2000) + "NEED":                          false,
		"content-transfer-encoding:  Base64\r\n\r\nTkVF\r\nRExF\r\n":                       true,
		"Content-Transfer-Encoding: BASE64\r\n\r\neHh4\r\nTkVFRExF\r\n":                    true,
		"Content-Type: TEXT/html\r\nContent-Transfer-Encoding: base64\r\n\r\nTkVFRExF\r\n": true,
		"Subject: base64\r\n\r\nbase64\r\n\r\nbase64":                                      false,
		"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Transfer-Encoding: base64\r\n\r\neHh4\r\n--b\r\nContent-Transfer-Encoding: base64\r\n\r\nTkVFRExF\r\n--b--\r\n": true,
		"Subject: x\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nTkVFRExF\r\n":                                                                           false,
	} {
		if got := worth([]byte(in), contains("NEEDLE")); got != want {
			t.Errorf("%q: %t", in, got)
		}
	}
}

// Wherever a word stands that is broken, it is found.
func TestTextsBroken(t *testing.T) {
	for before := range 5000 {
		in := strings.Repeat("x", before%77) + strings.Repeat("=\r\n0123456789", before/10) + "NE=\r\nED=\r\nLE=\r\n"
		if !hasJoined([]byte(in), contains("NEEDLE")) {
			t.Fatalf("not found after %d", before)
		}
	}
}

// What looking for text costs, beside the scan that each message has anyway.
func BenchmarkTexts(b *testing.B) {
	const top = "From: a@b.test\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/html; charset=utf-8\r\n"
	html := strings.Repeat("<p style=3D\"x\">Some text of a mail that is quoted-printable =C3=BC and so=\r\n forth</p>\r\n", 100)
	coded := base64.StdEncoding.EncodeToString([]byte(html))
	var lines strings.Builder
	for ; len(coded) > 76; coded = coded[76:] {
		lines.WriteString(coded[:76] + "\r\n")
	}
	for name, in := range map[string]string{
		"identity": top + "\r\n" + html + "\r\n--b--\r\n",
		"quoted":   top + "Content-Transfer-Encoding: quoted-printable\r\n\r\n" + html + "\r\n--b--\r\n",
		"base64":   top + "Content-Transfer-Encoding: base64\r\n\r\n" + lines.String() + "\r\n--b--\r\n",
		"attached": top + "Content-Transfer-Encoding: quoted-printable\r\n\r\n" + html + "\r\n--b\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n" + strings.Repeat(lines.String(), 100) + "--b--\r\n",
	} {
		c := Bytes([]byte(in))
		b.Run("scan/"+name, func(b *testing.B) {
			b.SetBytes(int64(len(in)))
			for b.Loop() {
				if _, err := Scan(c); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("texts/"+name, func(b *testing.B) {
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				if err := Texts(c, 2<<20, contains("{{x"), func(Part, string) bool { return false }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
