package suppression

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"strings"
	"unicode"
)

// NewRows reads a list with commas, semicolons or tabs between its cells, whichever
// its first line has most of.
func NewRows(r io.Reader, first string) *csv.Reader {
	comma := byte(',')
	for _, other := range []byte{';', '\t'} {
		if strings.Count(first, string(other)) > strings.Count(first, string(comma)) {
			comma = other
		}
	}
	rows := csv.NewReader(&closing{in: bufio.NewReader(r), comma: comma})
	rows.Comma, rows.FieldsPerRecord, rows.LazyQuotes = rune(comma), -1, true
	rows.TrimLeadingSpace = comma != '\t' // else an empty cell would be taken for space
	return rows
}

// maxCell is how long a row of several lines may be, in bytes.
const maxCell = 16 << 10

// closing gives a list row by row, as encoding/csv wants it. A cell in quotes may go
// on over several lines. One whose quote is never closed would take in all that
// follows, and nobody would hear of it: its first line loses its quotes, and stands
// for itself.
type closing struct {
	in    *bufio.Reader
	comma byte
	lines [][]byte // that were read, and are not given yet
	row   []byte   // what is left of a row that is being given
}

func (c *closing) Read(p []byte) (int, error) {
	if len(c.row) == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.row)
	c.row = c.row[n:]
	return n, nil
}

// next finds where the next row ends.
func (c *closing) next() error {
	size, quoted := 0, false
	for n := 1; ; n++ {
		err := c.ahead(n)
		if err != nil && n == 1 {
			return err
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if err != nil || size > maxCell { // it is never closed
			c.row, c.lines = bytes.ReplaceAll(c.lines[0], []byte(`"`), nil), c.lines[1:]
			return nil
		}
		size += len(c.lines[n-1])
		if quoted = opens(c.lines[n-1], c.comma, quoted); !quoted {
			c.row, c.lines = bytes.Join(c.lines[:n], nil), c.lines[n:]
			return nil
		}
	}
}

// ahead makes sure that so many lines are there.
func (c *closing) ahead(n int) error {
	for len(c.lines) < n {
		line, err := c.in.ReadBytes('\n')
		if len(line) == 0 {
			return err
		}
		c.lines = append(c.lines, line)
	}
	return nil
}

// opens tells whether a cell goes on behind the end of a line, as encoding/csv reads
// it with lazy quotes; quoted: one does at its beginning.
func opens(line []byte, comma byte, quoted bool) bool {
	line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
	for {
		if !quoted {
			if comma != '\t' {
				line = bytes.TrimLeftFunc(line, unicode.IsSpace)
			}
			if len(line) == 0 || line[0] != '"' {
				end := bytes.IndexByte(line, comma)
				if end < 0 {
					return false
				}
				line = line[end+1:]
				continue
			}
			line = line[1:]
		}
		end := bytes.IndexByte(line, '"')
		if end < 0 {
			return true
		}
		line = line[end+1:]
		switch {
		case len(line) == 0:
			return false
		case line[0] == comma:
			line, quoted = line[1:], false
		case line[0] == '"':
			line, quoted = line[1:], true
		default: // it stands for itself
			quoted = true
		}
	}
}
