package storetest

import (
	"fmt"
	"testing"
	"time"

	"postrider/internal/relay"
)

// BenchmarkClaims claims from a long queue: 500 deliveries of one class, of which
// many wait, and one of each of 125 classes, of which there are many as well; and
// walks all classes. It reports milliseconds for each, and what one class costs.
func BenchmarkClaims(b *testing.B, e Engine) {
	const many, page = 50_000, 500
	f := newFixture(b, e)
	one := relay.Class{Stream: relay.Transactional, Account: f.me, Domain: "one.test"}
	for i := 0; i < many; i += page {
		batch := make([]*relay.Submission, 0, 2*page)
		for n := range page {
			batch = append(batch, f.message("x@one.test"), f.message(fmt.Sprintf("x@d%d.test", i+n)))
		}
		mustAll(b, f.db.Put(f.Context(), 0, batch))
	}
	var walk, deep, wide time.Duration
	rounds := 0
	for b.Loop() {
		rounds++
		start := time.Now()
		var classes []relay.Waiting
		for after := (relay.Class{}); ; after = classes[len(classes)-1].Class {
			found, err := f.db.Waiting(f.Context(), after, page)
			if err != nil {
				b.Fatal(err)
			}
			classes = append(classes, found...)
			if len(found) < page {
				break
			}
		}
		walk += time.Since(start) / time.Duration(len(classes))
		deep += f.timeClaim([]relay.Want{{Class: one, Limit: 500}}, 500)
		var wants []relay.Want
		for i, w := range classes[:250] {
			if i%2 == 0 && w.Class != one {
				wants = append(wants, relay.Want{Class: w.Class, Limit: 4 + i%3})
			}
		}
		wide += f.timeClaim(wants, len(wants))
	}
	b.ReportMetric(float64(walk.Microseconds())/float64(rounds), "walk-µs/class")
	b.ReportMetric(float64(deep.Microseconds())/1000/float64(rounds), "ms/500-of-one")
	b.ReportMetric(float64(wide.Microseconds())/1000/float64(rounds), "ms/125-classes")
	b.ReportMetric(0, "ns/op")
}

// timeClaim claims and gives it back.
func (f *fixture) timeClaim(wants []relay.Want, n int) time.Duration {
	start := time.Now()
	claimed, _, err := f.db.Claim(f.Context(), f.lease, noon.Add(time.Hour), wants)
	took := time.Since(start)
	if err != nil || len(claimed) != n {
		f.Fatalf("claimed %d of %d: %v", len(claimed), n, err)
	}
	ids := make([]relay.DeliveryID, n)
	for i, c := range claimed {
		ids[i] = c.Delivery.ID
	}
	if err := f.db.Release(f.Context(), f.lease, ids); err != nil {
		f.Fatal(err)
	}
	return took
}
