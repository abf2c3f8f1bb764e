package lab

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	standard "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"postrider/internal/alert"
	"postrider/internal/api"
	"postrider/internal/config"
	"postrider/internal/lab/process"
	"postrider/internal/relay"
	"postrider/internal/sink"
)

// A receiver refuses mail as spam: one incident begins, and mail, a webhook and a
// chat each hear of it once. The receiver takes mail again: it ends, and each hears
// of that once. The mail about it counts for nobody.
func TestAlertOfABlock(t *testing.T) {
	scenario, err := sink.ParseScenario("block.toml", []byte("[[rule]]\nrecipient = \"*@away.test\"\nat = \"dot\"\nreply = \"550 5.7.1 Our filters take this message for spam\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	at, err := process.FreeAddr() // it is listened at a second time
	if err != nil {
		t.Fatal(err)
	}
	away, stop := listen(t, sink.Config{Hostname: "mx.away.test", Scenario: scenario, Listen: []string{at}})
	ops, _ := listen(t, sink.Config{Hostname: "mx.ops.test", Keep: 10})
	var mu sync.Mutex
	var chats []string
	var events []alert.Event
	var key *standard.Webhook
	hooks := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path == "/chat" {
			chats = append(chats, string(body))
			return
		}
		var e alert.Event
		if err := key.Verify(body, r.Header); err != nil {
			t.Errorf("signature: %v", err)
		} else if err := json.Unmarshal(body, &e); err != nil {
			t.Error(err)
		}
		events = append(events, e)
	}))
	defer hooks.Close()
	r := StartRelay(t, func(c *config.Config) {
		c.Route = []config.Route{{Domain: "away.test", To: away.Addr()}, {Domain: "ops.test", To: ops.Addr()}}
		c.Webhooks.Private = []config.Prefix{config.Prefix(netip.MustParsePrefix("127.0.0.0/8"))}
		c.Service.Domain, c.Service.Selector = "relay.test", "own"
		c.Alerts.Every, c.Alerts.Quiet = config.Duration(200*time.Millisecond), config.Duration(time.Second)
		c.Alerts.Off = []string{string(relay.AlertDisk)} // of whoever's machine it is
	})
	p := newPatient(t, 4*time.Minute)
	ctx, must, until := p.ctx, p.must, p.until
	for kind, to := range map[string]string{"mail": "ann@ops.test", "webhook": hooks.URL + "/hook", "slack": hooks.URL + "/chat"} {
		var made api.AddedAlertChannel
		must(r.API.Post(ctx, "/v1/alert-channels", map[string]any{"kind": kind, "to": to}, &made))
		if kind == "webhook" {
			key, err = standard.NewWebhook(made.Secret)
			must(err)
		}
	}
	alerts := func(state string) (all api.List[api.Alert]) {
		t.Helper()
		must(r.API.Get(ctx, "/v1/alerts", url.Values{"state": {state}}, &all))
		return all
	}
	const header = "From: app@shop.test\r\nSubject: hello"
	for n := range 12 {
		must(r.send("app@shop.test", header, fmt.Sprintf("r%d@away.test", n)))
	}
	until("the incident", func() bool { return len(alerts("open").Data) == 1 })
	open := alerts("open").Data[0]
	if open.Kind != "provider-block" || !strings.Contains(open.Text, "550 5.7.1 Our filters take this message for spam") || !strings.Contains(open.Text, "away.test") || open.Advice == "" {
		t.Errorf("incident %+v", open)
	}
	told := func(n int) {
		t.Helper()
		must(ops.Wait(ctx, int64(n)))
		until("the hooks", func() bool { mu.Lock(); defer mu.Unlock(); return len(events) >= n && len(chats) >= n })
	}
	told(1)
	letter := ops.Messages()[0]
	if text := string(letter.Content); letter.From != "" || letter.To()[0] != "ann@ops.test" || !strings.Contains(text, "Auto-Submitted: auto-generated") || !strings.Contains(text, "DKIM-Signature:") || !strings.Contains(text, "What to do:") {
		t.Errorf("mail from %q to %v:\n%s", letter.From, letter.To(), text)
	}
	stop()
	if box, _ := listen(t, sink.Config{Hostname: "mx.away.test", Listen: []string{away.Addr()}}); box.Addr() != away.Addr() {
		t.Fatal("the receiver is elsewhere now")
	}
	sent := 0
	until("the end", func() bool {
		if sent < 200 {
			must(r.send("app@shop.test", header, fmt.Sprintf("s%d@away.test", sent)))
			sent++
		}
		return len(alerts("open").Data) == 0
	})
	told(2)
	if all := alerts("all").Data; len(all) != 1 || all[0].Ended == nil {
		t.Errorf("incidents %+v", all)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(events) != 2 || events[0].Type != "alert.opened" || events[1].Type != "alert.ended" || events[0].Data.Alert != open.ID || len(chats) != 2 || !strings.Contains(chats[1], "Over: ") {
		t.Errorf("events %+v\nchats %q", events, chats)
	}
	var one api.Alert
	must(r.API.Get(ctx, "/v1/alerts/"+open.ID, nil, &one))
	if len(one.Told) != 6 {
		t.Errorf("told %+v", one.Told)
	}
}
