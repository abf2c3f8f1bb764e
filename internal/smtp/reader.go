package smtp

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// readBuffer is the size of a Reader's buffer: the longest line of AUTH (RFC
// 4954 section 4) fits in, and a usual message comes in few reads.
const readBuffer = 16 << 10

// maxSkip is how much of an over-long line is skipped.
const maxSkip = 64 << 10

// Errors of Reader. After those marked "in step" reading can go on.
var (
	ErrLineTooLong = errors.New("line too long")              // in step: the line was skipped
	ErrEndless     = errors.New("input without end")          // the line or content went far beyond its limit
	ErrTooLarge    = errors.New("message too large")          // in step: read to the end
	ErrBareLF      = errors.New("line end is not CRLF alone") // in step: read to the end
)

// Reader reads what an SMTP client sends: lines, and content. It is not for
// concurrent use.
type Reader struct {
	br   *bufio.Reader
	bare bool
}

// NewReader returns a Reader with a buffer of its own.
func NewReader(r io.Reader) *Reader { return &Reader{br: bufio.NewReaderSize(r, readBuffer)} }

// Reset drops what is buffered and reads from r. After STARTTLS this is what
// keeps commands that were sent in the clear from being obeyed as if they came
// over TLS (RFC 3207 section 6).
func (r *Reader) Reset(from io.Reader) {
	r.br.Reset(from)
	r.bare = false
}

// Buffered is the number of bytes that can be read without waiting. Replies to
// a pipelined group are flushed when it is 0 (RFC 2920 section 3.2).
func (r *Reader) Buffered() int { return r.br.Buffered() }

// Peek waits for n bytes and gives them without reading them.
func (r *Reader) Peek(n int) ([]byte, error) { return r.br.Peek(n) }

// BareLF tells whether the last line read by ReadLine ended in LF alone.
func (r *Reader) BareLF() bool { return r.bare }

// ReadLine reads a line of at most limit bytes with its end, which is CRLF or,
// as people type it, LF. It gives the line without its end, valid until the next
// read. limit is at most 16 KiB. A longer line is skipped and ErrLineTooLong; a
// much longer one is ErrEndless.
func (r *Reader) ReadLine(limit int) ([]byte, error) {
	line, err := r.br.ReadSlice('\n')
	if err == bufio.ErrBufferFull || err == nil && len(line) > limit {
		return nil, r.skipLine(err)
	}
	if err != nil {
		return nil, unexpected(err, len(line))
	}
	line = line[:len(line)-1]
	r.bare = len(line) == 0 || line[len(line)-1] != '\r'
	if !r.bare {
		line = line[:len(line)-1]
	}
	return line, nil
}

func (r *Reader) skipLine(err error) error {
	for n := 0; err == bufio.ErrBufferFull; n += readBuffer {
		if n >= maxSkip {
			return ErrEndless
		}
		_, err = r.br.ReadSlice('\n')
	}
	if err != nil {
		return unexpected(err, 1)
	}
	return ErrLineTooLong
}

// ContentOptions say how content is taken.
type ContentOptions struct {
	Max    int64 // most bytes that are written; 0: no limit. Beyond it reading goes on to the end, without writing
	Hard   int64 // most bytes that are read at all; beyond it reading ends with ErrEndless. 0: no limit
	Repair bool  // bare LF becomes CRLF and bare CR is removed; else both are ErrBareLF
}

// Content checks the line ends and the size of a message on its way from a
// Reader to where it is kept. One Content takes one message: by DATA, or by any
// number of BDAT.
type Content struct {
	w       io.Writer
	o       ContentOptions
	read    int64
	written int64
	cr      bool // a CR was read; what follows decides about it
	bare    bool
	large   bool
	err     error // of w
}

// NewContent returns a Content that writes to w.
func NewContent(w io.Writer, o ContentOptions) *Content { return &Content{w: w, o: o} }

// Written is the number of bytes written so far.
func (c *Content) Written() int64 { return c.written }

