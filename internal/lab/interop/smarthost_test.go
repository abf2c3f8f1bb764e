package interop

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postrider/internal/config"
)

// TestSmartHosts delivers through a Postfix that takes mail only from users who
// log in over TLS: on each kind of port, by each mechanism alone.
func TestSmartHosts(t *testing.T) {
	t.Parallel()
	var box mailbox
	cert := newKeyPair(t)
	hosts := postfixSmartHost(t, cert, startReceiver(t, &box, nil, true), "relay", "s3cret pass")
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("s3cret pass\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var routes []config.Route
	for name, addr := range hosts {
		mode := "require"
		if strings.HasPrefix(name, "tls-") {
			mode = "implicit"
		}
		routes = append(routes, config.Route{Domain: name + ".example", To: addr, TLS: mode, CA: cert.cert,
			User: "relay", Password: password})
	}
	r := startRelay(t, routes...)
	for name := range hosts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOrder(t, r, "starttls", "PLAIN")
			o.compose(hardMessage, "user@"+name+".example")
			sendNetSMTP(t, o)
			got := box.wait(t, o.Recipient)
			expect(t, got, o.Content, "Received", "Received")
			trace := field(got, "Received")
			for _, want := range []string{"(Authenticated sender: relay@postfix.example)", "SMTPSA "} {
				if !strings.Contains(trace, want) {
					t.Errorf("the smart host's trace is %q, want %q in it", trace, want)
				}
			}
		})
	}
}

// postfixSmartHost starts a Postfix that has one user and passes mail on to next.
// It returns the addresses that it listens on by kind of port and mechanism.
func postfixSmartHost(t *testing.T, cert keyPair, next, user, password string) map[string]string {
	t.Helper()
	host, port, err := net.SplitHostPort(next)
	if err != nil {
		t.Fatal(err)
	}
	// Cyrus SASL keeps users in a file that Postfix's own user must read.
	sasl, err := os.MkdirTemp("", "postrider-sasl-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sasl) })
	users := filepath.Join(sasl, "users")
	run(t, []byte(password), "/usr/sbin/saslpasswd2", "-p", "-c", "-f", users, "-u", "postfix.example", user)
	if err := errors.Join(os.Chmod(sasl, 0o755), os.Chmod(users, 0o644)); err != nil {
		t.Fatal(err)
	}

	addrs := map[string]string{}
	var services strings.Builder
	for _, mode := range []string{"starttls", "tls"} {
		for _, mechanism := range []string{"plain", "login", "scram-sha-256"} {
			addr := freeAddr(t)
			addrs[mode+"-"+mechanism] = addr
			fmt.Fprintf(&services, "%s inet n - n - - smtpd\n  -o smtpd_sasl_mechanism_filter=%s\n", addr, mechanism)
			if mode == "tls" {
				services.WriteString("  -o smtpd_tls_wrappermode=yes\n")
			}
		}
	}
	startPostfix(t, map[string]string{
		"relayhost":                       "[" + host + "]:" + port,
		"smtpd_relay_restrictions":        "permit_sasl_authenticated, reject",
		"smtpd_sasl_auth_enable":          "yes",
		"smtpd_sasl_local_domain":         "postfix.example",
		"smtpd_sasl_authenticated_header": "yes",
		"smtpd_tls_security_level":        "encrypt",
		"smtpd_tls_chain_files":           cert.key + ", " + cert.cert,
		"smtpd_peername_lookup":           "no",
		"smtpd_sasl_security_options":     "noanonymous",
	}, services.String(), map[string]string{
		// Where Debian's Postfix looks.
		"sasl/smtpd.conf": "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: " + users + "\nmech_list: PLAIN LOGIN SCRAM-SHA-256\n",
	})
	return addrs
}
