package acme

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
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"

	"postrider/internal/lab/fakedns"
	"postrider/internal/seal"
	"postrider/internal/store"
	"postrider/internal/store/sqlite"
)

// patience bounds each wait.
const patience = 2 * time.Minute

const name = "mx.relay.test"

// authority is Pebble, the test server of Let's Encrypt, which looks for names
// in a DNS of ours, and asks at ports of ours.
type authority struct {
	*testing.T
	directory string
	roots     *x509.CertPool
	http, tls net.Listener
	db        *store.DB
	box       *seal.Box
	zone      *fakedns.Server

	orders atomic.Int64
	change atomic.Pointer[func(http.ResponseWriter, *http.Request, http.Handler)] // in place of the answer
}

// newAuthority starts one whose certificates last so long.
func newAuthority(t *testing.T, life time.Duration) *authority {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_WFE_NONCEREJECT", "0") // orders are counted
	a := &authority{T: t}
	zone, err := fakedns.Start("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(zone.Close)
	a.zone = zone
	if err := zone.Add("*.relay.test. 60 IN A 127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	a.http, a.tls = listen(t), listen(t)
	quiet := log.New(io.Discard, "", 0)
	memory := db.NewMemoryStore()
	issuer := ca.New(quiet, memory, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {Description: "the one", ValidityPeriod: uint64(life / time.Second)}})
	looker := va.New(quiet, port(a.http), port(a.tls), false, zone.Addr(), memory)
	front := wfe.New(quiet, memory, looker, issuer, nil, false, false, 1, 1)
	handler := front.Handler()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/order-plz") {
			a.orders.Add(1)
		}
		if change := a.change.Load(); change != nil {
			(*change)(w, r, handler)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	a.directory = server.URL + wfe.DirectoryPath
	a.roots = x509.NewCertPool()
	a.roots.AddCert(server.Certificate())
	if a.db, err = sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "mail.db"), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	opened := a.db // a test may have the others use another
	t.Cleanup(func() { opened.Close() })
	if a.box, err = seal.New(seal.NewKey()); err != nil {
		t.Fatal(err)
	}
	return a
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

func port(ln net.Listener) int { return ln.Addr().(*net.TCPAddr).Port }

func (a *authority) lie(with func(w http.ResponseWriter, r *http.Request, honest http.Handler)) {
	if with == nil {
		a.change.Store(nil)
		return
	}
	a.change.Store(&with)
}

// run makes a manager and runs it until the end, which may come early.
func (a *authority) run(c Config, names ...string) (*Manager, func()) {
	a.Helper()
	if c.Names = names; len(names) == 0 {
		c.Names = []string{name}
	}
	c.HTTP, c.TLS = a.another(c.HTTP), a.another(c.TLS)
	c.Directory, c.Roots, c.Box, c.Email = a.directory, a.roots, a.box, "hostmaster@relay.test"
	if c.Waits == nil {
		c.Waits = []time.Duration{50 * time.Millisecond}
	}
	if c.Check == 0 {
		c.Check = 200 * time.Millisecond
	}
	m := New(c, a.db, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(a.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := m.Run(ctx); err != nil {
			a.Error(err)
		}
	})
	end := sync.OnceFunc(func() { cancel(); wg.Wait() })
	a.Cleanup(end)
	return m, end
}

// another is a listener on the same port, which a manager may close: the port stays
// ours for the next one.
func (a *authority) another(ln net.Listener) net.Listener {
	a.Helper()
	if ln == nil {
		return nil
	}
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		a.Fatal(err)
	}
	defer f.Close()
	if ln, err = net.FileListener(f); err != nil {
		a.Fatal(err)
	}
	return ln
}

func (a *authority) eventually(what string, fact func() bool) {
	a.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !fact() {
		select {
		case <-tick.C:
		case <-deadline:
			a.Fatalf("never came about: %s", what)
		}
	}
}

func (a *authority) has(m *Manager, name string) *tls.Certificate {
	a.Helper()
	a.eventually("a certificate for "+name, func() bool { return m.Certificate(name) != nil })
	return m.Certificate(name)
}

func (a *authority) holds(c *tls.Certificate, name string) {
	a.Helper()
	if err := c.Leaf.VerifyHostname(name); err != nil || !strings.Contains(c.Leaf.Issuer.CommonName, "Pebble") {
		a.Errorf("the certificate is for %v by %s: %v", c.Leaf.DNSNames, c.Leaf.Issuer, err)
	}
}

