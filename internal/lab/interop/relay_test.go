package interop

import (
	"context"
	"testing"

	"postrider/internal/config"
	"postrider/internal/lab"
)

// startRelay starts a relay that delivers by routes alone. At the end of the test every delivery must have been made, at the
// first attempt.
func startRelay(t *testing.T, routes ...config.Route) *lab.Relay {
	t.Helper()
	r := lab.StartRelay(t, func(c *config.Config) { c.Route = routes })
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

// to is a route for the plain case: TLS when offered, whoever the receiver is.
func to(domain, addr string) config.Route {
	return config.Route{Domain: domain, To: addr, TLS: "opportunistic"}
}
