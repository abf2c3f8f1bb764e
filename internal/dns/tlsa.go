package dns

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	mdns "github.com/miekg/dns"
)

// maxTLSA bounds the TLSA records of one host.
const maxTLSA = 64

// TLSA is one TLSA record (RFC 6698 section 2.1).
type TLSA struct {
	Usage, Selector, Matching uint8
	Data                      string // bytes
}

// String writes the record as a zone file does: "3 1 1 ab12…".
func (t TLSA) String() string {
	return fmt.Sprintf("%d %d %d %s", t.Usage, t.Selector, t.Matching, hex.EncodeToString([]byte(t.Data)))
}

// TLSASet is what a host publishes about its certificate.
type TLSASet struct {
	Base    string // the name that the records were found for (RFC 7672 section 2.2.3)
	Records []TLSA // none: the host publishes nothing that counts
	Expires time.Time
}

// TLSA finds the TLSA records for a port of a host. Those count alone that a
// trusted server has validated, and only where it has validated the host's
// addresses too: else nothing is asked for, as many servers of hosts without
// DNSSEC do not answer such questions (RFC 7672 section 2.1.2). An error, an
// *Error, says that the records are forged or could not be had: without them
// nobody knows what the host has promised.
func (r *Resolver) TLSA(ctx context.Context, h Host, port int) (TLSASet, error) {
	set := TLSASet{Expires: time.Now().Add(maxTTL)}
	bases, err := r.bases(ctx, h)
	if err != nil {
		return set, err
	}
	for _, base := range bases {
		name, ok := canonical(fmt.Sprintf("_%d._tcp.%s", port, base))
		if !ok {
			continue
		}
		res := r.resolve(ctx, question{name, mdns.TypeTLSA})
		if res.err != nil {
			return set, temporary(name, "The TLSA records of "+plain(name), res.err)
		}
		set.Expires = earliest(set.Expires, res.expires)
		if res.secure && len(res.tlsa) > 0 {
			set.Base, set.Records = base, res.tlsa
			return set, nil
		}
	}
	return set, nil
}

// bases are the names whose TLSA records count for a host, the one to ask for
// first in front (RFC 7672 section 2.2.2).
func (r *Resolver) bases(ctx context.Context, h Host) ([]string, error) {
	switch {
	case !r.trusted:
		return nil, nil
	case h.Secure && h.Alias != "":
		return []string{h.Alias, h.Name}, nil
	case h.Secure:
		return []string{h.Name}, nil
	case h.Alias == "":
		return nil, nil
	}
	// The alias itself may be validated where what it leads to is not.
	name, ok := canonical(h.Name)
	if !ok {
		return nil, nil
	}
	res := r.resolve(ctx, question{name, mdns.TypeCNAME})
	switch {
	case res.err != nil:
		return nil, temporary(name, "The alias (CNAME) of "+h.Name, res.err)
	case res.secure:
		return []string{h.Name}, nil
	}
	return nil, nil
}

func (a *answer) addTLSA(rr *mdns.TLSA) {
	data, err := hex.DecodeString(strings.ToLower(rr.Certificate))
	if err != nil || len(a.tlsa) == maxTLSA {
		return
	}
	a.tlsa = append(a.tlsa, TLSA{rr.Usage, rr.Selector, rr.MatchingType, string(data)})
}
