package postings

import (
	"container/heap"
	"slices"
)

// Source is an index that is to be merged.
type Source struct {
	Directory *Directory
	// Part gives its parts, which are asked for in their order.
	Part func(part int) ([]byte, error)
}

// Merge writes an index of the documents of several. A document that is in more
// than one is as the last of these has it. keep, where not nil, says which of some
// documents are to stay.
func Merge(sources []Source, keep func([]Key) ([]bool, error), put Put) (*Directory, error) {
	keys, places, err := mergeKeys(sources, keep)
	if err != nil {
		return nil, err
	}
	w := writer{put: put}
	if err := w.keys(keys); err != nil {
		return nil, err
	}
	var h cursors
	for i := range sources {
		c := &cursor{source: &sources[i], place: places[i], part: len(sources[i].Directory.keys)}
		if more, err := c.next(); err != nil {
			return nil, err
		} else if more {
			h = append(h, c)
		}
	}
	heap.Init(&h)
	var docs, raw []uint32
	for len(h) > 0 {
		term := h[0].now.term
		docs = docs[:0]
		from := 0
		for len(h) > 0 && h[0].now.term == term {
			c := h[0]
			raw = c.now.list.Docs(raw[:0])
			for _, d := range raw {
				if int(d) < len(c.place) && c.place[d] >= 0 {
					docs = append(docs, uint32(c.place[d]))
				}
			}
			from++
			more, err := c.next()
			if err != nil {
				return nil, err
			}
			if more {
				heap.Fix(&h, 0)
			} else {
				heap.Pop(&h)
			}
		}
		if len(docs) == 0 {
			continue
		}
		if from > 1 {
			slices.Sort(docs)
		}
		if err := w.term(term, docs); err != nil {
			return nil, err
		}
	}
	return &w.dir, w.end()
}

// mergeKeys gives the keys of all, and where the documents of each source have
// come to; -1: they have not.
func mergeKeys(sources []Source, keep func([]Key) ([]bool, error)) (keys []Key, places [][]int32, err error) {
	type doc struct {
		key    Key
		source int32
		number int32
	}
	var all []doc
	for i, s := range sources {
		n := int32(0)
		for part := range s.Directory.keys {
			b, err := s.Part(part)
			if err != nil {
				return nil, nil, err
			}
			some, err := Keys(b)
			if err != nil {
				return nil, nil, err
			}
			for _, k := range some {
				all = append(all, doc{k, int32(i), n})
				n++
			}
		}
		if int(n) != s.Directory.Docs {
			return nil, nil, ErrBroken
		}
		place := make([]int32, n)
		for j := range place {
			place[j] = -1
		}
		places = append(places, place)
	}
	slices.SortFunc(all, func(a, b doc) int {
		if c := a.key.Compare(b.key); c != 0 {
			return c
		}
		return int(b.source - a.source) // the last source's stays
	})
	all = slices.CompactFunc(all, func(a, b doc) bool { return a.key == b.key })
	for some := range slices.Chunk(all, partKeys) {
		stays := make([]bool, len(some))
		if keep == nil {
			for i := range stays {
				stays[i] = true
			}
		} else {
			asked := make([]Key, len(some))
			for i := range some {
				asked[i] = some[i].key
			}
			if stays, err = keep(asked); err != nil {
				return nil, nil, err
			}
		}
		for i, d := range some {
			if stays[i] {
				places[d.source][d.number] = int32(len(keys))
				keys = append(keys, d.key)
			}
		}
	}
	return keys, places, nil
}

// entry is a term with its list.
type entry struct {
	term string
	list List
}

// cursor goes over the terms of a source.
type cursor struct {
	source *Source
	place  []int32
	part   int // that is read next
	rest   []entry
	now    entry
}

func (c *cursor) next() (bool, error) {
	for len(c.rest) == 0 {
		if c.part == c.source.Directory.Parts() {
			return false, nil
		}
		b, err := c.source.Part(c.part)
		if err != nil {
			return false, err
		}
		c.part++
		err = Each(b, func(term []byte, l List) bool {
			c.rest = append(c.rest, entry{string(term), l})
			return true
		})
		if err != nil {
			return false, err
		}
	}
	c.now, c.rest = c.rest[0], c.rest[1:]
	return true, nil
}

// cursors are a heap: the least term first.
type cursors []*cursor

func (h cursors) Len() int           { return len(h) }
func (h cursors) Less(i, j int) bool { return h[i].now.term < h[j].now.term }
func (h cursors) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *cursors) Push(x any)        { *h = append(*h, x.(*cursor)) }
func (h *cursors) Pop() any {
	last := len(*h) - 1
	c := (*h)[last]
	*h = (*h)[:last]
	return c
}
