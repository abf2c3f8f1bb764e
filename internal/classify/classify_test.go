package classify

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// A reply of this system's own, in words, so that a change of the rules that
// matters is seen at once.
func TestSuppressOnlyTheDead(t *testing.T) {
	for _, tt := range []struct {
		r    Reply
		want bool
	}{
		{Reply{Code: 550, Enhanced: "5.1.1", Text: "User unknown"}, true},
		{Reply{Code: 550, Enhanced: "5.1.1", Text: "User unknown", Stage: "rcpt"}, true},
		{Reply{Code: 550, Text: "No such user here"}, true},
		{Reply{Code: 550, Enhanced: "5.1.2", Text: "Domain does not exist"}, true},
		{Reply{Code: 550, Enhanced: "5.2.1", Text: "The email account that you tried to reach is disabled."}, true},
		{Reply{Enhanced: "5.1.1", Text: "550 5.1.1 User unknown", Action: "failed"}, true},
		{Reply{Code: 450, Enhanced: "4.1.1", Text: "User unknown"}, false},                                                // passes
		{Reply{Code: 450, Enhanced: "5.1.1", Text: "User unknown"}, false},                                                // codes do not agree
		{Reply{Code: 550, Enhanced: "4.1.1", Text: "User unknown"}, false},                                                // neither here
		{Reply{Code: 550, Enhanced: "5.1.1", Text: "User unknown", Action: "delayed"}, false},                             // not given up
		{Reply{Code: 550, Enhanced: "5.1.1", Text: "User unknown", Stage: "mail"}, false},                                 // no recipient was named yet
		{Reply{Code: 550, Enhanced: "5.1.1", Text: "Recipient rejected: blocked for spam"}, false},                        // the text knows better
		{Reply{Code: 550, Enhanced: "5.1.1", Text: "Mailbox does not exist or you are on our blocklist"}, false},          // or may
		{Reply{Code: 550, Enhanced: "5.1.1", Text: "User over quota"}, false},                                             // lives
		{Reply{Code: 550, Enhanced: "5.1.1", Text: "User unknown; temporary lookup failure"}, false},                      // passes
		{Reply{Code: 550, Enhanced: "5.4.1", Text: "Recipient address rejected: Access denied"}, false},                   // says too little
		{Reply{Code: 550, Text: "Requested action not taken: mailbox unavailable", Stage: "rcpt"}, false},                 // so does this
		{Reply{Code: 550, Enhanced: "5.7.1", Text: "Recipient address rejected: Access denied"}, false},                   // a rule
		{Reply{Code: 554, Enhanced: "5.7.9", Text: "Message not accepted for policy reasons"}, false},                     // Yahoo
		{Reply{Code: 550, Enhanced: "5.7.26", Text: "This mail is unauthenticated"}, false},                               // Gmail
		{Reply{Code: 550, Enhanced: "5.1.1", Text: "Sender address rejected: User unknown"}, false},                       // about the sender
		{Reply{Code: 550, Text: "Verification failed for <a@b.example>\nNo such user here\nSender verify failed"}, false}, // too
		{Reply{Code: 501, Enhanced: "5.5.4", Text: "Unknown domain"}, false},                                              // about a command
		{Reply{Code: 550, Enhanced: "5.1.1", Text: ""}, true},
		{Reply{Code: 550, Stage: "rcpt"}, false},
		{Reply{Text: "user unknown"}, false}, // no code at all
		{Reply{Text: "[corp.example]: Name or service not known", Action: "failed", To: "bob@corp.example"}, true},
		{Reply{Text: "[relay.isp.example]: Name or service not known", Action: "failed", To: "bob@corp.example"}, false}, // a server on the way
		{Reply{Text: "[corp.example]: Name or service not known", Action: "delayed", To: "bob@corp.example"}, false},
		{Reply{Text: "[corp.example]: Name or service not known, try again later", Action: "failed", To: "bob@corp.example"}, false},
		{Reply{Text: "550 mx1 of corp.example: unknown host", Action: "failed", To: "bob@corp.example"}, false}, // may be ours
		{Reply{Text: "Sender domain corp.example: no such domain", Action: "failed", To: "bob@corp.example"}, false},
		{Reply{}, false},
	} {
		if got := Builtin().Classify(tt.r); got.Suppress != tt.want {
			t.Errorf("%+v: suppress %v (%s %s, %s), want %v", tt.r, got.Suppress, got.Kind, got.Category, got.Rule, tt.want)
		}
	}
}

