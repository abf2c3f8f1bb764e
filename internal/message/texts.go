package message

import (
	"bytes"
	"encoding/base64"
	"errors"
)

// Texts gives show each part that an Editing with the same bound would be asked
// about, until it says that it has seen enough. The content is read once, and no
// more of it held than one header and one body.
//
// May makes it cheap to look for something that few messages have: where it finds
// nothing in what is in memory, nothing is shown. It gets texts that are decoded as
// far as base64 and soft line breaks go.
func Texts(c Content, most int, may func(text []byte) bool, show func(p Part, charset string) (enough bool)) error {
	if b, ok := bytesOf(c); ok && !worth(b, may) {
		return nil
	}
	v := &reader{most: most, show: show}
	err := visit(c, v)
	var shape shapeError
	if errors.Is(err, errStays) || errors.As(err, &shape) {
		return nil
	}
	return err
}

// worth tells whether may finds anything in a message.
func worth(b []byte, may func(text []byte) bool) bool {
	return may(b) || hasJoined(b, may) || hasCoded(b, "ase64", may) || hasCoded(b, "ASE64", may)
}

// around is how much of a text is of interest on both sides of a break, in bytes.
const around = 64

// hasJoined tells whether may finds anything around soft line breaks, without them
// (RFC 2045 section 6.7, rule 5).
func hasJoined(b []byte, may func(text []byte) bool) bool {
	soft := []byte("=\r\n")
	at := bytes.Index(b, soft)
	if at < 0 {
		return false
	}
	text := make([]byte, 0, 4<<10)
	add := func(p []byte) (found bool) {
		if len(text)+len(p) > cap(text) {
			found = may(text)
			text = text[:copy(text, text[len(text)-around:])]
		}
		text = append(text, p...)
		return found
	}
	add(b[max(0, at-around):at])
	for {
		at += len(soft)
		next := bytes.Index(b[at:], soft)
		piece := b[at:min(len(b), at+around)]
		if next >= 0 && next <= 2*around {
			piece = b[at : at+next]
		}
		if add(piece) {
			return true
		}
		if next < 0 {
			return may(text)
		}
		at += next
		if next > 2*around && (add([]byte{'\n'}) || add(b[at-around:at])) {
			return true
		}
	}
}

// hasCoded tells whether may finds anything in text that is written in base64; word
// ends the field that says so.
func hasCoded(b []byte, word string, may func(text []byte) bool) bool {
	for at := 0; ; {
		i := bytes.Index(b[at:], []byte(word))
		if i < 0 {
			return false
		}
		at += i + len(word)
		from, to := bytes.LastIndex(b[:at], []byte("\n\r\n"))+1, bytes.Index(b[at:], []byte("\r\n\r\n"))
		if to < 0 {
			return false
		}
		header, body := bytes.ToLower(b[from:at+to]), b[at+to:]
		if bytes.Contains(header, []byte("\ncontent-type:")) && !bytes.Contains(header, []byte("text/")) {
			continue
		}
		if end := bytes.Index(body, []byte("\n--")); end >= 0 {
			body = body[:end]
		}
		coded := bytes.ReplaceAll(body, []byte("\r\n"), nil)
		text := make([]byte, base64.StdEncoding.DecodedLen(len(coded)))
		n, _ := base64.StdEncoding.Decode(text, coded) // an error leaves what comes before it, and such a part is not edited
		if may(text[:n]) {
			return true
		}
	}
}

// reader is a visitor that shows text.
type reader struct {
	most int
	show func(p Part, charset string) bool

	// Of the part that is text, until it is over:
	held    bool
	head    []byte
	raw     []byte
	charset string
}

func (v *reader) header(e *entity) error {
	if v.charset, v.held = editable(e); v.held {
		v.head, v.raw = append(v.head[:0], e.header...), v.raw[:0]
	}
	return nil
}

func (v *reader) body(_ *entity, p []byte) error {
	if v.held {
		if v.held = len(v.raw)+len(p) <= v.most; v.held {
			v.raw = append(v.raw, p...)
		}
	}
	return nil
}

func (v *reader) end(e *entity, _ bool) error {
	if !v.held {
		return nil
	}
	v.held = false
	body, err := decode(e.encoding, v.raw)
	if err != nil {
		return nil // it is not edited either
	}
	if v.show(Part{Type: e.typ, Header: v.head, Message: e.message, Body: body}, v.charset) {
		return errStays
	}
	return nil
}

func (v *reader) between([]byte) error { return nil }
