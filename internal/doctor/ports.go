package doctor

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"postrider/internal/relay"
)

const (
	dialTime  = 8 * time.Second
	replyTime = 5 * time.Second
	replySize = 2048 // of one greeting
)

// port25 looks whether mail can get out.
func (d *Doctor) port25(ctx context.Context) []relay.Finding {
	if len(d.config.Probes) == 0 {
		return []relay.Finding{{Check: "outbound", Status: relay.Unknown, Text: "Connections to port 25 of others were not tried: no server is named for that.",
			Advice: "Name some in [doctor] probe."}}
	}
	results := make([]relay.Finding, len(d.config.Probes))
	var wg sync.WaitGroup
	for i, p := range d.config.Probes {
		wg.Go(func() { results[i] = d.probe(ctx, p) })
	}
	wg.Wait()
	for _, r := range results {
		if r.Status != relay.Bad { // others may be away; one that answers shows that the way is open
			return soften(results)
		}
	}
	for i := range results {
		results[i].Advice = "Most likely the provider of this machine blocks port 25 on the way out. Ask for it to be opened, or send by a smart host ([[route]] with domain = \"*\")."
		if d.config.Smarthost {
			results[i].Advice = "See that the smart host runs, and that no firewall is in between."
		}
	}
	return results
}

// soften takes single failures for what they are when others go well.
func soften(found []relay.Finding) []relay.Finding {
	for i := range found {
		if found[i].Status == relay.Bad {
			found[i].Status, found[i].Text = relay.Warning, found[i].Text+" Others can be reached."
		}
	}
	return found
}

func (d *Doctor) probe(ctx context.Context, p Probe) relay.Finding {
	f := relay.Finding{Check: "outbound", Name: p.Address}
	conn, err := d.dialOut(ctx, p.Address)
	if err != nil {
		f.Status, f.Text = relay.Bad, "No connection: "+brief(err)+"."
		return f
	}
	defer conn.Close()
	f.Status, f.Text = relay.Good, "It can be reached."
	if p.Mute {
		return f
	}
	line, err := greeting(conn, bufio.NewReader(io.LimitReader(conn, replySize)))
	f.Found = []string{line}
	switch {
	case err != nil:
		f.Status, f.Found, f.Text = relay.Warning, nil, "The connection is there, but no greeting comes: "+brief(err)+". Something in between may hold it up."
	case strings.HasPrefix(line, "220"):
		f.Text = "It can be reached, and greets."
	case strings.HasPrefix(line, "4") || strings.HasPrefix(line, "5"):
		f.Status, f.Text, f.Advice = relay.Warning, "It can be reached, but does not want this address.", "Its answer mostly says why."
	default:
		f.Status, f.Text = relay.Warning, "Something answers that is no mail server."
	}
	return f
}

// dialOut connects from the address that mail leaves from.
func (d *Doctor) dialOut(ctx context.Context, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addrs, err := d.dns.Addrs(ctx, host)
	if err != nil {
		return nil, err
	}
	var last error
	for _, a := range addrs[:min(len(addrs), 4)] {
		dialer := net.Dialer{Timeout: dialTime}
		for _, s := range d.config.Source {
			if s.Is4() == a.Is4() {
				dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(s, 0))
			}
		}
		conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(a.String(), port))
		if err == nil {
			return conn, nil
		}
		last = err
	}
	return nil, last
}

// greeting reads the last line of a reply.
func greeting(conn net.Conn, r *bufio.Reader) (string, error) {
	if err := conn.SetReadDeadline(time.Now().Add(replyTime)); err != nil {
		return "", err
	}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		if line = strings.TrimRight(line, "\r\n"); len(line) < 4 || line[3] != '-' {
			return clip(line), nil
		}
	}
}

// brief is a network error without addresses.
func brief(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		if op.Timeout() {
			return "no answer in time"
		}
		err = op.Err
	}
	if errors.Is(err, io.EOF) {
		return "it hangs up"
	}
	return strings.TrimSuffix(err.Error(), ".")
}

// listeners looks whether mail can get in, from this machine, and what
// certificate clients meet.
func (d *Doctor) listeners(ctx context.Context) []relay.Finding {
	var out []relay.Finding
	var cert *x509.Certificate
	var chain []*x509.Certificate
	for _, l := range d.config.Listeners {
		f, found := d.enter(ctx, l)
		out = append(out, f)
		if cert == nil && len(found) > 0 {
			cert, chain = found[0], found[1:]
		}
	}
	if cert != nil {
		out = append(out, d.certificate(cert, chain))
	}
	return out
}

