package lab

import (
	"io"
	"net/http"
	"net/mail"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"postrider/internal/api"
	"postrider/internal/config"
	"postrider/internal/dns"
	"postrider/internal/mailauth"
	"postrider/internal/sink"
)

// broadcasts is a relay that has links, takes mail that comes back and sends in the
// name of shop.test, and a receiver.
type broadcasts struct {
	patient
	*Relay
	box  *sink.Server
	seen int
}

func newBroadcasts(t *testing.T) *broadcasts {
	box, _ := listen(t, sink.Config{Hostname: "mx.away.test", Keep: 200})
	r := StartRelay(t, func(c *config.Config) {
		c.Policy.Senders, c.Service.Domain = "verified", "relay.example"
		c.Listen = append(c.Listen, config.Listener{Name: "back", Address: "127.0.0.1:0", Mode: "feedback"})
		c.Tracking.Listen, c.Tracking.URL, c.Tracking.Domains = "127.0.0.1:0", "https://links.relay.example", false // a proxy with TLS stands before it
		c.Route = []config.Route{{Domain: "*", To: box.Addr()}}
	})
	b := &broadcasts{patient: newPatient(t, 4*time.Minute), Relay: r, box: box}
	align(b.ctx, t, r, "shop.test")
	b.until("the domain", func() bool {
		return r.send("app@shop.test", "From: app@shop.test\r\nSubject: first", "first@away.test") == nil
	})
	b.next()
	return b
}

// next is the next message that arrives.
func (b *broadcasts) next() *sink.Message {
	b.Helper()
	b.seen++
	b.must(b.box.Wait(b.ctx, int64(b.seen)))
	return b.box.Messages()[b.seen-1]
}

// submit sends a message to ann, and gives its id.
func (b *broadcasts) submit(stream string, unsubscribe *api.NewUnsubscribe) string {
	b.Helper()
	var sent api.Sent
	b.must(b.API.Post(b.ctx, "/v1/messages", api.NewMessage{From: api.Address{Email: "app@shop.test"}, To: []api.Address{{Email: "ann@away.test"}}, Subject: "hello", Text: "hello",
		Stream: stream, Unsubscribe: unsubscribe}, &sent))
	return sent.ID
}

func (b *broadcasts) story(id string) (s api.Story) {
	b.Helper()
	b.must(b.API.Get(b.ctx, "/v1/messages/"+id, nil, &s))
	return s
}

func (b *broadcasts) kinds(id string) (all []string) {
	b.Helper()
	for _, e := range b.story(id).Events {
		all = append(all, e.Kind)
	}
	return all
}

// state is that of the only delivery of a message, when it is final.
func (b *broadcasts) state(id string) (state, category string) {
	b.Helper()
	b.until("the end of "+id, func() bool {
		d := b.story(id).Deliveries[0]
		state, category = d.State, d.Diagnosis.Category
		return d.Due == nil
	})
	return state, category
}

// ways are the link and the address of List-Unsubscribe.
func (b *broadcasts) ways(m *sink.Message) (link *url.URL, address string) {
	b.Helper()
	parsed, err := mail.ReadMessage(strings.NewReader(string(m.Content)))
	b.must(err)
	for entry := range strings.SplitSeq(parsed.Header.Get("List-Unsubscribe"), ",") {
		if entry == "" {
			continue
		}
		u, err := url.Parse(strings.Trim(strings.TrimSpace(entry), "<>"))
		b.must(err)
		if u.Scheme == "mailto" {
			address = u.Opaque
		} else {
			link = u
		}
	}
	return link, address
}

