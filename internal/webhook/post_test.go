package webhook

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standard "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"postrider/internal/relay"
)

// posting posts to an address with a config of the rig's kind.
func posting(t *testing.T, address string, change func(*Config)) Answer {
	t.Helper()
	c := Config{Addrs: loopback, Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Timeout: patience}
	if change != nil {
		change(&c)
	}
	began := time.Now()
	a := newPoster(c).post(t.Context(), address, []string{newSecret()}, request{id: "x", body: []byte("{}")})
	if took := time.Since(began); took > patience/2 { // on a machine that is busy; it does end
		t.Errorf("it took %v", took)
	}
	return a
}

func TestAnswers(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		slowly := func(status int) {
			w.WriteHeader(status)
			for r.Context().Err() == nil {
				io.WriteString(w, "x")
				w.(http.Flusher).Flush()
				select {
				case <-r.Context().Done():
				case <-time.After(100 * time.Millisecond):
				}
			}
		}
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, "http://127.0.0.1:1/private", http.StatusTemporaryRedirect)
		case "/huge", "/huge-500":
			if r.URL.Path == "/huge-500" {
				w.WriteHeader(500)
			}
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		case "/header":
			w.Header().Set("X", strings.Repeat("x", 1<<20))
		case "/trickle":
			slowly(200)
		case "/trickle-500":
			slowly(500)
		case "/later":
			w.Header().Set("Retry-After", "120")
			w.WriteHeader(http.StatusTooManyRequests)
		case "/binary":
			w.WriteHeader(400)
			w.Write([]byte("a\x00\x1b\xff\nb"))
		}
	}))
	t.Cleanup(s.Close)
	for path, tt := range map[string]struct {
		status int
		err    string
	}{
		"/":            {200, ""},
		"/redirect":    {307, "Redirects are not followed"},
		"/huge":        {200, ""},
		"/huge-500":    {500, "answers 500"},
		"/header":      {0, "can't be asked"},
		"/trickle":     {200, ""},
		"/trickle-500": {500, "answers 500"},
		"/later":       {429, "answers 429"},
		"/binary":      {400, "answers 400"},
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			a := posting(t, s.URL+path, func(c *Config) {
				if strings.HasPrefix(path, "/trickle") {
					c.Timeout = time.Minute // what bounds it is that the status is there
				}
			})
			if a.Status != tt.status || (a.Error == "") != (tt.err == "") || !strings.Contains(a.Error, tt.err) || len(a.Text) > mostAnswer {
				t.Errorf("answer %+v", a)
			}
			if wait := time.Until(a.Retry); path == "/later" && (wait < 100*time.Second || wait > 2*time.Minute) {
				t.Errorf("to come back in %v", wait)
			}
			if path == "/binary" && a.Text != "a b" {
				t.Errorf("text %q", a.Text)
			}
		})
	}
}

// One byte of the header a second: it ends with the timeout.
func TestSlowHeader(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	ended := make(chan struct{})
	group.Go(func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		for i := 0; ; i++ {
			select {
			case <-ended:
				return
			case <-time.After(100 * time.Millisecond):
				if _, err := c.Write([]byte{"HTTP/1.1 200 OK\r\nX: "[min(i, 19)]}); err != nil {
					return
				}
			}
		}
	})
	defer group.Wait()
	defer ln.Close()
	defer close(ended)
	if a := posting(t, "http://"+ln.Addr().String(), func(c *Config) { c.Timeout = time.Second }); a.Status != 0 || !strings.Contains(a.Error, "within 1s") {
		t.Errorf("answer %+v", a)
	}
}

