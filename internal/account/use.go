package account

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"postrider/internal/relay"
)

// settled is for how long a credential must have been in use before a network
// that it never came from is worth a remark.
const settled = 24 * time.Hour

// uses are those of credentials that are not noted yet: the last one of each
// from each network.
type uses struct {
	mu sync.Mutex
	by map[useKey]relay.Use
}

type useKey struct {
	credential relay.ID
	network    netip.Prefix
}

// note keeps in mind that a credential was used.
func (u *uses) note(c *relay.Credential, client netip.Addr) {
	client = client.Unmap().WithZone("")
	bits := 24
	if client.Is6() {
		bits = 48
	}
	network, err := client.Prefix(bits)
	if err != nil {
		return // no address: not from a network
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.by == nil || len(u.by) >= maxCached {
		u.by = map[useKey]relay.Use{} // what is dropped is used again, or was used from everywhere
	}
	u.by[useKey{c.ID, network}] = relay.Use{Account: c.Account, Credential: c.ID, Client: client, Network: network, At: time.Now().UTC().Truncate(time.Microsecond)}
}

// take empties it.
func (u *uses) take() (all []relay.Use) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, use := range u.by {
		all = append(all, use)
	}
	u.by = nil
	return all
}

// noteUses writes what was used since the last time, all at once. What can't be
// written is forgotten: the next use comes.
func (s *Service) noteUses(ctx context.Context) {
	all := s.uses.take()
	if len(all) == 0 {
		return
	}
	strange, err := s.store.UseCredentials(ctx, all, time.Now().Add(-settled))
	if err != nil {
		s.log.Warn("the use of credentials cannot be noted", "err", err)
		return
	}
	for _, u := range strange {
		s.log.Warn("a credential was used from a network that it never came from", "credential", u.Credential.String(), "client", u.Client, "network", u.Network)
	}
}
