package api

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"postrider/internal/account"
	"postrider/internal/compose"
	"postrider/internal/message"
	"postrider/internal/relay"
	"postrider/internal/submit"
)

// Entrance takes messages in. When it returns an id, the message is durable.
type Entrance interface {
	Submit(ctx context.Context, d submit.Draft) (relay.ID, error)
}

func (s *Server) sendRoutes() {
	Register(s, Route{Method: http.MethodPost, Path: "/v1/messages", ID: "send-message", Tag: "Messages", Right: Send, OfAccount: true, Status: http.StatusAccepted,
		MaxBody: s.largestBody(), BodyTime: 10 * time.Minute,
		Summary: "Send a message",
		Doc: "Give either the fields, of which the message is made, or a whole message in raw. 202 means that the message is stored and will be delivered; each recipient has a delivery of its own. " +
			"With an Idempotency-Key a request that is repeated within 24 hours gets the first one's answer and is not sent twice. " +
			"A whole message can also be the body itself, with the content type message/rfc822; its envelope is then taken from its header, unless the parameters say otherwise.",
		Example: Example{Params: map[string]any{"Idempotency-Key": "order-1001"},
			Body: object{"from": "Shop <orders@shop.example>", "to": []any{"Ann <ann@example.net>"}, "subject": "Your order 1001", "text": "Thank you.", "html": "<p>Thank you.</p>",
				"headers": object{"X-Order": "1001"}, "tags": []any{"order"}, "metadata": object{"order": "1001"},
				"attachments": []any{object{"filename": "order.txt", "content": "MTAwMQ=="}}},
			Answer: object{"id": ExampleMessage, "deliveries": []any{object{"id": ExampleMessage + "-1", "recipient": "ann@example.net"}}}},
	}, s.send)
}

// Address is a mailbox in a request: "user@example.com",
// "Name <user@example.com>", or an object.
type Address compose.Address

// Schema describes both ways to write it.
func (Address) Schema(huma.Registry) *huma.Schema {
	one, two := 1, 254
	return &huma.Schema{OneOf: []*huma.Schema{
		{Type: huma.TypeString, MinLength: &one, Description: "user@example.com, or Name <user@example.com>"},
		{Type: huma.TypeObject, Required: []string{"email"}, AdditionalProperties: false, Properties: map[string]*huma.Schema{
			"email": {Type: huma.TypeString, MaxLength: &two}, "name": {Type: huma.TypeString}}},
	}}
}

// UnmarshalJSON reads both ways.
func (a *Address) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		p, err := compose.Parse(s)
		*a = Address(p)
		if err != nil {
			a.Email = s // which Check refuses, with its field's name
		}
		return nil
	}
	var o struct{ Email, Name string }
	err := json.Unmarshal(b, &o)
	a.Email, a.Name = o.Email, o.Name
	return err
}

// MarshalJSON writes the object.
func (a Address) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Email string `json:"email"`
		Name  string `json:"name,omitempty"`
	}{a.Email, a.Name})
}

