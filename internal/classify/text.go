package classify

import (
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

const (
	maxText  = 4000 // bytes of a text that are looked at
	maxWords = 600
)

// text is a reply's text taken apart: prose in lower case without punctuation,
// accents, numbers with dots, host names and URLs; and the words of those names
// apart, since any word can stand in a name.
type text struct {
	prose []string
	names []string
	hosts []string // whole, lower case
	mails []string // domains of mail addresses, lower case
}

// normalise takes a text apart. Mail addresses become "@": any word can stand in
// them, and they are somebody's.
func normalise(s string) text {
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "")
	}
	if !ascii(s) {
		s = plain(s)
	}
	t := text{prose: make([]string, 0, 48)}
	for f := range strings.FieldsSeq(s) {
		if len(t.prose)+len(t.names) > maxWords {
			break
		}
		if !strings.Contains(f, "@") {
			t.field(f)
			continue
		}
		for _, part := range strings.FieldsFunc(f, func(c rune) bool { return strings.ContainsRune(`<>()[]{}:;,"'`, c) }) {
			for part := range strings.SplitSeq(part, "...") { // bob@corp.example...User unknown
				if strings.Contains(part, "@") {
					t.prose = append(t.prose, "@")
					t.mails = append(t.mails, strings.ToLower(part[strings.LastIndexByte(part, '@')+1:]))
				} else {
					t.field(part)
				}
			}
		}
	}
	return t
}

func (t *text) field(f string) {
	f = strings.TrimFunc(f, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	if len(f) > 3 && f[3] == '-' && replyCode(f[:3]) { // the next line of a reply
		f = f[4:]
	}
	if f == "" || replyCode(f) {
		return
	}
	if i := dotted(f); i > 0 {
		if strings.ContainsAny(f, "[](){}<>,;|") { // sender[192.0.2.1]
			for _, part := range strings.FieldsFunc(f, func(c rune) bool { return strings.ContainsRune("[](){}<>,;|", c) }) {
				t.field(part)
			}
			return
		}
		if sentence(f, i) {
			t.field(f[:i])
			t.field(f[i+1:])
			return
		}
		if unicode.IsDigit(rune(f[0])) && strings.IndexFunc(f, unicode.IsLetter) < 0 {
			return // a code, an address, a version
		}
		t.name(strings.ToLower(f))
		return
	}
	t.prose = words(t.prose, strings.ToLower(f))
}

func replyCode(s string) bool {
	return len(s) == 3 && (s[0] == '4' || s[0] == '5') && s[1] >= '0' && s[1] <= '9' && s[2] >= '0' && s[2] <= '9'
}

// name keeps a host name or URL: as a host, and its words.
func (t *text) name(f string) {
	host := f
	if _, rest, ok := strings.Cut(f, "://"); ok {
		host = rest
	}
	host, _, _ = strings.Cut(host, "/")
	if i := strings.LastIndexAny(host, "=:"); i >= 0 && i+1 < len(host) {
		host = host[i+1:]
	}
	t.hosts = append(t.hosts, host)
	t.names = words(t.names, f)
}

// words appends the words of s, which is in lower case.
func words(to []string, s string) []string {
	start := -1
	flush := func(end int) {
		if start >= 0 {
			w := strings.Trim(s[start:end], "'")
			if w == "e" && strings.HasPrefix(s[end:], "-mail") {
				start = -1 // e-mail is email
				return
			}
			if w == "mail" && start >= 2 && s[start-2:start] == "e-" || strings.HasPrefix(w, "mail") && start >= 2 && s[start-2:start] == "e-" {
				w = "e" + w
			}
			if w != "" {
				to = append(to, w)
			}
		}
		start = -1
	}
	for i, r := range s {
		switch {
		case r < utf8.RuneSelf && (r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '\''):
			if start < 0 {
				start = i
			}
		case r >= utf8.RuneSelf && ideograph(r): // no spaces between words: each is one
			flush(i)
			to = append(to, s[i:i+utf8.RuneLen(r)])
		case r >= utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r)):
			if start < 0 {
				start = i
			}
		default:
			flush(i)
		}
	}
	flush(len(s))
	return to
}

func ideograph(r rune) bool {
	return unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana)
}

