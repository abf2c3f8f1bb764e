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
		{[]string{"-h"}, 0, "-events"},
		{[]string{"-nonsense"}, 2, "-nonsense"},
		{[]string{"-store", "paper"}, 2, "paper"},
	} {
		var out, errs bytes.Buffer
		if status := run(t.Context(), c.args, &out, &errs); status != c.status || !strings.Contains(errs.String(), c.says) {
			t.Errorf("%q: status %d, want %d; says %q", c.args, status, c.status, errs.String())
		}
	}
}
