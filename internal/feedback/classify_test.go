package feedback

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"postrider/internal/relay"
)

func TestDiagnoseWithoutReply(t *testing.T) {
	for _, tt := range []struct{ stage, enhanced, want string }{
		{StageRoute, "5.1.2", NoDomain},
		{StageRoute, "5.1.10", NoDomain},
		{StageRoute, "4.4.3", NoAnswerDNS},
		{StageRoute, "4.4.4", Unreachable},
		{StageConnect, "4.4.1", Unreachable},
		{StageGreeting, "4.4.2", Unreachable},
		{StageTLS, "4.4.2", TLSProblem},
		{StageConnect, "5.7.30", TLSProblem},
		{StageContent, "4.4.2", Unreachable},
		{StageDot, "4.4.2", Unreachable},
		{StageMail, "5.3.4", TooLarge},
		{StageRcpt, "5.6.7", Unsupported},
		{StageContent, "5.6.3", Unsupported},
		{"", "4.3.2", Own},
		{StageMail, "4.3.0", Own},
		{StageSign, "4.7.0", Own},
	} {
		for _, host := range []string{"", "mx.example.net"} {
			d := Diagnose(tt.stage, relay.Reply{Enhanced: tt.enhanced, Text: "what happened"}, host, "")
			if d.Category != tt.want {
				t.Errorf("%s %s: %s; want %s", tt.stage, tt.enhanced, d.Category, tt.want)
			}
			checkWords(t, d)
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

func TestDiagnoseReplies(t *testing.T) {
	for _, tt := range []struct {
		stage string
		reply relay.Reply
		want  string
		text  string
		again string // the advice, where it hangs on what comes next
	}{
		{StageRcpt, relay.Reply{Code: 550, Enhanced: "5.1.1", Text: "User unknown"}, "hard/no-such-mailbox", "The address does not exist at the receiver.", ""},
		{StageRcpt, relay.Reply{Code: 451, Enhanced: "4.7.1", Text: "Greylisted"}, "soft/greylisted", "mx.example.net asks unknown senders to come back in some minutes (greylisting).", again},
		{StageRcpt, relay.Reply{Code: 550, Text: "Ip frequency limited"}, "soft/rate-limited", "", "Send it again later."},
		{StageDot, relay.Reply{Code: 554, Text: "No"}, "block/other", "mx.example.net refuses the message for good.", ""},
		{StageDot, relay.Reply{Code: 471, Text: "No"}, "soft/other", "mx.example.net does not take the message at the moment.", again},
		{StageEhlo, relay.Reply{Code: 554, Text: "No"}, "soft/other", "mx.example.net does not take the message at the moment.", again}, // another try is made
		{StageDot, relay.Reply{Code: 550, Enhanced: "5.7.26", Text: "does not pass DMARC"}, "block/authentication-failed-dmarc", "", ""},
	} {
		d := Diagnose(tt.stage, tt.reply, "mx.example.net", "")
		if d.Category != tt.want || tt.text != "" && d.Text != tt.text || tt.again != "" && d.Advice != tt.again {
			t.Errorf("%s %v: %+v; want %s, %q, %q", tt.stage, tt.reply, d, tt.want, tt.text, tt.again)
		}
		checkWords(t, d)
	}
	if d := Diagnose(StageDot, relay.Reply{Text: "broken"}, "", ""); d.Text != "The connection to the receiving server broke before the message was through." {
		t.Errorf("in the middle of a sentence: %q", d.Text)
	}
}

// The operator's rules count at once when their file changes, and a mistake in
// them changes nothing.
func TestRulesAreReadAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rules.toml")
	stamp := time.Now()
	write := func(meaning string) {
		t.Helper()
		text := "[[rule]]\nmeaning = \"" + meaning + "\"\nwords = [\"out of cheese\"]\n"
		stamp = stamp.Add(time.Second)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, stamp, stamp); err != nil {
			t.Fatal(err)
		}
	}
	write("policy")
	rules, err := OpenRules(file, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	category := func() string {
		return rules.Diagnose(StageDot, relay.Reply{Code: 554, Text: "Out of cheese"}, "", "").Category
	}
	if got := category(); got != "block/policy" {
		t.Errorf("at first: %s", got)
	}
	synctest.Test(t, func(t *testing.T) {
		go rules.Run(t.Context(), time.Second)
		step := func() {
			time.Sleep(time.Second)
			synctest.Wait()
		}
		write("greylisted")
		step()
		if got := category(); got != "soft/greylisted" {
			t.Errorf("after a change: %s", got)
		}
		write("nonsense")
		step()
		if got := category(); got != "soft/greylisted" {
			t.Errorf("after a mistake: %s", got)
		}
	})
	if _, err := OpenRules(file, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a start with a mistake in the rules")
	}
	if rules, err := OpenRules("", slog.New(slog.DiscardHandler)); err != nil || rules.Diagnose(StageRcpt, relay.Reply{Code: 550, Enhanced: "5.1.1"}, "", "").Category != "hard/no-such-mailbox" {
		t.Error("without a file", err)
	}
}
