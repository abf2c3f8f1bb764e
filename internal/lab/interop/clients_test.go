package interop

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/netip"
	"net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/wneessen/go-mail"

	"postrider/internal/lab"
)

// order is what a client is asked to do: hand Content to the relay, over the
// listener at Host and Port. Mode and Mechanism say how.
type order struct {
	Host      string `json:"host"`
	Port      int    `json:"port"`
	Mode      string `json:"mode"` // starttls, tls or plain
	Mechanism string `json:"mechanism"`
	User      string `json:"user"`
	Password  string `json:"password"`
	CA        string `json:"ca"` // file, PEM
	Sender    string `json:"sender"`
	Recipient string `json:"recipient"`
	Subject   string `json:"subject"`
	Content   []byte `json:"content"` // lines end in CRLF
}

// newOrder says how to reach the relay's listener of that mode, and who asks.
func newOrder(t *testing.T, r *lab.Relay, mode, mechanism string) order {
	t.Helper()
	addr, err := netip.ParseAddrPort(r.Addr(mode))
	if err != nil {
		t.Fatalf("address of listener %s: %v", mode, err)
	}
	return order{Host: addr.Addr().String(), Port: int(addr.Port()), Mode: mode, Mechanism: mechanism,
		User: r.User, Password: r.Password, CA: r.CAFile}
}

func (o order) addr() string { return net.JoinHostPort(o.Host, strconv.Itoa(o.Port)) }

// compose fills in the message and its envelope.
func (o *order) compose(message func(from, to, subject string) []byte, recipient string) {
	o.Sender, o.Recipient = "sender@client.example", recipient
	o.Subject = "to " + strings.ReplaceAll(recipient, "@", " at ")
	o.Content = message(o.Sender, o.Recipient, o.Subject)
}

// client is a program or library that submits mail. It returns the content as
// it left the client: what it was given, or what it composed itself.
type client struct {
	name       string
	mechanisms []string
	send       func(t *testing.T, o order) []byte
	hops       int // Received fields that the client itself adds
}

// clients lists each client with every mechanism that it shares with the relay.
// SCRAM-SHA-256-PLUS binds to the TLS channel, so it stays out of plain.
var clients = []client{
	{"swaks", []string{"PLAIN", "LOGIN"}, sendSwaks, 0},
	{"msmtp", []string{"PLAIN", "LOGIN", "SCRAM-SHA-256"}, sendMsmtp, 0},
	{"curl", []string{"PLAIN", "LOGIN"}, sendCurl, 0},
	{"smtplib", []string{"PLAIN", "LOGIN"}, script("/usr/bin/python3", "smtplib_send.py"), 0},
	{"nodemailer", []string{"PLAIN", "LOGIN"}, script("node", "nodemailer_send.js"), 0},
	{"phpmailer", []string{"PLAIN", "LOGIN"}, script("php", "phpmailer_send.php"), 0},
	{"go-mail", []string{"PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"}, sendGoMail, 0},
	{"net-smtp", []string{"PLAIN"}, sendNetSMTP, 0},
}

// run runs a program to its end and returns its standard output.
func run(t *testing.T, input []byte, name string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s\n%s", filepath.Base(name), err, stderr.Bytes(), stdout.Bytes())
	}
	return stdout.Bytes()
}

// script makes a client of a program in testdata that reads an order as JSON and
// writes the content that it sent.
func script(interpreter, file string) func(*testing.T, order) []byte {
	return func(t *testing.T, o order) []byte {
		input, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		return run(t, input, interpreter, filepath.Join("testdata", file))
	}
}

func sendSwaks(t *testing.T, o order) []byte {
	args := []string{"--server", o.Host, "--port", strconv.Itoa(o.Port), "--helo", "swaks.example",
		"--auth", o.Mechanism, "--auth-user", o.User, "--auth-password", o.Password,
		"--from", o.Sender, "--to", o.Recipient, "--data", "-", "--no-data-fixup"}
	switch o.Mode {
	case "starttls":
		args = append(args, "--tls", "--tls-verify", "--tls-ca-path", o.CA)
	case "tls":
		args = append(args, "--tls-on-connect", "--tls-verify", "--tls-ca-path", o.CA)
	}
	// Left to itself swaks fills in words like %FROM_ADDRESS%; told not to, it
	// leaves the dots to us, too.
	stuffed := strings.ReplaceAll("\r\n"+string(o.Content), "\r\n.", "\r\n..")[2:]
	run(t, []byte(stuffed+".\r\n"), "swaks", args...)
	return o.Content
}

