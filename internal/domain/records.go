package domain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"postrider/internal/relay"
)

// Record is one DNS record to publish.
type Record struct {
	Purpose  string `json:"purpose" enum:"ownership,dkim,return-path,spf,dmarc,tracking"`
	Name     string `json:"name" doc:"Whole name, without the last dot"`
	Host     string `json:"host" doc:"The name as most panels want it: without the zone"`
	Type     string `json:"type" enum:"TXT,CNAME"`
	Value    string `json:"value" doc:"Without quotes"`
	Required bool   `json:"required" doc:"Nothing can be sent in the domain's name, or nothing signed, before it is there"`
	Note     string `json:"note,omitempty"`
}

// RetiredFor is how long a retired key stays published: mail that it signed may
// wait in queues for five days.
const RetiredFor = 7 * 24 * time.Hour

// proofLabel and proofTag make the ownership record.
const (
	proofLabel = "_postrider"
	proofTag   = "postrider-verify="
)

// Records are what the owner of d publishes. zone is the zone that they stand
// in; empty: the organisational domain. answers are what the DNS says now, which
// decides what SPF and DMARC records are to become; with none of them it is what
// a domain without such records needs.
func Records(d *relay.Domain, s Service, zone string, answers Answers) []Record {
	if zone == "" {
		zone = Organisational(d.Name)
	}
	out := []Record{{Purpose: Ownership, Name: host(proofLabel, d.Name), Type: "TXT", Value: proofTag + d.Proof, Required: true,
		Note: "Proves that the domain is yours. Leave it there."}}
	out = append(out, keyRecords(d, s)...)
	if name := host(d.ReturnPath, d.Name); d.ReturnPath != "" && s.ReturnHost != "" && name != s.ReturnHost {
		out = append(out, Record{Purpose: ReturnPath, Name: name, Type: "CNAME", Value: s.ReturnHost,
			Note: "Bounces come back here, and SPF passes in your own name."})
	}
	if s.SPFInclude != "" {
		value, note := spfProposal(d.Name, s, answers)
		out = append(out, Record{Purpose: SPF, Name: d.Name, Type: "TXT", Value: value, Note: note})
	}
	if value, note := dmarcProposal(d, answers); value != "" {
		out = append(out, Record{Purpose: DMARC, Name: host("_dmarc", d.Name), Type: "TXT", Value: value, Note: note})
	}
	if name := host(d.Tracking, d.Name); d.Tracking != "" && s.TrackHost != "" && name != s.TrackHost {
		out = append(out, Record{Purpose: Tracking, Name: name, Type: "CNAME", Value: s.TrackHost,
			Note: "Only for opens and clicks that are counted under your own name."})
	}
	for i := range out {
		out[i].Host = relative(out[i].Name, zone)
	}
	return out
}

// relative is a name without its zone; "@" stands for the zone itself.
func relative(name, zone string) string {
	if name == zone {
		return "@"
	}
	if rest, below := strings.CutSuffix(name, "."+zone); below {
		return rest
	}
	return name
}

func keyRecords(d *relay.Domain, s Service) []Record {
	var out []Record
	for _, k := range d.Keys {
		r := Record{Purpose: DKIM, Name: keyName(k.Selector, d.Name), Type: "TXT", Value: k.Public,
			Required: k.Algorithm == "rsa" && k.State != relay.KeyRetired}
		if d.Publish == PublishCNAME {
			r.Type, r.Value = "CNAME", keyTarget(k.Selector, d, s)
		}
		switch {
		case k.State == relay.KeyRetired && d.Publish == PublishCNAME:
			r.Note = "Stays for the next rotation."
		case k.State == relay.KeyRetired:
			r.Note = "Replaced. Leave it there until " + k.Since.Add(RetiredFor).UTC().Format(time.DateOnly) + ", for mail that is on its way."
		case k.Algorithm == "ed25519":
			r.Note = "A second, shorter signature (RFC 8463), for receivers that know it."
		}
		out = append(out, r)
	}
	if d.Publish == PublishCNAME { // the other pair, so that a rotation needs nothing of the owner
		for _, sel := range slots() {
			if !slices.ContainsFunc(d.Keys, func(k relay.DKIMKey) bool { return k.Selector == sel }) {
				out = append(out, Record{Purpose: DKIM, Name: keyName(sel, d.Name), Type: "CNAME", Value: keyTarget(sel, d, s),
					Note: "For the next rotation; there is nothing behind it yet."})
			}
		}
	}
	return out
}

