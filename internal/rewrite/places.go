package rewrite

import (
	"bytes"
	"slices"
	"strings"

	"golang.org/x/net/html"
)

// MaxText is the largest text part that anything is put into, in bytes as it is
// written. Mail programs show no more than a tenth of it.
const MaxText = 2 << 20

// Places are the links that stand in place of placeholders for unsubscribing: ours,
// and those of services that senders come from. They are visible ASCII without
// quotes, brackets and ampersands; where one is empty, its placeholders stay.
type Places struct {
	Leave    string // have no more mail of this kind
	LeaveAll string // have no more mail of any kind
	Choose   string // choose the kinds
}

// place is what a placeholder stands for.
type place uint8

const (
	leave place = iota
	leaveAll
	choose
)

// placeholder is one by its name. Where a service made a link with words of it, as
// far as it stands in the text of HTML, label is those words.
type placeholder struct {
	place place
	label string
}

// form is how placeholders are written.
type form struct {
	open, close string
	spaces      bool // may stand inside
	names       map[string]placeholder
}

// braced are ours, and those of services that have templates with braces: two, or
// three for what is not to be escaped, which makes no difference here.
var braced = map[string]placeholder{
	"unsubscribe_url":         {leave, ""},
	"preferences_url":         {choose, ""},
	"pm:unsubscribe":          {leave, "Unsubscribe"}, // Postmark; label="…" says other words
	"pm:unsubscribe_url":      {leave, ""},
	"amazonSESUnsubscribeUrl": {leave, ""}, // Amazon SES
	"RESEND_UNSUBSCRIBE_URL":  {leave, ""}, // Resend
	"mc-unsubscribe-url":      {leave, ""}, // MailChannels
	"unsubscribe":             {leave, ""}, // SendGrid's editor, Brevo
	"unsubscribe_preferences": {choose, ""},
}

var forms = []form{
	{"{{{", "}}}", true, braced},
	{"{{", "}}", true, braced},
	{"<%", "%>", true, map[string]placeholder{ // SendGrid
		"asm_group_unsubscribe_raw_url":  {leave, ""},
		"asm_group_unsubscribe_url":      {leave, "Unsubscribe from this list"},
		"asm_global_unsubscribe_raw_url": {leaveAll, ""},
		"asm_global_unsubscribe_url":     {leaveAll, "Unsubscribe from all emails"},
		"asm_preferences_raw_url":        {choose, ""},
		"asm_preferences_url":            {choose, "Manage email preferences"},
		"unsubscribe_url":                {leaveAll, ""}, // Mailgun's, in brackets
	}},
	{"%", "%", false, map[string]placeholder{ // Mailgun
		"unsubscribe_url":              {leaveAll, ""},
		"tag_unsubscribe_url":          {leave, ""},
		"mailing_list_unsubscribe_url": {leave, ""},
	}},
	{"*|", "|*", false, map[string]placeholder{ // Mandrill and Mailchimp
		"UNSUB": {leave, ""}, // "UNSUB:https://…" leads on from their page, for which ours has no use
	}},
}

const (
	maxName  = 40  // bytes
	maxLabel = 200 // bytes, as it is written
	maxOn    = 2000
)

// MayHavePlaces tells whether a text may have placeholders. It is fast, and takes
// quoted-printable too, where its lines are joined: most texts that speak of
// unsubscribing have none.
func MayHavePlaces(b []byte) bool {
	return hint(b, "nsub", func(before, after []byte) bool {
		after, ok := bytes.CutPrefix(after, []byte("scribe"))
		return ok && (begins(after, "_url", "_raw_url", "-url", "Url", "_preferences") || // by a name that nothing else has
			ends(before, ":u", "%3Au", "%3au", ";u") || // pm:unsubscribe
			begins(bytes.TrimLeft(after, " \t\r\n"), "}", "%7", "=7", "%20", "&")) // {{unsubscribe}}
	}) || hint(b, "NSUB", func(before, after []byte) bool {
		return begins(after, "SCRIBE_URL") || ends(before, "|U", "%7CU", "%7cU", "=7CU", ";U")
	}) || hint(b, "references", func(_, after []byte) bool { return begins(after, "_url", "_raw_url") })
}

