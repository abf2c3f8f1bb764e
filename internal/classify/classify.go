// Package classify says what a mail server's refusal means: whether it is of the
// address, passes, or judges the sender; which of some twenty categories it is;
// whose system spoke; whether trying again or dropping the address is right; and
// all that in plain words. It is a pure function of its input and of rules, which
// are data: rules.toml, and the operator's file, which is asked first.
package classify

import (
	"regexp"
	"slices"
	"strings"
)

// Kind is the gravest that a refusal says of the address.
type Kind string

const (
	Hard  Kind = "hard"  // of the address: it will not work later either
	Soft  Kind = "soft"  // passes, or is of this one message
	Block Kind = "block" // the receiver's judgement of the sender or the message
)

// Reply is what is to be understood. Only one of Code, Enhanced and Text is
// needed; the more is known, the better the answer.
type Reply struct {
	Code     int    // basic reply code (RFC 5321 section 4.2); 0: none
	Enhanced string // enhanced status code (RFC 3463); may be empty
	Text     string // without the codes, or with them
	Stage    string // where it was said: connect, greeting, ehlo, starttls, auth, mail, rcpt, data, dot; may be empty
	Host     string // who said it; may be empty
	To       string // address of the recipient, or its domain alone; may be empty
	Prose    bool   // Text is what a mail says to people; the server's own words are not known
	// Action is that of a delivery status notification: "failed" or "delayed".
	// Empty for a reply seen live.
	Action string
}

// Result is a reply, understood.
type Result struct {
	Kind     Kind
	Category string // "no-such-mailbox", …; see Categories
	Meaning  string // finer than the category: the name of the texts in the rules
	Provider string // public name of who said it; empty: not known
	Code     int    // basic code, also where it stood in the text
	Enhanced string // enhanced code, also where it stood in the text
	Retry    bool   // sending the same again later can help
	Suppress bool   // the address is certainly dead: do not send to it again
	What     string // what happened, one sentence
	Why      string // the likely cause, one sentence
	Do       string // what to do now, one sentence
	Turn     string // who has to act: sender, recipient, operator, receiver, nobody
	Vague    bool   // little was said: codes alone, or words that say hardly more
	Rule     string // where the rule stands that decided: "rules.toml:120"; "guessed from words"; empty: the codes alone
}

// Diagnosis is the whole in plain words.
func (r Result) Diagnosis() string {
	return strings.Join(strings.Fields(r.What+" "+r.Why+" "+r.Do), " ")
}

// Final tells whether the receiver has refused for good (RFC 5321 section
// 4.2.1): the basic code decides, then the enhanced one.
func (r Reply) final() bool {
	return class(r.Code, r.Enhanced) == 5
}

// domain is that of the recipient, in lower case.
func (r Reply) domain() string {
	return strings.ToLower(r.To[strings.LastIndexByte(r.To, '@')+1:])
}

// class is 4 or 5, of the basic code where there is one: it is what a client
// must go by (RFC 5321 section 4.2), and what servers get wrong least.
func class(code int, enhanced string) int {
	switch {
	case code >= 400:
		return code / 100
	case enhanced != "":
		return int(enhanced[0] - '0')
	}
	return 0
}

// input takes a reply apart.
func (c *Classifier) input(r Reply) input {
	r = complete(r)
	in := input{Reply: r, class: class(r.Code, r.Enhanced), text: normalise(r.Text)}
	in.provider, in.addressee = c.provider(r, in.text), c.addressee(in.text)
	if q := quoted(r.Text); q != r.Text {
		in.text = normalise(q)
	}
	return in
}

// Classify says what r means.
func (c *Classifier) Classify(r Reply) Result {
	in := c.input(r)
	r = in.Reply

	hit, loose, doubt, temporary := c.match(&in)
	hit = c.opinion(&in, hit, loose)
	m := c.meanings[hit.meaning]
	res := Result{Kind: m.Kind, Category: m.Category, Meaning: hit.meaning, Provider: in.provider, Code: r.Code, Enhanced: r.Enhanced,
		Retry: m.Retry, What: m.What, Why: m.Why, Do: m.Do, Turn: m.Turn, Rule: hit.place,
		Vague: hit.Vague || len(hit.Words)+len(hit.Names) == 0 && (len(hit.Enhanced) == 0 || vague(r.Enhanced))}
	if hit.kind != "" {
		res.Kind = hit.kind
	}
	final := r.final() || in.class == 0 && r.Action == "failed"
	agree := r.Code == 0 || r.Enhanced == "" || int(r.Enhanced[0]-'0') == r.Code/100
	if temporary && res.Kind == Hard {
		res.Kind, res.Retry = Soft, true
	}
	stated := hit.kind != "" && r.Action == "failed" && r.Code == 0 && vague(r.Enhanced) // Google has 4.0.0 for what it could not ask
	if !final && in.class != 0 && !stated || r.Action == "delayed" {
		res.Retry = res.Retry || in.class == 4 || r.Action == "delayed"
		if res.Kind == Hard {
			res.Kind = Soft
		}
	}
	if r.Action == "failed" && in.class == 4 && !m.Retry {
		res.Retry = false
	}
	if hit.retry != nil {
		res.Retry = *hit.retry
	}
	res.Suppress = m.Suppress && res.Kind == Hard && final && agree && !doubt && c.condemns(hit, &in, m.Category, !loose && len(hit.Words) > 0)
	if hit.suppress != nil {
		res.Suppress = *hit.suppress && r.Action != "delayed"
	}
	return c.worded(res, r)
}

