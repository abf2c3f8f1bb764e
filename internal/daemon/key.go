package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"postrider/internal/config"
	"postrider/internal/mailauth"
	"postrider/internal/relay"
	"postrider/internal/seal"
	"postrider/internal/signing"
	"postrider/internal/store"
)

// files keeps what all nodes share.
type files interface {
	File(ctx context.Context, name string) (*store.File, error)
	EnsureFile(ctx context.Context, name string, content []byte) (kept []byte, err error)
}

// checkName is the file in the store by which nodes see that they have the same
// master key.
const checkName = "seal/check"

// openBox reads the master key, and makes it where this is the first start of
// all. A node whose key is not the one that the store's secrets are sealed with
// must not start: it could sign nothing, and what it sealed nobody else could
// open.
func openBox(ctx context.Context, kept files, path string, log *slog.Logger) (*seal.Box, error) {
	key, err := seal.ReadFile(path)
	made := errors.Is(err, fs.ErrNotExist)
	if made {
		switch _, err := kept.File(ctx, checkName); {
		case err == nil:
			return nil, fmt.Errorf("there is no master key at %s (master_key), and the store has secrets that are sealed with one: "+
				"copy the file from another node, or from a backup, and keep its mode (0600)", path)
		case relay.CodeOf(err) != relay.NotFound:
			return nil, fmt.Errorf("look for a master key: %w", err)
		}
		key = seal.NewKey()
		if err = seal.WriteFile(path, key); errors.Is(err, fs.ErrExist) { // nodes that share the file start at once
			made = false
			key, err = seal.ReadFile(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w (master_key)", err)
	}
	box, err := seal.New(key)
	if err != nil {
		return nil, err
	}
	check, err := box.Check()
	if err != nil {
		return nil, err
	}
	first, err := kept.EnsureFile(ctx, checkName, check)
	if err != nil {
		return nil, fmt.Errorf("compare master key: %w", err)
	}
	if bytes.Equal(first, check) {
		if made {
			log.Info("made the master key; keep a copy apart from the backups of the store", "file", path)
		}
		return box, nil
	}
	if made { // another node was faster; its key must come here
		err = os.Remove(path)
	}
	return nil, errors.Join(fmt.Errorf("the master key in %s (master_key) is not the one that the secrets in the store are sealed with: "+
		"all nodes need the same file; copy it from a node that runs, or from a backup", path), err)
}

// openSigner makes the signer of what leaves.
func openSigner(ctx context.Context, c config.Config, kept files, box *seal.Box, d signing.Directory, log *slog.Logger) (*signing.Signer, error) {
	var own []mailauth.Signer
	if c.Service.Selector != "" {
		if c.Service.Domain == "" {
			return nil, errors.New("service.dkim_selector needs a service.domain to sign as")
		}
		var err error
		if own, err = signing.Service(ctx, kept, box, c.Service.Domain, c.Service.Selector); err != nil {
			return nil, err
		}
		for _, s := range own {
			log.Info("signing in the relay's own name (service.dkim_selector)", "name", s.Selector+"._domainkey."+s.Domain, "type", "TXT", "value", s.Key.Record())
		}
	}
	return signing.New(box, d, own)
}
