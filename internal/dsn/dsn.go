// Package dsn writes and reads delivery status notifications: the mails that tell
// a sender what became of a message (RFC 3461, RFC 3464, RFC 6522, RFC 6533).
package dsn

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"postrider/internal/message"
)

// Kind is what a notification is about.
type Kind uint8

const (
	Failed    Kind = iota // given up
	Delayed               // still being tried
	Delivered             // delivered, or handed on to a system that reports nothing
)

// Action is what was done for a recipient (RFC 3464 section 2.3.3).
type Action string

const (
	ActionFailed    Action = "failed"
	ActionDelayed   Action = "delayed"
	ActionDelivered Action = "delivered"
	ActionRelayed   Action = "relayed"
	ActionExpanded  Action = "expanded"
)

// Report is one notification: one or more recipients of one message.
type Report struct {
	Kind         Kind
	From         string // address of the From field, as "MAILER-DAEMON@relay.example"
	To           string // the sender's address
	ReportingMTA string // host name of who reports
	MessageID    string // of the notification, with its brackets
	EnvID        string // the sender's envelope id (RFC 3461 section 4.4), decoded; may be empty
	OriginalID   string // Message-ID of the original with its brackets; empty: taken from Original
	Arrival      time.Time
	Now          time.Time
	// UTF8 lets the notification have UTF-8 in its header and fields (RFC 6533): to
	// be set where the original was sent with SMTPUTF8. It is taken as set where
	// From or To has such characters.
	UTF8       bool
	Recipients []Recipient
	Original   message.Content // may be nil; Parse leaves it so
	// Full asks for the whole original (RET=FULL). It is returned up to MaxFull
	// bytes and where it can be made 7-bit, else its header only.
	Full bool
}

// Recipient is what became of one recipient.
type Recipient struct {
	Final       string // the address
	ORcpt       string // "type;address" as the sender gave it (RFC 3461 section 4.2), decoded; may be empty
	Action      Action // empty: what the report's kind says
	Status      string // enhanced status code; empty: one that only says the class
	RemoteMTA   string // host that answered; may be empty
	Reply       string // what it answered, with the code, lines joined by newlines; or, without a code, what happened instead
	Text        string // what happened, for people; one sentence
	Advice      string // what to do; may be empty
	LastAttempt time.Time
	WillRetry   time.Time // until when; only for Delayed
	FinalLogID  string    // our name for the delivery, to be quoted to who asks (RFC 3464 section 2.3.8); may be empty
}

// MaxFull is how large an original is returned as a whole, in bytes.
const MaxFull = 1 << 20

// Bounds on values, so that no line is over-long whatever is in them.
const (
	maxAddress = 320  // bytes
	maxEncoded = 900  // bytes of an address that is written in ASCII (RFC 6533)
	maxName    = 255  // characters of a host name
	maxEnvID   = 200  // characters
	maxID      = 900  // bytes of a Message-ID
	maxReply   = 2000 // characters of a reply
	maxWord    = 200  // characters without a space, which cannot be folded
)

// sanitised is the report as it is written and as it is read back: bounded,
// without characters that its fields cannot have. Text and Advice are treated
// where they are written.
func (r Report) sanitised() Report {
	r.From, r.To = address(r.From), address(r.To)
	r.UTF8 = r.UTF8 || !isASCII(r.From) || !isASCII(r.To)
	r.ReportingMTA = hostName(r.ReportingMTA)
	r.MessageID, r.OriginalID = messageID(r.MessageID, r.UTF8), messageID(r.OriginalID, r.UTF8)
	r.EnvID = phrase(r.EnvID, maxEnvID, r.UTF8)
	r.Arrival, r.Now = seconds(r.Arrival), seconds(r.Now)
	rcpts := make([]Recipient, len(r.Recipients))
	for i, rc := range r.Recipients {
		rcpts[i] = rc.sanitised(r.Kind, r.UTF8)
	}
	r.Recipients = rcpts
	return r
}

func (rc Recipient) sanitised(k Kind, utf8 bool) Recipient {
	rc.Final = address(rc.Final)
	rc.ORcpt = originalRecipient(rc.ORcpt)
	rc.Action = actionOf(rc.Action, k)
	if !statusForm.MatchString(rc.Status) {
		rc.Status = map[Action]string{ActionFailed: "5.0.0", ActionDelayed: "4.0.0"}[rc.Action]
	}
	if rc.Status == "" {
		rc.Status = "2.0.0"
	}
	rc.RemoteMTA = hostName(rc.RemoteMTA)
	rc.Reply = phrase(rc.Reply, maxReply, utf8)
	rc.LastAttempt, rc.WillRetry = seconds(rc.LastAttempt), seconds(rc.WillRetry)
	if rc.Action != ActionDelayed {
		rc.WillRetry = time.Time{} // RFC 3464 section 2.3.9
	}
	rc.FinalLogID = phrase(rc.FinalLogID, maxName, false)
	return rc
}

