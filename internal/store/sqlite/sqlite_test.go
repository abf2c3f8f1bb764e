package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postrider/internal/relay"
	"postrider/internal/store"
	"postrider/internal/store/storetest"
)

var engine = storetest.Engine{
	Single: true,
	// What a URI or a pragma would take amiss is in the name.
	New:     func(t testing.TB) string { return filepath.Join(t.TempDir(), "a?b%20 c#'.db") },
	Open:    func(ctx context.Context, place string) (*store.DB, error) { return Open(ctx, place, slog.Default()) },
	Migrate: Migrate,
	Upgrade: Upgrade,
	Exec: func(ctx context.Context, place, statement string, args ...any) error {
		db := handle(place, 1, writerPragmas)
		_, err := db.ExecContext(ctx, statement, args...)
		return errors.Join(err, db.Close())
	},
	Look: func(place string) (*sql.DB, error) { return handle(place, 1, writerPragmas), nil },
}

func TestStore(t *testing.T) { storetest.Run(t, engine) }

func BenchmarkMail(b *testing.B) { storetest.BenchmarkMail(b, engine) }

func BenchmarkClaims(b *testing.B) { storetest.BenchmarkClaims(b, engine) }

func BenchmarkSuppressed(b *testing.B) { storetest.BenchmarkSuppressed(b, engine) }

// opened gives a store in a new folder and an account in it.
func opened(t *testing.T, pragmas ...string) (db *store.DB, path string, account relay.ID) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "mail.db")
	db, err := open(t.Context(), path, slog.Default(), slices.Concat(writerPragmas, pragmas))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	account, err = db.EnsureAccount(t.Context(), "me")
	if err != nil {
		t.Fatal(err)
	}
	return db, path, account
}

