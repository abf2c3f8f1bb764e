package lab

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"postrider/internal/api"
	"postrider/internal/config"
)

// A limit holds over SMTP and over HTTP together, and both say when mail is taken
// again.
func TestRelayKeepsLimits(t *testing.T) {
	r := StartRelay(t, func(c *config.Config) { c.API.Listen = "127.0.0.1:0" })
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	var key api.AddedCredential
	if err := r.API.Post(ctx, "/v1/credentials", api.NewCredential{Kind: "key", Name: "web"}, &key); err != nil {
		t.Fatal(err)
	}
	limits := []string{"3 messages/month"}
	if err := r.API.Patch(ctx, "/v1/accounts/default", api.AccountChange{Limits: &limits}, nil); err != nil {
		t.Fatal(err)
	}
	post := func() *http.Response {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+r.APIAddr()+"/v1/messages",
			strings.NewReader(`{"from": "a@shop.test", "to": ["b@away.test"], "subject": "x", "text": "x"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+key.Secret)
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	// What is new counts within a second; until then mail is taken without a limit.
	for taken := 0; ; taken++ {
		if err := r.send("a@shop.test", "From: a@shop.test", "b@away.test"); err != nil {
			refused(t, err, 451, "4.7.1 ")
			refused(t, err, 451, "3 messages/month")
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("%d messages were taken", taken)
		}
	}
	resp := post()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var p api.Problem
	if err := json.Unmarshal(body, &p); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	wait, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	month := 31 * 24 * time.Hour
	if resp.StatusCode != http.StatusTooManyRequests || err != nil || wait < 1 || time.Duration(wait)*time.Second > month ||
		p.Enhanced != "4.7.1" || !strings.Contains(p.Detail, "3 messages/month") {
		t.Errorf("%s, Retry-After %q: %s", resp.Status, resp.Header.Get("Retry-After"), body)
	}
}
