package postings

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// stored is an index as it is kept.
type stored struct {
	dir   *Directory
	parts map[int][]byte
}

func (s *stored) put(part int, b []byte) error {
	if s.parts == nil {
		s.parts = map[int][]byte{}
	}
	if _, there := s.parts[part]; there {
		return fmt.Errorf("part %d twice", part)
	}
	s.parts[part] = b
	return nil
}

func (s *stored) source() Source {
	return Source{s.dir, func(part int) ([]byte, error) { return s.parts[part], nil }}
}

func key(i int) (k Key) {
	binary.BigEndian.PutUint32(k.ID[:], uint32(i/3))
	k.N = uint32(1 + i%3)
	return k
}

// corpus is what documents have.
type corpus map[Key][]string

func random(r *rand.Rand, from, n int) corpus {
	c := corpus{}
	for range n {
		k := key(from + r.IntN(2*n))
		terms := []string{"all", fmt.Sprintf("half%d", r.IntN(2)), fmt.Sprintf("w%d", r.IntN(50)), fmt.Sprintf("u%d", r.IntN(1_000_000)), strings.Repeat("long", r.IntN(9))}
		c[k] = terms
	}
	return c
}

func build(t *testing.T, c corpus) *stored {
	t.Helper()
	b := NewBuilder()
	for _, k := range slices.SortedFunc(maps.Keys(c), Key.Compare) {
		b.Doc(k)
		for _, term := range c[k] {
			b.Term(term)
			b.Term(term)
		}
	}
	s := &stored{}
	dir, err := b.Write(s.put)
	if err != nil {
		t.Fatal(err)
	}
	s.reread(t, dir)
	return s
}

func (s *stored) reread(t *testing.T, dir *Directory) {
	t.Helper()
	var err error
	if s.dir, err = DecodeDirectory(dir.Encode()); err != nil {
		t.Fatal(err)
	}
	if s.dir.Parts() != len(s.parts) {
		t.Fatalf("%d parts of %d", len(s.parts), s.dir.Parts())
	}
}

// same sees to it that the index has what the corpus has.
func (s *stored) same(t *testing.T, c corpus) {
	t.Helper()
	order := slices.SortedFunc(maps.Keys(c), Key.Compare)
	if s.dir.Docs != len(order) {
		t.Fatalf("%d documents, want %d", s.dir.Docs, len(order))
	}
	want := map[string][]uint32{}
	for i, k := range order {
		for _, term := range c[k] {
			if l := want[term]; len(l) == 0 || l[len(l)-1] != uint32(i) {
				want[term] = append(want[term], uint32(i))
			}
		}
		keys, err := Keys(s.parts[s.dir.KeyPart(uint32(i))])
		if err != nil || keys[i%partKeys] != k {
			t.Fatalf("document %d: %v", i, err)
		}
		if at := s.dir.After(k); at != s.dir.KeyPart(uint32(i)) {
			t.Fatalf("document %d is in part %d, not %d", i, s.dir.KeyPart(uint32(i)), at)
		}
	}
	every := make([]uint32, len(order))
	for i := range every {
		every[i] = uint32(i)
	}
	for term, docs := range want {
		l, err := Find(s.parts[s.dir.TermPart(term)], term)
		if err != nil || l.Count != len(docs) || !slices.Equal(l.Docs(nil), docs) || !slices.Equal(l.Keep(slices.Clone(every)), docs) {
			t.Fatalf("%q: %d of %d documents, %v", term, l.Count, len(docs), err)
		}
		set := NewSet(len(order))
		set.Add(l)
		set.Add(l)
		if set.Len() != len(docs) || !slices.Equal(set.Docs(), docs) || !slices.Equal(set.Keep(slices.Clone(every)), docs) {
			t.Fatalf("%q: the set differs", term)
		}
	}
	for _, prefix := range []string{"", "a", "u1", "u99", "w", "x", "u123456", "longlong"} {
		n, should := 0, 0
		for term := range want {
			if strings.HasPrefix(term, prefix) {
				should++
			}
		}
		from, to := s.dir.PrefixParts(prefix)
		for p := from; p < to; p++ {
			if err := Each(s.parts[p], func(term []byte, _ List) bool {
				if strings.HasPrefix(string(term), prefix) {
					n++
				}
				return true
			}); err != nil {
				t.Fatal(err)
			}
		}
		if n != should {
			t.Errorf("%q begins %d terms, want %d", prefix, n, should)
		}
	}
	for _, none := range []string{"", "a", "zzz", "w51"} {
		if want[none] != nil {
			continue
		}
		if p := s.dir.TermPart(none); p >= 0 {
			if l, err := Find(s.parts[p], none); err != nil || l.Count != 0 {
				t.Errorf("%q: %d documents, %v", none, l.Count, err)
			}
		}
	}
}

func TestIndex(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 7, 600, 5000} {
		c := random(r, 0, n)
		build(t, c).same(t, c)
	}
}

// A merged index has what the last of its sources says of each document, and
// nothing of those that go.
func TestMerge(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	all := corpus{}
	var sources []Source
	for i := range 5 {
		c := random(r, i*500, 1000)
		sources = append(sources, build(t, c).source())
		maps.Copy(all, c)
	}
	s := &stored{}
	dir, err := Merge(sources, nil, s.put)
	if err != nil {
		t.Fatal(err)
	}
	s.reread(t, dir)
	s.same(t, all)

	odd := func(k Key) bool { return k.N%2 == 1 }
	kept := &stored{}
	dir, err = Merge([]Source{s.source()}, func(keys []Key) ([]bool, error) {
		stays := make([]bool, len(keys))
		for i, k := range keys {
			stays[i] = odd(k)
		}
		return stays, nil
	}, kept.put)
	if err != nil {
		t.Fatal(err)
	}
	kept.reread(t, dir)
	maps.DeleteFunc(all, func(k Key, _ []string) bool { return !odd(k) })
	kept.same(t, all)
}

// What is broken is an error, or something else than it was; it is no crash.
func FuzzRead(f *testing.F) {
	b := NewBuilder()
	for i := range 9 {
		b.Doc(key(9 - i))
		b.Term("a")
		b.Term(fmt.Sprint("b", i))
	}
	dir, err := b.Write(func(_ int, b []byte) error { f.Add(b); return nil })
	if err != nil {
		f.Fatal(err)
	}
	f.Add(dir.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := DecodeDirectory(b); err == nil {
			d.TermPart("a")
			d.PrefixParts("b")
			d.After(key(3))
		}
		Keys(b)
		Each(b, func(_ []byte, l List) bool {
			l.Keep([]uint32{0, 1, 7, 900})
			if len(l.Docs(nil)) > 8*len(b) {
				t.Error("more documents than bits")
			}
			return true
		})
	})
}