// Err tells what is wrong with the content so far: ErrTooLarge, ErrBareLF, or
// the error of the writer. After any of them nothing more is written.
func (c *Content) Err() error {
	switch {
	case c.large:
		return ErrTooLarge
	case c.bare && !c.o.Repair:
		return ErrBareLF
	default:
		return c.err
	}
}

// Dot reads content that was sent with DATA, up to CRLF.CRLF alone: no other
// mixture of CR, LF and a dot ends it, whatever the options (RFC 5321 sections
// 2.3.8 and 4.1.1.4). Dots that the client added are removed (section 4.5.2).
// Errors are those of Err, all in step, or ErrEndless, or the connection's.
func (r *Reader) Dot(c *Content) error {
	start, bareStart := true, false // of a line, after CRLF or after a bare LF
	for {
		part, err := r.br.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull {
			return unexpected(err, 1)
		}
		c.read += int64(len(part))
		if c.o.Hard > 0 && c.read > c.o.Hard {
			return ErrEndless
		}
		switch {
		case start && part[0] == '.':
			if string(part) == ".\r\n" {
				return c.Err()
			}
			part = part[1:]
		case bareStart && len(part) > 1 && part[0] == '.' && part[1] == '.':
			// Who ends lines with LF doubles dots after LF. A single dot there was
			// not added: it stays.
			part = part[1:]
		}
		start, bareStart = c.part(part)
	}
}

// Chunk reads the n bytes of one BDAT (RFC 3030 section 2); last says that the
// content ends with them. Errors are as those of Dot.
func (r *Reader) Chunk(c *Content, n int64, last bool) error {
	if c.o.Hard > 0 && c.read+n > c.o.Hard {
		return ErrEndless
	}
	c.read += n
	for n > 0 {
		if _, err := r.br.Peek(1); err != nil {
			return unexpected(err, 1)
		}
		block, err := r.br.Peek(int(min(n, int64(r.br.Buffered()))))
		if err != nil {
			return err
		}
		n -= int64(len(block))
		for rest := block; len(rest) > 0; {
			end := bytes.IndexByte(rest, '\n') + 1
			if end == 0 {
				end = len(rest)
			}
			c.part(rest[:end])
			rest = rest[end:]
		}
		if _, err := r.br.Discard(len(block)); err != nil {
			return err
		}
	}
	if last && c.cr {
		c.bare, c.cr = true, false
	}
	return c.Err()
}

// part takes a line, or a part of one when it does not end in LF. It tells
// whether a line begins after it: properly, or after a bare LF.
func (c *Content) part(b []byte) (start, bareStart bool) {
	if c.cr && b[0] != '\n' {
		c.bare = true // and, in repair, gone
		c.cr = false
	}
	body := b
	switch n := len(b); {
	case b[n-1] == '\r':
		body = b[:n-1]
		c.cr = true
	case b[n-1] != '\n':
	case n == 1:
		start, bareStart = c.cr, !c.cr
	default:
		start, bareStart = b[n-2] == '\r', b[n-2] != '\r'
	}
	if start {
		body = b[:max(0, len(b)-2)]
	} else if bareStart {
		body = b[:len(b)-1]
		c.bare = true
	}
	whole := start && len(b) > 1 // b ends in CRLF by itself
	if bytes.IndexByte(body, '\r') >= 0 {
		c.bare = true
		if c.o.Repair {
			body, whole = bytes.ReplaceAll(body, []byte{'\r'}, nil), false
		}
	}
	switch {
	case whole:
		c.write(b)
	case start || bareStart:
		c.cr = false
		c.write(body)
		c.write(crlf[:])
	default:
		c.write(body)
	}
	return start, bareStart
}

func (c *Content) write(b []byte) {
	if len(b) == 0 || c.large || c.err != nil || c.bare && !c.o.Repair {
		return
	}
	if c.o.Max > 0 && c.written+int64(len(b)) > c.o.Max {
		c.large = true
		return
	}
	c.written += int64(len(b))
	_, c.err = c.w.Write(b)
}

// unexpected makes the end of input in the middle of something an error.
func unexpected(err error, have int) error {
	if err == io.EOF && have > 0 {
		return io.ErrUnexpectedEOF
	}
	return err
}
