// Package message reads and writes the content of mail: it keeps the bytes while
// they come in, scans their header, composes trace fields, and converts 8-bit
// bodies for receivers that take 7 bits only.
package message

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
)

// Content is the bytes of a message, with CRLF line ends. It can be opened many
// times and at the same time; each reader is closed by who opened it.
type Content interface {
	Size() int64 // in bytes
	Open() (io.ReadCloser, error)
}

// Bytes makes a Content of b, which must not change any more. The Content also
// has the method Bytes() []byte.
func Bytes(b []byte) Content { return &memory{b} }

// memory is used by pointer, so that contents can be compared.
type memory struct{ b []byte }

func (m *memory) Size() int64                  { return int64(len(m.b)) }
func (m *memory) Bytes() []byte                { return m.b }
func (m *memory) Open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(m.b)), nil }

// bytesOf gives the bytes of a Content that has them in memory.
func bytesOf(c Content) ([]byte, bool) {
	if m, ok := c.(interface{ Bytes() []byte }); ok {
		return m.Bytes(), true
	}
	return nil, false
}

// Prefix is head followed by c. When c is in memory the result is one slice
// again, with the method Bytes() []byte; otherwise c must stay valid as long as
// the result.
func Prefix(head []byte, c Content) Content { return splice(head, c, 0) }

// splice is head followed by c without its first skip bytes.
func splice(head []byte, c Content, skip int64) Content {
	skip = min(skip, c.Size())
	if len(head) == 0 && skip == 0 {
		return c
	}
	if m, ok := bytesOf(c); ok {
		b := make([]byte, 0, len(head)+len(m)-int(skip))
		return Bytes(append(append(b, head...), m[skip:]...))
	}
	return &spliced{head: head, rest: c, skip: skip}
}

type spliced struct {
	head []byte
	rest Content
	skip int64 // bytes at the start of rest that are left out
}

func (p *spliced) Size() int64 { return int64(len(p.head)) + p.rest.Size() - p.skip }

func (p *spliced) Open() (io.ReadCloser, error) {
	rc, err := p.rest.Open()
	if err != nil {
		return nil, err
	}
	if p.skip > 0 {
		if _, err := io.CopyN(io.Discard, rc, p.skip); err != nil {
			rc.Close()
			return nil, fmt.Errorf("skip the start of content: %w", err)
		}
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(p.head), rc), rc}, nil
}

const (
	firstRoom = 16 << 10 // what a Buffer starts with: enough for most mail
	fileRoom  = 64 << 10 // written to the file at once
)

// Buffer takes the bytes of one message while they come in: in memory up to a
// limit, then in one temporary file, which has no name any more while it is used
// and so goes away with the process. A Buffer is written by one goroutine; its
// Content may be read by many.
type Buffer struct {
	dir    string
	limit  int64
	memory *Memory // nil: as much as limit allows
	taken  int64   // of memory
	size   int64
	mem    []byte // all content, or, once there is a file, what is not in it yet
	file   *os.File
	err    error // of the first Write that failed, or errClosed
}

// Memory bounds what many Buffers have in memory together. It may be used by
// many goroutines.
type Memory struct {
	most int64
	used atomic.Int64
}

// NewMemory makes a Memory of so many bytes. The first 64 KiB of each Buffer are
// not counted: usual messages never wait for a disk.
func NewMemory(most int64) *Memory { return &Memory{most: most} }

func (m *Memory) take(n int64) bool {
	if m.used.Add(n) <= m.most {
		return true
	}
	m.used.Add(-n)
	return false
}

var errClosed = errors.New("buffer is closed")

// NewBuffer makes an empty Buffer that keeps up to limit bytes in memory and
// more than that in a file in dir (empty: the system's temporary folder). It
// takes no memory and makes no file before it is needed.
func NewBuffer(dir string, limit int64) *Buffer { return &Buffer{dir: dir, limit: limit} }

// Share makes an empty Buffer keep within what m has left: beyond it, and not
// only beyond its own limit, content goes to the file.
func (b *Buffer) Share(m *Memory) { b.memory = m }

// Size is the number of bytes written so far.
func (b *Buffer) Size() int64 { return b.size }