// None of the traps condemns anybody.
func TestAlive(t *testing.T) {
	b, err := os.ReadFile("testdata/alive.txt")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for l := range strings.Lines(string(b)) {
		stage, text, ok := strings.Cut(strings.TrimSuffix(l, "\n"), " | ")
		if !ok || strings.HasPrefix(l, "#") {
			continue
		}
		n++
		r := Reply{Text: strings.ReplaceAll(text, `\n`, "\n"), Stage: strings.Trim(stage, "-")}
		if got := Builtin().Classify(r); got.Suppress {
			t.Errorf("%q at %q: suppressed as %s by %s", r.Text, r.Stage, got.Meaning, got.Rule)
		}
	}
	if n < 80 {
		t.Errorf("%d traps", n)
	}
}

// What is clear condemns, whatever code comes with it; the same with anything beside it
// that speaks for the address's life does not.
func TestDead(t *testing.T) {
	b, err := os.ReadFile("testdata/dead.txt")
	if err != nil {
		t.Fatal(err)
	}
	n, missed := 0, 0
	for l := range strings.Lines(string(b)) {
		l = strings.TrimSuffix(l, "\n")
		if strings.HasPrefix(l, "#") {
			continue
		}
		for _, code := range []string{"550 ", "554 ", "550 5.0.0 ", "550 5.1.1 ", "553 5.1.0 ", "550 5.1.6 ", "550 5.2.1 ", "550 5.4.1 ", "554 5.7.1 "} {
			for _, stage := range []string{"", "rcpt", "dot"} {
				got := Builtin().Classify(Reply{Text: code + l, Stage: stage, To: "bob@corp.example"})
				if n++; !got.Suppress {
					missed++
					if stage != "dot" && code != "554 5.7.1 " {
						t.Errorf("%q at %q: not suppressed, %s by %s", code+l, stage, got.Meaning, got.Rule)
					}
				}
			}
			for _, form := range []string{"%s, try again later", "%s (temporary failure)", "%s or mailbox full", "%s or blocked", "%s; message looks like spam", "Access denied: %s", "Rejected by policy: %s",
				"Sender address rejected: %s", "MAIL FROM refused, %s", "callback said: %s", "Greylisted. %s", "Sender verify failed. %s", "one or more of the recipients: %s", "too many recipients: %s", "%s; your IP is on our blocklist", "LDAP error: %s", "%s or over quota", "perhaps %s", "Authentication failed: %s", "%s, qwertz uiop", "Qwertz: %s"} {
				if got := Builtin().Classify(Reply{Text: code + fmt.Sprintf(form, l), Stage: "rcpt"}); got.Suppress {
					t.Errorf("%q: suppressed as %s by %s", code+fmt.Sprintf(form, l), got.Meaning, got.Rule)
				}
			}
		}
		for _, form := range []string{"%s. For more information, go to https://help.corp.example/alias/mail/newmail10 - nsmtp", "%s - see http://www.corp.example/undelivered.php?r=BLOCKED&e=YXBw", "%s (UserSearch) (state 14)",
			"550 5.1.1 %s", "RACT 192.0.2.7: %s", "%s; cannot receive new mail", "%s. Please contact postmaster@corp.example for assistance.", "%s. Closing connection.", "%s - Protected by Barracuda Networks", "<carol>... %s",
			"%s. If you believe this is an error, please contact us by other means.", "%s [Incident ID 4711]", "%s! 1700000000-xYzAbC", "%s. Please check the address and try again.", "%s. Weitere Informationen: https://corp.example/x",
			"%s. Pour plus d'informations, consultez https://corp.example/x", "%s. Para más información, visite https://corp.example/x", "%s. Ulteriori informazioni: https://corp.example/x", "%s / czytaj więcej: https://corp.example/x",
			"%s. Подробнее: https://corp.example/x", "%s 詳細は https://corp.example/x", "%s 详情请访问 https://corp.example/x", "%s. 자세한 내용은 https://corp.example/x"} {
			if got := Builtin().Classify(Reply{Text: "550 5.1.1 " + fmt.Sprintf(form, l), Stage: "rcpt", To: "bob@corp.example"}); !got.Suppress {
				t.Errorf("%q: not suppressed, %s by %s", fmt.Sprintf(form, l), got.Meaning, got.Rule)
			}
		}
		for _, code := range []string{"450 ", "451 4.1.1 ", "450 5.1.1 ", "550 4.1.1 ", "501 5.1.3 ", "535 5.7.8 "} {
			if got := Builtin().Classify(Reply{Text: code + l}); got.Suppress {
				t.Errorf("%q: suppressed as %s by %s", code+l, got.Meaning, got.Rule)
			}
		}
	}
	if n < 4000 || missed > n/50 {
		t.Errorf("%d of %d are not suppressed", missed, n)
	}
}

