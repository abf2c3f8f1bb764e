package webhook

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"postrider/internal/relay"
)

// How a worker works.
const (
	scanRows  = 5000             // events of all accounts in one look, where it is behind
	readMost  = 100              // events that are read at once
	mostAside = 100              // messages that may stand aside
	settleAt  = 3                // failures, before another message is tried
	slowFrom  = 2 * time.Second  // an answer that takes longer makes the webhook a slow one
	drainFor  = 5 * time.Second  // an orderly end waits that long for an answer
	storeWait = 2 * time.Second  // when the store does not answer
	idleSave  = 5 * time.Minute  // how far what is noted may be behind when nothing is sent
	gone      = 410              // HTTP: the receiver wants no more
	unaltered = 30 * time.Second // longest sleep
)

// worker sends one webhook's events, one request at a time.
type worker struct {
	s     *Service
	hook  *relay.Webhook
	epoch int64
	stop  context.CancelFunc
	ended chan struct{}

	// The goroutine's own.
	place int       // in the feed; -1: not there yet
	since time.Time // when the first of what waits for a batch was seen
	slow  bool

	mu       sync.Mutex // the rest is saved by others
	p        relay.WebhookProgress
	read     relay.ID              // all events up to it have been queued, or are done
	queue    []relay.EventHead     // to be read
	ready    []*relay.WebhookEvent // to be sent
	done     map[relay.ID]struct{} // beyond p.Done
	failures []relay.WebhookFailure
	dirty    bool
	loaded   bool
	verdict  string // why the webhook is to be disabled; empty: it is not
}

// run sends until ctx ends, or the webhook is to be disabled.
func (w *worker) run(ctx context.Context) {
	defer close(w.ended)
	for !w.load(ctx) {
		if !pause(ctx, storeWait, nil) {
			return
		}
	}
	for ctx.Err() == nil && w.verdict == "" {
		wait, news, err := w.step(ctx)
		if err != nil && ctx.Err() == nil {
			w.s.config.Log.Error("a webhook's events can't be read or noted; trying on", "webhook", w.hook.ID, "err", err)
			wait, news = storeWait, nil
		}
		if wait > 0 && !pause(ctx, wait, news) {
			return
		}
	}
}

// pause waits, or until there is news; false: ctx has ended.
func pause(ctx context.Context, d time.Duration, news <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
	case <-news:
	}
	return true
}