// dotted finds a dot inside a word, as names and URLs have, or 0.
func dotted(f string) int {
	for i := 1; i < len(f)-1; i++ {
		if f[i] == '.' && wordByte(f[i-1]) && wordByte(f[i+1]) {
			return i
		}
	}
	return 0
}

func wordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c >= utf8.RuneSelf
}

// sentence tells whether the dot ends one: "unknown.Please".
func sentence(f string, dot int) bool {
	if strings.Contains(f, "://") || strings.Count(f, ".") > 1 || dot < 3 {
		return false
	}
	before, after := f[dot-1], f[dot+1]
	second := byte(0)
	if dot+2 < len(f) {
		second = f[dot+2]
	}
	return before >= 'a' && before <= 'z' && after >= 'A' && after <= 'Z' && (second == 0 || second >= 'a' && second <= 'z' || second == '-')
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// plain takes accents away and makes typographic apostrophes plain.
func plain(s string) string {
	s = strings.ToValidUTF8(s, " ")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\u2019' || r == '\u2018' || r == '\u00b4' || r == '`':
			return '\''
		case unicode.Is(unicode.Mn, r):
			return -1
		case r == '\u0131': // Turkish i without its dot
			return 'i'
		}
		return r
	}, norm.NFKD.String(strings.NewReplacer("\u00b4", "'", "ß", "ss", "ł", "l", "Ł", "L", "ø", "o", "Ø", "O").Replace(s)))
}

// codeForm finds a basic code where one can stand: at the start, or after a sign
// or a word that announces it; with the enhanced one that may follow.
var codeForm = regexp.MustCompile(`(?i)(?:^|[:;(<>"'\[|=]|\b(?:said|says|error|code|status|reply|response|replied|returned|answered|was|with|got|smtp|esmtp|message|reason|line|failed))[\s:;#("'<>\[]*([245]\d\d)(?:[ \-]+#?\(?([245]\.[0-7]\.\d{1,3})\b|[\s\-,:;"')\]<#]|\.(?:\D|$)|$)`)

// codes finds the first basic code and the enhanced one behind it, or gives nothing.
// Most texts begin with them, which is seen without the expression.
func codes(s string) (basic, enhanced string) {
	if len(s) < 4 || !(s[0] == '2' || s[0] == '4' || s[0] == '5') || !digit(s[1]) || !digit(s[2]) || s[3] != ' ' && s[3] != '-' {
		if !maybeCode(s) {
			return "", ""
		}
		if m := codeForm.FindStringSubmatch(s); m != nil {
			return m[1], m[2]
		}
		return "", ""
	}
	t := strings.TrimLeft(s[3:], " -")
	t = strings.TrimPrefix(strings.TrimPrefix(t, "#"), "(")
	if len(t) < 5 || !(t[0] == '2' || t[0] == '4' || t[0] == '5') || t[1] != '.' || t[2] < '0' || t[2] > '7' || t[3] != '.' {
		return s[:3], ""
	}
	end := 4
	for end < len(t) && digit(t[end]) {
		end++
	}
	if end == 4 || end > 7 || end < len(t) && (t[end] == '_' || t[end] < utf8.RuneSelf && wordByte(t[end])) {
		return s[:3], ""
	}
	return s[:3], t[:end]
}

// maybeCode tells whether there are three digits in a row that could be a basic code.
func maybeCode(s string) bool {
	for i := 0; i+2 < len(s); i++ {
		if (s[i] == '2' || s[i] == '4' || s[i] == '5') && digit(s[i+1]) && digit(s[i+2]) && (i+3 == len(s) || !digit(s[i+3])) {
			return true
		}
	}
	return false
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// enhancedForm finds an enhanced code; the subject is 0 to 7 in the registry, so
// that versions of programs are hardly taken for one.
var enhancedForm = regexp.MustCompile(`(?:^|[^\d.])([245]\.[0-7]\.\d{1,3})(?:[^\d.]|\.(?:\D|$)|$)`)

// quoteForm finds where a mail system begins to quote another's reply, programForm
// where a program or library does.
var (
	quoteForm   = regexp.MustCompile(`(?:\bsaid|refused to talk to me):?\s+([245]\d\d)[ \-]`)
	programForm = regexp.MustCompile(`(?:with message|Message failed:|command failed:|server response was:)\s+"?([245](?:\d\d[ \-]|\.\d\.\d))`)
)

// quoted is the reply that another one quotes, without what it says itself: that is
// of the servers' names, and the same whatever is wrong.
func quoted(s string) string {
	from := -1
	if strings.Contains(s, "said") || strings.Contains(s, "refused to talk") {
		if m := quoteForm.FindStringSubmatchIndex(s); m != nil && !codeForm.MatchString(s[:m[0]]) {
			from = m[2]
		}
	}
	if from < 0 && (strings.Contains(s, "with message") || strings.Contains(s, "failed:") || strings.Contains(s, "response was:")) {
		if m := programForm.FindStringSubmatchIndex(s); m != nil {
			from = m[2]
		}
	}
	if from < 0 {
		return s
	}
	s = s[from:]
	for _, end := range []string{"I'm not going to try again", "Giving up on "} { // qmail's
		s, _, _ = strings.Cut(s, end)
	}
	return s
}

var stageForm = regexp.MustCompile(`(?i)in reply to (?:the )?(end of data|mail from|rcpt to|data|helo|ehlo|starttls|auth|initial|connection)|after (end of data|mail from|rcpt to|initial connection|pipelined mail from|pipelined rcpt to|sending data|helo|ehlo|starttls|auth)\b`)

// complete finds codes and the stage in the text where they are missing.
func complete(r Reply) Reply {
	if strings.Contains(r.Text, "_host_said:_") { // qmail's log
		r.Text = strings.NewReplacer("_", " ", "/", "\n").Replace(r.Text)
	}
	if inner, ok := wrapped(r.Text); ok {
		r.Text, r.Code = inner, 0
		if strings.HasSuffix(r.Enhanced, ".1.0") || strings.HasSuffix(r.Enhanced, ".3.0") {
			r.Enhanced = ""
		}
	}
	s := r.Text
	if len(s) > maxText {
		s = s[:maxText]
	}
	if r.Code == 0 {
		basic, enhanced := codes(s)
		if basic != "" && !(basic[0] == '2' && r.Action != "") {
			r.Code, _ = strconv.Atoi(basic)
			if enhanced != "" && (r.Enhanced == "" || vague(r.Enhanced)) {
				r.Enhanced = enhanced
			}
		}
	}
	if (r.Enhanced == "" || vague(r.Enhanced)) && (strings.Contains(s, "5.") || strings.Contains(s, "4.") || strings.Contains(s, "2.")) {
		for _, m := range enhancedForm.FindAllStringSubmatch(s, 3) {
			if r.Enhanced == "" || !vague(m[1]) && (r.Code == 0 || int(m[1][0]-'0') == r.Code/100) {
				r.Enhanced = m[1]
				break
			}
		}
	}
	if r.Stage == "" && (strings.Contains(s, "in reply to") || strings.Contains(s, "after")) {
		if m := stageForm.FindStringSubmatch(s); m != nil {
			r.Stage = stages[strings.TrimPrefix(strings.ToLower(m[1]+m[2]), "pipelined ")]
		}
	}
	for _, q := range qmailStages {
		if r.Stage == "" && strings.Contains(s, q.words) {
			r.Stage = q.stage
		}
	}
	return r
}

// qmailStages are what qmail says of the command that was refused.
var qmailStages = []struct{ words, stage string }{{"does not like recipient", "rcpt"}, {"but sender was rejected", "mail"}, {"but greeting failed", "greeting"}, {"failed after I sent the message", "dot"}}

// wrapped takes a reply out of the words that some appliances put around any
// reply to RCPT: "5.1.0 - Unknown address error 550-'5.7.1 …'".
func wrapped(s string) (string, bool) {
	for _, w := range []string{"Unknown address error ", "Other mail system problem ", "Unknown mail system problem "} {
		if i := strings.Index(s, w); i >= 0 {
			return strings.ReplaceAll(s[i+len(w):], w, ""), true // a report may say it twice
		}
	}
	return s, false
}

var stages = map[string]string{"end of data": "dot", "sending data": "dot", "mail from": "mail", "rcpt to": "rcpt", "data": "data", "helo": "ehlo", "ehlo": "ehlo",
	"starttls": "starttls", "auth": "auth", "initial": "greeting", "initial connection": "greeting", "connection": "greeting"}

// vague tells whether an enhanced code says the class only.
func vague(enhanced string) bool {
	return strings.HasSuffix(enhanced, ".0.0")
}
