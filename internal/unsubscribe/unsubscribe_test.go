package unsubscribe

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"postrider/internal/account"
	"postrider/internal/link"
	"postrider/internal/message"
	"postrider/internal/relay"
	"postrider/internal/rewrite"
	"postrider/internal/seal"
	"postrider/internal/store"
	"postrider/internal/store/sqlite"
)

var (
	somebody = relay.Actor{Name: "test"}
	noon     = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)
	silent   = slog.New(slog.DiscardHandler)
)

// fixture is an account "shop" with groups, and a delivered broadcast.
type fixture struct {
	*testing.T
	db        *store.DB
	directory *account.Directory
	links     *link.Links
	pages     *Pages
	owner     relay.ID
	m         *relay.Message
	d         *relay.Delivery
	down      error // of the store
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "mail.db"), silent)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	f := &fixture{T: t, db: db, directory: account.NewDirectory(db)}
	box, err := seal.New(bytes.Repeat([]byte("k"), seal.KeySize))
	f.must(err)
	f.links, err = link.New(box)
	f.must(err)
	f.owner = relay.ID{1, 15: 1}
	f.must(db.AddAccount(t.Context(), somebody, &relay.Account{ID: f.owner, Name: "shop", Title: "The <Shop>", Created: noon}))
	for _, g := range []relay.Group{{ID: "news", Name: "Newsletter", Public: true, Position: 2}, {ID: "offers", Name: "Offers & more", Description: "cheap", Public: true, Position: 1},
		{ID: "staff", Name: "Staff"}} {
		g.Account, g.Created = f.owner, noon
		f.must(db.AddGroup(t.Context(), somebody, &g, 10))
	}
	f.m, f.d = f.put(f.owner, relay.Broadcast)
	f.pages = NewPages(f.links, db, f.directory, f, func(*http.Request) netip.Addr { return netip.MustParseAddr("192.0.2.7") }, silent)
	return f
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// Settle is Settler.
func (f *fixture) Settle(ctx context.Context, o relay.Outcome) error {
	if f.down != nil {
		return f.down
	}
	return f.db.Settle(ctx, 0, []relay.Outcome{o})[0]
}

func (f *fixture) put(owner relay.ID, stream relay.Stream) (*relay.Message, *relay.Delivery) {
	f.Helper()
	m := &relay.Message{ID: relay.FirstIDAt(noon), Account: owner, Stream: stream, Received: noon, From: "app@shop.test", Envelope: relay.Envelope{Sender: "app@shop.test"},
		OptOut: relay.OptOut{Group: "news", Link: true, Header: true}}
	m.ID[15] = byte(stream) + owner[1]
	d := &relay.Delivery{ID: relay.DeliveryID{Message: m.ID, N: 1}, Account: owner, Stream: stream, Recipient: relay.Recipient{Address: "Ann@Example.NET"}, Domain: "example.net",
		State: relay.Queued, Due: noon, Expires: noon.Add(time.Hour), Updated: noon}
	f.must(f.db.Put(f.Context(), 0, []*relay.Submission{{Message: m, Content: message.Bytes([]byte("x")), Deliveries: []*relay.Delivery{d}}})[0])
	return m, d
}

// ask asks a link of the delivery for a page.
func (f *fixture) ask(method string, k link.Kind, group string, form url.Values, header ...string) *httptest.ResponseRecorder {
	f.Helper()
	path := f.links.Path(k, f.owner, f.d.ID, group)
	r := httptest.NewRequest(method, "https://track.test"+path, strings.NewReader(form.Encode()))
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return f.serve(r, path)
}

func (f *fixture) serve(r *http.Request, path string) *httptest.ResponseRecorder {
	f.Helper()
	l, err := f.links.Parse(path)
	f.must(err)
	w := httptest.NewRecorder()
	f.pages.ServeLink(w, r, l)
	return w
}

// kinds are the events of the delivery after its acceptance, with group and method.
func (f *fixture) kinds() (all []string) {
	f.Helper()
	s, err := f.db.Story(f.Context(), f.owner, f.d.ID.Message)
	f.must(err)
	for _, e := range s.Events[1:] {
		all = append(all, e.Kind.String()+" "+e.Engagement.Group+" "+e.Engagement.Method)
	}
	return all
}