// TestKilled takes copies of the files while mail is put, as a crash would
// leave them, and opens them: what was acknowledged before the copy is there,
// with its content.
func TestKilled(t *testing.T) {
	db, path, account := opened(t)
	large := bytes.Repeat([]byte("0123456789abcdef"), 20<<10)
	var acked []relay.ID
	for round := range 5 {
		for i := range 20 {
			s := storetest.Submission(account, time.Now(), large[:len(large)/(1+i)], "a@x.test")
			if err := db.Put(t.Context(), 0, []*relay.Submission{s})[0]; err != nil {
				t.Fatal(err)
			}
			acked = append(acked, s.Message.ID)
		}
		folder := t.TempDir()
		for _, suffix := range []string{"", "-wal"} {
			b, err := os.ReadFile(path + suffix)
			if err != nil {
				t.Fatal(err)
			}
			if suffix == "-wal" {
				// The tail of a write that was under way.
				b = append(b, bytes.Repeat([]byte{byte(round)}, 5000)...)
			}
			if err := os.WriteFile(filepath.Join(folder, "mail.db"+suffix), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		copied, err := Open(t.Context(), filepath.Join(folder, "mail.db"), slog.Default())
		if err != nil {
			t.Fatalf("open the copy: %v", err)
		}
		for i, id := range acked {
			c, err := copied.Content(t.Context(), id)
			if err != nil {
				t.Fatalf("message %d of %d: %v", i, len(acked), err)
			}
			r, _ := c.Open()
			b, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(b, large[:len(large)/(1+i%20)]) {
				t.Fatalf("content of message %d differs: %v", i, err)
			}
		}
		if err := copied.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFull lets the file reach a bound, as a full disk would: mail is refused
// with the reason, nothing accepted is lost, and work resumes by itself when
// there is room again.
func TestFull(t *testing.T) {
	db, _, account := opened(t, "max_page_count=600")
	content := bytes.Repeat([]byte("x"), 100<<10)
	var kept []*relay.Submission
	for {
		s := storetest.Submission(account, time.Now(), content, "a@x.test")
		errs := db.Put(t.Context(), 0, []*relay.Submission{s, storetest.Submission(account, time.Now(), content, "b@x.test")})
		if errs[0] == nil {
			kept = append(kept, s)
			continue
		}
		for _, err := range errs {
			if relay.CodeOf(err) != relay.Full {
				t.Fatalf("full: %v", err)
			}
		}
		break
	}
	if len(kept) == 0 {
		t.Fatal("nothing had room")
	}
	for i, s := range kept {
		if _, err := db.Content(t.Context(), s.Message.ID); err != nil {
			t.Errorf("lost: %v", err)
		}
		if i%2 == 0 {
			continue
		}
		o := relay.Outcome{Delivery: s.Deliveries[0].ID, Account: account, Kind: relay.EventDelivered, At: time.Now(), Attempt: &relay.Attempt{}}
		if err := db.Settle(t.Context(), 0, []relay.Outcome{o})[0]; err != nil {
			t.Errorf("settle while full: %v", err)
		}
	}
	if err := db.Put(t.Context(), 0, []*relay.Submission{storetest.Submission(account, time.Now(), content, "a@x.test")})[0]; err != nil {
		t.Errorf("put when there is room again: %v", err)
	}
}

func TestLocked(t *testing.T) {
	_, path, _ := opened(t)
	db, err := Open(t.Context(), path, slog.Default())
	if err == nil {
		db.Close()
	}
	if relay.CodeOf(err) != relay.Conflict || !strings.Contains(err.Error(), "Another Postrider") {
		t.Errorf("opened twice: %v", err)
	}
}

func TestNoDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mail.db")
	if err := os.WriteFile(path, bytes.Repeat([]byte("not a database "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, place := range []string{path, filepath.Join(path, "mail.db")} {
		if db, err := Open(t.Context(), place, slog.Default()); err == nil {
			db.Close()
			t.Errorf("opened %s", place)
		}
	}
	// The lock is free again.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	db, err := Open(t.Context(), path, slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// TestSettings sees to it that commits are synced and that the file is made as
// it was meant.
func TestSettings(t *testing.T) {
	_, path, _ := opened(t)
	db := handle(path, 1, writerPragmas)
	defer db.Close()
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "page_size": "8192", "wal_autocheckpoint": "0"} {
		var got string
		if err := db.QueryRow("pragma " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %s %v, want %s", pragma, got, err, want)
		}
	}
	reader := handle(path, 1, readerPragmas)
	defer reader.Close()
	if _, err := reader.Exec("delete from account"); err == nil {
		t.Error("a reader writes")
	}
}

// TestKeeper sees the log begin anew while commits keep coming.
func TestKeeper(t *testing.T) {
	db, path, account := opened(t)
	watch := handle(path, 1, keeperPragmas)
	defer watch.Close()
	k := &keeper{db: watch, log: slog.Default()}
	content := bytes.Repeat([]byte("x"), 1<<20)
	most := 0
	for n := 0; ; n++ {
		batch := make([]*relay.Submission, 8)
		for i := range batch {
			batch[i] = storetest.Submission(account, time.Now(), content, fmt.Sprintf("%d@x.test", n))
		}
		for _, err := range db.Put(t.Context(), 0, batch) {
			if err != nil {
				t.Fatal(err)
			}
		}
		pages, _, err := k.checkpoint(t.Context(), "noop")
		if err != nil {
			t.Fatal(err)
		}
		if pages < most {
			return
		}
		if most = pages; most > 20*logPages {
			t.Fatalf("the log has %d pages and still grows", pages)
		}
	}
}

// TestPlans keeps the queries of the queue off the log: they must use the
// indexes of what is live.
func TestPlans(t *testing.T) {
	_, path, _ := opened(t)
	db := handle(path, 1, readerPragmas)
	defer db.Close()
	const ofClass = "select due from delivery where lease = 0 and state < 3 and stream = 1 and domain = 'a' and account = x'00'"
	for query, index := range map[string]string{
		ofClass + " and due <= 5 order by due limit 5": "delivery_ready (stream=? AND domain=? AND account=? AND due<?)",
		ofClass + " order by due limit 1":              "COVERING INDEX delivery_ready (stream=? AND domain=? AND account=?)",
		"select due from delivery where lease = 0 and state < 3 and (stream, domain, account) > (1, 'a', x'00') order by stream, domain, account, due limit 1": "COVERING INDEX delivery_ready ((stream,domain,account)>(?,?,?))",
		"update delivery set lease = 0 where lease = 7 and lease > 0 and state < 3":                                                                            "delivery_leased (lease=?)",
		"select lease from node union select lease from delivery where lease > 0 and state < 3":                                                                "delivery_leased (lease>?)",
		"select message, n from delivery where lease = 7 and lease > 0 and state < 3":                                                                          "delivery_leased (lease=?)",
		"select message, n from delivery where lease = 0 and state < 3 and stream > 0":                                                                         "delivery_ready (stream>?)",
		"select message, n from delivery where lease > 0 and state < 3":                                                                                        "delivery_leased (lease>?)",
		"select message, n from delivery where state = 3":                                                                                                      "delivery_held",
		"select 1 from delivery where message = x'00' and state < 10":                                                                                          "COVERING INDEX delivery_live (message=?)",
		"select id from event where message = x'00' order by id":                                                                                               "event_message (message=?)",
		"select d.n from delivery d join message m on m.id = d.message where d.message >= x'00' order by d.message desc":                                       "PRIMARY KEY (message>?)",
	} {
		plan := explain(t, db, query)
		if !strings.Contains(plan, index) || strings.Contains(plan, "SCAN delivery\n") {
			t.Errorf("%s\nis done by\n%s", query, plan)
		}
	}
}

func explain(t *testing.T, db *sql.DB, query string) (plan string) {
	t.Helper()
	rows, err := db.Query("explain query plan " + query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	for rows.Next() {
		var a, b, c int
		var s string
		if err := rows.Scan(&a, &b, &c, &s); err != nil {
			t.Fatal(err)
		}
		plan += s + "\n"
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return plan
}
