package smtp

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const upperHex = "0123456789ABCDEF"

var errXtext = errors.New("bad xtext: \"+\" and two hexadecimal digits, or printable ASCII without \"=\", are wanted")

// xchar tells whether c stands for itself in xtext (RFC 3461 section 4).
func xchar(c byte) bool { return c > ' ' && c <= '~' && c != '+' && c != '=' }

// AppendXtext appends s as xtext (RFC 3461 section 4), the form of ENVID and AUTH.
func AppendXtext(b []byte, s string) []byte {
	for i := range len(s) {
		c := s[i]
		if xchar(c) {
			b = append(b, c)
			continue
		}
		b = append(b, '+', upperHex[c>>4], upperHex[c&15])
	}
	return b
}

// DecodeXtext reads xtext. It takes lower case digits too.
func DecodeXtext(s string) (string, error) {
	if !strings.ContainsAny(s, "+=") && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0 {
		return s, nil
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if xchar(s[i]) {
			b = append(b, s[i])
			continue
		}
		if s[i] != '+' || i+2 >= len(s) {
			return "", errXtext
		}
		v, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", errXtext
		}
		b = append(b, byte(v))
		i += 2
	}
	return string(b), nil
}

// AppendORcpt appends an original recipient, "type;address", as the value of
// ORCPT (RFC 3461 section 4.2). An address that is not ASCII is written with the
// type utf-8 and its characters as \x{…}, the form that every server with DSN can
// take (RFC 6533 section 3).
func AppendORcpt(b []byte, orcpt string) []byte {
	kind, addr, ok := strings.Cut(orcpt, ";")
	if !ok {
		kind, addr = "rfc822", orcpt
	}
	if !strings.EqualFold(kind, "utf-8") && ascii(addr) {
		b = append(AppendXtext(b, kind), ';')
		return AppendXtext(b, addr)
	}
	b = append(b, "utf-8;"...)
	for _, c := range addr {
		if c < utf8.RuneSelf && xchar(byte(c)) && c != '\\' {
			b = append(b, byte(c))
			continue
		}
		b = fmt.Appendf(b, `\x{%02X}`, c)
	}
	return b
}

// DecodeORcpt reads the value of ORCPT and gives it back as "type;address".
func DecodeORcpt(s string) (string, error) {
	kind, addr, ok := strings.Cut(s, ";")
	if !ok || kind == "" || addr == "" {
		return "", errors.New("bad ORCPT: a type, a semicolon and an address are wanted, as in rfc822;joe@example.com")
	}
	kind, err := DecodeXtext(kind)
	if err != nil {
		return "", err
	}
	if !strings.EqualFold(kind, "utf-8") {
		addr, err = DecodeXtext(addr)
	} else {
		addr, err = decodeUTF8Address(addr)
	}
	if err != nil {
		return "", err
	}
	if !utf8.ValidString(addr) || strings.ContainsFunc(kind+addr, unicode.IsControl) {
		return "", errors.New("bad ORCPT: UTF-8 without control characters is wanted")
	}
	return kind + ";" + addr, nil
}

// decodeUTF8Address reads utf-8-enc-addr in any of its three forms (RFC 6533
// section 3).
func decodeUTF8Address(s string) (string, error) {
	bad := errors.New(`bad ORCPT: \x{ and hexadecimal digits and } are wanted after a backslash`)
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, `\x{`)
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		hex, after, ok := strings.Cut(rest, "}")
		if !ok || len(hex) < 2 || len(hex) > 6 {
			return "", bad
		}
		v, err := strconv.ParseUint(hex, 16, 32)
		if err != nil || !utf8.ValidRune(rune(v)) {
			return "", bad
		}
		b.WriteRune(rune(v))
		s = after
	}
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
