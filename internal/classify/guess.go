package classify

import (
	"bufio"
	"bytes"
	_ "embed"
	"math"
	"strconv"
	"strings"
)

//go:embed guess.txt
var ownCounts []byte

const (
	// sure is how likely a guess must be, beside all other meanings, to be told.
	sure = 0.5
	// known is how many words of a text must have been seen before.
	known = 2
	// smooth is what is added to each count, so that nothing is impossible.
	smooth = 0.1
)

// guessed stands in Result.Rule where no rule decided, but the guesser.
const guessed = "guessed from words"

// guesser is a second opinion where no rule says much: which meaning's replies
// use such words (naive Bayes). It knows how many replies of each meaning have a
// word, or two words in a row.
type guesser struct {
	meanings []string
	replies  []float64            // of each meaning
	total    float64              // of all
	seen     map[string][]counted // by word, "two words", or code
	size     []float64            // sum of counts of each meaning
}

type counted struct {
	meaning int
	n       float64
}

// newGuesser reads the file of counts: "= meaning replies", then "word meaning:n …"
// with the meanings by their number.
func newGuesser(b []byte) *guesser {
	g := &guesser{seen: map[string][]counted{}}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		word, rest, ok := strings.Cut(lines.Text(), "\t")
		switch {
		case !ok || word == "#":
		case word == "=":
			name, n, _ := strings.Cut(rest, " ")
			g.learnMeaning(name, number(n))
		default:
			for pair := range strings.FieldsSeq(rest) {
				m, n, _ := strings.Cut(pair, ":")
				g.learn(word, int(number(m)), number(n))
			}
		}
	}
	return g
}

func number(s string) float64 {
	n, _ := strconv.Atoi(s)
	return float64(n)
}

func (g *guesser) learnMeaning(name string, replies float64) {
	g.meanings, g.replies, g.size = append(g.meanings, name), append(g.replies, replies), append(g.size, 0)
	g.total += replies
}

func (g *guesser) learn(word string, meaning int, n float64) {
	g.seen[word] = append(g.seen[word], counted{meaning, n})
	g.size[meaning] += n
}

// features of a reply: each word once, each two words in a row, and the codes.
func features(r Reply, t text) []string {
	fs := make([]string, 0, 2*len(t.prose)+4)
	fs = append(fs, "/"+strconv.Itoa(class(r.Code, r.Enhanced)))
	if r.Code != 0 {
		fs = append(fs, "/"+strconv.Itoa(r.Code))
	}
	if len(r.Enhanced) > 2 && !vague(r.Enhanced) {
		fs = append(fs, "/x"+r.Enhanced[1:])
	}
	once := map[string]bool{}
	put := func(s string) {
		if !once[s] {
			once[s] = true
			fs = append(fs, s)
		}
	}
	for i, w := range t.prose {
		if len(w) > 1 && (w[0] < '0' || w[0] > '9') {
			put(w)
		}
		if i > 0 {
			put(t.prose[i-1] + " " + w)
		}
	}
	for _, w := range t.names {
		if len(w) > 3 {
			put("." + w)
		}
	}
	return fs
}

// guess gives the meaning whose replies are most like this one, and how likely it is
// among all; empty where too little of the text is known.
func (g *guesser) guess(r Reply, t text) (meaning string, p float64) {
	score := make([]float64, len(g.meanings))
	for m, n := range g.replies {
		score[m] = math.Log(n / g.total)
	}
	words := 0
	vocabulary := float64(len(g.seen))
	for _, f := range features(r, t) {
		all := g.seen[f]
		if all == nil {
			continue
		}
		if f[0] != '/' {
			words++
		}
		for m := range score {
			score[m] += math.Log(smooth / (g.size[m] + smooth*vocabulary))
		}
		for _, c := range all {
			score[c.meaning] += math.Log((c.n + smooth) / smooth)
		}
	}
	if words < known {
		return "", 0
	}
	best := 0
	for m := range score {
		if score[m] > score[best] {
			best = m
		}
	}
	sum := 0.0
	for _, s := range score {
		sum += math.Exp(s - score[best])
	}
	return g.meanings[best], 1 / sum
}

// opinion gives the guesser's meaning where no rule says more than that the
// message was refused or put off. It never guesses that an address is dead, and
// does not speak against an operator's rule.
func (c *Classifier) opinion(in *input, hit *rule) *rule {
	if c.guess == nil || !c.generic(hit) {
		return hit
	}
	name, p := c.guess.guess(in.Reply, in.text)
	m, ok := c.meanings[name]
	if p < sure || !ok || m.Kind == Hard || m.Category == "other" {
		return hit
	}
	return &rule{meaning: name, place: guessed, doubt: true, written: written{Vague: true}}
}

// generic tells whether a rule of this program, or none, has decided, and says
// little.
func (c *Classifier) generic(hit *rule) bool {
	switch hit.meaning {
	case "refused", "deferred", "undetermined", "busy":
		return hit.place == "" || hit.own && (hit.Vague || len(hit.Words)+len(hit.Names) == 0)
	}
	return false
}
