package suppression

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"postrider/internal/message"
	"postrider/internal/relay"
	"postrider/internal/smtp"
)

// Columns of the layout that is written: all that there is of a suppression.
var Columns = []string{"address", "stream", "reason", "note", "event", "created", "expires"}

// Row is one suppression as it is written, in the order of Columns.
func Row(s relay.Suppression) []string {
	row := []string{s.Address, "", s.Reason, s.Note, "", s.Created.UTC().Format(time.RFC3339), ""}
	if s.Stream != 0 {
		row[1] = s.Stream.String()
	}
	if !s.Event.IsZero() {
		row[4] = s.Event.String()
	}
	if !s.Expires.IsZero() {
		row[6] = s.Expires.UTC().Format(time.RFC3339)
	}
	return row
}

// names are those of columns in the lists that hosted services give out (SendGrid,
// Mailgun, Postmark, SES, SMTP2GO, Mandrill) and in ours, in lower case and letters
// alone. Where two say the same the first one that is there counts.
var columnNames = map[string][]string{
	"address": {"address", "email", "emailaddress", "recipient", "recipientemail", "destination", "contact"},
	"stream":  {"stream"},
	"reason":  {"suppressionreason", "reason", "type", "blocktype", "suppressiontype"},
	"note":    {"note", "error", "detail", "details", "description", "comment", "status", "code"},
	"created": {"created", "createdat", "lastupdatetime", "lasteventat", "date", "dateadded", "timestamp", "added"},
	"expires": {"expires", "expiresat"},
	// Of one kind of list only.
	"ip":     {"ip"},
	"code":   {"code", "status", "error", "reason"},
	"origin": {"origin"},
}

// reasonNames are the services' words for reasons, in lower case and letters alone.
var reasonNames = map[string]string{
	"bounce": relay.ReasonBounce, "bounced": relay.ReasonBounce, "hardbounce": relay.ReasonBounce, "hard": relay.ReasonBounce, "invalid": relay.ReasonBounce, "invalidemail": relay.ReasonBounce,
	"softbounce": relay.ReasonSoftBounce, "soft": relay.ReasonSoftBounce,
	"complaint": relay.ReasonComplaint, "spamcomplaint": relay.ReasonComplaint, "spam": relay.ReasonComplaint, "spamreport": relay.ReasonComplaint, "abuse": relay.ReasonComplaint,
	"unsubscribe": relay.ReasonUnsubscribe, "unsubscribed": relay.ReasonUnsubscribe, "unsub": relay.ReasonUnsubscribe, "optout": relay.ReasonUnsubscribe, "listunsubscribe": relay.ReasonUnsubscribe,
	"manual": relay.ReasonManual, "manualsuppression": relay.ReasonManual, "custom": relay.ReasonManual, "rule": relay.ReasonManual,
}

// Reader reads a list: one address a line, or the CSV of a hosted service or of our
// own, told by its header row. It keeps one line in memory.
type Reader struct {
	rows    *csv.Reader
	columns map[string]int
	first   []string // where there is no header row, the first line
	usual   string   // reason where a line has none
}

// NewReader looks at the first line. Reason, where it is not empty, is that of all
// lines; else each has its own, or what such a list is of.
func NewReader(r io.Reader, reason string) (*Reader, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	switch mark, _ := br.Peek(3); {
	case string(mark) == "\xef\xbb\xbf":
		_, _ = br.Discard(3) // it has been read
	case strings.HasPrefix(string(mark), "\xff\xfe") || strings.HasPrefix(string(mark), "\xfe\xff"):
		return nil, &relay.Error{Code: relay.Invalid, Text: "The list is in UTF-16.", Advice: "Save it as CSV in UTF-8."}
	}
	head, err := br.Peek(4096)
	if err != nil && len(head) == 0 {
		return nil, fmt.Errorf("read list: %w", orEmpty(err))
	}
	line, _, _ := strings.Cut(string(head), "\n")
	l := &Reader{rows: NewRows(br, line), usual: relay.ReasonManual}
	if l.first, err = l.rows.Read(); err != nil {
		return nil, fmt.Errorf("read list: %w", orEmpty(err))
	}
	l.columns = map[string]int{}
	for what, names := range columnNames {
		for _, name := range names {
			for i, cell := range l.first {
				if _, known := l.columns[what]; !known && letters(cell) == name {
					l.columns[what] = i
				}
			}
		}
	}
	_, named := l.columns["address"]
	switch {
	case !named && !strings.Contains(strings.Join(l.first, ","), "@"):
		return nil, &relay.Error{Code: relay.Invalid, Text: "The first line has neither an address nor a column that is called address or email.",
			Advice: "Give one address a line, or CSV with a header row."}
	case !named:
		l.columns = map[string]int{"address": 0}
		if len(l.first) > 1 && reasonNames[letters(l.first[1])] != "" { // as SES takes lists
			l.columns["reason"] = 1
		}
	default:
		l.usual = l.kind()
		l.first = nil
	}
	if reason != "" {
		l.usual = reason
		delete(l.columns, "reason")
	}
	return l, nil
}

