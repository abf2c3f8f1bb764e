package main

import (
	"bytes"
	"strings"
	"testing"
)

// What can't be run is told on standard error, with status 2.
func TestStatus(t *testing.T) {
	for _, c := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"-h"}, 0, "-letters"},
		{[]string{"-nonsense"}, 2, "-nonsense"},
		{[]string{"-only", "slow,sleepy"}, 2, "sleepy"},
	} {
		var out, errs bytes.Buffer
		if status := run(t.Context(), c.args, &out, &errs); status != c.status || !strings.Contains(errs.String(), c.says) {
			t.Errorf("%q: status %d, want %d; says %q", c.args, status, c.status, errs.String())
		}
	}
}
