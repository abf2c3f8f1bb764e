package limit

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postrider/internal/lab/postgres"
	"postrider/internal/relay"
	"postrider/internal/store"
	pg "postrider/internal/store/postgres"
	"postrider/internal/store/sqlite"
)

var noon = time.Date(2030, 1, 2, 12, 30, 0, 0, time.UTC)

// at is a store with a clock of the test's, which counts what it is asked.
type at struct {
	*store.DB
	now   atomic.Pointer[time.Time]
	takes atomic.Int64
}

func (a *at) Now() time.Time { return *a.now.Load() }

func (a *at) set(t time.Time) { a.now.Store(&t) }

func (a *at) pass(d time.Duration) { a.set(a.Now().Add(d)) }

func (a *at) TakeUsage(ctx context.Context, takes []relay.Take) ([]relay.Taken, error) {
	a.takes.Add(1)
	return a.DB.TakeUsage(ctx, takes)
}

// onSQLite is a store of one node.
func onSQLite(t testing.TB) *at {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "mail.db"), slog.New(slog.DiscardHandler))
	return ready(t, db, err)
}

func ready(t testing.TB, db *store.DB, err error) *at {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	a := &at{DB: db}
	a.set(noon)
	return a
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// limits reads limits as people write them.
func limits(t testing.TB, texts ...string) []relay.Limit {
	t.Helper()
	var all []relay.Limit
	for _, s := range texts {
		var l relay.Limit
		if err := l.UnmarshalText([]byte(s)); err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	return all
}

func order(t testing.TB, recipients int64, texts ...string) Order {
	return Order{Account: &relay.Account{ID: relay.ID{1}, Limits: limits(t, texts...)}, Recipients: recipients}
}

// take takes an order n times and gives how many went through, and the last
// refusal.
func take(t testing.TB, l *Limiter, o Order, n int) (taken int, last error) {
	t.Helper()
	for range n {
		_, err := l.Take(t.Context(), o)
		switch {
		case err == nil:
			taken++
		case relay.CodeOf(err) != relay.RateLimited && relay.CodeOf(err) != relay.Forbidden:
			t.Fatalf("after %d: %v", taken, err)
		default:
			last = err
		}
	}
	return taken, last
}

// Several nodes, one much busier than the others, accept together never more than
// the limit and hardly less, and ask the store for few of the messages.
func together(t *testing.T, nodes []*at) {
	const most = 3000
	o := order(t, 2, "3000 messages/hour", "100000 recipients/day")
	o.Plan = &relay.Plan{Name: "small", Limits: limits(t, "6000 recipients/hour", "3100 messages/month")}
	o.Credential, o.Limits = relay.ID{2}, limits(t, "90000 messages/day")
	var accepted atomic.Int64
	var all sync.WaitGroup
	for i, node := range nodes {
		l := New(node, true, quiet())
		for range 8 {
			all.Go(func() {
				for refused := 0; refused < 3; {
					if i > 0 && accepted.Load() > most/3 { // it stops, with what it has fetched
						return
					}
					_, err := l.Take(t.Context(), o)
					switch {
					case err == nil:
						accepted.Add(1)
					case relay.CodeOf(err) == relay.RateLimited:
						refused++
					default:
						t.Error(err)
						return
					}
				}
			})
		}
	}
	all.Wait()
	var takes int64
	for _, n := range nodes {
		takes += n.takes.Load()
	}
	t.Logf("%d of %d accepted, the store was asked %d times", accepted.Load(), most, takes)
	if n := accepted.Load(); n > most || n < most*98/100 {
		t.Errorf("%d accepted, the limit is %d", n, most)
	}
	if takes > most/3 { // of so small a limit; a larger one is asked for as often, for more messages
		t.Errorf("the store was asked %d times for %d messages", takes, most)
	}
}

func TestTogether(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		db := onSQLite(t)
		other := &at{DB: db.DB}
		other.set(noon)
		together(t, []*at{db, other})
	})
	server := postgres.Run(t, postgres.Options{Unsynced: true})
	t.Run("postgres", func(t *testing.T) {
		url, err := server.NewDatabase(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var nodes []*at
		for range 3 {
			db, err := pg.Open(t.Context(), url, quiet())
			nodes = append(nodes, ready(t, db, err))
		}
		together(t, nodes)
	})
}

// Limits per second hold over nodes too, with a burst, and fill up again.
func TestPerSecond(t *testing.T) {
	for name, shared := range map[string]bool{"alone": false, "shared": true} {
		t.Run(name, func(t *testing.T) {
			db := onSQLite(t)
			nodes := []*Limiter{New(db, shared, quiet())}
			if shared {
				nodes = append(nodes, New(db, true, quiet()))
			}
			o := order(t, 1, "100 messages/second burst 300")
			burst := 0
			for i, l := range nodes {
				n, _ := take(t, l, o, 400/(i+1))
				burst += n
			}
			if burst > 300 || burst < 294 {
				t.Errorf("%d at once, the burst is 300", burst)
			}
			total := 0
			const steps = 500
			for range steps { // 5 s, of two thirds more than the limit
				db.pass(10 * time.Millisecond)
				for i, l := range nodes {
					n, last := take(t, l, o, 2-i)
					total += n
					var e *relay.Error
					if last != nil && (!errors.As(last, &e) || !e.Retry.After(db.Now()) || e.Retry.Sub(db.Now()) > time.Second) {
						t.Fatalf("refused with %#v", last)
					}
				}
			}
			if total > 500 || total < 490 {
				t.Errorf("%d in 5 s, the limit is 100 a second", total)
			}
			if asked := db.takes.Load(); !shared && asked != 0 || asked > 1200 {
				t.Errorf("the store was asked %d times", asked)
			}
			db.pass(time.Hour)
			if n, _ := take(t, nodes[0], o, 400); n > 300 || n < 294 {
				t.Errorf("%d at once after an hour", n)
			}
		})
	}
}

// A message of more recipients than a burst passes when nothing else did for long
// enough, and those after it wait.
func TestMoreThanABurst(t *testing.T) {
	for name, shared := range map[string]bool{"alone": false, "shared": true} {
		t.Run(name, func(t *testing.T) {
			db := onSQLite(t)
			l := New(db, shared, quiet())
			const limit = "10 recipients/second"
			if n, err := take(t, l, order(t, 50, limit), 2); n != 1 {
				t.Fatalf("%d taken, %v", n, err)
			}
			db.pass(3 * time.Second)
			if n, err := take(t, l, order(t, 1, limit), 1); n != 0 || !strings.Contains(err.Error(), "Send more slowly") {
				t.Errorf("%d taken while the first owes, %v", n, err)
			}
			db.pass(3 * time.Second)
			if n, err := take(t, l, order(t, 1, limit), 1); n != 1 {
				t.Errorf("%d taken after that, %v", n, err)
			}
		})
	}
}

// Periods are those of the calendar in UTC.
func TestPeriods(t *testing.T) {
	db := onSQLite(t)
	l := New(db, true, quiet())
	for _, step := range []struct {
		limit string
		start time.Time
		pass  time.Duration
		reset time.Time
	}{
		{"5 messages/hour", noon, 30 * time.Minute, time.Date(2030, 1, 2, 13, 0, 0, 0, time.UTC)},
		{"5 messages/day", noon, 12 * time.Hour, time.Date(2030, 1, 3, 0, 0, 0, 0, time.UTC)},
		{"5 messages/month", noon, 31 * 24 * time.Hour, time.Date(2030, 2, 1, 0, 0, 0, 0, time.UTC)},
	} {
		db.set(step.start)
		o := order(t, 1, step.limit)
		n, err := take(t, l, o, 7)
		var e *relay.Error
		if n != 5 || !errors.As(err, &e) || e.Code != relay.RateLimited || !e.Retry.Equal(step.reset) ||
			!strings.Contains(e.Error(), step.limit+". Mail is taken again from "+step.reset.Format("2006-01-02 15:04")+" UTC") {
			t.Errorf("%s: %d taken, then %#v", step.limit, n, err)
		}
		db.set(step.reset.Add(-time.Second))
		if n, _ := take(t, l, o, 1); n != 0 {
			t.Errorf("%s: taken a second before the end", step.limit)
		}
		db.set(step.start.Add(step.pass))
		if n, err := take(t, l, o, 7); n != 5 {
			t.Errorf("%s: %d in the next, %v", step.limit, n, err)
		}
	}
}

// A clock that jumps, forth or back, gives nobody more than each period allows.
func TestClockJumps(t *testing.T) {
	db := onSQLite(t)
	l := New(db, true, quiet())
	o := order(t, 1, "100 messages/hour")
	total := 0
	for _, jump := range []time.Duration{0, time.Hour, -time.Hour, 3 * time.Second, 25 * time.Hour, -25 * time.Hour, 5 * time.Second, -time.Second, 2 * time.Hour} {
		db.pass(jump)
		n, _ := take(t, l, o, 30)
		total += n
		if err := l.tend(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	// 270 were tried, in four different hours, 180 of them in the first one.
	if total != 190 {
		t.Errorf("%d taken, want 100 of the first hour and 90 of others", total)
	}
	for _, shared := range []bool{false, true} {
		l, o := New(db, shared, quiet()), order(t, 1, "10 messages/second")
		db.set(noon)
		for _, step := range []struct {
			jump time.Duration
			most int
		}{{0, 10}, {10 * time.Hour, 10}, {-10 * time.Hour, 0}, {62 * time.Second, 10}, {-time.Hour, 0}, {62 * time.Second, 10}} {
			db.pass(step.jump)
			if n, _ := take(t, l, o, 20); n != step.most {
				t.Errorf("after a jump by %v: %d taken at once, want %d", step.jump, n, step.most)
			}
		}
	}
}

func TestNever(t *testing.T) {
	db := onSQLite(t)
	l := New(db, true, quiet())
	for _, tt := range []struct {
		recipients int64
		limit      string
		says       string
	}{
		{1, "0 messages/month", "Nothing may be sent: the limit of this account is 0 messages/month."},
		{1, "0 recipients/second", "Nothing may be sent"},
		{6, "5 recipients/day", "6 recipients, which is more than the limit of this account, 5 recipients/day, ever allows."},
	} {
		for _, err := range []error{l.Known(order(t, tt.recipients, tt.limit)), func() error { _, err := l.Take(t.Context(), order(t, tt.recipients, tt.limit)); return err }()} {
			if relay.CodeOf(err) != relay.Forbidden || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%s: %v", tt.limit, err)
			}
		}
	}
	if db.takes.Load() != 0 {
		t.Error("the store was asked")
	}
}

// Each limit holds by itself, whosever it is, and what fails takes nothing.
func TestWhose(t *testing.T) {
	db := onSQLite(t)
	l := New(db, true, quiet())
	base := func() Order { return order(t, 1) }
	for _, tt := range []struct {
		name   string
		change func(*Order)
		most   int
		says   string
	}{
		{"credential", func(o *Order) { o.Credential, o.Limits = relay.ID{7}, limits(t, "3 messages/day") }, 3, "of this credential is used up: 3 messages/day"},
		{"another credential", func(o *Order) { o.Credential, o.Limits = relay.ID{8}, limits(t, "3 messages/day") }, 3, "credential"},
		{"account, tighter than its plan", func(o *Order) {
			o.Account = &relay.Account{ID: relay.ID{2}, Limits: limits(t, "2 messages/day")}
			o.Plan = &relay.Plan{Name: "p", Limits: limits(t, "4 messages/day")}
		}, 2, "of this account is"},
		{"plan, tighter than the account", func(o *Order) {
			o.Account = &relay.Account{ID: relay.ID{3}, Limits: limits(t, "5 messages/day")}
			o.Plan = &relay.Plan{Name: "starter", Limits: limits(t, "4 messages/day")}
		}, 4, "this account's plan, starter"},
		{"new", func(o *Order) {
			o.Account = &relay.Account{ID: relay.ID{4}, Growth: relay.Growth{Daily: 5, Since: noon}}
		}, 5, "it is new"},
		{"new by its plan", func(o *Order) {
			o.Account = &relay.Account{ID: relay.ID{5}}
			o.Plan = &relay.Plan{Name: "p", Start: 6}
		}, 6, "it is new"},
		{"grown up", func(o *Order) {
			o.Account = &relay.Account{ID: relay.ID{6}, Growth: relay.Growth{Since: noon}}
			o.Plan = &relay.Plan{Name: "p", Start: 6}
		}, 9, ""},
		{"sandbox", func(o *Order) { o.InSandbox, o.Sandbox = true, 2 }, 2, "not verified is used up: 2 recipients/day"},
		{"none", func(*Order) {}, 9, ""},
	} {
		o := base()
		tt.change(&o)
		n, err := take(t, l, o, 9)
		if n != tt.most || (tt.says == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %d taken, want %d; %v", tt.name, n, tt.most, err)
		}
	}
	// Two messages fit the hour, and the second one's recipients do not fit the day.
	o := order(t, 6, "3 messages/hour", "10 recipients/day")
	o.Account.ID = relay.ID{9}
	if n, _ := take(t, l, o, 4); n != 1 {
		t.Errorf("%d messages of 6 recipients taken", n)
	}
	o.Recipients = 2
	if n, _ := take(t, l, o, 4); n != 2 {
		t.Errorf("%d messages of 2 recipients taken after that", n)
	}
}

func TestUndo(t *testing.T) {
	db := onSQLite(t)
	l := New(db, true, quiet())
	o := order(t, 1, "2 messages/day")
	for range 10 {
		undo, err := l.Take(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		undo()
	}
	if n, _ := take(t, l, o, 5); n != 2 {
		t.Errorf("%d taken", n)
	}
}

// What a node does not use it gives back, when it is idle and when it ends.
func TestGivesBack(t *testing.T) {
	db := onSQLite(t)
	one, two := New(db, true, quiet()), New(db, true, quiet())
	o := order(t, 1, "1000 messages/day")
	take(t, one, o, 300) // by far more than is needed is fetched at once
	used := func() int64 {
		states, err := one.States(t.Context(), o)
		if err != nil || len(states) != 1 {
			t.Fatal(states, err)
		}
		return states[0].Used
	}
	if used() <= 300 {
		t.Fatalf("%d fetched", used())
	}
	if err := one.tend(t.Context(), unused); err != nil || used() <= 300 {
		t.Errorf("given back at once: %d used, %v", used(), err)
	}
	db.pass(3 * time.Second)
	if err := one.tend(t.Context(), unused); err != nil || used() != 300 {
		t.Errorf("%d used, %v", used(), err)
	}
	if n, _ := take(t, two, o, 1000); n != 700 {
		t.Errorf("the other took %d", n)
	}
	if known := two.Known(o); relay.CodeOf(known) != relay.RateLimited {
		t.Errorf("known: %v", known)
	}
	db.pass(24 * time.Hour)
	take(t, one, o, 300)
	if used() <= 300 {
		t.Fatalf("%d fetched on the next day", used())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := one.Run(ctx); err != nil || used() != 300 {
		t.Errorf("after the end %d used, %v", used(), err)
	}
	db.pass(24 * time.Hour)
	if err := one.tend(t.Context(), 0); err != nil || len(one.tenants) != 0 {
		t.Errorf("%d accounts are remembered, %v", len(one.tenants), err)
	}
	if n, _ := take(t, one, o, 1); n != 1 {
		t.Error("not taken after the account was forgotten")
	}
}

// 80, 90 and 100 % are noted once in a period, whoever passes them.
func TestWarnings(t *testing.T) {
	db := onSQLite(t)
	one, two := New(db, true, quiet()), New(db, true, quiet())
	o := order(t, 1, "100 messages/hour")
	o.Credential, o.Limits = relay.ID{7}, limits(t, "1000 messages/hour", "300 messages/second")
	percents := func() (all []string) {
		for _, l := range []*Limiter{one, two} {
			if err := l.tend(t.Context(), unused); err != nil {
				t.Fatal(err)
			}
		}
		changes, err := db.Changes(t.Context(), relay.ID{1}, relay.ChangeFilter{Action: "limit.warning"})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range changes {
			var w Warning
			if err := json.Unmarshal(c.After, &w); err != nil {
				t.Fatal(err)
			}
			if c.Object != "messages/hour" || w.Limit.String() != "100 messages/hour" || w.Whose != "this account" || c.Actor.Name != "postrider" {
				t.Errorf("%+v %+v", c, w)
			}
			all = append(all, string(rune('0'+w.Percent/10)))
		}
		return all
	}
	for _, step := range []struct {
		l    *Limiter
		n    int
		want string // newest first
	}{
		{one, 70, ""}, {two, 12, "8"}, {one, 5, "8"}, {one, 5, "98"}, {two, 20, ":98"}, {one, 5, ":98"},
	} {
		take(t, step.l, o, step.n)
		if got := strings.Join(percents(), ""); got != step.want {
			t.Errorf("warnings %q, want %q", got, step.want)
		}
	}
	db.pass(time.Hour)
	take(t, two, o, 85)
	if got := strings.Join(percents(), ""); got != "8:98" {
		t.Errorf("an hour later: warnings %q", got)
	}
}

// Tending goes on beside taking, warnings and all.
func TestTendsMeanwhile(t *testing.T) {
	db := onSQLite(t)
	l := New(db, true, quiet())
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		for ctx.Err() == nil {
			if err := l.tend(ctx, 0); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	})
	for i := range 10 {
		o := order(t, 1, "10 messages/hour")
		o.Account.ID = relay.ID{1, byte(i)}
		if n, err := take(t, l, o, 12); n != 10 {
			t.Errorf("%d taken, %v", n, err)
		}
		db.pass(forgotten)
		db.set(noon)
	}
	stop()
	all.Wait()
}

// The store's failure is the client's to try again, and costs nothing.
func TestStoreAway(t *testing.T) {
	db := onSQLite(t)
	l := New(&away{at: db}, true, quiet())
	o := order(t, 1, "2 messages/day")
	if _, err := l.Take(t.Context(), o); relay.CodeOf(err) != relay.Unavailable {
		t.Fatalf("%v", err)
	}
	if n, _ := take(t, l, o, 4); n != 2 {
		t.Errorf("%d taken when it was back", n)
	}
}

type away struct {
	*at
	back bool
}

func (a *away) TakeUsage(ctx context.Context, takes []relay.Take) ([]relay.Taken, error) {
	if !a.back {
		a.back = true
		return nil, &relay.Error{Code: relay.Unavailable, Text: "The store can't be reached."}
	}
	return a.at.TakeUsage(ctx, takes)
}

// What a message costs that has room: no limits, and six.
func BenchmarkTake(b *testing.B) {
	db := onSQLite(b)
	l := New(db, true, quiet())
	b.Run("none", func(b *testing.B) { bench(b, l, order(b, 1)) })
	o := order(b, 2, "100000000 messages/day", "2000000000 recipients/month", "50000000 messages/hour")
	o.Plan = &relay.Plan{Name: "p", Limits: limits(b, "300000000 recipients/hour")}
	o.Credential, o.Limits = relay.ID{2}, limits(b, "100000000 messages/month", "1000000000 recipients/hour")
	b.Run("six", func(b *testing.B) { bench(b, l, o) })
	b.ReportMetric(float64(db.takes.Load()), "asked")
}

func bench(b *testing.B, l *Limiter, o Order) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Take(b.Context(), o); err != nil {
			b.Fatal(err)
		}
	}
}

// Mail of sub-accounts counts as their manager's, and what that refuses costs
// nobody anything.
func TestManager(t *testing.T) {
	db := onSQLite(t)
	l := New(db, true, quiet())
	manager := &relay.Account{ID: relay.ID{9}, Limits: limits(t, "10 recipients/day")}
	var taken int
	for i := range 3 {
		o := order(t, 2, "8 recipients/day")
		o.Account.ID = relay.ID{byte(i + 1)}
		o.Manager = Above(manager, nil, o.Recipients)
		n, err := take(t, l, o, 4)
		taken += n
		if i > 0 && (err == nil || !strings.Contains(err.Error(), "the account that manages this one is used up: 10 recipients/day")) {
			t.Errorf("account %d: %d, %v", i, n, err)
		}
		if i == 2 {
			if err := l.Known(o); relay.CodeOf(err) != relay.RateLimited {
				t.Errorf("known: %v", err)
			}
			states, err := l.States(t.Context(), o)
			if err != nil || len(states) != 2 || states[1].Used != 10 || !strings.Contains(states[1].Whose, "manages") {
				t.Errorf("%+v, %v", states, err)
			}
			o.Manager = nil
			if n, _ := take(t, l, o, 5); n != 4 {
				t.Errorf("after refusals for the manager's sake %d of 4 are left", n)
			}
		}
	}
	if taken != 5 {
		t.Errorf("sub-accounts sent %d messages of 2 recipients under their manager's limit of 10", taken)
	}
	undo, err := l.Take(t.Context(), Order{Account: &relay.Account{ID: relay.ID{1}}, Manager: Above(&relay.Account{ID: relay.ID{8}, Limits: limits(t, "1 messages/day")}, nil, 1)})
	if err != nil {
		t.Fatal(err)
	}
	undo()
	if n, _ := take(t, l, Order{Account: &relay.Account{ID: relay.ID{1}}, Manager: Above(&relay.Account{ID: relay.ID{8}, Limits: limits(t, "1 messages/day")}, nil, 1)}, 2); n != 1 {
		t.Errorf("after what was given back %d go, want 1", n)
	}
}
