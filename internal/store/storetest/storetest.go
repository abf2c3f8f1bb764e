// Package storetest holds every engine of the store to the same behaviour: one
// suite, called from the tests of each.
package storetest

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postrider/internal/relay"
	"postrider/internal/store"
)

// Engine is what the suite needs to know of one.
type Engine struct {
	// Single: one node by construction.
	Single bool
	// New makes an empty database and says where it is, until the test ends.
	New func(t testing.TB) (place string)
	// Open opens the database with the newest schema.
	Open func(ctx context.Context, place string) (*store.DB, error)
	// Askew opens it for a machine with a clock of its own; nil where Single.
	Askew func(ctx context.Context, place string, now func() time.Time) (*store.DB, error)
	// Migrate gives the database an older schema.
	Migrate func(ctx context.Context, place string, version int) error
	// Upgrade takes the schema a step further, as a newer program would.
	Upgrade func(ctx context.Context, place, migration string) error
	// Exec runs a statement behind the store's back; arguments stand for "?".
	Exec func(ctx context.Context, place, statement string, args ...any) error
	// Look opens the database to look into it, without the store's own code.
	Look func(place string) (*sql.DB, error)
}

// Run runs the suite.
func Run(t *testing.T, e Engine) {
	for _, group := range []struct {
		name  string
		tests []test
	}{
		{"put", putTests},
		{"settle", settleTests},
		{"commit", commitTests},
		{"claim", claimTests},
		{"node", nodeTests},
		{"cluster", clusterTests},
		{"notice", noticeTests},
		{"account", accountTests},
		{"tenant", tenantTests},
		{"sending", sendingTests},
		{"isolation", isolationTests},
		{"log", logTests},
		{"find", findTests},
		{"retain", retainTests},
		{"count", countTests},
		{"tally", tallyTests},
		{"rollup", rollupTests},
		{"webhook", webhookTests},
		{"returned", returnedTests},
		{"recent", recentTests},
		{"suppression", suppressionTests},
		{"group", groupTests},
		{"alert", alertTests},
		{"schema", schemaTests},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, test := range group.tests {
				t.Run(test.name, func(t *testing.T) {
					t.Parallel()
					test.run(newFixture(t, e))
				})
			}
		})
	}
}

type test struct {
	name string
	run  func(*fixture)
}

// fixture is a store of its own for one test.
type fixture struct {
	testing.TB
	engine Engine
	place  string
	db     *store.DB
	me     relay.ID // an account
	lease  int64
	others int64
}

func newFixture(t testing.TB, e Engine) *fixture {
	f := &fixture{TB: t, engine: e, place: e.New(t)}
	f.open()
	var err error
	if f.me, err = f.db.EnsureAccount(f.Context(), "me"); err != nil {
		t.Fatal(err)
	}
	if f.lease, err = f.db.Join(f.Context(), "node"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if f.db != nil {
			if err := f.db.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
	})
	return f
}

// another gives the lease of another node. Where there can be but one, it is one
// that nobody has.
func (f *fixture) another() int64 {
	f.Helper()
	if f.engine.Single {
		f.others++
		return f.lease + f.others
	}
	lease, err := f.db.Join(f.Context(), "another"+NewID(noon).String())
	if err != nil {
		f.Fatal(err)
	}
	return lease
}

func (f *fixture) open() {
	f.Helper()
	db, err := f.engine.Open(f.Context(), f.place)
	if err != nil {
		f.Fatalf("open: %v", err)
	}
	f.db = db
}

// reopen closes the store and opens it again.
func (f *fixture) reopen() {
	f.Helper()
	if err := f.db.Close(); err != nil {
		f.Fatalf("close: %v", err)
	}
	f.db = nil
	f.open()
}

// noon is when the mail of the tests arrives; its microseconds count.
var noon = time.Date(2026, 2, 3, 12, 0, 0, 123456000, time.UTC)

// NewID makes an id of the given time; of ids of one time the later is greater,
// whatever tests run beside (which uuid.NewV7AtTime does not promise).
func NewID(at time.Time) (id relay.ID) {
	binary.BigEndian.PutUint64(id[:], uint64(at.UnixMilli())<<16|0x7000)
	binary.BigEndian.PutUint64(id[8:], 1<<63|serial.Add(1))
	return id
}

var serial atomic.Uint64

// memory is content in memory, as what is small arrives.
type memory []byte

func (m memory) Size() int64                  { return int64(len(m)) }
func (m memory) Bytes() []byte                { return m }
func (m memory) Open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(m)), nil }

// stream is content that can only be read, as what is large arrives.
type stream struct {
	size int64
	open func() (io.ReadCloser, error)
}

func (s stream) Size() int64                  { return s.size }
func (s stream) Open() (io.ReadCloser, error) { return s.open() }

// Submission makes a message of the account with one delivery for each
// recipient.
func Submission(account relay.ID, at time.Time, content []byte, recipients ...string) *relay.Submission {
	m := &relay.Message{ID: NewID(at), Account: account, Stream: relay.Transactional, Received: at,
		Envelope: relay.Envelope{Sender: "app@example.com"},
		Subject:  "Hello", From: "app@example.com", HeaderID: "<1@example.com>", Size: int64(len(content))}
	s := &relay.Submission{Message: m, Content: memory(content), InHand: true}
	for i, r := range recipients {
		_, domain, _ := strings.Cut(r, "@")
		rcpt := relay.Recipient{Address: r}
		m.Envelope.Recipients = append(m.Envelope.Recipients, rcpt)
		s.Deliveries = append(s.Deliveries, &relay.Delivery{ID: relay.DeliveryID{Message: m.ID, N: i + 1}, Account: account, Stream: m.Stream,
			Recipient: rcpt, Domain: domain, State: relay.Queued, Due: at, Expires: at.Add(120 * time.Hour), Updated: at})
	}
	return s
}

