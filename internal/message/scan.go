package message

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

const (
	// MaxHeader is how many bytes of a header are read, in bytes. What lies behind
	// counts as body.
	MaxHeader = 1 << 20

	maxSubject   = 255 // characters
	maxMessageID = 998 // bytes: a line (RFC 5322 section 2.1.1)
	scanRoom     = 64 << 10
)

// Facts are what one pass over a message tells. Strings are valid UTF-8 without
// control characters. The Has fields tell of a field's presence, with or without
// a value.
type Facts struct {
	Subject   string // decoded (RFC 2047), at most 255 characters
	From      string // first address of the first From field, without display name
	MessageID string // with its brackets

	// Whose message it says to be: all From and all Sender fields, and what the
	// newest block of Resent fields says of who passed it on (RFC 5322 sections
	// 3.6.2 and 3.6.6).
	Authors, Senders            Mailboxes
	ResentAuthors, ResentSender Mailboxes

	// Twice names the fields that stand there more than once and may not (RFC
	// 5322 section 3.6, RFC 2045 section 3), each once.
	Twice []string
	// Script is what a field told of the program that sent it, at most 255
	// characters.
	Script string
	// Once is the value of an Idempotency-Key field, at most 255 characters. Such
	// fields are for us alone: Prepend leaves them out.
	Once string
	// Group and Unsubscribe are the values of X-Postrider-Group and
	// X-Postrider-Unsubscribe, at most 255 characters: for us alone too.
	Group, Unsubscribe string
	// Track is the value of an X-Postrider-Track field, at most 255 characters; for us
	// alone, too.
	Track string
	// WantsListUnsubscribe: there is a List-Unsubscribe field that names no address,
	// such as one with a placeholder. It is as if it were not there, and left out like
	// those that are for us alone, with the List-Unsubscribe-Post beside it.
	WantsListUnsubscribe bool
	// Header is the header without such fields, where there were any; else nil.
	Header []byte

	HasDate, HasFrom, HasSender, HasSubject, HasMessageID bool
	HasTo, HasCc, HasBcc, HasReturnPath, HasMIME, HasDKIM bool
	HasListUnsubscribe                                    bool
	HasType                                               bool  // Content-Type
	Received                                              int   // number of Received fields
	UTF8Header                                            bool  // bytes above 127 in the header
	EightBit                                              bool  // bytes above 127 in the body
	NUL                                                   bool  // a zero byte anywhere
	Bare                                                  bool  // a CR or LF anywhere that is not half of a CRLF
	LongestLine                                           int64 // in bytes, without line end; of header and body

	// HeaderSize is the header in bytes with the blank line that ends it, and with
	// Mbox.
	HeaderSize int64
	// Mbox is the length of a "From " line that some programs leave at the start,
	// in bytes; such a line is no part of the message.
	Mbox int64
	// NoHeader: the content starts as a body, without field or blank line.
	NoHeader bool
	// Problem is what is wrong with the header's form, as a sentence for people;
	// empty when nothing is.
	Problem string
}

// Prepend puts fields, complete header lines, before the content that f was
// scanned from: without the mbox line and the fields that are for us alone, and
// with a blank line where the content has no header of its own.
func (f Facts) Prepend(fields []byte, c Content) Content {
	fields, skip := fields[:len(fields):len(fields)], f.Mbox
	if f.Header != nil {
		fields, skip = append(fields, f.Header...), f.HeaderSize
	}
	if f.NoHeader {
		fields = append(fields, "\r\n"...)
	}
	return splice(fields, c, skip)
}

// Scan reads the whole content once. It takes any bytes and fails only where
// they cannot be read.
func Scan(c Content) (Facts, error) {
	var s scanner
	if b, ok := bytesOf(c); ok {
		n := s.header(b[:min(len(b), MaxHeader)], len(b) > MaxHeader)
		s.body(b[n:])
		return s.facts(), nil
	}
	rc, err := c.Open()
	if err != nil {
		return Facts{}, fmt.Errorf("open content: %w", err)
	}
	defer rc.Close()
	buf, n := make([]byte, scanRoom), 0
	for more := true; more; {
		m, err := io.ReadFull(rc, buf[n:])
		n += m
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			more = false
		case err != nil:
			return Facts{}, fmt.Errorf("read content: %w", err)
		}
		if n >= MaxHeader || hasBlankLine(buf[:n]) {
			break
		}
		if more {
			buf = append(buf, make([]byte, len(buf))...)
		}
	}
	end := s.header(buf[:min(n, MaxHeader)], n >= MaxHeader)
	s.body(buf[end:n])
	for {
		n, err := rc.Read(buf)
		s.body(buf[:n])
		if errors.Is(err, io.EOF) {
			return s.facts(), nil
		}
		if err != nil {
			return Facts{}, fmt.Errorf("read content: %w", err)
		}
	}
}

