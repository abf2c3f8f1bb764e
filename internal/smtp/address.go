package smtp

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Limits of RFC 5321 section 4.5.3.1, in octets.
const (
	maxLocal  = 64
	maxDomain = 255
	maxPath   = 254 // 256 with the brackets
)

// Errors that a server answers in a way of their own.
var (
	// ErrNonASCII is an address that needs SMTPUTF8 (RFC 6531) where it was not
	// asked for.
	ErrNonASCII = errors.New("the address has characters beyond ASCII, which need SMTPUTF8")
	// ErrNoDomain is an address without a domain.
	ErrNoDomain = errors.New("the address has no domain: user@domain is wanted")
)

// Address is a mailbox (RFC 5321 section 4.1.2). The zero Address stands for
// the null reverse-path, <>.
type Address struct {
	Local  string // without quotes and escapes
	Domain string // as written; an address literal keeps its brackets
}

// IsZero tells whether the address is the null reverse-path.
func (a Address) IsZero() bool { return a == Address{} }

// IsLiteral tells whether the domain is an address literal, "[192.0.2.1]".
func (a Address) IsLiteral() bool { return strings.HasPrefix(a.Domain, "[") }

// IsASCII tells whether the address can be sent without SMTPUTF8.
func (a Address) IsASCII() bool { return ascii(a.Local) && ascii(a.Domain) }

// String gives the address as it stands between the brackets of a path, quoted
// where it must be. The null reverse-path is empty.
func (a Address) String() string {
	if a.IsZero() {
		return ""
	}
	if isDotString(a.Local) {
		return a.Local + "@" + a.Domain
	}
	var b strings.Builder
	b.Grow(len(a.Local) + len(a.Domain) + 4)
	b.WriteByte('"')
	for i := range len(a.Local) {
		if c := a.Local[i]; c == '"' || c == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(a.Local[i])
	}
	b.WriteString(`"@`)
	b.WriteString(a.Domain)
	return b.String()
}

// ASCIIDomain gives the domain in lower case and as A-labels (RFC 5891), fit
// for the DNS and for comparing. Address literals are an error.
func (a Address) ASCIIDomain() (string, error) { return ASCIIDomain(a.Domain) }

// ASCIIDomainOf gives the domain of an address as text, as ASCIIDomain does, without
// a dot at its end; empty: it has none.
func ASCIIDomainOf(address string) string {
	a, err := ParseAddress(address, true)
	if err != nil {
		return ""
	}
	name, err := a.ASCIIDomain()
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(name, ".")
}

// ASCIIDomain gives a domain in lower case and as A-labels (RFC 5891).
func ASCIIDomain(domain string) (string, error) {
	if strings.HasPrefix(domain, "[") {
		return "", fmt.Errorf("%s is an address literal, not a domain", domain)
	}
	if ascii(domain) && !strings.Contains(strings.ToLower(domain), "xn--") {
		if err := checkDomain(domain); err != nil {
			return "", err
		}
		return strings.ToLower(domain), nil
	}
	// Not strict about underscores, as checkDomain is not.
	p := idna.New(idna.MapForLookup(), idna.BidiRule(), idna.Transitional(false),
		idna.StrictDomainName(false), idna.VerifyDNSLength(true))
	s, err := p.ToASCII(domain)
	if err != nil {
		return "", fmt.Errorf("domain %q is not valid: %w", domain, err)
	}
	if err := checkDomain(s); err != nil { // mapping may have made dots or digits
		return "", err
	}
	return s, nil
}

// ParseAddress reads a mailbox without brackets, and nothing after it. With
// utf8 it takes what RFC 6531 adds; without it, such an address is ErrNonASCII.
func ParseAddress(s string, utf8 bool) (Address, error) {
	a, rest, err := scanMailbox(s, utf8)
	if err == nil && rest != "" {
		return Address{}, fmt.Errorf("unexpected %q after the address", clip(rest))
	}
	return a, err
}

