// Package domain looks after sending domains: what their owners publish, what
// the DNS says of it, the life of their keys, and single verified senders.
//
// Records, Judge and Advance are pure: values in, values out. Looking up, the
// store and the time are in Manager and Watch.
package domain

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/publicsuffix"

	"postrider/internal/mailauth"
	"postrider/internal/relay"
	"postrider/internal/smtp"
)

// Purposes of records, which are also the names of the checks.
const (
	Ownership  = "ownership"
	DKIM       = "dkim"
	ReturnPath = "return-path"
	SPF        = "spf"
	DMARC      = "dmarc"
	Tracking   = relay.CheckTracking
)

// How DKIM keys are published.
const (
	PublishTXT   = "txt"   // the key itself: a new record for each rotation
	PublishCNAME = "cname" // delegated to the relay's own zone: rotations need nothing of the owner
)

// Service is the relay's own place in the DNS. Names are lower case, without the
// last dot. Those that are empty are not offered.
type Service struct {
	Hostname   string       // takes bounces
	DKIMZone   string       // delegated DKIM keys stand below it
	ReturnHost string       // return-path hosts are aliases of it
	TrackHost  string       // tracking hosts are aliases of it
	SPFInclude string       // holds the addresses that mail leaves from
	Addrs      []netip.Addr // that mail leaves from; none: those of Hostname
	Keys       []Record     // TXT records of the keys that sign in the relay's own name
}

// maxName leaves room for the longest label that records put in front of a
// domain, within 253 octets (RFC 1035 section 3.1).
const maxName = 253 - len("pr2612zr._domainkey.")

// Name reads the name of a domain as people write it and gives it as it is kept:
// lower case, A-labels, without the last dot. The error is a relay.Error.
func Name(s string) (string, error) {
	bad := func(text, advice string) (string, error) {
		return "", &relay.Error{Code: relay.Invalid, Text: text, Advice: advice}
	}
	s = strings.TrimSuffix(strings.TrimSpace(s), ".")
	if strings.Contains(s, "@") {
		return bad(fmt.Sprintf("%.100q is an address, not a domain.", s), "Name what stands after the @, or verify the address alone with \"postrider sender add\".")
	}
	name, err := smtp.ASCIIDomain(s)
	if err != nil || name == "" {
		return bad(fmt.Sprintf("%.100q can't be the name of a domain.", s), "Write it as example.com.")
	}
	name = strings.TrimSuffix(name, ".")
	for label := range strings.SplitSeq(name, ".") {
		if strings.HasPrefix(label, "_") {
			return bad(fmt.Sprintf("%s is the name of a record, not of a domain that sends mail.", name), "Name the domain behind it.")
		}
	}
	suffix, icann := publicsuffix.PublicSuffix(name)
	switch {
	case !strings.Contains(name, "."):
		return bad(fmt.Sprintf("%s is a top-level domain.", name), "Name the domain that you registered below it, such as example."+name+".")
	case icann && suffix == name:
		return bad(fmt.Sprintf("%s is a public suffix: anybody may register names below it, so nobody sends in its own name.", name),
			"Name the domain that you registered below it, such as example."+name+".")
	case len(name) > maxName:
		return bad(fmt.Sprintf("The name %.60s… is too long: records below it would have no room.", name), "Use a shorter one.")
	}
	return name, nil
}

// Organisational is the domain that somebody registered (RFC 7489 section 3.2).
func Organisational(name string) string { return mailauth.OrganizationalDomain(name) }

// Under tells whether name is the domain itself or below it.
func Under(name, domain string) bool {
	return name == domain || strings.HasSuffix(name, "."+domain)
}

// Label reads the first label of a return-path or tracking host. The error is a
// relay.Error.
func Label(s string) (string, error) {
	s = strings.ToLower(strings.TrimSpace(s))
	ok := s != "" && len(s) <= 20 && s[0] != '-' && s[len(s)-1] != '-' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
	if !ok {
		return "", &relay.Error{Code: relay.Invalid, Text: fmt.Sprintf("%.60q can't be the first part of a host name.", s),
			Advice: "Use up to 20 letters, digits and hyphens, such as \"bounce\"."}
	}
	return s, nil
}

// host is a label in front of a domain.
func host(label, domain string) string { return label + "." + domain }
