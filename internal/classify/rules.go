package classify

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/pelletier/go-toml/v2"
)

//go:embed rules.toml
var ownRules []byte

// Classifier holds compiled rules. It is safe for concurrent use.
type Classifier struct {
	rules        []rule
	meanings     map[string]meaning
	prose        index
	names        index
	coded        []int // rules without words, in order
	byDomain     map[string]string
	byHost       map[string]string
	byWord       index
	brands       []string // provider of each phrase in byWord
	classes      map[string]*wordClass
	guess        *guesser // asked where rules say little; nil: nobody
	concepts     index
	conceptNames []string
	harmless     wordClass

	harmlessPhrases []phrase
}

// meaning is one thing that a reply can mean, with its words.
type meaning struct {
	Category string `toml:"category"` // empty: its own name
	Kind     Kind   `toml:"kind"`
	Retry    bool   `toml:"retry"`
	Suppress bool   `toml:"suppress"`
	What     string `toml:"what"`
	Why      string `toml:"why"`
	Do       string `toml:"do"`
	Turn     string `toml:"turn"`
}

// written is a rule as it stands in a file.
type written struct {
	Meaning  string   `toml:"meaning"`
	Words    []string `toml:"words"`
	Names    []string `toml:"names"`
	Also     []string `toml:"also"`
	Unless   []string `toml:"unless"`
	Code     []string `toml:"code"`
	Enhanced []string `toml:"enhanced"`
	Stage    []string `toml:"stage"`
	Provider []string `toml:"provider"`
	Kind     Kind     `toml:"kind"`
	Retry    *bool    `toml:"retry"`
	Suppress *bool    `toml:"suppress"`
	Doubt    bool     `toml:"doubt"`
	Certain  []string `toml:"certain"`
	Vague    bool     `toml:"vague"`
}

type provider struct {
	Name    string   `toml:"name"`
	Hosts   []string `toml:"hosts"`
	Domains []string `toml:"domains"`
	Words   []string `toml:"words"`
}

type file struct {
	Class     map[string][]string `toml:"class"`
	Concept   map[string][]string `toml:"concept"`
	Meaning   map[string]meaning  `toml:"meaning"`
	Provider  []provider          `toml:"provider"`
	Rule      []written           `toml:"rule"`
	Doubt     []string            `toml:"doubt"`
	Temporary []string            `toml:"temporary"`
	Harmless  []string            `toml:"harmless"`
}

// rule is a compiled one.
type rule struct {
	written
	meaning  string
	place    string
	kind     Kind
	retry    *bool
	suppress *bool
	doubt    bool
	also     []phrase
	unless   []phrase
	own      bool  // of this program, not an operator's
	flags    uint8 // of phrases that decide nothing by themselves
}

const (
	flagDoubt uint8 = 1 << iota
	flagTemporary
)

// Builtin gives the classifier with the rules of this program alone.
var Builtin = sync.OnceValue(func() *Classifier {
	c, err := New()
	if err != nil {
		panic(err) // the rules are part of the program; its tests read them
	}
	return c
})