func hasBlankLine(b []byte) bool {
	return bytes.Contains(b, []byte("\n\r\n")) || bytes.Contains(b, []byte("\n\n"))
}

// scanner gathers facts; header comes once and first, then the body in pieces.
type scanner struct {
	f    Facts
	line int64 // bytes of the line that is not over yet
	last byte  // of what was counted

	seen   uint16   // bits of single
	resent uint8    // bits of the newest block of Resent fields
	past   bool     // the newest block of Resent fields is over
	script int      // rank of the field that Script comes from; 0: none
	ours   [][2]int // where fields are that are for us alone: from, to
	post   [][2]int // where List-Unsubscribe-Post is
}

// header reads the header at the start of b and gives its length. cut says that
// the content goes on behind b.
func (s *scanner) header(b []byte, cut bool) int {
	f := &s.f
	rest := b
	if bytes.HasPrefix(b, []byte("From ")) || bytes.HasPrefix(b, []byte(">From ")) {
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			rest = b[i+1:]
			f.Mbox = int64(i + 1)
		}
	}
	first := rest
	for {
		fl, r, ok := nextField(rest)
		if !ok {
			break
		}
		if at := len(b) - len(rest); s.field(fl) {
			s.ours = append(s.ours, [2]int{at, at + len(fl.raw)})
		} else if bytes.EqualFold(fl.name, []byte("List-Unsubscribe-Post")) {
			s.post = append(s.post, [2]int{at, at + len(fl.raw)})
		}
		rest = r
	}
	if f.WantsListUnsubscribe && !f.HasListUnsubscribe {
		s.ours = append(s.ours, s.post...)
		slices.SortFunc(s.ours, func(a, b [2]int) int { return a[0] - b[0] })
	}
	none := len(rest) == len(first)
	switch n := blankLine(rest); {
	case n > 0:
		rest = rest[n:]
	case len(rest) == 0 && cut:
		f.Problem = fmt.Sprintf("The header is longer than %d bytes.", MaxHeader)
	case len(rest) == 0:
		f.NoHeader = none
	default:
		f.NoHeader = none
		f.Problem = notField(rest, none)
	}
	n := len(b) - len(rest)
	f.HeaderSize = int64(n)
	if s.ours != nil {
		f.Header = s.without(b[:n])
		f.NoHeader = len(f.Header) == 0
	}
	f.UTF8Header = s.count(b[:n])
	return n
}

// notField is the sentence for a line that should be a field.
func notField(rest []byte, first bool) string {
	line, _, _ := bytes.Cut(rest[:min(len(rest), 200)], []byte("\n"))
	text := Clean(string(line), 60)
	if first {
		return fmt.Sprintf("The content has no header: it starts with the line %q.", text)
	}
	return fmt.Sprintf("The header has a line that is not a field, %q; what follows is taken for the body.", text)
}

// without is the header h, of which Mbox is no part, without the fields that are
// for us alone.
func (s *scanner) without(h []byte) []byte {
	kept := make([]byte, 0, len(h))
	from := int(s.f.Mbox)
	for _, span := range s.ours {
		kept = append(kept, h[from:span[0]]...)
		from = span[1]
	}
	return append(kept, h[from:]...)
}

// The fields that a message has once (RFC 5322 section 3.6, RFC 2045 section 3).
const (
	fieldDate uint16 = 1 << iota
	fieldFrom
	fieldSender
	fieldReplyTo
	fieldTo
	fieldCc
	fieldBcc
	fieldMessageID
	fieldInReplyTo
	fieldReferences
	fieldSubject
	fieldMIME
	fieldType
	fieldEncoding
)

