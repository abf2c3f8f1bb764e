package unsubscribe

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"postrider/internal/link"
	"postrider/internal/policy"
	"postrider/internal/relay"
	"postrider/internal/smtp"
	"postrider/internal/store"
)

// Store knows deliveries, and what their recipients do not want.
type Store interface {
	ReturnedAbout(ctx context.Context, ids []relay.DeliveryID) ([]*relay.Logged, error)
	LeftBy(ctx context.Context, account relay.ID, address string) ([]*relay.Leaver, error)
	Suppressed(ctx context.Context, account relay.ID, stream relay.Stream, addresses []string) ([]*relay.Suppression, error)
}

// Book knows accounts and their groups.
type Book interface {
	Account(ctx context.Context, id relay.ID) (*relay.Account, *relay.Plan, error)
	Groups(ctx context.Context, account relay.ID) ([]*relay.Group, error)
}

// Settler makes outcomes durable.
type Settler interface {
	Settle(ctx context.Context, o relay.Outcome) error
}

// Pages is track.Pages: what the links to unsubscribe lead to. GET shows, POST acts,
// so that programs which follow links change nothing.
type Pages struct {
	links  *link.Links
	store  Store
	book   Book
	queue  Settler
	client func(*http.Request) netip.Addr
	log    *slog.Logger
	now    func() time.Time
	policy string // Content-Security-Policy
	text   *template.Template
}

// NewPages makes Pages. Client tells where a request comes from.
func NewPages(l *link.Links, s Store, b Book, q Settler, client func(*http.Request) netip.Addr, log *slog.Logger) *Pages {
	sum := sha256.Sum256([]byte(style))
	return &Pages{links: l, store: s, book: b, queue: q, client: client, log: log, now: time.Now, text: template.Must(template.New("page").Parse(pageText)),
		policy: "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"}
}

//go:embed page.css
var style string

//go:embed page.html
var pageText string

// page is what is shown.
type page struct {
	W         *words
	Style     template.CSS
	Sender    string // the account's title, else the domain in From
	Title     string
	Text      string
	Done      bool
	Button    string // of a form that does Action; empty: there is none
	Action    string
	More      string // link to the preferences; empty: none
	Choices   []choice
	NoneOn    bool // nothing at all is wanted
	Asks      bool // there are choices to be made
	Important bool // Text tells of trouble
}

type choice struct {
	ID, Name, Description string
	On                    bool
}

// visit is one request, and what is known of whose link it is.
type visit struct {
	w       http.ResponseWriter
	r       *http.Request
	link    link.Link
	words   *words
	d       *relay.Delivery
	from    string // of the message: the address that its recipient saw
	address string // in the form that suppressions have
	account *relay.Account
	groups  []*relay.Group
	group   *relay.Group // of the link; nil: all mail of the stream
}

// ServeLink answers a request with a good link.
func (p *Pages) ServeLink(w http.ResponseWriter, r *http.Request, l link.Link) {
	v := &visit{w: w, r: r, link: l, words: wordsFor(r)}
	w.Header().Set("Content-Security-Policy", p.policy)
	w.Header().Set("Content-Language", v.words.Lang)
	w.Header().Add("Vary", "Accept-Language")
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost:
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		p.trouble(v, http.StatusMethodNotAllowed, v.words.Wrong)
		return
	}
	if err := p.find(r.Context(), v); err != nil {
		if relay.CodeOf(err) == relay.NotFound {
			p.trouble(v, http.StatusGone, v.words.Gone)
			return
		}
		p.failed(v, err)
		return
	}
	if r.Method != http.MethodPost {
		p.look(v)
		return
	}
	// Both forms of RFC 8058 section 3.2 serve.
	if err := r.ParseMultipartForm(32 << 10); err != nil && !errors.Is(err, http.ErrNotMultipart) {
		p.trouble(v, http.StatusBadRequest, v.words.Wrong)
		return
	}
	if v.r.MultipartForm != nil {
		defer v.r.MultipartForm.RemoveAll() // files that nobody asked for
	}
	p.act(v)
}

