package signing

import (
	"context"
	"fmt"

	"postrider/internal/mailauth"
	"postrider/internal/relay"
	"postrider/internal/seal"
	"postrider/internal/store"
)

// Files keeps what all nodes share.
type Files interface {
	// File gives a file, or a relay.Error NotFound.
	File(ctx context.Context, name string) (*store.File, error)
	// EnsureFile keeps a file where there is none, and gives the one that is there.
	EnsureFile(ctx context.Context, name string, content []byte) (kept []byte, err error)
}

// Service gives the keys by which the relay signs in its own name, RSA and
// Ed25519 with the selectors <selector>r and <selector>e, and makes those that it
// has not. All nodes have the same.
func Service(ctx context.Context, files Files, box *seal.Box, domain, selector string) ([]mailauth.Signer, error) {
	var all []mailauth.Signer
	for _, k := range []struct{ algorithm, suffix string }{{mailauth.RSA, "r"}, {mailauth.Ed25519, "e"}} {
		s := mailauth.Signer{Domain: domain, Selector: selector + k.suffix}
		var err error
		if s.Key, err = serviceKey(ctx, files, box, s, k.algorithm); err != nil {
			return nil, fmt.Errorf("keep the relay's own DKIM key: %w", err)
		}
		all = append(all, s)
	}
	return all, nil
}

func serviceKey(ctx context.Context, files Files, box *seal.Box, s mailauth.Signer, algorithm string) (*mailauth.Key, error) {
	name := "dkim/" + s.Domain + "/" + s.Selector
	var sealed []byte
	f, err := files.File(ctx, name)
	switch {
	case err == nil:
		sealed = f.Bytes
	case relay.CodeOf(err) != relay.NotFound:
		return nil, err
	default:
		key, err := mailauth.NewKey(algorithm)
		if err != nil {
			return nil, err
		}
		der, err := key.Marshal()
		if err != nil {
			return nil, err
		}
		if sealed, err = files.EnsureFile(ctx, name, box.Seal(der, name)); err != nil {
			return nil, err
		}
	}
	der, err := box.Open(sealed, name)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return mailauth.ParseKey(der)
}
