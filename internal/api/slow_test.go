package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// Who takes nothing of a stream is cut off, and the stream lasts longer than
// other answers.
func TestSlowStream(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	failed, given := make(chan error, 1), make(chan bool, 1)
	s := &Server{pace: streamPace{beat: time.Second, check: time.Second, write: 2 * answerTime, retry: time.Second}}
	server := newServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		run := func(_ context.Context, out *output) error {
			<-time.After(2 * answerTime)
			var err error
			for data := make([]byte, 1<<20); err == nil; {
				err = out.send("", "x", data)
			}
			failed <- err
			return writeError{err}
		}
		s.stream(Read, 0, run, func() string { return "x" }, func() { given <- true }).Body(humago.NewContext(&huma.Operation{}, r, w))
	}), slog.New(slog.DiscardHandler), answerTime)
	ended := make(chan struct{})
	go func() { defer close(ended); server.Serve(ln) }()
	t.Cleanup(func() { server.Close(); <-ended })
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-failed:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		<-given
	case <-time.After(20 * time.Second):
		t.Error("a stream that nobody reads goes on and on")
	}
}
