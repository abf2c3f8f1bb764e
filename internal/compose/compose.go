// Package compose makes a MIME message out of fields: addresses, texts, files.
// What can't stand in a message is refused with the name of its field, so that
// no field can smuggle in a header or a part.
package compose

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/emersion/go-message"
	"github.com/emersion/go-message/mail"

	"postrider/internal/smtp"
)

// Message is what is to be written.
type Message struct {
	From        Address
	To, Cc, Bcc []Address // Bcc is not written
	ReplyTo     []Address
	Subject     string
	Text, HTML  string
	Files       []File
	Headers     map[string]string
}

// Address is a mailbox with a name for people.
type Address struct{ Name, Email string }

// File is an attachment, or an image of the HTML text.
type File struct {
	Name    string // may be empty
	Type    string // media type; empty: guessed
	ID      string // Content-ID without brackets, for cid:ID in the HTML text; empty: none
	Inline  bool   // shown within the text
	Content []byte
}

// Error says which field can't be written, as the API names it: "to[2]".
type Error struct{ Field, Text, Advice string }

func (e *Error) Error() string { return e.Field + ": " + e.Text }

// Bounds on what has no other.
const (
	maxName     = 500
	maxSubject  = 2000
	maxHeaders  = 100
	maxHeader   = 4000
	maxWord     = 900 // octets without a space: a line has at most 998 (RFC 5322 section 2.1.1)
	maxFiles    = 200
	maxFileName = 200
)

// Parse reads "user@example.com" or "Name <user@example.com>". The name may
// hold commas and the like without quotes.
func Parse(s string) (Address, error) {
	s = strings.TrimSpace(s)
	a := Address{Email: s}
	if strings.HasSuffix(s, ">") {
		i := strings.LastIndexByte(s, '<')
		if i < 0 {
			return Address{}, fmt.Errorf("%q has no opening angle bracket", clip(s))
		}
		a.Email, a.Name = s[i+1:len(s)-1], strings.TrimSpace(s[:i])
		if n := a.Name; len(n) >= 2 && n[0] == '"' && n[len(n)-1] == '"' {
			a.Name = unescape.ReplaceAllString(n[1:len(n)-1], "$1")
		}
	}
	return a, nil
}

var unescape = regexp.MustCompile(`\\(.)`)

// Check gives the address in the form in which it is written: with its domain as
// A-labels, so that only a local part beyond ASCII needs SMTPUTF8.
func (a Address) Check() (Address, error) {
	p, err := smtp.ParseAddress(a.Email, true)
	if err != nil {
		return a, err
	}
	if !p.IsLiteral() {
		if p.Domain, err = p.ASCIIDomain(); err != nil {
			return a, err
		}
	}
	if len(a.Name) > maxName {
		return a, fmt.Errorf("the name has %d bytes; %d are allowed", len(a.Name), maxName)
	}
	if unfit(a.Name) {
		return a, fmt.Errorf("the name has control characters, or is not UTF-8")
	}
	a.Email = p.String()
	return a, nil
}

// UTF8 tells whether a mailbox needs SMTPUTF8 (RFC 6531).
func UTF8(email string) bool {
	return strings.ContainsFunc(email, func(r rune) bool { return r >= utf8.RuneSelf })
}

// unfit tells whether a text can't stand in a header field.
func unfit(s string) bool {
	return !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' })
}

// Write gives the message, with CRLF line ends, without Date and Message-ID. The
// error is an *Error where a field can't be written. It changes the addresses to
// the form of Check.
func (m *Message) Write() ([]byte, error) {
	var h mail.Header
	if err := m.header(&h); err != nil {
		return nil, err
	}
	if m.Text == "" && m.HTML == "" && len(m.Files) == 0 {
		return nil, &Error{"text", "The message has neither a text nor an attachment.", "Give text, html or both."}
	}
	for field, text := range map[string]string{"text": m.Text, "html": m.HTML} {
		if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
			return nil, &Error{field, "The text is not UTF-8, or has a NUL in it.", "Convert it to UTF-8."}
		}
	}
	top, err := m.parts()
	if err != nil {
		return nil, err
	}
	for f := top.header.Fields(); f.Next(); {
		h.Set(f.Key(), f.Value())
	}
	top.header = h.Header
	var b bytes.Buffer
	w, err := message.CreateWriter(&b, top.header)
	if err == nil {
		err = top.write(w)
	}
	if err != nil {
		return nil, fmt.Errorf("write message: %w", err)
	}
	return b.Bytes(), nil
}

