package smtp

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// Verb is a command.
type Verb uint8

// The commands of RFC 5321, 3207 (STARTTLS), 4954 (AUTH) and 3030 (BDAT). HTTP
// stands for any request line of HTTP, which only a misled client sends.
const (
	Unknown Verb = iota
	HELO
	EHLO
	MAIL
	RCPT
	DATA
	BDAT
	RSET
	NOOP
	QUIT
	VRFY
	EXPN
	HELP
	AUTH
	STARTTLS
	HTTP
)

// ParseCommand splits a line without its end into the verb and what follows it,
// without the spaces around. It does not allocate; args points into line.
func ParseCommand(line []byte) (v Verb, args []byte) {
	n := 0
	for n < len(line) && line[n] != ' ' && line[n] != '\t' {
		n++
	}
	v = parseVerb(line[:n])
	args = line[n:]
	for len(args) > 0 && (args[0] == ' ' || args[0] == '\t') {
		args = args[1:]
	}
	for len(args) > 0 && (args[len(args)-1] == ' ' || args[len(args)-1] == '\t') {
		args = args[:len(args)-1]
	}
	return v, args
}

func parseVerb(word []byte) Verb {
	var up [8]byte
	if len(word) > len(up) {
		return Unknown
	}
	for i, c := range word {
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		up[i] = c
	}
	switch string(up[:len(word)]) { // does not allocate
	case "HELO":
		return HELO
	case "EHLO":
		return EHLO
	case "MAIL":
		return MAIL
	case "RCPT":
		return RCPT
	case "DATA":
		return DATA
	case "BDAT":
		return BDAT
	case "RSET":
		return RSET
	case "NOOP":
		return NOOP
	case "QUIT":
		return QUIT
	case "VRFY":
		return VRFY
	case "EXPN":
		return EXPN
	case "HELP":
		return HELP
	case "AUTH":
		return AUTH
	case "STARTTLS":
		return STARTTLS
	case "GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "PRI":
		return HTTP
	}
	return Unknown
}

// Mail is a MAIL command.
type Mail struct {
	From       Address // zero for the null reverse-path
	Size       int64   // SIZE (RFC 1870), in bytes; 0 when not said
	Body       string  // BODY: "7BIT", "8BITMIME" (RFC 6152), "BINARYMIME" (RFC 3030) or empty
	UTF8       bool    // SMTPUTF8 (RFC 6531)
	RequireTLS bool    // REQUIRETLS (RFC 8689)
	Ret        string  // RET: "FULL", "HDRS" or empty (RFC 3461 section 4.3)
	EnvID      string  // ENVID, decoded (RFC 3461 section 4.4)
	Auth       string  // AUTH, decoded (RFC 4954 section 5); "<>" for nobody
	HoldFor    time.Duration
	HoldUntil  time.Time // HOLDFOR and HOLDUNTIL (RFC 4865); at most one of them
	Priority   int       // MT-PRIORITY (RFC 6710), -9 to 9
}

// Notify is the NOTIFY parameter (RFC 3461 section 4.1); zero when not said.
type Notify uint8

const (
	NotifyNever Notify = 1 << iota
	NotifySuccess
	NotifyFailure
	NotifyDelay
)

// Rcpt is a RCPT command.
type Rcpt struct {
	To     Address
	Notify Notify
	ORcpt  string // ORCPT: "type;address", decoded (RFC 3461 section 4.2); may be empty
}

// ParseMail reads what follows MAIL. The error is a Reply to answer with.
func ParseMail(args []byte) (Mail, error) {
	var m Mail
	rest, ok := cutPrefixFold(string(args), "FROM:")
	if !ok {
		return Mail{}, Reply{Code: 501, Enhanced: "5.5.4", Lines: []string{"MAIL wants FROM:<address>."}}
	}
	var err error
	if m.From, rest, err = ParsePath(rest, true); err != nil {
		return Mail{}, Reply{Code: 553, Enhanced: "5.1.7", Lines: []string{"This is not a sender address: " + err.Error() + "."}}
	}
	if err := eachParam(rest, m.set); err != nil {
		return Mail{}, err
	}
	switch {
	case !m.UTF8 && !m.From.IsASCII():
		return Mail{}, Reply{Code: 553, Enhanced: "5.6.7", Lines: []string{"This sender address has characters beyond ASCII. Give SMTPUTF8 with MAIL."}}
	case m.HoldFor != 0 && !m.HoldUntil.IsZero(): // RFC 4865 section 4
		return Mail{}, badParam("HOLDFOR and HOLDUNTIL exclude each other")
	}
	return m, nil
}

