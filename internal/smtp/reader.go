package smtp

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

// A Reader has a small buffer of its own, which most commands fit in, and for
// content, long lines and pipelined groups takes a large one from a Pool while
// it needs it. So a client that says nothing costs little.
const (
	smallBuffer = 512
	// readBuffer is the size of a large one: the longest line of AUTH (RFC 4954
	// section 4) fits in, and a usual message comes in few reads.
	readBuffer = 16 << 10
)

// maxSkip is how much of an over-long line is skipped.
const maxSkip = 64 << 10

// Errors of Reader. After those marked "in step" reading can go on.
var (
	ErrLineTooLong = errors.New("line too long")              // in step: the line was skipped
	ErrEndless     = errors.New("input without end")          // the line or content went far beyond its limit
	ErrTooLarge    = errors.New("message too large")          // in step: read to the end
	ErrBareLF      = errors.New("line end is not CRLF alone") // in step: read to the end
)

// errFull is a buffer that is full before what is looked for has come.
var errFull = errors.New("buffer full")

// Pool lends large buffers to Readers. The zero Pool is ready; it may be used
// from many goroutines.
type Pool struct{ free sync.Pool }

func (p *Pool) get() *[readBuffer]byte {
	if b, ok := p.free.Get().(*[readBuffer]byte); ok {
		return b
	}
	return new([readBuffer]byte)
}

// Reader reads what an SMTP client sends: lines, and content. It is not for
// concurrent use.
type Reader struct {
	from io.Reader
	pool *Pool
	bare bool

	buf   []byte // small, or large
	large *[readBuffer]byte
	r, w  int  // buf[r:w] was read from the client and not by the caller
	more  bool // the last read filled buf: there is more
	err   error
	small [smallBuffer]byte
}

// NewReader returns a Reader that takes large buffers from pool.
func NewReader(from io.Reader, pool *Pool) *Reader {
	r := &Reader{from: from, pool: pool}
	r.buf = r.small[:]
	return r
}

// Reset drops what is buffered and reads from another connection. After STARTTLS
// this is what keeps commands that were sent in the clear from being obeyed as if
// they came over TLS (RFC 3207 section 6).
func (r *Reader) Reset(from io.Reader) {
	r.Close()
	r.from, r.bare, r.err = from, false, nil
}

// Close drops what is buffered and gives the large buffer back. It closes no
// connection.
func (r *Reader) Close() {
	r.r, r.w, r.more = 0, 0, false
	r.shrink()
}

func (r *Reader) shrink() {
	if r.large != nil {
		r.pool.free.Put(r.large)
		r.large, r.buf = nil, r.small[:]
	}
}

func (r *Reader) enlarge() {
	if r.large == nil {
		r.large = r.pool.get()
		r.w = copy(r.large[:], r.buf[r.r:r.w])
		r.r, r.buf = 0, r.large[:]
	}
}

// Buffered is the number of bytes that can be read without waiting. Replies to
// a pipelined group are flushed when it is 0 (RFC 2920 section 3.2).
func (r *Reader) Buffered() int { return r.w - r.r }

// fill waits for more input. Where there is none yet it waits with the small
// buffer, unless content is to come.
func (r *Reader) fill(content bool) error {
	if r.err != nil {
		err := r.err
		r.err = nil
		return err
	}
	switch {
	case content || r.more:
		r.enlarge()
	case r.r == r.w:
		r.r, r.w = 0, 0
		r.shrink()
	}
	if r.r > 0 {
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
	}
	for range 100 { // a Read may give nothing, but not for ever
		n, err := r.from.Read(r.buf[r.w:])
		r.w += n
		r.more = r.w == len(r.buf)
		if n > 0 {
			r.err = err
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// slice reads up to and with the next LF. Where the buffer is full before, it
// gives the whole of it and errFull; at the end of input, what is left, and why.
// What it gives is valid until the next read.
func (r *Reader) slice(content bool) (b []byte, err error) {
	for seen := 0; err == nil; {
		if i := bytes.IndexByte(r.buf[r.r+seen:r.w], '\n'); i >= 0 {
			b = r.buf[r.r : r.r+seen+i+1]
			r.r += len(b)
			return b, nil
		}
		if seen = r.w - r.r; seen == readBuffer {
			err = errFull
		} else {
			err = r.fill(content)
		}
	}
	b = r.buf[r.r:r.w]
	r.r = r.w
	return b, err
}

// Peek waits for a byte and gives all that has come, without reading it.
func (r *Reader) Peek() ([]byte, error) { return r.peek(false) }

func (r *Reader) peek(content bool) ([]byte, error) {
	if r.r == r.w {
		if err := r.fill(content); err != nil {
			return nil, err
		}
	}
	return r.buf[r.r:r.w], nil
}

// BareLF tells whether the last line read by ReadLine ended in LF alone.
func (r *Reader) BareLF() bool { return r.bare }

// ReadLine reads a line of at most limit bytes with its end, which is CRLF or,
// as people type it, LF. It gives the line without its end, valid until the next
// read. limit is at most 16 KiB. A longer line is skipped and ErrLineTooLong; a
// much longer one is ErrEndless.
func (r *Reader) ReadLine(limit int) ([]byte, error) {
	line, err := r.slice(false)
	if err == errFull || err == nil && len(line) > limit {
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
	for n := 0; err == errFull; n += readBuffer {
		if n >= maxSkip {
			return ErrEndless
		}
		_, err = r.slice(false)
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
		part, err := r.slice(true)
		if err != nil && err != errFull {
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
		block, err := r.peek(true)
		if err != nil {
			return unexpected(err, 1)
		}
		block = block[:min(n, int64(len(block)))]
		n -= int64(len(block))
		r.r += len(block)
		for rest := block; len(rest) > 0; {
			end := bytes.IndexByte(rest, '\n') + 1
			if end == 0 {
				end = len(rest)
			}
			c.part(rest[:end])
			rest = rest[end:]
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
