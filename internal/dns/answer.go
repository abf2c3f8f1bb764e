package dns

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	mdns "github.com/miekg/dns"
)

// Bounds on what an answer may say and how long it is believed.
const (
	maxLinks = 8  // of one CNAME chain
	maxMX    = 20 // mail servers of one domain, the best ones
	maxAddrs = 16 // addresses of one host and family

	minTTL         = 5 * time.Second // also in place of 0: a queue asks again and again
	maxTTL         = 24 * time.Hour
	maxNegativeTTL = time.Hour // RFC 2308 section 5 advises one to three hours
)

// question is what is asked; name is canonical: lower case, with the last dot.
type question struct {
	name  string
	qtype uint16
}

func (q question) String() string {
	return plain(q.name) + " " + mdns.TypeToString[q.qtype]
}

// answer is what is kept of a response. It is never changed once it is in the
// cache.
type answer struct {
	name    string // at the end of the CNAME chain
	links   int    // of that chain
	open    bool   // the chain leads out of the response: name must be asked for
	missing bool   // name does not exist (NXDOMAIN)
	mx      []exchange
	addrs   []netip.Addr
	records []string // of the types that addRecord knows
	tlsa    []TLSA
	secure  bool // a trusted server has validated all of it (RFC 4035 section 3.2.3)
	server  string
	expires time.Time
	failure error // nothing could be learned
}

// exchange is one MX record.
type exchange struct {
	pref uint16
	host string // canonical as a name, yet perhaps not one of a host
}

var (
	errLongChain = errors.New("the chain of aliases (CNAME) loops or is too long")
	errReferral  = errors.New("a referral instead of an answer")
	errCutShort  = errors.New("a response cut short")
)

// interpret reads the response m to q. The error is for responses that do not
// answer it; another server may do better.
func interpret(q question, m *mdns.Msg, now time.Time) (*answer, error) {
	a := &answer{name: q.name, missing: m.Rcode == mdns.RcodeNameError, secure: m.AuthenticatedData}
	if m.Rcode != mdns.RcodeSuccess && !a.missing {
		return nil, errors.New(rcodeName(m.Rcode))
	}
	if m.Truncated { // over TCP too: RFC 2181 section 9 forbids its use
		return nil, errCutShort
	}
	ttl := maxTTL
	for {
		next, err := a.collect(q.qtype, m.Answer, &ttl)
		if err != nil {
			return nil, err
		}
		if next == "" {
			break
		}
		// RFC 1034 section 3.6.2, RFC 5321 section 5.1: the target is
		// processed as if it were the initial name.
		if a.links++; a.links > maxLinks {
			return nil, errLongChain
		}
		a.name = next
	}
	if a.empty() {
		if err := a.negative(m, &ttl); err != nil {
			return nil, err
		}
	}
	a.mx = bestMX(a.mx)
	// Records at the name outweigh the rcode (RFC 2308 section 2.1 has none).
	a.missing = a.missing && a.empty()
	a.expires = now.Add(max(ttl, minTTL))
	return a, nil
}

// collect takes the records at a.name, or returns where its CNAME leads.
func (a *answer) collect(qtype uint16, rrs []mdns.RR, ttl *time.Duration) (next string, err error) {
	for _, rr := range rrs {
		h := rr.Header()
		if h.Class != mdns.ClassINET || mdns.CanonicalName(h.Name) != a.name {
			continue
		}
		switch rr := rr.(type) {
		case *mdns.MX:
			if qtype == mdns.TypeMX {
				a.mx = append(a.mx, exchange{rr.Preference, mdns.CanonicalName(rr.Mx)})
				*ttl = min(*ttl, seconds(h.Ttl))
			}
		case *mdns.A:
			a.addAddr(qtype, rr.A, h, ttl)
		case *mdns.AAAA:
			a.addAddr(qtype, rr.AAAA, h, ttl)
		case *mdns.TXT, *mdns.NS, *mdns.PTR:
			if h.Rrtype == qtype {
				a.addRecord(rr)
				*ttl = min(*ttl, seconds(h.Ttl))
			}
		case *mdns.TLSA:
			if qtype == mdns.TypeTLSA {
				a.addTLSA(rr)
				*ttl = min(*ttl, seconds(h.Ttl))
			}
		case *mdns.CNAME:
			if qtype == mdns.TypeCNAME {
				a.addRecord(rr)
			}
			next = mdns.CanonicalName(rr.Target)
			*ttl = min(*ttl, seconds(h.Ttl))
		}
	}
	if !a.empty() {
		return "", nil
	}
	return next, nil
}