// find looks up what a link is about.
func (p *Pages) find(ctx context.Context, v *visit) error {
	found, err := p.store.ReturnedAbout(ctx, []relay.DeliveryID{v.link.Delivery})
	if err != nil {
		return err
	}
	if len(found) == 0 || !p.links.Of(found[0].Account, v.link) {
		return &relay.Error{Code: relay.NotFound, Text: "There is no such delivery any more."}
	}
	v.d, v.from = &found[0].Delivery, found[0].Message.From
	a, err := smtp.ParseAddress(v.d.Recipient.Address, true)
	if err != nil {
		return fmt.Errorf("read recipient of %s: %w", v.d.ID, err)
	}
	v.address = policy.NameOf("RCPT", a).Key
	if v.account, _, err = p.book.Account(ctx, v.d.Account); err != nil {
		return err
	}
	if v.groups, err = p.book.Groups(ctx, v.d.Account); err != nil {
		return err
	}
	for _, g := range v.groups {
		if g.ID == v.link.Target {
			v.group = g // where it is gone, all mail of the stream is meant
		}
	}
	return nil
}

// look shows what could be done.
func (p *Pages) look(v *visit) {
	if v.link.Kind == link.Preferences {
		p.preferences(v, false)
		return
	}
	s, err := p.state(v)
	if err != nil {
		p.failed(v, err)
		return
	}
	out := p.page(v, v.words.Leave)
	switch {
	case v.group == nil && s.none || v.group != nil && s.left[v.group.ID]:
		p.left(v)
		return
	case s.none: // to come back to one group would change nothing
		out.Text, out.Done = v.say(v.words.LeftAll, v.words.LeftAll), true
		p.show(v, http.StatusOK, out)
		return
	}
	out.Text, out.Button, out.Action = v.say(v.words.Ask, v.words.AskAll), v.words.Confirm, "leave"
	p.show(v, http.StatusOK, out)
}

// act does what a form, or a mail program, asks for.
func (p *Pages) act(v *visit) {
	form := v.r.PostForm
	click := len(form["List-Unsubscribe"]) == 1 && form["List-Unsubscribe"][0] == "One-Click"
	action := ""
	if a := form["action"]; len(a) == 1 {
		action = a[0]
	}
	switch {
	case click && action == "" && v.link.Kind == link.Unsubscribe:
		p.leave(v, "one-click")
	case action == "leave":
		p.leave(v, "page")
	case action == "join":
		if err := p.wish(v, relay.EventResubscribed, "page", v.group); err != nil {
			p.failed(v, err)
			return
		}
		out := p.page(v, v.words.Leave)
		out.Text, out.Done = v.say(v.words.Back, v.words.Back), true
		p.show(v, http.StatusOK, out)
	case action == "choose" && v.link.Kind == link.Preferences:
		p.choose(v, form["group"], slices.Contains(form["none"], "on"))
	default:
		p.trouble(v, http.StatusBadRequest, v.words.Wrong)
	}
}

func (p *Pages) leave(v *visit, method string) {
	if err := p.wish(v, relay.EventUnsubscribed, method, v.group); err != nil {
		p.failed(v, err)
		return
	}
	p.left(v)
}

// left tells that the recipient gets no such mail any more.
func (p *Pages) left(v *visit) {
	out := p.page(v, v.words.Leave)
	out.Text, out.Done, out.Button, out.Action = v.say(v.words.Left, v.words.LeftAll), true, v.words.Undo, "join"
	p.show(v, http.StatusOK, out)
}

// wish makes durable what a recipient wants. What is so already is well.
func (p *Pages) wish(v *visit, kind relay.Kind, method string, group *relay.Group) error {
	o := relay.Outcome{Delivery: v.d.ID, Account: v.d.Account, Kind: kind, At: p.now(), Address: v.address, Provider: v.d.Provider,
		Engagement: &relay.Engagement{Method: method, Client: p.client(v.r), UserAgent: agent(v.r)}}
	if group != nil {
		o.Engagement.Group = group.ID
	}
	err := p.queue.Settle(v.r.Context(), o)
	if errors.Is(err, store.ErrSettled) {
		return nil
	}
	if err == nil {
		p.log.Info("a recipient chose", "delivery", o.Delivery, "kind", kind, "group", o.Engagement.Group, "method", method)
	}
	return err
}

// state is what a recipient does not want.
type state struct {
	left    map[string]bool // groups
	none    bool            // nothing of the stream
	blocked bool            // nothing may be sent for other reasons
}

func (p *Pages) state(v *visit) (s state, err error) {
	left, err := p.store.LeftBy(v.r.Context(), v.d.Account, v.address)
	if err != nil {
		return s, err
	}
	s.left = make(map[string]bool, len(left))
	for _, l := range left {
		s.left[l.Group] = true
	}
	found, err := p.store.Suppressed(v.r.Context(), v.d.Account, v.d.Stream, []string{v.address})
	for _, f := range found {
		s.none = s.none || f.Reason == relay.ReasonUnsubscribe
		s.blocked = s.blocked || f.Reason != relay.ReasonUnsubscribe
	}
	return s, err
}

