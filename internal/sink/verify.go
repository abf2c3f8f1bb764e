package sink

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"

	"postrider/internal/mailauth"
	"postrider/internal/message"
)

// Proof is what a receiver finds out of whose mail it is.
type Proof struct {
	DKIM    []mailauth.Signature `json:"dkim"`
	SPF     mailauth.SPF         `json:"spf"`
	DMARC   mailauth.DMARC       `json:"dmarc"`
	Problem string               `json:"problem,omitempty"` // why the signatures could not be checked
}

// String is a line for people, in the manner of an Authentication-Results field
// (RFC 8601).
func (p *Proof) String() string {
	var b strings.Builder
	for _, s := range p.DKIM {
		fmt.Fprintf(&b, "dkim=%s (%s %s %s); ", s.Result, s.Domain, s.Selector, s.Algorithm)
	}
	if len(p.DKIM) == 0 {
		b.WriteString("dkim=none; ")
	}
	fmt.Fprintf(&b, "spf=%s (%s); dmarc=%s", p.SPF.Result, p.SPF.Domain, p.DMARC.Result)
	var aligned []string
	if p.DMARC.DKIM {
		aligned = append(aligned, "dkim")
	}
	if p.DMARC.SPF {
		aligned = append(aligned, "spf")
	}
	switch {
	case len(aligned) > 0:
		fmt.Fprintf(&b, " (%s, aligned: %s)", p.DMARC.Domain, strings.Join(aligned, " and "))
	case p.DMARC.Domain != "":
		fmt.Fprintf(&b, " (%s, nothing aligned)", p.DMARC.Domain)
	}
	return b.String()
}

// prove checks a message as receivers do: signatures, SPF by the client's address,
// and what DMARC makes of both.
func (s *Server) prove(ctx context.Context, m *Message) *Proof {
	r := s.cfg.Resolver
	p := new(Proof)
	var err error
	if p.DKIM, err = mailauth.VerifyDKIM(ctx, r, bytes.NewReader(m.Content)); err != nil {
		p.Problem = err.Error()
	}
	if client, err := netip.ParseAddrPort(m.Client); err == nil {
		p.SPF = mailauth.CheckSPF(ctx, r, client.Addr(), m.Helo, m.From)
	}
	p.DMARC = mailauth.CheckDMARC(ctx, r, author(m.Content), p.DKIM, p.SPF)
	return p
}

// author is the domain of the one author of a message; empty where there is not
// one.
func author(content []byte) string {
	facts, err := message.Scan(message.Bytes(content))
	if err != nil || len(facts.Authors.List) != 1 {
		return ""
	}
	domain, err := facts.Authors.List[0].ASCIIDomain()
	if err != nil {
		return ""
	}
	return domain
}

// tell makes the server print a line about each message to w.
func (c *Config) tell(w io.Writer) {
	also := c.Received
	c.Received = func(m *Message) {
		_, _ = fmt.Fprintf(w, "%s from <%s> for <%s>: %s\n", m.ID, m.From, strings.Join(m.To(), ">, <"), m.Proof)
		if also != nil {
			also(m)
		}
	}
}

// shared lets many write to one writer, a whole line at a time.
type shared struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}
