package crash

import (
	"encoding/json"
	"testing"
	"time"
)

// Five kills: nothing is lost, nothing repeated beyond what was in flight.
func TestRun(t *testing.T) {
	r, err := Run(t.Context(), Options{Cycles: 5, Load: 700 * time.Millisecond, Sessions: 12, Dir: t.TempDir(), Progress: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	if r.Cycles != 5 || r.Messages < 50 || r.Peak == 0 {
		t.Errorf("the run was no test: %+v", r)
	}
	line, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", line)
}

// The relay syncs a message before it acknowledges it.
func TestOrder(t *testing.T) {
	calls, err := Order(t.Context(), Options{Dir: t.TempDir()})
	for _, c := range calls {
		t.Log(c)
	}
	if err != nil {
		t.Error(err)
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
