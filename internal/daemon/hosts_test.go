package daemon

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postrider/internal/config"
	"postrider/internal/relay"
	"postrider/internal/seal"
)

// TestTrackingCertificate says of each domain where its certificate stands, and why
// there is none.
func TestTrackingCertificate(t *testing.T) {
	dir := t.TempDir()
	cert, key := pair(t, "track.files.test", 100*24*time.Hour)
	write(t, filepath.Join(dir, "own.pem"), cert)
	write(t, filepath.Join(dir, "own.key"), key)
	for _, tt := range []struct {
		name   string
		domain string
		change func(c *config.Config, d *relay.Domain)
		state  relay.CertificateState
		text   string
	}{
		{"it is asked for", "shop.test", func(*config.Config, *relay.Domain) {}, relay.CertificateAskedFor, "takes its turn"},
		{"one of the files", "files.test", func(c *config.Config, _ *relay.Domain) {
			c.TLS.Cert, c.TLS.Key = filepath.Join(dir, "own.pem"), filepath.Join(dir, "own.key")
		}, relay.CertificateThere, "A certificate of the relay itself"},
		{"no CNAME", "shop.test", func(_ *config.Config, d *relay.Domain) { d.Findings = nil }, relay.CertificateNotYet, "does not lead here"},
		{"not verified", "shop.test", func(_ *config.Config, d *relay.Domain) { d.Verified = time.Time{} }, relay.CertificateNotYet, "not verified"},
		{"no links", "shop.test", func(c *config.Config, _ *relay.Domain) { c.Tracking.Listen = "" }, relay.CertificateNotHere, "makes no links"},
		{"no own hosts", "shop.test", func(c *config.Config, _ *relay.Domain) { c.Tracking.Domains = false }, relay.CertificateNotHere, "own host only"},
		{"a proxy", "shop.test", func(c *config.Config, _ *relay.Domain) { c.Tracking.Plain = true }, relay.CertificateNotHere, "proxy"},
		{"no orders", "shop.test", func(c *config.Config, _ *relay.Domain) { c.TLS.Orders = 0 }, relay.CertificateNotHere, "asks for none"},
		{"no ACME", "shop.test", func(c *config.Config, _ *relay.Domain) { c.TLS.ACME = false }, relay.CertificateNotHere, "asks for none"},
		{"no tracking host", "shop.test", func(_ *config.Config, d *relay.Domain) { d.Tracking = "" }, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := testConfig(t, t.TempDir())
			c.Service.TrackHost, c.Tracking.Listen = "track.relay.test", ":443"
			c.TLS.ACME, c.TLS.HTTP01, c.TLS.Directory = true, "127.0.0.1:0", "https://acme.test/dir"
			d := &relay.Domain{Name: tt.domain, Tracking: "track", Verified: time.Now(), Findings: []relay.Finding{{Check: relay.CheckTracking, Status: relay.Good}}}
			tt.change(&c, d)
			store, err := openStore(t.Context(), c, quiet(t))
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			relayd := &Daemon{Config: c, log: quiet(t), store: store}
			if relayd.certs, err = openCerts(c, relayd.log); err != nil {
				t.Fatal(err)
			}
			if relayd.box, err = seal.New(seal.NewKey()); err != nil {
				t.Fatal(err)
			}
			if err := relayd.useACME(t.Context()); err != nil {
				t.Fatal(err)
			}
			if relayd.certs.acme != nil {
				defer relayd.certs.acme.Close()
			}
			got, err := relayd.certs.TrackingCertificate(t.Context(), d)
			if err != nil {
				t.Fatal(err)
			}
			if tt.state == "" {
				if got != nil {
					t.Errorf("%+v", got)
				}
				return
			}
			if got.Host != "track."+tt.domain || got.State != tt.state || !strings.Contains(got.Text, tt.text) {
				t.Errorf("%+v; want %s, %q", got, tt.state, tt.text)
			}
			if ready := relayd.certs.ready(t.Context(), got.Host); ready != (tt.state == relay.CertificateThere) {
				t.Errorf("ready: %v", ready)
			}
		})
	}
}
