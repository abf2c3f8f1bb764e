package api

import (
	"bytes"
	"net/mail"
	"strings"

	"postrider/internal/relay"
	"postrider/internal/smtp"
)

// addresses are those that a message's header names.
type addresses struct {
	from string // of Sender, else the first of From
	to   []string
}

// readRaw brings a whole message into the form in which it is sent: with CRLF line
// ends, and without Bcc. Nothing else of it changes. It gives what its header
// says of sender and recipients.
func readRaw(b []byte) ([]byte, addresses, error) {
	var a addresses
	b = crlf(b)
	header, body := b, []byte(nil)
	if i := bytes.Index(b, []byte("\r\n\r\n")); i >= 0 {
		header, body = b[:i+2], b[i+2:]
	} else if !bytes.HasSuffix(b, []byte("\r\n")) {
		header = append(header, "\r\n"...)
	}
	out := make([]byte, 0, len(b))
	for len(header) > 0 {
		field := nextField(header)
		header = header[len(field):]
		name, value, ok := bytes.Cut(field, []byte(":"))
		if !ok || bytes.ContainsAny(bytes.TrimRight(name, " \t"), " \t\r\n") || len(name) == 0 {
			return nil, a, at("body.raw", &relay.Error{Code: relay.BadContent, Text: "This is not a message: it has a line in its header that is no field.",
				Advice: "Give a message as RFC 5322 has it, with an empty line between header and body."})
		}
		key := strings.ToLower(string(bytes.TrimSpace(name)))
		switch key {
		case "sender", "from":
			if list := listed(value); len(list) > 0 && (a.from == "" || key == "sender") {
				a.from = list[0]
			}
		case "to", "cc", "bcc":
			a.to = append(a.to, listed(value)...)
		}
		if key != "bcc" {
			out = append(out, field...)
		}
	}
	return append(out, body...), a, nil
}

// nextField is the first field of a header, with its continuation lines.
func nextField(header []byte) []byte {
	for end := 0; ; {
		i := bytes.Index(header[end:], []byte("\r\n"))
		if i < 0 {
			return header
		}
		if end += i + 2; end == len(header) || header[end] != ' ' && header[end] != '\t' {
			return header[:end]
		}
	}
}

// listed are the addresses in a field's value. What can't be read is left out:
// the entrance judges From itself, and recipients can be named in the request.
func listed(value []byte) (out []string) {
	text := strings.ReplaceAll(strings.TrimSpace(string(value)), "\r\n", "")
	list, err := mail.ParseAddressList(text)
	if err != nil {
		return nil
	}
	for _, m := range list {
		i := strings.LastIndexByte(m.Address, '@')
		out = append(out, smtp.Address{Local: m.Address[:i], Domain: m.Address[i+1:]}.String())
	}
	return out
}

// crlf makes each line end CRLF.
func crlf(b []byte) []byte {
	out := make([]byte, 0, len(b)+len(b)/40)
	for i, c := range b {
		switch {
		case c == '\n' && i > 0 && b[i-1] == '\r': // written already
		case c == '\r' || c == '\n':
			out = append(out, "\r\n"...)
		default:
			out = append(out, c)
		}
	}
	return out
}
