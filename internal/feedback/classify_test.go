package feedback

import (
	"bufio"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"postrider/internal/relay"
)

// parts of a reply as it stands in the corpus: code, enhanced code, text.
var reply = regexp.MustCompile(`^([45]\d\d) (?:([45]\.\d{1,3}\.\d{1,3}) )?(.*)$`)

func readReply(t testing.TB, s string) relay.Reply {
	m := reply.FindStringSubmatch(s)
	if m == nil {
		t.Fatalf("%q is not a reply", s)
	}
	code, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return relay.Reply{Code: code, Enhanced: m[2], Text: strings.ReplaceAll(m[3], `\n`, "\n")}
}

// corpus calls f for each labelled reply.
func corpus(t testing.TB, f func(line int, category, stage string, r relay.Reply)) {
	file, err := os.Open("testdata/replies.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		if lines.Text() == "" || strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		part := strings.SplitN(lines.Text(), " | ", 3)
		if len(part) != 3 {
			t.Fatalf("line %d has %d parts", n, len(part))
		}
		f(n, part[0], part[1], readReply(t, part[2]))
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
}

func TestDiagnoseRealReplies(t *testing.T) {
	seen, n := map[string]int{}, 0
	corpus(t, func(line int, category, stage string, r relay.Reply) {
		n++
		seen[category]++
		if _, ok := words[category]; !ok {
			t.Errorf("line %d: no category %q", line, category)
		}
		d := Diagnose(stage, r, "mx.example.net")
		if d.Category != category {
			t.Errorf("line %d: %s, want %s: %s", line, d.Category, category, strings.ReplaceAll(r.String(), "\n", " "))
		}
		checkWords(t, d)
	})
	if n < 150 {
		t.Errorf("only %d replies", n)
	}
	for c := range words {
		switch c {
		case Unreachable, NoAnswerDNS, BrokenOff, Own: // no replies
		default:
			if seen[c] == 0 {
				t.Errorf("no reply for %s", c)
			}
		}
	}
}

// checkWords holds a diagnosis to whole sentences.
func checkWords(t testing.TB, d relay.Diagnosis) {
	t.Helper()
	for _, s := range []string{d.Text, d.Advice} {
		if first, _ := utf8.DecodeRuneInString(s); s == "" || strings.Contains(s, "{host}") || !strings.HasSuffix(s, ".") ||
			!unicode.IsUpper(first) && !strings.HasPrefix(s, "mx.example.net") {
			t.Errorf("%s: %q is not a sentence", d.Category, s)
		}
	}
}

func TestDiagnoseWithoutReply(t *testing.T) {
	for _, tt := range []struct{ stage, enhanced, want string }{
		{StageRoute, "5.1.2", NoDomain},
		{StageRoute, "5.1.10", NoMail},
		{StageRoute, "4.4.3", NoAnswerDNS},
		{StageRoute, "4.4.4", Unreachable},
		{StageConnect, "4.4.1", Unreachable},
		{StageGreeting, "4.4.2", BrokenOff},
		{StageTLS, "4.4.2", TLSProblem},
		{StageConnect, "5.7.30", TLSProblem},
		{StageContent, "4.4.2", BrokenOff},
		{StageDot, "4.4.2", BrokenOff},
		{StageMail, "5.3.4", TooLarge},
		{StageRcpt, "5.6.7", Unsupported},
		{StageContent, "5.6.3", Unsupported},
		{"", "4.3.2", Own},
		{StageMail, "4.3.0", Own},
	} {
		for _, host := range []string{"", "mx.example.net"} {
			d := Diagnose(tt.stage, relay.Reply{Enhanced: tt.enhanced, Text: "what happened"}, host)
			if d.Category != tt.want {
				t.Errorf("%s %s: %s; want %s", tt.stage, tt.enhanced, d.Category, tt.want)
			}
			checkWords(t, d)
		}
	}
}

func TestDiagnoseWords(t *testing.T) {
	const again = "Nothing: it is tried again by itself."
	for _, tt := range []struct{ stage, reply, host, text, advice string }{
		{StageRcpt, "451 4.7.1 Greylisted", "mx.example.net", "mx.example.net asks unknown senders to come back in some minutes (greylisting).", again},
		{StageRcpt, "451 4.7.1 Greylisted", "", "The receiving server asks unknown senders to come back in some minutes (greylisting).", again},
		{StageDot, "554 No", "mx.example.net", "mx.example.net refuses the message for good.", words[Policy].advice},
		{StageDot, "554 No", "", "The receiving server refuses the message for good.", words[Policy].advice},
		{StageDot, "471 No", "mx.example.net", "mx.example.net does not take the message at the moment.", again},
		{StageEhlo, "500 No", "mx.example.net", "mx.example.net does not take the message at the moment.", again}, // another try is made
		{StageRcpt, "550 Ip frequency limited", "mx.example.net", words["soft/rate-limited"].text, "Send it again later."},
		{StageRcpt, "550 5.1.1 No", "mx.example.net", words[NoMailbox].text, words[NoMailbox].advice},
	} {
		d := Diagnose(tt.stage, readReply(t, tt.reply), tt.host)
		if want := strings.ReplaceAll(tt.text, "{host}", tt.host); d.Text != want || d.Advice != tt.advice {
			t.Errorf("%s %s: %+v; want %q and %q", tt.stage, tt.reply, d, want, tt.advice)
		}
	}
	if d := Diagnose(StageDot, relay.Reply{Text: "broken"}, ""); d.Text != "The connection to the receiving server broke before the message was through." {
		t.Errorf("in the middle of a sentence: %q", d.Text)
	}
}

func TestContains(t *testing.T) {
	for _, tt := range []struct {
		text, phrase string
		want         bool
	}{
		{"spam", "spam", true},
		{"this is spam.", "spam", true},
		{"[spam]", "spam", true},
		{"spammer", "spam", false},
		{"spammer", "spam*", true},
		{"nospam", "spam*", false},
		{"a nospam spam", "spam", true},
		{"turbl rbl", "rbl", true},
		{"dns_rbl", "rbl", false},
		{"überspam", "spam", false},
		{"the mailbox is fully", "is full", false},
		{"spf_pass", "spf", false},
		{"", "spam", false},
		{"spa", "spam*", false},
	} {
		if got := contains(tt.text, tt.phrase); got != tt.want {
			t.Errorf("%q in %q: %v", tt.phrase, tt.text, got)
		}
	}
}

func TestHiddenCode(t *testing.T) {
	for text, want := range map[string]string{
		"#5.1.0 Address rejected.": "5.1.0", "sorry (#5.7.1)": "5.7.1", "#4.16.5": "4.16.5", "x #5.1.1": "5.1.1",
		"": "", "#": "", "#5": "", "#5.1": "", "#5.1.1.1": "", "#2.0.0": "", "5.1.1": "", "#550 x": "",
	} {
		if got := hiddenCode(text); got != want {
			t.Errorf("%q: %q; want %q", text, got, want)
		}
	}
}

// Every phrase can be met: in lower case, one space between words, and without
// what readable takes away.
func TestRulesCanMatch(t *testing.T) {
	for _, table := range [][]rule{telling[:], vague[:]} {
		for _, r := range table {
			for phrase := range strings.SplitSeq(r.words, "|") {
				bare := strings.TrimSuffix(phrase, "*")
				whole, prose := readable(bare)
				if !r.names {
					whole = prose
				}
				if whole != bare || bare == "" {
					t.Errorf("%s: the phrase %q never matches", r.category, phrase)
				}
			}
		}
	}
}

func FuzzDiagnose(f *testing.F) {
	corpus(f, func(line int, _, stage string, r relay.Reply) {
		if line%5 == 0 {
			f.Add(stage, r.Code, r.Enhanced, r.Text, "mx.example.net")
		}
	})
	f.Add(StageRoute, 0, "4.4.3", "", "")
	f.Add("", -1, ".", "#5.#\x00@\xff .a. ://", "{host}")
	f.Fuzz(func(t *testing.T, stage string, code int, enhanced, text, host string) {
		r := relay.Reply{Code: code, Enhanced: enhanced, Text: text}
		d := Diagnose(stage, r, host)
		if _, ok := words[d.Category]; !ok {
			t.Errorf("no category %q", d.Category)
		}
		if d.Text == "" || d.Advice == "" || strings.Contains(d.Text, "{host}") && !strings.Contains(host, "host") {
			t.Errorf("%+v", d)
		}
		if again := Diagnose(stage, relay.Reply{Code: code, Enhanced: enhanced, Text: strings.ToUpper(strings.ToLower(text))}, host); utf8.ValidString(text) && isASCII(text) && again != d {
			t.Errorf("upper case makes %+v of %+v", again, d)
		}
	})
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}
