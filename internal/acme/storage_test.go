package acme

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"postrider/internal/seal"
	"postrider/internal/store"
	"postrider/internal/store/sqlite"
)

func newFiles(t *testing.T) (*store.DB, *seal.Box) {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "mail.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	box, err := seal.New(seal.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	return db, box
}

// TestStorage has what certmagic asks of a storage.
func TestStorage(t *testing.T) {
	db, box := newFiles(t)
	s, ctx := newStorage(db, box), t.Context()
	for _, key := range []string{"a/b/one", "a/b/two", "a/three", "ab/four"} {
		if err := s.Store(ctx, key, []byte(key)); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.PutFile(ctx, "mta-sts/other", nil); err != nil { // of somebody else
		t.Fatal(err)
	}
	if v, err := s.Load(ctx, "a/b/one"); err != nil || string(v) != "a/b/one" {
		t.Errorf("load: %q, %v", v, err)
	}
	if _, err := s.Load(ctx, "a/b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("load a folder: %v", err)
	}
	for _, tt := range []struct {
		path      string
		recursive bool
		want      string
	}{
		{"a", false, "[a/b a/three]"},
		{"a", true, "[a/b a/b/one a/b/two a/three]"},
		{"a/b", false, "[a/b/one a/b/two]"},
		{"", false, "[a ab]"},
	} {
		if got, err := s.List(ctx, tt.path, tt.recursive); err != nil || fmt.Sprint(got) != tt.want {
			t.Errorf("list %q %v: %v, %v; want %s", tt.path, tt.recursive, got, err, tt.want)
		}
	}
	if _, err := s.List(ctx, "none", true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("list what is not there: %v", err)
	}
	for key, want := range map[string]bool{"a": true, "a/b": true, "a/b/one": true, "a/b/o": false, "b": false} {
		if got := s.Exists(ctx, key); got != want {
			t.Errorf("%s exists: %v", key, got)
		}
	}
	if i, err := s.Stat(ctx, "a/three"); err != nil || !i.IsTerminal || time.Since(i.Modified).Abs() > time.Minute {
		t.Errorf("stat: %+v, %v", i, err)
	}
	if i, err := s.Stat(ctx, "a"); err != nil || i.IsTerminal {
		t.Errorf("stat of a folder: %+v, %v", i, err)
	}
	for range 2 { // the second time nothing is there
		if err := s.Delete(ctx, "a"); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := db.Files(ctx, ""); err != nil || len(left) != 2 {
		t.Errorf("left: %v, %v; want ab/four and what is another's", left, err)
	}
}

// TestLock: between nodes, and between parts of one process.
func TestLock(t *testing.T) {
	db, box := newFiles(t)
	one, two := newStorage(db, box), newStorage(db, box)
	if err := one.Lock(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*storage{one, two} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := s.Lock(ctx, "x"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("locked twice: %v", err)
		}
		cancel()
	}
	if err := one.RenewLockLease(t.Context(), "x", time.Minute); err != nil {
		t.Errorf("renew: %v", err)
	}
	if err := two.RenewLockLease(t.Context(), "x", time.Minute); err == nil {
		t.Error("renewed a lock of another's")
	}
	if err := one.Unlock(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	if err := two.Lock(t.Context(), "x"); err != nil {
		t.Error(err)
	}
}
