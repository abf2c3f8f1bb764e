package queue

import (
	"context"
	"fmt"
	"time"

	"postrider/internal/relay"
	"postrider/internal/schedule"
)

// claimer is the state of the goroutine that claims. What is not said to be
// guarded is its own.
type claimer struct {
	// Guarded by Queue.mu:
	news   bool      // since it looked last
	next   time.Time // when it looks next; zero while it works
	freed  int       // deliveries that left this node's hand since it looked last
	doubt  bool      // something may be leased that is not in hand
	rewalk bool      // begin a walk now
	// late are deliveries of an earlier lease whose attempts ended while a claim
	// was under way, with the version that they had; nil: no claim is.
	late map[relay.DeliveryID]version

	walk    walk
	failing bool
	took    time.Duration // by the last claim
}

// walk is a way through all that waits, class by class.
type walk struct {
	on      bool
	after   relay.Class
	took    time.Duration
	next    time.Time // when to begin
	missing int       // classes known when there was no room for more; 0: none were missed
}

const (
	claimMost = 500                    // deliveries in one claim: other writers wait meanwhile
	few       = 64                     // deliveries in hand
	walkPage  = 500                    // classes
	walkSlice = 100 * time.Millisecond // between claims
	// walkEvery is how often a walk begins: other nodes may have left something.
	// walkShare bounds what walks cost, in parts of the time.
	walkEvery = time.Minute
	walkShare = 20
	// stalled is how long the claimer waits at most while something is due that
	// has no room.
	stalled = time.Second
)

// stirLocked makes the claimer look.
func (q *Queue) stirLocked() {
	q.claimer.news = true
	select {
	case q.poke <- struct{}{}:
	default:
	}
}

// noteLocked tells the directory that a delivery waits in the store.
func (q *Queue) noteLocked(c relay.Class, due time.Time) {
	if q.waiting.Note(c, due) && due.Before(q.claimer.next) {
		q.stirLocked()
	}
}

// doubtLocked makes the claimer compare what is leased with what is in hand.
func (q *Queue) doubtLocked() {
	q.claimer.doubt = true
	q.stirLocked()
}

// doubtful tells whether a write that failed may have been done.
func doubtful(err error) bool {
	switch relay.CodeOf(err) {
	case relay.Unavailable, relay.Internal:
		return true
	}
	return false
}

// roomLocked lets the claimer look where room was made that something waits for.
func (q *Queue) roomLocked(p schedule.Part) {
	c := &q.claimer
	c.freed++
	switch {
	case c.news || q.asleep || !q.waiting.Stalled(time.Now()):
	case q.plentyLocked():
		// Nobody is in a hurry, but one that has little left and more waiting.
		if q.room.Held(p) <= few && q.waiting.Waits(p) && q.room.Worth(p, claimMost) {
			q.stirLocked()
		}
	case c.freed >= min(claimMost, q.config.Window/64+1) || q.room.Worth(p, claimMost):
		q.stirLocked()
	}
}

// plentyLocked tells whether there is enough in hand for a good while.
func (q *Queue) plentyLocked() bool { return len(q.hand) > q.config.Window/64+few }

// claim takes what is due from the store, as long as there is room.
func (q *Queue) claim(ctx context.Context) {
	for ctx.Err() == nil {
		again, err := q.round(ctx)
		if err != nil && !q.claimer.failing && ctx.Err() == nil {
			q.log.Error("due deliveries can't be claimed; trying on", "err", err)
		}
		q.claimer.failing = err != nil
		switch {
		case err != nil:
			q.sleep(ctx, time.Now().Add(time.Second), true)
		case !again:
			q.sleep(ctx, q.claimer.walk.next, false)
		case !q.claimer.walk.on: // which leaves others time enough to write
			q.rest(ctx)
		}
	}
}

// rest lets others write after a claim: for as long as that took; much longer
// where there is plenty in hand, and longer still until some of that has gone or
// something else is due. Filling the window is not worth holding up new mail.
func (q *Queue) rest(ctx context.Context) {
	const short, long, longer, plenty = 2 * time.Millisecond, 200 * time.Millisecond, time.Second, 9
	took := q.claimer.took
	if q.claimer.took = 0; took < short {
		return
	}
	q.mu.Lock()
	much := q.plentyLocked()
	q.mu.Unlock()
	if !much {
		wait(ctx, took, nil)
		return
	}
	took = min(took*plenty, long)
	wait(ctx, took, nil)
	q.mu.Lock()
	news := q.claimer.news
	if !news {
		q.claimer.next = time.Now().Add(longer - took)
		select {
		case <-q.poke: // is old
		default:
		}
	}
	q.mu.Unlock()
	if !news {
		wait(ctx, longer-took, q.poke)
	}
}

// wait waits for that long, or for a poke.
func wait(ctx context.Context, d time.Duration, poke <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-poke:
	}
}

// round does one thing of each kind that is to be done. It is true where there
// may be more.
func (q *Queue) round(ctx context.Context) (again bool, err error) {
	q.mu.Lock()
	asleep, dead, doubt := q.asleep, q.dead, q.claimer.doubt
	q.claimer.news, q.claimer.freed, q.claimer.next = false, 0, time.Time{}
	q.mu.Unlock()
	if doubt && !dead {
		if err := q.reconcile(ctx); err != nil {
			return false, err
		}
	}
	if asleep {
		return false, nil
	}
	if err := q.walkOn(ctx); err != nil {
		return false, err
	}
	more, err := q.claimSome(ctx)
	return more || q.claimer.walk.on, err
}

