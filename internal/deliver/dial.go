package deliver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"postrider/internal/dns"
	"postrider/internal/relay"
	"postrider/internal/smtpclient"
)

// link is how a connection came about, for the record of its attempts.
type link struct {
	hosts  []relay.HostTry // the last one serves, where one does
	source netip.Addr
	tls    *relay.TLS
}

// host is the name of the host that serves, or that was tried last.
func (l link) host() string {
	if len(l.hosts) == 0 {
		return ""
	}
	return l.hosts[len(l.hosts)-1].Name
}

// maxTries bounds the addresses that are tried for one connection, as RFC 5321
// section 5.1 allows: at least two, if there are so many.
const maxTries = 8

// dial connects to the first host of the destination that serves, in the order
// of preference; hosts that were down a moment ago come last.
func (d *Dispatcher) dial(ctx context.Context, dest *destination, strict bool) (*smtpclient.Conn, link, error) {
	var l link
	var last error
	for _, c := range d.candidates(dest) {
		conn, source, err := d.dialOne(ctx, dest, c, strict)
		try := relay.HostTry{Name: c.name, Addr: c.addr}
		if err == nil {
			l.hosts = append(l.hosts, try)
			l.source, l.tls = source, tlsRecord(conn.TLS())
			return conn, l, nil
		}
		try.Error = err.Error()
		l.hosts = append(l.hosts, try)
		last = err
		if ctx.Err() != nil {
			return nil, l, context.Cause(ctx)
		}
	}
	return nil, l, last
}

// candidate is one address of one host.
type candidate struct {
	name string
	addr netip.AddrPort
}

func (d *Dispatcher) candidates(dest *destination) []candidate {
	hosts := slices.Clone(dest.hosts)
	rand.Shuffle(len(hosts), func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
	slices.SortStableFunc(hosts, func(a, b dns.Host) int { return int(a.Pref) - int(b.Pref) })
	var good, dead []candidate
	now := time.Now()
	for _, h := range hosts {
		for _, a := range h.Addrs {
			c := candidate{h.Name, netip.AddrPortFrom(a, uint16(dest.route.Port))}
			if d.dead.is(c.addr, now) {
				dead = append(dead, c)
			} else {
				good = append(good, c)
			}
		}
	}
	all := append(good, dead...)
	return all[:min(len(all), maxTries)]
}

// dialOne connects to one address. Where STARTTLS breaks and TLS is not
// demanded, it connects once more and goes without: mail that is sent in the
// clear to a broken server is what opportunistic means.
func (d *Dispatcher) dialOne(ctx context.Context, dest *destination, c candidate, strict bool) (*smtpclient.Conn, netip.Addr, error) {
	mode := dest.route.TLS
	if strict && mode == smtpclient.Opportunistic {
		mode = smtpclient.Required
	}
	conn, source, err := d.dialMode(ctx, dest, c, mode)
	var e *smtpclient.Error
	if mode == smtpclient.Opportunistic && errors.As(err, &e) && e.Stage == "starttls" && ctx.Err() == nil {
		d.log.Info("STARTTLS fails; going on without TLS", "host", c.name, "addr", c.addr, "err", err)
		return d.dialMode(ctx, dest, c, smtpclient.Never)
	}
	return conn, source, err
}

func (d *Dispatcher) dialMode(ctx context.Context, dest *destination, c candidate, mode smtpclient.TLSMode) (*smtpclient.Conn, netip.Addr, error) {
	dialer := net.Dialer{Timeout: d.config.Connect}
	for _, s := range d.config.Source {
		if s.Is4() == c.addr.Addr().Unmap().Is4() {
			dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(s, 0))
		}
	}
	nc, err := dialer.DialContext(ctx, "tcp", c.addr.String())
	if err != nil {
		d.dead.mark(c.addr, time.Now())
		return nil, netip.Addr{}, &smtpclient.Error{Stage: "connect", Err: plainDialError(c, err)}
	}
	source := nc.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	conn, err := smtpclient.New(ctx, nc, c.name, smtpclient.Options{LocalName: d.config.Hostname, TLS: mode,
		TLSConfig: &tls.Config{RootCAs: dest.route.Roots}, Auth: dest.route.Auth, Timeouts: d.config.Timeouts})
	if err != nil {
		return nil, source, err
	}
	return conn, source, nil
}

// plainDialError says what happened without Go's way of saying it.
func plainDialError(c candidate, err error) error {
	at := net.JoinHostPort(c.addr.Addr().String(), strconv.Itoa(int(c.addr.Port())))
	if c.name != "" && c.name != c.addr.Addr().String() {
		at = c.name + " (" + at + ")"
	}
	var ne net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%s refuses the connection", at)
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return fmt.Errorf("%s can't be reached from here: %w", at, errNoRoute)
	case errors.As(err, &ne) && ne.Timeout():
		return fmt.Errorf("%s does not answer", at)
	default:
		return fmt.Errorf("connect to %s: %w", at, err)
	}
}

var errNoRoute = errors.New("the network has no way to it")

func tlsRecord(s *smtpclient.TLSState) *relay.TLS {
	if s == nil {
		return nil
	}
	return &relay.TLS{Version: s.Version, Cipher: s.Cipher, Verified: s.Verified, Problem: s.Problem, Subject: s.Subject, Issuer: s.Issuer}
}

// deadHosts remembers addresses that could not be connected to, so that the
// next connection begins with another one.
type deadHosts struct {
	mu    sync.Mutex
	until map[netip.AddrPort]time.Time
}

const (
	deadTime = time.Minute
	maxDead  = 10_000
)

func (h *deadHosts) is(a netip.AddrPort, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return now.Before(h.until[a])
}

func (h *deadHosts) mark(a netip.AddrPort, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.until) >= maxDead {
		clear(h.until)
	}
	h.until[a] = now.Add(deadTime)
}

// laneName is the set of hosts as one string, the same for any order.
func laneName(route *Route, hosts []dns.Host) string {
	parts := make([]string, 0, len(hosts))
	for _, h := range hosts {
		parts = append(parts, fmt.Sprintf("%05d %s", h.Pref, h.Name))
	}
	slices.Sort(parts)
	return route.Domain + " " + strings.Join(parts, " ")
}