// What is not public is not connected to, whatever a name says at the moment of
// dialling; http goes to networks that are allowed only.
func TestPrivate(t *testing.T) {
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer s.Close()
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(s.URL, "http://"))
	none := func(c *Config) { c.Private = nil }
	names := func(addrs ...string) func(*Config) {
		return func(c *Config) {
			c.Private = nil
			c.Addrs = func(context.Context, string) (all []netip.Addr, err error) {
				for _, a := range addrs {
					all = append(all, netip.MustParseAddr(a))
				}
				return all, nil
			}
		}
	}
	for name, tt := range map[string]struct {
		address string
		change  func(*Config)
	}{
		"loopback":         {"https://127.0.0.1:" + port, none},
		"mapped":           {"https://[::ffff:127.0.0.1]:" + port, none},
		"nat64":            {"https://[64:ff9b::7f00:1]:" + port, none},
		"private":          {"https://10.0.0.1:" + port, none},
		"link-local":       {"https://169.254.169.254", none},
		"name to loopback": {"https://hook.example:" + port, names("127.0.0.1")},
		"name to both":     {"https://hook.example:" + port, names("::1", "192.168.1.1", "100.64.0.1", "fd00::1")},
		"plain to public":  {"http://hook.example:" + port, func(c *Config) { names("8.8.8.8")(c); c.Private = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} }},
		"other private":    {"http://hook.example:" + port, func(c *Config) { c.Private = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} }},
	} {
		if a := posting(t, tt.address, tt.change); !strings.Contains(a.Error, "not one that this relay sends events to") {
			t.Errorf("%s: %+v", name, a)
		}
	}
	// A name that is public when it is looked at and private when it is dialled:
	// the address that was judged is the one that is dialled, so it is judged anew.
	looks := 0
	rebinding := func(c *Config) {
		c.Private = nil
		c.Addrs = func(context.Context, string) ([]netip.Addr, error) {
			looks++
			if looks == 1 {
				return []netip.Addr{netip.MustParseAddr("203.0.113.1")}, nil
			}
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		}
	}
	for range 2 {
		posting(t, "https://rebind.example:"+port, rebinding)
		looks = 1
	}
	if asked.Load() != 0 {
		t.Errorf("a private receiver was asked %d times", asked.Load())
	}
	if a := posting(t, s.URL, nil); a.Error != "" || asked.Load() != 1 {
		t.Errorf("where it is allowed: %+v", a)
	}
}

// A certificate must verify.
func TestCertificate(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	if a := posting(t, s.URL, nil); !strings.Contains(a.Error, "certificate does not verify") {
		t.Errorf("unknown authority: %+v", a)
	}
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	if a := posting(t, s.URL, func(c *Config) { c.Roots = pool }); a.Error != "" {
		t.Errorf("known authority: %+v", a)
	}
}

// The signature is what an independent receiver expects, and covers the id, the
// time and the body.
func TestSign(t *testing.T) {
	secrets := []string{newSecret(), newSecret()}
	now := time.Now()
	body := []byte(`{"a":1}`)
	value, err := sign(secrets, "msg_1", now, body)
	if err != nil {
		t.Fatal(err)
	}
	header := func(id, at string) http.Header {
		return http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {at}, "Webhook-Signature": {value}}
	}
	for _, s := range secrets {
		k := must(standard.NewWebhook(s))
		if err := k.Verify(body, header("msg_1", fmt.Sprint(now.Unix()))); err != nil {
			t.Error(err)
		}
		for name, err := range map[string]error{"id": k.Verify(body, header("msg_2", fmt.Sprint(now.Unix()))), "time": k.Verify(body, header("msg_1", fmt.Sprint(now.Unix()+1))),
			"body": k.Verify([]byte(`{"a":2}`), header("msg_1", fmt.Sprint(now.Unix())))} {
			if err == nil {
				t.Errorf("another %s verifies", name)
			}
		}
	}
	if _, err := sign([]string{"whsec_%%%"}, "x", now, nil); err == nil || strings.Contains(err.Error(), "%%%") {
		t.Errorf("a bad secret: %v", err)
	}
}

// Slow receivers, more of them than are asked at once, keep no other one waiting.
func TestSlowReceivers(t *testing.T) {
	r := newRig(t)
	r.config.Timeout = time.Second
	slow, quick := newReceiver(t), newReceiver(t)
	slow.answers(nil)
	hang := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // else the server would not see that the relay has gone
		<-r.Context().Done()
	}))
	defer hang.Close()
	for range 30 {
		r.add(&receiver{t: t, url: hang.URL}, Settings{})
	}
	r.add(quick, Settings{})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s := NewService(r.config, r.db, r.box, func() int64 { return r.lease }, func() bool { return false })
	s.waits, s.quick, s.slow = []time.Duration{10 * time.Millisecond}, make(chan struct{}, 4), make(chan struct{}, 2)
	var group sync.WaitGroup
	group.Go(func() { s.Run(ctx) })
	defer group.Wait()
	defer cancel()
	r.mail(1)
	within(t, patience, "the slow ones are known", func() bool { return s.Stats().Refused >= 31 })
	for range 5 {
		n := quick.distinct()
		r.mail(20)
		// If each event had its turn among the slow ones, it would take over a minute
		// and a half.
		within(t, patience, "events are there", func() bool { return quick.distinct() >= n+20 })
	}
}

