package api

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"postrider/internal/relay"
	"postrider/internal/smtp"
)

func (s *Server) mailRoutes() {
	Register(s, Route{Method: http.MethodGet, Path: "/v1/deliveries", ID: "list-deliveries", Tag: "Messages", Right: Read, OfAccount: true,
		Summary: "Find deliveries", Doc: "A delivery is one recipient of one message. The newest message comes first; within a message its recipients come in the order of the envelope. All filters that are given must hold; neither case nor accents count. A search that takes longer than three seconds answers with what it has found until then, maybe nothing, and next tells where it goes on. See docs/log.md.",
		Example: Example{Params: map[string]any{"recipient": "ann@example.net", "state": "bounced,complained", "limit": 10}, Answer: map[string]any{"data": []any{exampleComplaint()}}},
	}, s.deliveries)
	Register(s, Route{Method: http.MethodPost, Path: "/v1/deliveries/{id}/{order}", ID: "order-delivery", Tag: "Messages", Right: Build, OfAccount: true,
		Summary: "Retry, hold, release or cancel a delivery that waits", Doc: "Cancelling what is scheduled and not due yet takes it back.",
		Example: Example{Params: map[string]any{"id": ExampleMessage + "-1", "order": "hold"}},
	}, s.order)
	Register(s, Route{Method: http.MethodGet, Path: "/v1/events", ID: "list-events", Tag: "Messages", Right: Read, OfAccount: true,
		Summary: "What has happened, in order", Doc: "A look that takes longer than three seconds, because few of many events are the account's, answers with what it has found until then, maybe nothing, and next tells where it goes on. To follow what happens, ask again with the id of the last event that is known as the cursor. Where several nodes write, an event may appear after one with a greater id, for as long as a commit takes: look back by some seconds now and then.",
		Example: Example{Params: map[string]any{"limit": 10}, Answer: map[string]any{"data": []any{exampleEvent()}}},
	}, s.events)
	Register(s, Route{Method: http.MethodGet, Path: "/v1/messages", ID: "list-messages", Tag: "Messages", Right: Read, OfAccount: true,
		Summary: "Find messages", Doc: "Takes the filters of the deliveries, and finds the messages that these belong to, the newest first.",
		Example: Example{Params: map[string]any{"subject": "order", "limit": 10}, Answer: map[string]any{"data": []any{exampleSummary()}}},
	}, s.messages)
	Register(s, Route{Method: http.MethodGet, Path: "/v1/messages/{id}", ID: "get-message", Tag: "Messages", Right: Read, OfAccount: true,
		Summary: "The whole story of a message", Doc: "What was accepted, its deliveries, and every event with what the receivers said. Of a message with very many recipients or events it is a part: next, given as cursor, asks for the deliveries that follow, with theirs.",
		Example: Example{Params: map[string]any{"id": ExampleMessage}, Answer: exampleStory()},
	}, s.message)
	Register(s, Route{Method: http.MethodPatch, Path: "/v1/messages/{id}", ID: "reschedule-message", Tag: "Messages", Right: Build, OfAccount: true,
		Summary: "Give a scheduled message another time", Doc: "It concerns the deliveries that have not been tried and are not due yet; the others stay as they are, and are counted. They expire as much later as they are tried. A time that is past sends at once.",
		Example: Example{Params: map[string]any{"id": ExampleScheduled}, Body: object{"send_at": "2026-03-02T09:00:00Z"}, Answer: object{"send_at": "2026-03-02T09:00:00Z", "rescheduled": 1, "failed": 0}},
	}, s.reschedule)
	Register(s, Route{Method: http.MethodDelete, Path: "/v1/messages/{id}", ID: "cancel-message", Tag: "Messages", Right: Build, OfAccount: true,
		Summary: "Cancel what still waits of a message", Doc: "What is scheduled is taken back; what is deferred or held is given up. Attempts that are under way end as they end. The log keeps the message.",
		Example: Example{Params: map[string]any{"id": ExampleScheduled}, Answer: map[string]any{"cancelled": 1, "failed": 0}},
	}, s.cancel)
}

