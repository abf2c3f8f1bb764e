package postgres

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"postrider/internal/lab/postgres"
	"postrider/internal/relay"
	"postrider/internal/store"
	"postrider/internal/store/storetest"
)

// opened gives a store at dsn, which is given up for dead after patience, an
// account in it and a lease.
func opened(t *testing.T, dsn string, patience time.Duration) (db *store.DB, account relay.ID, lease int64) {
	t.Helper()
	config, err := parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	if db, err = open(t.Context(), config, patience, time.Now); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	if account, err = db.EnsureAccount(t.Context(), "me"); err != nil {
		t.Fatal(err)
	}
	if lease, err = db.Join(t.Context(), "node"); err != nil {
		t.Fatal(err)
	}
	return db, account, lease
}

func message(account relay.ID, recipients ...string) *relay.Submission {
	return storetest.Submission(account, time.Now(), []byte("Hello"), recipients...)
}

// TestRestart stops and kills the server. While it is away, mail is refused as
// Unavailable; when it is back, the first Put on any connection succeeds.
func TestRestart(t *testing.T) {
	server := postgres.Run(t, postgres.Options{})
	db, account, lease := opened(t, server.URL(), patience)
	everywhere := func() { // on all connections
		t.Helper()
		var group sync.WaitGroup
		for range 4 * writers {
			group.Go(func() {
				if err := db.Put(t.Context(), lease, []*relay.Submission{message(account, "a@x.test")})[0]; err != nil {
					t.Errorf("put: %v", err)
				}
			})
		}
		group.Wait()
	}
	kept := message(account, "kept@x.test")
	if err := db.Put(t.Context(), lease, []*relay.Submission{kept})[0]; err != nil {
		t.Fatal(err)
	}
	everywhere()
	if err := errors.Join(server.Stop(), server.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
	for _, end := range []func() error{server.Stop, server.Kill} {
		everywhere()
		if err := end(); err != nil {
			t.Fatal(err)
		}
		for range 2 * writers {
			if err := db.Put(t.Context(), lease, []*relay.Submission{message(account, "a@x.test")})[0]; relay.CodeOf(err) != relay.Unavailable {
				t.Errorf("put without a server: %v", err)
			}
		}
		if _, err := db.Story(t.Context(), account, kept.Message.ID); relay.CodeOf(err) != relay.Unavailable {
			t.Errorf("read without a server: %v", err)
		}
		if err := server.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		everywhere()
		if _, err := db.Content(t.Context(), kept.Message.ID); err != nil {
			t.Errorf("lost: %v", err)
		}
	}
}

// TestFailover kills a server that has a synchronous standby: what was
// acknowledged is on the standby, and the store goes on there by itself.
func TestFailover(t *testing.T) {
	server := postgres.Run(t, postgres.Options{})
	standby, err := server.Standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Close(); err != nil {
			t.Error(err)
		}
	})
	dsn := "postgres://postgres@" + server.Addr() + "," + standby.Addr() + "/postgres?sslmode=disable&target_session_attrs=read-write"
	db, account, lease := opened(t, dsn, patience)
	var kept []*relay.Submission
	for range 20 {
		s := message(account, "a@x.test")
		if err := db.Put(t.Context(), lease, []*relay.Submission{s})[0]; err != nil {
			t.Fatal(err)
		}
		kept = append(kept, s)
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	put := func() error { return db.Put(t.Context(), lease, []*relay.Submission{message(account, "b@x.test")})[0] }
	if err := put(); relay.CodeOf(err) != relay.Unavailable {
		t.Errorf("put into a standby: %v", err)
	}
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := put(); err != nil {
		t.Errorf("put after the standby took over: %v", err)
	}
	for _, s := range kept {
		if _, err := db.Content(t.Context(), s.Message.ID); err != nil {
			t.Errorf("lost: %v", err)
		}
	}
}

