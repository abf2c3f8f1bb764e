package message

import (
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"
)

// Trace is what a Received field says about one hand-over. Values may come from
// the peer: they are made safe where they are written.
type Trace struct {
	Helo     string     // what the client called itself; may be empty
	Client   netip.Addr // may be invalid: then it is left out
	Host     string     // our own name
	Protocol string     // "ESMTPSA" and kin (RFC 3848, RFC 6531), or "HTTP"
	ID       string     // ours for the message
	TLS      string     // version and cipher for a comment; may be empty
	For      string     // the recipient's address; empty where there are several, as one must not learn of the others
	UTF8     bool       // SMTPUTF8 was asked for, so For may have bytes above 127
	Time     time.Time
}

// Received composes the trace field, folded, with its line ends (RFC 5321
// section 4.4).
func Received(t Trace) []byte {
	b := make([]byte, 0, 256)
	b = append(b, "Received: "...)
	literal := addressLiteral(t.Client)
	switch helo := heloName(t.Helo); {
	case helo != "":
		b = append(append(b, "from "...), helo...)
		if literal != "" {
			b = append(append(append(b, " ("...), literal...), ')')
		}
		b = append(b, "\r\n\t"...)
	case literal != "":
		b = append(append(append(b, "from "...), literal...), "\r\n\t"...)
	}
	b = append(append(b, "by "...), atom(t.Host, "localhost")...)
	b = append(append(b, " with "...), atom(t.Protocol, "SMTP")...)
	if tls := keep(t.TLS, " ._-"); tls != "" {
		b = append(append(append(b, " ("...), tls...), ')')
	}
	b = append(append(b, "\r\n\tid "...), atom(t.ID, "none")...)
	if t.For != "" && plainAddress(t.For, t.UTF8) {
		b = append(append(append(b, "\r\n\tfor <"...), t.For...), '>')
	}
	b = append(b, ";\r\n\t"...)
	b = appendDate(b, t.Time)
	return append(b, "\r\n"...)
}

// FormatDate writes the time as the Date field wants it, in t's zone (RFC 5322
// section 3.3).
func FormatDate(t time.Time) string { return string(appendDate(nil, t)) }

func appendDate(b []byte, t time.Time) []byte {
	return t.AppendFormat(b, "Mon, 02 Jan 2006 15:04:05 -0700")
}

// NewMessageID makes the value of a Message-ID field, with its brackets, of an
// id and the name of the host that vouches for it (RFC 5322 section 3.6.4).
func NewMessageID(id, host string) string {
	return "<" + atom(id, "none") + "@" + atom(host, "localhost") + ">"
}

// addressLiteral writes an address by RFC 5321 section 4.1.3.
func addressLiteral(a netip.Addr) string {
	switch a = a.Unmap().WithZone(""); {
	case a.Is4():
		return "[" + a.String() + "]"
	case a.Is6():
		return "[IPv6:" + a.String() + "]"
	}
	return ""
}

// heloName makes a client's name safe to stand in a field: a host name or an
// address literal stays as it is.
func heloName(s string) string {
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		inner := strings.TrimPrefix(s[1:len(s)-1], "IPv6:")
		if a, err := netip.ParseAddr(inner); err == nil && a.Zone() == "" {
			return s
		}
	}
	return keep(s, "._-")
}

// atom is s with what cannot stand in a dot-atom replaced, or another word where
// nothing is left.
func atom(s, otherwise string) string {
	if s = strings.Trim(keep(s, "._-+"), "."); s == "" {
		return otherwise
	}
	return strings.ReplaceAll(s, "..", ".?")
}

// keep replaces every character of s but ASCII letters, digits and the extra
// ones by a question mark, and cuts it to 255 characters.
func keep(s, extra string) string {
	n := 0
	return strings.Map(func(r rune) rune {
		switch n++; {
		case n > 255:
			return -1
		case 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9':
			return r
		case r < utf8.RuneSelf && strings.ContainsRune(extra, r):
			return r
		}
		return '?'
	}, s)
}

// plainAddress tells whether an address can be written between angle brackets
// without any quoting.
func plainAddress(s string, allowUTF8 bool) bool {
	if len(s) > 320 || !utf8.ValidString(s) || strings.Count(s, "[") != strings.Count(s, "]") {
		return false
	}
	for _, r := range s {
		if r <= ' ' || r == 0x7f || strings.ContainsRune(`<>()"\;,`, r) {
			return false
		}
		// C1 controls and line separators are not for header fields either.
		if r >= utf8.RuneSelf && (!allowUTF8 || r < 0xa0 || r == '\u2028' || r == '\u2029') {
			return false
		}
	}
	return true
}