// NewMessage is what POST /v1/messages takes.
type NewMessage struct {
	From        Address           `json:"from,omitzero" doc:"Who writes; with raw only the envelope sender"`
	To          []Address         `json:"to,omitempty" doc:"Recipients"`
	Cc          []Address         `json:"cc,omitempty" doc:"Recipients of a copy"`
	Bcc         []Address         `json:"bcc,omitempty" doc:"Recipients that the others are not told of"`
	ReplyTo     []Address         `json:"reply_to,omitempty" doc:"Where answers go"`
	Subject     string            `json:"subject,omitempty"`
	Text        string            `json:"text,omitempty" doc:"Plain text"`
	HTML        string            `json:"html,omitempty" doc:"The same as HTML"`
	Attachments []Attachment      `json:"attachments,omitempty"`
	Headers     map[string]string `json:"headers,omitempty" doc:"More header fields"`
	Raw         []byte            `json:"raw,omitempty" doc:"A whole message (RFC 5322), in base64; instead of all fields that it is made of. Its envelope is from, to, cc and bcc where they are given, else its own header. A Bcc field is removed"`
	Envelope    *NewEnvelope      `json:"envelope,omitempty" doc:"Sender and recipients where they are not those of the header"`
	Stream      string            `json:"stream,omitempty" enum:"transactional,broadcast" doc:"Kind of mail; the key's own unless said otherwise. A key for broadcasts can't send transactional mail"`
	Unsubscribe *NewUnsubscribe   `json:"unsubscribe,omitempty" doc:"How recipients can have no more of this kind; where it is not there, as the key and the stream say, and on where a placeholder such as {{unsubscribe_url}} stands in the text"`
	SendAt      time.Time         `json:"send_at,omitzero" doc:"Not to be delivered before; at most 30 days ahead. Until then it can be cancelled, or given another time"`
	Tags        []string          `json:"tags,omitempty" maxItems:"10" doc:"Words to find it again by, of up to 64 characters each"`
	Tracking    *Tracking         `json:"tracking,omitempty" doc:"What of it is tracked; not there: as its key, its domain and the account say"`
	Metadata    map[string]string `json:"metadata,omitempty" doc:"What you want to be told again with its events: up to 50 values of up to 500 bytes"`
}

// NewUnsubscribe is how recipients of a message can have no more of its kind.
type NewUnsubscribe struct {
	Group   string `json:"group,omitempty" maxLength:"64" doc:"Id of the group that they leave; none: all mail of the stream. Who has left it gets nothing"`
	Enabled *bool  `json:"enabled,omitempty" doc:"false: no link of ours, and placeholders stay; true where it is not there"`
}

// Tracking is what is tracked of one message. What is not true is not tracked.
type Tracking struct {
	Opens  bool `json:"opens,omitempty" doc:"Opens of the HTML text"`
	Clicks bool `json:"clicks,omitempty" doc:"Links in the HTML text"`
	Text   bool `json:"text,omitempty" doc:"Links in the plain text"`
}

func (t *Tracking) track() relay.Track {
	if t == nil {
		return ""
	}
	var words []string
	for _, w := range []struct {
		on   bool
		word string
	}{{t.Opens, "opens"}, {t.Clicks, "clicks"}, {t.Text, "text"}} {
		if w.on {
			words = append(words, w.word)
		}
	}
	if words == nil {
		return relay.TrackOff
	}
	return relay.Track(strings.Join(words, " "))
}

// NewEnvelope overrides what the header says.
type NewEnvelope struct {
	From *string  `json:"from,omitempty" doc:"Envelope sender, where bounces go; empty for the null sender"`
	To   []string `json:"to,omitempty" doc:"Recipients, instead of to, cc and bcc"`
}

// Attachment is a file.
type Attachment struct {
	Filename    string `json:"filename,omitempty"`
	Content     []byte `json:"content" doc:"In base64"`
	ContentType string `json:"content_type,omitempty" doc:"Media type; guessed where it is not given"`
	ContentID   string `json:"content_id,omitempty" doc:"For cid:… in the HTML text"`
	Inline      bool   `json:"inline,omitempty" doc:"Shown within the text"`
}

// Sent is the answer to POST /v1/messages.
type Sent struct {
	ID         string         `json:"id"`
	Deliveries []SentDelivery `json:"deliveries" nullable:"false"`
}

// SentDelivery is one recipient.
type SentDelivery struct {
	ID        string `json:"id"`
	Recipient string `json:"recipient"`
}

type sendInput struct {
	Key          string `header:"Idempotency-Key" maxLength:"256" doc:"Any text that is the request's own: repeated within 24 hours with the same request it sends nothing twice"`
	EnvelopeFrom string `query:"envelope_from" doc:"With a body of message/rfc822: the envelope sender"`
	EnvelopeTo   string `query:"envelope_to" doc:"With a body of message/rfc822: the recipients, separated by commas"`
	RawBody      []byte `contentType:"message/rfc822"`
	Body         NewMessage
}

