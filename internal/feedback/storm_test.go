package feedback

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"postrider/internal/lab/postgres"
	"postrider/internal/message"
	"postrider/internal/queue"
	"postrider/internal/relay"
	"postrider/internal/store"
	postgresstore "postrider/internal/store/postgres"
	"postrider/internal/store/sqlite"
	"postrider/internal/store/storetest"
	"postrider/internal/submit"
	"postrider/internal/suppression"
)

// BenchmarkStorm is how fast bounces of dead addresses go all the way: taken by 16
// sessions at once, then settled, each with its event, its suppression and the notice
// that its sender is owed. Both rates are of one after the other, on the same machine.
func BenchmarkStorm(b *testing.B) {
	log := slog.New(slog.DiscardHandler)
	b.Run("sqlite", func(b *testing.B) {
		db, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "db"), log)
		if err != nil {
			b.Fatal(err)
		}
		benchStorm(b, db, log)
	})
	server := postgres.Run(b, postgres.Options{})
	b.Run("postgres", func(b *testing.B) {
		url, err := server.NewDatabase(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		db, err := postgresstore.Open(b.Context(), url, log)
		if err != nil {
			b.Fatal(err)
		}
		benchStorm(b, db, log)
	})
}

func benchStorm(b *testing.B, db *store.DB, log *slog.Logger) {
	b.StopTimer()
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	defer func() { must(db.Close()) }()
	lease, err := db.Join(b.Context(), "n")
	must(err)
	q := queue.New(db, lease, queue.Config{Window: 1000, WindowBytes: 1 << 24, Batch: 200, BatchBytes: 8 << 20}, log)
	writing, stop := context.WithCancel(context.WithoutCancel(b.Context()))
	ended := make(chan error, 1)
	go func() { ended <- q.Write(writing) }()
	defer func() { stop(); must(<-ended) }()
	var accounts []relay.ID
	for n := range 4 {
		a, err := db.EnsureAccount(b.Context(), fmt.Sprintf("a%d", n))
		must(err)
		accounts = append(accounts, a)
	}
	var sent []*relay.Delivery
	for len(sent) < b.N {
		var puts []*relay.Submission
		var outcomes []relay.Outcome
		for range 200 {
			a := accounts[len(sent)%len(accounts)]
			s := storetest.Submission(a, time.Now(), []byte("Subject: Hello\r\n\r\nHello.\r\n"), fmt.Sprintf("user%d@dead.test", len(sent)))
			s.Message.Envelope.Sender = "app@shop.test"
			puts, sent = append(puts, s), append(sent, s.Deliveries[0])
			outcomes = append(outcomes, relay.Outcome{Delivery: s.Deliveries[0].ID, Account: a, Kind: relay.EventDelivered, At: time.Now()})
		}
		must(errors.Join(db.Put(b.Context(), lease, puts)...))
		must(errors.Join(db.Settle(b.Context(), lease, outcomes)...))
	}
	sent = sent[:b.N]
	rules, err := OpenRules("", log)
	must(err)
	o := &told{}
	inbox := NewInbox([]string{"back.relay.test"}, paths{}, db, oneDomain{domain: &relay.Domain{}}, o, log)
	returns := NewReturns(ReturnsConfig{Node: "n", Gather: time.Minute, Suppress: suppression.Rule{Hard: true}, Observer: o}, db, q, rules, log)

	b.StartTimer()
	start := time.Now()
	var g errgroup.Group
	g.SetLimit(16)
	for i, d := range sent {
		g.Go(func() error {
			to := "b+" + d.ID.String() + ".good@back.relay.test"
			if err := inbox.Recipient(b.Context(), nil, "", to); err != nil {
				return err
			}
			mail := strings.ReplaceAll(report("failed", "5.1.1", fmt.Sprintf("user%d@dead.test", i), "550 5.1.1 no such user"), "\n", "\r\n")
			_, err := inbox.Submit(b.Context(), submit.Draft{Envelope: relay.Envelope{Recipients: []relay.Recipient{{Address: to}}}, Content: message.Bytes([]byte(mail))})
			return err
		})
	}
	must(g.Wait())
	taken := time.Since(start)
	start = time.Now()
	must(returns.Round(b.Context()))
	settled := time.Since(start)
	b.StopTimer()
	if o.n["bounced"] != b.N {
		b.Fatalf("%d of %d are settled: %v", o.n["bounced"], b.N, o.n)
	}
	if n := db.SuppressionsAdded()[relay.ReasonBounce]; n != int64(b.N) {
		b.Fatalf("%d suppressions", n)
	}
	owed, err := db.Notices(b.Context(), time.Now().Add(24*time.Hour), b.N+1)
	must(err)
	if len(owed) != b.N {
		b.Fatalf("%d notices", len(owed))
	}
	b.ReportMetric(float64(b.N)/taken.Seconds(), "taken/s")
	b.ReportMetric(float64(b.N)/settled.Seconds(), "settled/s")
}