func (m *Message) header(h *mail.Header) error {
	lists := []struct {
		field, key string
		list       []Address
	}{{"reply_to", "Reply-To", m.ReplyTo}, {"cc", "Cc", m.Cc}, {"to", "To", m.To}, {"bcc", "", m.Bcc}}
	from, err := m.From.Check()
	if err != nil {
		return badAddress("from", m.From, err)
	}
	m.From = from
	if unfit(m.Subject) || len(m.Subject) > maxSubject {
		return &Error{"subject", fmt.Sprintf("The subject has line ends or other control characters, is not UTF-8, or is longer than %d bytes.", maxSubject), "Write it as one line of text."}
	}
	if err := m.extra(h); err != nil {
		return err
	}
	if m.Subject != "" {
		h.SetSubject(m.Subject)
	}
	for _, l := range lists {
		var out []*mail.Address
		for i, a := range l.list {
			ok, err := a.Check()
			if err != nil {
				return badAddress(fmt.Sprintf("%s[%d]", l.field, i), a, err)
			}
			l.list[i] = ok
			out = append(out, &mail.Address{Name: ok.Name, Address: ok.Email})
		}
		if len(out) > 0 && l.key != "" {
			h.SetAddressList(l.key, out)
		}
	}
	if len(m.To)+len(m.Cc) == 0 {
		h.Set("To", "undisclosed-recipients:;") // RFC 5322 section 3.4 allows an empty group
	}
	h.SetAddressList("From", []*mail.Address{{Name: m.From.Name, Address: m.From.Email}})
	h.Set("MIME-Version", "1.0")
	return nil
}

func badAddress(field string, a Address, err error) error {
	return &Error{field, fmt.Sprintf("%q can't be an address: %v.", clip(a.Email), err), "Write it as user@example.com, or as Name <user@example.com>."}
}

// ours are fields that others say, or that are written from other fields.
var ours = map[string]string{"From": "from", "To": "to", "Cc": "cc", "Bcc": "bcc", "Reply-To": "reply_to", "Subject": "subject",
	"Date": "", "Mime-Version": "", "Received": "", "Return-Path": "", "Dkim-Signature": "", "Delivered-To": "", "X-Original-To": ""}

