package message

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime/quotedprintable"
)

// Part is one entity of a message: the message itself, a part of it, or a
// message enclosed in it.
type Part struct {
	Type      string // media type in lower case, "text/plain" where nothing is said
	Header    []byte // as it is written, without the blank line
	Message   bool   // Header is that of a message, not of a part
	Container bool   // has parts or a message inside, which follow, and no Body
	Body      []byte // decoded of its transfer encoding as far as it could be, and cut to the limit
}

// ReadParts calls visit for every part of a message in the order they stand, with
// at most limit bytes of each body. It reads on until the end, or an error of
// visit or of r; the slices that visit gets are its own.
func ReadParts(r io.Reader, limit int, visit func(Part) error) error {
	return walk(r, &partReader{limit: limit, visit: visit})
}

type partReader struct {
	limit int
	visit func(Part) error
	part  Part
	raw   []byte
}

func (p *partReader) header(e *entity) error {
	p.part = Part{Type: e.typ, Header: bytes.Clone(e.header), Message: e.message, Container: e.kind != leaf}
	p.raw = nil
	if p.part.Container {
		return p.visit(p.part)
	}
	return nil
}

func (p *partReader) body(e *entity, piece []byte) error {
	room := p.limit
	if !e.identity() {
		room *= 3 // quoted-printable at its worst
	}
	p.raw = append(p.raw, piece[:min(len(piece), room-len(p.raw))]...)
	return nil
}

func (p *partReader) end(e *entity, _ bool) error {
	b := p.raw
	// What a decoder gives before it fails is all there is to be had.
	switch e.encoding {
	case "quoted-printable":
		b, _ = io.ReadAll(quotedprintable.NewReader(bytes.NewReader(b)))
	case "base64":
		b, _ = io.ReadAll(base64.NewDecoder(base64.StdEncoding, bytes.NewReader(b)))
	}
	p.part.Body = b[:min(len(b), p.limit)]
	return p.visit(p.part)
}

func (p *partReader) between([]byte) error { return nil }
