package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"postrider/internal/relay"
	"postrider/internal/webhook"
)

func (s *Server) webhookRoutes() {
	named := map[string]any{"webhook": ExampleWebhook}
	Register(s, Route{Method: http.MethodGet, Path: "/v1/webhooks", ID: "list-webhooks", Tag: "Webhooks", Right: Read, OfAccount: true,
		Summary: "Addresses that events are sent to",
		Example: Example{Answer: object{"data": []any{exampleWebhook()}}},
	}, s.listWebhooks)
	Register(s, Route{Method: http.MethodPost, Path: "/v1/webhooks", ID: "add-webhook", Tag: "Webhooks", Right: Build, OfAccount: true, Status: http.StatusCreated,
		Summary: "Send events to an address", Doc: "The secret that requests are signed with is in the answer, and not shown again. What happens from now on is sent.",
		Example: Example{Body: object{"url": "https://shop.example/hooks/mail", "events": []string{"bounced", "delivered"}}, Answer: exampleSecretWebhook()},
	}, s.addWebhook)
	Register(s, Route{Method: http.MethodGet, Path: "/v1/webhooks/{webhook}", ID: "get-webhook", Tag: "Webhooks", Right: Read, OfAccount: true,
		Summary: "One webhook, and how far it has come",
		Example: Example{Params: named, Answer: exampleWebhook()},
	}, s.getWebhook)
	Register(s, Route{Method: http.MethodPatch, Path: "/v1/webhooks/{webhook}", ID: "change-webhook", Tag: "Webhooks", Right: Build, OfAccount: true,
		Summary: "Change a webhook, pause it, or let it go on", Doc: "Fields that are left out stay. With a version, the change is refused where somebody else was faster.",
		Example: Example{Params: named, Body: object{"paused": true}, Answer: exampleWebhook()},
	}, s.changeWebhook)
	Register(s, Route{Method: http.MethodDelete, Path: "/v1/webhooks/{webhook}", ID: "remove-webhook", Tag: "Webhooks", Right: Build, OfAccount: true,
		Summary: "Remove a webhook",
		Example: Example{Params: named},
	}, s.removeWebhook)
	Register(s, Route{Method: http.MethodPost, Path: "/v1/webhooks/{webhook}/rotate", ID: "rotate-webhook", Tag: "Webhooks", Right: Build, OfAccount: true,
		Summary: "Give a webhook a new secret", Doc: "Requests have a signature by each of the two while the old one is good.",
		Example: Example{Params: named, Body: object{"keep_hours": 24}, Answer: exampleSecretWebhook()},
	}, s.rotateWebhook)
	Register(s, Route{Method: http.MethodGet, Path: "/v1/webhooks/{webhook}/failures", ID: "webhook-failures", Tag: "Webhooks", Right: Read, OfAccount: true,
		Summary: "Requests that were not taken, with what the receiver answered", Doc: "The newest first; the last 100 are kept.",
		Example: Example{Params: named, Answer: object{"data": []any{object{"id": ExampleEventID, "at": ExampleTime, "event": ExampleEventID, "message": ExampleMessage, "events": 1, "try": 1,
			"status": 503, "answer": "come back later", "error": "The receiver answers 503; 200 to 299 says that it has the events.", "took": 0.2, "next": ExampleTime}}}},
	}, s.webhookFailures)
	Register(s, Route{Method: http.MethodPost, Path: "/v1/webhooks/{webhook}/replay", ID: "replay-webhook", Tag: "Webhooks", Right: Build, OfAccount: true,
		Summary: "Send what has happened since a time again", Doc: "Then it goes on from there: what happens meanwhile waits its turn.",
		Example: Example{Params: named, Body: object{"since": ExampleTime}, Answer: exampleWebhook()},
	}, s.replayWebhook)
	Register(s, Route{Method: http.MethodPost, Path: "/v1/webhooks/{webhook}/test", ID: "test-webhook", Tag: "Webhooks", Right: Build, OfAccount: true,
		Summary: "Send an event of the type webhook.test now", Doc: "The answer is the receiver's. It is sent to a paused webhook too.",
		Example: Example{Params: named, Answer: object{"status": 204, "took": 0.2}},
	}, s.testWebhook)
}

