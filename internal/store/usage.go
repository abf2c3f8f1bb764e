package store

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"strings"
	"time"

	"postrider/internal/relay"
)

// inParts cuts a list into parts that fit a statement. All but the last have the
// same length, so that there are few statements.
func inParts[T any](list []T) iter.Seq[[]T] { return slices.Chunk(list, 100) }

func repeatMark(n int) string { return strings.Repeat(", ?", n) }

func texts(args []any, list []string) []any {
	for _, s := range list {
		args = append(args, text(s))
	}
	return args
}

// TakeUsage takes from limits what is left of them, in one transaction: of each
// as much as is wanted, or what there is. What is given back never makes the use
// less than nothing. The answers come in the order of the questions.
func (db *DB) TakeUsage(ctx context.Context, takes []relay.Take) ([]relay.Taken, error) {
	order := make([]int, len(takes))
	for i := range order {
		order[i] = i
	}
	// Always in one order, so that two who take the same wait for each other once.
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(takes[a].Account.Compare(takes[b].Account), cmp.Compare(takes[a].Subject, takes[b].Subject), takes[a].Start.Compare(takes[b].Start))
	})
	var got []relay.Taken
	err := db.write(ctx, "take usage", func(ctx context.Context, w *writer) error {
		got = make([]relay.Taken, len(takes))
		for _, i := range order {
			t := &takes[i]
			// Not by this node's clock: the period is the same for all.
			key := []any{t.Account[:], text(t.Subject), micros(t.Start)}
			if _, err := w.exec(ctx, "insert into taken (account, subject, start, ends, used) values (?, ?, ?, ?, 0) on conflict do nothing",
				append(key[:3:3], micros(t.End))...); err != nil {
				return err
			}
			// It changes nothing, and keeps others away until this is done.
			err := w.query(ctx, "update taken set used = used where account = ? and subject = ? and start = ? returning used", func(row scanner) error {
				return row.Scan(&got[i].Before)
			}, key...)
			if err != nil {
				return err
			}
			stands := got[i].Before
			if t.Top > 0 {
				got[i].Before = min(stands, t.Top)
			}
			got[i].Before = max(got[i].Before, t.Least)
			got[i].Got = max(min(t.Want, t.Most-got[i].Before), 0)
			if t.Want < 0 {
				got[i].Got = max(t.Want, -got[i].Before)
			}
			if got[i].Before+got[i].Got == stands {
				continue
			}
			if _, err := w.exec(ctx, "update taken set used = ? where account = ? and subject = ? and start = ?", append([]any{got[i].Before + got[i].Got}, key...)...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return got, nil
}

// Usage gives what of the account's limits is used up in the periods that now
// lies in.
func (db *DB) Usage(ctx context.Context, account relay.ID, now time.Time) ([]*relay.Usage, error) {
	var c conditions
	c.account("account", account)
	c.add("start <= ? and ends > ?", micros(now), micros(now))
	return collect(ctx, db, "read usage", func(row scanner) (*relay.Usage, error) {
		var u relay.Usage
		var id []byte
		var start, end int64
		err := row.Scan(&id, &u.Subject, &start, &end, &u.Used)
		u.Account, u.Start, u.End = toID(id), fromMicros(start), fromMicros(end)
		return &u, err
	}, "select account, subject, start, ends, used from taken where "+c.String()+" order by account, subject, start", c.args...)
}

// Sweep removes what has ended and nobody asks for any more: old requests, usage,
// locks, suppressions that held for a time, failures that count no more, old news. It is called now and then.
func (db *DB) Sweep(ctx context.Context) error {
	return db.write(ctx, "sweep", func(ctx context.Context, w *writer) error {
		long := sweepSlack.Microseconds()
		for _, statement := range []string{
			"delete from once where expires < " + w.dialect.Now + " - ?",
			"delete from taken where ends < " + w.dialect.Now + " - ?",
			"delete from mutex where expires < " + w.dialect.Now + " - ?",
			"delete from suppression where expires > 0 and expires < " + w.dialect.Now + " - ?",
			"delete from suppression_news where at < " + w.dialect.Now + " - ?",
			"delete from soft_failure where ends < " + w.dialect.Now + " - ?",
		} {
			if _, err := w.exec(ctx, statement, long); err != nil {
				return err
			}
		}
		return db.sweepRecent(ctx, w)
	})
}

// sweepSlack is for how long what has ended is kept.
const sweepSlack = time.Hour

// dayMicros is the beginning of the day that a time lies in, as it is stored.
func dayMicros(t time.Time) int64 { return micros(relay.PerDay.Start(t)) }

// tallyParts is into how many rows the count of an account, a day and a kind is
// cut.
const tallyParts = 64

var tallyTable = newTable("tally", " on conflict (account, day, kind, part) do update set count = tally.count + excluded.count",
	columns(blob, "account"), columns(number, "day kind part count"))

type tallyKey struct {
	account relay.ID
	day     int64
	kind    relay.Kind
}

// tally adds up outcomes.
type tally struct {
	days   map[tallyKey]int64
	recent map[recentKey]int64
}

func newTally() tally { return tally{map[tallyKey]int64{}, map[recentKey]int64{}} }

func (t *tally) add(clock *clock, o *relay.Outcome) {
	if t.days == nil {
		*t = newTally()
	}
	t.days[tallyKey{o.Account, dayMicros(fromMicros(clock.micros(o.At))), o.Kind}]++
	if k, counts := recentOf(clock, o); counts {
		t.recent[k]++
	}
}

// putTally writes what was added up, in an order that is the same for all.
func (w *writer) putTally(ctx context.Context, part int64, t *tally) error {
	if len(t.days) == 0 {
		return nil
	}
	keys := make([]tallyKey, 0, len(t.days))
	for k := range t.days {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b tallyKey) int {
		return cmp.Or(a.account.Compare(b.account), cmp.Compare(a.day, b.day), cmp.Compare(a.kind, b.kind))
	})
	rows := make([][]any, len(keys))
	for i := range keys {
		k := &keys[i]
		rows[i] = []any{k.account[:], k.day, int64(k.kind), part, t.days[*k]}
	}
	if err := w.insert(ctx, tallyTable, rows...); err != nil {
		return err
	}
	return w.putRecent(ctx, part, t.recent)
}

// Outcomes counts the outcomes of an account by day and kind, from the day that
// since lies in to the one that until lies in.
func (db *DB) Outcomes(ctx context.Context, account relay.ID, since, until time.Time) ([]*relay.DayCount, error) {
	var c conditions
	c.account("account", account)
	c.add("day >= ? and day <= ?", dayMicros(since), dayMicros(until))
	return collect(ctx, db, "read outcomes", func(row scanner) (*relay.DayCount, error) {
		var n relay.DayCount
		var id []byte
		var day int64
		err := row.Scan(&id, &day, &n.Kind, &n.N)
		n.Account, n.Day = toID(id), fromMicros(day)
		return &n, err
	}, "select account, day, kind, cast(sum(count) as bigint) from tally where "+c.String()+" group by account, day, kind order by account, day, kind", c.args...)
}
