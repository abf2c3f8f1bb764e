package sqlite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postrider/internal/relay"
	"postrider/internal/store"
	"postrider/internal/store/storetest"
)

// putSome puts n messages of some size and gives their ids.
func putSome(t *testing.T, db *store.DB, account relay.ID, n, size int) (ids []relay.ID) {
	t.Helper()
	var batch []*relay.Submission
	for i := range n {
		s := storetest.Submission(account, time.Now(), make([]byte, size), fmt.Sprintf("%d@x.test", i))
		batch, ids = append(batch, s), append(ids, s.Message.ID)
	}
	for _, err := range db.Put(t.Context(), 0, batch) {
		if err != nil {
			t.Fatal(err)
		}
	}
	return ids
}

// nothingElse sees to it that only these files are in the folder.
func nothingElse(t *testing.T, folder string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(names, " ") {
		t.Errorf("the folder has %q, want %q", got, names)
	}
}

// A backup made while mail is put has all that was put before, is whole, is its
// owner's only, and can be restored; the log does not grow by what is put
// meanwhile.
func TestBackupInUse(t *testing.T) {
	db, _, account := opened(t)
	ids := putSome(t, db, account, 40, 1<<20)
	file := filepath.Join(t.TempDir(), "copy.db")
	steps := 0
	err := db.Backup(t.Context(), file, func(done, total int64) {
		if steps++; steps == 1 {
			ids = append(ids, putSome(t, db, account, 20, 1<<20)...) // changes what is copied already
		}
		if done > total || total < 40<<20 {
			t.Errorf("%d of %d bytes", done, total)
		}
	})
	if err != nil || steps < 2 {
		t.Fatalf("%d steps, %v", steps, err)
	}
	i, err := os.Stat(file)
	if err != nil || i.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", i.Mode(), err)
	}
	nothingElse(t, filepath.Dir(file), "copy.db")
	place := filepath.Join(t.TempDir(), "mail.db")
	out, err := Restore(t.Context(), file, place, Restoring{Log: slog.Default()})
	if err != nil || out.Messages != len(ids) || out.Waiting != len(ids) || out.Aside != "" {
		t.Fatalf("%+v, %v", out, err)
	}
	restored, err := Open(t.Context(), place, slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	defer restored.Close()
	for i, id := range ids {
		if _, err := restored.Content(t.Context(), id); err != nil {
			t.Fatalf("message %d of %d: %v", i, len(ids), err)
		}
	}
	// The store itself is as before.
	putSome(t, db, account, 1, 100)
	again := filepath.Join(t.TempDir(), "again.db")
	if err := db.Backup(t.Context(), again, nil); err != nil {
		t.Fatal(err)
	}
	if c, err := Check(t.Context(), again); err != nil || c.Messages != len(ids)+1 {
		t.Errorf("%+v, %v", c, err)
	}
}

