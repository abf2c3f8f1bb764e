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
var ownWeights []byte

// guessed stands in Result.Rule where no rule decided, but the guesser.
const guessed = "guessed from words"

const (
	// How likely a guess must be to be told: where no rule holds; where one holds that
	// says little; where one holds by a loose phrase, or the words are a mail's and not a
	// server's.
	// sureHard, to say that the address is bad.
	likelier = 0.2
	sure     = 0.75
	surely   = 0.9
	sureHard = 0.75
	// leastKnown is how many words, stems and concepts of a text must be known.
	leastKnown = 2
)

// scale is what weights are multiplied by in the file, to be whole numbers.
const scale = 20

// guesser is a second opinion where no rule says much: a linear model over words,
// pairs of words, the concepts of the rules' file and codes, learned from labelled
// replies. For each meaning the weights of what stands in a reply are added up.
type guesser struct {
	meanings []string
	weights  map[feature]row
}

// row are a feature's weights; its number tells whether it was counted before.
type row struct {
	number  int
	weights []weight
}

// feature is something that can be seen in a reply: a word; two words in a row; and
// with a mark first, "*" a stem, "$" a concept, "/" a code, "." a word of a name.
type feature [2]string

func (f feature) String() string { return strings.TrimSuffix(f[0]+" "+f[1], " ") }

type weight struct {
	meaning int
	w       float64
}

// newGuesser reads the file of weights: the meanings, then "feature meaning:weight …"
// with the meanings by their number.
func newGuesser(b []byte) *guesser {
	g := &guesser{weights: map[feature]row{}}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		name, rest, ok := strings.Cut(lines.Text(), "\t")
		switch {
		case !ok || name == "#":
		case name == "=":
			g.meanings = strings.Fields(rest)
		default:
			var f feature
			f[0], f[1], _ = strings.Cut(name, " ")
			r := row{number: len(g.weights)}
			for pair := range strings.FieldsSeq(rest) {
				m, n, _ := strings.Cut(pair, ":")
				r.weights = append(r.weights, weight{int(number(m)), number(n) / scale})
			}
			g.weights[f] = r
		}
	}
	return g
}

func number(s string) float64 {
	n, _ := strconv.Atoi(s)
	return float64(n)
}

// features calls put with each thing that is seen in a reply; some come twice.
func (c *Classifier) features(in *input, put func(feature)) {
	put(feature{"/"})
	cl := strconv.Itoa(in.class)
	put(feature{"/", cl})
	if in.Code != 0 {
		put(feature{"/", strconv.Itoa(in.Code)})
	}
	if len(in.Enhanced) > 4 && !vague(in.Enhanced) {
		put(feature{"/x", in.Enhanced[2:]})
		put(feature{"/x", in.Enhanced[2:4]})
	}
	if in.Stage != "" {
		put(feature{"/", in.Stage})
	}
	var spoken [maxConcepts]bool
	c.concepts.find(in.text.prose, func(n int, _ bool) { spoken[n] = true })
	c.concepts.find(in.text.names, func(n int, _ bool) { spoken[n] = true })
	for n, name := range c.conceptNames {
		if !spoken[n] {
			continue
		}
		put(feature{"$", name})
		put(feature{"$" + cl, name})
		for k, other := range c.conceptNames[:n] {
			if spoken[k] {
				put(feature{"&" + other, name})
			}
		}
	}
	last := "^"
	for _, w := range in.text.prose {
		put(feature{last, w})
		last = w
		if len(w) > 1 && (w[0] < '0' || w[0] > '9') {
			put(feature{w})
			if s := stem(w); s != "" {
				put(feature{"*", s})
			}
		}
	}
	put(feature{last, "^"})
	for _, w := range in.text.names {
		if len(w) > 3 {
			put(feature{".", w})
		}
	}
}

// stem is the first five letters of a longer word.
func stem(w string) string {
	n := 0
	for i := range w {
		if n == 5 {
			return w[:i]
		}
		n++
	}
	return ""
}

// likely gives how likely each meaning is, and whether enough of the words is known.
func (c *Classifier) likely(in *input) (p []float64, known bool) {
	p = make([]float64, len(c.guess.meanings))
	seen := make([]uint64, len(c.guess.weights)/64+1)
	words := 0
	c.features(in, func(f feature) {
		r, ok := c.guess.weights[f]
		if !ok || seen[r.number/64]>>(r.number%64)&1 != 0 {
			return
		}
		seen[r.number/64] |= 1 << (r.number % 64)
		if f[0][0] == '$' || f[0] == "*" || f[1] == "" && f[0] != "/" {
			words++
		}
		for _, w := range r.weights {
			p[w.meaning] += w.w
		}
	})
	softmax(p)
	return p, words >= leastKnown
}

func softmax(score []float64) {
	top := math.Inf(-1)
	for _, s := range score {
		top = max(top, s)
	}
	sum := 0.0
	for m, s := range score {
		score[m] = math.Exp(s - top)
		sum += score[m]
	}
	for m := range score {
		score[m] /= sum
	}
}

// weak tells whether a rule says little: one of vague words, or of the basic code alone.
func (r *rule) weak() bool {
	return r.Vague || len(r.Words)+len(r.Names)+len(r.Enhanced) == 0
}

// opinion gives the guesser's meaning, the likeliest one of the likeliest category,
// where no rule holds, or one that says little or holds by a loose phrase, and it is
// likely enough. It never condemns an address, and does not speak against an operator's
// rule.
func (c *Classifier) opinion(in *input, hit *rule, loose bool) *rule {
	least := surely
	switch {
	case c.guess == nil, in.class == 2, hit.place != "" && !(hit.own && (loose || hit.weak())):
		return hit
	case in.Prose:
	case hit.place == "":
		least = likelier
	case hit.weak():
		least = sure
	}
	p, known := c.likely(in)
	if !known {
		return hit
	}
	// X.7 is of security and policy (RFC 3463 section 3.8)
	security := len(in.Enhanced) > 3 && in.Enhanced[2] == '7'
	categories := map[string]float64{}
	for m, name := range c.guess.meanings {
		if is := c.meanings[name]; is.Kind != Hard || p[m] >= sureHard && !security {
			categories[is.Category] += p[m]
		}
	}
	best, name := 0.0, ""
	for m, n := range c.guess.meanings {
		if q := categories[c.meanings[n].Category]; q > 0 && q+p[m]/1000 > best {
			best, name = q+p[m]/1000, n
		}
	}
	if best < least || hit.place != "" && c.meanings[name].Category == c.meanings[hit.meaning].Category {
		return hit
	}
	return &rule{meaning: name, place: guessed, doubt: true, written: written{Vague: true}}
}
