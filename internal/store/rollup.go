package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"postrider/internal/relay"
)

// hourMicros is the beginning of the hour that a stored time lies in.
func hourMicros(at int64) int64 { return at - at%time.Hour.Microseconds() }

var rollupTable = newTable("rollup", " on conflict (account, at, digest, part) do update set count = rollup.count + excluded.count,"+
	" message = excluded.message, n = excluded.n",
	columns(blob, "account"), columns(number, "at"), columns(blob, "digest"), columns(number, "part stream kind mark latency"), columns(blob, "credential"),
	columns(words, "category provider sending source tag"), columns(number, "count"), columns(blob, "message"), columns(number, "n"))

// rollupKey is all that events are told apart by.
type rollupKey struct {
	account, credential                     relay.ID
	at                                      int64
	stream, kind, mark, latency             int64
	category, provider, domain, source, tag string
}

// digest tells keys of one account and hour apart.
func (k *rollupKey) digest() []byte {
	b := make([]byte, 0, 256)
	for _, n := range []int64{k.stream, k.kind, k.mark, k.latency} {
		b = binary.AppendVarint(b, n)
	}
	b = append(b, k.credential[:]...)
	for _, s := range []string{k.category, k.provider, k.domain, k.source, k.tag} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	sum := sha256.Sum256(b)
	return sum[:16]
}

// sums adds up the events of a transaction, to be written at its end.
type sums struct {
	days tally
	cube map[rollupKey]cell
	// unread wait for their messages to be read.
	unread []counted
}

// cell is how often something happened, and to which delivery the last time, where
// people will ask for an example.
type cell struct {
	count   int64
	example relay.DeliveryID
}

// counted is an event that is to be counted.
type counted struct {
	delivery relay.DeliveryID
	at       int64 // as it is stored
	key      rollupKey
}

// add counts what was settled. The outcome's provider and source are those that its
// event has.
func (s *sums) add(clock *clock, o *relay.Outcome, d *detail) {
	at := clock.micros(o.At)
	s.days.add(clock, o)
	if !o.Kind.Counted() {
		return
	}
	c := counted{o.Delivery, at, rollupKey{account: o.Account, at: hourMicros(at), kind: int64(o.Kind), mark: int64(d.Mark),
		category: text(categoryOf(o)), provider: text(o.Provider), source: d.Source}}
	if o.Attempt != nil && o.Attempt.Source.IsValid() {
		c.key.source = o.Attempt.Source.String()
	}
	if m := o.Message; m != nil && m.ID == o.Delivery.Message {
		s.count(clock, &c, m, 1)
	} else {
		s.unread = append(s.unread, c)
	}
}

// accepted counts n deliveries of a message that is being put.
func (s *sums) accepted(clock *clock, m *relay.Message, n int64) {
	at := clock.micros(m.Received)
	s.count(clock, &counted{relay.DeliveryID{Message: m.ID}, at, rollupKey{account: m.Account, at: hourMicros(at), kind: int64(relay.EventAccepted)}}, m, n)
}

// categoryOf is what the event is told apart by, beside its kind.
func categoryOf(o *relay.Outcome) string {
	switch e := o.Engagement; {
	case o.Kind == relay.EventDelivered:
		return ""
	case e == nil:
		return o.Diagnosis.Category
	case e.Machine != "":
		return "machine"
	default:
		return e.Method
	}
}

// count adds an event with what its message says of it.
func (s *sums) count(clock *clock, c *counted, m *relay.Message, n int64) {
	k := c.key
	k.stream, k.credential, k.domain = int64(m.Stream), m.Credential, text(m.SendingDomain())
	if relay.Kind(k.kind) == relay.EventDelivered {
		from := clock.micros(m.Received)
		if r := m.Envelope.Release; !r.IsZero() {
			from = max(from, micros(r))
		}
		k.latency = int64(relay.Latency(time.Duration(c.at-from) * time.Microsecond))
	}
	var example relay.DeliveryID
	switch relay.Kind(k.kind) {
	case relay.EventDeferred, relay.EventBounced, relay.EventExpired, relay.EventCancelled, relay.EventComplained:
		example = c.delivery
	}
	if s.cube == nil {
		s.cube = map[rollupKey]cell{}
	}
	s.cube[k] = cell{s.cube[k].count + n, example}
	for i, tag := range m.Tags {
		if tag != "" && !slices.Contains(m.Tags[:i], tag) {
			k.tag = text(tag)
			s.cube[k] = cell{s.cube[k].count + n, example}
		}
	}
}

