package demo

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"mime"
	"strings"
)

// scenario is one message and what is to become of it.
type scenario struct {
	name string
	to   []string
	want map[string]string // state by recipient; "delivered" where it is missing
	make func(from string, to []string) []byte
	// retried: at least one delivery needs more than one attempt.
	retried bool
	// follows are kinds of events that come back after the delivery to the first
	// recipient.
	follows []string
}

func scenarios() []scenario {
	return []scenario{
		{name: "delivered at once", to: []string{"ann@example.test"}, make: reset},
		{name: "HTML with attachments", to: []string{"ann@gmail.test"}, make: receipt},
		{name: "non-ASCII", to: []string{"ann@outlook.test"}, make: nonASCII},
		{name: "non-ASCII to a 7-bit receiver", to: []string{"ann@seven-bit.test"}, make: nonASCII},
		{name: "5 MB", to: []string{"bea@example.test"}, make: large},
		{name: "greylisted (451)", to: []string{"greylist@example.test"}, retried: true, make: reset},
		{name: "no such user (550)", to: []string{"user-unknown@gmail.test"}, want: map[string]string{"user-unknown@gmail.test": "bounced"}, make: reset},
		{name: "mailbox full (452)", to: []string{"mailbox-full@outlook.test"}, retried: true, make: reset},
		{name: "421 in mid-session", to: []string{"shutdown@example.test"}, retried: true, make: reset},
		{name: "closed inside DATA", to: []string{"drop-data@example.test"}, retried: true, make: large},
		{name: "reply lost after DATA", to: []string{"drop-dot@example.test"}, retried: true, make: reset},
		{name: "receiver without TLS", to: []string{"cem@plaintext.test"}, make: reset},
		{name: "expired certificate", to: []string{"dan@expired.test"}, make: reset},
		{name: "broken STARTTLS", to: []string{"eve@broken-tls.test"}, make: reset},
		{name: "slow receiver", to: []string{"slow@example.test"}, make: reset},
		{name: "null MX", to: []string{"fay@null-mx.test"}, want: map[string]string{"fay@null-mx.test": "bounced"}, make: reset},
		{name: "domain does not exist", to: []string{"gil@does-not-exist.test"}, want: map[string]string{"gil@does-not-exist.test": "bounced"}, make: reset},
		{name: "first MX down, second up", to: []string{"hal@half-down.test"}, make: reset},
		{name: "MX with a private address", to: []string{"ida@inside.test"}, want: map[string]string{"ida@inside.test": "bounced"}, make: reset},
		{name: "three recipients, one refused", to: []string{"joe@example.test", "user-unknown@example.test", "kim@outlook.test"},
			want: map[string]string{"user-unknown@example.test": "bounced"}, make: receipt},

		{name: "taken, and bounced later", to: []string{"late-bounce@example.test"}, want: map[string]string{"late-bounce@example.test": "bounced"}, make: reset, follows: []string{"bounced"}},
		{name: "reported as spam", to: []string{"complain@gmail.test"}, make: offer, follows: []string{"complained"}},
		{name: "opened", to: []string{"open@example.test"}, make: offer, follows: []string{"opened"}},
		{name: "loaded by a privacy proxy", to: []string{"prefetch@example.test"}, make: offer, follows: []string{"opened"}},
		{name: "a link followed", to: []string{"click@outlook.test"}, make: offer, follows: []string{"opened", "clicked"}},
		{name: "links scanned by a filter", to: []string{"scan@example.test"}, make: offer, follows: []string{"clicked"}},
		{name: "unsubscribed by one click", to: []string{"unsubscribe@example.test"}, make: offer, follows: []string{"unsubscribed"}},
		{name: "unsubscribed by mail", to: []string{"unsubscribe-mail@example.test"}, make: offer, follows: []string{"unsubscribed"}},
		{name: "answered by a vacation notice", to: []string{"vacation@example.test"}, make: reset, follows: []string{"feedback"}},
	}
}

func (s scenario) wants(recipient string) string {
	if state := s.want[recipient]; state != "" {
		return state
	}
	return "delivered"
}

