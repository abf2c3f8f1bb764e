// Package webhook sends the events of accounts to the addresses that they name:
// at least once, each message's in their order, signed as Standard Webhooks has
// it (https://www.standardwebhooks.com). It reads the table of events only; what
// it keeps is how far each webhook has come.
package webhook

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"postrider/internal/relay"
	"postrider/internal/store"
)

// Config is what sending must know.
type Config struct {
	// Addrs finds the addresses of a host.
	Addrs   func(ctx context.Context, host string) ([]netip.Addr, error)
	Private []netip.Prefix // networks that are sent to though they are not public, also without TLS
	Roots   *x509.CertPool // nil: those of the system
	Timeout time.Duration  // for the answer to a request
	GiveUp  time.Duration  // a webhook that has failed for so long is disabled
	Log     *slog.Logger
}

// Box seals the secrets of webhooks.
type Box interface {
	Seal(plain []byte, context string) []byte
	Open(sealed []byte, context string) ([]byte, error)
}

// Events are read as they come.
type Events interface {
	Tail(ctx context.Context, lease int64, after relay.ID, limit int) ([]*relay.EventHead, error)
	LastEvent(ctx context.Context) (relay.ID, error)
	Horizon() (horizon relay.ID, whole bool)
	ScanEvents(ctx context.Context, account, after, to relay.ID, rows int) (found []relay.EventHead, end relay.ID, err error)
}

// Letters gives events with their messages.
type Letters interface {
	EventsByID(ctx context.Context, account relay.ID, ids []relay.ID) ([]*relay.WebhookEvent, error)
	EventsOf(ctx context.Context, account, message, from relay.ID, limit int) ([]*relay.WebhookEvent, error)
}

// Book notes which node serves which webhook, and how far it has come.
type Book interface {
	ServeWebhooks(ctx context.Context, lease int64) (*store.Served, error)
	YieldWebhooks(ctx context.Context, lease int64, ids []relay.ID) error
	SaveWebhooks(ctx context.Context, lease int64, states []relay.WebhookState) error
	Webhook(ctx context.Context, account, id relay.ID) (*relay.Webhook, error)
	WebhookProgress(ctx context.Context, account, id relay.ID) (*relay.WebhookProgress, error)
}

// Writer changes webhooks, each change with its entry in the audit log. A change
// of a version that is not the present one is a relay.Error Conflict.
type Writer interface {
	AddWebhook(ctx context.Context, by relay.Actor, h *relay.Webhook, most int) error
	SetWebhook(ctx context.Context, by relay.Actor, account relay.ID, h *relay.Webhook) error
	RemoveWebhook(ctx context.Context, by relay.Actor, account, id relay.ID) error
	ReplayWebhook(ctx context.Context, by relay.Actor, account, id relay.ID, since time.Time) error
}

// Store is where the relay keeps all of that.
type Store interface {
	Events
	Letters
	Book
	Writer
}

// sealContext is what a secret of a webhook is sealed for.
func sealContext(h *relay.Webhook) string { return "webhook " + h.ID.String() }

// good are the secrets that are good at that time, opened, the newest first.
func good(box Box, h *relay.Webhook, now time.Time) ([]string, error) {
	var all []string
	for i := len(h.Secrets) - 1; i >= 0; i-- {
		s := h.Secrets[i]
		if !s.Until.IsZero() && !now.Before(s.Until) {
			continue
		}
		plain, err := box.Open(s.Sealed, sealContext(h))
		if err != nil {
			return nil, fmt.Errorf("open secret of webhook %s: %w", h.ID, err)
		}
		all = append(all, string(plain))
	}
	return all, nil
}
