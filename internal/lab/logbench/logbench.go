// Package logbench fills a store with the log of a busy service and measures how
// long each kind of search takes, and what the upkeep of the log costs.
package logbench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"postrider/internal/lab/postgres"
	"postrider/internal/relay"
	"postrider/internal/store"
	pgstore "postrider/internal/store/postgres"
	"postrider/internal/store/sqlite"
	"postrider/internal/upkeep"
)

// Options say what is measured.
type Options struct {
	Events   int
	Store    string        // sqlite, postgres; empty: both
	Rounds   int           // searches of each kind and sort of account
	Limit    time.Duration // that 95 of 100 searches must keep to
	Drop     int           // messages that are dropped by retention; 0: none
	Dir      string        // folder for the SQLite store, which stays; one that is there is measured as it is. Empty: a temporary one
	Progress io.Writer     // for people; nil: none
}

// Default is the size that the promises name.
func Default() Options {
	return Options{Events: 10_000_000, Rounds: 60, Limit: 100 * time.Millisecond, Drop: 100_000}
}

// Result is what came of one engine.
type Result struct {
	Store        string  `json:"store"`
	Messages     int     `json:"messages"`
	Deliveries   int     `json:"deliveries"`
	Events       int     `json:"events"`
	FillSeconds  float64 `json:"fill_seconds"`
	Indexed      int     `json:"indexed"` // events that were indexed in this time
	IndexSeconds float64 `json:"index_seconds"`
	IndexBytes   int64   `json:"index_bytes"`
	Bytes        int64   `json:"bytes"` // of the store, index and all
	Searches     []Kind  `json:"searches"`
	Drop         *Drop   `json:"drop,omitempty"`

	limit time.Duration
}

// Kind is how long searches of one kind took, in milliseconds.
type Kind struct {
	Name string  `json:"name"`
	N    int     `json:"n"`
	P50  float64 `json:"p50"`
	P95  float64 `json:"p95"`
	Max  float64 `json:"max"`
}

// Err is nil where all promises were kept.
func (r *Result) Err() error {
	var errs []error
	for _, k := range r.Searches {
		if k.P95 > float64(r.limit.Milliseconds()) {
			errs = append(errs, fmt.Errorf("%s: of searches by %s 95 of 100 took up to %.1f ms", r.Store, k.Name, k.P95))
		}
	}
	return errors.Join(errs...)
}

// bench is a run with one engine.
type bench struct {
	o      Options
	began  time.Time
	db     *store.DB
	r      *rand.Rand
	result Result

	samples  []relay.Logged // of which searches are made
	accounts []relay.ID     // of the samples, the largest first
	from, to time.Time      // when messages were accepted
}

// Run measures one engine after the other.
func Run(ctx context.Context, o Options) (results []*Result, err error) {
	engines := []string{"sqlite", "postgres"}
	if o.Store != "" {
		if engines = []string{o.Store}; o.Store != "sqlite" && o.Store != "postgres" {
			return nil, fmt.Errorf("there is no store %q: sqlite or postgres", o.Store)
		}
	}
	dir := o.Dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "postrider-log-"); err != nil {
			return nil, fmt.Errorf("make folder: %w", err)
		}
		defer os.RemoveAll(dir)
	}
	for _, engine := range engines {
		b := &bench{o: o, began: time.Now(), r: rand.New(rand.NewPCG(1, uint64(o.Events))), result: Result{Store: engine, limit: o.Limit}}
		b.say("== %s", engine)
		run := b.sqlite
		if engine == "postgres" {
			run = b.postgres
		}
		if err := run(ctx, dir); err != nil {
			return results, fmt.Errorf("%s: %w", engine, err)
		}
		results = append(results, &b.result)
	}
	return results, nil
}

