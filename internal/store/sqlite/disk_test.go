package sqlite

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"postrider/internal/relay"
	"postrider/internal/store/storetest"
)

// TestReserve lets the disk become nearly full: new mail is refused, outcomes
// are stored, the log gives its room back, and mail is taken again when there is
// room, also where that is inside the file.
func TestReserve(t *testing.T) {
	const total = 100 << 20 // so 10 MiB are kept free
	var free atomic.Int64
	free.Store(total)
	path := filepath.Join(t.TempDir(), "mail.db")
	db, err := openOn(t.Context(), disk{path, func(string) (int64, int64, error) { return free.Load(), total, nil }}, slog.Default(), writerPragmas)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	account, err := db.EnsureAccount(t.Context(), "me")
	if err != nil {
		t.Fatal(err)
	}
	put := func(size int) (*relay.Submission, error) {
		s := storetest.Submission(account, time.Now(), bytes.Repeat([]byte("x"), size), "a@x.test")
		return s, db.Put(t.Context(), 0, []*relay.Submission{s})[0]
	}
	kept, err := put(8 << 20)
	if err != nil {
		t.Fatal(err)
	}
	free.Store(9 << 20)
	if _, err := put(100); relay.CodeOf(err) != relay.Full {
		t.Errorf("put into the reserve: %v", err)
	}
	o := relay.Outcome{Delivery: kept.Deliveries[0].ID, Account: account, Kind: relay.EventDelivered, At: time.Now(),
		Attempt: &relay.Attempt{Started: time.Now()}, Reply: relay.Reply{Code: 250, Text: "ok"}}
	if err := db.Settle(t.Context(), 0, []relay.Outcome{o})[0]; err != nil {
		t.Errorf("settle while full: %v", err)
	}
	for start := time.Now(); ; {
		i, err := os.Stat(path + "-wal")
		if err == nil && i.Size() == 0 {
			break
		}
		if time.Since(start) > time.Minute {
			t.Fatalf("the log still has %d bytes (%v)", i.Size(), err)
		}
		<-time.After(20 * time.Millisecond)
	}
	// What was delivered has left 8 MiB inside the file.
	if _, err := put(1 << 20); err != nil {
		t.Errorf("put into what was delivered: %v", err)
	}
	free.Store(1 << 20)
	if _, err := put(100); relay.CodeOf(err) != relay.Full {
		t.Errorf("put with no room for the log: %v", err)
	}
	free.Store(total)
	if _, err := put(100); err != nil {
		t.Errorf("put with room again: %v", err)
	}
}

// TestReserveFailsAlone: only the message that has no room is refused.
func TestReserveFailsAlone(t *testing.T) {
	const total = 100 << 20
	path := filepath.Join(t.TempDir(), "mail.db")
	db, err := openOn(t.Context(), disk{path, func(string) (int64, int64, error) { return 12 << 20, total, nil }}, slog.Default(), writerPragmas)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	account, err := db.EnsureAccount(t.Context(), "me")
	if err != nil {
		t.Fatal(err)
	}
	small := func() *relay.Submission {
		return storetest.Submission(account, time.Now(), []byte("x"), "a@x.test")
	}
	large := storetest.Submission(account, time.Now(), make([]byte, 3<<20), "a@x.test")
	errs := db.Put(t.Context(), 0, []*relay.Submission{small(), large, small()})
	if errs[0] != nil || relay.CodeOf(errs[1]) != relay.Full || errs[2] != nil {
		t.Errorf("got %v", errs)
	}
}

// TestPrivate: nobody else may read mail, whatever the folder's rights.
func TestPrivate(t *testing.T) {
	_, path, _ := opened(t)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		i, err := os.Stat(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if i.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path+suffix, i.Mode())
		}
	}
}
