package dsn

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"postrider/internal/message"
)

const (
	maxRead       = 8 << 20 // bytes of a mail that are looked at
	maxPart       = 1 << 20 // bytes of a part
	maxRecipients = 1000
	maxValue      = 4000 // characters of a field
)

// ErrNotReport says that a mail has no part for programs (RFC 3464), whatever it
// tells people.
var ErrNotReport = errors.New("the mail is not a delivery status notification")

// errDone ends the reading early: all that is wanted was seen.
var errDone = errors.New("done")

// Parse reads a notification from any mail system. It is content with little: a
// part of type message/delivery-status that names a recipient. Fields that are
// missing or cannot be read stay empty. Text, Advice, Original and Full are not
// read; Kind is the gravest that a recipient's action says.
func Parse(r io.Reader) (Report, error) {
	var rep Report
	found, first := false, true
	err := message.ReadParts(io.LimitReader(r, maxRead), maxPart, func(p message.Part) error {
		switch {
		case first:
			rep.readHeader(p.Header)
			first = false
			if !p.Container && isStatus(p.Type) {
				rep.readStatus(p.Body)
			}
		case p.Message: // the original, enclosed
			rep.readOriginal(p.Header)
			return errDone
		case p.Type == "text/rfc822-headers" || p.Type == "message/global-headers":
			rep.readOriginal(p.Body)
			return errDone
		case isStatus(p.Type) && !found:
			rep.UTF8 = strings.HasPrefix(p.Type, "message/global-")
			rep.readStatus(p.Body)
			found = true
		}
		return nil
	})
	if err != nil && !errors.Is(err, errDone) {
		return Report{}, fmt.Errorf("parse report: %w", err)
	}
	if len(rep.Recipients) == 0 {
		return Report{}, ErrNotReport
	}
	rep.Kind = kindOf(rep.Recipients)
	return rep, nil
}

// ParseStatus reads the body of a part of type message/delivery-status alone.
// Nothing that can be read gives a report without recipients.
func ParseStatus(body []byte) Report {
	var rep Report
	rep.readStatus(body)
	rep.Kind = kindOf(rep.Recipients)
	return rep
}

func kindOf(rcpts []Recipient) Kind {
	kind := Delivered
	for _, rc := range rcpts {
		switch rc.Action {
		case ActionFailed:
			return Failed
		case ActionDelayed:
			kind = Delayed
		}
	}
	return kind
}

func isStatus(typ string) bool {
	return typ == "message/delivery-status" || typ == "message/global-delivery-status"
}

// readHeader reads the notification's own header.
func (r *Report) readHeader(h []byte) {
	for name, v := range fields(h) {
		switch name {
		case "from":
			r.From = message.FirstAddress([]byte(v))
		case "to":
			r.To = message.FirstAddress([]byte(v))
		case "message-id":
			r.MessageID = bracketed(v)
		case "in-reply-to":
			r.OriginalID = bracketed(v)
		case "date":
			r.Now = parseDate(v)
		}
	}
}

// readOriginal takes what is wanted of the original's header.
func (r *Report) readOriginal(h []byte) {
	for name, v := range fields(h) {
		if id := bracketed(v); name == "message-id" && id != "" {
			r.OriginalID = id
			return
		}
	}
}

// readStatus reads the fields of RFC 3464 section 2: a group for the message, and
// one for each recipient.
func (r *Report) readStatus(b []byte) {
	var rc *Recipient
	for name, v := range fields(b) {
		switch name {
		case "": // a group is over
			rc = nil
		case "original-envelope-id":
			r.EnvID = v
		case "reporting-mta":
			r.ReportingMTA = hostOf(v)
		case "arrival-date":
			r.Arrival = parseDate(v)
		case "original-recipient", "final-recipient", "action", "status", "remote-mta", "diagnostic-code", "x-supplementary-info",
			"last-attempt-date", "final-log-id", "will-retry-until":
			if rc == nil || name == "final-recipient" && rc.Final != "" {
				if len(r.Recipients) == maxRecipients {
					return
				}
				r.Recipients = append(r.Recipients, Recipient{})
				rc = &r.Recipients[len(r.Recipients)-1]
			}
			rc.set(name, v)
		}
	}
	for i := range r.Recipients {
		r.Recipients[i].complete()
	}
	// A group without an address is no recipient.
	r.Recipients = slices.DeleteFunc(r.Recipients, func(rc Recipient) bool { return rc.Final == "" })
}

