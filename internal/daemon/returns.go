package daemon

import (
	"fmt"
	"strings"
	"time"

	"postrider/internal/feedback"
	"postrider/internal/relay"
	"postrider/internal/signing"
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
	d.inbox = feedback.NewInbox(hosts, paths, d.store, d.directory, d.log)
	d.returns = feedback.NewReturns(feedback.ReturnsConfig{Node: c.Node, Gather: time.Duration(c.Notices.Gather),
		Idle: func() bool { return d.Condition() != relay.Working }}, d.store, d.queue, d.rules, d.log)
	return nil
}