// A backup that does not end well leaves no file, and the next one works.
func TestBackupFails(t *testing.T) {
	db, path, account := opened(t)
	putSome(t, db, account, 10, 1<<20)
	folder := t.TempDir()
	file := filepath.Join(folder, "copy.db")

	cancelled, cancel := context.WithCancel(t.Context())
	if err := db.Backup(cancelled, file, func(int64, int64) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	nothingElse(t, folder)

	var second error
	err := db.Backup(t.Context(), file, func(done, _ int64) {
		if second == nil {
			second = db.Backup(t.Context(), filepath.Join(t.TempDir(), "other.db"), nil)
		}
	})
	if err != nil || relay.CodeOf(second) != relay.Conflict {
		t.Errorf("two at once: %v, %v", err, second)
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Backup(t.Context(), file, nil); relay.CodeOf(err) != relay.Conflict {
		t.Errorf("over another: %v", err)
	}
	if after, err := os.ReadFile(file); err != nil || string(after) != string(before) {
		t.Errorf("it was changed: %v", err)
	}
	for _, bad := range []string{filepath.Join(folder, "none", "copy.db"), path} {
		if err := db.Backup(t.Context(), bad, nil); err == nil {
			t.Errorf("into %s", bad)
		}
	}
	if err := Backup(t.Context(), path, filepath.Join(folder, "cold.db"), nil); relay.CodeOf(err) != relay.Conflict {
		t.Errorf("of a store in use, past who uses it: %v", err)
	}
	nothingElse(t, folder, "copy.db")
}

// A backup stops before it takes the room that the mail needs.
func TestBackupLeavesRoom(t *testing.T) {
	folder, out := t.TempDir(), t.TempDir()
	const total = 100 << 20 // so 10 MiB are to stay free
	space := func(path string) (int64, int64, error) {
		if strings.HasPrefix(path, out) {
			return 12 << 20, total, nil
		}
		return total, total, nil
	}
	db, err := openOn(t.Context(), disk{filepath.Join(folder, "mail.db"), space}, slog.Default(), writerPragmas)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	account, err := db.EnsureAccount(t.Context(), "me")
	if err != nil {
		t.Fatal(err)
	}
	putSome(t, db, account, 10, 1<<20)
	if err := db.Backup(t.Context(), filepath.Join(out, "copy.db"), nil); relay.CodeOf(err) != relay.Full {
		t.Errorf("got %v", err)
	}
	nothingElse(t, out)
}

// When the connection that writes is given up, the copy that hangs on it ends
// with an error, and nothing worse happens.
func TestBackupConnectionLost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mail.db")
	from := &source{}
	conn, err := connector{path: path, pragmas: writerPragmas, source: from}.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	alone := func(ctx context.Context, f func(context.Context) error) error { return f(ctx) }
	folder := t.TempDir()
	full := conn.(*watched)
	if _, err := full.ExecContext(t.Context(), "create table x as select zeroblob(5000000) as b", nil); err != nil {
		t.Fatal(err)
	}
	err = from.backup(t.Context(), alone, space, filepath.Join(folder, "copy.db"), func(int64, int64) {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	if relay.CodeOf(err) != relay.Unavailable {
		t.Errorf("got %v", err)
	}
	nothingElse(t, folder)
}

// cold makes a closed store with n waiting messages and a backup of it.
func cold(t *testing.T, n int) (path, file string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "mail.db")
	db, err := Open(t.Context(), path, slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	account, err := db.EnsureAccount(t.Context(), "me")
	if err != nil {
		t.Fatal(err)
	}
	lease, err := db.Join(t.Context(), "node")
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		s := storetest.Submission(account, time.Now(), []byte("x"), fmt.Sprintf("%d@x.test", i))
		s.InHand = i%2 == 0
		if err := db.Put(t.Context(), lease, []*relay.Submission{s})[0]; err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "copy.db")
	if err := Backup(t.Context(), path, file, nil); err != nil {
		t.Fatal(err)
	}
	return path, file
}

func TestRestoreHolds(t *testing.T) {
	const n = 1005 // more than a page of the search
	path, file := cold(t, n)
	if _, err := Restore(t.Context(), file, path, Restoring{Log: slog.Default()}); relay.CodeOf(err) != relay.Conflict {
		t.Errorf("over a store: %v", err)
	}
	out, err := Restore(t.Context(), file, path, Restoring{Force: true, Hold: true, Log: slog.Default()})
	if err != nil || out.Held != n || out.Waiting != n {
		t.Fatalf("%+v, %v", out, err)
	}
	nothingElse(t, filepath.Dir(path), "mail.db", filepath.Base(out.Aside), "mail.db.lock")
	if c, err := Check(t.Context(), out.Aside); err != nil || c.Waiting != n {
		t.Errorf("the old store: %+v, %v", c, err)
	}
	db, err := Open(t.Context(), path, slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	held, err := db.Deliveries(t.Context(), relay.Everyone, relay.DeliveryFilter{States: []relay.State{relay.Held}, Limit: 2 * n})
	if err != nil || len(held) != n {
		t.Fatalf("%d held, %v", len(held), err)
	}
	story, err := db.Story(t.Context(), relay.Everyone, held[0].ID.Message)
	if err != nil || story.Events[len(story.Events)-1].Kind != relay.EventHeld {
		t.Errorf("%+v, %v", story, err)
	}
	if _, err := Restore(t.Context(), file, path, Restoring{Force: true, Log: slog.Default()}); relay.CodeOf(err) != relay.Conflict {
		t.Errorf("under a relay that runs: %v", err)
	}
}

// What can't be restored changes nothing.
func TestRestoreRefuses(t *testing.T) {
	path, file := cold(t, 20)
	spoil := func(name string, f func(string) error) string {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		bad := filepath.Join(t.TempDir(), name)
		if err := errors.Join(os.WriteFile(bad, b, 0o600), f(bad)); err != nil {
			t.Fatal(err)
		}
		return bad
	}
	exec := func(statement string) func(string) error {
		return func(file string) error {
			db := handle(file, 1, []string{"journal_mode=delete"})
			_, err := db.Exec(statement)
			return errors.Join(err, db.Close())
		}
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"newer Postrider": spoil("newer.db", exec(fmt.Sprintf("insert into schema_version (version, applied) values (%d, 0)", store.Latest+1))),
		"no Postrider":    spoil("other.db", exec("drop table event")),
		"damaged":         spoil("damaged.db", func(f string) error { return os.Truncate(f, 20<<10) }),
		"another program": spoil("text.db", func(f string) error { return os.WriteFile(f, []byte(strings.Repeat("no database ", 1000)), 0o600) }),
		"empty":           spoil("empty.db", func(f string) error { return os.Truncate(f, 0) }),
		"no such file":    filepath.Join(t.TempDir(), "none"),
	} {
		if _, err := Restore(t.Context(), bad, path, Restoring{Force: true, Hold: true, Log: slog.Default()}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("the store was changed: %v", err)
	}
	nothingElse(t, filepath.Dir(path), "mail.db", "mail.db.lock")
}
