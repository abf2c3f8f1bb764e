package message

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"mime/quotedprintable"
	"strings"
)

// Editing says what is made of the text parts of a message.
type Editing struct {
	// Most is the largest body that is edited, in bytes as it is written; larger ones
	// stay.
	Most int
	// Skip is shown the header of the message, and tells whether all of it stays;
	// nil: it does not.
	Skip func(header []byte) bool
	// Edit gives another body for a part, decoded as p.Body is, or false where it
	// stays. It gets each part of type text/html or text/plain that is no attachment,
	// is not inside of something signed, encrypted or passed on, and has a charset in
	// which ASCII stands for itself; Charset is in lower case, or empty.
	Edit func(p Part, charset string) (body []byte, ok bool)
}

// errStays ends an edition of which nothing comes.
var errStays = errors.New("the message stays as it is")

// Apply makes another message, with other bodies, and else byte for byte the same,
// but for the transfer encoding where a new body needs another one. It is written
// to buf, which must be empty, and is valid as long as it; a message of which
// nothing is edited, or that has more parts or longer headers than we read, comes
// back as it is.
//
// The content is read once, and no more of it held than one header and one body.
func (e Editing) Apply(c Content, buf *Buffer) (Content, error) {
	v := &editor{Editing: e, out: buf}
	err := visit(c, v)
	var shape shapeError
	switch {
	case errors.Is(err, errStays) || errors.As(err, &shape) || err == nil && !v.changed:
		return c, nil
	case err != nil:
		return nil, err
	}
	return buf.Content(), nil
}

// editor is a visitor that writes what it is told of.
type editor struct {
	Editing
	out     *Buffer
	changed bool

	// Of the part that may be edited, until it is over:
	held    bool
	head    []byte
	raw     []byte
	charset string
}

func (v *editor) write(p []byte) error {
	_, err := v.out.Write(p)
	return err
}

func (v *editor) header(e *entity) error {
	if e.n == 0 && v.Skip != nil && v.Skip(e.header) {
		return errStays
	}
	if v.charset, v.held = editable(e); v.held {
		v.head, v.raw = append(v.head[:0], e.header...), v.raw[:0]
		return nil
	}
	return v.copyHeader(e, e.header)
}

func (v *editor) copyHeader(e *entity, h []byte) error {
	if err := v.write(h); err != nil || !e.closed {
		return err
	}
	return v.write(crlf)
}

func (v *editor) body(e *entity, p []byte) error {
	if v.held && len(v.raw)+len(p) <= v.Most {
		v.raw = append(v.raw, p...)
		return nil
	}
	if err := v.release(e); err != nil {
		return err
	}
	return v.write(p)
}

// release lets go of what was held, as it is.
func (v *editor) release(e *entity) error {
	if !v.held {
		return nil
	}
	v.held = false
	if err := v.copyHeader(e, v.head); err != nil {
		return err
	}
	return v.write(v.raw)
}

func (v *editor) between(p []byte) error { return v.write(p) }

func (v *editor) end(e *entity, atEOF bool) error {
	if !v.held {
		return nil
	}
	body, err := decode(e.encoding, v.raw)
	if err != nil {
		return v.release(e) // what can't be read can't be made anew
	}
	fresh, ok := v.Edit(Part{Type: e.typ, Header: v.head, Message: e.message, Body: body}, v.charset)
	if !ok {
		return v.release(e)
	}
	v.held, v.changed = false, true
	e.header = v.head
	defer func() { e.header = nil }()
	encoding := e.encoding
	if e.identity() && longLine(fresh) {
		encoding = "quoted-printable"
		if err := v.copyHeader(e, setEncoding(e, encoding, plan{})); err != nil {
			return err
		}
	} else if err := v.copyHeader(e, v.head); err != nil {
		return err
	}
	switch encoding {
	case "quoted-printable":
		return v.quoted(fresh)
	case "base64":
		w := base64Writer{out: v.out}
		if err := w.data(fresh); err != nil {
			return err
		}
		return w.end(atEOF)
	}
	return v.write(fresh)
}

// quoted writes text as quoted-printable.
func (v *editor) quoted(b []byte) error {
	q := qpWriter{out: v.out}
	for len(b) > 0 {
		line, rest, found := bytes.Cut(b, crlf)
		if len(line) > 0 {
			if err := q.text(line); err != nil {
				return err
			}
		}
		if found {
			if err := q.text(crlf); err != nil {
				return err
			}
		}
		b = rest
	}
	return nil
}

// decode undoes a transfer encoding, or says that it can't.
func decode(encoding string, b []byte) ([]byte, error) {
	switch encoding {
	case "quoted-printable":
		return io.ReadAll(quotedprintable.NewReader(bytes.NewReader(b)))
	case "base64":
		return io.ReadAll(base64.NewDecoder(base64.StdEncoding, bytes.NewReader(b)))
	}
	return b, nil
}

// longLine tells whether a line is too long for mail (RFC 5322 section 2.1.1).
func longLine(b []byte) bool {
	for len(b) > 998 {
		i := bytes.IndexByte(b, '\n')
		if i < 0 || i > 999 {
			return true
		}
		b = b[i+1:]
	}
	return false
}

// editable tells whether a part is text that may be edited, and its charset.
func editable(e *entity) (charset string, ok bool) {
	if e.kind != leaf || e.frozen || !e.closed || e.typ != "text/html" && e.typ != "text/plain" {
		return "", false
	}
	switch e.encoding {
	case "", "8bit", "quoted-printable", "base64":
	default:
		return "", false
	}
	for rest := e.header; ; {
		f, r, ok := nextField(rest)
		if !ok {
			break
		}
		rest = r
		var buf [32]byte
		switch string(lower(&buf, f.name)) {
		case "content-disposition":
			if firstToken(string(f.value)) == "attachment" {
				return "", false
			}
		case "content-type":
			if charset == "" {
				_, params, err := mime.ParseMediaType(string(f.value))
				if err != nil && strings.Contains(strings.ToLower(string(f.value)), "charset") {
					return "", false
				}
				charset = strings.ToLower(strings.TrimSpace(params["charset"]))
			}
		}
	}
	return charset, likeASCII(charset)
}

// likeASCII tells whether bytes below 128 stand for ASCII, always or where markup
// and addresses are concerned.
func likeASCII(charset string) bool {
	switch charset {
	case "", "ascii", "us-ascii", "utf-8", "utf8", "macintosh", "gb2312", "gbk", "gb18030", "big5", "big5-hkscs", "shift_jis", "shift-jis", "sjis", "ks_c_5601-1987", "tis-620", "unknown-8bit":
		return true
	}
	for _, family := range []string{"iso-8859-", "iso8859-", "windows-", "cp125", "koi8-", "euc-", "latin"} {
		if strings.HasPrefix(charset, family) {
			return true
		}
	}
	return false
}
