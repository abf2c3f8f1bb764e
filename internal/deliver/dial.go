package deliver

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
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
	"postrider/internal/feedback"
	"postrider/internal/relay"
	"postrider/internal/smtpclient"
	"postrider/internal/tlspolicy"
)

// link is how a connection came about, for the record of its attempts.
type link struct {
	dialled time.Time       // when it was begun
	hosts   []relay.HostTry // the last one serves, where one does
	source  netip.Addr
	tls     *relay.TLS
	policy  string   // what was asked of TLS at the last host, as relay.Attempt says it
	tries   []tlsTry // sessions that got as far as TLS, or would have
	// best: the host that serves is a most preferred one. Only these name the
	// site: what one of less preference says is not the site's word, or anybody
	// could have a say by naming their own host behind the site's.
	best bool
	// refused: a most preferred host answered, and it was a refusal.
	refused bool
}

// host is the name of the host that serves, or that was tried last.
func (l link) host() string {
	if len(l.hosts) == 0 {
		return ""
	}
	return l.hosts[len(l.hosts)-1].Name
}

// Bounds on what is tried for one connection. RFC 5321 section 5.1 asks for two
// addresses at least.
const (
	maxTries    = 8 // addresses
	maxSessions = 3 // of them, that took the connection but not more
)

// dial connects to the first host of the destination that serves, in the order
// of preference; hosts that were down a moment ago come last.
func (d *Dispatcher) dial(ctx context.Context, dest *destination, need need, watch *watch) (*smtpclient.Conn, link, error) {
	l := link{dialled: time.Now()}
	var failed error
	sessions := 0
	for _, c := range d.candidates(dest, need) {
		t := dest.terms(c.name, need)
		l.policy = t.policy
		conn, err := d.dialOne(ctx, &l, dest.route, c, t, watch)
		if ctx.Err() == nil {
			l.noteTLS(c, conn, err)
		}
		if e := (*smtpclient.Error)(nil); errors.As(err, &e) && e.Stage == smtpclient.StageTLS && ctx.Err() == nil {
			d.config.Observer.TLSFailed(dest.site)
		}
		if t.mode == smtpclient.Opportunistic && brokenTLS(err) && ctx.Err() == nil {
			// Mail that is sent in the clear to a broken server is what
			// opportunistic means (RFC 7435 section 3).
			d.log.Info("TLS fails; going on without", "host", c.name, "addr", c.addr, "err", err)
			conn, err = d.dialOne(ctx, &l, dest.route, c, terms{mode: smtpclient.Never}, watch)
		}
		if err == nil {
			l.best, l.tls = c.best, tlsRecord(conn.TLS())
			return conn, l, nil
		}
		if ctx.Err() != nil {
			return nil, l, context.Cause(ctx)
		}
		if (t.refused != nil || need == strictTLS && lacksTLS(err)) && failed != nil {
			continue // the other error may pass, so it counts
		}
		failed = err
		if e := (*smtpclient.Error)(nil); errors.As(err, &e) && e.Stage != feedback.StageConnect && t.refused == nil {
			l.refused = l.refused || c.best && e.Reply != nil
			if sessions++; sessions == maxSessions {
				break
			}
		}
	}
	return nil, l, failed
}

// brokenTLS tells whether a peer offers TLS that does not work.
func brokenTLS(err error) bool {
	var e *smtpclient.Error
	return errors.As(err, &e) && e.Stage == smtpclient.StageTLS && e.Reply == nil
}

// lacksTLS tells whether a host does not have the TLS that is demanded, and
// will hardly have it soon. A network that fails during the handshake says
// nothing of the kind.
func lacksTLS(err error) bool {
	var e *smtpclient.Error
	if !errors.As(err, &e) || e.Stage != smtpclient.StageTLS {
		return false
	}
	if e.Reply != nil {
		return e.Reply.Permanent()
	}
	var ours *tlspolicy.Failure
	if errors.As(e.Err, &ours) {
		return false // a broken policy may be mended
	}
	var ne net.Error
	return !(errors.As(e.Err, &ne) && ne.Timeout() || errors.Is(e.Err, io.EOF) || errors.Is(e.Err, io.ErrUnexpectedEOF) ||
		errors.Is(e.Err, syscall.ECONNRESET) || errors.Is(e.Err, syscall.EPIPE))
}

