package postgres

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
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

// engine runs the suite in databases of the server, reached by the way that via
// gives.
func engine(server *postgres.Server, via func(url string) string, seen pgx.QueryTracer) storetest.Engine {
	return storetest.Engine{
		New: func(t testing.TB) string {
			url, err := server.NewDatabase(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return via(url)
		},
		Open: func(ctx context.Context, place string) (*store.DB, error) {
			config, err := parse(place)
			if err != nil {
				return nil, err
			}
			config.Tracer = seen
			return open(ctx, config, patience, time.Now)
		},
		Askew: func(ctx context.Context, place string, now func() time.Time) (*store.DB, error) {
			config, err := parse(place)
			if err != nil {
				return nil, err
			}
			return open(ctx, config, patience, now)
		},
		Migrate: Migrate,
		Upgrade: Upgrade,
		Exec: func(ctx context.Context, place, statement string, args ...any) error {
			config, err := parse(place)
			if err != nil {
				return err
			}
			db := handle(config, 1)
			_, err = db.ExecContext(ctx, numbered(statement), args...)
			return errors.Join(err, db.Close())
		},
		Look: func(place string) (*sql.DB, error) {
			config, err := parse(place)
			if err != nil {
				return nil, err
			}
			return handle(config, 1), nil
		},
	}
}

func numbered(statement string) string {
	for n := 1; strings.Contains(statement, "?"); n++ {
		statement = strings.Replace(statement, "?", "$"+strconv.Itoa(n), 1)
	}
	return statement
}

func straight(url string) string { return url }

var statements = flag.String("statements", "", "a `file` for the texts of all statements that the suite runs, each ended by a line ;; (testdata/dialect reads it)")

func TestStore(t *testing.T) {
	seen := &recorder{texts: map[string]bool{}}
	server := postgres.Run(t, postgres.Options{Unsynced: true})
	t.Run("", func(t *testing.T) { storetest.Run(t, engine(server, straight, seen)) })
	if *statements == "" {
		return
	}
	if err := os.WriteFile(*statements, []byte(strings.Join(slices.Sorted(maps.Keys(seen.texts)), "\n;;\n")), 0o644); err != nil {
		t.Fatal(err)
	}
}

// recorder keeps the texts of statements.
type recorder struct {
	mu    sync.Mutex
	texts map[string]bool
}

func (r *recorder) TraceQueryStart(ctx context.Context, _ *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.texts[q.SQL] = true
	return ctx
}

func (r *recorder) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TestBouncer runs the suite through PgBouncer in transaction mode.
func TestBouncer(t *testing.T) {
	server := postgres.Run(t, postgres.Options{Unsynced: true})
	storetest.Run(t, engine(server, server.Bouncer(t).URL, nil))
}

// TestOrder sees to it that texts are compared byte by byte, whatever the
// language of the database: the queue walks over them in that order.
func TestOrder(t *testing.T) {
	server := postgres.Run(t, postgres.Options{Unsynced: true})
	opened(t, server.URL(), patience)
	conn, err := pgx.Connect(t.Context(), server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var texts, others int
	if err := conn.QueryRow(t.Context(), "select count(*), count(*) filter (where collation_name is distinct from 'C') from information_schema.columns"+
		" where table_schema = 'public' and data_type = 'text'").Scan(&texts, &others); err != nil {
		t.Fatal(err)
	}
	if texts < 20 || others > 0 {
		t.Errorf("%d of %d columns of text have another order", others, texts)
	}
}

// asked keeps the last statement that reads a table by many addresses, and the last
// that settles deliveries.
type asked struct {
	conn *pgx.Conn // its own, planning as the store has it plan
	mu   sync.Mutex
	text map[string]string
	args map[string][]any
}

// uncounted opens a store in which the server never counts these tables.
func uncounted(t *testing.T, tables ...string) (*store.DB, *asked, relay.ID) {
	server := postgres.Run(t, postgres.Options{Unsynced: true})
	seen := &asked{text: map[string]string{}, args: map[string][]any{}}
	e := engine(server, straight, seen)
	place := e.New(t)
	db, err := e.Open(t.Context(), place)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if seen.conn, err = pgx.Connect(t.Context(), place); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = seen.conn.Close(context.WithoutCancel(t.Context())) })
	for _, table := range tables {
		if _, err := seen.conn.Exec(t.Context(), "set enable_seqscan = off; alter table "+table+" set (autovacuum_enabled = false)"); err != nil {
			t.Fatal(err)
		}
	}
	account, err := db.EnsureAccount(t.Context(), "me")
	if err != nil {
		t.Fatal(err)
	}
	return db, seen, account
}

