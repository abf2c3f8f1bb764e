package daemon

import (
	"fmt"
	"slices"
	"strings"

	"postrider/internal/config"
	"postrider/internal/signing"
	"postrider/internal/unsubscribe"
)

// unsubscribable tells whether recipients can be given a link or an address to
// unsubscribe by.
func (d *Daemon) unsubscribable() bool {
	return d.Config.Tracking.Listen != "" || d.takesBack() && d.Config.Service.ReturnHost != ""
}

// takesBack tells whether mail can come back to this relay.
func (d *Daemon) takesBack() bool {
	return slices.ContainsFunc(d.Config.Listen, func(l config.Listener) bool { return l.Mode == "feedback" })
}

// unsubscribeFields makes what adds the fields by which recipients unsubscribe.
func (d *Daemon) unsubscribeFields() (*unsubscribe.Maker, error) {
	c := d.Config
	paths, err := signing.NewReturnPaths(d.box)
	if err != nil {
		return nil, fmt.Errorf("make addresses to unsubscribe at: %w", err)
	}
	m := &unsubscribe.Maker{Links: d.track.links, Domains: d.directory, Addresses: paths, Log: d.log}
	if d.takesBack() {
		m.Host = strings.ToLower(c.Service.ReturnHost)
	}
	return m, nil
}