// TestHung lets the way to the server swallow everything, without a word to
// either end: calls end after the store's patience, not never.
func TestHung(t *testing.T) {
	server := postgres.Run(t, postgres.Options{Unsynced: true})
	way := newTunnel(t, server.Addr())
	const patience = 3 * time.Second
	db, account, lease := opened(t, strings.Replace(server.URL(), server.Addr(), way.addr, 1), patience)
	put := func() error { return db.Put(t.Context(), lease, []*relay.Submission{message(account, "a@x.test")})[0] }
	if err := put(); err != nil {
		t.Fatal(err)
	}
	way.gate.Lock()
	for what, do := range map[string]func() error{
		"put":  put,
		"read": func() error { _, err := db.Nodes(t.Context()); return err },
	} {
		began := time.Now()
		if err := do(); relay.CodeOf(err) != relay.Unavailable || errors.Is(err, store.ErrLeaseLost) {
			t.Errorf("%s on a way that is cut: %v", what, err)
		}
		if took := time.Since(began); took > time.Minute { // an hour, or for ever, by the system's own bounds
			t.Errorf("%s on a way that is cut took %v", what, took)
		}
	}
	way.gate.Unlock()
	if err := put(); err != nil {
		t.Errorf("put when the way is free again: %v", err)
	}
}

// tunnel forwards connections; while its gate is locked, what is sent stays
// where it is.
type tunnel struct {
	addr string
	gate sync.RWMutex
}

func newTunnel(t *testing.T, to string) *tunnel {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &tunnel{addr: ln.Addr().String()}
	var group sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	pipe := func(to, from net.Conn) {
		defer to.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			w.gate.RLock()
			_, err = to.Write(buf[:n])
			w.gate.RUnlock()
			if err != nil {
				return
			}
		}
	}
	group.Go(func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				near.Close()
				continue
			}
			mu.Lock()
			conns = append(conns, near, far)
			mu.Unlock()
			group.Go(func() { pipe(near, far) })
			group.Go(func() { pipe(far, near) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		group.Wait()
	})
	return w
}

// TestDeadlock lets another transaction stand in the way of one of the store's,
// so that the server breaks the store's: it is done again.
func TestDeadlock(t *testing.T) {
	server := postgres.Run(t, postgres.Options{Unsynced: true, Settings: []string{"deadlock_timeout = 4s"}})
	db, account, lease := opened(t, server.URL(), patience)
	s := message(account, "a@x.test", "b@x.test")
	if err := db.Put(t.Context(), lease, []*relay.Submission{s})[0]; err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	exec := func(statement string, args ...any) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), statement, args...); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	// Whose patience ends first is broken: not the other.
	exec("set deadlock_timeout = '1min'")
	// The message is locked by the other, and the store waits for it when it
	// has changed the deliveries, which the other then waits for.
	exec("begin")
	exec("select 1 from message where id = $1 for update", s.Message.ID[:])
	settled := make(chan []error)
	go func() {
		var batch []relay.Outcome
		for _, d := range s.Deliveries {
			batch = append(batch, relay.Outcome{Delivery: d.ID, Account: account, Kind: relay.EventDelivered, At: time.Now(), Attempt: &relay.Attempt{}})
		}
		settled <- db.Settle(t.Context(), lease, batch)
	}()
	until(t, conn, "select exists (select 1 from pg_stat_activity where wait_event_type = 'Lock')")
	exec("update delivery set advice = 'x' where message = $1", s.Message.ID[:])
	exec("commit")
	for _, err := range <-settled {
		if err != nil {
			t.Errorf("settle: %v", err)
		}
	}
	story, err := db.Story(t.Context(), account, s.Message.ID)
	if err != nil || len(story.Events) != 4 || story.Content {
		t.Errorf("%d events, content %v, %v", len(story.Events), story.Content, err)
	}
	until(t, conn, "select deadlocks > 0 from pg_stat_database where datname = 'postgres'")
}

func until(t *testing.T, conn *pgx.Conn, query string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); <-tick.C {
		var is bool
		if err := conn.QueryRow(t.Context(), query).Scan(&is); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		if is {
			return
		}
	}
	t.Fatalf("%s: still false", query)
}

