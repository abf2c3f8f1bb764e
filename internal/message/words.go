package message

import (
	"encoding/base64"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/htmlindex"
)

// decodeText reads unstructured header text for people: encoded words (RFC 2047)
// decoded, folds undone, no control characters, valid UTF-8, cut to max
// characters. It never fails: what cannot be decoded stays as it is.
func decodeText(v []byte, max int) string {
	// Not more than max characters can come of this much; the worst is a base64
	// word of one stateful character each.
	if len(v) > 64*max {
		v = v[:64*max]
	}
	s := string(v)
	if strings.Contains(s, "=?") {
		s = decodeWords(s)
	}
	return Clean(s, max)
}

// decodeWords decodes the encoded words in s. The bytes of neighbours in one
// charset are put together before they are decoded, since many a client cuts a
// character in two (which RFC 2047 section 5 forbids).
func decodeWords(s string) string {
	var out strings.Builder
	var charset string // of pending
	var pending []byte
	flush := func() {
		out.WriteString(decodeCharset(charset, pending))
		charset, pending = "", pending[:0]
	}
	for {
		i := strings.Index(s, "=?")
		if i < 0 {
			break
		}
		cs, text, n := encodedWord(s[i:])
		if n == 0 {
			flush()
			out.WriteString(s[:i+2])
			s = s[i+2:]
			continue
		}
		// White space between encoded words is no text (RFC 2047 section 6.2).
		if gap := s[:i]; charset == "" || strings.Trim(gap, " \t\r\n") != "" {
			flush()
			out.WriteString(gap)
		} else if !strings.EqualFold(charset, cs) {
			flush()
		}
		charset, pending, s = cs, append(pending, text...), s[i+n:]
	}
	flush()
	out.WriteString(s)
	return out.String()
}

// encodedWord reads the encoded word at the start of s: =?charset?B|Q?text?=,
// n bytes long. With n = 0 there is none that can be read.
func encodedWord(s string) (charset string, text []byte, n int) {
	charset, rest, ok := strings.Cut(s[2:], "?")
	if !ok || len(rest) < 2 || rest[1] != '?' || charset == "" || len(charset) > 60 {
		return "", nil, 0
	}
	enc, rest := rest[0], rest[2:]
	end := strings.Index(rest, "?=")
	if end < 0 {
		return "", nil, 0
	}
	n = len(s) - len(rest) + end + 2
	charset, _, _ = strings.Cut(charset, "*") // language (RFC 2231 section 5)
	if !knownCharset(charset) {
		return "", nil, 0
	}
	switch word := rest[:end]; enc {
	case 'q', 'Q':
		return charset, decodeQ(word), n
	case 'b', 'B':
		text, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(word, "= "))
		if err != nil {
			return "", nil, 0
		}
		return charset, text, n
	}
	return "", nil, 0
}

// decodeQ undoes the Q encoding (RFC 2047 section 4.2), leaving broken escapes as
// they are.
func decodeQ(s string) []byte {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '_':
			b = append(b, ' ')
		case s[i] == '=' && i+2 < len(s) && hexValue(s[i+1]) >= 0 && hexValue(s[i+2]) >= 0:
			b = append(b, byte(hexValue(s[i+1])<<4|hexValue(s[i+2])))
			i += 2
		default:
			b = append(b, s[i])
		}
	}
	return b
}

func hexValue(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func knownCharset(name string) bool {
	if strings.EqualFold(name, "utf-8") {
		return true
	}
	_, err := htmlindex.Get(name)
	return err == nil
}

func decodeCharset(name string, b []byte) string {
	if len(b) == 0 || strings.EqualFold(name, "utf-8") {
		return strings.ToValidUTF8(string(b), "\ufffd")
	}
	e, err := htmlindex.Get(name)
	if err != nil {
		return string(b)
	}
	s, err := e.NewDecoder().Bytes(b)
	if err != nil {
		return string(b)
	}
	return string(s)
}

// Clean makes s fit to be shown and stored: valid UTF-8 (other bytes are read as
// Windows-1252, the likeliest), white space and control characters as single
// spaces, at most max characters.
func Clean(s string, max int) string {
	if !utf8.ValidString(s) {
		if d, err := charmap.Windows1252.NewDecoder().String(s); err == nil {
			s = d
		}
	}
	if plain(s, max) {
		return s
	}
	var out strings.Builder
	space, n := false, 0
	for _, r := range s {
		if unicode.IsSpace(r) || unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			space = n > 0
			continue
		}
		if space && n < max {
			out.WriteByte(' ')
			n++
			space = false
		}
		if n >= max {
			break
		}
		out.WriteRune(r)
		n++
	}
	return strings.TrimRight(out.String(), " ")
}

// plain tells whether Clean would change nothing: the usual case.
func plain(s string, max int) bool {
	if len(s) > max {
		return false
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f || s[i] == ' ' && (i == 0 || i == len(s)-1 || s[i-1] == ' ') {
			return false
		}
	}
	return true
}

// FirstAddress gives the first address of an address list (RFC 5322 section
// 3.4), without display name, comments and route. It takes what is written
// there: whether it can be an address is not checked.
func FirstAddress(v []byte) string {
	const longest = 320 // local part 64, "@", domain 255
	if len(v) > 4096 {
		v = v[:4096]
	}
	var word []byte // outside of brackets so far
	for i := 0; i < len(v); {
		n := 1
		switch v[i] {
		case '(':
			n = commentLen(v[i:])
		case '"':
			n = quotedLen(v[i:], '"')
			word = append(word, v[i:i+n]...)
		case '[':
			n = quotedLen(v[i:], ']')
			word = append(word, v[i:i+n]...)
		case '<':
			n = bracketLen(v[i:])
			if a := angleAddress(v[i : i+n]); a != "" {
				return Clean(a, longest)
			}
			word = word[:0]
		case ',', ';':
			if a := bareAddress(word); a != "" {
				return Clean(a, longest)
			}
			word = word[:0]
		case ':': // what came before is the name of a group
			word = word[:0]
		default:
			word = append(word, v[i])
		}
		i += n
	}
	return Clean(bareAddress(word), longest)
}

// angleAddress is what stands between the brackets, without a route.
func angleAddress(b []byte) string {
	s := strings.TrimSpace(strings.Trim(string(b), "<>"))
	if strings.HasPrefix(s, "@") {
		if _, after, ok := strings.Cut(s, ":"); ok {
			return after
		}
	}
	return s
}

// bareAddress is the word with an "@" in it, or all.
func bareAddress(b []byte) string {
	s := strings.TrimSpace(string(b))
	if strings.ContainsAny(s, " \t") && !strings.Contains(s, `"`) {
		for _, w := range strings.Fields(s) {
			if strings.Contains(w, "@") {
				return w
			}
		}
	}
	return s
}

// quotedLen is the length of what starts at b[0] and ends at the given byte,
// backslashes heeded; all of b where the end is missing.
func quotedLen(b []byte, end byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case end:
			return i + 1
		}
	}
	return len(b)
}

// bracketLen is the length of "<...>", in which quoted strings may hold ">".
func bracketLen(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '"':
			i += quotedLen(b[i:], '"') - 1
		case '>':
			return i + 1
		}
	}
	return len(b)
}

// commentLen is the length of a comment, which may hold comments.
func commentLen(b []byte) int {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(b)
}