// Webhook is an address that events are sent to.
type Webhook struct {
	ID          string              `json:"id"`
	Account     string              `json:"account"`
	URL         string              `json:"url"`
	Description string              `json:"description,omitempty"`
	Events      []string            `json:"events" nullable:"false" doc:"Which events; none: all"`
	Tags        []string            `json:"tags" nullable:"false"`
	Credentials []string            `json:"credentials" nullable:"false"`
	Stream      string              `json:"stream,omitempty"`
	Batch       int                 `json:"batch" doc:"Most events in a request, which is an array; 0: one, and no array"`
	Wait        float64             `json:"wait" doc:"Seconds that an array waits for more"`
	Status      relay.WebhookStatus `json:"status" enum:"active,paused,disabled" doc:"disabled: by the relay, when every request had failed for days"`
	Reason      string              `json:"reason,omitempty"`
	Secrets     []WebhookSecret     `json:"secrets" nullable:"false" doc:"Those that requests are signed with, but for what they are"`
	Progress    *WebhookProgress    `json:"progress,omitempty"`
	Created     time.Time           `json:"created"`
	Version     int64               `json:"version"`
}

// WebhookSecret is how long a secret is good.
type WebhookSecret struct {
	Created time.Time  `json:"created"`
	Until   *time.Time `json:"until,omitempty"`
}

// WebhookProgress is how far a webhook has come.
type WebhookProgress struct {
	Sent      int64      `json:"sent" doc:"Events that were taken, in all"`
	Reached   time.Time  `json:"reached" doc:"What happened until then has been dealt with; what came since may be on its way"`
	Delivered *time.Time `json:"delivered,omitempty" doc:"When a request was taken last"`
	Failing   *time.Time `json:"failing,omitempty" doc:"Since when every request has failed"`
	Failures  int        `json:"failures,omitempty"`
	Next      *time.Time `json:"next,omitempty" doc:"Of the next try"`
	Aside     int        `json:"aside,omitempty" doc:"Messages whose events are refused while others are taken; they are tried by themselves"`
	Node      string     `json:"node,omitempty" doc:"The node that sends"`
}

func newWebhook(h *relay.Webhook) Webhook {
	out := Webhook{ID: h.ID.String(), Account: h.Account.String(), URL: h.URL, Description: h.Description, Events: []string{}, Tags: []string{}, Credentials: []string{},
		Batch: h.Batch, Wait: h.Wait.Seconds(), Status: h.Status, Reason: h.Reason, Secrets: []WebhookSecret{}, Created: h.Created, Version: h.Version}
	for _, k := range h.Kinds {
		out.Events = append(out.Events, k.String())
	}
	out.Tags = append(out.Tags, h.Tags...)
	for _, id := range h.Credentials {
		out.Credentials = append(out.Credentials, id.String())
	}
	if h.Stream != 0 {
		out.Stream = h.Stream.String()
	}
	for _, s := range h.Secrets {
		out.Secrets = append(out.Secrets, WebhookSecret{s.Created, moment(s.Until)})
	}
	return out
}

func (s *Server) listWebhooks(ctx context.Context, p *Page) (*body[List[Webhook]], error) {
	return listOf(ctx, *p, s.config.Webhooks.Webhooks, newWebhook, func(h *relay.Webhook) relay.ID { return h.ID })
}

// SecretWebhook is a webhook with its newest secret.
type SecretWebhook struct {
	Webhook
	Secret string `json:"secret" doc:"What requests are signed with (Standard Webhooks); it is not shown again"`
}

