package domain

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postrider/internal/relay"
)

// zoneOf is what the DNS says of example.com when all is published.
func zoneOf(d *relay.Domain) Answers {
	a := Answers{
		{"_postrider." + d.Name, "TXT"}: {Values: []string{"postrider-verify=other", "postrider-verify=" + d.Proof}},
		{"bounce." + d.Name, "CNAME"}:   {Values: []string{service.ReturnHost}},
		{"bounce." + d.Name, "MX"}:      {Values: []string{service.Hostname}},
		{"bounce." + d.Name, "TXT"}:     {Values: []string{"v=spf1 ip4:192.0.2.25 -all"}},
		{d.Name, "TXT"}:                 {Values: []string{"v=spf1 include:spf.relay.test.net ~all"}},
		{"spf.relay.test.net", "TXT"}:   {Values: []string{"v=spf1 ip4:192.0.2.25 ~all"}},
		{"_dmarc." + d.Name, "TXT"}:     {Values: []string{"v=DMARC1; p=reject; rua=mailto:r@" + d.Name}},
		{"track." + d.Name, "CNAME"}:    {Values: []string{service.TrackHost}},
		{"track." + d.Name, "A"}:        {Values: []string{"192.0.2.80"}},
		{d.Name, "NS"}:                  {Values: []string{"ada.ns.cloudflare.com"}},
		{"_dmarc.example.com", "TXT"}:   {},
	}
	a[Question{"_dmarc." + d.Name, "TXT"}] = Answer{Values: []string{"v=DMARC1; p=reject; rua=mailto:r@" + d.Name}}
	for _, k := range d.Keys {
		a[Question{keyName(k.Selector, d.Name), "TXT"}] = Answer{Values: []string{k.Public}}
		a[Question{keyName(k.Selector, d.Name), "CNAME"}] = Answer{}
	}
	return a
}

func viewOf(a Answers) View {
	return View{Answers: a, Zone: "example.com", Servers: []string{"ada.ns.cloudflare.com"}}
}

func TestJudgeGood(t *testing.T) {
	d := aDomain("example.com")
	for _, f := range Judge(d, service, viewOf(zoneOf(d))) {
		if f.Status != relay.Good || f.Advice != "" || f.Text == "" {
			t.Errorf("%+v", f)
		}
	}
}

