package dns

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	mdns "github.com/miekg/dns"
)

// maxRecords bounds the records of one name and type, and with the 64 KiB of a
// response their bytes. Some domains have a hundred TXT records.
const maxRecords = 256

// MX is one mail server of a domain as its record says: whether it has an
// address, or a name that can be one, is not looked at.
type MX struct {
	Pref uint16
	Host string // lower case, without the last dot; empty says that no mail is taken (RFC 7505)
}

// TXT finds the TXT records of name, in no particular order, the strings of each
// joined (RFC 7208 section 3.3, RFC 6376 section 3.6.2.2). They hold any bytes. A
// name that has none gives none; one that does not exist, or cannot, an *Error of
// the kind NotFound.
func (r *Resolver) TXT(ctx context.Context, name string) ([]string, error) {
	return r.records(ctx, name, mdns.TypeTXT)
}

// CNAME finds what name is an alias of: the next name, lower case and without
// the last dot, not where a chain of them ends. Empty: it is none. Errors are as
// those of TXT.
func (r *Resolver) CNAME(ctx context.Context, name string) (string, error) {
	found, err := r.records(ctx, name, mdns.TypeCNAME)
	if err != nil || len(found) == 0 {
		return "", err
	}
	return found[0], nil
}

// NS finds the name servers of a zone, lower case and without the last dot, in
// order. A name that is no zone's gives none. Errors are as those of TXT.
func (r *Resolver) NS(ctx context.Context, zone string) ([]string, error) {
	found, err := r.records(ctx, zone, mdns.TypeNS)
	slices.Sort(found)
	return found, err
}

// PTR finds the names of an address (RFC 1035 section 3.5, RFC 3596 section 2.5),
// lower case and without the last dot. That they have this address proves only
// Addrs of them. Errors are as those of TXT.
func (r *Resolver) PTR(ctx context.Context, addr netip.Addr) ([]string, error) {
	name, err := mdns.ReverseAddr(addr.Unmap().WithZone("").String())
	if err != nil {
		return nil, notAName(addr.String())
	}
	return r.records(ctx, name, mdns.TypePTR)
}

// MX finds the MX records of a domain, the most preferred first, 20 at most.
// Errors are as those of TXT.
func (r *Resolver) MX(ctx context.Context, domain string) ([]MX, error) {
	a, err := r.lookUp(ctx, domain, mdns.TypeMX)
	if err != nil {
		return nil, err
	}
	var set []MX
	for _, x := range a.mx {
		set = append(set, MX{x.pref, strings.TrimSuffix(x.host, ".")})
	}
	return set, nil
}

// Forget drops what is remembered of a name, and of what it is an alias of, so
// that the next question for it is put to the servers: for somebody who has just
// changed a record. The servers may remember yet.
func (r *Resolver) Forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next, ok := anyName(name)
	for range maxLinks + 1 {
		if !ok || next == "" {
			return
		}
		name, next = next, ""
		for _, t := range []uint16{mdns.TypeTXT, mdns.TypeCNAME, mdns.TypeNS, mdns.TypePTR, mdns.TypeMX, mdns.TypeA, mdns.TypeAAAA} {
			if a := r.cache.drop(question{name, t}); a != nil && a.name != name {
				next = a.name
			}
		}
	}
}

// records finds those records that a text says all of.
func (r *Resolver) records(ctx context.Context, name string, qtype uint16) ([]string, error) {
	a, err := r.lookUp(ctx, name, qtype)
	if err != nil {
		return nil, err
	}
	return slices.Clone(a.records), nil
}

// lookUp asks for records of any name. An error is an *Error.
func (r *Resolver) lookUp(ctx context.Context, name string, qtype uint16) (*answer, error) {
	asked, ok := anyName(name)
	if !ok {
		return nil, notAName(name)
	}
	res := r.resolve(ctx, question{asked, qtype})
	switch {
	case res.err != nil:
		return nil, temporary(asked, fmt.Sprintf("The %s records of %s", mdns.TypeToString[qtype], plain(asked)), res.err)
	case res.missing:
		return nil, notFound("name", asked, res.answer)
	}
	return res.answer, nil
}

// addRecord takes what a text says all of.
func (a *answer) addRecord(rr mdns.RR) {
	if len(a.records) == maxRecords {
		return
	}
	switch rr := rr.(type) {
	case *mdns.TXT:
		a.records = append(a.records, unescape(strings.Join(rr.Txt, "")))
	case *mdns.CNAME:
		a.records = append(a.records, plain(mdns.CanonicalName(rr.Target)))
	case *mdns.NS:
		a.records = append(a.records, plain(mdns.CanonicalName(rr.Ns)))
	case *mdns.PTR:
		a.records = append(a.records, plain(mdns.CanonicalName(rr.Ptr)))
	}
}

// unescape gives the bytes of a text that is written as in a zone file: \" and
// \\ and \DDD (RFC 1035 section 5.1).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != '\\' || i+1 == len(s):
			b = append(b, s[i])
		case i+3 < len(s) && isDigit(s[i+1]) && isDigit(s[i+2]) && isDigit(s[i+3]):
			b = append(b, (s[i+1]-'0')*100+(s[i+2]-'0')*10+s[i+3]-'0')
			i += 3
		default:
			i++
			b = append(b, s[i])
		}
	}
	return string(b)
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// anyName is a name as the cache knows it, of whatever bytes it is (RFC 2181
// section 11), or false when its labels or all of it are too long or empty. A
// name stands as people write it: dots part labels, and nothing is escaped.
func anyName(name string) (string, bool) {
	name = strings.TrimSuffix(name, ".")
	if name == "" || len(name) > 253 {
		return "", false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return "", false
		}
	}
	var b strings.Builder
	for _, c := range []byte(name) {
		switch {
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, `\%03d`, c)
		case strings.IndexByte(` '@;()"\`, c) >= 0:
			b.WriteByte('\\')
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	return mdns.CanonicalName(b.String()), true
}
