package message

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"strings"
)

const (
	maxDepth    = 50     // multiparts inside each other
	maxEntities = 10_000 // parts and enclosed messages in one message
	maxBoundary = 250    // bytes; RFC 2046 section 5.1.1 allows 70
)

// kind is how the body of an entity is read.
type kind uint8

const (
	leaf      kind = iota
	branch         // parts between boundaries (RFC 2046 section 5.1)
	enclosing      // a message (RFC 2046 section 5.2.1, RFC 6532 section 3.7)
)

// entity is a message or a part of one, after its header was read.
type entity struct {
	n        int    // its number, in the order of headers, from 0
	message  bool   // its header is that of a message, not of a part
	closed   bool   // its header ends with a blank line
	frozen   bool   // inside of something signed, encrypted or passed on
	header   []byte // valid during visitor.header
	kind     kind
	typ      string // "text/plain", lower case
	encoding string // Content-Transfer-Encoding in lower case; empty is 7bit
}

// visitor is told of a message from start to end. Every byte comes once, through
// one of the methods, but for the blank lines that end headers.
type visitor interface {
	header(e *entity) error
	body(e *entity, piece []byte) error // a line without its end, a part of a line, or a line end
	end(e *entity, atEOF bool) error    // of a leaf's body
	between(piece []byte) error         // boundaries, preambles, epilogues; line ends included
}

// walker reads a message as a tree of MIME entities in one pass. It holds one
// header and a piece of a line, whatever the message is.
type walker struct {
	br       *bufio.Reader
	v        visitor
	open     []level // multiparts that we are in
	entities int
	leaf     *entity // whose body is read; nil between parts
	eol      []byte  // the last line end in leaf's body: a boundary that follows owns it

	mid  bool   // the last piece ended inside a line
	back []byte // a piece to be read again
	head []byte
}

type level struct {
	boundary string // with its leading hyphens
	digest   bool   // parts are messages if they do not say otherwise
	frozen   bool   // its parts are
}

var (
	crlf = []byte("\r\n")
	lf   = crlf[1:]
)

// shapeError says that a message is beyond our bounds, and can't be read as a tree.
type shapeError string

func (e shapeError) Error() string { return string(e) }

// walk reads r to its end.
func walk(r io.Reader, v visitor) error {
	w := walker{br: bufio.NewReaderSize(r, 64<<10), v: v}
	if err := w.entity(true, false); err != nil {
		return err
	}
	for {
		p, start, err := w.next()
		if errors.Is(err, io.EOF) {
			return w.endLeaf(true)
		}
		if err != nil {
			return fmt.Errorf("read content: %w", err)
		}
		if err := w.take(p, start); err != nil {
			return err
		}
	}
}

// next reads a line with its end, or as much of it as the buffer takes; start
// says that a line starts here. The piece is valid until next is called again.
func (w *walker) next() (p []byte, start bool, err error) {
	if w.back != nil {
		p, w.back = w.back, nil
		return p, true, nil
	}
	start = !w.mid
	p, err = w.br.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		if p[len(p)-1] == '\r' { // may be half of a line end
			if err := w.br.UnreadByte(); err != nil {
				return nil, false, err
			}
			p = p[:len(p)-1]
		}
	case errors.Is(err, io.EOF) && len(p) > 0:
	case err != nil:
		return nil, false, err
	}
	w.mid = p[len(p)-1] != '\n'
	return p, start, nil
}

// take deals with one piece outside of headers.
func (w *walker) take(p []byte, start bool) error {
	if start {
		if i, closing := w.boundary(p); i >= 0 {
			return w.cross(p, i, closing)
		}
	}
	if w.leaf == nil {
		return w.v.between(p)
	}
	if err := w.flushEOL(); err != nil {
		return err
	}
	text := trimEOL(p)
	switch len(p) - len(text) {
	case 1:
		w.eol = lf
	case 2:
		w.eol = crlf
	}
	if len(text) == 0 {
		return nil
	}
	return w.v.body(w.leaf, text)
}

// boundary finds the multipart whose boundary line p is, the innermost first, or
// gives -1 (RFC 2046 section 5.1.1).
func (w *walker) boundary(p []byte) (i int, closing bool) {
	if len(w.open) == 0 || len(p) < 3 || p[0] != '-' || p[1] != '-' || len(p) > maxBoundary+100 {
		return -1, false
	}
	line := bytes.TrimRight(p, " \t\r\n")
	for i := len(w.open) - 1; i >= 0; i-- {
		rest, ok := bytes.CutPrefix(line, []byte(w.open[i].boundary))
		if ok && (len(rest) == 0 || string(rest) == "--") {
			return i, len(rest) > 0
		}
	}
	return -1, false
}

// cross passes the boundary line p of open[i]: into the next part, or out of the
// multipart.
func (w *walker) cross(p []byte, i int, closing bool) error {
	if err := w.endLeaf(false); err != nil {
		return err
	}
	if err := w.v.between(p); err != nil {
		return err
	}
	if closing {
		w.open = w.open[:i]
		return nil
	}
	w.open = w.open[:i+1]
	return w.entity(false, w.open[i].digest)
}

func (w *walker) endLeaf(atEOF bool) error {
	if w.leaf == nil {
		return nil
	}
	e := w.leaf
	if atEOF {
		if err := w.flushEOL(); err != nil {
			return err
		}
	}
	w.leaf = nil
	if err := w.v.end(e, atEOF); err != nil {
		return err
	}
	if w.eol != nil {
		p := w.eol
		w.eol = nil
		return w.v.between(p)
	}
	return nil
}

