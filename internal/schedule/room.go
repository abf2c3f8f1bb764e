package schedule

import "postrider/internal/relay"

// Group is who a room is shared between in the first place: an account's mail
// of one stream.
type Group struct {
	Stream  relay.Stream
	Account relay.ID
}

// Part is what a group has for one place: a site, or a domain whose site is not
// known.
type Part struct {
	Group
	Place string
}

// Room is a bounded amount of something that everybody takes from. How much one
// may have follows from what is free: a part as much as that, a group three times
// as much. So one that is alone has half of the room, and however many have all
// that they may, something is left for whoever comes next. (Dynamic thresholds:
// Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998.)
//
// Nobody is held to it: who takes asks for the quota before.
type Room struct {
	size, used int64
	groups     map[Group]int64
	parts      map[Part]int64
}

// NewRoom makes a room of that size, in whatever unit its users mean.
func NewRoom(size int64) *Room {
	return &Room{size: size, groups: map[Group]int64{}, parts: map[Part]int64{}}
}

// Take notes that a part has n more; a negative n gives back.
func (r *Room) Take(p Part, n int64) {
	r.used += n
	add(r.groups, p.Group, n)
	add(r.parts, p, n)
}

func add[K comparable](held map[K]int64, k K, n int64) {
	if n += held[k]; n == 0 {
		delete(held, k)
	} else {
		held[k] = n
	}
}

// Used is how much all have.
func (r *Room) Used() int64 { return r.used }

// Held is how much a part has.
func (r *Room) Held(p Part) int64 { return r.parts[p] }

// Free is how much nobody has.
func (r *Room) Free() int64 { return max(0, r.size-r.used) }

// How far somebody may go towards the most that they may have.
const (
	Whole = 1.0
	Half  = 0.5
)

// groupFactor is how much more a group may have than one part.
const groupFactor = 3

// Quota is how much a part may take now to have the given fraction of the most
// that it may have.
func (r *Room) Quota(p Part, fraction float64) int64 {
	return min(r.quota(r.parts[p], fraction), r.groupQuota(p.Group, fraction))
}

func (r *Room) groupQuota(g Group, fraction float64) int64 {
	held := r.groups[g]
	n := r.quota(held, groupFactor*fraction)
	if held == 0 {
		n = max(n, min(1, r.Free())) // a small room has small fractions
	}
	return n
}

// quota is the most n for which held+n is not above times what is free then.
func (r *Room) quota(held int64, times float64) int64 {
	n := int64((times*float64(r.Free()) - float64(held)) / (1 + times))
	if held == 0 {
		n = max(n, min(1, r.Free()))
	}
	return max(0, n)
}

// Worth tells whether a part can take so much that it is worth the trouble: a
// quarter of what it has, or most.
func (r *Room) Worth(p Part, most int64) bool {
	return r.groupWorth(p.Group, most) && r.partWorth(p, most)
}

func (r *Room) partWorth(p Part, most int64) bool {
	return r.quota(r.parts[p], Whole) >= min(r.parts[p]/4+1, most)
}

func (r *Room) groupWorth(g Group, most int64) bool {
	return r.groupQuota(g, Whole) >= min(r.groups[g]/4+1, most)
}
