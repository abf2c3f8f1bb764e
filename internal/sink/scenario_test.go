package sink

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func scenario(t testing.TB, text string) *Scenario {
	t.Helper()
	s, err := ParseScenario("test.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestScenarioErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"voice = \"aol\"", `test.toml: voice: "aol" is not a voice: plain, gmail, outlook or yahoo`},
		{"\nvoise = \"gmail\"", `test.toml:2: unknown key "voise"; known here: voice, local_parts, rule`},
		{"[[rule]]\ndo = \"spam\"\nrecipiant = \"x\"", `test.toml:3: unknown key "rule.recipiant"; known here: recipient, sender,`},
		{"[[rule]]\ndo = 1", `test.toml:2: `},
		{"[[rule]]\ndo = ", `test.toml:2: `},
		{"[[rule]]\n", "test.toml: rule 1: nothing to do: give do, reply or voice"},
		{"[[rule]]\ndo = \"spam\"\n[[rule]]\ndo = \"spamm\"", `test.toml: rule 2: do: "spamm" is not a behaviour; postrider sink -list shows them`},
		{"[[rule]]\ndo = \"greylist+x\"", `rule 1: do: greylist: "x" is not a number of tries`},
		{"[[rule]]\ndo = \"spam\"\nreply = \"550 x\"", "give either do or reply"},
		{"[[rule]]\nreply = \"hello\"", `reply: "hello" is not a reply code`},
		{"[[rule]]\nreply = \"550 4.1.1 x\"", "the codes 550 and 4.1.1 are not of one class"},
		{"[[rule]]\ndo = \"spam\"\nat = \"noon\"", `at: "noon" is not a stage: connect, ehlo, starttls,`},
		{"[[rule]]\ndo = \"drop\"\nat = \"connect\"\nrecipient = \"x@*\"", `at = "connect" comes before the client has named the recipient`},
		{"[[rule]]\ndo = \"drop\"\nat = \"ehlo\"\nsender = \"x@*\"", `at = "ehlo" comes before the client has named the sender`},
		{"[[rule]]\nvoice = \"gmail\"\nuntil = \"3\"", "at, until and close want a do or a reply"},
		{"[[rule]]\ndo = \"drop\"\nuntil = \"soon\"", `until: "soon" is not a number of tries`},
		{"[[rule]]\ndo = \"drop\"\nclose = true", "close goes only with a reply"},
		{"[[rule]]\ndo = \"spam\"\nat = \"content\"", "there is no reply to content"},
		{"[[rule]]\ndo = \"long-reply\"\nat = \"data\"", `long-reply does not go with at = "data"`},
		{"[[rule]]\ndo = \"drop\"\nconnection = \"3-1\"", `connection: "3-1" is not a number such as 1, or a range`},
		{"[[rule]]\ndo = \"drop\"\nconnection = \"0\"", `connection: "0" is not`},
		{"[[rule]]\ndo = \"drop\"\nevery = -1", "every: -1 is less than 0"},
	} {
		_, err := ParseScenario("test.toml", []byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q:\n got %v\nwant %s", c.text, err, c.want)
		}
	}
}

