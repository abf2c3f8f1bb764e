package classify

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// How many words ".." and "..." in a phrase may stand for.
const (
	smallGap = 3
	gap      = 14
)

// word of a phrase. A stem matches whatever begins with it.
type word struct {
	s     string
	stem  bool
	gap   int        // up to so many words
	class *wordClass // any of its words
}

func (w word) is(s string) bool {
	switch {
	case w.class != nil:
		return w.class.has(s)
	case w.stem:
		return strings.HasPrefix(s, w.s)
	}
	return w.s == s
}

// wordClass is words that mean the same in this place: "$who" in a phrase is any word
// of the class "who".
type wordClass struct {
	exact map[string]bool
	stems []string
}

func newClass(members []string) (*wordClass, error) {
	c := &wordClass{exact: map[string]bool{}}
	for _, m := range members {
		p := compile(m, nil)
		switch {
		case len(p) != 1 || p[0].gap > 0:
			return nil, fmt.Errorf("%q is not one word", m)
		case p[0].stem && len(p[0].s) < stemKey:
			return nil, fmt.Errorf("%q: %w", m, errStem)
		case p[0].stem:
			c.stems = append(c.stems, p[0].s)
		default:
			c.exact[p[0].s] = true
		}
	}
	return c, nil
}

// merge takes in the words of another class.
func (c *wordClass) merge(other *wordClass) {
	maps.Copy(c.exact, other.exact)
	c.stems = append(c.stems, other.stems...)
}

func (c *wordClass) has(s string) bool {
	return c.exact[s] || slices.ContainsFunc(c.stems, func(stem string) bool { return strings.HasPrefix(s, stem) })
}

// phrase is words in a row.
type phrase []word

// compile reads a phrase as it stands in a rule: words; "stem*"; "$class"; ".." and
// "..." for some words; "@" for a mail address.
func compile(s string, classes map[string]*wordClass) phrase {
	var p phrase
	if !ascii(s) {
		s = plain(s)
	}
	for f := range strings.FieldsSeq(strings.ToLower(s)) {
		switch {
		case f == "...":
			p = append(p, word{gap: gap})
		case f == "..":
			p = append(p, word{gap: smallGap})
		case classes[strings.TrimPrefix(f, "$")] != nil && f[0] == '$':
			p = append(p, word{class: classes[f[1:]]})
		case f == "@":
			p = append(p, word{s: "@"})
		default:
			f, stem := strings.CutSuffix(f, "*")
			for _, w := range words(nil, f) {
				p = append(p, word{s: w})
			}
			if stem && len(p) > 0 {
				p[len(p)-1].stem = true
			}
		}
	}
	return p
}

// at tells whether the phrase stands at position i of the text.
func (p phrase) at(text []string, i int) bool {
	for n, w := range p {
		if w.gap > 0 {
			rest := p[n+1:]
			for j := i; j <= min(i+w.gap, len(text)-1); j++ {
				if rest.at(text, j) {
					return true
				}
			}
			return false
		}
		if i >= len(text) || !w.is(text[i]) {
			return false
		}
		i++
	}
	return true
}

func (p phrase) in(text []string) bool {
	for i := range text {
		if p.at(text, i) {
			return true
		}
	}
	return false
}

// index finds phrases by their first word, so that a text costs one look-up a
// word, whatever the number of phrases.
type index struct {
	exact map[string][]entry
	stems map[string][]entry // by the first bytes of the stem
}

type entry struct {
	phrase phrase
	rule   int
	loose  bool
}

// stemKey is how many bytes of a stem are looked up. Shorter stems can't be first.
const stemKey = 3

var (
	errEmpty = errors.New("it has no word")
	errStem  = errors.New("its first word is too short for a stem; three letters at least")
)

func (x *index) add(p phrase, rule int) error {
	if len(p) == 0 || p[0].gap > 0 || p[len(p)-1].gap > 0 {
		return errEmpty
	}
	if x.exact == nil {
		x.exact, x.stems = map[string][]entry{}, map[string][]entry{}
	}
	switch first := p[0]; {
	case first.class != nil:
		for w := range first.class.exact {
			x.exact[w] = append(x.exact[w], entry{p, rule, p.loose()})
		}
		for _, stem := range first.class.stems {
			x.stems[stem[:stemKey]] = append(x.stems[stem[:stemKey]], entry{p, rule, p.loose()})
		}
	case !first.stem:
		x.exact[first.s] = append(x.exact[first.s], entry{p, rule, p.loose()})
	case len(first.s) < stemKey:
		return errStem
	default:
		x.stems[first.s[:stemKey]] = append(x.stems[first.s[:stemKey]], entry{p, rule, p.loose()})
	}
	return nil
}

// loose tells whether a phrase is one word only, or words far apart or of classes:
// it may stand in a text that says something else.
func (p phrase) loose() bool {
	words := 0
	for _, w := range p {
		if w.gap > 0 {
			return true
		}
		if w.class == nil && w.s != "@" {
			words++
		}
	}
	return words < 2
}

// find calls f with the rule of each phrase in the text, and whether it is loose.
func (x *index) find(text []string, f func(rule int, loose bool)) {
	x.places(text, func(e entry, _ int) { f(e.rule, e.loose) })
}

// places calls f with each phrase in the text, and where it stands.
func (x *index) places(text []string, f func(e entry, at int)) {
	for i, w := range text {
		for _, e := range x.exact[w] {
			if e.phrase[1:].at(text, i+1) {
				f(e, i)
			}
		}
		if len(w) < stemKey {
			continue
		}
		for _, e := range x.stems[w[:stemKey]] {
			if e.phrase.at(text, i) {
				f(e, i)
			}
		}
	}
}