// A refusal that passes is soft, by its code or by its words; one that is told as
// delayed too.
func TestSoftWherePasses(t *testing.T) {
	for _, tt := range []struct {
		r     Reply
		kind  Kind
		retry bool
	}{
		{Reply{Code: 550, Enhanced: "5.1.1", Text: "User unknown"}, Hard, false},
		{Reply{Code: 450, Enhanced: "5.1.1", Text: "User unknown"}, Soft, true},
		{Reply{Code: 550, Enhanced: "5.1.1", Text: "User unknown, temporary lookup failure"}, Soft, true},
		{Reply{Code: 550, Enhanced: "5.2.1", Text: "Mailbox disabled, try again later"}, Soft, true},
		{Reply{Enhanced: "5.1.1", Text: "User unknown", Action: "delayed"}, Soft, true},
		{Reply{Enhanced: "4.1.1", Text: "User unknown", Action: "failed"}, Soft, false}, // given up
	} {
		if got := Builtin().Classify(tt.r); got.Kind != tt.kind || got.Retry != tt.retry || got.Suppress != (tt.kind == Hard) {
			t.Errorf("%+v: %s, retry %v, suppress %v; want %s, %v", tt.r, got.Kind, got.Retry, got.Suppress, tt.kind, tt.retry)
		}
	}
}

func TestProviders(t *testing.T) {
	for _, tt := range []struct {
		r    Reply
		want string
	}{
		{Reply{To: "bob@gmail.com"}, "Gmail"},
		{Reply{Host: "gmail-smtp-in.l.google.com"}, "Gmail"},
		{Reply{Host: "aspmx.l.google.com", To: "bob@corp.example"}, "Gmail"},
		{Reply{Host: "corp-example.mail.protection.outlook.com"}, "Microsoft 365"},
		{Reply{Host: "hotmail-com.olc.protection.outlook.com"}, "Outlook.com"},
		{Reply{Host: "mta7.am0.yahoodns.net"}, "Yahoo"},
		{Reply{Host: "mta7.am0.yahoodns.net", To: "bob@aol.com"}, "AOL"},
		{Reply{Host: "mx00.t-online.de"}, "T-Online"},
		{Reply{Host: "mxa-0001.gslb.pphosted.com."}, "Proofpoint"},
		{Reply{Host: "eu-smtp-inbound-1.mimecast.com"}, "Mimecast"},
		{Reply{Host: "mx1.corp.example"}, ""},
		{Reply{Text: "550 5.1.1 no such user - gsmtp"}, "Gmail"},
		{Reply{Text: "550 5.4.1 Access denied [DB5EUR02FT012.eop-EUR02.prod.protection.outlook.com 2024]"}, "Microsoft 365"},
		{Reply{Text: "550 go away, someone@gmail.com"}, ""},
	} {
		if got := Builtin().Classify(tt.r).Provider; got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.r, got, tt.want)
		}
	}
}

// The short way to the codes finds what the expression finds.
func TestCodesAtTheStart(t *testing.T) {
	texts := []string{"550", "550 ", "550-5.1.1", "550 #5.1.1 x", "550 (5.1.1) x", "550 #(5.1.1", "550 5.1.1234 x", "550 5.1.12a", "550 5.1.1_", "550 5.8.1 x", "550  -5.1.1x", "550 5.1.1é", "250 2.0.0 ok", "650 5.1.1", "55a", "550 4.2.2.", "550--5.7.606,", "550 5.1.", "5", ""}
	for _, s := range corpus(t) {
		texts = append(texts, s.text)
	}
	for _, s := range texts {
		want := [2]string{}
		if m := codeForm.FindStringSubmatch(s); m != nil {
			want = [2]string{m[1], m[2]}
		}
		if basic, enhanced := codes(s); basic != want[0] || enhanced != want[1] {
			t.Errorf("%q: %q %q, want %q", s, basic, enhanced, want)
		}
	}
}

