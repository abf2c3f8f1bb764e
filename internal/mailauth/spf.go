package mailauth

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"blitiri.com.ar/go/spf"
)

// SPF is whether a client may send for a domain.
type SPF struct {
	Result  Result
	Domain  string // that was asked, lower case
	Helo    bool   // it is that of HELO, as the reverse-path was null
	Problem string // why it did not pass, for people
}

// CheckSPF evaluates the record of the reverse-path's domain, or, where that is
// null, of the name that the client gave in EHLO (RFC 7208 section 2.4).
func CheckSPF(ctx context.Context, r Resolver, client netip.Addr, helo, sender string) SPF {
	s := SPF{Helo: sender == ""}
	if s.Helo {
		sender = "postmaster@" + helo
	}
	at := strings.LastIndexByte(sender, '@')
	s.Domain = strings.ToLower(strings.TrimSuffix(sender[at+1:], "."))
	// RFC 7208 section 4.3.
	if _, err := netip.ParseAddr(strings.Trim(s.Domain, "[]")); at < 0 || err == nil || !strings.Contains(s.Domain, ".") {
		s.Result, s.Problem = None, fmt.Sprintf("%.100q is not the name of a domain", s.Domain)
		return s
	}
	local := sender[:at]
	if local == "" {
		local = "postmaster"
	}
	result, err := spf.CheckHostWithSender(client.Unmap().WithZone("").AsSlice(), helo, strings.ReplaceAll(local, "@", " ")+"@"+s.Domain,
		spf.WithContext(ctx), spf.WithResolver(spfResolver{r}))
	s.Result = Result(result)
	if err != nil && s.Result != Pass {
		s.Problem = err.Error()
	}
	return s
}

// spfResolver is a Resolver as the library wants it: that of package net.
type spfResolver struct{ r Resolver }

// LookupTXT finds SPF records: the library asks for no others. One with a mistake
// anywhere is an error, since the library stops reading where a term matches.
func (s spfResolver) LookupTXT(ctx context.Context, name string) ([]string, error) {
	found, err := lookUpTXT(ctx, s.r, name)
	for _, txt := range found {
		if isSPF(txt) && err == nil {
			err = checkSPF(txt)
		}
	}
	return found, err
}

func isSPF(txt string) bool {
	version, _, _ := strings.Cut(txt, " ")
	return strings.EqualFold(version, "v=spf1")
}

func (s spfResolver) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	set, err := s.r.MX(ctx, name)
	var out []*net.MX
	for _, x := range set {
		out = append(out, &net.MX{Host: x.Host, Pref: x.Pref})
	}
	return out, libraryError(name, err)
}

func (s spfResolver) LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error) {
	// An address is no domain, though Addrs takes one.
	if _, err := netip.ParseAddr(host); err == nil {
		return nil, &net.DNSError{Err: "an address instead of a name", Name: host, IsNotFound: true}
	}
	addrs, err := s.r.Addrs(ctx, host)
	var out []net.IPAddr
	for _, a := range addrs {
		out = append(out, net.IPAddr{IP: a.AsSlice()})
	}
	return out, libraryError(host, err)
}

func (s spfResolver) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return nil, err
	}
	names, err := s.r.PTR(ctx, a)
	return names, libraryError(addr, err)
}

// SPFCost is how many of the ten look-ups that a check may make (RFC 7208
// section 4.6.4) a record can need.
type SPFCost struct {
	Record   string // empty: there is none
	Lookups  int    // all that it can come to, with what it includes
	Terms    []SPFTerm
	Problems []string // for people: what keeps the record, or one that it includes, from working
}

// SPFTerm is one mechanism or modifier of a record.
type SPFTerm struct {
	Text    string
	Lookups int // with those of what it includes
}

// MaxSPFLookups is how many look-ups a check makes at most before it fails.
const MaxSPFLookups = 10

