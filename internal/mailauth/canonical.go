package mailauth

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash"
	"io"
)

// Bounds on a header that is signed or verified.
const (
	maxHeader = 1 << 20 // bytes
	maxLines  = 2000    // of one field
)

// field is one header field with its folds and its last line end.
type field struct {
	name string // lower case, without white space
	raw  []byte
}

var errHeader = fmt.Errorf("the header has more than %d bytes, or a field of it more than %d lines", maxHeader, maxLines)

// readHeader reads up to the blank line and gives the fields that keep wants, all
// with nil. Lines that are no fields are passed over, as verifiers do.
func readHeader(r *bufio.Reader, keep func(name string) bool) ([]field, error) {
	var fields []field
	size, lines := 0, 0
	open := false // the last field is of those that are kept
	fresh := true // a line begins
	for {
		piece, err := r.ReadSlice('\n')
		if size += len(piece); size > maxHeader {
			return nil, errHeader
		}
		switch {
		case fresh && len(bytes.TrimRight(piece, "\r\n")) == 0:
			return fields, ended(err)
		case fresh && piece[0] != ' ' && piece[0] != '\t':
			name, ok := fieldName(piece)
			if open, lines = ok && (keep == nil || keep(name)), 0; open {
				fields = append(fields, field{name, bytes.Clone(piece)})
			}
		case open:
			last := &fields[len(fields)-1]
			last.raw = append(last.raw, piece...)
		}
		if lines++; lines > maxLines {
			return nil, errHeader
		}
		if fresh = err == nil; !fresh && !errors.Is(err, bufio.ErrBufferFull) {
			return fields, ended(err)
		}
	}
}

// ended is the error at the end of a header: a message may end there.
func ended(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return nil
	}
	return fmt.Errorf("read message: %w", err)
}

// fieldName is the name at the start of a line, in lower case.
func fieldName(line []byte) (string, bool) {
	name, _, ok := bytes.Cut(line, []byte{':'})
	name = bytes.TrimRight(name, " \t")
	if !ok || len(name) == 0 || len(name) > 100 {
		return "", false
	}
	for _, c := range name {
		if c <= ' ' || c >= 0x7f {
			return "", false
		}
	}
	return string(bytes.ToLower(name)), true
}

// appendRelaxed appends a field as RFC 6376 section 3.4.2 has it, without the
// line end.
func appendRelaxed(b []byte, f field) []byte {
	b = append(append(b, f.name...), ':')
	_, value, _ := bytes.Cut(f.raw, []byte{':'})
	start, space := len(b), false
	for _, c := range value {
		switch c {
		case ' ', '\t', '\r', '\n':
			space = true
		default:
			if space && len(b) > start {
				b = append(b, ' ')
			}
			space = false
			b = append(b, c)
		}
	}
	return b
}

// relaxedBody writes a body into a hash as RFC 6376 section 3.4.4 has it, in
// memory that does not grow with it.
type relaxedBody struct {
	hash  hash.Hash
	out   [2*hashRoom + 8]byte // of it n bytes are not yet hashed
	n     int
	lines int  // line ends that wait for something behind them
	space bool // white space does
	cr    bool // a CR waits for its LF
	some  bool // something came that counts
}

// hashRoom is how much is hashed at once, about.
const hashRoom = 4 << 10

func (w *relaxedBody) Write(p []byte) (int, error) {
	for i := 0; i < len(p); {
		switch c := p[i]; c {
		case '\n':
			w.cr, w.space = false, false
			w.lines++
			i++
		case '\r', ' ', '\t':
			if w.cr {
				w.bareCR()
			}
			w.cr, w.space = c == '\r', w.space || c != '\r'
			i++
		default:
			if w.cr {
				w.bareCR()
			}
			w.before()
			n := i + 1
			for n < len(p) && n-i < hashRoom && p[n] > ' ' {
				n++
			}
			w.n += copy(w.out[w.n:], p[i:n])
			i = n
		}
	}
	return len(p), nil
}

// bareCR writes a CR that no LF followed: it is a character like others.
func (w *relaxedBody) bareCR() {
	w.cr = false
	w.before()
	w.n += copy(w.out[w.n:], "\r")
}

// before makes room and writes what waits for a character.
func (w *relaxedBody) before() {
	w.some = true
	for ; w.lines > 0; w.lines-- {
		w.flush()
		w.n += copy(w.out[w.n:], crlf)
	}
	if w.space {
		w.space = false
		w.n += copy(w.out[w.n:], " ")
	}
	w.flush()
}

func (w *relaxedBody) flush() {
	if w.n >= hashRoom {
		w.hash.Write(w.out[:w.n])
		w.n = 0
	}
}

// sum ends the body.
func (w *relaxedBody) sum() []byte {
	if w.cr {
		w.bareCR()
	}
	if w.some {
		w.n += copy(w.out[w.n:], crlf)
	}
	w.hash.Write(w.out[:w.n])
	return w.hash.Sum(nil)
}

var crlf = []byte("\r\n")
