package dsn

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"postrider/internal/message"
)

const (
	foldAt    = 76       // columns that lines are folded to, where there is a space
	maxLine   = 998      // bytes without the line end (RFC 5322 section 2.1.1)
	maxHeader = 64 << 10 // bytes of an original's header that are returned
)

// Compose writes the notification with CRLF line ends and no line above 998
// bytes. Without UTF8 it is 7-bit. Values are made safe on the way: whatever a
// receiver answered, it becomes no field of its own.
func Compose(r Report) (message.Content, error) {
	if len(r.Recipients) == 0 {
		return nil, errors.New("compose report: it is about no recipient")
	}
	for _, rc := range r.Recipients {
		if address(rc.Final) == "" {
			return nil, errors.New("compose report: a recipient has no address")
		}
	}
	if address(r.From) == "" || address(r.To) == "" {
		return nil, errors.New("compose report: it has no sender, or nobody to go to")
	}
	o, err := readOriginal(r.Original)
	if err != nil {
		return nil, fmt.Errorf("compose report: %w", err)
	}
	if r.OriginalID == "" {
		r.OriginalID = o.facts.MessageID
	}
	said := r.Recipients
	r = r.sanitised()
	returned, whole, err := o.part(r)
	if err != nil {
		return nil, fmt.Errorf("compose report: %w", err)
	}
	parts := [][]byte{r.people(o, whole, said), r.status()}
	if returned != nil {
		parts = append(parts, returned)
	}
	sep := boundary(r.MessageID, parts)

	var b bytes.Buffer
	r.header(&b, o, sep, bytes.ContainsFunc(bytes.Join(parts[1:], nil), func(c rune) bool { return c >= utf8.RuneSelf }))
	b.WriteString("\r\nThis is a report in MIME format about a message that you sent.\r\n")
	for _, p := range parts {
		b.WriteString("\r\n--" + sep + "\r\n")
		b.Write(p)
	}
	b.WriteString("\r\n--" + sep + "--\r\n")
	return message.Bytes(b.Bytes()), nil
}

// header writes the header of the notification.
func (r *Report) header(b *bytes.Buffer, o *original, sep string, eightBit bool) {
	field(b, "From", "Mail Delivery System <"+r.From+">")
	field(b, "To", "<"+r.To+">")
	subject := map[Kind]string{Failed: "Undelivered mail", Delayed: "Delivery delayed", Delivered: "Delivered"}[r.Kind]
	if s := phrase(o.facts.Subject, 150, true); s != "" {
		subject += ": " + s
	}
	// What looks like an encoded word would be decoded.
	subject = strings.ReplaceAll(subject, "=?", "= ?")
	field(b, "Subject", mime.QEncoding.Encode("utf-8", subject))
	if !r.Now.IsZero() {
		field(b, "Date", message.FormatDate(r.Now))
	}
	if r.MessageID != "" {
		field(b, "Message-ID", r.MessageID)
	}
	if r.OriginalID != "" {
		field(b, "In-Reply-To", r.OriginalID)
		field(b, "References", r.OriginalID)
	}
	field(b, "Auto-Submitted", "auto-replied") // RFC 3834 section 5
	field(b, "MIME-Version", "1.0")
	b.WriteString("Content-Type: multipart/report; report-type=" + strings.TrimPrefix(r.statusType(), "message/") +
		";\r\n\tboundary=\"" + sep + "\"\r\n")
	if eightBit {
		field(b, "Content-Transfer-Encoding", "8bit")
	}
}

func (r *Report) statusType() string {
	if r.UTF8 {
		return "message/global-delivery-status" // RFC 6533 section 4
	}
	return "message/delivery-status"
}

// status writes the part for programs (RFC 3464 section 2).
func (r *Report) status() []byte {
	var b bytes.Buffer
	b.WriteString("Content-Type: " + r.statusType() + "\r\n")
	head := b.Len()
	field(&b, "Reporting-MTA", "dns; "+r.ReportingMTA)
	if r.EnvID != "" {
		field(&b, "Original-Envelope-Id", r.EnvID)
	}
	date(&b, "Arrival-Date", r.Arrival)
	for _, rc := range r.Recipients {
		b.WriteString("\r\n")
		if rc.ORcpt != "" {
			typ, addr, _ := strings.Cut(rc.ORcpt, ";")
			field(&b, "Original-Recipient", r.typedAddress(typ, addr))
		}
		typ := "rfc822"
		if !isASCII(rc.Final) {
			typ = "utf-8"
		}
		field(&b, "Final-Recipient", r.typedAddress(typ, rc.Final))
		field(&b, "Action", string(rc.Action))
		field(&b, "Status", rc.Status)
		if rc.RemoteMTA != "" {
			field(&b, "Remote-MTA", "dns; "+rc.RemoteMTA)
		}
		if rc.Reply != "" {
			field(&b, "Diagnostic-Code", diagnosticType(rc.Reply)+"; "+rc.Reply)
		}
		date(&b, "Last-Attempt-Date", rc.LastAttempt)
		if rc.FinalLogID != "" {
			field(&b, "Final-Log-ID", rc.FinalLogID)
		}
		date(&b, "Will-Retry-Until", rc.WillRetry)
	}
	body := bytes.Clone(b.Bytes()[head:])
	b.Truncate(head)
	if !isASCII(string(body)) {
		b.WriteString("Content-Transfer-Encoding: 8bit\r\n")
	}
	b.WriteString("\r\n")
	b.Write(body)
	return b.Bytes()
}

