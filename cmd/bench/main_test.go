package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// What can't be run is told on standard error, with status 2.
func TestStatus(t *testing.T) {
	for _, c := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"-h"}, 0, "-systems"},
		{[]string{"-nonsense"}, 2, "-nonsense"},
		{[]string{"-only", "haste"}, 2, "haste"},
		{[]string{"-relay", "old"}, 2, "name=file"},
	} {
		var out, errs bytes.Buffer
		if status := run(t.Context(), c.args, &out, &errs); status != c.status || !strings.Contains(errs.String(), c.says) {
			t.Errorf("%q: status %d, want %d; says %q", c.args, status, c.status, errs.String())
		}
	}
}

// -quick leaves alone what is said.
func TestQuick(t *testing.T) {
	o, err := parse([]string{"-m", "77", "-quick", "-only", "each,kept"}, t.Output())
	if err != nil || o.Messages != 77 || o.Rounds != 1 || o.Lasting != 5*time.Second || len(o.Only) != 2 {
		t.Errorf("%+v, %v", o, err)
	}
}

// The last line is JSON.
func TestLastLine(t *testing.T) {
	var out, errs bytes.Buffer
	if status := run(t.Context(), []string{"-only", "each", "-systems", "sqlite", "-m", "20", "-s", "2", "-r", "1"}, &out, &errs); status != 0 {
		t.Fatalf("status %d: %s", status, errs.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var r struct {
		Throughput []struct{ Systems []struct{ System string } }
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r); err != nil || len(r.Throughput) != 1 || len(r.Throughput[0].Systems) != 2 {
		t.Errorf("%v: %s", err, lines[len(lines)-1])
	}
}