// plan is how the server would do what it was asked of a table, line by line.
func (a *asked) plan(t *testing.T, table string) []string {
	rows, err := a.conn.Query(t.Context(), "explain "+a.text[table], a.args[table]...)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func (a *asked) TraceQueryStart(ctx context.Context, _ *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, table := range []string{"suppression", "leaver"} {
		if strings.Contains(q.SQL, " from "+table+" where ") && strings.Contains(q.SQL, "address") {
			a.text[table], a.args[table] = q.SQL, q.Args
		}
	}
	if strings.HasPrefix(q.SQL, "update delivery ") && strings.Contains(q.SQL, "unnest") {
		a.text["delivery"], a.args["delivery"] = q.SQL, q.Args
	}
	return ctx
}

func (a *asked) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TestFilling: while a table is being filled that the server knows nothing of yet,
// addresses are looked up by the whole key, not by the account alone.
func TestFilling(t *testing.T) {
	db, seen, account := uncounted(t, "suppression", "leaver")
	by, now := relay.Actor{Name: "test"}, time.Now()
	if err := db.AddGroup(t.Context(), by, &relay.Group{Account: account, ID: "news", Name: "News", Created: now}, 10); err != nil {
		t.Fatal(err)
	}
	for part := range 4 {
		var list []relay.Suppression
		var left []relay.Leaver
		for i := range 5000 {
			address := fmt.Sprintf("user%d-%d@example.com", part, i)
			list = append(list, relay.Suppression{Address: address, Reason: relay.ReasonManual, Created: now})
			left = append(left, relay.Leaver{Address: address, Created: now})
		}
		if _, err := db.Suppress(t.Context(), by, account, list); err != nil {
			t.Fatal(err)
		}
		if _, err := db.LeaveGroup(t.Context(), by, account, "news", left); err != nil {
			t.Fatal(err)
		}
	}
	for table, text := range seen.text {
		plan := seen.plan(t, table)
		if !slices.ContainsFunc(plan, func(l string) bool { return strings.Contains(l, "Index Cond:") && strings.Contains(l, "(address = ") }) {
			t.Errorf("%s\n%.3000s", text, strings.Join(plan, "\n"))
		}
	}
	if len(seen.text) != 2 {
		t.Errorf("seen: %v", seen.text)
	}
}

// TestSettling: while the server has not counted the deliveries yet, they are settled
// by their keys all the same.
func TestSettling(t *testing.T) {
	db, seen, account := uncounted(t, "delivery")
	lease, err := db.Join(t.Context(), "node")
	if err != nil {
		t.Fatal(err)
	}
	for range 40 {
		now := time.Now()
		var mail []*relay.Submission
		var done []relay.Outcome
		for range 50 {
			s := storetest.Submission(account, now, []byte("Subject: x\r\n\r\nx\r\n"), "rcpt@example.net")
			mail = append(mail, s)
			done = append(done, relay.Outcome{Delivery: s.Deliveries[0].ID, Account: account, Kind: relay.EventDelivered, At: now, Host: "mx.example.net",
				Reply: relay.Reply{Code: 250, Text: "ok"}, Attempt: &relay.Attempt{Started: now, Ended: now}})
		}
		for _, err := range append(db.Put(t.Context(), lease, mail), db.Settle(t.Context(), lease, done)...) {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if plan := strings.Join(seen.plan(t, "delivery"), "\n"); strings.Contains(plan, "delivery_live") || !strings.Contains(plan, "delivery_pkey") {
		t.Errorf("%s\n%.3000s", seen.text["delivery"], plan)
	}
}

func TestSchema(t *testing.T) {
	const in = "-- A blob of text.\ncreate table t (\n\ta blob not null,\n\tb text not null default ''\n) without rowid;\n"
	for text, want := range map[string]string{
		`text collate "C"`: "create table t (\n\ta bytea not null,\n\tb text collate \"C\" not null default ''\n);\n",
		"text":             "create table t (\n\ta bytea not null,\n\tb text not null default ''\n);\n",
	} {
		if got := schema(in, text); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func BenchmarkMail(b *testing.B) {
	storetest.BenchmarkMail(b, engine(postgres.Run(b, postgres.Options{}), straight, nil))
}
