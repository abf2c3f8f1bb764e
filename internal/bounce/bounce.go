// Package bounce reads the mails that come back: delivery status notifications in
// the standard form (RFC 3464) and in the many that are not, complaints (RFC
// 5965), automatic replies and challenges; and says, for each recipient in them,
// what was said.
package bounce

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"postrider/internal/dsn"
	"postrider/internal/message"
)

// Kind is what sort of mail came back.
type Kind string

const (
	Unknown   Kind = ""           // none of these
	Report    Kind = "report"     // what became of a message: failed, delayed or delivered
	Complaint Kind = "complaint"  // the recipient, or a filter in their name, complains
	AutoReply Kind = "auto-reply" // an answer by a machine: vacation, ticket system
	Challenge Kind = "challenge"  // an answer that asks the sender to confirm
)

// Bounds, so that no mail costs more than this, whatever it is.
const (
	maxRead       = 8 << 20 // bytes of a mail that are looked at
	maxPart       = 1 << 20 // bytes of a part
	maxText       = 64 << 10
	maxHeader     = 64 << 10 // bytes of the original's header that are kept
	maxTail       = 400
	maxRecipients = 1000
)

// Mail is a mail that came back, as far as it could be understood.
type Mail struct {
	Kind       Kind
	From       string // who wrote it: an address
	To         string // whom it came to: an address of ours
	Subject    string
	Host       string // that wrote it (Reporting-MTA); may be empty
	EnvID      string // the sender's envelope id (RFC 3461 section 4.4); may be empty
	Recipients []Recipient
	Feedback   Feedback // of a complaint
	Original   Original
	Standard   bool   // it has a part for programs (RFC 3464), or comes from a mail system's address and announces none
	Text       string // what it says to people, without the returned original
}

// Recipient is what the mail says of one recipient.
type Recipient struct {
	Address string // may be empty in a complaint whose recipient was taken out
	Action  string // failed, delayed, delivered, relayed or expanded
	Status  string // enhanced status code; may be empty
	Reply   string // what the server said, or what the mail says in its place
	Context string // more of the mail's words about this recipient
	Host    string // that said it; may be empty
	Asked   string // the address that the sender gave, where it is another one; may be empty
	Guessed bool   // the report does not say whom it is about; this is the likeliest
}

// Feedback are fields of a complaint (RFC 5965 section 3).
type Feedback struct {
	Type   string // abuse, fraud, virus, not-spam, auth-failure, opt-out, other, …
	Agent  string
	Source string // address that the message came from, as reported
	Domain string // Reported-Domain
	// Failure is what failed, in a report of type auth-failure: bodyhash, signature,
	// revoked, adsp, spf (RFC 6591 section 3.3), dmarc (RFC 7489 section 7.3.1).
	Failure string
}

// Original is what came back of the message itself.
type Original struct {
	MessageID string // with its brackets; may be empty
	From      string
	To        []string
	Subject   string
	Header    []byte // as it came, cut to 64 KiB; may be empty
}

// Read reads a mail that came back. It fails where r does; whatever the mail is,
// it is understood as far as it can be. Not more than 8 MiB are looked at.
func Read(r io.Reader) (Mail, error) {
	src := &source{r: io.LimitReader(r, maxRead)}
	rd := reader{}
	kept := keeper{r: unixLines(src)}
	err := message.ReadParts(&kept, maxPart, rd.part)
	if src.err != nil {
		return Mail{}, src.err
	}
	_ = err             // a mail that breaks off in the middle is read as far as it goes
	if rd.leaves == 0 { // it has parts, and none of the announced boundaries
		rd.broken(kept.afterHeader())
	}
	last := bytes.TrimRight(src.tail, "\r\n\t ")
	last = last[bytes.LastIndexAny(last, "\r\n")+1:]
	rd.closed = len(last) > 4 && bytes.HasPrefix(last, []byte("--")) && bytes.HasSuffix(last, []byte("--"))
	rd.cut = !rd.closed && (len(src.tail) == 0 || !bytes.ContainsAny(src.tail[len(src.tail)-1:], "\r\n"))
	return rd.finish(), nil
}