func TestBackoff(t *testing.T) {
	now := time.Now()
	var sum time.Duration
	for n := 1; n < 90; n++ {
		d := backoff(waits(), n, now, time.Time{}).Sub(now)
		if least := waits()[min(n, 7)-1] * 4 / 5; d < least || d > least*3/2+1 {
			t.Errorf("wait %d is %v", n, d)
		}
		sum += d
	}
	if sum < 3*24*time.Hour {
		t.Errorf("90 tries in %v", sum)
	}
	if d := backoff(waits(), 1, now, now.Add(time.Minute)).Sub(now); d != time.Minute {
		t.Errorf("asked for a minute: %v", d)
	}
	if d := backoff(waits(), 1, now, now.Add(99*time.Hour)).Sub(now); d != longestWait {
		t.Errorf("asked for days: %v", d)
	}
}

// What can never be sent to is refused at once.
func TestSettings(t *testing.T) {
	r := newRig(t)
	text := func(s string) *string { return &s }
	many, bad := 5000, []string{"eaten"}
	for name, s := range map[string]Settings{
		"no address": {}, "no scheme": {URL: text("example.com/x")}, "ftp": {URL: text("ftp://example.com")}, "user": {URL: text("https://a:b@example.com")},
		"fragment": {URL: text("https://example.com/#x")}, "private": {URL: text("https://10.0.0.1/")}, "private 6": {URL: text("https://[fd00::1]/")}, "public without TLS": {URL: text("http://8.8.8.8/")},
		"batch": {URL: text("https://example.com"), Batch: &many}, "event": {URL: text("https://example.com"), Events: &bad}, "stream": {URL: text("https://example.com"), Stream: text("x")},
		"credential": {URL: text("https://example.com"), Credentials: &bad},
	} {
		if _, _, err := r.manager.Add(t.Context(), relay.Actor{}, r.account, s); relay.CodeOf(err) != relay.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	strict := NewManager(Config{Addrs: loopback}, r.db, r.box, r.manager.newID)
	if _, _, err := strict.Add(t.Context(), relay.Actor{}, r.account, Settings{URL: text("http://example.com/")}); relay.CodeOf(err) != relay.Invalid {
		t.Errorf("http without a private network: %v", err)
	}
	h, secret, err := r.manager.Add(t.Context(), relay.Actor{}, r.account, Settings{URL: text("https://example.com/x?y=1"), Events: &[]string{"bounced", "delivery.bounced"}})
	if err != nil || len(h.Kinds) != 1 || !strings.HasPrefix(secret, "whsec_") {
		t.Errorf("%+v, %v", h, err)
	}
	if _, err := r.manager.Change(t.Context(), relay.Actor{}, r.account, h.ID, Settings{Version: 9}); relay.CodeOf(err) != relay.Conflict {
		t.Errorf("another version: %v", err)
	}
	if _, _, err := r.manager.Rotate(t.Context(), relay.Actor{}, r.account, h.ID, 999*time.Hour); relay.CodeOf(err) != relay.Invalid {
		t.Errorf("kept for too long: %v", err)
	}
	if err := r.manager.Replay(t.Context(), relay.Actor{}, r.account, h.ID, time.Now().Add(time.Hour)); relay.CodeOf(err) != relay.Invalid {
		t.Errorf("replay of the future: %v", err)
	}
}

// A test event is signed and answered at once.
func TestTest(t *testing.T) {
	r, to := newRig(t), newReceiver(t)
	h := r.add(to, Settings{})
	a, err := r.manager.Test(t.Context(), r.account, h.ID)
	if err != nil || a.Status != 204 || a.Error != "" || len(to.took()) != 1 || to.took()[0].Type != TestType {
		t.Errorf("%+v, %v; %+v", a, err, to.took())
	}
	if _, err := r.manager.Test(t.Context(), relay.ID{9}, h.ID); relay.CodeOf(err) != relay.NotFound {
		t.Errorf("of another account: %v", err)
	}
}

// What other parts post goes the same way; without a secret it has no signature.
func TestPoster(t *testing.T) {
	var got http.Header
	to := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got = r.Header }))
	defer to.Close()
	c := Config{Addrs: loopback, Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Timeout: patience}
	p := NewPoster(c)
	if a := p.Post(t.Context(), to.URL, nil, "x", []byte("{}")); a.Error != "" || got.Get("Webhook-Signature") != "" || got.Get("Content-Type") != "application/json" {
		t.Errorf("%+v, %v", a, got)
	}
	if a := p.Post(t.Context(), to.URL, []string{NewSecret()}, "x", []byte("{}")); a.Error != "" || got.Get("Webhook-Id") != "x" || got.Get("Webhook-Signature") == "" {
		t.Errorf("%+v, %v", a, got)
	}
	c.Private = nil
	if a := NewPoster(c).Post(t.Context(), to.URL, nil, "x", []byte("{}")); a.Error == "" || NewPoster(c).Check(to.URL) == nil {
		t.Errorf("to a private address: %+v", a)
	}
}
