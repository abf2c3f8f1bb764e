package smtpclient

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
)

// sinkPeer is the least that a server can be: it takes everything and answers a
// flight at once.
func sinkPeer(conn net.Conn, ext ...string) {
	br, bw := bufio.NewReaderSize(conn, 16<<10), bufio.NewWriter(conn)
	bw.WriteString("220 mx.test\r\n")
	for {
		if br.Buffered() == 0 && bw.Flush() != nil {
			return
		}
		line, err := br.ReadSlice('\n')
		if err != nil {
			return
		}
		switch {
		case bytes.HasPrefix(line, []byte("EHLO")):
			for _, e := range ext {
				bw.WriteString("250-" + e + "\r\n")
			}
		case bytes.HasPrefix(line, []byte("DATA")):
			bw.WriteString("354 go\r\n")
			bw.Flush()
			for !bytes.Equal(line, []byte(".\r\n")) {
				if line, err = br.ReadSlice('\n'); err != nil {
					return
				}
			}
		case bytes.HasPrefix(line, []byte("BDAT ")):
			n, _ := strconv.Atoi(strings.Fields(string(line))[1])
			br.Discard(n)
		}
		bw.WriteString("250 2.0.0 Ok\r\n")
	}
}

func BenchmarkSend(b *testing.B) {
	content := []byte(strings.Repeat(strings.Repeat("x", 76)+"\r\n", 10<<10/78))
	for name, bb := range map[string]struct {
		ext []string
	}{
		"oneByOne":  {nil},
		"pipelined": {[]string{"PIPELINING", "SIZE"}},
		"chunked":   {[]string{"CHUNKING", "SIZE"}},
	} {
		b.Run(name, func(b *testing.B) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer ln.Close()
			go func() {
				if conn, err := ln.Accept(); err == nil {
					sinkPeer(conn, bb.ext...)
				}
			}()
			conn, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			c, err := New(b.Context(), conn, "mx.test", Options{LocalName: "me.test"})
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			m := Mail{From: "a@me.test", Size: int64(len(content)), Rcpts: []Rcpt{{Addr: "b@mx.test"}},
				Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }}
			ctx := b.Context()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Send(ctx, m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