// source remembers an error of the reader, to tell it from a mail's faults, and the
// last bytes.
type source struct {
	r    io.Reader
	err  error
	tail []byte
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.tail = append(s.tail, p[max(0, n-maxTail):n]...)
	s.tail = append([]byte(nil), s.tail[max(0, len(s.tail)-maxTail):]...)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// keeper keeps the beginning of what is read.
type keeper struct {
	r    io.Reader
	kept []byte
}

func (k *keeper) Read(p []byte) (int, error) {
	n, err := k.r.Read(p)
	k.kept = append(k.kept, p[:min(n, maxBroken-len(k.kept))]...)
	return n, err
}

// afterHeader is what was kept of the body.
func (k *keeper) afterHeader() []byte {
	_, body, _ := bytes.Cut(bytes.ReplaceAll(k.kept, []byte("\r\n"), []byte("\n")), []byte("\n\n"))
	return body
}

// reader gathers what is of use from the parts of a mail.
type reader struct {
	mail   Mail
	top    header
	any    bool
	text   strings.Builder
	html   strings.Builder
	status []dsn.Report
	fb     header // of the feedback report
	isFB   bool
	orig   []header // of enclosed messages, in order
	nested bool     // the last enclosed message is a report itself
	notice header   // of a disposition notification (RFC 8098)
	guess  bool     // the original's recipients are those of a hop on its way
	cut    bool     // the mail ends in the middle of a line
	closed bool     // it ends with the line after the last part
	leaves int      // parts that are no containers
	again  bool     // parts of a broken body are read
	loose  bool     // the status was not found where the mail's structure has it
}

func (rd *reader) part(p message.Part) error {
	if !rd.any {
		rd.any = true
		rd.top = parseHeader(p.Header)
		if p.Container {
			return nil
		}
		rd.body(p)
		return nil
	}
	if p.Message {
		h := parseHeader(p.Header)
		rd.nested = h.reports() && len(rd.status) == 0
		if rd.nested { // a report that was forwarded
			rd.text.Reset()
			rd.html.Reset()
		}
		rd.orig = append(rd.orig, h)
	}
	if h := parseHeader(p.Header); !p.Message && h.has("from") && (h.has("received") || h.has("message-id")) { // the original, in a part's place
		rd.leaves++
		rd.orig = append(rd.orig, h)
		return nil
	}
	if !p.Container {
		rd.body(p)
	}
	return nil
}

// body takes what a leaf says.
func (rd *reader) body(p message.Part) {
	rd.leaves++
	if len(rd.status) > 0 && len(rd.orig) > 0 && !rd.nested { // the original may be a report of old
		return
	}
	switch p.Type {
	case "message/delivery-status", "message/global-delivery-status":
		if rep := dsn.ParseStatus(p.Body); len(rep.Recipients) > 0 || rep.ReportingMTA != "" {
			rd.status = append(rd.status, rep)
		} else if rd.text.Len() < maxText { // what is meant for people, mislabelled (InterMail)
			rd.text.WriteString(decode(p))
			rd.text.WriteByte('\n')
		}
		return
	case "message/disposition-notification":
		rd.notice = parseHeader(p.Body)
		return
	case "message/feedback-report":
		rd.fb, rd.isFB = parseHeader(p.Body), true
		return
	case "text/rfc822-headers", "text/rfc822-header", "message/global-headers", "message/rfc822", "message/global", "message/partial":
		if !p.Message || p.Type != "text/plain" {
			rd.orig = append(rd.orig, parseHeader(p.Body))
		}
		return
	}
	if len(rd.orig) > 0 && !rd.nested { // the original's own words are of no use
		return
	}
	if !rd.again && (strings.HasPrefix(p.Type, "multipart/") || strings.HasPrefix(p.Type, "text/plain") && partsInText(p.Body)) {
		rd.broken(p.Body)
		return
	}
	switch {
	case strings.HasPrefix(p.Type, "text/html"):
		if rd.html.Len() < maxText {
			rd.html.WriteString(stripHTML(decode(p)))
			rd.html.WriteByte('\n')
		}
	case strings.HasPrefix(p.Type, "text/") || !strings.Contains(p.Type, "/"):
		if rd.text.Len() < maxText {
			rd.text.WriteString(decode(p))
			rd.text.WriteByte('\n')
		}
	}
}

// finish puts together what the parts said.
func (rd *reader) finish() Mail {
	m := &rd.mail
	top := rd.top
	if rd.nested && len(rd.orig) > 0 { // judge the report, not the mail around it
		top = rd.orig[0]
		rd.orig = rd.orig[1:]
	}
	m.From, m.To = top.address("from"), top.address("to")
	m.Subject = top.text("subject")
	text := rd.text.String()
	if strings.TrimSpace(text) == "" {
		text = rd.html.String()
	}
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "")
	}
	said, returned := cutOriginal(unquoted(text))
	m.Text = said
	if rd.notified() {
		m.Recipients = m.Recipients[:min(len(m.Recipients), maxRecipients)]
		return *m
	}
	rd.original(returned)
	rd.fieldsInText(said)
	m.Kind = rd.kind(top)
	// A mail that announces a part for programs and ends before it and the original was
	// cut off, or damaged, as was one that ends within a line of its report: what it would have said may speak for
	// the address.
	whole := !rd.cut || returned != "" || len(rd.orig) > 0
	m.Standard = rd.hasStatus() && !rd.loose && (rd.closed || returned != "" || len(rd.orig) > 0) || fromSystem(m.From) && whole && (len(rd.orig) > 0 || rd.loose || rd.closed && returned != "" || !strings.Contains(strings.ToLower(top.get("content-type")), "delivery-status"))
	switch m.Kind {
	case Complaint:
		rd.complaint()
	case AutoReply, Challenge:
		m.Recipients = []Recipient{{Address: rd.answerer(), Reply: m.Subject}}
	case Report:
		rd.report(top)
	}
	if len(m.Recipients) > maxRecipients {
		m.Recipients = m.Recipients[:maxRecipients]
	}
	return *m
}

