package lab

import (
	"context"
	"encoding/base64"
	"fmt"
	"html"
	"io"
	"mime/quotedprintable"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/mail"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"postrider/internal/api"
)

// browser is Chromium, to which the names of hosts lead to addresses.
type browser struct{ patient }

// newBrowser starts a browser that knows these hosts, and no others. The test is
// skipped on Ubuntu alone, which has no package of one, where none is installed.
func newBrowser(t *testing.T, ctx context.Context, hosts map[string]string) *browser {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil && path == "" {
			path = found
		}
	}
	if path == "" {
		if system, err := os.ReadFile("/etc/os-release"); err == nil && strings.Contains("\n"+string(system), "\nID=ubuntu\n") {
			t.Skip("there is no Chromium on the PATH, and Ubuntu has no package of it")
		}
		t.Fatal("there is no Chromium on the PATH; scripts/install-test-deps.sh installs it (Debian's package chromium)")
	}
	var rules []string
	for name, address := range hosts {
		rules = append(rules, "MAP "+name+" "+address)
	}
	// The proxy's certificate is the test's own.
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(path), chromedp.DisableGPU, chromedp.IgnoreCertErrors,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("host-resolver-rules", strings.Join(append(rules, "MAP * ~NOTFOUND"), ", ")))
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	ctx, stop := chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(stop)
	ctx, end := chromedp.NewContext(ctx)
	t.Cleanup(end)
	b := &browser{patient{t, ctx}}
	_, err := chromedp.Call(ctx, network.Enable, network.EnableParams{})
	b.must(err)
	return b
}

// open goes to a page.
func (b *browser) open(url string) {
	b.Helper()
	b.must(chromedp.Do(b.ctx, chromedp.Navigate(url)))
}

// speaks sets the languages that the browser asks for.
func (b *browser) speaks(languages string) {
	b.Helper()
	_, err := chromedp.Call(b.ctx, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{Headers: network.Headers{"Accept-Language": languages}})
	b.must(err)
}

// shows waits for a page that says this.
func (b *browser) shows(text string) {
	b.Helper()
	within, stop := context.WithTimeout(b.ctx, time.Minute)
	defer stop()
	if err := chromedp.Do(within, chromedp.WaitVisible(fmt.Sprintf("//main//*[self::h1 or self::p or self::legend][contains(., %q)]", text))); err != nil {
		b.Fatalf("%v; want %q on the page, which says:\n%s", err, text, b.value("document.body.innerText"))
	}
}

// click clicks what has this text.
func (b *browser) click(text string) {
	b.Helper()
	b.must(chromedp.Do(b.ctx, chromedp.Click(fmt.Sprintf(`//*[self::a or self::button or self::label][contains(., %q)]`, text))))
}

// value is what a script finds in the page.
func (b *browser) value(script string) string {
	b.Helper()
	s, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](script))
	b.must(err)
	return s
}

// before is a proxy with TLS before the relay's links.
func (b *broadcasts) before() (address string) {
	b.Helper()
	to := &url.URL{Scheme: "http", Host: b.TrackingAddr()}
	proxy := httptest.NewTLSServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host }})
	b.Cleanup(proxy.Close)
	return proxy.Listener.Addr().String()
}

