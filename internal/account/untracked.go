package account

import (
	"context"
	"fmt"
	"time"

	"postrider/internal/relay"
)

// UntrackedStore keeps addresses of which nothing is tracked.
type UntrackedStore interface {
	Untrack(ctx context.Context, by relay.Actor, u relay.Untracked) (added bool, err error)
	Retrack(ctx context.Context, by relay.Actor, account relay.ID, address string) error
	Untracked(ctx context.Context, account relay.ID, part string, after relay.Untracked, limit int) ([]*relay.Untracked, error)
}

// Untracked manages whose opens and clicks an account does not track.
type Untracked struct{ Store UntrackedStore }

// Add adds an address, or a domain with an @ before it, to the list of the caller's
// account, and tells whether it is new.
func (l *Untracked) Add(ctx context.Context, by Caller, address, note string) (added bool, err error) {
	if err := by.Need(Build, "change who is tracked"); err != nil {
		return false, err
	}
	if by.Account == relay.Everyone {
		return false, invalid("An address that is not tracked needs an account.", "Name the account.")
	}
	if len(note) > 1000 {
		return false, invalid("A note has at most 1000 bytes.", "Shorten it.")
	}
	u := relay.Untracked{Account: by.Account, Note: note, Created: time.Now().UTC().Truncate(time.Microsecond)}
	if u.Address, err = suppressible(address); err != nil {
		return false, err
	}
	return l.Store.Untrack(ctx, by.Actor, u)
}

// Remove takes an address off the list.
func (l *Untracked) Remove(ctx context.Context, by Caller, address string) error {
	if err := by.Need(Build, "change who is tracked"); err != nil {
		return err
	}
	kept, err := suppressible(address)
	if err != nil {
		return err
	}
	return l.Store.Retrack(ctx, by.Actor, by.Account, kept)
}

// List gives the list after an entry, those that have part in them.
func (l *Untracked) List(ctx context.Context, by Caller, part string, after relay.Untracked, limit int) ([]*relay.Untracked, error) {
	if err := by.Need(Read, "see who is tracked"); err != nil {
		return nil, err
	}
	return l.Store.Untracked(ctx, by.Account, part, after, limit)
}

// TrackReader reads what tracking is held against. A missing credential is a
// relay.Error NotFound.
type TrackReader interface {
	Credential(ctx context.Context, account, id relay.ID) (*relay.Credential, error)
	IsUntracked(ctx context.Context, account relay.ID, addresses []string) (bool, error)
}

// Credential gives a credential of the account; nil where there is none.
func (d *Directory) Credential(ctx context.Context, account, id relay.ID) (*relay.Credential, error) {
	c, err := recall(d, &d.credentials, id, func() (*relay.Credential, error) {
		c, err := d.store.Credential(ctx, relay.Everyone, id)
		if relay.CodeOf(err) == relay.NotFound {
			return nil, nil
		}
		return c, err
	})
	if err != nil {
		return nil, fmt.Errorf("look up credential: %w", err)
	}
	if c == nil || c.Account != account {
		return nil, nil
	}
	return c, nil
}

// Untracked tells whether the account tracks nothing of an address: for itself, or
// for its domain.
func (d *Directory) Untracked(ctx context.Context, account relay.ID, address string) (bool, error) {
	address, err := suppressible(address)
	if err != nil {
		return false, nil // nobody could be on the list for it
	}
	found, err := d.store.IsUntracked(ctx, account, suppressing(address))
	if err != nil {
		return false, fmt.Errorf("look up untracked addresses: %w", err)
	}
	return found, nil
}
