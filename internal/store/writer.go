package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"postrider/internal/relay"
)

// writer is the connection that writes, with the statements prepared on it.
// Only who holds the turn uses it.
type writer struct {
	conn    *sql.Conn
	dialect *Dialect
	claims  claims               // in words of the dialect
	prep    map[string]*sql.Stmt // by the text before rebinding
}

// write runs f in a transaction when it is its turn. The wait ends with ctx;
// the transaction, once begun, does not: it commits or rolls back as a whole
// and leaves the connection fit for the next one.
func (db *DB) write(ctx context.Context, doing string, f func(ctx context.Context, w *writer) error) error {
	err := db.exclusive(ctx, func(ctx context.Context) error {
		w, err := db.openWriter(ctx)
		if err != nil {
			return err
		}
		if err := w.transact(ctx, f); err != nil {
			if w.broken(err, db.dialect) {
				db.writer = nil
				w.discard()
			}
			return err
		}
		return nil
	})
	if err != nil {
		return db.fail(doing, err)
	}
	return nil
}

var errClosed = &relay.Error{Code: relay.Unavailable, Text: "The store is closed.", Advice: "Wait until the relay has started again."}

// exclusive runs f while nobody writes. The context that f gets is not
// cancelled with ctx.
func (db *DB) exclusive(ctx context.Context, f func(context.Context) error) error {
	select {
	case <-db.turn:
	case <-db.done:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { db.turn <- struct{}{} }()
	return f(context.WithoutCancel(ctx))
}

func (db *DB) openWriter(ctx context.Context) (*writer, error) {
	if db.writer != nil {
		return db.writer, nil
	}
	conn, err := db.writers.Conn(ctx)
	if err != nil {
		return nil, err
	}
	db.writer = &writer{conn: conn, dialect: &db.dialect, claims: db.dialect.claims(), prep: map[string]*sql.Stmt{}}
	return db.writer, nil
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

func (w *writer) transact(ctx context.Context, f func(ctx context.Context, w *writer) error) error {
	if _, err := w.exec(ctx, w.dialect.Begin); err != nil {
		return err
	}
	err := f(ctx, w)
	if err == nil {
		_, err = w.exec(ctx, "commit")
	}
	if err == nil {
		return nil
	}
	if _, rollback := w.exec(ctx, "rollback"); rollback != nil {
		// SQLite rolls back by itself when the disk is full or fails; the
		// second roll back is an error then. A fresh connection is sure.
		return fmt.Errorf("%w (%w: %v)", err, errNoRollback, rollback)
	}
	return err
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

// exec runs a statement and gives the number of rows that it changed.
func (w *writer) exec(ctx context.Context, text string, args ...any) (int64, error) {
	s, err := w.stmt(ctx, text)
	if err != nil {
		return 0, err
	}
	r, err := s.ExecContext(ctx, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// query runs a statement and calls row for each of its rows.
func (w *writer) query(ctx context.Context, text string, row func(scanner) error, args ...any) error {
	s, err := w.stmt(ctx, text)
	if err != nil {
		return err
	}
	rows, err := s.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	return each(rows, row)
}

// read runs a query on the readers and calls row for each row.
func (db *DB) read(ctx context.Context, text string, row func(scanner) error, args ...any) error {
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
