// Package rewrite puts other addresses into the links of HTML and of plain text, and
// links in place of placeholders. All else stays byte for byte, however broken it is.
package rewrite

import (
	"bytes"
	"strings"

	"golang.org/x/net/html"
)

// HTML says what is made of HTML.
type HTML struct {
	// Link gives what stands in place of the address that a link leads to, in
	// visible ASCII without quotes, or false where the link stays. The address is
	// without character references, and without white space around it; bytes above
	// 127 are in the document's charset.
	Link func(address string) (string, bool)
	// Last is put at the end of the body, as it is; empty: nothing is.
	Last string
}

// Rewrite gives the document with other links, and tells whether it has changed.
// The charset must be one in which ASCII stands for itself. What is marked as not
// to be rewritten stays (see marks).
func (h HTML) Rewrite(b []byte) (out []byte, changed bool) {
	w := writer{HTML: h, in: b}
	if h.Link != nil || h.Last != "" {
		w.run(false)
	}
	if h.Last != "" {
		at := len(b)
		if w.end > 0 {
			at = w.end
		}
		w.edits = append(w.edits, edit{at, at, h.Last})
	}
	if len(w.edits) == 0 {
		return b, false
	}
	return apply(b, w.edits), true
}

// edit puts text in place of what stands from from to to.
type edit struct {
	from, to int
	text     string
}

// apply makes edits that stand in order, but for the last one.
func apply(b []byte, edits []edit) []byte {
	if n := len(edits) - 1; n > 0 { // the end of the body may come before links
		for i := n; i > 0 && edits[i].from < edits[i-1].from; i-- {
			edits[i], edits[i-1] = edits[i-1], edits[i]
		}
	}
	size := len(b)
	for _, e := range edits {
		size += len(e.text) - (e.to - e.from)
	}
	out, at := make([]byte, 0, size), 0
	for _, e := range edits {
		out = append(append(out, b[at:e.from]...), e.text...)
		at = e.to
	}
	return append(out, b[at:]...)
}

// writer finds what is to be edited.
type writer struct {
	HTML
	in    []byte
	base  int // where in is in the document
	edits []edit
	end   int // where the body ends; 0: nowhere
}

// run reads the document as browsers do. inside says that it is what only Outlook
// reads.
func (w *writer) run(inside bool) {
	z := html.NewTokenizer(bytes.NewReader(w.in))
	for at := 0; ; {
		t := z.Next()
		if t == html.ErrorToken {
			return // what is left is no whole token, and stays
		}
		from := at
		at += len(z.Raw())
		raw := w.in[from:at]
		switch t {
		case html.StartTagToken, html.SelfClosingTagToken:
			w.tag(z, raw, w.base+from, inside)
		case html.EndTagToken:
			name, _ := z.TagName()
			if tag := string(name); !inside && (tag == "body" || tag == "html" && w.end == 0) {
				w.end = w.base + from
			}
		case html.CommentToken:
			if !inside {
				w.conditional(raw, w.base+from)
			}
		}
	}
}

// conditional rewrites what stands in a comment that Outlook reads:
// <!--[if mso]> … <![endif]-->.
func (w *writer) conditional(raw []byte, at int) {
	from, to, ok := conditionalPart(raw)
	if !ok {
		return
	}
	inner := writer{HTML: w.HTML, in: raw[from:to], base: at + from}
	inner.run(true)
	w.edits = append(w.edits, inner.edits...)
}

// conditionalPart finds what Outlook reads of a comment.
func conditionalPart(raw []byte) (from, to int, ok bool) {
	if !bytes.HasPrefix(raw, []byte("<!--[if")) {
		return 0, 0, false
	}
	from, to = bytes.Index(raw, []byte("]>"))+2, bytes.LastIndex(raw, []byte("<![endif]"))
	return from, to, from >= 2 && to >= from
}

