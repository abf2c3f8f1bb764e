package deliver

import (
	"postrider/internal/queue"
	"postrider/internal/relay"
	"postrider/internal/schedule"
)

// site is a receiving service.
type site struct {
	name    string
	pace    schedule.Pace
	lanes   map[laneKey]*lane
	waiting schedule.Turns[*lane] // that want a worker
	turn    schedule.Turn         // in Dispatcher.waiting
	open    int                   // workers
	idle    int                   // of them
	leaving int                   // of them, dismissed
	stuck   int                   // of them, with an attempt that takes very long
}

// full tells whether the site has all the connections that it takes. One whose
// attempt is stuck does not count against the pace: a recipient that gets no
// answer must not hold up the others. The configured limit holds all the same.
func (s *site) full() bool {
	return s.open-s.stuck >= s.pace.Limit() || s.open >= s.pace.Max()
}

// excess tells whether there are more connections than that.
func (s *site) excess() bool { return s.open-s.stuck > s.pace.Limit() }

// laneKey names what may share connections: (egress, hosts, need of TLS). There
// is one egress yet. A delivery that is watched shares none.
type laneKey struct {
	hosts   string
	need    need
	watched relay.DeliveryID
}

// lane is what waits for one set of hosts. A site may have very many, as where
// each customer's domain has a host name of its own.
type lane struct {
	site    *site
	key     laneKey
	dest    *destination
	line    schedule.Line[*queue.Item]
	turn    schedule.Turn // in site.waiting
	workers int
	coming  int       // workers that will take an item soon: connecting, or just called
	serving int       // workers with a connection
	idle    []*worker // the one that was used last comes last
	most    int       // workers that the hosts seem to take at once; 0: not known
	watch   *watch    // nil: its only delivery is not watched
}

// Ranks of those who wait for a worker.
const (
	urgentFirst schedule.Rank = 1 + iota // transactional mail, and no worker yet
	urgentMore
	bulkFirst
	bulkMore
)

// rank tells whether the lane wants one more worker, and how urgently.
func (l *lane) rank() schedule.Rank {
	switch {
	case l.line.Len() <= l.coming:
		return schedule.Absent
	case l.serving == 0 && l.coming > 0:
		// The first connection is opened alone: a host that is down must not
		// take more than one place of its site.
		return schedule.Absent
	case l.most > 0 && l.workers >= l.most:
		return schedule.Absent
	case l.line.Urgent() && l.workers == 0:
		return urgentFirst
	case l.line.Urgent():
		return urgentMore
	case l.workers == 0:
		return bulkFirst
	default:
		return bulkMore
	}
}

// enqueue puts an item into its lane and sees that somebody works there. d.mu
// is held.
func (d *Dispatcher) enqueue(dest *destination, it *queue.Item) {
	s := d.sites[dest.site]
	if s == nil {
		d.forgetSites()
		s = &site{name: dest.site, pace: schedule.NewPace(d.config.PerSite), lanes: map[laneKey]*lane{}}
		d.sites[dest.site] = s
	}
	key := laneKey{hosts: dest.lane, need: needOf(it.Message)}
	watch := d.watching(it)
	if watch != nil {
		key.watched = watch.id
		watch.found(it.Delivery.Domain, dest)
	}
	l := s.lanes[key]
	if l == nil {
		l = &lane{site: s, key: key}
		s.lanes[key] = l
	}
	l.dest, l.watch = dest, watch
	l.line.Push(it.Delivery.Stream, it.Delivery.Account, it)
	d.staff(l)
}

// staff follows every change of a lane or of its site's pace. It calls idle
// workers, gives free places to those who wait for one, and makes idle workers
// elsewhere leave where there is no free place. d.mu is held.
func (d *Dispatcher) staff(l *lane) {
	if d.phase != working {
		return
	}
	for len(l.idle) > 0 && l.line.Len() > l.coming {
		l.idle[len(l.idle)-1].rouse(false)
	}
	d.review(l)
	for d.conns < d.config.Connections {
		s, rank := d.waiting.First()
		if rank == schedule.Absent {
			break
		}
		next, _ := s.waiting.First()
		d.start(next)
	}
	s := l.site
	if s.full() {
		for s.waiting.Len() > s.leaving && d.evict(s) {
		}
	}
	for d.waiting.Len() > d.leaving && d.evictAny() {
	}
}

// review notes whether a lane waits for a worker, and its site for a place.
func (d *Dispatcher) review(l *lane) {
	s := l.site
	s.waiting.Set(&l.turn, l, l.rank())
	_, rank := s.waiting.First()
	if s.full() {
		rank = schedule.Absent // a place would be of no use to it
	}
	d.waiting.Set(&s.turn, s, rank)
}

// start gives a place to a lane. If it or its site wants another one, that
// begins at the end of the line.
func (d *Dispatcher) start(l *lane) {
	s := l.site
	s.waiting.Set(&l.turn, l, schedule.Absent)
	d.waiting.Set(&s.turn, s, schedule.Absent)
	l.workers++
	l.coming++
	s.open++
	d.conns++
	w := &worker{d: d, lane: l, coming: true}
	d.workers.Go(w.run)
	d.review(l)
}

// fairShare is how many messages a connection sends at least before it makes
// way for a lane that has none.
const fairShare = 10

// yields tells whether a worker should leave because its place is worth more to
// somebody else. d.mu is held.
func (d *Dispatcher) yields(w *worker) bool {
	l := w.lane
	s, rank := d.waiting.First()
	if rank == schedule.Absent {
		s = l.site
	}
	_, rank = s.waiting.First()
	switch {
	case rank == schedule.Absent:
		return false
	case l.line.Len() == 0:
		return true
	case rank == urgentFirst:
		return w.served >= fairShare || !l.line.Urgent()
	default:
		return w.served >= fairShare && rank == bulkFirst
	}
}

// evict sends one idle worker of a site away, so that somebody else can have its
// place as soon as it has said QUIT.
func (d *Dispatcher) evict(s *site) bool {
	if s.idle == 0 {
		return false
	}
	for _, l := range s.lanes {
		if len(l.idle) > 0 {
			l.idle[0].rouse(true)
			return true
		}
	}
	return false
}

func (d *Dispatcher) evictAny() bool {
	if d.idle == 0 {
		return false
	}
	for _, s := range d.sites {
		if d.evict(s) {
			return true
		}
	}
	return false
}

// leave ends a worker and gives its place to others. d.mu is held.
func (d *Dispatcher) leave(w *worker) {
	l, s := w.lane, w.lane.site
	w.arrive()
	l.workers--
	s.open--
	d.conns--
	if w.dismissed {
		s.leaving--
		d.leaving--
	}
	if l.workers == 0 && l.line.Len() == 0 {
		delete(s.lanes, l.key)
	}
	d.staff(l)
}
