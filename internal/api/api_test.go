package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postrider/internal/account"
	"postrider/internal/queue"
	"postrider/internal/relay"
)

// kept is a Log and a Queue of what a test puts into it.
type kept struct {
	deliveries func(relay.DeliveryFilter) ([]relay.Logged, error)
	story      func(relay.ID) (*relay.Story, error)
	orders     []string
	order      error
	nodes      []relay.Node
}

func (k *kept) Nodes(context.Context) ([]relay.Node, error) { return k.nodes, k.order }
func (k *kept) Drain(_ context.Context, node string, drain bool) error {
	k.orders = append(k.orders, fmt.Sprint(node, " ", drain))
	return k.order
}

func (k *kept) Find(ctx context.Context, account relay.ID, f relay.DeliveryFilter, _ time.Duration) (*relay.LogPage, error) {
	found, err := k.Deliveries(ctx, account, f)
	page := &relay.LogPage{Found: found}
	if len(found) > 0 && len(found) == f.Limit {
		page.Next = &found[len(found)-1].ID
	}
	return page, err
}

func (k *kept) Deliveries(_ context.Context, account relay.ID, f relay.DeliveryFilter) ([]relay.Logged, error) {
	return k.deliveries(f)
}
func (k *kept) EventPage(context.Context, relay.ID, relay.ID, int, time.Duration) ([]*relay.Event, relay.ID, error) {
	return []*relay.Event{{Kind: relay.EventDelivered, Recipient: "ann@x.test"}}, relay.ID{}, nil
}
func (k *kept) StoryPart(ctx context.Context, account, message relay.ID, _ relay.StoryPart) (*relay.Story, error) {
	return k.Story(ctx, account, message)
}
func (k *kept) Story(_ context.Context, _, message relay.ID) (*relay.Story, error) {
	return k.story(message)
}
func (k *kept) Order(_ context.Context, account relay.ID, id relay.DeliveryID, kind relay.Kind) error {
	k.orders = append(k.orders, account.String()+" "+id.String()+" "+kind.String())
	return k.order
}
func (k *kept) Backlog(context.Context, relay.ID, relay.BacklogFilter) ([]relay.Backlog, error) {
	return nil, nil
}
func (k *kept) Reschedule(_ context.Context, deliveries []*relay.Delivery, _ time.Time) []error {
	return make([]error, len(deliveries))
}
func (k *kept) Stats() queue.Stats { return queue.Stats{InHand: 3} }

