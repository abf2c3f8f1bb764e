package schedule

import (
	"container/heap"
	"time"

	"postrider/internal/relay"
)

// Directory knows the classes that deliveries wait of, when each is to be looked
// at next, and whose turn it is. It is told what is known; what waits is the
// store's business.
//
// A class whose deliveries fail one after the other backs off: it is looked at
// more and more seldom, and for few.
type Directory struct {
	classes map[relay.Class]*entry
	later   entryHeap // what is not due, or backs off
	streams [2]turns  // what is due: transactional, broadcast
	space   *Room     // for classes
	missed  bool
	round   int // counts Picks
}

// turns is who waits of a stream. Groups take turns, in a group its parts, in a
// part its classes.
type turns struct {
	groups fifo[*groupTurns]
	by     map[Group]*groupTurns
}

type groupTurns struct {
	Group
	parts fifo[*partTurns]
	by    map[string]*partTurns
	open  int // the Pick that found it worth to take some
}

type partTurns struct {
	place   string
	classes fifo[*entry]
	open    int
}

// entry is a class. Times are microseconds since 1970.
type entry struct {
	relay.Class
	due    int64 // of the first that waits, as far as known
	noted  int64 // while asked: of the first that came since, or never
	hold   int64 // not before, because it backs off
	failed int32 // deliveries, since the last one that went
	place  int32 // in later; -1: not there
	level  uint8 // of backing off
	state  entryState
	down   bool // nobody answered last
	probed bool // asked for since the level was raised
}

type entryState uint8

const (
	idle  entryState = iota // in later
	ready                   // in turns
	asked                   // picked, and not told yet what became of it
)

const never = int64(1<<63 - 1)

func (e *entry) at() int64 { return max(e.due, e.hold) }

// NewDirectory makes a directory of that many classes at most. An account has
// half of them at most: what is beyond is Missed.
func NewDirectory(most int) *Directory {
	d := &Directory{classes: map[relay.Class]*entry{}, space: NewRoom(int64(most))}
	for i := range d.streams {
		d.streams[i].by = map[Group]*groupTurns{}
	}
	return d
}

// Places tells the site of a domain; empty where it is not known.
type Places func(domain string) string

// Note says that a delivery waits, due at that time. It is true where that
// changes when the class is to be looked at.
func (d *Directory) Note(c relay.Class, due time.Time) bool {
	at := due.UnixMicro()
	e := d.classes[c]
	if e == nil {
		if e = d.admit(c); e == nil {
			return false
		}
		e.due = at
		heap.Push(&d.later, e)
		return true
	}
	if e.state == asked {
		e.noted = min(e.noted, at)
		return false
	}
	if at >= e.due {
		return false
	}
	before := e.at()
	e.due = at
	if e.state == idle {
		heap.Fix(&d.later, int(e.place))
	}
	return e.at() < before
}

func (d *Directory) admit(c relay.Class) *entry {
	p := Part{Group: Group{Account: c.Account}}
	if d.space.Quota(p, Whole) == 0 {
		d.missed = true
		return nil
	}
	d.space.Take(p, 1)
	e := &entry{Class: c, noted: never, place: -1}
	d.classes[c] = e
	return e
}

// Missed tells whether something was noted of a class that there was no room
// for, since it was asked last.
func (d *Directory) Missed() bool {
	missed := d.missed
	d.missed = false
	return missed
}

// Len is how many classes there are.
func (d *Directory) Len() int { return len(d.classes) }

// Next is when something more is due; false where nothing is to come.
func (d *Directory) Next() (at time.Time, found bool) {
	if len(d.later) == 0 {
		return time.Time{}, false
	}
	return time.UnixMicro(d.later[0].at()), true
}

// Stalled tells whether something is due and was not picked.
func (d *Directory) Stalled(now time.Time) bool {
	return d.streams[0].groups.len() > 0 || d.streams[1].groups.len() > 0 || len(d.later) > 0 && d.later[0].at() <= now.UnixMicro()
}

// Waits tells whether something is due of a part and was not picked.
func (d *Directory) Waits(p Part) bool {
	g := d.streams[streamIndex(p.Stream)].by[p.Group]
	return g != nil && g.by[p.Place] != nil
}