func TestLoadScenario(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.toml")
	if _, err := LoadScenario(path); err == nil || !strings.Contains(err.Error(), "read scenario") {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(path, []byte("[[rule]]\nx = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadScenario(path); err == nil || !strings.HasPrefix(err.Error(), path+":2: ") {
		t.Errorf("bad file: %v", err)
	}
}

func TestScenarioRules(t *testing.T) {
	s := start(t, Config{Scenario: scenario(t, `
		[[rule]]
		recipient = "*@gmail.test"
		voice = "gmail"
		[[rule]]
		recipient = "twice@*"
		do = "tempfail-dot"
		until = "2"
		[[rule]]
		recipient = "boss@*"
		sender = "*@Rival.test"
		reply = "550 5.7.1 Not from you\nnor your friends"
		[[rule]]
		recipient = "bounce@kept.test"
		do = "ok"
		[[rule]]
		recipient = "leave@*"
		reply = "450 4.3.2 Going"
		close = true
		[[rule]]
		recipient = "third@*"
		every = 3
		do = "user-unknown"
	`)})
	for _, c := range []struct{ from, rcpt, want string }{
		{"a@b.test", "bounce@gmail.test", "550 5.1.1 The email account that you tried to reach does not exist. Please try double-checking"},
		{"a@b.test", "Bounce@GMAIL.test", "550 5.1.1 The email account"},
		{"a@b.test", "ok@gmail.test", "250 2.1.5 OK "},
		{"a@b.test", "bounce@x.test", "550 5.1.1 <bounce@x.test>: Recipient"},
		{"a@b.test", "boss@x.test", "250"},
		{"a@rival.test", "boss@x.test", "550 5.7.1 Not from you nor your friends"},
		{"a@b.test", "bounce@kept.test", "250"},
		{"a@b.test", "third@x.test", "250"},
		{"a@b.test", "third@x.test", "250"},
		{"a@b.test", "third@x.test", "550"},
		{"a@b.test", "third@x.test", "250"},
	} {
		d := greet(t, s.Addr())
		d.send("MAIL FROM:<" + c.from + ">\r\nRCPT TO:<" + c.rcpt + ">\r\n")
		d.expect("250")
		d.expect(c.want)
	}
	for i, want := range []string{"451 4.3.0 at dot", "451 4.3.0 at dot", "ok"} {
		if got := try(t, s.Addr(), "twice@x.test", "x"); got != want {
			t.Errorf("twice, try %d: %s", i+1, got)
		}
	}
	if got := try(t, s.Addr(), "leave@x.test", "x"); got != "450 4.3.2 at rcpt, closed" {
		t.Errorf("leave: %s", got)
	}
}

func TestScenarioStages(t *testing.T) {
	// dialogue is what is answered; at the end of quiet none is.
	dialogue := func(s *Server, quiet bool, send ...string) string {
		c := dial(t, s.Addr())
		var got []string
		for i, line := range append([]string{""}, send...) {
			if line != "" {
				c.send(line + "\r\n")
			}
			if quiet && i == len(send) {
				c.conn.SetReadDeadline(time.Now().Add(hush))
			}
			r, err := c.read()
			if err != nil {
				if strings.Contains(err.Error(), "timeout") {
					return strings.Join(append(got, "silent"), " ")
				}
				return strings.Join(append(got, "closed"), " ")
			}
			got = append(got, fmt.Sprint(r.Code))
		}
		return strings.Join(got, " ")
	}
	for _, c := range []struct {
		rule string
		send []string
		want []string // of one connection after the other
	}{
		{"at='connect'\ndo='shutdown'\nconnection='1-2'", nil, []string{"421", "421", "220"}},
		{"at='connect'\nreply='554 5.7.1 Go away'", []string{"EHLO x", "QUIT", "NOOP"}, []string{"554 503 221 closed"}},
		{"at='connect'\ndo='drop'\nconnection='2-'", []string{"NOOP"}, []string{"220 250", "closed", "closed"}},
		{"at='connect'\ndo='silent'\nevery=2", nil, []string{"220", "silent"}},
		{"at='ehlo'\nreply='502 5.5.1 What?'\nuntil='1'", []string{"EHLO x", "MAIL FROM:<a@b.test>", "HELO x", "MAIL FROM:<a@b.test>"}, []string{"220 502 503 250 250"}},
		{"at='starttls'\nreply='454 4.7.0 Later'", []string{"EHLO x", "STARTTLS", "MAIL FROM:<a@b.test>"}, []string{"220 250 454 250"}},
		{"at='mail'\nsender='*@bad.test'\nreply='550 5.1.8 No'", []string{"EHLO x", "MAIL FROM:<a@bad.test>", "RCPT TO:<x@x.test>", "MAIL FROM:<a@b.test>"}, []string{"220 250 550 503 250"}},
		{"at='mail'\nreply='250 Yes'", []string{"EHLO x", "MAIL FROM:<a@b.test>", "RCPT TO:<x@x.test>"}, []string{"220 250 250 250"}},
		{"at='mail'\ndo='drop'", []string{"EHLO x", "MAIL FROM:<a@b.test>"}, []string{"220 250 closed"}},
		{"at='content'\ndo='silent'", []string{"EHLO x", "MAIL FROM:<>", "RCPT TO:<x@x.test>", "DATA", "x\r\n."}, []string{"220 250 250 250 354 silent"}},
		{"at='dot'\ndo='garbage'", []string{"EHLO x", "MAIL FROM:<>", "RCPT TO:<x@x.test>", "DATA", "x\r\n."}, []string{"220 250 250 250 354 closed"}},
		{"at='dot'\ndo='long-reply'", []string{"EHLO x", "MAIL FROM:<>", "RCPT TO:<x@x.test>", "DATA", "x\r\n.", "NOOP"}, []string{"220 250 250 250 354 250 250"}},
		{"at='data'\ndo='drop'", []string{"EHLO x", "MAIL FROM:<>", "RCPT TO:<x@x.test>", "DATA"}, []string{"220 250 250 250 closed"}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			t.Parallel()
			s := start(t, Config{Scenario: scenario(t, "[[rule]]\n"+c.rule)})
			for i, want := range c.want {
				if got := dialogue(s, strings.HasSuffix(want, "silent"), c.send...); got != want {
					t.Errorf("connection %d: got %s, want %s", i+1, got, want)
				}
			}
		})
	}
}

func TestLocalPartsOff(t *testing.T) {
	s := start(t, Config{Scenario: scenario(t, "local_parts = false")})
	if got := try(t, s.Addr(), "bounce@x.test", "x"); got != "ok" {
		t.Error(got)
	}
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "a/b@c", true},
		{"a*c", "abc", true}, {"a*c", "ac", true}, {"a*c", "acb", false}, {"a*c*", "acb", true},
		{"?@x", "a@x", true}, {"?@x", "@x", false}, {"*@x.test", "a@x.testy", false},
		{"*a*b", "aab", true}, {"*ab*ab", "abab", true}, {"*ab*ab", "ab", false},
		{"[a]", "[a]", true}, {"[a]", "a", false},
	} {
		if got := glob(c.pattern, c.s); got != c.want {
			t.Errorf("glob(%q, %q) = %v", c.pattern, c.s, got)
		}
	}
}

