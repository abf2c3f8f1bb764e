package api_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"postrider/internal/api"
	"postrider/internal/config"
	"postrider/internal/relay"
	"postrider/internal/store"
)

// fillAlert makes what the examples of alerts name.
func fillAlert(t *testing.T, db *store.DB, shop relay.ID) {
	t.Helper()
	a := &relay.Alert{ID: id(api.ExampleAlert), Account: shop, Kind: relay.AlertBlock, Subject: "Gmail", Severity: relay.SeverityWarning, Opened: time.Now(), Seen: time.Now(), Told: time.Now(), Title: "Gmail refuses mail", Level: 1}
	for _, err := range []error{
		db.PutAlert(t.Context(), a, []*relay.AlertSend{{ID: newID(), Alert: a.ID, Account: shop, Target: "ann@shop.example", Kind: relay.ChannelMail, News: relay.AlertOpened, Shown: *a}}),
		db.AddAlertChannel(t.Context(), byTest, &relay.AlertChannel{ID: id(api.ExampleChannel), Account: shop, Kind: relay.ChannelMail, Shown: "ops@shop.example", Created: time.Now()}, 10),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Rules and channels by HTTP: what makes no sense is refused, secrets are shown
// once, and mail does not go to strangers.
func TestAlerts(t *testing.T) {
	dir := t.TempDir()
	s := serveIn(t, dir, func(c *config.Config) { c.Policy.Senders = "verified" })
	c := s.API
	var rules api.AlertRuleList
	if err := c.Patch(t.Context(), "/v1/alert-rules", object{"rules": []any{object{"kind": "bounce-rate", "on": true, "warning": 2, "critical": 4, "windows": []string{"6h"}}}}, &rules); err != nil {
		t.Fatal(err)
	}
	if r := rules.Rules[0]; r.Warning != 2 || r.Critical != 4 || r.Least != 50 || !r.Own || r.Windows[0] != "6h" || rules.Rules[1].Own {
		t.Errorf("rules %+v", rules)
	}
	rules = api.AlertRuleList{}
	if err := c.Patch(t.Context(), "/v1/alert-rules", object{"rules": []any{object{"kind": "bounce-rate", "on": true, "reset": true}}}, &rules); err != nil || rules.Rules[0].Warning != 5 || rules.Rules[0].Own {
		t.Errorf("reset: %v, %+v", err, rules)
	}
	for name, r := range map[string]object{"a warning above critical": {"kind": "bounce-rate", "on": true, "warning": 5, "critical": 4}, "a window": {"kind": "bounce-rate", "on": true, "windows": []string{"7m"}},
		"thresholds of what has none": {"kind": "quota", "on": true, "warning": 3}} {
		if err := c.Patch(t.Context(), "/v1/alert-rules", object{"rules": []any{r}}, nil); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	var made api.AddedAlertChannel
	if err := c.Post(t.Context(), "/v1/alert-channels", object{"kind": "webhook", "to": "https://hooks.example.com/secret-path"}, &made); err != nil {
		t.Fatal(err)
	}
	list := s.ask(s.key(object{"name": "reader", "scopes": []string{"read"}}, ""), "GET", "/v1/alert-channels", nil)
	if !strings.HasPrefix(made.Secret, "whsec_") || bytes.Contains(list.body, []byte("secret-path")) || bytes.Contains(list.body, []byte("whsec_")) || !bytes.Contains(list.body, []byte("hooks.example.com")) {
		t.Errorf("made %+v; list %s", made, list.body)
	}
	for name, in := range map[string]object{"a private address": {"kind": "slack", "to": "https://10.0.0.1/x"}, "a stranger": {"kind": "mail", "to": "someone@elsewhere.example"}, "no address": {"kind": "mail", "to": "x"}} {
		if err := c.Post(t.Context(), "/v1/alert-channels", in, nil); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