// empty tells that none of the records that were asked for is there.
func (a *answer) empty() bool {
	return len(a.mx) == 0 && len(a.addrs) == 0 && len(a.records) == 0 && len(a.tlsa) == 0
}

// bestMX orders a set, drops hosts named again, and cuts it to maxMX.
func bestMX(set []exchange) []exchange {
	slices.SortFunc(set, func(a, b exchange) int {
		return cmp.Or(cmp.Compare(a.pref, b.pref), cmp.Compare(a.host, b.host))
	})
	var best []exchange
	for _, x := range set {
		again := slices.ContainsFunc(best, func(y exchange) bool { return y.host == x.host })
		if len(best) < maxMX && !again {
			best = append(best, x)
		}
	}
	return best
}

func (a *answer) addAddr(qtype uint16, ip []byte, h *mdns.RR_Header, ttl *time.Duration) {
	addr, ok := netip.AddrFromSlice(ip)
	if !ok || h.Rrtype != qtype || len(a.addrs) == maxAddrs {
		return
	}
	// An IPv4-mapped AAAA must not slip past checks of IPv4 ranges.
	a.addrs = append(a.addrs, addr.Unmap())
	*ttl = min(*ttl, seconds(h.Ttl))
}

// negative tells apart the responses without the records that were asked for
// (RFC 2308 sections 2.1, 2.2 and 5).
func (a *answer) negative(m *mdns.Msg, ttl *time.Duration) error {
	var soa, ns bool
	for _, rr := range m.Ns {
		switch rr := rr.(type) {
		case *mdns.SOA:
			soa = true
			*ttl = min(*ttl, seconds(min(rr.Hdr.Ttl, rr.Minttl)), maxNegativeTTL)
		case *mdns.NS:
			ns = true
		}
	}
	if soa {
		return nil
	}
	if a.links > 0 && !a.missing {
		a.open = true
		return nil
	}
	if ns && !a.missing {
		return errReferral
	}
	*ttl = 0 // without an SOA a negative answer is not to be kept
	return nil
}

// seconds is a TTL as a duration; RFC 2181 section 8: those with the top bit
// set count as 0.
func seconds(ttl uint32) time.Duration {
	if ttl > 1<<31-1 {
		return 0
	}
	return time.Duration(ttl) * time.Second
}

func rcodeName(rcode int) string {
	if s, ok := mdns.RcodeToString[rcode]; ok {
		return s
	}
	return fmt.Sprintf("RCODE %d", rcode)
}

// plain is a name as people write it, without the last dot.
func plain(name string) string {
	if name == "." {
		return name
	}
	return strings.TrimSuffix(name, ".")
}

// canonical is the name of a host or a mail domain as the cache knows it, or
// false when it cannot be one: RFC 1123 section 2.1 with underscores, which
// real hosts have; a last label of digits alone would make it look like an
// address.
func canonical(name string) (string, bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if name == "" || len(name) > 253 {
		return "", false
	}
	var numeric bool
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return "", false
		}
		numeric = true
		for _, c := range []byte(label) {
			switch {
			case '0' <= c && c <= '9':
			case 'a' <= c && c <= 'z', c == '-', c == '_':
				numeric = false
			default:
				return "", false
			}
		}
	}
	return name + ".", !numeric
}