// shown are the groups that a recipient may choose of: the public ones, and those
// that are his affair.
func (v *visit) shown(s state) (all []*relay.Group) {
	for _, g := range v.groups {
		if g.Public || g == v.group || s.left[g.ID] {
			all = append(all, g)
		}
	}
	return all
}

func (p *Pages) preferences(v *visit, saved bool) {
	s, err := p.state(v)
	if err != nil {
		p.failed(v, err)
		return
	}
	out := p.page(v, v.words.Choose)
	out.Asks, out.NoneOn = true, s.none
	out.Text, out.Done = fmt.Sprintf(v.words.Get, masked(v.d.Recipient.Address)), saved
	for _, g := range v.shown(s) {
		out.Choices = append(out.Choices, choice{g.ID, g.Name, g.Description, !s.left[g.ID]})
	}
	if s.blocked {
		out.Text = v.words.Blocked + " " + out.Text
	}
	p.show(v, http.StatusOK, out)
}

// choose makes durable how the form of the preferences differs from what was.
func (p *Pages) choose(v *visit, wanted []string, none bool) {
	s, err := p.state(v)
	if err != nil {
		p.failed(v, err)
		return
	}
	for _, g := range v.shown(s) {
		kind := relay.EventUnsubscribed
		if slices.Contains(wanted, g.ID) {
			kind = relay.EventResubscribed
		}
		if s.left[g.ID] == (kind == relay.EventUnsubscribed) {
			continue
		}
		if err := p.wish(v, kind, "page", g); err != nil {
			p.failed(v, err)
			return
		}
	}
	if none != s.none {
		kind := relay.EventUnsubscribed
		if !none {
			kind = relay.EventResubscribed
		}
		if err := p.wish(v, kind, "page", nil); err != nil {
			p.failed(v, err)
			return
		}
	}
	p.preferences(v, true)
}

// say puts the address, and the group where there is one, into a text.
func (v *visit) say(ofGroup, ofAll string) string {
	who := masked(v.d.Recipient.Address)
	if v.group != nil && strings.Count(ofGroup, "%s") == 2 {
		return fmt.Sprintf(ofGroup, who, v.group.Name)
	}
	if v.group != nil {
		return fmt.Sprintf(ofGroup, who)
	}
	return fmt.Sprintf(ofAll, who)
}

// masked shows enough of an address for its owner: links are passed on.
func masked(address string) string {
	at := strings.LastIndexByte(address, '@')
	if at <= 0 {
		return "***"
	}
	_, n := utf8.DecodeRuneInString(address)
	return address[:n] + "***" + address[at:]
}

func (p *Pages) page(v *visit, title string) page {
	out := page{W: v.words, Style: template.CSS(style), Title: title}
	if v.account != nil {
		out.Sender = v.account.Title
		if out.Sender == "" { // its name says nothing to recipients
			out.Sender = v.from[strings.LastIndexByte(v.from, '@')+1:]
		}
		out.More = p.links.Path(link.Preferences, v.d.Account, v.d.ID, v.link.Target)
	}
	return out
}

// failed answers for trouble of ours: the log knows more.
func (p *Pages) failed(v *visit, err error) {
	if v.r.Context().Err() == nil {
		p.log.Error("a link to unsubscribe can't be served", "delivery", v.link.Delivery, "err", err)
	}
	v.w.Header().Set("Retry-After", "60")
	p.trouble(v, http.StatusServiceUnavailable, v.words.Trouble)
}

func (p *Pages) trouble(v *visit, status int, text string) {
	out := p.page(v, v.words.Leave)
	out.Text, out.Important, out.More = text, true, ""
	p.show(v, status, out)
}

func (p *Pages) show(v *visit, status int, out page) {
	var b bytes.Buffer
	if err := p.text.Execute(&b, out); err != nil {
		p.log.Error("a page can't be made", "err", err)
		http.Error(v.w, "", http.StatusInternalServerError)
		return
	}
	v.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	v.w.WriteHeader(status)
	if v.r.Method != http.MethodHead {
		_, _ = io.Copy(v.w, &b) // whoever has gone wants no answer
	}
}

// agent is how the program that asks calls itself, in at most 400 characters.
func agent(r *http.Request) string {
	s := strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return -1
		}
		return c
	}, strings.ToValidUTF8(r.UserAgent(), "?"))
	if n := []rune(s); len(n) > 400 {
		s = string(n[:400])
	}
	return s
}
