package cluster

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	standard "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"postrider/internal/api"
	"postrider/internal/webhook"
)

// hook receives events, checks each signature with the library that receivers
// use, and notes in which order they came.
type hook struct {
	t    *testing.T
	addr string

	mu    sync.Mutex
	key   *standard.Webhook
	first map[string]webhook.Event
	order []webhook.Event // each but once
	came  int
	stop  func()
}

func newHook(t *testing.T) *hook {
	h := &hook{t: t, addr: "127.0.0.1:0", first: map[string]webhook.Event{}}
	h.start()
	t.Cleanup(func() { h.stop() })
	return h
}

func (h *hook) start() {
	h.t.Helper()
	var ln net.Listener
	within(h.t, patience, "the receiver's port is free", func() bool {
		var err error
		ln, err = net.Listen("tcp", h.addr)
		return err == nil
	})
	h.addr = ln.Addr().String()
	s := httptest.NewUnstartedServer(h)
	s.Listener.Close()
	s.Listener = ln
	s.Start()
	h.stop = func() { s.CloseClientConnections(); s.Close() }
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // whoever sent it was killed
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.key.Verify(body, r.Header); err != nil {
		h.t.Errorf("signature: %v", err)
	}
	var events []webhook.Event
	if err := json.Unmarshal(body, &events); err != nil {
		h.t.Errorf("body %.80s: %v", body, err)
	}
	for _, e := range events {
		h.came++
		if _, known := h.first[e.ID]; !known {
			h.first[e.ID] = e
			h.order = append(h.order, e)
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

func (h *hook) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.first)
}

// on adds a webhook at a node.
func (h *hook) on(n *node) string {
	h.t.Helper()
	var made api.SecretWebhook
	in := map[string]any{"url": "http://" + h.addr + "/", "batch": 20}
	if err := api.NewClient(n.Data).Post(h.t.Context(), "/v1/webhooks", in, &made); err != nil {
		h.t.Fatal(err)
	}
	key, err := standard.NewWebhook(made.Secret)
	if err != nil {
		h.t.Fatal(err)
	}
	h.mu.Lock()
	h.key = key
	h.mu.Unlock()
	return made.ID
}

// whole waits until every event that a node knows has come, and looks at the
// order.
func (h *hook) whole(n *node) {
	h.t.Helper()
	c := api.NewClient(n.Data)
	missing, all := -1, 0
	within(h.t, 2*patience, "every event has come", func() bool {
		missing, all = 0, 0
		err := api.All(h.t.Context(), c, "/v1/events", url.Values{"limit": {"1000"}}, func(e api.Event) error {
			h.mu.Lock()
			defer h.mu.Unlock()
			if _, came := h.first[e.ID]; !came {
				missing++
			}
			all++
			return nil
		})
		return err == nil && missing == 0
	})
	last := map[string]webhook.Event{}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.order {
		before, known := last[e.Data.Delivery]
		if known && e.ID < before.ID || !known && e.Type != "delivery.accepted" {
			h.t.Errorf("%s of %s came after %q", e.Type, e.Data.Delivery, before.Type)
		}
		last[e.Data.Delivery] = e
	}
	h.t.Logf("%d events, %d came, %d of them again", all, h.came, h.came-len(h.first))
}

const hookSettings = "[webhooks]\nallow_private = [\"127.0.0.0/8\"]\n"

// hooked starts n nodes with a webhook and a load.
func hooked(t *testing.T, n int, store string) (*cluster, *hook, string) {
	t.Helper()
	c := &cluster{t: t, to: newReceiver(t), load: newLoad(t)}
	for i := range n {
		c.add(options{store: store, settings: hookSettings})
		c.nodes[i].start()
		if i == 0 {
			c.nodes[0].run("credential", "add", "-kind", "network", "-network", "127.0.0.1", "load")
		}
	}
	for _, n := range c.nodes {
		n.takesMail(patience)
	}
	h := newHook(t)
	id := h.on(c.nodes[0])
	for _, n := range c.nodes {
		c.load.on(n, 2, 10*time.Millisecond)
	}
	return c, h, id
}

// flows waits until that many more events have come.
func (h *hook) flows(more int) {
	h.t.Helper()
	want := h.count() + more
	within(h.t, patience, "events come", func() bool { return h.count() >= want })
}

// Of two nodes the one that sends a webhook's events is killed in mid-stream, and
// then the receiver: each event comes at least once, in the order of its message,
// and the other node takes over within 30 seconds.
func TestWebhookNodeKilled(t *testing.T) {
	t.Parallel()
	c, h, id := hooked(t, 2, database(t))
	h.flows(200)
	var known api.Webhook
	if err := api.NewClient(c.nodes[0].Data).Get(t.Context(), "/v1/webhooks/"+id, nil, &known); err != nil || known.Progress.Node == "" {
		t.Fatalf("webhook %+v, %v", known, err)
	}
	victim, other := c.nodes[0], c.nodes[1]
	if known.Progress.Node == other.name {
		victim, other = other, victim
	}
	victim.Kill()
	killed := time.Now()
	within(t, patience, "the other node sends", func() bool {
		err := api.NewClient(other.Data).Get(t.Context(), "/v1/webhooks/"+id, nil, &known)
		return err == nil && known.Progress.Node == other.name
	})
	took := time.Since(killed)
	h.flows(100)
	figure(t, "webhook_takeover_s", took.Round(10*time.Millisecond).Seconds())
	if took > 30*time.Second {
		t.Errorf("the other node took over after %v", took)
	}
	h.stop()
	await(t, 2*time.Second)
	h.start()
	h.flows(100)
	c.load.end()
	h.whole(other)
}

// The relay is killed in mid-stream, and the receiver too: each event comes at
// least once.
func TestWebhookRelayKilled(t *testing.T) {
	t.Parallel()
	c, h, _ := hooked(t, 1, "sqlite")
	n := c.nodes[0]
	for range 3 {
		h.flows(100)
		n.Kill()
		n.start()
		h.flows(50)
		h.stop()
		h.start()
	}
	h.flows(100)
	c.load.end()
	h.whole(n)
}
