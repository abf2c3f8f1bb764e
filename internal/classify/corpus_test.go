package classify

import (
	"bufio"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sample is a labelled reply of the corpus.
type sample struct {
	place    string
	kind     string // or several, with commas between: those who wrote it do not agree
	category string // as kind
	living   bool   // the address may live: it must not be suppressed
	stage    string
	text     string
	open     bool // of a file that has been looked at as a whole: none of it is held back
}

// heldBack tells whether a sample is of the third that rules are not written
// from. It hangs on the text alone.
func (s sample) heldBack() bool {
	if s.open {
		return false
	}
	h := fnv.New32a()
	h.Write([]byte(s.text))
	return h.Sum32()%3 == 0
}

// corpus reads the labelled replies.
func corpus(t testing.TB) (all []sample) {
	t.Helper()
	files, err := filepath.Glob("testdata/replies/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no corpus", err)
	}
	seen := map[string]string{}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(f)
		open := false
		for n := 1; lines.Scan(); n++ {
			open = open || lines.Text() == "# open"
			if lines.Text() == "" || strings.HasPrefix(lines.Text(), "#") {
				continue
			}
			place := fmt.Sprintf("%s:%d", filepath.Base(name), n)
			part := strings.SplitN(lines.Text(), " | ", 3)
			label := strings.Fields(part[0])
			if len(part) != 3 || len(label) < 2 {
				t.Fatalf("%s: %q is no sample", place, lines.Text())
			}
			s := sample{place: place, kind: label[0], category: label[1], stage: strings.Trim(part[1], "-"), text: strings.ReplaceAll(part[2], `\n`, "\n"), open: open}
			s.living = len(label) > 2 || s.kind != string(Hard)
			if old := seen[s.text]; old != "" {
				continue // the same words of two systems
			}
			seen[s.text] = place
			all = append(all, s)
		}
		f.Close()
	}
	return all
}

// oneOf tells whether s is one of those in a label.
func oneOf(label, s string) bool { return slices.Contains(strings.Split(label, ","), s) }

// score counts right answers.
type score struct{ n, kind, category, suppressed, wrongly, dead int }

func (s *score) add(want sample, got Result) {
	s.n++
	if oneOf(want.kind, string(got.Kind)) {
		s.kind++
	}
	if oneOf(want.category, got.Category) {
		s.category++
	}
	if got.Suppress && want.living {
		s.wrongly++
	}
	if !want.living {
		s.dead++
		if got.Suppress {
			s.suppressed++
		}
	}
}

func (s score) String() string {
	return fmt.Sprintf("%d replies: kind %.1f %%, category %.1f %%, %d living addresses suppressed, %.1f %% of %d dead ones",
		s.n, pct(s.kind, s.n), pct(s.category, s.n), s.wrongly, pct(s.suppressed, s.dead), s.dead)
}

func pct(a, b int) float64 { return 100 * float64(a) / float64(max(b, 1)) }

func TestCorpus(t *testing.T) {
	var open, held score
	all := corpus(t)
	// The guesser must not know what is held back, either.
	half := withGuesser(t, slices.DeleteFunc(slices.Clone(all), sample.heldBack))
	for _, s := range all {
		got := half.Classify(Reply{Text: s.text, Stage: s.stage})
		if s.heldBack() {
			held.add(s, got)
			if os.Getenv("HELD") == "" {
				continue
			}
		} else {
			open.add(s, got)
		}
		if (!oneOf(s.kind, string(got.Kind)) || !oneOf(s.category, got.Category) || got.Suppress && s.living) && (testing.Verbose() || got.Suppress && s.living) {
			t.Logf("%s: %s %s (%s) suppress %v; want %s %s: %.160q", s.place, got.Kind, got.Category, got.Rule, got.Suppress, s.kind, s.category, s.text)
		}
	}
	t.Logf("rules were written from: %v", open)
	t.Logf("held back: %v", held)
	// What rules were written from must nearly all be right: else one was lost.
	if pct(open.kind, open.n) < 99.5 || pct(open.category, open.n) < 99.5 || open.wrongly > 0 {
		t.Errorf("open: %v", open)
	}
	if pct(held.kind, held.n) < 97 || pct(held.category, held.n) < 90 || held.wrongly > 0 {
		t.Errorf("held back: %v", held)
	}
}

// Of the addresses that are clearly dead by their labels, nearly all must be found: a
// list that keeps them harms its sender. What comes without any code stands only in
// reports, which say that they have failed.
func TestRecall(t *testing.T) {
	sets, names := map[string]*score{}, []string{}
	var sum score
	for _, s := range corpus(t) {
		if s.living || !oneOf(s.category, "no-such-mailbox") && !oneOf(s.category, "mailbox-disabled") {
			continue
		}
		r := Reply{Text: s.text, Stage: s.stage, To: "bob@corp.example"}
		if got := complete(r); got.Code == 0 && got.Enhanced == "" {
			r.Action = "failed"
		}
		got := Builtin().Classify(r)
		name, _, _ := strings.Cut(s.place, ":")
		if sets[name] == nil {
			sets[name], names = &score{}, append(names, name)
		}
		sets[name].add(s, got)
		sum.add(s, got)
		if !got.Suppress && os.Getenv("DEAD") != "" {
			t.Logf("%s: %s (%s) at %q: %.160q", s.place, got.Meaning, got.Rule, s.stage, s.text)
		}
	}
	for _, name := range names {
		t.Logf("%s: %d of %d", name, sets[name].suppressed, sets[name].dead)
	}
	t.Logf("all: %d of %d dead addresses are suppressed, %.1f %%", sum.suppressed, sum.dead, pct(sum.suppressed, sum.dead))
	if pct(sum.suppressed, sum.dead) < leastRecall {
		t.Errorf("%d of %d", sum.suppressed, sum.dead)
	}
}

// leastRecall is how many of 100 clearly dead addresses must be suppressed.
const leastRecall = 89

// Behind a clear statement, what living replies say must keep the address: it is said of
// something else. What says nothing at all ("Refused") may stand there.
func TestBeside(t *testing.T) {
	n, wrongly := 0, 0
	for _, s := range corpus(t) {
		if !s.living || strings.HasPrefix(s.kind, string(Hard)) {
			continue
		}
		text := s.text
		if code, _ := codes(text); code != "" {
			text = strings.TrimSpace(strings.TrimPrefix(text, code))
		}
		n++
		if got := Builtin().Classify(Reply{Code: 550, Text: "550 5.1.1 User unknown. " + text, Stage: "rcpt", To: "bob@corp.example"}); got.Suppress {
			wrongly++
			t.Logf("%s: %s %s: %.160q", s.place, s.kind, s.category, text)
		}
	}
	t.Logf("%d of %d", wrongly, n)
	if wrongly > n*2/100 {
		t.Errorf("%d of %d do not keep it", wrongly, n)
	}
}

func BenchmarkClassify(b *testing.B) {
	all, c := corpus(b), Builtin()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		s := all[i%len(all)]
		c.Classify(Reply{Text: s.text, Stage: s.stage})
	}
}
