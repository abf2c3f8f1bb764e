package track

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"postrider/internal/relay"
	"postrider/internal/smtp"
)

// Directory finds the domain of an account that a name is, or is below; nil where
// there is none.
type Directory interface {
	Domain(ctx context.Context, account relay.ID, name string) (*relay.Domain, error)
}

// DomainStore finds the domain of a name; asked for everyone, the verified one.
type DomainStore interface {
	DomainByName(ctx context.Context, account relay.ID, name string) (*relay.Domain, error)
}

// HostsConfig says where links lead to.
type HostsConfig struct {
	// URL is the address of the service's own host, without a path. Empty: there are
	// no links.
	URL string
	// Own lets mail in the name of a domain have links on the domain's tracking
	// host. Ready tells whether that can be had with TLS; nil: it always can.
	Own   bool
	Ready func(ctx context.Context, host string) bool
}

// Hosts knows on which host the links of a message are, and whose a host is.
type Hosts struct {
	config    HostsConfig
	base      *url.URL // nil: no links
	directory Directory
	store     DomainStore
	now       func() time.Time

	mu     sync.Mutex
	owners map[string]ownership
}

// ownership is whose a host was at a time; zero: nobody's.
type ownership struct {
	account relay.ID
	seen    time.Time
}

const (
	ownersFor = 30 * time.Second // that an answer is believed
	maxOwners = 10_000
)

// NewHosts makes Hosts. The URL must be one.
func NewHosts(c HostsConfig, d Directory, s DomainStore) (*Hosts, error) {
	h := &Hosts{config: c, directory: d, store: s, now: time.Now, owners: map[string]ownership{}}
	if c.URL == "" {
		return h, nil
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, fmt.Errorf("read the address of links: %w", err)
	}
	u.Host = strings.ToLower(u.Host)
	h.base = &url.URL{Scheme: u.Scheme, Host: u.Host}
	return h, nil
}

// Base is where the links of a message lead to, such as "https://track.example.com";
// empty: it has none. The domain is that in whose name the message is sent; nil:
// none that we know of.
func (h *Hosts) Base(ctx context.Context, m *relay.Message) (base string, d *relay.Domain, err error) {
	if h.base == nil {
		return "", nil, nil
	}
	if d, err = h.domain(ctx, m); err != nil {
		return "", nil, err
	}
	if d == nil || !h.config.Own {
		return h.base.String(), d, nil
	}
	own := d.TrackingHost()
	if own == "" || h.config.Ready != nil && !h.config.Ready(ctx, own) {
		return h.base.String(), d, nil
	}
	u := *h.base
	if u.Host = own; h.base.Port() != "" {
		u.Host = net.JoinHostPort(own, h.base.Port())
	}
	return u.String(), d, nil
}

func (h *Hosts) domain(ctx context.Context, m *relay.Message) (*relay.Domain, error) {
	name := smtp.ASCIIDomainOf(m.From)
	if name == "" {
		return nil, nil
	}
	d, err := h.directory.Domain(ctx, m.Account, name)
	if err != nil {
		return nil, fmt.Errorf("find the domain of %s: %w", m.From, err)
	}
	return d, nil
}

// serves tells whether links of an account work on a host: the service's own, or
// the tracking host of a verified domain of it. Whether its CNAME is in order is
// no matter: who asks has found the way.
func (h *Hosts) serves(ctx context.Context, host string, of func(account relay.ID) bool) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if h.base != nil && host == h.base.Hostname() {
		return true
	}
	owner, err := h.owner(ctx, host)
	if err != nil {
		// The link is ours all the same, and whoever follows it is not to suffer
		// from a store that is away.
		return true
	}
	return !owner.IsZero() && of(owner)
}

func (h *Hosts) owner(ctx context.Context, host string) (relay.ID, error) {
	label, name, ok := strings.Cut(host, ".")
	if !ok || len(host) > 255 {
		return relay.ID{}, nil
	}
	h.mu.Lock()
	before, known := h.owners[host]
	h.mu.Unlock()
	now := h.now()
	if known && now.Sub(before.seen).Abs() < ownersFor {
		return before.account, nil
	}
	found := ownership{seen: now}
	d, err := h.store.DomainByName(ctx, relay.Everyone, name)
	switch {
	case err == nil && !d.Verified.IsZero() && d.Tracking == label:
		found.account = d.Account
	case err != nil && relay.CodeOf(err) != relay.NotFound && known:
		return before.account, nil
	case err != nil && relay.CodeOf(err) != relay.NotFound:
		return relay.ID{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.owners) >= maxOwners {
		clear(h.owners) // names that somebody makes up must not fill the memory
	}
	h.owners[host] = found
	return found.account, nil
}