func (s *Server) addWebhook(ctx context.Context, in *body[webhook.Settings]) (*body[SecretWebhook], error) {
	c := CallerOf(ctx)
	h, secret, err := s.config.Webhooks.Add(ctx, c.Actor, c.Into(), in.Body)
	if err != nil {
		return nil, err
	}
	return answer(SecretWebhook{newWebhook(h), secret}, nil)
}

type webhookQuery struct {
	Webhook string `path:"webhook" maxLength:"100" doc:"Id"`
}

func webhookID(text string) (relay.ID, error) { return parseID("path.webhook", text, "webhook") }

// withProgress is a webhook with how far it has come.
func (s *Server) withProgress(ctx context.Context, h *relay.Webhook, err error) (*body[Webhook], error) {
	if err != nil {
		return nil, err
	}
	p, err := s.config.Webhooks.WebhookProgress(ctx, h.Account, h.ID)
	if err != nil {
		return nil, err
	}
	out := newWebhook(h)
	out.Progress = &WebhookProgress{Sent: p.Sent, Reached: p.Done.Time(), Delivered: moment(p.Delivered), Failing: moment(p.Failing), Failures: p.Failures,
		Next: moment(p.Next), Aside: len(p.Aside), Node: p.Node}
	return answer(out, nil)
}

func (s *Server) getWebhook(ctx context.Context, q *webhookQuery) (*body[Webhook], error) {
	id, err := webhookID(q.Webhook)
	if err != nil {
		return nil, err
	}
	h, err := s.config.Webhooks.Webhook(ctx, CallerOf(ctx).Account, id)
	return s.withProgress(ctx, h, err)
}

type webhookChange struct {
	Webhook string `path:"webhook" maxLength:"100" doc:"Id"`
	Body    webhook.Settings
}

func (s *Server) changeWebhook(ctx context.Context, in *webhookChange) (*body[Webhook], error) {
	id, err := webhookID(in.Webhook)
	if err != nil {
		return nil, err
	}
	c := CallerOf(ctx)
	h, err := s.config.Webhooks.Change(ctx, c.Actor, c.Account, id, in.Body)
	return s.withProgress(ctx, h, err)
}

func (s *Server) removeWebhook(ctx context.Context, q *webhookQuery) (*struct{}, error) {
	id, err := webhookID(q.Webhook)
	if err != nil {
		return nil, err
	}
	c := CallerOf(ctx)
	_, err = s.config.Webhooks.Remove(ctx, c.Actor, c.Account, id)
	return nil, err
}

// WebhookRotation is what POST /v1/webhooks/{webhook}/rotate takes. A pointer tells 0
// from nothing said.
type WebhookRotation struct {
	Keep *float64 `json:"keep_hours,omitempty" default:"24" minimum:"0" maximum:"720" doc:"How long the old secret is good yet"`
}

type webhookRotation struct {
	Webhook string `path:"webhook" maxLength:"100" doc:"Id"`
	Body    WebhookRotation
}

func (s *Server) rotateWebhook(ctx context.Context, in *webhookRotation) (*body[SecretWebhook], error) {
	id, err := webhookID(in.Webhook)
	if err != nil {
		return nil, err
	}
	c := CallerOf(ctx)
	h, secret, err := s.config.Webhooks.Rotate(ctx, c.Actor, c.Account, id, time.Duration(*in.Body.Keep*float64(time.Hour)))
	if err != nil {
		return nil, err
	}
	return answer(SecretWebhook{newWebhook(h), secret}, nil)
}

// WebhookFailure is a request that was not taken.
type WebhookFailure struct {
	ID      string     `json:"id"`
	At      time.Time  `json:"at"`
	Event   string     `json:"event" doc:"The first in the request"`
	Message string     `json:"message" doc:"That the event is about"`
	Events  int        `json:"events" doc:"How many were in the request"`
	Try     int        `json:"try"`
	Status  int        `json:"status,omitempty" doc:"HTTP status; 0: no answer came"`
	Answer  string     `json:"answer,omitempty" doc:"The beginning of what the receiver said"`
	Error   string     `json:"error" doc:"Why it failed, for people"`
	Took    float64    `json:"took" doc:"Seconds"`
	Next    *time.Time `json:"next,omitempty" doc:"Of the next try; not there: it was given up"`
}

