package account

import (
	"context"
	"fmt"
	"slices"
	"time"

	"postrider/internal/relay"
)

// As is the identity of somebody who submits with a credential of the account,
// named by its id, name or user, without its secret: for a test by who manages it.
func (m *Manager) As(ctx context.Context, account relay.ID, which string) (*Identity, error) {
	all, err := m.Store.Credentials(ctx, account)
	if err != nil {
		return nil, err
	}
	id, _ := relay.ParseID(which)
	i := slices.IndexFunc(all, func(c *relay.Credential) bool {
		return c.Revoked.IsZero() && (c.ID == id || c.Name == which || which != "" && c.User == which)
	})
	if i < 0 {
		return nil, &relay.Error{Code: relay.NotFound, Text: fmt.Sprintf("There is no credential %q.", which), Advice: "See \"postrider credential list\"."}
	}
	c := all[i]
	switch {
	case c.Status == relay.Blocked:
		return nil, &relay.Error{Code: relay.Forbidden, Text: because("This credential is blocked", c.Reason), Advice: "Unblock it, or take another one."}
	case !c.Expires.IsZero() && !time.Now().Before(c.Expires):
		return nil, &relay.Error{Code: relay.Forbidden, Text: "This credential has expired.", Advice: "Give it more time, or take another one."}
	}
	return identity(c, c.User), nil
}