// TestHTTP01: each name gets its certificate, which other nodes find in the
// store; nothing stands there in the clear.
func TestHTTP01(t *testing.T) {
	a := newAuthority(t, 24*time.Hour)
	m, end := a.run(Config{HTTP: a.http}, name, "smtp.relay.test")
	first := a.has(m, name)
	a.holds(first, name)
	a.holds(a.has(m, "smtp.relay.test"), "smtp.relay.test")
	if m.Certificate("") != m.Certificate(name) && !bytes.Equal(m.Certificate("").Certificate[0], first.Certificate[0]) {
		t.Error("who names nothing does not get the first one")
	}
	if c := m.Certificate("SMTP.relay.test."); c.Leaf.VerifyHostname("smtp.relay.test") != nil {
		t.Error("names in other letters are others")
	}
	resp, err := http.Get("http://" + a.http.Addr().String() + "/else")
	if err != nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("other requests: %v, %v", resp, err)
	}
	end()
	orders := a.orders.Load()
	other, _ := a.run(Config{}, name, "smtp.relay.test")
	if got := a.has(other, name); !bytes.Equal(got.Certificate[0], first.Certificate[0]) {
		t.Error("the other node has another certificate")
	}
	if n := a.orders.Load(); n != orders || orders != 2 {
		t.Errorf("%d orders, then %d; want 2 for all nodes", orders, n)
	}
	files, err := a.db.Files(t.Context(), "")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		if f, err = a.db.File(t.Context(), f.Name); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(f.Bytes, []byte("PRIVATE KEY")) || bytes.Contains(f.Bytes, []byte("CERTIFICATE")) {
			t.Errorf("%s is not sealed", f.Name)
		}
	}
}

func TestTLSALPN01(t *testing.T) {
	a := newAuthority(t, 24*time.Hour)
	m, _ := a.run(Config{TLS: a.tls})
	a.holds(a.has(m, name), name)
	// Others get nothing there.
	if conn, err := tls.Dial("tcp", a.tls.Addr().String(), &tls.Config{InsecureSkipVerify: true, ServerName: name}); err == nil {
		conn.Close()
		t.Error("the port for the authority serves anybody")
	}
}

// TestTwoNodesAtOnce want the same certificate, and ask for it once. Each can
// answer the authority, so either may be the one that asks.
func TestTwoNodesAtOnce(t *testing.T) {
	a := newAuthority(t, 24*time.Hour)
	one, _ := a.run(Config{HTTP: a.http})
	two, _ := a.run(Config{TLS: a.tls})
	if x, y := a.has(one, name), a.has(two, name); !bytes.Equal(x.Certificate[0], y.Certificate[0]) || a.orders.Load() != 1 {
		t.Errorf("%d orders; the same certificate: %v", a.orders.Load(), bytes.Equal(x.Certificate[0], y.Certificate[0]))
	}
}

// ownName is one that no other run in this process renews: jobs of certmagic are one
// for each name in a process, and may outlive their manager.
func ownName() string { return strings.ToLower(rand.Text()) + ".relay.test" }

// TestRenewal: certificates of a short life are renewed in time, and served at
// once; one that was found expired, as after a clock that jumped, too.
func TestRenewal(t *testing.T) {
	name := ownName()
	a := newAuthority(t, 6*time.Second)
	m, end := a.run(Config{HTTP: a.http}, name)
	first := a.has(m, name).Leaf.SerialNumber
	a.eventually("a renewed certificate", func() bool { return m.Certificate(name).Leaf.SerialNumber.Cmp(first) != 0 })
	end()
	old := m.Certificate(name).Leaf
	a.eventually("its end", func() bool { return time.Now().After(old.NotAfter) })
	later, _ := a.run(Config{HTTP: a.http}, name)
	a.eventually("a new one after its end", func() bool {
		c := later.Certificate(name)
		return c != nil && c.Leaf.NotAfter.After(old.NotAfter)
	})
}