// fieldName is what a field may be called (RFC 5322 section 2.2, narrower).
var fieldName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]{0,76}$`)

// extra writes the fields that the person named.
func (m *Message) extra(h *mail.Header) error {
	if len(m.Headers) > maxHeaders {
		return &Error{"headers", fmt.Sprintf("There are %d header fields; %d are allowed.", len(m.Headers), maxHeaders), "Leave some out."}
	}
	seen := map[string]bool{}
	names := make([]string, 0, len(m.Headers))
	for name := range m.Headers {
		names = append(names, name)
	}
	slices.Sort(names)
	slices.Reverse(names) // each is written in front of those before it
	for _, name := range names {
		value := m.Headers[name]
		at := "headers." + clip(name)
		key := http.CanonicalHeaderKey(name)
		if !fieldName.MatchString(name) {
			return &Error{at, "This can't be the name of a header field.", "Take letters, digits and hyphens."}
		}
		if field, ok := ours[key]; ok || strings.HasPrefix(key, "Content-") || strings.HasPrefix(key, "Arc-") || strings.HasPrefix(key, "Resent-") || key == "Authentication-Results" {
			advice := "Leave it out: the relay writes it."
			if field != "" {
				advice = fmt.Sprintf("Give it as %q instead.", field)
			}
			return &Error{at, fmt.Sprintf("The header field %s can't be given here.", name), advice}
		}
		if seen[key] {
			return &Error{at, "This header field is there twice.", "Give it once."}
		}
		seen[key] = true
		if unfit(value) || len(value) > maxHeader || slices.ContainsFunc(strings.Fields(value), func(w string) bool { return len(w) > maxWord }) {
			return &Error{at, fmt.Sprintf("The value has line ends or other control characters, is not UTF-8, or is longer than %d bytes (a word: %d).", maxHeader, maxWord), "Write it as one line of text."}
		}
		if key == "Message-Id" && !messageID.MatchString(value) {
			return &Error{at, "This can't be a Message-ID.", "Write it as <unique@example.com>, or leave it out: then one is made."}
		}
		if key == "Sender" {
			p, err := Parse(value)
			if err == nil {
				p, err = p.Check()
			}
			if err != nil {
				return badAddress(at, p, err)
			}
			h.SetAddressList(name, []*mail.Address{{Name: p.Name, Address: p.Email}})
			continue
		}
		h.SetText(name, value)
	}
	return nil
}

var messageID = regexp.MustCompile("^<[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,200}@[A-Za-z0-9.\\[\\]:_-]{1,200}>$")

// part is a node of the message's tree: with a body, or with parts.
type part struct {
	header message.Header
	body   io.Reader
	parts  []*part
}

// write fills what was begun for the part.
func (p *part) write(w *message.Writer) error {
	if p.body != nil {
		if _, err := io.Copy(w, p.body); err != nil {
			return err
		}
	}
	for _, c := range p.parts {
		cw, err := w.CreatePart(c.header)
		if err != nil {
			return err
		}
		if err := c.write(cw); err != nil {
			return err
		}
	}
	return w.Close()
}

// parts makes the tree: mixed(related(alternative(text, html), images), files),
// with only the levels that are needed.
func (m *Message) parts() (*part, error) {
	var files, images []*part
	if len(m.Files) > maxFiles {
		return nil, &Error{"attachments", fmt.Sprintf("There are %d attachments; %d are allowed.", len(m.Files), maxFiles), "Send some of them apart."}
	}
	for i, f := range m.Files {
		p, err := f.part(fmt.Sprintf("attachments[%d]", i))
		if err != nil {
			return nil, err
		}
		if f.Inline && m.HTML != "" {
			images = append(images, p)
		} else {
			files = append(files, p)
		}
	}
	var texts []*part
	if m.Text != "" || m.HTML == "" && len(files) == 0 {
		texts = append(texts, text("plain", m.Text))
	}
	if m.HTML != "" {
		texts = append(texts, group("related", append([]*part{text("html", m.HTML)}, images...)))
	}
	all := files
	if len(texts) > 0 {
		all = append([]*part{group("alternative", texts)}, files...)
	}
	return group("mixed", all), nil
}

// group is a multipart, or the part alone.
func group(kind string, parts []*part) *part {
	if len(parts) == 1 && (kind != "mixed" || parts[0].header.Get("Content-Disposition") == "") {
		return parts[0]
	}
	p := &part{parts: parts}
	p.header.SetContentType("multipart/"+kind, nil)
	return p
}

func text(kind, s string) *part {
	p := &part{body: strings.NewReader(s)}
	p.header.Set("Content-Transfer-Encoding", "quoted-printable")
	p.header.SetContentType("text/"+kind, map[string]string{"charset": "utf-8"})
	return p
}

// part makes a part of the file.
func (f File) part(at string) (*part, error) {
	if unfit(f.Name) || len(f.Name) > maxFileName {
		return nil, &Error{at + ".filename", "The name has control characters, is not UTF-8, or is too long.", "Choose another name."}
	}
	kind := f.Type
	if kind == "" {
		kind = mime.TypeByExtension(path.Ext(f.Name))
	}
	if kind == "" {
		kind = http.DetectContentType(f.Content)
	}
	media, params, err := mime.ParseMediaType(kind)
	if err != nil || !strings.Contains(media, "/") || unfit(kind) || len(kind) > maxName {
		return nil, &Error{at + ".content_type", fmt.Sprintf("%q is not a media type.", clip(f.Type)), "Write it as application/pdf, or leave it out."}
	}
	if strings.HasPrefix(media, "multipart/") || strings.HasPrefix(media, "message/") {
		// RFC 2045 section 6.4: these can't be encoded.
		return nil, &Error{at + ".content_type", fmt.Sprintf("An attachment can't be of type %s.", media), "Take application/octet-stream."}
	}
	if f.Name != "" {
		if params == nil {
			params = map[string]string{}
		}
		params["name"] = f.Name // for readers that know no Content-Disposition
	}
	p := &part{body: bytes.NewReader(f.Content)}
	p.header.Set("Content-Transfer-Encoding", "base64")
	if f.ID != "" {
		if !contentID.MatchString(f.ID) {
			return nil, &Error{at + ".content_id", fmt.Sprintf("%q can't be a Content-ID.", clip(f.ID)), "Take letters, digits, dots and hyphens, without angle brackets."}
		}
		p.header.Set("Content-Id", "<"+f.ID+">")
	}
	how := "attachment"
	if f.Inline {
		how = "inline"
	}
	name := map[string]string{}
	if f.Name != "" {
		name["filename"] = f.Name
	}
	p.header.Set("Content-Disposition", mime.FormatMediaType(how, name)) // RFC 2231; the library would use encoded words
	p.header.SetContentType(media, params)
	return p, nil
}

var contentID = regexp.MustCompile(`^[A-Za-z0-9.!#$%&'*+/=?^_{|}~@-]{1,200}$`)

// clip shows what was written, cut where it is endless.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