// load reads how far the webhook has come. Of what was sent beyond Done all is
// known if it is still just that; else it is sent once more.
func (w *worker) load(ctx context.Context) bool {
	p, err := w.s.store.WebhookProgress(ctx, w.hook.Account, w.hook.ID)
	if err != nil {
		return false
	}
	done := map[relay.ID]struct{}{}
	for after := p.Done; p.Sum[0] > 0 && after != p.Until; {
		heads, end, err := w.s.store.ScanEvents(ctx, w.hook.Account, after, p.Until, scanRows)
		if err != nil {
			return false
		}
		for _, h := range heads {
			done[h.ID] = struct{}{}
		}
		after = end
	}
	if _, sum := sumOf(done); sum != p.Sum {
		clear(done)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.p, w.read, w.done, w.place, w.epoch, w.loaded = *p, p.Done, done, -1, p.Epoch, true
	return true
}

// sumOf is by what a set of ids is recognised, and the greatest of them.
func sumOf(ids map[relay.ID]struct{}) (until relay.ID, sum [2]uint64) {
	for id := range ids {
		sum[0]++
		var half uint64
		for _, b := range id[8:] {
			half = half<<8 | uint64(b)
		}
		sum[1] ^= half
		if until.Compare(id) < 0 {
			until = id
		}
	}
	return until, sum
}

// step does what is to be done next. A wait above 0 says that there is nothing
// until then, or until news.
func (w *worker) step(ctx context.Context) (wait time.Duration, news <-chan struct{}, err error) {
	now := w.s.now()
	if left := w.p.Next.Sub(now); left > 0 {
		return left, nil, nil
	}
	if i := w.dueAside(now); i >= 0 && w.p.Failures == 0 {
		return 0, nil, w.sendAside(ctx, w.p.Aside[i])
	}
	news, err = w.fill(ctx)
	if err != nil {
		return 0, nil, err
	}
	if len(w.ready) == 0 {
		w.since = time.Time{}
		return w.untilAside(now), news, nil
	}
	if w.since.IsZero() {
		w.since = now
	}
	if left := w.hook.Wait - now.Sub(w.since); left > 0 && len(w.ready) < w.hook.Batch && w.p.Failures == 0 {
		return left, news, nil
	}
	batch := w.ready[:1]
	if w.p.Failures == 0 && w.hook.Batch > 1 {
		batch = w.ready[:min(len(w.ready), w.hook.Batch)]
	}
	w.since = time.Time{}
	return 0, nil, w.send(ctx, batch)
}

// fill reads what is to be sent, as far as there is none in hand. The channel is
// closed when there may be more.
func (w *worker) fill(ctx context.Context) (<-chan struct{}, error) {
	for {
		if w.enough() {
			return nil, nil
		}
		if len(w.queue) == 0 {
			news, more, err := w.look(ctx)
			if err != nil || !more {
				return news, err
			}
			continue
		}
		if err := w.open(ctx); err != nil {
			return nil, err
		}
	}
}

// enough tells whether there is enough in hand for a request; while requests
// fail, for a try with another message too.
func (w *worker) enough() bool {
	if len(w.ready) < max(w.hook.Batch, 1) {
		return false
	}
	return w.p.Failures < settleAt || len(w.ready) >= 10*readMost ||
		slices.ContainsFunc(w.ready, func(e *relay.WebhookEvent) bool { return e.Message.ID != w.ready[0].Message.ID })
}

// look queues what has come: from the feed, or from the store where the feed
// begins later than what is wanted.
func (w *worker) look(ctx context.Context) (news <-chan struct{}, more bool, err error) {
	g, news := w.s.tail.Since(w.hook.Account, w.place)
	if g == nil {
		return news, false, nil
	}
	if g.Lost {
		w.place = -1
		return nil, true, nil
	}
	if w.place < 0 && w.read.Compare(g.Start) < 0 {
		found, end, err := w.s.store.ScanEvents(ctx, w.hook.Account, w.read, g.Start, scanRows)
		if err != nil {
			return nil, false, err
		}
		w.take(found, end, -1)
		return nil, true, nil
	}
	w.take(g.Heads, g.Bound, g.Place)
	return news, len(w.queue) > 0, nil
}

// take queues heads but for those that are done, or in hand: a place that was lost
// shows them again.
func (w *worker) take(heads []relay.EventHead, read relay.ID, place int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	inHand := map[relay.ID]bool{}
	for _, e := range w.ready {
		inHand[e.ID] = true
	}
	for _, h := range heads {
		_, done := w.done[h.ID]
		if done || inHand[h.ID] || h.ID.Compare(w.read) <= 0 {
			continue
		}
		if w.hook.WantsKind(h.Kind) {
			w.queue = append(w.queue, h)
		} else {
			w.done[h.ID] = struct{}{}
		}
	}
	w.place = place
	if w.read.Compare(read) < 0 {
		w.read = read
	}
}

// open reads the first events of the queue, and leaves out what is not wanted, or
// belongs to a message that stands aside.
func (w *worker) open(ctx context.Context) error {
	n := min(len(w.queue), readMost)
	ids := make([]relay.ID, n)
	for i, h := range w.queue[:n] {
		ids[i] = h.ID
	}
	events, err := w.s.store.EventsByID(ctx, w.hook.Account, ids)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	left := map[relay.ID]bool{}
	for _, e := range events {
		switch {
		case !w.hook.Wants(e):
		case w.aside(e.Message.ID):
			w.bringBack(e)
		default:
			w.ready = append(w.ready, e)
			left[e.ID] = true
		}
	}
	for _, id := range ids {
		if !left[id] { // or it is not kept any more
			w.done[id] = struct{}{}
		}
	}
	w.queue = w.queue[n:]
	w.dirty = true
	return nil
}

// send sends the first events, and notes what became of it.
func (w *worker) send(ctx context.Context, batch []*relay.WebhookEvent) error {
	a, ok, err := w.post(ctx, batch)
	if err != nil || !ok {
		return err
	}
	now := w.s.now()
	if a.Error == "" {
		w.mu.Lock()
		w.succeed(batch, now)
		w.ready = w.ready[len(batch):]
		w.mu.Unlock()
		return nil
	}
	if w.p.Failures >= settleAt && w.scout(ctx, batch[0], a) {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	p := &w.p
	if p.Failing.IsZero() {
		p.Failing = now
	}
	p.Failures++
	p.Next = backoff(w.s.waits, p.Failures, now, a.Retry)
	switch {
	case a.Status == gone:
		p.Next, w.verdict = time.Time{}, "The receiver answers 410: it wants no more events."
	case now.Sub(p.Failing) >= w.s.config.GiveUp:
		p.Next, w.verdict = time.Time{}, fmt.Sprintf("Every request has failed since %s. The last time: %s", p.Failing.UTC().Format(time.RFC3339), a.Error)
	}
	w.fail(batch, a, p.Failures, p.Next, now)
	return nil
}

// succeed notes that a batch was taken; mu is held.
func (w *worker) succeed(batch []*relay.WebhookEvent, now time.Time) {
	for _, e := range batch {
		w.done[e.ID] = struct{}{}
	}
	w.p.Sent += int64(len(batch))
	w.s.events.Add(int64(len(batch)))
	w.p.Delivered, w.p.Failing, w.p.Failures, w.p.Next = now, time.Time{}, 0, time.Time{}
	w.dirty = true
}

// fail notes that a batch was not taken; mu is held.
func (w *worker) fail(batch []*relay.WebhookEvent, a Answer, try int, next, now time.Time) {
	w.failures = append(w.failures, relay.WebhookFailure{At: now, Event: batch[0].ID, Message: batch[0].Message.ID, Events: len(batch), Try: try,
		Status: a.Status, Answer: a.Text, Error: a.Error, Took: a.Took, Next: next})
	if len(w.failures) > readMost {
		w.failures = w.failures[1:]
	}
	w.dirty = true
}

// scout tries the next event of another message. If that is taken it is the
// first one that the receiver can't stand: its message stands aside, and others
// go on.
func (w *worker) scout(ctx context.Context, head *relay.WebhookEvent, refused Answer) bool {
	i := 0
	for i < len(w.ready) && w.ready[i].Message.ID == head.Message.ID {
		i++
	}
	if i == len(w.ready) || len(w.p.Aside) >= mostAside {
		return false
	}
	a, ok, err := w.post(ctx, w.ready[i:i+1])
	if err != nil || !ok || a.Error != "" {
		return false
	}
	now := w.s.now()
	w.mu.Lock()
	defer w.mu.Unlock()
	tries := w.p.Failures + 1
	aside := relay.Aside{Message: head.Message.ID, From: head.ID, Since: w.p.Failing, Failures: tries, Next: backoff(w.s.waits, tries, now, refused.Retry)}
	w.fail(w.ready[:1], refused, tries, aside.Next, now)
	w.p.Aside = append(w.p.Aside, aside)
	w.succeed(w.ready[i:i+1], now)
	rest := w.ready[:0:0]
	for j, e := range w.ready {
		if e.Message.ID == head.Message.ID {
			w.done[e.ID] = struct{}{}
		} else if j != i {
			rest = append(rest, e)
		}
	}
	w.ready = rest
	return true
}

// post sends a batch when it may; not ok: ctx ended before.
func (w *worker) post(ctx context.Context, batch []*relay.WebhookEvent) (a Answer, ok bool, err error) {
	secrets, err := good(w.s.box, w.hook, w.s.now())
	if err != nil {
		return a, false, err
	}
	r, err := newRequest(w.hook, batch)
	if err != nil {
		return a, false, err
	}
	lane := w.s.quick
	if w.slow {
		lane = w.s.slow
	}
	select {
	case lane <- struct{}{}:
	case <-ctx.Done():
		return a, false, nil
	}
	defer func() { <-lane }()
	// drain: what is on its way may be taken yet, and need not be sent again then.
	posting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(drainFor, cancel) })()
	a = w.s.poster.post(posting, w.hook.URL, secrets, r)
	w.slow = a.Took > slowFrom || a.Error != ""
	w.s.count(a)
	return a, a.Error == "" || ctx.Err() == nil, nil
}