// statusForm is an enhanced status code (RFC 3463 section 2).
var statusForm = regexp.MustCompile(`^[245]\.[0-9]{1,3}\.[0-9]{1,3}$`)

// knownAction is a where RFC 3464 knows it, or nothing.
func knownAction(a Action) Action {
	switch a {
	case ActionFailed, ActionDelayed, ActionDelivered, ActionRelayed, ActionExpanded:
		return a
	}
	return ""
}

func actionOf(a Action, k Kind) Action {
	if a = knownAction(a); a != "" {
		return a
	}
	switch k {
	case Failed:
		return ActionFailed
	case Delayed:
		return ActionDelayed
	}
	return ActionDelivered
}

// seconds is t as a date field holds it. Years that it cannot hold are nothing.
func seconds(t time.Time) time.Time {
	if t.Year() < 1900 || t.Year() > 9998 {
		return time.Time{}
	}
	return t.Truncate(time.Second)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// ascii replaces other characters by question marks.
func ascii(s string) string {
	if isASCII(s) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r >= utf8.RuneSelf {
			return '?'
		}
		return r
	}, s)
}

// phrase makes running text safe for a field: spaces are single, and there is one
// wherever it must be possible to fold.
func phrase(s string, max int, utf8 bool) string {
	s = message.Clean(s, max)
	if !utf8 {
		s = ascii(s)
	}
	words := strings.Fields(s)
	for i, w := range words {
		words[i] = breakable(w)
	}
	return strings.Join(words, " ")
}

// breakable puts spaces into a word that is too long.
func breakable(w string) string {
	if len(w) <= maxWord {
		return w
	}
	var b strings.Builder
	n := 0
	for _, r := range w {
		if n == maxWord {
			b.WriteByte(' ')
			n = 0
		}
		b.WriteRune(r)
		n++
	}
	return b.String()
}

// address makes an address safe to stand between angle brackets and in a field.
func address(s string) string {
	s = strings.TrimLeft(strings.Trim(message.Clean(s, maxAddress), "<> "), "@ ")
	s = strings.Map(func(r rune) rune {
		if r == '<' || r == '>' {
			return '?'
		}
		return r
	}, s)
	size := 0
	for i, r := range s {
		if size += utf8AddressLen(r); i >= maxAddress || size > maxEncoded {
			return strings.TrimSpace(s[:i])
		}
	}
	return s
}

// originalRecipient makes "type;address" safe. A type is put there where there is
// none, and made to fit the address.
func originalRecipient(s string) string {
	if strings.TrimSpace(s) == "" {
		return ""
	}
	typ, addr, ok := strings.Cut(s, ";")
	if !ok {
		typ, addr = "", s
	}
	typ = strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-' {
			return r
		}
		return -1
	}, strings.ToLower(message.Clean(typ, 40)))
	if typ == "" {
		typ = "rfc822"
	}
	if typ == "utf-8" {
		addr = decodeUTF8Address(addr)
	}
	if addr = address(addr); !isASCII(addr) {
		typ = "utf-8"
	}
	return typ + ";" + addr
}

// hostName makes a name safe to stand after "dns;".
func hostName(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f || strings.ContainsRune(`();<>"\,`, r) {
			return '?'
		}
		return r
	}, message.Clean(s, maxName))
}

// messageID gives s where it has the form of a Message-ID, or nothing.
func messageID(s string, utf8 bool) string {
	if len(s) > maxID || len(s) < 3 || s != message.Clean(s, maxID) || !utf8 && !isASCII(s) {
		return ""
	}
	if s[0] != '<' || s[len(s)-1] != '>' || strings.ContainsAny(s[1:len(s)-1], "<> ") {
		return ""
	}
	return s
}

// encodeUTF8Address writes an address of type utf-8 (RFC 6533 section 3): raw is
// its form where UTF-8 is allowed, the other is ASCII.
func encodeUTF8Address(s string, raw bool) string {
	var b strings.Builder
	for _, r := range s {
		if plainInUTF8Address(r) || raw && r >= utf8.RuneSelf {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\x{%X}`, r)
		}
	}
	return b.String()
}

func plainInUTF8Address(r rune) bool {
	return r > ' ' && r < 0x7f && r != '+' && r != '=' && r != '\\'
}

// utf8AddressLen is the length of a character in the ASCII form.
func utf8AddressLen(r rune) int {
	if plainInUTF8Address(r) {
		return 1
	}
	return len(`\x{10FFFF}`)
}

// decodeUTF8Address undoes encodeUTF8Address, in both forms.
func decodeUTF8Address(s string) string {
	if !strings.Contains(s, `\x{`) {
		return s
	}
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(s, `\x{`)
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		hex, rest, ok := strings.Cut(after, "}")
		n, err := strconv.ParseUint(hex, 16, 21)
		if !ok || err != nil || !utf8.ValidRune(rune(n)) {
			b.WriteString(`\x{`)
			s = after
			continue
		}
		b.WriteRune(rune(n))
		s = rest
	}
}
