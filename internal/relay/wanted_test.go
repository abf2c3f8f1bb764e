package relay

import (
	"net/netip"
	"testing"
)

func TestEventFilter(t *testing.T) {
	id, cred := ID{1}, ID{2}
	e := &WebhookEvent{Event: Event{Kind: EventBounced, Delivery: DeliveryID{Message: id, N: 1}, Reply: Reply{Code: 550, Enhanced: "5.1.1", Text: "No such User"},
		Diagnosis: Diagnosis{Category: "hard/no-such-mailbox"}, Sender: "me@shop.example", Recipient: "Ann@example.net", Provider: "Gmail", Attempt: &Attempt{Source: netip.MustParseAddr("192.0.2.1")}, Subject: "Your order", HeaderID: "<1@shop.example>"},
		Message: &Message{Stream: Transactional, Credential: cred, Tags: []string{"order", "eu"}, Metadata: map[string]string{"user": "7"}, Script: "33:mail.php",
			Source: Source{Client: netip.MustParseAddrPort("198.51.100.4:999"), Helo: "web-1"}}}
	for name, c := range map[string]struct {
		f    EventFilter
		want bool
	}{
		"nothing":         {EventFilter{}, true},
		"kind":            {EventFilter{Kinds: []Kind{EventDelivered, EventBounced}}, true},
		"other kind":      {EventFilter{Kinds: []Kind{EventDelivered}}, false},
		"stream":          {EventFilter{Stream: Transactional}, true},
		"other stream":    {EventFilter{Stream: Broadcast}, false},
		"credential":      {EventFilter{Credentials: []ID{cred}}, true},
		"other":           {EventFilter{Credentials: []ID{{3}}}, false},
		"tag":             {EventFilter{Tags: []string{"x", "eu"}}, true},
		"other tag":       {EventFilter{Tags: []string{"e"}}, false},
		"domain":          {EventFilter{Domains: []string{"example.net"}}, true},
		"other domain":    {EventFilter{Domains: []string{"net"}}, false},
		"category":        {EventFilter{Categories: []string{"hard/no-such-mailbox"}}, true},
		"kind of failure": {EventFilter{Categories: []string{"hard"}}, true},
		"other category":  {EventFilter{Categories: []string{"har", "soft"}}, false},
		"half a category": {EventFilter{Categories: []string{"no-such-mailbox"}}, true},
		"metadata":        {EventFilter{Metadata: map[string]string{"user": "7"}}, true},
		"any value":       {EventFilter{Metadata: map[string]string{"user": ""}}, true},
		"other value":     {EventFilter{Metadata: map[string]string{"user": "8"}}, false},
		"no such key":     {EventFilter{Metadata: map[string]string{"shop": ""}}, false},
		"provider":        {EventFilter{Provider: "gmail"}, true},
		"other provider":  {EventFilter{Provider: "mail"}, false},
		"source":          {EventFilter{Source: "192.0.2.1"}, true},
		"other source":    {EventFilter{Source: "192.0.2.10"}, false},
		"client":          {EventFilter{Client: "198.51"}, true},
		"client's name":   {EventFilter{Client: "WEB"}, true},
		"script":          {EventFilter{Script: "mail.php"}, true},
		"other script":    {EventFilter{Script: "x.php"}, false},
		"recipient":       {EventFilter{Recipient: "ann@EX"}, true},
		"sender":          {EventFilter{Sender: "shop"}, true},
		"null sender":     {EventFilter{Sender: NullSender}, false},
		"subject":         {EventFilter{Subject: "ORDER"}, true},
		"reply":           {EventFilter{Reply: "550 5.1.1 no such"}, true},
		"id":              {EventFilter{Message: id.String()}, true},
		"header":          {EventFilter{Message: "1@shop.example"}, true},
		"other message":   {EventFilter{Message: ID{4}.String()}, false},
		"all must hold":   {EventFilter{Tags: []string{"eu"}, Subject: "invoice"}, false},
	} {
		if got := c.f.Wants(e, "example.net"); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
