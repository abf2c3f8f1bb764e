// Package postings lays out an index from terms to documents in parts of some
// kilobytes, to be kept wherever parts can be kept by number. An index does not
// change once it is written; several are merged into one that is new.
//
// The documents of an index are numbered from 0 in their order, that of Key. Its
// first parts have the keys of the documents, the others the terms in the order
// of their bytes, each with the numbers of the documents that have it. A
// directory, which is small and wanted for whatever is looked up, knows where to
// look.
package postings

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"math/bits"
	"slices"
	"sort"
)

// Key names a document.
type Key struct {
	ID [16]byte
	N  uint32
}

// Compare orders keys: the greatest ID first, and of one ID the smallest N first.
func (k Key) Compare(other Key) int {
	return cmp.Or(bytes.Compare(other.ID[:], k.ID[:]), cmp.Compare(k.N, other.N))
}

const (
	partBytes = 8 << 10 // when a part of terms is full
	partKeys  = 512     // in a part of keys
)

// ErrBroken means that what was read is not what was written.
var ErrBroken = errors.New("the index is broken")

// Directory is the table of contents of an index.
type Directory struct {
	Docs  int
	keys  []Key    // the first one of each part of keys
	terms []string // the first one of each part of terms
}

// Parts is how many there are.
func (d *Directory) Parts() int { return len(d.keys) + len(d.terms) }

// KeyPart is the part that has the key of a document.
func (d *Directory) KeyPart(doc uint32) int { return int(doc) / partKeys }

// InPart is the place of a document's key in its part.
func (d *Directory) InPart(doc uint32) int { return int(doc) % partKeys }

// First is the first document whose key is in that part.
func (d *Directory) First(part int) uint32 { return uint32(part) * partKeys }

// After gives the part of keys that has the first one that is not before key, or
// comes before it.
func (d *Directory) After(key Key) int {
	return max(sort.Search(len(d.keys), func(i int) bool { return d.keys[i].Compare(key) > 0 })-1, 0)
}

// TermPart is the part that has the term, if any has; -1: none has.
func (d *Directory) TermPart(term string) int {
	i := sort.Search(len(d.terms), func(i int) bool { return d.terms[i] > term })
	if i == 0 {
		return -1
	}
	return len(d.keys) + i - 1
}

// PrefixParts gives the first of the parts that may have terms which begin so,
// and the one behind the last.
func (d *Directory) PrefixParts(prefix string) (from, to int) {
	from = max(sort.Search(len(d.terms), func(i int) bool { return d.terms[i] >= prefix })-1, 0)
	to = sort.Search(len(d.terms), func(i int) bool { return d.terms[i] > prefix && !hasPrefix(d.terms[i], prefix) })
	return len(d.keys) + from, len(d.keys) + to
}

func hasPrefix(s, prefix string) bool { return len(s) >= len(prefix) && s[:len(prefix)] == prefix }

// Encode writes the directory.
func (d *Directory) Encode() []byte {
	b := binary.AppendUvarint(nil, uint64(d.Docs))
	b = binary.AppendUvarint(b, uint64(len(d.keys)))
	for _, k := range d.keys {
		b = appendKey(b, k)
	}
	b = binary.AppendUvarint(b, uint64(len(d.terms)))
	before := ""
	for _, t := range d.terms {
		b = appendTerm(b, before, t)
		before = t
	}
	return b
}

// DecodeDirectory reads what Encode wrote.
func DecodeDirectory(b []byte) (*Directory, error) {
	r := reader{b: b}
	d := &Directory{Docs: int(r.number(1 << 31))}
	for n := r.number(uint64(len(b))); n > 0 && !r.bad; n-- {
		d.keys = append(d.keys, r.key())
	}
	var term []byte
	for n := r.number(uint64(len(b))); n > 0 && !r.bad; n-- {
		term = r.term(term)
		d.terms = append(d.terms, string(term))
	}
	if r.bad || len(r.b) > 0 || len(d.keys) != (d.Docs+partKeys-1)/partKeys {
		return nil, ErrBroken
	}
	return d, nil
}

func appendKey(b []byte, k Key) []byte {
	return binary.AppendUvarint(append(b, k.ID[:]...), uint64(k.N))
}

