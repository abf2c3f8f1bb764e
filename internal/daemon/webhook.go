package daemon

import (
	"crypto/x509"
	"fmt"
	"time"

	"postrider/internal/dns"
	"postrider/internal/relay"
	"postrider/internal/submit"
	"postrider/internal/webhook"
)

// wireWebhooks makes what sends events to programs of the accounts.
func (d *Daemon) wireWebhooks(resolver *dns.Resolver) error {
	c := d.Config.Webhooks
	var trusted *x509.CertPool
	if c.CA != "" {
		var err error
		if trusted, err = roots(c.CA); err != nil {
			return fmt.Errorf("webhooks.ca: %w", err)
		}
	}
	config := webhook.Config{Addrs: resolver.Addrs, Private: prefixes(c.Private), Roots: trusted, Timeout: time.Duration(c.Timeout), GiveUp: time.Duration(c.GiveUp), Log: d.log}
	d.hooks = webhook.NewManager(config, d.store, d.box, submit.NewID)
	d.webhooks = webhook.NewService(config, d.store, d.box, d.node.current, func() bool { return d.Condition() != relay.Working })
	return nil
}
