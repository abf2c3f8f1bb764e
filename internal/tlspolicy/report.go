package tlspolicy

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// Report is what a domain is told of the sessions with its mail servers, in the
// form of RFC 8460 section 4.4.
type Report struct {
	Organization string         `json:"organization-name"`
	Range        DateRange      `json:"date-range"`
	Contact      string         `json:"contact-info"`
	ID           string         `json:"report-id"`
	Policies     []PolicyReport `json:"policies"`
}

// DateRange is what time a report is of.
type DateRange struct {
	Start time.Time `json:"start-datetime"`
	End   time.Time `json:"end-datetime"`
}

// PolicyReport is how sessions under one policy went.
type PolicyReport struct {
	Policy   PolicyText      `json:"policy"`
	Summary  Summary         `json:"summary"`
	Failures []FailureDetail `json:"failure-details,omitempty"`
}

// PolicyText is a policy as reports show it.
type PolicyText struct {
	Type   string   `json:"policy-type"`
	String []string `json:"policy-string,omitempty"`
	Domain string   `json:"policy-domain"`
	MX     []string `json:"mx-host,omitempty"`
}

// Summary counts sessions.
type Summary struct {
	Good   int64 `json:"total-successful-session-count"`
	Failed int64 `json:"total-failure-session-count"`
}

// FailureDetail is one way in which sessions failed.
type FailureDetail struct {
	Result   string     `json:"result-type"`
	Source   netip.Addr `json:"sending-mta-ip,omitzero"`
	Host     string     `json:"receiving-mx-hostname,omitempty"`
	Addr     netip.Addr `json:"receiving-ip,omitzero"`
	Sessions int64      `json:"failed-session-count"`
	Reason   string     `json:"failure-reason-code,omitempty"`
}

// Bounds on what is kept of a policy for reports: its owner may publish
// anything.
const (
	maxLines    = 64
	maxLine     = 300
	maxPatterns = 32
)

// detail is what sessions are counted by.
type detail struct {
	Policy  PolicyText     `json:"policy"`
	Failure *FailureDetail `json:"failure,omitempty"`
}

// Detail writes down what of a session matters for a report, the same for
// sessions that are alike.
func (s *Session) Detail() string {
	d := detail{Policy: PolicyText{Type: s.Policy.Kind, String: cut(s.Policy.Lines, maxLines), Domain: s.Policy.Domain, MX: cut(s.Policy.MX, maxPatterns)}}
	if f := s.Failure; f != nil {
		d.Failure = &FailureDetail{Result: f.Result, Source: s.Source, Host: s.Host, Addr: s.Addr, Reason: f.Text}
	}
	text, err := json.Marshal(d)
	if err != nil {
		return "{}" // strings and addresses can always be written
	}
	return string(text)
}

func cut(lines []string, most int) []string {
	var out []string
	for _, l := range lines[:min(len(lines), most)] {
		if len(l) > maxLine {
			l = strings.ToValidUTF8(l[:maxLine], "")
		}
		out = append(out, l)
	}
	return out
}

// Count is how many sessions had the same Detail.
type Count struct {
	Detail   string
	Sessions int64
}

// maxFailures is how many ways to fail a report tells for one policy; what is
// beyond is in the sums only.
const maxFailures = 100

// Add puts counts into the report, by policy.
func (r *Report) Add(counts []Count) error {
	index := map[string]int{}
	for i := range r.Policies {
		index[fmt.Sprint(r.Policies[i].Policy)] = i
	}
	for _, c := range counts {
		var d detail
		if err := json.Unmarshal([]byte(c.Detail), &d); err != nil {
			return fmt.Errorf("read count of TLS sessions: %w", err)
		}
		key := fmt.Sprint(d.Policy)
		i, known := index[key]
		if !known {
			i = len(r.Policies)
			index[key] = i
			r.Policies = append(r.Policies, PolicyReport{Policy: d.Policy})
		}
		p := &r.Policies[i]
		if d.Failure == nil {
			p.Summary.Good += c.Sessions
			continue
		}
		p.Summary.Failed += c.Sessions
		if len(p.Failures) < maxFailures {
			d.Failure.Sessions = c.Sessions
			p.Failures = append(p.Failures, *d.Failure)
		}
	}
	return nil
}

// Gzip writes the report as it is sent.
func (r *Report) Gzip() ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if err := json.NewEncoder(z).Encode(r); err != nil {
		return nil, fmt.Errorf("write TLS report: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("write TLS report: %w", err)
	}
	return b.Bytes(), nil
}

// File is the name of the report's file (RFC 8460 section 5.1).
func (r *Report) File(submitter, domain string) string {
	return fmt.Sprintf("%s!%s!%d!%d!%s.json.gz", submitter, domain, r.Range.Start.Unix(), r.Range.End.Unix(), r.ID)
}

// maxTargets is to how many places one report goes.
const maxTargets = 4

// Targets reads the TXT records at _smtp._tls.<domain> (RFC 8460 section 3) and
// gives where its reports go: URIs of the schemes mailto and https. None: there
// is no such record, or more than one, or it makes no sense.
func Targets(records []string) []*url.URL {
	var rua string
	found := 0
	for _, r := range records {
		version, rest, _ := strings.Cut(r, ";")
		if strings.TrimRight(version, " \t") != "v=TLSRPTv1" {
			continue
		}
		found++
		for field := range strings.SplitSeq(rest, ";") {
			name, value, _ := strings.Cut(strings.Trim(field, " \t"), "=")
			if strings.TrimRight(name, " \t") == "rua" {
				rua = value
			}
		}
	}
	if found != 1 {
		return nil
	}
	var targets []*url.URL
	for text := range strings.SplitSeq(rua, ",") {
		u, err := url.Parse(strings.Trim(text, " \t"))
		if err != nil || len(targets) == maxTargets {
			continue
		}
		if u.Scheme == "mailto" && u.Opaque != "" || u.Scheme == "https" && u.Host != "" && u.User == nil {
			targets = append(targets, u)
		}
	}
	return targets
}
