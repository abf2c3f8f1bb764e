package message

import (
	"net/mail"
	"net/netip"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.FixedZone("", 3600))

func TestReceived(t *testing.T) {
	for name, tt := range map[string]struct {
		in   Trace
		want string
	}{
		"full": {Trace{Helo: "client.example", Client: netip.MustParseAddr("192.0.2.1"), Host: "relay.example", Protocol: "ESMTPSA",
			ID: "01abc", TLS: "TLS1.3 TLS_AES_128_GCM_SHA256", For: "bob@example.net", Time: noon},
			"Received: from client.example ([192.0.2.1])\r\n\tby relay.example with ESMTPSA (TLS1.3 TLS_AES_128_GCM_SHA256)\r\n\tid 01abc\r\n" +
				"\tfor <bob@example.net>;\r\n\tFri, 02 Jan 2026 12:00:00 +0100\r\n"},
		"IPv6, several recipients": {Trace{Helo: "[IPv6:2001:db8::1]", Client: netip.MustParseAddr("2001:db8::1"), Host: "relay.example",
			Protocol: "ESMTP", ID: "01abc", Time: noon},
			"Received: from [IPv6:2001:db8::1] ([IPv6:2001:db8::1])\r\n\tby relay.example with ESMTP\r\n\tid 01abc;\r\n\tFri, 02 Jan 2026 12:00:00 +0100\r\n"},
		"mapped address": {Trace{Client: netip.MustParseAddr("::ffff:192.0.2.1"), Host: "relay.example", Protocol: "HTTP", ID: "x", Time: noon},
			"Received: from [192.0.2.1]\r\n\tby relay.example with HTTP\r\n\tid x;\r\n\tFri, 02 Jan 2026 12:00:00 +0100\r\n"},
		"nothing known": {Trace{Time: noon}, "Received: by localhost with SMTP\r\n\tid none;\r\n\tFri, 02 Jan 2026 12:00:00 +0100\r\n"},
		"hostile": {Trace{Helo: "a)\r\nBcc: x@y (;", Client: netip.MustParseAddr("fe80::1%eth0"), Host: "h", Protocol: "ESMTP\r\n", ID: "a b", TLS: "x)\n(",
			For: "a>\r\nX: y@b", Time: noon},
			"Received: from a???Bcc??x?y??? ([IPv6:fe80::1])\r\n\tby h with ESMTP?? (x???)\r\n\tid a?b;\r\n\tFri, 02 Jan 2026 12:00:00 +0100\r\n"},
		"literal that is none": {Trace{Helo: "[a](b]", Host: "h", Protocol: "SMTP", ID: "x", Time: noon},
			"Received: from ?a??b?\r\n\tby h with SMTP\r\n\tid x;\r\n\tFri, 02 Jan 2026 12:00:00 +0100\r\n"},
		"UTF-8 recipient": {Trace{Helo: "ü", Host: "h", Protocol: "UTF8SMTPS", ID: "x", For: "ü@example.net", UTF8: true, Time: noon},
			"Received: from ?\r\n\tby h with UTF8SMTPS\r\n\tid x\r\n\tfor <ü@example.net>;\r\n\tFri, 02 Jan 2026 12:00:00 +0100\r\n"},
		"UTF-8 recipient without SMTPUTF8": {Trace{Host: "h", Protocol: "SMTP", ID: "x", For: "ü@example.net", Time: noon},
			"Received: by h with SMTP\r\n\tid x;\r\n\tFri, 02 Jan 2026 12:00:00 +0100\r\n"},
	} {
		if got := string(Received(tt.in)); got != tt.want {
			t.Errorf("%s:\n got %q\nwant %q", name, got, tt.want)
		}
	}
}

// Whatever the peer says, the field stays one field of sound lines, with its
// comments closed.
func FuzzReceived(f *testing.F) {
	f.Add("a.example", "relay", "id", "TLS1.3", "b@example.net", true)
	f.Add("(\r\n", "\x00", "\n\n", "\\", "<>", false)
	f.Add("[::1]", "é", ";", ")", "a@b\u2028c", true)
	f.Fuzz(func(t *testing.T, helo, host, id, tls, rcpt string, utf8 bool) {
		b := Received(Trace{Helo: helo, Host: host, ID: id, TLS: tls, For: rcpt, UTF8: utf8, Client: netip.IPv6Loopback(), Time: noon})
		fl, rest, ok := nextField(b)
		if !ok || len(rest) != 0 || string(fl.name) != "Received" {
			t.Fatalf("not one field: %q", b)
		}
		facts := mustScan(t, Bytes(b))
		if facts.Bare || facts.NUL || facts.LongestLine > 998 || facts.UTF8Header && !utf8 {
			t.Fatalf("unsound lines: %q", b)
		}
		for _, pair := range []string{"()", "[]", "<>"} {
			if strings.Count(string(b), pair[:1]) != strings.Count(string(b), pair[1:]) {
				t.Fatalf("%s unbalanced: %q", pair, b)
			}
		}
		v := string(fl.value)
		if at, err := mail.ParseDate(v[strings.LastIndex(v, ";")+1:]); err != nil || !at.Equal(noon) {
			t.Fatalf("date: %v in %q", err, b)
		}
		if strings.Count(v, ";") != 1 {
			t.Fatalf("several semicolons: %q", b)
		}
		if a, err := mail.ParseAddress(NewMessageID(id, host)); err != nil {
			t.Fatalf("message id of %q, %q: %v %v", id, host, a, err)
		}
	})
}

func TestFormatDate(t *testing.T) {
	if got := FormatDate(noon); got != "Fri, 02 Jan 2026 12:00:00 +0100" {
		t.Error(got)
	}
}

func TestNewMessageID(t *testing.T) {
	for in, want := range map[[2]string]string{
		{"01abc", "relay.example"}: "<01abc@relay.example>",
		{"", ""}:                   "<none@localhost>",
		{"a>\r\nb", "x y"}:         "<a???b@x?y>",
	} {
		if got := NewMessageID(in[0], in[1]); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}