func orEmpty(err error) error {
	if errors.Is(err, io.EOF) {
		return &relay.Error{Code: relay.Invalid, Text: "The list is empty."}
	}
	return err
}

// kind is what a list is of whose lines have no reason: SendGrid's and Mailgun's have
// one kind each. Reports of spam name the IP; bounces have what the server said;
// unsubscriptions an address and a time.
func (l *Reader) kind() string {
	has := func(name string) bool { _, ok := l.columns[name]; return ok }
	switch {
	case has("ip") && !has("code"):
		return relay.ReasonComplaint
	case has("code"):
		return relay.ReasonBounce
	case has("created") && !has("note"):
		return relay.ReasonUnsubscribe
	}
	return relay.ReasonManual
}

// BadLine says what is wrong with a line; those behind it can be read.
type BadLine struct {
	Line int
	Why  string
}

func (b *BadLine) Error() string { return fmt.Sprintf("line %d: %s", b.Line, b.Why) }

// Next gives the next suppression and its line; io.EOF ends the list, and a BadLine
// only this line.
func (l *Reader) Next() (s relay.Suppression, line int, err error) {
	row := l.first
	l.first, line = nil, 1
	for row == nil {
		if row, err = l.rows.Read(); err != nil {
			var bad *csv.ParseError
			if errors.As(err, &bad) {
				return s, bad.Line, &BadLine{bad.Line, bad.Err.Error()}
			}
			return s, 0, err
		}
		line, _ = l.rows.FieldPos(0)
		if len(row) == 1 && (row[0] == "" || strings.HasPrefix(row[0], "#")) {
			row = nil
		}
	}
	s, why := l.read(row)
	if why != "" {
		return s, line, &BadLine{line, why}
	}
	return s, line, nil
}

// maxNote is the longest note of a suppression, in bytes.
const maxNote = 1000

func (l *Reader) read(row []string) (s relay.Suppression, why string) {
	cell := func(name string) string {
		if i, ok := l.columns[name]; ok && i < len(row) {
			return strings.TrimSpace(row[i])
		}
		return ""
	}
	address := cell("address")
	if s.Address = listedKey(address); s.Address == "" {
		return s, fmt.Sprintf("%.100q is neither an address nor a domain (@example.com)", address)
	}
	s.Reason, s.Note = l.usual, cell("note")
	if said := cell("reason"); said != "" {
		if known := reasonNames[letters(said)]; known != "" {
			s.Reason = known
			if known == relay.ReasonManual && letters(cell("origin")) == "recipient" { // Postmark: who left
				s.Reason = relay.ReasonUnsubscribe
			}
		} else { // SendGrid: what the server said
			s.Note = strings.TrimSpace(s.Note + " " + said)
		}
	}
	s.Note = message.Clean(s.Note, maxNote/4) // characters have up to four bytes
	if name := cell("stream"); name != "" {
		stream, err := relay.ParseStream(name)
		if err != nil {
			return s, fmt.Sprintf("%.40q is no stream", name)
		}
		s.Stream = stream
	}
	s.Created = moment(cell("created"))
	if until := cell("expires"); until != "" {
		if s.Expires = moment(until); s.Expires.IsZero() {
			return s, fmt.Sprintf("%.40q is no time", until)
		}
	}
	return s, ""
}

// listedKey is what stands in the list: an address, or a domain with an @ before it.
func listedKey(s string) string {
	name, whole := strings.CutPrefix(s, "@")
	if !whole {
		return Key(strings.Trim(s, "<>"))
	}
	rest, below := strings.CutPrefix(name, ".")
	domain, err := smtp.ASCIIDomain(rest)
	switch {
	case err != nil || domain == "":
		return ""
	case below:
		return "@." + strings.ToLower(domain)
	}
	return "@" + strings.ToLower(domain)
}

// moment is a time as the services write it; zero: it is none. What a list says of
// times that are to come is not believed of when something was made.
func moment(s string) time.Time {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n > 0 {
		t := time.Unix(n, 0).UTC()
		if n > 1e11 { // milliseconds
			t = time.UnixMilli(n).UTC()
		}
		if t.Year() > 9999 { // RFC 3339 has none such
			return time.Time{}
		}
		return t
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04:05 MST", "2006-01-02 15:04:05 -0700",
		"2006-01-02 15:04", "2006-01-02", time.RFC1123, time.RFC1123Z, "01/02/2006 15:04:05", "01/02/2006"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}

func letters(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return -1
	}, s)
}
