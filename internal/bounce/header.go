package bounce

import (
	"encoding/base64"
	"io"
	"mime"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/net/html"
	"golang.org/x/text/encoding/htmlindex"

	"postrider/internal/message"
)

// field is one field of a header.
type field struct{ name, value string } // name in lower case, value unfolded

type header []field

// parseHeader reads fields until the first blank line. What is no field is
// passed over.
func parseHeader(b []byte) (h header) {
	if len(b) > maxHeader {
		b = b[:maxHeader]
	}
	var folded []string // the lines of the last field: put together at once
	end := func() {
		if len(folded) > 1 {
			h[len(h)-1].value = strings.Join(folded, " ")
		}
		folded = folded[:0]
	}
	defer end()
	for line := range strings.Lines(string(b)) {
		text := strings.TrimRight(line, "\r\n")
		switch {
		case strings.TrimSpace(text) == "":
			if len(h) > 0 {
				return h
			}
		case text[0] == ' ' || text[0] == '\t':
			if len(h) > 0 {
				folded = append(folded, strings.TrimSpace(text))
			}
		default:
			name, value, ok := strings.Cut(text, ":")
			if !ok || name == "" || strings.ContainsAny(name, " \t") {
				continue
			}
			end()
			h, folded = append(h, field{strings.ToLower(name), strings.TrimSpace(value)}), append(folded, strings.TrimSpace(value))
		}
	}
	return h
}

func (h header) get(name string) string {
	for _, f := range h {
		if f.name == name {
			return f.value
		}
	}
	return ""
}

func (h header) has(name string) bool {
	for _, f := range h {
		if f.name == name {
			return true
		}
	}
	return false
}

// address is the first address in a field.
func (h header) address(name string) string {
	return clean(message.FirstAddress([]byte(h.get(name))))
}

// addresses are all the addresses in a field.
func (h header) addresses(name string) (list []string) {
	for _, f := range h {
		if f.name == name {
			list = append(list, addressForm.FindAllString(f.value, maxRecipients)...)
		}
	}
	return list
}

// text is a field for people, its encoded words decoded.
func (h header) text(name string) string {
	d := mime.WordDecoder{CharsetReader: func(charset string, in io.Reader) (io.Reader, error) {
		e, err := htmlindex.Get(charset)
		if err != nil {
			return nil, err
		}
		return e.NewDecoder().Reader(in), nil
	}}
	v := h.get(name)
	if s, err := d.DecodeHeader(v); err == nil {
		v = s
	}
	return message.Clean(v, 500)
}

// says tells whether a disposition (RFC 8098 section 3.2.6) is one of these.
func (h header) says(dispositions ...string) bool {
	v := strings.ToLower(h.get("disposition"))
	_, v, _ = strings.Cut(v, ";")
	return v != "" && containsAny(v, dispositions)
}

// bytes is the header as text again.
func (h header) bytes() []byte {
	var b strings.Builder
	for _, f := range h {
		b.WriteString(f.name + ": " + f.value + "\n")
	}
	return []byte(b.String())
}

// reports tells whether the header is that of a report about another message.
func (h header) reports() bool {
	ct := strings.ToLower(h.get("content-type"))
	return strings.HasPrefix(ct, "multipart/report") || h.has("x-failed-recipients") ||
		fromSystem(h.address("from")) && containsAny(strings.ToLower(h.text("subject")), bounceSubjects)
}

// bracketed is the first part in angle brackets, with them.
func bracketed(v string) string {
	if i := strings.IndexByte(v, '<'); i >= 0 {
		if j := strings.IndexByte(v[i:], '>'); j > 1 {
			return v[i : i+j+1]
		}
	}
	return ""
}

// decode gives a part's text as UTF-8. What is valid UTF-8 and has other
// characters than ASCII is taken for that, whatever its label says.
func decode(p message.Part) string {
	return strings.ReplaceAll(decodeCharset(p), "\r\n", "\n")
}

func decodeCharset(p message.Part) string {
	b := p.Body
	if len(b) > maxText {
		b = b[:maxText]
	}
	charset := ""
	if _, params, err := mime.ParseMediaType(parseHeader(p.Header).get("content-type")); err == nil || params != nil {
		charset = strings.ToLower(params["charset"])
	}
	if strings.HasSuffix(charset, "utf-7") {
		return fromUTF7(string(b))
	}
	escapes := strings.HasPrefix(charset, "iso-2022") && strings.Contains(string(b), "\x1b")
	if !escapes && utf8.Valid(b) {
		return string(b)
	}
	if e, err := htmlindex.Get(charset); err == nil {
		if d, err := e.NewDecoder().Bytes(b); err == nil {
			return string(d)
		}
	}
	if e, err := htmlindex.Get("windows-1252"); err == nil {
		if d, err := e.NewDecoder().Bytes(b); err == nil {
			return string(d)
		}
	}
	return strings.ToValidUTF8(string(b), "?")
}

// fromUTF7 reads UTF-7 (RFC 2152), which old systems of Microsoft write. What is
// none is left as it is.
func fromUTF7(s string) string {
	var out strings.Builder
	for {
		before, rest, ok := strings.Cut(s, "+")
		out.WriteString(before)
		if !ok {
			return out.String()
		}
		n := 0
		for n < len(rest) && (rest[n] == '/' || rest[n] == '+' || rest[n] >= '0' && rest[n] <= '9' || rest[n] >= 'A' && rest[n] <= 'Z' || rest[n] >= 'a' && rest[n] <= 'z') {
			n++
		}
		coded := rest[:n]
		s = strings.TrimPrefix(rest[n:], "-")
		b, err := base64.RawStdEncoding.DecodeString(coded)
		switch {
		case n == 0:
			out.WriteByte('+')
		case err != nil || len(b)%2 != 0:
			out.WriteString("+" + coded)
		default:
			units := make([]uint16, 0, len(b)/2)
			for i := 0; i < len(b); i += 2 {
				units = append(units, uint16(b[i])<<8|uint16(b[i+1]))
			}
			out.WriteString(string(utf16.Decode(units)))
		}
	}
}

// stripHTML gives the words of an HTML text, a line for each block.
func stripHTML(s string) string {
	var out strings.Builder
	z := html.NewTokenizer(strings.NewReader(s))
	skip := 0
	for {
		switch z.Next() {
		case html.ErrorToken:
			return out.String()
		case html.TextToken:
			if skip == 0 {
				out.Write(z.Text())
			}
		case html.StartTagToken:
			name, _ := z.TagName()
			switch string(name) {
			case "script", "style", "title", "head":
				skip++
			case "p", "br", "div", "tr", "li", "td", "h1", "h2", "h3", "pre", "table":
				out.WriteByte('\n')
			case "body":
				skip = 0
			}
		case html.EndTagToken:
			name, _ := z.TagName()
			switch string(name) {
			case "script", "style", "title", "head":
				skip = max(0, skip-1)
			case "p", "div", "tr", "li", "td", "h1", "h2", "h3", "pre", "table":
				out.WriteByte('\n')
			}
		case html.SelfClosingTagToken:
			out.WriteByte('\n')
		}
		if out.Len() > 2*maxText {
			return out.String()
		}
	}
}
