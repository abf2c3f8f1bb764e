package rewrite

import (
	"bytes"
	"strings"
)

// Text gives plain text with other addresses of the web in it, and tells whether
// it has changed. link gives what stands in place of an address, or false where it
// stays. The charset must be one in which ASCII stands for itself.
func Text(b []byte, link func(address string) (string, bool)) (out []byte, changed bool) {
	var edits []edit
	for at := 0; ; {
		i := bytes.Index(b[at:], []byte("://"))
		if i < 0 {
			break
		}
		i += at
		at = i + 3
		start := scheme(b, i)
		if start < 0 {
			continue
		}
		end := addressEnd(b, start, at)
		if end <= at {
			continue
		}
		at = end
		if to, ok := link(string(b[start:end])); ok {
			edits = append(edits, edit{start, end, to})
		}
	}
	if len(edits) == 0 {
		return b, false
	}
	return apply(b, edits), true
}

// scheme is where http or https starts that ends at i, or -1.
func scheme(b []byte, i int) int {
	for _, s := range []string{"https", "http"} {
		from := i - len(s)
		if from < 0 || !strings.EqualFold(string(b[from:i]), s) {
			continue
		}
		if from > 0 && (word(b[from-1]) || strings.IndexByte("+-.@/=%", b[from-1]) >= 0) {
			return -1 // a part of something else
		}
		return from
	}
	return -1
}

func word(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= 0x80 || c == '_'
}

// addressEnd is where the address ends that starts at from, and goes on at at; -1
// where that can't be told.
func addressEnd(b []byte, from, at int) int {
	end := at
	for end < len(b) && b[end] > ' ' && b[end] < 0x7f && strings.IndexByte("<>\"`", b[end]) < 0 {
		end++
	}
	switch {
	case end < len(b) && b[end] >= 0x80:
		return -1 // may go on in another script
	case from > 0 && b[from-1] == '<': // RFC 3986 appendix C
		if end < len(b) && b[end] == '>' {
			return end
		}
		return -1 // goes on in the next line
	}
	for end > at {
		c := b[end-1]
		if strings.IndexByte(".,;:!?'*_~|", c) >= 0 || closes(c, b[from:end]) {
			end--
			continue
		}
		break
	}
	return end
}

// closes tells whether a bracket at the end of an address was opened before it.
func closes(c byte, address []byte) bool {
	i := strings.IndexByte(")]}", c)
	if i < 0 {
		return false
	}
	return bytes.Count(address, []byte{"([{"[i]}) < bytes.Count(address, []byte{c})
}