// message makes a submission of the fixture's own account.
func (f *fixture) message(recipients ...string) *relay.Submission {
	return Submission(f.me, noon, []byte("Subject: Hello\r\n\r\nHello.\r\n"), recipients...)
}

// waiting makes n messages to one recipient each that no node has in hand, the
// first due one second before noon, each later one a second earlier.
func (f *fixture) waiting(n int) []*relay.Submission {
	f.Helper()
	batch := make([]*relay.Submission, n)
	for i := range batch {
		batch[i] = f.message(fmt.Sprintf("rcpt%d@example.net", i))
		batch[i].Deliveries[0].Due = noon.Add(-time.Duration(i+1) * time.Second)
	}
	f.put(0, batch...)
	return batch
}

func (f *fixture) put(lease int64, batch ...*relay.Submission) {
	f.Helper()
	for i, err := range f.db.Put(f.Context(), lease, batch) {
		if err != nil {
			f.Fatalf("put %d: %v", i, err)
		}
	}
}

// outcome makes what became of a delivery, a minute after noon.
func outcome(d *relay.Delivery, kind relay.Kind) relay.Outcome {
	o := relay.Outcome{Delivery: d.ID, Account: d.Account, Kind: kind, At: noon.Add(time.Minute), Host: "mx.example.net",
		Reply:   relay.Reply{Code: 250, Enhanced: "2.0.0", Text: "Ok"},
		Attempt: &relay.Attempt{Started: noon, Ended: noon.Add(time.Second), Source: netip.MustParseAddr("192.0.2.1"), Stage: "dot"}}
	if kind == relay.EventDeferred {
		o.Due = noon.Add(10 * time.Minute)
		o.Reply = relay.Reply{Code: 451, Enhanced: "4.7.1", Text: "Greylisted"}
		o.Diagnosis = relay.Diagnosis{Category: "greylisted", Text: "Come back later.", Advice: "Wait."}
	}
	return o
}

// order makes what an operator wants of a delivery.
func order(d *relay.Delivery, kind relay.Kind, at time.Time) relay.Outcome {
	return relay.Outcome{Delivery: d.ID, Account: d.Account, Kind: kind, At: at}
}

func (f *fixture) settle(lease int64, batch ...relay.Outcome) {
	f.Helper()
	for i, err := range f.db.Settle(f.Context(), lease, batch) {
		if err != nil {
			f.Fatalf("settle %d: %v", i, err)
		}
	}
}

// claim takes up to limit deliveries of each class that waits.
func (f *fixture) claim(now time.Time, limit int) []relay.Claimed {
	f.Helper()
	c, err := Claim(f.Context(), f.db, f.lease, now, limit)
	if err != nil {
		f.Fatalf("claim: %v", err)
	}
	return c
}

// Claim takes up to limit deliveries of each of the first thousand classes.
func Claim(ctx context.Context, db *store.DB, lease int64, now time.Time, limit int) ([]relay.Claimed, error) {
	waiting, err := db.Waiting(ctx, relay.Class{}, 1000)
	if err != nil {
		return nil, err
	}
	var wants []relay.Want
	for _, w := range waiting {
		wants = append(wants, relay.Want{Class: w.Class, Limit: limit})
	}
	claimed, _, err := db.Claim(ctx, lease, now, wants)
	return claimed, err
}

// claimAs takes n deliveries of a class, which must be there.
func (f *fixture) claimAs(c relay.Class, n int) {
	f.Helper()
	claimed, _, err := f.db.Claim(f.Context(), f.lease, noon.Add(24*time.Hour), []relay.Want{{Class: c, Limit: n}})
	if err != nil || len(claimed) != n {
		f.Fatalf("claimed %d of %d: %v", len(claimed), n, err)
	}
}

// exec runs a statement behind the store's back.
func (f *fixture) exec(statement string, args ...any) {
	f.Helper()
	if err := f.engine.Exec(f.Context(), f.place, statement, args...); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) story(id relay.ID) *relay.Story {
	f.Helper()
	s, err := f.db.Story(f.Context(), f.me, id)
	if err != nil {
		f.Fatalf("story: %v", err)
	}
	return s
}

// kinds gives the kinds of a story's events in order.
func kinds(s *relay.Story) (k []relay.Kind) {
	for _, e := range s.Events {
		k = append(k, e.Kind)
	}
	return k
}

// content reads a message's content; nil where there is none.
func (f *fixture) content(id relay.ID) []byte {
	f.Helper()
	c, err := f.db.Content(f.Context(), id)
	if relay.CodeOf(err) == relay.NotFound {
		return nil
	}
	if err != nil {
		f.Fatalf("content: %v", err)
	}
	r, err := c.Open()
	if err != nil {
		f.Fatalf("open content: %v", err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		f.Fatalf("read content: %v", err)
	}
	if int64(len(b)) != c.Size() {
		f.Errorf("content has %d bytes, says %d", len(b), c.Size())
	}
	return b
}

func (f *fixture) equal(what string, got, want any) {
	f.Helper()
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		f.Errorf("%s (-want +got):\n%s", what, diff)
	}
}