// ParsePath reads a reverse-path or forward-path at the beginning of s and
// gives what follows it. A source route, "<@a,@b:user@c>", is dropped (RFC 5321
// appendix C). Spaces before the path and missing brackets are forgiven, as
// many clients send them. "<>" is the zero Address.
func ParsePath(s string, utf8 bool) (a Address, rest string, err error) {
	s = strings.TrimLeft(s, " ")
	if !strings.HasPrefix(s, "<") {
		if s == "" {
			return Address{}, "", errors.New("an address in angle brackets is wanted")
		}
		a, rest, err = scanMailbox(s, utf8)
	} else if strings.HasPrefix(s, "<>") {
		rest = s[2:]
	} else {
		s = strings.Trim(s[1:], " ") // "< user@domain >" is common enough
		if s, err = skipRoute(s); err != nil {
			return Address{}, "", err
		}
		a, rest, err = scanMailbox(s, utf8)
		if err == nil {
			rest = strings.TrimLeft(rest, " ")
			if !strings.HasPrefix(rest, ">") {
				return Address{}, "", errors.New("the address has no closing angle bracket, or has characters that it may not have")
			}
			rest = rest[1:]
		}
	}
	if err != nil {
		return Address{}, "", err
	}
	if rest != "" && rest[0] != ' ' {
		return Address{}, "", fmt.Errorf("unexpected %q after the address", clip(rest))
	}
	return a, strings.Trim(rest, " "), nil
}

// skipRoute drops "@a,@b:".
func skipRoute(s string) (string, error) {
	if !strings.HasPrefix(s, "@") {
		return s, nil
	}
	route, rest, ok := strings.Cut(s, ":")
	if !ok || len(route) > maxPath {
		return "", errors.New("the source route has no end")
	}
	for hop := range strings.SplitSeq(route, ",") {
		if !strings.HasPrefix(hop, "@") || checkDomain(hop[1:]) != nil {
			return "", errors.New("the source route is not valid")
		}
	}
	return rest, nil
}

// scanMailbox reads local-part@domain at the beginning of s.
func scanMailbox(s string, utf8 bool) (a Address, rest string, err error) {
	local, rest, err := scanLocal(s)
	if err != nil {
		return Address{}, "", err
	}
	if len(s)-len(rest) > maxLocal {
		return Address{}, "", fmt.Errorf("the part before the @ is longer than %d octets", maxLocal)
	}
	if !strings.HasPrefix(rest, "@") {
		if rest == "" || rest[0] == '>' || rest[0] == ' ' {
			return Address{}, "", ErrNoDomain
		}
		return Address{}, "", fmt.Errorf("the part before the @ may not have %q unquoted", clip(rest[:1]))
	}
	rest = rest[1:]
	n := 0
	if strings.HasPrefix(rest, "[") {
		if n = strings.IndexByte(rest, ']') + 1; n == 0 {
			return Address{}, "", errors.New("the address literal has no closing bracket")
		}
	} else {
		for n < len(rest) && (isDomainByte(rest[n]) || rest[n] == '.') {
			n++
		}
	}
	a = Address{Local: local, Domain: rest[:n]}
	if n == 0 {
		return Address{}, "", ErrNoDomain
	}
	if a.IsLiteral() {
		err = checkLiteral(a.Domain)
	} else {
		err = checkDomain(a.Domain)
	}
	rest = rest[n:]
	switch {
	case err != nil:
		return Address{}, "", err
	case len(s)-len(rest) > maxPath:
		return Address{}, "", fmt.Errorf("the address is longer than %d octets", maxPath)
	case !a.IsASCII() && !utf8:
		return Address{}, "", ErrNonASCII
	case !validUTF8(a):
		return Address{}, "", errors.New("the address is not UTF-8")
	case strings.ContainsFunc(a.Local, isLineOrControl):
		return Address{}, "", errors.New("the address has a control character")
	}
	if !ascii(a.Domain) { // U-labels without A-labels could not be looked up
		if _, err := ASCIIDomain(a.Domain); err != nil {
			return Address{}, "", err
		}
	}
	return a, rest, nil
}

