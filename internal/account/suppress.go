package account

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"postrider/internal/relay"
	"postrider/internal/smtp"
)

// SuppressionStore keeps suppressions.
type SuppressionStore interface {
	Suppress(ctx context.Context, by relay.Actor, account relay.ID, list []relay.Suppression) (added int64, err error)
	Unsuppress(ctx context.Context, by relay.Actor, account relay.ID, u relay.Unsuppression) (removed int64, err error)
	Suppressions(ctx context.Context, account relay.ID, f relay.SuppressionFilter) ([]*relay.Suppression, error)
}

// Suppressions manages whom an account does not send to.
type Suppressions struct{ Store SuppressionStore }

// MaxSuppressions is the most that are added or removed at once.
const MaxSuppressions = 10_000

var reasons = []string{relay.ReasonManual, relay.ReasonBounce, relay.ReasonSoftBounce, relay.ReasonComplaint, relay.ReasonUnsubscribe}

// Add adds to the list of the caller's account, and says how many are new. Of each
// the address is needed; the reason is "manual" where none is given.
func (l *Suppressions) Add(ctx context.Context, by Caller, list []relay.Suppression) (added int64, err error) {
	if err := by.Need(Build, "change suppressions"); err != nil {
		return 0, err
	}
	if by.Account == relay.Everyone {
		return 0, invalid("A suppression needs an account.", "Name the account.")
	}
	if len(list) > MaxSuppressions {
		return 0, tooMany()
	}
	kept := slices.Clone(list)
	for i := range kept {
		s := &kept[i]
		if s.Address, err = suppressible(s.Address); err != nil {
			return 0, err
		}
		if s.Reason == "" {
			s.Reason = relay.ReasonManual
		}
		if !slices.Contains(reasons, s.Reason) {
			return 0, invalid(fmt.Sprintf("There is no reason %q.", s.Reason), "Take "+strings.Join(reasons, ", ")+".")
		}
		if len(s.Note) > 1000 {
			return 0, invalid("A note has at most 1000 bytes.", "Shorten it.")
		}
		if s.Stream != 0 && s.Stream != relay.Transactional && s.Stream != relay.Broadcast {
			return 0, invalid("There is no such stream.", "Take transactional or broadcast, or none for both.")
		}
		s.Account = by.Account
		if s.Created.IsZero() || s.Created.After(time.Now()) {
			s.Created = time.Now().UTC().Truncate(time.Microsecond)
		}
		if !s.Holds(time.Now()) {
			return 0, invalid(fmt.Sprintf("The suppression of %s ends before now.", s.Address), "Give a time that is to come, or none.")
		}
	}
	return l.Store.Suppress(ctx, by.Actor, by.Account, kept)
}

// Remove takes addresses off the list of the caller's account, and says how many
// were there: of all streams, or what was made for one alone. Who complained stays
// on it, unless u says otherwise.
func (l *Suppressions) Remove(ctx context.Context, by Caller, u relay.Unsuppression) (removed int64, err error) {
	if err := by.Need(Build, "change suppressions"); err != nil {
		return 0, err
	}
	if len(u.Addresses) > MaxSuppressions {
		return 0, tooMany()
	}
	kept := make([]string, len(u.Addresses))
	for i, a := range u.Addresses {
		if kept[i], err = suppressible(a); err != nil {
			return 0, err
		}
	}
	u.Addresses = kept
	return l.Store.Unsuppress(ctx, by.Actor, by.Account, u)
}

// List gives those of the caller's account, by address.
func (l *Suppressions) List(ctx context.Context, by Caller, f relay.SuppressionFilter) ([]*relay.Suppression, error) {
	if err := by.Need(Read, "see suppressions"); err != nil {
		return nil, err
	}
	return l.Store.Suppressions(ctx, by.Account, f)
}

func tooMany() error {
	return invalid(fmt.Sprintf("%d addresses at once are the most.", MaxSuppressions), "Send them in parts.")
}

// suppressible is an address, or a domain with an @ before it ("@." for all names
// below one), as it is kept: in lower case, with the domain in A-labels.
func suppressible(s string) (string, error) {
	s = strings.TrimSpace(s)
	if name, whole := strings.CutPrefix(s, "@"); whole {
		below := ""
		if rest, all := strings.CutPrefix(name, "."); all {
			below, name = ".", rest
		}
		domain, err := smtp.ASCIIDomain(name)
		if err != nil {
			return "", invalid(fmt.Sprintf("%q is no domain: %v.", s, err), "Write one such as @example.com, or @.example.com for all names below it.")
		}
		return "@" + below + strings.ToLower(domain), nil
	}
	return emailOf(s)
}
