package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"postrider/internal/postings"
	"postrider/internal/relay"
)

// The index of the log is made after the fact, so that mail never waits for it.
// Whoever makes it reads the events that came since, and writes a segment that has
// all that there is of their deliveries; several segments become a larger one. How
// far it is stands in the newest segment itself: a crash repeats nothing and leaves
// nothing out. One node at a time does it; if two did, the second would find it
// done.
const (
	// indexMost is how many events make a segment at most.
	indexMost = 40_000
	// indexLag is for how long an event must have had time to become visible where
	// events are not committed in the order of their ids. Whether one took longer
	// is seen later.
	indexLag = time.Second

	mergeWidth = 8         // segments that become one
	mergeTier  = 4 << 10   // deliveries in a segment of the lowest tier, at most
	mergeMost  = 128 << 10 // in one that is not merged any more, at least

	partsAtOnce = 1 << 20 // bytes in one transaction
	// replacedFor is how long a segment stays that was replaced, for those who read.
	replacedFor = time.Minute
)

var (
	partTable    = newTable("log_part", "", columns(number, "segment part"), columns(blob, "bytes"))
	segmentTable = newTable("log_segment", "", columns(number, "id docs"), columns(blob, "newest oldest first_event last_event"),
		columns(number, "events sure gone replaced skew size"), columns(blob, "directory"))
)

// errOvertaken means that another node has done it.
var errOvertaken = errors.New("another node was faster")

// IndexLog takes the next events into the index of the log, and gives their number:
// 0 where there are less than least, which are left until there are more: searches
// look at them one by one. left is the time of the oldest event that is not in the
// index where there are many left.
func (db *DB) IndexLog(ctx context.Context, least int) (events int, left time.Time, err error) {
	all, err := db.segments(ctx)
	if err != nil {
		return 0, left, err
	}
	var place relay.ID
	if len(all) > 0 {
		place = all[len(all)-1].last
	}
	end, sure := relay.Everyone, true
	if !db.dialect.Single {
		end = idAt(db.clock.theirs().Add(-indexLag))
	}
	keys, n, last, err := db.changed(ctx, place, end)
	if err != nil || n < least {
		return 0, left, db.indexed(err)
	}
	if horizon, whole := db.Horizon(); !whole {
		sure = last.Compare(horizon) < 0
	}
	err = db.addSegment(ctx, keys, &segment{first: place, last: last, events: int64(n), sure: sure}, nil)
	if n == indexMost {
		left = last.Time()
	}
	return n, left, db.indexed(err)
}

// indexed is the error that the caller is to be told.
func (db *DB) indexed(err error) error {
	if err == nil || errors.Is(err, errOvertaken) || errors.Is(err, errMoved) {
		return nil
	}
	return db.fail("index log", err)
}

// changed gives the deliveries that changed by the events after one, before
// another, in the order of the index; how many events there are, and the last one.
func (db *DB) changed(ctx context.Context, after, before relay.ID) (keys []postings.Key, n int, last relay.ID, err error) {
	err = db.read(ctx, "select message, n, kind, id, "+detailOfDeeds+" from event where id > ? and id < ? order by id limit ?", func(row scanner) error {
		n++
		var kind relay.Kind
		var id, raw []byte
		k, err := scanKey(row, &kind, &id, &raw)
		last = toID(id)
		if !kind.Stays() || raw != nil && tells(kind, raw) {
			keys = append(keys, k)
		}
		return err
	}, after[:], before[:], indexMost)
	return sorted(keys), n, last, err
}

// detailOfDeeds is what of an event says whether it is the first of its kind.
var detailOfDeeds = func() string {
	var kinds []string
	for _, k := range marking {
		kinds = append(kinds, strconv.Itoa(int(k)))
	}
	return "case when kind in (" + strings.Join(kinds, ", ") + ") then detail end"
}()

// tells whether its delivery is found by it from now on: by the first of its kind,
// and by no other.
func tells(k relay.Kind, raw []byte) bool {
	var d struct{ Mark relay.Mark }
	return json.Unmarshal(raw, &d) == nil && d.Mark&telling(k) != 0
}

// addSegment writes a segment of these deliveries. Where it replaces others these
// must be there still, and otherwise the index must end where it begins.
func (db *DB) addSegment(ctx context.Context, keys []postings.Key, s *segment, replaces []*segment) error {
	b := postings.NewBuilder()
	for len(keys) > 0 {
		some := keys[:min(len(keys), 1000)]
		keys = keys[len(some):]
		list, err := db.logged(ctx, some, conditions{})
		if err != nil {
			return err
		}
		for _, l := range list {
			b.Doc(keyOf(l.ID))
			termsOf(l, b.Term)
			s.docs++
			if s.docs == 1 {
				s.newest = l.ID.Message
			}
			s.oldest = l.ID.Message
			// The id has no more than milliseconds.
			s.skew = max(s.skew, l.Message.Received.Sub(l.ID.Message.Time()).Abs()+time.Millisecond)
		}
	}
	return db.writeSegment(ctx, s, replaces, b.Write)
}

