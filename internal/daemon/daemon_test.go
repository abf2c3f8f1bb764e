package daemon

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/smtp"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postrider/internal/api"
	"postrider/internal/config"
)

func testConfig(t *testing.T, dir string) config.Config {
	t.Helper()
	c := config.Default()
	c.Policy.Senders = "any"
	c.Hostname, c.Data, c.Node = "relay.test", dir, "n1"
	c.Listen = []config.Listener{{Name: "in", Address: "127.0.0.1:0", Mode: "starttls", MinTLS: "1.2"}}
	c.DNS.Servers = []string{"127.0.0.1:1"} // nobody answers: mail waits
	c.DNS.Timeout = config.Duration(100 * time.Millisecond)
	c.Queue.Drain = config.Duration(time.Second)
	if err := c.Resolve(); err != nil {
		t.Fatal(err)
	}
	return c
}

func quiet(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// run runs a daemon until the function returned is called.
func run(t *testing.T, c config.Config) (d *Daemon, stop func()) {
	t.Helper()
	d, err := Open(t.Context(), c, quiet(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	return d, func() {
		t.Helper()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	}
}

// A second start finds everything as the first one left it: the credential, the
// certificate, and the mail that waits.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	d, stop := run(t, testConfig(t, dir))
	if d.First == nil || d.First.Password == "" {
		t.Fatal("the first start makes no credential")
	}
	secret := *d.First
	first := serverCert(t, d)
	hand(t, d, secret)
	stop()

	d, stop = run(t, testConfig(t, dir))
	defer stop()
	if d.First != nil {
		t.Error("the second start makes another credential")
	}
	if !bytes.Equal(first, serverCert(t, d)) {
		t.Error("the second start has another certificate")
	}
	hand(t, d, secret)
	var waiting api.List[api.Delivery]
	if err := api.NewClient(dir).Get(t.Context(), "/v1/deliveries", nil, &waiting); err != nil {
		t.Fatal(err)
	}
	if len(waiting.Data) != 2 || waiting.Data[0].Due == nil || waiting.Data[1].Due == nil {
		t.Errorf("%d deliveries: %+v; want both waiting", len(waiting.Data), waiting.Data)
	}
}

func serverCert(t *testing.T, d *Daemon) []byte {
	t.Helper()
	c, err := smtp.Dial(d.Addr("in"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.StartTLS(&tls.Config{InsecureSkipVerify: true}); err != nil {
		t.Fatal(err)
	}
	state, _ := c.TLSConnectionState()
	if err := state.PeerCertificates[0].VerifyHostname("relay.test"); err != nil {
		t.Error(err)
	}
	return state.PeerCertificates[0].Raw
}

func hand(t *testing.T, d *Daemon, s Secret) {
	t.Helper()
	c, err := smtp.Dial(d.Addr("in"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.StartTLS(&tls.Config{InsecureSkipVerify: true}); err != nil {
		t.Fatal(err)
	}
	if err := c.Auth(smtp.PlainAuth("", s.User, s.Password, "127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Mail("a@b.test"), c.Rcpt("c@d.test")); err != nil {
		t.Fatal(err)
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("Subject: x\r\n\r\nx\r\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// Secrets and mail are for the owner's eyes.
func TestFilesArePrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	_, stop := run(t, testConfig(t, dir))
	defer stop()
	for _, name := range []string{".", keyName, api.SocketName} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
}

func TestSecondServerOnOneFolder(t *testing.T) {
	dir := t.TempDir()
	d, stop := run(t, testConfig(t, dir))
	defer stop()
	second := testConfig(t, dir)
	second.Listen[0].Address = d.Addr("in") // the folder is what must be said, not the port
	if _, err := Open(t.Context(), second, quiet(t)); err == nil || errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second server in one data folder: %v", err)
	}
	var s api.Status
	if err := api.NewClient(dir).Get(t.Context(), "/v1/status", nil, &s); err != nil {
		t.Errorf("the first one's control socket is gone: %v", err)
	}
}

// Of the ports that nobody named, those that can't be had are left out; a port
// that was named must be had.
func TestPortsThatCannotBeHad(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	c := testConfig(t, t.TempDir())
	c.Listen = append(c.Listen, config.Listener{Name: "taken", Address: taken.Addr().String(), Mode: "tls", MinTLS: "1.2", Default: true})
	d, stop := run(t, c)
	if d.Addr("in") == "" || d.Addr("taken") != "" {
		t.Errorf("ports: %v", d.addrs())
	}
	stop()
	c.Listen[1].Default = false
	_, err = Open(t.Context(), c, quiet(t))
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "listen[1].address") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v; want one line that names listen[1].address", err)
	}
}

func TestBindErrorsSayWhatToDo(t *testing.T) {
	for cause, advice := range map[error]string{syscall.EACCES: "CAP_NET_BIND_SERVICE", syscall.EADDRINUSE: "stop that one", syscall.EADDRNOTAVAIL: "does not have the address"} {
		err := bindError("listen[0].address", ":25", &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", cause)})
		if !strings.Contains(err.Error(), advice) || !errors.Is(err, cause) {
			t.Errorf("%v lacks %q", err, advice)
		}
	}
}

func TestFilesOfRoutes(t *testing.T) {
	dir := t.TempDir()
	password, empty, ca := filepath.Join(dir, "p"), filepath.Join(dir, "e"), filepath.Join(dir, "ca")
	os.WriteFile(password, []byte("geheim\r\nmore\n"), 0o600)
	os.WriteFile(empty, []byte("\n"), 0o600)
	os.WriteFile(ca, []byte("no PEM"), 0o600)
	host := config.Route{Domain: "*", To: "mx.test:587", User: "u", Password: password, TLS: "require"}
	got, err := routes(config.Config{Route: []config.Route{host}})
	if err != nil || got[0].Host != "mx.test" || got[0].Port != 587 || got[0].Auth.Password != "geheim" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, tt := range []struct {
		file func(*config.Route)
		want string
	}{
		{func(r *config.Route) { r.Password = empty }, "route[0].password_file"},
		{func(r *config.Route) { r.Password = filepath.Join(dir, "none") }, "route[0].password_file"},
		{func(r *config.Route) { r.CA = ca }, "route[0].ca"},
	} {
		bad := host
		tt.file(&bad)
		if _, err := routes(config.Config{Route: []config.Route{bad}}); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%v; want one that names %s", err, tt.want)
		}
	}
}
