package mailauth

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// DMARCPolicy is what a domain asks receivers to do with mail that fails.
type DMARCPolicy string

const (
	DMARCNone       DMARCPolicy = "none"
	DMARCQuarantine DMARCPolicy = "quarantine"
	DMARCReject     DMARCPolicy = "reject"
)

// DMARCRecord is a published policy (RFC 7489 section 6.3).
type DMARCRecord struct {
	Policy     DMARCPolicy // p=
	Subdomains DMARCPolicy // sp=; where nothing is said, as Policy
	StrictDKIM bool        // adkim=s
	StrictSPF  bool        // aspf=s
	Aggregate  []string    // rua=: URIs that take reports
	Failures   []string    // ruf=
	// Percent is pct=, 100 where nothing is said. It is for show: the verdict here
	// does not throw dice, and newer revisions of DMARC have dropped it.
	Percent int
}

// ParseDMARC reads the value of a TXT record at _dmarc. The error is for people.
func ParseDMARC(txt string) (DMARCRecord, error) {
	tags, err := parseTags(txt)
	if err != nil {
		return DMARCRecord{}, fmt.Errorf("the DMARC record can't be read: %w", err)
	}
	if tags[0] != (tag{"v", "DMARC1"}) {
		return DMARCRecord{}, fmt.Errorf("a DMARC record begins with v=DMARC1, and this one with %.60s=%.60s", tags[0].name, tags[0].value)
	}
	r := DMARCRecord{Percent: 100}
	rua, _ := tags.get("rua")
	ruf, _ := tags.get("ruf")
	r.Aggregate, r.Failures = uris(rua), uris(ruf)
	p, ok := tags.get("p")
	switch r.Policy, err = dmarcPolicy("p", p); {
	case err != nil && len(r.Aggregate) > 0: // RFC 7489 section 6.6.3, step 6
		r.Policy = DMARCNone
	case !ok:
		return DMARCRecord{}, errors.New("the DMARC record has no policy: p= is missing")
	case err != nil:
		return DMARCRecord{}, err
	}
	r.Subdomains = r.Policy
	if sp, ok := tags.get("sp"); ok {
		// One that can't be read is as if it were not there.
		if policy, err := dmarcPolicy("sp", sp); err == nil {
			r.Subdomains = policy
		}
	}
	adkim, _ := tags.get("adkim")
	aspf, _ := tags.get("aspf")
	r.StrictDKIM, r.StrictSPF = strings.EqualFold(adkim, "s"), strings.EqualFold(aspf, "s")
	if pct, ok := tags.get("pct"); ok {
		if n, err := strconv.Atoi(pct); err == nil && 0 <= n && n <= 100 {
			r.Percent = n
		}
	}
	return r, nil
}

func dmarcPolicy(name, s string) (DMARCPolicy, error) {
	switch p := DMARCPolicy(strings.ToLower(s)); p {
	case DMARCNone, DMARCQuarantine, DMARCReject:
		return p, nil
	}
	return "", fmt.Errorf("the DMARC record has %s=%.60s; it may be none, quarantine or reject", name, s)
}

func uris(list string) []string {
	var all []string
	for u := range strings.SplitSeq(list, ",") {
		if u = strings.Trim(u, fws); u != "" {
			all = append(all, u)
		}
	}
	return all
}

// OrganizationalDomain is the part of a domain that somebody registered (RFC 7489
// section 3.2, by the public suffix list); a domain that is a public suffix itself
// stands for itself. It comes in lower case.
func OrganizationalDomain(domain string) string {
	domain = strings.ToLower(strings.TrimSuffix(domain, "."))
	if d, err := publicsuffix.EffectiveTLDPlusOne(domain); err == nil {
		return d
	}
	return domain
}

