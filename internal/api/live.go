package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"postrider/internal/relay"
	"postrider/internal/smtp"
	"postrider/internal/tail"
)

func (s *Server) liveRoutes() {
	Register(s, Route{Method: http.MethodGet, Path: "/v1/events/stream", ID: "stream-events", Tag: "Messages", Right: Read, OfAccount: true,
		Summary: "What happens, as it happens", Doc: "A stream of Server-Sent Events, such as EventSource reads. Each has an event of the account as JSON, and an id: who comes back with it in Last-Event-ID, or as the cursor, at whichever node, gets what came since, and misses nothing. " +
			"Where several nodes write at once, what is on the way at that moment may come twice: drop what has an id that you know. " +
			"Without a cursor it begins with what happens from now on. When nothing happens, a comment every 15 seconds shows that it is alive. " +
			"The last event, of the type end, says why a stream ends: a client that reads too slowly is cut off, and may come back. " +
			"An account has so many streams open at once (api.account_streams), a node too; one more is a 429.",
		Streams: func(r huma.Registry) *huma.Schema { return r.Schema(typeOf[LiveEvent](), true, "LiveEvent") },
		Example: Example{Params: object{"kind": "accepted,bounced", "since": "2026-01-01T00:00:00Z", "limit": 1, "seconds": 1}, Answer: []any{object{"id": ExampleEventID, "data": exampleLive()},
			object{"event": "end", "data": object{"reason": "limit", "text": "It was asked for so many.", "cursor": ExampleEventID}}}},
	}, s.streamEvents)
}

func exampleLive() object {
	o := exampleEvent()
	for k, v := range (object{"account": ExampleAccount, "message": ExampleMessage, "stream": "transactional", "credential": ExampleCredential, "tags": []any{"order"}, "metadata": object{"order": "1001"}}) {
		o[k] = v
	}
	return o
}

// LiveEvent is an event as a stream has it: with what is known of its message.
type LiveEvent struct {
	Event
	Account    string            `json:"account"`
	Message    string            `json:"message"`
	Stream     string            `json:"stream"`
	Credential string            `json:"credential,omitempty"`
	Tags       []string          `json:"tags,omitempty"`
	Metadata   map[string]string `json:"metadata,omitempty"`
}

func newLiveEvent(e *relay.WebhookEvent) LiveEvent {
	m := e.Message
	out := LiveEvent{Event: newEvent(&e.Event), Account: e.Account.String(), Message: e.Delivery.Message.String(), Stream: m.Stream.String(), Tags: m.Tags, Metadata: m.Metadata}
	if !m.Credential.IsZero() {
		out.Credential = m.Credential.String()
	}
	return out
}

// liveQuery is what is asked of events that are to come.
type liveQuery struct {
	Kind        []string  `query:"kind" maxItems:"30" doc:"Kinds of events, separated by commas: accepted, delivered, deferred, bounced and so on"`
	Tag         []string  `query:"tag" maxItems:"100" doc:"Tags of the message, separated by commas: any of them"`
	Stream      string    `query:"stream" enum:"transactional,broadcast" doc:"Kind of mail"`
	Credential  []string  `query:"credential" maxItems:"100" doc:"Ids or names of credentials that the message was submitted with, separated by commas: any of them"`
	Domain      []string  `query:"domain" maxItems:"100" doc:"Domains of the recipient, separated by commas: any of them"`
	Category    []string  `query:"category" maxItems:"100" doc:"Categories of the diagnosis, separated by commas: hard/no-such-mailbox, or one half of it"`
	Metadata    []string  `query:"metadata" maxItems:"20" doc:"key:value, or key: for any value; several, separated by commas, must all hold"`
	Provider    string    `query:"provider" maxLength:"200" doc:"Public name of the receiving service: Gmail"`
	Source      string    `query:"source" maxLength:"60" doc:"Our address at the attempt"`
	Client      string    `query:"client" maxLength:"1000" doc:"Part of the address that submitted it, or of what it called itself, as with recipient"`
	Script      string    `query:"script" maxLength:"1000" doc:"Part of what a header told of the program that sent it, as with recipient"`
	Recipient   string    `query:"recipient" maxLength:"1000" doc:"Part of the recipient's address, from the beginning of a word on: ann, ann@example, @example.net"`
	Sender      string    `query:"sender" maxLength:"1000" doc:"Part of the envelope sender, or of the address in From, in the same way; <> for the null sender"`
	Subject     string    `query:"subject" maxLength:"1000" doc:"Words of the subject, all of them; the last one may be a beginning. In quotation marks they must stand together"`
	Reply       string    `query:"reply" maxLength:"1000" doc:"Words of the receiver's reply, codes included, as with subject"`
	Message     string    `query:"message" maxLength:"1000" doc:"Id of the message, or its Message-ID header"`
	Since       time.Time `query:"since" doc:"Begin with what has happened since then"`
	Cursor      string    `query:"cursor" maxLength:"300" doc:"Begin after this: the id of an event of a stream before, or of any event. Last-Event-ID counts before it"`
	Limit       int       `query:"limit" minimum:"0" doc:"End after so many events; 0: do not"`
	Seconds     int       `query:"seconds" minimum:"0" maximum:"86400" doc:"End after so many seconds; 0: do not"`
	LastEventID string    `header:"Last-Event-ID" maxLength:"300" doc:"As EventSource sends it when it comes back"`
}