// Grow makes room in memory for n bytes in all, as a client announced with SIZE,
// so that they are not copied while they come. It is a hint: never more than the
// limit, nor than 64 KiB of what has not been seen yet.
func (b *Buffer) Grow(n int64) {
	n = min(n, b.limit, fileRoom)
	if b.file == nil && b.err == nil && n > int64(cap(b.mem)) {
		b.room(int(n))
	}
}

// room gives mem the capacity n.
func (b *Buffer) room(n int) {
	mem := make([]byte, len(b.mem), n)
	copy(mem, b.mem)
	b.mem = mem
}

// Write appends p. After an error (disk full, closed) every further Write fails
// in the same way.
func (b *Buffer) Write(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.file == nil && (b.size+int64(len(p)) > b.limit || !b.grow(len(b.mem)+len(p))) {
		if b.err = b.spill(); b.err != nil {
			return 0, b.err
		}
	}
	if b.file == nil {
		b.mem = append(b.mem, p...)
		b.size += int64(len(p))
		return len(p), nil
	}
	n := 0
	for len(p) > 0 {
		if len(b.mem) == 0 && len(p) >= fileRoom {
			m, err := b.file.Write(p)
			n, b.size, b.err = n+m, b.size+int64(m), wrapWrite(err)
			return n, b.err
		}
		m := min(fileRoom-len(b.mem), len(p))
		b.mem = append(b.mem, p[:m]...)
		n, b.size, p = n+m, b.size+int64(m), p[m:]
		if len(b.mem) == fileRoom {
			if err := b.flush(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// grow makes room for need bytes in memory: twice the room, but never past the
// limit. It is false where there is no memory left.
func (b *Buffer) grow(need int) bool {
	if need <= cap(b.mem) {
		return true
	}
	n := max(need, int(min(int64(max(2*cap(b.mem), firstRoom)), b.limit)))
	if more := int64(n) - fileRoom - b.taken; b.memory != nil && more > 0 {
		if !b.memory.take(more) {
			return false
		}
		b.taken += more
	}
	b.room(n)
	return true
}

// free gives back what was taken of the shared memory.
func (b *Buffer) free() {
	if b.taken > 0 {
		b.memory.used.Add(-b.taken)
		b.taken = 0
	}
}

// spill moves what is in memory to a new file.
func (b *Buffer) spill() error {
	f, err := os.CreateTemp(b.dir, "message-*")
	if err != nil {
		return fmt.Errorf("make temporary file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return fmt.Errorf("unlink temporary file: %w", err)
	}
	b.file = f
	if err := b.flush(); err != nil {
		return err
	}
	b.mem = make([]byte, 0, fileRoom)
	b.free()
	return nil
}

// flush writes what waits for the file.
func (b *Buffer) flush() error {
	if b.file == nil || len(b.mem) == 0 || b.err != nil {
		return b.err
	}
	_, err := b.file.Write(b.mem)
	b.mem = b.mem[:0]
	b.err = wrapWrite(err)
	return b.err
}

func wrapWrite(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("write temporary file: %w", err)
}

// Content is what was written so far. Content that is in memory has the method
// Bytes() []byte and outlives the Buffer; content in a file is valid until
// Close. A write that failed makes Open fail.
func (b *Buffer) Content() Content {
	if b.file == nil && b.err == nil {
		return Bytes(b.mem[:len(b.mem):len(b.mem)])
	}
	return &filed{file: b.file, size: b.size, err: b.flush()}
}

// Close frees memory and file. Closing twice is harmless.
func (b *Buffer) Close() error {
	f := b.file
	b.mem, b.file, b.err = nil, nil, errClosed
	b.free()
	if f == nil {
		return nil
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("close temporary file: %w", err)
	}
	return nil
}

type filed struct {
	file *os.File
	size int64
	err  error
}

func (f *filed) Size() int64 { return f.size }

// Open gives a reader of its own position: ReadAt moves nothing in the file.
func (f *filed) Open() (io.ReadCloser, error) {
	if f.err != nil {
		return nil, f.err
	}
	return io.NopCloser(io.NewSectionReader(f.file, 0, f.size)), nil
}
