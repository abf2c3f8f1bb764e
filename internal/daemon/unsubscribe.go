package daemon

import (
	"fmt"
	"slices"
	"strings"

	"postrider/internal/config"
	"postrider/internal/signing"
	"postrider/internal/unsubscribe"
)

// unsubscribeFields makes what adds the fields by which recipients unsubscribe.
func (d *Daemon) unsubscribeFields() (*unsubscribe.Maker, error) {
	c := d.Config
	paths, err := signing.NewReturnPaths(d.box)
	if err != nil {
		return nil, fmt.Errorf("make addresses to unsubscribe at: %w", err)
	}
	m := &unsubscribe.Maker{Links: d.track.links, Domains: d.directory, Addresses: paths, Log: d.log}
	if slices.ContainsFunc(c.Listen, func(l config.Listener) bool { return l.Mode == "feedback" }) {
		m.Host = strings.ToLower(c.Service.ReturnHost)
	}
	return m, nil
}
