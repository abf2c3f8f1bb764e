package tail

import (
	"net/netip"
	"testing"

	"postrider/internal/relay"
)

// What is sought in a text is found as in the log: by words and their beginnings,
// neither case nor accents count.
func TestWanted(t *testing.T) {
	id, cred := relay.ID{1}, relay.ID{2}
	e := &relay.WebhookEvent{Event: relay.Event{Kind: relay.EventBounced, Delivery: relay.DeliveryID{Message: id, N: 1}, Reply: relay.Reply{Code: 550, Enhanced: "5.1.1", Text: "No such User"},
		Diagnosis: relay.Diagnosis{Category: "hard/no-such-mailbox"}, Sender: "me@shop.example", Recipient: "Ann@example.net", Provider: "Gmail", Attempt: &relay.Attempt{Source: netip.MustParseAddr("192.0.2.1")}, Subject: "Your order", HeaderID: "<1@shop.example>"},
		Message: &relay.Message{Stream: relay.Transactional, Credential: cred, Tags: []string{"order", "eu"}, Metadata: map[string]string{"user": "7"}, Script: "33:mail.php", From: "Boss@other.example",
			Source: relay.Source{Client: netip.MustParseAddrPort("198.51.100.4:999"), Helo: "web-1"}}}
	for name, c := range map[string]struct {
		f    relay.EventFilter
		want bool
	}{
		"nothing":         {relay.EventFilter{}, true},
		"kind":            {relay.EventFilter{Kinds: []relay.Kind{relay.EventDelivered, relay.EventBounced}}, true},
		"other kind":      {relay.EventFilter{Kinds: []relay.Kind{relay.EventDelivered}}, false},
		"stream":          {relay.EventFilter{Stream: relay.Transactional}, true},
		"other stream":    {relay.EventFilter{Stream: relay.Broadcast}, false},
		"credential":      {relay.EventFilter{Credentials: []relay.ID{cred}}, true},
		"other":           {relay.EventFilter{Credentials: []relay.ID{{3}}}, false},
		"tag":             {relay.EventFilter{Tags: []string{"x", "eu"}}, true},
		"other tag":       {relay.EventFilter{Tags: []string{"e"}}, false},
		"domain":          {relay.EventFilter{Domains: []string{"example.net"}}, true},
		"other domain":    {relay.EventFilter{Domains: []string{"net"}}, false},
		"category":        {relay.EventFilter{Categories: []string{"hard/no-such-mailbox"}}, true},
		"kind of failure": {relay.EventFilter{Categories: []string{"hard"}}, true},
		"other category":  {relay.EventFilter{Categories: []string{"har", "soft"}}, false},
		"half a category": {relay.EventFilter{Categories: []string{"no-such-mailbox"}}, true},
		"metadata":        {relay.EventFilter{Metadata: map[string]string{"user": "7"}}, true},
		"any value":       {relay.EventFilter{Metadata: map[string]string{"user": ""}}, true},
		"other value":     {relay.EventFilter{Metadata: map[string]string{"user": "8"}}, false},
		"no such key":     {relay.EventFilter{Metadata: map[string]string{"shop": ""}}, false},
		"provider":        {relay.EventFilter{Provider: "gmail"}, true},
		"other provider":  {relay.EventFilter{Provider: "mail"}, false},
		"source":          {relay.EventFilter{Source: "192.0.2.1"}, true},
		"other source":    {relay.EventFilter{Source: "192.0.2.10"}, false},
		"client":          {relay.EventFilter{Client: "198.51"}, true},
		"client's name":   {relay.EventFilter{Client: "WEB"}, true},
		"script":          {relay.EventFilter{Script: "mail.php"}, true},
		"other script":    {relay.EventFilter{Script: "x.php"}, false},
		"recipient":       {relay.EventFilter{Recipient: "ann@EX"}, true},
		"sender":          {relay.EventFilter{Sender: "shop"}, true},
		"null sender":     {relay.EventFilter{Sender: relay.NullSender}, false},
		"subject":         {relay.EventFilter{Subject: "ORDER"}, true},
		"reply":           {relay.EventFilter{Reply: "550 5.1.1 no such"}, true},
		"id":              {relay.EventFilter{Message: id.String()}, true},
		"header":          {relay.EventFilter{Message: "1@shop.example"}, true},
		"other message":   {relay.EventFilter{Message: relay.ID{4}.String()}, false},
		"other subject":   {relay.EventFilter{Subject: "our"}, false}, // no word begins so
		"words":           {relay.EventFilter{Subject: "order your"}, true},
		"words together":  {relay.EventFilter{Subject: `"order your"`}, false},
		"an accent":       {relay.EventFilter{Subject: "örder"}, true},
		"part of a word":  {relay.EventFilter{Recipient: "nn"}, false},
		"from":            {relay.EventFilter{Sender: "boss@other"}, true},
		"tag's case":      {relay.EventFilter{Tags: []string{"EU"}}, true},
		"metadata's case": {relay.EventFilter{Metadata: map[string]string{"User": "7"}}, true},
		"reply's words":   {relay.EventFilter{Reply: "user such 5.1.1"}, true},
		"other reply":     {relay.EventFilter{Reply: "5.1.11"}, false},
		"all must hold":   {relay.EventFilter{Tags: []string{"eu"}, Subject: "invoice"}, false},
	} {
		if got := newWanted(c.f).wants(e); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
