package suppression

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"postrider/internal/lab/postgres"
	"postrider/internal/relay"
	"postrider/internal/store"
	pg "postrider/internal/store/postgres"
	"postrider/internal/store/sqlite"
)

var entries = flag.Int("entries", 100_000, "how many suppressions there are when look-ups are measured")

// BenchmarkLookup looks up a recipient that is not suppressed, with all that may
// suppress it, among -entries, as acceptance does for each message: by the store,
// and by the filter.
func BenchmarkLookup(b *testing.B) {
	b.Run("sqlite", func(b *testing.B) {
		place := filepath.Join(b.TempDir(), "mail.db")
		db, err := sqlite.Open(b.Context(), place, slog.New(slog.DiscardHandler))
		if err != nil {
			b.Fatal(err)
		}
		defer db.Close()
		measure(b, db, "sqlite", place, "x''")
	})
	b.Run("postgres", func(b *testing.B) {
		url, err := postgres.Run(b, postgres.Options{Unsynced: true}).NewDatabase(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		db, err := pg.Open(b.Context(), url, slog.New(slog.DiscardHandler))
		if err != nil {
			b.Fatal(err)
		}
		defer db.Close()
		measure(b, db, "pgx", url, "''")
	})
}

func measure(b *testing.B, db *store.DB, driver, place, empty string) {
	account, err := db.EnsureAccount(b.Context(), "me")
	if err != nil {
		b.Fatal(err)
	}
	raw, err := sql.Open(driver, place)
	if err != nil {
		b.Fatal(err)
	}
	defer raw.Close()
	fill := fmt.Sprintf("with recursive n(i) as (select 0 union all select i + 1 from n where i < %d) insert into suppression (account, address, reason, note, event, created, strange)"+
		" select $1, 'recipient' || i || '@site' || (i %% 997) || '.example.net', 'bounce', 'The mailbox does not exist.', %s, 5, 0 from n", *entries-1, empty)
	if _, err := raw.ExecContext(b.Context(), fill, account[:]); err != nil {
		b.Fatal(err)
	}
	if _, err := raw.ExecContext(b.Context(), "analyze"); err != nil { // as the server does soon
		b.Fatal(err)
	}
	f := NewFilter(db, 64<<20, slog.New(slog.DiscardHandler))
	start := time.Now()
	for f.set.Load() == nil {
		if err := f.step(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	took, bytes := time.Since(start), f.set.Load().bytes()
	for name, lists := range map[string]Lists{"store": db, "filter": held{db, f}} {
		b.Run(name, func(b *testing.B) {
			if name == "filter" {
				f.asked.Store(0)
				f.vain.Store(0)
			}
			for i := 0; b.Loop(); i++ {
				n := i * 7919 % (2 * *entries)
				domain := fmt.Sprintf("site%d.example.net", n%997)
				found, err := lists.Suppressed(b.Context(), account, relay.Transactional, []string{fmt.Sprintf("other%d@%s", n, domain), "@" + domain, "@.example.net", "@.net"})
				if err != nil || len(found) > 0 {
					b.Fatalf("found %d, %v", len(found), err)
				}
			}
			if name == "filter" {
				b.ReportMetric(took.Seconds(), "s-to-load")
				b.ReportMetric(float64(bytes)/float64(*entries), "bytes/entry")
				b.ReportMetric(100*float64(f.vain.Load())/float64(f.asked.Load()), "%-asked-in-vain")
			}
		})
	}
}

// held is a filter that has always heard just now.
type held struct {
	*store.DB
	f *Filter
}

func (h held) Suppressed(ctx context.Context, account relay.ID, stream relay.Stream, addresses []string) ([]*relay.Suppression, error) {
	if !h.f.fresh() {
		if err := h.f.hear(ctx); err != nil {
			return nil, err
		}
	}
	return h.f.Suppressed(ctx, account, stream, addresses)
}
