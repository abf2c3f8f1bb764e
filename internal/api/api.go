// Package api is the HTTP API: what the command line, and later the dashboard
// and other programs, see and do. It serves on the control socket, whose file
// permissions say who is an operator.
package api

import (
	"context"
	"fmt"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"postrider/internal/account"
	"postrider/internal/queue"
	"postrider/internal/relay"
	"postrider/internal/smtp"
)

// Log is what is known of deliveries.
type Log interface {
	Deliveries(ctx context.Context, account relay.ID, f relay.DeliveryFilter) ([]relay.Logged, error)
	Events(ctx context.Context, account, after relay.ID, limit int) ([]*relay.Event, error)
	Story(ctx context.Context, account, message relay.ID) (*relay.Story, error)
}

// Queue takes orders.
type Queue interface {
	Order(ctx context.Context, account relay.ID, id relay.DeliveryID, kind relay.Kind) error
	Stats() queue.Stats
}

// Nodes are those that share the store.
type Nodes interface {
	Nodes(ctx context.Context) ([]relay.Node, error)
	// Drain orders a node to drain, or to work again.
	Drain(ctx context.Context, node string, drain bool) error
}

// API serves operators.
type API struct {
	Log         Log
	Queue       Queue
	Nodes       Nodes
	Condition   func() relay.Condition // of this node
	Backup      Backer
	Credentials *account.Manager
	Account     relay.ID // that new credentials belong to
	Info        Info
}

// Info is what the server says of itself.
type Info struct {
	Version   string            `json:"version"`
	Hostname  string            `json:"hostname"`
	Node      string            `json:"node"`
	Started   time.Time         `json:"started"`
	Listeners map[string]string `json:"listeners" doc:"Address of each listener, by its name"`
}

// Status is the answer to GET /v1/status.
type Status struct {
	Info
	Condition string      `json:"condition" enum:"working,draining,without store,suspended" doc:"suspended: the store has been away for so long that nothing is begun"`
	Queue     queue.Stats `json:"queue"`
}

// Handler serves the API.
func (a *API) Handler() http.Handler {
	mux := http.NewServeMux()
	config := huma.DefaultConfig("Postrider", a.Info.Version)
	config.DocsPath = "" // the page would load a script from elsewhere
	config.CreateHooks = nil
	h := humago.New(mux, config)
	huma.Get(h, "/v1/status", a.status)
	huma.Get(h, "/v1/deliveries", a.deliveries)
	huma.Post(h, "/v1/deliveries/{id}/{order}", a.order)
	huma.Get(h, "/v1/events", a.events)
	huma.Get(h, "/v1/messages/{id}", a.message)
	huma.Get(h, "/v1/credentials", a.listCredentials)
	huma.Post(h, "/v1/credentials", a.addCredential)
	huma.Delete(h, "/v1/credentials/{which}", a.revokeCredential)
	huma.Get(h, "/v1/nodes", a.listNodes)
	huma.Post(h, "/v1/nodes/{name}/drain", a.drainNode)
	huma.Delete(h, "/v1/nodes/{name}/drain", a.undrainNode)
	huma.Post(h, "/v1/backup", a.backup)
	// For "go tool pprof"; who may open the socket may see the program at work.
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	return mux
}

// body is an answer.
type body[T any] struct{ Body T }

func answer[T any](v T, err error) (*body[T], error) {
	if err != nil {
		return nil, problem(err)
	}
	return &body[T]{v}, nil
}

func (a *API) status(context.Context, *struct{}) (*body[Status], error) {
	return answer(Status{a.Info, a.Condition().String(), a.Queue.Stats()}, nil)
}

