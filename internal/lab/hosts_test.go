package lab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/smtp"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"

	"postrider/internal/api"
	"postrider/internal/config"
	"postrider/internal/lab/fakedns"
	"postrider/internal/lab/process"
	"postrider/internal/relay"
	"postrider/internal/sink"
)

// authority is Pebble, which looks for names in a DNS of ours, and asks at one port
// for all of them.
type authority struct {
	roots *x509.CertPool // to trust what it gives by
	dns   *fakedns.Server
	ask   string // host:port
	tls   config.TLS
}

// newAuthority starts one, and says how a relay is set to it.
func newAuthority(t *testing.T) *authority {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_WFE_NONCEREJECT", "0") // else one in twenty requests, by chance
	zone, err := fakedns.Start("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(zone.Close)
	free, err := process.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(free)
	quiet := log.New(io.Discard, "", 0)
	memory := db.NewMemoryStore()
	issuer := ca.New(quiet, memory, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {ValidityPeriod: 86400}})
	front := wfe.New(quiet, memory, va.New(quiet, int(at.Port()), 0, false, zone.Addr(), memory), issuer, nil, false, false, 1, 1)
	server := httptest.NewTLSServer(front.Handler())
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "acme.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(issuer.GetRootCert(0).PEM())
	return &authority{roots: roots, dns: zone, ask: at.String(),
		tls: config.TLS{ACME: true, Email: "hostmaster@relay.test", Directory: server.URL + wfe.DirectoryPath, HTTP01: at.String(), ACMERoots: file, Orders: 60}}
}

// inbox starts a receiver for the time of a test.
func inbox(t *testing.T) *sink.Server {
	t.Helper()
	box, err := sink.New(sink.Config{Hostname: "mx.away.test", Listen: []string{"127.0.0.1:0"}, Keep: 1000})
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- box.Serve(running) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return box
}

