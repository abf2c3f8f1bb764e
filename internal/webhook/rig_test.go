package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	standard "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"postrider/internal/relay"
	"postrider/internal/seal"
	"postrider/internal/store"
	"postrider/internal/store/sqlite"
	"postrider/internal/store/storetest"
)

// rig is a store, a manager, and maybe a service that runs.
type rig struct {
	*testing.T
	db      *store.DB
	lease   int64
	account relay.ID
	config  Config
	box     *seal.Box
	manager *Manager
	service *Service
	stop    func()
}

func newRig(t *testing.T) *rig {
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "db"), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	box, err := seal.New(bytes.Repeat([]byte{7}, seal.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{T: t, db: db, box: box, config: Config{Addrs: loopback, Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Timeout: patience, GiveUp: time.Hour, Log: log}}
	if r.account, err = db.EnsureAccount(t.Context(), "me"); err != nil {
		t.Fatal(err)
	}
	if r.lease, err = db.Join(t.Context(), "node"); err != nil {
		t.Fatal(err)
	}
	r.manager = NewManager(r.config, db, box, func() (relay.ID, error) { return storetest.NewID(time.Now()), nil })
	return r
}

// loopback is a resolver that knows one address.
func loopback(_ context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
}

// run starts a service; end ends it.
func (r *rig) run() {
	r.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	s := NewService(r.config, r.db, r.box, func() int64 { return r.lease }, func() bool { return false })
	s.waits = []time.Duration{50 * time.Millisecond}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	r.service = s
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			r.Error(err)
		}
	})
	r.Cleanup(func() { r.stop() })
}

// add adds a webhook to a receiver.
func (r *rig) add(to *receiver, s Settings) *relay.Webhook {
	r.Helper()
	address := to.url
	s.URL = &address
	h, secret, err := r.manager.Add(r.Context(), relay.Actor{Name: "test"}, r.account, s)
	if err != nil {
		r.Fatal(err)
	}
	to.learn(secret)
	return h
}

// mail puts messages, and gives their ids.
func (r *rig) mail(n int) (ids []relay.ID) {
	r.Helper()
	var batch []*relay.Submission
	for i := range n {
		s := storetest.Submission(r.account, time.Now(), []byte("x"), fmt.Sprintf("rcpt%d@example.net", i))
		s.Message.Tags, s.Message.Metadata = []string{"order"}, map[string]string{"order": "1001"}
		batch, ids = append(batch, s), append(ids, s.Message.ID)
	}
	for _, err := range r.db.Put(r.Context(), r.lease, batch) {
		if err != nil {
			r.Fatal(err)
		}
	}
	return ids
}

// settle settles the only delivery of a message.
func (r *rig) settle(id relay.ID, k relay.Kind) {
	r.Helper()
	o := relay.Outcome{Delivery: relay.DeliveryID{Message: id, N: 1}, Account: r.account, Kind: k, At: time.Now(), Due: time.Now().Add(time.Hour),
		Reply: relay.Reply{Code: 550, Enhanced: "5.1.1", Text: "No such user"}, Diagnosis: relay.Diagnosis{Category: "hard/no-mailbox", Text: "There is no such mailbox."},
		Attempt: &relay.Attempt{Started: time.Now(), Ended: time.Now(), Hosts: []relay.HostTry{{Name: "mx.example.net"}}, Stage: "rcpt",
			Dialogue: []relay.Exchange{{Command: "EHLO secret.inside"}}}}
	if err := r.db.Settle(r.Context(), 0, []relay.Outcome{o})[0]; err != nil && k != relay.EventAccepted {
		r.Fatal(err)
	}
}

// release gives back what the node has in hand, so that orders may settle it.
func (r *rig) release() {
	r.Helper()
	lease, err := r.db.Join(r.Context(), "node")
	if err != nil {
		r.Fatal(err)
	}
	r.lease = lease
}

