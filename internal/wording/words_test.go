package wording

import (
	"slices"
	"strings"
	"testing"
)

func TestOf(t *testing.T) {
	for text, want := range map[string]string{
		"":                                   "",
		"Your order #4711":                   "your|order|4711",
		"Grüße, ÉTÉ straße":                  "grusse|ete|strasse",
		"550 5.1.1 <ann@example.net>: User.": "550|5.1.1|ann|example|net|user",
		"from 192.0.2.1. Bye":                "from|192.0.2.1|bye",
		"v1.x 1..2":                          "v1|x|1|2",
		"注文 123":                             "注|文|123",
		"Привет мир":                         "привет|мир",
		"ﬁle":                                "file",
	} {
		if got := strings.Join(Of(text), "|"); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	if n := len(Of(strings.Repeat("a ", 2*Most))); n != Most {
		t.Errorf("%d words", n)
	}
}

func TestIn(t *testing.T) {
	const reply = "550 5.7.1 Message blocked by mx.example.net [192.0.2.77]: see https://help.example/x1"
	for _, c := range []struct {
		q    Query
		text string
		want bool
	}{
		{All("blocked message"), reply, true},
		{All("blocked mess"), reply, true},
		{All("mess blocked"), reply, false}, // only the last may be a beginning
		{All("BLOCKED."), reply, true},
		{All("lock"), reply, false},
		{All("5.7.1"), reply, true},
		{All("5.7"), reply, true},
		{All("7.1"), reply, false},
		{All("192.0.2."), reply, true},
		{All("192.0.2.7 blocked"), reply, false},
		{All(`"message blocked"`), reply, true},
		{All(`"blocked message"`), reply, false},
		{All("["), reply, true},
		{All("{"), reply, false},
		{All(""), reply, true},
		{All("grusse"), "Liebe Grüße", true},
		{All("GRÜSSE"), "liebe grüße", true},
		{All("注文確"), "ご注文の確認", true},
		{Part("ann"), "ann@example.net", true},
		{Part("ann"), "mary.ann@example.net", true},
		{Part("ann"), "hannah@example.net", false},
		{Part("mary.ann@exam"), "mary.ann@example.net", true},
		{Part("ann.mary"), "mary.ann@example.net", false},
		{Part("@example"), "ann@example.net", true},
		{Part("@xample"), "ann@example.net", false},
		{Part("ann@"), "annex@example.net", false},
		{Part("192.0.2."), "192.0.21.4", false},
		{Part("192.0.2."), "192.0.2.4", true},
		{Part("_"), "a_b@x", true},
		{Part("%"), "ab@x", false},
		{Part("ann "), "Ann", false},
	} {
		if got := c.q.In(c.text); got != c.want {
			t.Errorf("%+v in %q: %v", c.q, c.text, got)
		}
	}
}

// What a text has is made of words that it has: so an index of words finds it.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{"550 5.1.1 user", "注文 a.b@c", "1.2.3.", "Grüße ẞ", "a\xff.1", "\"x y\""} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, text, s string) {
		have := Of(text)
		for _, q := range []Query{All(s), Part(s)} {
			if !q.In(text) {
				continue
			}
			for _, w := range q.Whole {
				if !slices.Contains(have, w) {
					t.Errorf("%q in %q, which has no word %q", s, text, w)
				}
			}
			if q.Prefix != "" && !slices.ContainsFunc(have, func(w string) bool { return strings.HasPrefix(w, q.Prefix) }) {
				t.Errorf("%q in %q, where no word begins with %q", s, text, q.Prefix)
			}
		}
	})
}