func keyName(selector, domain string) string { return selector + "._domainkey." + domain }

// keyTarget is where a delegated key stands. The id in it keeps apart accounts
// that ask for the same domain.
func keyTarget(selector string, d *relay.Domain, s Service) string {
	return selector + "." + d.ID.String() + "." + s.DKIMZone
}

// slots are the selectors of delegated keys: two pairs that take turns.
func slots() []string { return []string{"pr1r", "pr1e", "pr2r", "pr2e"} }

// selectors are the names of a new pair of keys, RSA and Ed25519, which none of
// d's keys has. The error is a relay.Error: both pairs of a delegated domain are
// in use.
func selectors(d *relay.Domain, now time.Time) (rsa, ed string, err error) {
	taken := func(sel string) bool {
		return slices.ContainsFunc(d.Keys, func(k relay.DKIMKey) bool { return k.Selector == sel })
	}
	if d.Publish == PublishCNAME {
		for i := 0; i < 4; i += 2 {
			if s := slots(); !taken(s[i]) && !taken(s[i+1]) {
				return s[i], s[i+1], nil
			}
		}
		return "", "", &relay.Error{Code: relay.Conflict, Text: "The keys of the last rotation are still published, for mail that is on its way.",
			Advice: "Rotate again when they are gone: " + RetiredFor.String() + " after they were replaced."}
	}
	base := "pr" + now.UTC().Format("0601")
	for _, more := range append([]string{""}, strings.Split("abcdfghijklmnopqstuvwxyz", "")...) {
		rsa, ed = base+more+"r", base+more+"e"
		if !taken(rsa) && !taken(ed) {
			return rsa, ed, nil
		}
	}
	return "", "", &relay.Error{Code: relay.Conflict, Text: "The domain has had too many new keys this month.", Advice: "Wait until the old ones are gone."}
}

// Zone writes what the operator's own zone must hold, as lines of a zone file:
// where bounces and tracking go, what may send, and the delegated keys of domains.
func Zone(s Service, domains []*relay.Domain) string {
	var b strings.Builder
	line := func(name, typ, value string) { fmt.Fprintf(&b, "%s. 3600 IN %s %s\n", name, typ, value) }
	text := func(name, value string) { line(name, "TXT", Quote(value)) }
	if s.SPFInclude != "" {
		b.WriteString("; the addresses that mail leaves from\n")
		text(s.SPFInclude, "v=spf1 "+s.mechanisms()+" ~all")
	}
	if s.ReturnHost != "" {
		b.WriteString("; bounces come back here\n")
		line(s.ReturnHost, "MX", "10 "+s.Hostname+".")
		text(s.ReturnHost, "v=spf1 "+s.mechanisms()+" -all")
	}
	if s.TrackHost != "" && s.TrackHost != s.Hostname {
		b.WriteString("; opens and clicks\n")
		line(s.TrackHost, "CNAME", s.Hostname+".")
	}
	if len(s.Keys) > 0 {
		b.WriteString("; keys that sign in the relay's own name\n")
	}
	for _, k := range s.Keys {
		text(k.Name, k.Value)
	}
	domains = slices.Clone(domains)
	slices.SortFunc(domains, func(a, b *relay.Domain) int { return strings.Compare(a.Name, b.Name) })
	for _, d := range domains {
		if d.Publish != PublishCNAME || s.DKIMZone == "" || len(d.Keys) == 0 {
			continue
		}
		fmt.Fprintf(&b, "; DKIM keys of %s\n", d.Name)
		for _, k := range d.Keys {
			text(keyTarget(k.Selector, d, s), k.Public)
		}
	}
	return b.String()
}

// mechanisms are those of SPF that allow the relay's addresses.
func (s Service) mechanisms() string {
	if len(s.Addrs) == 0 {
		return "a:" + s.Hostname
	}
	var out []string
	for _, a := range s.Addrs {
		if a.Is4() {
			out = append(out, "ip4:"+a.String())
		} else {
			out = append(out, "ip6:"+a.String())
		}
	}
	return strings.Join(out, " ")
}

// Quote writes a TXT value for a zone file: in quotes, cut into strings of 255
// octets at most (RFC 1035 section 3.3).
func Quote(value string) string {
	var parts []string
	for len(value) > 255 {
		parts = append(parts, value[:255])
		value = value[255:]
	}
	parts = append(parts, value)
	for i, p := range parts {
		parts[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(p) + `"`
	}
	return strings.Join(parts, " ")
}