// set takes one parameter of MAIL.
func (m *Mail) set(key, value string) error {
	switch key {
	case "SIZE":
		return m.setSize(value)
	case "BODY":
		m.Body = strings.ToUpper(value)
		if m.Body != "7BIT" && m.Body != "8BITMIME" && m.Body != "BINARYMIME" {
			return badParam("BODY wants 7BIT or 8BITMIME")
		}
	case "SMTPUTF8":
		m.UTF8 = true
		return noValue(key, value)
	case "REQUIRETLS":
		m.RequireTLS = true
		return noValue(key, value)
	case "RET":
		m.Ret = strings.ToUpper(value)
		if m.Ret != "FULL" && m.Ret != "HDRS" {
			return badParam("RET wants FULL or HDRS")
		}
	case "ENVID":
		v, err := decodePrintable(value)
		if err != nil || v == "" || len(value) > 100 {
			return badParam("ENVID wants up to 100 characters of xtext (RFC 3461)")
		}
		m.EnvID = v
	case "AUTH":
		v, err := decodePrintable(value)
		if err != nil || v == "" {
			return badParam("AUTH wants an address as xtext, or <> (RFC 4954)")
		}
		m.Auth = v
	case "HOLDFOR", "HOLDUNTIL":
		return m.setHold(key, value)
	case "MT-PRIORITY":
		n, err := strconv.Atoi(value)
		if err != nil || n < -9 || n > 9 || len(value) > 2 || value[0] == '+' {
			return badParam("MT-PRIORITY wants a number from -9 to 9 (RFC 6710)")
		}
		m.Priority = n
	default:
		return unknownParam("MAIL", key)
	}
	return nil
}

