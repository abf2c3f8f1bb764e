package unsubscribe

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"postrider/internal/relay"
	"postrider/internal/suppression"
)

// Directory knows what recipients do not want.
type Directory interface {
	Suppressed(ctx context.Context, account relay.ID, stream relay.Stream, addresses []string) (map[string]*relay.Suppression, error)
	Left(ctx context.Context, account relay.ID, group string, addresses []string) ([]string, error)
}

// Unwanted looks, before mail that has waited leaves, whether its recipient has
// unsubscribed in the meantime.
type Unwanted struct {
	directory Directory
	log       *slog.Logger
	now       func() time.Time
}

// NewUnwanted makes it.
func NewUnwanted(d Directory, log *slog.Logger) *Unwanted {
	return &Unwanted{directory: d, log: log, now: time.Now}
}

// fresh is how long what was looked up at acceptance holds.
const fresh = 2 * time.Second

// Of tells whether a delivery is unwanted, and why. Transactional mail of no group
// is not looked at: nobody unsubscribes from it but by an order of the account's.
func (u *Unwanted) Of(ctx context.Context, m *relay.Message, d *relay.Delivery) (relay.Diagnosis, bool) {
	group := m.OptOut.Group
	if u.now().Sub(m.Received) < fresh || m.Stream != relay.Broadcast && group == "" {
		return relay.Diagnosis{}, false
	}
	key := suppression.Key(d.Recipient.Address)
	if key == "" {
		return relay.Diagnosis{}, false
	}
	if group != "" {
		left, err := u.directory.Left(ctx, m.Account, group, []string{key})
		if err != nil {
			return u.unknown(d, err)
		}
		if len(left) > 0 {
			return because(d, fmt.Sprintf("its owner has left the group %s", group)), true
		}
	}
	if m.Stream != relay.Broadcast {
		return relay.Diagnosis{}, false
	}
	found, err := u.directory.Suppressed(ctx, m.Account, m.Stream, []string{key})
	if err != nil {
		return u.unknown(d, err)
	}
	if s := found[key]; s != nil {
		why := because(d, fmt.Sprintf("it was suppressed in the meantime (%s)", s.Reason))
		if s.Reason != relay.ReasonUnsubscribe {
			why.Category = "suppressed"
		}
		return why, true
	}
	return relay.Diagnosis{}, false
}

// unknown lets mail go: what was known when it was accepted holds.
func (u *Unwanted) unknown(d *relay.Delivery, err error) (relay.Diagnosis, bool) {
	u.log.Warn("it can't be looked up whether a recipient has unsubscribed", "delivery", d.ID, "err", err)
	return relay.Diagnosis{}, false
}

func because(d *relay.Delivery, why string) relay.Diagnosis {
	return relay.Diagnosis{Category: "unsubscribed", Text: fmt.Sprintf("It was not sent to %s any more: %s.", d.Recipient.Address, why)}
}