// SPFOf counts the look-ups of the record that a domain has. Without one, Record
// is empty. The error is that of looking the record itself up.
func SPFOf(ctx context.Context, r Resolver, domain string) (SPFCost, error) {
	records, err := spfRecords(ctx, r, domain)
	if err != nil || len(records) == 0 {
		return SPFCost{}, err
	}
	cost := CountSPF(ctx, r, domain, records[0])
	if len(records) > 1 {
		cost.Problems = append([]string{fmt.Sprintf("%s has %d SPF records; receivers then take none of them (RFC 7208 section 4.5)", domain, len(records))}, cost.Problems...)
	}
	return cost, nil
}

// spfRecords finds those of a domain's TXT records that are for SPF.
func spfRecords(ctx context.Context, r Resolver, domain string) ([]string, error) {
	all, err := r.TXT(ctx, domain)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up SPF record: %w", err)
	}
	var records []string
	for _, txt := range all {
		if isSPF(txt) {
			records = append(records, txt)
		}
	}
	return records, nil
}

func missing(err error) bool {
	e, ok := errors.AsType[*net.DNSError](libraryError("", err))
	return ok && e.IsNotFound
}

// CountSPF counts the look-ups of a record that a domain has or is to have.
func CountSPF(ctx context.Context, r Resolver, domain, record string) SPFCost {
	c := spfCounter{ctx: ctx, r: r, within: map[string]bool{strings.ToLower(domain): true}}
	cost := SPFCost{Record: record}
	cost.Terms = c.terms(record)
	for _, t := range cost.Terms {
		cost.Lookups += t.Lookups
	}
	if cost.Lookups > MaxSPFLookups {
		cost.Problems = []string{fmt.Sprintf("the record needs %d look-ups, and receivers give up after %d", cost.Lookups, MaxSPFLookups)}
	}
	cost.Problems = append(cost.Problems, c.problems...)
	return cost
}

// spfCounter walks through a record and what it includes.
type spfCounter struct {
	ctx      context.Context
	r        Resolver
	within   map[string]bool // domains whose records are being walked through
	asked    int
	problems []string
}

const (
	maxIncludes = 50 // records that are looked up for one count
	maxProblems = 10
)

func (c *spfCounter) problem(format string, args ...any) {
	if len(c.problems) < maxProblems {
		c.problems = append(c.problems, fmt.Sprintf(format, args...))
	}
}

func (c *spfCounter) terms(record string) []SPFTerm {
	if err := checkSPF(record); err != nil {
		c.problem("%v", err)
	}
	var terms []SPFTerm
	for i, text := range strings.Fields(record) {
		if i > 0 {
			terms = append(terms, SPFTerm{text, c.lookups(text)})
		}
	}
	return terms
}

// lookups counts those of one term.
func (c *spfCounter) lookups(term string) int {
	name, value := strings.ToLower(strings.TrimLeft(term, "+-~?")), ""
	if i := strings.IndexAny(name, ":=/"); i >= 0 {
		name, value = name[:i], name[i+1:]
	}
	switch name {
	case "include", "redirect":
		return 1 + c.inside(value)
	case "a", "mx", "ptr", "exists":
		return 1
	}
	return 0
}

// inside counts the look-ups of an included record.
func (c *spfCounter) inside(domain string) int {
	domain = strings.TrimSuffix(domain, ".")
	if strings.Contains(domain, "%") {
		return 0 // known only for a message
	}
	if c.within[domain] {
		c.problem("%s includes itself", domain)
		return 0
	}
	if c.asked++; c.asked > maxIncludes {
		c.problem("more than %d records are included", maxIncludes)
		return 0
	}
	records, err := spfRecords(c.ctx, c.r, domain)
	switch {
	case err != nil:
		c.problem("the record of %s can't be looked up now: %v", domain, err)
	case len(records) == 0:
		c.problem("%s is included, but has no SPF record", domain)
	case len(records) > 1:
		c.problem("%s is included, but has %d SPF records", domain, len(records))
	}
	if err != nil || len(records) != 1 {
		return 0
	}
	c.within[domain] = true
	defer delete(c.within, domain)
	n := 0
	for _, t := range c.terms(records[0]) {
		n += t.Lookups
	}
	return n
}