// Meaning is the result of what is known without any words: an automatic reply,
// a complaint. Domain and host are the recipient's and of who spoke, or empty. The
// name is one of the rules' meanings; another one is a mistake of the program, and
// gives what says least.
func (c *Classifier) Meaning(name, domain, host string) Result {
	m, ok := c.meanings[name]
	if !ok {
		name = "deferred"
		m = c.meanings[name]
	}
	res := Result{Kind: m.Kind, Category: m.Category, Meaning: name, Provider: c.byDomain[strings.ToLower(domain)], Retry: m.Retry, Suppress: m.Suppress,
		What: m.What, Why: m.Why, Do: m.Do, Turn: m.Turn}
	return c.worded(res, Reply{Host: host})
}

// worded puts the name of who spoke into the sentences.
func (c *Classifier) worded(res Result, r Reply) Result {
	who := r.Host
	if who == "" {
		who = res.Provider
	}
	start := who
	if who == "" {
		who, start = "the receiving server", "The receiving server"
	}
	put := func(s string) string {
		if !strings.Contains(s, "{host}") {
			return s
		}
		if rest, ok := strings.CutPrefix(s, "{host}"); ok {
			s = start + rest
		}
		return strings.ReplaceAll(s, "{host}", who)
	}
	res.What, res.Why, res.Do = put(res.What), put(res.Why), put(res.Do)
	return res
}

// condemns tells whether an answer by which an address is bad is clear enough to drop
// it. firm: words decided that hardly stand in a text that says something else.
func (c *Classifier) condemns(hit *rule, in *input, category string, firm bool) bool {
	switch {
	case hit.doubts(in.Enhanced) && (hit.doubt || category != "no-such-domain" || !namesDomain(in)):
		return false
	case !c.consistent(hit, in), brokenOff(in.Text), beforeRecipient(in.Stage), aboutCommand(in.Reply, firm), hostIsNot(in, category):
		return false
	}
	return !c.namesBlocklist(in) && !c.saysMore(in)
}

// namesBlocklist tells whether a host name or URL there is that of a list of senders.
func (c *Classifier) namesBlocklist(in *input) (found bool) {
	c.concepts.find(in.text.names, func(n int, _ bool) { found = found || c.conceptNames[n] == "listed" })
	return found
}

// saysMore tells whether a word stands there that is not known to be harmless beside
// what says that an address is bad. Harmless are also the recipient's name, and what
// has a digit in it or is one letter.
func (c *Classifier) saysMore(in *input) bool {
	user, prose := words(nil, strings.ToLower(in.To[:max(strings.LastIndexByte(in.To, '@'), 0)])), in.text.prose
	for _, form := range []*regexp.Regexp{nameForm, idForm} {
		if m := form.FindStringSubmatch(in.Text); m != nil {
			user = words(user, strings.ToLower(m[1]))
		}
	}
	for i := 0; i < len(prose); i++ {
		w := prose[i]
		if n := c.harmlessAt(prose, i); n > 0 {
			i += n - 1
		} else if len(w) > 1 && !strings.ContainsAny(w, "0123456789") && !slices.Contains(user, w) && !c.named(prose, i) {
			return true
		}
	}
	return false
}

// nameForm finds a recipient's name without a domain where Sendmail and others put it:
// "550 <bob>... User unknown".
var nameForm = regexp.MustCompile(`(?i)^(?:smtp; ?)?[45]\d\d[ \-](?:[45]\.\d\.\d+ )?<([\w.+\-]{1,64})>`)

// idForm finds a number of the session's that looks like a word: "No such user!
// 1700000000-xYzAbC".
var idForm = regexp.MustCompile(`\b\d{9,}-(\w*[a-z][A-Z]\w*[a-z][A-Z]\w*)`)

// harmlessAt tells how many words at i are harmless together.
func (c *Classifier) harmlessAt(prose []string, i int) (n int) {
	if c.harmless.has(prose[i]) {
		n = 1
	}
	for _, p := range c.harmlessPhrases {
		if len(p) > n && p.at(prose, i) {
			n = len(p)
		}
	}
	return n
}

// harmlessOver tells whether a phrase of doubt stands within a longer one that is harmless:
// "blocked due to inactivity".
func (c *Classifier) harmlessOver(prose []string, doubt phrase, at int) bool {
	return slices.ContainsFunc(c.harmlessPhrases, func(p phrase) bool {
		for i := max(0, at+len(doubt)-len(p)); i <= at; i++ {
			if len(p) > len(doubt) && p.at(prose, i) {
				return true
			}
		}
		return false
	})
}

