package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strconv"
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
const Latest = 12

// migrate takes the schema to version to, forward only, each migration in a
// transaction of its own. It refuses a database that a newer program changed in a
// way that this one does not understand.
func (db *DB) migrate(ctx context.Context, to int) error {
	texts, err := migrationTexts()
	if err != nil {
		return err
	}
	prepare := func(ctx context.Context, w *writer) error {
		_, err := w.conn.ExecContext(ctx, "create table if not exists schema_version (version bigint not null primary key, applied bigint not null)")
		return err
	}
	err = db.write(ctx, "prepare schema", prepare)
	if err != nil && db.dialect.Classify(err) == ClassConstraint {
		// Another node made it at the same time.
		err = db.write(ctx, "prepare schema", prepare)
	}
	if err != nil {
		return err
	}
	for others := 0; ; {
		done := false
		err := db.writeWithin(ctx, 0, "migrate", func(ctx context.Context, w *writer) error {
			have, err := schemaVersion(ctx, w)
			if err != nil {
				return err
			}
			if done = have >= to; done {
				return w.serves(ctx, have)
			}
			return w.migrateTo(ctx, have+1, texts[have])
		})
		if err != nil && others < Latest && db.dialect.Classify(err) == ClassConstraint {
			others++ // another node has just made this step
			continue
		}
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

// serves refuses a schema that is newer than the program, unless each step since
// says that programs as old as this one can go on with it. So nodes of two
// versions work side by side while they are upgraded one after the other.
func (w *writer) serves(ctx context.Context, have int) error {
	if have <= Latest {
		return nil
	}
	needs := 0
	err := w.query(ctx, "select max(case when serves = 0 then version else serves end) from schema_version where version > ?", func(row scanner) error {
		return row.Scan(&needs)
	}, Latest)
	if err != nil || needs <= Latest {
		return err
	}
	return &relay.Error{Code: relay.Conflict,
		Text:   fmt.Sprintf("The store has schema %d, made by a newer Postrider; this one knows schema %d.", have, Latest),
		Advice: "Run the newer version, or restore a backup from before the upgrade."}
}

// servesLine finds in a migration the oldest schema whose programs can go on.
var servesLine = regexp.MustCompile(`(?m)^-- serves programs from schema (\d+)$`)

// oldestServed is that schema, or 0 where no older program can go on.
func oldestServed(text string) (int, error) {
	found := servesLine.FindStringSubmatch(text)
	if found == nil {
		return 0, nil
	}
	return strconv.Atoi(found[1])
}

// others refuses a step that the nodes which run now would not understand.
func (w *writer) others(ctx context.Context, version, oldest int) error {
	if w.dialect.Single || version <= 2 || oldest > 0 && oldest < version {
		return nil
	}
	var names []string
	err := w.query(ctx, "select name from node where beat >= "+w.dialect.Now+" - ? order by name", func(row scanner) error {
		var name string
		err := row.Scan(&name)
		names = append(names, name)
		return err
	}, relay.LeaseTime.Microseconds())
	if err != nil || len(names) == 0 {
		return err
	}
	return &relay.Error{Code: relay.Conflict,
		Text:   fmt.Sprintf("Schema %d is more than an older Postrider understands, and there are nodes that run: %s.", version, strings.Join(names, ", ")),
		Advice: "Stop them first; docs/cluster.md has the order."}
}

// migrateTo runs one migration in the transaction that is open.
func (w *writer) migrateTo(ctx context.Context, version int, text string) error {
	if w.dialect.Unhurried != "" {
		if _, err := w.exec(ctx, w.dialect.Unhurried); err != nil {
			return fmt.Errorf("make schema %d: %w", version, err)
		}
	}
	// First, so that of two nodes that start together one waits for the other
	// here and then fails on the key.
	if _, err := w.exec(ctx, "insert into schema_version (version, applied) values (?, "+w.dialect.Now+")", version); err != nil {
		return fmt.Errorf("record schema %d: %w", version, err)
	}
	oldest, err := oldestServed(text)
	if err != nil {
		return fmt.Errorf("read migration %d: %w", version, err)
	}
	if err := w.others(ctx, version, oldest); err != nil {
		return err
	}
	for statement := range strings.SplitSeq(w.dialect.Schema(text), ";\n") {
		if strings.TrimSpace(statement) == "" {
			continue
		}
		if _, err := w.conn.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("make schema %d: %w", version, err)
		}
	}
	if oldest > 0 {
		if _, err := w.exec(ctx, "update schema_version set serves = ? where version = ?", oldest, version); err != nil {
			return fmt.Errorf("record whom schema %d serves: %w", version, err)
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
	db := bare(d, handle, 1)
	return errors.Join(db.migrate(ctx, version), db.Close())
}

// Upgrade takes the schema one step beyond what it is, as a program that is newer
// than this one would, for tests of programs side by side. It closes the handle.
func Upgrade(ctx context.Context, d Dialect, handle *sql.DB, migration string) error {
	db := bare(d, handle, 1)
	err := db.write(ctx, "upgrade", func(ctx context.Context, w *writer) error {
		have, err := schemaVersion(ctx, w)
		if err != nil {
			return err
		}
		return w.migrateTo(ctx, have+1, migration)
	})
	return errors.Join(err, db.Close())
}
