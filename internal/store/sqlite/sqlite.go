// Package sqlite opens the store in an SQLite database: one file, one node,
// nothing to install.
package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"postrider/internal/store"
)

// readers is the most queries at once besides the writer.
const readers = 4

// Open opens the store in the file path, which is made if it does not exist,
// together with path-wal, path-shm and path.lock beside it. One process at a
// time can have it open. Problems with the upkeep of the file go to log; they
// endanger no mail.
func Open(ctx context.Context, path string, log *slog.Logger) (*store.DB, error) {
	return open(ctx, path, log, writerPragmas)
}

func open(ctx context.Context, path string, log *slog.Logger, pragmas []string) (*store.DB, error) {
	return openOn(ctx, disk{path, space}, log, pragmas)
}

func openOn(ctx context.Context, d disk, log *slog.Logger, pragmas []string) (*store.DB, error) {
	path, err := filepath.Abs(d.path)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	unlock, err := lock(path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	d.path = path
	if err := private(path); err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", err), unlock())
	}
	keep := handle(path, 1, keeperPragmas)
	look := handle(path, 1, readerPragmas)
	from := &source{}
	db, err := store.New(ctx, store.Config{
		Dialect: dialect(),
		Writer:  pool(connector{path: path, pragmas: pragmas, source: from}, 1),
		Reader:  handle(path, readers, readerPragmas),
		Room:    func(ctx context.Context, n int64) bool { return d.room(ctx, look, n) },
		Tend: func(ctx context.Context, exclusive store.Exclusive) {
			low := func(ctx context.Context) bool { return !d.room(ctx, look, 0) }
			(&keeper{db: keep, log: log, exclusive: exclusive, low: low, source: from}).run(ctx)
		},
		Backup: func(ctx context.Context, exclusive store.Exclusive, file string, progress func(done, total int64)) error {
			return from.backup(ctx, exclusive, d.space, file, progress)
		},
		Closed: func() error { return errors.Join(look.Close(), keep.Close(), unlock()) },
	})
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	return db, nil
}

// private makes the file, for its owner only, where there is none yet: mail and
// verifiers of passwords are in it. What SQLite puts beside it has its rights.
func private(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// Migrate makes the file path with an older version of the schema, for tests of
// the way from there.
func Migrate(ctx context.Context, path string, version int) error {
	return store.Migrate(ctx, dialect(), handle(path, 1, writerPragmas), version)
}

// Upgrade takes the schema of the file path a step further, as a newer program
// would, for tests of programs side by side.
func Upgrade(ctx context.Context, path, migration string) error {
	return store.Upgrade(ctx, dialect(), handle(path, 1, writerPragmas), migration)
}

func dialect() store.Dialect {
	return store.Dialect{
		Name:     "sqlite",
		Now:      "cast(unixepoch('subsec') * 1000000 as integer)",
		Begin:    "begin immediate",
		Single:   true,
		Prepare:  true,
		Hex:      "hex(message)",
		Schema:   func(s string) string { return s },
		Classify: classify,
	}
}

func classify(err error) store.Class {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return store.ClassOther
	}
	// The low byte is the primary code (https://sqlite.org/rescode.html).
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_CONSTRAINT:
		return store.ClassConstraint
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return store.ClassBusy
	case sqlite3.SQLITE_FULL:
		return store.ClassFull
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH:
		return store.ClassAway
	}
	return store.ClassOther
}

// The pragmas of a connection, in the order in which they must come: the size
// of pages counts only before the file is made.
var (
	writerPragmas = []string{"busy_timeout=10000", "page_size=8192", "journal_mode=wal", "synchronous=full",
		"wal_autocheckpoint=0", "cache_size=-16384", "temp_store=memory", "journal_size_limit=268435456"}
	readerPragmas = []string{"busy_timeout=10000", "query_only=1", "cache_size=-8192", "temp_store=memory"}
	keeperPragmas = []string{"busy_timeout=100", "synchronous=full", "wal_autocheckpoint=0"}
)

// handle gives a pool of connections to the file, none of which is opened yet.
func handle(path string, conns int, pragmas []string) *sql.DB {
	return pool(connector{path: path, pragmas: pragmas}, conns)
}

func pool(c connector, conns int) *sql.DB {
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db
}

// connector opens connections and sets them up.
type connector struct {
	path    string
	pragmas []string
	source  *source // where not nil, it is told of the connection, the only one
}

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	name := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(c.path)}
	inner, err := sqlite.NewConnector(name.String())
	if err != nil {
		return nil, err
	}
	conn, err := inner.Connect(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range c.pragmas {
		if _, err := conn.(driver.ExecerContext).ExecContext(ctx, "pragma "+p, nil); err != nil {
			return nil, errors.Join(fmt.Errorf("set %s: %w", p, err), conn.Close())
		}
	}
	if c.source == nil {
		return conn, nil
	}
	full, ok := conn.(fullConn)
	if !ok {
		return nil, errors.Join(errors.New("the driver can't make backups"), conn.Close())
	}
	c.source.conn = full
	return &watched{full, c.source}, nil
}

func (c connector) Driver() driver.Driver { return &sqlite.Driver{} }
