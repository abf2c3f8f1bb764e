package smtpd

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/wneessen/go-mail"
	"github.com/xdg-go/scram"

	"postrider/internal/account"
)

// TestSCRAM logs in with go-mail's client, which binds to the TLS session by
// tls-exporter over TLS 1.3 and by tls-unique below.
func TestSCRAM(t *testing.T) {
	for _, tt := range []struct {
		name     string
		mode     string
		kind     mail.SMTPAuthType
		password string
		ok       bool
	}{
		{"plain", ModePlain, mail.SMTPAuthSCRAMSHA256, "secret", true},
		{"wrong password", ModePlain, mail.SMTPAuthSCRAMSHA256, "wrong", false},
		{"TLS", ModeSTARTTLS, mail.SMTPAuthSCRAMSHA256, "secret", true},
		{"PLUS", ModeSTARTTLS, mail.SMTPAuthSCRAMSHA256PLUS, "secret", true},
		{"PLUS implicit", ModeTLS, mail.SMTPAuthSCRAMSHA256PLUS, "secret", true},
		{"PLUS wrong password", ModeTLS, mail.SMTPAuthSCRAMSHA256PLUS, "wrong", false},
		{"LOGIN", ModeTLS, mail.SMTPAuthLogin, "secret", true},
		{"PLAIN", ModeSTARTTLS, mail.SMTPAuthPlain, "secret", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t, testConfig(t), ListenerConfig{Mode: tt.mode})
			host, port, _ := net.SplitHostPort(f.addr)
			n, _ := strconv.Atoi(port)
			opts := []mail.Option{mail.WithPort(n), mail.WithSMTPAuth(tt.kind), mail.WithUsername("joe"), mail.WithPassword(tt.password),
				mail.WithTLSConfig(clientTLS()), mail.WithHELO("client.example")}
			switch tt.mode {
			case ModeTLS:
				opts = append(opts, mail.WithSSL())
			case ModePlain:
				opts = append(opts, mail.WithTLSPolicy(mail.NoTLS))
			}
			c, err := mail.NewClient(host, opts...)
			if err != nil {
				t.Fatal(err)
			}
			m := mail.NewMsg()
			m.From("joe@client.example")
			m.To("ann@example.com")
			m.Subject("hello")
			m.SetBodyString(mail.TypeTextPlain, "Hello!")
			err = c.DialAndSendWithContext(t.Context(), m)
			if (err == nil) != tt.ok {
				t.Errorf("got %v", err)
			}
			if n := len(f.entrance.taken()); (n == 1) != tt.ok {
				t.Errorf("%d messages were taken", n)
			}
			if strings.HasPrefix(string(tt.kind), "SCRAM") && (len(f.accounts.succeeded) == 1) != tt.ok || (len(f.accounts.failed) == 1) == tt.ok && !tt.ok {
				t.Errorf("told of %d successes and %d failures", len(f.accounts.succeeded), len(f.accounts.failed))
			}
		})
	}
}

// scramLogin plays the client's part with a channel binding of our choice.
func scramLogin(p *player, mechanism, user string, talk *scram.ClientConversation) (string, error) {
	first, err := talk.Step("")
	if err != nil {
		return "", err
	}
	fmt.Fprintf(p.conn, "AUTH %s %s\r\n", mechanism, base64.StdEncoding.EncodeToString([]byte(first)))
	for {
		line, err := p.br.ReadString('\n')
		if err != nil {
			return "", err
		}
		text, more := strings.CutPrefix(strings.TrimSpace(line), "334 ")
		if !more {
			return line, nil
		}
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return "", err
		}
		answer, err := talk.Step(string(b))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(p.conn, "%s\r\n", base64.StdEncoding.EncodeToString([]byte(answer)))
	}
}