// follow asks for a link as the proxy would.
func (b *broadcasts) follow(method string, link *url.URL, form string) int {
	b.Helper()
	req, err := http.NewRequestWithContext(b.ctx, method, "http://"+b.TrackingAddr()+link.EscapedPath(), strings.NewReader(form))
	b.must(err)
	req.Host = link.Host
	if form != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := http.DefaultClient.Do(req)
	b.must(err)
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

const oneClick = "List-Unsubscribe=One-Click"

// What arrives can be left by one click: its fields are signed, looking does
// nothing, and then no broadcast goes there, but other mail does.
func TestOneClick(t *testing.T) {
	b := newBroadcasts(t)
	first := b.submit("broadcast", nil)
	m := b.next()
	b.state(first) // what comes after the end stands after it
	link, address := b.ways(m)
	if link == nil || link.Host != "links.relay.example" {
		t.Fatalf("ways %v, %s in\n%s", link, address, m.Content)
	}
	resolver, err := dns.New(b.Config.DNS.Servers, 0)
	b.must(err)
	found, err := mailauth.VerifyDKIM(b.ctx, resolver, strings.NewReader(string(m.Content)))
	b.must(err)
	signed := false
	for _, s := range found {
		signed = signed || s.Domain == "shop.test" && s.Result == mailauth.Pass
	}
	h := strings.ToLower(string(m.Content))
	parsed, err := mail.ReadMessage(strings.NewReader(string(m.Content)))
	b.must(err)
	both := slices.ContainsFunc(parsed.Header["Dkim-Signature"], func(s string) bool {
		s = strings.ToLower(strings.Join(strings.Fields(s), ""))
		return strings.Contains(s, "d=shop.test;") && strings.Contains(s, ":list-unsubscribe:") && strings.Contains(s, ":list-unsubscribe-post")
	})
	if !signed || !both || !strings.Contains(h, "\r\nlist-unsubscribe-post: list-unsubscribe=one-click\r\n") {
		t.Errorf("signed %v, in h= %v:\n%s", signed, both, m.Content)
	}

	for _, method := range []string{http.MethodHead, http.MethodGet} {
		if code := b.follow(method, link, ""); code != http.StatusOK {
			t.Errorf("%s: %d", method, code)
		}
	}
	altered := *link
	altered.Path = link.Path[:len(link.Path)-1] + map[bool]string{true: "A", false: "Q"}[link.Path[len(link.Path)-1] != 'A']
	if code := b.follow(http.MethodPost, &altered, oneClick); code != http.StatusNotFound {
		t.Errorf("an altered link: %d", code)
	}
	if got := b.kinds(first); slices.Contains(got, "unsubscribed") {
		t.Fatalf("looking did something: %v", got)
	}
	for range 2 {
		if code := b.follow(http.MethodPost, link, oneClick); code != http.StatusOK {
			t.Errorf("one click: %d", code)
		}
	}
	if got := b.kinds(first); !slices.Equal(got, []string{"accepted", "delivered", "unsubscribed"}) {
		t.Errorf("events %v", got)
	}
	// What is new in the list counts within a second.
	b.until("the next broadcast to be dropped", func() bool {
		state, category := b.state(b.submit("broadcast", nil))
		if state == "delivered" {
			b.next()
		}
		return state == "cancelled" && category == "unsubscribed"
	})
	if state, _ := b.state(b.submit("transactional", nil)); state != "delivered" {
		t.Errorf("transactional mail: %s", state)
	}
	if link, address = b.ways(b.next()); link != nil || address != "" {
		t.Errorf("transactional mail can be left: %v %s", link, address)
	}
}

// A group is left, and all other mail goes on.
func TestLeaveGroup(t *testing.T) {
	b := newBroadcasts(t)
	for _, id := range []string{"news", "offers"} {
		b.must(b.API.Post(b.ctx, "/v1/unsubscribe-groups", api.NewGroup{ID: id, Name: id}, nil))
	}
	first := b.submit("broadcast", &api.NewUnsubscribe{Group: "news"})
	link, _ := b.ways(b.next())
	b.state(first)     // what comes after the end stands after it
	var later api.Sent // accepted before, and due when it is said
	b.must(b.API.Post(b.ctx, "/v1/messages", api.NewMessage{From: api.Address{Email: "app@shop.test"}, To: []api.Address{{Email: "ann@away.test"}}, Subject: "later", Text: "later",
		Stream: "broadcast", Unsubscribe: &api.NewUnsubscribe{Group: "news"}, SendAt: time.Now().Add(time.Hour)}, &later))
	if code := b.follow(http.MethodPost, link, oneClick); code != http.StatusOK {
		t.Fatalf("one click: %d", code)
	}
	if got := b.kinds(first); !slices.Equal(got, []string{"accepted", "delivered", "unsubscribed"}) {
		t.Errorf("events %v", got)
	}
	if state, category := b.state(b.submit("broadcast", &api.NewUnsubscribe{Group: "news"})); state != "cancelled" || category != "unsubscribed" {
		t.Errorf("of the group: %s %s", state, category)
	}
	if state, _ := b.state(b.submit("broadcast", &api.NewUnsubscribe{Group: "offers"})); state != "delivered" {
		t.Errorf("of another: %s", state)
	}
	// What was looked up when it was accepted holds for two seconds.
	b.must(b.API.Patch(b.ctx, "/v1/messages/"+later.ID, map[string]any{"send_at": time.Now().Add(3 * time.Second)}, nil))
	if state, category := b.state(later.ID); state != "cancelled" || category != "unsubscribed" {
		t.Errorf("what waited: %s %s", state, category)
	}
	var out api.Leaver
	b.must(b.API.Get(b.ctx, "/v1/unsubscribe-groups/news/members/ann@away.test", nil, &out))
	if events := b.story(first).Events; out.Event != events[len(events)-1].ID {
		t.Errorf("proof %s, event %s", out.Event, events[len(events)-1].ID)
	}
}

// A mail to the address of List-Unsubscribe does the same, from whomever it comes;
// a forged address takes none, and what a machine sends does nothing.
func TestUnsubscribeByMail(t *testing.T) {
	b := newBroadcasts(t)
	b.must(b.API.Post(b.ctx, "/v1/unsubscribe-groups", api.NewGroup{ID: "news", Name: "news"}, nil))
	first := b.submit("broadcast", &api.NewUnsubscribe{Group: "news"})
	_, address := b.ways(b.next())
	b.state(first)
	if !strings.HasPrefix(address, "u+") || !strings.HasSuffix(address, "@bounce.shop.test") {
		t.Fatalf("address %q", address)
	}
	const text = "From: ann@home.test\r\nSubject: unsubscribe\r\n\r\nunsubscribe\r\n"
	refused(t, b.sendBack("ann@home.test", strings.Replace(address, "@", "x@", 1), text), 550, "5.1.1")
	b.must(b.sendBack("", address, text))
	b.until("what a machine sent", func() bool { return len(b.kinds(first)) == 3 })
	b.must(b.sendBack("ann@home.test", address, text))
	b.until("the event", func() bool { return len(b.kinds(first)) == 4 })
	if got := b.kinds(first); !slices.Equal(got, []string{"accepted", "delivered", "feedback", "unsubscribed"}) {
		t.Errorf("events %v", got)
	}
	if state, category := b.state(b.submit("broadcast", &api.NewUnsubscribe{Group: "news"})); state != "cancelled" || category != "unsubscribed" {
		t.Errorf("of the group: %s %s", state, category)
	}
}
