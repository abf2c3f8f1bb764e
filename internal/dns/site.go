package dns

import (
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// site names the service behind an MX set, ordered by preference, by the most
// preferred of its hosts. See MailHosts.Site.
func site(set []exchange) string {
	var names []string
	var best uint16
	for _, x := range set {
		host, ok := canonical(x.host)
		if !ok {
			continue
		}
		if len(names) > 0 && x.pref != best {
			break
		}
		best = x.pref
		names = append(names, registrable(plain(host)))
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), "+")
}

// registrable is the part of a host name that somebody registered: one label
// more than a public suffix. A host that is itself a suffix stands for itself.
func registrable(host string) string {
	if d, err := publicsuffix.EffectiveTLDPlusOne(host); err == nil {
		return d
	}
	return host
}
