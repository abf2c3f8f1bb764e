package deliver

import (
	"context"
	"errors"
	"slices"
	"time"

	"postrider/internal/queue"
	"postrider/internal/relay"
	"postrider/internal/schedule"
)

// domain is what is known of a recipients' domain.
type domain struct {
	dest    *destination
	waiting []*queue.Item    // for the look-up
	asking  []schedule.Group // who stands in line for the look-up
	running bool             // the look-up is under way
}

// lookups is who waits for a look-up, and how many of whom are under way.
// Accounts take turns, and none has more than half of all that there may be:
// domains whose name servers do not answer take their time, and somebody may
// have very many of them.
type lookups struct {
	line schedule.Line[named]
	room *schedule.Room
}

type named struct {
	name  string
	dom   *domain
	group schedule.Group
}

// maxLookups bounds look-ups at once.
const maxLookups = 200

func newLookups() lookups { return lookups{room: schedule.NewRoom(maxLookups)} }

// share is what a group has of the look-ups.
func share(g schedule.Group) schedule.Part { return schedule.Part{Group: g} }

// await lets an item wait until its domain is looked up. d.mu is held.
func (d *Dispatcher) await(name string, dom *domain, it *queue.Item) {
	dom.waiting = append(dom.waiting, it)
	d.watching(it).lookingUp(name)
	g := schedule.Group{Stream: it.Delivery.Stream, Account: it.Delivery.Account}
	if dom.running || slices.Contains(dom.asking, g) {
		return
	}
	dom.asking = append(dom.asking, g)
	d.lookups.line.Push(g.Stream, g.Account, named{name, dom, g})
	d.lookUpNext()
}

// lookUpNext begins look-ups, as far as there may be more of them. d.mu is held.
func (d *Dispatcher) lookUpNext() {
	l := &d.lookups
	for d.phase == working {
		next, ok := l.line.PopOf(func(g schedule.Group) bool { return l.room.Quota(share(g), schedule.Whole) > 0 })
		if !ok {
			return
		}
		if next.dom.running || len(next.dom.asking) == 0 {
			continue // somebody else's turn came before
		}
		next.dom.running, next.dom.asking = true, nil
		l.room.Take(share(next.group), 1)
		d.workers.Go(func() { d.lookUp(d.running, next) })
	}
}

// lookUp resolves a domain and moves on what waits for it.
func (d *Dispatcher) lookUp(ctx context.Context, n named) {
	dest, err := d.resolve(ctx, n.name)
	d.mu.Lock()
	items := n.dom.waiting
	n.dom.waiting, n.dom.running, n.dom.dest = nil, false, dest
	if err == nil {
		for _, it := range items {
			d.enqueue(dest, it)
		}
	}
	d.lookups.room.Take(share(n.group), -1)
	d.lookUpNext()
	d.forgetDomains()
	d.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		var p *problem
		if !errors.As(err, &p) {
			p = &problem{enhanced: "4.4.3", text: err.Error()}
		}
		for _, it := range items {
			d.watching(it).lost(p)
		}
		now := time.Now()
		d.settleAll(items, "", func(it *queue.Item) relay.Outcome { return d.routeFailed(it, p, now) })
	}
}
