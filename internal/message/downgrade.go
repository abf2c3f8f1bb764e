package message

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// ErrHeader8Bit says that a header, of the message or of something in it, has
// bytes above 127: only SMTPUTF8 can carry them (RFC 6532).
var ErrHeader8Bit = errors.New("the header has characters outside of ASCII, and there is no conversion for them")

// To7Bit converts a message for a receiver without 8BITMIME (RFC 6152 section
// 3): bodies with bytes above 127 become quoted-printable (text) or base64, their
// Content-Transfer-Encoding is set, all else stays byte for byte. Enclosed
// messages are converted inside. Bytes above 127 between parts, where no reader
// looks, become question marks.
//
// The result is written to buf, which must be empty, and is valid as long as it;
// a message that has nothing to convert comes back as it is. The error is for
// people to read. The content is read three times and never held
// as a whole.
//
// A DKIM signature that came with the message does not survive a conversion: sign
// after it.
func To7Bit(c Content, buf *Buffer) (Content, error) {
	// A look at the bytes first: bounds on parts are no matter to 7-bit content.
	f, err := Scan(c)
	if err != nil {
		return nil, err
	}
	if !f.EightBit && !f.UTF8Header {
		return c, nil
	}
	var s survey
	if err := visit(c, &s); err != nil {
		return nil, err
	}
	if s.err != nil {
		return nil, s.err
	}
	if err := visit(c, &converter{out: buf, leaves: s.leaves}); err != nil {
		return nil, err
	}
	return buf.Content(), nil
}

func visit(c Content, v visitor) error {
	rc, err := c.Open()
	if err != nil {
		return fmt.Errorf("open content: %w", err)
	}
	defer rc.Close()
	return walk(rc, v)
}

// action is what is done to the body of an entity.
type action uint8

const (
	copied   action = iota
	relabel         // the body as it is, "8bit" in the header made "7bit"
	toQP            // identity to quoted-printable
	toBase64        // identity to base64
	patchQP         // bytes above 127 that should not be in quoted-printable
	patch           // the same in base64
)

// survey is the first pass: it finds out what must be done to each entity.
type survey struct {
	leaves []plan // by entity.n
	err    error  // why it cannot be
	line   int    // bytes of the line so far
}

type plan struct {
	action action
	high   bool
	odd    bool // not fit for 7bit or 8bit: NUL, bare CR or LF, long lines
	latin  bool // high, and not UTF-8
}

func (s *survey) header(e *entity) error {
	s.leaves = append(s.leaves, plan{})
	s.line = 0
	if hasHigh(e.header) {
		s.fail(ErrHeader8Bit)
	}
	if e.kind != leaf && e.encoding != "" && e.identity() {
		s.leaves[e.n].action = relabel
	}
	return nil
}

func (s *survey) body(e *entity, p []byte) error {
	l := &s.leaves[e.n]
	if hasHigh(p) {
		l.high = true
		l.latin = l.latin || !utf8.Valid(p)
	}
	if s.line += len(p); bytes.Equal(p, crlf) {
		s.line = 0
	} else if s.line > 998 || bytes.IndexByte(p, 0) >= 0 || bytes.IndexByte(p, '\r') >= 0 || bytes.IndexByte(p, '\n') >= 0 {
		l.odd = true
	}
	return nil
}

func (s *survey) between([]byte) error { return nil }

func (s *survey) end(e *entity, _ bool) error {
	var err error
	l := &s.leaves[e.n]
	l.action, err = choose(e, *l)
	s.fail(err)
	return nil
}

func (s *survey) fail(err error) {
	if s.err == nil {
		s.err = err
	}
}

// choose decides on a leaf. Labels of 8bit and binary go even where they are not
// needed, as no multipart around a leaf may say less than it (RFC 2045 section
// 6.4).
func choose(e *entity, l plan) (action, error) {
	main, _, _ := strings.Cut(e.typ, "/")
	labelled := e.encoding != "" && e.identity()
	switch {
	case !l.high && !(labelled && l.odd):
		if labelled {
			return relabel, nil
		}
		return copied, nil
	case e.encoding == "quoted-printable":
		return patchQP, nil
	case e.encoding == "base64":
		return patch, nil
	case !e.identity():
		return 0, fmt.Errorf("a part with the encoding %q has bytes above 127, and there is no conversion for it", Clean(e.encoding, 40))
	case main == "multipart":
		return 0, errors.New("a multipart without a boundary, or too deep inside others, has bytes above 127, and there is no conversion for it")
	case e.typ == "message/partial" || e.typ == "message/external-body":
		return 0, fmt.Errorf("a part of type %s has bytes above 127, and no encoding is allowed for it", e.typ)
	case main == "text" || main == "message":
		return toQP, nil
	}
	return toBase64, nil
}

// converter is the second pass: it writes the message anew.
type converter struct {
	out    *Buffer
	leaves []plan
	qp     qpWriter
	b64    base64Writer
}

func (c *converter) header(e *entity) error {
	p := c.leaves[e.n]
	c.qp, c.b64 = qpWriter{out: c.out}, base64Writer{out: c.out}
	h := e.header
	switch p.action {
	case relabel:
		h = setEncoding(e, "7bit", p)
	case toQP:
		h = setEncoding(e, "quoted-printable", p)
	case toBase64:
		h = setEncoding(e, "base64", p)
	}
	// Where the blank line was missing, a body that is converted needs it.
	if e.closed || p.action != copied && p.action != patch && p.action != patchQP {
		h = append(h[:len(h):len(h)], crlf...)
	}
	return c.write(h)
}