const (
	// downQuantum and failQuantum are how many deliveries are asked for of a
	// class that backs off: where nobody answers, and where the answers are no.
	downQuantum, failQuantum = 8, 250
	// patience is how many deliveries may be deferred in a row by a receiver
	// that answers before their class backs off. A greylisting one defers all
	// that it sees for the first time.
	patience = 1000
	// lastLevel is the end of 1, 2, 4, … seconds: a minute.
	lastLevel = 7
	longest   = time.Minute
)

func pause(level uint8) int64 {
	return min(longest, time.Second<<(level-1)).Microseconds()
}

// Failed says that a delivery of the class was deferred; answered says that a
// receiver had a look at it.
func (d *Directory) Failed(c relay.Class, now time.Time, answered bool) {
	e := d.classes[c]
	if e == nil {
		return
	}
	e.failed = min(e.failed+1, patience+1)
	e.down = !answered
	if !e.down && e.failed <= patience || e.level > 0 && !e.probed {
		return // what fails together counts once
	}
	e.level, e.probed = min(e.level+1, lastLevel), false
	e.hold = now.UnixMicro() + pause(e.level)
	if e.state == idle {
		heap.Fix(&d.later, int(e.place))
	}
}

// Worked says that a receiver took a delivery of the class, or refused it for
// ever. It is true where that changes when the class is to be looked at.
func (d *Directory) Worked(c relay.Class) bool {
	e := d.classes[c]
	if e == nil || e.failed == 0 && e.level == 0 {
		return false
	}
	e.failed, e.level, e.down = 0, 0, false
	return d.hurry(e)
}

// Hurry ends the present pause of a class: somebody wants to see it tried.
func (d *Directory) Hurry(c relay.Class) bool {
	e := d.classes[c]
	return e != nil && d.hurry(e)
}

func (d *Directory) hurry(e *entry) bool {
	if e.hold == 0 {
		return false
	}
	before := e.at()
	e.hold = 0
	if e.state == idle {
		heap.Fix(&d.later, int(e.place))
	}
	return e.state != asked && e.at() < before
}

// Pick is what to claim of a class, and the part that has taken room for it.
type Pick struct {
	relay.Want
	Part Part
}

// Room is how much was taken.
func (p *Pick) Room() int64 { return int64(p.Limit + p.Expired) }

const (
	// mostExpired is how many expired deliveries one Pick asks for.
	mostExpired = 500
	// mostMoves bounds the work of one Pick, besides what it gives.
	mostMoves = 500
)

// Pick says what to claim now: up to most deliveries, for which it takes room,
// of classes whose turn it is. Transactional mail comes first and leaves a part
// for broadcast, so that each goes on however much there is of the other. What
// became of it must be told by Done. There may be more even where it is empty:
// each Pick does so much work and no more.
func (d *Directory) Pick(now time.Time, r *Room, site Places, most int) (picks []Pick, more bool) {
	d.round++
	moves := mostMoves
	at := now.UnixMicro()
	for len(d.later) > 0 && d.later[0].at() <= at && moves > 0 {
		d.queue(heap.Pop(&d.later).(*entry), site)
		moves--
	}
	left := most
	for i, budget := range []int{max(1, most*4/5), most} {
		added := d.pick(&d.streams[i], at, r, site, min(budget, max(1, left)), int64(most), &moves)
		for _, p := range added {
			left -= p.Limit
		}
		picks = append(picks, added...)
	}
	return picks, moves <= 0 || len(picks) > 0
}

// placeOf names where a domain's mail goes, a name that no site has if it is not
// known.
func placeOf(domain string, site Places) string {
	if s := site(domain); s != "" {
		return s
	}
	return "@" + domain
}

// PartOf is the part that a class belongs to.
func PartOf(c relay.Class, site Places) Part {
	return Part{Group{c.Stream, c.Account}, placeOf(c.Domain, site)}
}

// queue gives a class its place among those that are due.
func (d *Directory) queue(e *entry, site Places) {
	s := &d.streams[streamIndex(e.Stream)]
	group := Group{e.Stream, e.Account}
	g := s.by[group]
	if g == nil {
		g = &groupTurns{Group: group, by: map[string]*partTurns{}}
		s.by[group] = g
		s.groups.push(g)
	}
	g.queue(e, placeOf(e.Domain, site))
}

func (g *groupTurns) queue(e *entry, place string) {
	p := g.by[place]
	if p == nil {
		p = &partTurns{place: place}
		g.by[place] = p
		g.parts.push(p)
	}
	e.state = ready
	p.classes.push(e)
}

