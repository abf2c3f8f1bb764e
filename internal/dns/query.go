package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	mdns "github.com/miekg/dns"
)

const (
	// udpSize is what arrives unfragmented nearly everywhere (DNS flag day
	// 2020, RFC 9715).
	udpSize = 1232
	// rounds is how often a server that says nothing is asked.
	rounds = 2
	// A failure is kept for as long as it took to find out, within these
	// bounds, so that a dead domain costs each of its recipients no new wait
	// (RFC 2308 section 7 allows up to five minutes).
	minFailureTTL = time.Second
	maxFailureTTL = 30 * time.Second
)

// flight is a question under way. answer is set before done is closed, or
// stays nil when the one who asked gave up.
type flight struct {
	done   chan struct{}
	answer *answer
}

// result is what became of one question, its CNAME chain followed.
type result struct {
	*answer
	err error // answer is nil
}

// resolveAll answers all questions, those not in the cache at the same time.
func (r *Resolver) resolveAll(ctx context.Context, qs []question) []result {
	out := make([]result, len(qs))
	var wg sync.WaitGroup
	for i, q := range qs {
		if a := r.cached(q); a != nil && !a.open && a.failure == nil {
			out[i].answer = a
			continue
		}
		wg.Go(func() { out[i] = r.resolve(ctx, q) })
	}
	wg.Wait()
	return out
}

// resolve asks q, and asks on where a chain of aliases leaves the response.
func (r *Resolver) resolve(ctx context.Context, q question) result {
	a, err := r.ask(ctx, q)
	if err != nil || a.failure != nil || !a.open {
		return done(a, err)
	}
	first, links, expires, secure := *a, a.links, a.expires, a.secure
	for a.open {
		a, err = r.ask(ctx, question{a.name, q.qtype})
		if err != nil || a.failure != nil {
			return done(a, err)
		}
		if links += a.links + 1; links > maxLinks {
			return result{err: fmt.Errorf("%w (from %s)", errLongChain, first.server)}
		}
		secure = secure && a.secure
		if a.expires.Before(expires) {
			expires = a.expires
		}
	}
	whole := *a
	whole.links, whole.expires, whole.secure = links, expires, secure
	return result{answer: &whole}
}

func done(a *answer, err error) result {
	if err != nil {
		return result{err: err}
	}
	if a.failure != nil {
		return result{err: a.failure}
	}
	return result{answer: a}
}

func (r *Resolver) cached(q question) *answer {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cache.get(q, time.Now())
}

