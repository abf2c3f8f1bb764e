package sqlite

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"

	"postrider/internal/store"
	"postrider/internal/store/storetest"
)

var engine = storetest.Engine{
	New:     func(t testing.TB) string { return filepath.Join(t.TempDir(), "a?b%20 c#.db") },
	Open:    func(ctx context.Context, place string) (*store.DB, error) { return Open(ctx, place, slog.Default()) },
	Migrate: Migrate,
	Exec: func(ctx context.Context, place, statement string) error {
		db := handle(place, 1, writerPragmas)
		defer db.Close()
		_, err := db.ExecContext(ctx, statement)
		return err
	},
}

func TestStore(t *testing.T) { storetest.Run(t, engine) }

func BenchmarkMail(b *testing.B) { storetest.BenchmarkMail(b, engine) }
