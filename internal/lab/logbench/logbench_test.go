package logbench

import (
	"strings"
	"testing"
	"time"
)

// A small run does all that a large one does. How long searches take is not
// asserted, but for what no machine keeps to.
func TestRun(t *testing.T) {
	o := Default()
	o.Events, o.Rounds, o.Drop, o.Dir, o.Progress = 20_000, 6, 200, t.TempDir(), t.Output()
	results, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != 2 {
		t.Fatalf("%d engines", len(results))
	}
	for _, r := range results {
		if r.Events < o.Events || r.Indexed < 18_000 || r.Deliveries < r.Messages || r.IndexBytes == 0 || r.Bytes == 0 || len(r.Searches) != len(kinds) {
			t.Errorf("%+v", r)
		}
		if r.Drop == nil || r.Drop.Messages != o.Drop || r.Drop.Accepted == 0 {
			t.Errorf("dropped: %+v", r.Drop)
		}
		for _, k := range r.Searches {
			if k.N < o.Rounds || k.P50 > k.P95 || k.P95 > k.Max {
				t.Errorf("%+v", k)
			}
		}
		r.limit = time.Minute
		if err := r.Err(); err != nil {
			t.Error(err)
		}
		r.limit = 0
		if err := r.Err(); err == nil || !strings.Contains(err.Error(), r.Store) {
			t.Errorf("no time at all is kept to: %v", err)
		}
	}
}
