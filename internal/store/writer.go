package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"postrider/internal/relay"
)

// slot is a place for one writer. Who has taken it from DB.slots uses it alone.
type slot struct {
	writer *writer
	number int64 // among the slots
}

// writer is a connection that writes, with what is known of the statements used
// on it.
type writer struct {
	conn    *sql.Conn
	number  int64 // of its slot
	dialect *Dialect
	clock   *clock
	claims  claims // in words of the dialect
	used    bool   // a transaction ended on it
	// By the texts before rebinding: what was prepared, or the texts as the
	// engine wants them.
	prep  map[string]*sql.Stmt
	bound map[string]string
	// What is to be sent with whatever comes next.
	later []Statement
	// How many suppressions the transaction has added, by reason.
	fresh map[string]int64
}

// Statement is one of a pipeline. Nobody wants to know what it changed.
type Statement struct {
	Text string
	Args []any
}

// write runs f in a transaction when there is a slot. The wait ends with ctx; the
// transaction, once begun, does not: it commits or rolls back as a whole and
// leaves the connection fit for the next one. f may run more than once, each time
// with nothing done.
func (db *DB) write(ctx context.Context, doing string, f func(ctx context.Context, w *writer) error) error {
	return db.writeWithin(ctx, db.dialect.Patience, doing, f)
}

// writeWithin gives the transaction another bound of time; 0 stands for none.
func (db *DB) writeWithin(ctx context.Context, patience time.Duration, doing string, f func(ctx context.Context, w *writer) error) error {
	s, err := db.take(ctx)
	if err != nil {
		return db.fail(doing, err)
	}
	defer func() { db.slots <- s }()
	ctx = context.WithoutCancel(ctx)
	for try := 0; ; try++ {
		err := db.attempt(ctx, s, patience, f)
		if err == nil {
			return nil
		}
		if try == db.dialect.Retries || db.dialect.Classify(err) != ClassBusy {
			return db.fail(doing, err)
		}
		// Whoever was in the way is to get out of it: some milliseconds, more
		// each time, and not all for the same time.
		time.Sleep(rand.N(time.Millisecond << try))
	}
}

// attempt runs f in a transaction once, on a connection that is known to work.
func (db *DB) attempt(ctx context.Context, s *slot, patience time.Duration, f func(ctx context.Context, w *writer) error) error {
	if patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	for {
		w, err := db.openWriter(ctx, s)
		if err == nil {
			old := w.used
			var begun bool
			begun, err = w.transact(ctx, f)
			if err == nil {
				db.countFresh(w.fresh)
				return nil
			}
			if w.broken(err, db.dialect) {
				s.writer = nil
				w.discard()
				// The connection went while it was idle, and nothing was done.
				if old && !begun && ctx.Err() == nil {
					continue
				}
			}
		}
		if ctx.Err() != nil {
			return unanswered(err)
		}
		return err
	}
}

func unanswered(err error) error {
	return &relay.Error{Code: relay.Unavailable, Text: "The store does not answer.",
		Advice: "Check the store's server and the way to it; work resumes by itself.", Err: err}
}

var errClosed = &relay.Error{Code: relay.Unavailable, Text: "The store is closed.", Advice: "Wait until the relay has started again."}