// putSums writes what was added up, in an order that is the same for all.
func (w *writer) putSums(ctx context.Context, lease int64, s *sums) error {
	if err := w.readCounted(ctx, s); err != nil {
		return err
	}
	part := (lease*8 + w.number) % tallyParts
	if err := w.putTally(ctx, part, &s.days); err != nil || len(s.cube) == 0 {
		return err
	}
	rows := make([][]any, 0, len(s.cube))
	for k, c := range s.cube {
		rows = append(rows, []any{slices.Clone(k.account[:]), k.at, k.digest(), part, k.stream, k.kind, k.mark, k.latency, slices.Clone(k.credential[:]),
			k.category, k.provider, k.domain, k.source, k.tag, c.count, slices.Clone(c.example.Message[:]), int64(c.example.N)})
	}
	slices.SortFunc(rows, func(a, b []any) int {
		return cmp.Or(bytes.Compare(a[0].([]byte), b[0].([]byte)), cmp.Compare(a[1].(int64), b[1].(int64)), bytes.Compare(a[2].([]byte), b[2].([]byte)))
	})
	return w.insert(ctx, rollupTable, rows...)
}

// readCounted reads the messages of events whose messages were not at hand: orders,
// and what comes after the end.
func (w *writer) readCounted(ctx context.Context, s *sums) error {
	if len(s.unread) == 0 {
		return nil
	}
	messages := map[relay.ID]*relay.Message{}
	for _, c := range s.unread {
		messages[c.delivery.Message] = nil
	}
	ids := slices.SortedFunc(maps.Keys(messages), relay.ID.Compare)
	for some := range inParts(ids) {
		args := make([]any, len(some))
		for i := range some {
			args[i] = some[i][:]
		}
		err := w.query(ctx, "select "+messageColumns+" from message m where m.id in (?"+repeatMark(len(args)-1)+")", func(row scanner) error {
			var r messageRow
			if err := row.Scan(r.targets()...); err != nil {
				return err
			}
			m, err := r.message()
			if err == nil {
				m.Received = w.clock.ours(m.Received)
				messages[m.ID] = m
			}
			return err
		}, args...)
		if err != nil {
			return err
		}
	}
	for i := range s.unread {
		if m := messages[s.unread[i].delivery.Message]; m != nil {
			s.count(w.clock, &s.unread[i], m, 1)
		}
	}
	s.unread = nil
	return nil
}

// marking are the kinds that a delivery's marks tell of, in the order of their bits:
// two for each, as bitOf has them.
var marking = []relay.Kind{relay.EventOpened, relay.EventClicked, relay.EventUnsubscribed, relay.EventComplained}

// bitOf is where a delivery notes that there is an event of the kind in that place.
func bitOf(place int, m relay.Mark) int64 {
	b := int64(1) << (2 * place)
	if m == relay.MarkPerson {
		b <<= 1
	}
	return b
}

// telling is the mark of an event by which deliveries are found: a machine opens
// and follows links for nobody.
func telling(k relay.Kind) relay.Mark {
	if k == relay.EventOpened || k == relay.EventClicked {
		return relay.MarkPerson
	}
	return relay.MarkFirst
}

// deedsOf is what marks say that the recipient did.
func deedsOf(marks int64) (deeds []relay.Kind) {
	for place, k := range marking {
		if marks&bitOf(place, telling(k)) != 0 {
			deeds = append(deeds, k)
		}
	}
	return deeds
}

// marked notes that there is such an event of the delivery, and tells whether it is
// the first of its kind. What a machine did is no first one of a person.
func (w *writer) marked(ctx context.Context, o *relay.Outcome) (mark relay.Mark, err error) {
	place := slices.Index(marking, o.Kind)
	if place < 0 {
		return 0, nil
	}
	for _, m := range []relay.Mark{relay.MarkFirst, relay.MarkPerson} {
		if m == relay.MarkPerson && o.Engagement != nil && o.Engagement.Machine != "" {
			continue
		}
		b := bitOf(place, m)
		n, err := w.exec(ctx, "update delivery set marks = marks + ? where message = ? and n = ? and account = ? and (marks & ?) = 0",
			b, o.Delivery.Message[:], int64(o.Delivery.N), o.Account[:], b)
		if err != nil {
			return 0, err
		}
		if n > 0 {
			mark |= m
		}
	}
	return mark, nil
}

// dimensions are how they are stored.
var dimensions = map[relay.Dimension]string{relay.ByAccount: "account", relay.ByStream: "stream", relay.ByCategory: "category", relay.ByProvider: "provider",
	relay.ByCredential: "credential", relay.ByDomain: "sending", relay.BySource: "source", relay.ByTag: "tag", relay.ByLatency: "latency"}