func newFailure(f *relay.WebhookFailure) WebhookFailure {
	return WebhookFailure{ID: f.ID.String(), At: f.At, Event: f.Event.String(), Message: f.Message.String(), Events: f.Events, Try: f.Try, Status: f.Status,
		Answer: f.Answer, Error: f.Error, Took: f.Took.Seconds(), Next: moment(f.Next)}
}

type webhookFailuresQuery struct {
	Webhook string `path:"webhook" maxLength:"100" doc:"Id"`
	Page
}

func (s *Server) webhookFailures(ctx context.Context, q *webhookFailuresQuery) (*body[List[WebhookFailure]], error) {
	id, err := webhookID(q.Webhook)
	if err == nil {
		_, err = s.config.Webhooks.Webhook(ctx, CallerOf(ctx).Account, id)
	}
	if err != nil {
		return nil, err
	}
	list := func(ctx context.Context, account, before relay.ID, limit int) ([]*relay.WebhookFailure, error) {
		return s.config.Webhooks.WebhookFailures(ctx, account, id, before, limit)
	}
	return listOf(ctx, q.Page, list, newFailure, func(f *relay.WebhookFailure) relay.ID { return f.ID })
}

// WebhookReplay is what POST /v1/webhooks/{webhook}/replay takes.
type WebhookReplay struct {
	Since time.Time `json:"since"`
}

type webhookReplay struct {
	Webhook string `path:"webhook" maxLength:"100" doc:"Id"`
	Body    WebhookReplay
}

func (s *Server) replayWebhook(ctx context.Context, in *webhookReplay) (*body[Webhook], error) {
	id, err := webhookID(in.Webhook)
	if err != nil {
		return nil, err
	}
	c := CallerOf(ctx)
	if err := s.config.Webhooks.Replay(ctx, c.Actor, c.Account, id, in.Body.Since); err != nil {
		return nil, err
	}
	return s.getWebhook(ctx, &webhookQuery{in.Webhook})
}

// WebhookAnswer is what a receiver said to a test event.
type WebhookAnswer struct {
	Status int     `json:"status,omitempty" doc:"HTTP status; 0: no answer came"`
	Answer string  `json:"answer,omitempty" doc:"The beginning of what it said"`
	Error  string  `json:"error,omitempty" doc:"Why it failed, for people; not there: it was taken"`
	Took   float64 `json:"took" doc:"Seconds"`
}

func (s *Server) testWebhook(ctx context.Context, q *webhookQuery) (*body[WebhookAnswer], error) {
	id, err := webhookID(q.Webhook)
	if err != nil {
		return nil, err
	}
	a, err := s.config.Webhooks.Test(ctx, CallerOf(ctx).Account, id)
	if err != nil {
		return nil, err
	}
	return answer(WebhookAnswer{a.Status, a.Text, a.Error, a.Took.Seconds()}, nil)
}

func exampleWebhook() object {
	return object{"id": ExampleWebhook, "account": ExampleAccount, "url": "https://shop.example/hooks/mail", "events": []string{"bounced", "delivered"}, "tags": []string{}, "credentials": []string{},
		"batch": 0, "wait": 0, "status": "active", "secrets": []any{object{"created": ExampleTime}}, "created": ExampleTime, "version": 1,
		"progress": object{"sent": 1001, "reached": ExampleTime, "delivered": ExampleTime, "node": "relay-1"}}
}

func exampleSecretWebhook() object {
	o := exampleWebhook()
	delete(o, "progress")
	o["secret"] = strings.Join([]string{"whsec", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}, "_")
	return o
}