// reader follows links as a browser does: over TLS, by the authority's root, wherever
// the name leads.
func (a *authority) reader(to string) *http.Client {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.roots}, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, to)
		}}
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// TestTrackingHosts: the relay's own tracking host and that of a customer's domain
// have certificates of the authority; links are on the service's host until the
// domain's own has one, then there, and a click goes over TLS by either. A domain
// whose host gets none has its links on the service's, and is told why.
func TestTrackingHosts(t *testing.T) {
	a := newAuthority(t)
	box := inbox(t)
	p := newPatient(t, 4*time.Minute)
	ctx, must := p.ctx, p.must
	// The authority's view: the relay's names, and one customer's host.
	must(a.dns.Add("relay.test. 60 IN A 127.0.0.1", "track.relay.test. 60 IN CNAME relay.test.", "track.shop.test. 60 IN CNAME track.relay.test."))
	r := StartRelay(t, func(c *config.Config) {
		c.Service.Domain = "relay.test"
		c.TLS = a.tls
		// TLS on a loopback address is what others have on all of them.
		c.Tracking.Listen, c.Tracking.URL, c.Tracking.Early = "0.0.0.0:0", "https://track.relay.test", 0
		c.Route = []config.Route{{Domain: "*", To: box.Addr()}}
	})
	_, port, err := net.SplitHostPort(r.TrackingAddr())
	must(err)
	to := net.JoinHostPort("127.0.0.1", port)
	client := a.reader(to)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	eventually := func(what string, fact func() bool) {
		t.Helper()
		for !fact() {
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("never came about: %s", what)
			}
		}
	}
	serves := func(host string) bool {
		conn, err := tls.Dial("tcp", to, &tls.Config{RootCAs: a.roots, ServerName: host})
		if err == nil {
			conn.Close()
		}
		return err == nil
	}
	arrived := int64(0)
	// link gives the link of a mail in a domain's name, as it arrives.
	link := func(domain string) string {
		t.Helper()
		auth := smtp.PlainAuth("", r.User, r.Password, "127.0.0.1")
		mail := "X-Postrider-Track: clicks\r\n" + strings.Replace(newsletter, "app@shop.test", "app@"+domain, 1)
		must(smtp.SendMail(r.Addr("plain"), auth, "app@"+domain, []string{"ann@away.test"}, []byte(mail)))
		arrived++
		must(box.Wait(ctx, arrived))
		text := strings.NewReplacer("=\r\n", "", "=3D", "=").Replace(string(box.Messages()[arrived-1].Content))
		found := regexp.MustCompile(`https://[\w.]+(:\d+)?/c/[\w/-]+`).FindString(text)
		if found == "" {
			t.Fatalf("no link in\n%s", text)
		}
		return found
	}
	click := func(link string) {
		t.Helper()
		q, err := http.NewRequestWithContext(ctx, "GET", link, nil)
		must(err)
		resp, err := client.Do(q)
		must(err)
		resp.Body.Close()
		if resp.StatusCode != 302 || resp.Header.Get("Location") != "https://shop.test/a?x=1&y=2" {
			t.Errorf("%s: %d to %q", link, resp.StatusCode, resp.Header.Get("Location"))
		}
	}
	is := func(name string) relay.HostCertificate {
		t.Helper()
		var d api.Domain
		must(r.API.Get(ctx, "/v1/domains/"+name, nil, &d))
		if d.Certificate == nil {
			t.Fatalf("%s: nothing is said of its certificate", name)
		}
		return *d.Certificate
	}

	eventually("the service's host", func() bool { return serves("track.relay.test") })
	if serves("track.shop.test") || serves("track.bad.test") {
		t.Error("a host has a certificate before its domain is there")
	}
	// A host that the authority does not find, and one that it does.
	align(ctx, t, r, "bad.test")
	first := link("bad.test")
	if !strings.HasPrefix(first, "https://track.relay.test/c/") {
		t.Errorf("without a certificate the link is %s", first)
	}
	click(first)
	align(ctx, t, r, "shop.test")
	eventually("the host of shop.test", func() bool { return serves("track.shop.test") })
	eventually("the state of shop.test", func() bool { return is("shop.test").State == relay.CertificateThere })
	var own string
	eventually("a link on the domain's own host", func() bool { own = link("shop.test"); return strings.HasPrefix(own, "https://track.shop.test/c/") })
	click(own)
	eventually("the state of bad.test", func() bool { return is("bad.test").State == relay.CertificateFailed })
	if s := is("bad.test"); s.Failures != 1 || s.Error == "" || s.Advice == "" || !s.Again.After(s.Tried) || !strings.Contains(s.Text, "Links are on track.relay.test") {
		t.Errorf("%+v", s)
	}
	if got := link("bad.test"); !strings.HasPrefix(got, "https://track.relay.test/c/") {
		t.Errorf("a host without a certificate has links: %s", got)
	}
	// What was sent in the domain's name works on the service's host, too, with its
	// certificate; a host that is nobody's gets the relay's.
	click(strings.Replace(own, "track.shop.test", "track.relay.test", 1))
	if serves("nobody.test") {
		t.Error("a certificate for anybody")
	}
	must(r.API.Delete(ctx, "/v1/domains/shop.test", nil))
	eventually("links on the service's host again", func() bool { return strings.HasPrefix(link("shop.test"), "https://track.relay.test/c/") })
}

// TestSharedPort: where links have no TLS, their port answers the authority too.
func TestSharedPort(t *testing.T) {
	a := newAuthority(t)
	if err := a.dns.Add("relay.test. 60 IN A 127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	r := StartRelay(t, func(c *config.Config) {
		c.TLS, c.Tracking.Listen = a.tls, a.ask
	})
	deadline, tick := time.After(4*time.Minute), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := tls.Dial("tcp", r.Addr("tls"), &tls.Config{RootCAs: a.roots, ServerName: "relay.test"})
		if err == nil {
			conn.Close()
			break
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("no certificate: %v", err)
		}
	}
	resp, err := http.Get(fmt.Sprintf("http://%s/robots.txt", r.TrackingAddr()))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(b), "Disallow") {
		t.Errorf("links are not served beside: %q, %v", b, err)
	}
}
