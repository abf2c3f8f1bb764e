package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"postrider/internal/api"
	"postrider/internal/relay"
	"postrider/internal/sink"
)

// Two nodes look at the same time, five times a second, and the one that looks is
// killed: one incident begins, and its account is told once.
func TestOneAlertOfTwoNodes(t *testing.T) {
	t.Parallel()
	scenario, err := sink.ParseScenario("block.toml", []byte("[[rule]]\nrecipient = \"*@away.test\"\nat = \"rcpt\"\nreply = \"550 5.7.1 You are blocked here\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	box, err := sink.New(sink.Config{Scenario: scenario})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- box.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	var mu sync.Mutex
	came := map[string]int{}
	hooks := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var e struct{ Type string }
		_ = json.Unmarshal(body, &e)
		mu.Lock()
		defer mu.Unlock()
		came[e.Type]++
	}))
	t.Cleanup(hooks.Close)
	c := &cluster{t: t, to: &receiver{Server: box}}
	dsn := database(t)
	for i := range 2 {
		c.add(options{store: dsn, settings: hookSettings + "[alerts]\ncheck_every = \"200ms\"\n"})
		c.nodes[i].start()
		if i == 0 {
			c.nodes[0].run("credential", "add", "-kind", "network", "-network", "127.0.0.1", "load")
		}
	}
	for _, n := range c.nodes {
		within(t, patience, n.name+" takes mail", func() bool { return tryMail(n.Addr) == 250 })
	}
	n := c.nodes[0]
	n.run("alert", "channel", "add", "webhook", hooks.URL)
	for i := range 16 {
		session, err := dial(c.nodes[i%2].Addr)
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct {
			code int
			line string
		}{{250, "MAIL FROM:<a@shop.test>"}, {250, fmt.Sprintf("RCPT TO:<r%d@away.test>", i)}, {354, "DATA"}, {250, "From: a@shop.test\r\nSubject: x\r\n\r\nx\r\n."}, {221, "QUIT"}} {
			if err := say(session, step.code, "%s", step.line); err != nil {
				t.Fatal(err)
			}
		}
		session.Close()
	}
	list := func(n *node) (all api.List[api.Alert]) {
		t.Helper()
		if err := api.NewClient(n.Data).Get(t.Context(), "/v1/alerts", url.Values{"state": {"all"}, "kind": {"provider-block"}}, &all); err != nil {
			t.Fatal(err)
		}
		return all
	}
	within(t, patience, "the incident begins", func() bool { return len(list(n).Data) > 0 })
	within(t, patience, "it is told", func() bool { mu.Lock(); defer mu.Unlock(); return came["alert.opened"] > 0 })
	within(t, patience, "that is noted", func() bool {
		var one api.Alert
		if err := api.NewClient(c.nodes[1].Data).Get(t.Context(), "/v1/alerts/"+list(n).Data[0].ID, nil, &one); err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(one.Told, func(s api.AlertTold) bool { return s.Kind == relay.ChannelWebhook && s.Sent != nil })
	})
	c.nodes[0].Kill()
	await(t, 3*time.Second) // the other one looks on, or has to wait for the lock
	mu.Lock()
	defer mu.Unlock()
	if all := list(c.nodes[1]); len(all.Data) != 1 || came["alert.opened"] != 1 {
		t.Errorf("incidents %+v, told %v", all.Data, came)
	}
}
