package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postrider/internal/relay"
)

type backer func(ctx context.Context, file string, progress func(done, total int64)) error

func (b backer) Backup(ctx context.Context, file string, progress func(done, total int64)) error {
	return b(ctx, file, progress)
}

// answerTime is how long other answers may take here.
const answerTime = time.Second

// A backup may take longer than other answers.
func TestLongBackup(t *testing.T) {
	c := serveBackup(t, func(_ context.Context, _ string, progress func(done, total int64)) error {
		progress(1, 3)
		<-time.After(2 * answerTime)
		progress(2, 3)
		return nil
	})
	if err := c.Backup(t.Context(), "/backup.db", func(int64, int64) {}); err != nil {
		t.Error(err)
	}
}

// Who reads no answer does not keep the connection, and its file, for ever.
func TestSlowReader(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	s := newServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var err error
		for b := make([]byte, 1<<20); err == nil; {
			_, err = w.Write(b)
		}
		failed <- err
	}), slog.New(slog.DiscardHandler), answerTime)
	ended := make(chan struct{})
	go func() { defer close(ended); s.Serve(ln) }()
	t.Cleanup(func() { s.Close(); <-ended })
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
	case <-time.After(20 * time.Second):
		t.Error("an answer that nobody reads goes on and on")
	}
}

func serveBackup(t *testing.T, b backer) *Client {
	t.Helper()
	dir := t.TempDir()
	ln, err := net.Listen("unix", filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	config := (&kept{}).config(t)
	config.Backup = b
	s := newServer(New(config).Control(), slog.New(slog.DiscardHandler), answerTime)
	ended := make(chan struct{})
	go func() { defer close(ended); s.Serve(ln) }()
	t.Cleanup(func() { s.Close(); <-ended })
	return NewClient(dir)
}

func TestBackup(t *testing.T) {
	fail := error(nil)
	c := serveBackup(t, func(_ context.Context, file string, progress func(done, total int64)) error {
		if file != "/backup.db" {
			t.Errorf("into %s", file)
		}
		progress(1, 3)
		progress(2, 3)
		return fail
	})
	var told []int64
	note := func(done, _ int64) { told = append(told, done) }
	if err := c.Backup(t.Context(), "/backup.db", note); err != nil || len(told) != 3 || told[1] != 2 {
		t.Errorf("%v, %v", told, err)
	}
	fail = &relay.Error{Code: relay.Full, Text: "There is no room.", Advice: "Make some.", Err: errors.New("secret cause")}
	if err := c.Backup(t.Context(), "/backup.db", note); err == nil || err.Error() != "There is no room. Make some." {
		t.Errorf("got %v", err)
	}
	if err := c.Backup(t.Context(), "backup.db", note); err == nil || !strings.Contains(err.Error(), "absolute") {
		t.Errorf("got %v", err)
	}
}

// Who hangs up cancels the backup.
func TestBackupCancelled(t *testing.T) {
	ended := make(chan struct{})
	c := serveBackup(t, func(ctx context.Context, _ string, progress func(done, total int64)) error {
		defer close(ended)
		progress(1, 3)
		<-ctx.Done()
		return ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	if err := c.Backup(ctx, "/backup.db", func(int64, int64) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	<-ended
}