func (r *Report) typedAddress(typ, addr string) string {
	if typ == "utf-8" {
		addr = encodeUTF8Address(addr, r.UTF8)
	}
	return typ + ";" + addr
}

// diagnosticType tells an SMTP reply from words of our own (RFC 3464 section
// 2.3.6).
func diagnosticType(reply string) string {
	if len(reply) >= 3 && reply[0] >= '2' && reply[0] <= '5' {
		if _, err := strconv.Atoi(reply[:3]); err == nil {
			return "smtp"
		}
	}
	return "x-postrider"
}

func date(b *bytes.Buffer, name string, t time.Time) {
	if !t.IsZero() {
		field(b, name, message.FormatDate(t))
	}
}

// field writes one field, folded at spaces. The value has single spaces only.
func field(b *bytes.Buffer, name, value string) {
	b.WriteString(name + ":")
	col := len(name) + 1
	for i, w := range strings.Split(value, " ") {
		if i > 0 && col+1+len(w) > foldAt {
			b.WriteString("\r\n")
			col = 0
		}
		b.WriteString(" " + w)
		col += 1 + len(w)
	}
	b.WriteString("\r\n")
}

// boundary makes a boundary that no part contains.
func boundary(seed string, parts [][]byte) string {
	for i := 0; ; i++ {
		sum := sha256.Sum256([]byte(strconv.Itoa(i) + seed))
		b := "=_" + hex.EncodeToString(sum[:12])
		if !bytes.Contains(bytes.Join(parts, nil), []byte(b)) {
			return b
		}
	}
}

// original is the message that the report is about.
type original struct {
	c     message.Content
	facts message.Facts
}

func readOriginal(c message.Content) (*original, error) {
	o := &original{c: c}
	if c == nil {
		return o, nil
	}
	f, err := message.Scan(c)
	if err != nil {
		return nil, fmt.Errorf("read the original: %w", err)
	}
	o.facts = f
	return o, nil
}

// part gives the part that returns the original, and whether it is the whole of
// it; nil where there is none.
func (o *original) part(r Report) (p []byte, whole bool, err error) {
	if o.c == nil {
		return nil, false, nil
	}
	f := o.facts
	sound := f.LongestLine <= maxLine && !f.NUL && !f.Bare
	if r.Full && sound && o.c.Size() <= MaxFull && f.Problem == "" && f.Mbox == 0 && (r.UTF8 || !f.UTF8Header) {
		if p, err := o.full(); p != nil || err != nil {
			return p, true, err
		}
	}
	h, err := o.header()
	if err != nil {
		return nil, false, err
	}
	typ := "text/rfc822-headers" // RFC 6522 section 4
	if r.UTF8 && f.UTF8Header {
		typ = "message/global-headers" // RFC 6533 section 6
	}
	var b bytes.Buffer
	b.WriteString("Content-Type: " + typ + "\r\n")
	text(&b, h, r.UTF8)
	return b.Bytes(), false, nil
}

// full gives the part with the whole original, made 7-bit where its body was
// not, or nil where that cannot be.
func (o *original) full() ([]byte, error) {
	c := o.c
	var b bytes.Buffer
	switch {
	case o.facts.UTF8Header: // RFC 6533 section 5
		b.WriteString("Content-Type: message/global\r\nContent-Transfer-Encoding: 8bit\r\n\r\n")
	case o.facts.EightBit:
		buf := message.NewBuffer("", 4*MaxFull)
		defer buf.Close()
		var err error
		if c, err = message.To7Bit(c, buf); err != nil {
			return nil, nil // its header will do
		}
		fallthrough
	default:
		b.WriteString("Content-Type: message/rfc822\r\n\r\n")
	}
	rc, err := c.Open()
	if err != nil {
		return nil, fmt.Errorf("open the original: %w", err)
	}
	defer rc.Close()
	if _, err := io.Copy(&b, rc); err != nil {
		return nil, fmt.Errorf("read the original: %w", err)
	}
	return b.Bytes(), nil
}

// header reads the original's header without the blank line, as far as it is
// returned.
func (o *original) header() ([]byte, error) {
	rc, err := o.c.Open()
	if err != nil {
		return nil, fmt.Errorf("open the original: %w", err)
	}
	defer rc.Close()
	b, err := io.ReadAll(io.LimitReader(rc, min(o.facts.HeaderSize, maxHeader)))
	if err != nil {
		return nil, fmt.Errorf("read the original: %w", err)
	}
	if o.facts.HeaderSize > maxHeader { // a half line says nothing
		b = b[:bytes.LastIndexByte(b, '\n')+1]
	}
	b = b[min(int64(len(b)), o.facts.Mbox):]
	return bytes.TrimRight(b, "\r\n"), nil
}

// text writes the end of a part's header and its body: as it is where it is
// sound, else in quoted-printable.
func text(b *bytes.Buffer, body []byte, eightBit bool) {
	f, err := message.Scan(message.Bytes(append([]byte("\r\n"), body...)))
	switch {
	case err != nil || f.LongestLine > maxLine || f.NUL || f.Bare || f.EightBit && !eightBit:
		b.WriteString("Content-Transfer-Encoding: quoted-printable\r\n\r\n")
		w := quotedprintable.NewWriter(b)
		w.Write(body) // to memory: no error
		w.Close()
	case f.EightBit:
		b.WriteString("Content-Transfer-Encoding: 8bit\r\n\r\n")
		b.Write(body)
	default:
		b.WriteString("\r\n")
		b.Write(body)
	}
	b.WriteString("\r\n")
}