type deliveriesQuery struct {
	Recipient string    `query:"recipient" doc:"Part of the recipient's address"`
	Sender    string    `query:"sender" doc:"Part of the envelope sender; <> for the null sender"`
	Message   string    `query:"message" doc:"Id of the message, or its Message-ID header"`
	Subject   string    `query:"subject" doc:"Part of the subject"`
	Reply     string    `query:"reply" doc:"Part of the receiver's last reply, codes included"`
	Domain    string    `query:"domain" doc:"Domain of the recipient"`
	State     []string  `query:"state" doc:"States, separated by commas"`
	Since     time.Time `query:"since" doc:"Accepted at or after"`
	Until     time.Time `query:"until" doc:"Accepted before"`
	Live      bool      `query:"live" doc:"Only what still waits"`
	Limit     int       `query:"limit" default:"100" minimum:"1" maximum:"1000"`
	Before    string    `query:"before" doc:"Id of the last delivery of the page before"`
}

func (q *deliveriesQuery) filter() (relay.DeliveryFilter, error) {
	f := relay.DeliveryFilter{Recipient: q.Recipient, Sender: q.Sender, Message: q.Message, Subject: q.Subject, Reply: q.Reply,
		Domain: q.Domain, Since: q.Since, Until: q.Until, Live: q.Live, Limit: q.Limit}
	if ascii, err := smtp.ASCIIDomain(q.Domain); err == nil && q.Domain != "" {
		f.Domain = ascii // as it is kept
	}
	for _, name := range q.State {
		s, err := relay.ParseState(name)
		if err != nil {
			return f, huma.Error422UnprocessableEntity(err.Error())
		}
		f.States = append(f.States, s)
	}
	if q.Before != "" {
		id, err := relay.ParseDeliveryID(q.Before)
		if err != nil {
			return f, huma.Error422UnprocessableEntity(err.Error())
		}
		f.Before = &id
	}
	return f, nil
}

func (a *API) deliveries(ctx context.Context, q *deliveriesQuery) (*body[[]Delivery], error) {
	f, err := q.filter()
	if err != nil {
		return nil, err
	}
	found, err := a.Log.Deliveries(ctx, relay.Everyone, f)
	out := make([]Delivery, 0, len(found))
	for _, l := range found {
		out = append(out, newDelivery(&l.Delivery, l.Message))
	}
	return answer(out, err)
}

type eventsQuery struct {
	After string `query:"after" doc:"Id of the last event that is known; empty: from the beginning"`
	Limit int    `query:"limit" default:"1000" minimum:"1" maximum:"1000"`
}

func (a *API) events(ctx context.Context, q *eventsQuery) (*body[[]Event], error) {
	var after relay.ID
	if q.After != "" {
		var err error
		if after, err = relay.ParseID(q.After); err != nil {
			return nil, huma.Error422UnprocessableEntity(err.Error())
		}
	}
	found, err := a.Log.Events(ctx, relay.Everyone, after, q.Limit)
	out := make([]Event, 0, len(found))
	for _, e := range found {
		out = append(out, newEvent(e))
	}
	return answer(out, err)
}

type messageQuery struct {
	ID string `path:"id" doc:"Id of the message, or of one of its deliveries"`
}

func (a *API) message(ctx context.Context, q *messageQuery) (*body[*Story], error) {
	id, err := relay.ParseID(q.ID)
	if err != nil {
		d, derr := relay.ParseDeliveryID(q.ID)
		if derr != nil {
			return nil, huma.Error422UnprocessableEntity(err.Error())
		}
		id = d.Message
	}
	s, err := a.Log.Story(ctx, relay.Everyone, id)
	if err != nil {
		return nil, problem(err)
	}
	out := newStory(s)
	all, err := a.Credentials.List(ctx, s.Message.Account)
	for _, c := range all {
		if c.ID == s.Message.Credential {
			out.App = c.Name
		}
	}
	return answer(out, err)
}

type orderQuery struct {
	ID    string `path:"id" doc:"Id of the delivery"`
	Order string `path:"order" enum:"retry,hold,release,cancel"`
}