func TestCodesInTheText(t *testing.T) {
	for _, tt := range []struct {
		text     string
		code     int
		enhanced string
		stage    string
	}{
		{"550 5.1.1 User unknown", 550, "5.1.1", ""},
		{"550-5.1.1 User\n550 5.1.1 unknown", 550, "5.1.1", ""},
		{"smtp; 550 5.7.1 No", 550, "5.7.1", ""},
		{"550 #5.1.0 Address rejected.", 550, "5.1.0", ""},
		{"sorry, no mailbox here by that name (#5.1.1)", 0, "5.1.1", ""},
		{"host mx.example.net[192.0.2.1] said: 452 4.2.2 Over quota (in reply to RCPT TO command)", 452, "4.2.2", "rcpt"},
		{"SMTP error from remote mail server after end of data: host mx.example.net [192.0.2.1]: 554 rejected", 554, "", "dot"},
		{"Remote host said: 511 no such user", 511, "", ""},
		{"host mx.corp.example[203.0.113.83] said: 550 5.1.1 No such user", 550, "5.1.1", ""}, // no 203 there
		{"connect to mx.corp.example[203.0.113.83]:25: Connection refused", 0, "", ""},
		{"answered [550]. Giving up", 550, "", ""},
		{"It said 550.", 550, "", ""},
		{"<mx.example.net #5.1.1 SMTP; 550 No such user>", 550, "5.1.1", ""},
		{"(535, b'5.7.8 Error: authentication failed')", 535, "5.7.8", ""},
		{"5.1.0 - Unknown address error 550-'5.7.1 blocked'", 550, "5.7.1", ""},
		{"host 192.0.2.5.1.1 is down since 550 hours", 0, "", ""},
		{"Exim 4.94.2 rejected it", 0, "", ""},
		{"", 0, "", ""},
	} {
		r := complete(Reply{Text: tt.text})
		if r.Code != tt.code || r.Enhanced != tt.enhanced || r.Stage != tt.stage {
			t.Errorf("%q: %d %q %q; want %d %q %q", tt.text, r.Code, r.Enhanced, r.Stage, tt.code, tt.enhanced, tt.stage)
		}
	}
}

// What is no refusal, and what tells nothing, is not made one.
func TestNoRefusal(t *testing.T) {
	for text, want := range map[string]string{
		"250 2.0.0 Ok: queued as 4F2": "delivered", "250 OK id=1q": "delivered", "235 2.7.0 Authentication successful": "agreed",
		"221 2.0.0 Bye": "agreed", "220 mx.corp.example ESMTP": "agreed", "hello world": "unclear", "451 qwertz": "busy", "550 qwertz": "refused",
	} {
		got := Builtin().Classify(Reply{Text: text})
		if got.Meaning != want || got.Suppress || got.Retry != (want == "unclear" || want == "busy") {
			t.Errorf("%q: %s, retry %v, suppress %v; want %s", text, got.Meaning, got.Retry, got.Suppress, want)
		}
	}
}

func TestEnhancedIs(t *testing.T) {
	for _, tt := range []struct {
		code, pattern string
		want          bool
	}{
		{"5.1.1", "5.1.1", true}, {"5.1.10", "5.1.1", false}, {"4.1.1", "x.1.1", true}, {"5.7.26", "5.7.*", true}, {"5.7.606", "5.7.606-649", true},
		{"5.7.649", "5.7.606-649", true}, {"5.7.650", "5.7.606-649", false}, {"5.7.62", "5.7.606-649", false}, {"", "5.1.1", false}, {"4.7.321", "x.7.320-329", true},
	} {
		if got := enhancedIs(tt.code, tt.pattern); got != tt.want {
			t.Errorf("%s is %s: %v", tt.code, tt.pattern, got)
		}
	}
}

