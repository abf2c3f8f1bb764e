package suppression

import (
	"math/rand/v2"
	"testing"
)

// What is in a set is never denied, also when it was folded to the size that fits;
// what is not is seldom affirmed.
func TestBloom(t *testing.T) {
	for _, n := range []int{0, 1, listed, listed + 1, 300_000} {
		d := &draft{most: 1 << 14} // 1 MiB
		random := rand.New(rand.NewPCG(1, uint64(n)))
		in := make([]uint64, n)
		for i := range in {
			in[i] = random.Uint64()
			d.add(in[i])
		}
		b := d.done()
		for _, h := range in {
			if !b.has(h) {
				t.Fatalf("of %d, %x is denied", n, h)
			}
		}
		wrong := 0
		for range 100_000 {
			if b.has(random.Uint64()) {
				wrong++
			}
		}
		if wrong > 500 {
			t.Errorf("of %d: wrong %d times of 100 000", n, wrong)
		}
		if size := b.bytes(); size > minBlocks*blockBytes && size > 4*n || n > 0 && size < 2*n*9/10 {
			t.Errorf("%d take %d bytes", n, size)
		}
		t.Logf("%d entries: %d bytes, wrong %d of 100 000", n, b.bytes(), wrong)
	}
}

// Beyond its bound a set stays right, and asks more often.
func TestBloomBeyondItsBound(t *testing.T) {
	d := &draft{most: minBlocks}
	random := rand.New(rand.NewPCG(1, 2))
	in := make([]uint64, 3*listed)
	for i := range in {
		in[i] = random.Uint64()
		d.add(in[i])
	}
	b := d.done()
	if b.bytes() != minBlocks*blockBytes || !b.full() {
		t.Errorf("%d bytes, full %t", b.bytes(), b.full())
	}
	for _, h := range in {
		if !b.has(h) {
			t.Fatalf("%x is denied", h)
		}
	}
}