// FindDMARC finds the policy for a domain: its own, or that of its organisational
// domain (RFC 7489 section 6.6.3). at is where it stands, without "_dmarc.";
// empty says that there is none. The error says why one can't be used, or, with an
// at that is empty, that nobody could say.
func FindDMARC(ctx context.Context, r Resolver, domain string) (record DMARCRecord, at string, err error) {
	domain = strings.ToLower(strings.TrimSuffix(domain, "."))
	places := []string{domain}
	if org := OrganizationalDomain(domain); org != domain {
		places = append(places, org)
	}
	for _, place := range places {
		all, err := r.TXT(ctx, "_dmarc."+place)
		if err != nil && !missing(err) {
			return DMARCRecord{}, "", fmt.Errorf("look up DMARC record: %w", err)
		}
		var found []string
		for _, txt := range all {
			if tags, err := parseTags(txt); err == nil && tags[0].name == "v" && tags[0].value == "DMARC1" || strings.HasPrefix(txt, "v=DMARC1") {
				found = append(found, txt)
			}
		}
		switch len(found) {
		case 0:
			continue
		case 1:
			record, err = ParseDMARC(found[0])
			return record, place, err
		}
		return DMARCRecord{}, place, fmt.Errorf("_dmarc.%s has %d DMARC records; receivers then take none of them", place, len(found))
	}
	return DMARCRecord{}, "", nil
}

// Aligned tells whether a proved domain speaks for the one in From (RFC 7489
// section 3.1).
func Aligned(from, proved string, strict bool) bool {
	from, proved = strings.ToLower(strings.TrimSuffix(from, ".")), strings.ToLower(strings.TrimSuffix(proved, "."))
	if from == "" || proved == "" {
		return false
	}
	return from == proved || !strict && OrganizationalDomain(from) == OrganizationalDomain(proved)
}

// DMARC is what DMARC makes of a message.
type DMARC struct {
	Result  Result      `json:"result"`            // None: the domain has no policy
	Domain  string      `json:"domain"`            // in From
	At      string      `json:"at,omitempty"`      // where the policy stands; empty: there is none
	Policy  DMARCPolicy `json:"policy,omitempty"`  // that holds for the domain
	DKIM    bool        `json:"dkim_aligned"`      // a signature that passed is aligned
	SPF     bool        `json:"spf_aligned"`       // SPF passed and is aligned
	Problem string      `json:"problem,omitempty"` // for people
}

// CheckDMARC puts together what is proved of a message whose From field has an
// address of this domain. With several authors, or none, give an empty domain:
// there is nothing that DMARC could say (RFC 7489 section 6.6.1).
func CheckDMARC(ctx context.Context, r Resolver, from string, signatures []Signature, s SPF) DMARC {
	d := DMARC{Result: None, Domain: strings.ToLower(strings.TrimSuffix(from, "."))}
	if d.Domain == "" {
		d.Problem = "the message has not one author"
		return d
	}
	record, at, err := FindDMARC(ctx, r, d.Domain)
	d.At = at
	for _, sig := range signatures {
		d.DKIM = d.DKIM || sig.Result == Pass && Aligned(d.Domain, sig.Domain, record.StrictDKIM)
	}
	d.SPF = s.Result == Pass && Aligned(d.Domain, s.Domain, record.StrictSPF)
	switch {
	case err != nil && at == "":
		d.Result, d.Problem = TempError, err.Error()
		return d
	case err != nil:
		d.Result, d.Problem = PermError, err.Error()
		return d
	case at == "":
		d.Problem = "the domain has no DMARC policy"
		return d
	}
	d.Policy = record.Policy
	if at != d.Domain {
		d.Policy = record.Subdomains
	}
	switch {
	case d.DKIM || d.SPF:
		d.Result = Pass
	case s.Result == TempError || anyTemporary(signatures):
		d.Result, d.Problem = TempError, "no proof of the domain could be checked"
	default:
		d.Result, d.Problem = Fail, "no signature and no SPF result speaks for "+d.Domain
	}
	return d
}

func anyTemporary(signatures []Signature) bool {
	for _, s := range signatures {
		if s.Result == TempError {
			return true
		}
	}
	return false
}
