package schedule

import "container/list"

// Rank says whether somebody waits in Turns, and how urgently: 1 before 2 and so
// on, up to Ranks. Who uses Turns gives the ranks their meaning.
type Rank uint8

// Absent is the rank of whoever does not wait.
const Absent Rank = 0

// Ranks is how many there are.
const Ranks = 4

// Turns is who waits for something that comes free now and then: by rank, and
// among equals whoever waits longest. The zero Turns is empty.
type Turns[T any] struct {
	lines [Ranks]list.List
	count int
}

// Turn is the place of one of them; each keeps its own. The zero Turn is Absent.
type Turn struct {
	rank Rank
	at   *list.Element
}

// Set gives x, whose place t is, another rank. It goes to the end of that rank's
// line; with the rank that it has, nothing changes.
func (ts *Turns[T]) Set(t *Turn, x T, r Rank) {
	if t.rank == r {
		return
	}
	if t.rank != Absent {
		ts.lines[t.rank-1].Remove(t.at)
		ts.count--
	}
	t.rank, t.at = r, nil
	if r != Absent {
		t.at = ts.lines[r-1].PushBack(x)
		ts.count++
	}
}

// First is whose turn it is, and their rank; Absent says nobody's.
func (ts *Turns[T]) First() (x T, r Rank) {
	for i := range ts.lines {
		if e := ts.lines[i].Front(); e != nil {
			return e.Value.(T), Rank(i + 1)
		}
	}
	return x, Absent
}

// Len is how many wait.
func (ts *Turns[T]) Len() int { return ts.count }