type sendOutput struct {
	Repeated string `header:"Idempotent-Replayed" doc:"true: nothing was sent, this is the answer to an earlier request"`
	Rate
	Body Sent
}

const (
	mostTags     = 10
	mostMetadata = 50
	mostAhead    = 30 * 24 * time.Hour
)

func (s *Server) send(ctx context.Context, in *sendInput) (*sendOutput, error) {
	m := &in.Body
	if in.EnvelopeFrom != "" || in.EnvelopeTo != "" {
		m.Envelope = &NewEnvelope{To: split(in.EnvelopeTo)}
		if in.EnvelopeFrom != "" {
			from := strings.Trim(in.EnvelopeFrom, "<>") // <> is the null sender
			m.Envelope.From = &from
		}
	}
	if err := m.check(time.Now()); err != nil {
		return nil, err
	}
	d, err := s.draft(ctx, m)
	if err != nil {
		return nil, err
	}
	if in.Key != "" {
		if strings.ContainsFunc(in.Key, func(r rune) bool { return r < ' ' || r > '~' }) {
			return nil, invalid("header.Idempotency-Key", "The key has characters that are not printable ASCII.", "Take letters, digits and signs.")
		}
		sum := sha256.New()
		fmt.Fprintf(sum, "%q %q ", in.EnvelopeFrom, in.EnvelopeTo)
		sum.Write(in.RawBody)
		d.Once = &relay.Once{Key: in.Key, Digest: [32]byte(sum.Sum(nil))}
	}
	out := &sendOutput{}
	id, err := s.config.Entrance.Submit(ctx, *d)
	if err != nil {
		return nil, s.limited(ctx, d.Identity.Account, spoken(placed(m, d, err)))
	}
	if d.Once != nil && d.Once.Repeated {
		out.Repeated = "true"
	}
	out.Rate = s.rate(ctx, d.Identity.Account)
	out.Body = Sent{ID: id.String(), Deliveries: []SentDelivery{}}
	for i, r := range d.Envelope.Recipients {
		out.Body.Deliveries = append(out.Body.Deliveries, SentDelivery{relay.DeliveryID{Message: id, N: i + 1}.String(), r.Address})
	}
	return out, nil
}

// spoken adds the enhanced code of the same refusal over SMTP.
func spoken(err error) error {
	var e *relay.Error
	if !errors.As(err, &e) || e.Code == relay.Internal {
		return err
	}
	p := problem(err).(*Problem)
	_, p.Enhanced = e.Reply()
	return &spokenError{p, e}
}

// spokenError is a problem, and the error that it is made of.
type spokenError struct {
	problem *Problem
	cause   error
}

func (e *spokenError) Error() string   { return e.cause.Error() }
func (e *spokenError) Unwrap() []error { return []error{e.problem, e.cause} }

// placed says which field a refusal of the entrance is about, where that is
// plain.
func placed(m *NewMessage, d *submit.Draft, err error) error {
	switch relay.CodeOf(err) {
	case relay.Unverified:
		if d.Envelope.Sender != m.From.Email && m.Envelope != nil && strings.Contains(err.Error(), d.Envelope.Sender) {
			return at("body.envelope.from", err)
		}
		return at("body.from", err)
	case relay.TooMany:
		return at("body.to", err)
	case relay.BadContent:
		if len(m.Raw) > 0 {
			return at("body.raw", err)
		}
	}
	return err
}

