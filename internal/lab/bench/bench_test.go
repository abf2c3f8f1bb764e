package bench

import (
	"encoding/json"
	"math"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postrider/internal/lab"
	"postrider/internal/lab/process"
)

func TestRun(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "postrider")
	if err := process.Build(t.Context(), "", binary); err != nil {
		t.Fatal(err)
	}
	t.Run("all parts", func(t *testing.T) { testParts(t, binary) })
	t.Run("PostgreSQL", func(t *testing.T) { testPostgres(t, binary) })
}

// A tiny run of everything measures something everywhere.
func testParts(t *testing.T, binary string) {
	r, err := Run(t.Context(), Options{Messages: 40, Sessions: 4, Rounds: 1, Rate: 100, Lasting: 500 * time.Millisecond,
		Systems: []string{SQLite, Postfix}, Relays: []Relay{{"old", binary}, {"new", binary}}, Progress: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Print(t.Output()); err != nil {
		t.Error(err)
	}
	line, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Result
	if err := json.Unmarshal(line, &back); err != nil {
		t.Fatal(err)
	}
	entries := map[string]string{Each: "direct old new postfix", Kept: "direct old new postfix", Large: "direct old new",
		TLS: "old plain old TLS new plain new TLS", DKIM: "old old signing new new signing postfix postfix signing"}
	ratios := map[string]int{"direct": 0, "old": 2, "new": 3, "postfix": 1, "old plain": 0, "old TLS": 1, "new plain": 0, "new TLS": 1,
		"old signing": 2, "new signing": 2, "postfix signing": 1}
	for _, p := range back.Throughput {
		var names []string
		for _, m := range p.Systems {
			names = append(names, m.System)
			want := ratios[m.System]
			switch {
			case p.Part == Large && want > 0:
				want-- // without Postfix
			case p.Part == DKIM && !strings.HasSuffix(m.System, signs):
				want = 0
			}
			if len(m.Of) != want {
				t.Errorf("%s: %s is compared with %v, want %d others", p.Part, m.System, m.Of, want)
			}
			for of, s := range m.Of {
				positive(t, s, p.Part, m.System, "of", of)
				if of != direct {
					positive(t, m.CPUOf[of], p.Part, m.System, "CPU of", of)
				}
			}
			positive(t, m.Rate, p.Part, m.System, "rate")
			if (m.System == direct) != (len(m.Memory) == 0) || (m.System == direct) != (len(m.CPU) == 0) {
				t.Errorf("%s: %s: memory %v, CPU %v", p.Part, m.System, m.Memory, m.CPU)
			}
			for program, n := range m.Memory {
				if n < 1<<20 || n > 1<<32 {
					t.Errorf("%s: %s: %d bytes of memory", p.Part, program, n)
				}
			}
		}
		if got := strings.Join(names, " "); got != entries[p.Part] {
			t.Errorf("%s has %q, want %q", p.Part, got, entries[p.Part])
		}
		delete(entries, p.Part)
	}
	if len(entries) > 0 {
		t.Errorf("without %v", entries)
	}
	for _, name := range []string{"old", "new"} {
		d := back.Latency[name]
		if d.Messages != 50 || d.Dot.P50 <= 0 || d.Accept.P50 <= 0 || d.Due.Max < d.Dot.P50 || d.Dot.Max < d.Dot.P99 {
			t.Errorf("latency of %s: %+v", name, d)
		}
	}
	if len(back.Synced) != 3 || back.Cores == 0 || back.FileSystem == "" || back.Seconds == 0 {
		t.Errorf("without head: %s", line)
	}
}

// A relay on PostgreSQL and its server are measured apart.
func testPostgres(t *testing.T, binary string) {
	r, err := Run(t.Context(), Options{Messages: 40, Sessions: 4, Rounds: 1, Only: []string{Kept, Latency}, Rate: 50,
		Lasting: 200 * time.Millisecond, Systems: []string{Postgres}, Relays: []Relay{{"", binary}}, Progress: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	m := r.Throughput[0].Systems[1]
	if m.System != Postgres || len(m.CPU) != 2 || m.Memory["relay"] == 0 || m.Memory["server"] == 0 || r.Latency[Postgres].Messages != 10 {
		t.Errorf("%+v; %+v", m, r.Latency)
	}
}

func positive(t *testing.T, s Spread, what ...string) {
	t.Helper()
	if !(s.Low > 0 && s.Low <= s.Median && s.Median <= s.High) || math.IsInf(s.High, 0) {
		t.Errorf("%s: %+v", strings.Join(what, " "), s)
	}
}

// What is not known is refused before anything starts.
func TestRefused(t *testing.T) {
	for want, o := range map[string]Options{
		`"haste"`: {Only: []string{"haste"}},
		`"paper"`: {Systems: []string{"paper"}},
		"too few": {Messages: 3, Sessions: 4},
	} {
		if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want something about %s", o, err, want)
		}
	}
}

// A program that does not work makes the run fail, and says why.
func TestBrokenRelay(t *testing.T) {
	file := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(file, []byte("#!/bin/sh\necho out of order >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	_, err := Run(t.Context(), Options{Dir: dir, Systems: []string{SQLite}, Relays: []Relay{{"broken", file}}})
	if err == nil || !strings.Contains(err.Error(), "out of order") {
		t.Errorf("error %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// The processor time of a group counts its children, those that have ended too.
func TestCPU(t *testing.T) {
	const work = `i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done`
	cmd := exec.Command("bash", "-c", "bash -c '"+work+"'; bash -c '"+work+"; echo; read x'; true")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	defer cmd.Process.Kill()
	if _, err := out.Read(make([]byte, 1)); err != nil { // both have done their work
		t.Fatal(err)
	}
	group := program{name: "bash", pid: cmd.Process.Pid, group: true}
	sum, err := group.cpu()
	if err != nil {
		t.Fatal(err)
	}
	alone, err := program{pid: group.pid}.cpu()
	if err != nil {
		t.Fatal(err)
	}
	found, err := children(group.pid)
	if err != nil || len(found) != 1 {
		t.Fatalf("children %v, %v", found, err)
	}
	living := float64(found[0].own) / ticks
	// Each did the same: the one that has ended counts as much.
	if living < 0.05 || sum-alone-living < living/3 {
		t.Errorf("%.2f s in all, %.2f of the master, %.2f of the living child", sum, alone, living)
	}
	memory, err := group.memory()
	if err != nil || memory < 100<<10 {
		t.Errorf("memory %d, %v", memory, err)
	}
}

func TestReceived(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "counts"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := &smtpSink{counts: f}
	for _, c := range []struct {
		more string
		want int
	}{
		{"", 0},
		{"sess=1 quit=0 mesg=0\r", 0},
		{"sess=1 quit=0 mesg=12\rsess=1 quit=0 mesg=13\r", 13},
		{"sess=1 quit=0 mesg=1", 13}, // half written
		{"40\r", 140},
	} {
		if _, err := f.WriteString(c.more); err != nil {
			t.Fatal(err)
		}
		if got, err := s.received(); err != nil || got != c.want {
			t.Errorf("after %q: %d, %v; want %d", c.more, got, err, c.want)
		}
	}
	s.wanted = 139
	if err := s.expect(1); err == nil {
		t.Error("a message too many was not noticed")
	}
}

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   Spread
	}{
		{nil, Spread{}},
		{[]float64{3}, Spread{3, 3, 3}},
		{[]float64{4, 1, 2}, Spread{2, 1, 4}},
		{[]float64{4, 1, 2, 3}, Spread{2.5, 1, 4}},
	} {
		if got := spread(c.values); got != c.want {
			t.Errorf("%v: %+v, want %+v", c.values, got, c.want)
		}
	}
}

// A ratio is that of the same round, not that of the medians.
func TestRatio(t *testing.T) {
	p := part{name: Each, messages: 1000, entries: []*entry{
		{name: direct, system: &system{}},
		{name: "a", system: &system{programs: []program{{name: "relay"}}}, of: []string{direct}}}}
	sum := p.summary(1, map[string][]*run{
		direct: {{rate: 100}, {rate: 300}, {rate: 200}},
		"a":    {{rate: 50, cpu: map[string]float64{"relay": 2}}, {rate: 30}, {rate: 180}},
	})
	a := sum.Systems[1]
	if len(a.CPUOf) != 0 {
		t.Errorf("the direct way has no processor time: %v", a.CPUOf)
	}
	if want := (Spread{0.5, 0.1, 0.9}); a.Of[direct] != want || a.CPU["relay"].High != 2 {
		t.Errorf("%+v, want %+v", a, want)
	}
}

// The delay of a message counts from the moment it was due.
func TestJudge(t *testing.T) {
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	d := judge([]letter{{id: 7, due: at(0), dot: at(100), accepted: at(103)}}, map[int]time.Time{7: at(108)})
	if d.Dot.P50 != 8 || d.Accept.P99 != 3 || d.Due.Max != 108 {
		t.Errorf("%+v", d)
	}
}

// The sessions of the TLS part do what they say: this listener takes AUTH only
// over TLS, and a wrong password not at all.
func TestSessions(t *testing.T) {
	relay := lab.StartRelay(t, nil)
	b := &bench{o: Options{Sessions: 2}}
	if _, err := b.sessions(1000, "wrong")(t.Context(), relay.Addr("starttls"), 5); err == nil || !strings.Contains(err.Error(), "535") {
		t.Errorf("wrong password: %v", err)
	}
	if _, err := b.sessions(1000, "")(t.Context(), relay.Addr("starttls"), 5); err == nil {
		t.Error("no password, no credential, and no error")
	}
	s, err := b.sessions(1000, relay.Password)(t.Context(), relay.Addr("starttls"), 5)
	if err != nil || s.began.IsZero() {
		t.Errorf("%+v, %v", s, err)
	}
	if all, err := relay.Deliveries(t.Context(), url.Values{"recipient": {recipient}}); err != nil || len(all) != 5 {
		t.Errorf("%d deliveries, %v; want 5", len(all), err)
	}
}
