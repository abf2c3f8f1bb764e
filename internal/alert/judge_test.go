package alert

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"postrider/internal/relay"
)

// ours are rules as the configuration has them by default.
func ours() Rules {
	return Rules{
		relay.AlertBounces:    {Warning: 5, Critical: 10, Least: 50, Windows: []time.Duration{time.Hour, 24 * time.Hour}},
		relay.AlertComplaints: {Warning: 0.1, Critical: 0.3, Least: 500, Windows: []time.Duration{24 * time.Hour}},
		relay.AlertDeferrals:  {Warning: 30, Critical: 70, Least: 50, Windows: []time.Duration{15 * time.Minute}},
		relay.AlertBlock:      {Warning: 10, Critical: 50, Least: 10, Windows: []time.Duration{30 * time.Minute}},
		relay.AlertBlocklist:  {},
	}
}

func n(account relay.ID, k relay.Kind, provider, category string, count int64) *relay.Recent {
	return &relay.Recent{Account: account, Kind: k, Provider: provider, Category: category, N: count}
}

func everywhere(all ...*relay.Recent) Counts {
	c := Counts{}
	for _, w := range Windows() {
		c[w] = all
	}
	return c
}

func briefly(seen []Seen) string {
	var all []string
	for _, s := range seen {
		all = append(all, strings.Join(strings.Fields(fmt.Sprintf("%s %s %d", s.Kind, s.Subject, s.Level)), " "))
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}

func TestRates(t *testing.T) {
	const ok, bounced, deferred, complained = relay.EventDelivered, relay.EventBounced, relay.EventDeferred, relay.EventComplained
	for name, c := range map[string]struct {
		counts []*relay.Recent
		want   string
	}{
		"nothing":                    {nil, ""},
		"all is well":                {[]*relay.Recent{n(me, ok, "Gmail", "", 1000), n(me, bounced, "Gmail", "hard/no-such-mailbox", 10)}, ""},
		"one bounce of two":          {[]*relay.Recent{n(me, ok, "Gmail", "", 1), n(me, bounced, "Gmail", "hard/no-such-mailbox", 1)}, ""},
		"49 bounces alone are few":   {[]*relay.Recent{n(me, bounced, "Gmail", "hard/no-such-mailbox", 49)}, "bounce-rate 0"},
		"5 % bounce":                 {[]*relay.Recent{n(me, ok, "Gmail", "", 95), n(me, bounced, "Gmail", "hard/no-such-mailbox", 5)}, "bounce-rate 1"},
		"nearly 5 %":                 {[]*relay.Recent{n(me, ok, "Gmail", "", 955), n(me, bounced, "Gmail", "hard/no-such-mailbox", 45)}, "bounce-rate 0"},
		"10 %, some of them expired": {[]*relay.Recent{n(me, ok, "Gmail", "", 90), n(me, bounced, "Yahoo", "hard/no-such-mailbox", 5), n(me, relay.EventExpired, "", "soft/connection-problem", 5)}, "bounce-rate 2"},
		"complaints":                 {[]*relay.Recent{n(me, ok, "Yahoo", "", 1000), n(me, complained, "Yahoo", "soft/complaint", 2)}, "complaint-rate 1"},
		"many complaints":            {[]*relay.Recent{n(me, ok, "Yahoo", "", 1000), n(me, complained, "Yahoo", "soft/complaint", 3)}, "complaint-rate 2"},
		"one complaint":              {[]*relay.Recent{n(me, ok, "Yahoo", "", 600), n(me, complained, "Yahoo", "soft/complaint", 1)}, "complaint-rate 0"},
		"complaints of few":          {[]*relay.Recent{n(me, ok, "Yahoo", "", 100), n(me, complained, "Yahoo", "soft/complaint", 5)}, ""},
		"put off at one provider":    {[]*relay.Recent{n(me, ok, "Gmail", "", 500), n(me, ok, "Yahoo", "", 40), n(me, deferred, "Yahoo", "soft/rate-limited", 60)}, "deferral-spike Yahoo 1"},
		"greylisted":                 {[]*relay.Recent{n(me, ok, "Yahoo", "", 40), n(me, deferred, "Yahoo", "soft/greylisted", 60)}, ""},
		"refused at one provider":    {[]*relay.Recent{n(me, ok, "Gmail", "", 500), n(me, bounced, "Microsoft", "block/sender-reputation", 12)}, "provider-block Microsoft 2"},
		"put off for the same":       {[]*relay.Recent{n(me, ok, "Yahoo", "", 90), n(me, deferred, "Yahoo", "block/rate-limited", 20)}, "provider-block Yahoo 1"},
		"of providers nobody knows":  {[]*relay.Recent{n(me, bounced, "", "block/policy", 12)}, "provider-block other receivers 2"},
		"two blocks":                 {[]*relay.Recent{n(me, bounced, "Gmail", "block/policy", 2)}, ""},
		"of two accounts":            {[]*relay.Recent{n(me, ok, "", "", 49), n(relay.ID{2}, bounced, "", "hard/other", 4)}, ""},
	} {
		if got := briefly(Rates(everywhere(c.counts...), func(relay.ID) Rules { return ours() })); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// A rule is an account's own: its thresholds, its windows, and that it is off.
func TestRules(t *testing.T) {
	few := everywhere(n(me, relay.EventDelivered, "", "", 95), n(me, relay.EventBounced, "", "hard/other", 5))
	for name, c := range map[string]struct {
		own    relay.AlertRule
		counts Counts
		want   string
	}{
		"usual":         {relay.AlertRule{}, few, "bounce-rate 1"},
		"off":           {relay.AlertRule{Off: true}, few, ""},
		"higher":        {relay.AlertRule{Warning: 20, Critical: 30}, few, ""},
		"lower":         {relay.AlertRule{Warning: 1, Critical: 5}, few, "bounce-rate 2"},
		"other windows": {relay.AlertRule{Windows: []time.Duration{6 * time.Hour}}, Counts{time.Hour: few[time.Hour]}, ""},
		"more mail":     {relay.AlertRule{Least: 500}, few, ""},
	} {
		rules := ours().For(map[relay.AlertKind]relay.AlertRule{relay.AlertBounces: c.own})
		if got := briefly(Rates(c.counts, func(relay.ID) Rules { return rules })); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// What hits several accounts at a provider is the relay's affair too, and so is
// what receivers say of its addresses.
func TestWide(t *testing.T) {
	you := relay.ID{2}
	one := []*relay.Recent{n(me, relay.EventBounced, "Gmail", "block/policy", 30)}
	if got := Wide(everywhere(one...), ours()); len(got) != 0 {
		t.Errorf("one account: %s", briefly(got))
	}
	got := Wide(everywhere(append(one, n(you, relay.EventBounced, "Gmail", "block/policy", 5))...), ours())
	if briefly(got) != "provider-block Gmail 2" || got[0].Account != relay.Everyone || !strings.Contains(got[0].Text, "35 of 35") {
		t.Errorf("two accounts: %+v", got)
	}
	got = Wide(everywhere(n(me, relay.EventDeferred, "Microsoft", "block/address-listed", 3)), ours())
	if briefly(got) != "blocklisted replies of Microsoft 2" || got[0].Account != relay.Everyone {
		t.Errorf("a listing: %+v", got)
	}
}

// The words tell the figures, and the reply that was seen most, with the numbers in
// it left out of account.
func TestIllustrate(t *testing.T) {
	s := Rates(everywhere(n(me, relay.EventBounced, "Gmail", "block/authentication-failed", 12)), func(relay.ID) Rules { return ours() })[0]
	reply := func(n int, provider, domain, text string) *relay.SeenReply {
		return &relay.SeenReply{Delivery: relay.DeliveryID{Message: relay.ID{byte(n)}, N: 1}, Provider: provider, Domain: domain, Reply: relay.Reply{Code: 550, Enhanced: "5.7.26", Text: text},
			Category: "block/authentication-failed", Text: "It is not authenticated.", Advice: "Publish SPF."}
	}
	illustrate(&s, []*relay.SeenReply{reply(1, "Gmail", "gmail.com", "No a1 - gsmtp"), reply(2, "Gmail", "googlemail.com", "No b2 - gsmtp"), reply(3, "Gmail", "gmail.com", "Blocked"),
		reply(4, "Yahoo", "yahoo.com", "No c3 - gsmtp"), {Provider: "Gmail", Domain: "gmail.com", Category: "hard/no-such-mailbox"}})
	for _, want := range []string{"12 of 12 messages for Gmail", "2 of the last 3, mostly for gmail.com and 1 other domains", "550 5.7.26 No a1 - gsmtp", "It is not authenticated."} {
		if !strings.Contains(s.Text, want) {
			t.Errorf("%q is not told: %s", want, s.Text)
		}
	}
	if !strings.HasPrefix(s.Advice, "Publish SPF.") {
		t.Errorf("advice %q", s.Advice)
	}
}

// What a rate does not count is no example of it, however often it was said.
func TestExamplesAreOfWhatIsCounted(t *testing.T) {
	for category, want := range map[string]string{"hard/no-such-mailbox": "User unknown", "block/content-or-spam": "", "soft/greylisted": "", "soft/mailbox-full": "User unknown"} {
		kind, bad := relay.EventBounced, "hard/no-such-mailbox"
		if strings.HasPrefix(category, "soft") {
			kind, bad = relay.EventDeferred, "soft/mailbox-full"
		}
		s := Rates(everywhere(n(me, kind, "Gmail", bad, 60)), func(relay.ID) Rules { return ours() })[0]
		told := s.Text
		illustrate(&s, []*relay.SeenReply{{Provider: "Gmail", Domain: "gmail.com", Category: category, Reply: relay.Reply{Code: 550, Text: "User unknown"}}})
		if !strings.Contains(s.Text, want) || (s.Text == told) != (want == "") {
			t.Errorf("%s as an example of %s: %s", category, s.Kind, s.Text)
		}
	}
}

func TestWords(t *testing.T) {
	for p, want := range map[float64]string{5: "5 %", 0.1: "0.1 %", 0.25: "0.25 %", 12.34: "12.3 %", 100: "100 %"} {
		if got := percent(p); got != want {
			t.Errorf("%v: %q", p, got)
		}
	}
	if got := wrap("a bb ccc dddd", 6); !slices.Equal(got, []string{"a bb", "ccc", "dddd"}) {
		t.Errorf("%q", got)
	}
}
