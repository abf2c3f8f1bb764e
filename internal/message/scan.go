package message

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	// MaxHeader is how many bytes of a header are read, in bytes. What lies behind
	// counts as body.
	MaxHeader = 1 << 20

	maxSubject   = 255 // characters
	maxMessageID = 998 // bytes: a line (RFC 5322 section 2.1.1)
	scanRoom     = 64 << 10
)

// Facts are what one pass over a message tells. Strings are valid UTF-8 without
// control characters. The Has fields tell of a field's presence, with or without
// a value.
type Facts struct {
	Subject   string // decoded (RFC 2047), at most 255 characters
	From      string // first address of the first From field, without display name
	MessageID string // with its brackets

	HasDate, HasFrom, HasSender, HasSubject, HasMessageID bool
	HasTo, HasCc, HasBcc, HasReturnPath, HasMIME, HasDKIM bool
	Received                                              int   // number of Received fields
	UTF8Header                                            bool  // bytes above 127 in the header
	EightBit                                              bool  // bytes above 127 in the body
	NUL                                                   bool  // a zero byte anywhere
	Bare                                                  bool  // a CR or LF anywhere that is not half of a CRLF
	LongestLine                                           int64 // in bytes, without line end; of header and body

	// HeaderSize is the header in bytes with the blank line that ends it, and with
	// Mbox.
	HeaderSize int64
	// Mbox is the length of a "From " line that some programs leave at the start,
	// in bytes; such a line is no part of the message.
	Mbox int64
	// NoHeader: the content starts as a body, without field or blank line.
	NoHeader bool
	// Problem is what is wrong with the header's form, as a sentence for people;
	// empty when nothing is.
	Problem string
}

// Prepend puts fields, complete header lines, before the content that f was
// scanned from: without the mbox line, and with a blank line where the content
// has no header of its own.
func (f Facts) Prepend(fields []byte, c Content) Content {
	if f.NoHeader {
		fields = append(fields[:len(fields):len(fields)], "\r\n"...)
	}
	return splice(fields, c, f.Mbox)
}

// Scan reads the whole content once. It takes any bytes and fails only where
// they cannot be read.
func Scan(c Content) (Facts, error) {
	var s scanner
	if b, ok := bytesOf(c); ok {
		n := s.header(b[:min(len(b), MaxHeader)], len(b) > MaxHeader)
		s.body(b[n:])
		return s.facts(), nil
	}
	rc, err := c.Open()
	if err != nil {
		return Facts{}, fmt.Errorf("open content: %w", err)
	}
	defer rc.Close()
	buf, n := make([]byte, scanRoom), 0
	for more := true; more; {
		m, err := io.ReadFull(rc, buf[n:])
		n += m
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			more = false
		case err != nil:
			return Facts{}, fmt.Errorf("read content: %w", err)
		}
		if n >= MaxHeader || hasBlankLine(buf[:n]) {
			break
		}
		if more {
			buf = append(buf, make([]byte, len(buf))...)
		}
	}
	end := s.header(buf[:min(n, MaxHeader)], n >= MaxHeader)
	s.body(buf[end:n])
	for {
		n, err := rc.Read(buf)
		s.body(buf[:n])
		if errors.Is(err, io.EOF) {
			return s.facts(), nil
		}
		if err != nil {
			return Facts{}, fmt.Errorf("read content: %w", err)
		}
	}
}

func hasBlankLine(b []byte) bool {
	return bytes.Contains(b, []byte("\n\r\n")) || bytes.Contains(b, []byte("\n\n"))
}

// scanner gathers facts; header comes once and first, then the body in pieces.
type scanner struct {
	f    Facts
	line int64 // bytes of the line that is not over yet
	last byte  // of what was counted
}

// header reads the header at the start of b and gives its length. cut says that
// the content goes on behind b.
func (s *scanner) header(b []byte, cut bool) int {
	f := &s.f
	rest := b
	if bytes.HasPrefix(b, []byte("From ")) || bytes.HasPrefix(b, []byte(">From ")) {
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			rest = b[i+1:]
			f.Mbox = int64(i + 1)
		}
	}
	first := rest
	for {
		fl, r, ok := nextField(rest)
		if !ok {
			break
		}
		rest = r
		s.field(fl)
	}
	none := len(rest) == len(first)
	switch n := blankLine(rest); {
	case n > 0:
		rest = rest[n:]
	case len(rest) == 0 && cut:
		f.Problem = fmt.Sprintf("The header is longer than %d bytes.", MaxHeader)
	case len(rest) == 0:
		f.NoHeader = none
	default:
		f.NoHeader = none
		f.Problem = notField(rest, none)
	}
	n := len(b) - len(rest)
	f.HeaderSize = int64(n)
	f.UTF8Header = s.count(b[:n])
	return n
}

