package deliver

import (
	"context"
	"slices"
	"time"

	"postrider/internal/queue"
	"postrider/internal/relay"
	"postrider/internal/schedule"
	"postrider/internal/smtpclient"
)

// worker is one connection and the goroutine that owns it. It takes items from
// its lane one after the other, and leaves when the connection has come to its
// end.
type worker struct {
	d    *Dispatcher
	lane *lane

	conn   *smtpclient.Conn // nil: none
	link   link             // how conn came about
	served int              // messages over conn
	watch  *watch           // nil: the delivery is not watched
	told   map[string]bool  // domains that the sessions of link were counted for

	// Guarded by Dispatcher.mu:
	coming    bool          // counted in lane.coming
	dismissed bool          // to leave
	wake      chan struct{} // closed to rouse an idle worker
}

func (w *worker) run() {
	d := w.d
	defer func() {
		w.hangUp(d.attempts)
		d.mu.Lock()
		d.leave(w)
		d.mu.Unlock()
	}()
	if !w.connect(d.running) {
		return
	}
	for {
		it := w.take()
		if it == nil {
			return
		}
		if !d.queue.Begin(it) {
			continue
		}
		if o, unwanted := d.unwanted(it); unwanted {
			d.settle(it, w.lane.site.name, o)
			continue
		}
		o := w.watched(it)
		if o.Reply.Code == 421 && w.conn != nil && w.link.best {
			w.pace((*schedule.Pace).Bad)
		}
		if w.watch != nil {
			w.watch.over = true
		}
		d.settle(it, w.lane.site.name, o)
		if w.conn == nil || w.served >= d.config.PerConn || !w.conn.Usable() || w.lane.key.watched != (relay.DeliveryID{}) {
			return
		}
	}
}

// longAttempt is how long an attempt may take before its place is given to
// somebody else as well. Large messages and slow receivers need less by far.
const longAttempt = 15 * time.Second

// watched is attempt, noted with the site where it takes very long.
func (w *worker) watched(it *queue.Item) relay.Outcome {
	d, s := w.d, w.lane.site
	var over, stuck bool // guarded by d.mu
	watch := time.AfterFunc(d.long, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if !over {
			stuck = true
			s.stuck++
			d.staff(w.lane)
		}
	})
	o := w.attempt(d.attempts, it)
	if !watch.Stop() {
		d.mu.Lock()
		defer d.mu.Unlock()
		over = true
		if stuck {
			s.stuck--
		}
	}
	return o
}

// sharedFate is how many deliveries one failure to connect defers. What waits
// beyond that waits for the next try: to settle very many at once would take the
// store's time from the mail of others.
const sharedFate = 500

// connect opens a connection for the lane. Where none can be had, what waits
// shares the fate; but not where others of the lane had one at the time: then the
// hosts take no more at once.
func (w *worker) connect(ctx context.Context) bool {
	d, l := w.d, w.lane
	d.mu.Lock()
	first := l.serving == 0 && l.coming == 1
	d.mu.Unlock()
	started := time.Now()
	link, err := w.open(ctx)
	if err == nil {
		return true
	}
	d.mu.Lock()
	var items []*queue.Item
	switch {
	case ctx.Err() != nil: // they stay with the queue
	case l.serving > 0:
		l.most = l.serving
	case first:
		for len(items) < sharedFate {
			it, ok := l.line.Pop()
			if !ok {
				break
			}
			items = append(items, it)
		}
	}
	d.mu.Unlock()
	now := time.Now()
	if ctx.Err() == nil {
		for _, it := range items {
			w.tell(link, it.Delivery.Domain)
		}
	}
	d.settleAll(items, l.site.name, func(it *queue.Item) relay.Outcome { return d.connectFailed(it, link, err, started, now) })
	return false
}

// open dials for the lane and takes the connection over.
func (w *worker) open(ctx context.Context) (link, error) {
	d, l := w.d, w.lane
	d.mu.Lock()
	dest, watch := l.dest, l.watch
	w.watch = watch
	d.mu.Unlock()
	conn, link, err := d.dial(ctx, dest, l.key.need, watch)
	w.told = nil
	if err != nil {
		if link.refused { // an unreachable host says nothing of its site, a refusal does
			w.pace((*schedule.Pace).Bad)
		}
		return link, err
	}
	w.conn, w.link, w.served = conn, link, 0
	d.mu.Lock()
	l.serving++
	if l.most > 0 {
		l.most = max(l.most, l.serving)
	}
	d.mu.Unlock()
	return link, nil
}

// hangUp closes the connection, politely where it can be.
func (w *worker) hangUp(ctx context.Context) {
	if w.conn == nil {
		return
	}
	if w.conn.Usable() {
		w.conn.Quit(ctx)
	} else {
		w.conn.Close()
	}
	w.conn = nil
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	l := w.lane
	l.serving--
	if l.most > 0 {
		l.most++ // try now and then whether they take more
	}
}

// take gives the next item. Where there is none it waits for one as long as
// the connection may stay idle; nil says to leave.
func (w *worker) take() *queue.Item {
	d, l := w.d, w.lane
	idle := time.NewTimer(d.config.Idle)
	defer idle.Stop()
	for {
		d.mu.Lock()
		w.arrive()
		if d.phase != working || w.dismissed || l.site.excess() || d.yields(w) {
			d.mu.Unlock()
			return nil
		}
		if it, ok := l.line.Pop(); ok {
			d.staff(l)
			d.mu.Unlock()
			return it
		}
		w.rest()
		d.mu.Unlock()
		select {
		case <-w.wake:
		case <-idle.C:
			d.mu.Lock()
			retired := w.unrest()
			d.mu.Unlock()
			if retired {
				return nil
			}
			idle.Reset(d.config.Idle) // it was called in the same moment
		}
	}
}

// rest makes a worker idle. d.mu is held, here and below.
func (w *worker) rest() {
	w.wake = make(chan struct{})
	w.lane.idle = append(w.lane.idle, w)
	w.lane.site.idle++
	w.d.idle++
}

// unrest ends that; it is false where the worker is not idle.
func (w *worker) unrest() bool {
	l := w.lane
	i := slices.Index(l.idle, w)
	if i < 0 {
		return false
	}
	l.idle = slices.Delete(l.idle, i, i+1)
	l.site.idle--
	w.d.idle--
	return true
}

// rouse calls an idle worker: to an item, or to leave.
func (w *worker) rouse(dismissed bool) {
	w.unrest()
	if dismissed {
		w.dismissed = true
		w.lane.site.leaving++
		w.d.leaving++
	} else {
		w.coming = true
		w.lane.coming++
	}
	close(w.wake)
}

// arrive ends the time in which the worker was on its way.
func (w *worker) arrive() {
	if w.coming {
		w.coming = false
		w.lane.coming--
	}
}

// pace tells the site's pace how it went.
func (w *worker) pace(went func(*schedule.Pace)) {
	d, s := w.d, w.lane.site
	d.mu.Lock()
	defer d.mu.Unlock()
	before := s.pace.Limit()
	went(&s.pace)
	if s.pace.Limit() != before {
		d.staff(w.lane)
	}
}