// once notes a field that may not come again, and tells whether it is the first.
func (s *scanner) once(bit uint16, name string) bool {
	if s.seen&bit == 0 {
		s.seen |= bit
		return true
	}
	if !slices.Contains(s.f.Twice, name) {
		s.f.Twice = append(s.f.Twice, name)
	}
	return false
}

// field notes what one field tells, and tells whether it is for us alone.
func (s *scanner) field(fl field) (ours bool) {
	f := &s.f
	var buf [32]byte
	name := lower(&buf, fl.name)
	if !bytes.HasPrefix(name, []byte("resent-")) {
		s.past = s.past || s.resent != 0
	}
	switch string(name) {
	case "subject":
		if s.once(fieldSubject, "Subject") {
			f.Subject, f.HasSubject = decodeText(fl.value, maxSubject), true
		}
	case "from":
		if s.once(fieldFrom, "From") {
			f.From, f.HasFrom = FirstAddress(fl.value), true
		}
		f.Authors.add(fl.value)
	case "sender":
		f.HasSender = s.once(fieldSender, "Sender") || f.HasSender
		f.Senders.add(fl.value)
	case "message-id":
		if s.once(fieldMessageID, "Message-ID") {
			f.MessageID, f.HasMessageID = messageID(fl.value), true
		}
	case "date":
		f.HasDate = s.once(fieldDate, "Date") || f.HasDate
	case "to":
		f.HasTo = s.once(fieldTo, "To") || f.HasTo
	case "cc":
		f.HasCc = s.once(fieldCc, "Cc") || f.HasCc
	case "bcc":
		f.HasBcc = s.once(fieldBcc, "Bcc") || f.HasBcc
	case "reply-to":
		s.once(fieldReplyTo, "Reply-To")
	case "in-reply-to":
		s.once(fieldInReplyTo, "In-Reply-To")
	case "references":
		s.once(fieldReferences, "References")
	case "return-path":
		f.HasReturnPath = true
	case "mime-version":
		f.HasMIME = s.once(fieldMIME, "MIME-Version") || f.HasMIME
	case "content-type":
		f.HasType = s.once(fieldType, "Content-Type") || f.HasType
	case "content-transfer-encoding":
		s.once(fieldEncoding, "Content-Transfer-Encoding")
	case "dkim-signature":
		f.HasDKIM = true
	case "received":
		f.Received++
	case "idempotency-key", "x-postrider-idempotency-key":
		ourValue(&f.Once, fl)
		return true
	case "x-postrider-group":
		ourValue(&f.Group, fl)
		return true
	case "x-postrider-unsubscribe":
		ourValue(&f.Unsubscribe, fl)
		return true
	case "list-unsubscribe":
		if !bytes.Contains(fl.value, []byte("://")) && !bytes.Contains(bytes.ToLower(fl.value), []byte("mailto:")) {
			f.WantsListUnsubscribe = true
			return true
		}
		f.HasListUnsubscribe = true
	case "x-postrider-track":
		if f.Track == "" {
			// A field without a value wants nothing of it.
			f.Track = cmp.Or(Clean(string(fl.value[:min(len(fl.value), 4*maxSubject)]), maxSubject), "off")
		}
		return true
	default:
		s.rare(name, fl)
	}
	return false
}

// ourValue takes the value of a field that is for us alone, the first of its name.
func ourValue(to *string, fl field) {
	if *to == "" {
		*to = Clean(string(fl.value[:min(len(fl.value), 4*maxSubject)]), maxSubject)
	}
}

// The fields of one block of Resent fields (RFC 5322 section 3.6.6). Blocks are
// put before what is there; where a field comes again, an older one begins.
const (
	resentFrom uint8 = 1 << iota
	resentSender
	resentDate
	resentTo
	resentCc
	resentBcc
	resentMessageID
	resentOther
)