// attribute is where one stands in its tag.
type attribute struct {
	from     int // with the white space before it
	key      [2]int
	value    [2]int // without quotes
	quoted   bool
	hasValue bool
}

// marks are the attributes by which a link says that it is not to be rewritten:
// ours, and those of services that senders come from. Those that are for the relay
// alone are taken out.
var marks = map[string]struct {
	value string // that it must have; empty: any
	drop  bool
}{
	"data-postrider-track": {"off", true},
	"ses:no-track":         {"", true},
	"clicktracking":        {"off", false},
	"data-pm-no-track":     {"", false},
}

func (w *writer) tag(z *html.Tokenizer, raw []byte, at int, inside bool) {
	name, more := z.TagName()
	link := string(name) == "a" || string(name) == "area" || inside && bytes.HasPrefix(name, []byte("v:"))
	if !link || !more || w.Link == nil {
		return
	}
	found := attributes(raw, 1+len(name))
	href, address, off := -1, "", false
	var drop []attribute
	for i := 0; more; i++ {
		var key, value []byte
		key, value, more = z.TagAttr()
		if len(key) == 0 && !more {
			break
		}
		// Where the two readings differ nobody knows what a browser would see.
		if i >= len(found) || !strings.EqualFold(string(raw[found[i].key[0]:found[i].key[1]]), string(key)) {
			return
		}
		if m, known := marks[string(key)]; known && (m.value == "" || strings.EqualFold(strings.TrimSpace(string(value)), m.value)) {
			off = true
			if m.drop {
				drop = append(drop, found[i])
			}
		}
		if string(key) == "href" && href < 0 && found[i].hasValue {
			href, address = i, trim(string(value))
		}
	}
	if off {
		for _, a := range drop {
			end := max(a.key[1], a.value[1])
			if a.quoted {
				end++
			}
			w.edits = append(w.edits, edit{at + a.from, at + end, ""})
		}
		return
	}
	if href < 0 {
		return
	}
	to, ok := w.Link(address)
	if !ok {
		return
	}
	a := found[href]
	if !a.quoted {
		to = `"` + to + `"`
	}
	w.edits = append(w.edits, edit{at + a.value[0], at + a.value[1], to})
}

// trim is what browsers do to an address before they read it: line ends and tabs
// go, and what is not visible at its ends.
func trim(s string) string {
	s = strings.TrimFunc(s, func(r rune) bool { return r <= ' ' })
	if !strings.ContainsAny(s, "\t\r\n") {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r == '\t' || r == '\r' || r == '\n' {
			return -1
		}
		return r
	}, s)
}

func space(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' }

// attributes finds the attributes of a start tag, from i on (HTML Standard, 13.2.5.32
// to 13.2.5.39).
func attributes(raw []byte, i int) (all []attribute) {
	n := len(raw)
	for {
		from := i
		for i < n && (space(raw[i]) || raw[i] == '/') {
			i++
		}
		if i >= n || raw[i] == '>' {
			return all
		}
		a := attribute{from: from, key: [2]int{i, i}}
		for i++; i < n && !space(raw[i]) && raw[i] != '/' && raw[i] != '>' && raw[i] != '='; i++ {
		}
		a.key[1] = i
		after := i
		for i < n && space(raw[i]) {
			i++
		}
		if i >= n || raw[i] != '=' {
			i = after
			all = append(all, a)
			continue
		}
		for i++; i < n && space(raw[i]); i++ {
		}
		a.hasValue = true
		switch {
		case i < n && (raw[i] == '"' || raw[i] == '\''):
			end := bytes.IndexByte(raw[i+1:], raw[i])
			if end < 0 {
				return all
			}
			a.quoted, a.value = true, [2]int{i + 1, i + 1 + end}
			i = a.value[1] + 1
		default:
			start := i
			for i < n && !space(raw[i]) && raw[i] != '>' {
				i++
			}
			a.value = [2]int{start, i}
		}
		all = append(all, a)
	}
}