// hint tells whether a word stands in a text with the right things around it.
func hint(b []byte, word string, right func(before, after []byte) bool) bool {
	for at := 0; ; at += len(word) {
		i := bytes.Index(b[at:], []byte(word))
		if i < 0 {
			return false
		}
		if at += i; right(b[:at], b[at+len(word):]) {
			return true
		}
	}
}

func begins(b []byte, with ...string) bool {
	return slices.ContainsFunc(with, func(s string) bool { return bytes.HasPrefix(b, []byte(s)) })
}

func ends(b []byte, with ...string) bool {
	return slices.ContainsFunc(with, func(s string) bool { return bytes.HasSuffix(b, []byte(s)) })
}

// FirstPlace gives what Fill would first put something in place of; empty: there is
// nothing.
func FirstPlace(b []byte, kind string) string {
	if edits := (Places{"-", "-", "-"}).edits(b, kind); len(edits) > 0 {
		return string(b[edits[0].from:edits[0].to])
	}
	return ""
}

// Fill gives a text with links in place of placeholders, and tells whether it has
// changed. kind is its media type; the charset must be one in which ASCII stands for
// itself. In HTML they stand in values of attributes, also in the way in which
// editors write what looks like no address there ("%7B%7B…%7D%7D", "&lt;%…",
// "http://{{…"), and in text that is read. All else stays.
func (p Places) Fill(b []byte, kind string) (out []byte, changed bool) {
	edits := p.edits(b, kind)
	if len(edits) == 0 {
		return b, false
	}
	return apply(b, edits), true
}

func (p Places) edits(b []byte, kind string) []edit {
	if p == (Places{}) || !MayHavePlaces(b) {
		return nil
	}
	f := filler{Places: p, in: b}
	if kind == "text/html" {
		f.html(b, 0, false)
	} else {
		f.fill(0, len(b), func(f found) string { return p.link(f.place) })
	}
	return f.edits
}

func (p Places) link(of place) string {
	return [...]string{leave: p.Leave, leaveAll: p.LeaveAll, choose: p.Choose}[of]
}

// filler finds what is to be edited.
type filler struct {
	Places
	in     []byte
	anchor bool // inside of <a>
	edits  []edit
}

// fill edits what stands from from to to.
func (f *filler) fill(from, to int, with func(found) string) {
	for {
		hit, ok := find(f.in[:to], from)
		if !ok {
			return
		}
		start := hit.from
		for _, scheme := range []string{"http://", "https://"} { // editors put it before what they take for a host
			if bytes.HasSuffix(f.in[from:start], []byte(scheme)) {
				start -= len(scheme)
				break
			}
		}
		from = hit.to
		if text := with(hit); text != "" {
			f.edits = append(f.edits, edit{start, hit.to, text})
		}
	}
}

// html reads a piece of HTML that stands at at in the document; conditional says
// that only Outlook reads it.
func (f *filler) html(b []byte, at int, conditional bool) {
	z := html.NewTokenizer(bytes.NewReader(b))
	verbatim := "" // the element whose text has no markup
	for {
		t := z.Next()
		if t == html.ErrorToken {
			return // what is left is no whole token, and stays
		}
		raw := f.in[at : at+len(z.Raw())]
		switch t {
		case html.TextToken:
			f.text(at, at+len(raw), verbatim)
			verbatim = ""
		case html.StartTagToken, html.SelfClosingTagToken:
			name, _ := z.TagName()
			verbatim = string(name)
			f.anchor = verbatim == "a" || f.anchor
			f.tag(raw, at, 1+len(name))
		case html.EndTagToken:
			if name, _ := z.TagName(); string(name) == "a" {
				f.anchor = false
			}
			verbatim = ""
		case html.CommentToken:
			if from, to, ok := conditionalPart(raw); ok && !conditional {
				f.html(raw[from:to], at+from, true)
			}
		}
		at += len(raw)
	}
}

// text fills text that stands after the start of an element.
func (f *filler) text(from, to int, element string) {
	switch element {
	case "script", "style":
		return
	}
	markup := element != "title" && element != "textarea" && element != "xmp" && element != "plaintext"
	f.fill(from, to, func(hit found) string {
		link := f.link(hit.place)
		switch {
		case hit.label == "" || link == "" || !markup:
			return link
		case f.anchor:
			return hit.label
		}
		return `<a href="` + link + `">` + hit.label + `</a>`
	})
}

