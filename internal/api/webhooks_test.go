package api_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postrider/internal/api"
	"postrider/internal/config"
	"postrider/internal/relay"
	"postrider/internal/seal"
	"postrider/internal/store"
)

// fillWebhook makes the one that the examples name, with a secret that the relay
// can open.
func fillWebhook(t *testing.T, dir string, db *store.DB, shop relay.ID) {
	t.Helper()
	key := seal.NewKey()
	if err := seal.WriteFile(filepath.Join(dir, "master.key"), key); err != nil {
		t.Fatal(err)
	}
	box, err := seal.New(key)
	if err != nil {
		t.Fatal(err)
	}
	sealed := box.Seal([]byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), "webhook "+api.ExampleWebhook)
	err = db.AddWebhook(t.Context(), byTest, &relay.Webhook{ID: id(api.ExampleWebhook), Account: shop, URL: "https://shop.example/hooks/mail", Status: relay.WebhookPaused, Created: time.Now(),
		Secrets: []relay.WebhookSecret{{Sealed: sealed, Created: time.Now()}}}, 10)
	if err != nil {
		t.Fatal(err)
	}
}

// A webhook by HTTP, from its making to its removal. Its secret is shown once.
func TestWebhooks(t *testing.T) {
	status := http.StatusInternalServerError
	to := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	defer to.Close()
	s := serveIn(t, t.TempDir(), func(c *config.Config) {
		c.Webhooks.Private = []config.Prefix{config.Prefix(netip.MustParsePrefix("127.0.0.0/8"))}
	})
	c := s.API
	var made, rotated api.SecretWebhook
	var h api.Webhook
	var said api.WebhookAnswer
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(c.Post(t.Context(), "/v1/webhooks", map[string]any{"url": to.URL, "events": []string{"bounced"}, "batch": 3}, &made))
	path := "/v1/webhooks/" + made.ID
	if !strings.HasPrefix(made.Secret, "whsec_") || made.Status != relay.WebhookActive || made.Batch != 3 {
		t.Errorf("made %+v", made)
	}
	do(c.Post(t.Context(), path+"/test", nil, &said))
	if said.Status != 500 || said.Error == "" {
		t.Errorf("a failing receiver: %+v", said)
	}
	status = http.StatusNoContent
	said = api.WebhookAnswer{}
	do(c.Post(t.Context(), path+"/test", nil, &said))
	if said.Status != 204 || said.Error != "" {
		t.Errorf("a receiver that works: %+v", said)
	}
	do(c.Post(t.Context(), path+"/rotate", map[string]any{"keep_hours": 1}, &rotated))
	if rotated.Secret == made.Secret || len(rotated.Secrets) != 2 || rotated.Secrets[0].Until == nil {
		t.Errorf("rotated %+v", rotated)
	}
	do(c.Patch(t.Context(), path, map[string]any{"paused": true, "events": []string{}}, &h))
	if h.Status != relay.WebhookPaused || len(h.Events) != 0 || h.Batch != 3 || h.Progress == nil {
		t.Errorf("paused %+v", h)
	}
	for name, in := range map[string]any{"private": map[string]any{"url": "https://10.0.0.1/"}, "no event": map[string]any{"url": to.URL, "events": []string{"x"}}} {
		if err := c.Post(t.Context(), "/v1/webhooks", in, nil); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	do(c.Delete(t.Context(), path, nil))
	if err := c.Get(t.Context(), path, nil, nil); err == nil {
		t.Error("it is there after its removal")
	}
}

// Whoever asks for a secret to be good no longer is heard: nothing is not the same
// as nothing said.
func TestRotateAtOnce(t *testing.T) {
	c := serveIn(t, t.TempDir(), nil).API
	for name, tt := range map[string]struct {
		body any
		good bool // the old secret is good yet
	}{
		"nothing said": {map[string]any{}, true},
		"nothing":      {map[string]any{"keep_hours": 0}, false},
		"as by us":     {api.WebhookRotation{Keep: new(float64)}, false},
	} {
		var made, rotated api.SecretWebhook
		if err := c.Post(t.Context(), "/v1/webhooks", map[string]any{"url": "https://shop.example/hook"}, &made); err != nil {
			t.Fatal(err)
		}
		if err := c.Post(t.Context(), "/v1/webhooks/"+made.ID+"/rotate", tt.body, &rotated); err != nil {
			t.Fatal(err)
		}
		if len(rotated.Secrets) != 2 || rotated.Secrets[0].Until.After(time.Now()) != tt.good {
			t.Errorf("webhook, %s: %+v", name, rotated.Secrets)
		}
	}
	for name, tt := range map[string]struct {
		body any
		good bool
	}{
		"nothing said": {map[string]any{}, true},
		"nothing":      {map[string]any{"overlap": 0}, false},
	} {
		var made, rotated api.AddedCredential
		if err := c.Post(t.Context(), "/v1/credentials", map[string]any{"kind": "key", "name": name, "scopes": []string{"read"}}, &made); err != nil {
			t.Fatal(err)
		}
		if err := c.Post(t.Context(), "/v1/credentials/"+made.ID+"/rotate", tt.body, &rotated); err != nil {
			t.Fatal(err)
		}
		if (rotated.Previous != nil) != tt.good {
			t.Errorf("credential, %s: %+v", name, rotated)
		}
	}
}