func (k *kept) config(t *testing.T) Config {
	return Config{Mail: k, Queue: k, Nodes: k, Condition: func() relay.Condition { return relay.Draining }, Credentials: &account.Manager{},
		Info: Info{Version: "1", Node: "n1"}, NewID: func() (relay.ID, error) { return relay.ID{9}, nil }, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

// serve serves the API on a socket as the daemon does.
func serve(t *testing.T, k *kept) *Client {
	t.Helper()
	dir := t.TempDir()
	ln, err := net.Listen("unix", filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: New(k.config(t)).Control()}
	ended := make(chan struct{})
	go func() { defer close(ended); s.Serve(ln) }()
	t.Cleanup(func() { s.Close(); <-ended })
	return NewClient(dir)
}

func TestFiltersReachTheLog(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	id := relay.DeliveryID{Message: relay.FirstIDAt(at), N: 2}
	var got relay.DeliveryFilter
	k := &kept{deliveries: func(f relay.DeliveryFilter) ([]relay.Logged, error) {
		got = f
		return []relay.Logged{{Delivery: relay.Delivery{ID: id, State: relay.Deferred, Due: at, Deeds: []relay.Kind{relay.EventClicked}, Recipient: relay.Recipient{Address: "ann@x.test"}},
			Message: &relay.Message{Subject: "Hi", Envelope: relay.Envelope{Sender: "me@y.test"}}}}, nil
	}}
	c := serve(t, k)
	q := url.Values{"recipient": {"ann"}, "sender": {"me"}, "message": {"m"}, "subject": {"s"}, "reply": {"r"}, "domain": {"d"},
		"credential": {id.Message.String()}, "tag": {"t"}, "metadata": {"user:4711,plan:"}, "category": {"hard"}, "provider": {"gmail"}, "source": {"::ffff:192.0.2.1"}, "client": {"c"}, "script": {"p"},
		"state": {"bounced,complained,deferred,opened"}, "since": {at.Format(time.RFC3339)}, "until": {at.Format(time.RFC3339)}, "live": {"true"}, "limit": {"7"}, "cursor": {id.String()}}
	var list List[Delivery]
	if err := c.Get(t.Context(), "/v1/deliveries", q, &list); err != nil {
		t.Fatal(err)
	}
	want := relay.DeliveryFilter{Recipient: "ann", Sender: "me", Message: "m", Subject: "s", Reply: "r", Domain: "d", Since: at, Until: at, Live: true, Limit: 7}
	want.Credential, want.Tag, want.Category, want.Provider, want.Source, want.Client, want.Script = id.Message, "t", "hard", "gmail", "192.0.2.1", "c", "p"
	want.Metadata = map[string]string{"user": "4711", "plan": ""}
	states, before := got.States, got.Before
	got.States, got.Before = nil, nil
	if got.Recipient != want.Recipient || got.Sender != want.Sender || got.Message != want.Message || got.Subject != want.Subject ||
		got.Reply != want.Reply || got.Domain != want.Domain || !got.Since.Equal(want.Since) || !got.Until.Equal(want.Until) ||
		got.Credential != want.Credential || got.Tag != want.Tag || got.Category != want.Category || got.Provider != want.Provider || got.Source != want.Source ||
		got.Client != want.Client || got.Script != want.Script || !maps.Equal(got.Metadata, want.Metadata) || got.Live != want.Live || got.Limit != want.Limit {
		t.Errorf("filter %+v, want %+v", got, want)
	}
	if len(states) != 2 || states[0] != relay.Bounced || states[1] != relay.Deferred || before == nil || *before != id {
		t.Errorf("states %v, before %v", states, before)
	}
	if want := []relay.Kind{relay.EventComplained, relay.EventOpened}; !slices.Equal(got.Deeds, want) {
		t.Errorf("deeds %v, want %v", got.Deeds, want)
	}
	out := list.Data
	if len(out) != 1 || out[0].ID != id.String() || out[0].State != "deferred" || out[0].Due == nil || out[0].Sender != "me@y.test" || !slices.Equal(out[0].Happened, []string{"clicked"}) {
		t.Errorf("answer %+v", out)
	}
	for _, bad := range []url.Values{{"state": {"lost"}}, {"state": {"feedback"}}, {"cursor": {"x"}}, {"limit": {"0"}}, {"since": {"yesterday"}},
		{"source": {"here"}}, {"metadata": {"user"}}, {"metadata": {":x"}}, {"credential": {"nobody"}}, {"since": {"2030-01-02T00:00:00Z"}, "until": {"2030-01-01T00:00:00Z"}}} {
		if err := c.Get(t.Context(), "/v1/deliveries", bad, nil); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}

func TestNodes(t *testing.T) {
	k := &kept{nodes: []relay.Node{{Name: "n1", Silent: 2 * time.Second, Version: "v", InHand: 3}, {Name: "n2", Draining: true, Silent: -time.Second}, {Name: "n3", Draining: true, Silent: time.Minute}}}
	c := serve(t, k)
	var list List[Node]
	if err := c.Get(t.Context(), "/v1/nodes", nil, &list); err != nil {
		t.Fatal(err)
	}
	want := []Node{{Name: "n1", State: "alive", Version: "v", Silent: 2, InHand: 3, Self: true}, {Name: "n2", State: "draining"}, {Name: "n3", State: "dead", Silent: 60}}
	if !slices.Equal(list.Data, want) {
		t.Errorf("nodes %+v\nwant  %+v", list.Data, want)
	}
	if err := errors.Join(c.Post(t.Context(), "/v1/nodes/a%2Fb/drain", nil, nil), c.Delete(t.Context(), "/v1/nodes/n2/drain", nil)); err != nil {
		t.Error(err)
	}
	if want := []string{"a/b true", "n2 false"}; !slices.Equal(k.orders, want) {
		t.Errorf("orders %q, want %q", k.orders, want)
	}
	k.order = &relay.Error{Code: relay.NotFound, Text: "There is no node \"n9\".", Advice: "Look."}
	if err := c.Post(t.Context(), "/v1/nodes/n9/drain", nil, nil); err == nil || !strings.Contains(err.Error(), "n9") {
		t.Errorf("drain a node that is not there: %v", err)
	}
	var s Status
	if err := c.Get(t.Context(), "/v1/status", nil, &s); err != nil || s.Condition != "draining" {
		t.Errorf("status %+v, %v", s, err)
	}
}

func TestOrdersAreOfTheMessagesAccount(t *testing.T) {
	owner := relay.ID{7}
	id := relay.DeliveryID{Message: relay.FirstIDAt(time.Now()), N: 1}
	// Its story is not asked for: that of a large mailing is long, and each of
	// its deliveries may be ordered about.
	k := &kept{deliveries: func(f relay.DeliveryFilter) ([]relay.Logged, error) {
		if f.Message != id.Message.String() || f.Limit != 1 {
			return nil, nil
		}
		return []relay.Logged{{Delivery: relay.Delivery{Account: owner}, Message: &relay.Message{}}}, nil
	}}
	c := serve(t, k)
	for order, kind := range map[string]string{"retry": "released", "release": "released", "hold": "held", "cancel": "cancelled"} {
		k.orders = nil
		if err := c.Post(t.Context(), "/v1/deliveries/"+id.String()+"/"+order, nil, nil); err != nil {
			t.Errorf("%s: %v", order, err)
		}
		if want := owner.String() + " " + id.String() + " " + kind; len(k.orders) != 1 || k.orders[0] != want {
			t.Errorf("%s: ordered %q, want %q", order, k.orders, want)
		}
	}
	other := relay.DeliveryID{Message: relay.ID{1}, N: 1}
	for _, path := range []string{id.String() + "/explode", "nonsense/hold", other.String() + "/hold"} {
		if err := c.Post(t.Context(), "/v1/deliveries/"+path, nil, nil); err == nil {
			t.Errorf("%s is obeyed", path)
		}
	}
	k.order = &relay.Error{Code: relay.Conflict, Text: "Too late.", Advice: "Leave it."}
	if err := c.Post(t.Context(), "/v1/deliveries/"+id.String()+"/hold", nil, nil); err == nil || err.Error() != "Too late. Leave it." {
		t.Errorf("error %v", err)
	}
}

// Errors come in the form of RFC 9457, with the status that fits, and without
// the cause, which is for the log.
func TestProblems(t *testing.T) {
	for code, status := range map[relay.Code]int{relay.Invalid: 422, relay.NotFound: 404, relay.Conflict: 409, relay.Forbidden: 403,
		relay.Unavailable: 503, relay.Busy: 503, relay.Full: 507, relay.Internal: 500} {
		err := problem(&relay.Error{Code: code, Text: "It is wrong.", Advice: "Mend it.", Err: context.DeadlineExceeded})
		b, _ := json.Marshal(err)
		var p Problem
		json.Unmarshal(b, &p)
		if p.Status != status || p.Code != string(code) || strings.Contains(string(b), "deadline") || code != relay.Internal && (p.Detail != "It is wrong." || p.Advice != "Mend it.") {
			t.Errorf("%s: %s", code, b)
		}
	}
}

func TestDescribesItself(t *testing.T) {
	c := serve(t, &kept{})
	var doc struct {
		OpenAPI string
		Paths   map[string]any
	}
	if err := c.Get(t.Context(), "/openapi.json", nil, &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") || doc.Paths["/v1/deliveries"] == nil || doc.Paths["/v1/credentials"] == nil {
		t.Errorf("OpenAPI %s with %d paths", doc.OpenAPI, len(doc.Paths))
	}
	var s Status
	if err := c.Get(t.Context(), "/v1/status", nil, &s); err != nil || s.Queue.InHand != 3 || s.Version != "1" {
		t.Errorf("%+v, %v", s, err)
	}
	var events List[Event]
	if err := c.Get(t.Context(), "/v1/events", nil, &events); err != nil || len(events.Data) != 1 || events.Data[0].Recipient != "ann@x.test" || events.Data[0].Kind != "delivered" {
		t.Errorf("%+v, %v", events, err)
	}
}