// search is what is asked of deliveries.
type search struct {
	Recipient  string    `query:"recipient" doc:"Part of the recipient's address, from the beginning of a word on: ann, ann@example, @example.net"`
	Sender     string    `query:"sender" doc:"Part of the envelope sender, or of the address in From, in the same way; <> for the null sender"`
	Message    string    `query:"message" doc:"Id of the message, or its Message-ID header"`
	Subject    string    `query:"subject" doc:"Words of the subject, all of them; the last one may be a beginning. In quotation marks they must stand together"`
	Reply      string    `query:"reply" doc:"Words of the receiver's last reply, codes included, as with subject"`
	Domain     string    `query:"domain" doc:"Domain of the recipient"`
	Credential string    `query:"credential" maxLength:"400" doc:"Id of the credential that it was submitted with, or its name or user name in the account"`
	Tag        string    `query:"tag" doc:"A tag, whole"`
	Metadata   []string  `query:"metadata" maxItems:"20" doc:"key:value, or key: for any value. Several, separated by commas, must all hold"`
	Category   string    `query:"category" doc:"Category of the diagnosis: hard/no-such-mailbox, or only hard, or only no-such-mailbox"`
	Provider   string    `query:"provider" doc:"Public name of the receiving service: Gmail"`
	Source     string    `query:"source" doc:"Our address at the last attempt that reached a server"`
	Client     string    `query:"client" doc:"Part of the address that submitted it, or of what it called itself, as with recipient"`
	Script     string    `query:"script" doc:"Part of what a header told of the program that sent it"`
	State      []string  `query:"state" doc:"Separated by commas, any of them: the states queued, deferred, held, delivered, bounced, expired and cancelled, and what the recipient did: opened or clicked (a person, as far as can be told), complained, unsubscribed"`
	Since      time.Time `query:"since" doc:"Accepted at or after"`
	Until      time.Time `query:"until" doc:"Accepted before"`
	Live       bool      `query:"live" doc:"Only what still waits"`
	Page
}

// searchTime is how long a search may take. What it has found until then is a page.
const searchTime = 3 * time.Second

func (s *Server) filter(ctx context.Context, q *search) (relay.DeliveryFilter, error) {
	f := relay.DeliveryFilter{Recipient: q.Recipient, Sender: q.Sender, Message: q.Message, Subject: q.Subject, Reply: q.Reply,
		Domain: q.Domain, Tag: q.Tag, Category: q.Category, Provider: q.Provider, Client: q.Client, Script: q.Script,
		Since: q.Since, Until: q.Until, Live: q.Live, Limit: q.Limit}
	if ascii, err := smtp.ASCIIDomain(q.Domain); err == nil && q.Domain != "" {
		f.Domain = ascii // as it is kept
	}
	if q.Source != "" {
		addr, err := netip.ParseAddr(strings.Trim(q.Source, "[]"))
		if err != nil {
			return f, invalid("query.source", fmt.Sprintf("%q is not an IP address.", cut(q.Source)), "Give one of the relay's own addresses.")
		}
		f.Source = addr.Unmap().String()
	}
	if !q.Since.IsZero() && !q.Until.IsZero() && q.Until.Before(q.Since) {
		return f, invalid("query.until", "until is before since: nothing can lie between them.", "Exchange them.")
	}
	if err := s.credentialFilter(ctx, q, &f); err != nil {
		return f, err
	}
	var err error
	if f.Metadata, err = pairs(q.Metadata); err != nil {
		return f, err
	}
	for _, name := range q.State {
		s, deed, err := relay.ParseOutcome(name)
		switch {
		case err != nil:
			return f, invalid("query.state", sentence(err), "Take queued, deferred, held, delivered, bounced, expired or cancelled, or opened, clicked, complained or unsubscribed.")
		case deed != 0:
			f.Deeds = append(f.Deeds, deed)
		default:
			f.States = append(f.States, s)
		}
	}
	if q.Cursor != "" {
		id, err := relay.ParseDeliveryID(q.Cursor)
		if err != nil {
			return f, invalid("query.cursor", sentence(err), "Give the next of the page before.")
		}
		f.Before = &id
	}
	return f, nil
}

// pairs reads metadata to search for, as key:value.
func pairs(texts []string) (map[string]string, error) {
	var all map[string]string
	for _, text := range texts {
		key, value, ok := strings.Cut(text, ":")
		if !ok || key == "" {
			return nil, invalid("query.metadata", fmt.Sprintf("%q is not key:value.", cut(text)), "Write user:4711, or user: for any value.")
		}
		if all == nil {
			all = map[string]string{}
		}
		all[key] = value
	}
	return all, nil
}

// credentialFilter takes an id as it is, so that what is revoked is found too.
func (s *Server) credentialFilter(ctx context.Context, q *search, f *relay.DeliveryFilter) error {
	if q.Credential == "" {
		return nil
	}
	if id, err := relay.ParseID(q.Credential); err == nil {
		f.Credential = id
		return nil
	}
	c, err := s.config.Credentials.Find(ctx, CallerOf(ctx).within().Account, q.Credential)
	if err != nil {
		return at("query.credential", err)
	}
	f.Credential = c.ID
	return nil
}

