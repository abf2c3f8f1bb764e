package track

import (
	"bytes"
	"context"
	"net/url"
	"runtime"
	"slices"
	"strings"

	"postrider/internal/deliver"
	"postrider/internal/link"
	"postrider/internal/message"
	"postrider/internal/relay"
	"postrider/internal/rewrite"
)

// Fields adds header fields to what a recipient gets.
type Fields interface {
	// Fields gives those of a delivery, each with its line end, in ASCII. base is
	// where links of the message lead to, "https://track.example.com"; empty: there
	// can be none. An error defers the delivery.
	Fields(ctx context.Context, m *relay.Message, d *relay.Delivery, base string) ([]byte, error)
	// Places gives the links that stand in place of placeholders in its texts; all
	// empty: there are none. An error defers the delivery.
	Places(ctx context.Context, m *relay.Message, d *relay.Delivery, base string) (rewrite.Places, error)
}

// Settings says what is to be tracked.
type Settings interface {
	// Credential gives a credential of the account; nil where there is none.
	Credential(ctx context.Context, account, id relay.ID) (*relay.Credential, error)
	Account(ctx context.Context, id relay.ID) (*relay.Account, *relay.Plan, error)
	// Untracked tells whether the account tracks nothing of an address.
	Untracked(ctx context.Context, account relay.ID, address string) (bool, error)
}

// Renderer makes of a message what each recipient gets.
type Renderer struct {
	links    *link.Links
	hosts    *Hosts
	settings Settings
	fields   []Fields
	room     chan struct{} // bounds the bodies in memory
}

// NewRenderer makes a Renderer.
func NewRenderer(l *link.Links, h *Hosts, s Settings, fields ...Fields) *Renderer {
	return &Renderer{links: l, hosts: h, settings: s, fields: fields, room: make(chan struct{}, 4*runtime.GOMAXPROCS(0))}
}

// Render is deliver.Renderer. Mail of which nothing is tracked, and that has no
// placeholders, is not even read.
func (r *Renderer) Render(ctx context.Context, m *relay.Message, d *relay.Delivery, content relay.Content, buf *message.Buffer) (out deliver.Rendering, err error) {
	base, domain, err := r.hosts.Base(ctx, m)
	if err != nil {
		return out, err
	}
	for _, f := range r.fields {
		more, err := f.Fields(ctx, m, d, base)
		if err != nil {
			return out, err
		}
		out.Fields = append(out.Fields, more...)
	}
	places, err := r.places(ctx, m, d, base)
	if err != nil {
		return out, err
	}
	var what relay.Track
	if base != "" {
		if what, err = r.tracked(ctx, m, d, domain); err != nil {
			return out, err
		}
	}
	if what == "" && places == (rewrite.Places{}) {
		return out, nil
	}
	select {
	case r.room <- struct{}{}:
		defer func() { <-r.room }()
	case <-ctx.Done():
		return out, ctx.Err()
	}
	c := &copier{links: r.links, account: m.Account, delivery: d.ID, base: base, what: what, places: places, signed: signs(domain)}
	edited, err := message.Editing{Most: rewrite.MaxText, Skip: c.skip, Edit: c.edit}.Apply(content, buf)
	if err != nil {
		return out, err
	}
	if c.changed {
		out.Content = edited
	}
	return out, nil
}

// places are the links that stand in place of placeholders, where there are any.
func (r *Renderer) places(ctx context.Context, m *relay.Message, d *relay.Delivery, base string) (places rewrite.Places, err error) {
	if !m.OptOut.Link || !m.OptOut.Places {
		return places, nil
	}
	for _, f := range r.fields {
		if places, err = f.Places(ctx, m, d, base); err != nil || places != (rewrite.Places{}) {
			break
		}
	}
	return places, err
}

// tracked is what is tracked of a delivery; empty: nothing. Whoever wants nothing tracked has the
// last word: the account, then the recipient. Else the message says it, its
// credential, the domain that it is sent in the name of, or the account, in this
// order.
func (r *Renderer) tracked(ctx context.Context, m *relay.Message, d *relay.Delivery, domain *relay.Domain) (relay.Track, error) {
	if m.Track == relay.TrackOff || m.Track == "" && m.Credential.IsZero() { // our own reports have none
		return "", nil
	}
	account, _, err := r.settings.Account(ctx, m.Account)
	if err != nil || account.Track == relay.TrackOff {
		return "", err
	}
	var ofDomain relay.Track
	if domain != nil {
		ofDomain = domain.Track
	}
	what := m.Track
	if what == "" {
		c, err := r.settings.Credential(ctx, m.Account, m.Credential)
		if err != nil {
			return "", err
		}
		if c != nil {
			what = ofCredential(c, ofDomain.Has("text") || account.Track.Has("text"))
		}
	}
	if what == "" {
		what = ofDomain
	}
	if what == "" {
		what = account.Track
	}
	if what == "" || what == relay.TrackOff {
		return "", nil
	}
	untracked, err := r.settings.Untracked(ctx, m.Account, d.Recipient.Address)
	if err != nil || untracked {
		return "", err
	}
	return what, nil
}