// TestBounds sees to it that the server ends what a node leaves open, and that
// this ends with the transaction: a pooler gives the connection to others.
func TestBounds(t *testing.T) {
	server := postgres.Run(t, postgres.Options{Unsynced: true})
	conn, err := pgx.Connect(t.Context(), server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	show := func(want ...string) {
		t.Helper()
		var got []string
		for _, setting := range []string{"transaction_isolation", "statement_timeout", "idle_in_transaction_session_timeout", "synchronous_commit"} {
			var value string
			if err := conn.QueryRow(t.Context(), "show "+setting).Scan(&value); err != nil {
				t.Fatal(err)
			}
			got = append(got, value)
		}
		if !slices.Equal(got, want) {
			t.Errorf("settings are %q, want %q", got, want)
		}
	}
	if _, err := conn.Exec(t.Context(), begin); err != nil {
		t.Fatal(err)
	}
	show("read committed", "8s", "5s", "on")
	if _, err := conn.Exec(t.Context(), "commit"); err != nil {
		t.Fatal(err)
	}
	show("read committed", "0", "0", "on")
}

// TestSecret makes errors and logs of all kinds with a password in the address.
func TestSecret(t *testing.T) {
	const secret = "hunter2"
	server := postgres.Run(t, postgres.Options{Unsynced: true})
	var logged bytes.Buffer
	log := slog.New(slog.NewTextHandler(&logged, nil))
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	host, port, _ := net.SplitHostPort(server.Addr())
	for _, dsn := range []string{
		"postgres://u:" + secret + "@" + nobody.Addr().String() + "/postgres",
		"postgres://u:" + secret + "@" + server.Addr() + "/postgres?sslmode=disable", // no such role
		"postgres://postgres:" + secret + "@" + server.Addr() + "/nothing?sslmode=disable",
		"postgres://postgres:" + secret + "@" + server.Addr() + "/postgres?sslmode=require",
		"postgres://u:" + secret + "%zz@" + server.Addr() + "/postgres",
		"postgres://u:" + secret + "/x?y@[::1/postgres",
		"postgres://u:a" + secret + "@host:port/postgres",
		"host=" + host + " port=" + port + " user=u password=" + secret + " sslmode=disable",
		"host=" + host + " port=" + port + " user=u password='" + secret,
		"host=" + host + " port=none password = " + secret,
		"password=" + secret + " sslmode=odd",
	} {
		db, err := Open(t.Context(), dsn, log)
		if err == nil {
			db.Close()
			t.Fatalf("opened %s", dsn)
		}
		if said := err.Error() + logged.String(); strings.Contains(said, secret) || strings.Contains(said, url.QueryEscape(secret)) {
			t.Errorf("%s\nmakes the error\n%s", dsn, said)
		}
		if relay.CodeOf(err) != relay.Unavailable && relay.CodeOf(err) != relay.Invalid {
			t.Errorf("%s: code of %v", dsn, err)
		}
	}
}

func TestClassify(t *testing.T) {
	for code, want := range map[string]store.Class{
		"23505": store.ClassConstraint, "23502": store.ClassConstraint, "42P07": store.ClassConstraint,
		"40001": store.ClassBusy, "40P01": store.ClassBusy, "55P03": store.ClassBusy,
		"53100": store.ClassFull,
		"53300": store.ClassAway, "53200": store.ClassAway, "57P01": store.ClassAway, "57P02": store.ClassAway, "57P03": store.ClassAway,
		"08006": store.ClassAway, "08P01": store.ClassAway, "25006": store.ClassAway, "58030": store.ClassAway, "28P01": store.ClassAway,
		"42601": store.ClassOther, "22021": store.ClassOther, "25P02": store.ClassOther, "": store.ClassOther,
	} {
		if got := classifyState(code); got != want {
			t.Errorf("%s is %v, want %v", code, got, want)
		}
	}
	for _, err := range []error{io.ErrUnexpectedEOF, &net.OpError{Op: "read", Err: errors.New("reset")}} {
		if got := classify(err); got != store.ClassAway {
			t.Errorf("%v is %v", err, got)
		}
	}
	if got := classify(errors.New("can't encode")); got != store.ClassOther {
		t.Errorf("an error of ours is %v", got)
	}
	if got := classify(context.Canceled); got != store.ClassOther {
		t.Errorf("an impatient caller is %v", got)
	}
}
