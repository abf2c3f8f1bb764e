package interop

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"postrider/internal/lab"
)

// postfixServices is a master.cf with what an instance needs to queue mail and
// send it on. Nothing runs in a chroot, and nothing listens.
const postfixServices = `
pickup    unix       n - n 60   1 pickup
cleanup   unix       n - n -    0 cleanup
qmgr      unix       n - n 300  1 qmgr
tlsmgr    unix       - - n 1000 1 tlsmgr
rewrite   unix       - - n -    - trivial-rewrite
bounce    unix       - - n -    0 bounce
defer     unix       - - n -    0 bounce
trace     unix       - - n -    0 bounce
verify    unix       - - n -    1 verify
flush     unix       n - n 1000 0 flush
proxymap  unix       - - n -    - proxymap
proxywrite unix      - - n -    1 proxymap
smtp      unix       - - n -    - smtp
relay     unix       - - n -    - smtp
showq     unix       n - n -    - showq
error     unix       - - n -    - error
retry     unix       - - n -    - error
discard   unix       - - n -    - discard
local     unix       - n n -    - local
virtual   unix       - n n -    - virtual
lmtp      unix       - - n -    - lmtp
anvil     unix       - - n -    1 anvil
scache    unix       - - n -    1 scache
postlog   unix-dgram n - n -    1 postlogd
`