// take waits for a slot.
func (db *DB) take(ctx context.Context) (*slot, error) {
	select {
	case s := <-db.slots:
		return s, nil
	case <-db.done:
		return nil, errClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// exclusive runs f while nobody writes, where there is one slot. The context that
// f gets is not cancelled with ctx.
func (db *DB) exclusive(ctx context.Context, f func(context.Context) error) error {
	s, err := db.take(ctx)
	if err != nil {
		return err
	}
	defer func() { db.slots <- s }()
	return f(context.WithoutCancel(ctx))
}

func (db *DB) openWriter(ctx context.Context, s *slot) (*writer, error) {
	if s.writer != nil {
		return s.writer, nil
	}
	conn, err := db.writers.Conn(ctx)
	if err != nil {
		return nil, err
	}
	s.writer = &writer{conn: conn, number: s.number, dialect: &db.dialect, clock: db.clock, claims: db.dialect.claims(), prep: map[string]*sql.Stmt{}, bound: map[string]string{},
		fresh: map[string]int64{}}
	return s.writer, nil
}

func (w *writer) close() error { return errors.Join(w.unprepare(), w.conn.Close()) }

func (w *writer) unprepare() error {
	var errs []error
	for _, s := range w.prep {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// errNoRollback means that a transaction could be neither committed nor rolled
// back, as far as the connection can tell.
var errNoRollback = errors.New("roll back")

// broken tells whether the connection is not to be used again.
func (w *writer) broken(err error, d Dialect) bool {
	return errors.Is(err, errNoRollback) || errors.Is(err, driver.ErrBadConn) || d.Classify(err) == ClassAway
}

// discard closes the connection for good instead of giving it back to the
// pool: the transaction that may hang on it ends with it.
func (w *writer) discard() {
	// What goes wrong here was wrong before, and that is being reported. The
	// statements go first, while they have a connection. The function's error
	// tells database/sql to drop it.
	_ = w.unprepare()
	_ = w.conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = w.conn.Close()
}

// transact tells too whether the transaction was begun at all.
func (w *writer) transact(ctx context.Context, f func(ctx context.Context, w *writer) error) (begun bool, err error) {
	if _, err := w.exec(ctx, w.dialect.Begin); err != nil {
		return false, err
	}
	clear(w.fresh)
	err = f(ctx, w)
	if err == nil {
		if err = w.send(ctx, "commit"); err == nil {
			err = w.flush(ctx)
		}
	}
	if err == nil {
		w.used = true
		return true, nil
	}
	w.later = nil
	if _, rollback := w.exec(ctx, "rollback"); rollback != nil {
		// SQLite rolls back by itself when the disk is full or fails; the
		// second roll back is an error then. A fresh connection is sure.
		return true, fmt.Errorf("%w (%w: %v)", err, errNoRollback, rollback)
	}
	return true, err
}

// stmt gives the prepared statement. The texts are constants, or vary by a
// small number of places, so that the map stays small.
func (w *writer) stmt(ctx context.Context, text string) (*sql.Stmt, error) {
	if s := w.prep[text]; s != nil {
		return s, nil
	}
	s, err := w.conn.PrepareContext(ctx, w.dialect.rebind(text))
	if err != nil {
		return nil, err
	}
	w.prep[text] = s
	return s, nil
}

// bind gives the text as the engine wants it.
func (w *writer) bind(text string) string {
	b, known := w.bound[text]
	if !known {
		b = w.dialect.rebind(text)
		w.bound[text] = b
	}
	return b
}

// send is exec for a statement whose result nobody wants. Where the engine takes
// several statements at once it goes out with the next one whose result somebody
// does want, or with the commit; so it is they that tell of its error, and args
// must not change until then.
func (w *writer) send(ctx context.Context, text string, args ...any) error {
	if w.dialect.Pipeline != nil {
		w.later = append(w.later, Statement{w.bind(text), args})
		return nil
	}
	_, err := w.exec(ctx, text, args...)
	return err
}

// flush sends what waits to be sent.
func (w *writer) flush(ctx context.Context) error {
	if len(w.later) == 0 {
		return nil
	}
	later := w.later
	w.later = nil
	return w.dialect.Pipeline(ctx, w.conn, later)
}

// exec runs a statement and gives the number of rows that it changed.
func (w *writer) exec(ctx context.Context, text string, args ...any) (int64, error) {
	if err := w.flush(ctx); err != nil {
		return 0, err
	}
	var r sql.Result
	var err error
	if !w.dialect.Prepare {
		r, err = w.conn.ExecContext(ctx, w.bind(text), args...)
	} else if s, failed := w.stmt(ctx, text); failed != nil {
		err = failed
	} else {
		r, err = s.ExecContext(ctx, args...)
	}
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// query runs a statement and calls row for each of its rows.
func (w *writer) query(ctx context.Context, text string, row func(scanner) error, args ...any) error {
	if err := w.flush(ctx); err != nil {
		return err
	}
	var rows *sql.Rows
	var err error
	if !w.dialect.Prepare {
		rows, err = w.conn.QueryContext(ctx, w.bind(text), args...)
	} else if s, failed := w.stmt(ctx, text); failed != nil {
		err = failed
	} else {
		rows, err = s.QueryContext(ctx, args...)
	}
	if err != nil {
		return err
	}
	return each(rows, row)
}

// holds makes sure that a lease lasts until the transaction ends, or says
// ErrLeaseLost: what is leased after its end would never be released. Where one
// node is alone, nobody ends its lease.
func (w *writer) holds(ctx context.Context, lease int64) error {
	if w.dialect.Single {
		return nil
	}
	found := false
	err := w.query(ctx, "select lease from node where lease = ? "+w.dialect.Share, func(scanner) error {
		found = true
		return nil
	}, lease)
	if err == nil && !found {
		err = leaseLost(lease)
	}
	return err
}

// read runs a query on the readers and calls row for each row.
func (db *DB) read(ctx context.Context, text string, row func(scanner) error, args ...any) error {
	asked := ctx
	if db.dialect.Patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 3*db.dialect.Patience)
		defer cancel()
	}
	err := db.readIn(ctx, text, row, args...)
	if err != nil && ctx.Err() != nil && asked.Err() == nil {
		return unanswered(err)
	}
	return err
}

func (db *DB) readIn(ctx context.Context, text string, row func(scanner) error, args ...any) error {
	rows, err := db.readers.QueryContext(ctx, db.dialect.rebind(text), args...)
	if err != nil {
		return err
	}
	return each(rows, row)
}

type scanner interface{ Scan(...any) error }

func each(rows *sql.Rows, row func(scanner) error) error {
	defer rows.Close()
	for rows.Next() {
		if err := row(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// rebind numbers the placeholders where the engine wants it. No statement has a
// question mark in a literal.
func (d *Dialect) rebind(text string) string {
	if !d.Numbered {
		return text
	}
	var b strings.Builder
	for n := 1; ; n++ {
		before, after, found := strings.Cut(text, "?")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		b.WriteString("$" + strconv.Itoa(n))
		text = after
	}
}
