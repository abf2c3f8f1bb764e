package track

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"postrider/internal/link"
)

const firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"

func TestJudge(t *testing.T) {
	rules, err := OpenRules()
	if err != nil {
		t.Fatal(err)
	}
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	open := func(agent string) Deed {
		return Deed{Link: link.Link{Kind: link.Open}, At: noon, UserAgent: agent}
	}
	click := func(agent, target string, after time.Duration) Deed {
		return Deed{Link: link.Link{Kind: link.Click, Target: target}, At: noon.Add(after), UserAgent: agent}
	}
	head := click(firefox, "a", 0)
	head.Head = true
	ahead := open(firefox)
	ahead.Ahead = true
	long := noon.Add(-time.Hour)
	three := []Deed{click(firefox, "a", 0), click(firefox, "b", time.Second), click(firefox, "c", 2*time.Second)}
	for name, tt := range map[string]struct {
		deed           Deed
		delivered      time.Time
		near           []Deed
		machine, proxy string
	}{
		"person":                      {open(firefox), long, nil, "", ""},
		"person clicks":               {click(firefox, "a", 0), long, nil, "", ""},
		"phone":                       {open("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148"), long, nil, "", ""},
		"Outlook":                     {open("Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 10.0; WOW64; Trident/7.0; Microsoft Outlook 16.0.5134; ms-office; MSOffice 16)"), long, nil, "", ""},
		"Thunderbird":                 {open("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:128.0) Gecko/20100101 Thunderbird/128.5.0"), long, nil, "", ""},
		"Apple":                       {open("Mozilla/5.0"), long, nil, "Apple Mail Privacy Protection", ""},
		"Apple's agent clicks":        {click("Mozilla/5.0", "a", 0), long, nil, "", ""},
		"Gmail":                       {open("Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"), long, nil, "", "Gmail image proxy"},
		"Gmail, at once":              {open("Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"), noon.Add(-time.Second), nil, tooEarly, ""},
		"Gmail, ahead":                {open("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/42.0.2311.135 Safari/537.36 Edge/12.246 Mozilla/5.0"), long, nil, "Gmail prefetch", ""},
		"Yahoo":                       {open("YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html"), long, nil, "", "Yahoo mail proxy"},
		"Microsoft":                   {click("Mozilla/5.0 (Windows NT 6.1; WOW64) AppleWebKit/534+ (KHTML, like Gecko) BingPreview/1.0b", "a", 0), long, nil, "Microsoft link check", ""},
		"Office":                      {click("Microsoft Office Existence Discovery", "a", 0), long, nil, "Microsoft link check", ""},
		"Barracuda":                   {click("Barracuda Sentinel (EE)", "a", 0), long, nil, "Barracuda", ""},
		"Slack":                       {click("Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)", "a", 0), long, nil, "link preview", ""},
		"Facebook":                    {click("facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)", "a", 0), long, nil, "link preview", ""},
		"crawler":                     {click("Mozilla/5.0 (compatible; Somebot/2.1; +http://x.test)", "a", 0), long, nil, "crawler", ""},
		"phone that is called a bot":  {open("Mozilla/5.0 (Linux; Android 9; CUBOT_X19) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Mobile Safari/537.36"), long, nil, "", ""},
		"headless":                    {click("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/120.0 Safari/537.36", "a", 0), long, nil, "headless browser", ""},
		"program":                     {click("python-requests/2.32", "a", 0), long, nil, "program", ""},
		"no name":                     {click("", "a", 0), long, nil, nameless, ""},
		"head":                        {head, long, nil, headOnly, ""},
		"ahead":                       {ahead, long, nil, fetching, ""},
		"three links":                 {three[1], long, three, allLinks, ""},
		"two links":                   {three[0], long, three[:2], "", ""},
		"one link thrice":             {three[0], long, []Deed{three[0], three[0], three[0]}, "", ""},
		"three links, slowly":         {three[0], long, []Deed{three[0], click(firefox, "b", 5*time.Second), click(firefox, "c", 9*time.Second)}, "", ""},
		"open beside":                 {open(firefox), long, three, "", ""},
		"at once":                     {click(firefox, "a", 0), noon.Add(-2 * time.Second), nil, tooEarly, ""},
		"soon":                        {click(firefox, "a", 0), noon.Add(-4 * time.Second), nil, "", ""},
		"before the delivery's reply": {click(firefox, "a", 0), time.Time{}, nil, tooEarly, ""},
	} {
		if machine, proxy := rules.Judge(tt.deed, tt.delivered, tt.near, 3*time.Second); machine != tt.machine || proxy != tt.proxy {
			t.Errorf("%s: %q, %q; want %q, %q", name, machine, proxy, tt.machine, tt.proxy)
		}
	}
	if machine, _ := rules.Judge(click(firefox, "a", 0), time.Time{}, nil, 0); machine != "" {
		t.Errorf("without a bound: %q", machine)
	}
}

func TestBadRules(t *testing.T) {
	for _, text := range []string{"x", "[[rule]]\nas = \"machine\"\nhas = [\"abc\"]", "[[rule]]\nname = \"x\"\nas = \"bot\"\nhas = [\"abc\"]", "[[rule]]\nname = \"x\"\nas = \"machine\"",
		"[[rule]]\nname = \"x\"\nas = \"machine\"\nhas = [\"ab\"]", "[[rule]]\nname = \"x\"\nas = \"machine\"\nfor = \"all\"\nhas = [\"abc\"]", "[[rule]]\nname = \"x\"\nas = \"machine\"\nhad = [\"abc\"]"} {
		if r, err := readRules(text); err == nil {
			t.Errorf("%q gives %+v", text, r)
		}
	}
}

func FuzzJudge(f *testing.F) {
	rules, err := OpenRules()
	if err != nil {
		f.Fatal(err)
	}
	f.Add("Mozilla/5.0")
	f.Fuzz(func(t *testing.T, agent string) {
		d := Deed{Link: link.Link{Kind: link.Open}, At: time.Unix(1e9, 0), UserAgent: agent}
		machine, proxy := rules.Judge(d, time.Unix(1, 0), nil, time.Second)
		if machine != "" && proxy != "" || fmt.Sprint(machine, proxy) != "" && strings.TrimSpace(agent) == firefox {
			t.Errorf("%q: %q, %q", agent, machine, proxy)
		}
	})
}