// Each line breaks one thing; all else stays good.
func TestJudge(t *testing.T) {
	key := "pr2611r._domainkey.example.com"
	put := func(name, typ string, values ...string) func(*relay.Domain, Answers) {
		return func(_ *relay.Domain, a Answers) { a[Question{name, typ}] = Answer{Values: values} }
	}
	both := func(fs ...func(*relay.Domain, Answers)) func(*relay.Domain, Answers) {
		return func(d *relay.Domain, a Answers) {
			for _, f := range fs {
				f(d, a)
			}
		}
	}
	fail := func(name, typ string) func(*relay.Domain, Answers) {
		return func(_ *relay.Domain, a Answers) {
			a[Question{name, typ}] = Answer{Err: errors.New("no answer within 5s")}
		}
	}
	cname := func(d *relay.Domain, a Answers) {
		d.Publish = PublishCNAME
		for _, k := range d.Keys {
			a[Question{keyName(k.Selector, d.Name), "CNAME"}] = Answer{Values: []string{keyTarget(k.Selector, d, service)}}
		}
	}
	signing := func(d *relay.Domain, _ Answers) { d.Keys[0].State = relay.KeySigning }
	aligned := func(d *relay.Domain, _ Answers) { d.Aligned = epoch }
	for name, tt := range map[string]struct {
		change func(*relay.Domain, Answers)
		check  string
		name   string
		status relay.Verdict
		words  []string // of text and advice
	}{
		"no proof":      {put("_postrider.example.com", "TXT"), Ownership, "", relay.Bad, []string{"not there", "Cloudflare", `"_postrider"`}},
		"another proof": {put("_postrider.example.com", "TXT", "postrider-verify=xyz"), Ownership, "", relay.Bad, []string{"other records are"}},
		"quoted proof":  {put("_postrider.example.com", "TXT", ` "postrider-verify=abc" `), Ownership, "", relay.Good, nil},
		"doubled name": {both(put("_postrider.example.com", "TXT"), put("_postrider.example.com.example.com", "TXT", "postrider-verify=abc")),
			Ownership, "", relay.Bad, []string{"appended the domain", "Write the name as _postrider."}},
		"DNS is silent":  {fail("_postrider.example.com", "TXT"), Ownership, "", relay.Unknown, []string{"no answer within 5s"}},
		"no key":         {put(key, "TXT"), DKIM, key, relay.Bad, []string{"not there", "Cloudflare"}},
		"key's silent":   {fail(key, "TXT"), DKIM, key, relay.Unknown, nil},
		"two keys":       {put(key, "TXT", "v=DKIM1; p=a", "v=DKIM1; p=b"), DKIM, key, relay.Bad, []string{"2 records"}},
		"key cut":        {put(key, "TXT", "v=DKIM1; k=rsa; p=TUlJQklq"), DKIM, key, relay.Bad, []string{"cut short: 8 of 16"}},
		"key quoted":     {put(key, "TXT", `"v=DKIM1; k=rsa; p=TUlJQklqQU5CZw=="`), DKIM, key, relay.Bad, []string{"quotes"}},
		"key spaced":     {put(key, "TXT", "p=TUlJ QklqQU5CZw== ;v=DKIM1;k=rsa"), DKIM, key, relay.Good, nil},
		"key, k left":    {put(key, "TXT", "v=DKIM1; p=TUlJQklqQU5CZw=="), DKIM, key, relay.Good, nil},
		"key of another": {put(key, "TXT", "v=DKIM1; k=rsa; p=b3RoZXI="), DKIM, key, relay.Bad, []string{"Another key"}},
		"key's kind":     {put(key, "TXT", "v=DKIM1; k=ed25519; p=TUlJQklqQU5CZw=="), DKIM, key, relay.Bad, []string{"another kind"}},
		"key revoked":    {put(key, "TXT", "v=DKIM1; p="), DKIM, key, relay.Bad, []string{"revoked"}},
		"key unreadable": {put(key, "TXT", "v=DKIM1; p=%%%"), DKIM, key, relay.Bad, []string{"can't be read"}},
		"wildcard":       {put(key, "TXT", "v=spf1 -all"), DKIM, key, relay.Bad, []string{"wildcard"}},
		"no ed25519":     {put("pr2611e._domainkey.example.com", "TXT"), DKIM, "pr2611e._domainkey.example.com", relay.Warning, []string{"RSA alone"}},
		"alias, no key":  {both(cname, put(key, "TXT")), DKIM, key, relay.Bad, []string{"own zone has no key", "domain zone"}},
		"no alias":       {both(cname, put(key, "TXT"), put(key, "CNAME")), DKIM, key, relay.Bad, []string{"not there", "type CNAME", "DNS only"}},
		"delegated":      {cname, DKIM, key, relay.Good, nil},
		"rotation": {both(signing, func(d *relay.Domain, _ Answers) {
			d.Keys = append(d.Keys, relay.DKIMKey{Selector: "new", Algorithm: "rsa", Public: "v=DKIM1; p=bmV3", State: relay.KeyWaiting})
		}, put("new._domainkey.example.com", "TXT"), put("new._domainkey.example.com", "CNAME")), DKIM, "new._domainkey.example.com", relay.Warning, []string{"signs until"}},
		"retired, gone": {both(func(d *relay.Domain, _ Answers) { d.Keys[0].State = relay.KeyRetired }, put(key, "TXT")), DKIM, key, relay.Warning, []string{"2026-11-10"}},

		"no return path":      {both(put("bounce.example.com", "CNAME"), put("bounce.example.com", "MX"), put("bounce.example.com", "TXT")), ReturnPath, "", relay.Warning, []string{"not there", "own envelope sender"}},
		"return path is gone": {both(aligned, put("bounce.example.com", "CNAME"), put("bounce.example.com", "MX"), put("bounce.example.com", "TXT")), ReturnPath, "", relay.Bad, []string{"not there"}},
		"it leads elsewhere":  {both(put("bounce.example.com", "CNAME", "x.test"), put("bounce.example.com", "MX")), ReturnPath, "", relay.Warning, []string{"alias of something else"}},
		"no MX behind it":     {put("bounce.example.com", "MX"), ReturnPath, "", relay.Warning, []string{"no MX record behind", "domain zone"}},
		"no SPF behind it":    {put("bounce.example.com", "TXT"), ReturnPath, "", relay.Warning, []string{"no SPF record"}},
		"without an alias":    {put("bounce.example.com", "CNAME"), ReturnPath, "", relay.Good, nil},
		"its DNS is silent":   {fail("bounce.example.com", "MX"), ReturnPath, "", relay.Unknown, nil},

		"no DMARC":       {put("_dmarc.example.com", "TXT"), DMARC, "", relay.Warning, []string{"no DMARC record"}},
		"two DMARC":      {put("_dmarc.example.com", "TXT", "v=DMARC1; p=none", "v=DMARC1; p=reject"), DMARC, "", relay.Bad, []string{"2 DMARC"}},
		"no such policy": {put("_dmarc.example.com", "TXT", "v=DMARC1; p=block"), DMARC, "", relay.Bad, []string{"p=block"}},
		"strict":         {put("_dmarc.example.com", "TXT", "v=DMARC1; p=reject; adkim=s; rua=mailto:a@example.com"), DMARC, "", relay.Warning, []string{"adkim=s"}},
		"nobody reads":   {put("_dmarc.example.com", "TXT", "v=DMARC1;p=none"), DMARC, "", relay.Warning, []string{"rua="}},
		"not DMARC":      {put("_dmarc.example.com", "TXT", "v=DMARC10; p=none"), DMARC, "", relay.Warning, []string{"no DMARC record"}},
		"refused for now": {both(put(key, "TXT"), put("pr2611e._domainkey.example.com", "TXT"), put("bounce.example.com", "MX")), DMARC, "",
			relay.Bad, []string{"refuse it", "before you send"}},
		"reports abroad": {both(put("_dmarc.example.com", "TXT", "v=DMARC1; p=none; rua=mailto:a@reports.test"), put("example.com._report._dmarc.reports.test", "TXT")),
			DMARC, "example.com._report._dmarc.reports.test", relay.Warning, []string{"reports.test"}},

		"proxied tracking": {both(put("track.example.com", "CNAME"), put("track.example.com", "A", "192.0.2.1")), Tracking, "", relay.Warning, []string{"proxy"}},
		"no tracking":      {both(put("track.example.com", "CNAME"), put("track.example.com", "A")), Tracking, "", relay.Warning, []string{"only needed"}},
	} {
		d := aDomain("example.com")
		a := zoneOf(d)
		tt.change(d, a)
		var found *relay.Finding
		for _, f := range Judge(d, service, viewOf(a)) {
			if f.Check == tt.check && (tt.name == "" || f.Name == tt.name) && found == nil {
				found = &f
			}
		}
		if found == nil || found.Status != tt.status {
			t.Errorf("%s: %+v, want %s", name, found, tt.status)
			continue
		}
		for _, w := range tt.words {
			if !strings.Contains(found.Text+" "+found.Advice, w) {
				t.Errorf("%s: %q, %q lacks %q", name, found.Text, found.Advice, w)
			}
		}
	}
}