// bounces tells whether the sender is to get a DSN.
func (s scenario) bounces() bool { return len(s.want) > 0 }

func header(b *bytes.Buffer, from string, to []string, subject string) {
	fmt.Fprintf(b, "From: Shop <%s>\r\nTo: %s\r\nSubject: %s\r\nMIME-Version: 1.0\r\n", from, strings.Join(to, ",\r\n\t"), subject)
}

// reset is a password reset, plain text.
func reset(from string, to []string) []byte {
	var b bytes.Buffer
	header(&b, from, to, "Reset your password")
	b.WriteString("Content-Type: text/plain; charset=us-ascii\r\n\r\n" +
		"Hello,\r\n\r\nsomebody asked to reset your password. If it was you, open\r\n\r\n" +
		"  https://shop.test/reset/5fd2\r\n\r\nwithin an hour.\r\n\r\n.\r\n..\r\nThe shop\r\n")
	return b.Bytes()
}

// offer is a newsletter: HTML, with links that are followed and an address to leave
// by.
func offer(from string, to []string) []byte {
	var b bytes.Buffer
	header(&b, from, to, "Our offers of the week")
	b.WriteString("X-Postrider-Track: opens, clicks\r\nX-Postrider-Unsubscribe: on\r\nContent-Type: text/html; charset=us-ascii\r\n\r\n" +
		"<html><body><h1>Offers</h1>\r\n<p><a href=\"https://shop.test/offers?week=9&amp;from=mail\">See them all</a></p>\r\n</body></html>\r\n")
	return b.Bytes()
}

// nonASCII has an encoded subject and a body in 8-bit UTF-8.
func nonASCII(from string, to []string) []byte {
	var b bytes.Buffer
	header(&b, from, to, mime.QEncoding.Encode("utf-8", "Ihre Bestellung über 25 € ist unterwegs"))
	b.WriteString("Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" +
		"Grüße aus Köln!\r\nご注文ありがとうございます。\r\nСпасибо за заказ.\r\n")
	return b.Bytes()
}

// receipt has text, HTML and two attachments.
func receipt(from string, to []string) []byte {
	const alternative, mixed = "alternative-7f3a", "mixed-91bc"
	var b bytes.Buffer
	header(&b, from, to, "Your receipt")
	fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=%q\r\n\r\n--%[1]s\r\nContent-Type: multipart/alternative; boundary=%[2]q\r\n\r\n", mixed, alternative)
	fmt.Fprintf(&b, "--%s\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\nThank you. The receipt is attached.\r\n", alternative)
	fmt.Fprintf(&b, "--%s\r\nContent-Type: text/html; charset=us-ascii\r\n\r\n<p>Thank you. The <b>receipt</b> is attached.</p>\r\n--%[1]s--\r\n", alternative)
	attach(&b, mixed, "application/pdf", "receipt.pdf", bytes.Repeat([]byte("%PDF-1.4 a receipt\n"), 2000))
	attach(&b, mixed, "text/csv", "items.csv", []byte("item,price\nbook,25\n"))
	fmt.Fprintf(&b, "--%s--\r\n", mixed)
	return b.Bytes()
}

// large has an attachment that makes it 5 MB.
func large(from string, to []string) []byte {
	const mixed = "mixed-44d0"
	var b bytes.Buffer
	header(&b, from, to, "The scans you asked for")
	fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=%q\r\n\r\n--%[1]s\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\nAttached.\r\n", mixed)
	attach(&b, mixed, "image/tiff", "scan.tiff", bytes.Repeat([]byte("0123456789abcdef"), 5<<20/16*3/4))
	fmt.Fprintf(&b, "--%s--\r\n", mixed)
	return b.Bytes()
}

func attach(b *bytes.Buffer, boundary, kind, name string, content []byte) {
	fmt.Fprintf(b, "--%s\r\nContent-Type: %s\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=%q\r\n\r\n", boundary, kind, name)
	text := base64.StdEncoding.EncodeToString(content)
	for len(text) > 76 {
		b.WriteString(text[:76] + "\r\n")
		text = text[76:]
	}
	b.WriteString(text + "\r\n")
}
