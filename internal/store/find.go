package store

import (
	"bytes"
	"container/heap"
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"postrider/internal/postings"
	"postrider/internal/relay"
)

const (
	// tailMost is how many events that are not in the index yet are looked at one by
	// one. Where there are more, a search goes through the deliveries themselves.
	tailMost = 20_000
	// findFirst and findMost are how many deliveries are read at once: few where
	// what is found is mostly right.
	findFirst, findMost = 120, 600
	// liveFew is how many live deliveries are looked at one by one.
	liveFew = 2000
)

// Find searches the log: the newest message first, and within a message in the
// order of the envelope. It ends early when it has taken that long, and what it
// has found until then is a page; 0 stands for any time.
//
// The index tells which deliveries may be meant, and each is looked at before it
// is given. So what is found is as it is now, whenever it was indexed.
func (db *DB) Find(ctx context.Context, account relay.ID, f relay.DeliveryFilter, within time.Duration) (*relay.LogPage, error) {
	if err := checkFilter(&f); err != nil {
		return nil, err
	}
	if f.Limit <= 0 {
		f.Limit = relay.DefaultLimit
	}
	s := &finding{db: db, q: newLogQuery(account, f), page: &relay.LogPage{}, until: time.Now().Add(within), endless: within <= 0}
	s.bounds()
	for try := 0; ; try++ {
		err := s.run(ctx)
		if errors.Is(err, errMoved) && try < 5 {
			continue // from where it was
		}
		if err != nil {
			return nil, db.fail("search log", err)
		}
		return s.page, nil
	}
}

// Deliveries is Find that takes its time.
func (db *DB) Deliveries(ctx context.Context, account relay.ID, f relay.DeliveryFilter) ([]relay.Logged, error) {
	page, err := db.Find(ctx, account, f, 0)
	if err != nil {
		return nil, err
	}
	return page.Found, nil
}

// longest is the longest text that is sought for, in bytes.
const longest = 1000

func checkFilter(f *relay.DeliveryFilter) error {
	all := []string{f.Recipient, f.Sender, f.Message, f.Subject, f.Reply, f.Domain, f.Client, f.Script, f.Tag, f.Category, f.Provider, f.Source}
	for k, v := range f.Metadata {
		all = append(all, k, v)
	}
	for _, s := range all {
		if len(s) > longest {
			return &relay.Error{Code: relay.Invalid, Text: "Texts to search for have at most 1000 bytes."}
		}
	}
	if len(f.Metadata) > 20 {
		return &relay.Error{Code: relay.Invalid, Text: "At most 20 keys of metadata are sought for at once."}
	}
	return nil
}

// finding is a search under way.
type finding struct {
	db      *DB
	q       *logQuery
	page    *relay.LogPage
	until   time.Time
	endless bool

	after  postings.Key // what is up to here has been looked at
	oldest relay.ID     // messages before are not wanted
	batch  int
	skip   postings.Key // nothing before is wanted: no live delivery is there
}

// bounds narrows the search by the time in the ids.
func (s *finding) bounds() {
	f := &s.q.f
	s.after = postings.Key{ID: relay.Everyone}
	s.batch = findFirst
	s.skip = postings.Key{ID: relay.Everyone}
	if !f.Until.IsZero() {
		s.after = postings.Key{ID: idAt(f.Until.Add(idSlack))}
	}
	if f.Before != nil {
		if k := keyOf(*f.Before); k.Compare(s.after) > 0 {
			s.after = k
		}
	}
	if !f.Since.IsZero() {
		s.oldest = idAt(f.Since.Add(-idSlack))
	}
}

// run goes on from s.after until the page is full, time is up, or there is nothing
// more.
func (s *finding) run(ctx context.Context) error {
	if id, err := relay.ParseID(s.q.f.Message); err == nil {
		return s.message(ctx, id)
	}
	if len(s.q.needs) == 0 && !s.q.live {
		return s.walk(ctx)
	}
	if s.q.live {
		all := onlyAccount(s.q)
		for {
			live, err := s.liveAfter(ctx, s.after, liveFew)
			if err != nil {
				return err
			}
			if !all && len(live) == liveFew {
				break // there are many: the index tells which
			}
			if done, err := s.lookAt(ctx, live); done || err != nil {
				return err
			}
			if len(live) < liveFew {
				return nil
			}
		}
	}
	// First the segments: what is indexed meanwhile is looked at twice, not missed.
	segments, err := s.db.segments(ctx)
	if err != nil {
		return err
	}
	s.db.index.forget(segments)
	var place relay.ID
	if len(segments) > 0 {
		place = segments[len(segments)-1].last
	}
	tail, whole, err := s.tail(ctx, place)
	if err != nil {
		return err
	}
	if !whole {
		return s.walk(ctx)
	}
	return s.merge(ctx, segments, tail)
}

