package daemon

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"

	"postrider/internal/config"
	"postrider/internal/lab/fakedns"
	"postrider/internal/lab/process"
)

// pair makes a certificate and its key, as files have them.
func pair(t *testing.T, name string, life time.Duration) (cert, private []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-life), NotAfter: time.Now().Add(life)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	bare, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: bare})
}

func write(t *testing.T, file string, b []byte) {
	t.Helper()
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// until waits for a fact.
func until(t *testing.T, what string, fact func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !fact() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never came about: %s", what)
		}
	}
}

// TestReload: a certificate that is replaced on the disk is served without a
// restart; while only one of its files is new, or they are rubbish, the old one
// is.
func TestReload(t *testing.T) {
	dir := t.TempDir()
	c := testConfig(t, dir)
	c.TLS.Cert, c.TLS.Key = filepath.Join(dir, "own.pem"), filepath.Join(dir, "own.key")
	cert, key := pair(t, "one.test", 100*24*time.Hour)
	write(t, c.TLS.Cert, cert)
	write(t, c.TLS.Key, key)
	var out bytes.Buffer
	s, err := openCerts(c, slog.New(slog.NewTextHandler(&out, nil)))
	if err != nil {
		t.Fatal(err)
	}
	serves := func() string { return s.get("any").Leaf.Subject.CommonName }
	s.reload()
	if serves() != "one.test" || out.Len() != 0 {
		t.Errorf("serves %s, says %s", serves(), &out)
	}
	cert, key = pair(t, "second.test", 100*24*time.Hour)
	write(t, c.TLS.Cert, cert)
	for range 3 {
		s.reload()
	}
	if n := strings.Count(out.String(), "can't be read"); serves() != "one.test" || n != 1 {
		t.Errorf("half a change: serves %s, %d warnings", serves(), n)
	}
	write(t, c.TLS.Key, key)
	s.reload()
	if serves() != "second.test" {
		t.Errorf("a whole change: serves %s", serves())
	}
	write(t, c.TLS.Cert, nil)
	s.reload()
	if err := os.Remove(c.TLS.Key); err != nil {
		t.Fatal(err)
	}
	s.reload()
	if serves() != "second.test" {
		t.Errorf("rubbish: serves %s", serves())
	}

	// And while it runs, by itself.
	s.every = 5 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { s.run(ctx) })
	cert, key = pair(t, "third-one.test", 100*24*time.Hour)
	write(t, c.TLS.Cert, cert)
	write(t, c.TLS.Key, key)
	until(t, "the third certificate", func() bool { return serves() == "third-one.test" })
	cancel()
	wg.Wait()
}

// TestExpiryIsTold once a day, before it is too late; also by a clock that jumps.
func TestExpiryIsTold(t *testing.T) {
	dir := t.TempDir()
	c := testConfig(t, dir)
	c.TLS.Cert, c.TLS.Key = filepath.Join(dir, "own.pem"), filepath.Join(dir, "own.key")
	cert, key := pair(t, "one.test", 90*24*time.Hour)
	write(t, c.TLS.Cert, cert)
	write(t, c.TLS.Key, key)
	var out bytes.Buffer
	s, err := openCerts(c, slog.New(slog.NewTextHandler(&out, nil)))
	if err != nil {
		t.Fatal(err)
	}
	said := func() int { return strings.Count(out.String(), "runs out") }
	end := s.expires()
	for _, step := range []struct {
		at   time.Time
		want int
	}{
		{end.Add(-20 * 24 * time.Hour), 0}, {end.Add(-13 * 24 * time.Hour), 1}, {end.Add(-13*24*time.Hour + time.Hour), 1},
		{end.Add(-12 * 24 * time.Hour), 2}, {end.Add(1000 * time.Hour), 3}, {end.Add(-20 * 24 * time.Hour), 3}, {end.Add(-10 * 24 * time.Hour), 4},
	} {
		if s.watch(step.at); said() != step.want {
			t.Errorf("%v from the end: said %d times, want %d", step.at.Sub(end), said(), step.want)
		}
	}
}

// TestACME: a relay begins with a certificate of its own making and, without a
// restart, serves that of the authority as soon as it is there.
func TestACME(t *testing.T) {
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_WFE_NONCEREJECT", "0") // else one in twenty requests, by chance
	zone, err := fakedns.Start("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(zone.Close)
	if err := zone.Add("relay.test. 60 IN A 127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	free, err := process.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	asked := netip.MustParseAddrPort(free)
	none := log.New(io.Discard, "", 0)
	memory := db.NewMemoryStore()
	issuer := ca.New(none, memory, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {ValidityPeriod: 86400}})
	front := wfe.New(none, memory, va.New(none, int(asked.Port()), 0, false, zone.Addr(), memory), issuer, nil, false, false, 1, 1)
	server := httptest.NewTLSServer(front.Handler())
	t.Cleanup(server.Close)

	dir := t.TempDir()
	c := testConfig(t, dir)
	c.Listen = []config.Listener{{Name: "in", Address: "127.0.0.1:0", Mode: "tls", MinTLS: "1.2"}}
	roots := filepath.Join(dir, "acme.pem")
	write(t, roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	c.TLS = config.TLS{ACME: true, Email: "hostmaster@relay.test", Directory: server.URL + wfe.DirectoryPath, HTTP01: asked.String(), ACMERoots: roots}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	d, err := Open(t.Context(), c, quiet(t))
	if err != nil {
		t.Fatal(err)
	}
	if own := d.certs.get("relay.test"); own.Leaf.Issuer.CommonName != "relay.test" {
		t.Errorf("begins with a certificate by %s", own.Leaf.Issuer)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	until(t, "the authority's certificate on the SMTP port", func() bool {
		conn, err := tls.Dial("tcp", d.Addr("in"), &tls.Config{InsecureSkipVerify: true, ServerName: "relay.test"})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return strings.Contains(conn.ConnectionState().PeerCertificates[0].Issuer.CommonName, "Pebble")
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	// What is opened and never runs ends too: the ports are free again.
	for range 2 {
		c.Listen[0].Address = "127.0.0.1:0"
		c.HTTP.Listen = ""
		d, err := Open(t.Context(), c, quiet(t))
		if err != nil {
			t.Fatal(err)
		}
		d.abandon()
	}
}

// TestACMEWithoutName: no authority knows a host without a dot.
func TestACMEWithoutName(t *testing.T) {
	c := testConfig(t, t.TempDir())
	c.Hostname = "box"
	c.TLS = config.TLS{ACME: true, HTTP01: "127.0.0.1:0"}
	if d, err := Open(t.Context(), c, quiet(t)); err == nil || !strings.Contains(err.Error(), "tls.acme_names") {
		if d != nil {
			d.abandon()
		}
		t.Errorf("open: %v", err)
	}
}
