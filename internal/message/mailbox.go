package message

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"postrider/internal/smtp"
)

const (
	maxMailboxes = 100 // in the fields of one name
	maxMailbox   = 320 // octets: local part 64, "@", domain 255
)

// Mailboxes are what the header fields of one name hold.
type Mailboxes struct {
	Fields  int            // how many of them there are
	List    []smtp.Address // of all of them, in their order
	Problem string         // why not all could be read, as the end of a sentence; empty: they could
}

// add reads one field more.
func (m *Mailboxes) add(value []byte) {
	m.Fields++
	list, err := ParseMailboxes(value)
	m.List = append(m.List, list...)
	if len(m.List) > maxMailboxes {
		m.List, err = m.List[:maxMailboxes], errManyMailboxes
	}
	if err != nil && m.Problem == "" {
		m.Problem = err.Error()
	}
}

var errManyMailboxes = fmt.Errorf("it has more than %d addresses", maxMailboxes)

// ParseMailboxes reads a list of mailboxes and groups (RFC 5322 section 3.4, RFC
// 6854), names and comments left out. It gives what it has read before an error;
// the error's text is for people.
//
// It is there to find out in whose name a message speaks, so it takes nothing in
// which another program may find another address: what is not closed, a route,
// special characters out of their place. Where an address stands in the place of
// a name, as many a client writes it ("ann@example.com <ann@example.com>"), both
// are given.
func ParseMailboxes(value []byte) ([]smtp.Address, error) {
	p := mailboxParser{s: string(value)}
	err := p.list()
	return p.found, err
}

type mailboxParser struct {
	s     string
	i     int
	group bool // we are in one
	found []smtp.Address
}

// peek is the next byte, or 0 at the end; a zero byte in the text is refused
// wherever it comes.
func (p *mailboxParser) peek() byte {
	if p.i < len(p.s) {
		return p.s[p.i]
	}
	return 0
}

func (p *mailboxParser) list() error {
	separated := true
	for {
		if err := p.space(); err != nil {
			return err
		}
		switch c := p.peek(); {
		case p.i == len(p.s):
			if p.group {
				return errors.New("a group in it has no end")
			}
			return nil
		case c == ',': // empty members of a list are an old form (section 4.4)
			p.i++
			separated = true
		case c == ';' && p.group:
			p.i++
			p.group, separated = false, false
		case !separated:
			return p.stray()
		default:
			opened, err := p.address()
			if err != nil {
				return err
			}
			if len(p.found) > maxMailboxes {
				return errManyMailboxes
			}
			separated = opened
		}
	}
}

// address reads a mailbox, or the name of a group, which it opens.
func (p *mailboxParser) address() (opened bool, err error) {
	begin := p.i
	var word string // the last one
	words := 0
	for {
		if err := p.space(); err != nil {
			return false, err
		}
		switch c := p.peek(); {
		case c == '"':
			word, err = p.quoted()
		case c == '[' && words == 0: // not legal, but "[Shop] Ann <…>" is common, and nobody's address
			words++
			err = p.bracketed()
		case isAtom(c):
			word = p.atom()
		case c == '@' && words == 1:
			return false, p.bare(word)
		case c == '<':
			return false, p.angle()
		case c == ':' && words > 0 && !p.group:
			p.i++
			p.group = true
			return true, nil
		case p.i == len(p.s) || c == ',' || c == ';':
			return false, fmt.Errorf("%q is no address; a name with a comma in it stands in quotes", Clean(p.s[begin:min(p.i, begin+200)], 60))
		default:
			return false, p.stray()
		}
		if err != nil {
			return false, err
		}
		words++
	}
}

// bare reads the rest of an address without angle brackets, of which the local
// part is known.
func (p *mailboxParser) bare(local string) error {
	if err := p.domain(local); err != nil {
		return err
	}
	if err := p.space(); err != nil {
		return err
	}
	if p.peek() == '<' { // the address was meant as a name
		return p.angle()
	}
	return nil
}

// angle reads an address in angle brackets. A route in it is refused: not all
// programs know that it is not the address (section 4.4).
func (p *mailboxParser) angle() error {
	p.i++
	if err := p.space(); err != nil {
		return err
	}
	var local string
	var err error
	switch c := p.peek(); {
	case c == '"':
		local, err = p.quoted()
	case isAtom(c):
		local = p.atom()
	case c == '>':
		return errors.New("the angle brackets in it are empty")
	default:
		return p.stray()
	}
	if err == nil {
		err = p.space()
	}
	if err != nil {
		return err
	}
	if p.peek() != '@' {
		return fmt.Errorf("the address %q has no domain", Clean(local[:min(len(local), 200)], 60))
	}
	if err := p.domain(local); err != nil {
		return err
	}
	if err := p.space(); err != nil {
		return err
	}
	if p.peek() != '>' {
		return errors.New("an angle bracket in it is not closed")
	}
	p.i++
	return nil
}