func (a *API) order(ctx context.Context, q *orderQuery) (*struct{}, error) {
	id, err := relay.ParseDeliveryID(q.ID)
	if err != nil {
		return nil, huma.Error422UnprocessableEntity(err.Error())
	}
	// Not by its story, which may be long.
	found, err := a.Log.Deliveries(ctx, relay.Everyone, relay.DeliveryFilter{Message: id.Message.String(), Limit: 1})
	if err != nil {
		return nil, problem(err)
	}
	if len(found) == 0 {
		return nil, problem(&relay.Error{Code: relay.NotFound, Text: fmt.Sprintf("There is no message %s.", id.Message)})
	}
	kind := map[string]relay.Kind{"retry": relay.EventReleased, "release": relay.EventReleased, "hold": relay.EventHeld, "cancel": relay.EventCancelled}[q.Order]
	if err := a.Queue.Order(ctx, found[0].Account, id, kind); err != nil {
		return nil, problem(err)
	}
	return nil, nil
}

func (a *API) listCredentials(ctx context.Context, _ *struct{}) (*body[[]Credential], error) {
	found, err := a.Credentials.List(ctx, relay.Everyone)
	out := make([]Credential, 0, len(found))
	for _, c := range found {
		out = append(out, newCredential(c))
	}
	return answer(out, err)
}

// NewCredential is what POST /v1/credentials takes.
type NewCredential struct {
	Kind     string   `json:"kind" enum:"smtp,key,network" doc:"smtp: user and password. key: API key. network: addresses that need no password"`
	Name     string   `json:"name" doc:"The app or device that uses it"`
	User     string   `json:"user,omitempty" doc:"smtp: user name; empty makes one"`
	Password string   `json:"password,omitempty" doc:"smtp: a password that you bring along; empty makes one"`
	Networks []string `json:"networks,omitempty" doc:"network: 192.168.1.0/24 and kin"`
	Stream   string   `json:"stream,omitempty" enum:"transactional,broadcast" doc:"Kind of mail; transactional unless said otherwise"`
	RepairLF bool     `json:"repair_lf,omitempty" doc:"Repair bare CR and LF, as old scanners send them, instead of refusing the message"`
	Senders  []string `json:"senders,omitempty" doc:"Allowed envelope senders: addresses or domains; empty allows any"`
}

// AddedCredential is the answer: the only time that the secret is shown.
type AddedCredential struct {
	Credential
	Secret string `json:"secret,omitempty" doc:"Password or API key; not shown again"`
}

func (a *API) addCredential(ctx context.Context, in *body[NewCredential]) (*body[AddedCredential], error) {
	w := account.Wish{Account: a.Account, Kind: in.Body.Kind, Name: in.Body.Name, User: in.Body.User, Password: in.Body.Password,
		RepairLF: in.Body.RepairLF, Senders: in.Body.Senders}
	if in.Body.Stream != "" {
		var err error
		if w.Stream, err = relay.ParseStream(in.Body.Stream); err != nil {
			return nil, huma.Error422UnprocessableEntity(err.Error())
		}
	}
	for _, n := range in.Body.Networks {
		p, err := parsePrefix(n)
		if err != nil {
			return nil, huma.Error422UnprocessableEntity(err.Error())
		}
		w.Networks = append(w.Networks, p)
	}
	c, secret, err := a.Credentials.Add(ctx, relay.Actor{Name: "operator"}, w)
	if err != nil {
		return nil, problem(err)
	}
	return answer(AddedCredential{newCredential(c), secret}, nil)
}

func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%q is not a network; write it as 192.168.1.0/24 or 2001:db8::/32, or name one address", s)
	}
	return p, nil
}

type revokeQuery struct {
	Which string `path:"which" doc:"Id, user name or name"`
}

func (a *API) revokeCredential(ctx context.Context, q *revokeQuery) (*body[Credential], error) {
	c, err := a.Credentials.Revoke(ctx, relay.Actor{Name: "operator"}, relay.Everyone, q.Which)
	if err != nil {
		return nil, problem(err)
	}
	return answer(newCredential(c), nil)
}