func TestChannelBinding(t *testing.T) {
	exporter := func(s *tls.ConnectionState) (scram.ChannelBinding, error) { return scram.NewTLSExporterBinding(s) }
	endpoint := func(s *tls.ConnectionState) (scram.ChannelBinding, error) {
		return scram.NewTLSServerEndpointBinding(s)
	}
	forged := func(*tls.ConnectionState) (scram.ChannelBinding, error) {
		return scram.ChannelBinding{Type: scram.ChannelBindingTLSExporter, Data: make([]byte, 32)}, nil
	}
	for _, tt := range []struct {
		name    string
		version uint16
		user    string
		bind    func(*tls.ConnectionState) (scram.ChannelBinding, error)
		want    string
	}{
		{"exporter", tls.VersionTLS13, "joe", exporter, "235 "},
		{"endpoint", tls.VersionTLS13, "joe", endpoint, "235 "},
		{"exporter 1.2", tls.VersionTLS12, "joe", exporter, "235 "},
		{"endpoint 1.2", tls.VersionTLS12, "joe", endpoint, "235 "},
		{"forged", tls.VersionTLS13, "joe", forged, "535 "},
		{"nobody", tls.VersionTLS13, "nobody", exporter, "535 "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t, testConfig(t), ListenerConfig{Mode: ModeTLS})
			cache := tls.NewLRUClientSessionCache(1)
			for range 2 { // the second time the TLS session is resumed
				p := dial(t, f)
				c := clientTLS()
				c.MinVersion, c.MaxVersion, c.ClientSessionCache, c.ServerName = tt.version, tt.version, cache, "relay.example"
				conn := tls.Client(p.conn, c)
				p.conn = conn
				p.br.Reset(conn)
				p.steps(hello)
				state := conn.ConnectionState()
				cb, err := tt.bind(&state)
				if err != nil {
					t.Fatal(err)
				}
				client, err := scram.SHA256.NewClient(tt.user, "secret", "")
				if err != nil {
					t.Fatal(err)
				}
				got, err := scramLogin(p, "SCRAM-SHA-256-PLUS", tt.user, client.NewConversationWithChannelBinding(cb))
				if err != nil || !strings.HasPrefix(got, tt.want) {
					t.Errorf("got %q, %v", got, err)
				}
			}
		})
	}
}

// A client that knows channel binding and was made to believe that we do not is
// being lied to by somebody in between (RFC 5802 section 6).
func TestChannelBindingDowngrade(t *testing.T) {
	f := start(t, testConfig(t), ListenerConfig{Mode: ModeTLS})
	p := dial(t, f)
	conn := tls.Client(p.conn, clientTLS())
	p.conn = conn
	p.br.Reset(conn)
	p.steps(hello)
	first := base64.StdEncoding.EncodeToString([]byte("y,,n=joe,r=abc"))
	p.steps("C: AUTH SCRAM-SHA-256 " + first + "\nS: 535 5.7.8 ...")
	bound := base64.StdEncoding.EncodeToString([]byte("p=tls-exporter,,n=joe,r=abc"))
	p.steps("C: AUTH SCRAM-SHA-256 " + bound + "\nS: 501 5.5.2 ...")
	p.steps("C: AUTH SCRAM-SHA-256-PLUS " + base64.StdEncoding.EncodeToString([]byte("n,,n=joe,r=abc")) + "\nS: 501 5.5.2 ...")
}

// While a password is being rotated both serve, the old one and the new one; and
// who is blocked is told so, not that the password is wrong.
func TestSCRAMRotation(t *testing.T) {
	f := start(t, testConfig(t), ListenerConfig{Mode: ModeTLS})
	older := verifier()
	client, err := scram.SHA256.NewClient("any", "newer", "")
	if err != nil {
		t.Fatal(err)
	}
	newer, err := client.GetStoredCredentialsWithError(older.KeyFactors)
	if err != nil {
		t.Fatal(err)
	}
	f.accounts.scram = func(user string) (*account.Verifier, error) {
		v := &account.Verifier{Salt: []byte(newer.Salt), Iterations: newer.Iters, StoredKey: newer.StoredKey, ServerKey: newer.ServerKey, Identity: id(user)}
		v.Before = &account.Verifier{Salt: v.Salt, Iterations: v.Iterations, StoredKey: older.StoredKey, ServerKey: older.ServerKey, Identity: id(user)}
		return v, nil
	}
	for _, tt := range []struct{ user, password, want string }{
		{"joe", "newer", "235 "}, {"joe", "secret", "235 "}, {"joe", "neither", "535 5.7.8 "}, {"blocked", "secret", "535 5.7.1 This account is blocked. "},
	} {
		p := dial(t, f)
		conn := tls.Client(p.conn, clientTLS())
		p.conn = conn
		p.br.Reset(conn)
		p.steps(hello)
		client, err := scram.SHA256.NewClient(tt.user, tt.password, "")
		if err != nil {
			t.Fatal(err)
		}
		got, err := scramLogin(p, "SCRAM-SHA-256", tt.user, client.NewConversation())
		if err != nil || !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s with %q: got %q, %v; want %q", tt.user, tt.password, got, err, tt.want)
		}
	}
}