// startPostfix starts a Postfix of its own, in its own folders, with further
// lines for main.cf and master.cf and further files beside them, and returns its
// configuration folder. It leaves alone whatever Postfix the machine has.
func startPostfix(t *testing.T, settings map[string]string, services string, files map[string]string) (folder string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("Postfix only starts for root: run these tests as root, or in a container")
	}
	// Postfix's own user must be able to walk to its queue, which t.TempDir
	// does not allow.
	top, err := os.MkdirTemp("", "postrider-postfix-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	folder, queue, log := filepath.Join(top, "etc"), filepath.Join(top, "queue"), filepath.Join(top, "log")
	for _, err := range []error{os.Chmod(top, 0o755), os.Mkdir(folder, 0o755), os.Mkdir(queue, 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	main := map[string]string{
		"compatibility_level": "3.6", "mail_owner": "postfix", "setgid_group": "postdrop",
		"queue_directory": queue, "data_directory": filepath.Join(top, "data"),
		"maillog_file": log, "maillog_file_prefixes": top,
		"inet_interfaces": "127.0.0.1", "inet_protocols": "ipv4", "smtp_host_lookup": "native",
		"myhostname": "postfix.example", "mydestination": "", "mynetworks": "127.0.0.1/32",
		"alias_maps": "", "alias_database": "", "local_recipient_maps": "",
		"smtp_dns_support_level": "disabled",
	}
	maps.Copy(main, settings)
	var text strings.Builder
	for name, value := range main {
		fmt.Fprintf(&text, "%s = %s\n", name, value)
	}
	files = maps.Clone(files)
	if files == nil {
		files = map[string]string{}
	}
	files["main.cf"], files["master.cf"] = text.String(), postfixServices+services
	for name, content := range files {
		file := filepath.Join(folder, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("/usr/sbin/postfix", "-c", folder, "stop").CombinedOutput(); err != nil {
			t.Errorf("stop Postfix: %v\n%s", err, out)
		}
		if t.Failed() {
			t.Logf("Postfix's troubles:\n%s", troubles(log))
		}
	})
	if out, err := exec.CommandContext(t.Context(), "/usr/sbin/postfix", "-c", folder, "start").CombinedOutput(); err != nil {
		lines, _ := os.ReadFile(log)
		t.Fatalf("start Postfix: %v\n%s\n%s", err, out, lines)
	}
	return folder
}

// troubles picks from Postfix's log what did not go well.
func troubles(log string) string {
	content, err := os.ReadFile(log)
	if err != nil {
		return err.Error()
	}
	lines := slices.DeleteFunc(strings.SplitAfter(string(content), "\n"), func(line string) bool {
		return !strings.Contains(line, "warning:") && !strings.Contains(line, "fatal:") && !strings.Contains(line, "error:") &&
			!strings.Contains(line, "status=deferred") && !strings.Contains(line, "status=bounced")
	})
	return strings.Join(lines, "")
}

// postfixClient starts a Postfix whose smart host is the relay, and makes a
// client of its sendmail. Each listener and mechanism has an SMTP client of its
// own in master.cf; mail for a recipient whose name is not a pair of both goes
// to the relayhost.
func postfixClient(t *testing.T, r *lab.Relay) client {
	t.Helper()
	mechanisms := []string{"PLAIN", "LOGIN", "SCRAM-SHA-256"}
	var transports, passwords, services strings.Builder
	nexthop := func(mode string) string {
		o := newOrder(t, r, mode, "")
		return fmt.Sprintf("[%s]:%d", o.Host, o.Port)
	}
	for _, mode := range modes {
		fmt.Fprintf(&passwords, "{%s = %s:%s} ", nexthop(mode), r.User, r.Password)
		for _, mechanism := range mechanisms {
			name := "postfix-" + mode + "-" + strings.ToLower(mechanism)
			fmt.Fprintf(&transports, "{%s@receiver.example = %s:%s} ", name, name, nexthop(mode))
			fmt.Fprintf(&services, "%s unix - - n - - smtp\n  -o smtp_sasl_mechanism_filter=%s\n", name, strings.ToLower(mechanism))
			switch mode {
			case "tls":
				services.WriteString("  -o smtp_tls_wrappermode=yes\n")
			case "plain":
				services.WriteString("  -o smtp_tls_security_level=none\n")
			}
		}
	}
	folder := startPostfix(t, map[string]string{
		"relayhost":               nexthop("starttls"),
		"transport_maps":          "inline:{ " + transports.String() + "}",
		"smtp_sasl_auth_enable":   "yes",
		"smtp_sasl_password_maps": "inline:{ " + passwords.String() + "}",
		// Without this, Postfix does not send a password in the clear at all.
		"smtp_sasl_security_options": "noanonymous",
		"smtp_tls_security_level":    "secure",
		"smtp_tls_secure_cert_match": "localhost",
		"smtp_tls_CAfile":            r.CAFile,
	}, services.String(), nil)
	return client{name: "postfix", mechanisms: mechanisms, hops: 1, send: func(t *testing.T, o order) []byte {
		run(t, lf(o.Content), "/usr/sbin/sendmail", "-C", folder, "-i", "-f", o.Sender, o.Recipient)
		return o.Content
	}}
}

// postfixReceiver starts a Postfix that takes mail for any domain of example and
// passes it on to next. It returns two addresses: at the second one it offers
// nothing but STARTTLS, not even 8BITMIME.
func postfixReceiver(t *testing.T, cert keyPair, next string) (addr, basic string) {
	t.Helper()
	host, port, err := net.SplitHostPort(next)
	if err != nil {
		t.Fatal(err)
	}
	addr, basic = freeAddr(t), freeAddr(t)
	startPostfix(t, map[string]string{
		"relay_domains":            "example",
		"relay_transport":          "smtp:[" + host + "]:" + port,
		"smtpd_relay_restrictions": "reject_unauth_destination",
		"smtpd_tls_security_level": "may",
		"smtpd_tls_chain_files":    cert.key + ", " + cert.cert,
		"smtpd_peername_lookup":    "no",
		"message_size_limit":       strconv.Itoa(50 << 20),
		// Postfix makes up an ORCPT that go-smtp refuses when it is not ASCII.
		"smtp_discard_ehlo_keywords": "dsn",
	}, addr+" inet n - n - - smtpd\n"+basic+" inet n - n - - smtpd\n"+
		"  -o smtpd_discard_ehlo_keywords=8bitmime,smtputf8,chunking,pipelining,dsn,size,etrn,vrfy\n", nil)
	return addr, basic
}

// freeAddr finds a loopback port for a program that cannot choose one itself.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
