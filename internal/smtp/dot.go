package smtp

import (
	"bufio"
	"bytes"
	"io"
)

// DotWriter writes the content of a message in the form that follows DATA
// (RFC 5321 section 4.5.2). Every line end that passes is CRLF: a bare CR or LF
// becomes one, so that no content can hold an end that the peer might take for
// the end of data.
type DotWriter struct {
	w     io.Writer
	n     int64
	stuff bool
	start bool // at the start of a line
	cr    bool // a CR is held back: what follows decides
}

var (
	crlf = []byte("\r\n")
	dot  = []byte(".")
	end  = []byte(".\r\n")
)

// NewDotWriter returns a writer to w, which the caller flushes after Close.
func NewDotWriter(w *bufio.Writer) *DotWriter {
	d := new(DotWriter)
	d.Reset(w)
	return d
}

// Reset makes d ready for the next content.
func (d *DotWriter) Reset(w *bufio.Writer) { *d = DotWriter{w: w, stuff: true, start: true} }

// ResetLines makes d ready for content that needs its line ends made CRLF but
// no dots: that of BDAT (RFC 3030 section 2). Close then writes no dot.
func (d *DotWriter) ResetLines(w io.Writer) { *d = DotWriter{w: w, start: true} }

// Len counts the bytes of content since the last Reset: line ends as CRLF,
// without the added dots.
func (d *DotWriter) Len() int64 { return d.n }

// Write writes p with its lines ended and stuffed. It keeps no byte back but a
// CR at the end of p.
func (d *DotWriter) Write(p []byte) (int, error) {
	size := len(p)
	if d.cr && len(p) > 0 {
		d.cr = false
		if p[0] == '\n' {
			p = p[1:]
		}
		if err := d.emit(crlf); err != nil {
			return 0, err
		}
		d.start = true
	}
	run := 0 // p[run:i] needs no change and is not yet written
	for i := 0; i < len(p); {
		if d.start && d.stuff && p[i] == '.' {
			if err := d.emit(p[run:i]); err != nil {
				return 0, err
			}
			if _, err := d.w.Write(dot); err != nil {
				return 0, err
			}
			run = i
		}
		d.start = false
		line := p[i:]
		if n := bytes.IndexByte(line, '\n'); n >= 0 {
			line = line[:n+1]
		}
		// The first CR, or else the LF, ends the line.
		stop := bytes.IndexByte(line, '\r')
		if stop < 0 && line[len(line)-1] == '\n' {
			stop = len(line) - 1
		}
		switch {
		case stop < 0: // the line goes on in the next Write
			i += len(line)
			continue
		case line[stop] == '\r' && stop+1 == len(line): // p ends here
			d.cr = true
			return size, d.emit(p[run : i+stop])
		case line[stop] == '\r' && line[stop+1] == '\n':
			i += stop + 2
		default: // a bare CR or LF
			if err := d.emit(p[run : i+stop]); err != nil {
				return 0, err
			}
			if err := d.emit(crlf); err != nil {
				return 0, err
			}
			i += stop + 1
			run = i
		}
		d.start = true
	}
	return size, d.emit(p[run:])
}

func (d *DotWriter) emit(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	d.n += int64(len(p))
	_, err := d.w.Write(p)
	return err
}

// Close ends the last line where it has no end, and writes the lone dot.
func (d *DotWriter) Close() error {
	if d.cr || !d.start {
		d.cr, d.start = false, true
		if err := d.emit(crlf); err != nil {
			return err
		}
	}
	if !d.stuff {
		return nil
	}
	_, err := d.w.Write(end)
	return err
}
