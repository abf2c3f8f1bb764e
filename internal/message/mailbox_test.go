package message

import (
	"net/mail"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"postrider/internal/smtp"
)

func TestParseMailboxes(t *testing.T) {
	long := strings.Repeat("l", 64) + "@" + strings.Repeat(strings.Repeat("d", 62)+".", 4) + "de"
	for in, want := range map[string]string{ // addresses, or "! " and a part of the error, behind what was read
		"ann@example.com":                        "ann@example.com",
		"<ann@example.com>":                      "ann@example.com",
		`Ann <ann@example.com>`:                  "ann@example.com",
		`"Doe, John" <john@example.com>`:         "john@example.com",
		`"a@b.test" <ann@example.com>`:           "ann@example.com",
		`=?utf-8?q?ceo=40bank.test?= <a@b.test>`: "a@b.test",
		`=?utf-8?q?ceo=40bank.test?=`:            "! is no address",
		"Ann\r\n <ann@example.com>":              "ann@example.com",
		"John Q. Public <john@example.com>":      "john@example.com",
		"[Shop] Ann <ann@example.com>":           "ann@example.com",
		"a@b.test, Bob <c@d.test>,,e@f.test ,":   "a@b.test c@d.test e@f.test",
		"Team: a@b.test, Bob <c@d.test>;, e@f.g": "a@b.test c@d.test e@f.g",
		"Undisclosed:;":                          "",
		"":                                       "",
		"(all (of) it is \\) comment)":           "",
		`ann (x) @ (y) example.com (z)`:          "ann@example.com",
		`< (a) "q u" (b) @example.com (c) > (d)`: `"q u"@example.com`,
		`"ann"@example.com`:                      "ann@example.com",
		`"a\"b\\@bank.test"@example.com`:         `"a\"b\\@bank.test"@example.com`,
		`ann@[192.0.2.1]`:                        "ann@[192.0.2.1]",
		"jürgen@bücher.example":                  "jürgen@bücher.example",
		"Ann <a..b@docomo.test>":                 `"a..b"@docomo.test`,
		"a@b.test <c@d.test>":                    "a@b.test c@d.test", // which of them is meant is not for us to guess
		long:                                     long,
		"xx" + long:                              "! more than 320 octets",
		strings.Repeat("a@b.test,", 100):         strings.TrimSpace(strings.Repeat("a@b.test ", 100)),
		"a@b.test, <@bank.test:c@d.test>":        `a@b.test ! "@" may not stand before "bank.test:c@d.test>"`,
		"Doe, John <john@example.com>":           `! "Doe" is no address; a name with a comma in it stands in quotes`,
		"Me @ Work <ann@example.com>":            "Me@Work ann@example.com",
		"a@b@c.test":                             `a@b ! "@" may not stand`,
		"a@b.test c@d.test":                      "a@b.test ! may not stand",
		"a@b.test; c@d.test":                     "a@b.test ! may not stand",
		"<a@b.test> <c@d.test>":                  "a@b.test ! may not stand",
		"<a@b.test>c@d.test":                     "a@b.test ! may not stand",
		"<a@b.test":                              "a@b.test ! an angle bracket in it is not closed",
		"a@b.test>":                              "a@b.test ! may not stand",
		"<a@b.test,c@d.test>":                    "a@b.test ! an angle bracket in it is not closed",
		"<>":                                     "! the angle brackets in it are empty",
		"<ann>":                                  `! the address "ann" has no domain`,
		"ann@":                                   `! the address "ann" has no domain`,
		"@b.test":                                "! may not stand",
		"ann":                                    `! "ann" is no address`,
		`"ann@example.com`:                       "! a quote in it is not closed",
		"a@b.test (":                             "a@b.test ! a comment in it is not closed",
		"a@b.test (x\\)":                         "a@b.test ! a comment in it is not closed",
		"Team: a@b.test":                         "a@b.test ! a group in it has no end",
		"One: Two: a@b.test;;":                   "! may not stand",
		"a@b.test\x00":                           "a@b.test ! it has a control character",
		"\"x\x00\" <a@b.test>":                   "! it has a control character",
		"(x\x1b) a@b.test":                       "! it has a control character",
		"a@b.test\rFrom: c@d.test":               "a@b.test ! it has a control character",
		"jos\xe9@example.com":                    "! another charset than UTF-8",
		"Jos\xe9 <ann@example.com>":              "ann@example.com",
		`a\@b.test`:                              "! may not stand",
		"a@[x\r\n y@z]":                          "! may not stand",
		strings.Repeat("a@b.test,", 101):         "! more than 100 addresses",
	} {
		list, err := ParseMailboxes([]byte(in))
		var got []string
		for _, a := range list {
			got = append(got, a.String())
		}
		if err != nil && len(list) > maxMailboxes {
			got = nil
		}
		addresses, problem, bad := strings.Cut(want, "! ")
		if strings.Join(got, " ") != strings.TrimSpace(addresses) || bad != (err != nil) || bad && !strings.Contains(err.Error(), problem) {
			t.Errorf("%.80q\n got %.200q, %v\nwant %.200q", in, got, err, want)
		}
	}
}

