package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"postrider/internal/postings"
	"postrider/internal/relay"
)

// segment is a part of the index of the log. It does not change but for sure and
// gone.
type segment struct {
	id             int64
	docs           int
	newest, oldest relay.ID // messages
	first, last    relay.ID // events: above first, up to last
	events         int64
	sure           bool
	gone           int64
	skew           time.Duration // between the time in a message's id and Received, at most
}

// segmentCache keeps directories and parts of segments that were read.
type segmentCache struct {
	mu          sync.Mutex
	directories map[int64]*postings.Directory
	now, before map[partID][]byte // those asked for lately
	size        int               // of now
}

type partID struct {
	segment int64
	part    int
}

// cacheBytes is how much of parts is kept, twice.
const cacheBytes = 8 << 20

func (c *segmentCache) part(id partID) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, ok := c.now[id]
	if !ok {
		if b, ok = c.before[id]; ok {
			c.keep(id, b)
		}
	}
	return b, ok
}

// keep is called with the lock.
func (c *segmentCache) keep(id partID, b []byte) {
	if c.size > cacheBytes || c.now == nil {
		c.before, c.now, c.size = c.now, map[partID][]byte{}, 0
	}
	c.now[id] = b
	c.size += len(b) + 64
}

func (c *segmentCache) put(id partID, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keep(id, b)
}

func (c *segmentCache) directory(id int64) *postings.Directory {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.directories[id]
}

func (c *segmentCache) putDirectory(id int64, d *postings.Directory) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.directories == nil {
		c.directories = map[int64]*postings.Directory{}
	}
	c.directories[id] = d
}

// forget forgets the directories of segments that are there no more.
func (c *segmentCache) forget(there []*segment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.directories) <= 2*len(there) {
		return
	}
	for id := range c.directories {
		if !slices.ContainsFunc(there, func(s *segment) bool { return s.id == id }) {
			delete(c.directories, id)
		}
	}
}

const selectSegments = "select id, docs, newest, oldest, first_event, last_event, events, sure, gone, skew from log_segment where replaced = 0 order by last_event, id"

func scanSegment(row scanner) (*segment, error) {
	var s segment
	var newest, oldest, first, last []byte
	var sure, skew int64
	err := row.Scan(&s.id, &s.docs, &newest, &oldest, &first, &last, &s.events, &sure, &s.gone, &skew)
	s.skew = time.Duration(skew) * time.Microsecond
	s.newest, s.oldest, s.first, s.last, s.sure = toID(newest), toID(oldest), toID(first), toID(last), sure != 0
	return &s, err
}

// segments gives those that count, in the order of their events.
func (db *DB) segments(ctx context.Context) ([]*segment, error) {
	return collect(ctx, db, "read index of the log", scanSegment, selectSegments)
}

// errMoved means that a segment was replaced while it was read.
var errMoved = errors.New("the segment is there no more")

func (db *DB) directory(ctx context.Context, id int64) (*postings.Directory, error) {
	if d := db.index.directory(id); d != nil {
		return d, nil
	}
	var b []byte
	if err := db.read(ctx, "select directory from log_segment where id = ?", func(row scanner) error { return row.Scan(&b) }, id); err != nil {
		return nil, err
	}
	if b == nil {
		return nil, errMoved
	}
	d, err := postings.DecodeDirectory(b)
	if err != nil {
		return nil, fmt.Errorf("read segment %d: %w", id, err)
	}
	db.index.putDirectory(id, d)
	return d, nil
}

// parts gives parts of a segment.
func (db *DB) parts(ctx context.Context, segment int64, wanted []int) (map[int][]byte, error) {
	found := make(map[int][]byte, len(wanted))
	args := []any{segment}
	for _, p := range wanted {
		if b, ok := db.index.part(partID{segment, p}); ok {
			found[p] = b
		} else if _, asked := found[p]; !asked {
			found[p] = nil
			args = append(args, p)
		}
	}
	if len(args) == 1 {
		return found, nil
	}
	n := len(args) - 1
	err := db.read(ctx, "select part, bytes from log_part where segment = ? and part in (?"+repeatMark(n-1)+")", func(row scanner) error {
		var p int
		var b []byte
		if err := row.Scan(&p, &b); err != nil {
			return err
		}
		found[p] = b
		n--
		db.index.put(partID{segment, p}, b)
		return nil
	}, args...)
	if err == nil && n > 0 {
		err = errMoved
	}
	return found, err
}

