package logbench

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	_ "modernc.org/sqlite"
)

// tables that are filled, with their columns.
var tables = []struct{ name, columns string }{{"message", messageColumns}, {"delivery", deliveryColumns}, {"event", eventColumns}}

// sink takes rows of the tables.
type sink interface {
	put(ctx context.Context, table int, rows [][]any) error
	close(ctx context.Context) error
}

// fill puts mail into an empty store, past the program: as many events as that,
// with their messages and deliveries.
func (b *bench) fill(ctx context.Context, to sink) error {
	began := time.Now()
	mail := newGenerator(began.Add(-span-slack), int(float64(b.o.Events)/eventsOfMessage))
	var rows [3][][]any
	var counts [3]int
	flush := func(least int) error {
		for i := range rows {
			if len(rows[i]) < least || len(rows[i]) == 0 {
				continue
			}
			if err := to.put(ctx, i, rows[i]); err != nil {
				return fmt.Errorf("fill %s: %w", tables[i].name, err)
			}
			counts[i] += len(rows[i])
			rows[i] = rows[i][:0]
		}
		return ctx.Err()
	}
	told := began
	for counts[2]+len(rows[2]) < b.o.Events {
		m := mail.next()
		rows[0] = append(rows[0], m.row)
		rows[1] = append(rows[1], m.deliveries...)
		rows[2] = append(rows[2], m.events...)
		if err := flush(10_000); err != nil {
			return err
		}
		if time.Since(told) > 10*time.Second {
			told = time.Now()
			b.say("filled %d of %d events", counts[2], b.o.Events)
		}
	}
	if err := flush(0); err != nil {
		return err
	}
	if err := to.close(ctx); err != nil {
		return fmt.Errorf("finish filling: %w", err)
	}
	b.result.Messages, b.result.Deliveries, b.result.Events = counts[0], counts[1], counts[2]
	b.result.FillSeconds = time.Since(began).Seconds()
	return nil
}

// slack is how long before now the last message was accepted: all that became of
// it lies in the past.
const slack = 49 * time.Hour

// eventsOfMessage is how many events a message has, on average.
const eventsOfMessage = 3.11

// lite fills an SQLite file.
type lite struct {
	db   *sql.DB
	conn *sql.Conn
	many [3]*sql.Stmt
	n    int
}

const liteRows = 40 // in one statement

func openLite(ctx context.Context, path string) (*lite, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(wal)&_pragma=synchronous(off)&_pragma=cache_size(-262144)")
	if err != nil {
		return nil, err
	}
	l := &lite{db: db}
	if l.conn, err = db.Conn(ctx); err != nil {
		return nil, err
	}
	for i, t := range tables {
		row := "(?" + strings.Repeat(", ?", strings.Count(t.columns, ",")) + ")"
		if l.many[i], err = l.conn.PrepareContext(ctx, "insert into "+t.name+" ("+t.columns+") values "+row+strings.Repeat(", "+row, liteRows-1)); err != nil {
			return nil, err
		}
	}
	_, err = l.conn.ExecContext(ctx, "begin")
	return l, err
}

func (l *lite) put(ctx context.Context, table int, rows [][]any) error {
	for len(rows) > 0 {
		some := rows[:min(len(rows), liteRows)]
		rows = rows[len(some):]
		var args []any
		for _, r := range some {
			args = append(args, r...)
		}
		var err error
		if len(some) == liteRows {
			_, err = l.many[table].ExecContext(ctx, args...)
		} else {
			t := tables[table]
			row := "(?" + strings.Repeat(", ?", strings.Count(t.columns, ",")) + ")"
			_, err = l.conn.ExecContext(ctx, "insert into "+t.name+" ("+t.columns+") values "+row+strings.Repeat(", "+row, len(some)-1), args...)
		}
		if err != nil {
			return err
		}
	}
	if l.n++; l.n%20 == 0 {
		_, err := l.conn.ExecContext(ctx, "commit; begin")
		return err
	}
	return nil
}

func (l *lite) close(ctx context.Context) error {
	for _, s := range []string{"commit", "pragma wal_checkpoint(truncate)"} {
		if _, err := l.conn.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	l.conn.Close()
	return l.db.Close()
}

// server fills a PostgreSQL database.
type server struct{ conn *pgx.Conn }

func (s server) put(ctx context.Context, table int, rows [][]any) error {
	t := tables[table]
	_, err := s.conn.CopyFrom(ctx, pgx.Identifier{t.name}, strings.Split(t.columns, ", "), pgx.CopyFromRows(rows))
	return err
}

func (s server) close(ctx context.Context) error {
	if _, err := s.conn.Exec(ctx, "vacuum analyze"); err != nil {
		return err
	}
	return s.conn.Close(ctx)
}