// claimSome claims what the directory picks.
func (q *Queue) claimSome(ctx context.Context) (more bool, err error) {
	now := time.Now()
	q.mu.Lock()
	lease := q.lease
	picks, more := q.waiting.Pick(now, q.room, q.config.Site, claimMost)
	q.claimer.late = map[relay.DeliveryID]version{}
	q.mu.Unlock()
	if len(picks) == 0 {
		return more, nil
	}
	wants := make([]relay.Want, len(picks))
	for i := range picks {
		wants[i] = picks[i].Want
	}
	claimed, left, err := q.kept.Claim(ctx, lease, now, wants)
	q.claimer.took = time.Since(now)
	items, back := q.take(lease, picks, claimed, left, err)
	if err != nil {
		return false, fmt.Errorf("claim deliveries: %w", err)
	}
	for _, it := range items {
		q.ready(it)
	}
	if len(back) > 0 {
		if err := q.kept.Release(ctx, lease, back); err != nil {
			q.mu.Lock()
			q.doubtLocked()
			q.mu.Unlock()
			return false, fmt.Errorf("give back deliveries: %w", err)
		}
	}
	return more, nil
}

// take takes in hand what was claimed, and gives what is to be tried and what is
// to be given back.
func (q *Queue) take(lease int64, picks []schedule.Pick, claimed []relay.Claimed, left []relay.Waiting, err error) (items []*Item, back []relay.DeliveryID) {
	due := make(map[relay.Class]time.Time, len(left))
	for _, w := range left {
		due[w.Class] = w.Due
	}
	parts := make(map[relay.Class]schedule.Part, len(picks))
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range picks {
		parts[p.Class] = p.Part
		q.room.Take(p.Part, -p.Room())
		if err != nil {
			q.waiting.Done(p.Class, time.Now())
		} else {
			q.waiting.Done(p.Class, due[p.Class])
		}
	}
	if err != nil && doubtful(err) {
		q.doubtLocked()
	}
	late := q.claimer.late
	q.claimer.late = nil
	for _, c := range claimed {
		id := c.Delivery.ID
		version := versionOf(c.Delivery)
		before := q.hand[id]
		switch {
		case q.lease != lease: // it has ended, and with it the claim
		case q.asleep && q.dead: // the same, soon
		case q.asleep:
			back = append(back, id)
		case before != nil && before.version == version:
			before.lease = lease // an attempt under way since an earlier lease
		case late[id] == version: // one that was, and has been settled
		default:
			it := &Item{Delivery: c.Delivery, Message: c.Message, content: &content{refs: 1}, part: parts[c.Delivery.Class()], lease: lease, version: version}
			q.hand[id] = it
			q.room.Take(it.part, 1)
			items = append(items, it)
		}
	}
	return items, back
}

// reconcile gives back what is leased to this node and not in its hand: what was
// written by a commit that seemed to have failed.
func (q *Queue) reconcile(ctx context.Context) error {
	q.mu.Lock()
	lease := q.lease
	q.claimer.doubt = false // before the store is asked: there may be new ones
	q.mu.Unlock()
	held, err := q.kept.Held(ctx, lease)
	var lost []relay.DeliveryID
	if err == nil {
		q.mu.Lock()
		for _, id := range held {
			if q.hand[id] == nil {
				lost = append(lost, id)
			}
		}
		q.mu.Unlock()
		if len(lost) > 0 {
			err = q.kept.Release(ctx, lease, lost)
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if err != nil {
		q.claimer.doubt = true
		return fmt.Errorf("look for lost deliveries: %w", err)
	}
	if len(lost) > 0 {
		q.claimer.rewalk = true // their classes may not be known
		q.log.Warn("deliveries were leased and not in hand; they are given back", "count", len(lost))
	}
	return nil
}

// walkOn looks at the next classes that wait, where a walk is due or under way.
func (q *Queue) walkOn(ctx context.Context) error {
	w := &q.claimer.walk
	start := time.Now()
	q.mu.Lock()
	again := q.claimer.rewalk
	q.claimer.rewalk = false
	missed := w.missing > 0 && q.waiting.Len() < w.missing/2
	q.mu.Unlock()
	switch {
	case again, !w.on && !start.Before(w.next), !w.on && missed:
		*w = walk{on: true}
	case !w.on:
		return nil
	}
	for w.on && time.Since(start) < walkSlice {
		if err := q.walkPage(ctx); err != nil {
			if again {
				q.mu.Lock()
				q.claimer.rewalk = true
				q.mu.Unlock()
			}
			return fmt.Errorf("look what waits: %w", err)
		}
	}
	w.took += time.Since(start)
	if !w.on {
		w.next = time.Now().Add(max(walkEvery, w.took*walkShare))
	}
	return nil
}

func (q *Queue) walkPage(ctx context.Context) error {
	w := &q.claimer.walk
	page, err := q.kept.Waiting(ctx, w.after, walkPage)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, c := range page {
		q.waiting.Note(c.Class, c.Due)
		w.after = c.Class
	}
	if len(page) < walkPage {
		w.on = false
		if q.waiting.Missed() {
			w.missing = q.waiting.Len()
		}
	}
	return nil
}

// sleep waits until next, until something more is due, or until there is news.
// failed says that there is no use in looking before next.
func (q *Queue) sleep(ctx context.Context, next time.Time, failed bool) {
	q.mu.Lock()
	if q.asleep {
		next = time.Now().Add(walkEvery) // Resume brings news
	} else if !failed {
		if at, found := q.waiting.Next(); found && at.Before(next) {
			next = at
		}
		if q.waiting.Stalled(time.Now()) && time.Until(next) > stalled {
			next = time.Now().Add(stalled)
		}
	}
	if q.claimer.news && !failed {
		q.mu.Unlock()
		return
	}
	q.claimer.next = next
	q.mu.Unlock()
	poke := q.poke
	if failed {
		poke = nil
	}
	wait(ctx, max(time.Until(next), 5*time.Millisecond), poke)
}
