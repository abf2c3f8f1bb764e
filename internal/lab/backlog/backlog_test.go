package backlog

import (
	"testing"
	"time"
)

// small is a run that fits into the tests. What it asserts are orders and shares,
// which hold on a machine that is busy with other things too.
func small(t *testing.T, only string) *Result {
	t.Helper()
	o := Default()
	o.Only, o.Dir, o.Progress = []string{only}, t.TempDir(), t.Output()
	o.Rounds, o.Load, o.Rate, o.Sessions = 1, time.Second, 50, 4
	o.Idle = 2000
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Sessions that do nothing cost little, and the others' mail flows.
func TestIdleSessionsAreSmall(t *testing.T) {
	if i := small(t, "idle").Idle; i.PerSession > 18 || i.Arrived != i.Sent {
		t.Errorf("%.1f kB for each session, %d of %d messages arrived", i.PerSession, i.Arrived, i.Sent)
	}
	if i := small(t, "idle-tls").IdleTLS; i.PerSession > 45 || i.Arrived != i.Sent {
		t.Errorf("with TLS %.1f kB for each session, %d of %d messages arrived", i.PerSession, i.Arrived, i.Sent)
	}
}
