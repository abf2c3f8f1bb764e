package store

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"postrider/internal/relay"
)

// micros is how times are stored: microseconds since 1970, 0 for none.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(v int64) time.Time {
	if v == 0 {
		return time.Time{}
	}
	return time.UnixMicro(v).UTC()
}

func toID(b []byte) (id relay.ID) {
	copy(id[:], b)
	return id
}

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// text makes s fit for every engine: PostgreSQL takes neither NUL nor invalid
// UTF-8, and what a peer says may hold both.
func text(s string) string {
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// params is the part of a message that is never searched. Times are in
// microseconds.
type params struct {
	UTF8       bool   `json:"utf8,omitempty"`
	RequireTLS bool   `json:"requiretls,omitempty"`
	Ret        string `json:"ret,omitempty"`
	EnvID      string `json:"envid,omitempty"`
	Priority   int    `json:"priority,omitempty"`
	Release    int64  `json:"release,omitempty"`
	EightBit   bool   `json:"eightbit,omitempty"`
	UTF8Header bool   `json:"utf8header,omitempty"`
	Client     string `json:"client,omitempty"`
	Helo       string `json:"helo,omitempty"`
	Protocol   string `json:"protocol,omitempty"`
	Listener   string `json:"listener,omitempty"`
	TLS        string `json:"tls,omitempty"`
	User       string `json:"user,omitempty"`
	About      string `json:"about,omitempty"`
	Track      string `json:"track,omitempty"`

	Metadata map[string]string `json:"metadata,omitempty"`
	OptOut   relay.OptOut      `json:"optout,omitzero"`
}

// joinTags puts each tag between line ends, so that one is found whole.
func joinTags(tags []string) string {
	if len(tags) == 0 {
		return ""
	}
	return text("\n" + strings.Join(tags, "\n") + "\n")
}

func splitTags(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s[1:len(s)-1], "\n")
}

func encodeParams(m *relay.Message) ([]byte, error) {
	e, s := &m.Envelope, &m.Source
	p := params{UTF8: e.UTF8, RequireTLS: e.RequireTLS, Ret: e.Ret, EnvID: e.EnvID, Priority: e.Priority, Release: micros(e.Release),
		EightBit: m.EightBit, UTF8Header: m.UTF8Header,
		Helo: s.Helo, Protocol: s.Protocol, Listener: s.Listener, TLS: s.TLS, User: s.User, Metadata: m.Metadata, OptOut: m.OptOut, Track: string(m.Track)}
	if s.Client.IsValid() {
		p.Client = s.Client.String()
	}
	if !m.About.IsZero() {
		p.About = m.About.String()
	}
	return json.Marshal(p)
}

func decodeParams(m *relay.Message, b []byte) error {
	var p params
	if err := json.Unmarshal(b, &p); err != nil {
		return fmt.Errorf("read params of message %s: %w", m.ID, err)
	}
	e, s := &m.Envelope, &m.Source
	e.UTF8, e.RequireTLS, e.Ret, e.EnvID, e.Priority, e.Release = p.UTF8, p.RequireTLS, p.Ret, p.EnvID, p.Priority, fromMicros(p.Release)
	m.EightBit, m.UTF8Header, m.Metadata, m.OptOut, m.Track = p.EightBit, p.UTF8Header, p.Metadata, p.OptOut, relay.Track(p.Track)
	s.Helo, s.Protocol, s.Listener, s.TLS, s.User = p.Helo, p.Protocol, p.Listener, p.TLS, p.User
	if p.Client != "" {
		client, err := netip.ParseAddrPort(p.Client)
		if err != nil {
			return fmt.Errorf("read client of message %s: %w", m.ID, err)
		}
		s.Client = client
	}
	if p.About != "" {
		about, err := relay.ParseID(p.About)
		if err != nil {
			return fmt.Errorf("read what message %s is about: %w", m.ID, err)
		}
		m.About = about
	}
	return nil
}

// messageColumns are what messageRow scans.
const messageColumns = "m.id, m.account, m.credential, m.stream, m.received, m.sender, m.subject, m.header_from, m.header_id, m.size, m.script, m.tags, m.archive, m.params"

// messageRow receives the columns of a message from Scan.
type messageRow struct {
	m                       relay.Message
	id, account, credential []byte
	received, archive       int64
	tags                    string
	params                  []byte
}

func (r *messageRow) targets() []any {
	return []any{&r.id, &r.account, &r.credential, &r.m.Stream, &r.received, &r.m.Envelope.Sender, &r.m.Subject, &r.m.From, &r.m.HeaderID, &r.m.Size,
		&r.m.Script, &r.tags, &r.archive, &r.params}
}