func (s *Server) find(ctx context.Context, q *search) (*relay.LogPage, error) {
	f, err := s.filter(ctx, q)
	if err != nil {
		return nil, err
	}
	return s.config.Mail.Find(ctx, CallerOf(ctx).Account, f, searchTime)
}

// sentence is an error as a sentence.
func sentence(err error) string {
	s := err.Error()
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

func (s *Server) deliveries(ctx context.Context, q *search) (*body[List[Delivery]], error) {
	found, err := s.find(ctx, q)
	if err != nil {
		return nil, err
	}
	out := List[Delivery]{Data: make([]Delivery, 0, len(found.Found)), Next: next(found)}
	for _, l := range found.Found {
		out.Data = append(out.Data, newDelivery(&l.Delivery, l.Message))
	}
	return answer(out, nil)
}

// next is the cursor of the following page.
func next(p *relay.LogPage) string {
	if p.Next == nil {
		return ""
	}
	return p.Next.String()
}

// messages finds as many messages as their deliveries on one page make.
func (s *Server) messages(ctx context.Context, q *search) (*body[List[Summary]], error) {
	found, err := s.find(ctx, q)
	if err != nil {
		return nil, err
	}
	out := List[Summary]{Data: []Summary{}, Next: next(found)}
	for _, l := range found.Found {
		n := len(out.Data)
		if n == 0 || out.Data[n-1].ID != l.Message.ID.String() {
			out.Data = append(out.Data, newSummary(l.Message))
			n++
		}
		out.Data[n-1].add(&l.Delivery)
	}
	return answer(out, nil)
}

type eventsQuery struct {
	Limit  int    `query:"limit" default:"1000" minimum:"1" maximum:"1000" doc:"Most entries to answer with"`
	Cursor string `query:"cursor" doc:"The next of the page before, or the id of the last event that is known; empty: from the beginning"`
}

func (s *Server) events(ctx context.Context, q *eventsQuery) (*body[List[Event]], error) {
	var after relay.ID
	if q.Cursor != "" {
		var err error
		if after, err = relay.ParseID(q.Cursor); err != nil {
			return nil, invalid("query.cursor", sentence(err), "Give the id of an event.")
		}
	}
	found, next, err := s.config.Mail.EventPage(ctx, CallerOf(ctx).Account, after, q.Limit, searchTime)
	out := List[Event]{Data: make([]Event, 0, len(found))}
	for _, e := range found {
		out.Data = append(out.Data, newEvent(e))
	}
	if !next.IsZero() {
		out.Next = next.String()
	}
	return answer(out, err)
}

type messageQuery struct {
	ID string `path:"id" doc:"Id of the message, or of one of its deliveries"`
}

// mostEvents is how many events a story has at once.
const mostEvents = 5000

func (s *Server) message(ctx context.Context, q *struct {
	ID     string `path:"id" doc:"Id of the message, or of one of its deliveries"`
	Limit  int    `query:"limit" default:"1000" minimum:"1" maximum:"1000" doc:"Most deliveries to answer with"`
	Cursor string `query:"cursor" maxLength:"300" doc:"Where the part before ended: its next"`
}) (*body[*Story], error) {
	id, err := messageID(q.ID)
	if err != nil {
		return nil, err
	}
	part := relay.StoryPart{Deliveries: q.Limit, Events: mostEvents}
	if q.Cursor != "" {
		from, err := relay.ParseDeliveryID(q.Cursor)
		if err != nil || from.Message != id {
			return nil, invalid("query.cursor", fmt.Sprintf("%q is not where a part of this message ended.", cut(q.Cursor)), "Give the next of the part before.")
		}
		part.After = from.N
	}
	story, err := s.config.Mail.StoryPart(ctx, CallerOf(ctx).Account, id, part)
	if err != nil {
		return nil, err
	}
	out := newStory(story)
	all, err := s.config.Credentials.List(ctx, story.Message.Account)
	for _, c := range all {
		if c.ID == story.Message.Credential {
			out.App = c.Name
		}
	}
	return answer(out, err)
}

// messageID reads the id of a message, or of one of its deliveries.
func messageID(s string) (relay.ID, error) {
	if d, err := relay.ParseDeliveryID(s); err == nil {
		return d.Message, nil
	}
	return parseID("path.id", s, "message")
}

type orderQuery struct {
	ID    string `path:"id" doc:"Id of the delivery"`
	Order string `path:"order" enum:"retry,hold,release,cancel"`
}

func (s *Server) order(ctx context.Context, q *orderQuery) (*struct{}, error) {
	id, err := relay.ParseDeliveryID(q.ID)
	if err != nil {
		return nil, at("path.id", &relay.Error{Code: relay.NotFound, Text: fmt.Sprintf("There is no delivery %q.", cut(q.ID)), Err: err})
	}
	account, err := s.accountOf(ctx, id.Message)
	if err != nil {
		return nil, err
	}
	kind := map[string]relay.Kind{"retry": relay.EventReleased, "release": relay.EventReleased, "hold": relay.EventHeld, "cancel": relay.EventCancelled}[q.Order]
	return nil, s.config.Queue.Order(ctx, account, id, kind)
}

// Cancelled is the answer to DELETE /v1/messages/{id}.
type Cancelled struct {
	Cancelled int `json:"cancelled" doc:"Deliveries that will not be tried any more"`
	Failed    int `json:"failed" doc:"Deliveries that came to an end, or were being tried, meanwhile"`
}

func (s *Server) cancel(ctx context.Context, q *messageQuery) (*body[Cancelled], error) {
	id, err := messageID(q.ID)
	if err != nil {
		return nil, err
	}
	account, err := s.accountOf(ctx, id)
	if err != nil {
		return nil, err
	}
	live, err := s.live(ctx, account, id)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var out Cancelled
	var g errgroup.Group
	g.SetLimit(64) // so that they share commits
	for _, d := range live {
		g.Go(func() error {
			err := s.config.Queue.Order(ctx, account, d.ID, relay.EventCancelled)
			mu.Lock()
			defer mu.Unlock()
			switch relay.CodeOf(err) {
			case relay.Conflict, relay.NotFound:
				out.Failed++
				return nil
			}
			if err == nil {
				out.Cancelled++
			}
			return err
		})
	}
	return answer(out, g.Wait())
}

// live are the deliveries of a message that are not final; an error where none is.
func (s *Server) live(ctx context.Context, account, message relay.ID) (live []*relay.Delivery, err error) {
	const page = 1000
	for f := (relay.DeliveryFilter{Message: message.String(), Live: true, Limit: page}); ; f.Before = &live[len(live)-1].ID {
		found, err := s.config.Mail.Deliveries(ctx, account, f)
		if err != nil {
			return nil, err
		}
		for i := range found {
			live = append(live, &found[i].Delivery)
		}
		if len(found) < page {
			break
		}
	}
	if len(live) == 0 {
		return nil, at("path.id", &relay.Error{Code: relay.Conflict, Text: "Nothing of this message waits any more.", Advice: "See its deliveries: all of them are final."})
	}
	return live, nil
}

// Rescheduled is the answer to PATCH /v1/messages/{id}.
type Rescheduled struct {
	SendAt      time.Time `json:"send_at" doc:"The new time"`
	Rescheduled int       `json:"rescheduled" doc:"Deliveries that will be tried then"`
	Failed      int       `json:"failed" doc:"Deliveries that wait, but have been tried, are held or are due"`
}

func (s *Server) reschedule(ctx context.Context, q *struct {
	ID   string `path:"id" doc:"Id of the message, or of one of its deliveries"`
	Body struct {
		SendAt time.Time `json:"send_at" doc:"Not to be delivered before; at most 30 days ahead"`
	}
}) (*body[Rescheduled], error) {
	id, err := messageID(q.ID)
	if err != nil {
		return nil, err
	}
	account, err := s.accountOf(ctx, id)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if far := tooFar(q.Body.SendAt, now); far != "" {
		return nil, invalid("body.send_at", far, "Choose an earlier time.")
	}
	live, err := s.live(ctx, account, id)
	if err != nil {
		return nil, err
	}
	out := Rescheduled{SendAt: q.Body.SendAt.UTC()}
	if out.SendAt.Before(now) {
		out.SendAt = now.UTC()
	}
	for _, err := range s.config.Queue.Reschedule(ctx, live, out.SendAt) {
		switch relay.CodeOf(err) {
		case relay.Conflict, relay.NotFound:
			out.Failed++
			continue
		}
		if err != nil {
			return nil, err
		}
		out.Rescheduled++
	}
	if out.Rescheduled == 0 {
		return nil, at("path.id", &relay.Error{Code: relay.Conflict, Text: "Nothing of this message can be given another time.",
			Advice: "What waits has been tried, is held, or is due: see its deliveries."})
	}
	return answer(out, nil)
}

// accountOf is whose a message is. It is not found by its story, which may be
// long.
func (s *Server) accountOf(ctx context.Context, message relay.ID) (relay.ID, error) {
	found, err := s.config.Mail.Deliveries(ctx, CallerOf(ctx).Account, relay.DeliveryFilter{Message: message.String(), Limit: 1})
	if err != nil {
		return relay.ID{}, err
	}
	if len(found) == 0 {
		return relay.ID{}, at("path.id", &relay.Error{Code: relay.NotFound, Text: fmt.Sprintf("There is no message %s.", message)})
	}
	return found[0].Account, nil
}
