package postgres

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"postrider/internal/lab/postgres"
	"postrider/internal/store"
	"postrider/internal/store/storetest"
)

// engine runs the suite in databases of the server, reached by the way that via
// gives.
func engine(server *postgres.Server, via func(url string) string) storetest.Engine {
	return storetest.Engine{
		New: func(t testing.TB) string {
			url, err := server.NewDatabase(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return via(url)
		},
		Open: func(ctx context.Context, place string) (*store.DB, error) { return Open(ctx, place, slog.Default()) },
		Askew: func(ctx context.Context, place string, now func() time.Time) (*store.DB, error) {
			return open(ctx, place, slog.Default(), patience, now)
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
	}
}

func numbered(statement string) string {
	for n := 1; strings.Contains(statement, "?"); n++ {
		statement = strings.Replace(statement, "?", "$"+strconv.Itoa(n), 1)
	}
	return statement
}

func straight(url string) string { return url }

func TestStore(t *testing.T) {
	storetest.Run(t, engine(postgres.Run(t, postgres.Options{Unsynced: true}), straight))
}

// TestBouncer runs the suite through PgBouncer in transaction mode.
func TestBouncer(t *testing.T) {
	server := postgres.Run(t, postgres.Options{Unsynced: true})
	storetest.Run(t, engine(server, server.Bouncer(t).URL))
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

func BenchmarkMail(b *testing.B) {
	storetest.BenchmarkMail(b, engine(postgres.Run(b, postgres.Options{}), straight))
}