// ofCredential is what a credential says; nothing where it tracks nothing. Plain
// text is an addition to links that others say.
func ofCredential(c *relay.Credential, text bool) relay.Track {
	var words []string
	if c.Opens {
		words = append(words, "opens")
	}
	if c.Clicks {
		words = append(words, "clicks")
		if text {
			words = append(words, "text")
		}
	}
	return relay.Track(strings.Join(words, " "))
}

// signs tells whether mail in the name of a domain is signed.
func signs(d *relay.Domain) bool {
	return d != nil && slices.ContainsFunc(d.Keys, func(k relay.DKIMKey) bool { return k.State == relay.KeySigning })
}

// copier makes the copy of one delivery.
type copier struct {
	links    *link.Links
	account  relay.ID
	delivery relay.DeliveryID
	base     string
	what     relay.Track
	places   rewrite.Places
	signed   bool   // by us, whatever comes of other signatures
	own      string // the header's targets for unsubscribing, which stay
	changed  bool
}

// skip leaves alone what would lose the only signature of its sender's domain.
func (c *copier) skip(header []byte) bool {
	lower := bytes.ToLower(header)
	if at := bytes.Index(append([]byte("\n"), lower...), []byte("\nlist-unsubscribe:")); at >= 0 {
		c.own = string(header[at:])
	}
	return !c.signed && bytes.Contains(append([]byte("\n"), lower...), []byte("\ndkim-signature:"))
}

func (c *copier) edit(p message.Part, charset string) ([]byte, bool) {
	if bytes.Contains(p.Body, []byte("-----BEGIN PGP ")) {
		return nil, false
	}
	utf8 := charset == "utf-8" || charset == "utf8"
	lead := func(address string) (string, bool) { return c.link(address, utf8) }
	out, filled := c.places.Fill(p.Body, p.Type)
	var changed bool
	if p.Type == "text/plain" {
		if c.what.Has("text") {
			out, changed = rewrite.Text(out, lead)
		}
	} else {
		h := rewrite.HTML{}
		if c.what.Has("clicks") {
			h.Link = lead
		}
		if c.what.Has("opens") && len(bytes.TrimSpace(out)) > 0 {
			h.Last = `<img src="` + c.base + c.links.Path(link.Open, c.account, c.delivery, "") + `" width="1" height="1" alt="" style="display:block;border:0;width:1px;height:1px">`
		}
		out, changed = h.Rewrite(out)
	}
	changed = changed || filled
	c.changed = c.changed || changed
	return out, changed
}

// link gives the link that leads to an address, or false where the address stays.
func (c *copier) link(address string, utf8 bool) (string, bool) {
	to, ok := target(address, utf8)
	if !ok || strings.HasPrefix(to, c.base+"/") || c.own != "" && strings.Contains(c.own, "<"+to+">") {
		return "", false
	}
	return c.base + c.links.Path(link.Click, c.account, c.delivery, to), true
}

// target makes of an address one that a redirect can name: of the web, in visible
// ASCII. What was to be filled in before and was not, stays as it is.
func target(address string, utf8 bool) (string, bool) {
	scheme, rest, ok := strings.Cut(address, "://")
	if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") || len(address) > link.MaxTarget {
		return "", false
	}
	host, _, _ := strings.Cut(strings.NewReplacer("/", " ", "?", " ", "#", " ").Replace(rest), " ")
	if host == "" {
		return "", false
	}
	for _, left := range []string{"{{", "}}", "[[", "]]", "<%", "%%", "${", "*|", `\`} {
		if strings.Contains(address, left) {
			return "", false
		}
	}
	var b strings.Builder
	for i := range len(address) {
		switch ch := address[i]; {
		case ch >= 0x80 && (!utf8 || i < len(scheme)+3+len(host)):
			return "", false // who knows which character that is; names of hosts have rules of their own
		case ch <= ' ' || ch >= 0x7f || ch == '"' || ch == '<' || ch == '>' || ch == '`':
			b.WriteString("%" + hex(ch))
		default:
			b.WriteByte(ch)
		}
	}
	if b.Len() > link.MaxTarget {
		return "", false
	}
	if _, err := url.Parse(b.String()); err != nil && !strings.Contains(err.Error(), "invalid URL escape") {
		return "", false
	}
	return b.String(), true
}

func hex(c byte) string {
	const digits = "0123456789ABCDEF"
	return string([]byte{digits[c>>4], digits[c&15]})
}
