package schedule

import "container/list"

// Rank says whether somebody waits in Turns, and how urgently.
type Rank uint8

const (
	Absent Rank = iota // does not wait
	Urgent             // before all Ordinary ones
	Ordinary
)

// Turns is who waits for something that comes free now and then: the urgent ones
// first, and among equals whoever waits longest. The zero Turns is empty.
type Turns[T any] struct {
	lines [2]list.List // Urgent, Ordinary
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
	}
	t.rank, t.at = r, nil
	if r != Absent {
		t.at = ts.lines[r-1].PushBack(x)
	}
}

// First is whose turn it is, and how urgent that is; Absent says nobody's.
func (ts *Turns[T]) First() (x T, r Rank) {
	for i := range ts.lines {
		if e := ts.lines[i].Front(); e != nil {
			return e.Value.(T), Rank(i + 1)
		}
	}
	return x, Absent
}

// Len is how many wait.
func (ts *Turns[T]) Len() int { return ts.lines[0].Len() + ts.lines[1].Len() }