// tag fills values of attributes.
func (f *filler) tag(raw []byte, at, name int) {
	if !MayHavePlaces(raw) {
		return
	}
	for _, a := range attributes(raw, name) {
		if !a.hasValue {
			continue
		}
		n := len(f.edits)
		from, to := at+a.value[0], at+a.value[1]
		f.fill(from, to, func(hit found) string { return f.link(hit.place) })
		if a.quoted || len(f.edits) == n {
			continue
		}
		f.edits[n] = edit{from, f.edits[n].to, `"` + string(f.in[from:f.edits[n].from]) + f.edits[n].text}
		last := &f.edits[len(f.edits)-1]
		last.text += string(f.in[last.to:to]) + `"`
		last.to = to
	}
}

// found is a placeholder in a text, from from to to.
type found struct {
	placeholder
	from, to int
}

// find gives the first placeholder from from on.
func find(b []byte, from int) (found, bool) {
	for i := from; i < len(b); i++ {
		switch b[i] {
		case '{', '<', '%', '*', '&':
		default:
			continue
		}
		for _, f := range forms {
			if p, end, ok := f.match(b, i); ok {
				return found{p, i, end}, true
			}
		}
	}
	return found{}, false
}

// match reads a placeholder that starts at i.
func (f form) match(b []byte, i int) (p placeholder, end int, ok bool) {
	if i, ok = wants(b, i, f.open); !ok {
		return p, 0, false
	}
	if f.spaces {
		i = blanks(b, i)
	}
	var name [maxName]byte
	n := 0
	for ; i < len(b) && n < len(name); n++ {
		c, size := b[i], 1
		if after, ok := want(b, i, ':'); ok && f.spaces {
			c, size = ':', after-i
		}
		if !word(c) && c != '-' && (c != ':' || !f.spaces) {
			break
		}
		name[n] = c
		i += size
	}
	if p, ok = f.names[string(name[:n])]; !ok {
		return p, 0, false
	}
	switch {
	case f.open == "*|":
		if at, colon := want(b, i, ':'); colon {
			n := bytes.IndexAny(b[at:min(len(b), at+maxOn)], "|\"'<> \r\n")
			if n < 0 {
				return p, 0, false
			}
			i = at + n
		}
	case f.spaces:
		if p.label != "" && f.open[0] == '{' {
			p.label, i = label(b, i, p.label)
		}
		i = blanks(b, i)
	}
	end, ok = wants(b, i, f.close)
	return p, end, ok
}

// label reads Postmark's label="…", or gives what is there without one.
func label(b []byte, i int, without string) (string, int) {
	at, ok := wants(b, blanks(b, i), "label=")
	if !ok || at >= len(b) {
		return without, i
	}
	quote := byte('"')
	from, ok := want(b, at, quote)
	if !ok {
		quote = '\''
		if from, ok = want(b, at, quote); !ok {
			return without, i
		}
	}
	for at = from; at < len(b) && at < from+maxLabel; at++ {
		if to, ok := want(b, at, quote); ok {
			text := string(b[from:at])
			return strings.NewReplacer("<", "&lt;", ">", "&gt;").Replace(text), to
		}
	}
	return without, i
}

// wants reads characters in whichever way they are written.
func wants(b []byte, i int, text string) (end int, ok bool) {
	for k := range len(text) {
		if i, ok = want(b, i, text[k]); !ok {
			return 0, false
		}
	}
	return i, true
}

// want reads a character as it is, as a percent sign with two digits (RFC 3986
// section 2.1), or as a character reference.
func want(b []byte, i int, c byte) (end int, ok bool) {
	if i >= len(b) {
		return 0, false
	}
	switch b[i] {
	case '%':
		if i+2 < len(b) && hex(b[i+1])<<4|hex(b[i+2]) == int(c) {
			return i + 3, true
		}
	case '&':
		if n := bytes.IndexByte(b[i:min(len(b), i+10)], ';'); n > 0 {
			if s := html.UnescapeString(string(b[i : i+n+1])); s == string(rune(c)) || c == ' ' && s == "\u00a0" {
				return i + n + 1, true
			}
		}
	}
	return i + 1, b[i] == c
}

// hex is the value of a digit, or one that no digit has.
func hex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return 1 << 10
}

// blanks passes white space.
func blanks(b []byte, i int) int {
	for i < len(b) {
		if space(b[i]) {
			i++
			continue
		}
		end, ok := want(b, i, ' ')
		if !ok {
			break
		}
		i = end
	}
	return i
}
