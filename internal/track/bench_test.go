package track

import (
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"postrider/internal/link"
)

// nobody is a Recorder.
type nobody struct{}

func (nobody) Record(Deed) {}

// BenchmarkRedirect has 64 clients follow a link over loopback, each on a
// connection of its own and one every 50 ms, 1280 a second together. It tells how
// long half of the answers and all but a hundredth took at most. The clients share
// the processors with the server.
func BenchmarkRedirect(b *testing.B) {
	r := newRig(b)
	r.recorder = nobody{}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Serve(ctx, ln, time.Second) }()
	const clients, every = 64, 50 * time.Millisecond
	each := max(1, b.N/clients)
	took := make([][]time.Duration, clients)
	url := "http://" + ln.Addr().String() + r.links.Path(link.Click, mine, r.id, shop)
	var g sync.WaitGroup
	b.ResetTimer()
	for i := range clients {
		g.Go(func() {
			c := &http.Client{Transport: &http.Transport{}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
			defer c.CloseIdleConnections()
			time.Sleep(every * time.Duration(i) / clients)
			tick := time.NewTicker(every)
			defer tick.Stop()
			for range each {
				<-tick.C
				q, err := http.NewRequestWithContext(ctx, "GET", url, nil)
				if err != nil {
					b.Error(err)
					return
				}
				q.Host = "track.mine.test"
				start := time.Now()
				a, err := c.Do(q)
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, a.Body)
				a.Body.Close()
				took[i] = append(took[i], time.Since(start))
				if a.StatusCode != http.StatusFound {
					b.Errorf("answered %d", a.StatusCode)
					return
				}
			}
		})
	}
	g.Wait()
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	if len(all) > 0 {
		b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
		b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
		b.ReportMetric(float64(len(all))/b.Elapsed().Seconds(), "answers/s")
	}
	stop()
	if err := <-ended; err != nil {
		b.Error(err)
	}
}
