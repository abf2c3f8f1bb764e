package interop

import (
	"context"
	"testing"

	"postrider/internal/config"
	"postrider/internal/lab"
)

// startRelay starts a relay. Mail for each domain of routes goes to the address
// beside it. At the end of the test every delivery must have been made, at the
// first attempt.
func startRelay(t *testing.T, routes map[string]string) *lab.Relay {
	t.Helper()
	r := lab.StartRelay(t, func(c *config.Config) {
		c.Route = nil
		for domain, to := range routes {
			c.Route = append(c.Route, config.Route{Domain: domain, To: to, TLS: "opportunistic"})
		}
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		deliveries, err := r.WaitFinal(ctx, 1)
		if err != nil {
			t.Error(err)
		}
		for _, d := range deliveries {
			if d.State != "delivered" || d.Attempts != 1 {
				t.Errorf("%s is %s after %d attempts: %s", d.Recipient, d.State, d.Attempts, d.Reply)
			}
		}
	})
	return r
}
