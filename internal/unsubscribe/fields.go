// Package unsubscribe lets recipients have no more mail of a kind: it makes the
// fields by which mail programs offer that, and the pages that links lead to.
package unsubscribe

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

	"postrider/internal/link"
	"postrider/internal/relay"
	"postrider/internal/rewrite"
	"postrider/internal/smtp"
)

// Domains finds the domain of an account that a name is, or is below; nil where
// there is none.
type Domains interface {
	Domain(ctx context.Context, account relay.ID, name string) (*relay.Domain, error)
}

// Addresses makes the address that the recipient of a delivery unsubscribes at.
type Addresses interface {
	Unsubscribe(id relay.DeliveryID, host string) string
}

// Maker makes the links and the header fields of deliveries.
type Maker struct {
	Links     *link.Links
	Domains   Domains
	Addresses Addresses
	// Host takes mail for domains that have no return path of their own that works;
	// empty: there is none, and such mail has no address to unsubscribe at.
	Host string
	Log  *slog.Logger

	warned atomic.Bool
}

// Fields is track.Fields: List-Unsubscribe (RFC 2369 section 3.2), and
// List-Unsubscribe-Post where there is a link for one click (RFC 8058 section 3.1;
// links without TLS are for tests on one machine, and no receiver takes them).
// Both are signed with the rest.
func (k *Maker) Fields(ctx context.Context, m *relay.Message, d *relay.Delivery, base string) ([]byte, error) {
	if !m.OptOut.Header {
		return nil, nil
	}
	var ways []string
	if base != "" {
		ways = append(ways, "<"+k.Link(m, d, base)+">")
	}
	host, err := k.host(ctx, m)
	if err != nil {
		return nil, err
	}
	if host != "" {
		ways = append(ways, "<"+k.letter(d, host)+">")
	}
	if len(ways) == 0 {
		if k.warned.CompareAndSwap(false, true) {
			k.Log.Warn("mail has no List-Unsubscribe, which large receivers ask of broadcasts: set tracking.listen, or a listener of mode feedback", "message", m.ID)
		}
		return nil, nil
	}
	fields := "List-Unsubscribe: " + strings.Join(ways, ",\r\n ") + "\r\n"
	if base != "" {
		fields += "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
	}
	return []byte(fields), nil
}

// Places is track.Fields: what stands in texts in place of placeholders. Where there
// are no links, it is the address by which one unsubscribes.
func (k *Maker) Places(ctx context.Context, m *relay.Message, d *relay.Delivery, base string) (rewrite.Places, error) {
	if base != "" {
		return rewrite.Places{Leave: k.Link(m, d, base), LeaveAll: base + k.Links.Path(link.Unsubscribe, m.Account, d.ID, ""), Choose: k.Preferences(m, d, base)}, nil
	}
	host, err := k.host(ctx, m)
	if err != nil || host == "" {
		return rewrite.Places{}, err
	}
	by := k.letter(d, host)
	return rewrite.Places{Leave: by, LeaveAll: by, Choose: by}, nil
}

// letter is the address of a mail by which the recipient of a delivery unsubscribes.
func (k *Maker) letter(d *relay.Delivery, host string) string {
	return "mailto:" + k.Addresses.Unsubscribe(d.ID, host) + "?subject=unsubscribe"
}

// Link is where the recipient of a delivery unsubscribes.
func (k *Maker) Link(m *relay.Message, d *relay.Delivery, base string) string {
	return base + k.Links.Path(link.Unsubscribe, m.Account, d.ID, m.OptOut.Group)
}

// Preferences is where the recipient of a delivery chooses.
func (k *Maker) Preferences(m *relay.Message, d *relay.Delivery, base string) string {
	return base + k.Links.Path(link.Preferences, m.Account, d.ID, m.OptOut.Group)
}

// host takes the mail of who unsubscribes: that of the return path of the domain in
// From where it works, else the relay's own.
func (k *Maker) host(ctx context.Context, m *relay.Message) (string, error) {
	name := smtp.ASCIIDomainOf(m.From)
	if name == "" {
		return k.Host, nil
	}
	d, err := k.Domains.Domain(ctx, m.Account, name)
	if err != nil {
		return "", fmt.Errorf("find the domain of %s: %w", m.From, err)
	}
	if d == nil || d.Aligned.IsZero() || d.ReturnPath == "" {
		return k.Host, nil
	}
	return d.ReturnPath + "." + d.Name, nil
}