// answerer is for whom a machine answers: whom its report or its words name, else its author.
func (rd *reader) answerer() string {
	for _, s := range rd.status {
		if len(s.Recipients) == 1 && usual(s.Recipients[0].Final) {
			return clean(s.Recipients[0].Final)
		}
	}
	if fromSystem(rd.mail.From) { // a robot writes in the name of the address
		if list := unique(newLines(rd.mail.Text).mentioned(), rd.own()); len(list) > 0 {
			return list[0]
		}
	}
	if loc := addressForm.FindStringIndex(rd.mail.Subject); loc != nil && loc[0] == 0 && usual(rd.mail.Subject[:loc[1]]) {
		return clean(rd.mail.Subject[:loc[1]])
	}
	return rd.mail.From
}

// original finds the header of the returned message: enclosed, or in the text.
func (rd *reader) original(returned string) {
	var h header
	for _, o := range rd.orig {
		if len(o) > 0 && !o.reports() {
			h = o
			break
		}
	}
	if len(h) == 0 && returned != "" {
		h = parseHeader([]byte(returned))
	}
	o := &rd.mail.Original
	o.MessageID, o.From, o.Subject = bracketed(h.get("message-id")), h.address("from"), h.text("subject")
	o.To = h.addresses("to")
	for _, name := range []string{"x-envelope-to", "envelope-to", "x-original-to", "delivered-to", "x-rcpt-to"} {
		if a := h.addresses(name); len(a) > 0 {
			o.To = a
			rd.guess = true
			break
		}
	}
	o.Header = h.bytes()
	if o.MessageID == "" {
		o.MessageID = bracketed(firstOf(rd.top.get("in-reply-to"), rd.top.get("references")))
	}
}

func firstOf(s ...string) string {
	for _, s := range s {
		if s != "" {
			return s
		}
	}
	return ""
}

// unixLines makes a mail readable that was kept with CR alone at the end of its
// lines, and drops what stands before it (blank lines, an mbox line).
func unixLines(r io.Reader) io.Reader {
	head := make([]byte, 64<<10)
	n, err := io.ReadFull(r, head)
	head = head[:n]
	rest := r
	if err != nil {
		rest = bytes.NewReader(nil)
	}
	head = bytes.TrimPrefix(head, []byte("\xef\xbb\xbf"))
	for i := bytes.IndexByte(head, '\n'); i >= 0 && len(bytes.TrimSpace(head[:i])) == 0; i = bytes.IndexByte(head, '\n') {
		head = head[i+1:]
	}
	oldMac := bytes.IndexByte(head, '\n') < 0 && bytes.Count(head, []byte("\r")) > 2
	if oldMac {
		return io.MultiReader(bytes.NewReader(bytes.ReplaceAll(head, []byte("\r"), []byte("\n"))), crToLF{rest})
	}
	if bytes.HasPrefix(head, []byte("From ")) || bytes.HasPrefix(head, []byte(">From ")) {
		if i := bytes.IndexByte(head, '\n'); i >= 0 {
			head = head[i+1:]
		}
	}
	return io.MultiReader(bytes.NewReader(head), rest)
}

type crToLF struct{ r io.Reader }

func (c crToLF) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	for i := range p[:n] {
		if p[i] == '\r' {
			p[i] = '\n'
		}
	}
	return n, err
}
