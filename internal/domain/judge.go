package domain

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"postrider/internal/mailauth"
	"postrider/internal/relay"
)

// Judge says of each of a domain's records what is there, what should be, and
// how to mend it.
func Judge(d *relay.Domain, s Service, v View) []relay.Finding {
	j := judge{d: d, s: s, v: v, panel: PanelOf(v.Servers)}
	j.ownership()
	signed := false
	for _, k := range d.Keys {
		j.key(k)
		signed = signed || j.last().Status == relay.Good && k.State != relay.KeyRetired
	}
	aligned := j.returnPath()
	spf := judgeSPF(d, s, v.Answers, aligned)
	if s.SPFInclude == "" {
		spf.Expected = nil // there is nothing to include
	}
	j.add(j.explain(spf))
	j.add(j.explain(judgeDMARC(d, v.Answers, signed, aligned)))
	j.out = append(j.out, judgeReports(d, v.Answers)...)
	j.tracking()
	return j.out
}

type judge struct {
	d     *relay.Domain
	s     Service
	v     View
	panel Panel
	out   []relay.Finding
}

func (j *judge) add(f relay.Finding) { j.out = append(j.out, f) }

func (j *judge) last() relay.Finding { return j.out[len(j.out)-1] }

// explain puts how a record is entered behind the advice for one that is missing
// or another.
func (j *judge) explain(f relay.Finding) relay.Finding {
	if f.Status == relay.Good || len(f.Expected) == 0 || f.Name != j.d.Name && f.Name != "_dmarc."+j.d.Name {
		return f
	}
	f.Advice = strings.TrimSpace(f.Advice + " " + j.how(f.Name, f.Type))
	return f
}

func (j *judge) how(name, typ string) string {
	return j.panel.How(Record{Name: name, Type: typ}, j.v.Zone)
}

// missing is the finding where no record is, or only others.
func (j *judge) missing(f relay.Finding, what string) relay.Finding {
	f.Status = relay.Bad
	f.Advice = j.how(f.Name, f.Type)
	twice := f.Name + "." + j.v.Zone
	switch got := j.v.Answers.get(twice, f.Type); {
	case got.Err == nil && len(got.Values) > 0:
		f.Found = shown(got.Values)
		f.Text = what + " stands at " + twice + ": the panel has appended the domain by itself."
		f.Advice = "Write the name as " + relative(f.Name, j.v.Zone) + "."
	case len(f.Found) > 0:
		f.Text = what + " is not there; other records are."
	default:
		f.Text = what + " is not there."
	}
	return f
}

func (j *judge) ownership() {
	want := proofTag + j.d.Proof
	f := relay.Finding{Check: Ownership, Name: host(proofLabel, j.d.Name), Type: "TXT", Expected: []string{want}}
	got := j.v.Answers.get(f.Name, "TXT")
	f.Found = shown(got.Values)
	switch {
	case got.Err != nil:
		f = unknown(f, got.Err)
	case slices.ContainsFunc(got.Values, func(v string) bool { return bare(v) == want }):
		f.Status, f.Text, f.Found = relay.Good, "The domain is proved to be yours.", []string{want}
	default:
		f = j.missing(f, "The proof that the domain is yours")
	}
	j.add(f)
}

// bare takes away the quotes and spaces that panels make part of a value.
func bare(v string) string {
	return strings.TrimSpace(strings.Trim(strings.TrimSpace(v), `"`))
}

func (j *judge) key(k relay.DKIMKey) {
	f := relay.Finding{Check: DKIM, Name: keyName(k.Selector, j.d.Name), Type: "TXT", Expected: []string{k.Public}}
	want := keyTarget(k.Selector, j.d, j.s)
	if j.d.Publish == PublishCNAME {
		f.Type, f.Expected = "CNAME", []string{want}
	}
	txt, alias := j.v.Answers.get(f.Name, "TXT"), j.v.Answers.get(f.Name, "CNAME")
	f.Found = shown(txt.Values)
	delegated := alias.Err == nil && slices.Contains(alias.Values, want)
	if f.Type == "CNAME" && len(alias.Values) > 0 {
		f.Found = shown(alias.Values)
	}
	switch {
	case txt.Err != nil:
		f = unknown(f, txt.Err)
	case len(txt.Values) == 0 && delegated:
		f.Status, f.Text = relay.Bad, "The alias is right, but the relay's own zone has no key behind it."
		f.Advice = "The operator of the relay publishes what \"postrider domain zone\" prints."
	case len(txt.Values) == 0:
		f = j.missing(f, "The key "+k.Selector+" ("+k.Algorithm+")")
	case len(txt.Values) > 1:
		f.Status, f.Text = relay.Bad, fmt.Sprintf("There are %d records at the selector; receivers take any of them, or none (RFC 6376 section 3.6.2.2).", len(txt.Values))
		f.Advice = "Leave the one that is expected."
	default:
		f = j.compare(f, k, txt.Values[0])
	}
	j.add(j.soften(f, k))
}