func (rc *Recipient) set(name, v string) {
	switch name {
	case "original-recipient":
		rc.ORcpt = originalRecipient(v)
	case "final-recipient":
		typ, addr, ok := strings.Cut(v, ";")
		if !ok {
			addr = v
		} else if strings.EqualFold(strings.TrimSpace(typ), "utf-8") {
			addr = decodeUTF8Address(addr)
		}
		rc.Final = address(addr)
	case "action":
		v, _, _ = strings.Cut(strings.ToLower(v), " ")
		rc.Action = knownAction(Action(v))
	case "status":
		code, rest, _ := strings.Cut(v, " ")
		if statusForm.MatchString(code) {
			rc.Status, v = code, strings.Trim(rest, "() ")
		}
		if rc.Reply == "" { // some say it here, in words or with a basic code
			rc.Reply = v
		}
	case "remote-mta":
		rc.RemoteMTA = hostOf(v)
	case "diagnostic-code":
		rc.Reply = v
		if typ, rest, ok := strings.Cut(v, ";"); ok && !strings.Contains(strings.TrimSpace(typ), " ") {
			rc.Reply = strings.TrimSpace(rest)
		}
	case "x-supplementary-info": // Microsoft's, with or in place of the diagnostic code
		if _, rest, ok := strings.Cut(v, ";"); ok && rc.Reply == "" {
			rc.Reply = strings.TrimSpace(strings.TrimSuffix(rest, ">"))
		}
	case "last-attempt-date":
		rc.LastAttempt = parseDate(v)
	case "final-log-id":
		rc.FinalLogID = v
	case "will-retry-until":
		rc.WillRetry = parseDate(v)
	}
}

// complete fills in what follows from other fields.
func (rc *Recipient) complete() {
	if rc.Final == "" { // some give the original one only
		_, rc.Final, _ = strings.Cut(rc.ORcpt, ";")
	}
	if rc.Status == "" {
		rc.Status = statusInText.FindString(rc.Reply)
	}
	if rc.Action == "" && rc.Status != "" {
		rc.Action = map[byte]Action{'2': ActionDelivered, '4': ActionDelayed, '5': ActionFailed}[rc.Status[0]]
	}
}

var statusInText = regexp.MustCompile(`\b[245]\.[0-9]{1,3}\.[0-9]{1,3}\b`)

// fields yields the fields in b, names in lower case, values unfolded and clean,
// and an empty name for a blank line. Lines that are no fields are passed over.
func fields(b []byte) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		var name string
		var value strings.Builder
		flush := func() bool {
			n, v := name, value.String()
			name = ""
			value.Reset()
			return n == "" || yield(n, message.Clean(v, maxValue))
		}
		for line := range strings.Lines(string(b)) {
			text := strings.TrimSpace(line)
			if text != "" && (line[0] == ' ' || line[0] == '\t') {
				if value.Len() < maxValue*utf8.UTFMax {
					value.WriteString(" " + text)
				}
				continue
			}
			if !flush() || text == "" && !yield("", "") {
				return
			}
			if n, v, ok := strings.Cut(text, ":"); ok {
				name = strings.ToLower(strings.TrimSpace(n))
				value.WriteString(v[:min(len(v), maxValue*utf8.UTFMax)])
			}
		}
		flush()
	}
}

// hostOf reads "dns; host (comment)".
func hostOf(v string) string {
	if _, after, ok := strings.Cut(v, ";"); ok {
		v = after
	}
	v, _, _ = strings.Cut(strings.TrimSpace(v), " ")
	v, _, _ = strings.Cut(v, "(")
	return hostName(v)
}

// bracketed is the part in angle brackets, with them.
func bracketed(v string) string {
	if i := strings.IndexByte(v, '<'); i >= 0 {
		if j := strings.IndexByte(v[i:], '>'); j >= 0 {
			return v[i : i+j+1]
		}
	}
	return ""
}

// parseDate reads a date field; what is none is the zero time.
func parseDate(v string) time.Time {
	t, err := mail.ParseDate(v)
	if err != nil {
		return time.Time{}
	}
	return t
}