// appendTerm writes of a term what the one before it has not.
func appendTerm(b []byte, before, term string) []byte {
	same := 0
	for same < len(before) && same < len(term) && before[same] == term[same] {
		same++
	}
	b = binary.AppendUvarint(b, uint64(same))
	b = binary.AppendUvarint(b, uint64(len(term)-same))
	return append(b, term[same:]...)
}

// reader reads what may be broken.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) number(most uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > most {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) key() (k Key) {
	copy(k.ID[:], r.bytes(16))
	k.N = uint32(r.number(1<<32 - 1))
	return k
}

// term reads the term that follows another, in whose place it is put.
func (r *reader) term(before []byte) []byte {
	same := r.number(uint64(len(before)))
	return append(before[:same], r.bytes(r.number(uint64(len(r.b))))...)
}

// Keys reads a part of keys.
func Keys(part []byte) ([]Key, error) {
	r := reader{b: part}
	keys := make([]Key, 0, partKeys)
	for len(r.b) > 0 {
		keys = append(keys, r.key())
	}
	if r.bad {
		return nil, ErrBroken
	}
	return keys, nil
}

// List are the documents that have a term.
type List struct {
	Count int
	dense bool // a bit for each document, or else the way from one number to the next
	raw   []byte
}

// Docs appends their numbers, in order.
func (l List) Docs(to []uint32) []uint32 {
	if l.dense {
		for i, b := range l.raw {
			for ; b != 0; b &= b - 1 {
				to = append(to, uint32(i*8+bits.TrailingZeros8(b)))
			}
		}
		return to
	}
	at := uint64(0)
	for raw := l.raw; len(raw) > 0; {
		step, n := binary.Uvarint(raw)
		if n <= 0 {
			break
		}
		raw = raw[n:]
		at += step
		to = append(to, uint32(at))
	}
	return to
}

// Keep keeps of documents, which are in order, those that the list has.
func (l List) Keep(docs []uint32) []uint32 {
	kept := docs[:0]
	if l.dense {
		for _, d := range docs {
			if int(d/8) < len(l.raw) && l.raw[d/8]>>(d%8)&1 != 0 {
				kept = append(kept, d)
			}
		}
		return kept
	}
	at, raw := uint64(0), l.raw
	step := func() bool {
		s, n := binary.Uvarint(raw)
		if n <= 0 {
			return false
		}
		raw = raw[n:]
		at += s
		return true
	}
	if !step() {
		return kept
	}
	for _, d := range docs {
		for at < uint64(d) {
			if !step() {
				return kept
			}
		}
		if at == uint64(d) {
			kept = append(kept, d)
		}
	}
	return kept
}

// Each calls f with the terms of a part, in their order, until it says no. The
// term is to be copied if it is kept.
func Each(part []byte, f func(term []byte, l List) bool) error {
	r := reader{b: part}
	var term []byte
	for len(r.b) > 0 {
		term = r.term(term)
		head := r.number(1 << 33)
		l := List{Count: int(head >> 1), dense: head&1 != 0}
		l.raw = r.bytes(r.number(uint64(len(r.b))))
		if r.bad {
			return ErrBroken
		}
		if !f(term, l) {
			return nil
		}
	}
	if r.bad {
		return ErrBroken
	}
	return nil
}

// Find gives the documents that have the term; nobody where the part has it not.
func Find(part []byte, term string) (found List, err error) {
	err = Each(part, func(t []byte, l List) bool {
		if string(t) == term {
			found = l
		}
		return string(t) < term
	})
	return found, err
}

// Set gathers documents of an index.
type Set struct {
	bits  []uint64
	count int
}

// NewSet makes an empty set of an index of so many documents.
func NewSet(docs int) *Set { return &Set{bits: make([]uint64, (docs+63)/64)} }

// Add adds the documents of a list.
func (s *Set) Add(l List) {
	if l.dense {
		for i, b := range l.raw {
			if w := i / 8; b != 0 && w < len(s.bits) {
				fresh := uint64(b) << (i % 8 * 8) &^ s.bits[w]
				s.bits[w] |= fresh
				s.count += bits.OnesCount64(fresh)
			}
		}
		return
	}
	at := uint64(0)
	for raw := l.raw; len(raw) > 0; {
		step, n := binary.Uvarint(raw)
		if n <= 0 {
			return
		}
		raw = raw[n:]
		at += step
		s.put(uint32(at))
	}
}