func (r *messageRow) message() (*relay.Message, error) {
	r.m.ID, r.m.Account, r.m.Credential, r.m.Received = toID(r.id), toID(r.account), toID(r.credential), fromMicros(r.received)
	r.m.Tags, r.m.Archive = splitTags(r.tags), r.archive != 0
	if err := decodeParams(&r.m, r.params); err != nil {
		return nil, err
	}
	return &r.m, nil
}

// deliveryColumns are what deliveryRow scans. They bear no table's name, so
// that they serve RETURNING as well; no column of message shares one of theirs
// but for account and stream, which deliveryOf names.
const deliveryColumns = "message, n, account, stream, state, attempts, due, expires, delayed, updated, notify, code, recipient, domain, orcpt, enhanced, reply, category, diagnosis, advice, host, provider, source, marks"

// deliveryOf are the same columns of the table that is called d.
var deliveryOf = "d." + strings.ReplaceAll(deliveryColumns, ", ", ", d.")

// deliveryRow receives the columns of a delivery from Scan.
type deliveryRow struct {
	d                     relay.Delivery
	message, account      []byte
	due, expires, updated int64
	delayed, marks        int64
}

func (r *deliveryRow) targets() []any {
	d := &r.d
	return []any{&r.message, &d.ID.N, &r.account, &d.Stream, &d.State, &d.Attempts, &r.due, &r.expires, &r.delayed, &r.updated,
		&d.Recipient.Notify, &d.Reply.Code, &d.Recipient.Address, &d.Domain, &d.Recipient.ORcpt, &d.Reply.Enhanced, &d.Reply.Text,
		&d.Diagnosis.Category, &d.Diagnosis.Text, &d.Diagnosis.Advice, &d.Host, &d.Provider, &d.Source, &r.marks}
}

func (r *deliveryRow) delivery() *relay.Delivery {
	r.d.ID.Message, r.d.Account = toID(r.message), toID(r.account)
	r.d.Due, r.d.Expires, r.d.Updated, r.d.Delayed = fromMicros(r.due), fromMicros(r.expires), fromMicros(r.updated), r.delayed != 0
	r.d.Deeds = deedsOf(r.marks)
	return &r.d
}

// detail is the part of an event that is never searched.
type detail struct {
	Reply      relay.Reply       `json:"reply,omitzero"`
	Diagnosis  relay.Diagnosis   `json:"diagnosis,omitzero"`
	Attempt    *relay.Attempt    `json:"attempt,omitempty"`
	Provider   string            `json:"provider,omitempty"`
	Engagement *relay.Engagement `json:"engagement,omitempty"`
	Source     string            `json:"source,omitempty"` // of what came after the attempts
	Mark       relay.Mark        `json:"mark,omitempty"`
}

func detailOf(o *relay.Outcome) detail {
	return detail{Reply: o.Reply, Diagnosis: o.Diagnosis, Attempt: o.Attempt, Provider: o.Provider, Engagement: o.Engagement}
}

// encodeDetail gives nil where there is nothing to tell.
func encodeDetail(d detail) ([]byte, error) {
	if d == (detail{}) {
		return nil, nil
	}
	return json.Marshal(d)
}

const selectEvents = "select e.id, e.at, e.account, e.message, e.n, e.kind, e.detail, m.sender, m.subject, m.header_id, d.recipient" +
	" from event e join message m on m.id = e.message join delivery d on d.message = e.message and d.n = e.n where "

func scanEvent(row scanner) (*relay.Event, error) {
	var e relay.Event
	var id, account, message, raw []byte
	var at int64
	if err := row.Scan(&id, &at, &account, &message, &e.Delivery.N, &e.Kind, &raw,
		&e.Sender, &e.Subject, &e.HeaderID, &e.Recipient); err != nil {
		return nil, err
	}
	e.ID, e.At, e.Account, e.Delivery.Message = toID(id), fromMicros(at), toID(account), toID(message)
	if raw != nil {
		var d detail
		if err := json.Unmarshal(raw, &d); err != nil {
			return nil, fmt.Errorf("read event %s: %w", e.ID, err)
		}
		e.Reply, e.Diagnosis, e.Attempt, e.Provider, e.Engagement = d.Reply, d.Diagnosis, d.Attempt, d.Provider, d.Engagement
		e.Source, e.Mark = d.Source, d.Mark
	}
	return &e, nil
}