func FuzzParseMailboxes(f *testing.F) {
	for _, s := range []string{"Ann <a@b.test>, \"x y\"@c.test", "G: a@b (c (d)), <e@f>;,", "a@[1.2.3.4] <b@c>", "\"\\\"", "=?utf-8?q?a?= <jos\xc3\xa9@b>", "(\\"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		list, err := ParseMailboxes(in)
		if err != nil {
			if s := err.Error(); !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) || len(s) > 1000 {
				t.Errorf("the error is not fit to be shown: %q", s)
			}
			return
		}
		var again []string
		for _, a := range list {
			if a.Local == "" && a.Domain == "" || len(a.Local)+len(a.Domain) > maxMailbox {
				t.Errorf("%q: address %q", in, a)
			}
			again = append(again, "<"+a.String()+">")
		}
		// What was understood means the same when it is written plainly.
		if l, err := ParseMailboxes([]byte(strings.Join(again, ","))); err != nil || !slices.Equal(l, list) {
			t.Errorf("%q is %q, and that is %q, %v", in, list, l, err)
		}
		// Another reader that takes it finds no other addresses.
		theirs, err := mail.ParseAddressList(string(in))
		for _, a := range theirs {
			local, domain, _ := cutLast(a.Address)
			if err == nil && !slices.ContainsFunc(list, func(o smtp.Address) bool { return o.Local == local && o.Domain == domain }) {
				t.Errorf("%q: net/mail finds %q, we find %q", in, a.Address, list)
			}
		}
	})
}

func cutLast(address string) (local, domain string, ok bool) {
	i := strings.LastIndexByte(address, '@')
	if i < 0 {
		return address, "", false
	}
	return address[:i], address[i+1:], true
}

func TestScanResent(t *testing.T) {
	const newest = "Resent-Date: x\r\nResent-From: a@new.test\r\nResent-Sender: s@new.test\r\nResent-Message-ID: <1@x>\r\n"
	const old = "Resent-From: a@old.test\r\nResent-Sender: s@old.test\r\n"
	for name, tt := range map[string]struct{ header, from, sender string }{
		"none":                  {"From: a@b.test\r\n", "", ""},
		"one":                   {newest + "From: a@b.test\r\n", "a@new.test", "s@new.test"},
		"below others":          {"Received: x\r\nFrom: a@b.test\r\n" + newest, "a@new.test", "s@new.test"},
		"two, trace between":    {newest + "Received: x\r\n" + old, "a@new.test", "s@new.test"},
		"two without a gap":     {"Resent-Date: x\r\nResent-From: a@new.test\r\nResent-Date: y\r\n" + old, "a@new.test", ""},
		"a field comes again":   {"Resent-From: a@new.test\r\nResent-From: b@old.test\r\nResent-Sender: s@old.test\r\n", "a@new.test", ""},
		"several who resend":    {"Resent-From: a@new.test, b@new.test\r\n", "a@new.test b@new.test", ""},
		"newest without a From": {"Resent-Sender: s@new.test\r\nReceived: x\r\nResent-From: a@old.test\r\n", "", "s@new.test"},
		"unknown resent field":  {"Resent-From: a@new.test\r\nResent-X: x\r\nResent-Sender: s@new.test\r\n", "a@new.test", "s@new.test"},
		"only in the body":      {"\r\n" + newest, "", ""},
	} {
		f := mustScan(t, Bytes([]byte(tt.header+"\r\nbody\r\n")))
		if got := listed(f.ResentAuthors); got != tt.from {
			t.Errorf("%s: resent from %q, want %q", name, got, tt.from)
		}
		if got := listed(f.ResentSender); got != tt.sender {
			t.Errorf("%s: resent sender %q, want %q", name, got, tt.sender)
		}
	}
}