// enter connects to a listener, and goes as far as TLS.
func (d *Doctor) enter(ctx context.Context, l Listener) (relay.Finding, []*x509.Certificate) {
	f := relay.Finding{Check: "listener", Name: cmp.Or(l.Name, l.Address)}
	bad := func(what string, err error) (relay.Finding, []*x509.Certificate) {
		f.Status, f.Text = relay.Bad, what+": "+brief(err)+"."
		f.Advice = "Look into the server's log, and whether it runs at all."
		return f, nil
	}
	dialer := net.Dialer{Timeout: dialTime}
	conn, err := dialer.DialContext(ctx, "tcp", here(l.Address))
	if err != nil {
		return bad("The port does not answer on this machine", err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return bad("The port does not answer", err)
		}
	}
	f.Status, f.Text = relay.Good, "The port answers on this machine. Whether firewalls let others in can only be seen from outside."
	if l.Mute {
		return f, nil
	}
	secure := func(c net.Conn) ([]*x509.Certificate, error) {
		// It is looked at, not trusted.
		t := tls.Client(c, &tls.Config{ServerName: d.config.Hostname, InsecureSkipVerify: true, MinVersion: tls.VersionTLS10})
		err := t.HandshakeContext(ctx)
		return t.ConnectionState().PeerCertificates, err
	}
	if l.TLS {
		found, err := secure(conn)
		if err != nil {
			return bad("TLS does not work", err)
		}
		return f, found
	}
	r := bufio.NewReader(io.LimitReader(conn, 8*replySize))
	line, err := greeting(conn, r)
	if err != nil {
		return bad("The port takes connections, but does not greet", err)
	}
	if f.Found = []string{line}; !strings.HasPrefix(line, "220") {
		f.Status, f.Text, f.Advice = relay.Warning, "The port answers, but takes no mail now.", "The greeting says why."
		return f, nil
	}
	for _, command := range []string{"EHLO doctor.invalid", "STARTTLS"} {
		if _, err := io.WriteString(conn, command+"\r\n"); err != nil {
			return bad("The port hangs up", err)
		}
		if line, err = greeting(conn, r); err != nil {
			return bad("The port hangs up", err)
		}
	}
	if !strings.HasPrefix(line, "220") {
		return f, nil // a plain listener
	}
	found, err := secure(conn)
	if err != nil {
		return bad("STARTTLS does not work", err)
	}
	return f, found
}

// here is where a listener is reached from this machine.
func here(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if a, err := netip.ParseAddr(host); host == "" || err == nil && a.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// certSoon is when a certificate should long have been renewed.
const certSoon = 14 * 24 * time.Hour

// certificate judges what clients are shown.
func (d *Doctor) certificate(c *x509.Certificate, chain []*x509.Certificate) relay.Finding {
	f := relay.Finding{Check: "certificate", Name: d.config.Hostname, Found: append([]string{"until " + c.NotAfter.UTC().Format(time.DateOnly)}, c.DNSNames...)}
	now := d.now()
	pool := x509.NewCertPool()
	for _, i := range chain {
		pool.AddCert(i)
	}
	_, err := c.Verify(x509.VerifyOptions{DNSName: d.config.Hostname, Intermediates: pool, CurrentTime: now})
	var unknown x509.UnknownAuthorityError
	switch left := c.NotAfter.Sub(now); {
	case left <= 0:
		f.Status, f.Text, f.Advice = relay.Bad, "The certificate has expired.", "Renew it."
	case now.Before(c.NotBefore):
		f.Status, f.Text, f.Advice = relay.Bad, "The certificate is not valid before "+c.NotBefore.UTC().Format(time.RFC3339)+".", "See whether the clock of this machine is right."
	case c.VerifyHostname(d.config.Hostname) != nil:
		f.Status, f.Text, f.Expected = relay.Bad, "The certificate is not for the name of this relay.", []string{d.config.Hostname}
		f.Advice = "Get one for " + d.config.Hostname + ", or set hostname to a name that it has."
	case left < certSoon:
		f.Status, f.Text, f.Advice = relay.Warning, fmt.Sprintf("The certificate is good for %d more days.", int(left.Hours()/24)), "Renew it, or see why that has not happened by itself."
	case errors.As(err, &unknown):
		f.Status, f.Text = relay.Warning, "The certificate is not of an authority that everybody trusts: clients that verify it refuse it."
		f.Advice = "Get one by ACME, or name one in [tls]; for devices of your own, trust this one on them."
	case err != nil:
		f.Status, f.Text = relay.Warning, "The certificate does not verify: "+err.Error()+"."
	default:
		f.Status, f.Text = relay.Good, "The certificate is for this relay, and good."
	}
	return f
}
