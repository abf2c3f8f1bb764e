package demo

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"
)

// Each scenario runs against the real daemon; demo.Run compares what came of it
// with what the scenario foresees.
func TestEveryScenarioComesOut(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	var out bytes.Buffer
	dir := t.TempDir()
	err := Run(ctx, &out, t.Output(), Options{Dir: dir, Once: true, Program: "postrider"})
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if err := Run(ctx, &out, t.Output(), Options{Dir: dir, Once: true}); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("in a folder with data: %v; want it refused", err)
	}
	for _, s := range scenarios() {
		if !strings.Contains(out.String(), s.name) {
			t.Errorf("the table has no row %q", s.name)
		}
	}
}

// Without -once the demo says how to go on, and stays up until it is ended.
func TestStaysUp(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	out := &watched{until: "Ctrl-C ends it", found: cancel}
	if err := Run(ctx, out, t.Output(), Options{Dir: t.TempDir(), Program: "postrider"}); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"swaks --server", "python3 -c", "postrider message -data", "Password"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the invitation lacks %q:\n%s", want, out.String())
		}
	}
}

// watched calls found when a text has been written.
type watched struct {
	bytes.Buffer
	until string
	found func()
}

func (w *watched) Write(p []byte) (int, error) {
	n, err := w.Buffer.Write(p)
	if strings.Contains(w.String(), w.until) {
		w.found()
	}
	return n, err
}