// Load makes a classifier that asks the operator's rules in a file first. An
// empty name is no file.
func Load(name string) (*Classifier, error) {
	if name == "" {
		return Builtin(), nil
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	return New(Source{Name: name, Text: b})
}

// Source is a file of rules.
type Source struct {
	Name string
	Text []byte
}

// New compiles rules. Those of sources are asked before those of this program, in
// the order given.
func New(sources ...Source) (*Classifier, error) {
	c := &Classifier{meanings: map[string]meaning{}, byDomain: map[string]string{}, byHost: map[string]string{}, classes: map[string]*wordClass{}, guess: newGuesser(ownWeights)}
	sources = append(slices.Clip(sources), Source{"rules.toml", ownRules})
	files := make([]file, len(sources))
	for i, s := range sources {
		d := toml.NewDecoder(bytes.NewReader(s.Text)).DisallowUnknownFields()
		if err := d.Decode(&files[i]); err != nil {
			return nil, fmt.Errorf("read rules: %s: %w", s.Name, position(err))
		}
	}
	for i, f := range slices.Backward(files) { // an operator's words replace ours
		for name, members := range f.Class {
			var err error
			if c.classes[name], err = newClass(members); err != nil {
				return nil, fmt.Errorf("read rules: %s: class %q: %w", sources[i].Name, name, err)
			}
		}
		for name, m := range f.Meaning {
			c.meanings[name] = c.merge(name, m)
		}
	}
	if err := c.addConcepts(files); err != nil {
		return nil, err
	}
	for i, f := range files {
		lines := ruleLines(sources[i].Text)
		for _, p := range f.Provider {
			c.addProvider(p)
		}
		for n, w := range f.Rule {
			if err := c.add(w, fmt.Sprintf("%s:%d", sources[i].Name, lines[n]), i == len(sources)-1); err != nil {
				return nil, fmt.Errorf("read rules: %s, line %d: %w", sources[i].Name, lines[n], err)
			}
		}
		if err := c.addHarmless(f); err != nil {
			return nil, fmt.Errorf("read rules: %s: harmless: %w", sources[i].Name, err)
		}
		c.flag(f.Doubt, flagDoubt, i == len(sources)-1)
		c.flag(f.Temporary, flagTemporary, i == len(sources)-1)
	}
	for name, m := range c.meanings {
		if err := m.check(); err != nil {
			return nil, fmt.Errorf("read rules: meaning %q: %w", name, err)
		}
	}
	return c, nil
}

// merge lets an operator's meaning change some of ours.
func (c *Classifier) merge(name string, m meaning) meaning {
	old, known := c.meanings[name]
	if !known {
		if m.Category == "" {
			m.Category = name
		}
		return m
	}
	for _, s := range []struct{ to, from *string }{{&old.Category, &m.Category}, {&old.What, &m.What}, {&old.Why, &m.Why}, {&old.Do, &m.Do}, {&old.Turn, &m.Turn}} {
		if *s.from != "" {
			*s.to = *s.from
		}
	}
	if m.Kind != "" {
		old.Kind, old.Retry, old.Suppress = m.Kind, m.Retry, m.Suppress
	}
	return old
}

func (m meaning) check() error {
	switch {
	case m.Kind != Hard && m.Kind != Soft && m.Kind != Block:
		return fmt.Errorf("kind %q is not hard, soft or block", m.Kind)
	case !slices.Contains(Categories(), m.Category):
		return fmt.Errorf("there is no category %q; one of %s", m.Category, strings.Join(Categories(), ", "))
	case m.What == "" || m.Do == "":
		return errors.New("it lacks what or do")
	case !slices.Contains([]string{"sender", "recipient", "operator", "receiver", "nobody"}, m.Turn):
		return fmt.Errorf("turn %q is not sender, recipient, operator, receiver or nobody", m.Turn)
	}
	return nil
}

// Categories gives the name of every category.
func Categories() []string {
	return []string{"no-such-mailbox", "no-such-domain", "mailbox-disabled", "mailbox-full", "message-too-large",
		"content-or-spam", "phishing-or-virus", "sender-reputation", "address-listed",
		"authentication-failed", "authentication-failed-spf", "authentication-failed-dkim", "authentication-failed-dmarc",
		"authentication-failed-login", "policy", "relaying-denied", "rate-limited", "greylisted", "tls-problem", "dns-problem",
		"connection-problem", "protocol-error", "expired", "auto-reply", "complaint", "delivered", "other"}
}

// position names the line of an error in a file.
func position(err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		row, _ := strict.Errors[0].Position()
		return fmt.Errorf("line %d: there is no key %q", row, strings.Join(strict.Errors[0].Key(), "."))
	}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		row, _ := decode.Position()
		return fmt.Errorf("line %d: %w", row, err)
	}
	return err
}

// ruleLines gives the lines in which rules begin.
func ruleLines(b []byte) (lines []int) {
	n := 0
	for line := range bytes.Lines(b) {
		n++
		if bytes.HasPrefix(bytes.TrimSpace(line), []byte("[[rule]]")) {
			lines = append(lines, n)
		}
	}
	return append(lines, 0) // rules written inline have no line of their own
}

// maxConcepts bounds how many concepts there may be.
const maxConcepts = 64

// addConcepts compiles what replies may speak of. The names are in the order of the
// alphabet, for the model's sake.
func (c *Classifier) addConcepts(files []file) error {
	all := map[string][]string{}
	for _, f := range slices.Backward(files) {
		maps.Copy(all, f.Concept)
	}
	c.conceptNames = slices.Sorted(maps.Keys(all))
	if len(c.conceptNames) > maxConcepts {
		return fmt.Errorf("read rules: there are %d concepts; %d at most", len(c.conceptNames), maxConcepts)
	}
	for n, name := range c.conceptNames {
		for _, s := range all[name] {
			if err := c.concepts.add(compile(s, c.classes), n); err != nil {
				return fmt.Errorf("read rules: concept %q: %q: %w", name, s, err)
			}
		}
	}
	return nil
}