func (m *Mail) setSize(value string) error {
	if value == "" || len(value) > 20 || strings.Trim(value, "0123456789") != "" {
		return badParam("SIZE wants a number of bytes (RFC 1870)")
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil { // 20 digits are legal, and more than anybody takes
		n = math.MaxInt64
	}
	m.Size = n
	return nil
}

// setHold takes the parameters of FUTURERELEASE (RFC 4865 section 4).
func (m *Mail) setHold(key, value string) error {
	if key == "HOLDFOR" {
		n, err := strconv.Atoi(value)
		if err != nil || len(value) > 9 || n < 0 || value[0] == '+' {
			return badParam("HOLDFOR wants a number of seconds (RFC 4865)")
		}
		m.HoldFor = time.Duration(n) * time.Second
		return nil
	}
	t, err := time.Parse(time.RFC3339, strings.ToUpper(value))
	if err != nil {
		return badParam("HOLDUNTIL wants a time like 2030-01-31T12:00:00Z (RFC 4865)")
	}
	m.HoldUntil = t
	return nil
}

// ParseRcpt reads what follows RCPT; utf8 tells whether the transaction has
// SMTPUTF8. The error is a Reply to answer with.
func ParseRcpt(args []byte, utf8 bool) (Rcpt, error) {
	var r Rcpt
	rest, ok := cutPrefixFold(string(args), "TO:")
	if !ok {
		return Rcpt{}, Reply{Code: 501, Enhanced: "5.5.4", Lines: []string{"RCPT wants TO:<address>."}}
	}
	var err error
	r.To, rest, err = ParsePath(rest, utf8)
	switch {
	case errors.Is(err, ErrNonASCII):
		return Rcpt{}, Reply{Code: 553, Enhanced: "5.6.7", Lines: []string{"This recipient address has characters beyond ASCII. Give SMTPUTF8 with MAIL."}}
	case err != nil:
		return Rcpt{}, Reply{Code: 553, Enhanced: "5.1.3", Lines: []string{"This is not a recipient address: " + err.Error() + "."}}
	case r.To.IsZero():
		return Rcpt{}, Reply{Code: 553, Enhanced: "5.1.3", Lines: []string{"A recipient address is wanted; <> is none."}}
	}
	if err := eachParam(rest, r.set); err != nil {
		return Rcpt{}, err
	}
	return r, nil
}

// set takes one parameter of RCPT.
func (r *Rcpt) set(key, value string) error {
	switch key {
	case "NOTIFY":
		for word := range strings.SplitSeq(strings.ToUpper(value), ",") {
			switch word {
			case "NEVER":
				r.Notify |= NotifyNever
			case "SUCCESS":
				r.Notify |= NotifySuccess
			case "FAILURE":
				r.Notify |= NotifyFailure
			case "DELAY":
				r.Notify |= NotifyDelay
			default:
				return badParam("NOTIFY wants NEVER, or some of SUCCESS, FAILURE and DELAY (RFC 3461)")
			}
		}
		if r.Notify&NotifyNever != 0 && r.Notify != NotifyNever {
			return badParam("NOTIFY=NEVER stands alone (RFC 3461)")
		}
	case "ORCPT":
		v, err := DecodeORcpt(value)
		if err != nil || len(value) > 500 {
			return badParam("ORCPT wants type;address, the address as xtext (RFC 3461)")
		}
		r.ORcpt = v
	default:
		return unknownParam("RCPT", key)
	}
	return nil
}

// ParseBdat reads what follows BDAT (RFC 3030 section 2). The error is a Reply
// to answer with; after one it is not known where the chunk ends.
func ParseBdat(args []byte) (size int64, last bool, err error) {
	number, word, more := strings.Cut(string(args), " ")
	word = strings.TrimLeft(word, " ")
	if more && !strings.EqualFold(word, "LAST") || number == "" || len(number) > 18 ||
		strings.Trim(number, "0123456789") != "" {
		return 0, false, Reply{Code: 501, Enhanced: "5.5.4", Lines: []string{"BDAT wants a number of bytes, and LAST with the last chunk."}}
	}
	size, err = strconv.ParseInt(number, 10, 64)
	return size, more, err
}

// eachParam hands each esmtp-param (RFC 5321 section 4.1.2) to set, keys in
// upper case.
func eachParam(s string, set func(key, value string) error) error {
	var seen [16]string
	n := 0
	for s != "" {
		var word string
		word, s, _ = strings.Cut(s, " ")
		s = strings.TrimLeft(s, " ")
		key, value, eq := strings.Cut(word, "=")
		key = strings.ToUpper(key)
		if key == "" || eq && value == "" {
			return badParam("parameters have the form KEY or KEY=value")
		}
		for _, k := range seen[:n] {
			if k == key {
				return badParam(clip(key) + " is given twice")
			}
		}
		if n == len(seen) {
			return badParam("there are too many parameters")
		}
		seen[n], n = key, n+1
		if err := set(key, value); err != nil {
			return err
		}
	}
	return nil
}

func badParam(text string) error {
	return Reply{Code: 501, Enhanced: "5.5.4", Lines: []string{"The parameters are not valid: " + text + "."}}
}

// unknownParam is RFC 5321 section 4.1.1.11.
func unknownParam(verb, key string) error {
	return Reply{Code: 555, Enhanced: "5.5.4", Lines: []string{verb + " knows no parameter " + strconv.QuoteToASCII(clip(key)) + ". Use only what EHLO offers."}}
}

func noValue(key, value string) error {
	if value != "" {
		return badParam(key + " takes no value")
	}
	return nil
}

// decodePrintable decodes xtext and refuses control characters: the text will
// stand in the header of a DSN, where a line end would begin a new field.
func decodePrintable(s string) (string, error) {
	v, err := DecodeXtext(s)
	if err != nil {
		return "", err
	}
	for i := range len(v) {
		if v[i] < ' ' || v[i] == 0x7f {
			return "", errors.New("control character in xtext")
		}
	}
	return v, nil
}

func cutPrefixFold(s, prefix string) (rest string, ok bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}