// compare judges the one record at a selector.
func (j *judge) compare(f relay.Finding, k relay.DKIMKey, found string) relay.Finding {
	got, want := tags(bare(found)), tags(k.Public)
	key := func(t map[string]string) string { return strings.Join(strings.Fields(t["p"]), "") }
	f.Status, f.Advice = relay.Bad, j.how(f.Name, f.Type)
	_, hasKey := got["p"]
	switch {
	case key(got) == key(want) && strings.EqualFold(kind(got), kind(want)) && bare(found) == strings.TrimSpace(found):
		f.Status, f.Text, f.Advice = relay.Good, "The key "+k.Selector+" ("+k.Algorithm+") is published.", ""
	case key(got) == key(want) && bare(found) != strings.TrimSpace(found):
		f.Text = "The quotes are a part of the value, so that receivers find no key."
		f.Advice = "Take the quotes away."
	case key(got) == key(want):
		f.Text = fmt.Sprintf("The key is there, but said to be of another kind: k=%.20s, not k=%s.", kind(got), kind(want))
	case !hasKey:
		f.Text = "What stands at the selector is no DKIM key. It may be of a wildcard record."
	case key(got) == "":
		f.Text = "The key is revoked: its record has an empty p=."
	case strings.HasPrefix(key(want), key(got)):
		f.Text = fmt.Sprintf("The key is cut short: %d of %d characters are there.", len(key(got)), len(key(want)))
		f.Advice = "Where the panel takes no more than 255 characters, cut the value into several strings in quotes: " + Quote(k.Public)
	case broken64(key(got)):
		f.Text = "The key that is there can't be read: it is not Base64."
	default:
		f.Text = "Another key is there: mail signed with this one would fail."
	}
	return f
}

func kind(t map[string]string) string {
	if k, ok := t["k"]; ok {
		return k
	}
	return "rsa" // RFC 6376 section 3.6.1
}

func broken64(s string) bool {
	_, err := base64.StdEncoding.DecodeString(s)
	return err != nil
}

// soften takes what a key that is not signing, or not alone, means for the mail.
func (j *judge) soften(f relay.Finding, k relay.DKIMKey) relay.Finding {
	if f.Status != relay.Bad {
		return f
	}
	others := slices.ContainsFunc(j.d.Keys, func(o relay.DKIMKey) bool { return o.State == relay.KeySigning && o.Algorithm == k.Algorithm })
	switch {
	case k.State == relay.KeyRetired:
		f.Status, f.Text = relay.Warning, f.Text+" It signs no more, but mail on its way needs it until "+k.Since.Add(RetiredFor).UTC().Format("2006-01-02")+"."
	case k.State == relay.KeyWaiting && others:
		f.Status, f.Text = relay.Warning, f.Text+" The key before it signs until this one is seen."
	case k.State == relay.KeyWaiting && k.Algorithm == "ed25519":
		f.Status, f.Text = relay.Warning, f.Text+" Mail is signed with RSA alone until it is."
	}
	return f
}