// addHarmless takes the words that may stand beside what says that an address is bad:
// those listed, and those of the rules that say so.
func (c *Classifier) addHarmless(f file) error {
	var single []string
	for _, s := range f.Harmless {
		if p := compile(s, c.classes); slices.ContainsFunc(p, func(w word) bool { return w.gap > 0 }) {
			return fmt.Errorf("%q: what stands in a gap may be anything", s)
		} else if len(p) > 1 {
			c.harmlessPhrases = append(c.harmlessPhrases, p)
		} else {
			single = append(single, s)
		}
	}
	list, err := newClass(single)
	if err != nil {
		return err
	}
	if c.harmless.exact == nil {
		c.harmless.exact = map[string]bool{}
	}
	c.harmless.merge(list)
	for _, r := range f.Rule {
		if !c.meanings[r.Meaning].Suppress || r.Doubt {
			continue
		}
		for _, s := range r.Words {
			for _, w := range compile(s, c.classes) {
				switch {
				case w.class != nil:
					c.harmless.merge(w.class)
				case w.stem:
					c.harmless.stems = append(c.harmless.stems, w.s)
				case w.gap == 0:
					c.harmless.exact[w.s] = true
				}
			}
		}
	}
	return nil
}

func (c *Classifier) addProvider(p provider) {
	put := func(m map[string]string, names []string) {
		for _, n := range names {
			n = strings.TrimPrefix(strings.ToLower(n), ".")
			if _, known := m[n]; !known {
				m[n] = p.Name
			}
		}
	}
	put(c.byHost, p.Hosts)
	put(c.byDomain, p.Domains)
	for _, w := range p.Words {
		c.byWord.add(compile(w, c.classes), len(c.brands))
		c.brands = append(c.brands, p.Name)
	}
}

func (c *Classifier) add(w written, place string, own bool) error {
	if _, known := c.meanings[w.Meaning]; !known {
		return fmt.Errorf("there is no meaning %q", w.Meaning)
	}
	if w.Kind != "" && w.Kind != Hard && w.Kind != Soft && w.Kind != Block {
		return fmt.Errorf("kind %q is not hard, soft or block", w.Kind)
	}
	for _, code := range w.Code {
		if n, err := strconv.Atoi(code); err != nil || !(n == 4 || n == 5 || n >= 200 && n < 600) {
			return fmt.Errorf("code %q is not 4, 5 or a reply code", code)
		}
	}
	r := rule{written: w, meaning: w.Meaning, place: place, own: own, kind: w.Kind, retry: w.Retry, suppress: w.Suppress, doubt: w.Doubt}
	for _, s := range slices.Concat(w.Words, w.Names, w.Also, w.Unless) {
		for f := range strings.FieldsSeq(s) {
			if name, ok := strings.CutPrefix(f, "$"); ok && c.classes[name] == nil {
				return fmt.Errorf("%q: there is no class %q", s, name)
			}
		}
	}
	for _, s := range w.Also {
		r.also = append(r.also, compile(s, c.classes))
	}
	for _, s := range w.Unless {
		r.unless = append(r.unless, compile(s, c.classes))
	}
	n := len(c.rules)
	c.rules = append(c.rules, r)
	for _, s := range w.Words {
		if err := c.prose.add(compile(s, c.classes), n); err != nil {
			return fmt.Errorf("words %q: %w", s, err)
		}
	}
	for _, s := range w.Names {
		if err := c.names.add(compile(s, c.classes), n); err != nil {
			return fmt.Errorf("names %q: %w", s, err)
		}
	}
	if len(w.Words)+len(w.Names) == 0 {
		if len(w.Code)+len(w.Enhanced) == 0 {
			return errors.New("it has neither words, names, code nor enhanced")
		}
		c.coded = append(c.coded, n)
	}
	return nil
}

// flag adds phrases that only weaken what other rules say.
func (c *Classifier) flag(phrases []string, flag uint8, own bool) {
	n := len(c.rules)
	c.rules = append(c.rules, rule{flags: flag, own: own})
	for _, s := range phrases {
		if err := c.prose.add(compile(s, c.classes), n); err != nil {
			continue // an empty phrase weakens nothing
		}
	}
}