// check finds what is wrong with the fields that are not of the message itself.
func (m *NewMessage) check(now time.Time) error {
	var found []FieldError
	add := func(field, format string, args ...any) {
		found = append(found, FieldError{"body." + field, fmt.Sprintf(format, args...)})
	}
	if len(m.Tags) > mostTags {
		add("tags", "there are %d tags; %d are allowed", len(m.Tags), mostTags)
	}
	for i, t := range m.Tags {
		if t == "" || utf8.RuneCountInString(t) > 64 || !printable(t) {
			add(fmt.Sprintf("tags[%d]", i), "want a word of 1 to 64 characters, without line ends")
		}
	}
	if len(m.Metadata) > mostMetadata {
		add("metadata", "there are %d values; %d are allowed", len(m.Metadata), mostMetadata)
	}
	for k, v := range m.Metadata {
		if k == "" || len(k) > 64 || len(v) > 500 || !printable(k) || !utf8.ValidString(v) || strings.ContainsRune(v, 0) {
			add("metadata."+cut(k), "want a name of up to 64 bytes and a value of up to 500")
		}
	}
	if far := tooFar(m.SendAt, now); far != "" {
		add("send_at", "%s", far)
	}
	if len(m.Raw) > 0 {
		for field, given := range map[string]bool{"subject": m.Subject != "", "text": m.Text != "", "html": m.HTML != "", "attachments": len(m.Attachments) > 0,
			"headers": len(m.Headers) > 0, "reply_to": len(m.ReplyTo) > 0} {
			if given {
				add(field, "with raw it has no place to go: leave it out")
			}
		}
	} else if m.From.Email == "" {
		add("from", "it is missing")
	}
	slices.SortFunc(found, func(a, b FieldError) int { return strings.Compare(a.Location, b.Location) })
	return invalids(found)
}

