package suppression

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"strings"
	"testing"
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
		"SES":                    {list: "EmailAddress,Reason,LastUpdateTime\na@x.test,BOUNCE,2020-01-01T00:00:00Z\n", address: "a@x.test", want: "bounce", created: "2020-01-01"},
		"Mandrill":               {list: "email,reason,detail,created_at\na@x.test,hard-bounce,gone,2020-01-01 00:00:00\n", address: "a@x.test", want: "bounce", note: "gone", created: "2020-01-01"},
		"Mandrill, unsubscribed": {list: "email,reason,detail,created_at\na@x.test,unsub,,2020-01-01 00:00:00\n", address: "a@x.test", want: "unsubscribe"},
		"SMTP2GO":                {list: "Email Address,Type,Date Added\na@x.test,spam,2020-01-01\n", address: "a@x.test", want: "complaint", created: "2020-01-01"},
		"semicolons and a mark":  {list: "\xef\xbb\xbfEmail;Reason\r\na@x.test;unsubscribed\r\n", address: "a@x.test", want: "unsubscribe"},
		"tabs":                   {list: "email\treason\na@x.test\tmanual\n", address: "a@x.test", want: "manual"},
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
	for _, empty := range []string{"", "name,age\nx,1\n"} {
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
	var good []string
	var bad []int
	for {
		s, _, err := r.Next()
		var b *BadLine
		switch {
		case errors.Is(err, io.EOF):
			if len(good) != 2 || good[1] != "c@x.test" || len(bad) != 2 || bad[0] != 3 || bad[1] != 4 {
				t.Errorf("good %v, bad lines %v", good, bad)
			}
			return
		case errors.As(err, &b):
			bad = append(bad, b.Line)
		case err != nil:
			t.Fatal(err)
		default:
			good = append(good, s.Address)
		}
	}
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