func (c *converter) body(e *entity, p []byte) error {
	switch c.leaves[e.n].action {
	case toQP:
		return c.qp.text(p)
	case patchQP:
		return c.qp.patch(p)
	case toBase64:
		return c.b64.data(p)
	case patch:
		return c.write(questionMarks(p))
	}
	return c.write(p)
}

func (c *converter) end(e *entity, atEOF bool) error {
	if c.leaves[e.n].action == toBase64 {
		return c.b64.end(atEOF)
	}
	return nil
}

func (c *converter) between(p []byte) error { return c.write(questionMarks(p)) }

func (c *converter) write(p []byte) error {
	_, err := c.out.Write(p)
	return err
}

// setEncoding gives e's header with its Content-Transfer-Encoding set, in the
// old one's place or at the end.
func setEncoding(e *entity, encoding string, p plan) []byte {
	line := "Content-Transfer-Encoding: " + encoding + "\r\n"
	out := make([]byte, 0, len(e.header)+len(line)+100)
	var done, hasVersion, hasType bool
	rest := e.header
	for {
		f, r, ok := nextField(rest)
		if !ok {
			break
		}
		rest = r
		var buf [32]byte
		switch string(lower(&buf, f.name)) {
		case "content-transfer-encoding":
			if !done {
				out = append(out, line...)
			}
			done = true
			continue
		case "mime-version":
			hasVersion = true
		case "content-type":
			hasType = true
		}
		out = append(out, f.raw...)
	}
	out = append(out, rest...)
	if n := len(out); n > 0 && out[n-1] != '\n' {
		out = append(out, crlf...)
	}
	// Without a version the encoding would not be heeded, and without a type
	// 8-bit text had no name; RFC 1428 gives it one.
	if e.message && !hasVersion {
		out = append(out, "MIME-Version: 1.0\r\n"...)
	}
	if e.message && !hasType && p.high {
		charset := "utf-8"
		if p.latin {
			charset = "unknown-8bit"
		}
		out = append(out, "Content-Type: text/plain; charset="+charset+"\r\n"...)
	}
	if !done {
		out = append(out, line...)
	}
	return out
}

// questionMarks replaces bytes above 127.
func questionMarks(p []byte) []byte {
	if !hasHigh(p) {
		return p
	}
	out := bytes.Clone(p)
	for i, b := range out {
		if b >= 0x80 {
			out[i] = '?'
		}
	}
	return out
}

const (
	upperHex = "0123456789ABCDEF"
	qpLine   = 76 // with the "=" of a soft line break (RFC 2045 section 6.7)
)

// qpWriter writes quoted-printable.
type qpWriter struct {
	out *Buffer
	col int
	buf []byte
}

// text encodes a piece as walker.v.body gets it: CRLF comes alone.
func (q *qpWriter) text(p []byte) error {
	if bytes.Equal(p, crlf) {
		q.col = 0
		_, err := q.out.Write(p)
		return err
	}
	q.buf = q.buf[:0]
	for i, c := range p {
		plain := c > ' ' && c < 0x7f && c != '=' || (c == ' ' || c == '\t') && i < len(p)-1
		n := 3
		if plain {
			n = 1
		}
		if q.soften(n) && c == '-' { // a new line must not look like a boundary
			plain = false
			q.col += 2
		}
		if plain {
			q.buf = append(q.buf, c)
		} else {
			q.buf = append(q.buf, '=', upperHex[c>>4], upperHex[c&15])
		}
	}
	_, err := q.out.Write(q.buf)
	return err
}

// patch encodes bytes above 127 in what is quoted-printable otherwise.
func (q *qpWriter) patch(p []byte) error {
	q.buf = q.buf[:0]
	for _, c := range p {
		switch {
		case c >= 0x80:
			q.soften(3)
			q.buf = append(q.buf, '=', upperHex[c>>4], upperHex[c&15])
		default:
			if q.col++; c == '\n' {
				q.col = 0
			}
			q.buf = append(q.buf, c)
		}
	}
	_, err := q.out.Write(q.buf)
	return err
}

// soften breaks the line where n more characters and a "=" have no room.
func (q *qpWriter) soften(n int) (broken bool) {
	if q.col+n > qpLine-1 {
		q.buf = append(q.buf, "=\r\n"...)
		q.col, broken = 0, true
	}
	q.col += n
	return broken
}

// base64Writer writes base64 in lines of 76, without a line end behind the last.
type base64Writer struct {
	out     *Buffer
	pending []byte // less than a line
	started bool
}

const base64Raw = 57 // bytes that make a line of 76 characters

func (w *base64Writer) data(p []byte) error {
	w.pending = append(w.pending, p...)
	done := w.pending
	for len(done) > base64Raw {
		if err := w.line(done[:base64Raw]); err != nil {
			return err
		}
		done = done[base64Raw:]
	}
	w.pending = append(w.pending[:0], done...)
	return nil
}

func (w *base64Writer) line(p []byte) error {
	var buf [80]byte
	line := buf[:0]
	if w.started {
		line = append(line, crlf...)
	}
	w.started = true
	_, err := w.out.Write(base64.StdEncoding.AppendEncode(line, p))
	return err
}

// end writes what is left, and at the end of the message the last line end.
func (w *base64Writer) end(atEOF bool) error {
	if len(w.pending) > 0 {
		if err := w.line(w.pending); err != nil {
			return err
		}
		w.pending = w.pending[:0]
	}
	if !atEOF || !w.started {
		return nil
	}
	_, err := w.out.Write(crlf)
	return err
}
