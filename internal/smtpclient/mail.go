package smtpclient

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"postrider/internal/smtp"
)

// Mail is one message to send. What the peer does not offer is not said to it:
// whether a message must then be converted or given up, the caller decides by
// Extensions.
type Mail struct {
	From       string // without brackets; empty for the null sender
	UTF8       bool   // ask for SMTPUTF8 (RFC 6531)
	EightBit   bool   // the content has bytes above 127
	RequireTLS bool   // REQUIRETLS (RFC 8689): refused here unless the peer offers it over verified TLS
	Ret        string // DSN: "FULL", "HDRS" or empty
	EnvID      string // DSN: envelope id, not encoded
	Priority   int    // MT-PRIORITY, -9 to 9
	Size       int64  // bytes of the content; 0: not known
	Rcpts      []Rcpt
	Open       func() (io.ReadCloser, error) // the content; opened once at most
}

// Rcpt is one recipient.
type Rcpt struct {
	Addr   string // without brackets
	Notify string // DSN: "NEVER", or "SUCCESS", "FAILURE", "DELAY" joined by commas; or empty
	ORcpt  string // DSN: "type;address", not encoded; or empty
}

// check refuses what must not or cannot be said to this peer.
func (m *Mail) check(c *Conn) error {
	if len(m.Rcpts) == 0 {
		return smtp.NewReply(554, "5.5.1", "The message has no recipients")
	}
	if err := checkAddress(m.From, c.ext.SMTPUTF8); err != nil {
		return err
	}
	for _, r := range m.Rcpts {
		if r.Addr == "" {
			return smtp.NewReply(553, "5.1.3", "A recipient's address is empty")
		}
		if err := checkAddress(r.Addr, c.ext.SMTPUTF8); err != nil {
			return err
		}
		if r.Notify != "" && !safeWord(r.Notify) {
			return smtp.NewReply(501, "5.5.4", fmt.Sprintf("%q is no value of NOTIFY", r.Notify))
		}
	}
	if m.Ret != "" && !safeWord(m.Ret) {
		return smtp.NewReply(501, "5.5.4", fmt.Sprintf("%q is no value of RET", m.Ret))
	}
	if c.ext.Size > 0 && m.Size > c.ext.Size {
		return smtp.NewReply(552, "5.3.4", fmt.Sprintf("The message has %d bytes, and the receiver takes %d at most", m.Size, c.ext.Size))
	}
	if !m.RequireTLS {
		return nil
	}
	// RFC 8689 section 4.2.1.
	switch {
	case c.tls == nil:
		return smtp.NewReply(550, "5.7.30", "The message asks for REQUIRETLS, and the connection to the receiver has no TLS")
	case !c.tls.Verified:
		return smtp.NewReply(550, "5.7.30", "The message asks for REQUIRETLS, and the receiver's certificate does not verify: "+c.tls.Problem)
	case !c.ext.RequireTLS:
		return smtp.NewReply(550, "5.7.30", "The message asks for REQUIRETLS, which the receiver does not offer")
	}
	return nil
}

// checkAddress refuses an address that would say more than an address: another
// command, or a parameter. A space may stand inside quotes only. Brackets are
// refused even there, where they are legal: too many servers look for the first
// one.
func checkAddress(addr string, utf8OK bool) error {
	quoted, escaped := false, false
	for i := range len(addr) {
		switch c := addr[i]; {
		case c < ' ' || c == 0x7f || c == '<' || c == '>' || c == ' ' && !quoted:
			return smtp.NewReply(553, "5.1.3", fmt.Sprintf("The address %q holds characters that cannot be sent", addr))
		case c >= utf8.RuneSelf && !utf8OK:
			return smtp.NewReply(553, "5.6.7", fmt.Sprintf("The address %q needs SMTPUTF8, which the receiver does not offer", addr))
		case escaped:
			escaped = false
		case c == '\\':
			escaped = quoted
		case c == '"':
			quoted = !quoted
		}
	}
	if quoted || !utf8.ValidString(addr) {
		return smtp.NewReply(553, "5.1.3", fmt.Sprintf("The address %q is malformed", addr))
	}
	return nil
}

func (m *Mail) appendMail(b []byte, e *Extensions) []byte {
	b = append(b, "MAIL FROM:<"...)
	b = append(b, m.From...)
	b = append(b, '>')
	if e.HasSize && m.Size > 0 {
		b = strconv.AppendInt(append(b, " SIZE="...), m.Size, 10)
	}
	if e.EightBitMIME && m.EightBit {
		b = append(b, " BODY=8BITMIME"...)
	}
	if e.SMTPUTF8 && (m.UTF8 || m.wide()) {
		b = append(b, " SMTPUTF8"...)
	}
	if m.RequireTLS {
		b = append(b, " REQUIRETLS"...)
	}
	if e.DSN {
		if m.Ret != "" {
			b = append(append(b, " RET="...), m.Ret...)
		}
		if m.EnvID != "" {
			b = smtp.AppendXtext(append(b, " ENVID="...), m.EnvID)
		}
	}
	if e.MTPriority && m.Priority != 0 {
		b = strconv.AppendInt(append(b, " MT-PRIORITY="...), int64(m.Priority), 10)
	}
	return append(b, '\r', '\n')
}

func (r *Rcpt) append(b []byte, e *Extensions) []byte {
	b = append(b, "RCPT TO:<"...)
	b = append(b, r.Addr...)
	b = append(b, '>')
	if e.DSN {
		if r.Notify != "" {
			b = append(append(b, " NOTIFY="...), r.Notify...)
		}
		if r.ORcpt != "" {
			b = smtp.AppendORcpt(append(b, " ORCPT="...), r.ORcpt)
		}
	}
	return append(b, '\r', '\n')
}

// wide tells whether an address of the envelope is not ASCII.
func (m *Mail) wide() bool {
	if !isASCII(m.From) {
		return true
	}
	for _, r := range m.Rcpts {
		if !isASCII(r.Addr) {
			return true
		}
	}
	return false
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
}
