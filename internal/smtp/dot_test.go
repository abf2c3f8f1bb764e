package smtp

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"
)

// dotWrite writes the parts of a content one by one.
func dotWrite(t testing.TB, parts ...string) (string, int64) {
	t.Helper()
	var buf bytes.Buffer
	bw := bufio.NewWriter(&buf)
	d := NewDotWriter(bw)
	for _, p := range parts {
		if n, err := d.Write([]byte(p)); n != len(p) || err != nil {
			t.Fatalf("Write(%q) = %d, %v", p, n, err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := bw.Flush(); err != nil {
		t.Fatal(err)
	}
	return buf.String(), d.Len()
}

var dotTests = map[string]struct{ in, want string }{
	"empty":         {"", ".\r\n"},
	"lines":         {"a\r\nb\r\n", "a\r\nb\r\n.\r\n"},
	"no last end":   {"a", "a\r\n.\r\n"},
	"last CR":       {"a\r", "a\r\n.\r\n"},
	"last LF":       {"a\n", "a\r\n.\r\n"},
	"only CR":       {"\r", "\r\n.\r\n"},
	"dots":          {".\r\n..\r\n.a\r\na.\r\n", "..\r\n...\r\n..a\r\na.\r\n.\r\n"},
	"dot alone":     {".", "..\r\n.\r\n"},
	"bare LF":       {"a\nb\n\nc", "a\r\nb\r\n\r\nc\r\n.\r\n"},
	"bare CR":       {"a\rb\r\rc", "a\r\nb\r\n\r\nc\r\n.\r\n"},
	"CRCRLF":        {"a\r\r\nb", "a\r\n\r\nb\r\n.\r\n"},
	"LF.LF":         {"a\n.\nMAIL", "a\r\n..\r\nMAIL\r\n.\r\n"},
	"CR.CR":         {"a\r.\rMAIL", "a\r\n..\r\nMAIL\r\n.\r\n"},
	"CRLF.LF":       {"a\r\n.\nMAIL", "a\r\n..\r\nMAIL\r\n.\r\n"},
	"LF.CRLF":       {"a\n.\r\nMAIL", "a\r\n..\r\nMAIL\r\n.\r\n"},
	"CR.CRLF":       {"a\r.\r\nMAIL", "a\r\n..\r\nMAIL\r\n.\r\n"},
	"CRLF.CR":       {"a\r\n.\rMAIL", "a\r\n..\r\nMAIL\r\n.\r\n"},
	"CRLF.CRLF":     {"a\r\n.\r\nMAIL", "a\r\n..\r\nMAIL\r\n.\r\n"},
	"CRLF NUL.CRLF": {"a\r\n\x00.\r\nMAIL", "a\r\n\x00.\r\nMAIL\r\n.\r\n"},
}

func TestDotWriter(t *testing.T) {
	for name, tt := range dotTests {
		t.Run(name, func(t *testing.T) {
			if got, _ := dotWrite(t, tt.in); got != tt.want {
				t.Errorf("whole: got %q, want %q", got, tt.want)
			}
			if got, _ := dotWrite(t, strings.Split(tt.in, "")...); got != tt.want {
				t.Errorf("byte by byte: got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestDotWriterLines(t *testing.T) {
	var buf bytes.Buffer
	var d DotWriter
	d.ResetLines(&buf)
	if _, err := io.WriteString(&d, ".a\n.\r\rb"); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if got, want := buf.String(), ".a\r\n.\r\n\r\nb\r\n"; got != want || d.Len() != int64(len(want)) {
		t.Errorf("got %q and length %d, want %q", got, d.Len(), want)
	}
}

// undot reads what DotWriter wrote the way that a strict server does, and fails
// where the writer let a bare CR or LF pass or ended the data early.
func undot(t *testing.T, wire string) string {
	t.Helper()
	var b strings.Builder
	for {
		line, rest, ok := strings.Cut(wire, "\r\n")
		if !ok {
			t.Fatalf("no end of data before %q", wire)
		}
		if strings.ContainsAny(line, "\r\n") {
			t.Fatalf("bare CR or LF in %q", line)
		}
		if line == "." {
			if rest != "" {
				t.Fatalf("%q after the end of data", rest)
			}
			return b.String()
		}
		b.WriteString(strings.TrimPrefix(line, ".") + "\r\n")
		wire = rest
	}
}

func FuzzDot(f *testing.F) {
	for _, tt := range dotTests {
		f.Add([]byte(tt.in), uint(2))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint) {
		i := int(cut % uint(len(in)+1))
		whole, n := dotWrite(t, string(in))
		parts, _ := dotWrite(t, string(in[:i]), "", string(in[i:]))
		if whole != parts {
			t.Fatalf("in one %q, in two %q", whole, parts)
		}
		got := undot(t, whole)
		if int64(len(got)) != n {
			t.Fatalf("Len is %d, content %q", n, got)
		}
		want := strings.NewReplacer("\r\n", "\r\n", "\r", "\r\n", "\n", "\r\n").Replace(string(in))
		if want != "" && !strings.HasSuffix(want, "\r\n") {
			want += "\r\n"
		}
		if got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	})
}

func BenchmarkDotWriter(b *testing.B) {
	content := []byte(strings.Repeat(strings.Repeat("x", 76)+"\r\n", 128))
	w := bufio.NewWriterSize(io.Discard, 32<<10)
	var d DotWriter
	b.SetBytes(int64(len(content)))
	b.ReportAllocs()
	for b.Loop() {
		d.Reset(w)
		d.Write(content)
		d.Close()
	}
}
