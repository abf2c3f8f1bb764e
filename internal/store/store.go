// Package store keeps mail and what becomes of it in an SQL database. It holds
// the statements, one text for every engine; package sqlite opens a database
// and knows what is SQLite's own. Consumers declare the few methods they need
// as interfaces of their own, which DB satisfies.
//
// Every method that reads or writes what belongs to tenants takes the account
// and finds nothing of anybody else's; relay.Everyone stands for all accounts,
// and the zero id finds nothing. Put, Settle, Claim, Release, Content, Notices
// and the like are the node's own work and see everything.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofrs/uuid/v5"

	"postrider/internal/relay"
)

// ErrSettled means that an outcome came too late: the delivery is final, in
// another node's hand, or this very outcome has been settled before. Nothing
// was written. Put says it of a DSN whose notice was answered before.
var ErrSettled = errors.New("already settled")

// ErrLeaseLost means that a node's lease has ended: others may have taken what
// it held.
var ErrLeaseLost = errors.New("the node's lease has ended")

// ErrNameTaken comes with ErrLeaseLost where another node has joined under the
// same name.
var ErrNameTaken = errors.New("another node has joined under this name")

// Class is what kind of error a database reports. Each engine tells them apart
// by code, never by text.
type Class int

const (
	ClassOther      Class = iota
	ClassConstraint       // the statement breaks a constraint: its own fault
	ClassBusy             // locks, serialization: try again
	ClassFull             // no room
	ClassAway             // I/O error, no connection, read-only: the store is of no use now
)

// Dialect is what differs between engines.
type Dialect struct {
	Name string
	// Numbered placeholders: "?" becomes "$1", "$2", …
	Numbered bool
	// Now is an expression: the database's clock in microseconds since 1970.
	Now string
	// Begin opens a transaction that is going to write.
	Begin string
	// Lock ends a SELECT of rows that are about to be updated, so that other
	// nodes pass over them; empty where there is one writer.
	Lock string
	// Share ends a SELECT of rows that are to stay until the transaction ends.
	Share string
	// Arrays: a batch comes to the engine as one array for each column.
	Arrays bool
	// Pipeline, where not nil, sends several statements without waiting for the
	// answer to each. Those behind one that fails are not run.
	Pipeline func(ctx context.Context, conn *sql.Conn, statements []Statement) error
	// Hex is an expression: the id of a delivery's message as a text that sorts as
	// the id does (there is no least of bytea in PostgreSQL before 18).
	Hex string
	// Lateral: it has lateral joins.
	Lateral bool
	// Single: one node by construction. A node that joins takes everything.
	Single bool
	// Prepare: statements are prepared once for each connection. Not where a
	// pooler gives each transaction another one.
	Prepare bool
	// Retries is how often a transaction that failed for others' sake
	// (ClassBusy) is begun again.
	Retries int
	// Patience is the longest that a transaction may take before the connection
	// is given up for dead; 0 stands for ever. Queries have three times as long.
	Patience time.Duration
	// Unhurried, where not empty, takes the engine's own bounds of time off the
	// transaction that is open: a migration takes as long as it must.
	Unhurried string
	// Schema turns the text of a migration into the engine's own.
	Schema func(string) string
	// Classify tells errors apart.
	Classify func(error) Class
}

// Config is an open database, ready to be used as a store.
type Config struct {
	Dialect Dialect
	Writer  *sql.DB // its connections are kept for writing
	Writers int     // how many; 0 stands for 1
	Reader  *sql.DB
	// Room, where not nil, tells whether n bytes of new mail may be kept. What
	// becomes of mail is kept in any case.
	Room func(ctx context.Context, n int64) bool
	// Tend, where not nil, looks after the database until ctx ends.
	Tend func(ctx context.Context, exclusive Exclusive)
	// Backup, where not nil, copies the database into a file, as DB.Backup says.
	Backup func(ctx context.Context, exclusive Exclusive, file string, progress func(done, total int64)) error
	// Closed, where not nil, runs when the handles are closed.
	Closed func() error
	// Now is this machine's clock; nil stands for time.Now.
	Now func() time.Time
}

// Exclusive runs a function while nobody writes. The wait for that ends with
// ctx; the context that the function gets does not.
type Exclusive func(ctx context.Context, f func(context.Context) error) error

// DB is a store. Its methods may be called from many goroutines.
type DB struct {
	dialect Dialect
	writers *sql.DB
	readers *sql.DB
	room    func(ctx context.Context, n int64) bool
	backup  func(ctx context.Context, exclusive Exclusive, file string, progress func(done, total int64)) error
	closed  func() error

	slots chan *slot // those that nobody writes on now

	index segmentCache
	added map[string]*atomic.Int64 // suppressions, by reason

	clock *clock
	part  int64                       // where the turns of its writers begin
	told  func(relay.SuppressionNews) // nil: nobody wants to know; see OnSuppress
	// ids makes the ids of events, by the database's clock. Where there is one
	// slot, their order is the order of commits.
	ids *uuid.Gen

	done   chan struct{} // closed by Close
	stop   context.CancelFunc
	tended sync.WaitGroup
}

