// Package wording cuts texts into the words that people search them by, and tells
// whether a text has what somebody seeks. Neither case nor accents count.
package wording

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Most is how many words of a text count; what follows is not found.
const Most = 400

// Fold puts a text into the form in which texts are compared: lower case,
// without accents.
func Fold(s string) string {
	plain := true
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			plain = false
			break
		}
	}
	if plain {
		return strings.ToLower(s)
	}
	var b strings.Builder
	b.Grow(len(s))
	for _, r := range norm.NFKD.String(s) {
		switch {
		case unicode.Is(unicode.Mn, r):
		case r == 'ß' || r == 'ẞ':
			b.WriteString("ss")
		default:
			b.WriteRune(unicode.ToLower(r))
		}
	}
	return b.String()
}

// place of a word in a text.
type place struct{ from, to int }

// places gives those of the words of a folded text. A word is a run of letters
// and digits. Between two digits a dot belongs to it, so that a code like 5.1.1
// and an address like 192.0.2.1 are one word. Scripts that put no space between
// words have a word for each character.
func places(s string) []place {
	found := make([]place, 0, 8)
	start := -1
	end := func(at int) {
		if start >= 0 {
			found = append(found, place{start, at})
		}
		start = -1
	}
	for i := 0; i < len(s) && len(found) < Most; {
		r, n := rune(s[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRuneInString(s[i:])
		}
		switch {
		case alone(r):
			end(i)
			found = append(found, place{i, i + n})
		case inWord(r):
			if start < 0 {
				start = i
			}
		case r == '.' && start >= 0 && digit(s, i-1) && digit(s, i+1):
		default:
			end(i)
		}
		i += n
	}
	if len(found) < Most {
		end(len(s))
	}
	return found
}

func inWord(r rune) bool {
	if r < utf8.RuneSelf {
		return 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || 'A' <= r && r <= 'Z'
	}
	return unicode.IsLetter(r) || unicode.IsDigit(r)
}

// alone tells whether a character is a word of its own.
func alone(r rune) bool {
	return r >= 0x0e00 && (unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar))
}

func digit(s string, i int) bool { return i >= 0 && i < len(s) && '0' <= s[i] && s[i] <= '9' }

// Of gives the words of a text, folded, in their order, some maybe twice.
func Of(text string) []string {
	s := Fold(text)
	at := places(s)
	list := make([]string, len(at))
	for i, p := range at {
		list[i] = s[p.from:p.to]
	}
	return list
}

// Query is what is sought in a text.
type Query struct {
	// Whole are words that the text must have, folded.
	Whole []string
	// Prefix is what one of its words must begin with; empty: none need.
	Prefix string
	// together, where not empty, must stand in the text as it is, from the
	// beginning of a word or from a character that is in none.
	together string
}

// All seeks texts that have all these words, in any order; a word may follow that
// the last one is the beginning of. In quotation marks, they must stand together.
// Where there is no word in it, it is sought as it stands.
func All(s string) Query {
	s = strings.TrimSpace(s)
	if len(s) > 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return Part(s[1 : len(s)-1])
	}
	q := Part(s)
	if len(q.Whole) > 0 || q.Prefix != "" {
		q.together = ""
		if n := len(q.Whole) - 1; q.Prefix == "" { // only marks stand behind it
			q.Whole, q.Prefix = q.Whole[:n], q.Whole[n]
		}
	}
	return q
}

// Part seeks texts that this is a part of which begins with a word.
func Part(s string) Query {
	q := Query{together: Fold(s)}
	at := places(q.together)
	for i, p := range at {
		word := q.together[p.from:p.to]
		if i == len(at)-1 && (p.to == len(q.together) || q.together[p.to:] == "." && digit(q.together, p.to-1)) && !alone(firstRune(word)) {
			q.Prefix = word
			break
		}
		q.Whole = append(q.Whole, word)
	}
	return q
}

func firstRune(s string) rune { r, _ := utf8.DecodeRuneInString(s); return r }

// Empty tells whether nothing is sought.
func (q *Query) Empty() bool { return len(q.Whole) == 0 && q.Prefix == "" && q.together == "" }

// In tells whether the text has what is sought.
func (q *Query) In(text string) bool {
	if q.Empty() {
		return true
	}
	s := Fold(text)
	at := places(s)
	for _, w := range q.Whole {
		if !slices.ContainsFunc(at, func(p place) bool { return s[p.from:p.to] == w }) {
			return false
		}
	}
	if q.Prefix != "" && !slices.ContainsFunc(at, func(p place) bool { return strings.HasPrefix(s[p.from:p.to], q.Prefix) }) {
		return false
	}
	if q.together == "" {
		return true
	}
	free := !inWord(firstRune(q.together))
	for from := 0; ; {
		i := strings.Index(s[from:], q.together)
		if i < 0 {
			return false
		}
		from += i
		if free || slices.ContainsFunc(at, func(p place) bool { return p.from == from }) {
			return true
		}
		from++
	}
}
