package backlog

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"postrider/internal/lab/process"
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) { os.Exit(process.Main(context.Background(), m.Run, &binary)) }

// small is a run that fits into the tests. What is asserted of it are orders and
// shares, which hold on a machine that is busy with other things too.
func small(t *testing.T, only ...string) *Result {
	t.Helper()
	o := Default()
	o.Only, o.Dir, o.Binary, o.Progress = only, t.TempDir(), binary, t.Output()
	o.Rounds, o.Load, o.Rate, o.Sessions, o.Patience = 1, 500*time.Millisecond, 50, 4, time.Minute
	o.N, o.Letters, o.Sites, o.Domains, o.Lost, o.Idle = 5000, 10_000, 100, 2000, 1000, 2000
	// As a million is to the usual window.
	o.Settings = "[queue]\nwindow = 500\n"
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Sessions that do nothing cost little, and the others' mail flows.
func TestIdleSessionsAreSmall(t *testing.T) {
	r := small(t, "idle", "idle-tls")
	if i := r.Idle; i.PerSession > 18 || i.Arrived != i.Sent {
		t.Errorf("%.1f kB for each session, %d of %d messages arrived", i.PerSession, i.Arrived, i.Sent)
	}
	if i := r.IdleTLS; i.PerSession > 45 || i.Arrived != i.Sent {
		t.Errorf("with TLS %.1f kB for each session, %d of %d messages arrived", i.PerSession, i.Arrived, i.Sent)
	}
}

// Whatever is wrong with where one account's mail goes, all of the others' mail
// overtakes most of it.
func TestNobodyIsHeldUp(t *testing.T) {
	r := small(t, "slow", "silent", "refused", "spread", "lost")
	for name, g := range map[string]*Hog{"slow": r.Slow, "silent": r.Silent, "refused": r.Refused, "spread": r.Spread, "lost": r.Lost} {
		if g.Late > 0 || g.First >= 60 || g.HogLeft < g.Waiting/2 {
			t.Errorf("%s: %d messages of others are late, the first came after %.1f s; of %d deliveries of one account %d are left",
				name, g.Late, g.First, g.Waiting, g.HogLeft)
		}
	}
}

// Password resets overtake a newsletter to the same site.
func TestResetsOvertake(t *testing.T) {
	if r := small(t, "resets").Resets; r.Late > 0 || r.Left == 0 {
		t.Errorf("%d of %d resets are late, %d letters are left", r.Late, r.Sent, r.Left)
	}
}

// Dead sites hold up none of the others.
func TestDeadSitesHoldUpNobody(t *testing.T) {
	if s := small(t, "sites").Sites; s.Late > 0 || s.Dead != 10 {
		t.Errorf("with %d of %d sites dead %d messages are late", s.Dead, s.Sites, s.Late)
	}
}

// The promises are held against the figures.
func TestPromises(t *testing.T) {
	well := func() *Result {
		c := Compared{AcceptRatio: 0.95, P99: 100}
		return &Result{Slow: &Hog{Compared: c, MaxRSS: 400, First: 2}, Sites: &Sites{Compared: c},
			Resets: &Resets{SameP99: 10, OtherP99: 10, Ratio: 1}, Idle: &Idle{MaxRSS: 200, P99: 5, Sent: 9, Arrived: 9}}
	}
	if err := well().Err(); err != nil {
		t.Errorf("all is well, yet %v", err)
	}
	for says, spoil := range map[string]func(*Result){
		"slow: accepted":     func(r *Result) { r.Slow.AcceptRatio = 0.89 },
		"slow: p99":          func(r *Result) { r.Slow.P99 = 2000 },
		"slow: 600 MB":       func(r *Result) { r.Slow.MaxRSS = 600 },
		"slow: first":        func(r *Result) { r.Slow.First = 6 },
		"sites: 3 messages":  func(r *Result) { r.Sites.Late = 3 },
		"resets: p99":        func(r *Result) { r.Resets.OtherP99 = 2500 },
		"resets: the newsle": func(r *Result) { r.Resets.Ratio = 0.5 },
		"idle: 301 MB":       func(r *Result) { r.Idle.MaxRSS = 301 },
		"idle: p99":          func(r *Result) { r.Idle.Arrived = 8 },
	} {
		r := well()
		spoil(r)
		if err := r.Err(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %q", err, says)
		}
	}
}

// What does not arrive counts as having taken as long as was waited for it.
func TestPercentile(t *testing.T) {
	var p probe
	for i := range 99 {
		p.add(time.Duration(i) * time.Millisecond)
	}
	if got := p.percentile(0.99, 99, time.Minute); got != 98*time.Millisecond {
		t.Errorf("of all: %v", got)
	}
	if got := p.percentile(0.99, 100, time.Minute); got != time.Minute {
		t.Errorf("with one missing: %v", got)
	}
	if got := p.percentile(0.5, 99, time.Minute); got != 49*time.Millisecond {
		t.Errorf("in the middle: %v", got)
	}
}