// TestVoices has each kind of reply in each voice come out as SMTP.
func TestVoices(t *testing.T) {
	for _, v := range Voices() {
		s := start(t, Config{Voice: v, Hostname: "mx.voice.test"})
		for _, b := range behaviours {
			if b.action.deed != refuse && b.action.deed != shutdown || b.args == replyCode {
				continue
			}
			d := greet(t, s.Addr())
			d.send("MAIL FROM:<from@client.test>\r\nRCPT TO:<" + b.name + "@voice.test>\r\n")
			d.expect("250")
			r, err := d.read()
			if err == nil && r.Code < 400 {
				d.send("DATA\r\n")
				r, err = d.read()
			}
			if err == nil && r.Code == 354 {
				d.send(".\r\n")
				r, err = d.read()
			}
			if err != nil {
				t.Fatalf("%s, %s: %v", v, b.name, err)
			}
			want := wordings[v][b.action.kind]
			if r.Code != want.code || r.Enhanced != want.enhanced || r.Code < 400 || strings.ContainsAny(r.String(), "{}") {
				t.Errorf("%s, %s: %s", v, b.name, r)
			}
		}
	}
}

// TestVoicesComplete wants every voice to have every kind.
func TestVoicesComplete(t *testing.T) {
	for _, v := range Voices() {
		for k := range kinds {
			if wordings[v][k].code == 0 {
				t.Errorf("%s has no words for kind %d", v, k)
			}
		}
	}
}

// TestWhoSpeaks wants the first accepted recipient's voice after the content.
func TestWhoSpeaks(t *testing.T) {
	s := start(t, Config{Scenario: scenario(t, "[[rule]]\nrecipient='*@gmail.test'\nvoice='gmail'\n[[rule]]\nrecipient='*@yahoo.test'\nvoice='yahoo'\n[[rule]]\nrecipient='*'\nvoice='outlook'")})
	for _, c := range []struct{ rcpts, want string }{
		{"ok@gmail.test bounce@yahoo.test ok@yahoo.test", "gsmtp"},
		{"bounce@gmail.test ok@yahoo.test ok@gmail.test", "ok dirdel"},
		{"bounce@gmail.test ok@x.test", "Queued mail for delivery"},
	} {
		d := greet(t, s.Addr())
		d.send("MAIL FROM:<>\r\n")
		d.expect("250 2.1.0 Ok")
		for rcpt := range strings.FieldsSeq(c.rcpts) {
			d.send("RCPT TO:<" + rcpt + ">\r\n")
			if r, err := d.read(); err != nil || (r.Code < 400) == strings.HasPrefix(rcpt, "bounce") {
				t.Errorf("%s: %v, %v", rcpt, r, err)
			}
		}
		d.send("DATA\r\n.\r\n")
		d.expect("354")
		if r := d.expect("250"); !strings.Contains(r.Text(), c.want) {
			t.Errorf("%s: %s", c.rcpts, r)
		}
	}
}
