// Package mailauth proves whose mail a message is: it makes and checks DKIM
// signatures (RFC 6376, RFC 8301, RFC 8463), and evaluates SPF (RFC 7208) and
// DMARC (RFC 7489).
package mailauth

import (
	"context"
	"net/netip"

	"postrider/internal/dns"
)

// Resolver finds the records that proofs stand on. *dns.Resolver is one. Errors
// are *dns.Error; a name without records of the type gives none, and no error.
type Resolver interface {
	TXT(ctx context.Context, name string) ([]string, error)
	MX(ctx context.Context, domain string) ([]dns.MX, error)
	PTR(ctx context.Context, addr netip.Addr) ([]string, error)
	Addrs(ctx context.Context, host string) ([]netip.Addr, error)
}

// Result is how a check ended (RFC 8601 section 2.7).
type Result string

const (
	None      Result = "none"      // there is nothing to check
	Pass      Result = "pass"      //
	Fail      Result = "fail"      // checked, and not true
	SoftFail  Result = "softfail"  // SPF: probably not true
	Neutral   Result = "neutral"   // SPF: the domain says nothing about it
	Policy    Result = "policy"    // DKIM: true, but not to be relied on
	TempError Result = "temperror" // could not be checked now
	PermError Result = "permerror" // can never be checked: a record or a signature is malformed
)
