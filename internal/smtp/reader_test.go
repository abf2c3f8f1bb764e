package smtp

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReadLine(t *testing.T) {
	long := strings.Repeat("x", 100)
	r := NewReader(strings.NewReader("NOOP\r\nRSET\n\r\n\n"+long+"\r\nQUIT\r\nA\rB\r\nrest"), new(Pool))
	for _, want := range []struct {
		line string
		bare bool
		err  error
	}{{"NOOP", false, nil}, {"RSET", true, nil}, {"", false, nil}, {"", true, nil}, {"", true, ErrLineTooLong},
		{"QUIT", false, nil}, {"A\rB", false, nil}, {"", false, io.ErrUnexpectedEOF}, {"", false, io.EOF}} {
		line, err := r.ReadLine(50)
		if string(line) != want.line || !errors.Is(err, want.err) || err == nil && r.BareLF() != want.bare {
			t.Errorf("got %q, %v, bare %v; want %+v", line, err, r.BareLF(), want)
		}
	}
	r = NewReader(strings.NewReader(strings.Repeat("y", 40<<10)+"\r\nQUIT\r\n"), new(Pool))
	if _, err := r.ReadLine(2048); err != ErrLineTooLong {
		t.Errorf("got %v", err)
	}
	if line, err := r.ReadLine(2048); string(line) != "QUIT" || err != nil {
		t.Errorf("got %q, %v", line, err)
	}
	r = NewReader(endless{}, new(Pool))
	if _, err := r.ReadLine(2048); err != ErrEndless {
		t.Errorf("got %v", err)
	}
	r.Reset(strings.NewReader("QUIT\r\n"))
	if line, err := r.ReadLine(2048); string(line) != "QUIT" || err != nil {
		t.Errorf("after Reset: %q, %v", line, err)
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

// waiter calls back whenever a Reader comes to wait for input, and gives it in
// pieces.
type waiter struct {
	pieces []string
	waits  func()
}

func (w *waiter) Read(b []byte) (int, error) {
	w.waits()
	if len(w.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(b, w.pieces[0])
	if w.pieces[0] = w.pieces[0][n:]; w.pieces[0] == "" {
		w.pieces = w.pieces[1:]
	}
	return n, nil
}

// A large buffer is held only while there is input for it.
func TestLargeBufferIsLent(t *testing.T) {
	long := strings.Repeat("x", 5000)
	var r *Reader
	var held []bool
	w := &waiter{pieces: []string{"NOOP\r\n", long + "\r\n", "DATA\r\n", "a\r\n.\r\nRS", "ET\r\n", "QUIT\r\n"}}
	w.waits = func() { held = append(held, r.large != nil) }
	r = NewReader(w, new(Pool))
	for _, want := range []string{"NOOP", long, "DATA", ".", "RSET", "QUIT"} {
		if want == "." {
			if err := r.Dot(NewContent(io.Discard, ContentOptions{})); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if line, err := r.ReadLine(10_000); string(line) != want || err != nil {
			t.Fatalf("got %.20q, %v; want %.20q", line, err, want)
		}
	}
	// The long line takes two reads, and so does RSET, which begins in the buffer
	// of the content before it.
	if want := []bool{false, false, true, false, true, true, false}; !slices.Equal(held, want) {
		t.Errorf("large while waiting: %v; want %v", held, want)
	}
	r.enlarge()
	if r.Reset(w); r.large != nil {
		t.Error("Reset keeps a large buffer")
	}
}

// contents are what follows DATA, and what becomes of it. Each must be read to
// its last CRLF.CRLF and no further, in both modes.
var contents = []struct {
	name, in string
	repaired string // with Repair
	bare     bool   // refused without
}{
	{"plain", "a\r\nb\r\n.\r\n", "a\r\nb\r\n", false},
	{"empty", ".\r\n", "", false},
	{"dots", "..\r\n...\r\n.a\r\n.\r\n", ".\r\n..\r\na\r\n", false},
	{"LF", "a\nb\n\r\n.\r\n", "a\r\nb\r\n\r\n", true},
	{"CR CR LF", "a\r\r\nb\r\n.\r\n", "a\r\nb\r\n", true},
	{"LF dots", "a\n..b\n.c\r\n.\r\n", "a\r\n.b\r\n.c\r\n", true},
	{"LF.LF", "a\n.\nb\r\n.\r\n", "a\r\n.\r\nb\r\n", true},
	{"LF.CRLF", "a\n.\r\nb\r\n.\r\n", "a\r\n.\r\nb\r\n", true},
	{"CRLF.LF", "a\r\n.\nb\r\n.\r\n", "a\r\n\r\nb\r\n", true},
	{"CR.CR", "a\r.\rb\r\n.\r\n", "a.b\r\n", true},
	{"CR.CRLF", "a\r.\r\nb\r\n.\r\n", "a.\r\nb\r\n", true},
	{"CRLF.CR", "a\r\n.\rb\r\n.\r\n", "a\r\nb\r\n", true},
	{"CR.LF", "a\r.\nb\r\n.\r\n", "a.\r\nb\r\n", true},
	{"LF.CR", "a\n.\rb\r\n.\r\n", "a\r\n.b\r\n", true},
	{"CRLF.CRCRLF", "a\r\n.\r\r\nb\r\n.\r\n", "a\r\n\r\nb\r\n", true},
	{"CRLFCR.CRLF", "a\r\n\r.\r\nb\r\n.\r\n", "a\r\n.\r\nb\r\n", true},
	{"CRLF.CRLF hidden by NUL", "a\r\n\x00.\r\nb\r\n.\r\n", "a\r\n\x00.\r\nb\r\n", false},
	{"CRLF.NUL CRLF", "a\r\n.\x00\r\nb\r\n.\r\n", "a\r\n\x00\r\nb\r\n", false},
}

func TestDot(t *testing.T) {
	for _, tt := range contents {
		for _, repair := range []bool{false, true} {
			for _, wrap := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.OneByteReader} {
				var out bytes.Buffer
				r := NewReader(wrap(strings.NewReader(tt.in+"QUIT\r\n")), new(Pool))
				c := NewContent(&out, ContentOptions{Max: 1000, Repair: repair})
				err := r.Dot(c)
				if !repair && tt.bare {
					if err != ErrBareLF {
						t.Errorf("%s: got %v, want ErrBareLF", tt.name, err)
					}
				} else if err != nil || out.String() != tt.repaired || c.Written() != int64(out.Len()) {
					t.Errorf("%s: got %q, %v; want %q", tt.name, out.String(), err, tt.repaired)
				}
				if line, err := r.ReadLine(100); string(line) != "QUIT" {
					t.Errorf("%s, repair %v: left %q, %v", tt.name, repair, line, err)
				}
			}
		}
	}
}

func TestDotLimits(t *testing.T) {
	line := strings.Repeat("x", 98) + "\r\n"
	for lines, want := range map[int]error{10: nil, 11: ErrTooLarge, 20: ErrTooLarge, 21: ErrEndless} {
		var out bytes.Buffer
		r := NewReader(strings.NewReader(strings.Repeat(line, lines)+".\r\n"), new(Pool))
		if err := r.Dot(NewContent(&out, ContentOptions{Max: 1000, Hard: 2003})); err != want || out.Len() > 1000 {
			t.Errorf("%d lines: got %v with %d bytes", lines, err, out.Len())
		}
	}
	r := NewReader(strings.NewReader("a\r\n"), new(Pool))
	if err := r.Dot(NewContent(io.Discard, ContentOptions{})); err != io.ErrUnexpectedEOF {
		t.Errorf("cut short: %v", err)
	}
	// A long line passes in parts, with its CRLF split between them.
	long := strings.Repeat("x", readBuffer-1) + "\r\n"
	var out bytes.Buffer
	r = NewReader(strings.NewReader(long+".\r\n"), new(Pool))
	if err := r.Dot(NewContent(&out, ContentOptions{})); err != nil || out.String() != long {
		t.Errorf("long line: %v, %d bytes", err, out.Len())
	}
	broken := errors.New("disk full")
	r = NewReader(strings.NewReader("a\r\nb\r\n.\r\nQUIT\r\n"), new(Pool))
	if err := r.Dot(NewContent(failing{broken}, ContentOptions{})); err != broken {
		t.Errorf("got %v", err)
	}
	if line, _ := r.ReadLine(100); string(line) != "QUIT" {
		t.Errorf("left %q", line)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestChunk(t *testing.T) {
	for _, tt := range []struct {
		name     string
		chunks   []string
		repaired string
		bare     bool
	}{
		{"one", []string{"a\r\nb"}, "a\r\nb", false},
		{"dots stay", []string{"..\r\n.\r\n", "b\r\n"}, "..\r\n.\r\nb\r\n", false},
		{"CRLF split", []string{"a\r", "\nb\r", "\n"}, "a\r\nb\r\n", false},
		{"empty last", []string{"a\r\n", ""}, "a\r\n", false},
		{"CR split", []string{"a\r", "b\r\n"}, "ab\r\n", true},
		{"CR last", []string{"a\r"}, "a", true},
		{"LF", []string{"a\n", "\nb"}, "a\r\n\r\nb", true},
	} {
		for _, repair := range []bool{false, true} {
			var out bytes.Buffer
			r := NewReader(strings.NewReader(strings.Join(tt.chunks, "")+"QUIT\r\n"), new(Pool))
			c := NewContent(&out, ContentOptions{Max: 1000, Repair: repair})
			var err error
			for i, s := range tt.chunks {
				err = r.Chunk(c, int64(len(s)), i == len(tt.chunks)-1)
			}
			if !repair && tt.bare {
				if err != ErrBareLF {
					t.Errorf("%s: got %v, want ErrBareLF", tt.name, err)
				}
			} else if err != nil || out.String() != tt.repaired {
				t.Errorf("%s: got %q, %v; want %q", tt.name, out.String(), err, tt.repaired)
			}
			if line, _ := r.ReadLine(100); string(line) != "QUIT" {
				t.Errorf("%s: left %q", tt.name, line)
			}
		}
	}
	r := NewReader(strings.NewReader(strings.Repeat("x", 100)), new(Pool))
	if err := r.Chunk(NewContent(io.Discard, ContentOptions{Max: 10, Hard: 20}), 21, false); err != ErrEndless || r.Buffered() != 0 {
		t.Errorf("got %v", err)
	}
}

// dotSlow is Dot written for the eye: byte by byte, over the whole input.
func dotSlow(in []byte, repair bool) (out []byte, bare bool, rest []byte, ok bool) {
	end := bytes.Index(append([]byte("\r\n"), in...), []byte("\r\n.\r\n"))
	if end < 0 {
		return nil, false, nil, false
	}
	body, rest := in[:end], in[end+3:]
	crlf := true // the last line end was a whole one
	begin := true
	for i := 0; i < len(body); i++ {
		c := body[i]
		if begin && c == '.' && (crlf || i+1 < len(body) && body[i+1] == '.') {
			begin = false
			continue
		}
		begin = false
		switch {
		case c == '\r' && i+1 < len(body) && body[i+1] == '\n':
			out = append(out, "\r\n"...)
			begin, crlf, i = true, true, i+1
		case c == '\r':
			bare = true
		case c == '\n':
			bare, begin, crlf = true, true, false
			out = append(out, "\r\n"...)
		default:
			out = append(out, c)
		}
	}
	return out, bare, rest, true
}

func FuzzReadDot(f *testing.F) {
	for _, tt := range contents {
		f.Add([]byte(tt.in+"QUIT"), true, uint8(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, repair bool, chunk uint8) {
		want, bare, rest, ok := dotSlow(in, repair)
		var out bytes.Buffer
		r := NewReader(iotest.OneByteReader(bytes.NewReader(in)), new(Pool))
		if chunk%2 == 0 {
			r = NewReader(bytes.NewReader(in), new(Pool))
		}
		err := r.Dot(NewContent(&out, ContentOptions{Repair: repair}))
		if !ok {
			if err != io.ErrUnexpectedEOF {
				t.Fatalf("%q has no end, yet %v", in, err)
			}
			return
		}
		if left := remains(r); !bytes.Equal(left, rest) {
			t.Fatalf("%q: left %q, want %q", in, left, rest)
		}
		if bare && !repair {
			if err != ErrBareLF {
				t.Fatalf("%q: got %v", in, err)
			}
			return
		}
		if err != nil || !bytes.Equal(out.Bytes(), want) {
			t.Fatalf("%q: got %q, %v; want %q", in, out.Bytes(), err, want)
		}
	})
}

// remains gives what r has not read yet.
func remains(r *Reader) []byte {
	var all []byte
	for {
		b, err := r.Peek()
		if err != nil {
			return all
		}
		all = append(all, b...)
		r.r += len(b)
	}
}

func BenchmarkDot(b *testing.B) {
	msg := strings.Repeat(strings.Repeat("x", 76)+"\r\n", 130) + ".\r\n"
	src := strings.NewReader(msg)
	r := NewReader(src, new(Pool))
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		src.Reset(msg)
		r.Reset(src)
		if err := r.Dot(NewContent(io.Discard, ContentOptions{Max: 1 << 20})); err != nil {
			b.Fatal(err)
		}
	}
}