func listed(m Mailboxes) string {
	var all []string
	for _, a := range m.List {
		all = append(all, a.String())
	}
	return strings.Join(all, " ")
}

func TestScanScript(t *testing.T) {
	for header, want := range map[string]string{
		"X-PHP-Originating-Script: 1000:mailer.php\r\n":                      "1000:mailer.php",
		"X-PHP-Script: www.example.com/a.php for 192.0.2.1\r\n":              "www.example.com/a.php for 192.0.2.1",
		"X-Source-Args: php /home/ann/mailer.php\r\n":                        "php /home/ann/mailer.php",
		"X-PHP-Script: b\r\nX-PHP-Originating-Script: a\r\nX-Source-Args: c": "a",
		"X-PHP-Originating-Script:\r\nX-PHP-Script: b\r\n":                   "b",
		"X-Mailer: PHPMailer 6.9.1 (https://github.com/PHPMailer/PHPMailer)": "",
		"X-Mailer: Contact.PHP \r\n":                                         "Contact.PHP",
		"X-Mailer: .php\r\n":                                                 "",
		"X-PHP-Script: a\tb\r\n c\x01\r\n":                                   "a b c",
		"X-PHP-Script: " + strings.Repeat("x", 5000) + "\r\n":                strings.Repeat("x", 255),
		"Subject: X-PHP-Script: x\r\n":                                       "",
	} {
		if got := mustScan(t, Bytes([]byte(header+"\r\n"))).Script; got != want {
			t.Errorf("%.60q: script %q, want %q", header, got, want)
		}
	}
}

func TestScanTwice(t *testing.T) {
	f := mustScan(t, Bytes([]byte("Date: 1\r\nFROM: a@b.test\r\nTo: x\r\nfrom : c@d.test\r\nfrom: e@f.test\r\nReceived: 1\r\nReceived: 2\r\n"+
		"To: y\r\nX: 1\r\nX: 2\r\nContent-Type: a\r\nContent-type: b\r\n\r\nDate: 2\r\n")))
	if want := []string{"From", "To", "Content-Type"}; !slices.Equal(f.Twice, want) {
		t.Errorf("twice: %q, want %q", f.Twice, want)
	}
	if got := listed(f.Authors); got != "a@b.test c@d.test e@f.test" || f.Authors.Fields != 3 || f.From != "a@b.test" {
		t.Errorf("authors %q of %d fields, From %s", got, f.Authors.Fields, f.From)
	}
}

// A key against repeats is taken out of the header, and nothing else.
func TestScanOnce(t *testing.T) {
	for _, tt := range []struct{ in, key, out string }{
		{"From: a@b\r\nIdempotency-Key: 42\r\nTo: c@d\r\n\r\nIdempotency-Key: 43\r\n", "42", "From: a@b\r\nTo: c@d\r\n\r\nIdempotency-Key: 43\r\n"},
		{"X-Postrider-Idempotency-Key : 4\r\n 2\r\nFrom: a@b\r\n\r\n", "4 2", "From: a@b\r\n\r\n"},
		{"From: a@b\r\nIDEMPOTENCY-KEY: a\r\nidempotency-key: b\r\n\r\n", "a", "From: a@b\r\n\r\n"},
		{"From x y\r\nIdempotency-Key: a\r\nFrom: a@b\r\n\r\nbody", "a", "From: a@b\r\n\r\nbody"},
		{"Idempotency-Key: a\r\n", "a", "\r\n"},
		{"Idempotency-Key: a\r\nno field\r\n", "a", "\r\nno field\r\n"},
		{"Idempotency-Key: a\r\n\r\nbody\r\n", "a", "\r\nbody\r\n"},
		{"Idempotency-Key:\r\n\r\n", "", "\r\n"},
		{"Idempotency-Key: " + strings.Repeat("k", 9999) + "\r\n\r\n", strings.Repeat("k", 255), "\r\n"},
		{"From: a@b\r\n\r\n", "", "From: a@b\r\n\r\n"},
	} {
		for _, c := range []Content{Bytes([]byte(tt.in)), stream(tt.in)} {
			f := mustScan(t, c)
			if got := string(readAll(t, f.Prepend([]byte("Date: d\r\n"), c))); f.Once != tt.key || got != "Date: d\r\n"+tt.out {
				t.Errorf("%.100q: key %.60q, content %.100q; want %.60q, %.100q", tt.in, f.Once, got, tt.key, "Date: d\r\n"+tt.out)
			}
		}
	}
}