func onlyAccount(q *logQuery) bool {
	return len(q.needs) == 0 || len(q.needs) == 1 && q.account != relay.Everyone
}

// lookAt reads deliveries, the next ones in order, and takes those that are
// sought. It tells whether the search is done.
func (s *finding) lookAt(ctx context.Context, keys []postings.Key) (done bool, err error) {
	for some := range slices.Chunk(keys, s.batch) {
		list, err := s.db.logged(ctx, some, s.times())
		if err != nil {
			return false, err
		}
		if s.take(list) {
			return true, nil
		}
		s.after = some[len(some)-1]
		if s.late() {
			return true, nil
		}
	}
	return false, nil
}

// take takes those that are sought, until the page is full.
func (s *finding) take(list []*relay.Logged) (full bool) {
	for _, l := range list {
		if !s.q.matches(l) {
			continue
		}
		s.page.Found = append(s.page.Found, *l)
		if len(s.page.Found) == s.q.f.Limit {
			id := l.ID
			s.page.Next = &id
			return true
		}
	}
	return false
}

// late tells whether time is up, and then where the search goes on.
func (s *finding) late() bool {
	if s.endless || time.Now().Before(s.until) {
		return false
	}
	id := deliveryOfKey(s.after)
	s.page.Next = &id
	return true
}

// message takes the deliveries of one message.
func (s *finding) message(ctx context.Context, id relay.ID) error {
	for {
		n := uint32(0)
		switch {
		case bytes.Compare(id[:], s.after.ID[:]) > 0:
			return nil
		case id == s.after.ID:
			n = s.after.N
		}
		var list []*relay.Logged
		err := s.db.readLogged(ctx, map[relay.ID]*relay.Message{}, &list, "select "+deliveryOf+", "+messageColumns+
			" from delivery d join message m on m.id = d.message where d.message = ? and d.n > ? order by d.n limit ?", id[:], n, findMost)
		if err != nil || s.take(list) || len(list) < findMost {
			return err
		}
		s.after = keyOf(list[len(list)-1].ID)
		if s.late() {
			return nil
		}
	}
}

const newestFirst = " order by d.message desc, d.n limit ?"

// times is the condition for when messages came. The ids tell nearly as much, and
// this spares reading what lies between.
func (s *finding) times() (c conditions) {
	if t := s.q.f.Since; !t.IsZero() {
		c.add("m.received >= ?", micros(t))
	}
	if t := s.q.f.Until; !t.IsZero() {
		c.add("m.received < ?", micros(t))
	}
	return c
}

// walk goes through all deliveries, message by message.
func (s *finding) walk(ctx context.Context) error {
	for {
		var ids []relay.ID
		c := s.times()
		id := s.after.ID
		c.add("m.id <= ? and m.id >= ?", id[:], s.oldest[:])
		err := s.db.read(ctx, "select m.id from message m where "+c.String()+" order by m.id desc limit ?", func(row scanner) error {
			var b []byte
			err := row.Scan(&b)
			ids = append(ids, toID(b))
			return err
		}, append(c.args, s.batch)...)
		if err != nil || len(ids) == 0 {
			return err
		}
		keys, err := s.db.deliveriesOf(ctx, ids)
		if err != nil {
			return err
		}
		i, there := slices.BinarySearchFunc(keys, s.after, postings.Key.Compare)
		if there {
			i++
		}
		n := s.batch
		if done, err := s.lookAt(ctx, keys[i:]); done || err != nil {
			return err
		}
		if len(ids) < n {
			return nil
		}
		// The last one is the first of the next look, and has nothing left then.
		s.after = postings.Key{ID: ids[len(ids)-1], N: math.MaxUint32}
		s.batch = findMost
	}
}

