package webhook

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"postrider/internal/relay"
)

// Event is an event as a receiver gets it.
type Event struct {
	ID        string    `json:"id"`        // the same each time that it is sent
	Type      string    `json:"type"`      // "delivery.bounced"
	Timestamp time.Time `json:"timestamp"` // when it happened
	Data      Data      `json:"data"`
}

// Data is what an event tells of a delivery. None of it is another account's, or
// of the relay's insides.
type Data struct {
	Account    string            `json:"account"`
	Message    string            `json:"message"`
	Delivery   string            `json:"delivery"`
	Credential string            `json:"credential,omitempty"`
	Stream     string            `json:"stream"`
	Sender     string            `json:"sender"`
	Recipient  string            `json:"recipient"`
	From       string            `json:"from,omitempty"`
	Subject    string            `json:"subject"`
	HeaderID   string            `json:"message_id_header,omitempty"`
	Tags       []string          `json:"tags,omitempty"`
	Metadata   map[string]string `json:"metadata,omitempty"`
	State      string            `json:"state"`
	Reply      *relay.Reply      `json:"reply,omitempty"`
	Diagnosis  *relay.Diagnosis  `json:"diagnosis,omitempty"`
	Attempt    *Attempt          `json:"attempt,omitempty"`
	Provider   string            `json:"provider,omitempty"`
	Engagement *relay.Engagement `json:"engagement,omitempty"`
}

// Attempt is the try that led to the event.
type Attempt struct {
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`
	Host    string    `json:"host,omitempty"` // the one that answered last
	TLS     string    `json:"tls,omitempty"`  // its version; empty: none
	Stage   string    `json:"stage,omitempty"`
	Unknown bool      `json:"unknown,omitempty"` // the receiver may have the message all the same
}

// TypeOf is how a kind of event is called to receivers.
func TypeOf(k relay.Kind) string { return "delivery." + k.String() }

// TestType is the type of an event that somebody asked for to see whether it
// arrives.
const TestType = "webhook.test"

func payload(e *relay.WebhookEvent) Event {
	m := e.Message
	d := Data{Account: e.Account.String(), Message: e.Delivery.Message.String(), Delivery: e.Delivery.String(), Stream: m.Stream.String(), Sender: e.Sender, Recipient: e.Recipient,
		From: m.From, Subject: e.Subject, HeaderID: e.HeaderID, Tags: m.Tags, Metadata: m.Metadata, State: e.Kind.State().String(), Provider: e.Provider, Engagement: e.Engagement}
	if e.Kind.Stays() {
		d.State = "" // it stays what it was
	}
	if !m.Credential.IsZero() {
		d.Credential = m.Credential.String()
	}
	if e.Reply != (relay.Reply{}) {
		d.Reply = &e.Reply
	}
	if e.Diagnosis != (relay.Diagnosis{}) {
		d.Diagnosis = &e.Diagnosis
	}
	if a := e.Attempt; a != nil {
		d.Attempt = &Attempt{Started: a.Started, Ended: a.Ended, Stage: a.Stage, Unknown: a.Unknown}
		if n := len(a.Hosts); n > 0 {
			d.Attempt.Host = a.Hosts[n-1].Name
		}
		if a.TLS != nil {
			d.Attempt.TLS = a.TLS.Version
		}
	}
	return Event{ID: e.ID.String(), Type: TypeOf(e.Kind), Timestamp: e.At, Data: d}
}

// request is what one POST carries. The id is that of its one event, or made of
// those of all: a request that is repeated has the same one.
type request struct {
	id   string
	body []byte
}

// newRequest makes the body: the event, or an array where the webhook takes
// batches.
func newRequest(h *relay.Webhook, events []*relay.WebhookEvent) (request, error) {
	var r request
	all := make([]Event, len(events))
	sum := sha256.New()
	for i, e := range events {
		all[i] = payload(e)
		sum.Write(e.ID[:])
	}
	var err error
	if h.Batch == 0 {
		r.id = all[0].ID
		r.body, err = json.Marshal(all[0])
	} else {
		r.id = "batch_" + relay.ID(sum.Sum(nil)[:16]).String()
		r.body, err = json.Marshal(all)
	}
	if err != nil {
		return r, fmt.Errorf("encode event: %w", err)
	}
	return r, nil
}