// writeSegment writes the parts of a segment in transactions of their own, and then
// has it count in place of others.
func (db *DB) writeSegment(ctx context.Context, s *segment, replaces []*segment, write func(postings.Put) (*postings.Directory, error)) error {
	err := db.write(ctx, "index log", func(ctx context.Context, w *writer) error {
		return w.query(ctx, "update counter set value = value + 1 where name = 'log' returning value", func(row scanner) error { return row.Scan(&s.id) })
	})
	if err != nil {
		return err
	}
	var rows [][]any
	size, total := 0, 0
	flush := func() error {
		if len(rows) == 0 {
			return nil
		}
		err := db.write(ctx, "index log", func(ctx context.Context, w *writer) error { return w.insert(ctx, partTable, rows...) })
		rows, size = nil, 0
		return err
	}
	directory, err := write(func(part int, b []byte) error {
		rows = append(rows, []any{s.id, int64(part), b})
		size, total = size+len(b), total+len(b)
		if size < partsAtOnce {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	if err != nil {
		return err
	}
	s.docs = directory.Docs
	return db.write(ctx, "index log", func(ctx context.Context, w *writer) error {
		// One after the other.
		if _, err := w.exec(ctx, "update counter set value = value where name = 'log'"); err != nil {
			return err
		}
		if err := w.replace(ctx, s, replaces); err != nil {
			return err
		}
		return w.insert(ctx, segmentTable, []any{s.id, int64(s.docs), s.newest[:], s.oldest[:], s.first[:], s.last[:], s.events, bit(s.sure), s.gone, int64(0), s.skew.Microseconds(), int64(total), directory.Encode()})
	})
}

func (w *writer) replace(ctx context.Context, s *segment, replaces []*segment) error {
	if len(replaces) == 0 {
		var last relay.ID
		err := w.query(ctx, "select last_event from log_segment where replaced = 0 order by last_event desc, id desc limit 1", func(row scanner) error {
			var b []byte
			err := row.Scan(&b)
			last = toID(b)
			return err
		})
		if err == nil && last != s.first {
			err = errOvertaken
		}
		return err
	}
	for _, old := range replaces {
		n, err := w.exec(ctx, "update log_segment set replaced = "+w.dialect.Now+" where id = ? and replaced = 0", old.id)
		if err != nil {
			return err
		}
		if n == 0 {
			return errOvertaken
		}
	}
	return nil
}

// MergeLog makes the index of the log smaller where that is due: it looks again at
// what may have been incomplete, makes one segment of several, leaves out what was
// dropped, and drops what was replaced. It tells whether it did anything.
func (db *DB) MergeLog(ctx context.Context) (bool, error) {
	dropped, err := db.dropSegments(ctx)
	if dropped || err != nil {
		return dropped, db.indexed(err)
	}
	all, err := db.segments(ctx)
	if err != nil {
		return false, err
	}
	if s := db.unsure(all); s != nil {
		return true, db.indexed(db.lookAgain(ctx, s))
	}
	due := dueMerge(all)
	if len(due) == 0 {
		return false, nil
	}
	return true, db.indexed(db.mergeSegments(ctx, due))
}

// unsure is the first segment of which it can be said now whether it is complete.
func (db *DB) unsure(all []*segment) *segment {
	horizon, whole := db.Horizon()
	for _, s := range all {
		if !s.sure && (whole || s.last.Compare(horizon) < 0) {
			return s
		}
	}
	return nil
}

// lookAgain indexes the events of a segment anew where there are more of them now.
func (db *DB) lookAgain(ctx context.Context, s *segment) error {
	n := int64(0)
	err := db.read(ctx, "select count(*) from event where id > ? and id <= ?", func(row scanner) error { return row.Scan(&n) }, s.first[:], s.last[:])
	if err != nil {
		return err
	}
	if n == s.events {
		return db.write(ctx, "index log", func(ctx context.Context, w *writer) error {
			_, err := w.exec(ctx, "update log_segment set sure = 1 where id = ?", s.id)
			return err
		})
	}
	var keys []postings.Key
	err = db.read(ctx, "select message, n from event where id > ? and id <= ?", func(row scanner) error {
		k, err := scanKey(row)
		keys = append(keys, k)
		return err
	}, s.first[:], s.last[:])
	if err != nil {
		return err
	}
	return db.addSegment(ctx, sorted(keys), &segment{first: s.first, last: s.last, events: n, sure: true}, []*segment{s})
}

// dueMerge finds segments that are to become one: the first of a tier that has
// enough of them, or one of which half was dropped.
func dueMerge(all []*segment) []*segment {
	for _, s := range all {
		if s.sure && s.docs > 0 && s.gone*2 > int64(s.docs) {
			return []*segment{s}
		}
	}
	for least := mergeTier; least < mergeMost*mergeWidth; least *= mergeWidth {
		var tier []*segment
		for _, s := range all {
			if s.sure && s.docs < min(least, mergeMost) && (least == mergeTier || s.docs >= least/mergeWidth) {
				tier = append(tier, s)
			}
		}
		if len(tier) >= mergeWidth {
			return tier[:mergeWidth]
		}
	}
	return nil
}

func (db *DB) mergeSegments(ctx context.Context, of []*segment) error {
	to := &segment{first: of[0].first, last: of[0].last, sure: true}
	var sources []postings.Source
	gone := false
	for _, s := range of {
		directory, err := db.directory(ctx, s.id)
		if err != nil {
			return err
		}
		sources = append(sources, postings.Source{Directory: directory, Part: db.partReader(ctx, s.id)})
		to.events += s.events
		gone = gone || s.gone > 0
		to.skew = max(to.skew, s.skew)
		if s.first.Compare(to.first) < 0 {
			to.first = s.first
		}
		if s.last.Compare(to.last) > 0 {
			to.last = s.last
		}
		if s.docs > 0 && (to.newest.IsZero() || s.newest.Compare(to.newest) > 0) {
			to.newest = s.newest
		}
		if s.docs > 0 && (to.oldest.IsZero() || s.oldest.Compare(to.oldest) < 0) {
			to.oldest = s.oldest
		}
	}
	var keep func([]postings.Key) ([]bool, error)
	if gone {
		keep = func(keys []postings.Key) ([]bool, error) { return db.there(ctx, keys) }
	}
	return db.writeSegment(ctx, to, of, func(put postings.Put) (*postings.Directory, error) { return postings.Merge(sources, keep, put) })
}

// partReader reads the parts of a segment in their order, some at once. They do not
// go through the cache, which is for those who search.
func (db *DB) partReader(ctx context.Context, segment int64) func(part int) ([]byte, error) {
	const atOnce = 32
	ahead := map[int][]byte{}
	return func(part int) ([]byte, error) {
		if b, ok := ahead[part]; ok {
			delete(ahead, part)
			return b, nil
		}
		clear(ahead)
		err := db.read(ctx, "select part, bytes from log_part where segment = ? and part >= ? and part < ?", func(row scanner) error {
			var p int
			var b []byte
			err := row.Scan(&p, &b)
			ahead[p] = b
			return err
		}, segment, part, part+atOnce)
		if err != nil {
			return nil, err
		}
		b, ok := ahead[part]
		if !ok {
			return nil, errMoved
		}
		delete(ahead, part)
		return b, nil
	}
}

// there tells which deliveries there still are.
func (db *DB) there(ctx context.Context, keys []postings.Key) ([]bool, error) {
	from, args := db.ofKeys(keys)
	found := make(map[postings.Key]bool, len(keys))
	err := db.read(ctx, "select d.message, d.n from "+from, func(row scanner) error {
		k, err := scanKey(row)
		found[k] = true
		return err
	}, args...)
	stays := make([]bool, len(keys))
	for i, k := range keys {
		stays[i] = found[k]
	}
	return stays, err
}

// dropSegments drops some of what was replaced a while ago, and tells whether there
// was any.
func (db *DB) dropSegments(ctx context.Context) (bool, error) {
	id := int64(-1)
	err := db.read(ctx, "select id from log_segment where replaced > 0 and replaced < "+db.dialect.Now+" - ? order by id limit 1", func(row scanner) error {
		return row.Scan(&id)
	}, replacedFor.Microseconds())
	if err != nil || id < 0 {
		return false, err
	}
	return true, db.dropParts(ctx, id)
}

// dropParts drops a segment, some parts at a time.
func (db *DB) dropParts(ctx context.Context, id int64) error {
	for {
		left := int64(-1)
		err := db.read(ctx, "select part from log_part where segment = ? order by part desc limit 1", func(row scanner) error { return row.Scan(&left) }, id)
		if err != nil {
			return err
		}
		err = db.write(ctx, "drop index of the log", func(ctx context.Context, w *writer) error {
			if left < 0 {
				_, err := w.exec(ctx, "delete from log_segment where id = ?", id)
				return err
			}
			_, err := w.exec(ctx, "delete from log_part where segment = ? and part > ?", id, left-100)
			return err
		})
		if err != nil || left < 0 {
			return err
		}
	}
}

// CleanLog drops what a crash left of segments that were being written. Nobody may
// be writing one.
func (db *DB) CleanLog(ctx context.Context) error {
	for last := int64(-1); ; {
		id := int64(-1)
		err := db.read(ctx, "select segment from log_part where segment > ? order by segment limit 1", func(row scanner) error { return row.Scan(&id) }, last)
		if err != nil || id < 0 {
			return db.indexed(err)
		}
		known := false
		err = db.read(ctx, "select 1 from log_segment where id = ?", func(scanner) error { known = true; return nil }, id)
		if err == nil && !known {
			err = db.dropParts(ctx, id)
		}
		if err != nil {
			return fmt.Errorf("clean index: %w", db.indexed(err))
		}
		last = id
	}
}

// LogIndexSize is how many bytes the index of the log has.
func (db *DB) LogIndexSize(ctx context.Context) (size int64, err error) {
	err = db.read(ctx, "select cast(coalesce(sum(size + length(directory)), 0) as bigint) from log_segment where replaced = 0", func(row scanner) error { return row.Scan(&size) })
	if err != nil {
		return 0, db.fail("size up index", err)
	}
	return size, nil
}
