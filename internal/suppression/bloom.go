package suppression

import (
	"math/bits"
	"sync/atomic"
)

// bloom is a set of hashes that never denies what was added, and rarely affirms
// what was not: a Bloom filter in blocks of a cache line, with one bit in each of
// the eight words of a block. At 16 bits an entry it is wrong once in a thousand
// times. Look-ups need no lock; who adds takes turns.
type bloom struct {
	words []uint64
	shift uint // of a hash, to give its block
	n     int  // entries, but for those that looked as if they were there
}

const (
	blockWords = 8
	blockBytes = 8 * blockWords
	minBlocks  = 1 << 10
)

// newBloom makes one of so many blocks, a power of two.
func newBloom(blocks int) *bloom {
	return &bloom{words: make([]uint64, blocks*blockWords), shift: uint(64 - bits.TrailingZeros(uint(blocks)))}
}

func (b *bloom) blocks() int { return len(b.words) / blockWords }

func (b *bloom) bytes() int { return len(b.words) * 8 }

// block gives where the block of a hash begins, and the bits of its words, six
// each. The first ten bits of the hash and more say which block; the rest must
// not depend on them alone.
func (b *bloom) block(hash uint64) (at int, marks uint64) {
	return int(hash>>b.shift) * blockWords, hash * 0x9e3779b97f4a7c15 >> 16
}

func (b *bloom) add(hash uint64) {
	at, marks := b.block(hash)
	fresh := false
	for i := range blockWords {
		bit := uint64(1) << (marks & 63)
		if atomic.OrUint64(&b.words[at+i], bit)&bit == 0 {
			fresh = true
		}
		marks >>= 6
	}
	if fresh {
		b.n++
	}
}

func (b *bloom) has(hash uint64) bool {
	at, marks := b.block(hash)
	for i := range blockWords {
		if atomic.LoadUint64(&b.words[at+i])>>(marks&63)&1 == 0 {
			return false
		}
		marks >>= 6
	}
	return true
}

// full tells that a larger one would be wrong more seldom: below 10 bits an entry
// it is wrong once in sixty times.
func (b *bloom) full() bool { return b.n*10 > len(b.words)*64 }

// fitting is how many blocks n entries take at 16 to 32 bits each, within a bound.
func fitting(n, most int) int {
	blocks := minBlocks
	for blocks < most && blocks*blockBytes < 2*n {
		blocks *= 2
	}
	return min(blocks, most)
}

// fold makes a smaller one with the same entries. Nobody adds meanwhile.
func (b *bloom) fold() *bloom {
	blocks := fitting(b.n, b.blocks())
	if blocks == b.blocks() {
		return b
	}
	small := newBloom(blocks)
	small.n = b.n
	ratio := b.blocks() / blocks
	for i := range b.blocks() {
		for w := range blockWords {
			small.words[i/ratio*blockWords+w] |= b.words[i*blockWords+w]
		}
	}
	return small
}

// draft is a set that grows until it is known how large it must be: a list first,
// then the largest set that may be.
type draft struct {
	hashes []uint64
	large  *bloom // nil: the list does
	most   int    // blocks
}

// listed is how many hashes a draft keeps as a list.
const listed = 1 << 16

func (d *draft) add(hash uint64) {
	if d.large == nil && len(d.hashes) < listed {
		d.hashes = append(d.hashes, hash)
		return
	}
	if d.large == nil {
		d.large = filled(d.most, d.hashes)
		d.hashes = nil
	}
	d.large.add(hash)
}

func filled(blocks int, hashes []uint64) *bloom {
	b := newBloom(blocks)
	for _, h := range hashes {
		b.add(h)
	}
	return b
}

// done gives the set in the size that fits.
func (d *draft) done() *bloom {
	if d.large == nil {
		return filled(fitting(len(d.hashes), d.most), d.hashes)
	}
	return d.large.fold()
}
