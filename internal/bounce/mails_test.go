package bounce

import (
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postrider/internal/classify"
)

// sample is a labelled mail.
type sample struct {
	place string
	name  string
	open  bool // of a file that has been looked at as a whole: none of it is held back
	want  []want
	text  string
}

// want is what should be found of one recipient.
type want struct {
	address, kind, category string
	living                  bool
}

// heldBack tells whether the sample is of the third that nothing was written
// from. It hangs on the name alone.
func (s sample) heldBack() bool {
	h := fnv.New32a()
	h.Write([]byte(s.name))
	return !s.open && h.Sum32()%3 == 0
}

var sampleForm = regexp.MustCompile(`(?m)^#### ([\w.-]+) \|(.*)$`)

// samples reads the labelled mails: "#### name | address kind category | …" and
// the mail. "-" is an address that was taken out; "~" behind the category: the
// address may live.
func samples(t testing.TB) (all []sample) {
	t.Helper()
	files, err := filepath.Glob("testdata/mails/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no mails", err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		marks := sampleForm.FindAllSubmatchIndex(b, -1)
		for i, m := range marks {
			end := len(b)
			if i+1 < len(marks) {
				end = marks[i+1][0]
			}
			s := sample{open: strings.HasPrefix(string(b), "# open"), name: string(b[m[2]:m[3]]), text: strings.TrimLeft(string(b[m[1]:end]), "\n")}
			s.place = filepath.Base(file) + ": " + s.name
			for _, label := range strings.Split(string(b[m[4]:m[5]]), "|") {
				f := strings.Fields(label)
				if len(f) == 0 {
					continue
				}
				if len(f) < 3 {
					t.Fatalf("%s: label %q", s.place, label)
				}
				s.want = append(s.want, want{strings.Trim(f[0], "-"), f[1], f[2], len(f) > 3 || f[1] != "hard"})
			}
			all = append(all, s)
		}
	}
	return all
}

type score struct{ n, address, kind, category, wrongly, dead, suppressed int }

func (s score) String() string {
	p := func(a, b int) float64 { return 100 * float64(a) / float64(max(b, 1)) }
	return fmt.Sprintf("%d recipients: found %.1f %%, kind %.1f %%, category %.1f %%, %d living suppressed, %.1f %% of %d dead ones", s.n, p(s.address, s.n), p(s.kind, s.n), p(s.category, s.n), s.wrongly, p(s.suppressed, s.dead), s.dead)
}

func (s *score) add(w want, all []Verdict) (ok bool) {
	s.n++
	i := slices.IndexFunc(all, func(v Verdict) bool { return strings.EqualFold(v.Recipient.Address, w.address) })
	if !w.living {
		s.dead++
	}
	if i < 0 {
		return false
	}
	v := all[i]
	s.address++
	ok = true
	if oneOf(w.kind, string(v.Kind)) {
		s.kind++
	} else {
		ok = false
	}
	if oneOf(w.category, v.Category) {
		s.category++
	} else {
		ok = false
	}
	if v.Suppress && w.living && v.Category != "complaint" {
		s.wrongly++
		ok = false
	}
	if v.Suppress && !w.living {
		s.suppressed++
	}
	return ok
}

// oneOf tells whether s is one of those in a label, which commas part.
func oneOf(label, s string) bool { return slices.Contains(strings.Split(label, ","), s) }

func TestMails(t *testing.T) {
	var open, held score
	for _, s := range samples(t) {
		m, err := Read(strings.NewReader(s.text))
		if err != nil {
			t.Fatal(err)
		}
		all := m.Judge(classify.Builtin())
		part := &open
		show := true
		if s.heldBack() {
			part, show = &held, os.Getenv("HELD") != ""
		}
		ok := len(all) == len(s.want)
		for _, w := range s.want {
			ok = part.add(w, all) && ok
		}
		if !ok && show {
			t.Errorf("%s: %s", s.place, m.Kind)
			for _, v := range all {
				t.Logf("    %s %s %s %s (%s) suppress %v: %.120q", v.Recipient.Address, v.Recipient.Action, v.Kind, v.Category, v.Rule, v.Suppress, v.Recipient.Reply)
			}
		}
		if len(s.want) == 0 && len(all) > 0 {
			t.Errorf("%s: no report, but %+v", s.place, all)
		}
	}
	t.Logf("rules were written from: %v", open)
	t.Logf("held back: %v", held)
	for name, s := range map[string]score{"open": open, "held back": held} {
		if 100*s.kind < 97*s.n || 100*s.category < 90*s.n || s.wrongly > 0 {
			t.Errorf("%s: %v", name, s)
		}
	}
}