// tooFar says where a time is so far ahead that nothing is scheduled for it.
func tooFar(at, now time.Time) string {
	if ahead := at.Sub(now); ahead > mostAhead {
		return fmt.Sprintf("it is %d days ahead; 30 are allowed", int(ahead.Hours()/24))
	}
	return ""
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// draft makes what is submitted.
func (s *Server) draft(ctx context.Context, m *NewMessage) (*submit.Draft, error) {
	d := &submit.Draft{Tags: m.Tags, Metadata: m.Metadata, Track: m.Tracking.track()}
	var err error
	if d.Identity, d.Stream, err = submitter(ctx, m.Stream); err != nil {
		return nil, err
	}
	var content []byte
	var header addresses
	if len(m.Raw) > 0 {
		content, header, err = readRaw(m.Raw)
	} else {
		content, err = m.write()
	}
	if err != nil {
		return nil, err
	}
	if d.Envelope, err = m.envelope(header); err != nil {
		return nil, err
	}
	if m.SendAt.After(time.Now()) {
		d.Envelope.Release = m.SendAt
	}
	d.Content = message.Bytes(content)
	if u := m.Unsubscribe; u != nil {
		d.Group, d.Unsubscribe = u.Group, "on"
		if u.Enabled != nil && !*u.Enabled {
			d.Unsubscribe = "off"
		}
	}
	x := exchangeOf(ctx)
	d.Source = relay.Source{Protocol: "HTTP", Listener: "api", Client: netip.AddrPortFrom(x.client, 0)}
	if x.control {
		d.Source.Listener = "control"
	}
	return d, nil
}

// submitter is as whom a message is submitted, and its stream where that is not
// the key's own.
func submitter(ctx context.Context, stream string) (*account.Identity, relay.Stream, error) {
	c := CallerOf(ctx)
	id := &account.Identity{Account: c.Into(), Stream: relay.Transactional}
	if c.Identity != nil {
		own := *c.Identity
		own.Account, id = c.Into(), &own
	}
	if stream == "" {
		return id, 0, nil
	}
	want, err := ownStream(id, stream)
	return id, want, err
}

// ownStream is the stream that an identity asks for.
func ownStream(id *account.Identity, stream string) (relay.Stream, error) {
	want, err := relay.ParseStream(stream)
	if err != nil {
		return 0, invalid("body.stream", sentence(err), "Take transactional or broadcast.")
	}
	if id.Stream == relay.Broadcast && want != relay.Broadcast {
		return 0, at("body.stream", &relay.Error{Code: relay.Forbidden, Text: "This key sends broadcasts, not transactional mail.", Advice: "Use another key, or leave the stream out."})
	}
	return want, nil
}

// write makes the message of its fields.
func (m *NewMessage) write() ([]byte, error) {
	c := compose.Message{From: compose.Address(m.From), To: plain(m.To), Cc: plain(m.Cc), Bcc: plain(m.Bcc), ReplyTo: plain(m.ReplyTo),
		Subject: m.Subject, Text: m.Text, HTML: m.HTML, Headers: m.Headers}
	for _, a := range m.Attachments {
		c.Files = append(c.Files, compose.File{Name: a.Filename, Type: a.ContentType, ID: a.ContentID, Inline: a.Inline, Content: a.Content})
	}
	b, err := c.Write()
	var e *compose.Error
	if errors.As(err, &e) {
		code := relay.Invalid
		if strings.HasPrefix(e.Text, `"`) && strings.Contains(e.Text, "address") {
			code = relay.BadAddress
		}
		return nil, at("body."+e.Field, &relay.Error{Code: code, Text: e.Text, Advice: e.Advice})
	}
	if err != nil {
		return nil, err
	}
	m.From = Address(c.From)
	m.To, m.Cc, m.Bcc = fancy(c.To), fancy(c.Cc), fancy(c.Bcc)
	return b, nil
}

func plain(list []Address) (out []compose.Address) {
	for _, a := range list {
		out = append(out, compose.Address(a))
	}
	return out
}

func fancy(list []compose.Address) (out []Address) {
	for _, a := range list {
		out = append(out, Address(a))
	}
	return out
}

// envelope gathers who sends to whom: as the request says, else the header of
// a whole message.
func (m *NewMessage) envelope(header addresses) (relay.Envelope, error) {
	var env relay.Envelope
	var found []FieldError
	seen := map[string]bool{}
	take := func(field, email string) string {
		a, err := compose.Address{Email: email}.Check()
		if err != nil {
			found = append(found, FieldError{"body." + field, fmt.Sprintf("%q can't be an address: %v", cut(email), err)})
			return ""
		}
		env.UTF8 = env.UTF8 || compose.UTF8(a.Email)
		return a.Email
	}
	recipient := func(field, email string) {
		if email = take(field, email); email != "" && !seen[strings.ToLower(email)] {
			seen[strings.ToLower(email)] = true
			env.Recipients = append(env.Recipients, relay.Recipient{Address: email})
		}
	}
	from, fromField := m.From.Email, "from"
	if from == "" {
		from, fromField = header.from, "raw"
	}
	over := m.Envelope
	if over != nil && over.From != nil {
		from, fromField = *over.From, "envelope.from"
	}
	if from != "" {
		env.Sender = take(fromField, from)
	}
	switch {
	case over != nil && len(over.To) > 0:
		for i, to := range over.To {
			recipient(fmt.Sprintf("envelope.to[%d]", i), to)
		}
	case len(m.To)+len(m.Cc)+len(m.Bcc) > 0:
		for _, l := range []struct {
			field string
			list  []Address
		}{{"to", m.To}, {"cc", m.Cc}, {"bcc", m.Bcc}} {
			for i, a := range l.list {
				recipient(fmt.Sprintf("%s[%d]", l.field, i), a.Email)
			}
		}
	default:
		for _, to := range header.to {
			recipient("raw", to)
		}
	}
	if len(found) == 0 && len(env.Recipients) == 0 {
		found = []FieldError{{"body.to", "the message has no recipients"}}
	}
	if len(found) == 0 {
		return env, nil
	}
	p := invalids(found).(*Problem)
	p.Code = string(relay.BadAddress)
	return env, p
}

// split cuts a list at its commas.
func split(list string) (out []string) {
	for s := range strings.SplitSeq(list, ",") {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}

// wholeMessage lets a body of message/rfc822 stand for a request with raw.
func wholeMessage() huma.Format {
	return huma.Format{
		Marshal: func(w io.Writer, v any) error { return huma.DefaultJSONFormat.Marshal(w, v) },
		Unmarshal: func(b []byte, v any) error {
			switch v := v.(type) {
			case *any: // to be validated
				*v = map[string]any{"raw": base64.StdEncoding.EncodeToString(b)}
			case *NewMessage:
				v.Raw = slices.Clone(b) // the body's room is used again
			default:
				return huma.ErrUnknownContentType
			}
			return nil
		},
	}
}