// TestTrouble has authorities that fail and lie: there is no certificate then,
// and as soon as they mend, there is one.
func TestTrouble(t *testing.T) {
	for _, tt := range []struct {
		name string
		path string // a request that each try makes
		lie  func(a *authority) func(http.ResponseWriter, *http.Request, http.Handler)
	}{
		{"errors", "/dir", func(*authority) func(http.ResponseWriter, *http.Request, http.Handler) {
			return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { http.Error(w, "sorry", 500) }
		}},
		{"nonsense", "/dir", func(*authority) func(http.ResponseWriter, *http.Request, http.Handler) {
			return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { io.WriteString(w, "<html>") }
		}},
		{"a foreign key's certificate", "/order-plz", func(a *authority) func(http.ResponseWriter, *http.Request, http.Handler) {
			cert, _ := forged(a.T, name)
			return certificates(cert)
		}},
		{"no certificate", "/order-plz", func(*authority) func(http.ResponseWriter, *http.Request, http.Handler) {
			return certificates([]byte("hello"))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAuthority(t, 24*time.Hour)
			tried := make(chan struct{}, 1000)
			lie := tt.lie(a)
			a.lie(func(w http.ResponseWriter, r *http.Request, honest http.Handler) {
				lie(w, r, honest)
				if r.URL.Path == tt.path {
					select {
					case tried <- struct{}{}:
					default:
					}
				}
			})
			m, _ := a.run(Config{HTTP: a.http})
			for range 2 {
				select {
				case <-tried:
				case <-time.After(patience):
					t.Fatal("not tried twice")
				}
			}
			if c := m.Certificate(name); c != nil {
				t.Errorf("a certificate for %v by %s", c.Leaf.DNSNames, c.Leaf.Issuer)
			}
			a.lie(nil)
			a.holds(a.has(m, name), name)
		})
	}
}

// certificates answers honestly, but for the certificate.
func certificates(chain []byte) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, r *http.Request, honest http.Handler) {
		if !strings.HasPrefix(r.URL.Path, "/certZ/") {
			honest.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		honest.ServeHTTP(rec, r)
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.Header().Del("Content-Length")
		w.WriteHeader(rec.Code)
		w.Write(chain)
	}
}

// forged is a certificate for names, of a key that nobody asked with.
func forged(t *testing.T, names ...string) (cert, private []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "forged"}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
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

// TestPurge: what stands in the store and can't be used keeps nobody from asking
// anew.
func TestPurge(t *testing.T) {
	a := newAuthority(t, 24*time.Hour)
	m, end := a.run(Config{HTTP: a.http})
	a.has(m, name)
	end()
	files, err := a.db.Files(t.Context(), "acme/certificates/")
	if err != nil || len(files) != 3 {
		t.Fatalf("%v, %v", files, err)
	}
	for i, f := range files {
		if strings.HasSuffix(f.Name, ".json") {
			continue
		}
		if err := a.db.PutFile(t.Context(), f.Name, []byte("spoilt")); err != nil {
			t.Fatal(err)
		}
		a.renewed(fmt.Sprint("file ", i))
	}
	// A whole pair, but for somebody else.
	cert, key := forged(t, "other.test")
	for _, f := range files {
		at := strings.TrimPrefix(f.Name, folder)
		switch filepath.Ext(at) {
		case ".crt":
			err = m.files.Store(t.Context(), at, cert)
		case ".key":
			err = m.files.Store(t.Context(), at, key)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	a.renewed("another's")
}

// renewed starts a manager that has to ask for a certificate.
func (a *authority) renewed(what string) {
	a.Helper()
	orders := a.orders.Load()
	again, end := a.run(Config{HTTP: a.http})
	a.holds(a.has(again, name), name)
	end()
	if a.orders.Load() != orders+1 {
		a.Errorf("%s: %d orders", what, a.orders.Load()-orders)
	}
}

// TestKeepsWhatServes: a renewal that brings a wrong certificate takes nothing
// away.
func TestKeepsWhatServes(t *testing.T) {
	name := ownName()
	a := newAuthority(t, 6*time.Second)
	m, _ := a.run(Config{HTTP: a.http}, name)
	first := a.has(m, name)
	wrong, _ := forged(t, "other.test")
	var given atomic.Int64
	lie := certificates(wrong)
	a.lie(func(w http.ResponseWriter, r *http.Request, honest http.Handler) {
		lie(w, r, honest)
		if strings.HasPrefix(r.URL.Path, "/certZ/") {
			given.Add(1)
		}
	})
	a.eventually("a renewal", func() bool { return given.Load() > 0 })
	for range 20 {
		if c := m.Certificate(name); c == nil || c.Leaf.VerifyHostname(name) != nil {
			t.Fatal("the wrong one serves, or none")
		}
	}
	a.lie(nil)
	a.eventually("a right one", func() bool { return m.Certificate(name).Leaf.SerialNumber.Cmp(first.Leaf.SerialNumber) != 0 })
	a.holds(m.Certificate(name), name)
}
