package config

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// Resolve fills what is empty from the machine and makes paths absolute. It
// opens and makes nothing. Resolving twice changes nothing more.
func (c *Config) Resolve() error {
	return c.resolve(machine{
		hostname: os.Hostname,
		home:     os.UserHomeDir,
		getenv:   os.Getenv,
		root:     os.Geteuid() == 0,
	})
}

// machine is what Resolve asks of its surroundings.
type machine struct {
	hostname func() (string, error)
	home     func() (string, error)
	getenv   func(string) string
	root     bool
}

func (c *Config) resolve(m machine) error {
	own := ""
	if name, err := m.hostname(); err == nil {
		own = strings.TrimSuffix(name, ".")
	}
	if c.Hostname == "" {
		c.Hostname = own
		// Names with an underscore and the like would be refused in EHLO.
		if checkName(own) != nil {
			c.Hostname = "localhost"
		}
	}
	if c.Node == "" {
		// Not Hostname: nodes may well share that one.
		c.Node = nodeName(own)
	}
	if c.Data == "" {
		data, err := m.data()
		if err != nil {
			return fmt.Errorf("choose data folder: %w", err)
		}
		c.Data = data
	}
	for _, file := range c.files() {
		if *file == "" {
			continue
		}
		full, err := filepath.Abs(*file)
		if err != nil {
			return fmt.Errorf("resolve path: %w", err)
		}
		*file = full
	}
	for i := range c.Listen {
		c.Listen[i].fill()
	}
	for i := range c.Route {
		c.Route[i].fill()
	}
	if _, port, err := splitAddress(c.API.Listen, 1); err == nil && c.API.URL == "" {
		scheme := "http"
		if c.API.Secure() {
			scheme = "https"
		}
		c.API.URL = fmt.Sprintf("%s://%s:%d", scheme, c.Hostname, port)
	}
	c.API.URL = strings.TrimSuffix(c.API.URL, "/")
	c.Service.fill(c.Hostname)
	c.Tracking.fill(cmp.Or(c.Service.TrackHost, c.Hostname))
	c.Reports.fill(c.Service.Domain)
	if c.Notices.From == "" {
		c.Notices.From = "MAILER-DAEMON@" + c.Hostname
	}
	if c.Alerts.From == "" && c.Service.Domain != "" {
		c.Alerts.From = "alerts@" + c.Service.Domain
	}
	c.Alerts.From = cmp.Or(c.Alerts.From, c.Notices.From)
	return nil
}

func (t *Tracking) fill(host string) {
	if _, port, err := splitAddress(t.Listen, 1); err == nil && t.URL == "" {
		scheme, usual := "http", 80
		if t.Secure() {
			scheme, usual = "https", 443
		}
		if t.URL = scheme + "://" + strings.ToLower(host); port != usual {
			t.URL += fmt.Sprintf(":%d", port)
		}
	}
	t.URL = strings.TrimSuffix(t.URL, "/")
}

func (r *Reports) fill(domain string) {
	if r.From == "" && domain != "" {
		r.From = "postmaster@" + domain
	}
	r.Organization = cmp.Or(r.Organization, domain)
	r.Contact = cmp.Or(r.Contact, r.From)
}

// fill makes names below the domain. A machine without a public name has none.
func (s *Service) fill(hostname string) {
	if s.Domain == "" && strings.Contains(hostname, ".") {
		s.Domain = hostname
	}
	s.Domain = strings.ToLower(s.Domain)
	for _, n := range []struct {
		name  *string
		label string
	}{{&s.DKIMZone, "dkim."}, {&s.ReturnHost, "bounce."}, {&s.TrackHost, "track."}, {&s.SPF, "spf."}} {
		if *n.name == "" && s.Domain != "" {
			*n.name = n.label + s.Domain
		}
		*n.name = strings.ToLower(*n.name)
	}
}

func (l *Listener) fill() {
	if l.Name == "" {
		l.Name = l.Address
	}
	if l.Mode == "" {
		l.Mode = "starttls"
		if _, port, err := net.SplitHostPort(l.Address); err == nil && port == "465" {
			l.Mode = "tls" // RFC 8314 section 3.3
		}
	}
	if l.MinTLS == "" {
		l.MinTLS = "1.2"
	}
}

func (r *Route) fill() {
	r.Domain = strings.ToLower(r.Domain)
	if r.To == "" {
		r.To = "mx"
	}
	r.TLS = r.tls()
}

// tls is how the route uses TLS, also where nobody said it.
func (r *Route) tls() string {
	switch {
	case r.TLS != "":
		return r.TLS
	case r.User != "":
		return "require"
	default:
		return "opportunistic"
	}
}

// data is the folder where the relay keeps what is its own.
func (m machine) data() (string, error) {
	if folder := m.getenv("POSTRIDER_DATA"); folder != "" {
		return folder, nil
	}
	if m.root {
		return "/var/lib/postrider", nil
	}
	// The XDG base directories: a relative path there is to be ignored.
	if state := m.getenv("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "postrider"), nil
	}
	home, err := m.home()
	if err != nil || home == "" {
		return "", errors.New("this user has no home folder; set data, or POSTRIDER_DATA in the environment")
	}
	return filepath.Join(home, ".local", "state", "postrider"), nil
}

// nodeName makes a name for the node of the machine's name.
func nodeName(host string) string {
	name := strings.Map(func(r rune) rune {
		if isNameRune(r) {
			return r
		}
		return '-'
	}, host)
	if name = name[:min(len(name), maxNode)]; name == "" {
		return "localhost"
	}
	return name
}
