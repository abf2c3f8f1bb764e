package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"postrider/internal/alert"
	"postrider/internal/config"
	"postrider/internal/relay"
	"postrider/internal/submit"
	"postrider/internal/webhook"
)

// alerts are the parts that tell people when something is wrong.
type alerts struct {
	watch   *alert.Watch
	sender  *alert.Sender
	manager *alert.Manager
}

// wireAlerts makes them. The doctor and the certificates must be there.
func (d *Daemon) wireAlerts(addrs func(ctx context.Context, host string) ([]netip.Addr, error), entrance *submit.Entrance, home relay.ID) error {
	c := d.Config
	hooks := webhook.Config{Addrs: addrs, Private: prefixes(c.Webhooks.Private), Timeout: time.Duration(c.Webhooks.Timeout), Log: d.log}
	var err error
	if c.Webhooks.CA != "" {
		if hooks.Roots, err = roots(c.Webhooks.CA); err != nil {
			return fmt.Errorf("webhooks.ca: %w", err)
		}
	}
	post := webhook.NewPoster(hooks)
	operators := alert.Operators{To: c.Alerts.To, Webhook: c.Alerts.Webhook}
	if c.Alerts.Webhook != "" {
		if operators.Secret, err = firstLine(c.Alerts.Secret); err != nil {
			return fmt.Errorf("alerts.webhook_secret_file: %w", err)
		}
		if err := webhook.CheckSecret(operators.Secret); err != nil {
			return fmt.Errorf("alerts.webhook_secret_file: %w", err)
		}
	}
	if c.Alerts.Slack != "" {
		if operators.Slack, err = firstLine(c.Alerts.Slack); err != nil {
			return fmt.Errorf("alerts.slack_file: %w", err)
		}
	}
	for key, address := range map[string]string{"webhook": operators.Webhook, "slack_file": operators.Slack} {
		if address != "" && post.Check(address) != nil {
			return fmt.Errorf("alerts.%s: %w", key, post.Check(address))
		}
	}
	idle := func() bool { return d.Condition() != relay.Working }
	rules := alertRules(c.Alerts)
	watching := alert.Config{Node: c.Node, Every: time.Duration(c.Alerts.Every), Keep: time.Duration(c.Alerts.Keep),
		Times: alert.Times{Quiet: time.Duration(c.Alerts.Quiet), Remind: time.Duration(c.Alerts.Remind)}, Rules: rules,
		Expiry: [2]time.Duration{time.Duration(c.Alerts.CertWarning), time.Duration(c.Alerts.CertCritical)}, Operators: operators,
		NewID: submit.NewID, Idle: idle, Certificates: d.certs.served, Disk: d.doctor.Disk, Lists: time.Duration(c.Alerts.BlocklistEvery), Log: d.log}
	if d.certs.acme != nil {
		watching.Hosts = d.certs.trouble
	}
	if len(c.Doctor.Blocklists) > 0 {
		watching.Blocklists = d.doctor.Blocklists
	}
	d.alerts.watch = alert.NewWatch(watching, d.store)
	d.alerts.sender = alert.NewSender(alert.SendConfig{Node: c.Node, Hostname: c.Hostname, From: c.Alerts.From, Home: home, Operators: operators, Idle: idle,
		Observer: d.watch.metrics, Log: d.log}, d.store, post, entrance, d.box)
	d.alerts.manager = alert.NewManager(rules, c.Policy.Senders == string(relay.SendersAny), d.store, d.alerts.sender, submit.NewID)
	return nil
}

// run watches and tells until ctx ends.
func (a *alerts) run(ctx context.Context) error {
	g, running := errgroup.WithContext(ctx)
	g.Go(func() error { return a.watch.Run(running) })
	g.Go(func() error { return a.sender.Run(running) })
	return g.Wait()
}

// alertRules are those of accounts without any of their own, and of the relay.
func alertRules(c config.Alerts) alert.Rules {
	rate := func(warning, critical config.Percent, least int, windows ...time.Duration) relay.AlertRule {
		return relay.AlertRule{Warning: float64(warning), Critical: float64(critical), Least: int64(least), Windows: windows}
	}
	all := alert.Rules{
		relay.AlertBounces:     rate(c.BounceWarning, c.BounceCritical, c.BounceLeast, time.Hour, 24*time.Hour),
		relay.AlertComplaints:  rate(c.ComplaintWarning, c.ComplaintCritical, c.ComplaintLeast, 24*time.Hour),
		relay.AlertDeferrals:   rate(c.DeferralWarning, c.DeferralCritical, c.DeferralLeast, 15*time.Minute),
		relay.AlertBlock:       rate(c.BlockWarning, c.BlockCritical, c.BlockLeast, 30*time.Minute),
		relay.AlertQuota:       {},
		relay.AlertDomain:      {},
		relay.AlertCertificate: {},
		relay.AlertWebhook:     {Windows: []time.Duration{time.Duration(c.WebhookFailing)}},
		relay.AlertBlocklist:   {},
		relay.AlertDisk:        {},
	}
	for _, kind := range c.Off {
		r := all[relay.AlertKind(kind)]
		r.Off = true
		all[relay.AlertKind(kind)] = r
	}
	return all
}

// served are the certificates that this node serves.
func (s *certs) served() []alert.Certificate {
	var all []alert.Certificate
	add := func(name string, renewed bool) {
		if c := s.get(name); c != nil && c.Leaf != nil {
			all = append(all, alert.Certificate{Name: name, From: c.Leaf.NotBefore, Expires: c.Leaf.NotAfter, Renewed: renewed})
		}
	}
	if s.acme == nil {
		add(s.config.Hostname, false)
		return all
	}
	for _, name := range s.acme.Names() {
		if s.acme.Certificate(name) == nil && !s.inFiles(name) {
			all = append(all, alert.Certificate{Name: name, Renewed: true, Missing: s.began})
			continue
		}
		add(name, s.acme.Certificate(name) != nil)
	}
	return all
}
