package api_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/uuid/v5"

	"postrider/internal/api"
	"postrider/internal/config"
	"postrider/internal/message"
	"postrider/internal/relay"
	"postrider/internal/store"
	"postrider/internal/store/sqlite"
)

// world is a relay whose store holds what the examples of the document speak of,
// all of it the account "shop"'s, and beside it an account "other".
type world struct {
	*served
	document document
}

// document is what of the OpenAPI document is needed to walk over it.
type document struct {
	OpenAPI    string
	Paths      map[string]map[string]*operation
	Components struct{ Schemas map[string]any }
	all        map[string]any // the whole
}

type operation struct {
	method, path string
	OperationID  string `json:"operationId"`
	Right        string `json:"x-right"`
	Summary      string
	Security     []any
	Parameters   []struct {
		Name, In string
		Example  any
		Required bool
	}
	RequestBody *struct {
		Content map[string]media
	}
	Responses map[string]struct{ Content map[string]media }
}

type media struct {
	Schema  any
	Example any
}

// Keys of the world, as their secrets.
const (
	keyOfOperator = "prk_operator-operator-operator-1"
	keyOfShop     = "prk_shop-shop-shop-shop-shop-1"
	keyOfOther    = "prk_other-other-other-other-1"
	sendKey       = "prk_send-send-send-send-send-1"
	readKey       = "prk_read-read-read-read-read-1"
)

func id(text string) relay.ID {
	id, err := relay.ParseID(text)
	if err != nil {
		panic(err)
	}
	return id
}

func newID() relay.ID { return relay.ID(uuid.Must(uuid.NewV7())) }

var byTest = relay.Actor{Name: "test"}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	fill(t, dir)
	s := serveIn(t, dir, func(c *config.Config) {
		c.Node, c.API.URL = "relay-1", "https://relay.example.com:8025"
		c.Retain.Log = 0 // the examples are of long ago
	})
	w := &world{served: s}
	a := s.ask("", "GET", "/openapi.json", nil)
	s.decode(a, &w.document)
	s.decode(a, &w.document.all)
	for path, item := range w.document.Paths {
		for method, op := range item {
			op.method, op.path = strings.ToUpper(method), path
		}
	}
	return w
}

// operations are those of the document, in an order in which their examples can
// be run: what makes something first, what removes something last.
func (d *document) operations() (all []*operation) {
	for _, item := range d.Paths {
		for _, op := range item {
			all = append(all, op)
		}
	}
	rank := func(o *operation) string {
		n := map[string]int{"POST": 1, "PUT": 2, "GET": 3, "PATCH": 4, "DELETE": 6}[o.method]
		if o.method == "POST" && strings.Contains(o.path, "{") {
			n = 5
		}
		if o.method == "PUT" && strings.Contains(o.path, "plans") {
			n = 0 // others name one
		}
		return fmt.Sprintf("%d %04d %s", n, 1000-len(o.path)*min(1, n/6)+len(o.path)*(1-min(1, n/6)), o.path)
	}
	slices.SortFunc(all, func(a, b *operation) int { return strings.Compare(rank(a), rank(b)) })
	return all
}

// address fills in the example's parameters, and more of the query.
func (o *operation) address(more url.Values) (path string, header []string) {
	path = o.path
	q := url.Values{}
	for _, p := range o.Parameters {
		if p.Example == nil {
			continue
		}
		v := fmt.Sprint(p.Example)
		switch p.In {
		case "path":
			path = strings.Replace(path, "{"+p.Name+"}", url.PathEscape(v), 1)
		case "query":
			q.Set(p.Name, v)
		case "header":
			header = append(header, p.Name, v)
		}
	}
	for k := range more {
		q.Set(k, more.Get(k))
	}
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	return path, header
}

func (o *operation) takesAccount() bool {
	for _, p := range o.Parameters {
		if p.Name == "account" && p.In == "query" {
			return true
		}
	}
	return false
}

