package daemon

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"postrider/internal/acme"
	"postrider/internal/alert"
	"postrider/internal/relay"
)

// hostsConfig says how certificates are got for tracking hosts of domains; nil: none
// is.
func (d *Daemon) hostsConfig() *acme.HostsConfig {
	c := d.Config
	if !d.certs.asksForHosts() {
		return nil
	}
	return &acme.HostsConfig{Domains: d.store, PerHour: c.TLS.Orders, Covered: d.certs.inFiles, Idle: func() bool { return d.Condition() != relay.Working }}
}

// asksForHosts tells whether the relay asks for certificates for tracking hosts.
func (s *certs) asksForHosts() bool {
	c := s.config
	return c.TLS.ACME && c.TLS.Orders > 0 && c.Tracking.Listen != "" && c.Tracking.Secure() && c.Tracking.Domains && c.Service.TrackHost != ""
}

// tlsOfLinks is how links are served: hosts of domains have certificates of their
// own.
func (s *certs) tlsOfLinks(protocols ...string) *tls.Config {
	c := s.tls(protocols...)
	c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return s.ofLink(hello.Context(), hello.ServerName), nil
	}
	return c
}

func (s *certs) ofLink(ctx context.Context, host string) *tls.Certificate {
	c := s.get(host)
	if s.acme == nil || holds(c, host) {
		return c
	}
	if own := s.acme.HostCertificate(ctx, host); own != nil {
		return own
	}
	return c
}

// ready tells whether clients that follow a link to a host get a certificate for it.
func (s *certs) ready(ctx context.Context, host string) bool {
	c := s.ofLink(ctx, host)
	return holds(c, host) && time.Now().Before(c.Leaf.NotAfter)
}

// hosts counts tracking hosts by where their certificates stand, on the node that
// orders them.
func (s *certs) hosts() map[string]int {
	if s.acme == nil {
		return nil
	}
	return s.acme.HostCounts()
}

// trouble are certificates of tracking hosts that are not renewed although it is
// time, or that do not come at all.
func (s *certs) trouble(ctx context.Context) ([]alert.Certificate, error) {
	hosts, err := s.acme.Trouble(ctx)
	if err != nil {
		return nil, err
	}
	var all []alert.Certificate
	for _, h := range hosts {
		c := alert.Certificate{Name: h.Name, From: h.From, Expires: h.Expires, Renewed: true, Account: h.Account, Error: h.Error}
		if h.Expires.IsZero() {
			c.Missing = h.Tried
		}
		all = append(all, c)
	}
	return all, nil
}

// TrackingCertificate tells where the certificate of a domain's tracking host stands;
// nil: it has no such host.
func (s *certs) TrackingCertificate(ctx context.Context, d *relay.Domain) (*relay.HostCertificate, error) {
	c := s.config
	if d.Tracking == "" || c.Service.TrackHost == "" {
		return nil, nil
	}
	at := &relay.HostCertificate{Host: d.Tracking + "." + d.Name, State: relay.CertificateNotHere}
	links := " Links are on " + c.Service.TrackHost + "."
	switch {
	case c.Tracking.Listen == "":
		at.Text = "This relay makes no links."
	case !c.Tracking.Domains:
		at.Text = "This relay has links on its own host only." + links
	case d.TrackingHost() == "":
		at.State, at.Text = relay.CertificateNotYet, "The host does not lead here yet, or the domain is not verified."+links
		at.Advice = "Publish its CNAME record: \"postrider domain records " + d.Name + "\" shows it."
	case !c.Tracking.Secure():
		at.Text = "Links are served behind a proxy that has TLS, or without TLS: this relay has no certificates for them."
	case holds(s.get(at.Host), at.Host):
		at.State, at.Expires = relay.CertificateThere, s.get(at.Host).Leaf.NotAfter
		at.Text = "A certificate of the relay itself is for this host, until " + at.Expires.UTC().Format(time.DateOnly) + "."
	case !s.asksForHosts():
		at.Text = "This relay has no certificate for the host, and asks for none." + links
		at.Advice = "It is the operator's turn: tls.acme gets certificates for tracking hosts, where acme_orders is not 0."
	default:
		return at, s.byACME(ctx, at, d, links)
	}
	return at, nil
}

// byACME tells where a certificate stands that the relay asks for.
func (s *certs) byACME(ctx context.Context, at *relay.HostCertificate, d *relay.Domain, links string) error {
	h, err := s.acme.Host(ctx, at.Host)
	if err != nil {
		return err
	}
	if h == nil || h.Account != d.Account {
		h = &acme.Host{}
	}
	at.Expires, at.Tried = h.Expires, h.Tried
	if at.Failures, at.Error = h.Failures, h.Error; h.Failures > 0 {
		at.Again = h.Again
	}
	there := time.Now().Before(h.Expires)
	when := func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
	switch {
	case there && h.Failures == 0:
		at.State, at.Text = relay.CertificateThere, fmt.Sprintf("There is a certificate, until %s; it is renewed from %s on.", h.Expires.UTC().Format(time.DateOnly), h.Renew.UTC().Format(time.DateOnly))
	case h.Failures == 0:
		at.State, at.Text = relay.CertificateAskedFor, "The certificate is asked for, mostly within a minute; where many are, it takes its turn."+links
	default:
		at.State, at.Text = relay.CertificateFailed, fmt.Sprintf("The certificate was asked for at %s, in vain (%d in a row): %s. It is asked for again from %s on.", when(h.Tried), h.Failures, h.Error, when(h.Again))
		if there {
			at.State, at.Text = relay.CertificateThere, at.Text+" The one that is there is good until "+when(h.Expires)+"."
		} else {
			at.Text += links
		}
		at.Advice = "See whether a CAA record of the domain keeps the authority out, its DNSSEC is broken, or a proxy stands before the host. If none of that, ask the operator whether port 80 of " + s.config.Service.TrackHost + " leads to the relay."
	}
	return nil
}