// A person who follows the link of a mail in a browser sees what will happen,
// chooses, leaves, and comes back.
func TestPagesInBrowser(t *testing.T) {
	b := newBroadcasts(t)
	for _, id := range []string{"news", "offers"} {
		b.must(b.API.Post(b.ctx, "/v1/unsubscribe-groups", api.NewGroup{ID: id, Name: strings.ToUpper(id)}, nil))
	}
	first := b.submit("broadcast", &api.NewUnsubscribe{Group: "news"})
	link, _ := b.ways(b.next())
	b.state(first)
	left := func(group string) bool {
		return b.API.Get(b.ctx, "/v1/unsubscribe-groups/"+group+"/members/ann@away.test", nil, &api.Leaver{}) == nil
	}
	p := newBrowser(t, b.ctx, map[string]string{link.Host: b.before()})

	p.speaks("de-AT, de;q=0.9, en;q=0.5")
	p.open(link.String())
	p.shows("Abbestellen")
	if lang := p.value("document.documentElement.lang"); lang != "de" {
		t.Errorf("language %q", lang)
	}
	p.speaks("en")
	p.open(link.String())
	p.shows("will get no more mail of the kind “NEWS”.")
	if color := p.value("getComputedStyle(document.querySelector('button')).backgroundColor"); color != "rgb(11, 87, 208)" {
		t.Errorf("the button is %s: the page has no style", color)
	}
	if left("news") || left("offers") {
		t.Fatal("looking left a group")
	}

	p.click("Choose what you get instead")
	p.shows("What you get")
	p.click("OFFERS")
	p.click("Save")
	p.shows("Saved.")
	if left("news") || !left("offers") {
		t.Errorf("left: news %v, offers %v; offers was to be left", left("news"), left("offers"))
	}
	if on := p.value("[...document.querySelectorAll('input:checked')].map(i => i.value).join()"); on != "news" {
		t.Errorf("ticked afterwards: %s", on)
	}

	p.open(link.String())
	p.click("Unsubscribe")
	p.shows("Done.")
	if !left("news") {
		t.Error("the button did not leave the group")
	}
	p.click("That was a mistake")
	p.shows("gets such mail again")
	if left("news") {
		t.Error("who came back is not back")
	}
}

// A mail that is shown in a browser loads its pixel, and its links lead where they
// led before.
func TestMailInBrowser(t *testing.T) {
	b := newBroadcasts(t)
	asked := make(chan string, 10)
	shop := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/sale" {
			asked <- r.URL.String()
		}
		fmt.Fprint(w, "<!DOCTYPE html><main><h1>The shop</h1></main>")
	}))
	t.Cleanup(shop.Close)
	var sent api.Sent
	b.must(b.API.Post(b.ctx, "/v1/messages", api.NewMessage{From: api.Address{Email: "app@shop.test"}, To: []api.Address{{Email: "ann@away.test"}}, Subject: "hello",
		HTML:     `<!DOCTYPE html><main><p>Dear Ann, <a href="https://shop.test/sale?a=1&amp;b=%C3%BC#top">look here</a>!</p></main>`,
		Tracking: &api.Tracking{Opens: true, Clicks: true}}, &sent))
	parsed, err := mail.ReadMessage(strings.NewReader(string(b.next().Content)))
	b.must(err)
	b.state(sent.ID)
	if got := parsed.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/html") {
		t.Fatalf("the mail is %s", got)
	}
	coded := parsed.Body
	switch parsed.Header.Get("Content-Transfer-Encoding") {
	case "quoted-printable":
		coded = quotedprintable.NewReader(coded)
	case "base64":
		coded = base64.NewDecoder(base64.StdEncoding, coded)
	}
	body, err := io.ReadAll(coded)
	b.must(err)
	shown := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", parsed.Header.Get("Content-Type"))
		_, _ = w.Write(body)
	}))
	t.Cleanup(shown.Close)
	if strings.Contains(html.UnescapeString(string(body)), "shop.test/sale") {
		t.Fatalf("the link is not rewritten:\n%s", body)
	}
	at := shown.Listener.Addr().String()
	p := newBrowser(t, b.ctx, map[string]string{"links.relay.example": b.before(), "shop.test": shop.Listener.Addr().String(), "mail.test": at})
	p.open("http://mail.test/")
	p.shows("Dear Ann")
	if size := p.value("String([...document.images].every(i => i.complete && i.naturalWidth == 1) && document.images.length)"); size != "1" {
		t.Errorf("the pixel: %s", size)
	}
	p.click("look here")
	p.shows("The shop")
	if got := p.value("location.href"); got != "https://shop.test/sale?a=1&b=%C3%BC#top" {
		t.Errorf("the link leads to %s", got)
	}
	if got := <-asked; got != "/sale?a=1&b=%C3%BC" {
		t.Errorf("the shop was asked for %s", got)
	}
	b.until("the events", func() bool {
		got := b.kinds(sent.ID)
		return slices.Contains(got, "opened") && slices.Contains(got, "clicked")
	})
}