func (f *fixture) wantKinds(want ...string) {
	f.Helper()
	if got := f.kinds(); !slices.Equal(got, want) {
		f.Errorf("events %q, want %q", got, want)
	}
}

var oneClick = url.Values{"List-Unsubscribe": {"One-Click"}}

// Whoever only looks, person or scanner, changes nothing.
func TestLooking(t *testing.T) {
	f := newFixture(t)
	for _, k := range []link.Kind{link.Unsubscribe, link.Preferences} {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete} {
			w := f.ask(method, k, "news", nil)
			want := http.StatusOK
			if method != http.MethodGet && method != http.MethodHead {
				want = http.StatusMethodNotAllowed
			}
			if w.Code != want || method == http.MethodHead && w.Body.Len() > 0 {
				t.Errorf("%s: %d, %d bytes", method, w.Code, w.Body.Len())
			}
			if len(w.Result().Cookies()) > 0 || w.Header().Get("Location") != "" || !strings.Contains(w.Header().Get("Content-Security-Policy"), "default-src 'none'") {
				t.Errorf("%s: %v", method, w.Header())
			}
		}
	}
	for name, form := range map[string]url.Values{"nothing": {}, "other words": {"List-Unsubscribe": {"yes"}}, "twice": {"List-Unsubscribe": {"One-Click", "One-Click"}}, "action": {"action": {"x"}},
		"choices on the other page": {"action": {"choose"}}} {
		if w := f.ask(http.MethodPost, link.Unsubscribe, "news", form); w.Code != http.StatusBadRequest {
			t.Errorf("POST of %s: %d", name, w.Code)
		}
	}
	if w := f.ask(http.MethodPost, link.Preferences, "news", oneClick); w.Code != http.StatusBadRequest {
		t.Errorf("one click on the preferences: %d", w.Code)
	}
	f.wantKinds()
}