// pick chooses classes in turn, then shares what may be claimed between them.
func (d *Directory) pick(s *turns, at int64, r *Room, site Places, budget int, worth int64, moves *int) []Pick {
	var chosen []*entry
	var parts []Part
	for passed := 0; passed < s.groups.len() && len(chosen) < (budget+3)/4; {
		g := s.groups.pop()
		e, part := d.turn(g, at, r, site, worth, moves)
		if g.parts.len() > 0 {
			s.groups.push(g)
		} else {
			delete(s.by, g.Group)
		}
		if e == nil {
			passed++
			continue
		}
		passed = 0
		r.Take(part, 1)
		e.state, e.noted = asked, never
		chosen, parts = append(chosen, e), append(parts, part)
	}
	picks, expired := make([]Pick, len(chosen)), mostExpired
	for i, e := range chosen {
		p := Pick{Want: relay.Want{Class: e.Class}, Part: parts[i]}
		extra := int(r.Quota(p.Part, Whole))
		p.Limit = 1 + min(budget/len(chosen)-1, extra)
		if e.level > 0 {
			few := failQuantum
			if e.down {
				few = downQuantum
			}
			p.Limit = min(p.Limit, few)
			p.Expired = min(extra-p.Limit+1, expired)
			expired -= p.Expired
			e.hold, e.probed = at+pause(e.level), true
		}
		r.Take(p.Part, p.Room()-1)
		picks[i] = p
	}
	return picks
}

// turn gives the class of a group whose turn it is, nil where there is none that
// has room.
func (d *Directory) turn(g *groupTurns, at int64, r *Room, site Places, worth int64, moves *int) (*entry, Part) {
	// What was worth it at first is so to the end, as far as there is room.
	if g.open != d.round && !r.groupWorth(g.Group, worth) || r.groupQuota(g.Group, Whole) == 0 {
		return nil, Part{}
	}
	g.open = d.round
	for n := g.parts.len(); n > 0 && *moves > 0; n-- {
		p := g.parts.pop()
		part := Part{g.Group, p.place}
		var found *entry
		if p.open == d.round && r.Quota(part, Whole) > 0 || p.open != d.round && r.partWorth(part, worth) {
			p.open = d.round
			found = d.first(g, p, at, site, moves)
		}
		if p.classes.len() > 0 {
			g.parts.push(p)
		} else {
			delete(g.by, p.place)
		}
		if found != nil {
			return found, part
		}
		*moves--
	}
	return nil, Part{}
}

// first takes the first class of a part that is still due, and still belongs
// there.
func (d *Directory) first(g *groupTurns, p *partTurns, at int64, site Places, moves *int) *entry {
	for p.classes.len() > 0 && *moves > 0 {
		e := p.classes.pop()
		if e.at() > at {
			e.state = idle
			heap.Push(&d.later, e)
		} else if place := placeOf(e.Domain, site); place != p.place {
			g.queue(e, place)
		} else {
			return e
		}
		*moves--
	}
	return nil
}

// Done says what is left of a class that was picked: the first that waits is due
// at that time; the zero time says that nothing waits.
func (d *Directory) Done(c relay.Class, due time.Time) {
	e := d.classes[c]
	if e == nil || e.state != asked {
		return
	}
	e.due = e.noted
	if !due.IsZero() {
		e.due = min(e.due, due.UnixMicro())
	}
	if e.due == never {
		delete(d.classes, c)
		d.space.Take(Part{Group: Group{Account: c.Account}}, -1)
		return
	}
	e.state = idle
	heap.Push(&d.later, e)
}

// Again says that it is not known what became of a class that was picked.
func (d *Directory) Again(c relay.Class, at time.Time) { d.Done(c, at) }

// entryHeap has the class first that is to be looked at first.
type entryHeap []*entry

func (h entryHeap) Len() int           { return len(h) }
func (h entryHeap) Less(i, j int) bool { return h[i].at() < h[j].at() }
func (h entryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = int32(i), int32(j)
}

// Push is heap.Interface's.
func (h *entryHeap) Push(x any) {
	e := x.(*entry)
	e.place, e.state = int32(len(*h)), idle
	*h = append(*h, e)
}

// Pop is heap.Interface's.
func (h *entryHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	e.place = -1
	return e
}
