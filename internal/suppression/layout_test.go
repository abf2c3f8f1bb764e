package suppression

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"postrider/internal/relay"
)

func TestLayouts(t *testing.T) {
	for name, tt := range map[string]struct{ list, reason, address, want, note, created string }{
		"one a line":             {list: "Ann@Example.com\n\nben@example.com\n", address: "ann@example.com", want: "manual"},
		"one a line, of bounces": {list: "Ann@Example.com\n", reason: "bounce", address: "ann@example.com", want: "bounce"},
		"a domain":               {list: "@Bücher.example\n", address: "@xn--bcher-kva.example", want: "manual"},
		"SendGrid bounces":       {list: "status,reason,email,created\n5.1.1,\"550 5.1.1 no, really\",a@x.test,1577836800\n", address: "a@x.test", want: "bounce", note: "550", created: "2020-01-01"},
		"SendGrid spam reports":  {list: "ip,email,created\n192.0.2.1,a@x.test,1577836800\n", address: "a@x.test", want: "complaint", created: "2020-01-01"},
		"SendGrid unsubscribes":  {list: "email,created\na@x.test,1577836800\n", address: "a@x.test", want: "unsubscribe", created: "2020-01-01"},
		"SendGrid invalid":       {list: "email,reason,created\na@x.test,Mail domain mentioned in email address is unknown,1577836800\n", address: "a@x.test", want: "bounce", note: "unknown"},
		"Mailgun bounces":        {list: "address,code,error,created_at\na@x.test,550,No such user,\"Wed, 01 Jan 2020 00:00:00 UTC\"\n", address: "a@x.test", want: "bounce", note: "No such user", created: "2020-01-01"},
		"Mailgun complaints":     {list: "address,created_at\na@x.test,\"Wed, 01 Jan 2020 00:00:00 UTC\"\n", reason: "complaint", address: "a@x.test", want: "complaint"},
		"Mailgun unsubscribes":   {list: "address,tags,created_at\na@x.test,*,\"Wed, 01 Jan 2020 00:00:00 UTC\"\n", address: "a@x.test", want: "unsubscribe", created: "2020-01-01"},
		"Postmark":               {list: "\"EmailAddress\",\"SuppressionReason\",\"Origin\",\"CreatedAt\"\na@x.test,SpamComplaint,Recipient,2020-01-01T01:02:03-00:00\n", address: "a@x.test", want: "complaint", created: "2020-01-01"},
		"Postmark, who left":     {list: "EmailAddress,SuppressionReason,Origin,CreatedAt\na@x.test,ManualSuppression,Recipient,2020-01-01T01:02:03-00:00\n", address: "a@x.test", want: "unsubscribe"},
		"Postmark, by hand":      {list: "EmailAddress,SuppressionReason,Origin,CreatedAt\na@x.test,ManualSuppression,Customer,2020-01-01T01:02:03-00:00\n", address: "a@x.test", want: "manual"},
		"SES, as it takes them":  {list: "a@x.test,COMPLAINT\n", address: "a@x.test", want: "complaint"},
		"the same with a reason": {list: "a@x.test,COMPLAINT\n", reason: "bounce", address: "a@x.test", want: "bounce"},
		"SES":                    {list: "EmailAddress,Reason,LastUpdateTime\na@x.test,BOUNCE,2020-01-01T00:00:00Z\n", address: "a@x.test", want: "bounce", created: "2020-01-01"},
		"Mandrill":               {list: "email,reason,detail,created_at\na@x.test,hard-bounce,gone,2020-01-01 00:00:00\n", address: "a@x.test", want: "bounce", note: "gone", created: "2020-01-01"},
		"Mandrill, unsubscribed": {list: "email,reason,detail,created_at\na@x.test,unsub,,2020-01-01 00:00:00\n", address: "a@x.test", want: "unsubscribe"},
		"SMTP2GO":                {list: "Email Address,Type,Date Added\na@x.test,spam,2020-01-01\n", address: "a@x.test", want: "complaint", created: "2020-01-01"},
		"semicolons and a mark":  {list: "\xef\xbb\xbfEmail;Reason\r\na@x.test;unsubscribed\r\n", address: "a@x.test", want: "unsubscribe"},
		"tabs":                   {list: "email\treason\na@x.test\tmanual\n", address: "a@x.test", want: "manual"},
		"tabs, an empty cell":    {list: "email\tdetail\treason\na@x.test\t\tspam\n", address: "a@x.test", want: "complaint"},
	} {
		r, err := NewReader(strings.NewReader(tt.list), tt.reason)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		s, _, err := r.Next()
		if err != nil || s.Address != tt.address || s.Reason != tt.want || !strings.Contains(s.Note, tt.note) || tt.created != "" && s.Created.Format(time.DateOnly) != tt.created {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	for _, empty := range []string{"", "name,age\nx,1\n", "\xff\xfea\x00@\x00x\x00"} {
		if _, err := NewReader(strings.NewReader(empty), ""); relay.CodeOf(err) != relay.Invalid {
			t.Errorf("%q: %v", empty, err)
		}
	}
}

func TestBadLines(t *testing.T) {
	r, err := NewReader(strings.NewReader("address,stream\na@x.test,broadcast\nnobody\nb@x.test,snail\n\n# a remark\nc@x.test\n"), "")
	if err != nil {
		t.Fatal(err)
	}
	good, bad := all(t, r)
	if len(good) != 2 || good[1] != "c@x.test" || len(bad) != 2 || bad[0] != 3 || bad[1] != 4 {
		t.Errorf("good %v, bad lines %v", good, bad)
	}
}

// A time that no program can write down again is none.
func TestFarTimes(t *testing.T) {
	const list = "address,created,expires\na@x.test,9223372036854775807,\nb@x.test,99999999999,\nc@x.test,,9223372036854775807\nd@x.test,,99999999999\n"
	r, err := NewReader(strings.NewReader(list), "")
	if err != nil {
		t.Fatal(err)
	}
	for {
		s, line, err := r.Next()
		var bad *BadLine
		switch {
		case errors.Is(err, io.EOF):
			return
		case errors.As(err, &bad):
			if line != 4 {
				t.Error(err)
			}
			continue
		case err != nil:
			t.Fatal(err)
		}
		if _, err := json.Marshal(s); err != nil || line == 4 {
			t.Errorf("line %d: %+v, %v", line, s, err)
		}
		if line == 2 && !s.Created.IsZero() || line == 3 && s.Created.IsZero() {
			t.Errorf("line %d was made at %v", line, s.Created)
		}
	}
}

// all reads a list to its end: the addresses, and the numbers of bad lines.
func all(t *testing.T, r *Reader) (good []string, bad []int) {
	for {
		s, _, err := r.Next()
		var b *BadLine
		switch {
		case errors.Is(err, io.EOF):
			return good, bad
		case errors.As(err, &b):
			bad = append(bad, b.Line)
		case err != nil:
			t.Fatal(err)
		default:
			good = append(good, s.Address)
		}
	}
}

// A quote that nobody closes spoils its line, and none of those behind it.
func TestOpenQuotes(t *testing.T) {
	const long = maxCell/8 + 10 // lines that are more than a cell has
	var many strings.Builder
	for i := range long {
		fmt.Fprintf(&many, "a%05d@x.test\n", i)
	}
	for name, tt := range map[string]struct {
		list  string
		good  int
		bad   []int
		first string
	}{
		"of a whole cell":   {"email,reason\n\"a@x.test,spam\nb@x.test,bounce\nc@x.test,bounce\n", 3, nil, "a@x.test"},
		"of a part of it":   {"o@x.test\n\"john doe\"@x.test\na@x.test\nb@x.test\n", 3, []int{2}, "o@x.test"},
		"at the end":        {"a@x.test\nb@x.test\n\"c@x.test", 3, nil, "a@x.test"},
		"before many lines": {"email\n\"nobody\n" + many.String(), long, []int{2}, "a00000@x.test"},
		"again and again":   {"email,note\n" + strings.Repeat("\"nobody\n", 500) + "a@x.test,\n", 1, seq(2, 502), "a@x.test"},
		"in many lines":     {"email,note\na@x.test,\"one\ntwo\r\nthree \"\" four\"\nb@x.test,\n", 2, nil, "a@x.test"},
		"in another cell":   {"email;note\na@x.test; \"one;\n two\"\nb@x.test;\"\"\nc@x.test;\"\"\"\"\n", 3, nil, "a@x.test"},
		"after tabs":        {"email\tnote\na@x.test\t\"one\ttwo\"\nb@x.test\t \"\nc@x.test\t\n", 3, nil, "a@x.test"},
	} {
		r, err := NewReader(iotest.OneByteReader(strings.NewReader(tt.list)), "")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		good, bad := all(t, r)
		if len(good) != tt.good || good[0] != tt.first || !slices.Equal(bad, tt.bad) {
			t.Errorf("%s: %d good, first %.1q, bad lines %v", name, len(good), good, bad)
		}
	}
}

func seq(from, to int) (all []int) {
	for i := from; i < to; i++ {
		all = append(all, i)
	}
	return all
}

// Rows are found where encoding/csv finds them.
func FuzzRows(f *testing.F) {
	f.Add("a,\"b\nc\",d\ne\n", byte(0))
	f.Add("a\t\"\"\t \"b\"\"\nc\"x\td\n", byte(2))
	f.Fuzz(func(t *testing.T, list string, which byte) {
		if len(list) > maxCell || strings.Count(list, "\"") > 0 && opensAtEnd(list, ",;\t"[which%3]) {
			return // it is parted otherwise, and is to be
		}
		read := func(r io.Reader) (rows [][]string) {
			c := csv.NewReader(r)
			c.Comma, c.FieldsPerRecord, c.LazyQuotes, c.TrimLeadingSpace = rune(",;\t"[which%3]), -1, true, which%3 != 2
			for {
				row, err := c.Read()
				if err != nil {
					return rows
				}
				rows = append(rows, row)
			}
		}
		in := bufio.NewReader(strings.NewReader(list))
		if want, got := read(strings.NewReader(list)), read(&closing{in: in, comma: ",;\t"[which%3]}); !slices.EqualFunc(want, got, slices.Equal) {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// opensAtEnd tells whether a list ends within quotes.
func opensAtEnd(list string, comma byte) (quoted bool) {
	for line := range strings.Lines(list) {
		quoted = opens([]byte(line), comma, quoted)
	}
	return quoted
}

// What is written is read the same, but for its proof.
func TestRoundTrip(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	want := relay.Suppression{Address: `"a, b"@x.test`, Stream: relay.Broadcast, Reason: relay.ReasonSoftBounce, Note: `full, "again"`, Created: at, Expires: at.Add(time.Hour)}
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	for _, row := range [][]string{Columns, Row(want)} {
		if err := w.Write(row); err != nil {
			t.Fatal(err)
		}
	}
	w.Flush()
	r, err := NewReader(&b, "")
	if err != nil {
		t.Fatal(err)
	}
	if got, line, err := r.Next(); err != nil || got != want || line != 2 {
		t.Errorf("line %d: %+v, %v; want %+v", line, got, err, want)
	}
}

func FuzzReader(f *testing.F) {
	f.Add("status,reason,email,created\n5.1.1,x,a@x.test,1\n")
	f.Add("a@x.test\n\"\n")
	f.Fuzz(func(t *testing.T, list string) {
		r, err := NewReader(strings.NewReader(list), "")
		for n := 0; err == nil && n < 1000; n++ {
			var s relay.Suppression
			var b *BadLine
			if s, _, err = r.Next(); errors.As(err, &b) {
				err = nil
			} else if err == nil && (s.Address == "" || len(s.Note) > maxNote || s.Reason == "") {
				t.Errorf("%+v", s)
			}
		}
	})
}
