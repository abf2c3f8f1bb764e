// Package postgres opens the store in a PostgreSQL database, which several nodes
// share. It works through PgBouncer in transaction mode: statements are not
// prepared by name, and nothing outlives a transaction.
package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"postrider/internal/relay"
	"postrider/internal/store"
)

const (
	// writers is how many transactions of a node are written at once, so that
	// none waits for the sync of another.
	writers = 6
	// readers is the most queries at once besides.
	readers = 6

	// patience is the longest that a transaction may take before its connection
	// is given up; the server gives up a statement a little earlier.
	patience = 10 * time.Second
	// connect is the longest that one host may take to accept a connection.
	connect = 5 * time.Second
	// lifetime of connections: so that new hosts behind a name come into use.
	lifetime = 10 * time.Minute
)

// keepAlive finds connections dead that are idle, or that wait for a reply.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3}

// begin bounds, at the server, how long a statement may take, and how long a
// transaction may stay open whose node is gone: until then it keeps locks that
// the others need to take over. They end with the transaction.
//
// What is written has an index to be found by, and the planner is to use it: it
// judges by statistics, and those of a queue are always of some other time. What it
// must do without an index it takes for so dear that it would compile it first.
const begin = "begin isolation level read committed; set local statement_timeout = 8000; set local idle_in_transaction_session_timeout = 5000;" +
	" set local enable_seqscan = off; set local jit = off"

// Open opens the store in the database that dsn names: a URL or a line of
// key=value, as libpq takes them, PGPASSWORD and the like included. No error
// shows a password. What the server remarks goes to log, at level debug.
func Open(ctx context.Context, dsn string, log *slog.Logger) (*store.DB, error) {
	config, err := parse(dsn)
	if err != nil {
		return nil, err
	}
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		log.Debug("PostgreSQL remarks", "severity", n.Severity, "text", n.Message)
	}
	db, err := open(ctx, config, patience, time.Now)
	if err != nil {
		return nil, err
	}
	if err := aside(dsn, func(db *sql.DB) error { return plainContent(ctx, db) }); err != nil {
		log.Info("this database may compress the content of messages, which costs it time", "err", err)
	}
	return db, nil
}

func open(ctx context.Context, config *pgx.ConnConfig, patience time.Duration, now func() time.Time) (*store.DB, error) {
	reader := handle(config, readers)
	db, err := store.New(ctx, store.Config{
		Dialect: dialect(patience, byteOrder(ctx, reader)),
		Writer:  handle(direct(ctx, config), writers),
		Writers: writers,
		Reader:  reader,
		Now:     now,
	})
	if err != nil {
		return nil, fmt.Errorf("open store on PostgreSQL at %s: %w", config.Host, err)
	}
	return db, nil
}

// plainContent lets content be stored as it is: to compress what is deleted a
// moment later is a waste. Databases that resemble PostgreSQL may not know the
// words, and do without.
func plainContent(ctx context.Context, db *sql.DB) error {
	ctx, cancel := context.WithTimeout(ctx, connect)
	defer cancel()
	var how string
	const look = "select cast(attstorage as text) from pg_attribute where attrelid = 'content'::regclass and attname = 'bytes'"
	if err := db.QueryRowContext(ctx, look).Scan(&how); err != nil || how == "e" {
		return err
	}
	_, err := db.ExecContext(ctx, "alter table content alter column bytes set storage external")
	return err
}

// Migrate makes an older version of the schema, for tests of the way from there.
func Migrate(ctx context.Context, dsn string, version int) error {
	return aside(dsn, func(db *sql.DB) error { return store.Migrate(ctx, dialect(patience, byteOrder(ctx, db)), db, version) })
}

// Upgrade takes the schema a step further, as a newer program would, for tests
// of programs side by side.
func Upgrade(ctx context.Context, dsn, migration string) error {
	return aside(dsn, func(db *sql.DB) error {
		return store.Upgrade(ctx, dialect(patience, byteOrder(ctx, db)), db, migration)
	})
}

func aside(dsn string, f func(*sql.DB) error) error {
	config, err := parse(dsn)
	if err != nil {
		return err
	}
	return f(handle(config, 1))
}

// parse reads dsn. What it complains of is told without the text itself, which
// may hold a password.
func parse(dsn string) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, &relay.Error{Code: relay.Invalid, Text: "The address of the PostgreSQL database can't be read.",
			Advice: "Write postgres://user:password@host:port/database; a password with other characters than letters and digits goes into PGPASSWORD or a passfile."}
	}
	dialer := &net.Dialer{Timeout: connect, KeepAliveConfig: keepAlive}
	config.DialFunc = dialer.DialContext
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connect
	}
	// The columns of a statement are asked for once, and it is not prepared by
	// name: PgBouncer may run it on any connection to the server.
	config.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	return config, nil
}