// RFC 8058 section 3.2: the body may be of either form; it works at once, and again.
func TestOneClick(t *testing.T) {
	f := newFixture(t)
	f.down = errors.New("the store is away")
	if w := f.ask(http.MethodPost, link.Unsubscribe, "news", oneClick); w.Code != http.StatusServiceUnavailable {
		t.Errorf("not durable, and %d", w.Code)
	}
	f.down = nil
	for range 2 {
		if w := f.ask(http.MethodPost, link.Unsubscribe, "news", oneClick, "User-Agent", "Mail/1\x00"); w.Code != http.StatusOK {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	f.wantKinds("unsubscribed news one-click")
	s, err := f.db.Story(t.Context(), f.owner, f.d.ID.Message)
	f.must(err)
	if e := s.Events[1].Engagement; e.Client != netip.MustParseAddr("192.0.2.7") || e.UserAgent != "Mail/1" {
		t.Errorf("engagement %+v", e)
	}
	left, err := f.db.Left(t.Context(), f.owner, "news", []string{"ann@example.net"})
	if err != nil || len(left) != 1 {
		t.Errorf("left %v, %v", left, err)
	}

	// Of no group: all mail of the stream. As multipart/form-data.
	var b bytes.Buffer
	form := multipart.NewWriter(&b)
	f.must(form.WriteField("List-Unsubscribe", "One-Click"))
	f.must(form.Close())
	path := f.links.Path(link.Unsubscribe, f.owner, f.d.ID, "")
	r := httptest.NewRequest(http.MethodPost, path, &b)
	r.Header.Set("Content-Type", form.FormDataContentType())
	if w := f.serve(r, path); w.Code != http.StatusOK {
		t.Errorf("multipart: %d", w.Code)
	}
	f.wantKinds("unsubscribed news one-click", "unsubscribed  one-click")
	found, err := f.db.Suppressed(t.Context(), f.owner, relay.Broadcast, []string{"ann@example.net"})
	if err != nil || len(found) != 1 || found[0].Stream != relay.Broadcast || found[0].Reason != relay.ReasonUnsubscribe || found[0].Event.IsZero() {
		t.Errorf("suppressed %+v, %v", found, err)
	}
	if found, err = f.db.Suppressed(t.Context(), f.owner, relay.Transactional, []string{"ann@example.net"}); err != nil || len(found) != 0 {
		t.Errorf("the other stream: %+v, %v", found, err)
	}
}

// A link of what is gone says so; one that is another account's does nothing.
func TestGone(t *testing.T) {
	f := newFixture(t)
	for name, path := range map[string]string{
		"no delivery":     f.links.Path(link.Unsubscribe, f.owner, relay.DeliveryID{Message: relay.ID{9}, N: 1}, "news"),
		"another account": f.links.Path(link.Unsubscribe, relay.ID{2}, f.d.ID, "news"),
	} {
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(oneClick.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if w := f.serve(r, path); w.Code != http.StatusGone {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
	f.wantKinds()
	// Where the group is gone, all mail of the stream is left.
	f.must(f.db.RemoveGroup(t.Context(), somebody, f.owner, "news", true))
	f.directory.Forget()
	if w := f.ask(http.MethodPost, link.Unsubscribe, "news", oneClick); w.Code != http.StatusOK {
		t.Errorf("%d", w.Code)
	}
	f.wantKinds("unsubscribed  one-click")
}

// controls are what a form on a page would send as it stands.
func controls(t *testing.T, page string) (form url.Values, boxes []string) {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	form = url.Values{}
	labelled := 0
	for n := range doc.Descendants() {
		a := map[string]string{}
		for _, at := range n.Attr {
			a[at.Key] = at.Val
			if strings.HasPrefix(at.Key, "on") {
				t.Errorf("a script: %s", at.Key)
			}
		}
		switch n.Data {
		case "script", "img", "iframe", "link":
			t.Errorf("<%s> on the page", n.Data)
		case "form":
			if a["method"] != "post" || a["action"] != "" {
				t.Errorf("form %v", a)
			}
		case "input":
			_, checked := a["checked"]
			if a["type"] == "checkbox" {
				boxes = append(boxes, a["value"])
				if n.Parent.Data == "label" {
					labelled++
				}
			}
			if a["type"] == "hidden" || checked {
				form.Add(a["name"], a["value"])
			}
		}
	}
	if labelled != len(boxes) {
		t.Errorf("%d of %d boxes have a label", labelled, len(boxes))
	}
	return form, boxes
}

func TestPage(t *testing.T) {
	f := newFixture(t)
	w := f.ask(http.MethodGet, link.Unsubscribe, "news", nil, "Accept-Language", "de-AT, en;q=0.5")
	text := w.Body.String()
	for _, want := range []string{`<html lang="de">`, "A***@Example.NET", "„Newsletter“", "The &lt;Shop&gt;", "/p/"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.Contains(text, "Ann@") {
		t.Error("the address is shown")
	}
	form, _ := controls(t, text)
	if w = f.ask(http.MethodPost, link.Unsubscribe, "news", form); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "Done.") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	f.wantKinds("unsubscribed news page")
	form, _ = controls(t, w.Body.String())
	if w = f.ask(http.MethodPost, link.Unsubscribe, "news", form); w.Code != http.StatusOK {
		t.Errorf("undo: %d", w.Code)
	}
	f.wantKinds("unsubscribed news page", "resubscribed news page")
	for header, lang := range map[string]string{"": "en", "fr-CA": "fr", "es, de;q=0.1": "es", "ja": "en", ";;;": "en"} {
		if w := f.ask(http.MethodGet, link.Unsubscribe, "", nil, "Accept-Language", header); w.Header().Get("Content-Language") != lang {
			t.Errorf("%q: %s", header, w.Header().Get("Content-Language"))
		}
	}
	for i, a := range texts {
		for _, s := range []string{a.Ask, a.Left} {
			if strings.Count(s, "%s") != 2 {
				t.Errorf("%s: %q", a.Lang, s)
			}
		}
		for _, s := range []string{a.AskAll, a.LeftAll, a.Back, a.Get} {
			if strings.Count(s, "%s") != 1 {
				t.Errorf("%s: %q", texts[i].Lang, s)
			}
		}
	}
}

// Who comes again after leaving is told that it is done; who has not left, that it is
// not done by looking.
func TestPageAgain(t *testing.T) {
	f := newFixture(t)
	for _, step := range []struct {
		group, does string
		button      bool
		texts       []string
	}{
		{"news", "", true, []string{`value="leave"`, "Press the button"}},
		{"news", "leave", true, []string{`value="join"`, "Done.", "Newsletter"}},
		{"", "", true, []string{`value="leave"`, "Press the button"}},
		{"", "leave", true, []string{`value="join"`, "Done."}},
		{"news", "join", false, []string{"Done.", "no more mail of this kind"}}, // still nothing at all
	} {
		if step.does != "" {
			if w := f.ask(http.MethodPost, link.Unsubscribe, step.group, url.Values{"action": {step.does}}); w.Code != http.StatusOK {
				t.Fatalf("%+v: %d %s", step, w.Code, w.Body)
			}
		}
		text := f.ask(http.MethodGet, link.Unsubscribe, step.group, nil).Body.String()
		if strings.Contains(text, "<button") != step.button {
			t.Errorf("%+v:\n%s", step, text)
		}
		for _, want := range step.texts {
			if !strings.Contains(text, want) {
				t.Errorf("%+v: %q is not in\n%s", step, want, text)
			}
		}
	}
}

// Without a title it is the domain of the sender's address that recipients know, not
// the name of the account.
func TestSenderWithoutTitle(t *testing.T) {
	f := newFixture(t)
	f.owner = relay.ID{1, 5, 15: 1}
	f.must(f.db.AddAccount(t.Context(), somebody, &relay.Account{ID: f.owner, Name: "default", Created: noon}))
	f.m, f.d = f.put(f.owner, relay.Broadcast)
	w := f.ask(http.MethodGet, link.Unsubscribe, "", nil)
	if text := w.Body.String(); w.Code != http.StatusOK || !strings.Contains(text, `<p class="sender">shop.test</p>`) || strings.Contains(text, "default") {
		t.Errorf("%d %s", w.Code, text)
	}
}

func TestPreferences(t *testing.T) {
	f := newFixture(t)
	page := func() (url.Values, []string) {
		t.Helper()
		w := f.ask(http.MethodGet, link.Preferences, "news", nil)
		if w.Code != http.StatusOK {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		return controls(t, w.Body.String())
	}
	save := func(form url.Values) {
		t.Helper()
		if w := f.ask(http.MethodPost, link.Preferences, "news", form); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "Saved.") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	form, boxes := page()
	if !slices.Equal(boxes, []string{"offers", "news", "on"}) || !slices.Equal(form["group"], []string{"offers", "news"}) || form.Has("none") {
		t.Errorf("at first: %v of %v", form, boxes)
	}
	save(form)
	f.wantKinds() // nothing is new
	form["group"] = []string{"news", "staff", "unheard-of"}
	form.Set("none", "on")
	save(form)
	f.wantKinds("unsubscribed offers page", "unsubscribed  page")
	form, _ = page()
	if !slices.Equal(form["group"], []string{"news"}) || form.Get("none") != "on" {
		t.Errorf("then: %v", form)
	}
	form.Add("group", "offers")
	form.Del("none")
	save(form)
	f.wantKinds("unsubscribed offers page", "unsubscribed  page", "resubscribed offers page", "resubscribed  page")

	// A complaint is not for the recipient to take back, and no group's affair.
	_, err := f.db.Suppress(t.Context(), somebody, f.owner, []relay.Suppression{{Account: f.owner, Address: "ann@example.net", Reason: relay.ReasonComplaint, Created: noon}})
	f.must(err)
	form, _ = page()
	save(form)
	found, err := f.db.Suppressed(t.Context(), f.owner, relay.Broadcast, []string{"ann@example.net"})
	if err != nil || len(found) != 1 {
		t.Errorf("suppressed %+v, %v", found, err)
	}
	// A hidden group is shown to who had mail of it, or left it.
	if w := f.ask(http.MethodGet, link.Preferences, "staff", nil); !strings.Contains(w.Body.String(), "Staff") {
		t.Error("the group of the mail is not shown")
	}
}

type addresses struct{}

func (addresses) Unsubscribe(id relay.DeliveryID, host string) string { return "u+x@" + host }

type domains map[string]*relay.Domain

func (d domains) Domain(_ context.Context, _ relay.ID, name string) (*relay.Domain, error) {
	return d[name], nil
}

func TestFields(t *testing.T) {
	f := newFixture(t)
	aligned := &relay.Domain{Name: "shop.test", ReturnPath: "bounce", Aligned: noon}
	path := f.links.Path(link.Unsubscribe, f.owner, f.d.ID, "news")
	for name, tt := range map[string]struct {
		base, host string
		domain     *relay.Domain
		off        bool
		want       string
	}{
		"both":        {"https://track.test", "", aligned, false, "List-Unsubscribe: <https://track.test" + path + ">,\r\n <mailto:u+x@bounce.shop.test?subject=unsubscribe>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"},
		"our host":    {"", "bounce.relay.test", nil, false, "List-Unsubscribe: <mailto:u+x@bounce.relay.test?subject=unsubscribe>\r\n"},
		"not aligned": {"", "bounce.relay.test", &relay.Domain{Name: "shop.test", ReturnPath: "bounce"}, false, "List-Unsubscribe: <mailto:u+x@bounce.relay.test?subject=unsubscribe>\r\n"},
		"link alone":  {"https://track.test", "", nil, false, "List-Unsubscribe: <https://track.test" + path + ">\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"},
		"neither":     {},
		"off":         {"https://track.test", "", aligned, true, ""},
	} {
		m := *f.m
		m.OptOut.Header = !tt.off
		k := &Maker{Links: f.links, Domains: domains{"shop.test": tt.domain}, Addresses: addresses{}, Host: tt.host, Log: silent}
		got, err := k.Fields(t.Context(), &m, f.d, tt.base)
		if err != nil || string(got) != tt.want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// In place of placeholders are links: of the group, of all, of the preferences. Where
// there are none it is an address, and where there is none either, nothing.
func TestPlaces(t *testing.T) {
	f := newFixture(t)
	at := func(k link.Kind, group string) string {
		return "https://track.test" + f.links.Path(k, f.owner, f.d.ID, group)
	}
	const letter = "mailto:u+x@bounce.relay.test?subject=unsubscribe"
	for name, tt := range map[string]struct {
		base, host string
		want       rewrite.Places
	}{
		"links":   {"https://track.test", "bounce.relay.test", rewrite.Places{Leave: at(link.Unsubscribe, "news"), LeaveAll: at(link.Unsubscribe, ""), Choose: at(link.Preferences, "news")}},
		"address": {"", "bounce.relay.test", rewrite.Places{Leave: letter, LeaveAll: letter, Choose: letter}},
		"neither": {},
	} {
		k := &Maker{Links: f.links, Domains: domains{}, Addresses: addresses{}, Host: tt.host, Log: silent}
		got, err := k.Places(t.Context(), f.m, f.d, tt.base)
		if err != nil || got != tt.want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// What waits when its recipient unsubscribes is not sent any more.
func TestUnwanted(t *testing.T) {
	f := newFixture(t)
	u := NewUnwanted(f.directory, silent)
	u.now = func() time.Time { return noon.Add(time.Minute) }
	of := func(stream relay.Stream, group string) string {
		m := *f.m
		m.Stream, m.OptOut.Group = stream, group
		f.directory.Forget()
		why, unwanted := u.Of(t.Context(), &m, f.d)
		if unwanted != (why.Category != "") {
			t.Errorf("%v, %+v", unwanted, why)
		}
		return why.Category
	}
	want := func(what string, all ...string) {
		t.Helper()
		got := []string{of(relay.Broadcast, ""), of(relay.Broadcast, "news"), of(relay.Broadcast, "offers"), of(relay.Transactional, "news"), of(relay.Transactional, "")}
		if !slices.Equal(got, all) {
			t.Errorf("%s: %q, want %q", what, got, all)
		}
	}
	want("at first", "", "", "", "", "")
	f.ask(http.MethodPost, link.Unsubscribe, "news", oneClick)
	want("left the group", "", "unsubscribed", "", "unsubscribed", "")
	f.ask(http.MethodPost, link.Unsubscribe, "", oneClick)
	want("left all", "unsubscribed", "unsubscribed", "unsubscribed", "unsubscribed", "")
	u.now = func() time.Time { return noon.Add(time.Second) }
	want("just accepted", "", "", "", "", "")
}
