// Package fakedns is a DNS server for tests and the demo: real packets over
// UDP and TCP on loopback, from a zone that can be changed, and made to
// misbehave name by name, while it runs.
//
// It answers as a recursive resolver does: whole CNAME chains, NXDOMAIN with
// an SOA for names that it does not know, NODATA with an SOA for types.
package fakedns

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Server is one running server. Its methods may be called at any time, from
// any goroutine. Names may be written with or without the last dot, in any
// case.
type Server struct {
	addr string
	done chan struct{} // closed by Close: ends delays
	end  sync.Once
	wg   sync.WaitGroup
	udp  *dns.Server
	tcp  *dns.Server

	mu      sync.Mutex
	zone    map[string][]dns.RR
	faults  map[string]fault
	signed  map[string]bool
	queries map[query]int
}

type fault struct {
	rcode    int
	silent   bool
	truncate bool
	delay    time.Duration
}

type query struct {
	name  string
	qtype uint16
}

// Start serves on addr, UDP and TCP; empty means a free port of 127.0.0.1.
func Start(addr string) (*Server, error) {
	pc, ln, err := listen(cmp.Or(addr, "127.0.0.1:0"))
	if err != nil {
		return nil, fmt.Errorf("start DNS server: %w", err)
	}
	s := &Server{
		addr:    ln.Addr().String(),
		done:    make(chan struct{}),
		zone:    make(map[string][]dns.RR),
		faults:  make(map[string]fault),
		signed:  make(map[string]bool),
		queries: make(map[query]int),
	}
	s.udp = &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(s.serve)}
	s.tcp = &dns.Server{Listener: ln, Handler: dns.HandlerFunc(s.serve)}
	for _, srv := range []*dns.Server{s.udp, s.tcp} {
		started := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		// It ends without an error after Shutdown, and on nothing else that
		// could be mended here.
		s.wg.Go(func() { _ = srv.ActivateAndServe() })
		<-started
	}
	return s, nil
}

// listen finds a port that is free for both UDP and TCP.
func listen(addr string) (net.PacketConn, net.Listener, error) {
	var errs []error
	for range 20 {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, nil, err
		}
		pc, err := net.ListenPacket("udp", ln.Addr().String())
		if err == nil {
			return pc, ln, nil
		}
		errs = append(errs, err, ln.Close())
	}
	return nil, nil, errors.Join(errs...)
}

// Addr is where the server listens, as host:port.
func (s *Server) Addr() string { return s.addr }

// Close stops the server and waits until nothing of it runs. Answers still
// held back by a delay are dropped.
func (s *Server) Close() {
	s.end.Do(func() {
		close(s.done)
		_ = s.udp.Shutdown()
		_ = s.tcp.Shutdown()
	})
	s.wg.Wait()
}

// Add adds records, each a line of a zone file:
//
//	example.test. 60 IN MX 10 mx1.example.test.
//
// A name whose first label is * answers for all unknown names below the rest.
// Without any SOA record, negative answers carry one with a TTL of 5 seconds.
func (s *Server) Add(lines ...string) error {
	rrs := make([]dns.RR, 0, len(lines))
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil {
			return fmt.Errorf("add record %q: %w", line, err)
		}
		if rr == nil {
			return fmt.Errorf("add record %q: no record in it", line)
		}
		rrs = append(rrs, rr)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rr := range rrs {
		name := dns.CanonicalName(rr.Header().Name)
		s.zone[name] = append(s.zone[name], rr)
	}
	return nil
}

// Remove removes the records of a name that have one of the types, or all of
// them when no type is given.
func (s *Server) Remove(name string, types ...uint16) {
	name = dns.CanonicalName(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := slices.DeleteFunc(slices.Clone(s.zone[name]), func(rr dns.RR) bool {
		return len(types) == 0 || slices.Contains(types, rr.Header().Rrtype)
	})
	if len(rest) == 0 {
		delete(s.zone, name)
		return
	}
	s.zone[name] = rest
}

// Sign makes the server claim, by the AD bit, that it has validated what it says
// of the zone's names, to whom asks for that. An answer with an alias that leads
// out of signed zones is not validated.
func (s *Server) Sign(zones ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, z := range zones {
		s.signed[dns.CanonicalName(z)] = true
	}
}

// validated tells whether a name lies in a signed zone. s.mu is held.
func (s *Server) validated(name string) bool {
	for zone := range s.signed {
		if dns.IsSubDomain(zone, name) {
			return true
		}
	}
	return false
}

// Fail answers all questions for name with rcode (dns.RcodeServerFailure, …)
// until Restore.
func (s *Server) Fail(name string, rcode int) {
	s.fault(name, func(f *fault) { f.rcode = rcode })
}

// Silence leaves all questions for name unanswered until Restore.
func (s *Server) Silence(name string) {
	s.fault(name, func(f *fault) { f.silent = true })
}

// Delay answers questions for name after d, until Restore.
func (s *Server) Delay(name string, d time.Duration) {
	s.fault(name, func(f *fault) { f.delay = d })
}

// Truncate answers questions for name over UDP with an empty, truncated
// message until Restore, so that the client must come again over TCP.
func (s *Server) Truncate(name string) {
	s.fault(name, func(f *fault) { f.truncate = true })
}

// Restore ends all misbehaviour for name.
func (s *Server) Restore(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.faults, dns.CanonicalName(name))
}

