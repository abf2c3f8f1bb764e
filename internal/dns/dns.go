// Package dns finds the hosts that take a domain's mail: MX records, their
// addresses, and what the absence of either means (RFC 5321 section 5.1,
// RFC 7505); and the records by which mail is proved.
//
// It is a stub resolver: it asks recursive servers, over UDP and TCP, and
// keeps their answers as long as these say. Domains come as A-labels.
package dns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	mdns "github.com/miekg/dns"
)

const (
	resolvConf     = "/etc/resolv.conf"
	defaultTimeout = 5 * time.Second
	maxEntries     = 10_000 // of the cache; some 200 bytes each, seldom a few kilobytes
	maxSlots       = 512    // questions under way, a socket each
)

// Resolver asks DNS servers and remembers what they say. It may be used by
// many goroutines at once and needs no closing.
type Resolver struct {
	servers []string
	trusted bool
	send    sendFunc
	slots   chan struct{}
	first   atomic.Int32 // index of the server to ask first

	mu      sync.Mutex
	cache   *cache
	flights map[question]*flight
}

// sendFunc puts one message to one server and returns the response to it.
type sendFunc func(ctx context.Context, server string, req *mdns.Msg) (*mdns.Msg, error)

// New makes a resolver that asks servers, each an IP address with or without a
// port (53); without any, those of /etc/resolv.conf. timeout is the longest
// wait for one answer of one server, 5 seconds when 0: a look-up takes at
// most twice as long for each server and step. An error names the server that
// cannot be one.
func New(servers []string, timeout time.Duration) (*Resolver, error) {
	if len(servers) == 0 {
		var err error
		if servers, err = systemServers(resolvConf); err != nil {
			return nil, err
		}
	}
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	r := &Resolver{
		send:    overNetwork(timeout),
		slots:   make(chan struct{}, maxSlots),
		cache:   newCache(maxEntries),
		flights: make(map[question]*flight),
	}
	for _, s := range servers {
		ap, err := netip.ParseAddrPort(s)
		if err != nil {
			addr, err := netip.ParseAddr(s)
			if err != nil {
				return nil, fmt.Errorf("DNS server %q: not an IP address, with or without a port", s)
			}
			ap = netip.AddrPortFrom(addr, 53)
		}
		r.servers = append(r.servers, ap.String())
	}
	return r, nil
}

// Trust makes the resolver believe its servers when they say that they have
// validated an answer by DNSSEC (the AD bit). It is for servers that validate, on
// this machine or behind a path that nobody can meddle with (RFC 6840 section
// 5.8), and comes before any look-up.
func (r *Resolver) Trust() { r.trusted = true }

// systemServers reads path as resolv.conf(5) says: where it is missing or
// names no server, there is one on this machine.
func systemServers(path string) ([]string, error) {
	conf, err := mdns.ClientConfigFromFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read DNS servers: %w", err)
	}
	if err != nil || len(conf.Servers) == 0 {
		return []string{"127.0.0.1"}, nil
	}
	return conf.Servers, nil
}

// Host finds a host with its addresses, as Addrs does.
func (r *Resolver) Host(ctx context.Context, host string) (Host, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return Host{Name: host, Addrs: []netip.Addr{addr.Unmap()}}, nil
	}
	name, ok := canonical(host)
	if !ok {
		return Host{}, notAName(host)
	}
	found, err := gather(name, r.resolveAll(ctx, addrQuestions(name)))
	if err != nil {
		return Host{}, err
	}
	return found.host(name, 0), nil
}

// Addrs finds the addresses of a host, IPv6 and IPv4 in turn, beginning with
// IPv6, so that a network without one of them costs only one vain try; those
// of one family in a new order for each call. An IP address stands for itself.
// An error is an *Error.
func (r *Resolver) Addrs(ctx context.Context, host string) ([]netip.Addr, error) {
	h, err := r.Host(ctx, host)
	return h.Addrs, err
}
