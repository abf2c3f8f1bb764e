package suppression

import (
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"postrider/internal/relay"
	"postrider/internal/store"
)

// Lists is what suppressions of all accounts are kept in.
type Lists interface {
	Suppressed(ctx context.Context, account relay.ID, stream relay.Stream, addresses []string) ([]*relay.Suppression, error)
	SuppressionKeys(ctx context.Context, after relay.SuppressionKey, limit int) ([]relay.SuppressionKey, error)
	SuppressionNews(ctx context.Context, since store.Position) (news []relay.SuppressionNews, now store.Position, whole bool, err error)
	OnSuppress(told func(relay.SuppressionNews))
}

// Filter knows of most addresses, without asking the store, that no account
// suppresses them. What it is not sure of it asks the store: whatever may be on a
// list, and everything while it has not read the lists, or has not heard for a
// second what is new in them.
type Filter struct {
	lists Lists
	most  int // blocks
	log   *slog.Logger
	now   func() time.Time
	seed  maphash.Seed

	set   atomic.Pointer[bloom]     // nil: the store must be asked
	heard atomic.Pointer[time.Time] // all that was committed until then is in set; nil: nobody knows

	asked, vain atomic.Int64 // look-ups, and those that asked the store for nothing, since set was made

	mu   sync.Mutex // taken to add, and to change set and next
	next *draft     // what is being read; nil: nothing is

	// Of Run alone.
	at      store.Position // how far news were read; nil: not at all
	walked  relay.SuppressionKey
	begun   time.Time // when next was begun, then when it was
	read    int
	failing bool
}

const (
	look    = 500 * time.Millisecond // how often it is asked what is new
	believe = time.Second            // how long the answer holds
	page    = 10_000
	renew   = 24 * time.Hour // what was removed goes from the set
	rest    = time.Hour      // at least between two readings because too much is asked in vain
)

// NewFilter makes one of at most so many bytes, and as many again while it reads
// the lists. Call it before anything is suppressed.
func NewFilter(lists Lists, bytes int64, log *slog.Logger) *Filter {
	most := minBlocks
	for int64(most)*2*blockBytes <= bytes {
		most *= 2
	}
	f := &Filter{lists: lists, most: most, log: log, now: time.Now, seed: maphash.MakeSeed()}
	lists.OnSuppress(f.add)
	return f
}

// hash is of an entry for all streams; of adds the stream. Bytes of the account
// come first, and are always as many.
func (f *Filter) hash(account relay.ID, address string) uint64 {
	var room [len(account) + 320]byte
	return maphash.Bytes(f.seed, append(append(room[:0], account[:]...), address...))
}

func of(hash uint64, s relay.Stream) uint64 {
	hash += uint64(s) * 0x9e3779b97f4a7c15
	hash ^= hash >> 32 // mixed again, so that streams of an address lie apart
	hash *= 0xd6e8feb86659fd93
	return hash ^ hash>>32
}

// plain tells whether an address stands in the store, and in its news, as it is.
func plain(address string) bool {
	for i := range len(address) {
		if address[i] < ' ' || address[i] >= 0x7f {
			return false
		}
	}
	return true
}

// Suppressed gives what the store's method of that name does. What another node
// has added counts within a second, and what this one has at once.
func (f *Filter) Suppressed(ctx context.Context, account relay.ID, stream relay.Stream, addresses []string) ([]*relay.Suppression, error) {
	set := f.set.Load()
	if set == nil || !f.fresh() {
		return f.lists.Suppressed(ctx, account, stream, addresses)
	}
	f.asked.Add(1)
	var some []string
	for _, a := range addresses {
		if !plain(a) || f.maybe(set, f.hash(account, a), stream) {
			some = append(some, a)
		}
	}
	if len(some) == 0 {
		return nil, nil
	}
	found, err := f.lists.Suppressed(ctx, account, stream, some)
	if err == nil && len(found) == 0 {
		f.vain.Add(1)
	}
	return found, err
}

func (f *Filter) maybe(set *bloom, hash uint64, stream relay.Stream) bool {
	if stream == 0 {
		return set.has(of(hash, 0)) || set.has(of(hash, relay.Transactional)) || set.has(of(hash, relay.Broadcast))
	}
	return set.has(of(hash, 0)) || set.has(of(hash, stream))
}