func TestNormalise(t *testing.T) {
	for in, want := range map[string]string{
		"User <bob@spam.example> UNKNOWN!":           "user @ unknown",
		"It doesn\u2019t exist.See the e-mail help":  "it doesn't exist see the email help",
		"see https://spam.example/x?y=blocked now":   "see now",
		"not permitted to\n550-relay, 550 as before": "not permitted to relay as before",
		"black-list: 192.0.2.1, Postfix 3.4.13":      "black list postfix",
		"Le message n'a pas été reçu":                "le message n'a pas ete recu",
		"邮箱已满":                                       "邮 箱 已 满",
		"Posta kutusu DOLU":                          "posta kutusu dolu",
	} {
		if got := strings.Join(normalise(in).prose, " "); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := strings.Join(normalise("see https://www.spamhaus.org/query").names, " "); got != "https www spamhaus org query" {
		t.Errorf("names: %q", got)
	}
}

func TestOperatorsRulesComeFirst(t *testing.T) {
	c, err := New(Source{"mine.toml", []byte(`
doubt = ["ask hostmaster"]
[meaning.quarantined]
category = "policy"
kind = "block"
what = "Our partner has put the message aside."
do = "Ask the partner."
turn = "receiver"
[meaning.no-such-mailbox]
do = "Tell the sales team."
[[provider]]
name = "Partner"
hosts = ["partner.example"]
[[rule]]
meaning = "quarantined"
words = ["user unknown ... quarantine*"]
provider = ["Partner"]
`)})
	if err != nil {
		t.Fatal(err)
	}
	r := Reply{Code: 550, Enhanced: "5.1.1", Text: "User unknown: quarantined", Host: "mx.partner.example"}
	if got := c.Classify(r); got.Meaning != "quarantined" || got.Category != "policy" || got.Rule != "mine.toml:14" || got.Provider != "Partner" || got.Suppress {
		t.Errorf("%+v", got)
	}
	r.Host = ""
	if got := c.Classify(r); got.Meaning != "no-such-mailbox" || got.Do != "Tell the sales team." || got.What == "" || got.Suppress { // who is quarantined may live
		t.Errorf("%+v", got)
	}
	for suppress, want := range map[string]bool{"true": true, "false": false} {
		c, err := New(Source{"mine.toml", []byte("[[rule]]\nmeaning = \"no-such-mailbox\"\nwords = [\"user unknown\"]\nsuppress = " + suppress)})
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"User unknown", "User unknown, blocked"} {
			if got := c.Classify(Reply{Code: 550, Text: text}); got.Suppress != want {
				t.Errorf("suppress = %s: %v for %q", suppress, got.Suppress, text)
			}
		}
	}
	if r.Text = "User unknown, ask hostmaster"; c.Classify(r).Suppress {
		t.Error("the operator's doubt does not count")
	}
	r.Text = "Account blocked due to inactivity" // "blocked" speaks against it, but not there
	if c, err = New(Source{"mine.toml", []byte(`doubt = ["inactivity"]`)}); err != nil || c.Classify(r).Suppress || !Builtin().Classify(r).Suppress {
		t.Error("the operator's doubt does not count within a harmless phrase of ours, or ours does", err)
	}
}

func TestBadRules(t *testing.T) {
	for text, want := range map[string]string{
		"[[rule]]\nmeaning = \"none\"\nwords = [\"x\"]":                             "mine.toml, line 1: there is no meaning \"none\"",
		"\n[[rule]]\nmeaning = \"policy\"":                                          "line 2: it has neither words",
		"[[rule]]\nmeaning = \"policy\"\nwords = [\"...\"]":                         "it has no word",
		"[[rule]]\nmeaning = \"policy\"\nwords = [\"ab*\"]":                         "too short for a stem",
		"[[rule]]\nmeaning = \"policy\"\nword = [\"x\"]":                            "line 3: there is no key \"rule.word\"",
		"[[rule]]\nmeaning = \"policy\"\nwords = [\"$none is\"]":                    "there is no class \"none\"",
		"[class]\nx = [\"a b\"]":                                                    "class \"x\": \"a b\" is not one word",
		"[[rule]]\nmeaning = 5":                                                     "line 2",
		"[[rule]]\nmeaning = \"policy\"\ncode = [\"6\"]":                            "code \"6\"",
		"[[rule]]\nmeaning = \"policy\"\nkind = \"weak\"\nwords = [\"x\"]":          "kind \"weak\"",
		"[meaning.x]\nkind = \"weak\"\nwhat = \"a\"\ndo = \"b\"\nturn = \"nobody\"": "kind \"weak\"",
		"[meaning.x]\nkind = \"soft\"\nwhat = \"a\"\ndo = \"b\"\nturn = \"nobody\"": "there is no category \"x\"",
		"harmless = [\"a*\"]":                                                       "harmless: \"a*\"",
		"harmless = [\"please ... unknown\"]":                                       "what stands in a gap may be anything",
	} {
		if _, err := New(Source{"mine.toml", []byte(text)}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", text, err, want)
		}
	}
	if _, err := Load("/nonexistent/rules.toml"); err == nil {
		t.Error("a file that is not there is taken")
	}
}

