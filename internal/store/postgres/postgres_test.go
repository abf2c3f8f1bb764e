package postgres

import (
	"context"
	"database/sql"
	"errors"
	"flag"
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
