package crash

import (
	"encoding/json"
	"testing"
	"time"
)

// Four kills on each engine, and on PostgreSQL some of the server too: nothing is
// lost, nothing repeated beyond what was in flight.
func TestRun(t *testing.T) {
	for name, o := range map[string]Options{
		"sqlite":   {},
		"postgres": {Store: "postgres", Servers: true},
	} {
		t.Run(name, func(t *testing.T) {
			o.Cycles, o.Load, o.Sessions = 4, 500*time.Millisecond, 12
			o.Dir, o.Progress = t.TempDir(), t.Output()
			r, err := Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Err(); err != nil {
				t.Error(err)
			}
			if r.Cycles != 4 || r.Messages < 50 || r.Counted < 100 || r.Peak == 0 || o.Servers && r.Servers == 0 {
				t.Errorf("the run was no test: %+v", r)
			}
			line, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s", line)
		})
	}
}

// The relay syncs a message before it acknowledges it.
func TestOrder(t *testing.T) {
	for _, store := range []string{"sqlite", "postgres"} {
		calls, err := Order(t.Context(), Options{Store: store, Dir: t.TempDir()})
		for _, c := range calls {
			t.Log(c)
		}
		if err != nil {
			t.Errorf("%s: %v", store, err)
		}
	}
}

func TestUnknownStore(t *testing.T) {
	if _, err := Run(t.Context(), Options{Store: "paper", Dir: t.TempDir()}); err == nil {
		t.Error("a store that does not exist was opened")
	}
}

func TestErr(t *testing.T) {
	good := Result{Bound: 3, Comparison: Comparison{Messages: 1, Repeated: 3}}
	if err := good.Err(); err != nil {
		t.Errorf("a good result: %v", err)
	}
	for name, spoil := range map[string]func(*Result){
		"lost":          func(r *Result) { r.Lost = 1 },
		"altered":       func(r *Result) { r.Altered = 1 },
		"false reports": func(r *Result) { r.FalseReports = 1 },
		"strange":       func(r *Result) { r.Strange = 1 },
		"torn":          func(r *Result) { r.Torn = 1 },
		"stuck":         func(r *Result) { r.Stuck = 1 },
		"repeated":      func(r *Result) { r.Repeated = 4 },
		"nothing":       func(r *Result) { r.Messages = 0 },
	} {
		r := good
		if spoil(&r); r.Err() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
