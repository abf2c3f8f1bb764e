package schedule

import (
	"slices"
	"testing"
)

func TestTurns(t *testing.T) {
	type party struct {
		name string
		turn Turn
	}
	a, b, c, d := &party{name: "a"}, &party{name: "b"}, &party{name: "c"}, &party{name: "d"}
	var ts Turns[*party]
	set := func(p *party, r Rank) { ts.Set(&p.turn, p, r) }
	set(a, Ranks)
	set(b, Ranks)
	set(c, 1)
	set(d, Ranks)
	set(a, Ranks) // keeps its place
	set(d, Absent)
	set(d, Absent)
	set(d, 1) // behind c
	if ts.Len() != 4 {
		t.Errorf("%d wait, want 4", ts.Len())
	}
	var got []string
	var ranks []Rank
	for p, r := ts.First(); r != Absent; p, r = ts.First() {
		got, ranks = append(got, p.name), append(ranks, r)
		set(p, Absent)
	}
	if want := []string{"c", "d", "a", "b"}; !slices.Equal(got, want) {
		t.Errorf("turns %v, want %v", got, want)
	}
	if want := []Rank{1, 1, Ranks, Ranks}; !slices.Equal(ranks, want) {
		t.Errorf("ranks %v, want %v", ranks, want)
	}
	if p, r := ts.First(); p != nil || r != Absent || ts.Len() != 0 {
		t.Errorf("the end: %v, %v, %d wait", p, r, ts.Len())
	}
}