// candidate is one address of one host.
type candidate struct {
	name string
	addr netip.AddrPort
	best bool // no host is preferred to this one
}

// candidates are the addresses to try, in order. Those of hosts that the
// receiver's policy forbids come last: they are told of, and not tried.
func (d *Dispatcher) candidates(dest *destination, need need) []candidate {
	hosts := slices.Clone(dest.hosts)
	rand.Shuffle(len(hosts), func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
	slices.SortStableFunc(hosts, func(a, b dns.Host) int { return cmp.Compare(a.Pref, b.Pref) })
	var good, dead, forbidden []candidate
	now := time.Now()
	for _, h := range hosts {
		for _, a := range h.Addrs {
			c := candidate{h.Name, netip.AddrPortFrom(a, uint16(dest.route.Port)), h.Pref == hosts[0].Pref}
			switch {
			case dest.terms(h.Name, need).refused != nil:
				forbidden = append(forbidden, c)
			case d.dead.is(c.addr, now):
				dead = append(dead, c)
			default:
				good = append(good, c)
			}
		}
	}
	all := slices.Concat(good, dead, forbidden)
	return all[:min(len(all), maxTries)]
}

// dialOne connects to one address and notes in l what came of it.
func (d *Dispatcher) dialOne(ctx context.Context, l *link, r *Route, c candidate, t terms, watch *watch) (*smtpclient.Conn, error) {
	try := relay.HostTry{Name: c.name, Addr: c.addr}
	if t.refused != nil {
		try.Error = t.refused.Text
		l.hosts = append(l.hosts, try)
		watch.connected(c, l, t.refused)
		return nil, &smtpclient.Error{Stage: smtpclient.StageTLS, Err: t.refused}
	}
	dialer := net.Dialer{Timeout: d.config.Connect, KeepAlive: -1} // no connection is idle for long
	for _, s := range d.config.Source {
		if s.Is4() == c.addr.Addr().Unmap().Is4() {
			dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(s, 0))
		}
	}
	watch.connecting(c)
	nc, err := dialer.DialContext(ctx, "tcp", c.addr.String())
	if err != nil {
		err = &smtpclient.Error{Stage: feedback.StageConnect, Err: plainDialError(c, err)}
		watch.connected(c, l, err)
	}
	var conn *smtpclient.Conn
	if err == nil {
		l.source = nc.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		watch.connected(c, l, nil)
		conn, err = smtpclient.New(ctx, nc, c.name, smtpclient.Options{LocalName: d.config.Hostname, TLS: t.mode, Verify: t.verify,
			TLSConfig: &tls.Config{RootCAs: r.Roots, ServerName: t.name, InsecureSkipVerify: t.lax}, Auth: r.Auth, Timeouts: d.config.Timeouts, Watch: watch.session()})
		if err = t.explain(err); err != nil {
			watch.broke(err)
		}
	}
	if err != nil {
		try.Error = words(err)
		if e := (*smtpclient.Error)(nil); ctx.Err() == nil && errors.As(err, &e) && e.Reply == nil &&
			(e.Stage == feedback.StageConnect || e.Stage == smtpclient.StageGreeting) {
			d.dead.mark(c.addr, time.Now())
		}
	}
	l.hosts = append(l.hosts, try)
	return conn, err
}

// words is an error without the step in which it happened: the record has that
// beside it.
func words(err error) string {
	var e *smtpclient.Error
	switch {
	case !errors.As(err, &e):
		return err.Error()
	case e.Reply != nil:
		return e.Reply.String()
	default:
		return e.Err.Error()
	}
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

// laneName is the set of hosts as one string, the same for any order, with what
// TLS each of them must have.
func laneName(route *Route, hosts []dns.Host, rs rules) string {
	parts := make([]string, 0, len(hosts))
	for _, h := range hosts {
		part := fmt.Sprintf("%05d %s", h.Pref, h.Name)
		if r := rs.of[h.Name]; r != nil {
			part += " (" + r.Key() + ")"
		}
		parts = append(parts, part)
	}
	slices.Sort(parts)
	return route.Domain + " " + strings.Join(parts, " ")
}