// Counts counts the account's events. Each counts in the hour that it happened in,
// or on that day, where the hours of a day were merged; in order of time.
func (db *DB) Counts(ctx context.Context, account relay.ID, f relay.CountFilter) ([]*relay.Count, error) {
	c, err := countConditions(account, f)
	if err != nil {
		return nil, err
	}
	at := "0"
	switch f.Per {
	case relay.PerHour:
		at = "at"
	case relay.PerDay:
		at = "at - at % " + fmt.Sprint(24*time.Hour.Microseconds())
	}
	picked := []string{at + " as moment", "kind", "mark"}
	for _, d := range f.By {
		column, known := dimensions[d]
		if !known {
			return nil, &relay.Error{Code: relay.Invalid, Text: fmt.Sprintf("Counts have no %q.", d)}
		}
		if !slices.Contains(picked, column) {
			picked = append(picked, column)
		}
	}
	limit := f.Limit
	if limit <= 0 || limit > relay.MaxCounts {
		limit = relay.MaxCounts
	}
	grouped := strings.Join(append([]string{"moment"}, picked[1:]...), ", ")
	return collect(ctx, db, "count events", func(row scanner) (*relay.Count, error) { return scanCount(row, picked[3:]) },
		"select "+strings.Join(picked, ", ")+", cast(sum(count) as bigint) from rollup where "+c.String()+" group by "+grouped+" order by "+grouped+" limit ?", append(c.args, limit)...)
}

func countConditions(account relay.ID, f relay.CountFilter) (c conditions, err error) {
	if account == relay.Everyone {
		// The key begins with the account: each one's part of the time is found by it.
		c.add("account in (select id from account)")
	} else {
		c.account("account", account)
	}
	if !f.Since.IsZero() {
		c.add("at >= ?", hourMicros(micros(f.Since)))
	}
	if !f.Until.IsZero() {
		c.add("at < ?", micros(f.Until))
	}
	if len(f.Kinds) > 0 {
		args := make([]any, len(f.Kinds))
		for i, k := range f.Kinds {
			args[i] = int64(k)
		}
		c.add("kind in (?"+repeatMark(len(args)-1)+")", args...)
	}
	for _, d := range slices.Sorted(maps.Keys(f.Where)) {
		column, known := dimensions[d]
		if values := f.Where[d]; !known || len(values) == 0 || len(values) > longest {
			return c, &relay.Error{Code: relay.Invalid, Text: fmt.Sprintf("Counts can't be held to %d values of %q.", len(values), d)}
		}
		args, err := countValues(d, f.Where[d])
		if err != nil {
			return c, err
		}
		c.add(column+" in (?"+repeatMark(len(args)-1)+")", args...)
	}
	switch _, one := f.Where[relay.ByTag]; {
	case one:
	case slices.Contains(f.By, relay.ByTag):
		c.add("tag <> ''")
	default:
		c.add("tag = ''")
	}
	return c, nil
}

// countValues are the values of a dimension as they are stored.
func countValues(d relay.Dimension, values []string) ([]any, error) {
	args := make([]any, len(values))
	for i, v := range values {
		var err error
		switch d {
		case relay.ByAccount, relay.ByCredential:
			var id relay.ID
			if v != "" {
				id, err = relay.ParseID(v)
			}
			args[i] = id[:]
		case relay.ByStream:
			var s relay.Stream
			s, err = relay.ParseStream(v)
			args[i] = int64(s)
		case relay.ByLatency:
			err = fmt.Errorf("%q is no place in time", v)
		default:
			args[i] = text(v)
		}
		if err != nil {
			return nil, &relay.Error{Code: relay.Invalid, Text: fmt.Sprintf("There is no %s %q.", d, v), Err: err}
		}
	}
	return args, nil
}

// scanCount reads the columns of Counts.
func scanCount(row scanner, by []string) (*relay.Count, error) {
	var n relay.Count
	var at int64
	var account, credential []byte
	targets := []any{&at, &n.Kind, &n.Mark}
	for _, column := range by {
		targets = append(targets, map[string]any{"account": &account, "stream": &n.Stream, "category": &n.Category, "provider": &n.Provider,
			"credential": &credential, "sending": &n.Domain, "source": &n.Source, "tag": &n.Tag, "latency": &n.Latency}[column])
	}
	err := row.Scan(append(targets, &n.N)...)
	n.At, n.Account, n.Credential = fromMicros(at), toID(account), toID(credential)
	return &n, err
}

// Example gives one of the deliveries that are counted, of the last hour there is
// one of; the zero id where there is none.
func (db *DB) Example(ctx context.Context, account relay.ID, f relay.CountFilter) (id relay.DeliveryID, err error) {
	c, err := countConditions(account, f)
	if err != nil {
		return id, err
	}
	c.add("n > 0")
	err = db.read(ctx, "select message, n from rollup where "+c.String()+" order by at desc limit 1", func(row scanner) error {
		var message []byte
		err := row.Scan(&message, &id.N)
		id.Message = toID(message)
		return err
	}, c.args...)
	if err != nil {
		return id, db.fail("find an example", err)
	}
	return id, nil
}
