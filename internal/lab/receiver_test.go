package lab

import (
	"context"
	"sync"
	"testing"

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
