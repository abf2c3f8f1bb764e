package deliver

import (
	"context"
	"errors"
	"time"

	"postrider/internal/queue"
	"postrider/internal/relay"
	"postrider/internal/smtpclient"
)

// worker is one connection and the goroutine that owns it. It takes items from
// its lane one after the other.
type worker struct {
	d    *Dispatcher
	lane *lane

	conn   *smtpclient.Conn // nil: none
	link   link             // how conn came about
	served int              // messages over conn

	// Guarded by Dispatcher.mu:
	coming    bool          // counted in lane.coming
	serving   bool          // counted in lane.serving
	dismissed bool          // to leave when idle
	wake      chan struct{} // closed to call an idle worker
}

// call wakes an idle worker, which was taken off its lane's list. d.mu is held.
func (w *worker) call() {
	w.coming = true
	w.lane.coming++
	close(w.wake)
}

// arrive ends the time in which the worker was on its way. d.mu is held.
func (w *worker) arrive() {
	if w.coming {
		w.coming = false
		w.lane.coming--
	}
}

func (w *worker) run(ctx context.Context) {
	d := w.d
	defer func() {
		w.hangUp(ctx)
		d.mu.Lock()
		d.leave(w)
		d.mu.Unlock()
	}()
	for {
		if w.conn == nil && !(w.wanted() && w.connect(ctx)) {
			return
		}
		it := w.take(ctx)
		if it == nil {
			return
		}
		if !d.queue.Begin(it) {
			continue
		}
		o := w.attempt(ctx, it)
		if o.Reply.Code == 421 {
			w.pushedBack()
		}
		d.settle(o)
		if w.conn != nil && (!w.conn.Usable() || w.served >= d.config.PerConn) {
			w.hangUp(ctx)
		}
	}
}

// wanted tells whether a connection is worth opening.
func (w *worker) wanted() bool {
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	return w.d.phase == working && w.lane.line.Len() > 0 && w.lane.site.open <= w.lane.site.pace.Limit()
}

// take gives the next item. Where there is none it waits for one as long as
// the connection may stay idle; nil says to leave.
func (w *worker) take(ctx context.Context) *queue.Item {
	d, l := w.d, w.lane
	idle := time.NewTimer(d.config.Idle)
	defer idle.Stop()
	for {
		d.mu.Lock()
		w.arrive()
		if d.phase != working || w.dismissed || l.site.open > l.site.pace.Limit() {
			d.mu.Unlock()
			return nil
		}
		if it, ok := l.line.Pop(); ok {
			d.staff(l)
			d.mu.Unlock()
			return it
		}
		w.wake = make(chan struct{})
		l.idle = append(l.idle, w)
		d.mu.Unlock()
		select {
		case <-w.wake:
		case <-idle.C:
			if w.retire() {
				return nil
			}
			idle.Reset(d.config.Idle) // called in the same moment
		}
	}
}

// retire takes an idle worker off the list; it is false when somebody called it
// meanwhile.
func (w *worker) retire() bool {
	d, l := w.d, w.lane
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, other := range l.idle {
		if other == w {
			l.idle = append(l.idle[:i], l.idle[i+1:]...)
			return true
		}
	}
	return false
}

// pushedBack tells the site's pace that it was too fast.
func (w *worker) pushedBack() {
	w.d.mu.Lock()
	w.lane.site.pace.Bad()
	w.d.mu.Unlock()
}

// connect opens a connection for the lane. Where none can be had, and nobody
// else in the lane has one, all that waits shares the fate.
func (w *worker) connect(ctx context.Context) bool {
	d, l := w.d, w.lane
	d.mu.Lock()
	dest := l.dest
	d.mu.Unlock()
	started := time.Now()
	conn, link, failed := d.dial(ctx, dest, l.key.strict)
	if failed == nil {
		w.opened(conn, link)
		return true
	}
	var refusal *smtpclient.Error
	if errors.As(failed, &refusal) && refusal.Reply != nil {
		w.pushedBack() // an unreachable host says nothing of its site, a refusal does
	}
	d.mu.Lock()
	var items []*queue.Item
	if l.serving == 0 && ctx.Err() == nil {
		for it, ok := l.line.Pop(); ok; it, ok = l.line.Pop() {
			items = append(items, it)
		}
	}
	d.mu.Unlock()
	now := time.Now()
	d.settleAll(items, func(it *queue.Item) relay.Outcome { return d.connectFailed(it, link, failed, started, now) })
	return false
}

// opened takes over a new connection.
func (w *worker) opened(conn *smtpclient.Conn, l link) {
	w.conn, w.link, w.served = conn, l, 0
	w.d.mu.Lock()
	w.serving = true
	w.lane.serving++
	w.d.mu.Unlock()
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
	if w.serving {
		w.serving = false
		w.lane.serving--
	}
	w.d.mu.Unlock()
}
