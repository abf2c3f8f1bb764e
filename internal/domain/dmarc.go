package domain

import (
	"fmt"
	"strings"

	"postrider/internal/mailauth"
	"postrider/internal/relay"
)

// dmarcRecords are those of a name's TXT records that are DMARC (RFC 7489
// section 6.6.3).
func dmarcRecords(txt []string) []string {
	var out []string
	for _, v := range txt {
		first, _, _ := strings.Cut(v, ";")
		if strings.ReplaceAll(strings.ReplaceAll(first, " ", ""), "\t", "") == "v=DMARC1" {
			out = append(out, v)
		}
	}
	return out
}

// dmarcOf finds the records that count for a name: its own, else those of its
// organisational domain (RFC 7489 section 6.6.3).
func dmarcOf(name string, a Answers) (records []string, at string, err error) {
	at = name
	got := a.get("_dmarc."+name, "TXT")
	if records = dmarcRecords(got.Values); got.Err != nil || len(records) > 0 {
		return records, at, got.Err
	}
	org := Organisational(name)
	if org == name {
		return nil, at, nil
	}
	got = a.get("_dmarc."+org, "TXT")
	return dmarcRecords(got.Values), org, got.Err
}

// dmarcProposal is the record to publish where none counts for the domain.
func dmarcProposal(d *relay.Domain, a Answers) (value, note string) {
	records, at, _ := dmarcOf(d.Name, a)
	switch {
	case len(records) == 1:
		return "", ""
	case len(records) > 1 && at != d.Name:
		return "", ""
	}
	return "v=DMARC1; p=none; rua=mailto:postmaster@" + d.Name,
		"Asks receivers for reports, and changes nothing else. Name an address that somebody or something reads."
}

// judgeDMARC judges the policy for the domain. signed: its mail is signed with a
// key that was seen. aligned: it leaves with a return path below the domain.
func judgeDMARC(d *relay.Domain, a Answers, signed, aligned bool) relay.Finding {
	f := relay.Finding{Check: DMARC, Name: "_dmarc." + d.Name, Type: "TXT"}
	records, at, err := dmarcOf(d.Name, a)
	if err != nil {
		return unknown(f, err)
	}
	f.Found = shown(records)
	if at != d.Name && len(records) > 0 {
		f.Name = "_dmarc." + at
	}
	if len(records) == 0 {
		value, _ := dmarcProposal(d, a)
		f.Status, f.Expected, f.Text = relay.Warning, []string{value}, "There is no DMARC record. Large receivers expect one of whoever sends much."
		f.Advice = "Publish the record that is expected: it asks receivers for reports, and changes nothing else."
		return f
	}
	if len(records) > 1 {
		f.Status, f.Text = relay.Bad, fmt.Sprintf("There are %d DMARC records, so that none counts (RFC 7489 section 6.6.3).", len(records))
		f.Advice = "Leave one of them."
		return f
	}
	record, err := mailauth.ParseDMARC(records[0])
	if err != nil {
		f.Status, f.Text = relay.Bad, "Receivers can make nothing of the record: "+err.Error()+"."
		f.Advice = "Write p=none, p=quarantine or p=reject, right behind v=DMARC1."
		return f
	}
	policy := record.Policy
	if at != d.Name {
		policy = record.Subdomains
	}
	f.Status, f.Text = relay.Good, fmt.Sprintf("The policy is %q, and mail of this relay passes it.", policy)
	switch {
	case policy != mailauth.DMARCNone && !signed && !aligned:
		f.Status, f.Text = relay.Bad, fmt.Sprintf("The policy is %q, and nothing of this relay's mail is in line with it yet: receivers would refuse it, or put it aside.", policy)
		f.Advice = "Publish the DKIM records before you send."
	case record.StrictDKIM && len(d.Keys) > 0:
		f.Status, f.Text = relay.Warning, "The record asks for strict DKIM alignment (adkim=s): mail from a subdomain of "+d.Name+" would fail, unless that is a domain of its own here."
		f.Advice = "Take out adkim=s, or add the subdomains that you send from."
	case !signed && !aligned:
		f.Status, f.Text = relay.Warning, "The policy asks for nothing yet; mail of this relay would not pass a stricter one before its DKIM keys are published."
	case policy == mailauth.DMARCNone:
		f.Text = "The policy is \"none\": receivers report only. Mail of this relay would pass a stricter one."
	}
	if len(record.Aggregate) == 0 && f.Status == relay.Good {
		f.Status, f.Text = relay.Warning, f.Text+" Nobody gets the reports."
		f.Advice = "Add rua=mailto: and an address that somebody or something reads."
	}
	return f
}

// reportsTo are the domains outside of the record's own organisation that get
// its reports, and so must agree (RFC 7489 section 7.1). At most three.
func reportsTo(record, at string) []string {
	var out []string
	for uri := range strings.SplitSeq(tags(record)["rua"], ",") {
		uri, _, _ = strings.Cut(strings.TrimSpace(uri), "!")
		_, to, ok := strings.Cut(uri, "@")
		to = strings.ToLower(strings.TrimSuffix(to, "."))
		if ok && len(out) < 3 && to != "" && Organisational(to) != Organisational(at) {
			out = append(out, to)
		}
	}
	return out
}

// judgeReports says where reports go to somebody who has not agreed.
func judgeReports(d *relay.Domain, a Answers) []relay.Finding {
	records, at, err := dmarcOf(d.Name, a)
	if err != nil || len(records) != 1 {
		return nil
	}
	var out []relay.Finding
	for _, to := range reportsTo(records[0], at) {
		name := at + "._report._dmarc." + to
		got := a.get(name, "TXT")
		if got.Err != nil || len(dmarcRecords(append(got.Values, dmarcLoose(got.Values)...))) > 0 {
			continue
		}
		out = append(out, relay.Finding{Check: DMARC, Name: name, Type: "TXT", Status: relay.Warning, Found: shown(got.Values), Expected: []string{"v=DMARC1"},
			Text: "Reports are to go to " + to + ", which does not say that it takes them for " + at + ": receivers send none.", Advice: "Its owner publishes the record that is expected, or name another address."})
	}
	return out
}

// dmarcLoose forgives "v=DMARC1" with something behind it, as some report
// services publish it.
func dmarcLoose(txt []string) []string {
	var out []string
	for _, v := range txt {
		if strings.HasPrefix(strings.TrimSpace(v), "v=DMARC1") {
			out = append(out, "v=DMARC1")
		}
	}
	return out
}
