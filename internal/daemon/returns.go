package daemon

import (
	"fmt"
	"strings"
	"time"

	"postrider/internal/config"
	"postrider/internal/feedback"
	"postrider/internal/relay"
	"postrider/internal/signing"
	"postrider/internal/suppression"
)

// wireReturns makes what takes the mail that comes back and what deals with it. A
// node without a listener for it deals with what others took.
func (d *Daemon) wireReturns() error {
	c := d.Config
	paths, err := signing.NewReturnPaths(d.box)
	if err != nil {
		return fmt.Errorf("read return paths: %w", err)
	}
	var hosts []string
	if c.Service.ReturnHost != "" {
		hosts = append(hosts, strings.ToLower(c.Service.ReturnHost))
	}
	d.loops = loops{paths, strings.ToLower(c.Service.ReturnHost)}
	d.inbox = feedback.NewInbox(hosts, paths, d.store, d.directory, d.watch.metrics, d.log)
	d.returns = feedback.NewReturns(feedback.ReturnsConfig{Node: c.Node, Gather: time.Duration(c.Notices.Gather), Suppress: suppressRule(c), Observer: d.watch.metrics,
		Idle: func() bool { return d.Condition() != relay.Working }}, d.store, d.queue, d.rules, d.log)
	return nil
}

// loops makes the addresses that providers send complaints to.
type loops struct {
	paths *signing.ReturnPaths
	host  string
}

// Loop gives that of a provider.
func (l loops) Loop(provider string) (string, error) {
	if l.host == "" {
		return "", &relay.Error{Code: relay.Conflict, Text: "This relay has no host that mail comes back to.", Advice: "Set service.domain, or service.return_host (docs/feedback.md)."}
	}
	return l.paths.Loop(provider, l.host), nil
}

// suppressRule says which failures keep an address from further mail.
func suppressRule(c config.Config) suppression.Rule {
	s := c.Suppress
	return suppression.Rule{Hard: s.Hard, Soft: relay.SoftRule{Failures: s.Soft, Within: time.Duration(s.Window), Lasts: time.Duration(s.For)}}
}
