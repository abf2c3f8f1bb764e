package lab

import (
	"context"
	"sync"
	"testing"
	"time"

	"postrider/internal/sink"
)

// listen starts a receiver for the time that stop is not called.
func listen(t *testing.T, c sink.Config) (box *sink.Server, stop func()) {
	t.Helper()
	box, err := sink.New(c)
	if err != nil {
		t.Fatal(err)
	}
	running, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- box.Serve(running) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return box, stop
}

// patient is a test that waits for facts, for some time.
type patient struct {
	*testing.T
	ctx context.Context
}

func newPatient(t *testing.T, most time.Duration) patient {
	ctx, cancel := context.WithTimeout(t.Context(), most)
	t.Cleanup(cancel)
	return patient{t, ctx}
}

func (p patient) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

func (p patient) until(what string, done func() bool) {
	p.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-p.ctx.Done():
			p.Fatalf("waited for %s", what)
		case <-tick.C:
		}
	}
}
