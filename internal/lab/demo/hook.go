package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"postrider/internal/api"
	"postrider/internal/lab"
	"postrider/internal/webhook"
)

// hook is a program of the account that gets its events by a webhook. It believes
// only what the library of Standard Webhooks verifies.
type hook struct {
	*httptest.Server

	mu     sync.Mutex
	key    *standardwebhooks.Webhook
	seen   map[string]bool   // ids of verified events
	told   map[string]string // by type and recipient: what a verified event says
	forged int
}

// openHook serves, and asks the relay for all events.
func openHook(ctx context.Context, r *lab.Relay) (*hook, error) {
	h := &hook{seen: map[string]bool{}, told: map[string]string{}}
	h.Server = httptest.NewServer(h)
	var made api.SecretWebhook
	err := r.API.Post(ctx, "/v1/webhooks", webhook.Settings{URL: &h.URL}, &made)
	if err == nil {
		h.mu.Lock()
		h.key, err = standardwebhooks.NewWebhook(made.Secret)
		h.mu.Unlock()
	}
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("add webhook: %w", err)
	}
	return h, nil
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	var e webhook.Event
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil && h.key != nil {
		err = h.key.Verify(body, r.Header)
	} else if err == nil {
		err = errors.New("no secret is known yet")
	}
	if err == nil {
		err = json.Unmarshal(body, &e)
	}
	if err != nil {
		h.forged++
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	h.seen[e.ID] = true
	h.told[e.Type+" "+e.Data.Recipient] = told(&e.Data)
	w.WriteHeader(http.StatusNoContent)
}

// told is what an event says, in a few words.
func told(d *webhook.Data) string {
	switch g := d.Engagement; {
	case g != nil && g.Machine != "":
		return "by a machine: " + g.Machine
	case g != nil && g.URL != "":
		return g.URL
	case g != nil && g.Method != "":
		return g.Method
	case d.Diagnosis != nil:
		return d.Diagnosis.Text
	}
	return ""
}

// has tells whether a verified event of that kind came about a recipient, and what
// it says.
func (h *hook) has(kind, recipient string) (says string, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	says, ok = h.told["delivery."+kind+" "+recipient]
	return says, ok
}

// counts gives how many events came verified, and how many requests did not
// verify.
func (h *hook) counts() (verified, forged int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.seen), h.forged
}

// freePort gives an address of this machine that nothing listens on.
func freePort() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return ln.Addr().String(), ln.Close()
}
