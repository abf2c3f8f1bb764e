package api_test

import (
	"testing"
	"time"

	"postrider/internal/relay"
	"postrider/internal/store"
)

// fillMore adds what of the world is not mail.
func fillMore(t *testing.T, db *store.DB, shop relay.ID) {
	t.Helper()
	now := time.Now()
	for _, err := range []error{
		db.SetPlan(t.Context(), byTest, &relay.Plan{Name: "unused"}),
		db.SetPlan(t.Context(), byTest, &relay.Plan{Name: "small"}),
		db.AddDomain(t.Context(), byTest, &relay.Domain{ID: newID(), Account: shop, Name: "news.example", Proof: "x", Publish: "txt", ReturnPath: "bounce", Tracking: "track", Broken: relay.BrokenWarn,
			Keys: []relay.DKIMKey{{Selector: "old", Algorithm: "rsa", Public: "v=DKIM1", State: relay.KeySigning, Since: now}}, Verified: now, Due: now.Add(time.Hour), Created: now}),
		db.AddGroup(t.Context(), byTest, &relay.Group{Account: shop, ID: "newsletter", Name: "Newsletter", Public: true, Created: now}, 10),
		db.AddSender(t.Context(), byTest, &relay.Sender{ID: newID(), Account: shop, Address: "sam@shop.example", Token: make([]byte, 32), Asked: now}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.LeaveGroup(t.Context(), byTest, shop, "newsletter", []relay.Leaver{{Address: "gone@example.net", Created: now}}); err != nil {
		t.Fatal(err)
	}
	list := []relay.Suppression{{Account: shop, Address: "gone@example.net", Reason: "manual", Created: time.Now()}}
	if _, err := db.Suppress(t.Context(), byTest, shop, list); err != nil {
		t.Fatal(err)
	}
}
