package domain

import (
	"fmt"
	"strings"

	"postrider/internal/relay"
)

// Question is what is asked of the DNS.
type Question struct {
	Name string // lower case, without the last dot
	Type string // "TXT", "CNAME", "MX", "NS", "A" (addresses of any family)
}

// Answer is what it says. TXT values are whole, without quotes; names are lower
// case, without the last dot.
type Answer struct {
	Values []string
	Err    error // nothing could be learned; nil with no Values: there is no such record
}

// Answers are those to the questions that were asked.
type Answers map[Question]Answer

// get is the answer to a question. One that was not asked has none.
func (a Answers) get(name, typ string) Answer {
	got, asked := a[Question{name, typ}]
	if !asked {
		return Answer{Err: errNotAsked}
	}
	return got
}

var errNotAsked = fmt.Errorf("it was not asked for")

// Bounds on what of an answer is shown.
const (
	shownValues = 5
	shownLength = 600 // an RSA-2048 key is 410 long
)

// shown is what a finding repeats of records: a part of them where there is too
// much, and nothing that plays with a terminal.
func shown(values []string) []string {
	var out []string
	for i, v := range values {
		if i == shownValues {
			out = append(out, fmt.Sprintf("… and %d more", len(values)-i))
			break
		}
		v = strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return '?'
			}
			return r
		}, strings.ToValidUTF8(v, "?"))
		if len(v) > shownLength {
			v = strings.ToValidUTF8(v[:shownLength], "") + "…"
		}
		out = append(out, v)
	}
	return out
}

// unknown is the finding where the DNS gave no answer.
func unknown(f relay.Finding, err error) relay.Finding {
	f.Status = relay.Unknown
	f.Text = "The DNS gave no answer: " + err.Error() + "."
	f.Advice = "It is asked again soon. If that goes on, the domain's name servers don't answer."
	return f
}

// tags reads a list of "name=value; …" as DKIM and DMARC records have it (RFC
// 6376 section 3.2). Names are lower case; the first of two with one name counts.
func tags(s string) map[string]string {
	out := map[string]string{}
	for part := range strings.SplitSeq(s, ";") {
		name, value, ok := strings.Cut(part, "=")
		name = strings.ToLower(strings.TrimSpace(name))
		if _, again := out[name]; ok && !again {
			out[name] = strings.TrimSpace(value)
		}
	}
	return out
}