func (s *Server) fault(name string, set func(*fault)) {
	name = dns.CanonicalName(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.faults[name]
	set(&f)
	s.faults[name] = f
}

// Queries counts the questions for name and type that came so far, answered or
// not. One that came over UDP and again over TCP counts twice.
func (s *Server) Queries(name string, qtype uint16) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queries[query{dns.CanonicalName(name), qtype}]
}

func (s *Server) serve(w dns.ResponseWriter, req *dns.Msg) {
	q := req.Question[0] // miekg/dns lets exactly one question through
	name := dns.CanonicalName(q.Name)

	s.mu.Lock()
	s.queries[query{name, q.Qtype}]++
	f := s.faults[name]
	m := new(dns.Msg)
	m.SetReply(req)
	m.RecursionAvailable = true
	if f.rcode != dns.RcodeSuccess {
		m.Rcode = f.rcode
	} else {
		secure := s.answer(m, name, q.Qtype)
		opt := req.IsEdns0()
		m.AuthenticatedData = secure && (req.AuthenticatedData || opt != nil && opt.Do())
	}
	s.mu.Unlock()

	if f.silent {
		return
	}
	if f.delay > 0 {
		late := time.NewTimer(f.delay)
		defer late.Stop()
		select {
		case <-late.C:
		case <-s.done:
			return
		}
	}
	opt := req.IsEdns0()
	if opt != nil {
		m.SetEdns0(opt.UDPSize(), opt.Do())
	}
	if w.LocalAddr().Network() == "udp" {
		if f.truncate {
			m.Answer, m.Ns, m.Truncated = nil, nil, true
		}
		size := dns.MinMsgSize
		if opt != nil {
			size = max(size, int(opt.UDPSize()))
		}
		m.Truncate(size)
	}
	_ = w.WriteMsg(m) // the client may be gone
}

// answer fills in what the zone has for the question, and tells whether all of it
// is from signed zones. s.mu is held.
func (s *Server) answer(m *dns.Msg, name string, qtype uint16) (secure bool) {
	secure = true
	seen := make(map[string]bool)
	for !seen[name] {
		seen[name] = true
		secure = secure && s.validated(name)
		rrs, exists := s.lookup(name)
		if !exists {
			m.Rcode = dns.RcodeNameError
			m.Ns = append(m.Ns, s.soa(name))
			return secure
		}
		var alias *dns.CNAME
		var found bool
		for _, rr := range rrs {
			rr = dns.Copy(rr)
			rr.Header().Name = name // for wildcards
			if rr.Header().Rrtype == qtype {
				m.Answer = append(m.Answer, rr)
				found = true
			} else if c, ok := rr.(*dns.CNAME); ok {
				alias = c
			}
		}
		if found {
			return secure
		}
		if alias == nil {
			m.Ns = append(m.Ns, s.soa(name))
			return secure
		}
		m.Answer = append(m.Answer, alias)
		name = dns.CanonicalName(alias.Target)
	}
	return secure
}

// lookup finds the records of a name, itself or by a wildcard, and tells
// whether the name exists: a name with records below it does (RFC 8020).
func (s *Server) lookup(name string) ([]dns.RR, bool) {
	if rrs, ok := s.zone[name]; ok {
		return rrs, true
	}
	for known := range s.zone {
		if dns.IsSubDomain(name, known) {
			return nil, true
		}
	}
	for off, end := dns.NextLabel(name, 0); !end; off, end = dns.NextLabel(name, off) {
		if rrs, ok := s.zone["*."+name[off:]]; ok {
			return rrs, true
		}
	}
	return nil, false
}

// soa is the SOA record for a negative answer about name.
func (s *Server) soa(name string) dns.RR {
	for off, end := 0, false; !end; off, end = dns.NextLabel(name, off) {
		for _, rr := range s.zone[name[off:]] {
			if rr.Header().Rrtype == dns.TypeSOA {
				return rr
			}
		}
	}
	top := name[strings.LastIndexByte(strings.TrimSuffix(name, "."), '.')+1:]
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: top, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 5},
		Ns:  "ns." + strings.TrimPrefix(top, "."), Mbox: "hostmaster." + strings.TrimPrefix(top, "."),
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: 5,
	}
}