// flushEOL hands on the line end that turned out to be the body's own.
func (w *walker) flushEOL() error {
	if w.eol == nil {
		return nil
	}
	p := w.eol
	w.eol = nil
	return w.v.body(w.leaf, p)
}

// entity reads a header and gets ready for what follows it. Enclosed messages
// follow at once with headers of their own.
func (w *walker) entity(message, digest bool) error {
	frozen := len(w.open) > 0 && w.open[len(w.open)-1].frozen
	for {
		if w.entities == maxEntities {
			return shapeError(fmt.Sprintf("the message has more than %d parts", maxEntities))
		}
		closed, err := w.readHeader()
		if err != nil {
			return err
		}
		e := &entity{n: w.entities, message: message, closed: closed, frozen: frozen, header: w.head}
		w.entities++
		l := e.classify(digest, len(w.open) < maxDepth)
		if err := w.v.header(e); err != nil {
			return err
		}
		e.header = nil
		switch e.kind {
		case branch:
			// RFC 1847: what is signed must stay as it is.
			l.frozen = frozen || e.typ == "multipart/signed" || e.typ == "multipart/encrypted"
			w.open = append(w.open, l)
			return nil
		case leaf:
			w.leaf = e
			return nil
		}
		message, digest, frozen = true, false, true
	}
}

// readHeader reads fields into w.head, and the blank line after them if it is
// there. What is no field, and a boundary, ends a header as well.
func (w *walker) readHeader() (closed bool, err error) {
	w.head = w.head[:0]
	for {
		p, start, err := w.next()
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("read content: %w", err)
		}
		if start {
			if n := blankLine(p); n > 0 && n == len(p) {
				return true, nil
			}
			i, _ := w.boundary(p)
			fold := len(w.head) > 0 && (p[0] == ' ' || p[0] == '\t')
			if _, _, isField := nextField(p); i >= 0 || !isField && !fold {
				w.back = p
				return false, nil
			}
		}
		if len(w.head)+len(p) > MaxHeader {
			return false, shapeError(fmt.Sprintf("the header of the message or of a part is longer than %d bytes", MaxHeader))
		}
		w.head = append(w.head, p...)
	}
}

// classify reads the MIME fields in the entity's header.
func (e *entity) classify(digest, deeper bool) (l level) {
	e.typ = "text/plain"
	if digest {
		e.typ = "message/rfc822" // RFC 2046 section 5.1.5
	}
	var seenType, seenEncoding bool
	var boundary string
	for rest := e.header; ; {
		f, r, ok := nextField(rest)
		if !ok {
			break
		}
		rest = r
		var buf [32]byte
		switch string(lower(&buf, f.name)) {
		case "content-type":
			if !seenType {
				e.typ, boundary = mediaType(string(f.value))
			}
			seenType = true
		case "content-transfer-encoding":
			if !seenEncoding {
				e.encoding = firstToken(string(f.value))
			}
			seenEncoding = true
		}
	}
	if e.encoding == "7bit" {
		e.encoding = ""
	}
	switch {
	case strings.HasPrefix(e.typ, "multipart/") && boundary != "" && deeper:
		e.kind = branch
	case (e.typ == "message/rfc822" || e.typ == "message/global") && e.identity():
		e.kind = enclosing
	}
	return level{boundary: "--" + boundary, digest: e.typ == "multipart/digest"}
}

// identity tells whether the body is written as it is (RFC 2045 section 6.2).
func (e *entity) identity() bool {
	return e.encoding == "" || e.encoding == "8bit" || e.encoding == "binary"
}

// mediaType reads a Content-Type, of broken ones as much as a reader of mail
// would. A boundary that cannot be one is left out.
func mediaType(v string) (typ, boundary string) {
	typ, params, err := mime.ParseMediaType(v)
	boundary = params["boundary"]
	if err != nil {
		typ = firstToken(v)
		boundary = looseBoundary(v)
	}
	boundary = strings.TrimRight(boundary, " \t")
	if len(boundary) > maxBoundary || strings.ContainsAny(boundary, "\r\n") || hasHigh([]byte(boundary)) {
		boundary = ""
	}
	return typ, boundary
}

// looseBoundary finds the boundary parameter in a value that does not follow the
// grammar.
func looseBoundary(v string) string {
	for s := v; ; {
		i := strings.IndexByte(s, ';')
		if i < 0 {
			return ""
		}
		s = strings.TrimLeft(s[i+1:], " \t\r\n")
		name, value, ok := strings.Cut(s, "=")
		if !ok || !strings.EqualFold(strings.TrimSpace(name), "boundary") {
			continue
		}
		value = strings.TrimLeft(value, " \t\r\n")
		if q, ok := strings.CutPrefix(value, `"`); ok {
			value, _, _ = strings.Cut(q, `"`)
			return value
		}
		if i := strings.IndexAny(value, "; \t\r\n"); i >= 0 {
			value = value[:i]
		}
		return value
	}
}

// firstToken is what stands before a parameter or a comment, in lower case.
func firstToken(v string) string {
	if i := strings.IndexAny(v, ";("); i >= 0 {
		v = v[:i]
	}
	return strings.ToLower(strings.TrimSpace(v))
}