// input is a reply with what was made of it.
type input struct {
	Reply
	class     int
	provider  string
	addressee string // provider of the address in the text
	text      text
}

// match finds the first rule in order that holds, whether only loose phrases of it
// stand there, and whether the text has words that speak against dropping the address.
func (c *Classifier) match(in *input) (hit *rule, loose, doubt, temporary bool) {
	best := len(c.rules)
	take := func(n int, weak bool) {
		r := &c.rules[n]
		if r.flags != 0 {
			doubt = doubt || r.flags&flagDoubt != 0
			temporary = temporary || r.flags&flagTemporary != 0
			return
		}
		switch {
		case n < best && r.holds(in):
			best, loose = n, weak
		case n == best:
			loose = loose && weak
		}
	}
	firm := func(n int, _ bool) { take(n, false) }
	c.prose.places(in.text.prose, func(e entry, at int) {
		if r := &c.rules[e.rule]; !(r.flags == flagDoubt && r.own && c.harmlessOver(in.text.prose, e.phrase, at)) {
			take(e.rule, e.loose)
		}
	})
	c.names.find(in.text.names, firm)
	for _, n := range c.coded {
		if n >= best {
			break
		}
		take(n, false)
	}
	if best < len(c.rules) {
		return &c.rules[best], loose, doubt, temporary
	}
	return &rule{meaning: fallback(in)}, false, doubt, temporary
}

// fallback is the meaning where no rule holds.
func fallback(in *input) string {
	switch {
	case in.Action == "failed" && in.Code == 0 && (in.Enhanced == "" || vague(in.Enhanced)):
		return "undetermined"
	case in.class == 5:
		return "refused"
	case in.class == 0 && in.Action == "":
		return "unclear"
	}
	return "deferred"
}

// holds tells whether the conditions beside the words are met.
func (r *rule) holds(in *input) bool {
	if len(r.Code) > 0 && !slices.ContainsFunc(r.Code, func(s string) bool {
		if len(s) == 1 {
			return in.class == int(s[0]-'0')
		}
		return in.Code == int(s[0]-'0')*100+int(s[1]-'0')*10+int(s[2]-'0')
	}) {
		return false
	}
	if len(r.Enhanced) > 0 && !slices.ContainsFunc(r.Enhanced, func(s string) bool { return enhancedIs(in.Enhanced, s) }) {
		return false
	}
	if len(r.Stage) > 0 && !slices.Contains(r.Stage, in.Stage) || len(r.Provider) > 0 && !slices.Contains(r.Provider, in.provider) && !slices.Contains(r.Provider, in.addressee) {
		return false
	}
	for _, p := range r.unless {
		if p.in(in.text.prose) {
			return false
		}
	}
	return len(r.also) == 0 || slices.ContainsFunc(r.also, func(p phrase) bool { return p.in(in.text.prose) })
}

// doubts tells whether what the rule says is too little to give an address up.
func (r *rule) doubts(enhanced string) bool {
	return r.doubt || len(r.Certain) > 0 && !slices.ContainsFunc(r.Certain, func(s string) bool { return enhancedIs(enhanced, s) })
}

// enhancedIs compares an enhanced code with one of a rule: "5.1.1", "x.1.1" for
// either class, "5.7.*", a range of details "5.7.606-649", or "-" for none, or one
// that says the class only.
func enhancedIs(code, pattern string) bool {
	if code == "" || pattern == "-" {
		return pattern == "-" && (code == "" || vague(code))
	}
	if strings.HasPrefix(pattern, "x.") {
		code, pattern = code[1:], pattern[1:]
	}
	if all, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(code, all)
	}
	if from, to, ok := strings.Cut(pattern, "-"); ok {
		dot := strings.LastIndexByte(from, '.')
		detail, ok := strings.CutPrefix(code, from[:dot+1])
		return ok && len(detail) == len(to) && detail >= from[dot+1:] && detail <= to
	}
	return code == pattern
}

// Provider gives the public name of the service that a recipient's domain or a
// mail host belongs to; empty where neither is known.
func (c *Classifier) Provider(domain, host string) string {
	if p := c.byDomain[strings.ToLower(domain)]; p != "" {
		return p
	}
	return bySuffix(c.byHost, strings.ToLower(strings.TrimSuffix(host, ".")))
}

// provider names who spoke: by the recipient's domain where that is a provider's
// own, else by the host, else by names and words in the text.
func (c *Classifier) provider(r Reply, t text) string {
	if p := c.Provider(r.domain(), r.Host); p != "" {
		return p
	}
	found := -1
	c.byWord.find(t.prose, func(n int, _ bool) {
		if found < 0 || n < found {
			found = n
		}
	})
	if found >= 0 {
		return c.brands[found]
	}
	for _, h := range t.hosts {
		if p := bySuffix(c.byHost, h); p != "" {
			return p
		}
	}
	return ""
}

// addressee names the provider of the only mail address in the text, most likely the
// recipient's. That does not tell who spoke.
func (c *Classifier) addressee(t text) string {
	if len(t.mails) != 1 {
		return ""
	}
	return c.byDomain[strings.Trim(t.mails[0], ".")]
}

// bySuffix looks a host up by its longest known suffix of labels.
func bySuffix(m map[string]string, host string) string {
	for host != "" {
		if p, ok := m[host]; ok {
			return p
		}
		_, rest, ok := strings.Cut(host, ".")
		if !ok {
			return ""
		}
		host = rest
	}
	return ""
}
