package message

import "bytes"

// field is one header field (RFC 5322 section 2.2) as slices of the header.
type field struct {
	raw   []byte // all of it, with its line ends
	name  []byte
	value []byte // after the colon, folds and all, without the last line end
}

// nextField cuts the first field off h. It fails where h is empty, starts with a
// blank line, or with a line that is no field. A field without a line end ends
// with h. White space before the colon is let pass (RFC 5322 section 4.5).
func nextField(h []byte) (f field, rest []byte, ok bool) {
	n := 0
	for n < len(h) && h[n] > ' ' && h[n] < 0x7f && h[n] != ':' {
		n++
	}
	colon := n
	for colon < len(h) && (h[colon] == ' ' || h[colon] == '\t') {
		colon++
	}
	if n == 0 || colon == len(h) || h[colon] != ':' {
		return field{}, h, false
	}
	end := colon
	for {
		i := bytes.IndexByte(h[end:], '\n')
		if i < 0 {
			end = len(h)
			break
		}
		end += i + 1
		if end == len(h) || (h[end] != ' ' && h[end] != '\t') {
			break
		}
	}
	return field{raw: h[:end], name: h[:n], value: trimEOL(h[colon+1 : end])}, h[end:], true
}

// blankLine is the length of the empty line, CRLF or LF, at the start of b; 0
// where there is none.
func blankLine(b []byte) int {
	switch {
	case len(b) > 0 && b[0] == '\n':
		return 1
	case len(b) > 1 && b[0] == '\r' && b[1] == '\n':
		return 2
	}
	return 0
}

// trimEOL cuts one CRLF or LF off the end.
func trimEOL(b []byte) []byte {
	if n := len(b); n > 0 && b[n-1] == '\n' {
		b = b[:n-1]
		if n > 1 && b[n-2] == '\r' {
			b = b[:n-2]
		}
	}
	return b
}

// lower puts the name in lower case into buf, so that it can be looked up
// without an allocation. A longer name than any that we know gives nothing.
func lower(buf *[32]byte, name []byte) []byte {
	if len(name) > len(buf) {
		return nil
	}
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		buf[i] = c
	}
	return buf[:len(name)]
}
