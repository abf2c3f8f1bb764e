package mailauth

import (
	"errors"
	"fmt"
	"strings"
)

// tag is one name=value of a tag list (RFC 6376 section 3.2), which DKIM
// signatures, DKIM records and DMARC records are.
type tag struct{ name, value string }

type tagList []tag

// parseTags reads a tag list. White space is cut off around names and values,
// and out of values that hold folded base64 or lists. The error is a sentence for
// people.
func parseTags(s string) (tagList, error) {
	var list tagList
	for part := range strings.SplitSeq(s, ";") {
		if strings.Trim(part, fws) == "" {
			continue
		}
		name, value, ok := strings.Cut(part, "=")
		t := tag{strings.Trim(name, fws), strings.Trim(value, fws)}
		if !ok || t.name == "" || strings.ContainsAny(t.name, fws) {
			return nil, fmt.Errorf("%.60q is not of the form name=value", strings.Trim(part, fws))
		}
		if _, twice := list.get(t.name); twice {
			return nil, fmt.Errorf("%.60s= stands there twice", t.name)
		}
		switch t.name {
		case "b", "bh", "p", "h", "d", "s", "a", "c", "t", "x", "k":
			t.value = withoutSpace(t.value)
		}
		list = append(list, t)
	}
	if len(list) == 0 {
		return nil, errors.New("there is nothing in it")
	}
	return list, nil
}

// fws is folding white space.
const fws = " \t\r\n"

func withoutSpace(s string) string {
	if !strings.ContainsAny(s, fws) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(fws, r) {
			return -1
		}
		return r
	}, s)
}

func (l tagList) get(name string) (string, bool) {
	for _, t := range l {
		if t.name == name {
			return t.value, true
		}
	}
	return "", false
}

// inList tells whether a word stands in a list with colons.
func inList(list, word string) bool {
	for w := range strings.SplitSeq(list, ":") {
		if strings.EqualFold(strings.Trim(w, fws), word) {
			return true
		}
	}
	return false
}
