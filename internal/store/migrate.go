package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"postrider/internal/relay"
)

// migrations lie in order of their numbers, from 1, without gaps. One that was
// released is never changed: what comes after it is a new file.
//
//go:embed migrations/*.sql
var migrations embed.FS

// Latest is the version of the schema that this program works with: the number
// of migrations.
const Latest = 1

// migrate takes the schema to version to, forward only, each migration in a
// transaction of its own. It refuses a database that a newer program made.
func (db *DB) migrate(ctx context.Context, to int) error {
	texts, err := migrationTexts()
	if err != nil {
		return err
	}
	err = db.write(ctx, "prepare schema", func(ctx context.Context, w *writer) error {
		_, err := w.conn.ExecContext(ctx, "create table if not exists schema_version (version bigint not null primary key, applied bigint not null)")
		return err
	})
	if err != nil {
		return err
	}
	for {
		done := false
		err := db.write(ctx, "migrate", func(ctx context.Context, w *writer) error {
			have, err := schemaVersion(ctx, w)
			if err != nil {
				return err
			}
			if have > Latest {
				return &relay.Error{Code: relay.Conflict,
					Text:   fmt.Sprintf("The store has schema %d, made by a newer Postrider; this one knows schema %d.", have, Latest),
					Advice: "Run the newer version, or restore a backup from before the upgrade."}
			}
			if done = have >= to; done {
				return nil
			}
			return w.migrateTo(ctx, have+1, texts[have])
		})
		if err != nil || done {
			return err
		}
	}
}

func schemaVersion(ctx context.Context, w *writer) (version int, err error) {
	err = w.query(ctx, "select coalesce(max(version), 0) from schema_version", func(row scanner) error {
		return row.Scan(&version)
	})
	return version, err
}

// migrateTo runs one migration in the transaction that is open.
func (w *writer) migrateTo(ctx context.Context, version int, text string) error {
	// First, so that of two nodes that start together one waits for the other
	// here and then fails on the key.
	if _, err := w.exec(ctx, "insert into schema_version (version, applied) values (?, "+w.dialect.Now+")", version); err != nil {
		return fmt.Errorf("record schema %d: %w", version, err)
	}
	for statement := range strings.SplitSeq(w.dialect.Schema(text), ";\n") {
		if strings.TrimSpace(statement) == "" {
			continue
		}
		if _, err := w.conn.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("make schema %d: %w", version, err)
		}
	}
	return nil
}

func migrationTexts() ([]string, error) {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return nil, fmt.Errorf("list migrations: %w", err)
	}
	var texts []string
	for i, name := range names {
		if !strings.HasPrefix(name, fmt.Sprintf("migrations/%04d_", i+1)) {
			return nil, fmt.Errorf("migration %s is not number %d", name, i+1)
		}
		text, err := migrations.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read migration: %w", err)
		}
		texts = append(texts, string(text))
	}
	if len(texts) != Latest {
		return nil, fmt.Errorf("there are %d migrations, want %d", len(texts), Latest)
	}
	return texts, nil
}

// Migrate makes the schema of an older version, for tests of the way from
// there. Only New is needed otherwise. It closes the handle.
func Migrate(ctx context.Context, d Dialect, handle *sql.DB, version int) error {
	db := &DB{dialect: d, writers: handle, readers: handle, turn: make(chan struct{}, 1),
		done: make(chan struct{}), stop: func() {}}
	db.turn <- struct{}{}
	return errors.Join(db.migrate(ctx, version), db.Close())
}