// direct gives the way of those who write. Where no pooler stands between, their
// statements are prepared by name: the server need not read and plan them anew. A
// pooler is known by the number of the server's process, which is one of its own.
func direct(ctx context.Context, config *pgx.ConnConfig) *pgx.ConnConfig {
	ctx, cancel := context.WithTimeout(ctx, connect)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return config // whoever comes next tells
	}
	defer conn.Close(ctx)
	var process uint32
	if err := conn.QueryRow(ctx, "select pg_backend_pid()").Scan(&process); err != nil || process != conn.PgConn().PID() {
		return config
	}
	config = config.Copy()
	config.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement
	return config
}

// handle gives a pool of connections, none of which is opened yet.
func handle(config *pgx.ConnConfig, conns int) *sql.DB {
	// A connection from the pool is asked before it is used: there are few
	// queries, and none fails because a server went in the meantime. Writers
	// keep theirs.
	always := stdlib.OptionShouldPing(func(context.Context, stdlib.ShouldPingParams) bool { return true })
	db := stdlib.OpenDB(*config, always)
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	db.SetConnMaxLifetime(lifetime)
	return db
}

// byteOrder gives the type of texts that are compared byte by byte, whatever the
// language of the database: their indexes outlive a new version of the system's
// collations. CockroachDB does not know the name, and compares so anyway.
func byteOrder(ctx context.Context, db *sql.DB) string {
	ctx, cancel := context.WithTimeout(ctx, connect)
	defer cancel()
	_, err := db.ExecContext(ctx, `select 'a' collate "C"`)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && classifyState(refused.Code) == store.ClassOther {
		return "text"
	}
	return `text collate "C"` // what else went wrong is told by whoever comes next
}

func dialect(patience time.Duration, text string) store.Dialect {
	return store.Dialect{
		Name:      "postgres",
		Numbered:  true,
		Now:       "cast(extract(epoch from clock_timestamp()) * 1000000 as bigint)",
		Begin:     begin,
		Lock:      "for update skip locked",
		Share:     "for key share",
		Arrays:    true,
		Pipeline:  pipeline,
		Hex:       "encode(message, 'hex')",
		Lateral:   true,
		Retries:   8,
		Patience:  patience,
		Unhurried: "set local statement_timeout = 0",
		Schema:    func(s string) string { return schema(s, text) },
		Classify:  classify,
	}
}

// pipeline sends statements at once and waits for all their answers: on the way
// to the server and back they cost the time of one.
func pipeline(ctx context.Context, conn *sql.Conn, statements []store.Statement) error {
	var b pgx.Batch
	for _, s := range statements {
		b.Queue(s.Text, s.Args...)
	}
	return conn.Raw(func(c any) error { return c.(*stdlib.Conn).Conn().SendBatch(ctx, &b).Close() })
}

var (
	blobs    = regexp.MustCompile(`\bblob\b`)
	texts    = regexp.MustCompile(`\btext\b`)
	comments = regexp.MustCompile(`(?m)^--.*\n`)
)

// schema turns a migration into PostgreSQL's words; text is its type of texts.
func schema(s, text string) string {
	s = comments.ReplaceAllString(s, "")
	s = blobs.ReplaceAllString(s, "bytea")
	s = texts.ReplaceAllString(s, text)
	return strings.ReplaceAll(s, ") without rowid;", ");")
}

// classify tells errors apart by SQLSTATE
// (https://www.postgresql.org/docs/current/errcodes-appendix.html), and those
// without one by where they come from.
func classify(err error) store.Class {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return classifyState(e.Code)
	}
	var lost net.Error
	var connecting *pgconn.ConnectError
	if errors.As(err, &lost) || errors.As(err, &connecting) || pgconn.SafeToRetry(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) {
		return store.ClassAway
	}
	return store.ClassOther
}

func classifyState(code string) store.Class {
	switch code {
	case "40001", "40P01", "55P03": // serialization, deadlock, lock not to be had
		return store.ClassBusy
	case "42P06", "42P07", "42710": // schema, table, object exists already
		return store.ClassConstraint
	case "53100": // disk full
		return store.ClassFull
	case "25006", // read-only: a standby
		"25P03", // was idle in a transaction for too long
		"40003", // not known whether it was committed
		"57014": // statement took too long
		return store.ClassAway
	}
	if len(code) < 2 {
		return store.ClassOther
	}
	switch code[:2] {
	case "23": // integrity constraint
		return store.ClassConstraint
	case "08", // connection
		"28", "3D", // not let in; no such database
		"53", // memory, connections
		"57", // shut down, crashed, starting
		"58": // I/O
		return store.ClassAway
	}
	return store.ClassOther
}