// ask answers q from the cache or from the servers. Of those who ask the same
// at the same time one asks the servers; when its context ends before, one of
// the others takes its place. The error is that of ctx.
func (r *Resolver) ask(ctx context.Context, q question) (*answer, error) {
	for {
		r.mu.Lock()
		if a := r.cache.get(q, time.Now()); a != nil {
			r.mu.Unlock()
			return a, nil
		}
		f, flying := r.flights[q]
		if !flying {
			f = &flight{done: make(chan struct{})}
			r.flights[q] = f
		}
		r.mu.Unlock()

		if !flying {
			return r.lead(ctx, q, f)
		}
		select {
		case <-f.done:
			if f.answer != nil {
				return f.answer, nil
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// lead asks the servers for all who wait for f.
func (r *Resolver) lead(ctx context.Context, q question, f *flight) (*answer, error) {
	var a *answer
	var err error
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.flights, q)
		if a != nil {
			f.answer = a
			r.cache.put(q, a)
		}
		close(f.done)
	}()
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	a, err = r.askServers(ctx, q)
	return a, err
}

// askServers asks one server after the other, first the one that was of use
// last, and those that say nothing once more. The error is that of ctx.
func (r *Resolver) askServers(ctx context.Context, q question) (*answer, error) {
	began := time.Now()
	first := int(r.first.Load())
	refusals := make([]error, len(r.servers)) // by a response; final
	silences := make([]error, len(r.servers)) // none came
	for range rounds {
		for i := range r.servers {
			n := (first + i) % len(r.servers)
			if refusals[n] != nil {
				continue
			}
			m, err := r.exchange(ctx, r.servers[n], q)
			if err != nil {
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				silences[n] = fmt.Errorf("%w from %s", err, r.servers[n])
				continue
			}
			silences[n] = nil
			a, err := interpret(q, m, time.Now())
			if err == nil {
				r.first.Store(int32(n))
				a.server, a.secure = r.servers[n], a.secure && r.trusted
				return a, nil
			}
			refusals[n] = fmt.Errorf("%w from %s", err, r.servers[n])
		}
	}
	now := time.Now()
	ttl := min(max(now.Sub(began), minFailureTTL), maxFailureTTL)
	return &answer{
		name:    q.name,
		failure: errors.Join(append(refusals, silences...)...),
		expires: now.Add(ttl),
	}, nil
}

// exchange puts q to one server: over UDP, over TCP when the answer does not
// fit (RFC 7766 section 5), and without EDNS when the server does not know it
// (RFC 6891 section 7).
func (r *Resolver) exchange(ctx context.Context, server string, q question) (*mdns.Msg, error) {
	req := new(mdns.Msg).SetQuestion(q.name, q.qtype)
	// Servers tell that they have validated an answer when either bit asks for it
	// (RFC 6840 section 5.7); some know only one of them.
	req.SetEdns0(udpSize, r.trusted)
	req.AuthenticatedData = r.trusted
	m, err := r.send(ctx, server, req)
	if err != nil {
		return nil, err
	}
	switch m.Rcode {
	case mdns.RcodeFormatError, mdns.RcodeNotImplemented, mdns.RcodeBadVers:
		m, err = r.send(ctx, server, new(mdns.Msg).SetQuestion(q.name, q.qtype))
	}
	return m, err
}

// overNetwork is the Resolver's send, but in tests.
func overNetwork(timeout time.Duration) sendFunc {
	return func(ctx context.Context, server string, req *mdns.Msg) (*mdns.Msg, error) {
		m, err := roundTrip(ctx, "udp", server, req, timeout)
		if err == nil && m.Truncated {
			m, err = roundTrip(ctx, "tcp", server, req, timeout)
		}
		return m, err
	}
}

// roundTrip sends req from a socket of its own, so that each question comes
// from another port (RFC 5452 section 9.2), and waits for the response to it.
func roundTrip(ctx context.Context, network, server string, req *mdns.Msg, timeout time.Duration) (*mdns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	nc, err := new(net.Dialer).DialContext(ctx, network, server)
	if err != nil {
		return nil, brief(err, timeout)
	}
	conn := &mdns.Conn{Conn: nc, UDPSize: 4096}
	defer conn.Close()
	if d, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(d) // an error shows up in the next line
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := conn.WriteMsg(req); err != nil {
		return nil, brief(err, timeout)
	}
	for {
		b, err := conn.ReadMsgHeader(nil)
		if errors.Is(err, mdns.ErrShortRead) && network == "udp" {
			continue
		}
		if err != nil {
			return nil, brief(err, timeout)
		}
		m := new(mdns.Msg)
		err = m.Unpack(b)
		switch {
		case m.Truncated && network == "udp" && m.Response && m.Id == req.Id:
			return m, nil // cut anywhere; only the bit counts
		case err == nil && answers(m, req):
			return m, nil
		case network == "tcp":
			return nil, errors.New("a response that does not fit the question")
		}
		// Late, forged or broken: the true one may yet come (RFC 5452
		// section 9.1).
	}
}

// answers tells whether m is a response to req.
func answers(m, req *mdns.Msg) bool {
	if !m.Response || m.Id != req.Id || m.Opcode != mdns.OpcodeQuery {
		return false
	}
	if len(m.Question) == 0 {
		// Servers that could not read the question cannot repeat it.
		return m.Rcode != mdns.RcodeSuccess && m.Rcode != mdns.RcodeNameError
	}
	got, want := m.Question[0], req.Question[0]
	return len(m.Question) == 1 && got.Qtype == want.Qtype && got.Qclass == want.Qclass &&
		strings.EqualFold(got.Name, want.Name)
}

// brief is a network error without addresses, which the caller knows, in words
// for people.
func brief(err error, timeout time.Duration) error {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %v", timeout)
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		return call.Err
	}
	return err
}