// rare notes what a field tells that most messages do not have.
func (s *scanner) rare(name []byte, fl field) {
	f := &s.f
	switch string(name) {
	case "resent-from":
		if s.resend(resentFrom) {
			f.ResentAuthors.add(fl.value)
		}
	case "resent-sender":
		if s.resend(resentSender) {
			f.ResentSender.add(fl.value)
		}
	case "resent-date":
		s.resend(resentDate)
	case "resent-to":
		s.resend(resentTo)
	case "resent-cc":
		s.resend(resentCc)
	case "resent-bcc":
		s.resend(resentBcc)
	case "resent-message-id":
		s.resend(resentMessageID)
	case "resent-reply-to":
		s.resend(resentOther)
	case "x-php-originating-script": // PHP's mail.add_x_header: "1000:mailer.php"
		s.program(5, fl.value)
	case "x-php-script": // a patch that many hosts have: "www.example.com/mailer.php for 192.0.2.1"
		s.program(4, fl.value)
	case "x-source-args": // cPanel's Exim: "php /home/ann/public_html/mailer.php"
		s.program(3, fl.value)
	case "x-script-name", "x-originating-script", "x-mailer-script":
		s.program(2, fl.value)
	case "x-mailer": // "mailer.php", but not "PHPMailer 6.9"
		if isScript(fl.value) {
			s.program(1, fl.value)
		}
	}
}

// resend tells whether a field is in the newest block of Resent fields.
func (s *scanner) resend(bit uint8) bool {
	s.past = s.past || s.resent&bit != 0
	if !s.past {
		s.resent |= bit
	}
	return !s.past
}

// program notes the program that sent the message, where the field of this rank
// tells it better than those before.
func (s *scanner) program(rank int, value []byte) {
	if rank <= s.script {
		return
	}
	if text := Clean(string(value[:min(len(value), 4*maxSubject)]), maxSubject); text != "" {
		s.script, s.f.Script = rank, text
	}
}

// isScript tells whether a value looks like the file of a script.
func isScript(value []byte) bool {
	value = bytes.TrimSpace(value)
	for _, end := range []string{".php", ".pl", ".py", ".cgi", ".rb", ".sh", ".asp", ".aspx"} {
		if n := len(value) - len(end); n > 0 && bytes.EqualFold(value[n:], []byte(end)) {
			return true
		}
	}
	return false
}

// messageID is the id with its brackets, or the whole value where there are
// none.
func messageID(v []byte) string {
	if i := bytes.IndexByte(v, '<'); i >= 0 {
		if j := bytes.IndexByte(v[i:], '>'); j >= 0 {
			v = v[i : i+j+1]
		}
	}
	return Clean(string(v[:min(len(v), maxMessageID)]), maxMessageID)
}

func (s *scanner) body(b []byte) {
	if s.count(b) {
		s.f.EightBit = true
	}
}

// count notes lines, zero bytes and bare CR and LF, and tells whether b has
// bytes above 127.
func (s *scanner) count(b []byte) (high bool) {
	if len(b) == 0 {
		return false
	}
	f := &s.f
	if !f.NUL {
		f.NUL = bytes.IndexByte(b, 0) >= 0
	}
	crs := bytes.Count(b, []byte{'\r'})
	if s.last == '\r' {
		crs++ // the end of the piece before, of which it was taken off
	}
	if b[len(b)-1] == '\r' {
		crs-- // whether it is bare will be seen in the next piece
	}
	rest, last := b, s.last
	for {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			break
		}
		if i > 0 {
			last = rest[i-1]
		}
		n := s.line + int64(i)
		if last == '\r' {
			n--
			crs--
		} else {
			f.Bare = true
		}
		f.LongestLine = max(f.LongestLine, n)
		s.line, last = 0, '\n'
		rest = rest[i+1:]
	}
	s.line += int64(len(rest))
	s.last = b[len(b)-1]
	if crs != 0 {
		f.Bare = true
	}
	return hasHigh(b)
}

// facts ends the counting.
func (s *scanner) facts() Facts {
	if s.last == '\r' {
		s.f.Bare = true
	}
	s.f.LongestLine = max(s.f.LongestLine, s.line)
	return s.f
}

// hasHigh tells whether b has a byte above 127, eight at a time.
func hasHigh(b []byte) bool {
	const mask = 0x8080808080808080
	for len(b) >= 32 {
		v := binary.NativeEndian.Uint64(b) | binary.NativeEndian.Uint64(b[8:]) |
			binary.NativeEndian.Uint64(b[16:]) | binary.NativeEndian.Uint64(b[24:])
		if v&mask != 0 {
			return true
		}
		b = b[32:]
	}
	for _, c := range b {
		if c >= 0x80 {
			return true
		}
	}
	return false
}