// liveAfter gives live deliveries of the account, in the states that are sought, as
// many as that at most.
func (s *finding) liveAfter(ctx context.Context, after postings.Key, most int) (keys []postings.Key, err error) {
	var c conditions
	id := after.ID[:]
	c.add("d.state < 10")
	c.account("d.account", s.q.account)
	if states := s.q.f.States; len(states) > 0 && len(s.q.f.Deeds) == 0 {
		args := make([]any, len(states))
		for i, v := range states {
			args[i] = int64(v)
		}
		c.add("d.state in (?"+repeatMark(len(args)-1)+")", args...)
	}
	c.add("d.message <= ? and (d.message < ? or d.n > ?) and d.message >= ?", id, id, int64(after.N), s.oldest[:])
	err = s.db.read(ctx, "select d.message, d.n from delivery d where "+c.String()+newestFirst, func(row scanner) error {
		k, err := scanKey(row)
		keys = append(keys, k)
		return err
	}, append(c.args, most)...)
	return keys, err
}

func scanKey(row scanner, more ...any) (k postings.Key, err error) {
	var id []byte
	err = row.Scan(append([]any{&id, &k.N}, more...)...)
	k.ID = toID(id)
	return k, err
}

// tail gives the deliveries that have events after the place up to which the index
// is; whole is false where these are too many.
func (s *finding) tail(ctx context.Context, place relay.ID) (keys []postings.Key, whole bool, err error) {
	var c conditions
	c.account("e.account", s.q.account)
	c.add("e.id > ?", place[:])
	n := 0
	err = s.db.read(ctx, "select e.message, e.n, e.kind from event e where "+c.String()+" order by e.id limit ?", func(row scanner) error {
		n++
		var kind relay.Kind
		k, err := scanKey(row, &kind)
		if !kind.Stays() || slices.Contains(s.q.f.Deeds, kind) {
			keys = append(keys, k)
		}
		return err
	}, append(c.args, tailMost)...)
	return sorted(keys), n < tailMost, err
}

// sorted puts keys into their order, each once.
func sorted(keys []postings.Key) []postings.Key {
	slices.SortFunc(keys, postings.Key.Compare)
	return slices.Compact(keys)
}

// source gives keys in their order.
type source struct {
	head postings.Key // the next one, or where not open a bound of it
	open bool

	keys []postings.Key // that follow

	// Of a segment.
	segment   *segment
	directory *postings.Directory
	docs      []uint32 // that follow the keys
}

// sources are a heap: the newest first.
type sources []*source

func (h sources) Len() int           { return len(h) }
func (h sources) Less(i, j int) bool { return h[i].head.Compare(h[j].head) < 0 }
func (h sources) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *sources) Push(x any)        { *h = append(*h, x.(*source)) }
func (h *sources) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}

// merge looks at what the index and the tail say, in order.
func (s *finding) merge(ctx context.Context, segments []*segment, tail []postings.Key) error {
	h := sources{{head: postings.Key{ID: relay.Everyone}, keys: tail}}
	for _, g := range segments {
		if g.docs > 0 && g.newest.Compare(s.oldest) >= 0 && g.oldest.Compare(s.after.ID) <= 0 {
			h = append(h, &source{head: postings.Key{ID: g.newest}, segment: g})
		}
	}
	heap.Init(&h)
	live := &liveKeys{s: s}
	var batch []postings.Key
	for len(h) > 0 {
		c := h[0]
		if s.oldest.Compare(c.head.ID) > 0 {
			break
		}
		if c.open && c.head.Compare(s.after) > 0 && (len(batch) == 0 || batch[len(batch)-1] != c.head) {
			wanted, err := live.has(ctx, c.head)
			if err != nil {
				return err
			}
			if wanted {
				batch = append(batch, c.head)
			} else if live.over() {
				break
			}
		}
		if len(batch) == s.batch {
			if done, err := s.lookAt(ctx, batch); done || err != nil {
				return err
			}
			batch, s.batch = batch[:0], findMost
		}
		more, err := s.next(ctx, c)
		if err != nil {
			return err
		}
		if more {
			heap.Fix(&h, 0)
		} else {
			heap.Pop(&h)
		}
	}
	_, err := s.lookAt(ctx, batch)
	return err
}