func (s *Server) eventFilter(ctx context.Context, q *liveQuery) (relay.EventFilter, error) {
	f := relay.EventFilter{Tags: q.Tag, Categories: q.Category, Recipient: q.Recipient, Sender: q.Sender, Subject: q.Subject, Reply: q.Reply, Message: q.Message,
		Provider: q.Provider, Source: q.Source, Client: q.Client, Script: q.Script}
	for _, name := range q.Kind {
		var k relay.Kind
		if err := k.UnmarshalText([]byte(name)); err != nil {
			return f, invalid("query.kind", sentence(err), "See docs/api.md for the kinds.")
		}
		f.Kinds = append(f.Kinds, k)
	}
	if q.Stream != "" {
		var err error
		if f.Stream, err = relay.ParseStream(q.Stream); err != nil {
			return f, invalid("query.stream", sentence(err), "Take transactional or broadcast.")
		}
	}
	for _, text := range q.Credential {
		if id, err := relay.ParseID(text); err == nil {
			f.Credentials = append(f.Credentials, id)
			continue
		}
		all, err := s.config.Credentials.List(ctx, CallerOf(ctx).Account)
		if err != nil {
			return f, err
		}
		i := slices.IndexFunc(all, func(c *relay.Credential) bool { return c.Name == text || c.User == text })
		if i < 0 {
			return f, invalid("query.credential", fmt.Sprintf("There is no credential %q.", cut(text)), "Give the id or name that \"postrider credential list\" shows.")
		}
		f.Credentials = append(f.Credentials, all[i].ID)
	}
	var err error
	if f.Metadata, err = pairs(q.Metadata); err != nil {
		return f, err
	}
	for _, name := range q.Domain {
		ascii, err := smtp.ASCIIDomain(name)
		if err != nil {
			return f, invalid("query.domain", sentence(err), "Give a domain such as example.com.")
		}
		f.Domains = append(f.Domains, ascii)
	}
	return f, nil
}

// from is where a stream begins; nil: now.
func (q *liveQuery) from() (*tail.Cursor, error) {
	location, text := "header.Last-Event-ID", q.LastEventID
	if text == "" {
		location, text = "query.cursor", q.Cursor
	}
	switch {
	case text != "":
		c, err := tail.ParseCursor(text)
		if err != nil {
			return nil, invalid(location, sentence(err), "Give the id of the last event that came, as it stands.")
		}
		return &c, nil
	case !q.Since.IsZero():
		c := tail.Since(q.Since)
		return &c, nil
	}
	return nil, nil
}

func (s *Server) streamEvents(ctx context.Context, q *liveQuery) (*huma.StreamResponse, error) {
	f, err := s.eventFilter(ctx, q)
	if err != nil {
		return nil, err
	}
	from, err := q.from()
	if err != nil {
		return nil, err
	}
	n, err := s.config.Live.Listen(ctx, CallerOf(ctx).Account, f, from)
	if err != nil {
		return nil, err
	}
	sent := n.Cursor()
	run := func(ctx context.Context, out *output) error {
		for left := q.Limit; ; {
			items, err := n.Next(ctx, s.pace.beat)
			if err != nil {
				return err
			}
			for _, it := range items {
				if err := out.send("", it.Cursor.String(), newLiveEvent(it.WebhookEvent)); err != nil {
					return writeError{err}
				}
				sent = it.Cursor
				if left--; left == 0 {
					return errLimit
				}
			}
			sent = n.Cursor()
			if len(items) == 0 {
				if err := out.beat(sent.String()); err != nil {
					return writeError{err}
				}
			}
		}
	}
	return s.stream(Read, time.Duration(q.Seconds)*time.Second, run, func() string { return sent.String() }, n.Close), nil
}
