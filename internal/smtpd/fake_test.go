package smtpd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xdg-go/scram"

	"postrider/internal/account"
	"postrider/internal/config"
	"postrider/internal/relay"
	"postrider/internal/submit"
)

// accounts is a struct of functions: each test sets what it needs.
type accounts struct {
	login   func(user, password string) (*account.Identity, error)
	scram   func(user string) (*account.Verifier, error)
	network func(netip.Addr) *account.Identity
	alive   func(*account.Identity) bool

	mu        sync.Mutex
	failed    []string
	succeeded []string
}

func (a *accounts) Login(_ context.Context, _ netip.Addr, user, password string) (*account.Identity, error) {
	return a.login(user, password)
}

func (a *accounts) SCRAM(_ context.Context, _ netip.Addr, user string) (*account.Verifier, error) {
	return a.scram(user)
}

func (a *accounts) Failed(_ netip.Addr, user string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failed = append(a.failed, user)
}

func (a *accounts) Succeeded(_ context.Context, _ netip.Addr, user string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.succeeded = append(a.succeeded, user)
	if user == "blocked" {
		return &relay.Error{Code: relay.Forbidden, Text: "This account is blocked.", Advice: "Ask an operator."}
	}
	return nil
}

func (a *accounts) Network(_ context.Context, client netip.Addr) *account.Identity {
	return a.network(client)
}

func (a *accounts) Alive(_ context.Context, id *account.Identity) bool { return a.alive(id) }

func id(user string) *account.Identity {
	i := &account.Identity{Account: relay.ID{1}, Credential: relay.ID{2}, Kind: account.KindSMTP, User: user, Stream: relay.Transactional}
	switch user {
	case "scanner":
		i.RepairLF = true
	case "bound":
		i.Senders = []string{"bound.example"}
	}
	return i
}

var errLogin = &relay.Error{Code: relay.Unauthenticated, Text: "User name or password is wrong.", Advice: "Check both."}

// verifier is that of the password "secret"; making it takes a while.
var verifier = sync.OnceValue(func() scram.StoredCredentials {
	client, err := scram.SHA256.NewClient("any", "secret", "")
	if err != nil {
		panic(err)
	}
	stored, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: "0123456789abcdef", Iters: 4096})
	if err != nil {
		panic(err)
	}
	return stored
})

// newAccounts knows the users joe, scanner, bound and revoked, all with the
// password "secret", and no network.
func newAccounts() *accounts {
	users := map[string]bool{"joe": true, "scanner": true, "bound": true, "revoked": true}
	stored := verifier()
	return &accounts{
		login: func(user, password string) (*account.Identity, error) {
			switch {
			case user == "busy":
				return nil, &relay.Error{Code: relay.Busy, Text: "Too many logins at once.", Advice: "Try again in a minute."}
			case user == "broken":
				return nil, errors.New("store is away")
			case !users[user] || password != "secret":
				return nil, errLogin
			}
			return id(user), nil
		},
		scram: func(user string) (*account.Verifier, error) {
			v := &account.Verifier{Salt: []byte(stored.Salt), Iterations: stored.Iters, StoredKey: stored.StoredKey, ServerKey: stored.ServerKey}
			if users[user] {
				v.Identity = id(user)
			}
			return v, nil
		},
		network: func(netip.Addr) *account.Identity { return nil },
		alive:   func(i *account.Identity) bool { return i.User != "revoked" },
	}
}

// taken is a message that the entrance took.
type taken struct {
	submit.Draft
	body string
}

// entrance keeps what it takes. Senders at relay.test name the error they get.
type entrance struct {
	mu    sync.Mutex
	mail  []taken
	block chan struct{} // not nil: Submit waits for it, or for ctx
	came  chan struct{} // told, where not nil, when Submit begins to wait
}

func (e *entrance) Submit(ctx context.Context, d submit.Draft) (relay.ID, error) {
	if e.block != nil {
		if e.came != nil {
			e.came <- struct{}{}
		}
		select {
		case <-e.block:
		case <-ctx.Done():
			return relay.ID{}, ctx.Err()
		}
	}
	rc, err := d.Content.Open()
	if err != nil {
		return relay.ID{}, err
	}
	defer rc.Close()
	b, err := io.ReadAll(rc)
	if err != nil {
		return relay.ID{}, err
	}
	if code, ok := strings.CutSuffix(d.Envelope.Sender, "@relay.test"); ok {
		return relay.ID{}, &relay.Error{Code: relay.Code(code), Text: "It is " + code + ".", Advice: "Do something.", Err: errors.New("cause")}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mail = append(e.mail, taken{d, string(b)})
	return relay.ID{15: byte(len(e.mail))}, nil
}

// Sender is as strict as the credential says.
func (e *entrance) Sender(_ context.Context, id *account.Identity, sender string) error {
	if len(id.Senders) > 0 && !strings.HasSuffix(sender, id.Senders[0]) {
		return &relay.Error{Code: relay.Forbidden, Text: "This credential may not send as <" + sender + ">.", Advice: "Send as one of: " + id.Senders[0] + "."}
	}
	return nil
}

func (e *entrance) Recipient(_ context.Context, _ *account.Identity, _, recipient string) error {
	if strings.HasPrefix(recipient, "suppressed@") {
		return &relay.Error{Code: relay.Suppressed, Text: "Nothing may be sent to it.", Advice: "Take it off the list."}
	}
	return nil
}

func (e *entrance) taken() []taken {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]taken(nil), e.mail...)
}

// fixture is a server on loopback.
type fixture struct {
	*Server
	accounts *accounts
	entrance *entrance
	addr     string
	stop     context.CancelFunc // begins the shutdown
	done     chan error         // gives what Serve returned
}

type logWriter struct{ t testing.TB }

func (w logWriter) Write(b []byte) (int, error) {
	if strings.Contains(string(b), "secret") {
		w.t.Errorf("a secret is in the log: %s", b)
	}
	w.t.Log(strings.TrimSuffix(string(b), "\n"))
	return len(b), nil
}

func testConfig(t testing.TB) Config {
	return Config{Hostname: "relay.example", TLS: testTLS(t), TempDir: t.TempDir(), Limits: config.Default().Limits, Drain: 5 * time.Second}
}

// start serves on a port of loopback. The client's address counts as known, so
// that no test waits for TLS that begins by itself unless it asks for it.
func start(t testing.TB, c Config, lc ListenerConfig) *fixture {
	t.Helper()
	return startLogging(t, c, lc, slog.NewTextHandler(logWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// startLogging is start with a log of one's own.
func startLogging(t testing.TB, c Config, lc ListenerConfig, log slog.Handler) *fixture {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{accounts: newAccounts(), entrance: new(entrance), addr: ln.Addr().String(), done: make(chan error, 1)}
	if lc.Mode == ModeFeedback {
		c.Feedback = f.entrance
	}
	f.Server = New(c, f.accounts, f.entrance, slog.New(log))
	f.habits.learn(netip.MustParseAddr("127.0.0.1"), true)
	if lc.Name == "" {
		lc.Name = "test"
	}
	ctx, cancel := context.WithCancel(t.Context())
	f.stop = cancel
	go func() { f.done <- f.Serve(ctx, ln, lc) }()
	t.Cleanup(func() {
		cancel()
		if err, ok := <-f.done; ok && err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return f
}

// wait waits for Serve to return.
func (f *fixture) wait() error {
	err := <-f.done
	close(f.done)
	return err
}

func testTLS(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "relay.example"}, DNSNames: []string{"relay.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &c, nil }}
}

func clientTLS() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }
