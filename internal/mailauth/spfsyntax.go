package mailauth

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// The grammar of a record (RFC 7208 section 12). Macro letters that explanations
// alone may use are no part of a domain.
const (
	spfMacro   = `%(?:\{[slodiphvSLODIPHV](?:[1-9][0-9]*)?[rR]?[-.+,/_=]*\}|[%_-])`
	spfAnyText = `(?:[!-$&-~]|%(?:\{[a-zA-Z][0-9]*[rR]?[-.+,/_=]*\}|[%_-]))*`
	spfDomain  = `(?:[!-$&-~]|` + spfMacro + `)*(?:\.(?:[0-9]*[a-zA-Z][0-9a-zA-Z]*|[0-9a-zA-Z]+-[0-9a-zA-Z-]*[0-9a-zA-Z])\.?|` + spfMacro + `)`
)

var (
	spfNamed    = regexp.MustCompile(`^` + spfDomain + `$`)
	spfOptional = regexp.MustCompile(`^(?::(` + spfDomain + `))??(?:/([0-9]+))?(?://([0-9]+))?$`)
	spfModifier = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9._-]*=` + spfAnyText + `$`)
)

// checkSPF finds the first mistake in a record, wherever it stands: a record with
// one counts for nothing (RFC 7208 section 4.6). The error is for people.
func checkSPF(record string) error {
	for _, c := range []byte(record) {
		if c < ' ' || c > '~' {
			return errors.New("the SPF record has a control character, or one that is not of ASCII")
		}
	}
	once := map[string]bool{}
	for _, term := range strings.Split(record, " ")[1:] {
		if term == "" {
			continue
		}
		if err := checkTerm(term); err != nil {
			return err
		}
		for _, name := range []string{"redirect=", "exp="} {
			if len(term) >= len(name) && strings.EqualFold(term[:len(name)], name) {
				if once[name] {
					return fmt.Errorf("the SPF record has %s twice", name)
				}
				once[name] = true
			}
		}
	}
	return nil
}

func checkTerm(term string) error {
	bad := fmt.Errorf("the SPF record has a term that can't be read: %.100q", term)
	bare := term
	if strings.IndexByte("+-~?", term[0]) >= 0 {
		bare = term[1:]
	}
	end := strings.IndexAny(bare, ":/=")
	name, rest := bare, ""
	if end >= 0 {
		name, rest = bare[:end], bare[end:]
	}
	name = strings.ToLower(name)
	ok := false
	switch {
	case strings.HasPrefix(rest, "="):
		ok = bare == term && spfModifier.MatchString(term)
		if name == "redirect" || name == "exp" {
			ok = ok && spfNamed.MatchString(rest[1:])
		}
	case name == "all":
		ok = rest == ""
	case name == "include", name == "exists":
		ok = strings.HasPrefix(rest, ":") && spfNamed.MatchString(rest[1:])
	case name == "ptr":
		ok = rest == "" || rest[0] == ':' && spfNamed.MatchString(rest[1:])
	case name == "a", name == "mx":
		m := spfOptional.FindStringSubmatch(rest)
		ok = m != nil && prefixLength(m[2], 32) && prefixLength(m[3], 128)
	case name == "ip4", name == "ip6":
		ok = strings.HasPrefix(rest, ":") && ipNetwork(name, rest[1:])
	default:
		return fmt.Errorf("the SPF record has a word that SPF does not know: %.100q", term)
	}
	if !ok {
		return bad
	}
	return nil
}

// prefixLength tells whether s is the length of a prefix, or nothing.
func prefixLength(s string, most int) bool {
	n, err := strconv.Atoi(s)
	return s == "" || err == nil && n <= most && (s == "0" || s[0] != '0')
}

func ipNetwork(name, s string) bool {
	s, length, cut := strings.Cut(s, "/")
	addr, err := netip.ParseAddr(s)
	if err != nil || addr.Zone() != "" || cut && length == "" {
		return false
	}
	if name == "ip4" {
		return addr.Is4() && prefixLength(length, 32)
	}
	return !addr.Is4() && prefixLength(length, 128)
}