// The policy of the organisational domain holds for a subdomain, by its sp.
func TestOrganisationalPolicy(t *testing.T) {
	d := aDomain("news.example.com")
	a := zoneOf(d)
	a[Question{"_dmarc.news.example.com", "TXT"}] = Answer{}
	a[Question{"_dmarc.example.com", "TXT"}] = Answer{Values: []string{"v=DMARC1; p=none; sp=reject; rua=mailto:a@example.com"}}
	v := View{Answers: a, Zone: "example.com"}
	for _, f := range Judge(d, service, v) {
		if f.Check == DMARC && (f.Status != relay.Good || f.Name != "_dmarc.example.com" || !strings.Contains(f.Text, "reject")) {
			t.Errorf("%+v", f)
		}
	}
}

func TestAdvance(t *testing.T) {
	rhythm := Rhythm{Every: 12 * time.Hour, Grace: 72 * time.Hour}
	d := aDomain("example.com")
	now := epoch
	a := zoneOf(d)
	step := func(what string, want ...string) {
		t.Helper()
		next, news := Advance(d, Judge(d, service, viewOf(a)), now, rhythm)
		if diff := cmp.Diff(want, news); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
		d = next
	}
	proof, key := Question{"_postrider.example.com", "TXT"}, Question{"pr2611r._domainkey.example.com", "TXT"}
	published := a[proof]
	a[proof] = Answer{}
	delete(a, key)
	a[key] = Answer{}
	step("nothing but the rest", NewsAligned, NewsSigning)
	if !d.Verified.IsZero() || d.Keys[0].State != relay.KeyWaiting || d.Keys[1].State != relay.KeySigning || !d.Due.Equal(now.Add(time.Minute)) {
		t.Errorf("%+v", d)
	}
	second := Question{keyName(d.Keys[1].Selector, d.Name), "TXT"}
	seen := a[second]
	a[second] = Answer{}
	step("what never was verified does not fail")
	a[second] = seen
	a[proof], a[key] = published, Answer{Values: []string{d.Keys[0].Public}}
	step("all", NewsSigning, NewsVerified)
	if !d.Verified.Equal(now) || d.Keys[0].State != relay.KeySigning || !d.Due.Equal(now.Add(rhythm.Every)) {
		t.Errorf("%+v", d)
	}

	// The DNS is silent: nothing changes, but it is asked again soon.
	for q, answer := range a {
		a[q] = Answer{Values: nil, Err: errors.New("SERVFAIL")}
		defer func() { a[q] = answer }()
	}
	now = now.Add(1000 * time.Hour)
	step("silence")
	if d.Verified.IsZero() || d.Aligned.IsZero() || !d.Failing.IsZero() || !d.Due.Equal(now.Add(time.Hour)) {
		t.Errorf("silence changed %+v", d)
	}
	a = zoneOf(d)

	// The proof is gone; the grace period runs, and its end has what was chosen.
	a[proof] = Answer{}
	step("gone", NewsFailing)
	now = now.Add(71 * time.Hour)
	step("gone for a while")
	if d.Verified.IsZero() {
		t.Error("fell back before the grace period was over")
	}
	a[proof] = Answer{Err: errors.New("SERVFAIL")}
	now = now.Add(2 * time.Hour)
	step("unsure at the end of it")
	a[proof] = Answer{}
	step("over", NewsUnverified)
	if !d.Verified.IsZero() || d.Failing.IsZero() {
		t.Errorf("%+v", d)
	}
	step("still gone")
	a[proof] = published
	step("back", NewsRestored, NewsVerified)

	// With the other choice nothing falls back.
	d.Broken = relay.BrokenWarn
	a[key] = Answer{}
	step("key gone", NewsFailing)
	now = now.Add(1000 * time.Hour)
	step("key gone for long")
	if d.Verified.IsZero() {
		t.Error("fell back though it should only be told")
	}
	d.Broken = relay.BrokenSandbox
	step("key gone, sandbox", NewsUnverified)
	step("proof alone does not bring it back")
	a[key] = Answer{Values: []string{d.Keys[0].Public}}
	step("key back", NewsRestored, NewsVerified)

	// The return path has no grace: mail that names it would be refused.
	a[Question{"bounce.example.com", "MX"}] = Answer{}
	step("return path gone", NewsUnaligned)
	if !d.Aligned.IsZero() || d.Verified.IsZero() {
		t.Errorf("%+v", d)
	}
	a[Question{"bounce.example.com", "MX"}] = Answer{Values: []string{service.Hostname}}
	step("return path back", NewsAligned)
}