func (s *Set) put(d uint32) {
	if w := int(d / 64); w < len(s.bits) && s.bits[w]>>(d%64)&1 == 0 {
		s.bits[w] |= 1 << (d % 64)
		s.count++
	}
}

// Len is how many there are.
func (s *Set) Len() int { return s.count }

// Docs gives them in order.
func (s *Set) Docs() []uint32 {
	docs := make([]uint32, 0, s.count)
	for i, w := range s.bits {
		for ; w != 0; w &= w - 1 {
			docs = append(docs, uint32(i*64+bits.TrailingZeros64(w)))
		}
	}
	return docs
}

// Keep keeps of documents those that are in the set.
func (s *Set) Keep(docs []uint32) []uint32 {
	kept := docs[:0]
	for _, d := range docs {
		if w := int(d / 64); w < len(s.bits) && s.bits[w]>>(d%64)&1 != 0 {
			kept = append(kept, d)
		}
	}
	return kept
}

// Put keeps a part of an index that is being written, by its number. The bytes are
// its own.
type Put func(part int, b []byte) error

// writer writes an index.
type writer struct {
	put    Put
	dir    Directory
	part   []byte
	before string
}

func (w *writer) keys(keys []Key) error {
	w.dir.Docs = len(keys)
	for some := range slices.Chunk(keys, partKeys) {
		var b []byte
		for _, k := range some {
			b = appendKey(b, k)
		}
		w.dir.keys = append(w.dir.keys, some[0])
		if err := w.put(len(w.dir.keys)-1, b); err != nil {
			return err
		}
	}
	return nil
}

// term writes a term that comes after all that were written, with its documents in
// order.
func (w *writer) term(term string, docs []uint32) error {
	if len(w.part) >= partBytes {
		if err := w.end(); err != nil {
			return err
		}
	}
	if w.part == nil {
		w.dir.terms, w.before = append(w.dir.terms, term), ""
	}
	w.part = appendTerm(w.part, w.before, term)
	w.before = term
	// A bit for each document, where that is shorter.
	if len(docs) > w.dir.Docs/8 {
		raw := make([]byte, docs[len(docs)-1]/8+1)
		for _, d := range docs {
			raw[d/8] |= 1 << (d % 8)
		}
		w.part = binary.AppendUvarint(w.part, uint64(len(docs))<<1|1)
		w.part = binary.AppendUvarint(w.part, uint64(len(raw)))
		w.part = append(w.part, raw...)
		return nil
	}
	var raw []byte
	if len(docs) > 1 {
		raw = make([]byte, 0, 2*len(docs))
	}
	at := uint32(0)
	for _, d := range docs {
		raw = binary.AppendUvarint(raw, uint64(d-at))
		at = d
	}
	w.part = binary.AppendUvarint(w.part, uint64(len(docs))<<1)
	w.part = binary.AppendUvarint(w.part, uint64(len(raw)))
	w.part = append(w.part, raw...)
	return nil
}

func (w *writer) end() error {
	if w.part == nil {
		return nil
	}
	part := w.part
	w.part = nil
	return w.put(len(w.dir.keys)+len(w.dir.terms)-1, part)
}

// Builder gathers documents for an index.
type Builder struct {
	keys  []Key
	terms map[string]*[]uint32
}

// NewBuilder makes one.
func NewBuilder() *Builder { return &Builder{terms: map[string]*[]uint32{}} }

// Doc begins a document, which must come after those before it.
func (b *Builder) Doc(k Key) { b.keys = append(b.keys, k) }

// Term says that the document that was begun last has a term, maybe once more.
func (b *Builder) Term(term string) {
	doc := uint32(len(b.keys) - 1)
	docs := b.terms[term]
	if docs == nil {
		b.terms[term] = &[]uint32{doc}
	} else if (*docs)[len(*docs)-1] != doc {
		*docs = append(*docs, doc)
	}
}

// Write writes the index.
func (b *Builder) Write(put Put) (*Directory, error) {
	w := writer{put: put}
	if err := w.keys(b.keys); err != nil {
		return nil, err
	}
	all := make([]string, 0, len(b.terms))
	for t := range b.terms {
		all = append(all, t)
	}
	slices.Sort(all)
	for _, t := range all {
		if err := w.term(t, *b.terms[t]); err != nil {
			return nil, err
		}
	}
	return &w.dir, w.end()
}