func sendMsmtp(t *testing.T, o order) []byte {
	config := filepath.Join(t.TempDir(), "msmtprc")
	lines := []string{"account relay", "host " + o.Host, "port " + strconv.Itoa(o.Port), "domain msmtp.example",
		"auth " + strings.ToLower(o.Mechanism), "user " + o.User, "password " + o.Password, "from " + o.Sender}
	switch o.Mode {
	case "starttls":
		lines = append(lines, "tls on", "tls_starttls on", "tls_trust_file "+o.CA)
	case "tls":
		lines = append(lines, "tls on", "tls_starttls off", "tls_trust_file "+o.CA)
	case "plain":
		lines = append(lines, "tls off")
	}
	if err := os.WriteFile(config, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, lf(o.Content), "msmtp", "--file", config, "--account", "relay", "--debug", o.Recipient)
	return o.Content
}

func sendCurl(t *testing.T, o order) []byte {
	scheme := map[string]string{"starttls": "smtp", "tls": "smtps", "plain": "smtp"}[o.Mode]
	args := []string{"--verbose", "--silent", "--show-error", "--url", scheme + "://" + o.addr() + "/curl.example",
		"--login-options", "AUTH=" + o.Mechanism, "--user", o.User + ":" + o.Password,
		"--mail-from", o.Sender, "--mail-rcpt", o.Recipient, "--upload-file", "-"}
	if o.Mode != "plain" {
		args = append(args, "--ssl-reqd", "--cacert", o.CA)
	}
	run(t, o.Content, "curl", args...)
	return o.Content
}

// tlsConfig trusts the relay's own certificate and no other.
func tlsConfig(t *testing.T, o order) *tls.Config {
	t.Helper()
	pem, err := os.ReadFile(o.CA)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatalf("%s holds no certificate", o.CA)
	}
	return &tls.Config{ServerName: o.Host, RootCAs: pool}
}

func sendNetSMTP(t *testing.T, o order) []byte {
	check := func(doing string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("net/smtp: %s: %v", doing, err)
		}
	}
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", o.addr())
	check("dial", err)
	if o.Mode == "tls" {
		conn = tls.Client(conn, tlsConfig(t, o))
	}
	c, err := smtp.NewClient(conn, o.Host)
	check("greeting", err)
	defer c.Close()
	check("hello", c.Hello("net-smtp.example"))
	if o.Mode == "starttls" {
		check("starttls", c.StartTLS(tlsConfig(t, o)))
	}
	check("auth", c.Auth(smtp.PlainAuth("", o.User, o.Password, o.Host)))
	check("mail", c.Mail(o.Sender))
	check("rcpt", c.Rcpt(o.Recipient))
	w, err := c.Data()
	check("data", err)
	_, err = w.Write(o.Content)
	check("write", err)
	check("end of data", w.Close())
	check("quit", c.Quit())
	return o.Content
}

func sendGoMail(t *testing.T, o order) []byte {
	check := func(doing string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("go-mail: %s: %v", doing, err)
		}
	}
	auth := map[string]mail.SMTPAuthType{"PLAIN": mail.SMTPAuthPlain, "LOGIN": mail.SMTPAuthLogin,
		"SCRAM-SHA-256": mail.SMTPAuthSCRAMSHA256, "SCRAM-SHA-256-PLUS": mail.SMTPAuthSCRAMSHA256PLUS}
	options := []mail.Option{mail.WithPort(o.Port), mail.WithHELO("go-mail.example"), mail.WithTimeout(patience),
		mail.WithUsername(o.User), mail.WithPassword(o.Password)}
	switch o.Mode {
	case "starttls":
		options = append(options, mail.WithTLSPolicy(mail.TLSMandatory), mail.WithTLSConfig(tlsConfig(t, o)))
	case "tls":
		options = append(options, mail.WithSSL(), mail.WithTLSConfig(tlsConfig(t, o)))
	case "plain":
		options = append(options, mail.WithTLSPolicy(mail.NoTLS))
		auth["PLAIN"], auth["LOGIN"] = mail.SMTPAuthPlainNoEnc, mail.SMTPAuthLoginNoEnc
	}
	c, err := mail.NewClient(o.Host, append(options, mail.WithSMTPAuth(auth[o.Mechanism]))...)
	check("new client", err)

	m := mail.NewMsg()
	check("from", m.From(o.Sender))
	check("to", m.To(o.Recipient))
	m.Subject(o.Subject + " Grüße")
	m.SetMessageID()
	m.SetDate()
	m.SetBoundary("=_go-mail")
	m.SetBodyString(mail.TypeTextPlain, string(o.Content))
	check("attach", m.AttachReader("message.bin", bytes.NewReader(o.Content)))
	var composed bytes.Buffer
	_, err = m.WriteTo(&composed)
	check("compose", err)
	check("send", c.DialAndSendWithContext(t.Context(), m))
	return composed.Bytes()
}