// next takes a source one key further, or opens it.
func (s *finding) next(ctx context.Context, c *source) (more bool, err error) {
	if !c.open {
		if c.open = true; c.segment != nil {
			if err := s.openSegment(ctx, c); err != nil {
				return false, err
			}
		} else if i, _ := slices.BinarySearchFunc(c.keys, s.after, postings.Key.Compare); i > 0 {
			c.keys = c.keys[i:]
		}
	}
	if len(c.keys) == 0 && len(c.docs) > 0 {
		if err := s.nextKeys(ctx, c); err != nil {
			return false, err
		}
	}
	if len(c.keys) == 0 {
		return false, nil
	}
	c.head, c.keys = c.keys[0], c.keys[1:]
	return true, nil
}

// nextKeys finds the keys of the next documents, from one part.
func (s *finding) nextKeys(ctx context.Context, c *source) error {
	if s.q.live {
		i, _ := slices.BinarySearch(c.docs, c.directory.First(c.directory.After(s.skip)))
		if c.docs = c.docs[i:]; len(c.docs) == 0 {
			c.keys = nil
			return nil
		}
	}
	part := c.directory.KeyPart(c.docs[0])
	found, err := s.db.parts(ctx, c.segment.id, []int{part})
	if err != nil {
		return err
	}
	keys, err := postings.Keys(found[part])
	if err != nil {
		return err
	}
	c.keys = c.keys[:0]
	for len(c.docs) > 0 && c.directory.KeyPart(c.docs[0]) == part {
		i := c.directory.InPart(c.docs[0])
		if i >= len(keys) {
			return postings.ErrBroken
		}
		c.keys = append(c.keys, keys[i])
		c.docs = c.docs[1:]
	}
	return nil
}

// liveKeys tells of keys, asked for in their order, whether they are live.
type liveKeys struct {
	s    *finding
	keys []postings.Key // that follow
	end  bool           // nothing comes after them
}

// over tells that none of the keys that follow is live.
func (l *liveKeys) over() bool { return l.end && len(l.keys) == 0 }

func (l *liveKeys) has(ctx context.Context, k postings.Key) (bool, error) {
	if !l.s.q.live {
		return true, nil
	}
	for {
		i, found := slices.BinarySearchFunc(l.keys, k, postings.Key.Compare)
		l.keys = l.keys[i:]
		if len(l.keys) > 0 {
			l.s.skip = l.keys[0]
		}
		if found || l.end || len(l.keys) > 0 {
			return found, nil
		}
		// From this key on.
		from := postings.Key{ID: k.ID, N: max(k.N, 1) - 1}
		keys, err := l.s.liveAfter(ctx, from, liveFew)
		if err != nil {
			return false, err
		}
		l.keys, l.end = keys, len(keys) < liveFew
		if len(keys) == 0 {
			return false, nil
		}
	}
}

// What it costs to read a part of the index, and to look at a delivery, as one to
// the other.
const (
	partCost    = 4
	lookCost    = 1
	fewDocs     = 16  // are looked at rather than sought in further lists
	prefixParts = 160 // are read of a segment at most for what begins so
)

// openSegment finds the documents of a segment that may be sought.
func (s *finding) openSegment(ctx context.Context, c *source) (err error) {
	if c.directory, err = s.db.directory(ctx, c.segment.id); err != nil {
		return err
	}
	docs, any, err := s.whole(ctx, c)
	if err != nil || any && len(docs) == 0 {
		return err
	}
	docs, any, err = s.prefixes(ctx, c, docs, any)
	if err != nil {
		return err
	}
	first, end, err := s.within(ctx, c)
	if err != nil {
		return err
	}
	if !any {
		for d := first; d < end; d++ {
			docs = append(docs, d)
		}
	}
	i, _ := slices.BinarySearch(docs, first)
	j, _ := slices.BinarySearch(docs, end)
	c.docs = docs[i:max(i, j)]
	return nil
}

// within gives the first of the documents that come after what was looked at, and
// are of the time that is sought, and the one behind the last. Ids and times of a
// segment are usually much nearer to each other than they may be.
func (s *finding) within(ctx context.Context, c *source) (first, end uint32, err error) {
	from, to := s.after, postings.Key{ID: s.oldest, N: math.MaxUint32}
	if t := s.q.f.Until; !t.IsZero() {
		if k := (postings.Key{ID: idAt(t.Add(c.segment.skew + time.Millisecond))}); k.Compare(from) > 0 {
			from = k
		}
	}
	if t := s.q.f.Since; !t.IsZero() {
		if k := (postings.Key{ID: idAt(t.Add(-c.segment.skew)), N: math.MaxUint32}); k.Compare(to) < 0 {
			to = k
		}
	}
	if first, err = s.docAfter(ctx, c, from); err == nil {
		end, err = s.docAfter(ctx, c, to)
	}
	return first, end, err
}