// named tells whether the word at i stands where servers put the recipient's name:
// "no such user bob", "mailbox bob does not exist".
func (c *Classifier) named(prose []string, i int) bool {
	if i == 0 || !c.classes["exact"].has(prose[i-1]) {
		return false
	}
	if i+1 == len(prose) {
		return i > 1 && (prose[i-2] == "such" || c.classes["unknown"].has(prose[i-2]))
	}
	next := prose[i+1]
	return c.classes["not"].has(next) || c.classes["unknown"].has(next) || slices.Contains([]string{"@", "is", "was", "has", "here"}, next)
}

// consistent tells whether the words bear out a code that says the address is bad,
// where no words decided: there are none but the address, or they speak of such an
// address. What was cut off in the middle of a word does not; nor does a page that
// would say more.
func (c *Classifier) consistent(hit *rule, in *input) bool {
	if len(hit.Words)+len(hit.Names) > 0 || hit.suppress != nil {
		return true
	}
	ok := !slices.ContainsFunc(in.text.prose, func(w string) bool { return w != "@" }) && !strings.Contains(in.Text, "://")
	c.concepts.find(in.text.prose, func(n int, _ bool) {
		ok = ok || slices.Contains([]string{"absent", "disabled"}, c.conceptNames[n])
	})
	return ok
}

// namesDomain tells whether a report of one's own, given up, names the recipient's
// domain, or says nothing but that there is none: what is not found is that, not some
// server on the way to it.
func namesDomain(in *input) bool {
	if in.Action != "failed" || in.Code != 0 || in.domain() == "" {
		return false
	}
	said := strings.Trim(strings.Join(in.text.prose, " "), "@ ")
	alone := in.Host == "" && len(in.text.hosts) == 0 && !slices.ContainsFunc(in.text.mails, func(d string) bool { return d != in.domain() }) &&
		(said == "no such domain" || said == "domain does not exist")
	return alone || slices.Contains(in.text.hosts, in.domain())
}

// hostIsNot tells whether it is a host of which a reply says that it does not exist,
// not the recipient: most likely the sender's.
func hostIsNot(in *input, category string) bool {
	if category != "no-such-mailbox" || !strings.Contains(in.Text, "exist") {
		return false
	}
	for _, m := range existForm.FindAllStringSubmatch(in.Text, 5) {
		name := strings.ToLower(m[1])
		if local, _, _ := strings.Cut(strings.ToLower(in.To), "@"); name != local && name != in.domain() {
			return true
		}
	}
	return false
}

var existForm = regexp.MustCompile(`(?i)(?:^|[\s<"'(\[])([a-z0-9-]+(?:\.[a-z0-9-]+)*\.[a-z]{2,})[>"')\]]? (?:does not|doesn't|do not) exist`)

// brokenOff tells whether a text was cut off within an address or a remark: what
// would follow may say something else.
func brokenOff(s string) bool {
	s = strings.TrimRight(s, " \r\n")
	s = strings.TrimSuffix(s, "Disconnecting...")
	return strings.Count(s, "<") > strings.Count(s, ">") || strings.Count(s, "(") > strings.Count(s, ")") ||
		strings.HasSuffix(s, "@") || strings.HasSuffix(s, "…") || strings.HasSuffix(s, "...")
}

// aboutCommand tells whether the codes speak of our commands, our login, the content or
// the state of a mailbox or system, not of an address: 500 to 504 (RFC 5321 section
// 4.2.2), 525 (RFC 5248, with X.7.13), 530 to 538 (RFC 4954), X.2 but for X.2.1, X.3.1
// and more, X.5.1 and more, X.6 (RFC 3463 sections 3.6 and 3.7), and X.7 but for those
// few that RFC 5248 and RFC 7293 give to addresses. Where firm words say that the address
// is bad, 500, X.2.0, X.7.0 and X.7.1 do not speak against that: some servers have those
// codes for all refusals; nor do 501 and 504 in reply to RCPT, whose parameter is the address.
func aboutCommand(r Reply, firm bool) bool {
	told := r.Code == 500 || r.Stage == "rcpt" && (r.Code == 501 || r.Code == 504)
	if r.Code >= 500 && r.Code <= 504 && !(told && firm) || r.Code == 525 || r.Code >= 530 && r.Code <= 538 {
		return true
	}
	if len(r.Enhanced) < 5 {
		return false
	}
	subject, detail := r.Enhanced[2], r.Enhanced[4:]
	if firm && (subject == '7' && detail == "1" || (subject == '7' || subject == '2') && detail == "0") {
		return false
	}
	if subject == '2' && detail != "1" || subject == '3' && detail != "0" {
		return true
	}
	return subject == '5' && detail != "0" || subject == '6' || subject == '7' && detail != "13" && detail != "17" && detail != "18"
}

// beforeRecipient tells whether the server had not been told of any recipient
// yet: what it says then is about us.
func beforeRecipient(stage string) bool {
	switch stage {
	case "connect", "greeting", "ehlo", "starttls", "auth", "mail":
		return true
	}
	return false
}