// A rotation has no gap: the old key signs until the new one is seen, and is
// published for a week more.
func TestRotationLife(t *testing.T) {
	d := aDomain("example.com")
	rhythm := Rhythm{Every: 12 * time.Hour, Grace: 72 * time.Hour}
	d, _ = Advance(d, Judge(d, service, viewOf(zoneOf(d))), epoch, rhythm)
	old := zoneOf(d)
	d.Keys = append(d.Keys, relay.DKIMKey{Selector: "pr2612r", Algorithm: "rsa", Public: "v=DKIM1; p=bmV3", State: relay.KeyWaiting, Since: epoch})
	states := func() (out []relay.KeyState) {
		for _, k := range d.Keys {
			out = append(out, k.State)
		}
		return out
	}
	old[Question{"pr2612r._domainkey.example.com", "TXT"}] = Answer{}
	old[Question{"pr2612r._domainkey.example.com", "CNAME"}] = Answer{}
	d, news := Advance(d, Judge(d, service, viewOf(old)), epoch.Add(time.Hour), rhythm)
	if diff := cmp.Diff([]relay.KeyState{relay.KeySigning, relay.KeySigning, relay.KeyWaiting}, states()); diff != "" || len(news) > 0 {
		t.Errorf("before it is seen: %s %v", diff, news)
	}
	seen := epoch.Add(2 * time.Hour)
	d, news = Advance(d, Judge(d, service, viewOf(zoneOf(d))), seen, rhythm)
	if diff := cmp.Diff([]relay.KeyState{relay.KeyRetired, relay.KeySigning, relay.KeySigning}, states()); diff != "" || !cmp.Equal(news, []string{NewsSigning}) {
		t.Errorf("seen: %s %v", diff, news)
	}
	d, news = Advance(d, Judge(d, service, viewOf(zoneOf(d))), seen.Add(RetiredFor-time.Second), rhythm)
	if len(d.Keys) != 3 || len(news) > 0 {
		t.Errorf("a second before the week is over: %v %v", states(), news)
	}
	d, news = Advance(d, Judge(d, service, viewOf(zoneOf(d))), seen.Add(RetiredFor), rhythm)
	if diff := cmp.Diff([]relay.KeyState{relay.KeySigning, relay.KeySigning}, states()); diff != "" || !cmp.Equal(news, []string{NewsGone}) {
		t.Errorf("after a week: %s %v", diff, news)
	}
}