// New brings the database to the newest schema and starts to look after it. It
// closes the handles when it fails.
func New(ctx context.Context, c Config) (*DB, error) {
	db := bare(c.Dialect, c.Writer, max(c.Writers, 1))
	db.readers, db.room, db.backup, db.closed = c.Reader, c.Room, c.Backup, c.Closed
	if c.Now != nil {
		db.clock.now = c.Now
	}
	if err := db.start(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	tend, stop := context.WithCancel(context.WithoutCancel(ctx))
	db.stop = stop
	if c.Tend != nil {
		db.tended.Go(func() { c.Tend(tend, db.exclusive) })
	}
	if !c.Dialect.Single {
		db.tended.Go(func() { db.watchClock(tend) })
	}
	return db, nil
}

// bare makes a store that reads and writes by the same connections.
func bare(d Dialect, handle *sql.DB, writers int) *DB {
	added := map[string]*atomic.Int64{}
	for _, reason := range []string{relay.ReasonManual, relay.ReasonBounce, relay.ReasonSoftBounce, relay.ReasonComplaint, relay.ReasonUnsubscribe} {
		added[reason] = &atomic.Int64{}
	}
	db := &DB{dialect: d, added: added, writers: handle, readers: handle, slots: make(chan *slot, writers),
		done: make(chan struct{}), stop: func() {}}
	for n := range writers {
		db.slots <- &slot{number: int64(n)}
	}
	db.clock, db.part = &clock{now: time.Now}, rand.Int64N(suppressionParts)
	db.ids = uuid.NewGenWithOptions(uuid.WithEpochFunc(func() time.Time { return db.clock.theirs() }))
	return db
}

func (db *DB) start(ctx context.Context) error {
	if err := db.migrate(ctx, Latest); err != nil {
		return err
	}
	if db.dialect.Single {
		return db.seedIDs(ctx)
	}
	return db.readClock(ctx)
}

// seedIDs makes new events' ids greater than all that exist, even if the clock
// was set back since.
func (db *DB) seedIDs(ctx context.Context) error {
	var last []byte
	err := db.readers.QueryRowContext(ctx, "select id from event order by id desc limit 1").Scan(&last)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return db.fail("read last event", err)
	}
	if _, err := db.ids.NewV7AtTime(toID(last).Time()); err != nil {
		return fmt.Errorf("make id: %w", err)
	}
	return nil
}

// Close ends the store. Nothing that was acknowledged depends on it.
func (db *DB) Close() error {
	close(db.done)
	db.stop()
	db.tended.Wait()
	var err error
	for range cap(db.slots) { // wait for those who write; nobody writes after this
		if s := <-db.slots; s.writer != nil {
			err = errors.Join(err, s.writer.close())
		}
	}
	err = errors.Join(err, db.writers.Close(), db.readers.Close())
	if db.closed != nil {
		err = errors.Join(err, db.closed())
	}
	return err
}

// Backup copies the store into a file that must not exist, while it is in use:
// all that was committed before the call, and maybe what came since. The file is
// whole and synced when Backup returns nil, and not there when it returns an
// error. progress, where not nil, hears of bytes copied and bytes in all, both of
// which may change. A relay.Error Invalid says that the engine has means of its
// own.
func (db *DB) Backup(ctx context.Context, file string, progress func(done, total int64)) error {
	if db.backup == nil {
		return &relay.Error{Code: relay.Invalid, Text: "This store is on a database server, which makes backups itself.",
			Advice: "Use its own tools, such as pg_dump."}
	}
	if err := db.backup(ctx, db.exclusive, file, progress); err != nil {
		return db.fail("back up", err)
	}
	return nil
}

// newID makes an id greater than all before it.
func (db *DB) newID() (relay.ID, error) {
	id, err := db.ids.NewV7()
	if err != nil {
		return relay.ID{}, fmt.Errorf("make id: %w", err)
	}
	return relay.ID(id), nil
}

// fail says what did not succeed, with a relay.Error in the chain that tells
// the caller what to do.
func (db *DB) fail(doing string, err error) error {
	var told *relay.Error
	if errors.As(err, &told) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	e := &relay.Error{Code: relay.Internal, Text: "The store made an error.", Advice: "See the relay's log.", Err: err}
	if errors.Is(err, ErrLeaseLost) {
		e.Code, e.Text, e.Advice = relay.Unavailable, "This node has lost its lease.", "It joins anew by itself."
	}
	switch db.dialect.Classify(err) {
	case ClassConstraint:
		e.Code, e.Text, e.Advice = relay.Conflict, "It exists already.", ""
	case ClassBusy:
		e.Code, e.Text, e.Advice = relay.Busy, "The store is busy.", "Try again."
	case ClassFull:
		e = noRoom(err)
	case ClassAway:
		e.Code, e.Text, e.Advice = relay.Unavailable, "The store can't be reached.", "Check the store's disk or server; work resumes by itself."
	}
	return fmt.Errorf("%s: %w", doing, e)
}

func noRoom(err error) *relay.Error {
	return &relay.Error{Code: relay.Full, Text: "There is no room left to store mail.",
		Advice: "Free some space on the store's disk; work resumes by itself.", Err: err}
}

// storeWide tells whether the trouble is the whole store's, or the caller's
// patience, not that of one row in a batch.
func storeWide(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrLeaseLost) {
		return true
	}
	switch relay.CodeOf(err) {
	case relay.Full, relay.Unavailable, relay.Busy:
		return true
	}
	return false
}
