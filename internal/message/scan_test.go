package message

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"postrider/internal/smtp"
)

// stream hides the bytes of a content and hands them out in small pieces.
type stream []byte

func (s stream) Size() int64 { return int64(len(s)) }
func (s stream) Open() (io.ReadCloser, error) {
	return io.NopCloser(iotest.HalfReader(bytes.NewReader(s))), nil
}

func mustScan(t testing.TB, c Content) Facts {
	t.Helper()
	f, err := Scan(c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// one is what one field with one address comes to.
func one(address string) Mailboxes {
	local, domain, _ := strings.Cut(address, "@")
	return Mailboxes{Fields: 1, List: []smtp.Address{{Local: local, Domain: domain}}}
}

func TestScanForms(t *testing.T) {
	for name, tt := range map[string]struct {
		in   string
		want Facts
	}{
		"usual": {"Received: a\r\nReceived: b\r\nDate: now\r\nFrom: Ann <ann@example.com>\r\nTo: bob@example.net\r\n" +
			"Cc: x\r\nBcc: y\r\nSender: s\r\nMIME-Version: 1.0\r\nDKIM-Signature: v=1\r\nReturn-Path: <>\r\n" +
			"Subject: Hello\r\nMessage-ID: <1@example.com>\r\n\r\nBody\r\n",
			Facts{Subject: "Hello", From: "ann@example.com", MessageID: "<1@example.com>", HasDate: true, HasFrom: true,
				HasSender: true, HasSubject: true, HasMessageID: true, HasTo: true, HasCc: true, HasBcc: true, HasReturnPath: true,
				HasMIME: true, HasDKIM: true, Authors: one("ann@example.com"), Senders: Mailboxes{Fields: 1, Problem: `"s" is no address; a name with a comma in it stands in quotes`}, Received: 2, LongestLine: 27, HeaderSize: 217}},
		"empty":              {"", Facts{NoHeader: true}},
		"blank line only":    {"\r\n", Facts{HeaderSize: 2}},
		"leading blank line": {"\r\nSubject: x\r\n", Facts{HeaderSize: 2, LongestLine: 10}},
		"only header":        {"Subject: x\r\n", Facts{Subject: "x", HasSubject: true, HeaderSize: 12, LongestLine: 10}},
		"header cut off":     {"Subject: x", Facts{Subject: "x", HasSubject: true, HeaderSize: 10, LongestLine: 10}},
		"only body": {"Hello there\r\n", Facts{NoHeader: true, LongestLine: 11,
			Problem: `The content has no header: it starts with the line "Hello there".`}},
		"starts with a fold": {" folded\r\nSubject: x\r\n\r\n", Facts{NoHeader: true, LongestLine: 10,
			Problem: `The content has no header: it starts with the line "folded".`}},
		"line that is no field": {"Subject: x\r\nwhat is this\r\nDate: y\r\n\r\n", Facts{Subject: "x", HasSubject: true, HeaderSize: 12, LongestLine: 12,
			Problem: `The header has a line that is not a field, "what is this"; what follows is taken for the body.`}},
		"mbox": {"From ann@example.com Thu Jan  1 00:00:00 1970\r\nSubject: x\r\n\r\n", Facts{Subject: "x", HasSubject: true,
			HeaderSize: 61, Mbox: 47, LongestLine: 45}},
		"folds": {"Subject: one\r\n two\r\n\tthree\r\n \r\nMessage-ID:\r\n <a@b>\r\n\r\n", Facts{Subject: "one two three", HasSubject: true,
			MessageID: "<a@b>", HasMessageID: true, HeaderSize: 54, LongestLine: 12}},
		"space before the colon":         {"Subject : x\r\nDATE:\r\n\r\n", Facts{Subject: "x", HasSubject: true, HasDate: true, HeaderSize: 22, LongestLine: 11}},
		"name that only starts like one": {"Datex: 1\r\nX-Date: 1\r\n\r\n", Facts{HeaderSize: 23, LongestLine: 9}},
		"first of several": {"Subject: a\r\nSubject: b\r\nFrom: a@b\r\nFrom: c@d\r\n\r\n", Facts{Subject: "a", HasSubject: true, From: "a@b", HasFrom: true,
			Authors: Mailboxes{Fields: 2, List: []smtp.Address{{Local: "a", Domain: "b"}, {Local: "c", Domain: "d"}}}, Twice: []string{"Subject", "From"}, HeaderSize: 48, LongestLine: 10}},
		"8-bit body":         {"Subject: x\r\n\r\ncaf\xc3\xa9\r\n", Facts{Subject: "x", HasSubject: true, EightBit: true, HeaderSize: 14, LongestLine: 10}},
		"8-bit header":       {"Subject: caf\xc3\xa9\r\n\r\n", Facts{Subject: "café", HasSubject: true, UTF8Header: true, HeaderSize: 18, LongestLine: 14}},
		"latin-1 header":     {"Subject: caf\xe9\r\n\r\n", Facts{Subject: "café", HasSubject: true, UTF8Header: true, HeaderSize: 17, LongestLine: 13}},
		"NUL":                {"Subject: x\r\n\r\na\x00b\r\n", Facts{Subject: "x", HasSubject: true, NUL: true, HeaderSize: 14, LongestLine: 10}},
		"NUL in the subject": {"Subject: x\x00y\r\n\r\n", Facts{Subject: "x y", HasSubject: true, NUL: true, HeaderSize: 16, LongestLine: 12}},
		"bare LF":            {"Subject: x\n\nbody\n", Facts{Subject: "x", HasSubject: true, Bare: true, HeaderSize: 12, LongestLine: 10}},
		"bare CR":            {"Subject: x\r\n\r\na\rb\r\n", Facts{Subject: "x", HasSubject: true, Bare: true, HeaderSize: 14, LongestLine: 10}},
		"CR at the end":      {"Subject: x\r\n\r\nab\r", Facts{Subject: "x", HasSubject: true, Bare: true, HeaderSize: 14, LongestLine: 10}},
		"long last line":     {"Subject: x\r\n\r\n" + strings.Repeat("y", 5000), Facts{Subject: "x", HasSubject: true, HeaderSize: 14, LongestLine: 5000}},
	} {
		if diff := cmp.Diff(tt.want, mustScan(t, Bytes([]byte(tt.in)))); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
		if diff := cmp.Diff(tt.want, mustScan(t, stream(tt.in))); diff != "" {
			t.Errorf("%s, as a stream: (-want +got)\n%s", name, diff)
		}
	}
}

func TestScanSubject(t *testing.T) {
	for in, want := range map[string]string{
		"=?UTF-8?Q?Gr=C3=BC=C3=9Fe?=":                          "Grüße",
		"=?utf-8?b?R3LDvMOfZQ==?=":                             "Grüße",
		"=?utf-8?b?R3LDvMOfZQ?=":                               "Grüße", // no padding
		"=?iso-8859-1?Q?caf=E9?= =?ISO-8859-1?Q?_cr=E8me?=":    "café crème",
		"=?iso-8859-15?Q?10_=A4?=":                             "10 €",
		"=?windows-1251?B?z/Do4uXy?=":                          "Привет",
		"=?windows-1252?Q?=80?=":                               "€",
		"=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=":                   "日本",
		"=?koi8-r?B?8NLJ18XU?=":                                "Привет",
		"=?gb2312?B?xOO6ww==?=":                                "你好",
		"=?UTF-8*en?Q?language?=":                              "language",
		"=?UTF-8?B?w?= =?UTF-8?Q?=E9?=":                        "=?UTF-8?B?w?= �",
		"=?UTF-8?Q?=C3?= =?UTF-8?Q?=A9?=":                      "é", // a character cut in two
		"=?UTF-8?Q?a?=\r\n =?UTF-8?Q?b?=":                      "ab",
		"=?UTF-8?Q?a?= and =?UTF-8?Q?b?=":                      "a and b",
		"=?UTF-8?Q?a?= =?iso-8859-1?Q?=E9?=":                   "aé",
		"=?UTF-8?Q?with space and =3D=zz?=":                    "with space and ==zz",
		"=?x-nonsense?Q?a?=":                                   "=?x-nonsense?Q?a?=",
		"=?UTF-8?X?a?= =?UTF-8?Q?b":                            "=?UTF-8?X?a?= =?UTF-8?Q?b",
		"=?UTF-8?Q?one=0D=0AInjected:_x?=":                     "one Injected: x",
		"plain   with\ttabs ":                                  "plain with tabs",
		"=?":                                                   "=?",
		strings.Repeat("ü", 300):                               strings.Repeat("ü", 255),
		strings.Repeat("=?iso-2022-jp?B?GyRCRnwbKEI=?= ", 300): strings.Repeat("日", 255),
	} {
		if got := mustScan(t, Bytes([]byte("Subject: "+in+"\r\n\r\n"))).Subject; got != want {
			t.Errorf("%q\n got %q\nwant %q", in, got, want)
		}
	}
}

func TestScanFrom(t *testing.T) {
	for in, want := range map[string]string{
		"ann@example.com":                            "ann@example.com",
		"Ann <ann@example.com>":                      "ann@example.com",
		`"Ann, <the> first" <ann@example.com>, b@c`:  "ann@example.com",
		"ann@example.com (Ann (the first))":          "ann@example.com",
		"(Ann) ann@example.com, bob@example.com":     "ann@example.com",
		"Ann ann@example.com":                        "ann@example.com",
		`"ann smith"@example.com`:                    `"ann smith"@example.com`,
		`<"a>b"@example.com>`:                        `"a>b"@example.com`,
		"Friends: ann@example.com, bob@example.com;": "ann@example.com",
		"nobody:;": "",
		"<@relay.example,@other.example:ann@example.com>": "ann@example.com",
		"ann@[IPv6:2001:db8::1]":                          "ann@[IPv6:2001:db8::1]",
		"\r\n =?utf-8?Q?Ann?=\r\n <ann@example.com>":      "ann@example.com",
		"Ann <ann@example.com":                            "ann@example.com",
		", ,bob@example.com":                              "bob@example.com",
		"<>":                                              "",
		"root":                                            "root",
		"josé@example.com":                                "josé@example.com",
		"((((":                                            "",
		`"`:                                               `"`,
		strings.Repeat("a", 5000) + "@example.com": strings.Repeat("a", 320),
	} {
		if got := mustScan(t, Bytes([]byte("From: "+in+"\r\n\r\n"))).From; got != want {
			t.Errorf("%q\n got %q\nwant %q", in, got, want)
		}
	}
}

func TestScanLongHeader(t *testing.T) {
	field := "X-Field: " + strings.Repeat("x", 91) + "\r\n"
	for _, n := range []int{500, 5000, 20_000} { // 50 kB, 500 kB, 2 MB
		in := []byte(strings.Repeat(field, n) + "Subject: late\r\n\r\nbody \xff\r\n")
		a, b := mustScan(t, Bytes(in)), mustScan(t, stream(in))
		if diff := cmp.Diff(a, b); diff != "" {
			t.Errorf("%d fields: memory and stream differ:\n%s", n, diff)
		}
		tooLong := len(field)*n > MaxHeader
		if a.HasSubject == tooLong || (a.Problem != "") != tooLong || !a.EightBit || a.HeaderSize > MaxHeader {
			t.Errorf("%d fields: %+v", n, a)
		}
	}
}

func TestScanReadError(t *testing.T) {
	bad := errors.New("disk on fire")
	for _, c := range []Content{failing{bad, nil}, failing{nil, bad}} {
		if _, err := Scan(c); !errors.Is(err, bad) {
			t.Errorf("Scan: %v", err)
		}
	}
}

type failing struct{ open, read error }

func (f failing) Size() int64 { return 10 }
func (f failing) Open() (io.ReadCloser, error) {
	return io.NopCloser(iotest.ErrReader(f.read)), f.open
}

func TestPrepend(t *testing.T) {
	for in, want := range map[string]string{
		"Subject: x\r\n\r\nbody\r\n":                 "Date: d\r\nSubject: x\r\n\r\nbody\r\n",
		"From a Thu\r\nSubject: x\r\n\r\nFrom b\r\n": "Date: d\r\nSubject: x\r\n\r\nFrom b\r\n",
		"\r\nbody\r\n":           "Date: d\r\n\r\nbody\r\n",
		"just body\r\n":          "Date: d\r\n\r\njust body\r\n",
		"From a Thu\r\nbody\r\n": "Date: d\r\n\r\nbody\r\n",
		"":                       "Date: d\r\n\r\n",
	} {
		for _, c := range []Content{Bytes([]byte(in)), stream(in)} {
			if got := string(readAll(t, mustScan(t, c).Prepend([]byte("Date: d\r\n"), c))); got != want {
				t.Errorf("%q\n got %q\nwant %q", in, got, want)
			}
		}
	}
}

var naiveField = regexp.MustCompile(`^([!-9;-~]+)[ \t]*:`)

// naive finds a part of the facts in the plainest way.
func naive(in []byte) Facts {
	var f Facts
	inHeader, fields := true, 0
	lines := strings.SplitAfter(string(in), "\n")
	for i, l := range lines {
		f.LongestLine = max(f.LongestLine, int64(len(trimEOL([]byte(l)))))
		high := strings.ContainsFunc(l, func(r rune) bool { return r > 127 })
		f.NUL = f.NUL || strings.Contains(l, "\x00")
		pairs := strings.Count(l, "\r\n")
		f.Bare = f.Bare || strings.Count(l, "\r") != pairs || strings.Count(l, "\n") != pairs
		if inHeader {
			m := naiveField.FindStringSubmatch(l)
			switch {
			case i == 0 && strings.HasSuffix(l, "\n") && (strings.HasPrefix(l, "From ") || strings.HasPrefix(l, ">From ")):
				f.Mbox = int64(len(l))
			case fields > 0 && l != "" && (l[0] == ' ' || l[0] == '\t'):
			case m != nil:
				fields++
				switch strings.ToLower(m[1]) {
				case "date":
					f.HasDate = true
				case "from":
					f.HasFrom = true
				case "to":
					f.HasTo = true
				case "subject":
					f.HasSubject = true
				case "message-id":
					f.HasMessageID = true
				case "received":
					f.Received++
				}
			default:
				inHeader = false
				if l == "\n" || l == "\r\n" {
					f.HeaderSize += int64(len(l))
					f.UTF8Header = f.UTF8Header || high
					continue
				}
				f.NoHeader = fields == 0
			}
		}
		if inHeader {
			f.HeaderSize += int64(len(l))
			f.UTF8Header = f.UTF8Header || high
		} else {
			f.EightBit = f.EightBit || high
		}
	}
	return f
}

func FuzzScan(f *testing.F) {
	f.Add([]byte("Received: a\r\nFrom: Ann <a@b>\r\nSubject: =?utf-8?Q?=C3=A9?=\r\n\r\nbody\r\n"))
	f.Add([]byte("From x\nTo : y\n z\n\n\x00\xff\r"))
	f.Add([]byte(">From x\r\nno header"))
	f.Add([]byte("Message-ID: <x\r\nDate\t: (((\r\n \r\n"))
	f.Add([]byte("From: \"\\\r\nSubject: =?iso-2022-jp?B?GyRC?= =?x?q?=?=\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		got := mustScan(t, Bytes(in))
		if diff := cmp.Diff(got, mustScan(t, stream(in))); diff != "" {
			t.Fatalf("memory and stream differ:\n%s", diff)
		}
		for name, s := range map[string]string{"Subject": got.Subject, "From": got.From, "MessageID": got.MessageID, "Problem": got.Problem,
			"Script": got.Script, "Once": got.Once, "authors' problem": got.Authors.Problem} {
			if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) || utf8.RuneCountInString(s) > 998 {
				t.Errorf("%s is not clean: %q", name, s)
			}
		}
		if utf8.RuneCountInString(got.Subject) > maxSubject {
			t.Errorf("Subject has %d characters", utf8.RuneCountInString(got.Subject))
		}
		want := naive(in)
		want.Subject, want.From, want.MessageID, want.Problem = got.Subject, got.From, got.MessageID, got.Problem
		want.HasSender, want.HasCc, want.HasBcc, want.HasReturnPath, want.HasMIME, want.HasDKIM, want.HasType =
			got.HasSender, got.HasCc, got.HasBcc, got.HasReturnPath, got.HasMIME, got.HasDKIM, got.HasType
		want.Authors, want.Senders, want.ResentAuthors, want.ResentSender = got.Authors, got.Senders, got.ResentAuthors, got.ResentSender
		want.Twice, want.Script, want.Once, want.Header = got.Twice, got.Script, got.Once, got.Header
		if got.Header != nil {
			want.NoHeader = len(got.Header) == 0
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: (-naive +got)\n%s", in, diff)
		}
	})
}

// typical is a message of about 10 kB with the header of a usual client.
func typical() []byte {
	var b bytes.Buffer
	b.WriteString("Received: from client.example (client.example [192.0.2.1])\r\n\tby relay.example with ESMTPSA id 01h2x;\r\n\tThu, 1 Jan 2026 00:00:00 +0000\r\n" +
		"Date: Thu, 1 Jan 2026 00:00:00 +0000\r\nFrom: \"Ann Example\" <ann@example.com>\r\nTo: bob@example.net\r\n" +
		"Subject: Your order\r\nMessage-ID: <20260101000000.1@example.com>\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\nX-Mailer: Example 1.0\r\n\r\n")
	for i := 0; b.Len() < 10_000; i++ {
		fmt.Fprintf(&b, "%04d Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do.\r\n", i)
	}
	return b.Bytes()
}

func BenchmarkScan10kB(b *testing.B) {
	c := Bytes(typical())
	b.SetBytes(c.Size())
	b.ReportAllocs()
	for b.Loop() {
		if f, err := Scan(c); err != nil || f.EightBit {
			b.Fatal(err)
		}
	}
}