func TestJudgeService(t *testing.T) {
	s := service
	key := "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
	s.Keys = []Record{{Name: "own._domainkey.relay.test.net", Type: "TXT", Value: key}}
	good := func() Answers {
		return Answers{
			{s.SPFInclude, "TXT"}:                    {Values: []string{"v=spf1 ip4:192.0.2.25 ~all"}},
			{s.ReturnHost, "MX"}:                     {Values: []string{s.Hostname}},
			{s.ReturnHost, "TXT"}:                    {Values: []string{"v=spf1 ip4:192.0.2.25 -all"}},
			{"own._domainkey.relay.test.net", "TXT"}: {Values: []string{strings.ReplaceAll(key, " ", "")}},
		}
	}
	for _, q := range ServiceQuestions(s) {
		if _, known := good()[q]; !known {
			t.Errorf("%v is asked for nothing", q)
		}
	}
	all := JudgeService(s, good())
	if len(all) != 4 {
		t.Errorf("%d findings", len(all))
	}
	for i, f := range all {
		if f.Status != relay.Good {
			t.Errorf("%+v", f)
		}
		for answer, want := range map[*Answer]relay.Verdict{{}: relay.Warning, {Values: []string{"v=spf1 -all"}}: relay.Warning, {Err: errors.New("SERVFAIL")}: relay.Unknown} {
			a := good()
			a[Question{f.Name, f.Type}] = *answer
			if got := JudgeService(s, a)[i]; got.Status != want {
				t.Errorf("%s %v: %s, want %s", f.Name, answer, got.Status, want)
			}
		}
	}
}
