package mailauth_test

import (
	"context"
	"net/netip"
	"sync/atomic"

	"postrider/internal/dns"
)

// counter knows nothing and counts who asks.
type counter struct{ n atomic.Int64 }

func (c *counter) TXT(context.Context, string) ([]string, error) { c.n.Add(1); return nil, nil }
func (c *counter) MX(context.Context, string) ([]dns.MX, error)  { c.n.Add(1); return nil, nil }
func (c *counter) PTR(context.Context, netip.Addr) ([]string, error) {
	c.n.Add(1)
	return nil, nil
}
func (c *counter) Addrs(context.Context, string) ([]netip.Addr, error) {
	c.n.Add(1)
	return nil, nil
}