// docAfter is the first document that comes after a key.
func (s *finding) docAfter(ctx context.Context, c *source, key postings.Key) (uint32, error) {
	switch {
	case bytes.Compare(c.segment.newest[:], key.ID[:]) < 0:
		return 0, nil
	case bytes.Compare(key.ID[:], c.segment.oldest[:]) < 0:
		return uint32(c.directory.Docs), nil
	}
	part := c.directory.After(key)
	found, err := s.db.parts(ctx, c.segment.id, []int{part})
	if err != nil {
		return 0, err
	}
	keys, err := postings.Keys(found[part])
	if err != nil {
		return 0, err
	}
	i, there := slices.BinarySearchFunc(keys, key, postings.Key.Compare)
	if there {
		i++
	}
	return c.directory.First(part) + uint32(i), nil
}

// whole finds the documents that have all the terms that are known whole; any
// tells whether there are such terms.
func (s *finding) whole(ctx context.Context, c *source) (docs []uint32, any bool, err error) {
	var wanted []int
	for _, n := range s.q.needs {
		for _, t := range n.terms {
			if p := c.directory.TermPart(t); p >= 0 {
				wanted = append(wanted, p)
			}
		}
	}
	parts, err := s.db.parts(ctx, c.segment.id, wanted)
	if err != nil {
		return nil, false, err
	}
	type found struct {
		lists []postings.List
		count int
	}
	var all []found
	for _, n := range s.q.needs {
		if len(n.terms) == 0 {
			continue
		}
		var f found
		for _, t := range n.terms {
			p := c.directory.TermPart(t)
			if p < 0 {
				continue
			}
			l, err := postings.Find(parts[p], t)
			if err != nil {
				return nil, false, err
			}
			if l.Count > 0 {
				f.lists = append(f.lists, l)
				f.count += l.Count
			}
		}
		if f.count == 0 {
			return nil, true, nil
		}
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b found) int { return a.count - b.count })
	for i, f := range all {
		switch {
		case len(f.lists) == 1 && i == 0:
			docs = f.lists[0].Docs(make([]uint32, 0, f.count))
		case len(f.lists) == 1:
			docs = f.lists[0].Keep(docs)
		default:
			set := postings.NewSet(c.directory.Docs)
			for _, l := range f.lists {
				set.Add(l)
			}
			if i == 0 {
				docs = set.Docs()
			} else {
				docs = set.Keep(docs)
			}
		}
		if len(docs) <= fewDocs {
			break
		}
	}
	return docs, len(all) > 0, nil
}

// prefixes keeps of documents those that have terms which begin as they should,
// where that is cheaper than to look at each.
func (s *finding) prefixes(ctx context.Context, c *source, docs []uint32, any bool) ([]uint32, bool, error) {
	for _, n := range s.q.needs {
		if n.prefix == "" {
			continue
		}
		from, to := c.directory.PrefixParts(n.prefix)
		look := math.MaxInt
		if any {
			look = len(docs) * lookCost
		}
		if (to-from)*partCost >= look || to-from > prefixParts {
			continue
		}
		set := postings.NewSet(c.directory.Docs)
		for from < to {
			var wanted []int
			for ; from < to && len(wanted) < 32; from++ {
				wanted = append(wanted, from)
			}
			parts, err := s.db.parts(ctx, c.segment.id, wanted)
			if err != nil {
				return nil, false, err
			}
			for _, p := range wanted {
				err := postings.Each(parts[p], func(term []byte, l postings.List) bool {
					switch {
					case bytes.HasPrefix(term, []byte(n.prefix)):
						set.Add(l)
					case string(term) > n.prefix:
						return false
					}
					return true
				})
				if err != nil {
					return nil, false, err
				}
			}
		}
		if any {
			docs = set.Keep(docs)
		} else {
			docs, any = set.Docs(), true
		}
	}
	return docs, any, nil
}