// Every category has a meaning, and all words are whole sentences.
func TestMeanings(t *testing.T) {
	seen := map[string]bool{}
	used := map[string]bool{"refused": true, "undetermined": true, "deferred": true, "auto-reply": true, "challenge": true, "complaint": true, "not-spam": true, "authentication-report": true, "unrecognised": true, "unclear": true,
		"own-trouble": true, "unreachable": true, "broken-off": true, "route-unknown": true, "unsupported": true}
	for _, r := range Builtin().rules {
		used[r.meaning] = true
	}
	for name, m := range Builtin().meanings {
		seen[m.Category] = true
		if !used[name] {
			t.Errorf("no rule comes to %q", name)
		}
		for _, s := range []string{m.What, m.Why, m.Do} {
			first, _ := utf8.DecodeRuneInString(s)
			if !strings.HasSuffix(s, ".") || first != '{' && !unicode.IsUpper(first) {
				t.Errorf("%s: %q is no sentence", name, s)
			}
		}
	}
	for _, c := range Categories() {
		if !seen[c] {
			t.Errorf("no meaning has category %q", c)
		}
	}
	got := Builtin().Classify(Reply{Code: 451, Text: "Greylisted"})
	if got.What != "The receiving server asks unknown senders to come back in some minutes (greylisting)." {
		t.Errorf("%q", got.What)
	}
	got = Builtin().Classify(Reply{Code: 451, Text: "Greylisted", Host: "mx.example.net"})
	if !strings.HasPrefix(got.Diagnosis(), "mx.example.net asks") {
		t.Errorf("%q", got.Diagnosis())
	}
}

// Every rule can decide: some phrase of it, alone, with its codes, leads to it or
// to one that stands before it with the same meaning.
func TestNoPhraseIsLost(t *testing.T) {
	c := Builtin()
	for n, r := range c.rules {
		for _, s := range r.Words {
			p := compile(s, c.classes)
			if strings.Contains(s, "$") != slices.ContainsFunc(p, func(w word) bool { return w.class != nil }) {
				t.Errorf("%s: the phrase %q names no class", r.place, s)
			}
			var words []string
			for _, w := range p {
				if w.class != nil {
					w.s = w.class.any()
				}
				if w.gap == 0 && !replyCode(w.s) { // these only stand within words: LPN007_517
					words = append(words, w.s)
				}
			}
			if got := normalise(strings.Join(words, " ")).prose; !slices.Equal(got, words) {
				t.Errorf("%s: the phrase %q can't be met: %q", r.place, s, got)
			}
		}
		_ = n
	}
}

// any is some word of the class.
func (c *wordClass) any() string {
	for w := range c.exact {
		return w
	}
	return c.stems[0]
}

func FuzzClassify(f *testing.F) {
	for i, s := range corpus(f) {
		if i%20 == 0 {
			f.Add(550, "5.1.1", s.text, s.stage, "mx.example.net", "failed")
		}
	}
	f.Add(0, "9", "\xff@.a. ://#5.#\x00", "", "", "")
	f.Fuzz(func(t *testing.T, code int, enhanced, text, stage, host, action string) {
		if code < 0 || code > 599 || enhanced != "" && !enhancedForm.MatchString(enhanced) {
			return
		}
		got := Builtin().Classify(Reply{Code: code, Enhanced: enhanced, Text: text, Stage: stage, Host: host, Action: action})
		if !slices.Contains(Categories(), got.Category) || got.What == "" || got.Do == "" {
			t.Errorf("%+v", got)
		}
		if got.Suppress && (got.Kind != Hard || !slices.Contains([]string{"no-such-mailbox", "no-such-domain", "mailbox-disabled"}, got.Category)) {
			t.Errorf("suppressed: %+v", got)
		}
	})
}