// scanLocal reads a local part, gives it unquoted, and what follows it.
func scanLocal(s string) (local, rest string, err error) {
	if !strings.HasPrefix(s, `"`) {
		n := 0
		for n < len(s) && (isAtext(s[n]) || s[n] == '.') {
			n++
		}
		if n == 0 {
			if strings.HasPrefix(s, "@") {
				return "", "", errors.New("the address has nothing before the @")
			}
			return s, s, nil // the caller names the character
		}
		if !isDotString(s[:n]) {
			return "", "", errors.New("the part before the @ may not begin or end with a dot or have two in a row; put it into quotes")
		}
		return s[:n], s[n:], nil
	}
	var b []byte
	for i := 1; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '"':
			return string(b), s[i+1:], nil
		case c == '\\' && i+1 < len(s):
			i++
			c = s[i]
		}
		if c < ' ' || c == 0x7f {
			return "", "", errors.New("the quoted part before the @ has a control character")
		}
		if c == '<' || c == '>' { // legal, but no client of ours could send it on
			return "", "", errors.New("the quoted part before the @ has an angle bracket, at which too many servers end the address")
		}
		b = append(b, c)
	}
	return "", "", errors.New("the quoted part before the @ has no closing quote")
}

// checkDomain takes what RFC 5321 section 4.1.2 takes, U-labels (RFC 6531), and
// the underscores that some networks have in host names. A last label of digits
// alone is an address without brackets, never a domain (RFC 3696 section 2).
func checkDomain(s string) error {
	if s == "" || len(s) > maxDomain {
		return fmt.Errorf("a domain has 1 to %d octets", maxDomain)
	}
	last := ""
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 && ascii(label) {
			return fmt.Errorf("the domain %q has an empty or over-long part", clip(s))
		}
		if label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Errorf("a part of the domain %q begins or ends with a hyphen", clip(s))
		}
		for i := range len(label) {
			if !isDomainByte(label[i]) {
				return fmt.Errorf("the domain %q has a character that no domain has", clip(s))
			}
		}
		last = label
	}
	if strings.Trim(last, "0123456789") == "" {
		return fmt.Errorf("%q is not a domain: its last part is a number", clip(s))
	}
	return nil
}

// checkLiteral takes the address literals of RFC 5321 section 4.1.3.
func checkLiteral(s string) error {
	text := s[1 : len(s)-1]
	v6 := len(text) > 5 && strings.EqualFold(text[:5], "IPv6:")
	if v6 {
		text = text[5:]
	}
	ip, err := netip.ParseAddr(text)
	if err != nil || ip.Is4() == v6 || ip.Zone() != "" {
		return fmt.Errorf("%q is not an address literal", clip(s))
	}
	return nil
}

// isLineOrControl tells whether somebody may take r for a line end or a command,
// as terminals take C1 controls.
func isLineOrControl(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' }

func validUTF8(a Address) bool { return utf8.ValidString(a.Local) && utf8.ValidString(a.Domain) }

func isDotString(s string) bool {
	if s == "" || s[0] == '.' || s[len(s)-1] == '.' {
		return false
	}
	for i := range len(s) {
		if s[i] == '.' && s[i-1] == '.' || s[i] != '.' && !isAtext(s[i]) {
			return false
		}
	}
	return true
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// isAtext is atext of RFC 5322 section 3.2.3, with RFC 6531's bytes.
func isAtext(c byte) bool {
	return isAlnum(c) || c >= utf8.RuneSelf || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

func isDomainByte(c byte) bool {
	return isAlnum(c) || c == '-' || c == '_' || c >= utf8.RuneSelf
}

// clip shortens what a peer sent, for a text that quotes it.
func clip(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