// notField is the sentence for a line that should be a field.
func notField(rest []byte, first bool) string {
	line, _, _ := bytes.Cut(rest[:min(len(rest), 200)], []byte("\n"))
	text := Clean(string(line), 60)
	if first {
		return fmt.Sprintf("The content has no header: it starts with the line %q.", text)
	}
	return fmt.Sprintf("The header has a line that is not a field, %q; what follows is taken for the body.", text)
}

// field notes what one field tells.
func (s *scanner) field(fl field) {
	f := &s.f
	var buf [32]byte
	switch string(lower(&buf, fl.name)) {
	case "subject":
		if !f.HasSubject {
			f.Subject = decodeText(fl.value, maxSubject)
		}
		f.HasSubject = true
	case "from":
		if !f.HasFrom {
			f.From = FirstAddress(fl.value)
		}
		f.HasFrom = true
	case "message-id":
		if !f.HasMessageID {
			f.MessageID = messageID(fl.value)
		}
		f.HasMessageID = true
	case "date":
		f.HasDate = true
	case "sender":
		f.HasSender = true
	case "to":
		f.HasTo = true
	case "cc":
		f.HasCc = true
	case "bcc":
		f.HasBcc = true
	case "return-path":
		f.HasReturnPath = true
	case "mime-version":
		f.HasMIME = true
	case "dkim-signature":
		f.HasDKIM = true
	case "received":
		f.Received++
	}
}

// messageID is the id with its brackets, or the whole value where there are
// none.
func messageID(v []byte) string {
	if i := bytes.IndexByte(v, '<'); i >= 0 {
		if j := bytes.IndexByte(v[i:], '>'); j >= 0 {
			v = v[i : i+j+1]
		}
	}
	return Clean(string(v[:min(len(v), maxMessageID)]), maxMessageID)
}

func (s *scanner) body(b []byte) {
	if s.count(b) {
		s.f.EightBit = true
	}
}

// count notes lines, zero bytes and bare CR and LF, and tells whether b has
// bytes above 127.
func (s *scanner) count(b []byte) (high bool) {
	if len(b) == 0 {
		return false
	}
	f := &s.f
	if !f.NUL {
		f.NUL = bytes.IndexByte(b, 0) >= 0
	}
	crs := bytes.Count(b, []byte{'\r'})
	if s.last == '\r' {
		crs++ // the end of the piece before, of which it was taken off
	}
	if b[len(b)-1] == '\r' {
		crs-- // whether it is bare will be seen in the next piece
	}
	rest, last := b, s.last
	for {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			break
		}
		if i > 0 {
			last = rest[i-1]
		}
		n := s.line + int64(i)
		if last == '\r' {
			n--
			crs--
		} else {
			f.Bare = true
		}
		f.LongestLine = max(f.LongestLine, n)
		s.line, last = 0, '\n'
		rest = rest[i+1:]
	}
	s.line += int64(len(rest))
	s.last = b[len(b)-1]
	if crs != 0 {
		f.Bare = true
	}
	return hasHigh(b)
}

// facts ends the counting.
func (s *scanner) facts() Facts {
	if s.last == '\r' {
		s.f.Bare = true
	}
	s.f.LongestLine = max(s.f.LongestLine, s.line)
	return s.f
}

// hasHigh tells whether b has a byte above 127, eight at a time.
func hasHigh(b []byte) bool {
	const mask = 0x8080808080808080
	for len(b) >= 32 {
		v := binary.NativeEndian.Uint64(b) | binary.NativeEndian.Uint64(b[8:]) |
			binary.NativeEndian.Uint64(b[16:]) | binary.NativeEndian.Uint64(b[24:])
		if v&mask != 0 {
			return true
		}
		b = b[32:]
	}
	for _, c := range b {
		if c >= 0x80 {
			return true
		}
	}
	return false
}
