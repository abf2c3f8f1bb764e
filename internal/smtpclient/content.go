package smtpclient

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"postrider/internal/smtp"
)

const (
	// bigContent is from which size, in bytes, the peer's reply is read while we
	// still send. Smaller content fits into the buffers of the sockets.
	bigContent = 32 << 10
	// chunkSize is how much goes with one BDAT, in bytes.
	chunkSize = 256 << 10
	copySize  = 16 << 10
)

// sendData sends the content after a 354 and reads the final reply.
func (t *transaction) sendData() *Error {
	t.dot.Reset(t.bw)
	if t.opt.Watch != nil {
		t.sent(fmt.Sprintf("(content, about %d bytes)", t.m.Size))
	}
	r, sent, err := t.transmit(t.m.Size <= 0 || t.m.Size > bigContent, func() error {
		if err := t.copyContent(&t.dot); err != nil {
			return err
		}
		if err := t.dot.Close(); err != nil {
			return err
		}
		return t.bw.Flush()
	})
	return t.ended(fmt.Sprintf("(content, %d bytes)", t.dot.Len()), r, sent, err)
}

// sendChunks sends the content by BDAT (RFC 3030), chunk after chunk.
func (t *transaction) sendChunks() *Error {
	t.chunk = t.chunk[:0]
	w := &chunkWriter{t: t}
	t.dot.ResetLines(w)
	err := t.copyContent(&t.dot)
	if err == nil {
		err = t.dot.Close()
	}
	if w.err != nil {
		return w.err
	}
	if err != nil {
		return t.ended("", smtp.Reply{}, false, err)
	}
	return t.sendChunk(true)
}

// chunkWriter gathers content and sends each full chunk.
type chunkWriter struct {
	t   *transaction
	err *Error
}

func (w *chunkWriter) Write(p []byte) (int, error) {
	size := len(p)
	for len(p) > 0 {
		if len(w.t.chunk) == chunkSize {
			if w.err = w.t.sendChunk(false); w.err != nil {
				return 0, w.err
			}
			w.t.chunk = w.t.chunk[:0]
		}
		n := min(len(p), chunkSize-len(w.t.chunk))
		w.t.chunk = append(w.t.chunk, p[:n]...)
		p = p[n:]
	}
	return size, nil
}

func (t *transaction) sendChunk(last bool) *Error {
	line := appendBdat(t.lines[:0], len(t.chunk), last)
	command := string(line[:len(line)-2])
	t.sent(command)
	r, sent, err := t.transmit(len(t.chunk) > bigContent, func() error {
		t.bw.Write(line)
		t.bw.Write(t.chunk)
		return t.bw.Flush()
	})
	if last || !sent {
		return t.ended(command, r, sent, err)
	}
	// What follows is about a chunk in the middle: the message is not out yet.
	if err != nil {
		return t.broke(StageData, err)
	}
	t.note(command, r)
	if r.Code/100 != 2 {
		return t.turnedDown(StageData, r)
	}
	return nil
}

// copyContent writes the content to w. Trouble in reading it is a contentError.
func (t *transaction) copyContent(w io.Writer) error {
	rc, err := t.m.Open()
	if err != nil {
		return &contentError{err}
	}
	defer rc.Close()
	if _, ok := rc.(io.WriterTo); !ok && t.buf == nil {
		t.buf = make([]byte, copySize)
	}
	t.out = target{w: w}
	if _, err = io.CopyBuffer(&t.out, rc, t.buf); err != nil && t.out.err == nil {
		return &contentError{err}
	}
	return err
}

// target tells errors of writing from those of reading.
type target struct {
	w   io.Writer
	err error
}

func (t *target) Write(p []byte) (n int, err error) {
	n, err = t.w.Write(p)
	if err != nil {
		t.err = err
	}
	return n, err
}

// transmit runs write, which sends content and ends with a flush, and reads the
// reply to it. For big content the reply is read at the same time, so that a peer
// that answers early and reads no more is heard at once and ends the sending.
//
// sent tells that write went through to its end. If it did not, the reply, if
// there is one, is what the peer had to say about that.
func (t *transaction) transmit(big bool, write func() error) (r smtp.Reply, sent bool, err error) {
	if !big {
		if err := write(); err != nil {
			if ce := (*contentError)(nil); !errors.As(err, &ce) {
				r = t.lastReply()
			}
			return r, false, stalled(err)
		}
		r, err = t.readReply(t.opt.Timeouts.Dot, maxReply)
		return r, true, err
	}
	return t.transmitBig(write)
}

func (t *transaction) transmitBig(write func() error) (smtp.Reply, bool, error) {
	type answer struct {
		r   smtp.Reply
		err error
	}
	ch := make(chan answer, 1)
	c := t.Conn
	c.raw.SetReadDeadline(time.Time{}) // it has until the content is out, and then some
	if c.stopped.Load() {
		c.raw.SetReadDeadline(past)
	}
	go func() {
		r, err := smtp.ReadReply(c.br, maxReply)
		c.answered.Store(true)
		c.raw.SetWriteDeadline(past)
		ch <- answer{r, err}
	}()
	werr := write()
	cut := werr != nil && c.answered.Load()
	switch ce := (*contentError)(nil); {
	case werr == nil:
		c.armRead(c.opt.Timeouts.Dot)
	case errors.As(werr, &ce):
		c.raw.SetReadDeadline(past)
	default:
		c.armRead(lastWords)
	}
	a := <-ch
	c.answered.Store(false)
	switch {
	case werr == nil:
		return a.r, true, a.err
	case cut && a.err != nil && isTimeout(werr):
		return smtp.Reply{}, false, a.err // it closed: that is why the write ended
	}
	return a.r, false, stalled(werr)
}

// stalled gives a timeout in writing content its words.
func stalled(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errStalled
	}
	return err
}
