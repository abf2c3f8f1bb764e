package classify

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// leastReplies is how many replies a meaning must have to be guessed.
const leastReplies = 4

// counts makes the guesser's file from labelled replies: those that the rules
// understand, with the meaning that they give.
func counts(t testing.TB, all []sample) []byte {
	t.Helper()
	rules := *Builtin()
	rules.guess = nil
	replies, seen := map[string]int{}, map[string]map[string]int{}
	for _, s := range all {
		r := complete(Reply{Text: s.text, Stage: s.stage})
		res := rules.Classify(Reply{Text: s.text, Stage: s.stage})
		if !oneOf(s.kind, string(res.Kind)) || !oneOf(s.category, res.Category) || slices.Contains([]string{"auto-reply", "delivered", "complaint"}, res.Category) {
			continue
		}
		replies[res.Meaning]++
		for _, f := range features(r, normalise(r.Text)) {
			if seen[f] == nil {
				seen[f] = map[string]int{}
			}
			seen[f][res.Meaning]++
		}
	}
	maps.DeleteFunc(replies, func(_ string, n int) bool { return n < leastReplies })
	meanings := slices.Sorted(maps.Keys(replies))
	var b bytes.Buffer
	b.WriteString("#\tHow many labelled replies of each meaning (=) have a word, two words in a row, or a code.\n")
	b.WriteString("#\tMade from testdata/replies: UPDATE=1 go test ./internal/classify -run GuessCounts. Not to be edited.\n")
	for _, m := range meanings {
		fmt.Fprintf(&b, "=\t%s %d\n", m, replies[m])
	}
	for _, f := range slices.Sorted(maps.Keys(seen)) {
		var line strings.Builder
		for i, m := range meanings {
			if n := seen[f][m]; n > 0 {
				fmt.Fprintf(&line, " %d:%d", i, n)
			}
		}
		if line.Len() > 0 {
			fmt.Fprintf(&b, "%s\t%s\n", f, line.String()[1:])
		}
	}
	return b.Bytes()
}

// withGuesser gives the rules of this program with a guesser that knows only the
// replies given.
func withGuesser(t testing.TB, all []sample) *Classifier {
	t.Helper()
	c := *Builtin()
	c.guess = newGuesser(counts(t, all))
	return &c
}

// The file is what the corpus makes, so that nobody wonders where it is from.
func TestGuessCounts(t *testing.T) {
	want := counts(t, corpus(t))
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile("guess.txt", want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(want, ownCounts) {
		t.Error("guess.txt is older than the rules or the corpus: UPDATE=1 go test ./internal/classify -run GuessCounts")
	}
	if len(ownCounts) > 300_000 {
		t.Errorf("guess.txt has %d bytes", len(ownCounts))
	}
}

// A guess is told as one, never condemns an address, and is not asked where a rule
// says something, or an operator's rule anything.
func TestGuess(t *testing.T) {
	c := Builtin()
	const text = "505 hourly recipients threshold was reached"
	got := c.Classify(Reply{Text: text})
	if got.Rule != guessed || got.Category != "rate-limited" || got.Kind != Soft || !got.Vague {
		t.Errorf("%q: %+v", text, got)
	}
	for _, s := range corpus(t) {
		if got := c.Classify(Reply{Text: s.text, Stage: s.stage}); got.Rule == guessed && (got.Suppress || got.Kind == Hard || got.Category == "other") {
			t.Errorf("%s: %+v", s.place, got)
		}
	}
	own, err := New(Source{"mine.toml", []byte("[[rule]]\nmeaning = \"busy\"\ncode = [\"505\"]\n")})
	if err != nil {
		t.Fatal(err)
	}
	if got := own.Classify(Reply{Text: text}); got.Rule != "mine.toml:1" {
		t.Errorf("the operator's rule did not decide: %+v", got)
	}
	if got := c.Classify(Reply{Text: "550 zyx wvu"}); got.Rule == guessed {
		t.Errorf("guessed from unknown words: %+v", got)
	}
}
