package tlspolicy

import "net/netip"

// Session is one session with a host that was to take mail for a domain, as far
// as TLS goes.
type Session struct {
	Domain  string // of the recipients
	Policy  Applied
	Host    string     // the MX host; empty where the policy itself could not be had
	Addr    netip.Addr // of the host
	Source  netip.Addr // ours
	Failure *Failure   // nil: nothing was wrong
}