// domain reads "@" and a domain, and notes the address.
func (p *mailboxParser) domain(local string) error {
	p.i++
	if err := p.space(); err != nil {
		return err
	}
	begin := p.i
	switch c := p.peek(); {
	case c == '[':
		if err := p.bracketed(); err != nil {
			return err
		}
	case isAtom(c):
		p.atom()
	default:
		return fmt.Errorf("the address %q has no domain", Clean(local[:min(len(local), 200)], 60))
	}
	a := smtp.Address{Local: local, Domain: p.s[begin:p.i]}
	if len(a.Local)+len(a.Domain) >= maxMailbox {
		return fmt.Errorf("it has an address of more than %d octets", maxMailbox)
	}
	if !utf8.ValidString(a.Local) || !utf8.ValidString(a.Domain) {
		return errors.New("it has an address in another charset than UTF-8")
	}
	p.found = append(p.found, a)
	return nil
}

// space passes white space and comments.
func (p *mailboxParser) space() error {
	for ; p.i < len(p.s); p.i++ {
		switch c := p.s[p.i]; {
		case c == ' ' || c == '\t' || c == '\n':
		case c == '\r' && p.i+1 < len(p.s) && p.s[p.i+1] == '\n':
		case c == '(':
			n := commentLen([]byte(p.s[p.i:]))
			if p.s[p.i+n-1] != ')' || !closed(p.s[p.i:p.i+n]) {
				return errors.New("a comment in it is not closed")
			}
			if hasControl(p.s[p.i : p.i+n]) {
				return errControl
			}
			p.i += n - 1
		default:
			return nil
		}
	}
	return nil
}

// closed tells whether a comment that goes to the end of s is over there.
func closed(s string) bool {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			depth--
		}
	}
	return depth == 0
}

func (p *mailboxParser) atom() string {
	begin := p.i
	for p.i < len(p.s) && isAtom(p.s[p.i]) {
		p.i++
	}
	return p.s[begin:p.i]
}

// quoted reads a quoted string and gives what it says (section 3.2.4).
func (p *mailboxParser) quoted() (string, error) {
	begin := p.i + 1
	escaped := false
	for p.i++; p.i < len(p.s); p.i++ {
		switch p.s[p.i] {
		case '\\':
			escaped = true
			p.i++
		case '"':
			s := p.s[begin:p.i]
			p.i++
			if hasControl(s) {
				return "", errControl
			}
			if escaped {
				s = unescape(s)
			}
			return s, nil
		}
	}
	return "", errors.New("a quote in it is not closed")
}

func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// bracketed passes "[…]": a domain literal.
func (p *mailboxParser) bracketed() error {
	n := strings.IndexByte(p.s[p.i:], ']')
	if n < 0 {
		return errors.New("a bracket in it is not closed")
	}
	if strings.ContainsAny(p.s[p.i+1:p.i+n], "\\[<>@\"()") || hasControl(p.s[p.i:p.i+n]) {
		return p.stray()
	}
	p.i += n + 1
	return nil
}

var errControl = errors.New("it has a control character")

// hasControl tells whether s has a control character other than those of a fold.
func hasControl(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c < ' ' && c != '\t' && c != '\n' && (c != '\r' || i+1 == len(s) || s[i+1] != '\n') || c == 0x7f {
			return true
		}
	}
	return false
}

// stray says what stands where it may not.
func (p *mailboxParser) stray() error {
	_, n := utf8.DecodeRuneInString(p.s[p.i:])
	if c := p.s[p.i : p.i+n]; !hasControl(c) && n > 0 {
		return fmt.Errorf("%q may not stand before %q in it; a name with such a character stands in quotes", c, Clean(p.s[p.i+n:min(len(p.s), p.i+200)], 40))
	}
	return errControl
}

// isAtom takes atext and the dot (RFC 5322 section 3.2.3), and RFC 6532's bytes.
func isAtom(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c >= utf8.RuneSelf ||
		c != 0 && strings.IndexByte("!#$%&'*+-./=?^_`{|}~", c) >= 0
}
