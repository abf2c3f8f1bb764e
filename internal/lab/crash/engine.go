package crash

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // to look into the store without the store's own code
	_ "modernc.org/sqlite"

	"postrider/internal/lab/postgres"
	"postrider/internal/relay"
	"postrider/internal/store/recount"
)

// engine is a store under test.
type engine struct {
	settings string // TOML that chooses it
	// inspect looks for rows that contradict each other, once the relay has
	// stopped, and recounts what is counted for reports.
	inspect func(ctx context.Context) (torn int, counts *recount.Result, err error)
	// order checks in a trace that what is acknowledged was synced before, and
	// gives the calls that matter.
	order func(calls []call) ([]string, error)
	// server is the database's, a process of its own; nil: there is none.
	server *postgres.Server
}

// openEngine gives the engine by its name, and starts what it needs. dir is the
// relay's folder.
func openEngine(ctx context.Context, name, dir string) (engine, error) {
	switch name {
	case "sqlite":
		return engine{inspect: func(ctx context.Context) (int, *recount.Result, error) {
			return inspectSQLite(ctx, filepath.Join(dir, "data", "postrider.db"))
		}, order: orderSQLite}, nil
	case "postgres":
		s, err := postgres.New(ctx, postgres.Options{})
		if err != nil {
			return engine{}, err
		}
		return engine{server: s, settings: fmt.Sprintf("store = %q\n", s.URL()), order: func(calls []call) ([]string, error) {
			return orderPostgres(calls, s.Addr())
		}, inspect: func(ctx context.Context) (int, *recount.Result, error) { return inspectPostgres(ctx, s.URL()) }}, nil
	}
	return engine{}, fmt.Errorf("store %q is not known here: sqlite or postgres", name)
}

// close ends what openEngine started.
func (e engine) close() error {
	if e.server == nil {
		return nil
	}
	return e.server.Close()
}

func inspectPostgres(ctx context.Context, dsn string) (int, *recount.Result, error) {
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		return 0, nil, fmt.Errorf("look into the store: %w", err)
	}
	defer db.Close()
	return inspect(ctx, db)
}

func inspectSQLite(ctx context.Context, file string) (int, *recount.Result, error) {
	name := url.URL{Scheme: "file", OmitHost: true, Path: file, RawQuery: "mode=ro"}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return 0, nil, fmt.Errorf("look into the store: %w", err)
	}
	defer db.Close()
	var verdict string
	if err := db.QueryRowContext(ctx, "pragma integrity_check").Scan(&verdict); err != nil {
		return 0, nil, fmt.Errorf("check the store: %w", err)
	}
	if verdict != "ok" {
		return 0, nil, fmt.Errorf("check the store: %s", verdict)
	}
	return inspect(ctx, db)
}

// inspect counts what no transaction leaves behind: a state without the event
// that led to it, an event without its state, a message without deliveries or
// without its first event, content that nothing needs, and none where it is
// needed. The numbers in the statements are the engine's own: no placeholders
// that engines write differently.
func inspect(ctx context.Context, db *sql.DB) (torn int, counts *recount.Result, err error) {
	count := func(format string, args ...any) {
		var n int
		if err == nil {
			err = db.QueryRowContext(ctx, fmt.Sprintf("select count(*) from "+format, args...)).Scan(&n)
		}
		torn += n
	}
	for _, k := range []relay.Kind{relay.EventDelivered, relay.EventBounced, relay.EventExpired} {
		count("delivery d where d.state = %d and 1 <> (select count(*) from event e where e.message = d.message and e.n = d.n and e.kind = %d)", k.State(), k)
		count("event e where e.kind = %d and not exists (select 1 from delivery d where d.message = e.message and d.n = e.n and d.state = %d)", k, k.State())
	}
	count("delivery d where 1 <> (select count(*) from event e where e.message = d.message and e.n = d.n and e.kind = %d)", relay.EventAccepted)
	count("message m where not exists (select 1 from delivery d where d.message = m.id)")
	const needed = "(exists (select 1 from delivery d where d.message = m.id and d.state < 10) or exists (select 1 from notice n where n.message = m.id))"
	count("message m where exists (select 1 from content c where c.message = m.id) and not " + needed)
	count("message m where not exists (select 1 from content c where c.message = m.id) and " + needed)
	if err != nil {
		return 0, nil, fmt.Errorf("look for torn rows: %w", err)
	}
	counts, err = recount.Check(ctx, db, time.Hour)
	return torn, counts, err
}
