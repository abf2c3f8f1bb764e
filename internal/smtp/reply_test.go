package smtp

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func readReply(s string, max int) (Reply, error) {
	return ReadReply(bufio.NewReaderSize(strings.NewReader(s), 64), max)
}

func TestReadReply(t *testing.T) {
	tests := map[string]struct {
		in   string
		want Reply
	}{
		"usual":             {"250 2.1.0 Ok\r\n", Reply{250, "2.1.0", []string{"Ok"}}},
		"no enhanced":       {"250 Ok\r\n", Reply{250, "", []string{"Ok"}}},
		"code only":         {"354\r\n", Reply{354, "", []string{""}}},
		"code and space":    {"354 \r\n", Reply{354, "", []string{""}}},
		"enhanced only":     {"250 2.0.0\r\n", Reply{250, "2.0.0", []string{""}}},
		"bare LF":           {"220 hi\n", Reply{220, "", []string{"hi"}}},
		"CRCRLF":            {"220 hi\r\r\n", Reply{220, "", []string{"hi"}}},
		"tab":               {"220\thi\r\n", Reply{220, "", []string{"hi"}}},
		"many lines":        {"550-5.1.1 No such user.\r\n550 5.1.1 See the help\r\n", Reply{550, "5.1.1", []string{"No such user.", "See the help"}}},
		"enhanced once":     {"550-No such user.\r\n550 5.1.1 gone\r\n", Reply{550, "5.1.1", []string{"No such user.", "gone"}}},
		"enhanced differ":   {"550-5.1.1 a\r\n550 5.7.1 b\r\n", Reply{550, "5.1.1", []string{"a", "5.7.1 b"}}},
		"enhanced misfit":   {"450 5.1.1 a\r\n", Reply{450, "", []string{"5.1.1 a"}}},
		"not enhanced":      {"550 5.1.1.1 a\r\n", Reply{550, "", []string{"5.1.1.1 a"}}},
		"three digits each": {"550 5.123.456 a\r\n", Reply{550, "5.123.456", []string{"a"}}},
		"four digits":       {"550 5.1234.1 a\r\n", Reply{550, "", []string{"5.1234.1 a"}}},
		"codes differ":      {"250-a\r\n550 b\r\n", Reply{550, "", []string{"a", "b"}}},
		"empty last line":   {"250-a\r\n250\r\n", Reply{250, "", []string{"a", ""}}},
		"controls":          {"550 a\x1b[31m\x00b\r\n", Reply{550, "", []string{"a [31m b"}}},
		"not UTF-8":         {"550 caf\xe9\r\n", Reply{550, "", []string{"caf\uFFFD"}}},
		"UTF-8":             {"550 café\r\n", Reply{550, "", []string{"café"}}},
		"longer than buffer": {"250 " + strings.Repeat("x", 900) + "\r\n",
			Reply{250, "", []string{strings.Repeat("x", 900)}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := readReply(tt.in+"tail", 1000)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestReadReplyErrors(t *testing.T) {
	for in, want := range map[string]error{
		"":                               io.EOF,
		"250":                            io.ErrUnexpectedEOF,
		"250-a\r\n":                      io.ErrUnexpectedEOF,
		"250-a\r\n250":                   io.ErrUnexpectedEOF,
		strings.Repeat("x", 2000):        ErrReplyTooLong,
		strings.Repeat("250-a\r\n", 200): ErrReplyTooLong,
	} {
		if _, err := readReply(in, 1000); !errors.Is(err, want) {
			t.Errorf("%.20q: %v, want %v", in, err, want)
		}
	}
	if _, err := readReply(strings.Repeat("250-\n", 501), 1<<20); !errors.Is(err, ErrReplyTooLong) {
		t.Errorf("too many lines: %v", err)
	}
	for _, in := range []string{"\r\n", "hello\r\n", "99 a\r\n", "150 a\r\n", "650 a\r\n", "2500 a\r\n", "25x a\r\n",
		"250_a\r\n", " 250 a\r\n", "HTTP/1.1 400 Bad Request\r\n", "250-a\r\nb\r\n250 c\r\n"} {
		_, err := readReply(in, 1000)
		if re := (*ReplyError)(nil); !errors.As(err, &re) {
			t.Errorf("%q: %v, want a ReplyError", in, err)
		}
	}
}

func TestReplyAppendTo(t *testing.T) {
	tests := map[string]struct {
		in   Reply
		want string
	}{
		"plain":         {NewReply(250, "", "Ok"), "250 Ok\r\n"},
		"enhanced":      {NewReply(250, "2.0.0", "Ok"), "250 2.0.0 Ok\r\n"},
		"lines":         {NewReply(550, "5.1.1", "a\nb"), "550-5.1.1 a\r\n550 5.1.1 b\r\n"},
		"no text":       {Reply{Code: 354}, "354 \r\n"},
		"only enhanced": {Reply{Code: 250, Enhanced: "2.0.0"}, "250 2.0.0\r\n"},
		"injection":     {Reply{550, "", []string{"a\r\n250 ok\x00"}}, "550 a  250 ok \r\n"},
		"long": {NewReply(550, "5.0.0", strings.Repeat("x", 400)+" "+strings.Repeat("y", 400)),
			"550-5.0.0 " + strings.Repeat("x", 400) + "\r\n550 5.0.0 " + strings.Repeat("y", 400) + "\r\n"},
		"long without spaces": {NewReply(550, "", strings.Repeat("ü", 300)),
			"550-" + strings.Repeat("ü", 240) + "\r\n550 " + strings.Repeat("ü", 60) + "\r\n"},
		"cut inside a character": {NewReply(550, "", "x"+strings.Repeat("ü", 300)),
			"550-x" + strings.Repeat("ü", 239) + "\r\n550 " + strings.Repeat("ü", 61) + "\r\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, string(tt.in.AppendTo(nil))); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestReplyString(t *testing.T) {
	r := NewReply(550, "5.1.1", "no such user\nask again")
	if got, want := r.String(), "550 5.1.1 no such user ask again"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := r.Text(), "no such user\nask again"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !r.Permanent() || r.Temporary() || r.Positive() {
		t.Error("550 is permanent and nothing else")
	}
	if !NewReply(354, "", "").Positive() || !NewReply(421, "", "").Temporary() {
		t.Error("354 is positive, 421 temporary")
	}
}

// FuzzReply holds ReadReply to its promises, and what it read must come back
// the same after AppendTo.
func FuzzReply(f *testing.F) {
	f.Add([]byte("250 2.1.0 Ok\r\n"))
	f.Add([]byte("550-5.1.1 a\r\n550 5.1.1 b\r\n"))
	f.Add([]byte("250-\n250\n"))
	f.Add([]byte("550 5.1.1 caf\xe9 \x1b\r\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		const max = 8000
		r, err := readReply(string(in), max)
		if err != nil {
			return
		}
		if r.Code < 200 || r.Code > 599 || len(r.Lines) == 0 {
			t.Fatalf("%q gave %+v", in, r)
		}
		long := false
		for _, l := range r.Lines {
			if strings.ContainsAny(l, "\r\n\x00\x1b") {
				t.Fatalf("control characters in %q", l)
			}
			long = long || len(l) > maxReplyText
		}
		wire := r.AppendTo(nil)
		for l := range strings.Lines(string(wire)) {
			if len(l) > 512 {
				t.Fatalf("line of %d bytes", len(l))
			}
		}
		again, err := readReply(string(wire), 1<<20)
		if err != nil {
			t.Fatalf("%q: %v", wire, err)
		}
		if long {
			return // it was split
		}
		if r.Enhanced == "" {
			// A line may begin like an enhanced code of another class, which we
			// must not take for one either.
			if d := cmp.Diff(r, again); d != "" {
				t.Fatal(d)
			}
			return
		}
		if again.Enhanced != r.Enhanced || len(again.Lines) != len(r.Lines) {
			t.Fatalf("%+v became %+v", r, again)
		}
	})
}

func BenchmarkReadReply(b *testing.B) {
	src := strings.NewReader("")
	br := bufio.NewReader(src)
	b.ReportAllocs()
	for b.Loop() {
		src.Reset("250 2.1.0 Ok\r\n")
		br.Reset(src)
		if _, err := ReadReply(br, 4096); err != nil {
			b.Fatal(err)
		}
	}
}
