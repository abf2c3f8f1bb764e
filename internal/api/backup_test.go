package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"postrider/internal/relay"
)

type backer func(ctx context.Context, file string, progress func(done, total int64)) error

func (b backer) Backup(ctx context.Context, file string, progress func(done, total int64)) error {
	return b(ctx, file, progress)
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
	s := &http.Server{Handler: New(config).Control()}
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
