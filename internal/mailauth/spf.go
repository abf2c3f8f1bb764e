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
	Result  Result `json:"result"`
	Domain  string `json:"domain"`            // that was asked, lower case
	Helo    bool   `json:"helo,omitempty"`    // it is that of HELO, as the reverse-path was null
	Problem string `json:"problem,omitempty"` // why it did not pass, for people
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

func missing(err error) bool {
	e, ok := errors.AsType[*net.DNSError](libraryError("", err))
	return ok && e.IsNotFound
}
