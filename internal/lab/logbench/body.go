package logbench

import (
	"bytes"
	"io"
)

// body is content in memory.
type body []byte

func (b body) Size() int64                  { return int64(len(b)) }
func (b body) Bytes() []byte                { return b }
func (b body) Open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
