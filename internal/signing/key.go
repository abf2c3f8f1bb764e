// Package signing signs what leaves: it finds the keys of the domain in whose
// name a message is sent, makes the DKIM signatures once for each rendering of
// it, and names the return path by which a later bounce finds its delivery.
package signing

import (
	"fmt"
	"time"

	"postrider/internal/mailauth"
	"postrider/internal/relay"
	"postrider/internal/seal"
)

// NewKey makes a DKIM key for a domain, which waits to be published. Its private
// half is sealed for this account, domain and selector.
func NewKey(box *seal.Box, d *relay.Domain, selector, algorithm string, now time.Time) (relay.DKIMKey, error) {
	k, err := mailauth.NewKey(algorithm)
	if err != nil {
		return relay.DKIMKey{}, err
	}
	der, err := k.Marshal()
	if err != nil {
		return relay.DKIMKey{}, err
	}
	return relay.DKIMKey{Selector: selector, Algorithm: algorithm, Public: k.Record(),
		Sealed: box.Seal(der, purpose(d, selector)), State: relay.KeyWaiting, Since: now}, nil
}

// openKey gives the private half of a key.
func openKey(box *seal.Box, d *relay.Domain, k relay.DKIMKey) (*mailauth.Key, error) {
	der, err := box.Open(k.Sealed, purpose(d, k.Selector))
	if err != nil {
		return nil, fmt.Errorf("open DKIM key %s of %s: %w", k.Selector, d.Name, err)
	}
	key, err := mailauth.ParseKey(der)
	if err != nil {
		return nil, fmt.Errorf("read DKIM key %s of %s: %w", k.Selector, d.Name, err)
	}
	return key, nil
}

func purpose(d *relay.Domain, selector string) string {
	return "dkim " + d.Account.String() + " " + d.Name + " " + selector
}
