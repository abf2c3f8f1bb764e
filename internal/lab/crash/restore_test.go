package crash

import (
	"context"
	"database/sql"
	"errors"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"postrider/internal/relay"
)

// A backup is taken in mid-load, the relay is killed in mid-load, and the backup
// is restored over what it leaves: everything acknowledged before the backup was
// called for is in it, and is delivered once the relay runs again.
func TestRestore(t *testing.T) {
	h := &harness{o: Options{Store: "sqlite", Dir: t.TempDir(), Patience: 30 * time.Second, Progress: t.Output()},
		result: &Result{}, sent: &clientLog{letters: map[int]acknowledged{}}, got: newReceiverLog()}
	if err := h.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "backup.db")
	before := &clientLog{letters: map[int]acknowledged{}}
	err := h.serve(t.Context(), func(ctx context.Context) error {
		if err := h.first(ctx); err != nil {
			return err
		}
		if err := h.backUp(ctx, file, before); err != nil {
			return err
		}
		out, err := h.relay.Run(ctx, "restore", "-force", file)
		h.say("%s", out)
		if err != nil {
			return errors.Join(errors.New(out), err)
		}
		h.sent = before
		return errors.Join(h.start(ctx), h.finish(ctx))
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := absent(t, file, before); n > 0 {
		t.Errorf("%d messages that were acknowledged before are not in the backup", n)
	}
	r := h.result
	if r.Lost+r.Altered+r.Torn+r.Stuck > 0 || r.Messages < 200 || r.Unasked == 0 {
		t.Errorf("%+v", r)
	}
	if left, err := filepath.Glob(file + "?*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// backUp makes a backup in mid-load, and kills the relay a little later. before
// is what had been acknowledged when the backup was called for.
func (h *harness) backUp(ctx context.Context, file string, before *clientLog) error {
	sending, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	w := newWriter(30)
	for i := range 16 {
		c := &client{addr: h.relay.Addr, from: networkAddr, writer: w, log: h.sent}
		if i%2 == 0 {
			c.from, c.password = net.IPv4(127, 0, 0, 1), h.relay.Password()
		}
		wg.Go(func() { c.run(sending) })
	}
	reaches := func(n int) error {
		for h.sent.count() < n {
			if err := pause(ctx, 10*time.Millisecond); err != nil {
				return err
			}
		}
		return nil
	}
	if err := reaches(300); err != nil {
		return err
	}
	h.sent.mu.Lock()
	before.letters = maps.Clone(h.sent.letters)
	h.sent.mu.Unlock()
	if out, err := h.relay.Run(ctx, "backup", file); err != nil || !strings.Contains(out, file) {
		return errors.Join(errors.New(out), err)
	}
	if err := reaches(h.sent.count() + 100); err != nil {
		return err
	}
	h.relay.Kill()
	return nil
}

// absent counts messages that are not in the backup.
func absent(t *testing.T, file string, l *clientLog) (n int) {
	t.Helper()
	if _, err := os.Stat(file); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", "file:"+file+"?immutable=1")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, a := range l.letters {
		id, err := relay.ParseID(a.id)
		if err != nil {
			t.Fatal(err)
		}
		var there int
		if err := db.QueryRow("select count(*) from message where id = ?", id[:]).Scan(&there); err != nil {
			t.Fatal(err)
		}
		n += 1 - there
	}
	return n
}