// keyOf names a delivery as the index does.
func keyOf(d relay.DeliveryID) postings.Key { return postings.Key{ID: d.Message, N: uint32(d.N)} }

func deliveryOfKey(k postings.Key) relay.DeliveryID {
	return relay.DeliveryID{Message: k.ID, N: int(k.N)}
}

// ofKeys gives the condition for the deliveries of keys, and its arguments.
func (db *DB) ofKeys(keys []postings.Key) (from string, args []any) {
	if db.dialect.Arrays {
		messages, numbers := make([][]byte, len(keys)), make([]int64, len(keys))
		for i := range keys {
			messages[i], numbers[i] = keys[i].ID[:], int64(keys[i].N)
		}
		return "unnest(cast(? as bytea[]), cast(? as bigint[])) as u (message, n) join delivery d on d.message = u.message and d.n = u.n", []any{messages, numbers}
	}
	for i := range keys {
		args = append(args, keys[i].ID[:], int64(keys[i].N))
	}
	return "(select column1 as message, column2 as n from (values (?, ?)" + strings.Repeat(", (?, ?)", len(keys)-1) + ")) u cross join delivery d on d.message = u.message and d.n = u.n", args
}

// deliveriesOf gives the keys of the deliveries of messages, in their order.
func (db *DB) deliveriesOf(ctx context.Context, messages []relay.ID) (keys []postings.Key, err error) {
	for some := range slices.Chunk(messages, 200) {
		from, args := "d.message in (?"+repeatMark(len(some)-1)+")", make([]any, len(some))
		for i := range some {
			args[i] = some[i][:]
		}
		if db.dialect.Arrays {
			list := make([][]byte, len(some))
			for i := range some {
				list[i] = some[i][:]
			}
			from, args = "d.message = any(cast(? as bytea[]))", []any{list}
		}
		err := db.read(ctx, "select d.message, d.n from delivery d where "+from, func(row scanner) error {
			k, err := scanKey(row)
			keys = append(keys, k)
			return err
		}, args...)
		if err != nil {
			return nil, err
		}
	}
	return sorted(keys), nil
}

// logged gives the deliveries of keys that are there and for which the conditions
// hold, with their messages, which those of one message share.
func (db *DB) logged(ctx context.Context, keys []postings.Key, c conditions) ([]*relay.Logged, error) {
	found := make([]*relay.Logged, 0, len(keys))
	messages := map[relay.ID]*relay.Message{}
	for some := range slices.Chunk(keys, 200) {
		from, args := db.ofKeys(some)
		if err := db.readLogged(ctx, messages, &found, "select "+deliveryOf+", "+messageColumns+" from "+from+
			" cross join message m where m.id = d.message and "+c.String(), append(args, c.args...)...); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(found, func(a, b *relay.Logged) int { return keyOf(a.ID).Compare(keyOf(b.ID)) })
	return found, nil
}

func (db *DB) readLogged(ctx context.Context, messages map[relay.ID]*relay.Message, found *[]*relay.Logged, query string, args ...any) error {
	return db.read(ctx, query, func(row scanner) error {
		var d deliveryRow
		var m messageRow
		if err := row.Scan(append(d.targets(), m.targets()...)...); err != nil {
			return err
		}
		message := messages[toID(m.id)]
		if message == nil {
			var err error
			if message, err = m.message(); err != nil {
				return err
			}
			messages[message.ID] = message
		}
		*found = append(*found, &relay.Logged{Delivery: *d.delivery(), Message: message})
		return nil
	}, args...)
}
