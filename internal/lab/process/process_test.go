package process

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A relay can be started, asked, killed, started again and stopped.
func TestRelay(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "postrider")
	if err := Build(t.Context(), "", binary); err != nil {
		t.Fatal(err)
	}
	r, err := New(Options{Binary: binary, Dir: dir, Receiver: "127.0.0.1:1", Stderr: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.Stop() == nil || r.PID() != 0 {
		t.Error("a relay that does not run can be stopped")
	}
	for range 2 {
		if err := r.Launch(); err != nil {
			t.Fatal(err)
		}
		if err := r.Ready(t.Context(), 2*time.Minute); err != nil {
			t.Fatal(err)
		}
		if r.Password() == "" || r.PID() == 0 {
			t.Error("a ready relay has no password or no process")
		}
		if out, err := r.Run(t.Context(), "credential", "list"); err != nil || !strings.Contains(out, "postrider") {
			t.Errorf("credential list: %v\n%s", err, out)
		}
		r.Kill()
	}
	if err := r.Launch(); err != nil {
		t.Fatal(err)
	}
	if err := r.Ready(t.Context(), 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
}

// Who waits for a relay that ends is told.
func TestEndsAtStart(t *testing.T) {
	r, err := New(Options{Binary: "false", Dir: t.TempDir(), Receiver: "127.0.0.1:1", Stderr: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Launch(); err != nil {
		t.Fatal(err)
	}
	if err := r.Ready(t.Context(), time.Minute); err == nil || !strings.Contains(err.Error(), "ended at its start") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if Build(ctx, "", filepath.Join(t.TempDir(), "x")) == nil {
		t.Error("a build that was cancelled is done")
	}
}