// returnPath says whether mail can leave with it.
func (j *judge) returnPath() bool {
	if j.d.ReturnPath == "" || j.s.ReturnHost == "" {
		return false
	}
	f := relay.Finding{Check: ReturnPath, Name: host(j.d.ReturnPath, j.d.Name), Type: "CNAME", Expected: []string{j.s.ReturnHost}}
	alias, mx, txt := j.v.Answers.get(f.Name, "CNAME"), j.v.Answers.get(f.Name, "MX"), j.v.Answers.get(f.Name, "TXT")
	own := f.Name == j.s.ReturnHost // the relay's own domain
	records := spfRecords(txt.Values)
	pointed := slices.Contains(mx.Values, j.s.Hostname)
	f.Found = shown(alias.Values)
	var spf spfWalked
	if len(records) == 1 {
		spf = walkSPF(f.Name, records[0], j.v.Answers)
	}
	passes := len(records) == 1 && (spf.allows(j.s) || slices.Contains(spf.includes, j.s.ReturnHost)) && spf.lookups <= spfLookups
	zone := "The operator of the relay publishes what \"postrider domain zone\" prints."
	switch {
	case alias.Err != nil || mx.Err != nil || txt.Err != nil:
		f = unknown(f, firstError(alias.Err, mx.Err, txt.Err))
	case pointed && passes:
		f.Status, f.Text = relay.Good, "Bounces come back here, and SPF passes in the domain's name."
	case len(alias.Values) == 0 && len(mx.Values) == 0 && !own:
		f = j.missing(f, "The return-path host")
	case len(alias.Values) > 0 && !slices.Contains(alias.Values, j.s.ReturnHost):
		f.Status, f.Text, f.Advice = relay.Bad, "The return-path host is an alias of something else.", j.how(f.Name, f.Type)
	case !pointed:
		f.Status, f.Text, f.Advice = relay.Bad, "The return-path host takes no mail for this relay: "+strings.Join(shown(mx.Values), ", ")+" is in its MX records, not "+j.s.Hostname+".", zone
		if len(mx.Values) == 0 {
			f.Text = "The alias is right, but the relay's own zone has no MX record behind it."
		}
	default:
		f.Status, f.Text, f.Advice = relay.Bad, "The return-path host has no SPF record that lets this relay send.", zone
		f.Found = shown(append(slices.Clone(alias.Values), records...))
	}
	if f.Status == relay.Bad && j.d.Aligned.IsZero() {
		f.Status = relay.Warning // mail leaves without it, as before
		f.Text += " Until it is mended, mail leaves with its own envelope sender."
	}
	j.add(f)
	return f.Status == relay.Good
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (j *judge) tracking() {
	if j.d.Tracking == "" || j.s.TrackHost == "" || host(j.d.Tracking, j.d.Name) == j.s.TrackHost {
		return
	}
	f := relay.Finding{Check: Tracking, Name: host(j.d.Tracking, j.d.Name), Type: "CNAME", Expected: []string{j.s.TrackHost}}
	alias, addrs := j.v.Answers.get(f.Name, "CNAME"), j.v.Answers.get(f.Name, "A")
	f.Found = shown(append(slices.Clone(alias.Values), addrs.Values...))
	switch {
	case alias.Err != nil:
		f = unknown(f, alias.Err)
	case slices.Contains(alias.Values, j.s.TrackHost):
		f.Status, f.Text = relay.Good, "Links can be counted under the domain's own name."
	case len(alias.Values) == 0 && len(addrs.Values) > 0:
		f.Status, f.Text = relay.Warning, "The tracking host has addresses of its own: it is no alias, or one that a proxy hides."
		f.Advice = j.how(f.Name, f.Type)
	default:
		f = j.missing(f, "The tracking host")
		f.Status, f.Text = relay.Warning, f.Text+" It is only needed to count opens and clicks under your own name."
	}
	j.add(f)
}

// JudgeService says whether the relay's own names hold what records of domains
// lead to. answers has those of ServiceQuestions.
func JudgeService(s Service, a Answers) []relay.Finding {
	var out []relay.Finding
	zone := "Publish what \"postrider domain zone\" prints."
	judge := func(f relay.Finding, expected, good, bad string, ok func([]string) bool) {
		got := a.get(f.Name, f.Type)
		f.Found, f.Expected = shown(got.Values), []string{expected}
		switch {
		case got.Err != nil:
			f = unknown(f, got.Err)
		case ok(got.Values):
			f.Status, f.Text, f.Expected = relay.Good, good, nil
		default:
			f.Status, f.Text, f.Advice = relay.Warning, bad, zone
		}
		out = append(out, f)
	}
	spf := func(name string) func([]string) bool {
		return func(txt []string) bool {
			records := spfRecords(txt)
			return len(records) == 1 && walkSPF(name, records[0], a).allows(s)
		}
	}
	if s.SPFInclude != "" {
		judge(relay.Finding{Check: "service", Name: s.SPFInclude, Type: "TXT"}, "v=spf1 "+s.mechanisms()+" ~all", "The SPF record that domains include allows this relay.",
			"The SPF record that domains include is not there, or does not allow this relay.", spf(s.SPFInclude))
	}
	if s.ReturnHost != "" {
		judge(relay.Finding{Check: "service", Name: s.ReturnHost, Type: "MX"}, s.Hostname, "Bounces to return paths come back here.",
			"The host that return paths lead to takes no mail for this relay.", func(mx []string) bool { return slices.Contains(mx, s.Hostname) })
		judge(relay.Finding{Check: "service", Name: s.ReturnHost, Type: "TXT"}, "v=spf1 "+s.mechanisms()+" -all", "SPF passes for return paths.",
			"The host that return paths lead to has no SPF record that allows this relay.", spf(s.ReturnHost))
	}
	for _, k := range s.Keys {
		want, err := mailauth.ParseRecord(k.Value)
		judge(relay.Finding{Check: "service", Name: k.Name, Type: "TXT"}, k.Value, "The key that signs in the relay's own name is published.",
			"The key that signs in the relay's own name is not published.", func(txt []string) bool {
				if len(txt) != 1 {
					return false
				}
				found, ferr := mailauth.ParseRecord(txt[0])
				return err == nil && ferr == nil && found.Same(want)
			})
	}
	return out
}

// ServiceQuestions are those that JudgeService wants answered.
func ServiceQuestions(s Service) []Question {
	var out []Question
	if s.SPFInclude != "" {
		out = append(out, Question{s.SPFInclude, "TXT"})
	}
	if s.ReturnHost != "" {
		out = append(out, Question{s.ReturnHost, "MX"}, Question{s.ReturnHost, "TXT"})
	}
	for _, k := range s.Keys {
		out = append(out, Question{k.Name, "TXT"})
	}
	return out
}
