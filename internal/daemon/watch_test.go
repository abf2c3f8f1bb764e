package daemon

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"postrider/internal/relay"
	"postrider/internal/store"
)

// Who looks sees the start: it lives, and is not ready.
func TestWatchAtTheStart(t *testing.T) {
	c := testConfig(t, t.TempDir())
	c.HTTP.Listen = "127.0.0.1:0"
	w, err := openWatch(t.Context(), c, quiet(t))
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	for path, want := range map[string]string{"/healthz": "200 ok", "/readyz": "503 starting"} {
		resp, err := http.Get("http://" + w.ln.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if got := resp.Status[:4] + strings.TrimSpace(string(b)); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	w.condition = func() relay.Condition { return relay.Suspended }
	w.enter("")
	if got := w.waits(); got != "suspended" {
		t.Errorf("a node that is suspended waits for %q", got)
	}
	w.condition = func() relay.Condition { return relay.Working }
	if got := w.waits(); got != "" {
		t.Errorf("a node that works waits for %q", got)
	}
}

func TestWatchPortThatIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	c := testConfig(t, t.TempDir())
	c.HTTP.Listen = taken.Addr().String()
	if _, err := Open(t.Context(), c, quiet(t)); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "http.listen") {
		t.Errorf("%v; want one that names http.listen", err)
	}
}

// graves are the dead nodes that a look finds.
type graves []store.Dead

func (r graves) Reap(context.Context, time.Duration) ([]store.Dead, error) { return r, nil }

func TestTakeoversAreCounted(t *testing.T) {
	w, err := openWatch(t.Context(), testConfig(t, t.TempDir()), quiet(t))
	if err != nil {
		t.Fatal(err)
	}
	found, err := w.countReaps(graves{{Name: "a", Released: 3}, {Name: "b", Released: 4}}).Reap(t.Context(), time.Second)
	if len(found) != 2 || err != nil {
		t.Errorf("found %v, %v", found, err)
	}
	got := map[string]float64{}
	families, err := w.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		got[f.GetName()] = f.GetMetric()[0].GetCounter().GetValue()
	}
	if got["postrider_takeovers_total"] != 2 || got["postrider_taken_over_deliveries_total"] != 7 {
		t.Errorf("%v takeovers of %v deliveries", got["postrider_takeovers_total"], got["postrider_taken_over_deliveries_total"])
	}
}