func (b *bench) say(format string, args ...any) {
	if b.o.Progress != nil {
		fmt.Fprintf(b.o.Progress, "%7.1f  %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
	}
}

func (b *bench) sqlite(ctx context.Context, dir string) error {
	path := filepath.Join(dir, "log.db")
	open := func() (*store.DB, error) { return sqlite.Open(ctx, path, slog.New(slog.DiscardHandler)) }
	_, err := os.Stat(path)
	made := errors.Is(err, fs.ErrNotExist)
	db, err := open() // makes the schema
	if err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	if made {
		to, err := openLite(ctx, path)
		if err == nil {
			err = b.fill(ctx, to)
		}
		if err != nil {
			return err
		}
	}
	if b.db, err = open(); err != nil {
		return err
	}
	err = b.measure(ctx)
	err = errors.Join(err, b.db.Close())
	if i, statErr := os.Stat(path); statErr == nil {
		b.result.Bytes = i.Size()
	}
	return err
}

func (b *bench) postgres(ctx context.Context, _ string) error {
	s, err := postgres.New(ctx, postgres.Options{Settings: []string{"shared_buffers = 512MB", "max_wal_size = 4GB", "checkpoint_timeout = 15min", "effective_cache_size = 4GB"}})
	if err != nil {
		return err
	}
	defer s.Close()
	url, err := s.NewDatabase(ctx)
	if err != nil {
		return err
	}
	if b.db, err = pgstore.Open(ctx, url, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, url)
	if err == nil {
		err = b.fill(ctx, server{conn})
	}
	if err == nil {
		err = b.measure(ctx)
	}
	if err == nil {
		var c *pgx.Conn
		if c, err = pgx.Connect(ctx, url); err == nil {
			err = errors.Join(c.QueryRow(ctx, "select pg_database_size(current_database())").Scan(&b.result.Bytes), c.Close(ctx))
		}
	}
	return errors.Join(err, b.db.Close())
}

func (b *bench) measure(ctx context.Context) error {
	if err := b.index(ctx); err != nil {
		return err
	}
	if err := b.sample(ctx); err != nil {
		return fmt.Errorf("take samples: %w", err)
	}
	if err := b.search(ctx); err != nil {
		return err
	}
	return b.drop(ctx)
}

// index indexes all, as a relay does after an upgrade.
func (b *bench) index(ctx context.Context) error {
	began, told, done := time.Now(), time.Now(), 0
	for {
		n, _, err := b.db.IndexLog(ctx, upkeep.Least)
		if err != nil {
			return err
		}
		done += n
		merged, err := b.db.MergeLog(ctx)
		if err != nil {
			return err
		}
		if n == 0 && !merged {
			break
		}
		if time.Since(told) > 10*time.Second {
			told = time.Now()
			b.say("indexed %d of %d events", done, b.result.Events)
		}
	}
	b.result.IndexSeconds = time.Since(began).Seconds()
	b.say("indexed in %.0f s", b.result.IndexSeconds)
	var err error
	b.result.Indexed = done
	b.result.IndexBytes, err = b.db.LogIndexSize(ctx)
	return err
}

// sample reads some deliveries from all over the log.
func (b *bench) sample(ctx context.Context) error {
	b.to = time.Now().Add(-slack)
	b.from = b.to.Add(-span)
	of := map[relay.ID]int{}
	for range 400 {
		deep := b.place()
		page, err := b.db.Find(ctx, relay.Everyone, relay.DeliveryFilter{Before: &deep, Limit: 10}, 0)
		if err != nil {
			return err
		}
		for _, l := range page.Found {
			of[l.Account]++
		}
		b.samples = append(b.samples, page.Found...)
	}
	b.accounts = slices.SortedFunc(maps.Keys(of), func(x, y relay.ID) int { return cmp.Or(of[y]-of[x], x.Compare(y)) })
	if len(b.accounts) < 3 {
		return fmt.Errorf("the log has %d accounts", len(b.accounts))
	}
	return nil
}

// place is somewhere in the log.
func (b *bench) place() relay.DeliveryID {
	return relay.DeliveryID{Message: relay.FirstIDAt(b.from.Add(time.Duration(b.r.Int64N(int64(span))))), N: 1}
}

// one gives a sample of the account; of anybody for everyone.
func (b *bench) one(account relay.ID) *relay.Logged {
	for range 5000 {
		l := &b.samples[b.r.IntN(len(b.samples))]
		if account == relay.Everyone || l.Account == account {
			return l
		}
	}
	return &b.samples[0]
}

// search measures each kind of search as each sort of account: first pages and
// those that follow.
func (b *bench) search(ctx context.Context) error {
	for _, k := range kinds {
		var took []time.Duration
		for i := range b.o.Rounds {
			account := []relay.ID{b.accounts[0], pick(b.r, b.accounts[2:]), relay.Everyone, b.accounts[1]}[i%4]
			f := k.filter(b, b.one(account))
			pages := 1
			if i%3 == 2 { // those that follow, and somewhere deep in the log
				pages = 3
				if f.Message == "" {
					deep := b.place()
					f.Before = &deep
				}
			}
			for range pages {
				began := time.Now()
				page, err := b.db.Find(ctx, account, f, 0)
				took = append(took, time.Since(began))
				if err != nil {
					return fmt.Errorf("search by %s: %w", k.name, err)
				}
				if f.Before = page.Next; page.Next == nil {
					break
				}
			}
		}
		slices.Sort(took)
		ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
		r := Kind{Name: k.name, N: len(took), P50: ms(took[len(took)/2]), P95: ms(took[len(took)*95/100]), Max: ms(took[len(took)-1])}
		b.result.Searches = append(b.result.Searches, r)
		b.say("%-34s n %4d   p50 %7.1f   p95 %7.1f   max %7.1f ms", r.Name, r.N, r.P50, r.P95, r.Max)
	}
	return nil
}

// kinds of searches: for what is common, what is rare and what is not there.
var kinds = []struct {
	name   string
	filter func(b *bench, l *relay.Logged) relay.DeliveryFilter
}{
	{"nothing", func(b *bench, l *relay.Logged) relay.DeliveryFilter { return relay.DeliveryFilter{} }},
	{"recipient, whole", func(b *bench, l *relay.Logged) relay.DeliveryFilter {
		return relay.DeliveryFilter{Recipient: b.or(l.Recipient.Address, "nobody.atall@gmail.com")}
	}},
	{"recipient, part", func(b *bench, l *relay.Logged) relay.DeliveryFilter {
		local, domain, _ := strings.Cut(l.Recipient.Address, "@")
		return relay.DeliveryFilter{Recipient: b.or(local, local[:3], "@"+domain, "info", "zzz")}
	}},
	{"recipient's domain", func(b *bench, l *relay.Logged) relay.DeliveryFilter {
		return relay.DeliveryFilter{Domain: b.or(l.Domain, "gmail.com", "no.example")}
	}},
	{"sender", func(b *bench, l *relay.Logged) relay.DeliveryFilter {
		return relay.DeliveryFilter{Sender: b.or(l.Message.Envelope.Sender, "noreply", "customer77", "nobody@")}
	}},
	{"subject", func(b *bench, l *relay.Logged) relay.DeliveryFilter {
		return relay.DeliveryFilter{Subject: b.or(l.Message.Subject, "order", "rechnung vom", "password", "offers zoe", "unheard", "4711", "re")}
	}},
	{"message id", func(b *bench, l *relay.Logged) relay.DeliveryFilter {
		return relay.DeliveryFilter{Message: b.or(l.Message.ID.String())}
	}},
	{"Message-ID header", func(b *bench, l *relay.Logged) relay.DeliveryFilter {
		return relay.DeliveryFilter{Message: b.or(l.Message.HeaderID, "<nobody@nowhere.example>")}
	}},
	{"credential", func(b *bench, l *relay.Logged) relay.DeliveryFilter {
		return relay.DeliveryFilter{Credential: l.Message.Credential}
	}},
	{"tag", func(b *bench, l *relay.Logged) relay.DeliveryFilter {
		return relay.DeliveryFilter{Tag: b.or("welcome", "onboarding", fmt.Sprintf("campaign-%d", b.r.IntN(3000)), "none")}
	}},
	{"metadata", func(b *bench, l *relay.Logged) relay.DeliveryFilter {
		return relay.DeliveryFilter{Metadata: map[string]string{b.or("user"): fmt.Sprint(b.r.IntN(250_000))}}
	}},
	{"outcome", func(b *bench, l *relay.Logged) relay.DeliveryFilter {
		return relay.DeliveryFilter{States: []relay.State{pick(b.r, []relay.State{relay.Delivered, relay.Bounced, relay.Expired, relay.Deferred, relay.Held, relay.Cancelled})}}
	}},
	{"what the recipient did", func(b *bench, l *relay.Logged) relay.DeliveryFilter {
		return relay.DeliveryFilter{Deeds: []relay.Kind{pick(b.r, []relay.Kind{relay.EventOpened, relay.EventComplained, relay.EventUnsubscribed})}}
	}},
	{"category", func(b *bench, l *relay.Logged) relay.DeliveryFilter {
		return relay.DeliveryFilter{Category: b.or(pick(b.r, categories), "hard", "block", "greylisted", "none")}
	}},
	{"text of the reply", func(b *bench, l *relay.Logged) relay.DeliveryFilter {
		reply := l.Reply.Text
		return relay.DeliveryFilter{Reply: b.or(reply, "queued as", "250 2.0.0", "unsolicited mail", "5.7.1 blocked", "user unknown", "greylisted", "out of storage", "a")}
	}},
	{"provider", func(b *bench, l *relay.Logged) relay.DeliveryFilter {
		return relay.DeliveryFilter{Provider: b.or("gmail", "Proton", "Yahoo", "nobody")}
	}},
	{"source IP", func(b *bench, l *relay.Logged) relay.DeliveryFilter {
		return relay.DeliveryFilter{Source: b.or(l.Source, "203.0.113.1")}
	}},
	{"client IP", func(b *bench, l *relay.Logged) relay.DeliveryFilter {
		return relay.DeliveryFilter{Client: b.or(l.Message.Source.Client.Addr().String(), "203.0.113.1", "198.51.")}
	}},
	{"time", func(b *bench, l *relay.Logged) relay.DeliveryFilter {
		at := l.Message.Received
		return relay.DeliveryFilter{Since: at.Add(-time.Hour), Until: at.Add(time.Duration(b.r.IntN(100)) * time.Hour)}
	}},
	{"recipient, outcome", func(b *bench, l *relay.Logged) relay.DeliveryFilter {
		return relay.DeliveryFilter{Recipient: b.or("info", "anna", "@gmail.com"), States: []relay.State{pick(b.r, []relay.State{relay.Bounced, relay.Expired, relay.Deferred})}}
	}},
	{"subject, reply, provider", func(b *bench, l *relay.Logged) relay.DeliveryFilter {
		return relay.DeliveryFilter{Subject: b.or("order", "password", "invoice"), Reply: b.or("blocked", "storage", "gsmtp"), Provider: b.or("Microsoft", "Zoho", "gmail")}
	}},
	{"tag, category, source, time", func(b *bench, l *relay.Logged) relay.DeliveryFilter {
		at := l.Message.Received
		return relay.DeliveryFilter{Tag: pick(b.r, tags), Category: pick(b.r, categories), Source: l.Source, Since: at.Add(-48 * time.Hour), Until: at.Add(48 * time.Hour)}
	}},
	{"common words that never meet", func(b *bench, l *relay.Logged) relay.DeliveryFilter {
		return relay.DeliveryFilter{Subject: b.or("password order", "verify rechnung", "weekly code"), Reply: b.or("ok", "queued"), Provider: "Gmail"}
	}},
}

func (b *bench) or(of ...string) string { return pick(b.r, of) }