// fresh tells whether what was heard last is new enough, by both clocks: one of
// them stands still while a machine sleeps.
func (f *Filter) fresh() bool {
	heard := f.heard.Load()
	if heard == nil {
		return false
	}
	now := f.now()
	wall := now.Round(0).Sub(heard.Round(0))
	return now.Sub(*heard) < believe && wall < believe && wall > -believe
}

// add takes in what is about to be committed, or was.
func (f *Filter) add(news relay.SuppressionNews) {
	f.mu.Lock()
	defer f.mu.Unlock()
	set := f.set.Load()
	for _, a := range news.Addresses {
		h := of(f.hash(news.Account, a), news.Stream)
		if set != nil {
			set.add(h)
		}
		if f.next != nil {
			f.next.add(h)
		}
	}
}

// Run reads the lists and keeps up with them, until ctx ends.
func (f *Filter) Run(ctx context.Context) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		err := f.step(ctx)
		if err != nil && !f.failing && ctx.Err() == nil {
			f.log.Warn("what is new in the lists of suppressions can't be read: each message asks the store", "err", err)
		}
		f.failing = err != nil
		if f.next != nil && err == nil && ctx.Err() == nil {
			continue // there is more to read
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// step hears what is new, and reads on in the lists for a while.
func (f *Filter) step(ctx context.Context) error {
	if err := f.hear(ctx); err != nil {
		return err
	}
	if f.next == nil && f.stale() {
		f.begin()
	}
	if f.next == nil {
		return nil
	}
	return f.walk(ctx, look/2)
}

// hear takes in what is new until there is no more.
func (f *Filter) hear(ctx context.Context) error {
	for {
		now := f.now()
		// An answer that takes longer would be of no use: let the next one come soon.
		asking, stop := context.WithTimeout(ctx, 10*believe)
		news, at, whole, err := f.lists.SuppressionNews(asking, f.at)
		stop()
		if err != nil {
			return fmt.Errorf("hear of new suppressions: %w", err)
		}
		if !whole {
			f.forget()
			continue
		}
		for _, n := range news {
			f.add(n)
		}
		reached := f.at == nil || f.at.Reached(at)
		f.at = at
		if reached {
			f.heard.Store(&now)
			return nil
		}
	}
}

// forget drops all: some of what is new was missed.
func (f *Filter) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.set.Store(nil)
	f.next, f.at = nil, nil
	f.heard.Store(nil)
}

// stale tells whether the lists are to be read again.
func (f *Filter) stale() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	set, age := f.set.Load(), f.now().Sub(f.begun)
	switch {
	case set == nil, age >= renew:
		return true
	case set.full() && set.blocks() < f.most:
		return true
	}
	asked, vain := f.asked.Load(), f.vain.Load()
	return age >= rest && vain > 1000 && vain*20 > asked
}

// begin begins to read. From now on what is added goes there too.
func (f *Filter) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next, f.walked, f.begun, f.read = &draft{most: f.most}, relay.SuppressionKey{}, f.now(), 0
}

// walk reads on for a while.
func (f *Filter) walk(ctx context.Context, d time.Duration) error {
	for start := f.now(); f.now().Sub(start) < d; {
		keys, err := f.lists.SuppressionKeys(ctx, f.walked, page)
		if err != nil {
			return fmt.Errorf("read suppressions: %w", err)
		}
		f.mu.Lock()
		for _, k := range keys {
			f.next.add(of(f.hash(k.Account, k.Address), k.Stream))
		}
		f.mu.Unlock()
		f.read += len(keys)
		if len(keys) < page {
			f.finish()
			return nil
		}
		f.walked = keys[len(keys)-1]
	}
	return nil
}

// finish puts what was read in place.
func (f *Filter) finish() {
	f.mu.Lock()
	defer f.mu.Unlock()
	set := f.next.done()
	f.set.Store(set)
	f.next = nil
	f.asked.Store(0)
	f.vain.Store(0)
	f.log.Debug("suppressions are known", "entries", f.read, "bytes", set.bytes(), "took", f.now().Sub(f.begun))
}
