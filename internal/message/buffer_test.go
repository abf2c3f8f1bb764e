package message

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"testing/iotest"

	"postrider/internal/relay"
)

// The two interfaces must stay one, so that contents pass without wrapping.
var (
	_ relay.Content = Content(nil)
	_ Content       = relay.Content(nil)
)

func readAll(t testing.TB, c Content) []byte {
	t.Helper()
	rc, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	b, err := io.ReadAll(rc)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(b)) != c.Size() {
		t.Fatalf("Size() = %d, but %d bytes were read", c.Size(), len(b))
	}
	return b
}

func pattern(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestBufferKeepsWhatWasWritten(t *testing.T) {
	const limit = 100_000
	for _, size := range []int{0, 1, firstRoom, firstRoom + 1, limit - 1, limit, limit + 1, limit + fileRoom, 1_000_003} {
		for _, piece := range []int{77, 4096, fileRoom, 300_000} {
			dir := t.TempDir()
			b := NewBuffer(dir, limit)
			want := pattern(size)
			for p := want; len(p) > 0; p = p[min(piece, len(p)):] {
				if n, err := b.Write(p[:min(piece, len(p))]); err != nil || n != min(piece, len(p)) {
					t.Fatal(n, err)
				}
			}
			c := b.Content()
			if got := readAll(t, c); !bytes.Equal(got, want) {
				t.Fatalf("size %d, piece %d: content differs", size, piece)
			}
			m, inMemory := bytesOf(c)
			if inMemory != (size <= limit) {
				t.Errorf("size %d: in memory: %t", size, inMemory)
			}
			if inMemory && !bytes.Equal(m, want) {
				t.Errorf("size %d: Bytes() differs", size)
			}
			if names, _ := os.ReadDir(dir); len(names) != 0 {
				t.Errorf("size %d: the folder shows %d files", size, len(names))
			}
			if b.Size() != int64(size) {
				t.Errorf("Size() = %d, want %d", b.Size(), size)
			}
			if err := errors.Join(b.Close(), b.Close()); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestBufferMemoryStaysWithinTheLimit(t *testing.T) {
	const limit = 100_000
	b := NewBuffer(t.TempDir(), limit)
	defer b.Close()
	b.Grow(1 << 40)
	for range 2000 {
		if _, err := b.Write(pattern(1000)); err != nil {
			t.Fatal(err)
		}
		if cap(b.mem) > limit {
			t.Fatalf("%d bytes of memory for a limit of %d", cap(b.mem), limit)
		}
	}
}

func TestBufferReadersDoNotDisturbEachOther(t *testing.T) {
	b := NewBuffer(t.TempDir(), 10)
	defer b.Close()
	want := pattern(200_000)
	b.Write(want)
	c := b.Content()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			rc, err := c.Open()
			if err != nil {
				t.Error(err)
				return
			}
			defer rc.Close()
			if got, err := io.ReadAll(iotest.HalfReader(rc)); err != nil || !bytes.Equal(got, want) {
				t.Error("content differs", err)
			}
		})
	}
	wg.Wait()
}

func TestBufferAfterClose(t *testing.T) {
	small, large := NewBuffer(t.TempDir(), 10), NewBuffer(t.TempDir(), 10)
	small.Write([]byte("abc"))
	large.Write([]byte("more than ten bytes"))
	inMemory, inFile := small.Content(), large.Content()
	small.Close()
	large.Close()
	if got := readAll(t, inMemory); string(got) != "abc" {
		t.Errorf("memory content after Close: %q", got)
	}
	if rc, err := inFile.Open(); err == nil {
		if _, err := io.ReadAll(rc); !errors.Is(err, os.ErrClosed) {
			t.Errorf("reading a closed file: %v", err)
		}
	}
	if _, err := small.Write([]byte("x")); err == nil {
		t.Error("Write after Close succeeds")
	}
	if _, err := small.Content().Open(); err == nil {
		t.Error("Content after Close can be opened")
	}
}

func TestBufferFailsForGood(t *testing.T) {
	b := NewBuffer(t.TempDir()+"/missing", 10)
	defer b.Close()
	for range 2 {
		if _, err := b.Write(make([]byte, 11)); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("Write without a folder: %v", err)
		}
	}
	if _, err := b.Content().Open(); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("Open after a failed Write: %v", err)
	}
}

func TestPrefix(t *testing.T) {
	file := NewBuffer(t.TempDir(), 0)
	defer file.Close()
	file.Write([]byte("content"))
	for name, c := range map[string]Content{"memory": Bytes([]byte("content")), "file": file.Content()} {
		got := Prefix([]byte("head "), Prefix([]byte("neck "), c))
		if s := string(readAll(t, got)); s != "head neck content" {
			t.Errorf("%s: %q", name, s)
		}
		if b, ok := bytesOf(got); ok != (name == "memory") || ok && string(b) != "head neck content" {
			t.Errorf("%s: Bytes() = %q, %t", name, b, ok)
		}
		if s := string(readAll(t, splice([]byte("x"), c, 3))); s != "xtent" {
			t.Errorf("%s: %q", name, s)
		}
		if s := string(readAll(t, splice(nil, c, 30))); s != "" {
			t.Errorf("%s: %q", name, s)
		}
	}
}

func BenchmarkBuffer10kB(b *testing.B) {
	line := append(bytes.Repeat([]byte("x"), 76), "\r\n"...)
	b.ReportAllocs()
	for b.Loop() {
		buf := NewBuffer("", 1<<20)
		buf.Grow(10_140)
		for range 130 {
			buf.Write(line)
		}
		_ = buf.Content()
		buf.Close()
	}
}

// TestMemoryIsShared: what the buffers have in memory together is bounded, what
// they hold is not touched by that, and each gives back what it took.
func TestMemoryIsShared(t *testing.T) {
	m := NewMemory(300_000)
	dir := t.TempDir()
	var open []*Buffer
	inMemory := 0
	for i := range 10 {
		b := NewBuffer(dir, 1<<20)
		b.Share(m)
		want := pattern(150_000 + i)
		for p := want; len(p) > 0; p = p[min(7000, len(p)):] {
			if _, err := b.Write(p[:min(7000, len(p))]); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(readAll(t, b.Content()), want) {
			t.Errorf("buffer %d: content differs", i)
		}
		if _, ok := bytesOf(b.Content()); ok {
			inMemory++
		}
		open = append(open, b)
	}
	if inMemory < 1 || inMemory > 2 {
		t.Errorf("%d buffers of 150 kB are in 300 kB of memory", inMemory)
	}
	small := NewBuffer(dir, 1<<20)
	small.Share(m)
	if small.Write(pattern(fileRoom)); small.file != nil {
		t.Error("a small message waits for the disk")
	}
	for _, b := range append(open, small) {
		if err := errors.Join(b.Close(), b.Close()); err != nil {
			t.Error(err)
		}
	}
	if n := m.used.Load(); n != 0 {
		t.Errorf("%d bytes are not given back", n)
	}
}