// fill makes the store.
func fill(t *testing.T, dir string) {
	t.Helper()
	ctx := t.Context()
	db, err := sqlite.Open(ctx, filepath.Join(dir, "postrider.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	must := func(errs ...error) {
		t.Helper()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	shop, other := id(api.ExampleAccount), newID()
	now := time.Now()
	must(db.AddAccount(ctx, byTest, &relay.Account{ID: shop, Name: "shop", Status: relay.Active, Senders: relay.SendersAny, Created: now}),
		db.AddAccount(ctx, byTest, &relay.Account{ID: other, Name: "other", Status: relay.Active, Senders: relay.SendersAny, Created: now}))
	must(db.AddAccount(ctx, byTest, &relay.Account{ID: newID(), Parent: shop, Name: "shop-old", Status: relay.Active, Created: now}))
	boss := &relay.User{ID: newID(), Email: "boss@relay.example", Operator: true, Created: now}
	ann := &relay.User{ID: id(api.ExampleUser), Email: "ann@shop.example", Name: "Ann", Created: now}
	must(db.AddUser(ctx, byTest, boss), db.AddUser(ctx, byTest, ann),
		db.SetMember(ctx, byTest, relay.Member{Account: shop, User: ann.ID, Role: relay.Owner, Since: now}))
	all := []relay.Scope{relay.ScopeSend, relay.ScopeRead, relay.ScopeManage}
	key := func(account, owner relay.ID, name, secret string, scopes ...relay.Scope) error {
		sum := sha256.Sum256([]byte(secret))
		return db.AddCredential(ctx, byTest, &relay.Credential{ID: newID(), Account: account, Owner: owner, Kind: "key", Name: name, SecretSHA256: sum[:],
			Stream: relay.Transactional, Scopes: scopes, Created: now})
	}
	must(key(shop, boss.ID, "boss", keyOfOperator, all...), key(shop, relay.ID{}, "shop", keyOfShop, all...), key(other, relay.ID{}, "other", keyOfOther, all...),
		key(other, relay.ID{}, "sender", sendKey, relay.ScopeSend), key(other, relay.ID{}, "reader", readKey, relay.ScopeRead))
	must(db.AddCredential(ctx, byTest, &relay.Credential{ID: id(api.ExampleCredential), Account: shop, Kind: "smtp", Name: "webshop", User: "webshop-x7k2p9",
		SecretSHA256: make([]byte, 32), Stream: relay.Transactional, Created: now}))
	lease, err := db.Join(ctx, "elsewhere")
	must(err)
	for _, text := range []string{api.ExampleMessage, api.ExampleScheduled} {
		must(put(ctx, db, lease, id(text), shop))
	}
	test := submission(id(api.ExampleTest), shop)
	test.Message.Tags = []string{api.TestTag}
	must(db.Put(ctx, lease, []*relay.Submission{test})[0])
	must(db.Settle(ctx, 0, []relay.Outcome{{Delivery: test.Deliveries[0].ID, Account: shop, Kind: relay.EventCancelled, At: now},
		{Delivery: test.Deliveries[0].ID, Account: shop, Kind: relay.EventUnsubscribed, At: now, Engagement: &relay.Engagement{Method: "page"}}})...)
	must(db.Leave(ctx, lease))
	fillMore(t, db, shop)
	fillWebhook(t, dir, db, shop)
	fillAlert(t, db, shop)
}

func put(ctx context.Context, db *store.DB, lease int64, m, account relay.ID) error {
	return db.Put(ctx, lease, []*relay.Submission{submission(m, account)})[0]
}

func submission(m, account relay.ID) *relay.Submission {
	now, due := time.Now(), time.Now().Add(time.Hour)
	return &relay.Submission{
		Message: &relay.Message{ID: m, Account: account, Credential: id(api.ExampleCredential), Stream: relay.Transactional, Received: now, Subject: "Your order 1001", From: "orders@shop.example",
			HeaderID: "<1001@shop.example>", Size: 4, Envelope: relay.Envelope{Sender: "orders@shop.example", Recipients: []relay.Recipient{{Address: "ann@example.net"}}}},
		Content: message.Bytes([]byte("a: b")),
		Deliveries: []*relay.Delivery{{ID: relay.DeliveryID{Message: m, N: 1}, Account: account, Stream: relay.Transactional, Recipient: relay.Recipient{Address: "ann@example.net"},
			Domain: "example.net", State: relay.Queued, Due: due, Expires: due.Add(time.Hour), Updated: now}}}
}

// in has the world report to another test, until what it gives is called.
func (w *world) in(t *testing.T) (back func()) {
	was := w.T
	w.T = t
	return func() { w.T = was }
}

// pretty is a value as JSON.
func pretty(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
