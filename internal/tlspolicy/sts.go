package tlspolicy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Mode says what a sender is to do where a receiver does not keep to its own
// policy (RFC 8461 section 5).
type Mode string

const (
	Enforce Mode = "enforce" // deliver nothing
	Testing Mode = "testing" // deliver all the same, and report it
	None    Mode = "none"    // as if there were no policy
)

// STS is the MTA-STS policy of a domain (RFC 8461 section 3.2).
type STS struct {
	ID     string        `json:"id"` // of the TXT record under which it was fetched
	Mode   Mode          `json:"mode"`
	MX     []string      `json:"mx,omitempty"` // patterns, lower case
	MaxAge time.Duration `json:"max_age"`
	// Lines are the policy as it was published, for reports.
	Lines   []string  `json:"lines"`
	Fetched time.Time `json:"fetched"`
}

// Expires is when a sender forgets the policy.
func (p *STS) Expires() time.Time { return p.Fetched.Add(p.MaxAge) }

const (
	// maxPolicy is the largest policy in bytes, as RFC 8461 section 3.3
	// proposes.
	maxPolicy = 64 << 10
	maxMX     = 200
	// maxAge is the longest that a policy may last (RFC 8461 section 3.2).
	maxAge = 31557600 * time.Second
)

var errNoRecord = errors.New("no MTA-STS record")

// parseRecord reads the TXT records at _mta-sts.<domain> and gives the policy's
// id. The error is errNoRecord where there is none, or more than one: either
// says that there is no policy (RFC 8461 section 3.1).
func parseRecord(records []string) (id string, err error) {
	var found []string
	for _, r := range records {
		if strings.HasPrefix(r, "v=STSv1;") {
			found = append(found, r)
		}
	}
	switch len(found) {
	case 0:
		return "", errNoRecord
	case 1:
	default:
		return "", fmt.Errorf("%w: there are %d of them", errNoRecord, len(found))
	}
	for field := range strings.SplitSeq(strings.TrimPrefix(found[0], "v=STSv1;"), ";") {
		name, value, ok := strings.Cut(strings.Trim(field, " \t"), "=")
		if !ok || name != "id" {
			continue // RFC 8461 section 3.1 lets extensions pass
		}
		if len(value) < 1 || len(value) > 32 || strings.ContainsFunc(value, func(r rune) bool { return !alnum(r) }) {
			return "", fmt.Errorf("the MTA-STS record has the id %.40q; an id is 1 to 32 letters or digits", value)
		}
		return value, nil
	}
	return "", errors.New("the MTA-STS record has no id")
}

func alnum(r rune) bool {
	return '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}

// ParseSTS reads a policy (RFC 8461 section 3.2). Its errors say what is wrong
// to whoever published it.
func ParseSTS(text []byte) (*STS, error) {
	if len(text) > maxPolicy {
		return nil, fmt.Errorf("the policy is longer than %d bytes", maxPolicy)
	}
	p := &STS{}
	seen := map[string]bool{}
	for line := range strings.SplitSeq(string(text), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if strings.Trim(line, " \t") == "" {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("the line %.80q has no colon", line)
		}
		value = strings.Trim(value, " \t")
		if name != "mx" && seen[name] {
			continue // the first one counts
		}
		seen[name] = true
		if err := p.set(name, value); err != nil {
			return nil, err
		}
		p.Lines = append(p.Lines, name+": "+value)
	}
	switch {
	case !seen["version"]:
		return nil, errors.New("the policy has no version")
	case p.Mode == "":
		return nil, errors.New("the policy has no mode")
	case !seen["max_age"]:
		return nil, errors.New("the policy has no max_age")
	case len(p.MX) == 0 && p.Mode != None:
		return nil, errors.New("the policy names no mx")
	}
	return p, nil
}

func (p *STS) set(name, value string) error {
	switch name {
	case "version":
		if value != "STSv1" {
			return fmt.Errorf("the version is %.40q, not STSv1", value)
		}
	case "mode":
		switch Mode(value) {
		case Enforce, Testing, None:
			p.Mode = Mode(value)
		default:
			return fmt.Errorf("the mode %.40q is none of enforce, testing and none", value)
		}
	case "max_age":
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil || len(value) > 10 {
			return fmt.Errorf("max_age %.40q is not a number of seconds", value)
		}
		p.MaxAge = time.Duration(min(n, uint64(maxAge/time.Second))) * time.Second
	case "mx":
		pattern := strings.TrimSuffix(strings.ToLower(value), ".")
		if !hostPattern(pattern) {
			return fmt.Errorf("mx %.80q is neither a host name nor \"*.\" and one", value)
		}
		if len(p.MX) == maxMX {
			return fmt.Errorf("the policy names more than %d mx", maxMX)
		}
		p.MX = append(p.MX, pattern)
	}
	return nil
}

func hostPattern(s string) bool {
	s = strings.TrimPrefix(s, "*.")
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, func(r rune) bool { return !alnum(r) && r != '-' && r != '_' }) {
			return false
		}
	}
	return true
}

// Names tells whether the policy names an MX host: itself, or by a pattern whose
// "*" stands for exactly one label, the first (RFC 8461 section 4.1).
func (p *STS) Names(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	_, parent, deep := strings.Cut(host, ".")
	for _, pattern := range p.MX {
		if rest, wild := strings.CutPrefix(pattern, "*."); pattern == host || wild && deep && rest == parent {
			return true
		}
	}
	return false
}