// snapshot is what is to be noted of the worker; nil: nothing new.
func (w *worker) snapshot() *relay.WebhookState {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.loaded {
		return nil
	}
	before := w.p.Done
	w.advance()
	if !w.dirty && w.p.Done.Time().Sub(before.Time()) < idleSave {
		w.p.Done = before
		return nil
	}
	for id := range w.done {
		if id.Compare(w.p.Done) <= 0 {
			delete(w.done, id)
		}
	}
	w.p.Until, w.p.Sum = sumOf(w.done)
	p := w.p
	p.Aside = append([]relay.Aside(nil), p.Aside...)
	state := &relay.WebhookState{Webhook: w.hook.ID, Epoch: w.epoch, Progress: p, Failures: w.failures}
	w.failures, w.dirty = nil, false
	return state
}

// advance moves Done up to what is not done yet, but not beyond what is known to
// be complete; mu is held.
func (w *worker) advance() {
	done := w.read
	hold := func(id relay.ID) {
		if id.Compare(done) <= 0 {
			done = before(id)
		}
	}
	for _, h := range w.queue {
		hold(h.ID)
	}
	for _, e := range w.ready {
		hold(e.ID)
	}
	if done.Compare(w.p.Done) > 0 {
		w.p.Done = done
	}
}

// before is the id just before one.
func before(id relay.ID) relay.ID {
	for i := len(id) - 1; i >= 0; i-- {
		id[i]--
		if id[i] != 0xff {
			break
		}
	}
	return id
}

// again takes back what could not be noted.
func (w *worker) again(s *relay.WebhookState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failures, w.dirty = append(s.Failures, w.failures...), true
}