func (r *rig) progress(h *relay.Webhook) *relay.WebhookProgress {
	r.Helper()
	p, err := r.db.WebhookProgress(r.Context(), r.account, h.ID)
	if err != nil {
		r.Fatal(err)
	}
	return p
}

// patience is how long is waited for what does come, on a machine that is busy too.
const patience = time.Minute

// within waits for a fact.
func within(t testing.TB, longest time.Duration, fact string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(longest); !f(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("after %v it is still not so that %s", longest, fact)
		}
	}
}

// receiver takes events, and checks their signatures by the library that Standard
// Webhooks gives to receivers.
type receiver struct {
	t   testing.TB
	url string

	mu      sync.Mutex
	secrets []string
	events  []Event
	bodies  [][]byte
	ids     []string
	signed  string                                                       // the last signature
	answer  func(events []Event, w http.ResponseWriter, r *http.Request) // nil: 204
}

func newReceiver(t testing.TB) *receiver {
	v := &receiver{t: t}
	s := httptest.NewServer(v)
	t.Cleanup(s.Close)
	v.url = s.URL + "/hook"
	return v
}

// startReceiver listens at an address. Where it is one that was listened at before,
// somebody's connection may have its port for a moment.
func startReceiver(t testing.TB, v *receiver, addr string) (stop func()) {
	t.Helper()
	var ln net.Listener
	within(t, patience, "the address is free", func() (free bool) {
		var err error
		ln, err = net.Listen("tcp", addr)
		return err == nil
	})
	s := httptest.NewUnstartedServer(v)
	s.Listener.Close()
	s.Listener = ln
	s.Start()
	v.url = s.URL + "/hook"
	return func() { s.CloseClientConnections(); s.Close() }
}

func (v *receiver) learn(secret string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.secrets = append(v.secrets, secret)
}

func (v *receiver) answers(f func(events []Event, w http.ResponseWriter, r *http.Request)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.answer = f
}

func (v *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the relay went away
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if !slices.ContainsFunc(v.secrets, func(s string) bool {
		k, err := standard.NewWebhook(s)
		return err == nil && k.Verify(body, r.Header) == nil
	}) {
		v.t.Errorf("a request that is not signed: %v", r.Header)
	}
	v.signed = r.Header.Get("webhook-signature")
	var events []Event
	if body[0] == '[' {
		err = json.Unmarshal(body, &events)
	} else {
		events = make([]Event, 1)
		err = json.Unmarshal(body, &events[0])
	}
	if err != nil {
		v.t.Errorf("body %s: %v", body, err)
	}
	if v.answer != nil {
		c := &code{ResponseWriter: w, status: 200}
		v.answer(events, c, r)
		if c.status >= 300 {
			return
		}
	} else {
		w.WriteHeader(http.StatusNoContent)
	}
	v.events, v.bodies, v.ids = append(v.events, events...), append(v.bodies, body), append(v.ids, r.Header.Get("webhook-id"))
}

type code struct {
	http.ResponseWriter
	status int
}

func (c *code) WriteHeader(status int) { c.status = status; c.ResponseWriter.WriteHeader(status) }

// took are the events that were answered with success.
func (v *receiver) took() []Event {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.events)
}

// distinct counts events but once.
func (v *receiver) distinct() int {
	seen := map[string]bool{}
	for _, e := range v.took() {
		seen[e.ID] = true
	}
	return len(seen)
}

// inOrder expects the first coming of each event to be in the order of ids,
// message by message.
func (v *receiver) inOrder() {
	v.t.Helper()
	last, seen := map[string]string{}, map[string]bool{}
	for _, e := range v.took() {
		if seen[e.ID] {
			continue
		}
		seen[e.ID] = true
		if e.ID < last[e.Data.Message] {
			v.t.Errorf("event %s of message %s came after %s", e.ID, e.Data.Message, last[e.Data.Message])
		}
		last[e.Data.Message] = e.ID
	}
}
